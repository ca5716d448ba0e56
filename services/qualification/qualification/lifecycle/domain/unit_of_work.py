"""Some leads and the events about them, one after another: each is the next step, or is inserted at its position and the lead is replayed.

Pure: it holds the leads of one unit of work and opens nothing. A replay needs the log of the lead: what needs one raises
LogNotLoaded, and `load_log` adds it. What is to be saved and published is collected for whoever saves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.base import LeadEvent
from accord.contracts.intake_events import (
    ActivityRecorded,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadState,
    LeadUnmerged,
    LeadUpdated,
)
from accord.contracts.qualification_events import LeadStageChanged
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.decisions import InvalidDecision, NotAllowed, allowed_decisions, require_decidable
from qualification.lifecycle.domain.facts import (
    DECISION,
    ActivityOccurred,
    Decision,
    DecisionAccepted,
    Fact,
    LogPosition,
    MergeApplied,
    OwnerAssigned,
    ProfileChanged,
    VersionApplied,
)
from qualification.lifecycle.domain.history import (
    Log,
    ProposedDecision,
    ReplayResult,
    apply_corrections,
    derive_corrections,
    fold,
    merge_group,
)
from qualification.lifecycle.domain.lead import Lead, as_erased, as_merged
from qualification.lifecycle.domain.state_machine import LeadStateMachine, Versions

IncomingEvent = LeadCaptured | LeadUpdated | LeadMerged | LeadUnmerged | LeadErased | ActivityRecorded
"""Events of intake that change a lead."""


class LogNotLoaded(Exception):
    """The event needs the logs of these surviving leads: load them and apply it again."""

    def __init__(self, lead_ids: tuple[UUID, ...]) -> None:
        super().__init__("a log is needed")
        self.lead_ids = lead_ids


class LogEntry(NamedTuple):
    """A fact for the log of `lead_id`, which by now is part of `survivor_id`."""

    lead_id: UUID
    survivor_id: UUID
    fact: Fact


class LeadRedirect(NamedTuple):
    """From here on what was recorded for these leads is recorded under another: a merge, or its revert."""

    lead_ids: tuple[UUID, ...]
    source_id: UUID
    target_id: UUID
    merge_id: UUID
    is_revert: bool


class EmittedEvents(Struct, frozen=True, gc=False):
    """The events that one input caused, in order, and the lead after them."""

    lead: Lead
    events: tuple[LeadEvent, ...] = ()


class LeadUnitOfWork:
    """The leads of one unit of work. Not kept beyond it."""

    def __init__(self, leads: Mapping[UUID, Lead], rules: Rules | None, versions: Versions, now: datetime) -> None:
        """`rules` is the version in force, one of `versions`; None while there is none."""
        self.leads = dict(leads)
        self.rules = rules
        self.versions = versions
        self.now = now
        self.logs: dict[UUID, Log] = {}
        self.effective_entries: dict[UUID, list[LeadStageChanged]] = {}
        self.log_entries: list[LogEntry] = []
        self.superseded_profiles: list[tuple[UUID, ProfileChanged]] = []
        self.reverted_merges: list[tuple[UUID, UUID]] = []
        """Whose log holds the merge, and the merge."""
        self.redirects: list[LeadRedirect] = []
        self.erased: set[UUID] = set()
        self._with_early_activities: set[UUID] = set()
        self._with_late_activities: dict[UUID, None] = {}
        """Surviving leads whose log has activities by which they have not been replayed yet."""
        self._new_entries: dict[UUID, list[LeadStageChanged]] = {}

    def lead(self, lead_id: UUID) -> Lead:
        """The lead as it is by now; in place of one that was merged, its survivor. Unknown ones have no profile."""
        lead = self.leads[lead_id]
        while lead.merged_into is not None:
            lead = self.leads[lead.merged_into]
        return lead

    # -- logs --

    def logs_to_prefetch(self, events: Iterable[IncomingEvent]) -> list[UUID]:
        """The surviving leads whose logs these events will probably need, so that they can be loaded at once."""
        reached: dict[UUID, datetime] = {}
        found: dict[UUID, None] = {}
        for event in events:
            lead = self.lead(event.lead_id)
            lead_id, position, at = lead.lead_id, lead.position, event.occurred_at
            if self.rules is None or lead.erased or type(event) is LeadErased:
                continue
            if type(event) is LeadUnmerged:
                found[lead_id] = None
            before = reached.get(lead_id) or (position.at if position else None)
            if before is None:
                if lead.has_early_activities or lead.profile is not None or type(event) is ActivityRecorded:
                    found[lead_id] = None
                reached[lead_id] = at
            elif at < before or (type(event) is ActivityRecorded and _is_newest(_activity_fact(event), position)):
                found[lead_id] = None
            else:
                reached[lead_id] = at
        return [lead_id for lead_id in found if self._is_log_missing(lead_id)]

    def _is_log_missing(self, lead_id: UUID) -> bool:
        return lead_id not in self.effective_entries or any(
            member not in self.logs for member in merge_group(lead_id, self.logs)
        )

    def load_log(
        self, lead_id: UUID, logs: Mapping[UUID, Log], entries: Mapping[UUID, Sequence[LeadStageChanged]]
    ) -> None:
        """Add the stored logs of a lead and of all that were merged into it, and to them the facts of this unit of work."""
        for member, log in logs.items():
            self._add_log(member, log)
        for member in merge_group(lead_id, self.logs):
            self._add_log(member, Log(member))
            if member not in self.effective_entries:
                self.effective_entries[member] = apply_corrections(
                    entries.get(member, ()), self._new_entries.get(member, ())
                )

    def _add_log(self, member: UUID, log: Log) -> None:
        """A stored log, or an empty one, and what this unit of work has added to it."""
        if member in self.logs:
            return
        news = tuple(k.fact for k in self.log_entries if k.lead_id == member and k.fact not in log.facts)
        known = self.leads.get(member)
        entry_version = log.entry_version if known is None else known.entry_version
        self.logs[member] = replace(log, entry_version=entry_version, facts=(*log.facts, *news))

    # -- events of intake --

    def apply_event(self, event: IncomingEvent) -> tuple[EmittedEvents, ...]:  # noqa: PLR0911 - one for each kind
        """Apply an event; what is to be emitted, by lead. A redelivered event changes nothing, however old it is.

        Late activities are collected: `replay_late` replays their lead once, before anything else is applied to it and at the
        end. Raises LogNotLoaded, and then nothing has changed.
        """
        lead = self.lead(event.lead_id)
        if lead.erased:
            return ()
        # Event classes are final. `isinstance` would ask pydantic's metaclass for each of them, which shows at this place.
        if type(event) is ActivityRecorded:
            return self._apply_fact(lead, event.lead_id, _activity_fact(event))
        if type(event) is LeadCaptured or type(event) is LeadUpdated:
            own = self.leads[event.lead_id]
            if event.sequence <= own.intake_sequence:
                return ()  # stale
            return self._apply_fact(
                lead, event.lead_id, _profile_fact(own, event.sequence, event.state, event.occurred_at)
            )
        if type(event) is LeadMerged:
            return self._apply_merge(lead, event)
        if type(event) is LeadUnmerged:
            return self._revert_merge(lead, event)
        self.erased.add(lead.lead_id)
        self.leads[lead.lead_id] = as_erased(lead)
        return ()

    def _apply_fact(
        self, lead: Lead, own_id: UUID, fact: ProfileChanged | ActivityOccurred
    ) -> tuple[EmittedEvents, ...]:
        needs_replay = self._needs_replay(lead, own_id, fact)
        if needs_replay:
            self._require_logs(lead.lead_id)
        if self._is_duplicate(own_id, fact):
            return ()
        is_late = needs_replay and isinstance(fact, ActivityOccurred) and lead.profile is not None
        emitted = () if is_late else self.replay_late(lead.lead_id)
        self._append_to_log(own_id, fact)
        if isinstance(fact, ProfileChanged):
            self._supersede(own_id, fact)
        elif lead.profile is None:
            self._with_early_activities.add(own_id)
            return emitted
        if is_late and self.rules is not None:
            self._with_late_activities[lead.lead_id] = None
            return ()
        if self.rules is None or needs_replay:
            return (*emitted, *self._replay(lead.lead_id))
        return (*emitted, self._apply_next(self.leads[lead.lead_id], fact))

    def replay_late(self, *lead_ids: UUID) -> tuple[EmittedEvents, ...]:
        """Replay those of these leads, or else of all, whose late activities were only collected."""
        wanted = {self.lead(lead_id).lead_id for lead_id in lead_ids} if lead_ids else None
        late = [lead_id for lead_id in self._with_late_activities if wanted is None or lead_id in wanted]
        for lead_id in late:
            del self._with_late_activities[lead_id]
        return tuple(emitted for lead_id in late for emitted in self._replay(lead_id))

    def _require_logs(self, *lead_ids: UUID) -> None:
        missing = tuple(lead_id for lead_id in dict.fromkeys(lead_ids) if self._is_log_missing(lead_id))
        if missing:
            raise LogNotLoaded(missing)

    def _needs_replay(self, lead: Lead, own_id: UUID, fact: ProfileChanged | ActivityOccurred) -> bool:
        """Whether a fact cannot simply be the lead's next step."""
        if isinstance(fact, ProfileChanged) and own_id != lead.lead_id:
            return True  # of a lead that was merged: it belongs to its time before the merge
        if lead.profile is None:
            return isinstance(fact, ProfileChanged) and self._has_early_activities(lead)
        position = lead.position
        if position is None:
            return self.rules is not None
        return fact.at <= position.at and fact.position <= position

    def _is_duplicate(self, own_id: UUID, fact: ProfileChanged | ActivityOccurred) -> bool:
        """Whether an activity is in the log, where that is loaded: a redelivered one is never a lead's next step."""
        log = self.logs.get(own_id)
        return log is not None and isinstance(fact, ActivityOccurred) and fact in log.facts

    def _has_early_activities(self, lead: Lead) -> bool:
        return lead.has_early_activities or lead.lead_id in self._with_early_activities

    # -- merges --

    def _merge_needs_replay(self, lead: Lead, other: Lead, event: LeadMerged) -> bool:
        if lead.lead_id == other.lead_id or self.rules is None:
            return False
        place = _merge_fact(event, other.lead_id).position
        steps = lead.lead_id == event.lead_id and lead.position is not None and lead.position < place
        ready = (
            other.position < place
            if other.position is not None
            else other.profile is None and not self._has_early_activities(other)
        )
        return not (steps and ready and event.sequence > lead.intake_sequence)

    def _apply_merge(self, survivor: Lead, event: LeadMerged) -> tuple[EmittedEvents, ...]:
        other = self.lead(event.merged_lead_id)
        if other.lead_id == survivor.lead_id or self._is_reverted(survivor, other, event):
            return ()  # redelivered
        needs_replay = self._merge_needs_replay(survivor, other, event)
        if needs_replay or self.rules is None:
            self._require_logs(survivor.lead_id, other.lead_id)
        emitted: list[EmittedEvents] = []
        own = self.leads[event.lead_id]
        if own.profile is None:  # this is its first event
            first = _profile_fact(own, 0, event.state, event.state.captured_at)
            self._append_to_log(own.lead_id, first)
            self.leads[own.lead_id] = replace(own, profile=event.state, profile_at=first.at)
        fact = _merge_fact(event, other.lead_id, self._last_merge_at(other.lead_id))
        if not needs_replay and self.rules is not None:
            emitted += self._advance_time(other, fact.at)
            other = self.leads[other.lead_id]
        self._append_to_log(event.lead_id, fact)
        self._archive_profile(event.lead_id)
        self._archive_profile(other.lead_id)
        self.leads[other.lead_id] = as_merged(other, survivor.lead_id)
        for member in self.leads.values():
            if member.merged_into == other.lead_id:
                self.leads[member.lead_id] = replace(member, merged_into=survivor.lead_id)
        self.redirects.append(
            LeadRedirect((other.lead_id,), other.lead_id, survivor.lead_id, event.merge_id, is_revert=False)
        )
        if self.rules is None or needs_replay:
            if self.rules is None:
                self._set_profile(event.lead_id, event.sequence, event.state, fact.at)
            return (*emitted, *self._replay(survivor.lead_id))
        return (*emitted, self._apply_next(self.leads[survivor.lead_id], fact, other))

    def _last_merge_at(self, lead_id: UUID) -> datetime | None:
        """When a lead was last merged into this one. Where its log is not loaded, the merge at hand is later than all of it anyway."""
        log = self.logs.get(lead_id)
        return max((fact.at for fact in log.facts if isinstance(fact, MergeApplied)), default=None) if log else None

    def _is_reverted(self, survivor: Lead, other: Lead, event: LeadMerged) -> bool:
        """Whether the merge has been reverted since, which only the log knows."""
        own = self.leads[event.lead_id]
        if own.merged_into is None and event.sequence > own.intake_sequence:
            return False  # news
        self._require_logs(survivor.lead_id, other.lead_id)  # both, since a log is loaded once
        return event.merge_id in self.logs[event.lead_id].reverted_merges

    def _revert_merge(self, survivor: Lead, event: LeadUnmerged) -> tuple[EmittedEvents, ...]:
        """Undo a merge: the restored lead follows from its own log, the survivor from its own without the merge."""
        restored_id = event.restored_lead_id
        self._require_logs(survivor.lead_id, self.lead(restored_id).lead_id)
        if event.merge_id in self.logs[event.lead_id].reverted_merges:
            return ()  # redelivered
        holder = self._find_merge_log(survivor.lead_id, event.merge_id)
        emitted: list[EmittedEvents] = []
        if holder is not None:
            self.logs[holder] = self.logs[holder].without_merge(event.merge_id)
            self.reverted_merges.append((holder, event.merge_id))
            members = merge_group(restored_id, self.logs)
            self.redirects.append(LeadRedirect(members, survivor.lead_id, restored_id, event.merge_id, is_revert=True))
            for member in members[1:]:
                if member in self.leads:
                    self.leads[member] = replace(self.leads[member], merged_into=restored_id)
            restored = replace(self.leads[restored_id], merged_into=None)
            self.leads[restored_id] = restored
            profiles = [
                fact for fact in self.logs[restored_id].facts if isinstance(fact, ProfileChanged | MergeApplied)
            ]
            if self.rules is None and profiles:  # else the replay does that
                newest = max(profiles, key=lambda fact: fact.sequence)
                self._set_profile(restored_id, newest.sequence, newest.state, newest.at)
            if not profiles:
                first = _profile_fact(Lead(restored_id), 0, event.restored_state, event.restored_state.captured_at)
                self._append_to_log(restored_id, first)
                self._supersede(restored_id, first)
            emitted += self._replay_open(restored_id)
        if event.sequence > self.leads[event.lead_id].intake_sequence:
            own = self.leads[event.lead_id]
            fact = _profile_fact(own, event.sequence, event.state, event.occurred_at)
            self._append_to_log(event.lead_id, fact)
            self._supersede(event.lead_id, fact)
        return (*emitted, *self._replay_open(survivor.lead_id, event.occurred_at))

    def _replay_open(self, lead_id: UUID, until: datetime | None = None) -> tuple[EmittedEvents, ...]:
        """Replay a lead that the re-evaluation by the version in force may have passed over, as merged or as closed by the merge."""
        emitted = self._replay(lead_id, until)
        lead = self.leads[lead_id]
        rules = self._rules_of(lead)
        if rules is None or rules.is_closed(lead.stage):
            return emitted
        evaluated = self.reevaluate(lead_id)
        return emitted if evaluated is None else (*emitted, evaluated)

    def _find_merge_log(self, survivor_id: UUID, merge_id: UUID) -> UUID | None:
        for member in merge_group(survivor_id, self.logs):
            if any(isinstance(f, MergeApplied) and f.merge_id == merge_id for f in self.logs[member].facts):
                return member
        return None

    # -- decisions, assignments, versions, time --

    def decide(
        self, lead_id: UUID, decision: Decision, *, is_batch: bool = False
    ) -> tuple[DecisionAccepted, EmittedEvents]:
        """Apply a decision at its position: the moment that it is dated, not before the capture. Raises Refused, and nothing has changed.

        `is_batch`: one that is not allowed at its position, but is in the lead's present stage, is applied as the newest, dated as it is.
        So is what a CRM dates before the capture; singly that is refused. Raises LogNotLoaded likewise.
        """
        lead = self.lead(lead_id)
        require_decidable(lead, self.rules)
        profile, position = lead.profile, lead.position
        if profile is None or position is None:
            raise AssertionError("require_decidable has checked it")
        if decision.occurred_at < profile.captured_at and not is_batch:
            early = (("/occurred_at", "before the lead was captured"),)
            raise InvalidDecision(early, lead.stage, allowed_decisions(lead, self._rules_of(lead)))
        at = max(decision.occurred_at, profile.captured_at)
        if LogPosition(at, DECISION, decision.decision_id) > position:
            return self._append_decision(lead, decision, at)
        self._require_logs(lead.lead_id)
        if not self._is_cut(lead):
            try:
                return self._insert_decision(lead, decision, at)
            except NotAllowed:
                if not is_batch:
                    raise
        return self._append_decision(lead, decision, lead.next_moment(at))

    def _append_decision(self, lead: Lead, decision: Decision, at: datetime) -> tuple[DecisionAccepted, EmittedEvents]:
        machine = self._machine_for(lead)
        version_fact = self._apply_version(machine, lead, at)
        machine.advance_time(at)
        target = machine.allowed_target(decision)
        accepted = DecisionAccepted(at, decision, target.key, machine.rules.version)
        machine.apply(accepted)
        if version_fact is not None:
            self._append_to_log(lead.lead_id, version_fact)
        self._append_to_log(lead.lead_id, accepted)
        return accepted, self._store(lead.lead_id, machine)

    def _insert_decision(self, lead: Lead, decision: Decision, at: datetime) -> tuple[DecisionAccepted, EmittedEvents]:
        replayed = self._fold(lead, ProposedDecision(at, decision))
        if replayed.accepted is None:
            raise AssertionError("a proposed decision is refused or accepted")
        self._append_to_log(lead.lead_id, replayed.accepted)
        return replayed.accepted, self._emit_corrections(lead, replayed)

    def record_assignment(self, lead_id: UUID, fact: OwnerAssigned) -> None:
        """Record an assignment; its event is published by whoever made it."""
        lead = self.lead(lead_id)
        self._append_to_log(lead.lead_id, fact)
        self.leads[lead.lead_id] = replace(lead, owner=fact.owner)

    def enter(self, lead_id: UUID) -> tuple[EmittedEvents, ...]:
        """Let a lead without a stage enter, at the time of its capture. Its log must have been loaded."""
        lead = self.lead(lead_id)
        if lead.stage is not None or lead.profile is None or lead.erased:
            return ()
        return self._replay(lead.lead_id)

    def reevaluate(self, lead_id: UUID) -> EmittedEvents | None:
        """Evaluate a lead by the version in force from the moment on at which that came into force. None if it already is."""
        lead = self.lead(lead_id)
        if lead.position is None or lead.erased:
            return None
        machine = self._machine_for(lead)
        version_fact = self._apply_version(machine, lead, None)
        if version_fact is None:
            return None
        self._append_to_log(lead.lead_id, version_fact)
        return self._store(lead.lead_id, machine)

    def advance_time(self, lead_id: UUID, until: datetime) -> EmittedEvents | None:
        """Do what time alone brings about by `until`. None for a lead that waits for nothing."""
        lead = self.lead(lead_id)
        if lead.due_at is None or lead.erased:
            return None
        machine = self._machine_for(lead)
        version_fact = self._apply_version(machine, lead, until)
        if version_fact is not None:
            self._append_to_log(lead.lead_id, version_fact)
        machine.advance_time(until)
        return self._store(lead.lead_id, machine)

    def _advance_time(self, lead: Lead, until: datetime) -> list[EmittedEvents]:
        if lead.due_at is None or lead.due_at > until:
            return []
        machine = self._machine_for(lead)
        machine.advance_time(until)
        return [self._store(lead.lead_id, machine)]

    # -- the next step, or a replay --

    def _rules_of(self, lead: Lead) -> Rules | None:
        return self.rules if lead.applied_version is None else self.versions[lead.applied_version]

    def _machine_for(self, lead: Lead) -> LeadStateMachine:
        return LeadStateMachine(lead, self._rules_of(lead), self.versions, self.now)

    def _apply_version(self, machine: LeadStateMachine, lead: Lead, until: datetime | None) -> VersionApplied | None:
        """Bring the lead under the version in force if its moment lies before `until` (None: whenever); the fact for its log."""
        rules = self.rules
        if (
            rules is None
            or lead.position is None
            or lead.applied_version is None
            or rules.version <= lead.applied_version
        ):
            return None
        at = lead.position.at if rules.since is None else max(rules.since, lead.position.at)
        if until is not None and at >= until:
            return None
        version_fact = VersionApplied(at, rules.version)
        machine.apply(version_fact)
        return version_fact

    def _apply_next(self, lead: Lead, fact: Fact, other: Lead | None = None) -> EmittedEvents:
        machine = self._machine_for(lead)
        version_fact = self._apply_version(machine, lead, fact.at)
        if version_fact is not None:
            self._append_to_log(lead.lead_id, version_fact)
        machine.apply(fact, other)
        return self._store(lead.lead_id, machine)

    def _store(self, lead_id: UUID, machine: LeadStateMachine) -> EmittedEvents:
        emitted = EmittedEvents(machine.build_lead(), tuple(machine.events))
        self.leads[lead_id] = emitted.lead
        self._track_entries(lead_id, emitted.events)
        return emitted

    def _replay(self, lead_id: UUID, until: datetime | None = None) -> tuple[EmittedEvents, ...]:
        """Replay a lead and emit what differs. Without a definition there is nothing to replay."""
        if self.rules is None:
            return ()
        lead = self.leads[lead_id]
        return (self._emit_corrections(lead, self._fold(lead, None, until)),)

    def _fold(self, lead: Lead, proposed: ProposedDecision | None, until: datetime | None = None) -> ReplayResult:
        log = self.logs.get(lead.lead_id) or Log(lead.lead_id)
        if log.entry_version is None and self.rules is not None:
            self.logs[lead.lead_id] = replace(log, entry_version=self.rules.version)
        reached = lead.evaluated_at
        if until is not None:
            reached = until if reached is None else max(until, reached)
        return fold(lead.lead_id, self.logs, self.versions, until=reached, proposed=proposed, now=self.now)

    def _is_cut(self, lead: Lead) -> bool:
        return lead.stage is not None and any(
            self.logs[member].is_cut for member in merge_group(lead.lead_id, self.logs)
        )

    def _emit_corrections(self, lead: Lead, replayed: ReplayResult) -> EmittedEvents:
        current = self.effective_entries.get(lead.lead_id, ())
        if self._is_cut(lead):  # for want of old activities nothing is corrected that rested on them
            made = replayed.lead
            kept = {name: getattr(lead, name) for name in ("stage", "stage_since", "visits", "definition_version")}
            due_at = made.position.at if made.position else None  # what time brings in this stage is looked for anew
            replayed = ReplayResult(replace(made, **kept, due_at=due_at), tuple(current))
        made, events = derive_corrections(lead, replayed, current, self.now)
        self.leads[lead.lead_id] = made
        self._track_entries(lead.lead_id, events)
        return EmittedEvents(made, events)

    def _track_entries(self, lead_id: UUID, events: Iterable[LeadEvent]) -> None:
        more = [event for event in events if type(event) is LeadStageChanged]
        if more:
            self._new_entries.setdefault(lead_id, []).extend(more)
            if lead_id in self.effective_entries:
                self.effective_entries[lead_id] = apply_corrections(self.effective_entries[lead_id], more)

    # -- what is to be saved --

    def _append_to_log(self, lead_id: UUID, fact: Fact) -> None:
        survivor_id = lead_id if self.leads[lead_id].merged_into is None else self.lead(lead_id).lead_id
        self.log_entries.append(LogEntry(lead_id, survivor_id, fact))
        if lead_id in self.logs:
            self.logs[lead_id] = self.logs[lead_id].with_fact(fact)

    def _supersede(self, lead_id: UUID, fact: ProfileChanged) -> None:
        """A newer profile; the one before goes into the log. A merged lead's are all there, as its row holds none."""
        own = self.leads[lead_id]
        if own.merged_into is not None:
            self.superseded_profiles.append((lead_id, fact))
            self.leads[lead_id] = replace(own, intake_sequence=fact.sequence)
            return
        self._archive_profile(lead_id)
        if self.rules is None:
            self._set_profile(lead_id, fact.sequence, fact.state, fact.at)

    def _set_profile(self, lead_id: UUID, sequence: int, state: LeadState, at: datetime) -> None:
        own = self.leads[lead_id]
        if sequence > own.intake_sequence or own.profile is None:
            self.leads[lead_id] = replace(own, profile=state, intake_sequence=sequence, profile_at=at)

    def _archive_profile(self, lead_id: UUID) -> None:
        own = self.leads[lead_id]
        if own.profile is not None and own.profile_at is not None and own.merged_into is None:
            self.superseded_profiles.append((lead_id, ProfileChanged(own.profile_at, own.intake_sequence, own.profile)))


def _is_newest(fact: ActivityOccurred, position: LogPosition | None) -> bool:
    """Whether a fact may be the one that a lead was last evaluated by."""
    return position is not None and fact.at == position.at and fact.position <= position


def _activity_fact(event: ActivityRecorded) -> ActivityOccurred:
    return ActivityOccurred(event.occurred_at, event.activity_id, event.kind, event.by)


def _profile_fact(known: Lead, sequence: int, state: LeadState, occurred_at: datetime) -> ProfileChanged:
    """A profile at its position; the first one counts from the capture."""
    at = state.captured_at if known.profile is None else max(occurred_at, state.captured_at)
    return ProfileChanged(at, sequence, state)


def _merge_fact(event: LeadMerged, other_id: UUID, not_before: datetime | None = None) -> MergeApplied:
    """A merge at its position: never before the merges into the other lead, which it takes along."""
    at = max(event.occurred_at, event.state.captured_at, not_before or event.occurred_at)
    return MergeApplied(at, event.merge_id, other_id, event.sequence, event.state)
