"""The shared tables of the first release."""

from alembic import op

from accord.migrations import v0001, v0001_agreements, v0001_http

revision = "0001"
down_revision = None


def upgrade() -> None:
    v0001.upgrade(op)
    v0001_agreements.upgrade(op)
    v0001_http.upgrade(op)
