"""How a lead moves: `decide(lead, event, rules, now)` gives the new state and what there is to say of it. Pure; refuses, never guesses.

A lead has a clock of its own, the latest moment at which its gates were tried; it follows the times at which things occurred,
so that history which is reported late or imported enters its stages at its true times, and it never runs backwards. Automatic
gates lead forward (or out of a recycled stage, after the cool-down, on new activity of the lead itself); back it goes only by
a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from uuid import UUID

from accord.contracts.base import LeadEvent
from accord.contracts.criteria import Leaf
from accord.contracts.intake_events import (
    ActivityRecorded,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadState,
    LeadUpdated,
)
from accord.contracts.qualification_events import (
    LeadDecided,
    LeadScored,
    LeadStageChanged,
    OpportunityUpdated,
    StageCause,
)
from accord.contracts.values import Department, Money
from qualification.domain.lead import NO_ACTIVITIES, Answer, Deal, Lead, microseconds, moment_of
from qualification.domain.rules import Rules, StageRule
from qualification.domain.scoring import LeadFacts, scores

FUTURE_S_MAX = 300
"""A decision may be dated this far ahead of our clock, for clocks that differ."""

REPLAYED_MOMENTS_MAX = 200
"""A lead that enters with activities already known has its gates tried at the newest so many of their moments."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a decision carries, checked for type; None or absent is not given."""

    amount: Money | None = None
    expected_close: date | None = None
    answers: Mapping[str, Answer] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        if name == "amount":
            return self.amount is not None
        if name == "expected_close":
            return self.expected_close is not None
        return name in self.answers


NO_FIELDS = Fields()


@dataclass(frozen=True, slots=True)
class Decided:
    """A person or the CRM decided."""

    decision_id: UUID
    decision: str
    actor: str
    occurred_at: datetime
    department: Department | None = None
    reason: str | None = None
    fields: Fields = NO_FIELDS


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge, with what was known of the lead that is merged into this one."""

    event: LeadMerged
    merged: Lead | None


@dataclass(frozen=True, slots=True)
class DefinitionArrived:
    """A definition is in force now, and this lead has no stage yet."""


Event = LeadCaptured | LeadUpdated | ActivityRecorded | LeadErased | Merged | Decided | DefinitionArrived


@dataclass(frozen=True, slots=True)
class Outcome:
    """The lead after an event, None while it is unknown, and the events to publish, in order."""

    lead: Lead | None
    events: tuple[LeadEvent, ...] = ()


class Refused(Exception):
    """A decision that changes nothing. `stage` is where the lead stands and `allowed` what could be decided there."""

    def __init__(self, reason: str, stage: str | None = None, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stage = stage
        self.allowed = allowed


class NotAllowed(Refused):
    """The lead's stage does not allow this decision."""


class Unfit(Refused):
    """The decision itself is not as agreed. `errors` are pairs of a JSON pointer into the request and what is wrong there."""

    def __init__(self, errors: tuple[tuple[str, str], ...], stage: str | None, allowed: tuple[str, ...]) -> None:
        super().__init__("; ".join(message for _, message in errors), stage, allowed)
        self.errors = errors


class Unknown(Refused):
    """The lead has not entered, or not been heard of here yet."""


class Changed(Refused):
    """The lead is no longer as the caller believes it to be. `revision` is the present one."""

    def __init__(self, revision: int, stage: str | None, allowed: tuple[str, ...]) -> None:
        super().__init__("the lead has changed since", stage, allowed)
        self.revision = revision


class Gone(Refused):
    """The lead was erased."""


def allowed_decisions(lead: Lead, rules: Rules | None) -> tuple[str, ...]:
    """What may be decided about the lead now, in alphabetical order."""
    if rules is None or lead.erased:
        return ()
    return tuple(sorted(rules.open_to(lead.stage)))


@dataclass(frozen=True, slots=True)
class GateExplained:
    """An automatic gate: whether its criteria hold for a lead, and what each of them found."""

    stage: str
    holds: bool
    why: tuple[Leaf, ...]


def explain_gates(lead: Lead, rules: Rules, at: datetime) -> list[GateExplained]:
    """Every automatic gate of the definition, in order of rank, whichever stage the lead is in."""
    facts = LeadFacts(lead, at, scores(lead, rules, at))
    return [
        GateExplained(stage.key, stage.when.holds(facts), tuple(stage.when.explain(facts)))
        for stage in rules.stages.values()
        if stage.when is not None
    ]


