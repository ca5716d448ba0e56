"""What comes of the sums of a what-if: counts beside each other, how well either picked winners, the load of sales, one sentence.

Every ratio stands beside the counts that it is made of, and is None where there is nothing to divide by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

from msgspec import Struct

from accord.contracts.values import Department
from accord.terms.dimensions import Dimension
from qualification.analysis.domain.shares import DECIMALS, FEW, share
from qualification.analysis.domain.what_if import OTHERS, GroupSums, Load, StageSums, Sums, decode_group, format_week
from qualification.definition.domain.handoff import handoff_stages
from qualification.definition.domain.paper import stage_in_words
from qualification.definition.domain.rules import Rules


class StageCounts(Struct, frozen=True, gc=False):
    """Leads that entered a stage in what happened (`actual`), by the asked version (`would`), in both and in one of them only.
    `moved` are those of both that entered at another moment."""

    stage: str
    actual: int
    would: int
    both: int
    only_actual: int
    only_would: int
    moved: int


class GroupCounts(Struct, frozen=True, gc=False):
    """One group of leads. `others`: all that are not told apart, and then `by` says nothing."""

    by: Mapping[str, str | None]
    others: bool
    leads: int
    known: int
    won: int
    stages: tuple[StageCounts, ...]


class Pick(Struct, frozen=True, gc=False):
    """How well entering a stage picked those who were won, with the counts behind it."""

    let_in: int
    known: int
    won: int
    precision: float | None
    recall: float | None
    lift: float | None


class GatePick(Struct, frozen=True, gc=False):
    """The gate of a stage as a picker of winners: by the asked version, and in what happened."""

    stage: str
    would: Pick
    actual: Pick


class WeekCounts(Struct, frozen=True, gc=False):
    """Entries of one ISO week."""

    week: str
    actual: int
    would: int


class StageLoad(Struct, frozen=True, gc=False):
    """Entries into one stage in which sales has work, each visit counted. `hands_over`: there leads of marketing wait for sales."""

    stage: str
    owner: Department
    hands_over: bool
    actual: int
    would: int
    weeks: tuple[WeekCounts, ...]


class DecisionCounts(Struct, frozen=True, gc=False):
    """Decisions that people took: applied where the asked version allows them in the stage of that moment, else ignored."""

    decision: str
    applied: int
    ignored: int


class DifferenceCounts(Struct, frozen=True, gc=False):
    """Leads that differ in one stage, and how many of them are listed."""

    stage: str
    differing: int
    listed: int


class Report(Struct, frozen=True, gc=False):
    """The whole of it. `base_rate` is won / known."""

    leads: int
    known: int
    won: int
    base_rate: float | None
    summary: str
    total: GroupCounts
    groups: tuple[GroupCounts, ...]
    picks: tuple[GatePick, ...]
    load: tuple[StageLoad, ...]
    decisions: tuple[DecisionCounts, ...]
    differing: tuple[DifferenceCounts, ...]


def build_pick(let_in: int, known: int, won: int, all_known: int, all_won: int) -> Pick:
    """The measures of what let these leads in: of them `known` have a known outcome and `won` were won.

    precision = won / known: the share of those let in that is worth it, and recall = won / all_won: the share of all worth it that is
    let in (C. J. van Rijsbergen, "Information Retrieval", 2nd ed., 1979, ch. 7). lift = precision / (all_won / all_known): how many
    times more often a winner is among them than among all (F. Provost and T. Fawcett, "Data Science for Business", 2013, ch. 8).
    Leads whose outcome is not known are in none of the three.
    """
    lift = None
    if known and all_won:
        lift = round((won * all_known) / (known * all_won), DECIMALS)
    return Pick(let_in, known, won, share(won, known), share(won, all_won), lift)


def build_report(sums: Sums, rules: Rules, by: Sequence[Dimension], since: datetime, until: datetime) -> Report:
    """The report of everything that was counted, under the asked version. The period is that of capture."""
    whole = sums.whole
    stages = _in_order(whole.stages, rules)
    total = _counts({}, whole, stages, others=False)
    picks = _picks(whole, rules)
    load = _load(sums.load, rules)
    return Report(
        leads=whole.leads,
        known=whole.known,
        won=whole.won,
        base_rate=share(whole.won, whole.known),
        summary=summarize(total, picks, load, rules, since, until),
        total=total,
        groups=_groups(sums, by, stages),
        picks=picks,
        load=load,
        decisions=tuple(
            DecisionCounts(name, sums.applied.get(name, 0), sums.ignored.get(name, 0))
            for name in sorted(sums.applied.keys() | sums.ignored.keys())
        ),
        differing=tuple(
            DifferenceCounts(stage, whole.stages[stage].differing, sums.listed.get(stage, 0))
            for stage in stages
            if stage in whole.stages
        ),
    )


def _in_order(found: Iterable[str], rules: Rules) -> tuple[str, ...]:
    """The stages of the version by rank, then those that only other versions know."""
    return (*rules.stages, *sorted(stage for stage in found if stage not in rules.stages))


def _groups(sums: Sums, by: Sequence[Dimension], stages: Sequence[str]) -> tuple[GroupCounts, ...]:
    """The largest first, the others last."""
    ordered = sorted(sums.groups.items(), key=lambda item: (item[0] == OTHERS, -item[1].leads, item[0]))
    found = []
    for key, group in ordered:
        values = decode_group(key)
        named = {} if values is None else {one.name: value for one, value in zip(by, values, strict=True)}
        found.append(_counts(named, group, stages, others=values is None))
    return tuple(found)


def _counts(by: Mapping[str, str | None], group: GroupSums, stages: Sequence[str], *, others: bool) -> GroupCounts:
    counts = []
    for stage in stages:
        one = group.stages.get(stage, StageSums())
        only_actual, only_would = one.actual - one.both, one.would - one.both
        counts.append(StageCounts(stage, one.actual, one.would, one.both, only_actual, only_would, one.moved))
    return GroupCounts(by, others, group.leads, group.known, group.won, tuple(counts))


def _picks(whole: GroupSums, rules: Rules) -> tuple[GatePick, ...]:
    found = []
    for stage in rules.stages.values():
        if stage.when is not None:
            one = whole.stages.get(stage.key, StageSums())
            would = build_pick(one.would, one.would_known, one.would_won, whole.known, whole.won)
            actual = build_pick(one.actual, one.actual_known, one.actual_won, whole.known, whole.won)
            found.append(GatePick(stage.key, would, actual))
    return tuple(found)


def _load(load: Mapping[str, Load], rules: Rules) -> tuple[StageLoad, ...]:
    """Each stage over the same weeks, from the first to the last in which anything came."""
    weeks = [week for one in load.values() for week in one.weeks]
    span = range(min(weeks), max(weeks) + 1, 7) if weeks else range(0)
    handoff = handoff_stages(rules)
    found = []
    for key in load_stages(rules):
        one = load.get(key, Load())
        counts = ((week, one.weeks.get(week, (0, 0))) for week in span)
        by_week = tuple(WeekCounts(format_week(week), *count) for week, count in counts)
        found.append(StageLoad(key, rules.stages[key].owner, key in handoff, one.actual, one.would, by_week))
    return tuple(found)


def load_stages(rules: Rules) -> tuple[str, ...]:
    """The stages whose entries are work for sales: where leads of marketing wait for it, and its own open ones. By rank."""
    handoff = handoff_stages(rules)
    return tuple(
        key
        for key, stage in rules.stages.items()
        if key in handoff or (stage.owner == "sales" and stage.kind == "open")
    )


# --- In words ---


def summarize(
    total: GroupCounts,
    picks: Sequence[GatePick],
    load: Sequence[StageLoad],
    rules: Rules,
    since: datetime,
    until: datetime,
) -> str:
    """The report in plain words: what becomes of the first gate, what it picks, and what comes to sales."""
    if not total.leads:
        return f"No lead was captured from {_day(since)} to {_day(until)}."
    sentences = [
        f"Of {_leads(total.leads)} captured from {_day(since)} to {_day(until)}, {_entered(total, picks, rules)}."
    ]
    sentences += [_picked(one, total) for one in picks[:1]]
    sentences += [_weekly(one) for one in load if one.hands_over and one.weeks][:1]
    return " ".join(sentences)


def _entered(total: GroupCounts, picks: Sequence[GatePick], rules: Rules) -> str:
    key = picks[0].stage if picks else list(rules.stages)[-1]
    one = next(counts for counts in total.stages if counts.stage == key)
    name = stage_in_words(key)
    return (
        f"{one.would:,} would have become {name} by version {rules.version} and {one.actual:,} did; {one.both:,} are the same"
        f" leads, {one.only_would:,} would have come and {one.only_actual:,} would not"
    )


def _picked(gate: GatePick, total: GroupCounts) -> str:
    would, actual = gate.would, gate.actual
    if min(would.known, actual.known, total.known) < FEW:
        return f"Too few outcomes are known ({total.known:,}) to say how well it would have picked winners."
    return (
        f"Of those let in whose outcome is known it would have had {would.won:,} of {would.known:,} won ({_percent(would.precision)}),"
        f" against {actual.won:,} of {actual.known:,} ({_percent(actual.precision)}) in what happened; of all {total.won:,} that were"
        f" won it would have let in {would.won:,}, and {actual.won:,} were let in."
    )


def _weekly(load: StageLoad) -> str:
    weeks = len(load.weeks)
    would, actual = (sum(getattr(week, name) for week in load.weeks) / weeks for name in ("would", "actual"))
    most = max(week.would for week in load.weeks)
    return f"Sales would have had {would:,.1f} leads a week to decide about, {most:,} in the fullest, instead of {actual:,.1f}."


def _leads(count: int) -> str:
    return "1 lead" if count == 1 else f"{count:,} leads"


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value * 100:.1f} %"


def _day(at: datetime) -> str:
    return date.isoformat(at.date())
