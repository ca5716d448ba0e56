"""Some leads and what is told of them, one thing after another: each is one step on, or is put into its place and folded anew.

Pure: it holds the leads of one unit of work and opens nothing. A fold needs the log of the lead: what needs one raises LogNotLoaded, and
`learn` takes them. What is to be kept and published is collected for whoever saves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

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
from qualification.lifecycle.domain import progress
from qualification.lifecycle.domain.decisions import NotAllowed, Unfit, allowed_decisions, refuse_unknown
from qualification.lifecycle.domain.facts import (
    DECISION,
    ActivityOccurred,
    Decided,
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
    corrections,
    family,
    fold,
    followed,
)
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.domain.state_machine import LeadStateMachine, Versions

Told = LeadCaptured | LeadUpdated | LeadMerged | LeadUnmerged | LeadErased | ActivityRecorded
"""What intake tells that moves a lead."""


class LogNotLoaded(Exception):
    """What was told needs the logs of these living leads; learn them and tell it again."""

    def __init__(self, lead_ids: tuple[UUID, ...]) -> None:
        super().__init__("a log is needed")
        self.lead_ids = lead_ids


class Kept(NamedTuple):
    """A fact for the log of `lead_id`, which lives as `living` by now."""

    lead_id: UUID
    living: UUID
    fact: Fact


class Moved(NamedTuple):
    """From here on what was recorded for these leads is recorded under another: a merge, or one that was taken back."""

    lead_ids: tuple[UUID, ...]
    away_from: UUID
    to: UUID
    back: bool


@dataclass(frozen=True, slots=True)
class Said:
    """What one thing that was told brought about, in order, and where the lead stands then."""

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
        self.stands: dict[UUID, list[LeadStageChanged]] = {}
        self.kept: list[Kept] = []
        self.superseded: list[tuple[UUID, ProfileChanged]] = []
        self.undone: list[tuple[UUID, UUID]] = []
        """Of merges that were taken back: in whose log they stand, and the merge."""
        self.moved: list[Moved] = []
        self.erased: set[UUID] = set()
        self._noted: set[UUID] = set()
        self._entries: dict[UUID, list[LeadStageChanged]] = {}

    def lead(self, lead_id: UUID) -> Lead:
        """The lead as it is by now; in place of one that was merged, its survivor. Unknown ones have no profile."""
        lead = self.leads[lead_id]
        while lead.merged_into is not None:
            lead = self.leads[lead.merged_into]
        return lead

    # -- logs --

    def foresee(self, events: Iterable[Told]) -> list[UUID]:
        """The living leads whose logs these events will probably need, so that they can be learnt all at once."""
        reached: dict[UUID, datetime] = {}
        found: dict[UUID, None] = {}
        for event in events:
            lead = self.lead(event.lead_id)
            lead_id, clock, at = lead.lead_id, lead.clock, event.occurred_at
            if self.rules is None or lead.erased or type(event) is LeadErased:
                continue
            if type(event) is LeadUnmerged:
                found[lead_id] = None
            before = reached.get(lead_id) or (clock.at if clock else None)
            if before is None:
                if lead.noted or lead.profile is not None or type(event) is ActivityRecorded:
                    found[lead_id] = None
                reached[lead_id] = at
            elif at < before or (type(event) is ActivityRecorded and _is_newest(_acted(event), clock)):
                found[lead_id] = None
            else:
                reached[lead_id] = at
        return [lead_id for lead_id in found if self._is_unlearnt(lead_id)]

    def _is_unlearnt(self, lead_id: UUID) -> bool:
        return lead_id not in self.stands or any(member not in self.logs for member in family(lead_id, self.logs))

    def learn(self, lead_id: UUID, logs: Mapping[UUID, Log], stands: Mapping[UUID, Sequence[LeadStageChanged]]) -> None:
        """Take the logs of a lead and of all that were merged into it, as they are stored; what was told since is added."""
        for member, log in logs.items():
            if member not in self.logs:
                news = tuple(k.fact for k in self.kept if k.lead_id == member and k.fact not in log.facts)
                known = self.leads.get(member)
                entered_under = log.entered_under if known is None else known.entered_under
                self.logs[member] = replace(log, entered_under=entered_under, facts=(*log.facts, *news))
        for member in family(lead_id, self.logs):
            self.logs.setdefault(member, Log(member))
            if member not in self.stands:
                self.stands[member] = followed(stands.get(member, ()), self._entries.get(member, ()))

    # -- what intake tells --

    def apply_event(self, event: Told) -> tuple[Said, ...]:  # noqa: PLR0911 - one for each kind
        """Apply what intake told; what is to be said, by lead. What was told before changes nothing, however long ago that was.

        Raises LogNotLoaded, and then nothing has changed.
        """
        lead = self.lead(event.lead_id)
        if lead.erased:
            return ()
        # Event classes are final. `isinstance` would ask pydantic's metaclass for each of them, which shows at this place.
        if type(event) is ActivityRecorded:
            return self._told(lead, event.lead_id, _acted(event))
        if type(event) is LeadCaptured or type(event) is LeadUpdated:
            own = self.leads[event.lead_id]
            if event.sequence <= own.intake_sequence:
                return ()  # stale
            return self._told(lead, event.lead_id, _profiled(own, event.sequence, event.state, event.occurred_at))
        if type(event) is LeadMerged:
            return self._merge(lead, event)
        if type(event) is LeadUnmerged:
            return self._part(lead, event)
        self.erased.add(lead.lead_id)
        self.leads[lead.lead_id] = progress.erased(lead)
        return ()

    def _told(self, lead: Lead, own_id: UUID, fact: ProfileChanged | ActivityOccurred) -> tuple[Said, ...]:
        folds = self._folds(lead, own_id, fact)
        if folds:
            self._need(lead.lead_id)
        if self._was_told(own_id, fact):
            return ()
        self._keep(own_id, fact)
        if isinstance(fact, ProfileChanged):
            self._supersede(own_id, fact)
        elif lead.profile is None:
            self._noted.add(own_id)
            return ()
        if self.rules is None or folds:
            return self._folded(lead.lead_id)
        return (self._stepped(lead, fact),)

    def _need(self, *lead_ids: UUID) -> None:
        missing = tuple(lead_id for lead_id in dict.fromkeys(lead_ids) if self._is_unlearnt(lead_id))
        if missing:
            raise LogNotLoaded(missing)

    def _folds(self, lead: Lead, own_id: UUID, fact: ProfileChanged | ActivityOccurred) -> bool:
        """Whether a fact cannot simply be the lead's next step."""
        if isinstance(fact, ProfileChanged) and own_id != lead.lead_id:
            return True  # of a lead that was merged: it belongs to its time before the merge
        if lead.profile is None:
            return isinstance(fact, ProfileChanged) and self._was_noted(lead)
        clock = lead.clock
        if clock is None:
            return self.rules is not None
        return fact.at <= clock.at and fact.place <= clock

    def _was_told(self, own_id: UUID, fact: ProfileChanged | ActivityOccurred) -> bool:
        """Whether an activity is in the log, where that is learnt: what is told again is never a lead's next step."""
        log = self.logs.get(own_id)
        return log is not None and isinstance(fact, ActivityOccurred) and fact in log.facts

    def _was_noted(self, lead: Lead) -> bool:
        return lead.noted or lead.lead_id in self._noted

    # -- merges --

    def _folds_for_merge(self, lead: Lead, other: Lead, event: LeadMerged) -> bool:
        if lead.lead_id == other.lead_id or self.rules is None:
            return False
        place = _joined(event, other.lead_id).place
        steps = lead.lead_id == event.lead_id and lead.clock is not None and lead.clock < place
        ready = other.clock < place if other.clock is not None else other.profile is None and not self._was_noted(other)
        return not (steps and ready and event.sequence > lead.intake_sequence)

    def _merge(self, survivor: Lead, event: LeadMerged) -> tuple[Said, ...]:
        other = self.lead(event.merged_lead_id)
        if other.lead_id == survivor.lead_id or self._is_undone(survivor, other, event):
            return ()  # told before
        folds = self._folds_for_merge(survivor, other, event)
        if folds:
            self._need(survivor.lead_id, other.lead_id)
        said: list[Said] = []
        own = self.leads[event.lead_id]
        if own.profile is None:  # nothing of it was heard but this
            first = _profiled(own, 0, event.state, event.state.captured_at)
            self._keep(own.lead_id, first)
            self.leads[own.lead_id] = replace(own, profile=event.state, profile_at=first.at)
        fact = _joined(event, other.lead_id)
        if not folds and self.rules is not None:
            said += self._time_passes(other, fact.at)
            other = self.leads[other.lead_id]
        self._keep(event.lead_id, fact)
        self._remember_profile(event.lead_id)
        self._remember_profile(other.lead_id)
        self.leads[other.lead_id] = progress.absorbed(other, other.lead_id, survivor.lead_id)
        for member in self.leads.values():
            if member.merged_into == other.lead_id:
                self.leads[member.lead_id] = replace(member, merged_into=survivor.lead_id)
        self.moved.append(Moved((other.lead_id,), other.lead_id, survivor.lead_id, back=False))
        if self.rules is None or folds:
            if self.rules is None:
                self._adopt(event.lead_id, event.sequence, event.state, fact.at)
            return (*said, *self._folded(survivor.lead_id))
        return (*said, self._stepped(self.leads[survivor.lead_id], fact, other))

    def _is_undone(self, survivor: Lead, other: Lead, event: LeadMerged) -> bool:
        """Whether a merge was taken back since, which only the log knows."""
        own = self.leads[event.lead_id]
        if own.merged_into is None and event.sequence > own.intake_sequence:
            return False  # news
        self._need(survivor.lead_id, other.lead_id)  # both, since what is asked for is learnt once
        return event.merge_id in self.logs[event.lead_id].undone

    def _part(self, survivor: Lead, event: LeadUnmerged) -> tuple[Said, ...]:
        """A merge was taken back: the one lives as its own log says, the other as its own says without it."""
        restored_id = event.restored_lead_id
        self._need(survivor.lead_id, self.lead(restored_id).lead_id)
        if event.merge_id in self.logs[event.lead_id].undone:
            return ()  # told before
        holder = self._holder(survivor.lead_id, event.merge_id)
        said: list[Said] = []
        if holder is not None:
            self.logs[holder] = self.logs[holder].without_merge(event.merge_id)
            self.undone.append((holder, event.merge_id))
            members = family(restored_id, self.logs)
            self.moved.append(Moved(members, survivor.lead_id, restored_id, back=True))
            for member in members[1:]:
                if member in self.leads:
                    self.leads[member] = replace(self.leads[member], merged_into=restored_id)
            restored = replace(self.leads[restored_id], merged_into=None)
            self.leads[restored_id] = restored
            if not any(isinstance(fact, ProfileChanged | MergeApplied) for fact in self.logs[restored_id].facts):
                first = _profiled(Lead(restored_id), 0, event.restored_state, event.restored_state.captured_at)
                self._keep(restored_id, first)
                self._supersede(restored_id, first)
            said += self._folded(restored_id)
        if event.sequence > self.leads[event.lead_id].intake_sequence:
            own = self.leads[event.lead_id]
            fact = _profiled(own, event.sequence, event.state, event.occurred_at)
            self._keep(event.lead_id, fact)
            self._supersede(event.lead_id, fact)
        return (*said, *self._folded(survivor.lead_id, event.occurred_at))

    def _holder(self, survivor_id: UUID, merge_id: UUID) -> UUID | None:
        for member in family(survivor_id, self.logs):
            if any(isinstance(f, MergeApplied) and f.merge_id == merge_id for f in self.logs[member].facts):
                return member
        return None

    # -- decisions, assignments, versions, time --

    def decide(self, lead_id: UUID, decided: Decided, *, of_batch: bool = False) -> tuple[DecisionAccepted, Said]:
        """Take a decision at its place: the moment that it is dated, not before the capture. Raises Refused, and nothing has changed.

        `of_batch`: one that its place does not allow, but the lead's present stage does, is taken as the newest, dated as it is. So
        is what a CRM dates before the capture; singly that is refused. Raises LogNotLoaded likewise.
        """
        lead = self.lead(lead_id)
        refuse_unknown(lead, self.rules)
        profile, clock = lead.profile, lead.clock
        if profile is None or clock is None:
            raise AssertionError("refuse_unknown has looked")
        if decided.occurred_at < profile.captured_at and not of_batch:
            early = (("/occurred_at", "before the lead was captured"),)
            raise Unfit(early, lead.stage, allowed_decisions(lead, self._rules_of(lead)))
        at = max(decided.occurred_at, profile.captured_at)
        if LogPosition(at, DECISION, decided.decision_id) > clock:
            return self._decided_next(lead, decided, at)
        try:
            return self._decided_late(lead, decided, at)
        except NotAllowed:
            if not of_batch:
                raise
        return self._decided_next(lead, decided, lead.next_moment(at))

    def _decided_next(self, lead: Lead, decided: Decided, at: datetime) -> tuple[DecisionAccepted, Said]:
        way = self._way(lead)
        ruled = self._brought_up(way, lead, at)
        way.pass_time(at)
        target = way.allowed_target(decided)
        stood = DecisionAccepted(at, decided, target.key, way.rules.version)
        way.apply(stood)
        if ruled is not None:
            self._keep(lead.lead_id, ruled)
        self._keep(lead.lead_id, stood)
        return stood, self._settled(lead.lead_id, way)

    def _decided_late(self, lead: Lead, decided: Decided, at: datetime) -> tuple[DecisionAccepted, Said]:
        self._need(lead.lead_id)
        folded = self._fold(lead, ProposedDecision(at, decided))
        if folded.stood is None:
            raise AssertionError("a decision that was tried and not refused stands")
        self._keep(lead.lead_id, folded.stood)
        return folded.stood, self._corrected(lead, folded)

    def assigned(self, lead_id: UUID, fact: OwnerAssigned) -> None:
        """Note that the lead was given to somebody; whoever did it says so."""
        lead = self.lead(lead_id)
        self._keep(lead.lead_id, fact)
        self.leads[lead.lead_id] = replace(lead, owner=fact.owner)

    def enter(self, lead_id: UUID) -> tuple[Said, ...]:
        """Let a lead without a stage enter, at the time of its capture. Its log must have been learnt."""
        lead = self.lead(lead_id)
        if lead.stage is not None or lead.profile is None or lead.erased:
            return ()
        return self._folded(lead.lead_id)

    def reevaluate(self, lead_id: UUID) -> Said | None:
        """Judge a lead by the version in force from the moment on at which that came into force. None if it is judged by it."""
        lead = self.lead(lead_id)
        if lead.clock is None or lead.erased:
            return None
        way = self._way(lead)
        ruled = self._brought_up(way, lead, None)
        if ruled is None:
            return None
        self._keep(lead.lead_id, ruled)
        return self._settled(lead.lead_id, way)

    def pass_time(self, lead_id: UUID, until: datetime) -> Said | None:
        """Do what time alone brings about by `until`. None for a lead that waits for nothing."""
        lead = self.lead(lead_id)
        if lead.due_at is None or lead.erased:
            return None
        way = self._way(lead)
        ruled = self._brought_up(way, lead, until)
        if ruled is not None:
            self._keep(lead.lead_id, ruled)
        way.pass_time(until)
        return self._settled(lead.lead_id, way)

    def _time_passes(self, lead: Lead, until: datetime) -> list[Said]:
        if lead.due_at is None or lead.due_at > until:
            return []
        way = self._way(lead)
        way.pass_time(until)
        return [self._settled(lead.lead_id, way)]

    # -- one step, or a fold --

    def _rules_of(self, lead: Lead) -> Rules | None:
        return self.rules if lead.ruled_by is None else self.versions[lead.ruled_by]

    def _way(self, lead: Lead) -> LeadStateMachine:
        return LeadStateMachine(lead, self._rules_of(lead), self.versions, self.now)

    def _brought_up(self, way: LeadStateMachine, lead: Lead, until: datetime | None) -> VersionApplied | None:
        """Bring the lead under the version in force if its moment lies before `until` (None: whenever); the fact to be kept."""
        rules = self.rules
        if rules is None or lead.clock is None or lead.ruled_by is None or rules.version <= lead.ruled_by:
            return None
        at = lead.clock.at if rules.since is None else max(rules.since, lead.clock.at)
        if until is not None and at >= until:
            return None
        ruled = VersionApplied(at, rules.version)
        way.apply(ruled)
        return ruled

    def _stepped(self, lead: Lead, fact: Fact, other: Lead | None = None) -> Said:
        way = self._way(lead)
        if lead.ruled_by is not None and self.rules is not None and self.rules.version > lead.ruled_by:
            ruled = self._brought_up(way, lead, fact.at)
            if ruled is not None:
                self._keep(lead.lead_id, ruled)
        way.apply(fact, other)
        return self._settled(lead.lead_id, way)

    def _settled(self, lead_id: UUID, way: LeadStateMachine) -> Said:
        outcome = way.outcome()
        if outcome.lead is None:
            raise AssertionError("a way has a lead")
        self.leads[lead_id] = outcome.lead
        self._stand(lead_id, outcome.events)
        return Said(outcome.lead, outcome.events)

    def _folded(self, lead_id: UUID, until: datetime | None = None) -> tuple[Said, ...]:
        """Fold a lead anew and say what differs. Before there is a definition there is nothing to fold."""
        if self.rules is None:
            return ()
        lead = self.leads[lead_id]
        return (self._corrected(lead, self._fold(lead, None, until)),)

    def _fold(self, lead: Lead, tried: ProposedDecision | None, until: datetime | None = None) -> ReplayResult:
        log = self.logs.get(lead.lead_id) or Log(lead.lead_id)
        if log.entered_under is None and self.rules is not None:
            self.logs[lead.lead_id] = replace(log, entered_under=self.rules.version)
        reached = lead.evaluated_at
        if until is not None:
            reached = until if reached is None else max(until, reached)
        return fold(lead.lead_id, self.logs, self.versions, until=reached, tried=tried, now=self.now)

    def _corrected(self, lead: Lead, folded: ReplayResult) -> Said:
        made, events = corrections(lead, folded, self.stands.get(lead.lead_id, ()), self.now)
        self.leads[lead.lead_id] = made
        self._stand(lead.lead_id, events)
        return Said(made, events)

    def _stand(self, lead_id: UUID, events: Iterable[LeadEvent]) -> None:
        more = [event for event in events if type(event) is LeadStageChanged]
        if more:
            self._entries.setdefault(lead_id, []).extend(more)
            if lead_id in self.stands:
                self.stands[lead_id] = followed(self.stands[lead_id], more)

    # -- what is to be kept --

    def _keep(self, lead_id: UUID, fact: Fact) -> None:
        living = lead_id if self.leads[lead_id].merged_into is None else self.lead(lead_id).lead_id
        self.kept.append(Kept(lead_id, living, fact))
        if lead_id in self.logs:
            self.logs[lead_id] = self.logs[lead_id].with_one(fact)

    def _supersede(self, lead_id: UUID, fact: ProfileChanged) -> None:
        """A newer profile; the one before goes into the log. A merged lead's are all there, as its row holds none."""
        own = self.leads[lead_id]
        if own.merged_into is not None:
            self.superseded.append((lead_id, fact))
            self.leads[lead_id] = replace(own, intake_sequence=fact.sequence)
            return
        self._remember_profile(lead_id)
        if self.rules is None:
            self._adopt(lead_id, fact.sequence, fact.state, fact.at)

    def _adopt(self, lead_id: UUID, sequence: int, state: LeadState, at: datetime) -> None:
        own = self.leads[lead_id]
        if sequence > own.intake_sequence or own.profile is None:
            self.leads[lead_id] = replace(own, profile=state, intake_sequence=sequence, profile_at=at)

    def _remember_profile(self, lead_id: UUID) -> None:
        own = self.leads[lead_id]
        if own.profile is not None and own.profile_at is not None and own.merged_into is None:
            self.superseded.append((lead_id, ProfileChanged(own.profile_at, own.intake_sequence, own.profile)))


def _is_newest(fact: ActivityOccurred, clock: LogPosition | None) -> bool:
    """Whether a fact may be the one that a lead was judged by last."""
    return clock is not None and fact.at == clock.at and fact.place <= clock


def _acted(event: ActivityRecorded) -> ActivityOccurred:
    return ActivityOccurred(event.occurred_at, event.activity_id, event.kind, event.by)


def _profiled(known: Lead, sequence: int, state: LeadState, occurred_at: datetime) -> ProfileChanged:
    """A profile at its place; the first that is heard of counts from the capture."""
    at = state.captured_at if known.profile is None else max(occurred_at, state.captured_at)
    return ProfileChanged(at, sequence, state)


def _joined(event: LeadMerged, other_id: UUID) -> MergeApplied:
    at = max(event.occurred_at, event.state.captured_at)
    return MergeApplied(at, event.merge_id, other_id, event.sequence, event.state)
