"""What stands beside every table: the choices that were made, what they mean in words, and n."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from metrics.domain.choices import Choices, Mode, Order, Visit
from metrics.domain.definition_view import Stages
from metrics.domain.funnel import GroupKey

GroupValues = dict[str, bool | int | float | str | list[str] | None]


class Answer(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(populate_by_name=True)


class Definition(Answer):
    """How the numbers were made."""

    mode: Mode
    order: Order | None = Field(default=None, description="Null where it plays no part.")
    entry: Visit
    from_: datetime | None = Field(default=None, alias="from")
    to: datetime | None = None
    by: list[str]
    where: list[str]
    definition_version: int | None = Field(
        default=None, description="Version of the lead definition that orders the stages; null before one is known."
    )
    n: int = Field(description="Leads counted.")
    words: list[str] = Field(description="What the numbers mean, in plain sentences.")


def definition_of(choices: Choices, stages: Stages, n: int, words: list[str], *, ordered: bool) -> Definition:
    return Definition(
        mode=choices.mode,
        order=choices.order if ordered else None,
        entry=choices.entry,
        from_=choices.since,
        to=choices.until,
        by=[dimension.name for dimension in choices.by],
        where=[f"{one.dimension.name}={one.value or ''}" for one in choices.where],
        definition_version=stages.version,
        n=n,
        words=words,
    )


def group_values(choices: Choices, key: GroupKey) -> GroupValues:
    """The group's values by the name of their dimension."""
    return {
        dimension.name: list(value) if isinstance(value, tuple) else value
        for dimension, value in zip(choices.by, key, strict=True)
    }


def choice_cells(choices: Choices, as_of: datetime | None) -> tuple[list[str], list[str | datetime | None]]:
    """Columns that repeat the choices on each line of a CSV table, since a line may be read alone."""
    columns = ["mode", "entry", "from", "to", "as_of"]
    return columns, [choices.mode, choices.entry, choices.since, choices.until, as_of]
