"""Business time against a slow reading of its definition: a minute is open when the wall clock then shows an open time."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sla_monitor.domain.business_time import (
    Calendar,
    NoOpenTime,
    Range,
    add,
    add_business_days,
    explain,
    explain_business_days,
    longest_closed_days,
    open_time_between,
)

CHICAGO = ZoneInfo("America/Chicago")
MINUTE = timedelta(minutes=1)


def week(**ranges: str) -> tuple[tuple[Range, ...], ...]:
    """`week(mon="9-12 13-17")`, hours or H:MM."""
    return tuple(
        tuple(_range(text) for text in ranges.get(day, "").split())
        for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    )


def _range(text: str) -> Range:
    start, end = (_seconds(part) for part in text.split("-"))
    return Range(start, end)


def _seconds(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 3600 + int(minutes or 0) * 60


def weekdays(hours: str) -> tuple[tuple[Range, ...], ...]:
    return week(mon=hours, tue=hours, wed=hours, thu=hours, fri=hours)


def at(text: str, zone: ZoneInfo = CHICAGO) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


OFFICE = Calendar(CHICAGO, weekdays("10-18"))


def test_an_hour_from_saturday_afternoon_is_due_on_monday_at_eleven() -> None:
    assert add(OFFICE, at("2027-01-02T16:00"), timedelta(hours=1)) == at("2027-01-04T11:00")


def test_time_used_up_exactly_at_the_close_is_due_then_and_not_at_the_next_opening() -> None:
    assert add(OFFICE, at("2027-01-04T16:00"), timedelta(hours=2)) == at("2027-01-04T18:00")
    assert add(OFFICE, at("2027-01-04T16:00"), timedelta(hours=2, microseconds=1)) == at(
        "2027-01-05T10:00:00.000001"
    )


def test_lunch_is_no_open_time() -> None:
    calendar = Calendar(CHICAGO, weekdays("9-12 13-17"))
    assert add(calendar, at("2027-01-04T11:30"), timedelta(hours=1)) == at("2027-01-04T13:30")
    assert add(calendar, at("2027-01-04T12:15"), timedelta(hours=1)) == at("2027-01-04T14:00")


def test_a_holiday_is_passed_over_and_named_in_the_explanation() -> None:
    calendar = Calendar(CHICAGO, weekdays("10-18"), {date(2027, 1, 1): "New Year's Day"})
    due = explain(calendar, at("2026-12-31T16:00"), timedelta(hours=4))
    assert due.at == at("2027-01-04T12:00")
    assert [(step.kind, step.why) for step in due.steps] == [
        ("open", None),
        ("closed", "New Year's Day"),
        ("open", None),
    ]
    assert [step.left for step in due.steps] == [timedelta(hours=2), timedelta(hours=2), timedelta()]


@pytest.mark.parametrize(
    ("start", "amount_h", "due"),
    [
        # 14 March 2027: 02:00 becomes 03:00. Open 01:00-05:00 is three hours that day.
        ("2027-03-14T01:00", 2, "2027-03-14T04:00"),
        ("2027-03-14T01:00", 3, "2027-03-14T05:00"),
        ("2027-03-14T01:00", 4, "2027-03-15T02:00"),
        # 7 November 2027: 02:00 becomes 01:00 again. Open 01:00-05:00 is five hours that day.
        ("2027-11-07T01:00", 5, "2027-11-07T05:00"),
        ("2027-11-07T01:00", 3, "2027-11-07T03:00"),
    ],
)
def test_changes_of_the_clock_count_in_real_hours(start: str, amount_h: int, due: str) -> None:
    night = Calendar(CHICAGO, (*weekdays("1-5")[:5], weekdays("1-5")[0], weekdays("1-5")[0]))
    assert add(night, at(start), timedelta(hours=amount_h)) == at(due)


def test_a_range_that_begins_inside_the_skipped_hour_opens_when_the_clock_has_skipped_it() -> None:
    calendar = Calendar(CHICAGO, week(sun="2:30-4"))
    assert open_time_between(calendar, at("2027-03-14T00:00"), at("2027-03-15T00:00")) == timedelta(hours=1)


def test_a_date_that_a_zone_never_had_is_no_day() -> None:
    apia = ZoneInfo("Pacific/Apia")  # went from 29 to 31 December 2011
    every = Calendar(apia, tuple((Range(0, 86_400),) for _ in range(7)))
    assert add_business_days(every, at("2011-12-29T12:00", apia), 1) == at("2012-01-01T00:00", apia)


def test_business_days_end_at_the_close_of_the_last_of_them() -> None:
    calendar = Calendar(CHICAGO, weekdays("9-12 13-17"), {date(2027, 1, 18): "Martin Luther King Day"})
    assert add_business_days(calendar, at("2027-01-15T08:00"), 1) == at("2027-01-19T17:00")
    assert add_business_days(calendar, at("2027-01-16T08:00"), 10) == at("2027-02-01T17:00")
    explained = explain_business_days(calendar, at("2027-01-15T08:00"), 2)
    assert explained.at == at("2027-01-20T17:00")
    assert [step.kind for step in explained.steps] == ["closed", "open", "open"]


def test_a_calendar_that_never_opens_is_refused_and_not_searched_for_ever() -> None:
    shut = Calendar(CHICAGO, week())
    with pytest.raises(NoOpenTime):
        add(shut, at("2027-01-04T16:00"), MINUTE)
    with pytest.raises(NoOpenTime):
        add_business_days(shut, at("2027-01-04T16:00"), 1)
    with pytest.raises(NoOpenTime):
        add(Calendar(CHICAGO, week(mon="10-10:01")), at("2027-01-04T16:00"), timedelta(days=30))


def test_closed_days_in_succession_are_counted() -> None:
    assert longest_closed_days(OFFICE, date(2027, 1, 1), date(2027, 1, 31)) == 2


ZONES = ("America/Chicago", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca", "UTC")
EDGES = (
    date(2027, 3, 13),
    date(2027, 11, 6),
    date(2027, 3, 27),
    date(2027, 10, 30),
    date(2027, 4, 3),
    date(2027, 10, 2),
    date(2027, 1, 1),
    date(2027, 2, 6),
)


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    days = []
    for _ in range(7):
        cuts = sorted(draw(st.sets(st.integers(0, 96), max_size=6)))
        days.append(tuple(Range(a * 900, b * 900) for a, b in zip(cuts[::2], cuts[1::2], strict=False)))
    assume(any(days))
    zone = ZoneInfo(draw(st.sampled_from(ZONES)))
    closed = draw(st.sets(st.integers(-2, 12), max_size=4))
    base = draw(st.sampled_from(EDGES))
    return Calendar(zone, tuple(days), {base + timedelta(days=number): "closed" for number in closed})


def starts() -> st.SearchStrategy[datetime]:
    return st.builds(
        lambda day, minutes: datetime.combine(day, time.min, UTC) + minutes * MINUTE,
        st.sampled_from(EDGES),
        st.integers(0, 3 * 1440),
    )


def slowly_open(calendar: Calendar, moment: datetime) -> bool:
    wall = moment.astimezone(calendar.zone)
    second = wall.hour * 3600 + wall.minute * 60
    return wall.date() not in calendar.closed and any(
        one.start_s <= second < one.end_s for one in calendar.week[wall.weekday()]
    )


def slowly_due(calendar: Calendar, start: datetime, minutes: int) -> datetime | None:
    """Minute by minute; None if it takes more than three weeks."""
    moment = start
    for _ in range(21 * 1440):
        minutes -= slowly_open(calendar, moment)
        moment += MINUTE
        if minutes == 0:
            return moment
    return None


@given(calendars(), starts(), st.integers(1, 2000))
@settings(max_examples=60, deadline=None)
def test_due_is_what_counting_minutes_gives(calendar: Calendar, start: datetime, minutes: int) -> None:
    expected = slowly_due(calendar, start, minutes)
    assume(expected is not None)
    assert add(calendar, start, minutes * MINUTE) == expected


@given(calendars(), starts(), st.integers(0, 4 * 1440))
@settings(max_examples=60, deadline=None)
def test_open_time_is_what_counting_minutes_gives(calendar: Calendar, start: datetime, minutes: int) -> None:
    counted = sum(slowly_open(calendar, start + number * MINUTE) for number in range(minutes))
    assert open_time_between(calendar, start, start + minutes * MINUTE) == counted * MINUTE


amounts = st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(hours=60))


@given(calendars(), starts(), amounts)
@settings(max_examples=100, deadline=None)
def test_between_start_and_due_lies_exactly_the_amount(
    calendar: Calendar, start: datetime, amount: timedelta
) -> None:
    assert open_time_between(calendar, start, add(calendar, start, amount)) == amount


@given(calendars(), starts(), st.timedeltas(timedelta(), timedelta(days=3)), amounts)
@settings(max_examples=100, deadline=None)
def test_who_starts_later_is_never_due_earlier(
    calendar: Calendar, start: datetime, later: timedelta, amount: timedelta
) -> None:
    assert add(calendar, start, amount) <= add(calendar, start + later, amount)


@given(calendars(), starts(), amounts, amounts)
@settings(max_examples=100, deadline=None)
def test_two_amounts_one_after_the_other_are_their_sum(
    calendar: Calendar, start: datetime, first: timedelta, second: timedelta
) -> None:
    assert add(calendar, add(calendar, start, first), second) == add(calendar, start, first + second)


@given(calendars(), starts(), amounts)
@settings(max_examples=60, deadline=None)
def test_the_explanation_tells_the_same_due_and_every_stretch_that_was_used(
    calendar: Calendar, start: datetime, amount: timedelta
) -> None:
    due = explain(calendar, start, amount)
    used = [step for step in due.steps if step.kind == "open"]
    assert due.at == add(calendar, start, amount) == used[-1].end
    assert sum((step.end - step.start for step in used), timedelta()) == amount
    assert used[-1].left == timedelta()


@given(calendars(), starts(), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_business_days_count_days_that_open(calendar: Calendar, start: datetime, days: int) -> None:
    due = add_business_days(calendar, start, days)
    first = start.astimezone(calendar.zone).date()
    last = (due - timedelta(microseconds=1)).astimezone(calendar.zone).date()
    opened = [
        first + timedelta(days=number)
        for number in range(1, (last - first).days + 1)
        if open_time_between(
            calendar,
            datetime.combine(first + timedelta(days=number), time.min, calendar.zone).astimezone(UTC),
            datetime.combine(first + timedelta(days=number + 1), time.min, calendar.zone).astimezone(UTC),
        )
    ]
    assert len(opened) == days
    assert opened[-1] == last
