"""Business time against plain examples, and against a slow reading of the wall clock minute by minute."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import cases

from accord.terms.week import Range, hours_in, range_in, week_in, weekdays_in
from sla_monitor.domain.business_time import Calendar, NoOpenTime, due, due_after_days, open_time_between, steps

CHICAGO = ZoneInfo("America/Chicago")
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def calendar(week, zone="America/Chicago", closed=()):
    return Calendar(ZoneInfo(zone), week_in(week), {day.toordinal(): "holiday" for day in closed})


def chicago(*parts: int, fold: int = 0) -> datetime:
    return datetime(*parts, tzinfo=CHICAGO, fold=fold)


OFFICE = calendar({"mon-fri": ["10:00-18:00"]})
LUNCH = calendar({"mon-fri": ["09:00-12:00", "13:00-17:00"], "sat": ["10:00-12:00"]})


def test_an_hour_from_saturday_afternoon_is_due_on_monday_an_hour_after_opening():
    assert due(OFFICE, chicago(2027, 1, 9, 16), HOUR) == chicago(2027, 1, 11, 11)


def test_the_clock_does_not_run_over_lunch():
    assert due(LUNCH, chicago(2027, 1, 4, 11, 30), HOUR) == chicago(2027, 1, 4, 13, 30)


def test_a_deadline_that_is_used_up_at_closing_is_due_at_closing():
    assert due(OFFICE, chicago(2027, 1, 4, 16), 2 * HOUR) == chicago(2027, 1, 4, 18)
    assert due(OFFICE, chicago(2027, 1, 4, 16), 2 * HOUR + MINUTE) == chicago(2027, 1, 5, 10, 1)


def test_holidays_are_passed_over():
    closed = calendar({"mon-fri": ["10:00-18:00"]}, closed=[date(2027, 1, 4)])
    assert due(closed, chicago(2027, 1, 2, 12), HOUR) == chicago(2027, 1, 5, 11)


def test_an_hour_that_the_change_to_summer_time_skips_is_not_open():
    nights = calendar({"sun": ["01:00-04:00"]})  # 2027-03-14: 02:00 becomes 03:00
    assert due(nights, chicago(2027, 3, 14, 1), 2 * HOUR) == chicago(2027, 3, 14, 4)
    assert open_time_between(nights, chicago(2027, 3, 14, 0), chicago(2027, 3, 14, 12)) == 2 * HOUR


def test_an_hour_that_comes_twice_when_summer_time_ends_is_open_twice():
    nights = calendar({"sun": ["01:00-03:00"]})  # 2027-11-07: 02:00 becomes 01:00
    assert due(nights, chicago(2027, 11, 7, 1), 2 * HOUR) == chicago(2027, 11, 7, 2)
    assert open_time_between(nights, chicago(2027, 11, 7, 0), chicago(2027, 11, 7, 12)) == 3 * HOUR


def test_a_working_day_over_a_clock_change_keeps_its_hours_by_the_wall():
    assert due(OFFICE, chicago(2027, 3, 12, 17), 2 * HOUR) == chicago(2027, 3, 15, 11)


def test_hours_over_midnight_belong_to_the_day_on_which_they_begin():
    night = calendar({"fri": ["22:00-06:00"]})
    assert due(night, chicago(2027, 1, 8, 23), 3 * HOUR) == chicago(2027, 1, 9, 2)
    assert due(night, chicago(2027, 1, 9, 5), 2 * HOUR) == chicago(2027, 1, 15, 23)
    off = calendar({"fri": ["22:00-06:00"]}, closed=[date(2027, 1, 8)])
    assert due(off, chicago(2027, 1, 8, 12), HOUR) == chicago(2027, 1, 15, 23)


def test_business_days_are_whole_days_that_open_after_the_start():
    assert due_after_days(OFFICE, chicago(2027, 1, 9, 16), 1) == chicago(2027, 1, 11, 18)
    assert due_after_days(OFFICE, chicago(2027, 1, 11, 10), 1) == chicago(2027, 1, 11, 18)
    assert due_after_days(OFFICE, chicago(2027, 1, 11, 10, 1), 1) == chicago(2027, 1, 12, 18)
    assert due_after_days(OFFICE, chicago(2027, 1, 11, 11), 10) == chicago(2027, 1, 25, 18)


def test_a_calendar_that_never_opens_is_refused_after_two_years():
    never = calendar({"sun": ["02:00-02:30"]}, closed=[date(2027, 1, 3) + timedelta(weeks=n) for n in range(110)])
    with pytest.raises(NoOpenTime):
        due(never, chicago(2027, 1, 1), HOUR)
    with pytest.raises(NoOpenTime):
        due_after_days(never, chicago(2027, 1, 1), 1)
    with pytest.raises(NoOpenTime):
        due(calendar({}), chicago(2027, 1, 1), HOUR)


def test_the_way_to_the_deadline_is_explained():
    told = steps(OFFICE, chicago(2027, 1, 8, 17, 30), 2 * HOUR)
    assert [(step.start, step.end, step.counted, step.why) for step in told] == [
        (chicago(2027, 1, 8, 17, 30), chicago(2027, 1, 8, 18), timedelta(minutes=30), "open"),
        (
            chicago(2027, 1, 8, 18),
            chicago(2027, 1, 11, 10),
            timedelta(0),
            "Saturday 2027-01-09 is closed; Sunday 2027-01-10 is closed",
        ),
        (chicago(2027, 1, 11, 10), chicago(2027, 1, 11, 11, 30), timedelta(minutes=90), "open"),
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mon", (0,)),
        ("mon-fri", (0, 1, 2, 3, 4)),
        ("sat-mon", (5, 6, 0)),
        ("mon,wed", (0, 2)),
        ("tue, sat-sun", (1, 5, 6)),
    ],
)
def test_weekdays_are_read_as_they_are_written(words, expected):
    assert weekdays_in(words) == expected


@pytest.mark.parametrize("words", ["", "monday", "mon-", "-fri", "mon-xxx", "mon,mon", "mon-wed,tue", "MON"])
def test_other_words_are_no_weekdays(words):
    with pytest.raises(ValueError, match="weekday"):
        weekdays_in(words)


def test_ranges_are_read_as_they_are_written():
    assert range_in("09:00-12:30") == Range(9 * 3600, 12 * 3600 + 1800)
    assert range_in("22:00-06:00") == Range(22 * 3600, 30 * 3600)
    assert range_in("00:00-24:00") == Range(0, 86_400)


@pytest.mark.parametrize(
    "words", ["9:00-12:00", "09:00-25:00", "24:00-06:00", "09:00", "09:00-09:00", "09:00-12:60", "x"]
)
def test_other_words_are_no_range(words):
    with pytest.raises(ValueError, match=r"range|begins and ends"):
        range_in(words)


def test_ranges_that_overlap_are_refused():
    with pytest.raises(ValueError, match="overlap"):
        hours_in(["09:00-12:00", "11:00-13:00"])
    with pytest.raises(ValueError, match="twice"):
        week_in({"mon-fri": ["09:00-12:00"], "fri": ["13:00-14:00"]})


# --- Against a slow reading ---

ZONES = {
    "America/Chicago": [date(2027, 3, 14), date(2027, 11, 7)],
    "Europe/Berlin": [date(2027, 3, 28), date(2027, 10, 31)],
    "Australia/Lord_Howe": [date(2027, 4, 4), date(2027, 10, 3)],  # half an hour
    "Pacific/Apia": [date(2011, 12, 30)],  # a whole day that never was
    "Africa/Casablanca": [date(2027, 2, 7), date(2027, 3, 14)],
    "Asia/Kathmandu": [date(2027, 6, 1)],
    "UTC": [date(2027, 6, 1)],
}

clock_times = st.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")


@st.composite
def hours(draw):
    """One to three ranges of a weekday; the last may go over midnight."""
    marks = sorted(draw(st.sets(st.integers(0, 95), min_size=2, max_size=6)))
    marks = marks[: len(marks) // 2 * 2]
    ranges = list(zip(marks[::2], marks[1::2], strict=True))
    if draw(st.booleans()) and marks[-1] > 0:
        ranges[-1] = (ranges[-1][0], 96 + draw(st.integers(0, 30)))
        if ranges[-1][1] >= 96 + ranges[-1][0]:
            ranges[-1] = (ranges[-1][0], 96)
    return tuple(Range(start * 900, end * 900) for start, end in ranges)


@st.composite
def places(draw):
    """A calendar, and a moment near a change of its zone's clock."""
    name = draw(st.sampled_from(sorted(ZONES)))
    near = draw(st.sampled_from(ZONES[name]))
    week = tuple(draw(hours()) if draw(st.booleans()) else () for _ in range(7))
    if not any(week):
        week = (draw(hours()),) * 7
    closed = {(near + timedelta(days=n)).toordinal(): "holiday" for n in draw(st.sets(st.integers(-3, 8), max_size=3))}
    at = datetime(near.year, near.month, near.day, tzinfo=UTC) + draw(st.integers(-4 * 1440, 2 * 1440)) * MINUTE
    return Calendar(ZoneInfo(name), week, closed), at


