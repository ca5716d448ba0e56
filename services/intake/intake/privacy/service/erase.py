"""Erases a person in one transaction: every row that holds something of them goes, an id that says so stays, and the others are told."""

from __future__ import annotations

from uuid import UUID

import structlog

from accord.agreements import ActiveCache
from accord.db import Database, driver_of
from accord.http import idempotency
from accord.http.problems import not_found
from accord.ids import new_id
from intake.leads.service.family import absent
from intake.leads.service.ledger import tried
from intake.metric_names import ERASED
from intake.policy.domain.judge import Judge
from intake.privacy.domain import Proof, Reason, farewells
from intake.privacy.queries import erasures

log = structlog.get_logger(__name__)


class Erase:
    """The use case."""

    def __init__(self, database: Database, policies: ActiveCache[Judge]) -> None:
        self._database = database
        self._policies = policies

    async def erase(self, lead_id: UUID, reason: Reason, caller: str) -> Proof:
        """Erase whoever lives under this id, with all leads that were merged into theirs. Raises Problem 404, or 410 the second time."""
        proof = await tried(lambda: self._erase(lead_id, reason, caller))
        ERASED.labels(reason).inc()
        # By whom and how much; the ids are in the proof.
        log.info(
            "person_erased",
            erasure_id=str(proof.erasure_id),
            caller=caller,
            reason=reason,
            leads_count=len(proof.lead_ids),
        )
        return proof

    async def _erase(self, lead_id: UUID, reason: Reason, caller: str) -> Proof:
        in_force = await self._policies.current()
        async with self._database.recording() as recording:
            driver = await recording.driver()
            await erasures.alone(driver, lead_id)
            found = await erasures.find(driver, lead_id)
            if found is None:
                raise await absent(driver, lead_id)
            # Saved answers before keys before leads, as those take their locks who capture.
            answers = await idempotency.erase(recording.conn, found[0])
            person = await erasures.lock(driver, *found)
            said = await erasures.submissions(driver, person)
            answers += await idempotency.erase(recording.conn, [*person.lead_ids, *said.all, *said.leads_once])
            removed = {"saved_answers": answers} | await erasures.remove(driver, person, said)
            proof = Proof(
                new_id(),
                tuple(person.lead_ids),
                reason,
                caller,
                in_force[0] if in_force else None,
                {name: count for name, count in removed.items() if count},
                recording.now,
            )
            await erasures.bury(driver, proof, said.waiting)
            recording.publish(*farewells(person.leads.values(), recording.now))
            return proof

    async def proof(self, erasure_id: UUID) -> Proof:
        """One proof. Raises Problem 404."""
        async with self._database.reading() as conn:
            found = await erasures.one(await driver_of(conn), erasure_id)
        if found is None:
            raise not_found("erasure")
        return found

    async def proofs(self, after: UUID | None, rows_max: int) -> list[Proof]:
        """Proofs, newest first."""
        async with self._database.reading() as conn:
            return await erasures.page(await driver_of(conn), after, rows_max)
