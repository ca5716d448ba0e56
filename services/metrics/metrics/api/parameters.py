"""The query parameters of the reports, and their parsing. domain/report_query.py defines their meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from accord.contracts.values import MOMENTS_IN_WORDS, Day, Timestamp
from accord.http.auth import Caller, require
from accord.http.problems import parameter_error
from accord.terms.dimensions import Dimension, UnknownDimension
from metrics.domain.funnel import Figure
from metrics.domain.periods import to_moment
from metrics.domain.report_query import (
    Filter,
    Mode,
    Order,
    ReportQuery,
    Visit,
    parse_dimensions,
    parse_filter,
)
from metrics.usecases.reports import StagePair, UnknownStage

_WHERE_MAX = 10
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Timestamp)
_DAY: TypeAdapter[date] = TypeAdapter(Day)

Moment = Annotated[
    str | None,
    Field(max_length=40, examples=["2027-01-01", "2027-01-01T09:30:00-06:00"]),
]


class ReportParameters(BaseModel):
    """The parameters that all reports share. `from` is included, `to` is not."""

    model_config = ConfigDict(extra="forbid")

    from_: Moment = Field(
        default=None,
        alias="from",
        description=f"A day (its midnight in `timezone`) or a moment with offset, {MOMENTS_IN_WORDS}. Included.",
    )
    to: Moment = Field(default=None, description=f"A day or a moment with offset, {MOMENTS_IN_WORDS}. Not included.")
    timezone: str = Field(
        default="UTC",
        max_length=64,
        description="IANA time zone in which the days of `from` and `to` begin.",
        examples=["America/Chicago"],
    )
    mode: Mode = Field(
        default="cohort",
        description="`cohort`: leads captured in the period. `period`: what happened in it, whenever captured.",
    )
    entry: Visit = Field(default="first", description="Which of several entries into one stage counts.")
    by: str | None = Field(
        default=None,
        max_length=400,
        description="Comma list: `source`, `campaign`, `country`, `industry`, `owner`, `size_band`, `attribute:NAME`.",
        examples=["source,country"],
    )
    where: list[Annotated[str, Field(max_length=300)]] = Field(
        default_factory=list,
        max_length=_WHERE_MAX,
        description="Only leads with this value: `DIMENSION=VALUE`, or `DIMENSION=` for unknown. May be repeated.",
        examples=[["source=website"]],
    )


class FunnelQuery(ReportParameters):
    """Query of a funnel."""

    order: Order = Field(
        default="any",
        description="`any`: reached by leads in it or a later stage. `strict`: by leads that entered every stage up to it.",
    )


class FunnelLeadsQuery(FunnelQuery):
    """Query of the leads behind a funnel."""

    stage: str = Field(max_length=100, description="The leads that this stage counts.")
    figure: Figure = Field(default="reached", description="Which number of the stage; exits have `entered` only.")
    limit: int = Field(default=100, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=1_000)


class PeriodWinsQuery(BaseModel):
    """Which wins."""

    model_config = ConfigDict(extra="forbid")

    from_: Moment = Field(default=None, alias="from", description="A day or a moment with offset. Included.")
    to: Moment = Field(default=None, description="A day or a moment with offset. Not included.")
    timezone: str = Field(
        default="UTC", max_length=64, description="IANA time zone in which the days of `from` and `to` begin."
    )
    where: list[Annotated[str, Field(max_length=300)]] = Field(
        default_factory=list, max_length=_WHERE_MAX, description="Only leads with this value: `DIMENSION=VALUE`."
    )
    mode: Mode = Field(
        default="period", description="`period`: won in the period. `cohort`: of leads captured in it, won at any time."
    )
    stage: str | None = Field(
        default=None,
        max_length=100,
        description="The stage that counts as won. Default: the definition's first of the kind `won`.",
        examples=["won"],
    )


class WinsQuery(PeriodWinsQuery):
    """Query of a list of wins."""

    limit: int = Field(default=100, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=1_000)


class VelocityQuery(ReportParameters):
    """Query of a velocity."""

    between: str | None = Field(
        default=None,
        max_length=200,
        description="Two stages, as `inquiry,won`. Default: each stage and each transition.",
    )


class VelocityLeadsQuery(ReportParameters):
    """Query of the leads behind a velocity. One of `stage` and `between`."""

    stage: str | None = Field(default=None, max_length=100, description="The leads that entered this stage.")
    between: str | None = Field(
        default=None, max_length=200, description="The leads that entered the first of two stages."
    )
    state: Literal["done", "waiting", "left", "resting"] | None = Field(
        default=None,
        description="Only leads that finished, still wait, left by another exit, or rest.",
    )
    limit: int = Field(default=100, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=1_000)


Reader = Annotated[Caller, require("metrics:read")]

FunnelParameters = Annotated[FunnelQuery, Query()]
FunnelLeadsParameters = Annotated[FunnelLeadsQuery, Query()]
WinsParameters = Annotated[WinsQuery, Query()]
VelocityParameters = Annotated[VelocityQuery, Query()]
VelocityLeadsParameters = Annotated[VelocityLeadsQuery, Query()]


@contextmanager
def unknown_stage_at(parameter: str = "stage") -> Iterator[None]:
    """Turns UnknownStage into Problem 422 at this parameter."""
    try:
        yield
    except UnknownStage as error:
        raise parameter_error(parameter, f"names a stage that the definition in force does not have: {error}") from None


def build_query(parameters: ReportParameters) -> ReportQuery:
    """Build the query from its parameters. Raises Problem 422 naming the parameter."""
    since, until = parse_bounds(parameters.from_, parameters.to, check_zone(parameters.timezone))
    return ReportQuery(
        mode=parameters.mode,
        order=parameters.order if isinstance(parameters, FunnelQuery) else "any",
        timezone=parameters.timezone,
        entry=parameters.entry,
        since=since,
        until=until,
        by=_parse_dimensions(parameters.by),
        where=parse_filters(parameters.where),
    )


def build_wins_query(parameters: PeriodWinsQuery) -> ReportQuery:
    """Build the query of wins from its parameters. Raises Problem 422 naming the parameter."""
    since, until = parse_bounds(parameters.from_, parameters.to, check_zone(parameters.timezone))
    return ReportQuery(
        mode=parameters.mode,
        entry="last",
        since=since,
        until=until,
        where=parse_filters(parameters.where),
        timezone=parameters.timezone,
    )


def parse_bounds(since: str | None, until: str | None, zone: str) -> tuple[datetime | None, datetime | None]:
    """Parse `from` and `to`, whose days begin in a zone. Raises Problem 422."""
    bounds = parse_moment("from", since, zone), parse_moment("to", until, zone)
    if bounds[0] and bounds[1] and bounds[0] >= bounds[1]:
        raise parameter_error("to", "must be after from")
    return bounds


def parse_stage_pair(text: str | None) -> StagePair | None:
    """Parse the two stages of `a,b`. Raises Problem 422."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise parameter_error("between", "must be two different stages, as inquiry,won")
    return StagePair(*names)


