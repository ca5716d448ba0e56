"""The composition root: settings → database → routes and workers. `python -m qualification.main ROLE`, see accord.service."""

from __future__ import annotations

import sys
from pathlib import Path

from accord.agreements import AgreementStore, PaperLinks, agreement_collector, agreement_router, agreement_worker
from accord.contracts.topics import AWAITED_TOPICS, INTAKE_EVENTS, SLA_EVENTS
from accord.db import Database
from accord.http.idempotency import idempotency_worker
from accord.isolation import stuck_rows_collector
from accord.messaging.admin import admin_router
from accord.messaging.collectors import announced_collector, consumed_collector, dead_letter_collector
from accord.messaging.consumer import Consumer
from accord.messaging.consumer_store import PostgresConsumerStore
from accord.messaging.frontier import Consumed
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.pruning import prune_worker
from accord.messaging.relay import Relay
from accord.messaging.relay_store import PostgresRelayStore
from accord.messaging.watermark_reader import WatermarkReader
from accord.notifications import NotificationEngine
from accord.service import Service, run
from qualification import handlers
from qualification.analysis.api import feedback, what_if
from qualification.analysis.service.what_if import what_if_worker
from qualification.definition.api import DEFINITION
from qualification.definition.service import KIND, DefinitionVersionCache
from qualification.lifecycle.api import decisions, leads, reevaluation
from qualification.lifecycle.queries import leads as stored_leads
from qualification.lifecycle.queries import reevaluations
from qualification.lifecycle.service.entry import entry_worker
from qualification.lifecycle.service.evaluation_context import EvaluationContexts
from qualification.lifecycle.service.reevaluation import reevaluation_worker
from qualification.lifecycle.service.time_triggers import time_trigger_worker
from qualification.measure import reevaluation_collector, waiting_collector
from qualification.routing.api import assignments, document
from qualification.routing.queries import assignments as stored_assignments
from qualification.routing.service.assignment import assign_after_save
from qualification.routing.service.document import RoutingVersionCache
from qualification.routing.service.waiting_leads import assignment_worker
from qualification.settings import Settings

GROUP = "qualification"
BREACHES_GROUP = "qualification-breaches"
BACKDATING_WORKERS = [stored_leads.TIME_TRIGGER_WORKER, stored_leads.ENTRY_WORKER, reevaluations.REEVALUATION_WORKER]
"""The workers that walk many leads, of which one that raises rests, and that publish events of the past."""

PRESENT_TIME_WORKERS = [stored_assignments.ASSIGNMENT_WORKER]
"""Those that publish events of the present: nothing of a lead that rests is missing before a watermark."""

MIGRATIONS = Path(__file__).parent / "migrations"


def build(settings: Settings) -> Service:
    """The service that these settings describe. Opens no connection yet."""
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        lock_timeout_s=settings.database_lock_timeout_s,
        application_name="qualification",
    )
    notifications = NotificationEngine("qualification", database, settings)
    store = AgreementStore(database, KIND)
    routing_cache = RoutingVersionCache(database)
    definitions = DefinitionVersionCache(store)
    contexts = EvaluationContexts(definitions, assign_after_save(routing_cache))
    handle = handlers.intake_events(contexts)
    handle_breaches = handlers.sla_events(routing_cache, definitions)
    event_log = KafkaLog(settings.kafka)
    watermarks = WatermarkReader(event_log, consumer=GROUP, topics=AWAITED_TOPICS["qualification"])
    consumer = Consumer(
        PostgresConsumerStore(database, GROUP),
        event_log,
        group=GROUP,
        topics=[INTAKE_EVENTS],
        handle=handle,
        progress=watermarks,
        batch_rows_max=settings.consumer_batch_rows_max,
    )
    breaches = Consumer(
        PostgresConsumerStore(database, BREACHES_GROUP),
        event_log,
        group=BREACHES_GROUP,
        topics=[SLA_EVENTS],
        handle=handle_breaches,
        batch_rows_max=settings.consumer_batch_rows_max,
    )
    relay = Relay(
        PostgresRelayStore(database, stored_leads.EARLIEST_PENDING, stored_leads.WITH_SURVIVORS, BACKDATING_WORKERS),
        event_log,
        "qualification",
        Consumed(watermarks.board, watermarks.topics, [GROUP]),
        lanes=settings.relay_lanes,
    )

    def busy() -> bool:
        return consumer.waiting or breaches.waiting or relay.behind

    return Service(
        name="qualification",
        title="Accord qualification",
        description="Moves leads through the stages that marketing and sales agreed on, and says why.",
        settings=settings,
        database=database,
        migrations=MIGRATIONS,
        routers=[
            leads.router(database, definitions),
            decisions.router(database, contexts),
            reevaluation.router(database),
            what_if.router(database, store),
            feedback.router(database, definitions),
            document.router(database, definitions, routing_cache),
            assignments.router(database, definitions, routing_cache),
            agreement_router(store, PaperLinks(settings.encryption_keys()), example=DEFINITION),
            notifications.router(),
            admin_router(database, {GROUP: handle, BREACHES_GROUP: handle_breaches}),
        ],
        documents=[store, routing_cache],
        relays=[watermarks, relay],
        workers=[
            watermarks,
            consumer,
            breaches,
            agreement_worker(store),
            entry_worker(database, contexts),
            time_trigger_worker(database, contexts, watermarks),
            reevaluation_worker(database, contexts, busy),
            what_if_worker(database, busy),
            assignment_worker(database, routing_cache, definitions),
            idempotency_worker(database),
            prune_worker(database),
            *notifications.workers(),
        ],
        collectors=[
            waiting_collector(database),
            reevaluation_collector(database),
            announced_collector(relay),
            consumed_collector(database, watermarks),
            dead_letter_collector(database),
            agreement_collector(store),
            notifications.collector(),
            stuck_rows_collector(database, [*BACKDATING_WORKERS, *PRESENT_TIME_WORKERS]),
        ],
    )


if __name__ == "__main__":
    sys.exit(run(build, settings=Settings))
