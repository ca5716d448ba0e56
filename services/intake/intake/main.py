"""Puts intake together: the policy, the two group commits, the relay, and the routes."""

from __future__ import annotations

import sys
from pathlib import Path

from accord.agreements import ActiveCache, AgreementStore, agreement_router, agreement_worker
from accord.batching import GroupCommit
from accord.database import Database
from accord.http.idempotency import Answer, idempotency_worker
from accord.messaging import dead_letters
from accord.messaging.relay import Relay
from accord.service import Service, run
from intake.api.accounts import account_router
from intake.api.activities import ACTIVITIES_OPENAPI, activity_routes
from intake.api.examples import POLICY_EXAMPLE
from intake.api.leads import lead_router
from intake.api.merges import merge_router
from intake.api.quality import quality_router
from intake.api.submissions import SUBMISSIONS_OPENAPI, submission_routes
from intake.settings import Settings
from intake.usecases.agree import POLICY, judge_of
from intake.usecases.capture import Capture, CaptureRequest
from intake.usecases.correct import Correct
from intake.usecases.record import ActivityRequest, Record

MIGRATIONS = Path(__file__).parent / "migrations"


def build(settings: Settings) -> Service:
    """The service that these settings describe."""
    database = Database(
        settings.database_url.get_secret_value(), pool_size=settings.database_pool_size, application_name="intake"
    )
    policies = AgreementStore(database, POLICY)
    judges = ActiveCache(policies, judge_of)
    captures: GroupCommit[CaptureRequest, Answer] = GroupCommit(
        Capture(database, judges).apply,
        batch_rows_max=settings.group_rows_max,
        queue_rows_max=settings.queue_rows_max,
        name="capture",
    )
    activities: GroupCommit[ActivityRequest, Answer] = GroupCommit(
        Record(database).apply,
        batch_rows_max=settings.group_rows_max,
        queue_rows_max=settings.queue_rows_max,
        name="activities",
    )
    return Service(
        name="intake",
        title="Accord intake",
        description="Leads and activities from every source, judged by the data policy that both departments sign.",
        settings=settings,
        database=database,
        migrations=MIGRATIONS,
        routes=[*submission_routes(captures), *activity_routes(activities)],
        openapi_paths={**SUBMISSIONS_OPENAPI, **ACTIVITIES_OPENAPI},
        routers=[
            lead_router(database, Correct(database, judges)),
            account_router(database),
            merge_router(database),
            quality_router(database, judges),
            agreement_router(policies, example=POLICY_EXAMPLE),
            dead_letters.router(database, {}),
        ],
        api_workers=[captures, activities],
        workers=[Relay(database, settings.kafka, "intake"), agreement_worker(policies), idempotency_worker(database)],
    )


if __name__ == "__main__":
    sys.exit(run(build, settings=Settings))
