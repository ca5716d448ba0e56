"""The first tables: leads, their activities, stage entries, decisions and external keys. Frozen: a later change is a later file."""

from alembic import op

from accord.migrations import v0001, v0001_agreements, v0001_http

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    # Rows are rewritten with nearly every event; most of that touches no index, so room in the page keeps it heap-only.
    """
    CREATE TABLE lead (
        lead_id uuid CONSTRAINT lead_pkey PRIMARY KEY,
        profile jsonb,
        intake_sequence bigint NOT NULL,
        stage text,
        stage_since timestamptz,
        visits jsonb NOT NULL,
        owner text,
        fit double precision,
        engagement double precision,
        grade text,
        definition_version integer,
        deal jsonb NOT NULL,
        evaluated_at timestamptz,
        merged_into uuid,
        erased boolean NOT NULL,
        sequence bigint NOT NULL,
        revision bigint NOT NULL,
        changed_at timestamptz NOT NULL,
        CONSTRAINT lead_stage_check CHECK ((stage IS NULL) = (stage_since IS NULL))
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX lead_stage_idx ON lead (stage, lead_id) WHERE stage IS NOT NULL",
    "CREATE INDEX lead_owner_idx ON lead (owner, lead_id) WHERE owner IS NOT NULL",
    "CREATE INDEX lead_grade_idx ON lead (grade, lead_id) WHERE grade IS NOT NULL",
    "CREATE INDEX lead_since_idx ON lead (stage_since) WHERE stage_since IS NOT NULL",
    """
    CREATE INDEX lead_waiting_idx ON lead (lead_id)
    WHERE stage IS NULL AND profile IS NOT NULL AND merged_into IS NULL AND NOT erased
    """,
    "CREATE INDEX lead_merged_into_idx ON lead (merged_into) WHERE merged_into IS NOT NULL",
    """
    CREATE TABLE activity (
        lead_id uuid NOT NULL,
        kind text NOT NULL,
        occurred_at timestamptz NOT NULL,
        activity_id uuid NOT NULL,
        by text NOT NULL,
        recorded_for uuid,
        CONSTRAINT activity_pkey PRIMARY KEY (lead_id, kind, occurred_at, activity_id)
    )
    """,
    """
    CREATE TABLE stage_entry (
        lead_id uuid NOT NULL,
        sequence bigint NOT NULL,
        stage text NOT NULL,
        stage_kind text NOT NULL,
        stage_rank smallint NOT NULL,
        stage_owner text NOT NULL,
        visit integer NOT NULL,
        from_stage text,
        from_since timestamptz,
        entered_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        cause text NOT NULL,
        decision_id uuid,
        definition_version integer NOT NULL,
        CONSTRAINT stage_entry_pkey PRIMARY KEY (lead_id, sequence)
    )
    """,
    """
    CREATE TABLE decision (
        lead_id uuid NOT NULL,
        decision_id uuid NOT NULL,
        decision text NOT NULL,
        reason text,
        from_stage text NOT NULL,
        stage text NOT NULL,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        actor text NOT NULL,
        department text,
        fields jsonb NOT NULL,
        definition_version integer NOT NULL,
        CONSTRAINT decision_pkey PRIMARY KEY (lead_id, decision_id)
    )
    """,
    """
    CREATE TABLE decision_note (
        lead_id uuid NOT NULL,
        decision_id uuid NOT NULL,
        note text NOT NULL,
        CONSTRAINT decision_note_pkey PRIMARY KEY (lead_id, decision_id)
    )
    """,
    """
    CREATE TABLE external_key (
        key bytea CONSTRAINT external_key_pkey PRIMARY KEY,
        lead_id uuid NOT NULL
    )
    """,
    "CREATE INDEX external_key_lead_idx ON external_key (lead_id)",
)


def upgrade() -> None:
    v0001.upgrade(op)  # type: ignore[arg-type]  # the module op stands for its Operations
    v0001_agreements.upgrade(op)  # type: ignore[arg-type]  # the module op stands for its Operations
    v0001_http.upgrade(op)  # type: ignore[arg-type]  # the module op stands for its Operations
    for statement in _STATEMENTS:
        op.execute(statement)
