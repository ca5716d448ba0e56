"""The composition root: settings → database → routes and workers. `python -m qualification.main api|worker|all|migrate`."""

from __future__ import annotations

import sys
from pathlib import Path

from accord.agreements import AgreementStore, agreement_router, agreement_worker
from accord.contracts.topics import INTAKE_EVENTS
from accord.database import Database
from accord.http.idempotency import idempotency_worker
from accord.messaging import dead_letters
from accord.messaging.consumer import Consumer
from accord.messaging.relay import Relay
from accord.service import Service, run
from qualification import handlers
from qualification.api import decisions, leads
from qualification.api.examples import DEFINITION
from qualification.settings import Settings
from qualification.usecases.definitions import KIND, Definitions
from qualification.usecases.enter import entering

GROUP = "qualification"
MIGRATIONS = Path(__file__).parent / "migrations"


def build(settings: Settings) -> Service:
    """The service that these settings describe. Opens no connection yet."""
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        lock_timeout_s=settings.database_lock_timeout_s,
        application_name="qualification",
    )
    store = AgreementStore(database, KIND)
    definitions = Definitions(store)
    handle = handlers.intake_events(definitions)
    consumer = Consumer(
        database,
        settings.kafka,
        group=GROUP,
        topics=[INTAKE_EVENTS],
        handle=handle,
        batch_rows_max=settings.consumer_batch_rows_max,
    )
    return Service(
        name="qualification",
        title="Accord qualification",
        description="Moves leads through the stages that marketing and sales agreed on, and says why.",
        settings=settings,
        database=database,
        migrations=MIGRATIONS,
        routers=[
            leads.router(database, definitions),
            decisions.router(database, definitions),
            agreement_router(store, example=DEFINITION),
            dead_letters.router(database, {GROUP: handle}),
        ],
        workers=[
            Relay(database, settings.kafka, "qualification", consumed=(INTAKE_EVENTS,)),
            consumer,
            agreement_worker(store),
            entering(database, definitions),
            idempotency_worker(database),
        ],
    )


if __name__ == "__main__":
    sys.exit(run(build, settings=Settings))
