"""One lead's run through its gates: a draft of its next state that collects what there is to say. Lives for one `decide`.

Nothing outside the domain uses it: progress.py makes one, lets it go as far as it may, and takes the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from accord.contracts.base import LeadEvent
from accord.contracts.qualification_events import (
    LeadDecided,
    LeadScored,
    LeadStageChanged,
    OpportunityUpdated,
    StageCause,
)
from qualification.domain.decisions import Decided
from qualification.domain.lead import Activities, Deal, Lead, Scores, microseconds, moment_of
from qualification.domain.rules import Rules, StageRule
from qualification.domain.scoring import LeadFacts, scores

REPLAYED_MOMENTS_MAX = 200
"""A lead that enters with activities already known has its gates tried at the newest so many of their moments."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The lead after an event, None while it is unknown, and the events to publish, in order."""

    lead: Lead | None
    events: tuple[LeadEvent, ...] = ()


class Way:
    """The draft. Its members are those of Lead that can change on the way."""

    __slots__ = (
        "_known_scores",
        "activities",
        "deal",
        "definition_version",
        "evaluated_at",
        "lead",
        "now",
        "profile",
        "rules",
        "said",
        "scores",
        "sequence",
        "stage",
        "stage_since",
        "visits",
    )

    def __init__(self, lead: Lead, rules: Rules, now: datetime) -> None:
        self.lead = lead
        self.rules = rules
        self.now = now
        self.said: list[LeadEvent] = []
        self.profile = lead.profile
        self.activities: Activities = lead.activities
        self.stage = lead.stage
        self.stage_since = lead.stage_since
        self.visits: Mapping[str, int] = lead.visits
        self.scores = lead.scores
        self.definition_version = lead.definition_version
        self.deal: Deal = lead.deal
        self.evaluated_at = lead.evaluated_at
        self.sequence = lead.sequence
        self._known_scores: tuple[datetime, Scores] | None = None

    def outcome(self) -> Outcome:
        """Where it came to."""
        lead = self.lead
        return Outcome(
            Lead(
                lead_id=lead.lead_id,
                profile=lead.profile,
                intake_sequence=lead.intake_sequence,
                stage=self.stage,
                stage_since=self.stage_since,
                visits=self.visits,
                owner=lead.owner,
                scores=self.scores,
                definition_version=self.definition_version,
                deal=self.deal,
                activities=lead.activities,
                evaluated_at=self.evaluated_at,
                merged_into=lead.merged_into,
                erased=lead.erased,
                sequence=self.sequence,
                revision=lead.revision,
            ),
            tuple(self.said),
        )

    def enter(self) -> None:
        """Through the capture gate at the time of capture, then on through the gates as they were at that time and at each
        later activity's, so that stages have their true dates."""
        if self.profile is None or self.stage is not None:
            return
        captured_at = self.profile.captured_at
        self._score(captured_at)
        self._to(self.rules.entry, captured_at, "capture")
        self._advance(captured_at, None)
        later = self.activities.moments_after(microseconds(captured_at))
        for moment in later[-REPLAYED_MOMENTS_MAX:]:
            if self._automatic():
                self._advance(moment_of(moment), None)
        if later:
            last = moment_of(later[-1])
            self._score(last)
            self._clock(last)

    def go_on(self, occurred_at: datetime, new_interest_at: datetime | None = None, *, scored: bool = True) -> None:
        """Score, and try the automatic gates, at the lead's clock after something occurred.

        `new_interest_at` is when the lead itself did something, which may bring it back from a recycled stage.
        """
        clock = self.evaluated_at
        at = occurred_at if clock is None or occurred_at > clock else clock
        if scored:
            self._score(at)
        self._advance(at, new_interest_at)

    def follow(self, event: Decided, target: StageRule) -> None:
        """Go where a decision leads, at the time it is said to have been taken."""
        self._say(
            LeadDecided(
                lead_id=self.lead.lead_id,
                sequence=self.sequence + 1,
                occurred_at=event.occurred_at,
                recorded_at=self.now,
                decision_id=event.decision_id,
                definition_version=self.rules.version,
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
        self._to(target, event.occurred_at, "decision", event)
        before, given = self.deal, event.fields
        if given.amount or given.expected_close or given.answers:
            self._agree(
                Deal(
                    given.amount or before.amount,
                    given.expected_close or before.expected_close,
                    {**before.answers, **given.answers},
                ),
                event.occurred_at,
            )

    def take_over(self, other: Lead, at: datetime) -> None:
        """Take a merged lead's stage where it had come further, and its deal where this one has none."""
        theirs = self.rules.stages.get(other.stage) if other.stage else None
        leads_on = theirs is not None and theirs.kind in ("open", "won")
        if theirs is not None and leads_on and _standing(theirs, self.rules) > _standing(self._stage(), self.rules):
            self._to(theirs, at, "merge")
        ours = self.deal
        self._agree(
            Deal(
                ours.amount or other.deal.amount,
                ours.expected_close or other.deal.expected_close,
                {**other.deal.answers, **ours.answers},
            ),
            at,
        )

    def _stage(self) -> StageRule | None:
        return self.rules.stages.get(self.stage) if self.stage else None

    def _automatic(self) -> tuple[StageRule, ...]:
        return self.rules.automatic_from.get(self.stage, ()) if self.stage else ()

    def _advance(self, at: datetime, new_interest_at: datetime | None) -> None:
        """Pass every automatic gate that holds, one after another."""
        self._clock(at)
        for _ in range(len(self.rules.stages)):  # each step leads forward, so there are no more than stages
            gates = self._automatic()
            if not gates or not self._may_leave(at, new_interest_at):
                return
            facts = LeadFacts(self.profile, self.activities, self.stage, at, self._scores_at(at))
            target = next((gate for gate in gates if gate.when is not None and gate.when.holds(facts)), None)
            if target is None:
                return
            self._score(at)
            self._to(target, at, "automatic")

    def _may_leave(self, at: datetime, new_interest_at: datetime | None) -> bool:
        """Whether cool-down and, in a recycled stage, new activity of the lead let automatic gates be tried."""
        stage, since = self._stage(), self.stage_since
        if stage is None or since is None:
            return False
        free_at = since + stage.cool_down if stage.cool_down else since
        if stage.kind == "recycled":
            return new_interest_at is not None and new_interest_at >= free_at and new_interest_at > since
        return stage.cool_down is None or at >= free_at

    def _scores_at(self, at: datetime) -> Scores:
        if self._known_scores is None or self._known_scores[0] != at:
            self._known_scores = (at, scores(self.profile, self.activities, self.rules, at))
        return self._known_scores[1]

    def _score(self, at: datetime) -> None:
        """Say the scores if they are not what was said last. A definition without score rules says none."""
        if not self.rules.scored:
            return
        made = self._scores_at(at)
        if made == self.scores:
            return
        self.scores = made
        self._say(
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

    def _to(self, target: StageRule, at: datetime, cause: StageCause, event: Decided | None = None) -> None:
        """Enter a stage, whatever it was before."""
        before, before_since = self.stage, self.stage_since
        visit = self.visits.get(target.key, 0) + 1
        self.stage, self.stage_since = target.key, at
        self.visits = {**self.visits, target.key: visit}
        self.definition_version = self.rules.version
        self._say(
            LeadStageChanged(
                lead_id=self.lead.lead_id,
                sequence=self.sequence + 1,
                occurred_at=at,
                recorded_at=self.now,
                definition_version=self.rules.version,
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

    def _agree(self, deal: Deal, at: datetime) -> None:
        """Note the deal, and say it where amount or close have changed."""
        before, self.deal = self.deal, deal
        if self.stage is None or (deal.amount, deal.expected_close) == (before.amount, before.expected_close):
            return
        self._say(
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

    def _say(self, event: LeadEvent) -> None:
        self.sequence = event.sequence
        self.said.append(event)

    def _clock(self, at: datetime) -> None:
        if self.evaluated_at is None or at > self.evaluated_at:
            self.evaluated_at = at


def _standing(stage: StageRule | None, rules: Rules) -> int:
    """How far a stage is, for a merge: won is furthest; lost and disqualified are final for all but a sale; then the open
    ones by rank, and recycled stands where leads enter."""
    if stage is None:
        return -1
    if stage.kind == "open":
        return stage.rank
    if stage.kind == "recycled":
        return rules.entry.rank
    return len(rules.stages) + (1 if stage.kind == "won" else 0)
