"""The funnel: how many leads reached each stage, each lead counted once whatever its detours. The caller reads the paths.

Leads with the same path are the same to a funnel, so the caller may pass them as one tally with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from accord.contracts.values import StageKind
from metrics.domain.definition_view import Stage, Stages
from metrics.domain.intervals import wilson
from metrics.domain.report_query import Mode, Order, ReportQuery, Visit, describe_dimensions

GroupValue = bool | int | float | str | tuple[str, ...] | None
GroupKey = tuple[GroupValue, ...]
"""The values of the chosen dimensions, in their order; None where a lead's value is unknown."""


Figure = Literal["reached", "entered"]


class StagePath(Struct, frozen=True, gc=False):
    """The stages of a lead in the order of its entries. `counted` are the positions in the period; None counts all."""

    stages: tuple[str, ...]
    counted: frozenset[int] | None = None


class Tally(Struct, frozen=True, gc=False):
    """The number of leads of one group with the same path and the same anomalies."""

    group: GroupKey
    path: StagePath
    leads: int
    anomalies: frozenset[str] = frozenset()


class StageReach(Struct, frozen=True, gc=False):
    """How far one path went: the stages that it entered, and those that count as reached."""

    entered: frozenset[str]
    reached: frozenset[str]


class StageCount(Struct, frozen=True, gc=False):
    """One stage of the sales path. Conversions compare `reached`; they are None without anything to compare with."""

    stage: Stage
    entered: int
    reached: int
    conversion_from_previous: float | None
    interval_95: tuple[float, float] | None
    conversion_from_first: float | None
    interval_95_from_first: tuple[float, float] | None


class ExitCount(Struct, frozen=True, gc=False):
    """One stage off the sales path. `kind` is None for a stage that the definition in force no longer has."""

    stage: str
    kind: StageKind | None
    entered: int


class Group(Struct, frozen=True, gc=False):
    """The funnel of one group. `leads` is its n."""

    key: GroupKey
    leads: int
    stages: tuple[StageCount, ...]
    exits: tuple[ExitCount, ...]


class Funnel(Struct, frozen=True, gc=False):
    groups: tuple[Group, ...]
    leads: int
    anomalies: Mapping[str, int]


STAGE_NOT_IN_DEFINITION = "stage_not_in_definition"
LEAD_WITHOUT_STAGE = "lead_without_stage"


def select_positions(path: StagePath, visit: Visit) -> dict[str, int]:
    """For each stage of the path the position of its first or last entry, if that entry is counted."""
    positions: dict[str, int] = {}
    for position, stage in enumerate(path.stages):
        if visit == "last" or stage not in positions:
            positions[stage] = position
    if path.counted is None:
        return positions
    return {stage: position for stage, position in positions.items() if position in path.counted}


def compute_reach(stages: Stages, path: StagePath, order: Order, visit: Visit) -> StageReach:
    """Compute how far a path went.

    `any`: a lead reaches a stage by entering it or a later stage of the sales path (an open one of higher rank, or a won
    one). `strict`: a lead reaches it by entering every stage of the sales path up to it, in that order, whatever detours
    and returns lie between; in a period the chosen entry of each of these stages is dated in it.
    """
    positions = select_positions(path, visit)
    open_stages = [stage.key for stage in stages.sales_path if stage.kind == "open"]
    won_stages = [stage.key for stage in stages.sales_path if stage.kind == "won"]
    if order == "any":
        reached = _find_reached_any(open_stages, won_stages, positions)
    else:
        reached = _find_reached_strict(open_stages, won_stages, path.stages, positions)
    return StageReach(frozenset(positions), frozenset(reached))


def _find_reached_any(open_stages: list[str], won_stages: list[str], positions: Mapping[str, int]) -> set[str]:
    reached = {stage for stage in won_stages if stage in positions}
    beyond = bool(reached)
    for stage in reversed(open_stages):
        beyond = beyond or stage in positions
        if beyond:
            reached.add(stage)
    return reached


def _find_reached_strict(
    open_stages: list[str], won_stages: list[str], entered: tuple[str, ...], positions: Mapping[str, int]
) -> set[str]:
    """Match the sales path greedily: each stage's earliest entry after that of the stage before loses no later one."""
    reached: set[str] = set()
    after = 0
    for stage in open_stages:
        if stage not in positions or stage not in entered[after:]:
            return reached
        after = entered.index(stage, after) + 1
        reached.add(stage)
    return reached | {stage for stage in won_stages if stage in positions and stage in entered[after:]}


def select_paths(
    stages: Stages, paths: Iterable[StagePath], query: ReportQuery, stage: str, figure: Figure
) -> set[StagePath]:
    """Select the paths that a figure of a stage counts."""
    reaches = ((path, compute_reach(stages, path, query.order, query.entry)) for path in paths)
    return {path for path, reach in reaches if stage in (reach.reached if figure == "reached" else reach.entered)}


