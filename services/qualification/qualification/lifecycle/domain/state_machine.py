"""The state machine of one lead: every fact of its log is applied here, whether it is new or replayed. Lives for one call.

It applies facts in the order of their positions and collects the events to publish; what lies between two facts and is
brought about by time alone is done before the later one. Nothing outside the domain uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from accord.contracts.base import LeadEvent
from accord.contracts.intake_events import LeadState
from accord.contracts.qualification_events import (
    LeadDecided,
    LeadScored,
    LeadStageChanged,
    OpportunityUpdated,
    StageCause,
)
from qualification.definition.domain.rules import Rules, StageRule
from qualification.lifecycle.domain.decisions import resolve_target
from qualification.lifecycle.domain.facts import (
    NIL,
    TIME,
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
from qualification.lifecycle.domain.lead import Activities, Deal, Lead, Scores, microseconds
from qualification.lifecycle.domain.scoring import LeadFacts, scores
from qualification.lifecycle.domain.time_triggers import earliest_change, next_change

_MICROSECOND = timedelta(microseconds=1)

Versions = Mapping[int, Rules]
"""Every version of the definition that is or was in force, compiled, by its number."""


class LeadStateMachine:
    """A mutable lead. Its members are those of Lead that can change.

    `replaying`: nothing of it is published, so only stage entries and decisions are collected, numbered from 1.
    """

    __slots__ = (
        "_cached_fit",
        "_cached_scores",
        "_rules",
        "activities",
        "deal",
        "definition_version",
        "due_at",
        "entry_version",
        "events",
        "lead",
        "now",
        "owner",
        "position",
        "profile",
        "profile_at",
        "profile_sequence",
        "replaying",
        "scores",
        "sequence",
        "stage",
        "stage_since",
        "versions",
        "visits",
    )

    def __init__(
        self, lead: Lead, rules: Rules | None, versions: Versions, now: datetime, *, replaying: bool = False
    ) -> None:
        """`rules` are those that the lead is evaluated by, or enters by; None while there are none."""
        self.lead = lead
        self._rules = rules
        self.versions = versions
        self.now = now
        self.replaying = replaying
        self.events: list[LeadEvent] = []
        self.profile = lead.profile
        self.profile_at = lead.profile_at
        self.profile_sequence = lead.intake_sequence
        self.activities: Activities = lead.activities
        self.owner = lead.owner
        self.stage = lead.stage
        self.stage_since = lead.stage_since
        self.visits: Mapping[str, int] = lead.visits
        self.scores = lead.scores
        self.definition_version = lead.definition_version
        self.deal: Deal = lead.deal
        self.position = lead.position
        self.entry_version = lead.entry_version
        self.due_at = lead.due_at
        self.sequence = lead.sequence
        self._cached_scores: tuple[datetime, Scores] | None = None
        # Fit changes only with profile and version, and is published whenever it does.
        self._cached_fit = lead.scores.fit if lead.scores and rules and lead.applied_version == rules.version else None

    def build_lead(self) -> Lead:
        """The lead as it is after what was applied."""
        lead = self.lead
        return Lead(
            lead_id=lead.lead_id,
            profile=self.profile,
            intake_sequence=self.profile_sequence,
            stage=self.stage,
            stage_since=self.stage_since,
            visits=self.visits,
            owner=self.owner,
            scores=self.scores,
            definition_version=self.definition_version,
            deal=self.deal,
            activities=self.activities,
            merged_into=lead.merged_into,
            erased=lead.erased,
            sequence=self.sequence,
            revision=lead.revision,
            profile_at=self.profile_at,
            position=self.position,
            entry_version=self.entry_version,
            applied_version=self.rules.version if self.entry_version is not None else None,
            due_at=self.due_at,
            has_early_activities=False,
        )

    def apply(self, fact: Fact, other: Lead | None = None) -> None:
        """Apply the next fact; what time brings before it comes first. `other` is the merged lead of a merge."""
        if isinstance(fact, OwnerAssigned):
            self.owner = fact.owner  # nothing is evaluated by it, so the position stays
            return
        self.advance_time(fact.at)
        match fact:
            case ActivityOccurred():
                self.activities = self.activities.with_activity(fact.kind, microseconds(fact.at))
                self._cached_scores = None
                self._evaluate(fact.at, fact.at if fact.by == "lead" else None)
            case ProfileChanged():
                self._set_profile(fact.state, fact.sequence, fact.at)
                self._evaluate(fact.at)
            case DecisionAccepted():
                self._apply_decision(fact.decision, self.versions[fact.version].stages[fact.stage], fact.version)
                self._pass_gates(fact.at, None)  # a decision changes nothing that is scored
            case MergeApplied():
                self._apply_merge(fact, other)
            case VersionApplied():
                self._apply_version(fact)
                self._evaluate(fact.at, cause="definition")
        self.position = fact.position
        if self.stage is not None:
            self._schedule_time_triggers(fact.at)

    def advance_time(self, until: datetime) -> None:
        """Do what time alone brings about by then, each at its exact moment."""
        while self.due_at is not None and self.due_at <= until:
            if self.position is None or self.profile is None or self.stage is None:
                raise AssertionError("nothing is due of a lead that has not entered")
            after = max(self.due_at - _MICROSECOND, self.position.at)
            at = self._next_change(after, until)
            self.due_at = at
            if at is None or at > until:
                return
            if not self._apply_time_change(at):
                self.due_at = at + _MICROSECOND

    def allowed_target(self, decision: Decision) -> StageRule:
        """Where a decision leads from here. Raises decisions.Refused."""
        return resolve_target(self.stage, self.deal, decision, self.rules, self.now)

    def _next_change(self, after: datetime, until: datetime) -> datetime | None:
        profile, stage = self.profile, self.stage
        if profile is None or stage is None:
            return None
        triggers = self.rules.triggers_in(stage)
        found = next_change(self.activities, self.rules, triggers, profile.captured_at, after, until)
        if triggers.cool_down is not None and self.stage_since is not None:
            free_at = self.stage_since + triggers.cool_down
            if free_at > after and (found is None or free_at < found):
                return free_at
        return found

    def _schedule_time_triggers(self, at: datetime) -> None:
        """Set the moment before which time alone changes nothing."""
        profile, stage = self.profile, self.stage
        if profile is None or stage is None:
            return
        rules = self.rules
        triggers = rules.triggers_in(stage)
        due_at = earliest_change(self.activities, rules, triggers, self._scores_at(at), profile.captured_at, at)
        if triggers.cool_down is not None and self.stage_since is not None:
            free_at = self.stage_since + triggers.cool_down
            if free_at > at and (due_at is None or free_at < due_at):
                due_at = free_at
        self.due_at = due_at

    def _apply_time_change(self, at: datetime) -> bool:
        """Whether anything comes of a moment at which something may change: a gate that opens, another grade."""
        entries = len(self.events)
        self._pass_gates(at, None)
        made = self._scores_at(at)
        graded = self.scores is not None and made.grade != self.scores.grade
        if graded:
            self._update_scores(at)
        if len(self.events) == entries and not graded:
            return False
        self.position = LogPosition(at, TIME, NIL)
        self._schedule_time_triggers(at)
        return True

    def _set_profile(self, state: LeadState, sequence: int, at: datetime) -> None:
        self.profile = state
        self._cached_scores = self._cached_fit = None
        if sequence >= self.profile_sequence:  # a replay may meet them in another order than they were published in
            self.profile_sequence, self.profile_at = sequence, at

    def _evaluate(self, at: datetime, new_interest_at: datetime | None = None, cause: StageCause = "automatic") -> None:
        """Score and try the automatic gates; a lead that has not entered enters first, once there are rules and a profile."""
        if self._rules is None or self.profile is None:
            return
        if self.stage is None:
            if self.profile.captured_at > at:
                return
            self.entry_version = self.rules.version
            self._update_scores(at)
            self._enter_stage(self.rules.entry, self.profile.captured_at, "capture")
        else:
            self._update_scores(at)
        self._pass_gates(at, new_interest_at, cause)

    def _apply_version(self, fact: VersionApplied) -> None:
        """Go on under a later version; from a stage that was dropped in between to where each version says in turn."""
        passed = [number for number in self.versions if self.rules.version < number <= fact.version]
        self.rules = self.versions[fact.version]
        self._cached_scores = self._cached_fit = None
        stage = self.stage
        for number in sorted(passed) if stage is not None else ():
            rules = self.versions[number]
            stage = stage if stage is None or stage in rules.stages else rules.moves.get(stage, stage)
        if stage is not None and stage != self.stage and stage in self.rules.stages:
            self._enter_stage(self.rules.stages[stage], fact.at, "definition")

    def _apply_merge(self, fact: MergeApplied, other: Lead | None) -> None:
        if fact.sequence > self.profile_sequence or self.profile is None or self.replaying:
            self._set_profile(fact.state, fact.sequence, fact.at)
        if other is not None:
            self.activities = self.activities.merged_with(other.activities)
            self._cached_scores = None
        if self._rules is None:
            return
        if self.stage is None:
            self._evaluate(fact.at)
        if other is not None and not other.erased and self.stage is not None:
            self._inherit_progress(other, fact.at)
        self._evaluate(fact.at)

    def _apply_decision(self, event: Decision, target: StageRule, version: int) -> None:
        """Enter the stage that a decision leads to, at the time that it is dated."""
        self._emit(
            LeadDecided(
                lead_id=self.lead.lead_id,
                sequence=self.sequence + 1,
                occurred_at=event.occurred_at,
                recorded_at=self.now,
                decision_id=event.decision_id,
                definition_version=version,
                decision=event.decision,
                reason=event.reason,
                from_stage=self.stage or "",
                stage=target.key,
                department=event.department,
                actor=event.actor,
                amount=event.fields.amount,
                expected_close=event.fields.expected_close,
            )
        )
        self._enter_stage(target, event.occurred_at, "decision", event, version)
        before, given = self.deal, event.fields
        if given.amount or given.expected_close or given.answers:
            self._update_deal(
                Deal(
                    given.amount or before.amount,
                    given.expected_close or before.expected_close,
                    {**before.answers, **given.answers},
                ),
                event.occurred_at,
            )

    def _inherit_progress(self, other: Lead, at: datetime) -> None:
        """Take over a merged lead's stage where it goes before this one's, with its deal; else of the deal what this one lacks."""
        theirs = self.rules.stages.get(self.rules.moves.get(other.stage, other.stage)) if other.stage else None
        first, second = self.deal, other.deal
        leads_on = theirs is not None and theirs.kind in ("open", "won")
        if theirs is not None and leads_on and _merge_rank(theirs, self.rules) > _merge_rank(self._stage(), self.rules):
            self._enter_stage(theirs, at, "merge")
            first, second = second, first
        self._update_deal(
            Deal(
                first.amount or second.amount,
                first.expected_close or second.expected_close,
                {**second.answers, **first.answers},
            ),
            at,
        )

    def _stage(self) -> StageRule | None:
        return self.rules.stages.get(self.stage) if self.stage else None

    def _automatic_gates(self) -> tuple[StageRule, ...]:
        return self.rules.automatic_from.get(self.stage, ()) if self.stage else ()

    def _pass_gates(self, at: datetime, new_interest_at: datetime | None, cause: StageCause = "automatic") -> None:
        """Pass every automatic gate that holds, one after another."""
        for _ in range(len(self.rules.stages)):  # each step leads forward, so there are no more than stages
            gates = self._automatic_gates()
            if not gates or not self._can_leave_stage(at, new_interest_at):
                return
            facts = LeadFacts(self.profile, self.activities, self.stage, at, self._scores_at(at))
            target = first_open_gate(gates, facts)
            if target is None:
                return
            self._update_scores(at)
            self._enter_stage(target, at, cause)

    def _can_leave_stage(self, at: datetime, new_interest_at: datetime | None) -> bool:
        """Whether cool-down and, in a recycled stage, new activity of the lead let automatic gates be tried."""
        stage, since = self._stage(), self.stage_since
        if stage is None or since is None:
            return False
        free_at = since + stage.cool_down if stage.cool_down else since
        if stage.kind == "recycled":
            return new_interest_at is not None and new_interest_at >= free_at and new_interest_at > since
        return stage.cool_down is None or at >= free_at

    def _scores_at(self, at: datetime) -> Scores:
        if self._cached_scores is None or self._cached_scores[0] != at:
            made = scores(self.profile, self.activities, self.rules, at, self._cached_fit)
            self._cached_scores, self._cached_fit = (at, made), made.fit
        return self._cached_scores[1]

    def _update_scores(self, at: datetime) -> None:
        """Emit the scores if they have changed. A definition without score rules emits none."""
        if not self.rules.scored:
            return
        made = self._scores_at(at)
        if made == self.scores:
            return
        self.scores = made
        if self.replaying:
            return
        self._emit(
            LeadScored(
                lead_id=self.lead.lead_id,
                sequence=self.sequence + 1,
                occurred_at=at,
                recorded_at=self.now,
                definition_version=self.rules.version,
                fit=made.fit,
                engagement=made.engagement,
                grade=made.grade,
            )
        )

    def _enter_stage(
        self,
        target: StageRule,
        at: datetime,
        cause: StageCause,
        event: Decision | None = None,
        version: int | None = None,
    ) -> None:
        """Enter a stage, whatever it was before. `version` is that of the decision, where one led here."""
        version = version or self.rules.version
        before, before_since = self.stage, self.stage_since
        visit = self.visits.get(target.key, 0) + 1
        self.stage, self.stage_since = target.key, at
        self.visits = {**self.visits, target.key: visit}
        self.definition_version = version
        self._emit(
            LeadStageChanged(
                lead_id=self.lead.lead_id,
                sequence=self.sequence + 1,
                occurred_at=at,
                recorded_at=self.now,
                definition_version=version,
                stage=target.key,
                stage_kind=target.kind,
                stage_rank=target.rank,
                stage_owner=target.owner,
                visit=visit,
                from_stage=before,
                from_since=before_since,
                cause=cause,
                decision=event.decision if event else None,
                decision_id=event.decision_id if event else None,
                reason=event.reason if event else None,
                actor=event.actor if event else None,
            )
        )

    def _update_deal(self, deal: Deal, at: datetime) -> None:
        """Set the deal, and emit it where amount or close have changed."""
        before, self.deal = self.deal, deal
        same = (deal.amount, deal.expected_close) == (before.amount, before.expected_close)
        if self.replaying or self.stage is None or same:
            return
        self._emit(
            OpportunityUpdated(
                lead_id=self.lead.lead_id,
                sequence=self.sequence + 1,
                occurred_at=at,
                recorded_at=self.now,
                stage=self.stage,
                amount=deal.amount,
                expected_close=deal.expected_close,
            )
        )

    def _emit(self, event: LeadEvent) -> None:
        self.sequence = event.sequence
        self.events.append(event)

    @property
    def rules(self) -> Rules:
        """The version that the lead is evaluated by."""
        if self._rules is None:
            raise AssertionError("no definition has been in force")
        return self._rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._rules = rules


def first_open_gate(gates: tuple[StageRule, ...], facts: LeadFacts) -> StageRule | None:
    """The first of these automatic gates whose criteria hold."""
    for gate in gates:
        if gate.when is not None and gate.when.holds(facts):
            return gate
    return None


def _merge_rank(stage: StageRule | None, rules: Rules) -> int:
    """How far a stage is, for a merge: won is furthest, then the open ones by rank, where recycled ranks as the stage that leads enter;
    lost and disqualified come last, since the person stands where somebody is at work."""
    if stage is None or stage.kind in ("lost", "disqualified"):
        return -1
    if stage.kind == "recycled":
        return rules.entry.rank
    return len(rules.stages) if stage.kind == "won" else stage.rank
