"""The models of responses. No rules beyond shape."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from accord.contracts.values import ActorKind, Department, Severity, Timestamp
from accord.http.paging import Page
from accord.terms.durations import Duration
from sla_monitor.domain.business_time import WEEKDAY_WORDS, Step
from sla_monitor.domain.calendars import ClosedDay, ClosedDayOrigin
from sla_monitor.domain.clock import Clock, ClockState
from sla_monitor.queries.attainment import AttainmentCounts
from sla_monitor.usecases.statement import Statement

_AS_OF = (
    "Everything recorded before this has been read; what is later may change. Null until both topics have been read."
)

AsOf = Annotated[datetime | None, Field(description=_AS_OF)]


class TallyAnswer(BaseModel):
    """What was counted in a period: for a volume `counted`, for a rate `counted` of `over`."""

    counted: int
    over: int | None = Field(description="Null for a volume.")
    at_least: float = Field(description="What is owed: a number, or a share.")


class ClockAnswer(BaseModel):
    """A clause's clock of one lead."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "clock_id": "0198c0de-0000-7000-8000-000000000001",
                    "lead_id": "0198c0de-0000-7000-8000-000000000002",
                    "clause": "accept-mql",
                    "obliges": "sales",
                    "sla_version": 1,
                    "state": "running",
                    "owner": "ann",
                    "source": "website",
                    "started_at": "2027-01-04T15:30:00Z",
                    "due_at": "2027-01-04T20:30:00Z",
                    "severity": None,
                    "answers": 0,
                    "answered_at": None,
                    "actor_kind": None,
                    "tally": None,
                    "ended_at": None,
                    "ended_why": None,
                    "breach_id": None,
                    "breached_at": None,
                    "withdrawn_at": None,
                    "backfill": False,
                }
            ]
        }
    )

    clock_id: UUID
    lead_id: UUID | None = Field(
        description="Null for a clause over a period, which runs from `started_at` to `due_at`."
    )
    clause: str
    obliges: Department
    sla_version: int = Field(description="The version under which the clock started.")
    state: ClockState
    owner: str | None
    source: str | None
    started_at: Timestamp
    due_at: Timestamp = Field(description="While the clock is paused: as if the time went on at once.")
    severity: Severity | None = Field(description="By the steps of the clause.")
    answers: int = Field(description="How many of the answers that are owed have come.")
    answered_at: Timestamp | None = Field(
        description="When the last answer happened that is owed; in a running clock, after the deadline."
    )
    actor_kind: ActorKind | None = Field(description="Who gave it, where the tool tells.")
    tally: TallyAnswer | None = Field(description="Of a period that was judged.")
    ended_at: Timestamp | None = Field(description="When the lead left the clause's scope.")
    ended_why: str | None
    breach_id: UUID | None
    breached_at: Timestamp | None = Field(description="When the breach was recorded.")
    withdrawn_at: Timestamp | None = Field(description="When a late report withdrew it.")
    backfill: bool = Field(description="Imported history: it counts and notifies nobody.")


class ClockPage(Page[ClockAnswer]):
    """A page of clocks."""

    as_of: AsOf = None


class LeadClocks(BaseModel):
    """The clocks of one lead, the latest start first."""

    lead_id: UUID
    items: list[ClockAnswer]
    as_of: AsOf


class BreachAnswer(BaseModel):
    """A breached clause. `answered_at` is when it was met, late."""

    breach_id: UUID
    clock_id: UUID
    lead_id: UUID | None
    clause: str
    obliges: Department
    sla_version: int
    state: Literal["breached", "met_late", "withdrawn"]
    owner: str | None
    source: str | None
    started_at: Timestamp
    due_at: Timestamp
    breached_at: Timestamp
    answered_at: Timestamp | None
    withdrawn_at: Timestamp | None
    severity: Severity | None
    acknowledged_at: Timestamp | None
    acknowledged_by: str | None
    acknowledged_note: str | None
    backfill: bool


