"""The composition root: settings → database → routes and workers. `python -m sla_monitor.main api|worker|all|migrate`."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from accord.agreements import AgreementStore, agreement_router, agreement_worker
from accord.database import Database
from accord.http.idempotency import idempotency_worker
from accord.isolation import stuck_rows_worker
from accord.messaging import dead_letters
from accord.messaging.consumer import Consumer
from accord.messaging.relay import Relay
from accord.service import Service, run
from sla_monitor import handlers
from sla_monitor.api import calendars, clocks
from sla_monitor.api.examples import SLA
from sla_monitor.queries import due
from sla_monitor.settings import Settings
from sla_monitor.usecases.agreements import KIND, SlaBook
from sla_monitor.usecases.fire import firing, forgetting
from sla_monitor.usecases.follow import CONSUMED

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
    store = AgreementStore(database, KIND)
    book = SlaBook(store)
    handle = handlers.lead_events(book)
    return Service(
        name="sla-monitor",
        title="Accord SLA monitor",
        description="Runs the clocks of what marketing and sales promised each other, and keeps one ledger of breaches.",
        settings=settings,
        database=database,
        migrations=MIGRATIONS,
        routers=[
            clocks.router(database),
            calendars.router(database, book),
            agreement_router(store, example=SLA),
            dead_letters.router(database, {GROUP: handle}),
        ],
        workers=[
            Relay(database, settings.kafka, "sla-monitor", consumed=CONSUMED),
            Consumer(
                database,
                settings.kafka,
                group=GROUP,
                topics=CONSUMED,
                handle=handle,
                batch_rows_max=settings.consumer_batch_rows_max,
            ),
            firing(database, book, settings.fire_every_s),
            forgetting(database, timedelta(days=settings.facts_kept_days)),
            stuck_rows_worker(database, [due.FIRING, due.JUDGING]),
            agreement_worker(store),
            idempotency_worker(database),
        ],
    )


if __name__ == "__main__":
    sys.exit(run(build, settings=Settings))
