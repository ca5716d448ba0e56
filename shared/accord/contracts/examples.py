"""One realistic event of every type, around one invented lead: for documents, tests and whoever builds a consumer."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TypedDict
from uuid import UUID

from accord.contracts.agreement_events import (
    AgreementActivated,
    AgreementKind,
    AgreementProposed,
    AgreementSigned,
    AgreementWithdrawn,
)
from accord.contracts.base import EVENT_TYPES, EventData
from accord.contracts.external_key import external_key
from accord.contracts.intake_events import (
    ActivityRecorded,
    ImportCounts,
    ImportFinished,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadQuarantined,
    LeadRejected,
    LeadState,
    LeadUnmerged,
    LeadUpdated,
)
from accord.contracts.metrics_events import GoalReached, Period, RewardAccrued, RewardReversed
from accord.contracts.qualification_events import (
    LeadAssigned,
    LeadDecided,
    LeadScored,
    LeadStageChanged,
    OpportunityUpdated,
)
from accord.contracts.sla_events import (
    BreachAcknowledged,
    BreachWithdrawn,
    ClockAtRisk,
    ClockBreached,
    ClockCancelled,
    ClockEscalated,
    ClockMet,
    ClockRescheduled,
    ClockStarted,
)
from accord.contracts.topics import EVENTS_ON, TOPIC_OF, ServiceName
from accord.contracts.values import Campaign, DecimalText, Department, Money, PolicyFailure, utc
from accord.contracts.watermarks import WatermarkAdvanced

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

_CAPTURED = utc(2027, 1, 4, 15, 30)
_REPORT_DELAY = timedelta(milliseconds=240)


def example_id(number: int) -> UUID:
    """A fixed UUIDv7 of the moment when the example's lead was captured."""
    milliseconds = int(_CAPTURED.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | number)


_LEAD, _OTHER_LEAD, _ACCOUNT, _SUBMISSION, _CLOCK, _BREACH = (example_id(number) for number in range(1, 7))
_MERGE, _DECISION, _ACTIVITY, _IMPORT, _ACCRUAL, _REVERSAL = (example_id(number) for number in range(7, 13))

_SPRING = Campaign(
    name="spring", medium="cpc", content="a", term="crm", cost=Money(amount=DecimalText("2.10"), currency="USD")
)
_STATE = LeadState(
    source="website",
    captured_at=_CAPTURED,
    account_id=_ACCOUNT,
    attributes={"employee_count": 250, "industry": "541511", "country": "US", "bbb_rating": "A+"},
    campaign=_SPRING,
    external_keys=[external_key("website", "42")],
    verdict="flagged",
    policy_version=3,
    quality_score=0.86,
)
_RESTORED = LeadState(
    source="webinar-list",
    captured_at=utc(2027, 1, 11, 9),
    attributes={"country": "US"},
    verdict="accepted",
    policy_version=3,
    quality_score=1.0,
)
_FAILED = [PolicyFailure(parameter="vertical", consequence="quarantine", reason="the industry is not among the agreed")]
_DEAL = Money(amount=DecimalText("24000.00"), currency="USD")
_QUARTER = Period(first=date(2027, 1, 1), last=date(2027, 3, 31))


class _When(TypedDict):
    occurred_at: datetime
    recorded_at: datetime


class _OfLead(_When):
    lead_id: UUID
    sequence: int


class _OfAgreement(_When):
    kind: AgreementKind
    version: int
    title: str
    content_sha256: str


class _OfClock(_When):
    clock_id: UUID
    lead_id: UUID
    sequence: int
    clause: str
    obliges: Department
    sla_version: int
    owner: str
    source: str
    started_at: datetime
    due_at: datetime


def _at(minutes: float) -> _When:
    at = _CAPTURED + timedelta(minutes=minutes)
    return {"occurred_at": at, "recorded_at": at + _REPORT_DELAY}


def _lead(minutes: float, sequence: int) -> _OfLead:
    return {**_at(minutes), "lead_id": _LEAD, "sequence": sequence}


def _agreement(minutes: float) -> _OfAgreement:
    digest = "9f2feb0f1ef425b292f2f94bc8482494df430413c7d90df7e2d7b9c1b0a4b1e3"
    title = "What we both call a lead"
    return {**_at(minutes), "kind": "definition", "version": 4, "title": title, "content_sha256": digest}


def _clock(minutes: float, sequence: int) -> _OfClock:
    return {
        **_at(minutes),
        "clock_id": _CLOCK,
        "lead_id": _LEAD,
        "sequence": sequence,
        "clause": "accept-mql",
        "obliges": "sales",
        "sla_version": 2,
        "owner": "sales-07",
        "source": "website",
        "started_at": _CAPTURED + timedelta(minutes=31),
        "due_at": _CAPTURED + timedelta(minutes=31 + 240),
    }


