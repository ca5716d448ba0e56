"""Waits, quiet hours and digests on the reader's clock, as pure functions."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.notifications.domain.schedule import (
    ATTEMPTS_MAX,
    RETRY_AFTER_MAX,
    WAITS,
    is_quiet_throughout,
    next_attempt_at,
    next_digest,
    parse_retry_after,
    quiet_until,
)
from accord.terms.week import parse_week

NOW = datetime(2027, 5, 3, 12, tzinfo=UTC)
NIGHT = parse_week({"mon-sun": ["22:00-07:00"]})
KATHMANDU = ZoneInfo("Asia/Kathmandu")
CHICAGO = ZoneInfo("America/Chicago")


def test_eight_attempts_take_27_hours_and_35_minutes():
    assert ATTEMPTS_MAX == 8
    assert sum(WAITS, timedelta()) == timedelta(hours=27, minutes=35, seconds=5)
    assert next_attempt_at(8, NOW, 0.0, None) is None


@given(st.integers(1, 7), st.floats(0, 1), st.none() | st.timedeltas(timedelta(), RETRY_AFTER_MAX))
def test_wait_is_the_schedules_or_longer(attempts, jitter, retry_after):
    at = next_attempt_at(attempts, NOW, jitter, retry_after)
    assert at is not None
    assert at - NOW >= WAITS[attempts - 1]
    assert at - NOW <= max(WAITS[attempts - 1] * 1.1, retry_after or timedelta())


@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_retry_after_is_read_or_passed_over(values):
    found = parse_retry_after(values, NOW)
    assert found is None or timedelta() <= found <= RETRY_AFTER_MAX


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("9999999999", 86_400),
        ("9" * 15, 86_400),
        ("9" * 16, None),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("120junk", None),
        ("Mon, 03 May 2027 12:10:00 GMT", 600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("Mon, 03 May 9999 12:10:00 GMT", 86_400),
        ("Mon, 99 May 2027 12:10:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_ahead(text, seconds):
    found = parse_retry_after([text], NOW)
    assert found == (None if seconds is None else timedelta(seconds=seconds))
    assert parse_retry_after([text, text], NOW) is None


@pytest.mark.parametrize(
    ("local", "until"),
    [
        ("2027-05-03T21:59:59", None),
        ("2027-05-03T22:00:00", "2027-05-04T07:00:00"),
        ("2027-05-03T23:00:00", "2027-05-04T07:00:00"),
        ("2027-05-04T00:00:00", "2027-05-04T07:00:00"),
        ("2027-05-04T06:59:59", "2027-05-04T07:00:00"),
        ("2027-05-04T07:00:00", None),
    ],
)
@pytest.mark.parametrize("zone", [KATHMANDU, CHICAGO])
def test_quiet_hours_are_those_of_the_readers_clock(local, until, zone):
    now = datetime.fromisoformat(local).replace(tzinfo=zone).astimezone(UTC)
    expected = None if until is None else datetime.fromisoformat(until).replace(tzinfo=zone).astimezone(UTC)
    assert quiet_until(NIGHT, zone, now) == expected


def test_night_of_the_clock_change_ends_at_seven_local():
    spring = datetime(2027, 3, 13, 23, tzinfo=CHICAGO).astimezone(UTC)
    assert quiet_until(NIGHT, CHICAGO, spring) == datetime(2027, 3, 14, 12, tzinfo=UTC)
    autumn = datetime(2027, 11, 6, 23, tzinfo=CHICAGO).astimezone(UTC)
    assert quiet_until(NIGHT, CHICAGO, autumn) == datetime(2027, 11, 7, 13, tzinfo=UTC)


def test_hour_that_comes_twice_ends_the_quiet_ahead_of_now():
    week = parse_week({"mon-sun": ["00:00-01:15"]})
    second_time = datetime(2027, 11, 7, 1, 10, tzinfo=CHICAGO, fold=1).astimezone(UTC)
    assert quiet_until(week, CHICAGO, second_time) == datetime(2027, 11, 7, 7, 15, tzinfo=UTC)


def test_nearly_whole_day_leaves_its_minute():
    week = parse_week({"mon-sun": ["02:00-01:59"]})
    assert not is_quiet_throughout(week)
    now = datetime(2027, 5, 3, 3, tzinfo=UTC)
    assert quiet_until(week, ZoneInfo("UTC"), now) == datetime(2027, 5, 4, 1, 59, tzinfo=UTC)
    assert quiet_until(week, ZoneInfo("UTC"), datetime(2027, 5, 4, 1, 59, 30, tzinfo=UTC)) is None


def test_hours_that_join_are_one():
    week = parse_week({"fri": ["18:00-24:00"], "sat-sun": ["00:00-24:00"], "mon": ["00:00-08:00"]})
    friday = datetime(2027, 5, 7, 19, tzinfo=UTC)
    assert quiet_until(week, ZoneInfo("UTC"), friday) == datetime(2027, 5, 10, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "terms",
    [
        {"mon-sun": ["00:00-24:00"]},
        {"mon-sun": ["22:00-10:00", "10:00-22:00"]},
        {"mon-sun": ["00:00-12:00", "12:00-24:00"]},
    ],
)
def test_week_without_a_free_moment_is_found(terms):
    assert is_quiet_throughout(parse_week(terms))


@given(
    st.datetimes(NOW.replace(tzinfo=None), NOW.replace(tzinfo=None) + timedelta(days=365)),
    st.sampled_from([KATHMANDU, CHICAGO]),
)
def test_quiet_ends_at_a_moment_that_is_not_quiet(at, zone):
    now = at.replace(tzinfo=UTC)
    until = quiet_until(NIGHT, zone, now)
    if until is not None:
        assert now < until <= now + timedelta(hours=11)
        assert quiet_until(NIGHT, zone, until) is None


def test_digests_are_named_by_their_day_and_lateness_does_not_add_up():
    now = datetime(2027, 3, 10, 3, 0, 40, tzinfo=UTC)
    for number in range(14):
        day, at = next_digest(time(8), CHICAGO, now)
        assert day == date(2027, 3, 10) + timedelta(days=number)
        assert at.astimezone(CHICAGO).time() == time(8)
        now = at + timedelta(seconds=40)


def test_digest_at_its_own_minute_is_the_next_days():
    at = datetime(2027, 5, 3, 13, tzinfo=UTC)
    assert next_digest(time(8), CHICAGO, at) == (date(2027, 5, 4), at + timedelta(days=1))
    assert next_digest(time(8), CHICAGO, at - timedelta(seconds=1)) == (date(2027, 5, 3), at)
