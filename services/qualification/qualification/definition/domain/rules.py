"""A definition made ready for judging: criteria compiled, gates looked up by the stage they lead from. Built once per version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec import Struct, field

from accord.contracts.values import Department, StageKind
from accord.terms.criteria import Compiled, Facts, Question, activity_kind, compile_criteria, describe_criteria
from accord.terms.durations import parse_duration
from qualification.definition.domain.definition import Definition, Stage

_MICROSECOND = timedelta(microseconds=1)


class StageRule(Struct, frozen=True, gc=False):
    """One stage. `decisions` are those of its gate; `when` is set for an automatic gate, neither for the capture gate."""

    key: str
    rank: int
    owner: Department
    kind: StageKind
    when: Compiled | None
    decisions: tuple[str, ...]
    fields: tuple[str, ...]
    reasons: Mapping[str, str] | None
    cool_down: timedelta | None


class FitRule(Struct, frozen=True, gc=False):
    """Points for a lead whose attributes fit. `words` is the rule in plain words."""

    key: str
    when: Compiled
    points: float
    words: str


class EngagementRule(Struct, frozen=True, gc=False):
    """Points for each activity of a kind, halved every half-life, at most `cap` together."""

    key: str
    activity: str
    points: float
    cap: float | None
    half_life_us: int | None


class GradeRule(Struct, frozen=True, gc=False):
    """Least scores for A, B, C and for 1, 2, 3, best first."""

    fit: tuple[tuple[str, float], ...]
    engagement: tuple[tuple[str, float], ...]


class ScoreThreshold(NamedTuple):
    """A score at which something may change as it falls: `least` holds while the score is `at` or more, else while it is more."""

    at: float
    least: bool


class Window(NamedTuple):
    """A count that changes as activities grow older than `within_us`: something may change when it falls below `least`."""

    kind: str
    within_us: int
    least: int


class TimeTriggers(Struct, frozen=True, gc=False):
    """What time alone can change for a lead in one stage: its grade, or a gate that leads on. `marks` are the highest first."""

    thresholds: tuple[ScoreThreshold, ...] = ()
    windows: tuple[Window, ...] = ()
    ages: tuple[timedelta, ...] = ()
    cool_down: timedelta | None = None
    """How long after its entry a lead's gates open by themselves, where a cool-down holds them back."""


class Rules(Struct, frozen=True, gc=False):
    """One version of the definition, compiled. `since` is when it came into force, None where that does not matter."""

    version: int
    stages: Mapping[str, StageRule]
    entry: StageRule
    automatic_from: Mapping[str, tuple[StageRule, ...]]
    decisions_from: Mapping[str, Mapping[str, StageRule]]
    decisions_from_any: Mapping[str, StageRule]
    """What may be decided in a stage that this version no longer knows."""
    decisions: frozenset[str]
    fit: tuple[FitRule, ...]
    fit_max: float
    engagement: tuple[EngagementRule, ...]
    engagement_max: float
    grade: GradeRule | None
    kinds: frozenset[str]
    """The kinds of activity that scores or gates ask for."""
    fit_tests: tuple[tuple[Callable[[Facts], bool], float], ...] = ()
    """Of each fit rule whether it holds, and its points: `fit` as it is judged by."""
    time_triggers: Mapping[str, TimeTriggers] = field(default_factory=dict)
    """By stage, for leads that are still on their way; a stage that is not there is watched for its grade alone."""
    default_time_triggers: TimeTriggers = TimeTriggers()
    has_negative_points: bool = False
    """Whether some activity takes points, so that a score may rise by itself."""
    since: datetime | None = None
    moves: Mapping[str, str] = field(default_factory=dict)
    """Where leads go on from stages that this version no longer knows."""
    currency: str | None = None
    """That of amounts, None where any will do."""

    def triggers_in(self, stage: str) -> TimeTriggers:
        """What time alone can change for a lead in `stage`."""
        return self.time_triggers.get(stage, self.default_time_triggers)

    @property
    def scored(self) -> bool:
        """Whether this version scores at all."""
        return bool(self.fit or self.engagement)

    def is_closed(self, stage: str | None) -> bool:
        """Whether the sale is decided there, so that no later version moves the lead."""
        known = self.stages.get(stage) if stage else None
        return known is not None and known.kind in ("won", "lost")

    def decisions_in(self, stage: str | None) -> Mapping[str, StageRule]:
        """Decision → the stage it leads to, for a lead in `stage`."""
        if stage is None:
            return {}
        return self.decisions_from.get(stage, self.decisions_from_any)


