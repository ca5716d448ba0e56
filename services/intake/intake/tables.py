"""The tables of intake's database, the only one with personal data. The DDL that really runs is frozen in migrations/; a test compares
the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

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
    Column("source", Text, nullable=False),
    _moment("captured_at"),
    Column("verdict", Text, nullable=False),
    Column("email", Text),
    Column("phone", Text),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("company", Text),
    Column("domain", Text),
    Column("title", Text),
    Column("attributes", JSONB, nullable=False),
    Column("field_timestamps", JSONB, nullable=False),
    Column("account_id", UUID),
    Column("campaign", JSONB),
    Column("external_keys", ARRAY(Text), nullable=False),
    Column("policy_version", Integer),
    Column("quality_score", Double),
    Column("pending", Boolean, nullable=False),
    Column("merged_into", UUID),
    Column("sequence", BigInteger, nullable=False),
    _moment("recorded_at"),
    PrimaryKeyConstraint("lead_id", name="lead_pkey"),
)
Index("lead_merged_into_idx", lead.c.merged_into, postgresql_where=text("merged_into IS NOT NULL"))
Index(
    "lead_account_id_idx",
    lead.c.account_id,
    lead.c.lead_id,
    postgresql_where=text("account_id IS NOT NULL AND merged_into IS NULL"),
)
Index(
    "lead_last_name_idx",
    func.lower(lead.c.last_name),
    postgresql_where=text("last_name IS NOT NULL AND merged_into IS NULL"),
)

identity_key = Table(
    "identity_key",
    metadata,
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("lead_id", UUID, nullable=False),
    Column("source", Text),
    Column("external_id", Text),
    PrimaryKeyConstraint("kind", "value", name="identity_key_pkey"),
)
"""`source` and `external_id` are what a key of kind `external` is the digest of."""
Index("identity_key_lead_id_idx", identity_key.c.lead_id)

account = Table(
    "account",
    metadata,
    Column("account_id", UUID, nullable=False),
    Column("domain", Text, nullable=False),
    Column("name", Text),
    _moment("recorded_at"),
    PrimaryKeyConstraint("account_id", name="account_pkey"),
)

submission = Table(
    "submission",
    metadata,
    Column("submission_id", UUID, nullable=False),
    Column("lead_id", UUID),
    Column("source", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("outcome", Text),
    Column("verdict", Text, nullable=False),
    Column("quality_score", Double),
    Column("policy_version", Integer),
    Column("failed", JSONB, nullable=False),
    Column("content", Text),
    _moment("occurred_at"),
    _moment("recorded_at"),
    Column("canonical", Text),
    Column("keys", ARRAY(Text)),
    Column("settled", Text),
    _moment("settled_at", nullable=True),
    Column("outcomes", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("submission_id", name="submission_pkey"),
)
Index("submission_lead_id_idx", submission.c.lead_id)
Index("submission_keys_idx", submission.c["keys"], postgresql_using="gin", postgresql_where=text("keys IS NOT NULL"))
_WAITING = text("verdict = 'quarantined' AND settled IS NULL")
Index("submission_waiting_idx", submission.c.submission_id, postgresql_where=_WAITING)
Index("submission_waiting_source_idx", submission.c.source, submission.c.submission_id, postgresql_where=_WAITING)

activity = Table(
    "activity",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("activity_id", UUID, nullable=False),
    Column("kind", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("actor", Text),
    Column("actor_kind", Text),
    Column("campaign", JSONB),
    Column("properties", JSONB, nullable=False),
    Column("caller", Text, nullable=False),
    _moment("occurred_at"),
    _moment("recorded_at"),
    PrimaryKeyConstraint("lead_id", "activity_id", name="activity_pkey"),
)

merge = Table(
    "merge",
    metadata,
    Column("survivor_id", UUID, nullable=False),
    Column("merge_id", UUID, nullable=False),
    Column("merged_lead_id", UUID, nullable=False),
    Column("submission_id", UUID),
    Column("survivor_before", JSONB, nullable=False),
    Column("keys_moved", JSONB, nullable=False),
    Column("activities_moved", ARRAY(UUID), nullable=False),
    _moment("recorded_at"),
    Column("caller", Text),
    _moment("reverted_at", nullable=True),
    Column("reverted_by", Text),
    PrimaryKeyConstraint("survivor_id", "merge_id", name="merge_pkey"),
)
"""`submission_id` made the merge, or the person behind `caller` did."""
Index("merge_merged_lead_id_idx", merge.c.merged_lead_id)
Index("merge_merge_id_idx", merge.c.merge_id, unique=True)

do_not_merge = Table(
    "do_not_merge",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("other_id", UUID, nullable=False),
    Column("merge_id", UUID, nullable=False),
    Column("caller", Text, nullable=False),
    _moment("recorded_at"),
    PrimaryKeyConstraint("lead_id", "other_id", name="do_not_merge_pkey"),
)
"""Two leads that a person has separated: they are not merged again without a person. Each pair stands here both ways round."""

source = Table(
    "source",
    metadata,
    Column("name", Text, nullable=False),
    Column("adapter", Text),
    Column("settings", JSONB, nullable=False),
    Column("mapping", JSONB, nullable=False),
    Column("defaults", JSONB, nullable=False),
    Column("secrets", JSONB, nullable=False),
    Column("version", Integer, nullable=False),
    _moment("created_at"),
    _moment("updated_at"),
    PrimaryKeyConstraint("name", name="source_pkey"),
)

hook_event = Table(
    "hook_event",
    metadata,
    Column("hook_event_id", UUID, nullable=False),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reference", JSONB, nullable=False),
    Column("keys", ARRAY(Text), nullable=False),
    Column("content", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    _moment("due_at"),
    Column("error", Text),
    Column("lead_id", UUID),
    _moment("occurred_at"),
    _moment("recorded_at"),
    _moment("updated_at"),
    PrimaryKeyConstraint("hook_event_id", name="hook_event_pkey"),
)
Index("hook_event_id_idx", hook_event.c.source, hook_event.c.event_id, unique=True)
Index("hook_event_work_idx", hook_event.c.due_at, postgresql_where=text("state = 'waiting' AND action <> 'fetch'"))
Index(
    "hook_event_fetch_idx",
    hook_event.c.source,
    hook_event.c.due_at,
    postgresql_where=text("state = 'waiting' AND action = 'fetch'"),
)
Index("hook_event_state_idx", hook_event.c.source, hook_event.c.state, hook_event.c.hook_event_id)
Index("hook_event_keys_idx", hook_event.c["keys"], postgresql_using="gin")

quarantine_decision = Table(
    "quarantine_decision",
    metadata,
    Column("submission_id", UUID, nullable=False),
    Column("decision_id", UUID, nullable=False),
    Column("action", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("note", Text),
    Column("fields", JSONB),
    Column("lead_id", UUID),
    Column("verdict", Text),
    Column("quality_score", Double),
    Column("policy_version", Integer),
    Column("failed", JSONB, nullable=False),
    _moment("recorded_at"),
    PrimaryKeyConstraint("submission_id", "decision_id", name="quarantine_decision_pkey"),
)

consent = Table(
    "consent",
    metadata,
    Column("lead_id", UUID, nullable=False),
    Column("consent_id", UUID, nullable=False),
    Column("submission_id", UUID),
    Column("source", Text),
    Column("caller", Text, nullable=False),
    Column("basis", Text, nullable=False),
    Column("text", Text),
    _moment("given_at"),
    _moment("recorded_at"),
    Column("dated", Boolean, nullable=False, server_default="true"),
    PrimaryKeyConstraint("lead_id", "consent_id", name="consent_pkey"),
)

erasure = Table(
    "erasure",
    metadata,
    Column("erasure_id", UUID, nullable=False),
    Column("lead_ids", ARRAY(UUID), nullable=False),
    Column("reason", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("policy_version", Integer),
    Column("removed", JSONB, nullable=False),
    _moment("recorded_at"),
    PrimaryKeyConstraint("erasure_id", name="erasure_pkey"),
)

erased_id = Table(
    "erased_id",
    metadata,
    Column("id", UUID, nullable=False),
    Column("kind", Text, nullable=False),
    Column("erasure_id", UUID, nullable=False),
    PrimaryKeyConstraint("id", name="erased_id_pkey"),
)

retention = Table(
    "retention",
    metadata,
    Column("kind", Text, nullable=False),
    Column("dropped_to", UUID, nullable=False),
    _moment("recorded_at"),
    PrimaryKeyConstraint("kind", name="retention_pkey"),
)

import_job = Table(
    "import_job",
    metadata,
    Column("import_id", UUID, nullable=False),
    Column("source", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("plan", JSONB),
    Column("bytes_received", BigInteger, nullable=False),
    Column("bytes_done", BigInteger, nullable=False),
    Column("row_number", BigInteger, nullable=False),
    Column("counts", JSONB, nullable=False),
    Column("quality", JSONB),
    Column("rows_per_s", Double),
    Column("bytes_per_s", Double),
    Column("error", Text),
    Column("cancel_requested", Boolean, nullable=False),
    _moment("created_at"),
    _moment("started_at", nullable=True),
    _moment("finished_at", nullable=True),
    _moment("updated_at"),
    PrimaryKeyConstraint("import_id", name="import_job_pkey"),
)
Index(
    "import_job_open_idx",
    import_job.c.import_id,
    postgresql_where=text("state IN ('receiving', 'queued', 'running')"),
)

import_block = Table(
    "import_block",
    metadata,
    Column("import_id", UUID, nullable=False),
    Column("first_byte", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    PrimaryKeyConstraint("import_id", "first_byte", name="import_block_pkey"),
)

import_chunk = Table(
    "import_chunk",
    metadata,
    Column("import_id", UUID, nullable=False),
    Column("first_row", BigInteger, nullable=False),
    Column("outcomes", Integer, nullable=False),
    Column("results", LargeBinary, nullable=False),
    PrimaryKeyConstraint("import_id", "first_row", name="import_chunk_pkey"),
)

import_failure = Table(
    "import_failure",
    metadata,
    Column("import_id", UUID, nullable=False),
    Column("row_number", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("keys", ARRAY(Text), nullable=False),
    PrimaryKeyConstraint("import_id", "row_number", name="import_failure_pkey"),
)
Index("import_failure_keys_idx", import_failure.c["keys"], postgresql_using="gin")

import_record = Table(
    "import_record",
    metadata,
    Column("record_key", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("import_id", UUID, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("policy_version", Integer),
    Column("verdict", Text, nullable=False),
    PrimaryKeyConstraint("record_key", "source", name="import_record_pkey"),
)
"""What a source has last said of a record in a file, so that the same row is known again. `record_key` is an identity key as a word."""
Index("import_record_import_id_idx", import_record.c.import_id)


RETENTION = {
    "lead": "until it is erased",
    "identity_key": "until its lead is erased, or another has the address or number",
    "account": "for ever: one for each company",
    "submission": "its raw content for the days of the policy (intake.privacy.service.retention); the verdict until its lead is erased",
    "activity": "until its lead is erased",
    "merge": "until one of its leads is erased",
    "do_not_merge": "until one of the two leads is erased",
    "source": "until it is deleted; as many as people configure",
    "hook_event": "for the days of the policy after it was taken or given up (HookEvents)",
    "quarantine_decision": "until its submission is erased",
    "consent": "until its lead is erased: the record stays beyond raw content",
    "erasure": "for ever: the record that somebody was erased, without who it was",
    "erased_id": "for ever: an erased lead's id does not come back",
    "retention": "one row: how far old content has been dropped",
    "import_job": "for ever: one row for each file",
    "import_block": "until the rows of the block are taken",
    "import_chunk": "for the days of results after the end of its import (prune_worker)",
    "import_failure": "for the days of results after the end of its import, at most as many as the import may have",
    "import_record": "for the days of results after the beginning of its import (prune_worker), or until the person is erased",
    "stuck_row": "until the row comes through, or nothing is due of it",
}
"""How long the rows of each table stay, beside those of the shared tables."""
