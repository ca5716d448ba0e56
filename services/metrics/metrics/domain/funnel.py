"""The funnel: how many leads got how far, counted once each whatever their detours. Reads nothing; the caller gathers
the paths.

Leads with the same path are the same to a funnel, so the caller may hand them in as one tally with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from accord.contracts.values import StageKind
from metrics.domain.choices import Choices, Mode, Order, Visit
from metrics.domain.definition_view import Stage, Stages
from metrics.domain.intervals import wilson

GroupValue = bool | int | float | str | tuple[str, ...] | None
GroupKey = tuple[GroupValue, ...]
"""The values of the chosen dimensions, in their order; None where a lead's value is unknown."""


@dataclass(frozen=True, slots=True)
class Journey:
    """The stages of a lead in the order of its entries. `counted` are the places that lie in the period; None counts
    all."""

    path: tuple[str, ...]
    counted: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """So many leads of one group with the same journey and the same anomalies."""

    group: GroupKey
    journey: Journey
    leads: int
    anomalies: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one journey got: stages it was in, stages it counts as having reached, stages off the way."""

    entered: frozenset[str]
    reached: frozenset[str]


@dataclass(frozen=True, slots=True)
class StageCount:
    """One stage of the way. Conversions compare `reached`; they are None where there is nothing to compare with."""

    stage: Stage
    entered: int
    reached: int
    conversion_from_previous: float | None
    interval_95: tuple[float, float] | None
    conversion_from_first: float | None
    interval_95_from_first: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class ExitCount:
    """One stage off the way. `kind` is None for a stage that the definition in force no longer has."""

    stage: str
    kind: StageKind | None
    entered: int


@dataclass(frozen=True, slots=True)
class Group:
    """The funnel of one group. `leads` is its n."""

    key: GroupKey
    leads: int
    stages: tuple[StageCount, ...]
    exits: tuple[ExitCount, ...]


@dataclass(frozen=True, slots=True)
class Funnel:
    groups: tuple[Group, ...]
    leads: int
    anomalies: Mapping[str, int]


STAGE_NOT_IN_DEFINITION = "stage_not_in_definition"
LEAD_WITHOUT_STAGE = "lead_without_stage"


def chosen_places(journey: Journey, visit: Visit) -> dict[str, int]:
    """For each stage of the journey the place of its first or last entry, where that entry is counted."""
    places: dict[str, int] = {}
    for place, stage in enumerate(journey.path):
        if visit == "last" or stage not in places:
            places[stage] = place
    if journey.counted is None:
        return places
    return {stage: place for stage, place in places.items() if place in journey.counted}


def standing(stages: Stages, journey: Journey, order: Order, visit: Visit) -> Standing:
    """How far a journey got.

    `any`: a stage is reached by a lead that was in it or in a later stage of the way (an open one of higher rank, or
    a won one).
    `strict`: it is reached by a lead that was in every stage of the way up to it, in that order.
    """
    places = chosen_places(journey, visit)
    opens = [stage.key for stage in stages.way if stage.kind == "open"]
    wons = [stage.key for stage in stages.way if stage.kind == "won"]
    reached = _reached_strictly(opens, wons, places) if order == "strict" else _reached_any(opens, wons, places)
    return Standing(frozenset(places), frozenset(reached))


def _reached_any(opens: list[str], wons: list[str], places: Mapping[str, int]) -> set[str]:
    reached = {stage for stage in wons if stage in places}
    beyond = bool(reached)
    for stage in reversed(opens):
        beyond = beyond or stage in places
        if beyond:
            reached.add(stage)
    return reached


def _reached_strictly(opens: list[str], wons: list[str], places: Mapping[str, int]) -> set[str]:
    reached: set[str] = set()
    before = -1
    for stage in opens:
        if places.get(stage, -1) <= before:
            return reached
        before = places[stage]
        reached.add(stage)
    return reached | {stage for stage in wons if places.get(stage, -1) > before}


@dataclass
class _Count:
    leads: int = 0
    entered: dict[str, int] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)

    def add(self, at: Standing, leads: int) -> None:
        self.leads += leads
        for stage in at.entered:
            self.entered[stage] = self.entered.get(stage, 0) + leads
        for stage in at.reached:
            self.reached[stage] = self.reached.get(stage, 0) + leads


def funnel(stages: Stages, tallies: Iterable[Tally], choices: Choices) -> Funnel:
    """The funnel of all tallies, by group. Without dimensions there is exactly one group, also when there are no
    leads."""
    counts: dict[GroupKey, _Count] = {} if choices.by else {(): _Count()}
    standings: dict[Journey, Standing] = {}
    anomalies: dict[str, int] = {}
    for tally in tallies:
        at = standings.get(tally.journey)
        if at is None:
            at = standings[tally.journey] = standing(stages, tally.journey, choices.order, choices.entry)
        counts.setdefault(tally.group, _Count()).add(at, tally.leads)
        for kind in tally.anomalies | _anomalies_of(stages, tally.journey):
            anomalies[kind] = anomalies.get(kind, 0) + tally.leads
    groups = tuple(_group(stages, key, counts[key]) for key in sorted(counts, key=group_order))
    return Funnel(groups, sum(group.leads for group in groups), dict(sorted(anomalies.items())))


def group_order(key: GroupKey) -> tuple[tuple[int, float, str], ...]:
    """Sorts groups by their values: numbers, then words, then the unknown. Equal for two keys only if they are one
    group."""
    return tuple(_value_order(value) for value in key)


def _value_order(value: GroupValue) -> tuple[int, float, str]:
    if value is None:
        return 3, 0, ""
    if isinstance(value, bool):
        return 1, value, ""
    if isinstance(value, int | float):
        return 0, value, ""
    return 2, 0, str(value)


def _anomalies_of(stages: Stages, journey: Journey) -> frozenset[str]:
    found = set()
    if not journey.path:
        found.add(LEAD_WITHOUT_STAGE)
    if any(stage not in stages.by_key for stage in journey.path):
        found.add(STAGE_NOT_IN_DEFINITION)
    return frozenset(found)


def _group(stages: Stages, key: GroupKey, count: _Count) -> Group:
    retired = sorted(stage for stage in count.entered if stage not in stages.by_key)
    exits = [ExitCount(stage.key, stage.kind, count.entered.get(stage.key, 0)) for stage in stages.exits]
    exits += [ExitCount(stage, None, count.entered[stage]) for stage in retired]
    return Group(key, count.leads, tuple(_way(stages, count)), tuple(exits))


def _way(stages: Stages, count: _Count) -> Iterable[StageCount]:
    previous: int | None = None
    first: int | None = None
    for stage in stages.way:
        reached = count.reached.get(stage.key, 0)
        yield StageCount(
            stage=stage,
            entered=count.entered.get(stage.key, 0),
            reached=reached,
            conversion_from_previous=_share(reached, previous),
            interval_95=None if previous is None else wilson(reached, previous),
            conversion_from_first=_share(reached, first),
            interval_95_from_first=None if first is None else wilson(reached, first),
        )
        if stage.kind == "open":
            previous = reached
            first = reached if first is None else first


def _share(part: int, whole: int | None) -> float | None:
    return part / whole if whole else None


MODE_WORDS: Mapping[Mode, str] = {
    "cohort": "Leads captured in the period, and how far they have got since.",
    "period": "Entries into stages dated in the period, of leads captured at any time; each lead counts once a stage.",
}
ORDER_WORDS: Mapping[Order, str] = {
    "any": "Reached: leads that were in the stage or in a later one on the way to won, whichever they passed over.",
    "strict": "Reached: leads that were in every stage of the way up to this one, in that order.",
}
VISIT_WORDS: Mapping[Visit, str] = {
    "first": "Of several entries into one stage the first counts.",
    "last": "Of several entries into one stage the last counts.",
}
FUNNEL_WORDS: tuple[str, ...] = (
    "Entered: leads that were in the stage itself. Lost, recycled and disqualified are off the way: exits.",
    "Conversions divide the reached of a stage by the reached of the stage before it, and of the first stage.",
    "Intervals are Wilson score intervals of 95 % around the conversion.",
    "Leads merged into another do not count; the surviving lead does.",
)


def funnel_words(choices: Choices) -> list[str]:
    """The definition of the numbers in plain sentences, to stand beside them."""
    return [MODE_WORDS[choices.mode], ORDER_WORDS[choices.order], VISIT_WORDS[choices.entry], *FUNNEL_WORDS]
