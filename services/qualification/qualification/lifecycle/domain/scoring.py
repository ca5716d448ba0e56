"""Fit, engagement and grade: pure functions of attributes, activities, definition and time, so any moment can be recomputed.

Engagement is the sum over its rules of min(cap, sum of points * 2^(-age / half-life)); nothing is ever added up over time, so
the order of arrival, a redelivery or a merge cannot change it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from math import fsum

from msgspec import Struct

from accord.contracts.intake_events import LeadState
from accord.contracts.values import Attributes
from accord.terms.criteria import MISSING, Facts
from accord.terms.durations import describe_duration
from qualification.definition.domain.rules import EngagementRule, FitRule, GradeRule, Rules
from qualification.lifecycle.domain.lead import NO_ACTIVITIES, Activities, Lead, Scores, microseconds

_MICROSECOND = timedelta(microseconds=1)

DECIMALS = 2
"""Scores are rounded to this many decimals before they are compared, explained or published, everywhere."""


class LeadFacts:
    """The facts that criteria may ask of a lead at one moment. `scores` is None while the scores are being made."""

    __slots__ = ("_activities", "_at", "_profile", "_scores", "_stage", "attributes")

    def __init__(
        self,
        profile: LeadState | None,
        activities: Activities,
        stage: str | None,
        at: datetime,
        scores: Scores | None = None,
    ) -> None:
        self._profile = profile
        self.attributes: Attributes = profile.attributes if profile else {}
        self._activities = activities
        self._stage = stage
        self._at = at
        self._scores = scores

    def value(self, path: str, within: timedelta | None = None) -> object:
        """The value at a path, or MISSING."""
        read = _FIXED.get(path)
        if read is not None:
            found = read(self)
        else:
            root, _, rest = path.partition(".")
            found = self._named(root, rest, within)
        return MISSING if found is None else found

    def _named(self, root: str, rest: str, within: timedelta | None) -> object:
        if root == "attributes":
            return self.attributes.get(rest)
        return self._count(rest, within) if root == "activities" else None

    def _count(self, rest: str, within: timedelta | None) -> int | None:
        kind, _, what = rest.rpartition(".")
        if what != "count":
            return None
        window = None if within is None else within // _MICROSECOND
        return self._activities.count(kind, microseconds(self._at), window)

    def _source(self) -> str | None:
        return self._profile.source if self._profile else None

    def _campaign(self) -> str | None:
        return self._profile.campaign.name if self._profile and self._profile.campaign else None

    def _age(self) -> timedelta | None:
        return self._at - self._profile.captured_at if self._profile else None

    def _in_stage(self) -> str | None:
        return self._stage

    def _fit(self) -> float | None:
        return self._scores.fit if self._scores else None

    def _engagement(self) -> float | None:
        return self._scores.engagement if self._scores else None

    def _grade(self) -> str | None:
        return self._scores.grade if self._scores else None


_FIXED: dict[str, Callable[[LeadFacts], object]] = {
    "source": LeadFacts._source,  # noqa: SLF001 - its own module
    "campaign.name": LeadFacts._campaign,  # noqa: SLF001
    "age": LeadFacts._age,  # noqa: SLF001
    "stage": LeadFacts._in_stage,  # noqa: SLF001
    "scores.fit": LeadFacts._fit,  # noqa: SLF001
    "scores.engagement": LeadFacts._engagement,  # noqa: SLF001
    "grade": LeadFacts._grade,  # noqa: SLF001
}


class ScoreLine(Struct, frozen=True, gc=False):
    """What one rule gave, and why, in words. `score` is `fit` or `engagement`."""

    rule: str
    score: str
    points: float
    reason: str


def scores(
    profile: LeadState | None, activities: Activities, rules: Rules, at: datetime, fit: float | None = None
) -> Scores:
    """A lead's scores at a moment, under one definition. `fit` may be given where it is known for this profile and definition."""
    if fit is None:
        fit = fit_score(profile, rules, at)
    engagement = engagement_score(activities, rules, at)
    return Scores(fit, engagement, grade(rules.grade, fit, engagement))


