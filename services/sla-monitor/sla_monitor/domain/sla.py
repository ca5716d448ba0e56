"""The content of the service level agreement that both departments sign: its shape. checks.py validates its meaning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field

from accord.contracts.values import ActorKind, Department, Party, Severity
from accord.terms.criteria import Criteria
from accord.terms.document import DocumentPart
from accord.terms.durations import Duration
from accord.terms.week import Day, WeekTerms

Key = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A word of the agreement: a clause, a calendar, a stage, a decision."""

Words = Annotated[str, Field(min_length=1, max_length=2000)]
ActivityKind = Annotated[str, Field(max_length=100, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")]
CLAUSES_MAX = 100
CALENDARS_MAX = 50
NAMES_MAX = 40
DAYS_MAX = 400
WARNINGS_MAX = 10
STEPS_MAX = 10
ATTEMPTS_MAX = 50
ESCALATION_MAX = 10.0
"""The latest step: ten times the time allowed."""

Names = Key | Annotated[list[Key], Field(min_length=1, max_length=NAMES_MAX)]
Kinds = ActivityKind | Annotated[list[ActivityKind], Field(min_length=1, max_length=NAMES_MAX)]


def names_of(names: str | list[str] | None) -> tuple[str, ...]:
    """One name or a list of them, as a tuple."""
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


class Holidays(DocumentPart):
    """Days on which the calendar is closed: a country's holidays and extra days. `except` lists holidays that are worked."""

    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    subdivision: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    extra: list[Day] = Field(default_factory=list, max_length=DAYS_MAX)
    except_: list[Day] = Field(default_factory=list, max_length=DAYS_MAX, alias="except")


class CalendarTerms(DocumentPart):
    """The opening hours of a calendar."""

    timezone: Annotated[str, Field(min_length=1, max_length=100)]
    week: WeekTerms
    holidays: Holidays = Holidays()


ActorKinds = ActorKind | Annotated[list[ActorKind], Field(min_length=1, max_length=3)]


class Event(DocumentPart):
    """One thing that happens with a lead; exactly one of stage, decision and activity."""

    stage: Names | None = None
    decision: Names | None = None
    activity: Kinds | None = None
    by: Party | None = None


class From(Event):
    """What starts a clock; exactly one of these."""

    assigned: Literal[True] | None = None
    captured: Literal[True] | None = None


class To(Event):
    """What answers the clock; exactly one of stage, decision and activity."""

    actor_kind: ActorKinds | None = None
    """Whose activity counts. Without it a person's; an activity of which the tool does not tell it counts as a person's."""


class Within(DocumentPart):
    """The time allowed: elapsed time, open time of a calendar, or whole open days of one."""

    elapsed: Duration | None = None
    business: Duration | None = None
    business_days: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = None
    calendar: Key | None = None


class PausedBy(DocumentPart):
    """What stops the time: a stage for as long as the lead stands in it, or an activity until one of `resumed_by`."""

    stage: Names | None = None
    activity: Kinds | None = None
    resumed_by: Kinds | None = None


class Escalation(DocumentPart):
    """A step at a fraction of the time: names to notify, a severity, or the lead goes to somebody else."""

    at: Annotated[float, Field(gt=0, le=ESCALATION_MAX)]
    notify: Annotated[Names | None, Field()] = None
    severity: Severity | None = None
    reassign: Literal[True] | None = None
    expires_after: Duration | None = None
    """The lead is not reassigned where the step's time lies further back than this."""


Reassignment = Literal["moves", "restarts", "ends"]


class ClauseBase(DocumentPart):
    """What every clause has."""

    key: Key
    obliges: Department
    where: Criteria | None = None
    warn_at: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(max_length=WARNINGS_MAX)] = Field(
        default_factory=list
    )
    escalate: Annotated[list[Escalation], Field(max_length=STEPS_MAX)] = Field(default_factory=list)


class LeadClauseBase(ClauseBase):
    """What a clause has whose clock runs for one lead."""

    within: Within
    paused_by: PausedBy | None = None
    on_reassignment: Reassignment | None = None
    """What becomes of the clock when the lead gets another owner. Without it: moves; of a clause from an assignment: restarts."""


class ResponseClause(LeadClauseBase):
    """After a start, an answer is owed within a time."""

    kind: Literal["response"]
    from_: From = Field(alias="from")
    to: To
    until: Event | None = None


class AttemptsClause(LeadClauseBase):
    """After a start, so many activities are owed within a time."""

    kind: Literal["attempts"]
    from_: From = Field(alias="from")
    count: Annotated[int, Field(ge=1, le=ATTEMPTS_MAX, strict=True)]
    of: Kinds
    by: Party | None = None
    actor_kind: ActorKinds | None = None
    until: Event | None = None


class FreshnessClause(LeadClauseBase):
    """No lead stays in a stage longer than a time."""

    kind: Literal["freshness"]
    stage: Key


Per = Literal["week", "month", "quarter"]


class VolumeClause(ClauseBase):
    """At least so many leads enter a stage in each period."""

    kind: Literal["volume"]
    stage: Names
    per: Per
    at_least: Annotated[int, Field(ge=1, le=10**9, strict=True)]


class RateClause(ClauseBase):
    """In each period, one thing happens at least so often for each time that another does."""

    kind: Literal["rate"]
    of: Event
    over: Event
    per: Per
    at_least: Annotated[float, Field(gt=0, le=1)]


LeadClause = ResponseClause | AttemptsClause | FreshnessClause
PeriodClause = VolumeClause | RateClause
Clause = Annotated[LeadClause | PeriodClause, Discriminator("kind")]


class Sla(DocumentPart):
    """The SLA between marketing and sales."""

    kind: Literal["sla"]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    glossary: dict[Annotated[str, Field(min_length=1, max_length=100)], Words] = Field(
        default_factory=dict, max_length=200
    )
    timezone: Annotated[str, Field(min_length=1, max_length=100)] = "UTC"
    """The zone of periods, and of months in reports."""
    calendars: dict[Key, CalendarTerms] = Field(default_factory=dict, max_length=CALENDARS_MAX)
    clauses: Annotated[list[Clause], Field(min_length=1, max_length=CLAUSES_MAX)]
