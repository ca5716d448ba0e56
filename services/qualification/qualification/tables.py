"""The tables of qualification's database. No personal data but `decision_note`, which goes with the person (ADR 0020).

The DDL that really runs is frozen in migrations/; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, UUID

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
    Column("profile", JSONB),
    Column("intake_sequence", BigInteger, nullable=False),
    Column("stage", Text),
    _moment("stage_since", nullable=True),
    Column("visits", JSONB, nullable=False),
    Column("owner", Text),
    Column("fit", Double),
    Column("engagement", Double),
    Column("grade", Text),
    Column("definition_version", Integer),
    Column("deal", JSONB, nullable=False),
    _moment("evaluated_at", nullable=True),
    Column("merged_into", UUID),
    Column("erased", Boolean, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    _moment("changed_at"),
    _moment("profile_at", nullable=True),
    Column("position_rank", SmallInteger),
    Column("position_tie", UUID),
    Column("entry_version", Integer),
    Column("applied_version", Integer),
    _moment("due_at", nullable=True),
    PrimaryKeyConstraint("lead_id", name="lead_pkey"),
    CheckConstraint("(stage IS NULL) = (stage_since IS NULL)", name="lead_stage_check"),
    Index("lead_stage_idx", "stage", "lead_id", postgresql_where=text("stage IS NOT NULL")),
    Index("lead_owner_idx", "owner", "lead_id", postgresql_where=text("owner IS NOT NULL")),
    Index("lead_grade_idx", "grade", "lead_id", postgresql_where=text("grade IS NOT NULL")),
    Index("lead_since_idx", "stage_since", postgresql_where=text("stage_since IS NOT NULL")),
    Index(
        "lead_waiting_idx",
        "lead_id",
        postgresql_where=text("stage IS NULL AND profile IS NOT NULL AND merged_into IS NULL AND NOT erased"),
    ),
    Index(
        "lead_waiting_captured_idx",
        text("(profile ->> 'captured_at')"),
        postgresql_where=text("stage IS NULL AND profile IS NOT NULL AND merged_into IS NULL AND NOT erased"),
    ),
    Index("lead_merged_into_idx", "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
    Index("lead_due_idx", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("lead_owner_stage_idx", "owner", "stage", "lead_id", postgresql_where=text("owner IS NOT NULL")),
)

lead_fact = Table(
    "lead_fact",
    metadata,
    Column("lead_id", UUID, nullable=False),
    _moment("effective_at"),
    Column("rank", SmallInteger, nullable=False),
    Column("tie", UUID, nullable=False),
    _moment("recorded_at"),
    Column("fact", JSONB, nullable=False),
    PrimaryKeyConstraint("lead_id", "effective_at", "rank", "tie", name="lead_fact_pkey"),
)

reevaluation = Table(
    "reevaluation",
    metadata,
    Column("version", Integer, autoincrement=False, nullable=False),
    _moment("started_at"),
    _moment("done_at", nullable=True),
    Column("after", UUID, nullable=False),
    Column("leads", BigInteger, nullable=False),
    Column("processed", BigInteger, nullable=False),
    Column("evaluated", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    PrimaryKeyConstraint("version", name="reevaluation_pkey"),
)

what_if = Table(
    "what_if",
    metadata,
    Column("what_if_id", UUID, nullable=False),
    Column("version", Integer, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("content_sha256", Text, nullable=False),
    _moment("since"),
    _moment("until"),
    Column("grouped_by", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    _moment("requested_at"),
    _moment("started_at", nullable=True),
    _moment("finished_at", nullable=True),
    Column("after", UUID, nullable=False),
    Column("leads", BigInteger),
    Column("leads_done", BigInteger, nullable=False),
    Column("leads_per_s", Double),
    Column("sums", JSONB),
    Column("report", JSONB),
    Column("error", Text),
    PrimaryKeyConstraint("what_if_id", name="what_if_pkey"),
)

what_if_lead = Table(
    "what_if_lead",
    metadata,
    Column("what_if_id", UUID, nullable=False),
    Column("stage", Text, nullable=False),
    Column("lead_id", UUID, nullable=False),
    _moment("did_enter_at", nullable=True),
    _moment("would_enter_at", nullable=True),
    PrimaryKeyConstraint("what_if_id", "stage", "lead_id", name="what_if_lead_pkey"),
)

activity = Table(
    "activity",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("kind", Text, nullable=False),
    _moment("occurred_at"),
    Column("activity_id", UUID, nullable=False),
    Column("by", Text, nullable=False),
    Column("recorded_for", UUID),
    # In this order, so that the newest activities of the asked kinds are one short range of the index per lead and kind.
    PrimaryKeyConstraint("lead_id", "kind", "occurred_at", "activity_id", name="activity_pkey"),
)

stage_entry = Table(
    "stage_entry",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("stage_kind", Text, nullable=False),
    Column("stage_rank", SmallInteger, nullable=False),
    Column("stage_owner", Text, nullable=False),
    Column("visit", Integer, nullable=False),
    Column("from_stage", Text),
    _moment("from_since", nullable=True),
    _moment("entered_at"),
    _moment("recorded_at"),
    Column("cause", Text, nullable=False),
    Column("decision_id", UUID),
    Column("definition_version", Integer, nullable=False),
    Column("correction", Boolean, nullable=False, server_default=text("false")),
    Column("withdrawn", Boolean, nullable=False, server_default=text("false")),
    Column("replaces", BigInteger),
    Column("follows", BigInteger),
    PrimaryKeyConstraint("lead_id", "sequence", name="stage_entry_pkey"),
)

decision = Table(
    "decision",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("decision_id", UUID, nullable=False),
    Column("decision", Text, nullable=False),
    Column("reason", Text),
    Column("from_stage", Text, nullable=False),
    Column("stage", Text, nullable=False),
    _moment("occurred_at"),
    _moment("recorded_at"),
    Column("actor", Text, nullable=False),
    Column("department", Text),
    Column("fields", JSONB, nullable=False),
    Column("definition_version", Integer, nullable=False),
    _moment("effective_at", nullable=True),
    PrimaryKeyConstraint("lead_id", "decision_id", name="decision_pkey"),
    Index("decision_occurred_idx", "occurred_at"),
)

decision_note = Table(
    "decision_note",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("decision_id", UUID, nullable=False),
    Column("note", Text, nullable=False),
    PrimaryKeyConstraint("lead_id", "decision_id", name="decision_note_pkey"),
)

external_key = Table(
    "external_key",
    metadata,
    Column("key", BYTEA, nullable=False),
    Column("lead_id", UUID, nullable=False),
    PrimaryKeyConstraint("key", name="external_key_pkey"),
    Index("external_key_lead_idx", "lead_id"),
)

routing = Table(
    "routing",
    metadata,
    Column("version", Integer, nullable=False, autoincrement=False),
    Column("content", JSONB, nullable=False),
    Column("content_sha256", Text, nullable=False),
    _moment("written_at"),
    Column("written_by", Text, nullable=False),
    PrimaryKeyConstraint("version", name="routing_pkey"),
)

routing_pool = Table(
    "routing_pool",
    metadata,
    Column("pool", Text, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("currents", JSONB, nullable=False),
    PrimaryKeyConstraint("pool", name="routing_pool_pkey"),
)

routing_sweep = Table(
    "routing_sweep",
    metadata,
    Column("version", Integer, nullable=False, autoincrement=False),
    Column("after_stage", Text, nullable=False),
    Column("after_lead", UUID, nullable=False),
    Column("done", Boolean, nullable=False),
    PrimaryKeyConstraint("version", name="routing_sweep_pkey"),
)

assignment = Table(
    "assignment",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("assignment_id", UUID, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("owner", Text),
    Column("previous_owner", Text),
    Column("pool", Text),
    Column("cause", Text, nullable=False),
    Column("reason", Text),
    Column("actor", Text),
    Column("clause", Text),
    Column("breach_id", UUID),
    Column("routing_version", Integer),
    Column("why", Text, nullable=False),
    Column("explanation", JSONB),
    _moment("occurred_at"),
    _moment("recorded_at"),
    PrimaryKeyConstraint("lead_id", "assignment_id", name="assignment_pkey"),
    Index("assignment_breach_idx", "breach_id", unique=True, postgresql_where=text("breach_id IS NOT NULL")),
)

waiting_lead = Table(
    "waiting_lead",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("pool", Text, nullable=False),
    _moment("since"),
    _moment("tried_at"),
    Column("routing_version", Integer, nullable=False),
    Column("avoid", Text),
    Column("clause", Text),
    Column("breach_id", UUID),
    Column("clock_id", UUID),
    PrimaryKeyConstraint("lead_id", name="waiting_lead_pkey"),
    Index("waiting_lead_pool_idx", "pool", "tried_at"),
    Index("waiting_lead_version_idx", "routing_version"),
    Index("waiting_lead_clock_idx", "clock_id", postgresql_where=text("clock_id IS NOT NULL")),
)

account_owner = Table(
    "account_owner",
    metadata,
    Column("account_id", UUID, nullable=False),
    Column("owner", Text, nullable=False),
    _moment("since"),
    PrimaryKeyConstraint("account_id", name="account_owner_pkey"),
)


RETENTION = {
    "lead": "for ever: an erased lead keeps its id and stages, and loses its attributes",
    "lead_fact": "for ever: the log that a correction folds anew; an erased lead's profiles are deleted",
    "reevaluation": "one row for each version of the definition",
    "what_if": "the newest ones that have ended, and those that run (qualification.analysis.queries.what_ifs)",
    "what_if_lead": "as long as its what-if",
    "activity": "for ever: what scores are counted from, which holds no person",
    "stage_entry": "for ever: the history of the lead, which holds no person",
    "decision": "for ever: the history of the lead; its words are a decision_note",
    "decision_note": "until the lead is erased",
    "external_key": "until the lead is erased",
    "routing": "for ever: as many versions as people write",
    "routing_pool": "one row for each pool of the routing document",
    "routing_sweep": "one row: older versions are deleted",
    "assignment": "for ever: who had the lead and why, which holds no person",
    "waiting_lead": "until somebody is found, or nobody is needed any more",
    "account_owner": "one row for each account",
    "stuck_row": "until the row comes through, or nothing is due of it",
}
"""How long the rows of each table stay, beside those of the shared tables."""
