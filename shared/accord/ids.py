"""New ids: UUIDv7, so that what is made later sorts later and lands at the end of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uuid_utils
from asyncpg.pgproto import pgproto

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


def new_id() -> UUID:
    """A new UUIDv7 (RFC 9562), of the class in which the driver reads ids: a subclass of `uuid.UUID` (to `isinstance`) that is made
    in a third of the time and written as text in a tenth."""
    return pgproto.UUID(uuid_utils.uuid7().bytes)


def id_at(at: datetime) -> UUID:
    """The smallest id of a moment: those that were made before sort before it. Whole milliseconds since 1970, as RFC 9562 has them."""
    return pgproto.UUID((max(0, int(at.timestamp() * 1000)) << 80).to_bytes(16, "big"))
