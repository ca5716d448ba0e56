"""Velocity: how long steps take, with waiting leads as censored observations. Durations are whole microseconds.

A step of a stage lasts from entry to exit. A transition is one exit of a stage. `between` goes from one stage to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from metrics.domain.definition_view import Stages
from metrics.domain.funnel import VISIT_DESCRIPTIONS
from metrics.domain.quantiles import QUANTILE_DESCRIPTION, quantile
from metrics.domain.report_query import Mode, ReportQuery, Visit, describe_dimensions
from metrics.domain.stage_history import StageEntry, to_microseconds
from metrics.domain.survival import km_median

RESTING_KINDS = frozenset({"won", "lost", "disqualified"})
"""A lead in a stage of this kind rests: it does not wait for an exit."""


class Durations(Struct, frozen=True, gc=False):
    """One step's durations, in any order: finished, still waiting, and of leads that left by another exit."""

    finished: Sequence[int]
    waiting: Sequence[int] = ()
    left: Sequence[int] = ()


class Step(Struct, frozen=True, gc=False):
    """The figures of one step; None without observations. `to` is None for the time in a stage."""

    from_: str
    to: str | None
    n: int
    waiting: int
    left: int
    mean_us: float | None
    p50_us: float | None
    p75_us: float | None
    p90_us: float | None
    max_us: int | None
    km_median_us: int | None


def measure_step(from_: str, to: str | None, durations: Durations) -> Step:
    """Measure one step."""
    finished = sorted(durations.finished)
    return Step(
        from_=from_,
        to=to,
        n=len(finished),
        waiting=len(durations.waiting),
        left=len(durations.left),
        mean_us=sum(finished) / len(finished) if finished else None,
        p50_us=quantile(finished, 0.5),
        p75_us=quantile(finished, 0.75),
        p90_us=quantile(finished, 0.9),
        max_us=finished[-1] if finished else None,
        km_median_us=km_median(finished, sorted([*durations.waiting, *durations.left])),
    )


def measure_stage(stages: Stages, stage: str, by_exit: Mapping[str | None, Sequence[int]]) -> list[Step]:
    """Measure the time in one stage, then each observed transition out of it.

    `by_exit` holds the durations of its entries by the next stage, under None those of leads that are still there.
    """
    # Sorted once here: each step's own sort then only merges ordered runs.
    by_exit = {to: sorted(durations) for to, durations in by_exit.items()}
    definition_stage = stages.by_key.get(stage)
    resting = definition_stage is not None and definition_stage.kind in RESTING_KINDS
    waiting = () if resting else by_exit.get(None, ())
    exits = {to: durations for to, durations in by_exit.items() if to is not None}
    finished = [duration for durations in exits.values() for duration in durations]
    steps = [] if resting and not finished else [measure_step(stage, None, Durations(finished, waiting))]
    for to in sorted(exits, key=lambda key: _rank_key(stages, key)):
        others = [duration for other, durations in exits.items() if other != to for duration in durations]
        steps.append(measure_step(stage, to, Durations(exits[to], waiting, others)))
    return steps


def measure_stages(stages: Stages, durations: Mapping[str, Mapping[str | None, Sequence[int]]]) -> list[Step]:
    """Measure the steps of one group: every stage that a lead can wait in, and every observed transition."""
    split_names = [stage.key for stage in stages.by_rank]
    split_names += sorted(stage for stage in durations if stage not in stages.by_key)
    return [step for stage in split_names for step in measure_stage(stages, stage, durations.get(stage, {}))]


State = Literal["done", "waiting", "left"]


class Passage(Struct, frozen=True, gc=False):
    """One lead's passage between two stages. `duration_us` is None while it waits, since it depends on the time of reading."""

    state: State
    duration_us: int | None


def measure_passage(
    entries: Sequence[StageEntry], from_: str, to: str, visit: Visit, resting: frozenset[str]
) -> Passage | None:
    """Measure a lead's passage from its first or last entry into `from_` to its next entry into `to`.

    None if it never entered `from_`. `resting` are the stages in which a lead rests.
    """
    starts = [entry for entry in entries if entry.stage == from_]
    if not starts:
        return None
    start = starts[0] if visit == "first" else starts[-1]
    later = entries[start.position + 1 :]
    for entry in later:
        if entry.stage == to:
            return Passage("done", to_microseconds(entry.entered_at - start.entered_at))
    if later and later[-1].stage in resting:
        return Passage("left", to_microseconds(later[-1].entered_at - start.entered_at))
    return Passage("waiting", None)


def _rank_key(stages: Stages, key: str) -> tuple[int, str]:
    stage = stages.by_key.get(key)
    return (stage.rank if stage else len(stages.by_rank), key)


MODE_DESCRIPTIONS: Mapping[Mode, str] = {
    "cohort": "Steps of leads captured in the period.",
    "period": "Steps that began in the period, of leads captured at any time; `leads` and anomalies are of those with an entry in it.",
}
STAGE_DESCRIPTIONS: tuple[str, ...] = (
    "Time in a stage lasts from its entry to the next stage's.",
    "A transition is one exit of a stage; leads with another exit are its `left`.",
    "Leads in a won, lost or disqualified stage rest and do not wait.",
)
BETWEEN_DESCRIPTIONS: tuple[str, ...] = (
    "From the chosen entry into the first stage to the next entry into the second, whatever lies between.",
    "Left: leads that went to a won, lost or disqualified stage without it, counted as observed until then.",
)
COMMON_DESCRIPTIONS: tuple[str, ...] = (
    "Durations are as reported, also negative ones of an entry dated before the one it followed (see anomalies).",
    "n, mean, p50, p75, p90 and max are of the finished; waiting leads are observed until as_of.",
    QUANTILE_DESCRIPTION,
    "The Kaplan-Meier median counts leads that wait or left as unfinished for as long as they were observed.",
    "Leads merged into another do not count.",
)


def describe_velocity(query: ReportQuery, *, between: bool) -> list[str]:
    """Describe the numbers in plain sentences."""
    specific: Iterable[str] = BETWEEN_DESCRIPTIONS if between else STAGE_DESCRIPTIONS
    return [
        MODE_DESCRIPTIONS[query.mode],
        VISIT_DESCRIPTIONS[query.entry],
        *specific,
        *COMMON_DESCRIPTIONS,
        *describe_dimensions(query),
    ]