def check_zone(name: str) -> str:
    """The name, if it is an IANA time zone. Raises Problem 422."""
    if name not in available_timezones():
        raise parameter_error("timezone", "is not an IANA time zone")
    return name


def parse_moment(parameter: str, text: str | None, zone: str) -> datetime | None:
    """Parse a day, which is its midnight in the zone, or a moment with an offset. Raises Problem 422."""
    if text is None:
        return None
    try:
        if len(text) == len("2027-01-01"):
            return to_moment(_DAY.validate_python(text), ZoneInfo(zone))
        return _MOMENT.validate_python(text.replace(" ", "+"))
    except ValidationError:
        raise parameter_error(
            parameter,
            f"must be a day as 2027-01-01, or a moment with offset as 2027-01-01T09:30:00-06:00, {MOMENTS_IN_WORDS}",
        ) from None


def _parse_dimensions(text: str | None) -> tuple[Dimension, ...]:
    try:
        return parse_dimensions(text)
    except UnknownDimension as error:
        raise parameter_error("by", str(error)) from None


def parse_filters(texts: Sequence[str]) -> tuple[Filter, ...]:
    """Parse filters such as `source=website`. Raises Problem 422."""
    try:
        return tuple(parse_filter(text) for text in texts)
    except UnknownDimension as error:
        raise parameter_error("where", str(error)) from None
