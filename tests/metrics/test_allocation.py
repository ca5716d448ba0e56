"""Allocation by largest remainder: no unit is lost, none is made, and a reversal is the mirror."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.domain.allocation import allocate

weights = st.lists(st.fractions(0, 100), min_size=1, max_size=12)


@given(st.integers(-(10**9), 10**9), weights)
def test_parts_sum_to_the_whole_and_a_negative_whole_is_the_mirror(total: int, shares: list[Fraction]) -> None:
    parts = allocate(total, shares)
    assert sum(parts) == total
    assert allocate(-total, shares) == [-part for part in parts]


@given(st.integers(0, 10**6), weights)
def test_no_part_is_a_whole_unit_from_its_exact_share(total: int, shares: list[Fraction]) -> None:
    whole = sum(shares)
    if whole:
        exact = [total * share / whole for share in shares]
        assert all(abs(part - share) < 1 for part, share in zip(allocate(total, shares), exact, strict=True))


@pytest.mark.parametrize(
    ("total", "shares", "parts"),
    [
        (10_000, (1, 1, 1), [3_334, 3_333, 3_333]),
        (-10_000, (1, 1, 1), [-3_334, -3_333, -3_333]),
        (5, (45, 55), [2, 3]),
        (1_003, (49, 51), [491, 512]),
        (1_000, (1, 1, 1), [334, 333, 333]),
        (7, (0, 0), [7, 0]),
    ],
)
def test_known_splits(total: int, shares: tuple[int, ...], parts: list[int]) -> None:
    assert allocate(total, [Fraction(share) for share in shares]) == parts


def test_negative_weight_is_refused() -> None:
    for shares in ([], [Fraction(-1), Fraction(2)]):
        with pytest.raises(ValueError, match="weights"):
            allocate(1, shares)
