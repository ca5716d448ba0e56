"""The shared tables of accord, and the first of intake: leads with their keys, accounts, submissions, activities, merges."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0001, v0001_agreements, v0001_http

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE lead (
        lead_id uuid CONSTRAINT lead_pkey PRIMARY KEY,
        source text NOT NULL,
        captured_at timestamptz NOT NULL,
        verdict text NOT NULL,
        email text,
        phone text,
        first_name text,
        last_name text,
        company text,
        domain text,
        title text,
        attributes jsonb NOT NULL,
        stamps jsonb NOT NULL,
        account_id uuid,
        campaign jsonb,
        external_keys text[] NOT NULL,
        policy_version integer,
        quality_score double precision,
        held boolean NOT NULL,
        merged_into uuid,
        sequence bigint NOT NULL,
        recorded_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX lead_merged_into_idx ON lead (merged_into) WHERE merged_into IS NOT NULL",
    """
    CREATE TABLE identity_key (
        kind text NOT NULL,
        value text NOT NULL,
        lead_id uuid NOT NULL,
        CONSTRAINT identity_key_pkey PRIMARY KEY (kind, value)
    )
    """,
    "CREATE INDEX identity_key_lead_id_idx ON identity_key (lead_id)",
    """
    CREATE TABLE account (
        account_id uuid CONSTRAINT account_pkey PRIMARY KEY,
        domain text NOT NULL,
        name text,
        recorded_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE submission (
        submission_id uuid CONSTRAINT submission_pkey PRIMARY KEY,
        lead_id uuid,
        source text NOT NULL,
        caller text NOT NULL,
        outcome text,
        verdict text NOT NULL,
        quality_score double precision,
        policy_version integer,
        failed jsonb NOT NULL,
        content text NOT NULL,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX submission_lead_id_idx ON submission (lead_id)",
    """
    CREATE TABLE activity (
        lead_id uuid NOT NULL,
        activity_id uuid NOT NULL,
        kind text NOT NULL,
        by text NOT NULL,
        actor text,
        campaign jsonb,
        properties jsonb NOT NULL,
        caller text NOT NULL,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        CONSTRAINT activity_pkey PRIMARY KEY (lead_id, activity_id)
    )
    """,
    """
    CREATE TABLE merge (
        survivor_id uuid NOT NULL,
        merge_id uuid NOT NULL,
        merged_lead_id uuid NOT NULL,
        submission_id uuid NOT NULL,
        survivor_before jsonb NOT NULL,
        keys_moved jsonb NOT NULL,
        activities_moved uuid[] NOT NULL,
        recorded_at timestamptz NOT NULL,
        CONSTRAINT merge_pkey PRIMARY KEY (survivor_id, merge_id)
    )
    """,
    "CREATE INDEX merge_merged_lead_id_idx ON merge (merged_lead_id)",
)


def upgrade() -> None:
    operations = Operations(op.get_context())
    v0001.upgrade(operations)
    v0001_agreements.upgrade(operations)
    v0001_http.upgrade(operations)
    for statement in _STATEMENTS:
        op.execute(statement)
