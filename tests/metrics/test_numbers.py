"""Intervals, quantiles and survival: each formula against a slow computation of its definition."""

from fractions import Fraction
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.domain.intervals import wilson
from metrics.domain.quantiles import quantile
from metrics.domain.survival import km_median

durations = st.lists(st.integers(-5, 30), max_size=25)


@given(st.integers(1, 10**7), st.floats(0, 1))
def test_wilson_interval_contains_its_proportion(n: int, share: float) -> None:
    successes = round(n * share)
    interval = wilson(successes, n)
    assert interval is not None
    low, high = interval
    assert 0 <= low <= successes / n <= high <= 1


@given(st.integers(0, 500), st.integers(1, 500))
def test_more_leads_with_the_same_proportion_narrow_the_interval(successes: int, more: int) -> None:
    n = successes + more
    few, many = wilson(successes, n), wilson(successes * 10, n * 10)
    assert few is not None
    assert many is not None
    assert many[1] - many[0] < few[1] - few[0]


def test_wilson_interval_equals_published_values() -> None:
    # Newcombe 1998, table I: 1/29 is 0.0061 to 0.1718; 15/148 is 0.0624 to 0.1605; 81/263 is 0.2553 to 0.3662
    for successes, n, low, high in ((1, 29, 0.0061, 0.1718), (15, 148, 0.0624, 0.1605), (81, 263, 0.2553, 0.3662)):
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_zero_is_none_and_an_invalid_proportion_raises() -> None:
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(2, 1)


@given(st.lists(st.integers(-(10**12), 10**15), min_size=2, max_size=50))
def test_quartiles_equal_the_inclusive_method_of_the_standard_library(values: list[int]) -> None:
    ordered = sorted(values)
    expected = quantiles(ordered, n=4, method="inclusive")
    assert [quantile(ordered, q) for q in (0.25, 0.5, 0.75)] == pytest.approx(expected)


def test_quantile_of_no_duration_is_none_and_of_one_is_that_one() -> None:
    assert quantile([], 0.5) is None
    assert {quantile([7], q) for q in (0.0, 0.5, 0.9, 1.0)} == {7}


def km_median_by_definition(finished: list[int], censored: list[int]) -> int | None:
    survival = Fraction(1)
    for at in sorted(set(finished)):
        at_risk = sum(t >= at for t in [*finished, *censored])
        survival *= 1 - Fraction(finished.count(at), at_risk)
        if survival <= Fraction(1, 2):
            return at
    return None


@given(durations, durations)
def test_survival_median_equals_its_definition(finished: list[int], censored: list[int]) -> None:
    assert km_median(sorted(finished), sorted(censored)) == km_median_by_definition(finished, censored)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=40))
def test_survival_median_without_censoring_is_the_lower_median(finished: list[int]) -> None:
    ordered = sorted(finished)
    assert km_median(ordered, []) == ordered[(len(ordered) - 1) // 2]


def test_survival_median_with_most_leads_waiting_is_none() -> None:
    assert km_median([1, 2, 3], [10] * 20) is None


def test_survival_median_of_freireich_equals_the_published_value() -> None:
    # Freireich et al. 1963, the 6-MP arm as in Cox and Oakes 1984: median remission 23 weeks
    finished = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    assert km_median(finished, censored) == 23