def fit_score(profile: LeadState | None, rules: Rules, at: datetime) -> float:
    """The fit score, 0 to `rules.fit_max`. It asks only of the profile (definition's checks.py), so it is the same as long as that is."""
    facts = LeadFacts(profile, NO_ACTIVITIES, None, at)
    return _limited(fsum([points for holds, points in rules.fit_tests if holds(facts)]), rules.fit_max)


def engagement_score(activities: Activities, rules: Rules, at: datetime) -> float:
    """The engagement score at a moment, 0 to `rules.engagement_max`."""
    return _limited(engagement_raw(activities, rules, microseconds(at)), rules.engagement_max)


def engagement_raw(activities: Activities, rules: Rules, at: int) -> float:
    """The points of all engagement rules at `at` (microseconds), before rounding and the limits of the score."""
    known = activities.by_kind
    return fsum([engagement_points(rule, activities, at) for rule in rules.engagement if rule.activity in known])


def engagement_points(rule: EngagementRule, activities: Activities, at: int) -> float:
    """min(cap, sum of points * 2^(-age / half-life)) of one rule at `at` (microseconds); the cap bounds negative points alike."""
    happened = activities.by_kind.get(rule.activity)
    if happened is None:
        return 0.0
    if happened[-1] > at:
        happened = activities.moments_until(rule.activity, at)
    half_life_us, cap = rule.half_life_us, rule.cap
    if half_life_us is None:
        points = rule.points * len(happened)
    elif len(happened) == 1:
        points = rule.points * 2.0 ** ((happened[0] - at) / half_life_us)
    else:
        points = rule.points * fsum([2.0 ** ((moment - at) / half_life_us) for moment in happened])
    return points if cap is None or -cap <= points <= cap else max(-cap, min(cap, points))


def grade(rule: GradeRule | None, fit: float, engagement: float) -> str | None:
    """A letter A to D for fit and a digit 1 to 4 for engagement, by the definition's thresholds; None without them."""
    if rule is None:
        return None
    return _mark(rule.fit, fit, "D") + _mark(rule.engagement, engagement, "4")


def _mark(best_first: tuple[tuple[str, float], ...], score: float, otherwise: str) -> str:
    for mark, least in best_first:
        if score >= least:
            return mark
    return otherwise


def explain_scores(lead: Lead, rules: Rules, at: datetime) -> list[ScoreLine]:
    """Every rule with the points that it gives now and the reason."""
    facts = LeadFacts(lead.profile, lead.activities, lead.stage, at)
    lines = [ScoreLine(rule.key, "fit", _fit_points(rule, facts), _fit_reason(rule, facts)) for rule in rules.fit]
    moment = microseconds(at)
    for rule in rules.engagement:
        points = round(engagement_points(rule, lead.activities, moment), DECIMALS)
        lines.append(ScoreLine(rule.key, "engagement", points, _engagement_reason(rule, lead.activities, moment)))
    return lines


def _fit_points(rule: FitRule, facts: Facts) -> float:
    return rule.points if rule.when.holds(facts) else 0.0


def _fit_reason(rule: FitRule, facts: Facts) -> str:
    return rule.words if rule.when.holds(facts) else f"not so: {rule.words}"


def _engagement_reason(rule: EngagementRule, activities: Activities, at: int) -> str:
    count = activities.count(rule.activity, at)
    words = f"{count} x {rule.activity}, {rule.points:g} points each"
    if rule.half_life_us is not None:
        words += f", halved every {describe_duration(timedelta(microseconds=rule.half_life_us))}"
    if rule.cap is not None:
        words += f", at most {rule.cap:g}"
    return words


def _limited(points: float, maximum: float) -> float:
    if points <= 0.0:
        return 0.0
    return round(points if points < maximum else maximum, DECIMALS)