def decide(lead: Lead | None, event: Event, rules: Rules | None, now: datetime) -> Outcome:
    """The lead after `event` under the definition in force (None: there is none), and the events to publish.

    `now` is the time of the recording. Raises Refused, for a decision only. Profiles older than the one known are passed over.
    """
    if isinstance(event, Decided):
        return _decided(lead, event, rules, now)
    if isinstance(event, LeadErased):
        return Outcome(replace(_stripped(lead or Lead(event.lead_id)), erased=True))
    if lead is not None and lead.erased:
        return Outcome(lead)
    return _told(lead, event, rules, now)


def _told(
    lead: Lead | None,
    event: LeadCaptured | LeadUpdated | ActivityRecorded | Merged | DefinitionArrived,
    rules: Rules | None,
    now: datetime,
) -> Outcome:
    if isinstance(event, Merged):
        return _merged(lead, event, rules, now)
    if isinstance(event, LeadCaptured | LeadUpdated):
        return _profiled(lead, event, rules, now)
    if lead is None or lead.profile is None:
        return Outcome(lead)  # an activity of a lead that has not entered is kept in its table and counts when it does
    if isinstance(event, ActivityRecorded):
        return _active(lead, event, rules, now)
    return _Way.of(lead, rules, now).enter_and_replay()


def absorbed(merged: Lead | None, merged_lead_id: UUID, survivor_id: UUID) -> Lead:
    """What remains under the id of a lead that was merged into another: a pointer, and its history."""
    return replace(_stripped(merged or Lead(merged_lead_id)), merged_into=survivor_id)


def _profiled(lead: Lead | None, event: LeadCaptured | LeadUpdated, rules: Rules | None, now: datetime) -> Outcome:
    """A newer profile; the first of them is the lead's entry, whatever event brought it."""
    known = lead or Lead(event.lead_id)
    if known.profile is not None and event.sequence <= known.intake_sequence:
        return Outcome(known)
    way = _Way.of(replace(known, profile=event.state, intake_sequence=event.sequence), rules, now)
    if known.stage is None:
        return way.enter_and_replay()
    return way.moved_on(event.occurred_at)


def _active(lead: Lead, event: ActivityRecorded, rules: Rules | None, now: datetime) -> Outcome:
    if rules is None or event.kind in rules.kinds:
        moment = microseconds(event.occurred_at)
        lead = replace(lead, activities=lead.activities.with_one(event.kind, moment))
    way = _Way.of(lead, rules, now)
    if lead.stage is None:
        return way.enter_and_replay()
    return way.moved_on(event.occurred_at, new_interest_at=event.occurred_at if event.by == "lead" else None)


def _stripped(lead: Lead) -> Lead:
    """Without its attributes; stage, visits and amounts stay as counts."""
    profile = lead.profile
    if profile is not None:
        profile = LeadState(
            source=profile.source,
            captured_at=profile.captured_at,
            verdict=profile.verdict,
            policy_version=profile.policy_version,
        )
    return replace(
        lead, profile=profile, deal=Deal(lead.deal.amount, lead.deal.expected_close), activities=NO_ACTIVITIES
    )


def _merged(lead: Lead | None, event: Merged, rules: Rules | None, now: datetime) -> Outcome:
    """The survivor with the other's activities. Where the other had come further, the survivor goes on from there."""
    said, other = event.event, event.merged
    survivor = lead or Lead(said.lead_id)
    newer = survivor.profile is None or said.sequence > survivor.intake_sequence
    if survivor.lead_id == said.lead_id and newer:  # else it was itself merged on since, and has a profile of its own
        survivor = replace(survivor, profile=said.state, intake_sequence=said.sequence)
    if other is not None:
        survivor = replace(survivor, activities=survivor.activities.with_all_of(other.activities))
    way = _Way.of(survivor, rules, now)
    if survivor.stage is None:
        way.enter()
    if other is not None and rules is not None and not other.erased:
        way.take_over(other, rules, said.occurred_at)
    return way.moved_on(said.occurred_at)


def _decided(lead: Lead | None, event: Decided, rules: Rules | None, now: datetime) -> Outcome:
    if lead is not None and lead.erased:
        raise Gone("the lead was erased")
    if lead is None or lead.profile is None:
        raise Unknown("no such lead has entered")
    allowed = allowed_decisions(lead, rules)
    if rules is None or lead.stage is None:
        raise NotAllowed("the lead has no stage, since no definition has been in force", None, allowed)
    target = rules.open_to(lead.stage).get(event.decision)
    if target is None:
        if event.decision not in rules.decisions:
            known = ", ".join(sorted(rules.decisions))
            raise Unfit((("/decision", f"not a decision of the definition in force: {known}"),), lead.stage, allowed)
        raise NotAllowed(f"{event.decision} is not allowed in {lead.stage}", lead.stage, allowed)
    errors = _unfit(event, target, now)
    if errors:
        raise Unfit(errors, lead.stage, allowed)
    way = _Way.of(lead, rules, now)
    way.follow(event, target)
    return way.moved_on(event.occurred_at, scored=False)  # a decision changes nothing that is scored


