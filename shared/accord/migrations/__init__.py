"""Frozen DDL of the shared tables. Each service's own Alembic history calls it; a released file here never changes again."""
