"""The composition root: the projections' consumer, the plan, and the reports over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path

from accord.agreements import AgreementStore, PaperLinks, agreement_collector, agreement_router, agreement_worker
from accord.db import Database
from accord.http.idempotency import idempotency_worker
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
from metrics.api.attribution import attribution_router
from metrics.api.diagnosis import diagnosis_router
from metrics.api.funnel import funnel_router
from metrics.api.pipeline import pipeline_router
from metrics.api.plan_progress import plan_progress_router
from metrics.api.timeline import timeline_router
from metrics.api.velocity import velocity_router
from metrics.handlers import CONSUMED, GROUP, handle
from metrics.settings import Settings
from metrics.usecases.plan_agreement import PLAN

MIGRATIONS = Path(__file__).parent / "migrations"

PLAN_EXAMPLE = {
    "kind": "plan",
    "title": "One plan",
    "period": {"from": "2027-01-01", "to": "2027-12-31", "timezone": "America/Chicago"},
    "revenue": {"amount": "5000000", "currency": "USD"},
    "average_deal": {"amount": "25000", "currency": "USD"},
    "funnel": [
        {"stage": "inquiry"},
        {"stage": "mql", "conversion": 0.25, "days": 7},
        {"stage": "won", "conversion": 0.06, "days": 60},
    ],
    "goals": [{"key": "mqls", "department": "marketing", "measure": {"entered": "mql"}, "per": "month"}],
}


def build(settings: Settings) -> Service:
    """The service that these settings describe."""
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        lock_timeout_s=settings.database_lock_timeout_s,
        application_name="metrics",
    )
    notifications = NotificationEngine("metrics", database, settings)
    plans = AgreementStore(database, PLAN)
    event_log = KafkaLog(settings.kafka)
    watermarks = WatermarkReader(event_log, consumer=GROUP, topics=CONSUMED)
    relay = Relay(
        PostgresRelayStore(database),
        event_log,
        "metrics",
        Consumed(watermarks.board, CONSUMED, [GROUP]),
        lanes=settings.relay_lanes,
        idle_announce_every_s=10.0,
        is_waited_for=False,
    )
    return Service(
        name="metrics",
        title="Accord metrics",
        description="Funnel, velocity and timeline of leads, and the plan that both departments sign.",
        settings=settings,
        database=database,
        migrations=MIGRATIONS,
        routers=[
            funnel_router(database),
            velocity_router(database),
            pipeline_router(database),
            attribution_router(database),
            timeline_router(database),
            plan_progress_router(database, plans),
            diagnosis_router(database, plans),
            agreement_router(plans, PaperLinks(settings.encryption_keys()), example=PLAN_EXAMPLE),
            notifications.router(),
            admin_router(database, {GROUP: handle}),
        ],
        documents=[plans],
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
            agreement_worker(plans),
            idempotency_worker(database),
            prune_worker(database),
            *notifications.workers(),
        ],
        collectors=[
            announced_collector(relay),
            consumed_collector(database, watermarks),
            dead_letter_collector(database),
            agreement_collector(plans),
            notifications.collector(),
        ],
    )


if __name__ == "__main__":
    sys.exit(run(build, settings=Settings))
