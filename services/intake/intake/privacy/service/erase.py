"""Erases a person in one transaction: every row about them goes, an id that says so stays, and the other services are notified."""

from __future__ import annotations

from uuid import UUID

import structlog

from accord.agreements import ActiveCache
from accord.db import Database, connection_of
from accord.http import idempotency
from accord.http.problems import not_found
from accord.ids import new_id
from intake.leads.service.merge_group import make_not_found
from intake.leads.service.unit_of_work import retry_on_conflict
from intake.metric_names import ERASED
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.privacy.domain import ErasureRecord, Reason, build_erased_events
from intake.privacy.queries import erasures
from intake.quarantine.service import Quarantine

log = structlog.get_logger(__name__)


class PersonEraser:
    """The use case."""

    def __init__(self, database: Database, policies: ActiveCache[PolicyEvaluator]) -> None:
        self._database = database
        self._policies = policies
        self._quarantine = Quarantine(database, policies)

    async def erase(self, lead_id: UUID, reason: Reason, caller: str) -> ErasureRecord:
        """Erase the person under this id, with all leads that were merged into theirs. Raises Problem 404, or 410 the second time."""
        erasure = await retry_on_conflict(lambda: self._erase(lead_id, reason, caller))
        ERASED.labels(reason).inc()
        # By whom and how much; the ids are in the record.
        log.info(
            "person_erased",
            erasure_id=str(erasure.erasure_id),
            caller=caller,
            reason=reason,
            leads_count=len(erasure.lead_ids),
        )
        return erasure

    async def _erase(self, lead_id: UUID, reason: Reason, caller: str) -> ErasureRecord:
        active_policy = await self._policies.current()
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            await erasures.lock_erasure(connection, lead_id)
            found = await erasures.find_person(connection, lead_id)
            if found is None:
                raise await make_not_found(connection, lead_id)
            # Saved answers before keys before leads, as those take their locks who capture.
            answers = await idempotency.erase(unit_of_work.conn, found[0])
            person = await erasures.lock_person(connection, *found)
            submissions = await erasures.submissions(connection, person)
            answers += await idempotency.erase(
                unit_of_work.conn, [*person.lead_ids, *submissions.all, *submissions.former_lead_ids]
            )
            await self._quarantine.withdraw(unit_of_work, submissions.waiting_elsewhere, active_policy, caller)
            removed = {"saved_answers": answers} | await erasures.delete_person(connection, person, submissions)
            erasure = ErasureRecord(
                new_id(),
                tuple(person.lead_ids),
                reason,
                caller,
                active_policy[0] if active_policy else None,
                {name: count for name, count in removed.items() if count},
                unit_of_work.now,
            )
            await erasures.save_erasure(connection, erasure, submissions.waiting)
            unit_of_work.publish(*build_erased_events(person.leads.values(), unit_of_work.now))
            return erasure

    async def get_erasure(self, erasure_id: UUID) -> ErasureRecord:
        """One erasure. Raises Problem 404."""
        async with self._database.read_transaction() as conn:
            found = await erasures.find_erasure(await connection_of(conn), erasure_id)
        if found is None:
            raise not_found("erasure")
        return found

    async def list_erasures(self, after: UUID | None, rows_max: int) -> list[ErasureRecord]:
        """Erasures, newest first."""
        async with self._database.read_transaction() as conn:
            return await erasures.page(await connection_of(conn), after, rows_max)