@dataclass
class _GroupCounts:
    leads: int = 0
    entered: dict[str, int] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)

    def add(self, reach: StageReach, leads: int) -> None:
        self.leads += leads
        for stage in reach.entered:
            self.entered[stage] = self.entered.get(stage, 0) + leads
        for stage in reach.reached:
            self.reached[stage] = self.reached.get(stage, 0) + leads


def compute_funnel(stages: Stages, tallies: Iterable[Tally], query: ReportQuery) -> Funnel:
    """Compute the funnel of all tallies, by group. Without dimensions there is exactly one group, also without leads."""
    counts: dict[GroupKey, _GroupCounts] = {} if query.by else {(): _GroupCounts()}
    reach_of: dict[StagePath, StageReach] = {}
    anomalies: dict[str, int] = {}
    for tally in tallies:
        reach = reach_of.get(tally.path)
        if reach is None:
            reach = reach_of[tally.path] = compute_reach(stages, tally.path, query.order, query.entry)
        counts.setdefault(tally.group, _GroupCounts()).add(reach, tally.leads)
        for kind in tally.anomalies | _find_anomalies(stages, tally.path):
            anomalies[kind] = anomalies.get(kind, 0) + tally.leads
    groups = tuple(_build_group(stages, key, counts[key]) for key in sorted(counts, key=group_sort_key))
    return Funnel(groups, sum(group.leads for group in groups), dict(sorted(anomalies.items())))


def group_sort_key(key: GroupKey) -> tuple[tuple[int, float, str], ...]:
    """Sorts groups by their values: numbers, then text, then unknown. Two keys are equal only if they are one group."""
    return tuple(_value_sort_key(value) for value in key)


def _value_sort_key(value: GroupValue) -> tuple[int, float, str]:
    if value is None:
        return 3, 0, ""
    if isinstance(value, bool):
        return 1, value, ""
    if isinstance(value, int | float):
        return 0, value, ""
    return 2, 0, str(value)


def _find_anomalies(stages: Stages, path: StagePath) -> frozenset[str]:
    kinds = set()
    if not path.stages:
        kinds.add(LEAD_WITHOUT_STAGE)
    if any(stage not in stages.by_key for stage in path.stages):
        kinds.add(STAGE_NOT_IN_DEFINITION)
    return frozenset(kinds)


def _build_group(stages: Stages, key: GroupKey, count: _GroupCounts) -> Group:
    retired = sorted(stage for stage in count.entered if stage not in stages.by_key)
    exits = [ExitCount(stage.key, stage.kind, count.entered.get(stage.key, 0)) for stage in stages.exits]
    exits += [ExitCount(stage, None, count.entered[stage]) for stage in retired]
    return Group(key, count.leads, tuple(_count_stages(stages, count)), tuple(exits))


def _count_stages(stages: Stages, count: _GroupCounts) -> Iterable[StageCount]:
    previous: int | None = None
    first: int | None = None
    for stage in stages.sales_path:
        reached = count.reached.get(stage.key, 0)
        yield StageCount(
            stage=stage,
            entered=count.entered.get(stage.key, 0),
            reached=reached,
            conversion_from_previous=_divide(reached, previous),
            interval_95=None if previous is None else wilson(reached, previous),
            conversion_from_first=_divide(reached, first),
            interval_95_from_first=None if first is None else wilson(reached, first),
        )
        if stage.kind == "open":
            previous = reached
            first = reached if first is None else first


def _divide(part: int, whole: int | None) -> float | None:
    return part / whole if whole else None


MODE_DESCRIPTIONS: Mapping[Mode, str] = {
    "cohort": "Leads captured in the period, and how far they have got since.",
    "period": "Entries into stages dated in the period, of leads captured at any time; each lead counts once a stage.",
}
ORDER_DESCRIPTIONS: Mapping[Order, str] = {
    "any": "Reached: leads that entered the stage or a later one on the path to won, whichever they skipped.",
    "strict": "Reached: leads that entered every stage of the path up to this one, in that order, with or without detours.",
}
VISIT_DESCRIPTIONS: Mapping[Visit, str] = {
    "first": "Of several entries into one stage the first counts.",
    "last": "Of several entries into one stage the last counts.",
}
FUNNEL_DESCRIPTIONS: tuple[str, ...] = (
    "Entered: leads that entered the stage itself. Lost, recycled and disqualified are exits, off the path to won.",
    "Conversions divide the reached of a stage by the reached of the stage before it, and of the first stage.",
    "Intervals are Wilson score intervals of 95 % around the conversion.",
    "Leads merged into another do not count; the surviving lead does.",
)


def describe_funnel(query: ReportQuery) -> list[str]:
    """Describe the numbers in plain sentences."""
    return [
        MODE_DESCRIPTIONS[query.mode],
        ORDER_DESCRIPTIONS[query.order],
        VISIT_DESCRIPTIONS[query.entry],
        *FUNNEL_DESCRIPTIONS,
        *describe_dimensions(query),
    ]