def _unfit(event: Decided, target: StageRule, now: datetime) -> tuple[tuple[str, str], ...]:
    errors = []
    if event.occurred_at > now + timedelta(seconds=FUTURE_S_MAX):
        errors.append(("/occurred_at", f"more than {FUTURE_S_MAX} s in the future"))
    if target.reasons is None:
        if event.reason is not None:
            errors.append(("/reason", f"no reasons are agreed for {event.decision}"))
    elif event.reason is None:
        errors.append(("/reason", f"needed; one of {', '.join(target.reasons)}"))
    elif event.reason not in target.reasons:
        errors.append(("/reason", f"not agreed; one of {', '.join(target.reasons)}"))
    missing = (name for name in target.fields if not event.fields.has(name))
    errors.extend((f"/fields/{name}", f"needed for {event.decision}") for name in missing)
    return tuple(errors)


@dataclass(slots=True)
class _Way:
    """One run of a lead through its gates: the state so far and what has been said. Lives for one call of `decide`."""

    lead: Lead
    rules: Rules | None
    now: datetime
    said: list[LeadEvent]

    @classmethod
    def of(cls, lead: Lead, rules: Rules | None, now: datetime) -> _Way:
        return cls(lead, rules, now, [])

    def outcome(self) -> Outcome:
        return Outcome(self.lead, tuple(self.said))

    def enter(self) -> None:
        """Through the capture gate, at the time of capture."""
        rules, profile = self.rules, self.lead.profile
        if rules is not None and profile is not None and self.lead.stage is None:
            self._to(rules.entry, profile.captured_at, "capture")

    def enter_and_replay(self) -> Outcome:
        """Enter, then try the gates at the time of capture and at each later activity's, so that stages have their true dates."""
        rules, profile = self.rules, self.lead.profile
        if rules is None or profile is None:
            return self.outcome()
        captured_at = profile.captured_at
        self._score(rules, captured_at)
        self.enter()
        self._advance(rules, captured_at)
        later = self.lead.activities.moments_after(microseconds(captured_at))
        for moment in later[-REPLAYED_MOMENTS_MAX:]:
            at = moment_of(moment)
            if self._automatic(rules):
                self._advance(rules, at)
        if later:
            self._score(rules, moment_of(later[-1]))
            self._clock(moment_of(later[-1]))
        return self.outcome()

    def moved_on(
        self, occurred_at: datetime, new_interest_at: datetime | None = None, *, scored: bool = True
    ) -> Outcome:
        """Score, and try the automatic gates, at the lead's clock after something occurred."""
        rules = self.rules
        if rules is not None and self.lead.stage is not None:
            clock = self.lead.evaluated_at
            at = occurred_at if clock is None or occurred_at > clock else clock
            if scored:
                self._score(rules, at)
            self._advance(rules, at, new_interest_at)
        return self.outcome()

    def follow(self, event: Decided, target: StageRule) -> None:
        """Go where a decision leads, at the time it is said to have been taken."""
        lead = self.lead
        self._say(
            LeadDecided(
                lead_id=lead.lead_id,
                sequence=lead.sequence + 1,
                occurred_at=event.occurred_at,
                recorded_at=self.now,
                decision_id=event.decision_id,
                definition_version=self._version(),
                decision=event.decision,
                reason=event.reason,
                from_stage=lead.stage or "",
                stage=target.key,
                department=event.department,
                actor=event.actor,
                amount=event.fields.amount,
                expected_close=event.fields.expected_close,
            )
        )
        self._to(target, event.occurred_at, "decision", event)
        self._note_deal(event)

    def take_over(self, other: Lead, rules: Rules, at: datetime) -> None:
        """Take the merged lead's stage where it had come further, and its deal where this one has none."""
        deal = self.lead.deal
        self.lead = replace(
            self.lead,
            deal=Deal(
                deal.amount or other.deal.amount,
                deal.expected_close or other.deal.expected_close,
                {**other.deal.answers, **deal.answers},
            ),
        )
        theirs = rules.stages.get(other.stage) if other.stage else None
        leads_on = theirs is not None and theirs.kind in ("open", "won")
        if theirs is not None and leads_on and _standing(theirs, rules) > _standing(self._stage(rules), rules):
            self._to(theirs, at, "merge")
        if self.lead.deal != deal:
            self._say_deal(at)

    def _stage(self, rules: Rules) -> StageRule | None:
        return rules.stages.get(self.lead.stage) if self.lead.stage else None

    def _automatic(self, rules: Rules) -> tuple[StageRule, ...]:
        return rules.automatic_from.get(self.lead.stage, ()) if self.lead.stage else ()

    def _advance(self, rules: Rules, at: datetime, new_interest_at: datetime | None = None) -> None:
        """Pass every automatic gate that holds, one after another."""
        self._clock(at)
        for _ in range(len(rules.stages)):  # each step leads forward, so there are no more than stages
            gates = self._automatic(rules)
            if not gates or not self._may_leave(rules, at, new_interest_at):
                return
            facts = LeadFacts(self.lead, at, scores(self.lead, rules, at))
            target = next((gate for gate in gates if gate.when is not None and gate.when.holds(facts)), None)
            if target is None:
                return
            self._score(rules, at)
            self._to(target, at, "automatic")

    def _may_leave(self, rules: Rules, at: datetime, new_interest_at: datetime | None) -> bool:
        """Whether cool-down and, in a recycled stage, new activity of the lead let automatic gates be tried."""
        stage, since = self._stage(rules), self.lead.stage_since
        if stage is None or since is None:
            return False
        free_at = since + stage.cool_down if stage.cool_down else since
        if stage.kind == "recycled":
            return new_interest_at is not None and new_interest_at >= free_at and new_interest_at > since
        return at >= free_at

    def _score(self, rules: Rules, at: datetime) -> None:
        """Say the scores if they are not what was said last. A definition without score rules says none."""
        if not rules.scored:
            return
        made = scores(self.lead, rules, at)
        if made == self.lead.scores:
            return
        self.lead = replace(self.lead, scores=made)
        self._say(
            LeadScored(
                lead_id=self.lead.lead_id,
                sequence=self.lead.sequence + 1,
                occurred_at=at,
                recorded_at=self.now,
                definition_version=rules.version,
                fit=made.fit,
                engagement=made.engagement,
                grade=made.grade,
            )
        )

    def _to(self, target: StageRule, at: datetime, cause: StageCause, event: Decided | None = None) -> None:
        """Enter a stage, whatever it was before."""
        lead = self.lead
        visit = lead.visits.get(target.key, 0) + 1
        self.lead = replace(
            lead,
            stage=target.key,
            stage_since=at,
            visits={**lead.visits, target.key: visit},
            definition_version=self._version(),
        )
        self._say(
            LeadStageChanged(
                lead_id=lead.lead_id,
                sequence=lead.sequence + 1,
                occurred_at=at,
                recorded_at=self.now,
                definition_version=self._version(),
                stage=target.key,
                stage_kind=target.kind,
                stage_rank=target.rank,
                stage_owner=target.owner,
                visit=visit,
                from_stage=lead.stage,
                from_since=lead.stage_since,
                cause=cause,
                decision=event.decision if event else None,
                decision_id=event.decision_id if event else None,
                reason=event.reason if event else None,
                actor=event.actor if event else None,
            )
        )

    def _note_deal(self, event: Decided) -> None:
        deal, given = self.lead.deal, event.fields
        noted = Deal(
            given.amount or deal.amount,
            given.expected_close or deal.expected_close,
            {**deal.answers, **given.answers},
        )
        self.lead = replace(self.lead, deal=noted)
        if (noted.amount, noted.expected_close) != (deal.amount, deal.expected_close):
            self._say_deal(event.occurred_at)

    def _say_deal(self, at: datetime) -> None:
        lead = self.lead
        if lead.stage is None:
            return
        self._say(
            OpportunityUpdated(
                lead_id=lead.lead_id,
                sequence=lead.sequence + 1,
                occurred_at=at,
                recorded_at=self.now,
                stage=lead.stage,
                amount=lead.deal.amount,
                expected_close=lead.deal.expected_close,
            )
        )

    def _say(self, event: LeadEvent) -> None:
        self.lead = replace(self.lead, sequence=event.sequence)
        self.said.append(event)

    def _clock(self, at: datetime) -> None:
        if self.lead.evaluated_at is None or at > self.lead.evaluated_at:
            self.lead = replace(self.lead, evaluated_at=at)

    def _version(self) -> int:
        if self.rules is None:
            raise AssertionError("nothing moves without a definition")
        return self.rules.version


def _standing(stage: StageRule | None, rules: Rules) -> int:
    """How far a stage is, for a merge: won is furthest; lost and disqualified are final for all but a sale; then the open ones
    by rank, and recycled stands where leads enter."""
    if stage is None:
        return -1
    if stage.kind == "open":
        return stage.rank
    if stage.kind == "recycled":
        return rules.entry.rank
    return len(rules.stages) + (1 if stage.kind == "won" else 0)
