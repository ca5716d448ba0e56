"""The content of the service level agreement that both departments sign: its shape. checks.py validates its meaning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accord.contracts.values import Department, Party
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


class From(DocumentPart):
    """What starts a clock; exactly one of these."""

    stage: Names | None = None
    assigned: Literal[True] | None = None
    decision: Names | None = None
    activity: Kinds | None = None
    by: Party | None = None
    captured: Literal[True] | None = None


class To(DocumentPart):
    """What answers the clock; exactly one of these."""

    decision: Names | None = None
    activity: Kinds | None = None
    by: Party | None = None
    stage: Names | None = None


class Within(DocumentPart):
    """The time allowed: elapsed time, open time of a calendar, or whole open days of one."""

    elapsed: Duration | None = None
    business: Duration | None = None
    business_days: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = None
    calendar: Key | None = None


class Escalation(DocumentPart):
    """The consequence of a breach: the lead is reassigned."""

    at: Annotated[float, Field(ge=1, le=1)]
    reassign: Literal[True]


class Clause(DocumentPart):
    """One clause: after a start, an answer is owed within a time."""

    key: Key
    obliges: Department
    kind: Literal["response"]
    from_: From = Field(alias="from")
    to: To
    within: Within
    warn_at: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(max_length=WARNINGS_MAX)] = Field(
        default_factory=list
    )
    where: Criteria | None = None
    escalate: Annotated[list[Escalation], Field(max_length=1)] = Field(default_factory=list)


class Sla(DocumentPart):
    """The SLA between marketing and sales."""

    kind: Literal["sla"]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    glossary: dict[Annotated[str, Field(min_length=1, max_length=100)], Words] = Field(
        default_factory=dict, max_length=200
    )
    calendars: dict[Key, CalendarTerms] = Field(default_factory=dict, max_length=CALENDARS_MAX)
    clauses: Annotated[list[Clause], Field(min_length=1, max_length=CLAUSES_MAX)]
