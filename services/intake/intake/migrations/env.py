"""Alembic's entry into the history of intake's database."""

from accord.migrations.run import run_env
from intake import tables

run_env(tables.metadata)
