"""The composition root: settings → database → routes and workers. `python -m sla_monitor.main ROLE`, see accord.service."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from accord.agreements import AgreementStore, PaperLinks, agreement_collector, agreement_router, agreement_worker
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
from sla_monitor import handlers
from sla_monitor.api import calendars, clocks, statement
from sla_monitor.api.examples import SLA
from sla_monitor.queries import due
from sla_monitor.settings import Settings
from sla_monitor.usecases.agreements import KIND, SlaVersionCache
from sla_monitor.usecases.fire import fire_worker, prune_facts_worker
from sla_monitor.usecases.judge_periods import periods_worker
from sla_monitor.usecases.process_events import CONSUMED

GROUP = "sla-monitor"
MIGRATIONS = Path(__file__).parent / "migrations"


def build(settings: Settings) -> Service:
    """The service that these settings describe. Opens no connection yet."""
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        lock_timeout_s=settings.database_lock_timeout_s,
        application_name="sla-monitor",
    )
    notifications = NotificationEngine("sla-monitor", database, settings)
    store = AgreementStore(database, KIND)
    sla_cache = SlaVersionCache(store)
    event_log = KafkaLog(settings.kafka)
    watermarks = WatermarkReader(event_log, consumer=GROUP, topics=CONSUMED)
    handle = handlers.build_handler(sla_cache, watermarks)
    relay = Relay(
        PostgresRelayStore(database, due.OWED, due.HELD, [due.FIRE_WORKER, due.EVALUATE_WORKER]),
        event_log,
        "sla-monitor",
        Consumed(watermarks.board, CONSUMED, [GROUP]),
        lanes=settings.relay_lanes,
        idle_announce_every_s=10.0,
        is_waited_for=False,
    )
    return Service(
        name="sla-monitor",
        title="Accord SLA monitor",
        description="Runs the clocks of the SLA between marketing and sales, and keeps one ledger of breaches.",
        settings=settings,
        database=database,
        migrations=MIGRATIONS,
        routers=[
            clocks.router(database, sla_cache),
            calendars.router(database, store, sla_cache),
            statement.router(database, sla_cache),
            agreement_router(store, PaperLinks(settings.encryption_keys()), example=SLA),
            notifications.router(),
            admin_router(database, {GROUP: handle}),
        ],
        documents=[store],
        relays=[watermarks, relay],
        workers=[
            watermarks,
            Consumer(
                PostgresConsumerStore(database, GROUP),
                event_log,
                group=GROUP,
                topics=CONSUMED,
                handle=handle,
                progress=watermarks,
                batch_rows_max=settings.consumer_batch_rows_max,
            ),
            fire_worker(database, sla_cache, watermarks, settings.fire_every_s),
            periods_worker(database, sla_cache, watermarks),
            prune_facts_worker(database, timedelta(days=settings.facts_retention_days)),
            agreement_worker(store),
            idempotency_worker(database),
            prune_worker(database),
            *notifications.workers(),
        ],
        collectors=[
            announced_collector(relay),
            consumed_collector(database, watermarks),
            dead_letter_collector(database),
            stuck_rows_collector(database, [due.FIRE_WORKER, due.EVALUATE_WORKER]),
            agreement_collector(store),
            notifications.collector(),
        ],
    )


if __name__ == "__main__":
    sys.exit(run(build, settings=Settings))
