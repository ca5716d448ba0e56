"""A definition made ready for judging: criteria compiled, gates looked up by the stage they lead from. Built once per version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from accord.contracts.criteria import Compiled, activity_kind, compile_criteria, in_words
from accord.contracts.values import Department, StageKind
from qualification.domain.definition import Definition, Stage

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class StageRule:
    """One stage. `opens_by` names the decisions of its gate; `when` is set for an automatic gate, neither for the capture gate."""

    key: str
    rank: int
    owner: Department
    kind: StageKind
    when: Compiled | None
    opens_by: tuple[str, ...]
    fields: tuple[str, ...]
    reasons: Mapping[str, str] | None
    cool_down: timedelta | None


@dataclass(frozen=True, slots=True)
class FitRule:
    """Points for a lead whose attributes fit. `words` is the rule in plain words."""

    key: str
    when: Compiled
    points: float
    words: str


@dataclass(frozen=True, slots=True)
class EngagementRule:
    """Points for each activity of a kind, halved every half-life, at most `cap` together."""

    key: str
    activity: str
    points: float
    cap: float | None
    half_life_us: int | None


@dataclass(frozen=True, slots=True)
class GradeRule:
    """Least scores for A, B, C and for 1, 2, 3, best first."""

    fit: tuple[tuple[str, float], ...]
    engagement: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """One version of the definition, compiled."""

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

    @property
    def scored(self) -> bool:
        """Whether this version scores at all."""
        return bool(self.fit or self.engagement)

    def open_to(self, stage: str | None) -> Mapping[str, StageRule]:
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
        FitRule(rule.key, compile_criteria(rule.when), rule.points, in_words(rule.when))
        for rule in (fit.rules if fit else ())
    )
    rules_engagement = tuple(
        EngagementRule(
            rule.key, rule.activity, rule.points, rule.max, rule.half_life // _MICROSECOND if rule.half_life else None
        )
        for rule in (engagement.rules if engagement else ())
    )
    grades = definition.scores.grade
    return Rules(
        version=version,
        stages=stages,
        entry=stages[next(stage.key for stage in definition.stages if stage.gate.on == "capture")],
        automatic_from={
            stage.key: tuple(
                stages[to.key] for to in definition.stages if to.gate.when and stage.key in definition.origins(to)
            )
            for stage in definition.stages
        },
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
        grade=GradeRule(grades.fit.best_first(), grades.engagement.best_first()) if grades else None,
        kinds=_kinds(stages.values(), rules_engagement),
    )


def _stage_rule(rank: int, stage: Stage, lists: Mapping[str, Mapping[str, str]]) -> StageRule:
    gate = stage.gate
    return StageRule(
        key=stage.key,
        rank=rank,
        owner=stage.owner,
        kind=stage.kind,
        when=compile_criteria(gate.when) if gate.when else None,
        opens_by=gate.decisions,
        fields=tuple(gate.fields),
        reasons=None if gate.reasons is None else lists[gate.reasons],
        cool_down=stage.cool_down,
    )


def _kinds(stages: Iterable[StageRule], engagement: Iterable[EngagementRule]) -> frozenset[str]:
    asked = {activity_kind(path) for stage in stages if stage.when for path in stage.when.paths}
    return frozenset({kind for kind in asked if kind} | {rule.activity for rule in engagement})
