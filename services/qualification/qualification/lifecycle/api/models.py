"""What goes over the wire: requests, answers and their examples. No rules beyond shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
)

from accord.contracts.values import Day, DecimalText, Department, Money, StageKind, Timestamp
from accord.http.problems import ProblemDocument
from qualification.lifecycle.api.references import DESCRIPTION, REFERENCE_CHARS_MAX, parse_reference
from qualification.lifecycle.domain.facts import Fields
from qualification.lifecycle.service.decisions import DecisionResult, Proposal
from qualification.lifecycle.service.views import LeadView, ListedLead

NOTE_CHARS_MAX = 2000
ROWS_MAX = 1000


class Wire(BaseModel):
    """Base of requests: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _is_reference(value: str) -> str:
    if parse_reference(value) is None:
        raise ValueError("must be a lead id or external:SOURCE:ID")
    return value


Word = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A key of the definition, or a short word of the team's own scale; never free text."""

Answer = StrictBool | Word


class Amount(Wire):
    """Money; the amount is decimal text, never negative."""

    amount: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}(\.[0-9]{1,6})?$")] = Field(examples=["1200.50"])
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = Field(examples=["USD"])

    def money(self) -> Money:
        return Money(amount=DecimalText(self.amount), currency=self.currency)


class DecisionFields(Wire):
    """What a decision may carry. The BANT answers are yes, no or one short word; notes go into `note`."""

    amount: Amount | None = None
    expected_close: Day | None = None
    budget: Answer | None = None
    authority: Answer | None = None
    need: Answer | None = None
    timing: Answer | None = None

    def fields(self) -> Fields:
        given = {"budget": self.budget, "authority": self.authority, "need": self.need, "timing": self.timing}
        return Fields(
            amount=self.amount.money() if self.amount else None,
            expected_close=self.expected_close,
            answers={name: answer for name, answer in given.items() if answer is not None},
        )


class DecisionRequest(Wire):
    """A decision about a lead, by a person or the CRM."""

    decision: Word = Field(examples=["accept"])
    reason: Word | None = Field(default=None, description="One of those that the definition lists for this decision.")
    note: Annotated[str, StringConstraints(max_length=NOTE_CHARS_MAX)] | None = Field(
        default=None,
        description="Free text for people. Kept beside the decision only, shown with the scope `personal:read`, part of no event "
        "and erased with the person.",
    )
    fields: DecisionFields = DecisionFields()
    occurred_at: Timestamp | None = Field(
        default=None,
        description="When it was decided; now, if left out. One in the past is put into its place in the lead's history.",
    )
    definition_version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None,
        description="The version of the definition that the decision was taken under; 409 if another is in force.",
    )

    def proposal(self, lead: UUID | str, revision: int | None = None) -> Proposal:
        return Proposal(
            lead=lead,
            decision=self.decision,
            reason=self.reason,
            fields=self.fields.fields(),
            note=self.note,
            occurred_at=self.occurred_at,
            revision=revision,
            definition_version=self.definition_version,
        )


RowReference = Annotated[str, StringConstraints(max_length=REFERENCE_CHARS_MAX), AfterValidator(_is_reference)]
"""How a row of a batch names its lead."""


class DecisionRow(DecisionRequest):
    """One decision of a batch."""

    lead: RowReference = Field(description=DESCRIPTION, examples=["external:crm:4711"])


class DecisionAnswer(BaseModel):
    """What a decision did. `stage` is where it led; `stage_now` is where automatic gates took the lead from there, if any did."""

    lead_id: UUID
    merged_lead_id: UUID | None = Field(
        description="The lead that was named, where it had been merged into `lead_id`, which the decision was about."
    )
    decision_id: UUID
    decision: str
    reason: str | None
    stage: str
    from_: str = Field(serialization_alias="from")
    stage_now: str
    visit: int
    occurred_at: Timestamp
    recorded_at: Timestamp
    definition_version: int
    allowed_decisions: list[str]


class WhyLeaf(BaseModel):
    """One comparison of a gate, with what was found. `actual` is null where the lead has no such value."""

    path: str
    op: str
    expected: object
    actual: object
    held: bool
    within: str | None = Field(default=None, description="The window of a count.")
    at: str = Field(
        description="Where it stands in the criteria, a JSON Pointer. Below `none` it must not hold, below `any` one of several is enough.",
        examples=["/all/0"],
    )


class GateAnswer(BaseModel):
    """An automatic gate and whether its criteria hold for this lead now."""

    stage: str
    holds: bool
    blocked_reason: str | None = Field(
        default=None,
        description="In words, what keeps the lead from passing whatever the criteria say: its stage, a cool-down.",
    )
    why: list[WhyLeaf]


class ScoreAnswer(BaseModel):
    """What one rule of the definition gives this lead now, before the maximum of its score."""

    rule: str
    score: Literal["fit", "engagement"]
    points: float
    reason: str


