"""The version in force, parsed once and at hand without a query for each request. It never makes up a version."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements.store import AgreementStore
from accord.db import is_transient
from accord.metric_names import AGREEMENT_ACTIVE

log = structlog.get_logger(__name__)

T = TypeVar("T")

_REFRESH_S = 1.0
_PARSED_MAX = 32


class ActiveCache(Generic[T]):
    """`parse` makes of a content what the service works with (compiled rules); it runs once for each version.

    Another process's activation is seen after a second at most, one of this process at once. While the database does not
    answer, the version last seen stays: nothing can be recorded under it then anyway.
    """

    def __init__(self, store: AgreementStore, parse: Callable[[Mapping[str, object]], T]) -> None:
        self._store = store
        self._parse = parse
        self._parsed: OrderedDict[int, T] = OrderedDict()
        self._current: tuple[int, T] | None = None
        self._known = False
        self._look_at = 0.0
        self._activations = -1
        self._looking = asyncio.Lock()

    async def current(self, conn: AsyncConnection | None = None) -> tuple[int, T] | None:
        """The number of the version in force and what was parsed of it; None if nothing is in force.

        Whoever holds a transaction gives its connection: looking takes one of its own otherwise.
        """
        if time.monotonic() >= self._look_at or self._activations != self._store.activations:
            if conn is None:
                await self._look()
            else:  # without waiting for whoever looks just now, since that may wait for a connection
                await self._refresh(conn)
        return self._current

    async def at(self, version: int, conn: AsyncConnection | None = None) -> T:
        """What was parsed of a version that is or was in force. Raises NoSuchVersion."""
        found = self._parsed.get(version)
        if found is None:
            found = self._keep(version, (await self._store.version(version, conn)).content)
        return found

    async def _look(self) -> None:
        if self._looking.locked() and self._known and self._activations == self._store.activations:
            return  # somebody else is looking; what is known is fresh enough
        async with self._looking:
            if self._known and time.monotonic() < self._look_at and self._activations == self._store.activations:
                return
            try:
                await self._refresh(None)
            except Exception as error:
                if not self._known or not is_transient(error):
                    raise
                log.warning("agreement_not_refreshed", kind=self._store.kind.kind, error=type(error).__name__)
                self._look_at = time.monotonic() + _REFRESH_S

    async def _refresh(self, conn: AsyncConnection | None) -> None:
        activations = self._store.activations
        version = await self._store.active_version(conn)
        self._current = None if version is None else (version, await self.at(version, conn))
        self._activations = activations
        AGREEMENT_ACTIVE.labels(self._store.kind.kind).set(version or 0)
        self._known = True
        self._look_at = time.monotonic() + _REFRESH_S

    def _keep(self, version: int, content: Mapping[str, object]) -> T:
        parsed = self._parse(content)
        self._parsed[version] = parsed
        if len(self._parsed) > _PARSED_MAX:
            self._parsed.popitem(last=False)
        return parsed
