"""Alembic's entry: hands over to the shared runner."""

from accord.migrations.run import run_env
from sla_monitor import tables

run_env(tables.metadata)
