"""What sales made of the leads that marketing handed over: accepted or rejected, over time, by reason and group. Pure; it reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec import Struct

from accord.terms.dimensions import Dimension
from qualification.analysis.domain.groups import GROUPS_MAX, Group
from qualification.analysis.domain.shares import share
from qualification.definition.domain.handoff import handoff_outcome
from qualification.definition.domain.rules import Rules


class DecisionRow(Struct, frozen=True, gc=False):
    """So many decisions of one kind: in which step of the period, under which version, from where to where, why, on whose leads."""

    step: int
    version: int
    from_stage: str
    to_stage: str
    reason: str | None
    group: Group
    count: int


class ReasonCounts(Struct, frozen=True, gc=False):
    """One agreed reason: the stage that it leads to, its title as it was agreed, how many gave it, and their share of all rejected."""

    stage: str
    reason: str | None
    title: str | None
    rejected: int
    share: float | None


class StepCounts(Struct, frozen=True, gc=False):
    """One step of the period, from its beginning."""

    since: datetime
    accepted: int
    rejected: int
    rejected_share: float | None
    reasons: tuple[ReasonCounts, ...]


class GroupFeedback(Struct, frozen=True, gc=False):
    """The decisions on the leads of one group. `others`: all that are not told apart."""

    by: Mapping[str, str | None]
    others: bool
    accepted: int
    rejected: int
    rejected_share: float | None
    reasons: tuple[ReasonCounts, ...]
    steps: tuple[StepCounts, ...]


_Reason = tuple[str, str | None]


@dataclass(slots=True)
class _Tally:
    accepted: int = 0
    rejected: int = 0
    reasons: dict[_Reason, int] = field(default_factory=dict)

    def count(self, row: DecisionRow, *, accepted: bool) -> None:
        if accepted:
            self.accepted += row.count
            return
        self.rejected += row.count
        reason = (row.to_stage, row.reason)
        self.reasons[reason] = self.reasons.get(reason, 0) + row.count


@dataclass(slots=True)
class _Steps:
    whole: _Tally = field(default_factory=_Tally)
    steps: dict[int, _Tally] = field(default_factory=dict)

    def count(self, row: DecisionRow, *, accepted: bool) -> None:
        self.whole.count(row, accepted=accepted)
        self.steps.setdefault(row.step, _Tally()).count(row, accepted=accepted)


def summarize_feedback(
    rows: Iterable[DecisionRow],
    versions: Mapping[int, Rules],
    by: Sequence[Dimension],
    since: datetime,
    step: timedelta,
    steps: int,
) -> tuple[GroupFeedback, tuple[GroupFeedback, ...]]:
    """All decisions on leads that were handed over, and the same by group, the largest first. Others are left out."""
    total, groups = _Steps(), dict[Group | None, _Steps]()
    titles: dict[_Reason, str] = {}
    for row in sorted(rows, key=lambda row: -row.count):
        rules = versions[row.version]
        outcome = handoff_outcome(rules, row.from_stage, row.to_stage)
        if outcome is None:
            continue
        if row.reason is not None:
            title = (rules.stages[row.to_stage].reasons or {}).get(row.reason)
            if title is not None:
                titles[row.to_stage, row.reason] = title
        total.count(row, accepted=outcome == "accepted")
        key: Group | None = row.group if row.group in groups or len(groups) < GROUPS_MAX else None
        groups.setdefault(key, _Steps()).count(row, accepted=outcome == "accepted")

    def build_group(by_values: Mapping[str, str | None], counted: _Steps, *, others: bool) -> GroupFeedback:
        whole = counted.whole
        return GroupFeedback(
            by_values,
            others,
            whole.accepted,
            whole.rejected,
            share(whole.rejected, whole.accepted + whole.rejected),
            _reasons(whole, titles),
            tuple(_step(since + number * step, counted.steps.get(number, _Tally()), titles) for number in range(steps)),
        )

    def size(item: tuple[Group | None, _Steps]) -> tuple[bool, int, str]:
        key, counted = item
        return key is None, -(counted.whole.accepted + counted.whole.rejected), str(key)

    found = []
    for key, counted in sorted(groups.items(), key=size):
        values = {} if key is None else {one.name: value for one, value in zip(by, key, strict=True)}
        found.append(build_group(values, counted, others=key is None))
    return build_group({}, total, others=False), tuple(found)


def _step(since: datetime, tally: _Tally, titles: Mapping[_Reason, str]) -> StepCounts:
    decided = tally.accepted + tally.rejected
    return StepCounts(since, tally.accepted, tally.rejected, share(tally.rejected, decided), _reasons(tally, titles))


def _reasons(tally: _Tally, titles: Mapping[_Reason, str]) -> tuple[ReasonCounts, ...]:
    ordered = sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0][0], item[0][1] or ""))
    return tuple(
        ReasonCounts(stage, reason, titles.get((stage, reason)), count, share(count, tally.rejected))
        for (stage, reason), count in ordered
    )
