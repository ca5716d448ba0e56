"""Which comparison of a gate, asked otherwise, would have changed most of what sales was handed and made of it. Pure; it reads nothing.

A comparison counts only where it decides: with it turned over and all else as it was, the gate would have come out the other way. So a
part of an `any` whose sisters hold too is not blamed, and under `none` a comparison is wanted not to hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Literal
from uuid import UUID

from msgspec import Struct

from accord.contracts.intake_events import LeadState
from accord.contracts.qualification_events import LeadStageChanged
from accord.terms.criteria import Compiled, Criteria
from qualification.analysis.domain.shares import FEW, share
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.handoff import handoff_stages
from qualification.definition.domain.paper import comparison_in_words, stage_in_words
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.facts import (
    ActivityOccurred,
    LogPosition,
    MergeApplied,
    ProfileChanged,
    VersionApplied,
)
from qualification.lifecycle.domain.history import Logs, ordered_facts
from qualification.lifecycle.domain.lead import NO_ACTIVITIES, Activities, microseconds
from qualification.lifecycle.domain.scoring import LeadFacts, scores

ACCEPTED_LOST_SHARE_MAX = 0.1
"""A tighter bound that would have kept out more than this share of the accepted leads is not proposed."""

MOMENTS_MAX = 100
"""Of a lead that did not enter, so many of the newest moments at which something was told of it are looked at."""


# --- What was known ---


class LeadSnapshot(Struct, frozen=True, gc=False):
    """A lead after one thing that was told of it, and the version by which it is judged from there on."""

    at: datetime
    version: int | None
    profile: LeadState | None
    activities: Activities


def replay_snapshots(
    lead_id: UUID, logs: Logs, before: LogPosition | None = None, seen: frozenset[UUID] = frozenset()
) -> Iterator[LeadSnapshot]:
    """The lead after each thing that was told of it, in order, from its log; nothing from the place `before` on."""
    log = logs.get(lead_id)
    version = log.entry_version if log else None
    profile: LeadState | None = None
    activities = NO_ACTIVITIES
    for fact in ordered_facts(lead_id, logs, seen):
        if before is not None and fact.position >= before:
            return
        match fact:
            case ActivityOccurred():
                activities = activities.with_activity(fact.kind, microseconds(fact.at))
            case ProfileChanged():
                profile = fact.state
            case MergeApplied():
                profile = fact.state
                brought = NO_ACTIVITIES
                if fact.merged_lead_id not in seen:
                    for other in replay_snapshots(fact.merged_lead_id, logs, fact.position, seen | {lead_id}):
                        brought = other.activities
                activities = activities.merged_with(brought)
            case VersionApplied():
                version = fact.version
            case _:
                continue
        yield LeadSnapshot(fact.at, version, profile, activities)


# --- Gates ---

_REVERSED = {"lt": "gte", "lte": "gt", "gt": "lte", "gte": "lt"}


class Comparison(Struct, frozen=True, gc=False):
    """One comparison of the gate of a stage. `wanted`: it opens the gate by holding; else (under `none`) by not holding."""

    stage: str
    leaf: Criteria
    wanted: bool
    definition: Definition

    @property
    def key(self) -> str:
        """The same in every version whose gate has it so."""
        return f"{self.stage} {self.wanted} {self.leaf.model_dump_json()}"

    @property
    def words(self) -> str:
        return self.describe(self.leaf)

    def describe(self, leaf: Criteria) -> str:
        words = comparison_in_words(leaf, self.definition)
        return words if self.wanted else f"not: {words}"

    @property
    def requires(self) -> str | None:
        """For a comparison with a number, what is asked of the value: `lt`, `lte`, `gt` or `gte`; None for any other."""
        value = self.leaf.value
        if self.leaf.op not in _REVERSED or isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return self.leaf.op if self.wanted else _REVERSED[self.leaf.op]


class Gate:
    """The gate of one stage under one version, whose comparisons can be turned over one by one."""

    __slots__ = ("_criteria", "_when", "comparisons", "origins", "rules", "stage")

    def __init__(self, rules: Rules, definition: Definition, stage: str, criteria: Criteria, when: Compiled) -> None:
        self.rules = rules
        self.stage = stage
        self.origins = frozenset(
            key for key, gates in rules.automatic_from.items() if any(gate.key == stage for gate in gates)
        )
        self.comparisons = tuple(
            Comparison(stage, leaf, wanted, definition) for leaf, wanted in _leaves(criteria, wanted=True)
        )
        self._criteria = criteria
        self._when = when

    def evaluate(self, lead: LeadSnapshot, stage: str | None, at: datetime) -> tuple[list[bool], list[object]]:
        """How each comparison comes out for a lead at a moment, and with what value."""
        made = scores(lead.profile, lead.activities, self.rules, at)
        found = self._when.explain(LeadFacts(lead.profile, lead.activities, stage, at, made))
        return [leaf.held for leaf in found], [leaf.actual for leaf in found]

    def opens(self, held: Sequence[bool]) -> bool:
        """Whether the gate opens where its comparisons come out so."""
        return _opens(self._criteria, iter(held))

    def decisive(self, held: Sequence[bool]) -> list[int]:
        """The comparisons each of which alone, turned over, would have the gate come out the other way."""
        opens = self.opens(held)
        found = []
        for number, comparison in enumerate(self.comparisons):
            if (held[number] == comparison.wanted) == opens:
                flipped = [*held[:number], not held[number], *held[number + 1 :]]
                if self.opens(flipped) != opens:
                    found.append(number)
        return found


def gates_of(rules: Rules, definition: Definition) -> dict[str, Gate]:
    """The gates by criteria of the stages in which marketing hands over, by stage."""
    criteria = {stage.key: stage.gate.when for stage in definition.stages}
    found = {}
    for key in handoff_stages(rules):
        when, asked = rules.stages[key].when, criteria[key]
        if when is not None and asked is not None:
            found[key] = Gate(rules, definition, key, asked, when)
    return found


def _leaves(criteria: Criteria, *, wanted: bool) -> Iterator[tuple[Criteria, bool]]:
    if criteria.path:
        yield criteria, wanted
    for child in criteria.children:
        yield from _leaves(child, wanted=wanted != bool(criteria.none))


def _opens(criteria: Criteria, held: Iterator[bool]) -> bool:
    if criteria.path:
        return next(held)
    children = [_opens(child, held) for child in criteria.children]  # all of them, since each takes its own from `held`
    if criteria.all:
        return all(children)
    return any(children) if criteria.any else not any(children)


# --- What would have changed ---


class Tighter(Struct, frozen=True, gc=False):
    """A tighter bound: the rejected that it would have kept out, the accepted that it would have lost, the rejected share then."""

    value: int | float
    words: str
    rejected_kept_out: int
    accepted_lost: int
    rejected_share: float | None

    @property
    def gain(self) -> int:
        return self.rejected_kept_out - self.accepted_lost


class Looser(Struct, frozen=True, gc=False):
    """Leads that did not enter because of this comparison alone: how many; of those that ended, how many were won by another way and how
    many lost or disqualified; and on how many of the others sales works by another way, which says nothing of their end."""

    kept_out: int
    converted: int
    not_converted: int
    worked_on: int

    @property
    def gain(self) -> int:
        return self.converted - self.not_converted


class CriterionReport(Struct, frozen=True, gc=False):
    """One comparison of a gate. `accepted` and `rejected` are the decisions on leads that had come in by a gate with it; `few`: too few
    to conclude anything."""

    stage: str
    leaf: Criteria
    wanted: bool
    words: str
    versions: tuple[int, ...]
    accepted: int
    rejected: int
    few: bool
    tighten: Tighter | None
    loosen: Looser
    gain: int


@dataclass(slots=True)
class _Counts:
    comparison: Comparison
    versions: set[int] = field(default_factory=set)
    accepted: int = 0
    rejected: int = 0
    values: list[tuple[float, bool]] = field(default_factory=list)
    """Of leads for which it decided: the value, and whether the lead was accepted."""
    kept_out: int = 0
    converted: int = 0
    not_converted: int = 0
    worked_on: int = 0


class CriterionAnalysis:
    """Counts leads one after another. `decisions` and `unexplained` of them; `leads` that did not enter."""

    def __init__(self, gates: Mapping[int, Mapping[str, Gate]]) -> None:
        """`gates`: by version, then by stage."""
        self._gates = gates
        self._counts: dict[str, _Counts] = {}
        self.decisions = 0
        self.unexplained = 0
        self.leads = 0

    def add_decision(
        self, lead_id: UUID, logs: Logs, entries: Sequence[LeadStageChanged], decision_id: UUID, *, accepted: bool
    ) -> None:
        """A decision on a lead that was handed over: the gate by which it had come is looked at, with what was known then.

        `entries` are those that stand. One whose entry does not stand any more, or was not through the gate, explains nothing.
        """
        self.decisions += 1
        entry = _entry_decided_on(entries, decision_id)
        gate = self._gates.get(entry.definition_version, {}).get(entry.stage) if entry else None
        lead = None
        if entry is not None and gate is not None:
            for moment in replay_snapshots(lead_id, logs):
                if moment.at > entry.occurred_at:
                    break
                lead = moment
        if entry is None or gate is None or lead is None:
            self.unexplained += 1
            return
        held, actual = gate.evaluate(lead, entry.from_stage, entry.occurred_at)
        if not gate.opens(held):
            self.unexplained += 1
            return
        decisive = set(gate.decisive(held))
        for number, comparison in enumerate(gate.comparisons):
            counts = self._counts_for(comparison, gate)
            counts.accepted += accepted
            counts.rejected += not accepted
            value = actual[number]
            if number in decisive and isinstance(value, int | float) and not isinstance(value, bool):
                counts.values.append((float(value), accepted))

    def add_lead(self, lead_id: UUID, logs: Logs, entries: Sequence[LeadStageChanged]) -> None:
        """A lead of the period: for each handover stage that it did not enter, the comparisons that alone kept it out at some moment."""
        self.leads += 1
        entered = {entry.stage for entry in entries}
        moments = [moment for moment in replay_snapshots(lead_id, logs) if moment.profile and moment.version]
        sole_causes: dict[str, tuple[Comparison, Gate]] = {}
        for moment in moments[-MOMENTS_MAX:]:
            stage = _stage_at(entries, moment.at)
            for gate in self._gates.get(moment.version or 0, {}).values():
                if gate.stage in entered or stage not in gate.origins:
                    continue
                held, _ = gate.evaluate(moment, stage, moment.at)
                if not gate.opens(held):
                    for number in gate.decisive(held):
                        sole_causes[gate.comparisons[number].key] = gate.comparisons[number], gate
        outcome = find_outcome(entries)
        for comparison, gate in sole_causes.values():
            counts = self._counts_for(comparison, gate)
            counts.kept_out += 1
            counts.converted += outcome == "won"
            counts.not_converted += outcome == "lost"
            counts.worked_on += outcome == "worked_on"

    def report(self) -> tuple[CriterionReport, ...]:
        """Every comparison, those that would have changed most first."""
        found = [_build_report(counts) for counts in self._counts.values()]
        return tuple(sorted(found, key=lambda one: (-one.gain, one.stage, one.words)))

    def _counts_for(self, comparison: Comparison, gate: Gate) -> _Counts:
        counts = self._counts.setdefault(comparison.key, _Counts(comparison))
        counts.versions.add(gate.rules.version)
        return counts


def _entry_decided_on(entries: Sequence[LeadStageChanged], decision_id: UUID) -> LeadStageChanged | None:
    """The entry into the stage that a decision led out of."""
    for number, entry in enumerate(entries):
        if entry.decision_id == decision_id:
            return entries[number - 1] if number else None
    return None


def _stage_at(entries: Sequence[LeadStageChanged], at: datetime) -> str | None:
    stage = None
    for entry in entries:
        if entry.occurred_at <= at:
            stage = entry.stage
    return stage


def find_outcome(entries: Sequence[LeadStageChanged]) -> Literal["won", "lost", "worked_on"] | None:
    """How the lead ended, by whatever way; else whether sales works on it."""
    if not entries:
        return None
    if entries[-1].stage_kind == "won":
        return "won"
    if entries[-1].stage_kind in ("lost", "disqualified"):
        return "lost"
    is_worked_on = any(entry.stage_owner == "sales" and entry.stage_kind == "open" for entry in entries)
    return "worked_on" if is_worked_on else None


def _build_report(counts: _Counts) -> CriterionReport:
    comparison = counts.comparison
    tighten = _find_tighter(counts)
    loosen = Looser(counts.kept_out, counts.converted, counts.not_converted, counts.worked_on)
    return CriterionReport(
        stage=comparison.stage,
        leaf=comparison.leaf,
        wanted=comparison.wanted,
        words=comparison.words,
        versions=tuple(sorted(counts.versions)),
        accepted=counts.accepted,
        rejected=counts.rejected,
        few=counts.accepted + counts.rejected < FEW,
        tighten=tighten,
        loosen=loosen,
        gain=max(tighten.gain if tighten else 0, loosen.gain, 0),
    )


def _find_tighter(counts: _Counts) -> Tighter | None:
    """The best tighter bound among the values that there were.

    The best has the greatest (rejected kept out − accepted lost): Youden's J, taken on counts and not on rates, since a lead more and
    a lead less are what the departments feel (W. J. Youden, "Index for rating diagnostic tests", Cancer 3, 1950, 32-35). At most
    ACCEPTED_LOST_SHARE_MAX of the accepted may be lost. Of equal ones the mildest; None where none is better than the present one.
    """
    requires = counts.comparison.requires
    if requires is None:
        return None
    upward, inclusive = requires in ("gt", "gte"), requires in ("gte", "lte")
    steps = [(value, list(some)) for value, some in groupby(sorted(counts.values, reverse=not upward), itemgetter(0))]
    kept_out = lost = best_gain = 0
    best: tuple[float, int, int] | None = None
    for (value, some), (assign_after_save, _) in pairwise(steps):
        accepted = sum(one for _, one in some)
        lost += accepted
        kept_out += len(some) - accepted
        if lost > counts.accepted * ACCEPTED_LOST_SHARE_MAX:
            break
        if kept_out - lost > best_gain:
            best_gain = kept_out - lost
            best = assign_after_save if inclusive else value, kept_out, lost
    if best is None:
        return None
    bound, kept_out, lost = best
    number = int(bound) if bound.is_integer() else bound
    rest = counts.rejected - kept_out
    return Tighter(
        value=number,
        words=counts.comparison.describe(counts.comparison.leaf.model_copy(update={"value": number})),
        rejected_kept_out=kept_out,
        accepted_lost=lost,
        rejected_share=share(rest, rest + counts.accepted - lost),
    )


def summarize(found: Sequence[CriterionReport], accepted: int, rejected: int) -> str:
    """In one plain sentence the comparison that would have changed most, or why none is named."""
    for one in found:
        if one.gain <= 0:
            break
        sentence = _describe_change(one)
        if sentence:
            return sentence
    if accepted + rejected < FEW:
        return f"Too few decisions ({accepted + rejected:,}) to name a criterion."
    return "No single criterion of the gates, tightened or loosened, would have made a difference worth naming."


def _describe_change(one: CriterionReport) -> str | None:
    tighter, looser = one.tighten, one.loosen
    if tighter is not None and tighter.gain == one.gain:
        if one.few:
            return None
        return (
            f"Had it been asked for {stage_in_words(one.stage)} that “{tighter.words}” instead of “{one.words}”,"
            f" {tighter.rejected_kept_out:,} of {one.rejected:,} rejected leads would not have been handed over, and"
            f" {tighter.accepted_lost:,} of {one.accepted:,} accepted ones."
        )
    ended = looser.converted + looser.not_converted
    if ended < FEW:
        return None
    return (
        f"{looser.kept_out:,} leads did not become {stage_in_words(one.stage)} for nothing but “{one.words}”; of the {ended:,} of them"
        f" whose end is known, {looser.converted:,} were won by another way."
    )
