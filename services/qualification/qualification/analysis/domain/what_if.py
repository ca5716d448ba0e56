"""What a version of the definition would have made of leads: each is folded anew by it, and compared with what happened.

Pure, and nothing of it is kept or published. What is counted of some leads can be added to what is counted of others in any way, so
that a long run can be interrupted and goes on where it was.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from msgspec.structs import replace

from accord.contracts.intake_events import LeadState
from accord.contracts.qualification_events import LeadStageChanged
from accord.terms.criteria import Criteria
from qualification.analysis.domain.groups import GROUPS_MAX, Group
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.rules import Rules, TimeTriggers
from qualification.lifecycle.domain.facts import (
    LAST,
    LAST_TIE,
    DecisionAccepted,
    LogPosition,
    MergeApplied,
    OwnerAssigned,
    VersionApplied,
)
from qualification.lifecycle.domain.history import Logs, ordered_facts
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.domain.state_machine import LeadStateMachine

LOAD_WEEKS_MAX = 540
"""Weeks from the beginning of the period for which the load is told apart: more than ten years."""

LISTED_PER_STAGE_MAX = 2_000
"""Of the leads that differ, so many are listed for each stage; all are counted."""

OTHERS = ""
"""The key of the group of all that are not told apart."""

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""`recorded_at` of entries that nobody records."""

Outcome = Literal["won", "lost"]


# --- One lead ---


@dataclass(frozen=True, slots=True)
class SimulatedLead:
    """A lead as one version alone would have judged it: its stage entries, the profile that it came to have, and the decisions of
    people that this version's stages allowed, and did not allow, where they were taken."""

    entries: tuple[LeadStageChanged, ...]
    profile: LeadState | None
    applied: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)


def simulate(lead_id: UUID, logs: Logs, rules: Rules, until: datetime) -> SimulatedLead:
    """The lead from zero under one version, with what time alone brings about until `until`; later facts are left out.

    The facts are those of its log. A recorded decision is applied where the stage in which the lead would then be allows it, and
    leads where this version says; otherwise it is passed over. Its reason and fields are not asked about: whoever took it could not
    know what this version lists. Owners play no part.
    """
    applied: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    machine = _replay(lead_id, logs, rules, LogPosition(until, LAST, LAST_TIE), frozenset(), applied, ignored)
    machine.advance_time(until)
    entries = tuple(event for event in machine.events if isinstance(event, LeadStageChanged))
    return SimulatedLead(entries, machine.profile, applied, ignored)


def _replay(
    lead_id: UUID,
    logs: Logs,
    rules: Rules,
    before: LogPosition,
    seen: frozenset[UUID],
    applied: Counter[str],
    ignored: Counter[str],
) -> LeadStateMachine:
    machine = LeadStateMachine(Lead(lead_id), rules, {rules.version: rules}, _NEVER, replaying=True)
    for fact in ordered_facts(lead_id, logs, seen):
        if fact.position >= before:
            break
        if isinstance(fact, DecisionAccepted):
            machine.advance_time(fact.at)
            target = rules.decisions_in(machine.stage).get(fact.decision.decision)
            (ignored if target is None else applied)[fact.decision.decision] += 1
            if target is not None:
                machine.apply(replace(fact, stage=target.key, version=rules.version))
        elif isinstance(fact, MergeApplied) and fact.merged_lead_id not in seen:
            other = _replay(fact.merged_lead_id, logs, rules, fact.position, seen | {lead_id}, applied, ignored)
            other.advance_time(fact.at)
            machine.apply(fact, other.build_lead())
        elif not isinstance(fact, VersionApplied | OwnerAssigned):
            machine.apply(fact)
    return machine


def watch_entries_only(rules: Rules, definition: Definition) -> Rules:
    """The same rules, watched only for what can make a lead enter a stage.

    A fold that is asked for stages alone need not look for the moments at which a grade changes, nor for those at which a score or a
    count that only falls can but close a gate: where each gate was tried after the last fact, nothing comes of them.
    """
    criteria = {stage.key: stage.gate.when for stage in definition.stages if stage.gate.when}
    time_triggers = {}
    for key, triggers in rules.time_triggers.items():
        gates = [criteria[gate.key] for gate in rules.automatic_from[key]]
        rises = rules.has_negative_points and any(leaf.path in _SCORED for gate in gates for leaf in gate.leaves)
        scored = rises or any(_opens_by_falling(gate, _SCORED) for gate in gates)
        counted = any(_opens_by_falling(gate, None) for gate in gates)
        time_triggers[key] = TimeTriggers(
            triggers.thresholds if scored else (),
            triggers.windows if counted else (),
            triggers.ages,
            triggers.cool_down,
        )
    return replace(rules, time_triggers=time_triggers, default_time_triggers=TimeTriggers())


