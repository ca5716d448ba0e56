"""The lead definition as metrics needs it: which stages there are, in which order, and which of them are the way to a
sale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast, get_args

from accord.contracts.values import Department, StageKind

_KINDS: frozenset[str] = frozenset(get_args(StageKind))


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. `rank` is its place in the definition, from 0; `owner` is None where only events told of it."""

    key: str
    rank: int
    kind: StageKind
    owner: Department | None = None


@dataclass(frozen=True)
class Stages:
    """All stages of one definition, by rank. `version` is None where they were gathered from events, without a
    definition."""

    version: int | None
    every: tuple[Stage, ...]

    @cached_property
    def way(self) -> tuple[Stage, ...]:
        """The open stages by rank, then the won ones: what a lead passes on its way to a sale."""
        return tuple(s for s in self.every if s.kind == "open") + tuple(s for s in self.every if s.kind == "won")

    @cached_property
    def exits(self) -> tuple[Stage, ...]:
        """The stages off the way: lost, recycled and disqualified."""
        return tuple(s for s in self.every if s.kind not in ("open", "won"))

    @cached_property
    def by_key(self) -> Mapping[str, Stage]:
        return {stage.key: stage for stage in self.every}


def stages_of(version: int | None, stages: Iterable[Stage]) -> Stages:
    """The stages in order of rank; of two with one key the first counts."""
    seen: dict[str, Stage] = {}
    for stage in sorted(stages, key=lambda stage: (stage.rank, stage.key)):
        seen.setdefault(stage.key, stage)
    return Stages(version, tuple(seen.values()))


def stages_of_definition(version: int, content: Mapping[str, object]) -> Stages:
    """The stages of the content that `agreement.activated` carried. Raises ValueError if it is no definition's
    content."""
    listed = content.get("stages")
    if not isinstance(listed, list):
        raise ValueError("a definition has a list of stages")
    return stages_of(version, [_stage(rank, item) for rank, item in enumerate(cast("list[object]", listed))])


def _stage(rank: int, item: object) -> Stage:
    if not isinstance(item, Mapping):
        raise ValueError(f"stage {rank} is no object")
    entry = cast("Mapping[str, object]", item)
    key, kind, owner = entry.get("key"), entry.get("kind", "open"), entry.get("owner")
    if not isinstance(key, str) or not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"stage {rank} has no key, or a kind that does not exist")
    department: Department | None = None
    if owner == "marketing":
        department = "marketing"
    elif owner == "sales":
        department = "sales"
    return Stage(key, rank, cast("StageKind", kind), department)
