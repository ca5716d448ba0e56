"""A lead's case: the lead, its clocks and its pending triggers. `apply_event(case, event, ...)` returns the updated case.

Two topics carry a lead's events, and there is no order between them. So a clause's `where` reads what had been *recorded*
of the lead when the trigger was recorded. The trigger is pending until the other topic has been read past that moment. And
a clock that opens applies the facts that are already known since its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.intake_events import (
    ActivityRecorded,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadState,
    LeadUnmerged,
    LeadUpdated,
)
from accord.contracts.qualification_events import LeadAssigned, LeadDecided, LeadScored, LeadStageChanged
from accord.contracts.sla_events import ClockEvent
from sla_monitor.domain import clock as clocks
from sla_monitor.domain.clock import MERGED, NOT_RESTARTED, OPEN_STATES, REASSIGNED, REPEATED, Clock
from sla_monitor.domain.facts import Fact, extract_fact
from sla_monitor.domain.lead import Lead, Profile, QualificationState, as_of
from sla_monitor.domain.period import Entry, make_entry
from sla_monitor.domain.rules import ClauseRule, CompiledSla, LeadSnapshot, PeriodRule

CaseEvent = (
    LeadCaptured
    | LeadUpdated
    | LeadMerged
    | LeadUnmerged
    | LeadErased
    | ActivityRecorded
    | LeadStageChanged
    | LeadScored
    | LeadDecided
    | LeadAssigned
)
"""The events that change a case."""


class ReadUntil(Struct, frozen=True, gc=False):
    """The moment up to which everything recorded in each topic has been read. None while unknown."""

    intake: datetime | None = None
    qualification: datetime | None = None

    @property
    def both(self) -> datetime | None:
        if self.intake is None or self.qualification is None:
            return None
        return min(self.intake, self.qualification)


class SlaVersions(Struct, frozen=True, gc=False):
    """The versions of the SLA that are or were in force, and which one was in force at a moment."""

    by_number: Mapping[int, CompiledSla]
    version_at: Callable[[datetime], int | None]
    spans: Mapping[int, tuple[datetime, datetime | None]] = {}
    """Since when, and until when, each version was in force."""

    def get_active(self, moment: datetime) -> CompiledSla | None:
        version = self.version_at(moment)
        return None if version is None else self.by_number[version]

    def get_clause(self, clock: Clock) -> ClauseRule:
        return self.by_number[clock.sla_version].clauses[clock.clause]

    def get_rule(self, version: int, clause: str) -> ClauseRule | PeriodRule:
        sla = self.by_number[version]
        return sla.clauses.get(clause) or sla.periods[clause]

    def list_periods(self, fact: Fact) -> Iterator[tuple[int, PeriodRule]]:
        """The clauses in whose period a fact may count, with the version that was in force when that began."""
        for version, sla in self.by_number.items():
            for rule in sla.periods.values():
                if rule.matches(fact) and self.version_at(rule.period_of(fact.occurred_at).start) == version:
                    yield version, rule


class PendingTrigger(Struct, frozen=True, gc=False):
    """A trigger whose `where` cannot be evaluated yet, with the lead's state from the trigger's own topic."""

    clause: str
    sla_version: int
    fact: Fact
    profile: Profile | None = None
    qualification_state: QualificationState | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.clause, self.fact.key


class Case(Struct, frozen=True, gc=False):
    """The state that one lead's events are applied to. `facts` are those that a new clock looks back at."""

    lead: Lead
    clocks: Mapping[UUID, Clock]
    pending: tuple[PendingTrigger, ...] = ()
    facts: tuple[Fact, ...] = ()


class Outcome(Struct, frozen=True, gc=False):
    """The case after an event and the events to publish, in order.

    `transferred` are triggers of a merged lead whose clocks the survivor starts. `removed_fact_keys` are those of facts that
    a correction removed. `entries` count in the periods of clauses.
    """

    case: Case
    events: tuple[ClockEvent, ...] = ()
    transferred: tuple[PendingTrigger, ...] = ()
    removed_fact_keys: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