_ALL: tuple[EventData, ...] = (
    LeadCaptured(**_lead(0, 1), state=_STATE),
    LeadUpdated(**_lead(20, 2), state=_STATE, changed=["attributes.bbb_rating", "quality_score"]),
    LeadMerged(**_lead(9_000, 5), merge_id=_MERGE, merged_lead_id=_OTHER_LEAD, state=_STATE),
    LeadUnmerged(
        **_lead(9_600, 6), merge_id=_MERGE, restored_lead_id=_OTHER_LEAD, state=_STATE, restored_state=_RESTORED
    ),
    LeadQuarantined(
        **_lead(0, 1), submission_id=_SUBMISSION, source="website", policy_version=3, quality_score=0.42, failed=_FAILED
    ),
    LeadRejected(
        **_at(1),
        submission_id=_SUBMISSION,
        source="website",
        policy_version=3,
        quality_score=0.1,
        failed=[PolicyFailure(parameter="reachable", consequence="reject", reason="the domain is disposable")],
    ),
    LeadErased(**_lead(90_000, 9)),
    ActivityRecorded(
        **_lead(30, 3), activity_id=_ACTIVITY, kind="demo.requested", by="lead", source="website", campaign=_SPRING
    ),
    ImportFinished(
        **_at(60),
        import_id=_IMPORT,
        source="webinar-list",
        state="finished",
        rows=ImportCounts(read=1000, created=870, updated=90, merged=4, quarantined=20, rejected=15, failed=1),
        cost=Money(amount=DecimalText(1500), currency="USD"),
    ),
    LeadScored(**_lead(30, 2), definition_version=4, fit=70.0, engagement=40.0, grade="B3"),
    LeadStageChanged(
        **_lead(31, 3),
        definition_version=4,
        stage="mql",
        stage_kind="open",
        stage_rank=1,
        stage_owner="marketing",
        visit=1,
        from_stage="inquiry",
        from_since=_CAPTURED,
        cause="automatic",
    ),
    LeadDecided(
        **_lead(150, 4),
        decision_id=_DECISION,
        definition_version=4,
        decision="accept",
        from_stage="mql",
        stage="sal",
        department="sales",
        actor="crm",
    ),
    LeadAssigned(**_lead(32, 5), owner="sales-07", pool="mid-market", why="weighted turn in mid-market"),
    OpportunityUpdated(**_lead(20_000, 8), stage="opportunity", amount=_DEAL, expected_close=date(2027, 3, 31)),
    ClockStarted(**_clock(31, 1)),
    ClockAtRisk(**_clock(151, 2), fraction=0.5),
    ClockBreached(**_clock(271, 3), breach_id=_BREACH),
    ClockMet(**_clock(150, 2), late=False, actor_kind="person"),
    BreachWithdrawn(**_clock(300, 4), breach_id=_BREACH, met_at=_CAPTURED + timedelta(minutes=150)),
    ClockCancelled(**_clock(100, 2), why="the lead was disqualified"),
    ClockRescheduled(**_clock(60, 2), paused=True),
    ClockEscalated(
        **_clock(391, 4), fraction=1.5, breach_id=_BREACH, notify=["sales-managers"], severity="high", reassign=True
    ),
    BreachAcknowledged(**_clock(300, 4), breach_id=_BREACH, acknowledged_by="sales-lead"),
    GoalReached(
        **_at(100_000),
        goal="revenue",
        department="both",
        period=_QUARTER,
        plan_version=1,
        target=DecimalText(1_250_000),
        actual=DecimalText("1254300.50"),
    ),
    RewardAccrued(
        **_at(50_000),
        entry_id=_ACCRUAL,
        reward="closer",
        beneficiary="sales-07",
        period=_QUARTER,
        plan_version=1,
        amount=Money(amount=DecimalText("720.00"), currency="USD"),
        basis_lead_id=_LEAD,
        why="3 % of 24000.00 USD won",
    ),
    RewardReversed(
        **_at(60_000),
        entry_id=_REVERSAL,
        reward="closer",
        beneficiary="sales-07",
        period=_QUARTER,
        plan_version=1,
        amount=Money(amount=DecimalText("-720.00"), currency="USD"),
        basis_lead_id=_LEAD,
        why="the win was undone",
        reverses_entry_id=_ACCRUAL,
    ),
    AgreementProposed(**_agreement(-3_000), proposed_by="marketing-lead"),
    AgreementSigned(**_agreement(-2_000), department="marketing", signed_by="marketing-lead"),
    AgreementActivated(
        **_agreement(-1_000),
        effective_from=_CAPTURED - timedelta(minutes=1_000),
        supersedes=3,
        content={
            "kind": "definition",
            "title": "What we both call a lead",
            "stages": [
                {"key": "inquiry", "owner": "marketing", "kind": "open", "gate": {"event": "capture"}},
                {"key": "won", "owner": "sales", "kind": "won", "from": ["inquiry"], "gate": {"decision": "win"}},
            ],
        },
    ),
    AgreementWithdrawn(**_agreement(-2_500), withdrawn_by="sales-lead"),
    WatermarkAdvanced(**_at(5), watermark_at=_CAPTURED + timedelta(minutes=5)),
)

EXAMPLES: dict[str, EventData] = {example.type: example for example in _ALL}
"""By type; exactly one for every type there is."""

if EXAMPLES.keys() != EVENT_TYPES.keys() or len(_ALL) != len(EXAMPLES):
    raise TypeError("every event type has exactly one example")


def source_of(type_: str) -> str:
    """The `ce_source` of a type's example: the first service that may write it."""
    producers: list[ServiceName] = [
        service for service, topic in TOPIC_OF.items() if EVENT_TYPES[type_] in EVENTS_ON[topic]
    ]
    return f"/{'qualification' if type_.startswith('agreement.') else producers[0]}"
