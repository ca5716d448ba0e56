"""The versions that evaluate leads in one unit of work, and what is done after they are saved. Opened before it where possible."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.contracts.qualification_events import LeadStageChanged
from accord.db import UnitOfWork
from qualification.definition.domain.rules import Rules
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.domain.lead import Lead


class MergeChange(NamedTuple):
    """Two leads became one, or were parted again. `other_id` is the merged, or restored, one."""

    merge_id: UUID
    other_id: UUID
    survivor_id: UUID


class Changes(Struct, frozen=True):
    """What a unit of work has done to its leads: as they were and are, the emitted entries, merges, reverted merges, erasures."""

    before: Mapping[UUID, Lead]
    now: Mapping[UUID, Lead]
    entries: Sequence[LeadStageChanged]
    merges: Sequence[MergeChange]
    reverted_merges: Sequence[MergeChange]
    erased: Collection[UUID]


AfterSave = Callable[[UnitOfWork, Changes, Rules | None], Awaitable[None]]
"""Done once the leads of a unit of work are written, in it and under the version in force."""

PrepareAfterSave = Callable[[AsyncConnection | None], Awaitable[AfterSave]]
"""Looks up what `AfterSave` needs, so that it need not within the unit of work. Whoever holds a transaction passes its connection."""


class EvaluationContext(Struct, frozen=True):
    """The version in force, None while there is none, and every version that may evaluate a lead."""

    in_force: Rules | None
    versions: Mapping[int, Rules]
    kinds: frozenset[str]
    """The kinds of activity that any of the versions asks for."""
    load_versions: Callable[[Iterable[int], AsyncConnection], Awaitable[None]]
    """Loads these versions, over the connection of the unit of work."""
    after_save: AfterSave

    def rules_of(self, lead: Lead) -> Rules | None:
        """The version that evaluates a lead, or would let it enter."""
        return self.in_force if lead.applied_version is None else self.versions[lead.applied_version]


class EvaluationContexts:
    """Opens a context for each unit of work."""

    def __init__(self, definitions: DefinitionVersionCache, prepare: PrepareAfterSave) -> None:
        self._definitions = definitions
        self._prepare = prepare

    async def open(self, conn: AsyncConnection | None = None) -> EvaluationContext:
        """The context of this moment. Whoever holds a transaction passes its connection; otherwise it may take one of its own."""
        known = await self._definitions.get_versions(conn)
        return EvaluationContext(*known, self._definitions.load_versions, await self._prepare(conn))
