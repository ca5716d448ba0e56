"""Keeps what is configured of sources at hand for those who take events in, with secrets decrypted in memory only."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from accord.db import Database
from accord.secrets import DecryptionFailed, SecretCipher
from intake.hooks.domain.payload_mapping import PayloadMapper
from intake.metric_names import SECRETS_UNREADABLE
from intake.sources import queries as sources
from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import AnyAdapter, HookSettings, Secrets
from intake.sources.domain.source import EncryptedSecret, Source
from intake.sources.service.sources import Sources

log = structlog.get_logger(__name__)

_REFRESH_S = 1.0
_ENTRIES_MAX = 5_000


@dataclass(frozen=True, slots=True)
class PreparedSource:
    """A source made ready for its events. `adapter` is None for one that is configured for imports and mappings only."""

    source: Source
    adapter: AnyAdapter | None
    settings: HookSettings | None
    mapper: PayloadMapper | None
    decrypted: tuple[tuple[EncryptedSecret, bytes], ...] = field(repr=False, default=())

    def secrets(self, now: datetime) -> Secrets:
        """The secrets that are valid at this moment, by kind, the newest first."""
        found: dict[str, list[bytes]] = {}
        for encrypted, clear in self.decrypted:
            if encrypted.until is None or encrypted.until > now:
                found.setdefault(encrypted.kind, []).append(clear)
        return found


_Entry = tuple[float, int, PreparedSource | None]
"""Until when it holds (monotonic), after how many changes of this process it was read, and the source."""


class SourceCache:
    """Sources by name, ready and at hand. Another process's change is seen after a second at most, one of this process at once."""

    def __init__(self, database: Database, cipher: SecretCipher, configured: Sources) -> None:
        self._database = database
        self._cipher = cipher
        self._configured = configured
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._loading: dict[str, asyncio.Task[_Entry]] = {}
        """Look-ups under way: those who ask for the same name share one, and nobody waits for another name's."""

    async def find(self, name: str) -> PreparedSource | None:
        """The source of this name; None if none is configured."""
        found = self._cached(name)
        if found is None:
            task = self._loading.get(name)
            if task is None:
                task = self._loading[name] = asyncio.create_task(self._load_entry(name))
                task.add_done_callback(lambda done: self._forget_task(name, done))
            found = await asyncio.shield(task)
        return found[2]

    def _forget_task(self, name: str, done: asyncio.Task[_Entry]) -> None:
        self._loading.pop(name, None)
        if not done.cancelled():
            done.exception()  # whoever asked has it; when all of them have gone, nobody needs it

    def _cached(self, name: str) -> _Entry | None:
        found = self._entries.get(name)
        if found is None or found[0] <= time.monotonic() or found[1] != self._configured.changes:
            return None
        return found

    async def _load_entry(self, name: str) -> _Entry:
        changes = self._configured.changes
        async with self._database.read_transaction() as conn:
            source = await sources.read(conn, name)
        before = self._entries.pop(name, None)
        if source is None:
            prepared = None
        elif before is not None and before[2] is not None and before[2].source == source:
            prepared = before[2]
        else:
            prepared = self._prepare(source)
        entry = (time.monotonic() + _REFRESH_S, changes, prepared)
        self._entries[name] = entry
        if len(self._entries) > _ENTRIES_MAX:
            self._entries.popitem(last=False)
        return entry

    def _prepare(self, source: Source) -> PreparedSource:
        adapter = None if source.adapter is None else ADAPTERS.get(source.adapter)
        if adapter is None:
            return PreparedSource(source, None, None, None)
        decrypted: list[tuple[EncryptedSecret, bytes]] = []
        for one in source.secrets:
            try:
                decrypted.append(
                    (one, self._cipher.decrypt(one.encrypted, source.name, one.kind, one.secret_id).encode())
                )
            except DecryptionFailed:
                SECRETS_UNREADABLE.inc()
                log.error("secret_not_decrypted", source=source.name, kind=one.kind)
        settings = adapter.settings.model_validate(source.settings)
        mapper = PayloadMapper.build(adapter, source.mapping, source.defaults)
        return PreparedSource(source, adapter, settings, mapper, tuple(decrypted))
