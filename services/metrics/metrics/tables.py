"""The tables of metrics' database: projections of the other services' events, which can be rebuilt from the log.

They hold no personal data. The executed DDL is frozen in migrations/; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from accord.agreements import tables as agreements
from accord.http import tables as http
from accord.messaging import tables as messaging
from accord.notifications import tables as notifications

metadata = MetaData()
messaging.define_tables(metadata)
agreements.define_tables(metadata)
http.define_tables(metadata)
notifications.define_tables(metadata)


def _moment(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


lead = Table(
    "lead",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("source", Text),
    _moment("captured_at", nullable=True),
    Column("account_id", UUID),
    Column("attributes", JSONB, nullable=False, server_default=text("'{}'")),
    Column("campaign", Text),
    Column("owner", Text),
    Column("merged_into", UUID),
    Column("erased", Boolean, nullable=False, server_default=text("false")),
    Column("intake_sequence", BigInteger, nullable=False, server_default=text("0")),
    _moment("state_recorded_at", nullable=True),
    _moment("merge_recorded_at", nullable=True),
    Column("owner_sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("path", JSONB, nullable=False, server_default=text("'[]'")),
    _moment("first_entered_at", nullable=True),
    Column("is_out_of_order", Boolean, nullable=False, server_default=text("false")),
    PrimaryKeyConstraint("lead_id", name="lead_pkey"),
    Index("lead_captured_at_idx", "captured_at"),
    Index("lead_merged_into_idx", "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
)
"""One row for each lead. `path` holds the stages of its history, so that leads with the same path count together."""

stage_entry = Table(
    "stage_entry",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("stage_kind", Text, nullable=False),
    Column("stage_rank", Integer, nullable=False),
    Column("visit", Integer, nullable=False),
    _moment("entered_at"),
    Column("correction", Boolean, nullable=False),
    Column("cause", Text, nullable=False),
    Column("decision", Text),
    Column("reason", Text),
    Column("actor", Text),
    Column("definition_version", Integer, nullable=False),
    _moment("recorded_at"),
    Column("position", Integer),
    _moment("exited_at", nullable=True),
    Column("next_stage", Text),
    Column("duration_us", BigInteger),
    Column("is_first", Boolean, nullable=False),
    Column("is_last", Boolean, nullable=False),
    Column("replaces", BigInteger),
    Column("withdrawn", Boolean, nullable=False, server_default=text("false")),
    Column("follows", BigInteger),
    PrimaryKeyConstraint("lead_id", "sequence", name="stage_entry_pkey"),
    CheckConstraint(
        "(exited_at IS NULL) = (next_stage IS NULL) AND (exited_at IS NULL) = (duration_us IS NULL)",
        name="stage_entry_exit_check",
    ),
    CheckConstraint("position IS NOT NULL OR NOT (is_first OR is_last)", name="stage_entry_position_check"),
    Index("stage_entry_stage_idx", "stage", "entered_at", postgresql_where=text("position IS NOT NULL")),
    Index("stage_entry_entered_at_idx", "entered_at", postgresql_where=text("position IS NOT NULL")),
)
"""One row for each reported stage change. The columns from `position` on derive from the lead's whole history.

Without a position, a later change has corrected it.
"""

assignment = Table(
    "assignment",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    _moment("assigned_at"),
    Column("owner", Text),
    PrimaryKeyConstraint("lead_id", "sequence", name="assignment_pkey"),
    Index("assignment_lead_idx", "lead_id", "assigned_at"),
)
"""Each owner that a lead had and from when, so that a later reassignment leaves earlier numbers with their owner."""

activity = Table(
    "activity",
    metadata,
    Column("lead_id", UUID, nullable=False),
    _moment("occurred_at"),
    Column("activity_id", UUID, nullable=False),
    Column("kind", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("actor", Text),
    Column("source", Text),
    Column("campaign", Text),
    PrimaryKeyConstraint("lead_id", "occurred_at", "activity_id", name="activity_pkey"),
)
"""Under the lead that it was recorded for; after a merge it counts for the survivor in `lead.merged_into`."""

clock = Table(
    "clock",
    metadata,
    Column("clock_id", UUID, nullable=False),
    Column("lead_id", UUID),
    Column("clause", Text, nullable=False),
    Column("obliges", Text, nullable=False),
    Column("sla_version", Integer, nullable=False),
    Column("owner", Text),
    Column("source", Text),
    _moment("started_at"),
    _moment("due_at"),
    Column("state", Text, nullable=False),
    Column("warned_fraction", Double),
    _moment("breached_at", nullable=True),
    _moment("settled_at", nullable=True),
    Column("backfill", Boolean, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("breach_sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("settlement_sequence", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("clock_id", name="clock_pkey"),
    Index("clock_lead_idx", "lead_id", "started_at", postgresql_where=text("lead_id IS NOT NULL")),
)

opportunity = Table(
    "opportunity",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("stage", Text, nullable=False),
    Column("amount", Numeric),
    Column("currency", Text),
    Column("expected_close", Date),
    Column("sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("lead_id", name="opportunity_pkey"),
)

opportunity_change = Table(
    "opportunity_change",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    _moment("occurred_at"),
    Column("amount", Numeric),
    Column("currency", Text),
    Column("expected_close", Date),
    PrimaryKeyConstraint("lead_id", "sequence", name="opportunity_change_pkey"),
)
"""Each amount and expected close that a deal had and from when, for the pipeline of a past moment."""

definition_version = Table(
    "definition_version",
    metadata,
    Column("version", Integer, nullable=False),
    _moment("effective_from"),
    Column("content", JSONB, nullable=False),
    PrimaryKeyConstraint("version", name="definition_version_pkey"),
)
"""The activated lead definitions, for the order of their stages."""


RETENTION = {
    "lead": "for ever: one row for each lead; an erased one loses its attributes",
    "stage_entry": "for ever: the reports count them",
    "assignment": "for ever: the groups by owner need them; an owner is a handle, no personal data of the lead",
    "activity": "for ever: the reports count them; they hold no personal data",
    "clock": "for ever: the reports count them",
    "opportunity": "for ever: one row for each opportunity",
    "opportunity_change": "for ever: the pipeline of a past moment needs them",
    "definition_version": "one row for each version of the definition",
}
"""The retention of each table; the shared tables have theirs beside their definition."""
