"""Every source, one standard of quality, one person once: what intake needs beside the first tables, by subject."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_POLICY: tuple[str, ...] = ()
_IDENTITY: tuple[str, ...] = ()
_SOURCES: tuple[str, ...] = ()
_IMPORTS: tuple[str, ...] = ()
_PRIVACY: tuple[str, ...] = ()


def upgrade() -> None:
    for statement in (*_POLICY, *_IDENTITY, *_SOURCES, *_IMPORTS, *_PRIVACY):
        op.execute(statement)
