"""When an attempt is made: the waits between attempts, what a receiver may ask for, quiet hours, and the digest of a named day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo

from accord.terms.week import DAY_S, Week

WAITS = tuple(
    timedelta(**wait)
    for wait in (
        {"seconds": 5},
        {"minutes": 5},
        {"minutes": 30},
        {"hours": 2},
        {"hours": 5},
        {"hours": 10},
        {"hours": 10},
    )
)
"""Between the attempts, the first of which is made at once: eight in 27 h 35 min."""

ATTEMPTS_MAX = len(WAITS) + 1
JITTER_MAX = 0.1
"""By how much of itself a wait is longer at most."""
RETRY_AFTER_MAX = timedelta(hours=24)
"""A receiver may ask for a longer wait, up to this."""
PACED_MAX = timedelta(days=3)
"""For so long a delivery is held back by a receiver that answers 429; then it is dead."""
UNCERTAIN_MAX = 3
"""So often something is sent again that may have arrived."""
FAILING_MAX = timedelta(days=5)
"""After so long without a success a subscription is disabled."""
FAILING_GAP_MAX = timedelta(days=2)
"""Failures that are further apart are not of one run: in between nothing was tried."""

_DIGITS = re.compile(r"[0-9]{1,15}", re.ASCII)


def next_attempt_at(attempts: int, now: datetime, jitter: float, retry_after: timedelta | None) -> datetime | None:
    """When the attempt after so many is made, None after the last. `jitter` is from 0 to 1; `retry_after` only lengthens the wait."""
    if attempts >= ATTEMPTS_MAX:
        return None
    wait = WAITS[attempts - 1] * (1 + JITTER_MAX * jitter)
    return now + max(wait, retry_after or timedelta())


def parse_retry_after(values: Sequence[str], now: datetime) -> timedelta | None:
    """The wait that `Retry-After` asks for, at most RETRY_AFTER_MAX; None for anything but one well-formed value that lies ahead."""
    if len(values) != 1:
        return None
    text = values[0].strip()
    if _DIGITS.fullmatch(text):
        return min(timedelta(seconds=min(int(text), 10**7)), RETRY_AFTER_MAX)
    try:
        moment = parsedate_to_datetime(text)
        wait = moment.replace(tzinfo=moment.tzinfo or UTC) - now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(wait, RETRY_AFTER_MAX) if wait > timedelta() else None


def failing_run_since(failing_since: datetime | None, last_failed_at: datetime | None, now: datetime) -> datetime:
    """The beginning of the run of failures that one at `now` belongs to."""
    if failing_since is None or last_failed_at is None or now - last_failed_at > FAILING_GAP_MAX:
        return now
    return failing_since


def is_failing_too_long(since: datetime, now: datetime) -> bool:
    """Whether a run of failures has lasted so long that its subscription is disabled."""
    return now - since >= FAILING_MAX


def quiet_until(week: Week, zone: ZoneInfo, now: datetime) -> datetime | None:
    """When the quiet hours end in which `now` lies; None outside of them. The hours are those of a clock on the reader's wall.
    Hours that join are one."""
    local = now.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    end = wall
    for _ in range(_RANGES_JOINED_MAX):
        found = _end_of_range(week, end)
        if found is None or found - wall >= timedelta(days=7):
            break
        end = found
    if end == wall:
        return None
    moment = end.replace(tzinfo=zone).astimezone(UTC)
    # Where the clock is set back an hour comes twice, and the end that is meant lies ahead.
    return moment if moment > now else end.replace(tzinfo=zone, fold=1).astimezone(UTC)


_RANGES_JOINED_MAX = 7 * 24 + 1


def _end_of_range(week: Week, wall: datetime) -> datetime | None:
    midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
    for days_before in (0, 1):
        day = midnight - timedelta(days=days_before)
        elapsed_s = (wall - day).total_seconds()
        for hours in week[day.weekday()]:
            if hours.start_s <= elapsed_s < hours.end_s:
                return day + timedelta(seconds=hours.end_s)
    return None


def is_quiet_throughout(week: Week) -> bool:
    """Whether the hours leave no moment of a week."""
    covered = sorted(
        (weekday * DAY_S + hours.start_s, weekday * DAY_S + hours.end_s)
        for weekday, day in enumerate(week)
        for hours in day
    )
    reached = max((end - 7 * DAY_S for _, end in covered), default=0)
    for start, end in covered:
        if start > max(reached, 0):
            return False
        reached = max(reached, end)
    return reached >= 7 * DAY_S


def next_digest(at: time, zone: ZoneInfo, now: datetime) -> tuple[date, datetime]:
    """The day that the next digest after `now` is named by, and its moment. A moment is always reckoned from its day, so lateness does not
    add up."""
    day = now.astimezone(zone).date()
    while True:
        moment = datetime.combine(day, at, zone).astimezone(UTC)
        if moment > now:
            return day, moment
        day += timedelta(days=1)
