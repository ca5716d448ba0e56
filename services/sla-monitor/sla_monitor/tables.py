"""The tables of the SLA monitor's database. No personal data: a lead has its id and its public attributes.

The executed DDL is frozen in migrations/; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from accord import isolation
from accord.agreements import tables as agreements
from accord.http import tables as http
from accord.messaging import tables as messaging
from accord.notifications import tables as notifications

metadata = MetaData()
messaging.define_tables(metadata)
agreements.define_tables(metadata)
http.define_tables(metadata)
isolation.define_tables(metadata)
notifications.define_tables(metadata)


def _moment(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


lead = Table(
    "lead",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("profiles", JSONB, nullable=False, server_default=text("'[]'")),
    Column("qualification_states", JSONB, nullable=False, server_default=text("'[]'")),
    Column("source", Text),
    Column("owner", Text),
    Column("owner_sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("merged_into", UUID),
    _moment("merged_at", nullable=True),
    _moment("merge_recorded_at", nullable=True),
    _moment("erased_at", nullable=True),
    PrimaryKeyConstraint("lead_id", name="lead_pkey"),
)

fact = Table(
    "fact",
    metadata,
    Column("lead_id", UUID, nullable=False),
    _moment("occurred_at"),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    _moment("recorded_at"),
    Column("sequence", BigInteger, nullable=False),
    Column("by", Text),
    Column("stage_kind", Text),
    Column("cause", UUID),
    Column("actor_kind", Text),
    PrimaryKeyConstraint("lead_id", "occurred_at", "key", name="fact_pkey"),
    Index("fact_recorded_idx", "recorded_at"),
    Index("fact_not_activity_idx", "lead_id", "occurred_at", postgresql_where=text("kind <> 'activity'")),
)

pending_trigger = Table(
    "pending_trigger",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("clause", Text, nullable=False),
    Column("trigger_key", Text, nullable=False),
    _moment("recorded_at"),
    _moment("started_at"),
    Column("sla_version", Integer, nullable=False),
    Column("inputs", JSONB, nullable=False),
    PrimaryKeyConstraint("lead_id", "clause", "trigger_key", name="pending_trigger_pkey"),
    Index("pending_trigger_recorded_idx", "recorded_at"),
)

clock = Table(
    "clock",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("clock_id", UUID, nullable=False),
    Column("clause", Text, nullable=False),
    Column("obliges", Text, nullable=False),
    Column("sla_version", Integer, nullable=False),
    Column("trigger_kind", Text, nullable=False),
    Column("trigger_key", Text, nullable=False),
    Column("trigger_sequence", BigInteger, nullable=False),
    _moment("trigger_recorded_at"),
    Column("trigger_stage_kind", Text),
    Column("trigger_cause", UUID),
    _moment("started_at"),
    _moment("due_at"),
    Column("count", Integer, nullable=False),
    Column("progress", JSONB, nullable=False),
    Column("backfill", Boolean, nullable=False),
    Column("owner", Text),
    Column("source", Text),
    Column("state", Text, nullable=False),
    _moment("answered_at", nullable=True),
    Column("actor_kind", Text),
    _moment("ended_at", nullable=True),
    Column("ended_key", Text),
    Column("ended_sequence", BigInteger),
    Column("ended_why", Text),
    Column("severity", Text),
    Column("breach_id", UUID),
    _moment("breached_at", nullable=True),
    _moment("breach_due_at", nullable=True),
    _moment("withdrawn_at", nullable=True),
    _moment("acknowledged_at", nullable=True),
    Column("acknowledged_by", Text),
    Column("acknowledged_note", Text),
    Column("event_count", Integer, nullable=False),
    _moment("next_at", nullable=True),
    PrimaryKeyConstraint("lead_id", "clock_id", name="clock_pkey"),
    UniqueConstraint("lead_id", "clause", "trigger_key", name="clock_trigger_key"),
    CheckConstraint(
        "state IN ('running', 'paused', 'met', 'breached', 'met_late', 'cancelled')", name="clock_state_check"
    ),
    CheckConstraint("state <> 'running' OR next_at IS NOT NULL", name="clock_next_check"),
    Index("clock_next_idx", "next_at", postgresql_where=text("next_at IS NOT NULL")),
    Index("clock_due_idx", "due_at", "clock_id"),
    Index("clock_clause_idx", "clause", "due_at", "clock_id"),
    Index("clock_owner_idx", "owner", "due_at", "clock_id", postgresql_where=text("owner IS NOT NULL")),
    Index("clock_breach_idx", "due_at", "clock_id", postgresql_where=text("breach_id IS NOT NULL")),
    Index("clock_breach_id_idx", "breach_id", postgresql_where=text("breach_id IS NOT NULL")),
)

period_entry = Table(
    "period_entry",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("clause", Text, nullable=False),
    Column("sla_version", Integer, nullable=False),
    Column("key", Text, nullable=False),
    _moment("occurred_at"),
    Column("is_of", Boolean, nullable=False),
    Column("is_over", Boolean, nullable=False),
    PrimaryKeyConstraint("lead_id", "clause", "sla_version", "key", name="period_entry_pkey"),
    Index("period_entry_occurred_idx", "clause", "sla_version", "occurred_at"),
)
"""What counts in the periods of a clause. A period's clock is a row of `clock` whose lead_id stands for the clause."""


RETENTION = {
    "lead": "for ever: one row for each lead; an erased one loses its attributes",
    "fact": "90 days after it was recorded (ACCORD_FACTS_RETENTION_DAYS)",
    "pending_trigger": "until the trigger is evaluated, or the lead is erased",
    "period_entry": "for ever: one row for each entry that a clause over a period counts",
    "clock": "for ever: the ledger of clocks, met and breached",
    "stuck_row": "until the row succeeds, or nothing is due for it",
}
"""The retention of each table; the shared tables have theirs beside their definition."""
