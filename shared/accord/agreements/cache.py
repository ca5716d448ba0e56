"""The version in force, compiled once and at hand without a query for each request. It never makes up a version."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar, cast

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements.store import AgreementStore
from accord.db import is_transient

log = structlog.get_logger(__name__)

T = TypeVar("T")

_REFRESH_S = 1.0
_PARSED_MAX = 32


class CurrentValue(Generic[T]):
    """The result of `read`, read again after `refresh_s` at the earliest.

    While the database does not answer, the value last read stays: nothing can be recorded under it then anyway. `name` is what
    the log calls it.
    """

    def __init__(
        self, read: Callable[[AsyncConnection | None], Awaitable[T]], name: str, refresh_s: float = _REFRESH_S
    ) -> None:
        self._read = read
        self._refresh_s = refresh_s
        self._name = name
        self._value: T | None = None
        self._is_known = False
        self._read_at = 0.0
        """When it is read next."""
        self._expirations = 0
        self._expirations_read = 0
        self._add_reading_routes = asyncio.Lock()

    async def get(self, conn: AsyncConnection | None = None) -> T:
        """The value. Pass the connection of an open transaction; otherwise reading takes one of its own."""
        if self._is_due():
            if conn is not None:  # without waiting for whoever reads just now, since that may wait for a connection
                await self._refresh(conn)
            elif not self._add_reading_routes.locked() or not self._is_fresh_enough():
                async with self._add_reading_routes:
                    if self._is_due():
                        await self._try_refresh()
        return cast("T", self._value)

    def expire(self) -> None:
        """Read it again before it is returned again."""
        self._expirations += 1

    def _is_due(self) -> bool:
        return time.monotonic() >= self._read_at or self._expirations != self._expirations_read

    def _is_fresh_enough(self) -> bool:
        """While somebody else reads it again."""
        return self._is_known and self._expirations == self._expirations_read

    async def _try_refresh(self) -> None:
        try:
            await self._refresh(None)
        except Exception as error:
            if not self._is_known or not is_transient(error):
                raise
            log.warning("value_not_refreshed", name=self._name, error=type(error).__name__)
            self._read_at = time.monotonic() + _REFRESH_S

    async def _refresh(self, conn: AsyncConnection | None) -> None:
        expirations = self._expirations
        self._value = await self._read(conn)
        self._expirations_read = expirations
        self._is_known = True
        self._read_at = time.monotonic() + self._refresh_s


class ActiveVersion(Generic[T]):
    """What `load` makes of the number of the version in force, which is None while there is none.

    Another process's activation is seen after a second at most, one of this process at once.
    """

    def __init__(
        self, store: AgreementStore, load: Callable[[int | None, AsyncConnection | None], Awaitable[T]]
    ) -> None:
        self._store = store
        self._load = load
        self._value = CurrentValue(self._read, store.kind.kind)
        self._activations = store.activations

    async def get(self, conn: AsyncConnection | None = None) -> T:
        """What `load` made of it. Pass the connection of an open transaction."""
        if self._activations != self._store.activations:
            self._activations = self._store.activations
            self._value.expire()
        return await self._value.get(conn)

    async def _read(self, conn: AsyncConnection | None) -> T:
        return await self._load(await self._store.active_version(conn), conn)


class ActiveCache(Generic[T]):
    """The versions parsed: `parse` makes compiled rules of a content, once for each version."""

    def __init__(self, store: AgreementStore, parse: Callable[[Mapping[str, object]], T]) -> None:
        self._store = store
        self._parse = parse
        self._parsed: OrderedDict[int, T] = OrderedDict()
        self._active: ActiveVersion[tuple[int, T] | None] = ActiveVersion(store, self._load)

    async def current(self, conn: AsyncConnection | None = None) -> tuple[int, T] | None:
        """The number of the version in force and what was parsed of it; None if nothing is in force.

        Pass the connection of an open transaction; otherwise reading takes one of its own.
        """
        return await self._active.get(conn)

    async def at(self, version: int, conn: AsyncConnection | None = None) -> T:
        """What was parsed of a version that is or was in force. Raises NoSuchVersion."""
        found = self._parsed.get(version)
        if found is None:
            found = self._parsed[version] = self._parse((await self._store.version(version, conn)).content)
            if len(self._parsed) > _PARSED_MAX:
                self._parsed.popitem(last=False)
        return found

    async def _load(self, version: int | None, conn: AsyncConnection | None) -> tuple[int, T] | None:
        return None if version is None else (version, await self.at(version, conn))
