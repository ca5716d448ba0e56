"""The definition in every report: its query, the meaning in words, and n."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from metrics.domain.definition_view import Stages
from metrics.domain.funnel import GroupKey
from metrics.domain.report_query import Mode, Order, ReportQuery, Visit

GroupValues = dict[str, bool | int | float | str | list[str] | None]


class Answer(BaseModel):
    """Base of the response models."""

    model_config = ConfigDict(populate_by_name=True)


class Definition(Answer):
    """The definition of the numbers."""

    mode: Mode
    order: Order | None = Field(default=None, description="Null if the report does not use it.")
    entry: Visit
    from_: datetime | None = Field(default=None, alias="from")
    to: datetime | None = None
    timezone: str = Field(description="The zone in which the days of the query begin.")
    by: list[str]
    where: list[str]
    definition_version: int | None = Field(
        default=None, description="Version of the lead definition that orders the stages; null before the first one."
    )
    n: int = Field(description="Leads counted.")
    words: list[str] = Field(description="What the numbers mean, in plain sentences.")


def build_definition(query: ReportQuery, stages: Stages, n: int, words: list[str], *, ordered: bool) -> Definition:
    return Definition(
        mode=query.mode,
        order=query.order if ordered else None,
        entry=query.entry,
        from_=query.since,
        to=query.until,
        timezone=query.timezone,
        by=[dimension.name for dimension in query.by],
        where=[f"{filter_.dimension.name}={filter_.value or ''}" for filter_ in query.where],
        definition_version=stages.version,
        n=n,
        words=words,
    )


def group_values(query: ReportQuery, key: GroupKey) -> GroupValues:
    """The group's values by the name of their dimension."""
    return {
        dimension.name: list(value) if isinstance(value, tuple) else value
        for dimension, value in zip(query.by, key, strict=True)
    }


def query_cells(query: ReportQuery, as_of: datetime | None) -> tuple[list[str], list[str | datetime | None]]:
    """Columns that repeat the query on each line of a CSV table, since a line may be read alone."""
    columns = ["mode", "entry", "from", "to", "as_of"]
    return columns, [query.mode, query.entry, query.since, query.until, as_of]
