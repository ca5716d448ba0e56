"""Puts intake together: the policy, the two group commits, the relay, and the routes."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from accord.agreements import (
    ActiveCache,
    AgreementStore,
    PaperLinks,
    agreement_collector,
    agreement_router,
    agreement_worker,
)
from accord.batching import GroupCommit
from accord.db import Database
from accord.http.idempotency import IdempotentResult, idempotency_worker
from accord.isolation import stuck_rows_collector
from accord.messaging.admin import admin_router
from accord.messaging.collectors import announced_collector
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.pruning import prune_worker as message_prune_worker
from accord.messaging.relay import Relay
from accord.messaging.relay_store import PostgresRelayStore
from accord.notifications import NotificationEngine
from accord.secrets import SecretCipher
from accord.service import Service, run
from intake.capture.api.activities import ACTIVITIES_OPENAPI, activity_routes
from intake.capture.api.answers import encode_activity, encode_capture
from intake.capture.api.submissions import SUBMISSIONS_OPENAPI, submission_routes
from intake.capture.service.capture import Capture, CaptureResult
from intake.capture.service.record import ActivityRecorder, ActivityRequest, ActivityResult
from intake.hooks.api.events import hook_event_router
from intake.hooks.api.hooks import HOOKS_OPENAPI, hook_routes
from intake.hooks.api.hooks import PREFIX as HOOKS_PREFIX
from intake.hooks.service.events import HookEvents
from intake.hooks.service.outbound import OutboundClient
from intake.hooks.service.processing import HookEventProcessor
from intake.hooks.service.receive import HookReceiver
from intake.hooks.service.source_cache import SourceCache
from intake.identity.api.accounts import account_router
from intake.identity.api.corrections import correction_router
from intake.identity.api.merges import merge_router
from intake.identity.service.correct import LeadCorrector
from intake.imports.api import IMPORTS_OPENAPI, import_router, import_routes
from intake.imports.api import PATH as IMPORTS_PATH
from intake.imports.service.imports import Imports
from intake.imports.service.upload import OpenLimits
from intake.imports.service.worker import ImportWorker, Limits, prune_worker
from intake.leads.api import lead_router
from intake.leads.service.submissions import CaptureRequest
from intake.policy.api import POLICY_EXAMPLE, quality_router
from intake.policy.service.agreement import POLICY, compile_policy
from intake.policy.service.evaluation import get_declared_attributes
from intake.policy.service.report import EffectPreviews
from intake.privacy.api import privacy_router
from intake.privacy.service.erase import PersonEraser
from intake.privacy.service.retention import Retention
from intake.quarantine.api import quarantine_router
from intake.quarantine.queries import EXPIRING
from intake.quarantine.service import Quarantine
from intake.settings import Settings
from intake.sources.api import source_router
from intake.sources.service.sources import Sources, reencryption_worker

MIGRATIONS = Path(__file__).parent / "migrations"


def build(settings: Settings) -> Service:
    """The service that these settings describe."""
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        lock_timeout_s=settings.database_lock_timeout_s,
        application_name="intake",
    )
    notifications = NotificationEngine("intake", database, settings)
    policies = AgreementStore(database, POLICY)
    evaluators = ActiveCache(policies, compile_policy)
    capture, record = Capture(database, evaluators, encode_capture), ActivityRecorder(database, encode_activity)
    erase = PersonEraser(database, evaluators)
    captures: GroupCommit[CaptureRequest, IdempotentResult[CaptureResult]] = GroupCommit(
        capture.apply,
        batch_rows_max=settings.group_rows_max,
        queue_rows_max=settings.queue_rows_max,
        name="capture",
    )
    activities: GroupCommit[ActivityRequest, IdempotentResult[ActivityResult]] = GroupCommit(
        record.apply,
        batch_rows_max=settings.group_rows_max,
        queue_rows_max=settings.queue_rows_max,
        name="activities",
    )
    imports = Imports(database, evaluators, OpenLimits(settings.imports_open_max, settings.imports_open_per_key_max))
    limits = Limits(settings.import_rows_max, settings.import_failures_max, settings.import_rows_per_s)
    quarantine = Quarantine(database, evaluators)
    kept = timedelta(days=settings.submission_retention_days)
    cipher = SecretCipher(settings.encryption_keys())
    sources = Sources(database, cipher, lambda: get_declared_attributes(evaluators))
    source_cache = SourceCache(database, cipher, sources)
    hooks = HookReceiver(database, source_cache, captures, activities, settings.body_bytes_max)
    outbound = OutboundClient(
        timeout_s=settings.outbound_timeout_s,
        bytes_max=settings.outbound_bytes_max,
        allow_private=settings.outbound_allow_private,
    )
    hook_events = HookEventProcessor(database, source_cache, capture, record, erase, outbound, kept)
    relay = Relay(PostgresRelayStore(database), KafkaLog(settings.kafka), "intake", lanes=settings.relay_lanes)

    return Service(
        name="intake",
        title="Accord intake",
        description="Leads and activities from every source, judged by the data policy that both departments sign.",
        settings=settings,
        database=database,
        migrations=MIGRATIONS,
        routes=[
            *submission_routes(database, captures),
            *activity_routes(database, activities),
            *import_routes(imports),
            *hook_routes(hooks, settings.public_base_url),
        ],
        openapi_paths={**SUBMISSIONS_OPENAPI, **ACTIVITIES_OPENAPI, **IMPORTS_OPENAPI, **HOOKS_OPENAPI},
        streamed_bytes_max={IMPORTS_PATH: settings.import_bytes_max},
        raw_body_prefixes=[HOOKS_PREFIX],  # they mend what no database holds, after verification
        routers=[
            lead_router(database),
            correction_router(LeadCorrector(database, evaluators)),
            account_router(database),
            merge_router(database),
            privacy_router(database, erase),
            quarantine_router(quarantine, kept),
            quality_router(database, evaluators, EffectPreviews(database)),
            source_router(sources),
            import_router(imports),
            hook_event_router(HookEvents(database)),
            agreement_router(policies, PaperLinks(settings.encryption_keys()), example=POLICY_EXAMPLE),
            notifications.router(),
            admin_router(database, {}),
        ],
        documents=[policies],
        api_workers=[captures, activities],
        relays=[relay],
        workers=[
            agreement_worker(policies),
            idempotency_worker(database),
            Retention(database, quarantine, kept).worker(),
            *hook_events.workers(),
            ImportWorker(database, capture, evaluators, imports.arrived, limits),
            prune_worker(database, settings.import_results_days),
            message_prune_worker(database),
            *notifications.workers(),
            reencryption_worker(sources),
        ],
        collectors=[
            hook_events.collector(),
            announced_collector(relay),
            stuck_rows_collector(database, [EXPIRING]),
            agreement_collector(policies),
            notifications.collector(),
        ],
        close=outbound.close,
    )


if __name__ == "__main__":
    sys.exit(run(build, settings=Settings))