class LeadAnswer(BaseModel):
    """A lead with its gates and scores explained, as of `as_of`."""

    lead_id: UUID
    source: str
    captured_at: Timestamp
    stage: str | None
    stage_since: Timestamp | None
    visit: int | None
    owner: str | None
    fit: float | None
    engagement: float | None
    grade: str | None
    definition_version: int | None
    allowed_decisions: list[str]
    amount: Money | None
    expected_close: Day | None
    gates: list[GateAnswer]
    score: list[ScoreAnswer]
    as_of: Timestamp


class LeadRow(BaseModel):
    """A lead in a list, with the scores as they were last published."""

    lead_id: UUID
    source: str
    captured_at: Timestamp
    stage: str | None
    stage_since: Timestamp | None
    visit: int | None
    owner: str | None
    fit: float | None
    engagement: float | None
    grade: str | None
    definition_version: int | None


class EntryAnswer(BaseModel):
    """One entry of the lead into a stage, in the order in which it was decided."""

    stage: str
    stage_kind: StageKind
    stage_owner: Department
    visit: int
    from_: str | None = Field(serialization_alias="from")
    from_since: Timestamp | None
    entered_at: Timestamp
    recorded_at: Timestamp
    cause: str
    definition_version: int
    sequence: int = Field(description="Counts the events of the lead.")
    position: int | None = Field(
        description="Its place among the entries that stand, from 0; null for one that no longer stands, and for what withdraws one."
    )
    correction: bool = Field(description="Whether a late report put it into the past.")
    replaces: int | None = Field(
        description="The sequence of the entry in whose place this one stands, or which it withdraws."
    )
    withdrawn: bool = Field(description="Whether this says that the entry it replaces never was.")
    decision_id: UUID | None
    decision: str | None
    reason: str | None
    actor: str | None
    department: Department | None
    fields: dict[str, object] | None
    note: str | None = Field(description="Only with the scope `personal:read`.")


class RefusedRow(BaseModel):
    """A row that was refused; it changed nothing."""

    status: int = Field(examples=[409])
    problem: ProblemDocument


class AcceptedRow(DecisionAnswer):
    """A row that was taken."""

    status: Literal[201]


class BatchAnswer(BaseModel):
    """The answers, in the order of the rows."""

    results: list[AcceptedRow | RefusedRow]


def build_decision_answer(result: DecisionResult) -> dict[str, object]:
    """The members of a DecisionAnswer, ready for JSON."""
    entered, lead = result.entered, result.lead
    return {
        "lead_id": str(lead.lead_id),
        "merged_lead_id": None if result.requested_lead_id == lead.lead_id else str(result.requested_lead_id),
        "decision_id": str(result.decision.decision_id),
        "decision": result.decision.decision,
        "reason": result.decision.reason,
        "stage": entered.stage,
        "from": entered.from_stage,
        "stage_now": lead.stage,
        "visit": entered.visit,
        "occurred_at": entered.occurred_at,
        "recorded_at": entered.recorded_at,
        "definition_version": entered.definition_version,
        "allowed_decisions": result.allowed,
    }


def build_lead_answer(view: LeadView) -> LeadAnswer:
    """What is answered about a lead."""
    lead, scores = view.lead, view.scores
    if lead.profile is None:
        raise AssertionError("a lead that has entered has a profile")
    return LeadAnswer(
        lead_id=lead.lead_id,
        source=lead.profile.source,
        captured_at=lead.profile.captured_at,
        stage=lead.stage,
        stage_since=lead.stage_since,
        visit=lead.visit,
        owner=lead.owner,
        fit=scores.fit if scores else None,
        engagement=scores.engagement if scores else None,
        grade=scores.grade if scores else None,
        definition_version=view.version,
        allowed_decisions=list(view.allowed),
        amount=lead.deal.amount,
        expected_close=lead.deal.expected_close,
        gates=[
            GateAnswer(
                stage=gate.stage,
                holds=gate.holds,
                blocked_reason=gate.blocked_reason,
                why=[
                    WhyLeaf(
                        path=leaf.path,
                        op=leaf.op,
                        expected=leaf.expected,
                        actual=leaf.actual,
                        held=leaf.held,
                        within=leaf.within,
                        at=leaf.at,
                    )
                    for leaf in gate.why
                ],
            )
            for gate in view.gates
        ],
        score=[
            ScoreAnswer(rule=line.rule, score=line.score, points=line.points, reason=line.reason)
            for line in view.score_lines
        ],
        as_of=view.at,
    )


def build_lead_row(row: ListedLead) -> LeadRow:
    """A lead of a list."""
    return LeadRow.model_validate(row, from_attributes=True)


def build_entry_answer(row: Mapping[str, Any]) -> EntryAnswer:
    """One entry of a lead's history, from its stored row."""
    fields = row["fields"]
    return EntryAnswer(
        **{name: row[name] for name in EntryAnswer.model_fields if name not in ("from_", "fields")},
        from_=row["from_stage"],
        fields=None if fields is None else orjson.loads(fields),
    )
