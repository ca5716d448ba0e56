"""When time alone can next change something for a lead: a score that falls, a count whose window moves on, an age, a cool-down.

Nothing is scanned. `earliest_change` gives at once a moment before which nothing can change; `next_change` gives the exact moment, to the
microsecond, at which one of the watched comparisons first turns over. Both are pure functions of the lead, its version and a moment,
so it does not matter how often, or when, they are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from math import ceil, floor, fsum, inf, isfinite, log2

from qualification.definition.domain.rules import EngagementRule, Rules, ScoreThreshold, TimeTriggers
from qualification.lifecycle.domain.lead import Activities, Scores, from_microseconds, microseconds
from qualification.lifecycle.domain.scoring import DECIMALS, engagement_points, engagement_raw, engagement_score

_SCALE = float(10**DECIMALS)
_ROUNDING = 0.5 / _SCALE
"""What rounding may add to a score, or take from it."""

_SLACK = 1e-9
"""More than floating-point sums of at most 100 rules can be off, relative to scores of at most 1,000."""

_STEPS_MAX = 4000
"""Intervals looked at in one search through scores that can also rise; past them the search goes on from where it came to."""


def earliest_change(
    activities: Activities,
    rules: Rules,
    triggers: TimeTriggers,
    scores: Scores | None,
    captured_at: datetime,
    at: datetime,
) -> datetime | None:
    """A moment after `at` before which time alone changes nothing; None if it never does. Cheap, and may be too early.

    `scores` are those of `at`.
    """
    first: int | None = None
    now = microseconds(at)
    if triggers.thresholds and scores is not None and (scores.engagement > 0 or rules.has_negative_points):
        first = _earliest_score_change(activities, rules, triggers, scores.engagement, now)
    if triggers.windows or triggers.ages:
        first = min(
            (m for m in (first, *_exact_moments(activities, triggers, captured_at, now)) if m is not None), default=None
        )
    return None if first is None else _moment(first)


def next_change(
    activities: Activities,
    rules: Rules,
    triggers: TimeTriggers,
    captured_at: datetime,
    after: datetime,
    until: datetime | None = None,
) -> datetime | None:
    """The first moment later than `after` at which a watched comparison comes out otherwise than just before; None if none does.

    With `until` only a moment up to that is exact: for a later one, a moment after `until` that is not later than it may be given,
    which takes a fraction of the time.
    """
    now = microseconds(after)
    first = min(_exact_moments(activities, triggers, captured_at, now), default=None)
    if triggers.thresholds:
        falls = _score_changes(activities, rules, triggers, now, None if until is None else microseconds(until))
        first = falls if first is None else first if falls is None else min(first, falls)
    return None if first is None else _moment(first)


def _moment(at: int) -> datetime | None:
    try:
        return from_microseconds(at)
    except OverflowError:  # beyond the year 9999
        return None


def _exact_moments(activities: Activities, triggers: TimeTriggers, captured_at: datetime, now: int) -> Iterator[int]:
    for age in triggers.ages:
        at = microseconds(captured_at) + age // timedelta(microseconds=1)
        if at > now:
            yield at
    for window in triggers.windows:
        moments = activities.moments_of(window.kind)
        if len(moments) >= window.least:
            at = moments[-window.least] + window.within_us + 1  # a window includes both of its ends
            if at > now:
                yield at


def _decaying(activities: Activities, rules: Rules) -> list[EngagementRule]:
    return [rule for rule in rules.engagement if rule.half_life_us is not None and activities.moments_of(rule.activity)]


def _earliest_score_change(
    activities: Activities, rules: Rules, triggers: TimeTriggers, score: float, now: int
) -> int | None:
    """A score that only falls takes at least the shortest half-life to halve."""
    shortest = 0
    known = activities.by_kind
    for rule in rules.engagement:
        half_life_us = rule.half_life_us
        if half_life_us is not None and rule.activity in known:
            if rule.points < 0:
                return _earliest_crossing(activities, rules, triggers, now)
            if shortest == 0 or half_life_us < shortest:
                shortest = half_life_us
    threshold = _next_threshold(triggers, score) if shortest else None
    if threshold is None:
        return None
    below = _unrounded(threshold)
    if below <= 0:
        return None
    over = (score - _ROUNDING) / below
    return now + max(1, int(shortest * log2(over) * (1 - 1e-9)) if over > 1 else 1)


def _earliest_crossing(activities: Activities, rules: Rules, triggers: TimeTriggers, now: int) -> int | None:
    """The same where points are taken too: what decays falls, or rises, at most as fast as if all had the shortest half-life."""
    decaying = _decaying(activities, rules)
    points = [engagement_points(rule, activities, now) for rule in decaying]
    shortest = min(rule.half_life_us or 0 for rule in decaying)
    raw = engagement_raw(activities, rules, now)
    falling, rising = fsum(p for p in points if p > 0), -fsum(p for p in points if p < 0)
    first: int | None = None
    for threshold in triggers.thresholds:
        distance = raw - _unrounded(threshold)
        most = falling if distance > 0 else rising
        way = max(0.0, abs(distance) - 1e-6)
        if way < most:
            wait = max(1, int(shortest * log2(most / (most - way)) * (1 - 1e-9)))
            first = now + wait if first is None else min(first, now + wait)
    return first


def _next_threshold(triggers: TimeTriggers, score: float) -> ScoreThreshold | None:
    """The first mark that a falling score passes: the highest that still holds."""
    for threshold in triggers.thresholds:
        if score >= threshold.at if threshold.least else score > threshold.at:
            return threshold
    return None


def _holds(threshold: ScoreThreshold, score: float) -> bool:
    return score >= threshold.at if threshold.least else score > threshold.at


def _unrounded(threshold: ScoreThreshold) -> float:
    """The unrounded score at about which a mark is passed, below the least rounded one that holds it; negative where all do."""
    shown = threshold.at * _SCALE
    least = ceil(shown - _SLACK) if threshold.least else floor(shown + _SLACK) + 1
    return least / _SCALE - _ROUNDING


def _score_changes(
    activities: Activities, rules: Rules, triggers: TimeTriggers, now: int, until: int | None
) -> int | None:
    decaying = _decaying(activities, rules)
    if not decaying:
        return None
    if any(rule.points < 0 for rule in decaying):
        return _first_change(activities, rules, triggers, decaying, now, until)
    threshold = _next_threshold(triggers, engagement_score(activities, rules, from_microseconds(now)))
    if threshold is None or _unrounded(threshold) <= 0:
        return None
    if until is not None and until > now:
        score = engagement_score(activities, rules, from_microseconds(until))
        if _holds(threshold, score):  # and so at every moment in between
            return _earliest_score_change(activities, rules, triggers, score, until)
    end = _decayed_at(activities, decaying, now)
    return _first_below(activities, rules, threshold, now, end)


def _decayed_at(activities: Activities, decaying: list[EngagementRule], now: int) -> int:
    """A moment at which what decays gives nothing that could be seen: 2^-30 of at most 1,000 points for 1,000 activities each."""
    longest = max(rule.half_life_us or 0 for rule in decaying)
    last = max(activities.moments_of(rule.activity)[-1] for rule in decaying)
    return max(now, last) + 40 * longest


def _first_below(activities: Activities, rules: Rules, threshold: ScoreThreshold, low: int, high: int) -> int | None:
    """The first microsecond in (low, high] at which a score that only falls no longer holds a mark that it holds at `low`."""

    def holds(at: int) -> bool:
        return _holds(threshold, engagement_score(activities, rules, from_microseconds(at)))

    if holds(high):
        return None
    return _find_change(
        holds, lambda at: _log_ratio(engagement_raw(activities, rules, at), _unrounded(threshold)), low, high
    )


def _log_ratio(score: float, threshold: float) -> float:
    """Nearly linear in time, since the score is a sum of exponentials."""
    return log2(score / threshold) if score > 0 and threshold > 0 else -inf if score <= 0 else inf


def _find_change(holds: Callable[[int], bool], distance: Callable[[int], float], low: int, high: int) -> int:
    """The first of (low, high] that does not hold, where all up to some moment do and none after it.

    By false position on `distance`, which has the sign of holding, and by halving in between, so that it ends in any case.
    """
    d_low, d_high = distance(low), distance(high)
    for step in range(400):
        if high - low <= 1:
            break
        guess = (low + high) // 2
        if step % 3 and isfinite(d_low) and isfinite(d_high) and d_low > d_high:
            part = max(0.0, min(1.0, d_low / (d_low - d_high)))
            guess = low + int((high - low) * part)
            guess += -2 if step % 3 == 1 and step > 1 else 2  # once on this side of the turn, once on the other
        guess = max(low + 1, min(high - 1, guess))
        if holds(guess):
            low, d_low = guess, distance(guess)
        else:
            high, d_high = guess, distance(guess)
    return high


def _first_change(
    activities: Activities,
    rules: Rules,
    triggers: TimeTriggers,
    decaying: list[EngagementRule],
    now: int,
    until: int | None,
) -> int | None:
    """The same for a score of rules that give and rules that take, which may fall and rise.

    In an interval each rule moves one way only, so its ends bound the sum. An interval in whose bounds no mark lies is passed over,
    any other is halved, the earlier half first.
    """
    thresholds = sorted({_unrounded(threshold) for threshold in triggers.thresholds})
    decayed = _decayed_at(activities, decaying, now)
    end = decayed if until is None else min(decayed, max(until, now))

    def states(at: int) -> tuple[bool, ...]:
        score = engagement_score(activities, rules, from_microseconds(at))
        return tuple(_holds(threshold, score) for threshold in triggers.thresholds)

    def bounds(low: int, high: int) -> tuple[float, float]:
        ends = [
            (engagement_points(rule, activities, low), engagement_points(rule, activities, high))
            for rule in rules.engagement
        ]
        return fsum(min(pair) for pair in ends) - _SLACK, fsum(max(pair) for pair in ends) + _SLACK

    waiting = [(now, end)]
    steps = 0
    while waiting:
        low, high = waiting.pop()
        steps += 1
        least, most = bounds(low, high)
        if not any(least <= threshold <= most for threshold in thresholds):
            continue
        if high - low <= 1:
            if states(low) != states(high):
                return high
            continue
        if steps > _STEPS_MAX:
            return low if low > now else high
        middle = (low + high) // 2
        waiting += [(middle, high), (low, middle)]
    return None if end == decayed else _earliest_crossing(activities, rules, triggers, end)
