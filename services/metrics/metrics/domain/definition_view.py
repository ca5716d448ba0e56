"""The lead definition as metrics needs it: its stages, their order, and those on the path to a sale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast, get_args

from msgspec import Struct

from accord.contracts.values import Department, StageKind

_KINDS: frozenset[str] = frozenset(get_args(StageKind))


class Stage(Struct, frozen=True, gc=False):
    """One stage. `rank` is its position in the definition, from 0; `owner` is None if only events named it."""

    key: str
    rank: int
    kind: StageKind
    owner: Department | None = None


@dataclass(frozen=True)
class Stages:
    """All stages of one definition, by rank. `version` is None if events named them, without a definition."""

    version: int | None
    by_rank: tuple[Stage, ...]

    @cached_property
    def sales_path(self) -> tuple[Stage, ...]:
        """The open stages by rank, then the won ones: the stages that a lead passes before a sale."""
        return tuple(s for s in self.by_rank if s.kind == "open") + tuple(s for s in self.by_rank if s.kind == "won")

    @cached_property
    def exits(self) -> tuple[Stage, ...]:
        """The stages off the sales path: lost, recycled and disqualified."""
        return tuple(s for s in self.by_rank if s.kind not in ("open", "won"))

    @cached_property
    def by_key(self) -> Mapping[str, Stage]:
        return {stage.key: stage for stage in self.by_rank}


def order_stages(version: int | None, stages: Iterable[Stage]) -> Stages:
    """Order the stages by rank; of two with one key the first counts."""
    first_by_key: dict[str, Stage] = {}
    for stage in sorted(stages, key=lambda stage: (stage.rank, stage.key)):
        first_by_key.setdefault(stage.key, stage)
    return Stages(version, tuple(first_by_key.values()))


def parse_stages(version: int, content: Mapping[str, object]) -> Stages:
    """Parse the stages of the content in `agreement.activated`. Raises ValueError if it is no definition's content."""
    split_names = content.get("stages")
    if not isinstance(split_names, list):
        raise ValueError("a definition has a list of stages")
    return order_stages(
        version, [_parse_stage(rank, item) for rank, item in enumerate(cast("list[object]", split_names))]
    )


def _parse_stage(rank: int, item: object) -> Stage:
    if not isinstance(item, Mapping):
        raise ValueError(f"stage {rank} is not an object")
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
