"""Alembic's entry into the history of metrics' database."""

from accord.migrations.run import run_env
from metrics import tables

run_env(tables.metadata)
