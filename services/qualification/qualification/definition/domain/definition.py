"""The lead definition as both departments sign it: the shape of its content. What is wrong with one is found in checks.py."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field

from accord.contracts.values import Department, StageKind
from accord.terms.criteria import Criteria
from accord.terms.document import DocumentPart
from accord.terms.durations import Duration

Key = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
"""A word of the definition: a stage, a decision, a reason, a rule."""

Words = Annotated[str, Field(min_length=1, max_length=2000)]

FieldName = Literal["amount", "expected_close", "budget", "authority", "need", "timing"]
"""What a decision may carry; nothing else, and no free text."""

STAGES_MAX = 40
RULES_MAX = 100
ACTIVITIES_PER_KIND_MAX = 1000
"""Of each kind, the newest so many activities of a lead count; older ones are kept and not counted (ADR 0021)."""


def _must_be_positive(amount: timedelta | None) -> timedelta | None:
    if amount is not None and amount <= timedelta():
        raise ValueError("must be longer than nothing")
    return amount


class Gate(DocumentPart):
    """How a stage is entered: on capture, when criteria hold, or by a decision. Exactly one of the three."""

    event: Literal["capture"] | None = Field(default=None, validation_alias=AliasChoices("event", "on", "true"))
    """The event that opens it. `on` is its name before 0.2.0, which YAML 1.1 parsers read as true."""
    when: Criteria | None = None
    decision: Key | Annotated[list[Key], Field(min_length=1, max_length=20)] | None = None
    fields: list[FieldName] = Field(default_factory=list, max_length=20)
    """Fields that the decision must carry."""
    reasons: Key | None = None
    """The list of reasons, one of which the decision must give."""

    @property
    def decisions(self) -> tuple[str, ...]:
        """The decisions that open this gate."""
        if self.decision is None:
            return ()
        return (self.decision,) if isinstance(self.decision, str) else tuple(self.decision)


class Stage(DocumentPart):
    """Where a lead can be. Its place in the list is its rank."""

    key: Key
    owner: Department
    kind: StageKind
    from_: Literal["any"] | Annotated[list[Key], Field(min_length=1, max_length=STAGES_MAX)] | None = Field(
        default=None, alias="from"
    )
    gate: Gate
    cool_down: Duration | None = None
    """How long a lead that entered this stage stays out of automatic gates."""


class FitScoreRule(DocumentPart):
    key: Key
    when: Criteria
    points: Annotated[float, Field(ge=-1000, le=1000)]


class FitScore(DocumentPart):
    max: Annotated[float, Field(gt=0, le=1000)] = 100
    rules: Annotated[list[FitScoreRule], Field(min_length=1, max_length=RULES_MAX)]


class EngagementScoreRule(DocumentPart):
    key: Key
    activity: Annotated[str, Field(max_length=100, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")]
    points: Annotated[float, Field(ge=-1000, le=1000)]
    max: Annotated[float | None, Field(gt=0, le=1000)] = None
    half_life: Annotated[Duration | None, AfterValidator(_must_be_positive)] = None


class EngagementScore(DocumentPart):
    max: Annotated[float, Field(gt=0, le=1000)] = 100
    rules: Annotated[list[EngagementScoreRule], Field(min_length=1, max_length=RULES_MAX)]


Threshold = Annotated[float, Field(ge=0, le=1000)]


class FitThresholds(DocumentPart):
    """The least fit for each letter; below C it is D."""

    A: Threshold
    B: Threshold
    C: Threshold

    def best_first(self) -> tuple[tuple[str, float], ...]:
        return (("A", self.A), ("B", self.B), ("C", self.C))


class EngagementThresholds(DocumentPart):
    """The least engagement for each digit; below 3 it is 4."""

    one: Threshold = Field(alias="1")
    two: Threshold = Field(alias="2")
    three: Threshold = Field(alias="3")

    def best_first(self) -> tuple[tuple[str, float], ...]:
        return (("1", self.one), ("2", self.two), ("3", self.three))


class Grade(DocumentPart):
    fit: FitThresholds
    engagement: EngagementThresholds


class ScoreRules(DocumentPart):
    fit: FitScore | None = None
    engagement: EngagementScore | None = None
    grade: Grade | None = None


class AttributeTerms(DocumentPart):
    """An attribute that the definition may ask for: its type, and, if a paper should call it otherwise, in words."""

    type: Literal["boolean", "integer", "number", "text", "list"]
    words: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class Definition(DocumentPart):
    """What we both call a lead."""

    kind: Literal["definition"]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    glossary: dict[Annotated[str, Field(min_length=1, max_length=100)], Words] = Field(
        default_factory=dict, max_length=200
    )
    stages: Annotated[list[Stage], Field(min_length=1, max_length=STAGES_MAX)]
    moves: dict[Key, Key] = Field(default_factory=dict, max_length=STAGES_MAX)
    """Where leads go on from stages of earlier versions that this one drops or renames: the old stage, and one of this version."""
    reasons: dict[
        Key, Annotated[dict[Key, Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=100)]
    ] = Field(default_factory=dict, max_length=40)
    scores: ScoreRules = ScoreRules()
    attributes: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,99}$")], AttributeTerms] | None = Field(
        default=None, max_length=200
    )
    """The attributes that there are; a definition that lists them may ask for no other."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    """The currency (ISO 4217) of the amounts that decisions carry; without it, a lead's first amount sets that lead's."""

    def origins(self, stage: Stage) -> tuple[str, ...]:
        """The stages that `stage` may be entered from, in order of rank.

        `any` means every other stage for a decision. For an automatic gate it means the open stages of lower rank and the
        recycled ones, since a lead goes back only by a decision.
        """
        if stage.from_ is None:
            return ()
        if stage.from_ != "any":
            return tuple(other.key for other in self.stages if other.key in stage.from_)
        return tuple(
            other.key
            for other in self.stages
            if other.key != stage.key and (stage.gate.when is None or self.goes_forward(other, stage))
        )

    def goes_forward(self, origin: Stage, to: Stage) -> bool:
        """Whether a lead may go from one stage to the other without a decision."""
        if origin.kind == "recycled":
            return to.kind != "recycled"
        return origin.kind == "open" and self._rank(origin) < self._rank(to)

    def _rank(self, stage: Stage) -> int:
        return next(rank for rank, other in enumerate(self.stages) if other.key == stage.key)
