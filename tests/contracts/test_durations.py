"""Durations: ISO 8601 text in agreements, and back."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from accord.terms.durations import (
    DURATION_MAX,
    Duration,
    DurationText,
    describe_duration,
    format_duration,
    parse_duration,
)

durations = st.timedeltas(min_value=timedelta(), max_value=DURATION_MAX)


class Clause(BaseModel):
    within: Duration
    written: DurationText = "P1D"


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("PT0S", timedelta()),
        ("P30D", timedelta(days=30)),
        ("P2W", timedelta(days=14)),
        ("P1W1D", timedelta(days=8)),
        ("PT4H", timedelta(hours=4)),
        ("PT90M", timedelta(minutes=90)),
        ("P1DT12H30M5.25S", timedelta(days=1, hours=12, minutes=30, seconds=5.25)),
        ("PT0.000001S", timedelta(microseconds=1)),
    ],
)
def test_weeks_days_hours_minutes_and_seconds_are_read(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "PT",
        "P1DT",
        "1D",
        "p1d",
        "P-1D",
        "-P1D",
        "P1H",
        "PT1D",
        "P1.5D",
        "PT1,5S",
        "P1D ",
        "P1D\n",
        "PT1S1M",
        "P١D",
        "P" + "9" * 50 + "D",
        "P9999999999D",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no ISO 8601 duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["P1M", "P1Y", "P1Y2M", "P1M1D", "P1MT1M"])
def test_months_and_years_are_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ValueError, match="months and years have no fixed length"):
        parse_duration(text)


def test_more_than_a_hundred_years_is_refused() -> None:
    with pytest.raises(ValueError, match="hundred years"):
        parse_duration("P99999999D")


@given(durations)
def test_every_duration_comes_back_from_its_text(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(durations)
def test_a_model_reads_and_writes_it_as_text(duration: timedelta) -> None:
    clause = Clause(within=duration)
    assert Clause.model_validate_json(clause.model_dump_json()) == clause
    assert clause.model_dump(mode="json")["within"] == format_duration(duration)


def test_checked_text_stays_as_it_was_written() -> None:
    assert Clause.model_validate({"within": "P2W", "written": "P2W"}).model_dump() == {
        "within": "P14D",
        "written": "P2W",
    }


@pytest.mark.parametrize("value", ["P1M", 5, None, timedelta(seconds=-1), DURATION_MAX * 2])
def test_a_model_says_where_and_why(value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        Clause.model_validate({"within": value})
    problem = refused.value.errors()[0]
    assert problem["loc"] == ("within",)
    assert not problem["msg"].startswith("Value error")


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(), "0 seconds"),
        (timedelta(days=1), "1 day"),
        (timedelta(days=30), "30 days"),
        (timedelta(hours=1, minutes=30), "1 hour and 30 minutes"),
        (timedelta(days=1, hours=2, seconds=1), "1 day, 2 hours and 1 second"),
        (timedelta(seconds=0.5), "0.5 seconds"),
    ],
)
def test_a_duration_in_words(duration: timedelta, words: str) -> None:
    assert describe_duration(duration) == words


def test_business_time_is_written_in_hours_and_a_plan_in_weeks() -> None:
    assert describe_duration(timedelta(hours=36), largest="hours") == "36 hours"
    assert describe_duration(timedelta(days=15), largest="weeks") == "2 weeks and 1 day"


def test_a_negative_duration_has_neither_text_nor_words() -> None:
    for write in (format_duration, describe_duration):
        with pytest.raises(ValueError, match="not negative"):
            write(timedelta(seconds=-1))