def a_night_reaches_into_the_next_day(calendar: Calendar) -> bool:
    pairs = zip(calendar.week, calendar.week[1:] + calendar.week[:1], strict=True)
    return any(night[-1].end_s - 86_400 > morning[0].start_s for night, morning in pairs if night and morning)


def is_open(calendar: Calendar, at: datetime) -> bool:
    """Whether the wall clock at a minute lies in a range of its day, or in one of the day before that goes over midnight."""
    local = at.astimezone(calendar.zone)
    since_midnight_s = local.hour * 3600 + local.minute * 60
    for days_back in (0, 1):
        day = local.date() - timedelta(days=days_back)
        if day.toordinal() in calendar.closed:
            continue
        at_s = since_midnight_s + days_back * 86_400
        if any(start_s <= at_s < end_s for start_s, end_s in calendar.week[day.weekday()]):
            return True
    return False


@settings(max_examples=cases(150), deadline=None)
@given(places(), st.integers(1, 900))
def test_due_is_what_a_slow_count_of_open_minutes_finds(place, minutes):
    calendar, start = place
    at, counted = start, 0
    for _ in range(6 * 1440):
        counted += is_open(calendar, at)
        at += MINUTE
        if counted == minutes:
            assert due(calendar, start, minutes * MINUTE) == at
            break
    assert open_time_between(calendar, start, at) == counted * MINUTE