def compile_definition(version: int, definition: Definition) -> Rules:
    """Make a checked definition ready. It must have no findings (see checks.py)."""
    stages = {stage.key: _stage_rule(rank, stage, definition.reasons) for rank, stage in enumerate(definition.stages)}
    fit = definition.scores.fit
    engagement = definition.scores.engagement
    rules_fit = tuple(
        FitRule(rule.key, compile_criteria(rule.when), rule.points, describe_criteria(rule.when))
        for rule in (fit.rules if fit else ())
    )
    rules_engagement = tuple(
        EngagementRule(
            rule.key, rule.activity, rule.points, rule.max, rule.half_life // _MICROSECOND if rule.half_life else None
        )
        for rule in (engagement.rules if engagement else ())
    )
    grades = definition.scores.grade
    grade = GradeRule(grades.fit.best_first(), grades.engagement.best_first()) if grades else None
    automatic_from = {
        stage.key: tuple(
            stages[to.key] for to in definition.stages if to.gate.when and stage.key in definition.origins(to)
        )
        for stage in definition.stages
    }
    return Rules(
        version=version,
        stages=stages,
        entry=stages[next(stage.key for stage in definition.stages if stage.gate.event == "capture")],
        automatic_from=automatic_from,
        decisions_from={
            stage.key: {
                decision: stages[to.key]
                for to in definition.stages
                if stage.key in definition.origins(to)
                for decision in to.gate.decisions
            }
            for stage in definition.stages
        },
        decisions_from_any={
            decision: stages[to.key] for to in definition.stages if to.from_ == "any" for decision in to.gate.decisions
        },
        decisions=frozenset(decision for stage in definition.stages for decision in stage.gate.decisions),
        fit=rules_fit,
        fit_max=fit.max if fit else 0.0,
        engagement=rules_engagement,
        engagement_max=engagement.max if engagement else 0.0,
        grade=grade,
        kinds=_kinds(stages.values(), rules_engagement),
        fit_tests=tuple((rule.when.holds, rule.points) for rule in rules_fit),
        time_triggers={key: _time_triggers(stages[key], gates, grade) for key, gates in automatic_from.items()},
        default_time_triggers=TimeTriggers(_score_thresholds(grade, ())),
        moves=definition.moves,
        currency=definition.currency,
        has_negative_points=any(rule.points < 0 for rule in rules_engagement),
    )


def _stage_rule(rank: int, stage: Stage, lists: Mapping[str, Mapping[str, str]]) -> StageRule:
    gate = stage.gate
    return StageRule(
        key=stage.key,
        rank=rank,
        owner=stage.owner,
        kind=stage.kind,
        when=compile_criteria(gate.when) if gate.when else None,
        decisions=gate.decisions,
        fields=tuple(gate.fields),
        reasons=None if gate.reasons is None else lists[gate.reasons],
        cool_down=stage.cool_down,
    )


def _kinds(stages: Iterable[StageRule], engagement: Iterable[EngagementRule]) -> frozenset[str]:
    comparisons = {activity_kind(path) for stage in stages if stage.when for path in stage.when.paths}
    return frozenset({kind for kind in comparisons if kind} | {rule.activity for rule in engagement})


def _time_triggers(stage: StageRule, gates: Iterable[StageRule], grade: GradeRule | None) -> TimeTriggers:
    """A lead that is won, lost or disqualified waits for nothing, and a recycled one for its own activity, not for time."""
    if stage.kind not in ("open", "recycled"):
        return TimeTriggers()
    comparisons = () if stage.kind == "recycled" else [q for gate in gates if gate.when for q in gate.when.questions]
    windows, ages = set(), set()
    for question in comparisons:
        kind = activity_kind(question.path)
        if kind and question.window:
            for number in _numbers(question):
                least = int(number // 1)
                windows |= {Window(kind, question.window // _MICROSECOND, count) for count in (least, least + 1)}
        if question.path == "age" and isinstance(question.expected, str):
            ages |= {parse_duration(question.expected), parse_duration(question.expected) + _MICROSECOND}
    return TimeTriggers(
        _score_thresholds(grade, comparisons),
        tuple(sorted(window for window in windows if window.least > 0)),
        tuple(sorted(ages)),
        stage.cool_down if comparisons else None,
    )


def _score_thresholds(grade: GradeRule | None, comparisons: Iterable[Question]) -> tuple[ScoreThreshold, ...]:
    thresholds = {ScoreThreshold(least, True) for _, least in (grade.engagement if grade else ())}
    for question in comparisons:
        if question.path == "scores.engagement":
            thresholds |= {ScoreThreshold(number, least) for number in _numbers(question) for least in (True, False)}
    # Of one number, "more than" ends before "at least" does.
    return tuple(sorted(thresholds, key=lambda threshold: (-threshold.at, threshold.least)))


def _numbers(question: Question) -> list[float]:
    listed = question.expected if isinstance(question.expected, list) else [question.expected]
    return [float(value) for value in listed if isinstance(value, int | float) and not isinstance(value, bool)]
