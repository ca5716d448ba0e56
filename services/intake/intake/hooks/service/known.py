"""Keeps what is configured of sources at hand for those who take events in, with secrets opened in memory only."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from accord.db import Database
from intake.hooks.domain.taking import Taking
from intake.metric_names import SECRETS_UNREADABLE
from intake.sources import queries as sources
from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import AnyAdapter, HookSettings, Secrets
from intake.sources.domain.source import SealedSecret, Source
from intake.sources.service.secrets import NotOpened, Vault
from intake.sources.service.sources import Sources

log = structlog.get_logger(__name__)

_REFRESH_S = 1.0
_KNOWN_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Ready:
    """A source made ready for its events. `adapter` is None for one that is configured for imports and mappings only."""

    source: Source
    adapter: AnyAdapter | None
    settings: HookSettings | None
    taking: Taking | None
    opened: tuple[tuple[SealedSecret, bytes], ...] = field(repr=False, default=())

    def secrets(self, now: datetime) -> Secrets:
        """The secrets that are valid at this moment, by use, the newest first."""
        found: dict[str, list[bytes]] = {}
        for sealed, clear in self.opened:
            if sealed.until is None or sealed.until > now:
                found.setdefault(sealed.use, []).append(clear)
        return found


_Entry = tuple[float, int, Ready | None]
"""Until when it holds (monotonic), after how many changes of this process it was read, and the source."""


class KnownSources:
    """Sources by name, ready and at hand. Another process's change is seen after a second at most, one of this process at once."""

    def __init__(self, database: Database, vault: Vault, configured: Sources) -> None:
        self._database = database
        self._vault = vault
        self._configured = configured
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._looking: dict[str, asyncio.Task[_Entry]] = {}
        """Look-ups under way: those who ask for the same name share one, and nobody waits for another name's."""

    async def find(self, name: str) -> Ready | None:
        """The source of this name; None if none is configured."""
        found = self._at_hand(name)
        if found is None:
            task = self._looking.get(name)
            if task is None:
                task = self._looking[name] = asyncio.create_task(self._load_entry(name))
                task.add_done_callback(lambda done: self._looked(name, done))
            found = await asyncio.shield(task)
        return found[2]

    def _looked(self, name: str, done: asyncio.Task[_Entry]) -> None:
        self._looking.pop(name, None)
        if not done.cancelled():
            done.exception()  # whoever asked has it; when all of them have gone, nobody needs it

    def _at_hand(self, name: str) -> _Entry | None:
        found = self._known.get(name)
        if found is None or found[0] <= time.monotonic() or found[1] != self._configured.changes:
            return None
        return found

    async def _load_entry(self, name: str) -> _Entry:
        changes = self._configured.changes
        async with self._database.read_transaction() as conn:
            source = await sources.read(conn, name)
        before = self._known.pop(name, None)
        if source is None:
            ready = None
        elif before is not None and before[2] is not None and before[2].source == source:
            ready = before[2]
        else:
            ready = self._ready(source)
        entry = (time.monotonic() + _REFRESH_S, changes, ready)
        self._known[name] = entry
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return entry

    def _ready(self, source: Source) -> Ready:
        adapter = None if source.adapter is None else ADAPTERS.get(source.adapter)
        if adapter is None:
            return Ready(source, None, None, None)
        opened: list[tuple[SealedSecret, bytes]] = []
        for one in source.secrets:
            try:
                opened.append((one, self._vault.open(one.sealed, source.name, one.use, one.secret_id).encode()))
            except NotOpened:
                SECRETS_UNREADABLE.inc()
                log.error("secret_not_opened", source=source.name, use=one.use)
        settings = adapter.settings.model_validate(source.settings)
        taking = Taking.of(adapter, source.mapping, source.defaults)
        return Ready(source, adapter, settings, taking, tuple(opened))
