"""Clauses over a period: each has one clock for each whole period, whether anything happens in it or not. Pure.

A period is judged by what happened in it, once everything recorded before its end has been read. A later truth (a late
report, a correction, a merge of that time) judges it again: a breach is withdrawn, or comes late.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from sla_monitor.domain.clock import (
    BACKFILL_AFTER,
    Answer,
    Clock,
    StepTime,
    Tally,
    Transition,
    TransitionBuilder,
    Trigger,
    derive_id,
)
from sla_monitor.domain.facts import Fact
from sla_monitor.domain.rules import Period, PeriodRule

NOTHING_TO_JUDGE = "there was nothing to judge"


class Entry(Struct, frozen=True, gc=False):
    """A fact that counts in a period of a clause."""

    clause: str
    sla_version: int
    key: str
    occurred_at: datetime
    is_of: bool
    is_over: bool


def make_entry(rule: PeriodRule, version: int, fact: Fact) -> Entry:
    """The entry of a fact whose lead the clause is about."""
    is_of = rule.of is not None and rule.of.matches(fact)
    return Entry(rule.key, version, fact.key, fact.occurred_at, is_of, rule.over.matches(fact))


def subject_of(clause: str) -> UUID:
    """What stands for the lead in the rows of a clause over a period."""
    return derive_id(datetime(1970, 1, 1, tzinfo=UTC), "clause", clause)


def open_period(rule: PeriodRule, version: int, period: Period, now: datetime) -> Transition:
    """Start the clock of a period."""
    subject, name = subject_of(rule.key), period.start.isoformat()
    clock = Clock(
        clock_id=derive_id(period.start, str(subject), str(version), name),
        lead_id=subject,
        clause=rule.key,
        obliges=rule.obliges,
        sla_version=version,
        trigger=Trigger("period", name, 0, period.start),
        started_at=period.start,
        due_at=period.end,
        steps=tuple(
            StepTime(fraction, period.start + (period.end - period.start) * fraction) for fraction in rule.fractions
        ),
        backfill=period.end < now - BACKFILL_AFTER,
        tally=Tally(0, 0, rule.at_least, is_rate=rule.of is not None),
    )
    builder = TransitionBuilder(clock, now)
    builder.settle()
    return builder.build()


def moments_to_count(clock: Clock, watermark: datetime) -> list[datetime]:
    """The moments up to which a judgement at the watermark has to know the counts: of passed steps, and of the end."""
    steps = [step.at for step in clock.steps if step.at < watermark and step.fraction < 1]
    return [*steps, clock.due_at] if clock.due_at < watermark else steps


def is_kept(rule: PeriodRule, tally: Tally, share: float = 1.0) -> bool:
    """Whether the counts are enough after this share of the period. A rate of nothing has nothing to be judged by."""
    if rule.of is None:
        return tally.over >= rule.at_least * share
    return tally.over == 0 or tally.of >= rule.at_least * tally.over


def judge_period(
    clock: Clock, rule: PeriodRule, tallies: Mapping[datetime, Tally], watermark: datetime, now: datetime
) -> Transition:
    """Judge a period at the watermark: its steps while it runs, then the whole. `tallies`: at each of `moments_to_count`.

    A step before the end is published only where the counts are behind its share.
    """
    on_pace = tuple(
        step.fraction
        for step in clock.steps
        if step.fraction < 1 and step.at in tallies and is_kept(rule, tallies[step.at], step.fraction)
    )
    clock = replace(
        clock,
        steps=tuple(step for step in clock.steps if step.fraction not in on_pace),
        passed=tuple(sorted({*clock.passed, *on_pace})),
    )
    total = tallies.get(clock.due_at)
    if total is not None:
        clock = _with_result(clock, rule, total)
    builder = TransitionBuilder(clock, now)
    builder.settle(is_deadline_passed=total is not None)
    builder.take_steps(rule, watermark)
    return builder.build()


def _with_result(clock: Clock, rule: PeriodRule, total: Tally) -> Clock:
    clock = replace(clock, tally=total, answers=(), ended_at=None, ended_why=None)
    if rule.of is not None and total.over == 0:
        return replace(clock, ended_at=clock.due_at, ended_why=NOTHING_TO_JUDGE)
    return replace(clock, answers=(Answer(clock.due_at, "tally"),)) if is_kept(rule, total) else clock
