"""The pipeline: velocity without a divisor, and a waterfall that lands to the last cent and lead."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.domain.definition_view import Stage, order_stages
from metrics.domain.pipeline import ClosedDeals, DealState, Line, Scope, TermName, build_waterfall, measure_velocity

DAY_US = 86_400_000_000
STAGES = order_stages(
    1,
    [
        Stage("sql", 0, "open"),
        Stage("opportunity", 1, "open"),
        Stage("contract", 2, "open"),
        Stage("won", 3, "won"),
        Stage("lost", 4, "lost"),
        Stage("recycled", 5, "recycled"),
        Stage("disqualified", 6, "disqualified"),
    ],
)
MARCH, APRIL = date(2027, 3, 15), date(2027, 4, 15)


def deal(
    amount: int | None, stage: str = "opportunity", close: date | None = MARCH, currency: str = "USD"
) -> DealState:
    return DealState(stage, None if amount is None else Decimal(amount), None if amount is None else currency, close)


# A grows and is won, B is lost, C shrinks, D slips, E moves back, F comes in, G comes in and is lost.
DEALS = [
    (UUID(int=number), before, after)
    for number, (before, after) in enumerate(
        [
            (deal(10), deal(12, "won")),
            (deal(20), deal(20, "lost")),
            (deal(30), deal(25)),
            (deal(40), deal(40, close=APRIL)),
            (deal(50), deal(50, "sql")),
            (None, deal(15)),
            (None, deal(5, "lost")),
        ]
    )
]


def amounts(line: Line) -> dict[TermName, tuple[int, int]]:
    return {name: (leads, int(amount)) for name, (behind, leads, amount) in line.terms.items() if behind}


def test_waterfall_compares_the_two_ends() -> None:
    (line,), _ = build_waterfall(STAGES, Scope("opportunity"), DEALS)
    assert (line.opening_leads, line.opening_amount, line.closing_leads, line.closing_amount) == (5, 150, 3, 80)
    assert amounts(line) == {
        "came_in": (1, 15),
        "grew": (0, 2),
        "shrank": (0, -5),
        "won": (-1, -12),
        "lost": (-1, -20),
        "moved_back": (-1, -50),
    }


def test_deal_that_is_expected_later_has_slipped_out_of_the_month() -> None:
    scope = Scope("opportunity", date(2027, 3, 1), date(2027, 4, 1))
    (line,), _ = build_waterfall(STAGES, scope, DEALS)
    assert amounts(line)["slipped"] == (-1, -40)
    assert (line.closing_leads, line.closing_amount) == (2, 40)
    (april,), _ = build_waterfall(STAGES, Scope("opportunity", date(2027, 4, 1), date(2027, 5, 1)), DEALS)
    assert amounts(april) == {"pulled_in": (1, 40)}


def test_move_between_open_stages_stays_in_the_whole_pipeline() -> None:
    deals = [(UUID(int=1), deal(10, "sql"), deal(10, "contract")), (UUID(int=2), deal(7, "contract"), deal(7, "sql"))]
    (line,), changes = build_waterfall(STAGES, Scope(), deals)
    assert (changes, line.closing_amount) == ([], 17)
    (line,), _ = build_waterfall(STAGES, Scope("sql"), deals)
    assert amounts(line) == {"came_in": (1, 7), "moved_on": (-1, -10)}


def test_currencies_stand_on_lines_of_their_own() -> None:
    deals = [
        (UUID(int=1), deal(50), deal(50)),
        (UUID(int=2), deal(50, currency="EUR"), deal(50, currency="EUR")),
        (UUID(int=3), deal(None), deal(9)),
    ]
    lines, _ = build_waterfall(STAGES, Scope(), deals)
    assert [(line.currency, line.closing_leads, line.closing_amount) for line in lines] == [
        ("EUR", 1, 50),
        ("USD", 2, 59),
        (None, 0, 0),
    ]
    assert amounts(lines[1]) == {"revalued": (1, 9)}
    assert amounts(lines[2]) == {"revalued": (-1, 0)}


states = (
    st.none()
    | st.builds(
        DealState,
        st.sampled_from([stage.key for stage in STAGES.by_rank] + ["retired"]),
        st.decimals(-100, 1000, places=2),
        st.sampled_from(["USD", "EUR"]),
        st.sampled_from([None, MARCH, APRIL]),
    )
    | st.builds(DealState, st.sampled_from(["sql", "won"]), st.none(), st.none(), st.just(MARCH))
)
scopes = st.builds(
    Scope,
    st.sampled_from([None, "sql", "opportunity"]),
    st.sampled_from([None, date(2027, 3, 1), date(2027, 4, 1)]),
    st.sampled_from([None, date(2027, 5, 1)]),
)


@given(scopes, st.lists(st.tuples(states, states), max_size=12))
def test_opening_and_terms_sum_to_closing(scope: Scope, pairs: list[tuple[DealState | None, DealState | None]]) -> None:
    deals = [(UUID(int=number), before, after) for number, (before, after) in enumerate(pairs)]
    lines, changes = build_waterfall(STAGES, scope, deals)
    for line in lines:
        leads = sum(change for _, change, _ in line.terms.values())
        amount = sum((amount for _, _, amount in line.terms.values()), Decimal(0))
        assert line.opening_leads + leads == line.closing_leads
        assert line.opening_amount + amount == line.closing_amount
        for name, (behind, _, _) in line.terms.items():
            assert behind == len({c.lead_id for c in changes if (c.currency, c.term) == (line.currency, name)})


@pytest.mark.parametrize(
    ("closed", "expected"),
    [
        (ClosedDeals(0, 0, ()), (None, "no_closed_deal")),
        (ClosedDeals(0, 5, ()), (Fraction(0), None)),
        (ClosedDeals(1, 1, (0,)), (None, "cycle_of_zero_days")),
        (ClosedDeals(2, 2, (20 * DAY_US, 40 * DAY_US)), (Fraction(5), None)),
    ],
)
def test_velocity_without_a_divisor_has_a_reason(closed: ClosedDeals, expected: object) -> None:
    assert measure_velocity(Decimal(300), closed) == expected
