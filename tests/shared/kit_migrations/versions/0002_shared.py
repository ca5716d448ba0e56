"""What was added to the shared tables since."""

from alembic import op

from accord.migrations import v0002_http, v0003_messaging

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    v0002_http.upgrade(op)
    v0003_messaging.upgrade(op)
