"""Velocity: how long steps take, with the leads that are still waiting counted as such. Durations are whole
microseconds.

A step of a stage lasts from entry to exit; a transition is one way out of a stage; `between` goes from one stage to
another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from metrics.domain.choices import Choices, Mode, Visit
from metrics.domain.definition_view import Stages
from metrics.domain.funnel import VISIT_WORDS
from metrics.domain.journey import Entry, microseconds
from metrics.domain.quantiles import QUANTILE_WORDS, quantile
from metrics.domain.survival import km_median

RESTING_KINDS = frozenset({"won", "lost", "disqualified"})
"""A lead in a stage of this kind is at an end: it is not waiting to leave it."""


@dataclass(frozen=True, slots=True)
class Durations:
    """One step's durations, in any order: finished, still waiting, and of leads that left another way."""

    finished: Sequence[int]
    waiting: Sequence[int] = ()
    left: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """The figures of one step; None where there is nothing to measure. `to` is None for the time in a stage."""

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


def step(from_: str, to: str | None, durations: Durations) -> Step:
    """The figures of one step."""
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


def steps_of_stage(stages: Stages, stage: str, by_exit: Mapping[str | None, Sequence[int]]) -> list[Step]:
    """The time in one stage, then each transition out of it that has happened.

    `by_exit` holds the durations of its entries by the stage they went on to; under None those of the leads still
    there.
    """
    # Sorted once here: each step's own sort then only merges what is in order.
    by_exit = {to: sorted(found) for to, found in by_exit.items()}
    known = stages.by_key.get(stage)
    resting = known is not None and known.kind in RESTING_KINDS
    waiting = () if resting else by_exit.get(None, ())
    exits = {to: found for to, found in by_exit.items() if to is not None}
    finished = [duration for found in exits.values() for duration in found]
    steps = [] if resting and not finished else [step(stage, None, Durations(finished, waiting))]
    for to in sorted(exits, key=lambda key: _rank(stages, key)):
        others = [duration for other, found in exits.items() if other != to for duration in found]
        steps.append(step(stage, to, Durations(exits[to], waiting, others)))
    return steps


def velocity(stages: Stages, found: Mapping[str, Mapping[str | None, Sequence[int]]]) -> list[Step]:
    """The steps of one group: every stage that a lead can wait in, entered or not, and every transition that has
    happened."""
    listed = [stage.key for stage in stages.every]
    listed += sorted(stage for stage in found if stage not in stages.by_key)
    return [one for stage in listed for one in steps_of_stage(stages, stage, found.get(stage, {}))]


State = Literal["done", "waiting", "left"]


@dataclass(frozen=True, slots=True)
class Passage:
    """One lead's way between two stages. `duration_us` is None while it waits: that depends on when one looks."""

    state: State
    duration_us: int | None


def passage(entries: Sequence[Entry], from_: str, to: str, visit: Visit, resting: frozenset[str]) -> Passage | None:
    """How a lead went from its first or last entry into `from_` to its next entry into `to`; None if it never was in
    `from_`.

    `resting` are the stages in which a lead has arrived for good.
    """
    starts = [entry for entry in entries if entry.stage == from_]
    if not starts:
        return None
    start = starts[0] if visit == "first" else starts[-1]
    later = entries[start.position + 1 :]
    for entry in later:
        if entry.stage == to:
            return Passage("done", microseconds(entry.entered_at - start.entered_at))
    if later and later[-1].stage in resting:
        return Passage("left", microseconds(later[-1].entered_at - start.entered_at))
    return Passage("waiting", None)


def _rank(stages: Stages, key: str) -> tuple[int, str]:
    stage = stages.by_key.get(key)
    return (stage.rank if stage else len(stages.every), key)


MODE_WORDS: Mapping[Mode, str] = {
    "cohort": "Steps of leads captured in the period.",
    "period": "Steps that began in the period, of leads captured at any time.",
}
STAGE_WORDS: tuple[str, ...] = (
    "Time in a stage lasts from its entry to the next stage's.",
    "A transition is one way out of a stage; leads that went another way are its `left`.",
    "Leads in a won, lost or disqualified stage have arrived and do not wait.",
)
BETWEEN_WORDS: tuple[str, ...] = (
    "From the chosen entry into the first stage to the next entry into the second, whatever lies between.",
    "Left: leads that went to a won, lost or disqualified stage without it, counted as observed until then.",
)
COMMON_WORDS: tuple[str, ...] = (
    "Durations are as reported, also negative ones of an entry dated before the one it followed (see anomalies).",
    "n, mean, p50, p75, p90 and max are of the finished; waiting leads are observed until as_of.",
    QUANTILE_WORDS,
    "The Kaplan-Meier median counts leads that wait or left as unfinished for as long as they were observed.",
    "Leads merged into another do not count.",
)


def velocity_words(choices: Choices, *, between: bool) -> list[str]:
    """The definition of the numbers in plain sentences, to stand beside them."""
    own: Iterable[str] = BETWEEN_WORDS if between else STAGE_WORDS
    return [MODE_WORDS[choices.mode], VISIT_WORDS[choices.entry], *own, *COMMON_WORDS]