@settings(max_examples=cases(200), deadline=None)
@given(places(), st.integers(1, 20_000_000_000), st.integers(0, 5_000_000_000))
def test_the_open_time_up_to_the_deadline_is_the_amount(place, amount_us, later_us):
    calendar, start = place
    start += timedelta(microseconds=later_us)
    amount = timedelta(microseconds=amount_us)
    until = due(calendar, start, amount)
    assert open_time_between(calendar, start, until) == amount
    told = steps(calendar, start, amount)
    assert sum((step.counted for step in told), timedelta()) == amount
    assert [told[0].start, told[-1].end] == [start, until]
    assert all(step.end == after.start for step, after in itertools.pairwise(told))


@settings(max_examples=cases(200), deadline=None)
@given(places(), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_later_start_or_a_greater_amount_is_never_due_earlier(place, amount, more, later):
    calendar, start = place
    base = due(calendar, start, amount * MINUTE)
    assert due(calendar, start, (amount + more) * MINUTE) >= base
    assert due(calendar, start + later * MINUTE, amount * MINUTE) >= base
    days = 1 + amount % 10
    whole = due_after_days(calendar, start, days)
    assert whole > start
    if not a_night_reaches_into_the_next_day(calendar):  # refused at the draft: whose hours they are is unclear
        assert due_after_days(calendar, start + later * MINUTE, days) >= whole
        assert due_after_days(calendar, start, days + 1) > whole


@settings(max_examples=cases(200), deadline=None)
@given(places(), st.integers(1, 5_000), st.integers(1, 5_000))
def test_amounts_and_stretches_add_up(place, first, second):
    calendar, start = place
    middle = due(calendar, start, first * MINUTE)
    end = due(calendar, middle, second * MINUTE)
    assert end == due(calendar, start, (first + second) * MINUTE)
    assert open_time_between(calendar, start, end) == open_time_between(calendar, start, middle) + open_time_between(
        calendar, middle, end
    )
