"""Who publishes a lane or reads a partition: items of a pool that processes share by session locks of PostgreSQL.

A lock ends with its session, so the items of a process that died are free at once, and those of a host that vanished
once the server's keepalive gives it up. Nobody waits for anybody: each session claims up to its fair share and gives
back what is beyond it.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from accord.messaging.ports import Claims, Partition

_POOL_CLASS = 0x0ACC
"""First key of the shared lock that counts a pool's members. Items have the pool's own hash as their first key."""

_JOIN = "SELECT pg_advisory_lock_shared($1, $2)"
_MEMBERS = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = $1::int4::int8::oid AND objid = $2::int8::oid
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_CLAIM = "SELECT pg_try_advisory_lock($1, $2)"
_RELEASE = "SELECT pg_advisory_unlock($1, $2)"


class PostgresClaims:
    """The claims of one session, which is `connection`'s. Items are told apart by a 31-bit hash of pool and topic."""

    def __init__(self, connection: asyncpg.Connection, pool: str) -> None:
        self._connection = connection
        self._pool = pool
        self._member_key = _hash(pool)

    async def join(self) -> None:
        """Count as a member from now on."""
        await self._connection.execute(_JOIN, _POOL_CLASS, self._member_key)

    async def members(self) -> int:
        count: int = await self._connection.fetchval(_MEMBERS, _POOL_CLASS, self._member_key)
        return max(1, count)

    async def claim(self, item: Partition) -> bool:
        topic, number = item
        claimed: bool = await self._connection.fetchval(_CLAIM, _hash(f"{self._pool}/{topic}"), number)
        return claimed

    async def release(self, item: Partition) -> None:
        topic, number = item
        await self._connection.execute(_RELEASE, _hash(f"{self._pool}/{topic}"), number)

    async def close(self) -> None:
        await close_connection(self._connection)


async def balance(
    claims: Claims,
    items: Sequence[Partition],
    held: set[Partition],
    *,
    before_release: Callable[[], Awaitable[None]] | None = None,
) -> set[Partition]:
    """What this session holds of `items` after it gave back or claimed up to its fair share. `held` is what it had.

    The share is rounded up, so that all members' shares together cover all items. What is under way with an item has to
    be over before it is given back: `before_release` sees to that.
    """
    share = -(-len(items) // await claims.members())
    kept = sorted(held)
    if kept[share:] and before_release is not None:
        await before_release()
    for item in kept[share:]:
        await claims.release(item)
    now = set(kept[:share])
    for item in items:
        if len(now) >= share:
            break
        if item not in now and await claims.claim(item):
            now.add(item)
    return now


def _hash(name: str) -> int:
    return zlib.crc32(name.encode()) & 0x7FFF_FFFF


async def close_connection(connection: asyncpg.Connection) -> None:
    """Close a connection whose server may be gone."""
    try:
        await connection.close(timeout=2.0)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        connection.terminate()
