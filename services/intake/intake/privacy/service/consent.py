"""What a person has said of consent: its history, and one more thing said, such as that it is withdrawn."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.intake_events import ActivityRecorded
from accord.db import Database, UnitOfWork, connection_of
from accord.http.idempotency import Answer, IdempotencyRequest, IdempotentResult, execute_once
from accord.ids import new_id
from intake.leads.domain.consent import WITHDRAWAL, WITHDRAWN, Consent, find_current_consent, resolve_given_at
from intake.leads.domain.lead import Lead
from intake.leads.domain.submission import ActivityIn, is_in_future
from intake.leads.queries import activities, consents
from intake.leads.queries import leads as lead_queries
from intake.leads.service.merge_group import get_merge_group
from intake.leads.service.submissions import future_time_error, invalid_submission
from intake.leads.service.unit_of_work import retry_on_conflict


class ConsentStatement(Struct, frozen=True):
    """One thing said of consent, as somebody writes it down."""

    basis: str
    given_at: datetime | None
    text: str | None


class RecordedConsent(NamedTuple):
    """What was written down, and the lead that it is of."""

    lead_id: UUID
    consent: Consent


async def record(
    database: Database,
    lead_id: UUID,
    statement: ConsentStatement,
    caller: str,
    idempotency_request: IdempotencyRequest | None,
    encode: Callable[[RecordedConsent], Answer],
) -> IdempotentResult[RecordedConsent]:
    """Write down what was said. A withdrawal is published as an activity of the lead. Raises Problem 404, 410 or 422."""

    async def attempt() -> IdempotentResult[RecordedConsent]:
        async with database.write_transaction() as unit_of_work:
            return await execute_once(
                unit_of_work, idempotency_request, lambda: _record(unit_of_work, lead_id, statement, caller), encode
            )

    return await retry_on_conflict(attempt)


async def list_consents(
    database: Database, lead_id: UUID, after: tuple[datetime, UUID] | None, rows_max: int
) -> tuple[list[Consent], Consent | None]:
    """What was said, in the order in which it was given, and what holds now. Raises Problem 404 or 410."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        ids = await get_merge_group(connection, lead_id)
        page = await consents.page(connection, ids, after, rows_max)
        return page, find_current_consent(await consents.newest(connection, ids))


async def _record(unit_of_work: UnitOfWork, lead_id: UUID, statement: ConsentStatement, caller: str) -> RecordedConsent:
    if is_in_future(statement.given_at, unit_of_work.now):
        raise invalid_submission(future_time_error("given_at"))
    connection, now = await unit_of_work.connection(), unit_of_work.now
    lead = await _lock_survivor(unit_of_work, lead_id)
    when = resolve_given_at(statement.given_at, now, now)
    row = consents.Row(lead.lead_id, new_id(), None, None, caller, statement.basis, statement.text, when)
    await consents.insert(connection, [row], now)
    if statement.basis == WITHDRAWN:
        await _publish_withdrawal(unit_of_work, lead, caller, when)
    return RecordedConsent(lead.lead_id, Consent(row.consent_id, row.basis, when, now, caller, row.text))


async def _lock_survivor(unit_of_work: UnitOfWork, lead_id: UUID) -> Lead:
    """The survivor under this id, locked; it may be merged while it is looked for."""
    connection = await unit_of_work.connection()
    (root, *_) = await get_merge_group(connection, lead_id)
    lead = (await lead_queries.lock_leads(connection, [root])).get(root)
    if lead is None or lead.merged_into is not None:
        raise lead_queries.ConcurrentMerge
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
