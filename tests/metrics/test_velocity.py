"""Velocity: every entry is finished, waiting or left by another exit."""

from hypothesis import given
from hypothesis import strategies as st

from metrics.domain.definition_view import Stage, order_stages
from metrics.domain.velocity import Durations, measure_stage, measure_stages, measure_step

STAGES = order_stages(
    1,
    [Stage("inquiry", 0, "open"), Stage("mql", 1, "open"), Stage("won", 2, "won"), Stage("recycled", 3, "recycled")],
)
ways = st.dictionaries(
    st.sampled_from([None, "mql", "won", "recycled"]),
    st.lists(st.integers(-10, 100), min_size=1, max_size=8),
    max_size=4,
)


@given(ways)
def test_every_entry_is_finished_waiting_or_left_in_each_step(
    by_exit: dict[str | None, list[int]],
) -> None:
    total = sum(len(found) for found in by_exit.values())
    in_stage, *transitions = measure_stage(STAGES, "inquiry", by_exit)
    assert in_stage.n + in_stage.waiting == total
    assert sum(transition.n for transition in transitions) == in_stage.n
    for transition in transitions:
        assert transition.n + transition.waiting + transition.left == total


@given(st.lists(st.integers(-100, 10**6), min_size=1))
def test_figures_of_finished_leads_are_ordered(finished: list[int]) -> None:
    found = measure_step("a", "b", Durations(finished))
    assert found.p50_us is not None
    assert found.p75_us is not None
    assert found.p90_us is not None
    assert min(finished) <= found.p50_us <= found.p75_us <= found.p90_us <= max(finished) == found.max_us
    assert found.km_median_us is not None
    assert found.km_median_us <= found.p50_us


def test_waiting_leads_lengthen_only_the_survival_median() -> None:
    alone, crowded = (
        measure_step("a", None, Durations([1, 2, 3])),
        measure_step("a", None, Durations([1, 2, 3], [2, 2])),
    )
    assert alone.p50_us == crowded.p50_us == 2
    assert alone.km_median_us == 2
    assert crowded.km_median_us == 3


def test_unentered_stage_is_listed_and_resting_stage_has_no_waiting() -> None:
    steps = measure_stages(STAGES, {"inquiry": {"won": [5], None: [9]}, "won": {None: [1]}})
    assert [(step.from_, step.to, step.n, step.waiting) for step in steps] == [
        ("inquiry", None, 1, 1),
        ("inquiry", "won", 1, 1),
        ("mql", None, 0, 0),
        ("recycled", None, 0, 0),
    ]


def test_reverted_win_has_a_duration_in_won() -> None:
    steps = measure_stages(STAGES, {"won": {"recycled": [7], None: [1, 1]}})
    assert [(step.from_, step.to, step.n, step.waiting) for step in steps if step.from_ == "won"] == [
        ("won", None, 1, 0),
        ("won", "recycled", 1, 0),
    ]
