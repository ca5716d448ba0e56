"""Diagnosis: terms that sum to the gap to the last cent, also where something is zero or below."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.domain.diagnosis import Chain, split_gap


def chain(volume: int, conversion: str, deal: int) -> Chain:
    """Leads, the share of them that was won, all of it in the period, and the deal."""
    won = volume * Fraction(conversion)
    return Chain((Fraction(volume), won), won, won * deal)


def split(planned: Chain, actual: Chain) -> tuple[str, list[float]]:
    """The method, and volume, conversion, cycle time and deal size in whole units."""
    gap = round((actual.revenue - planned.revenue) * 100)
    found = split_gap(planned, actual, gap, 100)
    assert sum(found.terms) == gap
    return found.method, [term / 100 for term in found.terms]


NOTHING = Chain((Fraction(0), Fraction(0)), Fraction(0), Fraction(0))


@pytest.mark.parametrize(
    ("planned", "actual", "method", "terms"),
    [
        (chain(100, "0.20", 500), chain(120, "0.15", 600), "logarithmic_mean", [1895.21, -2990.42, 0, 1895.21]),
        (chain(100, "0.20", 500), chain(80, "0.25", 500), "logarithmic_mean", [-2231.44, 2231.44, 0, 0]),
        (chain(20, "0.2", 1000), NOTHING, "first_zero_factor", [-4000, 0, 0, 0]),
        (NOTHING, chain(40, "0.1", 500), "first_zero_factor", [2000, 0, 0, 0]),
        (
            chain(50, "0.1", 1000),
            Chain((Fraction(50), Fraction(0)), Fraction(0), Fraction(0)),
            "first_zero_factor",
            [0, -5000, 0, 0],
        ),
        (NOTHING, NOTHING, "nothing", [0, 0, 0, 0]),
    ],
)
def test_known_gaps(planned: Chain, actual: Chain, method: str, terms: list[float]) -> None:
    assert split(planned, actual) == (method, terms)


def test_credit_is_split_by_substitution() -> None:
    planned = chain(10, "0.1", 1000)
    actual = Chain((Fraction(10), Fraction(1)), Fraction(1), Fraction(-200))
    assert split(planned, actual) == ("substitution", [0, 0, 0, -1200])


def test_wins_of_leads_that_were_not_due_are_cycle_time() -> None:
    planned = chain(10, "0.2", 1000)
    early = Chain((Fraction(10), Fraction(0)), Fraction(4), Fraction(4000))
    assert split(planned, early) == ("logarithmic_mean", [0, 0, 2000, 0])
    unplanned_moment = Chain((Fraction(0), Fraction(0)), Fraction(4), Fraction(4000))
    assert split(planned, unplanned_moment) == ("logarithmic_mean", [0, 0, 2000, 0])


def test_due_leads_that_were_won_later_are_cycle_time() -> None:
    planned = chain(10, "0.4", 1000)
    late = Chain((Fraction(10), Fraction(4)), Fraction(2), Fraction(2000))
    method, (volume, conversion, cycle, deal) = split(planned, late)
    assert (method, volume, conversion, cycle, deal) == ("logarithmic_mean", 0, 0, -2000, 0)


def test_nearly_equal_totals_keep_their_terms() -> None:
    planned = Chain((Fraction(100), Fraction(20)), Fraction(20), Fraction("10000.001"))
    _, (volume, conversion, cycle, deal) = split(planned, chain(80, "0.25", 500))
    assert (volume, conversion, cycle, deal) == (-2231.44, 2231.44, 0, 0)


counts = st.lists(st.integers(0, 200), min_size=3, max_size=3).map(lambda found: sorted(found, reverse=True))


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    reached = draw(counts)
    wins = draw(st.integers(0, 50))
    revenue = Fraction(draw(st.integers(-(10**6), 10**9)), 100) if wins else Fraction(0)
    return Chain(tuple(Fraction(leads) for leads in reached), Fraction(wins), revenue)


@st.composite
def plans(draw: st.DrawFn) -> Chain:
    volume = draw(st.fractions(0, 5000, max_denominator=100))
    first, second = draw(st.lists(st.fractions(Fraction(1, 100), 1, max_denominator=100), min_size=2, max_size=2))
    won = volume * first * second
    return Chain((volume, volume * first, won), won, won * draw(st.integers(1, 10**5)))


@given(plans(), chains())
def test_terms_sum_to_the_gap(planned: Chain, actual: Chain) -> None:
    split(planned, actual)


@given(plans(), plans())
def test_split_of_the_way_back_is_the_mirror(one: Chain, other: Chain) -> None:
    there, back = split(one, other)[1], split(other, one)[1]
    assert [a + b for a, b in zip(there, back, strict=True)] == pytest.approx([0] * 5, abs=0.011)
