"""Alembic's entry: hands over to the shared runner."""

from accord.migrations.run import run_env
from qualification import tables

run_env(tables.metadata)
