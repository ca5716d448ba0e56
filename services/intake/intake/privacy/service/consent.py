"""What a person has said of consent: its history, and one more thing said, such as that it is withdrawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from accord.contracts.intake_events import ActivityRecorded
from accord.db import Database, UnitOfWork, connection_of
from accord.http.idempotency import Answer, IdempotencyRequest, IdempotentResult, execute_once
from accord.ids import new_id
from intake.leads.domain.consent import WITHDRAWAL, WITHDRAWN, Consent, given_at, in_force
from intake.leads.domain.lead import Lead
from intake.leads.domain.submission import ActivityIn, is_ahead
from intake.leads.queries import activities, consents
from intake.leads.queries import leads as lead_queries
from intake.leads.service.family import family_of
from intake.leads.service.ledger import tried
from intake.leads.service.person import ahead_of_time, unfit_submission


@dataclass(frozen=True, slots=True)
class ConsentStatement:
    """One thing said of consent, as somebody writes it down."""

    basis: str
    given_at: datetime | None
    text: str | None


class Written(NamedTuple):
    """What was written down, and the lead that it is of."""

    lead_id: UUID
    consent: Consent


async def record(
    database: Database,
    lead_id: UUID,
    said: ConsentStatement,
    caller: str,
    idempotency_request: IdempotencyRequest | None,
    encode: Callable[[Written], Answer],
) -> IdempotentResult[Written]:
    """Write down what was said. A withdrawal is told to the others as an activity of the lead. Raises Problem 404, 410 or 422."""

    async def attempt() -> IdempotentResult[Written]:
        async with database.write_transaction() as unit_of_work:
            return await execute_once(
                unit_of_work, idempotency_request, lambda: _record(unit_of_work, lead_id, said, caller), encode
            )

    return await tried(attempt)


async def history(
    database: Database, lead_id: UUID, after: tuple[datetime, UUID] | None, rows_max: int
) -> tuple[list[Consent], Consent | None]:
    """What was said, in the order in which it was given, and what holds now. Raises Problem 404 or 410."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        ids = await family_of(connection, lead_id)
        page = await consents.page(connection, ids, after, rows_max)
        return page, in_force(await consents.newest(connection, ids))


async def _record(unit_of_work: UnitOfWork, lead_id: UUID, said: ConsentStatement, caller: str) -> Written:
    if is_ahead(said.given_at, unit_of_work.now):
        raise unfit_submission(ahead_of_time("given_at"))
    connection, now = await unit_of_work.connection(), unit_of_work.now
    lead = await _locked(unit_of_work, lead_id)
    when = given_at(said.given_at, now, now)
    row = consents.Row(lead.lead_id, new_id(), None, None, caller, said.basis, said.text, when)
    await consents.insert(connection, [row], now)
    if said.basis == WITHDRAWN:
        await _publish_withdrawal(unit_of_work, lead, caller, when)
    return Written(lead.lead_id, Consent(row.consent_id, row.basis, when, now, caller, row.text))


async def _locked(unit_of_work: UnitOfWork, lead_id: UUID) -> Lead:
    """The lead that lives under this id, locked; it may be merged while it is looked for."""
    connection = await unit_of_work.connection()
    (root, *_) = await family_of(connection, lead_id)
    lead = (await lead_queries.lock_leads(connection, [root])).get(root)
    if lead is None or lead.merged_into is not None:
        raise lead_queries.Moved
    return lead


async def _publish_withdrawal(unit_of_work: UnitOfWork, lead: Lead, caller: str, when: datetime) -> None:
    connection = await unit_of_work.connection()
    lead = replace(lead, sequence=lead.sequence + 1)
    activity = ActivityIn(lead_id=lead.lead_id, kind=WITHDRAWAL, by="lead", occurred_at=when)
    row = activities.Row(lead.lead_id, new_id(), activity, caller, when)
    await lead_queries.save_sequences(connection, [lead])
    await activities.save(connection, [row], unit_of_work.now)
    unit_of_work.publish(
        ActivityRecorded(
            lead_id=lead.lead_id,
            sequence=lead.sequence,
            occurred_at=when,
            recorded_at=unit_of_work.now,
            activity_id=row.activity_id,
            kind=WITHDRAWAL,
            by="lead",
        )
    )