_SCORED = frozenset({"scores.engagement", "grade"})
_NEED_MORE = frozenset({"gt", "gte"})
_NEED_LESS = frozenset({"lt", "lte"})


def _opens_by_falling(criteria: Criteria, paths: frozenset[str] | None, *, wanted: bool = True) -> bool:
    """Whether criteria can come to hold (or, not `wanted`, cease to) by a fall of what is at these paths; None: of windowed counts."""
    if not criteria.path:
        return any(_opens_by_falling(child, paths, wanted=wanted != bool(criteria.none)) for child in criteria.children)
    asked = criteria.within is not None if paths is None else criteria.path in paths
    if not asked:
        return False
    if criteria.path == "grade":
        return True  # a letter has no direction
    return criteria.op not in (_NEED_MORE if wanted else _NEED_LESS)


def first_entries(entries: Iterable[LeadStageChanged], until: datetime) -> dict[str, datetime]:
    """When the lead first entered each stage, of the entries until a moment."""
    first: dict[str, datetime] = {}
    for entry in entries:
        at = entry.occurred_at
        if at <= until and (entry.stage not in first or at < first[entry.stage]):
            first[entry.stage] = at
    return first


def outcome(entries: Sequence[LeadStageChanged]) -> Outcome | None:
    """How the lead came out, where that is known: it stands in a stage that is won, or in one that is lost or disqualified."""
    kind = entries[-1].stage_kind if entries else None
    if kind == "won":
        return "won"
    return "lost" if kind in ("lost", "disqualified") else None


# --- Sums ---


@dataclass(slots=True)
class StageSums:
    """Leads that did enter a stage, that would have, and that both; `moved` of the latter at another moment. Then those of both
    kinds whose outcome is known, and those that were won."""

    actual: int = 0
    would: int = 0
    both: int = 0
    moved: int = 0
    actual_known: int = 0
    actual_won: int = 0
    would_known: int = 0
    would_won: int = 0

    def add(self, other: StageSums) -> None:
        for name in StageSums.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def differing(self) -> int:
        """Leads that entered in one of the two histories only, or at another moment."""
        return self.actual + self.would - 2 * self.both + self.moved


@dataclass(slots=True)
class GroupSums:
    """Leads of one group, those whose outcome is known, and those that were won."""

    leads: int = 0
    known: int = 0
    won: int = 0
    stages: dict[str, StageSums] = field(default_factory=dict)

    def add(self, other: GroupSums) -> None:
        self.leads += other.leads
        self.known += other.known
        self.won += other.won
        for key, sums in other.stages.items():
            self.stages.setdefault(key, StageSums()).add(sums)


@dataclass(slots=True)
class Load:
    """Entries into a stage, each visit counted: all of them, and by the ISO week (the ordinal of its Monday) of those in range."""

    actual: int = 0
    would: int = 0
    weeks: dict[int, tuple[int, int]] = field(default_factory=dict)

    def count(self, week: int | None, actual: int, would: int) -> None:
        self.actual += actual
        self.would += would
        if week is not None:
            before = self.weeks.get(week, (0, 0))
            self.weeks[week] = (before[0] + actual, before[1] + would)

    def add(self, other: Load) -> None:
        self.actual += other.actual
        self.would += other.would
        for week, (actual, would) in other.weeks.items():
            before = self.weeks.get(week, (0, 0))
            self.weeks[week] = (before[0] + actual, before[1] + would)