def apply_event(case: Case, event: CaseEvent, slas: SlaVersions, read_until: ReadUntil, now: datetime) -> Outcome:
    """Apply an event to its lead's case."""
    updater = CaseUpdater(case, slas, read_until, now)
    updater.evaluate_pending()  # before anything newer is known
    match event:
        case LeadCaptured() | LeadUpdated() | LeadMerged() | LeadUnmerged():
            updater.update_profile(_make_profile(event.state, event))
        case LeadErased():
            updater.erase_lead(event.occurred_at)
        case LeadStageChanged():
            updater.update_qualification_state(event, stage=event.present_stage or event.stage)
        case LeadScored():
            updater.update_qualification_state(event, grade=event.grade, fit=event.fit, engagement=event.engagement)
        case LeadAssigned():
            updater.assign_owner(event)
        case _:
            pass
    fact = extract_fact(event)
    if isinstance(event, LeadStageChanged) and event.replaces is not None:
        fact = updater.correct_entry(event.replaces, fact)
    if fact is not None:
        updater.apply_fact(fact)
        updater.add_triggers(fact)
    updater.evaluate_pending()
    return updater.build_outcome()


def copy_activities(
    case: Case, facts: Iterable[Fact], slas: SlaVersions, read_until: ReadUntil, now: datetime
) -> Outcome:
    """Copy activities of a lead that was merged into this one. They answer its clocks and start none."""
    updater = CaseUpdater(case, slas, read_until, now)
    for fact in facts:
        updater.apply_fact(fact)
    return updater.build_outcome()


def start_transferred_clocks(
    case: Case, transferred: Iterable[PendingTrigger], slas: SlaVersions, read_until: ReadUntil, now: datetime
) -> Outcome:
    """Start the survivor's clocks of triggers whose clocks were running when their lead was merged."""
    updater = CaseUpdater(case, slas, read_until, now)
    for trigger in transferred:
        if case.lead.erased_at is None:
            updater.open_clock(trigger)
    return updater.build_outcome()


def apply_merge(case: Case, merge: LeadMerged, slas: SlaVersions, read_until: ReadUntil, now: datetime) -> Outcome:
    """Apply a merge to the lead that was merged into another."""
    updater = CaseUpdater(case, slas, read_until, now)
    updater.merge_into(merge)
    return updater.build_outcome()


def revert_merge(case: Case, recorded_at: datetime, slas: SlaVersions, read_until: ReadUntil, now: datetime) -> Outcome:
    """Revert the merge of a lead: its clocks resume with their deadlines.

    Its profile comes from its own events; no event carried its id while it was merged.
    """
    updater = CaseUpdater(case, slas, read_until, now)
    updater.revert_merge(recorded_at)
    return updater.build_outcome()


def remove_contribution(case: Case, restored: Case, slas: SlaVersions, read_until: ReadUntil, now: datetime) -> Outcome:
    """Remove from a survivor what a merged lead had added: its activities and its clocks.

    `restored`: the merged lead's case, with its facts.
    """
    updater = CaseUpdater(case, slas, read_until, now)
    updater.remove_contribution(restored)
    return updater.build_outcome()


def evaluate_pending(case: Case, slas: SlaVersions, read_until: ReadUntil, now: datetime) -> Outcome:
    """Evaluate the pending triggers, now that the topics have been read further."""
    updater = CaseUpdater(case, slas, read_until, now)
    updater.evaluate_pending()
    return updater.build_outcome()


def find_lookback_start(case: Case, event: CaseEvent, slas: SlaVersions) -> datetime | None:
    """Find since when the lead's facts are needed to apply an event; None if the event alone is enough.

    A clock that starts looks back at what happened since. A pause is seen by all facts together; so is a request that was
    repeated, or a clock that starts again for another owner.
    """
    fact = extract_fact(event)
    if fact is None:
        return None
    sla = slas.get_active(fact.recorded_at)
    starts = [fact.occurred_at for rule in (sla.clauses.values() if sla else ()) if rule.start.matches(fact)]
    for clock in case.clocks.values():
        rule = slas.get_clause(clock)
        restarts = fact.kind == "assigned" and rule.reassignment == "restarts" and rule.start.kind != "assigned"
        if restarts or rule.is_about_pauses(fact) or clock.is_void:
            starts.append(clock.started_at)
    return min(starts, default=None)


