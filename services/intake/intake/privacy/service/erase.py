"""Erases a person in one transaction: every row that holds something of them goes, an id that says so stays, and the others are told."""

from __future__ import annotations

from uuid import UUID

import structlog

from accord.agreements import ActiveCache
from accord.db import Database, connection_of
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
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            await erasures.alone(connection, lead_id)
            found = await erasures.find(connection, lead_id)
            if found is None:
                raise await absent(connection, lead_id)
            # Saved answers before keys before leads, as those take their locks who capture.
            answers = await idempotency.erase(unit_of_work.conn, found[0])
            person = await erasures.lock(connection, *found)
            said = await erasures.submissions(connection, person)
            answers += await idempotency.erase(unit_of_work.conn, [*person.lead_ids, *said.all, *said.leads_once])
            removed = {"saved_answers": answers} | await erasures.remove(connection, person, said)
            proof = Proof(
                new_id(),
                tuple(person.lead_ids),
                reason,
                caller,
                in_force[0] if in_force else None,
                {name: count for name, count in removed.items() if count},
                unit_of_work.now,
            )
            await erasures.bury(connection, proof, said.waiting)
            unit_of_work.publish(*farewells(person.leads.values(), unit_of_work.now))
            return proof

    async def proof(self, erasure_id: UUID) -> Proof:
        """One proof. Raises Problem 404."""
        async with self._database.read_transaction() as conn:
            found = await erasures.fetch_proof(await connection_of(conn), erasure_id)
        if found is None:
            raise not_found("erasure")
        return found

    async def proofs(self, after: UUID | None, rows_max: int) -> list[Proof]:
        """Proofs, newest first."""
        async with self._database.read_transaction() as conn:
            return await erasures.page(await connection_of(conn), after, rows_max)