@dataclass(slots=True)
class Sums:
    """What is counted of some leads. `listed` is how many that differ were listed, by stage."""

    groups: dict[str, GroupSums] = field(default_factory=dict)
    load: dict[str, Load] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    listed: dict[str, int] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        """Add what was counted of other leads. Of more than GROUPS_MAX groups the later ones are added to the others."""
        for key, group in other.groups.items():
            self.group(key).add(group)
        for stage, load in other.load.items():
            self.load.setdefault(stage, Load()).add(load)
        for mine, theirs in ((self.applied, other.applied), (self.ignored, other.ignored), (self.listed, other.listed)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count

    def group(self, key: str) -> GroupSums:
        """The sums of a group, or of the others where there are too many."""
        if key not in self.groups and len(self.groups) >= GROUPS_MAX:
            key = OTHERS
        return self.groups.setdefault(key, GroupSums())

    @property
    def whole(self) -> GroupSums:
        """All groups together."""
        whole = GroupSums()
        for group in self.groups.values():
            whole.add(group)
        return whole


def encode_group(group: Group) -> str:
    """The key of a group among the sums."""
    return json.dumps(group)


def decode_group(key: str) -> Group | None:
    """The group of a key; None for the others."""
    return None if key == OTHERS else tuple(json.loads(key))


class Difference(NamedTuple):
    """A lead that entered a stage in one of the two histories only, or at another moment."""

    stage: str
    lead_id: UUID
    did_enter_at: datetime | None
    would_enter_at: datetime | None


class HistoryComparison:
    """Counts leads one after another. `loaded` are the stages whose entries are counted by week, from that of `since` on."""

    def __init__(self, since: datetime, until: datetime, load_stages: Iterable[str], listed: Mapping[str, int]) -> None:
        """`listed`: how many of the leads that differ are listed already, by stage."""
        self.sums = Sums()
        self.differences: list[Difference] = []
        self._until = until
        self._load_stages = frozenset(load_stages)
        self._listed = Counter(listed)
        self._first_week = monday_of(since.date())

    def add(
        self, lead_id: UUID, group: Group, actual_entries: Sequence[LeadStageChanged], simulated: SimulatedLead
    ) -> None:
        """Count one lead: the entries that stand of it, and those that would have been."""
        sums = self.sums
        mine = sums.group(encode_group(group))
        result = outcome(actual_entries)
        known, won = int(result is not None), int(result == "won")
        mine.leads += 1
        mine.known += known
        mine.won += won
        actual, would = first_entries(actual_entries, self._until), first_entries(simulated.entries, self._until)
        for stage in actual.keys() | would.keys():
            self._count(mine.stages.setdefault(stage, StageSums()), actual.get(stage), would.get(stage), known, won)
            if actual.get(stage) != would.get(stage):
                self._list(Difference(stage, lead_id, actual.get(stage), would.get(stage)))
        self._count_load(actual_entries, simulated.entries)
        for name, count in simulated.applied.items():
            sums.applied[name] = sums.applied.get(name, 0) + count
        for name, count in simulated.ignored.items():
            sums.ignored[name] = sums.ignored.get(name, 0) + count

    def _count(self, stage: StageSums, actual: datetime | None, would: datetime | None, known: int, won: int) -> None:
        if actual is not None:
            stage.actual += 1
            stage.actual_known += known
            stage.actual_won += won
        if would is not None:
            stage.would += 1
            stage.would_known += known
            stage.would_won += won
        if actual is not None and would is not None:
            stage.both += 1
            stage.moved += actual != would

    def _count_load(self, actual_entries: Iterable[LeadStageChanged], would: Iterable[LeadStageChanged]) -> None:
        for entries, actual in ((actual_entries, 1), (would, 0)):
            for entry in entries:
                if entry.stage in self._load_stages and entry.occurred_at <= self._until:
                    load = self.sums.load.setdefault(entry.stage, Load())
                    load.count(self._week(entry.occurred_at), actual, 1 - actual)

    def _week(self, at: datetime) -> int | None:
        week = monday_of(at.date())
        return week if 0 <= week - self._first_week < 7 * LOAD_WEEKS_MAX else None

    def _list(self, difference: Difference) -> None:
        if self._listed[difference.stage] < LISTED_PER_STAGE_MAX:
            self._listed[difference.stage] += 1
            self.sums.listed[difference.stage] = self.sums.listed.get(difference.stage, 0) + 1
            self.differences.append(difference)


def monday_of(day: date) -> int:
    """The ordinal of the Monday of a day's ISO week."""
    return day.toordinal() - day.weekday()


def format_week(ordinal: int) -> str:
    """The ISO 8601 name of the week of a Monday: `2027-W03`."""
    year, week, _ = (date.min + timedelta(days=ordinal - 1)).isocalendar()
    return f"{year:04d}-W{week:02d}"
