"""Frozen DDL of the shared tables, called by each service's Alembic history. A released file never changes again."""
