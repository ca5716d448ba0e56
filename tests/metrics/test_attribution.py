"""Attribution: known shares of each model, nothing to what came after the win, and no rest."""

from datetime import timedelta
from fractions import Fraction
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.contracts.values import utc
from metrics.domain.allocation import allocate
from metrics.domain.attribution import Model, Path, Touch, weigh_touches

WON = utc(2027, 3, 31)


def touches(*days_before: float) -> list[Touch]:
    return [Touch(WON - timedelta(days=days), UUID(int=number), "ads", "c1") for number, days in enumerate(days_before)]


def path(lead: float = 30, opportunity: float | None = 10) -> Path:
    made = None if opportunity is None else WON - timedelta(days=opportunity)
    return Path(WON, WON - timedelta(days=lead), made)


def share(model: Model, found: list[Touch], of: Path | None = None) -> list[float]:
    return [part / 100 for part in allocate(100_000, weigh_touches(model, of or path(), found))]


def test_time_decay_halves_every_week_and_gives_nothing_after_the_win() -> None:
    assert share("time_decay", touches(14, 7, 0, -1)) == [142.86, 285.71, 571.43, 0]


@pytest.mark.parametrize(
    ("days", "shares"), [((5,), [1000]), ((9, 5), [500, 500]), ((9, 7, 6, 5), [400, 100, 100, 400])]
)
def test_u_shape_favours_both_ends(days: tuple[float, ...], shares: list[float]) -> None:
    assert share("u_shaped", touches(*days)) == shares


def test_touch_with_two_roles_gets_both_weights() -> None:
    assert share("w_shaped", touches(40, 12, 5), path(lead=30, opportunity=10)) == [600, 300, 100]


def test_weight_of_a_missing_role_goes_to_the_present_ones_in_proportion() -> None:
    assert share("w_shaped", touches(40, 12, 5), path(lead=30, opportunity=None)) == [857.14, 71.43, 71.43]
    assert share("w_shaped", touches(20, 12), path(lead=30, opportunity=10)) == [500, 500]


def test_full_path_has_four_roles() -> None:
    assert share("full_path", touches(40, 30, 20, 10, 1), path(lead=30, opportunity=10)) == [225, 225, 100, 225, 225]


def test_ends_get_all_of_first_and_last() -> None:
    assert share("first", touches(9, 5, 1)) == [1000, 0, 0]
    assert share("last", touches(9, 5, 1, -2)) == [0, 0, 1000, 0]
    assert share("linear", touches(9, 5, 1, -2)) == [333.34, 333.33, 333.33, 0]


@given(
    st.sampled_from(get_args(Model)),
    st.lists(st.floats(-20, 400), max_size=8).map(lambda days: sorted(days, reverse=True)),
    st.floats(0, 400),
    st.none() | st.floats(0, 400),
)
def test_weights_sum_to_one_or_there_is_no_touch(
    model: Model, days: list[float], lead: float, opportunity: float | None
) -> None:
    found = touches(*days)
    weights = weigh_touches(model, path(lead, opportunity), found)
    assert all(weight >= 0 for weight in weights)
    assert all(weight == 0 for weight, touch in zip(weights, found, strict=True) if touch.at > WON)
    assert sum(weights, Fraction(0)) == any(touch.at <= WON for touch in found)