def _make_profile(state: LeadState, event: LeadCaptured | LeadUpdated | LeadMerged | LeadUnmerged) -> Profile:
    return Profile(
        recorded_at=event.recorded_at,
        sequence=event.sequence,
        source=state.source,
        captured_at=state.captured_at,
        campaign=state.campaign.name if state.campaign else None,
        attributes=state.attributes,
    )


class CaseUpdater:
    """Updates one case. Lives for one call of a function above."""

    def __init__(self, case: Case, slas: SlaVersions, read_until: ReadUntil, now: datetime) -> None:
        self._lead = case.lead
        self._clocks = dict(case.clocks)
        self._pending = case.pending
        self._facts = case.facts
        self._slas = slas
        self._read_until = read_until
        self._now = now
        self._events: list[ClockEvent] = []
        self._transferred: list[PendingTrigger] = []
        self._removed_fact_keys: list[str] = []
        self._entries: list[Entry] = []

    def build_outcome(self) -> Outcome:
        self._settle_void()
        case = Case(self._lead, self._clocks, self._pending, self._facts)
        return Outcome(
            case,
            tuple(self._events),
            tuple(self._transferred),
            tuple(self._removed_fact_keys),
            tuple(self._entries),
        )

    # -- the lead --

    def update_profile(self, profile: Profile) -> None:
        self._lead = self._lead.with_profile(profile, self._read_until.both)
        for clock in self._clocks.values():
            if clock.source is None:
                self._store_clock(replace(clock, source=self._lead.source))

    def update_qualification_state(
        self,
        event: LeadStageChanged | LeadScored,
        *,
        stage: str | None = None,
        grade: str | None = None,
        fit: float | None = None,
        engagement: float | None = None,
    ) -> None:
        current = self._lead.qualification_state or QualificationState(event.recorded_at, 0)
        if event.sequence <= current.sequence:
            return
        if isinstance(event, LeadStageChanged):
            updated = replace(current, recorded_at=event.recorded_at, sequence=event.sequence, stage=stage)
        else:
            updated = QualificationState(event.recorded_at, event.sequence, current.stage, grade, fit, engagement)
        self._lead = self._lead.with_qualification_state(updated, self._read_until.both)

    def assign_owner(self, event: LeadAssigned) -> None:
        """Set the owner, also of open clocks that move with the lead. A deadline that has passed keeps whose it was."""
        if event.sequence <= self._lead.owner_sequence:
            return
        self._lead = replace(self._lead, owner=event.owner, owner_sequence=event.sequence)
        for clock in list(self._clocks.values()):
            is_open = clock.state in (*OPEN_STATES, "breached") and event.occurred_at <= clock.due_at
            if is_open and (clock.owner is None or self._slas.get_clause(clock).reassignment == "moves"):
                self._store_clock(replace(clock, owner=event.owner))

    def _find_owner(self, moment: datetime) -> str | None:
        """Who had the lead at a moment, as far as its facts tell."""
        assigned = [fact for fact in self._facts if fact.kind == "assigned"]
        latest = max(
            (fact for fact in assigned if fact.occurred_at <= moment),
            key=lambda fact: (fact.occurred_at, fact.sequence),
            default=None,
        )
        if latest is not None:
            return latest.name
        return None if assigned else self._lead.owner

    def erase_lead(self, at: datetime) -> None:
        """Remove the person's attributes and end the clocks; settled clocks stay as counts."""
        lead = self._lead
        self._lead = replace(lead, profiles=(), qualification_states=(), erased_at=lead.erased_at or at)
        self._pending, self._facts = (), ()
        self._end_clocks(at, _ERASED)

    def merge_into(self, merge: LeadMerged) -> None:
        at = merge.occurred_at
        self._lead = replace(self._lead, merged_into=merge.lead_id, merged_at=at, merge_recorded_at=merge.recorded_at)
        running = [clock for clock in self._clocks.values() if clock.state in OPEN_STATES]
        self._end_clocks(at, MERGED)
        for clock in running:
            self._transfer(self._clocks[clock.clock_id], _recreate_trigger(clock))

    def revert_merge(self, recorded_at: datetime) -> None:
        self._lead = replace(self._lead, merged_into=None, merged_at=None, merge_recorded_at=recorded_at)
        for clock in list(self._clocks.values()):
            if clock.ended_why == MERGED:
                self._resume_clock(clock)

    def remove_contribution(self, restored: Case) -> None:
        activities = [fact for fact in restored.facts if fact.kind == "activity"]
        keys = {fact.key for fact in activities}
        added = {(clock.clause, clock.trigger.key) for clock in restored.clocks.values()}
        self._facts = tuple(fact for fact in self._facts if fact.key not in keys)
        for clock in list(self._clocks.values()):
            if _is_transferred(clock) and (clock.clause, clock.trigger.key) in added:
                self._settle_clock(clock, clocks.end_by_unmerge(clock))
            else:
                self._remove_facts(clock, activities)

    def _remove_facts(self, clock: Clock, removed: Sequence[Fact]) -> None:
        """Settle a clock without facts that are not the lead's any more."""
        rule = self._slas.get_clause(clock)
        if clocks.rests_on(clock, removed) or any(rule.is_about_pauses(fact) for fact in removed):
            self._settle_clock(clock, clocks.without_facts(clock, rule, removed, self._facts, self._lead_end()))

    def _resume_clock(self, clock: Clock) -> None:
        rule = self._slas.get_clause(clock)
        self._settle_clock(clock, clocks.resume(clock, rule, self._facts, self._lead_end()))

    def _lead_end(self) -> tuple[datetime, str] | None:
        """When and why the lead was merged or erased; None if it was not."""
        lead = self._lead
        ends = [(lead.merged_at, MERGED), (lead.erased_at, _ERASED)]
        return min(((at, why) for at, why in ends if at is not None), default=None)

    def _end_clocks(self, at: datetime, why: str) -> None:
        for clock in list(self._clocks.values()):
            self._settle_clock(clock, clocks.with_end(clock, at, why))

    # -- facts and triggers --

    def apply_fact(self, fact: Fact) -> None:
        """Apply a fact to the clocks that it answers or pauses, or whose scope it ends."""
        self._facts = (*(known for known in self._facts if known.key != fact.key), fact)
        for clock in list(self._clocks.values()):
            rule = self._slas.get_clause(clock)
            changed = clocks.with_fact(clock, rule, fact)
            if rule.is_about_pauses(fact):
                changed = clocks.with_pauses(changed, rule, self._facts)
            self._settle_clock(clock, changed)

    def correct_entry(self, replaces: int, fact: Fact | None) -> Fact | None:
        """Replace a stage entry by `fact`, or remove it if that is None. Returns the fact that is still to be applied.

        An entry of the same stage and time keeps its effects: only its sequence or its predecessor has changed.
        """
        removed = [entry for entry in self._facts if entry.is_stage_entry(replaces)]
        self._facts = tuple(entry for entry in self._facts if not entry.is_stage_entry(replaces))
        self._removed_fact_keys += [fact.key for fact in removed]
        self._pending = tuple(trigger for trigger in self._pending if not trigger.fact.is_stage_entry(replaces))
        is_same_entry = fact is not None and any(
            (entry.name, entry.occurred_at) == (fact.name, fact.occurred_at) for entry in removed
        )
        if fact is not None and is_same_entry:
            self._facts = (*self._facts, fact)
        for clock in list(self._clocks.values()):
            if clock.trigger.is_stage_entry(replaces):
                self._correct_start(clock, fact if is_same_entry else None)
            elif not is_same_entry:
                self._remove_facts(clock, removed)
        return None if is_same_entry else fact

    def _correct_start(self, clock: Clock, fact: Fact | None) -> None:
        if fact is None:
            self._settle_clock(clock, clocks.invalidate_start(clock))
        else:
            self._store_clock(replace(clock, trigger=replace(clock.trigger, key=fact.key, sequence=0)))

    def add_triggers(self, fact: Fact) -> None:
        """Add a pending trigger for each clause that the fact starts and that was in force when it was recorded.

        In a period it counts by the version that was in force when the period began.
        """
        if self._lead.erased_at is not None:
            return
        for version, period_rule in self._slas.list_periods(fact):
            self._add_pending(period_rule, version, fact)
        sla = self._slas.get_active(fact.recorded_at)
        if sla is None:
            return
        for rule in sla.clauses.values():
            if rule.start.matches(fact) and not self._is_by_breach_of(rule, fact):
                self._add_pending(rule, sla.version, fact)

    def _is_by_breach_of(self, rule: ClauseRule, fact: Fact) -> bool:
        """Whether a breach of the clause itself gave the lead to somebody else: that starts the clause no second time."""
        if fact.kind != "assigned" or fact.cause is None:
            return False
        return any(
            clock.clause == rule.key and clocks.derive_breach_id(clock) == fact.cause for clock in self._clocks.values()
        )

    def _add_pending(self, rule: ClauseRule | PeriodRule, version: int, fact: Fact) -> None:
        """Add a pending trigger; one that can be evaluated at once is, when the event has been applied."""
        lead = self._lead
        is_from_qualification = fact.is_from_qualification
        trigger = PendingTrigger(
            rule.key,
            version,
            fact,
            profile=None if is_from_qualification else as_of(lead.profiles, fact.recorded_at),
            qualification_state=lead.qualification_state if is_from_qualification else None,
        )
        if all(pending.key != trigger.key for pending in self._pending):
            self._pending = (*self._pending, trigger)

    def evaluate_pending(self) -> None:
        """Open the clocks of triggers whose `where` holds and drop those whose `where` does not; the others stay pending."""
        remaining: list[PendingTrigger] = []
        for trigger in self._pending:
            rule = self._slas.get_rule(trigger.sla_version, trigger.clause)
            snapshot = self._build_snapshot(trigger, rule)
            if snapshot is None:
                remaining.append(trigger)
            elif rule.where is not None and not rule.where.holds(snapshot):
                continue
            elif isinstance(rule, PeriodRule):
                self._entries.append(make_entry(rule, trigger.sla_version, trigger.fact))
            else:
                self.open_clock(trigger)
        self._pending = tuple(remaining)

    def _build_snapshot(self, trigger: PendingTrigger, rule: ClauseRule | PeriodRule) -> LeadSnapshot | None:
        """Build what `where` reads; None while something recorded by then may still be unread."""
        fact, lead = trigger.fact, self._lead
        profile, qualification_state = trigger.profile, trigger.qualification_state
        if rule.needs_profile and profile is None:
            if not lead.profiles:
                return None
            if fact.is_from_qualification and not _is_past(self._read_until.intake, fact.recorded_at):
                return None
            profile = as_of(lead.profiles, fact.recorded_at) or lead.profiles[0]
        if rule.needs_qualification_state and not fact.is_from_qualification:
            if not _is_past(self._read_until.qualification, fact.recorded_at):
                return None
            qualification_state = as_of(lead.qualification_states, fact.recorded_at)
        return LeadSnapshot(profile, qualification_state, fact.occurred_at)

    def open_clock(self, trigger: PendingTrigger) -> None:
        """Start a clock and apply the facts that are already known since its start."""
        fact, lead = trigger.fact, self._lead
        existing = [clock for clock in self._clocks.values() if (clock.clause, clock.trigger.key) == trigger.key]
        if existing:
            if existing[0].ended_why == clocks.MERGE_REVERTED:  # merged again
                self._resume_clock(existing[0])
            return
        rule = self._slas.by_number[trigger.sla_version].clauses[trigger.clause]
        clock = clocks.create_clock(rule, trigger.sla_version, lead.lead_id, fact)
        if clock.owner is None:
            moment = clock.due_at if rule.reassignment == "moves" else clock.started_at
            clock = replace(clock, owner=self._find_owner(moment))
        clock = clocks.with_facts(replace(clock, source=lead.source), rule, self._facts)
        if lead.merged_at is not None:
            clock = clocks.with_end(clock, lead.merged_at, MERGED)
        if (why := self._find_void(clock, rule)) is not None:
            clock = clocks.void(clock, why)
        transition = clocks.start_clock(clock, self._now)
        self._store_clock(transition.clock)
        self._events += transition.events
        self._transfer(transition.clock, trigger)
        self._restart(transition.clock)

    def _settle_void(self) -> None:
        """Settle which clocks are needed: so the outcome does not depend on the order in which facts are read."""
        for clock in sorted(self._clocks.values(), key=_by_start):
            if clock.has_no_start and not clock.is_void:
                continue
            rule = self._slas.get_clause(clock)
            why = self._find_void(clock, rule)
            if why is not None and clock.ended_why != why:
                self._settle_clock(clock, clocks.void(clock, why))
            elif why is None and clock.is_void:
                self._resume_clock(clock)

    def _find_void(self, clock: Clock, rule: ClauseRule) -> str | None:
        """Why a clock is not needed beside the others of its clause; None if it is.

        A request that is repeated while an earlier one is open has the earlier one's clock; so has an assignment to the same
        owner, or where the clock moves with the lead. A clock that starts again for another owner continues one that ended so.
        """
        others = [
            other
            for other in self._clocks.values()
            if (other.clause, other.sla_version) == (clock.clause, clock.sla_version) and not other.is_void
        ]
        if clock.trigger.kind != rule.start.kind:
            continued = (other.state == "cancelled" and other.ended_key == clock.trigger.key for other in others)
            return None if any(continued) else NOT_RESTARTED
        is_repeatable = rule.start.kind in ("activity", "assigned")
        return (
            REPEATED
            if is_repeatable
            and any(
                _by_start(other) < _by_start(clock)
                and clocks.is_open_at(other, clock.started_at)
                and (rule.start.kind == "activity" or rule.reassignment == "moves" or other.owner == clock.owner)
                for other in others
            )
            else None
        )

    def _transfer(self, clock: Clock, trigger: PendingTrigger) -> None:
        """Transfer a clock that only the merge ended to the survivor; stages belong to each lead alone."""
        if clock.state == "cancelled" and clock.ended_why == MERGED and clock.trigger.kind != "stage":
            self._transferred.append(replace(trigger, fact=replace(trigger.fact, sequence=0)))

    def _settle_clock(self, before: Clock, after: Clock) -> None:
        if after is before or after == before:
            return
        transition = clocks.settle_clock(before, after, self._now)
        self._store_clock(transition.clock)
        self._events += transition.events
        self._restart(transition.clock)

    def _restart(self, clock: Clock) -> None:
        """Start the clause of a clock again whose lead was given to somebody else, where the clause says so."""
        if clock.state != "cancelled" or clock.ended_why != REASSIGNED:
            return
        rule = self._slas.get_clause(clock)
        fact = next((fact for fact in self._facts if fact.key == clock.ended_key), None)
        if fact is not None and rule.reassignment == "restarts" and rule.start.kind != "assigned":
            restarted = replace(fact, stage_kind=clock.trigger.stage_kind)
            self.open_clock(PendingTrigger(clock.clause, clock.sla_version, restarted))

    def _store_clock(self, clock: Clock) -> None:
        self._clocks[clock.clock_id] = clock


_ERASED = "the person was erased"


def _by_start(clock: Clock) -> tuple[datetime, UUID]:
    return clock.started_at, clock.clock_id


def _is_transferred(clock: Clock) -> bool:
    """Whether a merged lead may have started it; clocks of stages are not transferred."""
    return clock.trigger.kind != "stage" and clock.trigger.sequence == 0


def _is_past(read_until: datetime | None, moment: datetime) -> bool:
    return read_until is not None and read_until > moment


def _recreate_trigger(clock: Clock) -> PendingTrigger:
    """Recreate the trigger of a running clock for another lead."""
    trigger = clock.trigger
    fact = Fact(
        kind=trigger.kind,
        key=trigger.key,
        name=(clock.owner or "") if trigger.kind == "assigned" else "",
        occurred_at=clock.started_at,
        recorded_at=trigger.recorded_at,
        sequence=trigger.sequence,
        stage_kind=trigger.stage_kind,
        cause=trigger.cause,
    )
    return PendingTrigger(clock.clause, clock.sla_version, fact)