class AcknowledgeIn(BaseModel):
    """Takes note of a breach."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"note": "Called on Monday instead"}]})

    note: Annotated[str | None, Field(max_length=2000)] = None


class BreachPage(Page[BreachAnswer]):
    """A page of breaches."""

    as_of: AsOf = None


class AttainmentGroup(BaseModel):
    """Attainment of one group."""

    by: dict[str, str | None]
    attainment: float | None = Field(description="met / (met + breached); null if both are zero.", examples=[0.93])
    met: int
    breached: int = Field(description="Including those met late.")
    met_late: int
    running: int = Field(description="Including those that are paused.")
    cancelled: int
    backfill: int = Field(description="Imported history among met and breached.")


class AttainmentDefinition(BaseModel):
    """What the numbers mean."""

    measure: str = "met / (met + breached); met late counts as breached; running and cancelled clocks count in neither"
    period: str = "clocks whose deadline lies in the period, the end not included; of a clause over a period, its end"
    timezone: str = Field(
        description="The SLA's own time zone, in which months are reckoned.", examples=["America/Chicago"]
    )
    from_: Timestamp | None = Field(serialization_alias="from")
    to: Timestamp | None


class AttainmentAnswer(BaseModel):
    """Attainment of a period."""

    definition: AttainmentDefinition
    as_of: AsOf
    groups: list[AttainmentGroup]


class ClauseStatement(BaseModel):
    """One clause in the month."""

    department: Department
    clause: str
    attainment: float | None = Field(description="met / (met + breached); null if both are zero.")
    met: int
    breached: int = Field(description="Including those met late.")
    met_late: int
    running: int
    cancelled: int
    before: dict[str, float | None] = Field(
        description="Attainment in the months before.", examples=[{"2027-03": 0.9, "2027-04": 0.95}]
    )


class StatementAnswer(BaseModel):
    """What both departments kept and broke in a month."""

    month: str = Field(examples=["2027-05"])
    timezone: str = Field(description="The SLA's own, in which the month is reckoned.", examples=["America/Chicago"])
    from_: Timestamp = Field(serialization_alias="from")
    to: Timestamp = Field(description="The first moment of the next month.")
    is_final: bool = Field(description="Everything recorded before the month's end has been read.")
    as_of: AsOf
    clauses: list[ClauseStatement]
    breaches: list[BreachAnswer] = Field(
        description="Those that were answered latest, unanswered ones first; at most 5."
    )


def statement_answer(statement: Statement) -> StatementAnswer:
    """Make the answer for a month."""
    return StatementAnswer(
        month=statement.month,
        timezone=statement.zone,
        from_=statement.start,
        to=statement.end,
        is_final=statement.is_final,
        as_of=statement.as_of,
        clauses=[
            ClauseStatement(
                department=line.department,
                clause=line.clause,
                attainment=line.counts.attainment,
                met=line.counts.met,
                breached=line.counts.breached,
                met_late=line.counts.met_late,
                running=line.counts.running,
                cancelled=line.counts.cancelled,
                before=dict(zip(statement.months_before, line.before, strict=True)),
            )
            for line in statement.lines
        ],
        breaches=[breach_answer(clock) for clock in statement.breaches],
    )


class StepAnswer(BaseModel):
    """A stretch of time up to the deadline."""

    from_: Timestamp = Field(serialization_alias="from")
    to: Timestamp
    counted: Duration
    why: str = Field(examples=["Saturday 2027-01-09 is closed; Sunday 2027-01-10 is closed"])


class ClosedDayAnswer(BaseModel):
    """A day on which the calendar is closed though its week is open."""

    date: date
    weekday: str = Field(examples=["Monday"])
    name: str = Field(examples=["Memorial Day"])
    origin: ClosedDayOrigin = Field(description="The country's public holidays, or the `extra` days of the agreement.")


class ClosedDaysAnswer(BaseModel):
    """The closed days of a calendar in a year, in order."""

    calendar: str = Field(examples=["office"])
    year: int = Field(examples=[2027])
    timezone: str = Field(examples=["America/Chicago"])
    sla_version: int
    items: list[ClosedDayAnswer]


class DueAnswer(BaseModel):
    """When something would be due, and how much of each stretch of time counts."""

    due: Timestamp = Field(examples=["2027-01-11T17:00:00Z"])
    timezone: str = Field(examples=["America/Chicago"])
    sla_version: int
    steps: list[StepAnswer]


def tally_answer(clock: Clock) -> TallyAnswer | None:
    """Make the answer for the counts of a period that was judged."""
    tally = clock.tally
    if tally is None or clock.breach_due_at is None:
        return None
    is_rate = tally.is_rate
    return TallyAnswer(
        counted=tally.of if is_rate else tally.over, over=tally.over if is_rate else None, at_least=tally.at_least
    )


def clock_answer(clock: Clock) -> ClockAnswer:
    """Make the answer for a clock."""
    return ClockAnswer(
        clock_id=clock.clock_id,
        lead_id=None if clock.trigger.kind == "period" else clock.lead_id,
        clause=clock.clause,
        obliges=clock.obliges,
        sla_version=clock.sla_version,
        state=clock.state,
        owner=clock.owner,
        source=clock.source,
        started_at=clock.started_at,
        due_at=clock.due_at,
        severity=clock.severity,
        answers=len(clock.answers),
        answered_at=clock.answered_at,
        actor_kind=clock.last_answer.actor_kind if clock.last_answer else None,
        tally=tally_answer(clock),
        ended_at=clock.ended_at,
        ended_why=clock.ended_why,
        breach_id=clock.breach_id,
        breached_at=clock.breached_at,
        withdrawn_at=clock.withdrawn_at,
        backfill=clock.backfill,
    )


def breach_answer(clock: Clock) -> BreachAnswer:
    """Make the answer for a breached clock."""
    if clock.breach_id is None or clock.breached_at is None:
        raise AssertionError("a breach has an id and a time")
    noted = clock.acknowledgement
    return BreachAnswer(
        breach_id=clock.breach_id,
        clock_id=clock.clock_id,
        lead_id=None if clock.trigger.kind == "period" else clock.lead_id,
        clause=clock.clause,
        obliges=clock.obliges,
        sla_version=clock.sla_version,
        state="withdrawn" if clock.withdrawn_at else "met_late" if clock.state == "met_late" else "breached",
        owner=clock.owner,
        source=clock.source,
        started_at=clock.started_at,
        due_at=clock.due_at,
        breached_at=clock.breached_at,
        answered_at=clock.answered_at,
        withdrawn_at=clock.withdrawn_at,
        severity=clock.severity,
        acknowledged_at=noted.at if noted else None,
        acknowledged_by=noted.by if noted else None,
        acknowledged_note=noted.note if noted else None,
        backfill=clock.backfill,
    )


def attainment_group(counts: AttainmentCounts, by: str | None) -> AttainmentGroup:
    """Make the answer for one group."""
    return AttainmentGroup(
        by={by: counts.name} if by else {},
        attainment=counts.attainment,
        met=counts.met,
        breached=counts.breached,
        met_late=counts.met_late,
        running=counts.running,
        cancelled=counts.cancelled,
        backfill=counts.backfill,
    )


def step_answer(step: Step) -> StepAnswer:
    """Make the answer for one stretch of time."""
    return StepAnswer(from_=step.start, to=step.end, counted=step.counted, why=step.why)


def closed_day_answer(day: ClosedDay) -> ClosedDayAnswer:
    """Make the answer for a closed day."""
    return ClosedDayAnswer(date=day.date, weekday=WEEKDAY_WORDS[day.date.weekday()], name=day.name, origin=day.origin)
