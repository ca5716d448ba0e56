"""What operators see of work in the background: leads that wait for somebody, and how far a new version has come. It changes nothing."""

from __future__ import annotations

from accord.collectors import Collector
from accord.db import Database, connection_of
from qualification.lifecycle.service.reevaluation import get_progress
from qualification.metric_names import (
    LEADS_WAITING,
    LEADS_WAITING_AGE_S,
    REEVALUATION_CHANGED,
    REEVALUATION_LEADS,
    REEVALUATION_PROCESSED,
    REEVALUATION_RUNNING,
    REEVALUATION_VERSION,
)
from qualification.routing.queries import assignments


def waiting_collector(database: Database) -> Collector:
    """Leads that wait for somebody."""

    async def collect() -> None:
        async with database.read_transaction() as conn:
            measure_waiting = await assignments.measure_waiting(await connection_of(conn))
        for wait, (count, age_s) in measure_waiting.items():
            LEADS_WAITING.labels(wait).set(count)
            LEADS_WAITING_AGE_S.labels(wait).set(age_s)

    return Collector(name="leads-waiting", gauges=[LEADS_WAITING, LEADS_WAITING_AGE_S], collect=collect)


def reevaluation_collector(database: Database) -> Collector:
    """How far a new version has come."""

    async def collect() -> None:
        found = await get_progress(database)
        REEVALUATION_VERSION.set(found.version if found else 0)
        REEVALUATION_LEADS.set(found.leads if found else 0)
        REEVALUATION_PROCESSED.set(found.processed if found else 0)
        REEVALUATION_CHANGED.set(found.changed if found else 0)
        REEVALUATION_RUNNING.set(found is not None and found.done_at is None)

    gauges = [
        REEVALUATION_VERSION,
        REEVALUATION_LEADS,
        REEVALUATION_PROCESSED,
        REEVALUATION_CHANGED,
        REEVALUATION_RUNNING,
    ]
    return Collector(name="reevaluation", gauges=gauges, collect=collect)
