"""The funnel: groups add up to the whole, later stages never count more leads, detours never count twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.terms.dimensions import Dimension
from metrics.domain.definition_view import Stage, Stages, order_stages, parse_stages
from metrics.domain.funnel import Funnel, Group, StagePath, Tally, compute_funnel, compute_reach, describe_funnel
from metrics.domain.report_query import Order, ReportQuery, Visit

TEMPLATE = order_stages(
    1,
    [
        Stage("inquiry", 0, "open"),
        Stage("mql", 1, "open"),
        Stage("sal", 2, "open"),
        Stage("won", 3, "won"),
        Stage("lost", 4, "lost"),
        Stage("recycled", 5, "recycled"),
    ],
)
KEYS = [stage.key for stage in TEMPLATE.by_rank]
orders: st.SearchStrategy[Order] = st.sampled_from(["any", "strict"])
visits: st.SearchStrategy[Visit] = st.sampled_from(["first", "last"])
by_source = (Dimension("source"),)


@st.composite
def paths(draw: st.DrawFn) -> StagePath:
    path = tuple(draw(st.lists(st.sampled_from([*KEYS, "retired"]), max_size=8)))
    counted = draw(st.none() | st.frozensets(st.integers(0, 7)))
    return StagePath(path, counted)


tallies = st.lists(
    st.builds(
        Tally,
        st.tuples(st.sampled_from(["website", "fair", None])),
        paths(),
        st.integers(1, 5),
        st.frozensets(st.sampled_from(["stage_before_capture"])),
    ),
    max_size=12,
)


def of(found: Funnel, stage: str) -> tuple[int, int]:
    (group,) = found.groups
    return next((count.entered, count.reached) for count in group.stages if count.stage.key == stage)


def alone(path: str, order: Order = "any", visit: Visit = "first") -> set[str]:
    return set(compute_reach(TEMPLATE, StagePath(tuple(path.split())), order, visit).reached)


@given(tallies, orders, visits)
def test_groups_add_up_to_the_whole(leads: list[Tally], order: Order, visit: Visit) -> None:
    split = compute_funnel(TEMPLATE, leads, ReportQuery(order=order, entry=visit, by=by_source))
    whole = compute_funnel(
        TEMPLATE, [Tally((), t.path, t.leads, t.anomalies) for t in leads], ReportQuery(order=order, entry=visit)
    )
    (total,) = whole.groups
    assert split.leads == whole.leads == total.leads == sum(tally.leads for tally in leads)
    assert split.anomalies == whole.anomalies
    for position, count in enumerate(total.stages):
        assert count.entered == sum(group.stages[position].entered for group in split.groups)
        assert count.reached == sum(group.stages[position].reached for group in split.groups)
    for exit_ in total.exits:
        assert exit_.entered == sum(e.entered for group in split.groups for e in group.exits if e.stage == exit_.stage)


@given(tallies, orders, visits)
def test_no_stage_is_reached_by_more_leads_than_the_one_before(leads: list[Tally], order: Order, visit: Visit) -> None:
    for group in compute_funnel(TEMPLATE, leads, ReportQuery(order=order, entry=visit, by=by_source)).groups:
        reached = [count.reached for count in group.stages]
        assert reached == sorted(reached, reverse=True)
        assert_conversions_fit(group)


def assert_conversions_fit(group: Group) -> None:
    for count in group.stages:
        assert count.reached <= group.leads
        assert count.entered <= group.leads
        for share, interval in (
            (count.conversion_from_previous, count.interval_95),
            (count.conversion_from_first, count.interval_95_from_first),
        ):
            assert (share is None) == (interval is None)
            assert share is None or interval is None or 0 <= interval[0] <= share <= interval[1] <= 1


@given(paths(), visits)
def test_strictly_reached_stage_is_reached_in_any_order_and_entered(path: StagePath, visit: Visit) -> None:
    strictly = compute_reach(TEMPLATE, path, "strict", visit)
    anyhow = compute_reach(TEMPLATE, path, "any", visit)
    assert strictly.reached <= anyhow.reached
    assert strictly.reached <= strictly.entered
    assert strictly.entered == anyhow.entered


@given(tallies, orders, visits)
def test_tallies_of_one_lead_or_many_give_the_same_funnel(leads: list[Tally], order: Order, visit: Visit) -> None:
    one_by_one = [Tally(t.group, t.path, 1, t.anomalies) for t in leads for _ in range(t.leads)]
    query = ReportQuery(order=order, entry=visit, by=by_source)
    assert compute_funnel(TEMPLATE, one_by_one, query) == compute_funnel(TEMPLATE, leads, query)


def test_lead_that_returns_counts_once_per_stage() -> None:
    found = compute_funnel(
        TEMPLATE,
        [Tally((), StagePath(("inquiry", "mql", "recycled", "mql", "recycled", "mql", "sal")), 1)],
        ReportQuery(),
    )
    assert [of(found, stage) for stage in ("inquiry", "mql", "sal", "won")] == [(1, 1), (1, 1), (1, 1), (0, 0)]
    assert {exit_.stage: exit_.entered for exit_ in found.groups[0].exits} == {"lost": 0, "recycled": 1}


def test_skipped_stage_is_reached_in_any_order_but_not_strictly() -> None:
    assert alone("inquiry sal won") == {"inquiry", "mql", "sal", "won"}
    assert alone("inquiry sal won", "strict") == {"inquiry"}


def test_lost_lead_reaches_no_further_stage() -> None:
    assert alone("inquiry lost") == {"inquiry"}


@given(paths(), visits)
def test_strict_order_finds_the_longest_subsequence_of_the_path(path: StagePath, visit: Visit) -> None:
    whole = StagePath(path.stages)
    open_stages = [stage.key for stage in TEMPLATE.sales_path if stage.kind == "open"]
    expected = set()
    for length in range(1, len(open_stages) + 1):
        rest = iter(whole.stages)
        if all(stage in rest for stage in open_stages[:length]):
            expected = set(open_stages[:length])
            if length == len(open_stages) and "won" in rest:
                expected.add("won")
    assert compute_reach(TEMPLATE, whole, "strict", visit).reached == expected


@pytest.mark.parametrize("visit", ["first", "last"])
def test_lead_that_came_back_reaches_strictly_what_it_entered_in_order(visit: Visit) -> None:
    assert alone("inquiry sal recycled mql sal", "strict", visit) == {"inquiry", "mql", "sal"}
    assert alone("sal inquiry mql", "strict", visit) == {"inquiry", "mql"}
    assert alone("inquiry won mql sal", "strict", visit) == {"inquiry", "mql", "sal"}


def test_strictly_reached_stage_of_a_period_has_its_chosen_entry_in_it() -> None:
    path = StagePath(("inquiry", "sal", "recycled", "mql", "sal"), frozenset({0, 3, 4}))
    assert compute_reach(TEMPLATE, path, "strict", "first").reached == {"inquiry", "mql"}
    assert compute_reach(TEMPLATE, path, "strict", "last").reached == {"inquiry", "mql", "sal"}


@pytest.mark.parametrize(("order", "word"), [("any", "or a later one"), ("strict", "every stage of the path")])
def test_definition_says_what_reached_means(order: Order, word: str) -> None:
    (sentence,) = [words for words in describe_funnel(ReportQuery(order=order)) if words.startswith("Reached: ")]
    assert word in sentence


def test_period_counts_only_the_selected_entry_of_each_stage() -> None:
    again = StagePath(("inquiry", "mql", "recycled", "mql"), frozenset({3}))
    assert compute_reach(TEMPLATE, again, "any", "first").entered == frozenset()
    assert compute_reach(TEMPLATE, again, "any", "last").entered == {"mql"}


def test_two_won_stages_do_not_imply_each_other() -> None:
    stages = order_stages(1, [Stage("inquiry", 0, "open"), Stage("won-shop", 1, "won"), Stage("won-partner", 2, "won")])
    found = compute_funnel(
        stages,
        [Tally((), StagePath(("inquiry", "won-partner")), 3), Tally((), StagePath(("inquiry",)), 1)],
        ReportQuery(),
    )
    assert [(c.stage.key, c.reached, c.conversion_from_previous) for c in found.groups[0].stages] == [
        ("inquiry", 4, None),
        ("won-shop", 0, 0.0),
        ("won-partner", 3, 0.75),
    ]


def test_empty_funnel_shows_every_stage() -> None:
    (group,) = compute_funnel(TEMPLATE, [], ReportQuery()).groups
    assert [(count.stage.key, count.reached, count.conversion_from_first) for count in group.stages] == [
        ("inquiry", 0, None),
        ("mql", 0, None),
        ("sal", 0, None),
        ("won", 0, None),
    ]


def test_unknown_groups_come_last_and_stay_null() -> None:
    found = compute_funnel(
        TEMPLATE,
        [Tally((None,), StagePath(("inquiry",)), 1), Tally(("b",), StagePath(()), 1), Tally(("a",), StagePath(()), 1)],
        ReportQuery(by=by_source),
    )
    assert [group.key for group in found.groups] == [("a",), ("b",), (None,)]
    assert found.anomalies == {"lead_without_stage": 2}


def test_stage_missing_from_the_definition_is_an_exit_and_an_anomaly() -> None:
    found = compute_funnel(TEMPLATE, [Tally((), StagePath(("inquiry", "demo")), 2)], ReportQuery())
    assert found.anomalies == {"stage_not_in_definition": 2}
    assert [(e.stage, e.kind, e.entered) for e in found.groups[0].exits][-1] == ("demo", None, 2)


def test_stages_are_parsed_from_the_activated_definition() -> None:
    content = {
        "stages": [
            {"key": "inquiry", "owner": "marketing", "kind": "open"},
            {"key": "won", "owner": "sales", "kind": "won"},
        ]
    }
    stages: Stages = parse_stages(4, content)
    assert stages.version == 4
    assert [(s.key, s.rank, s.kind, s.owner) for s in stages.by_rank] == [
        ("inquiry", 0, "open", "marketing"),
        ("won", 1, "won", "sales"),
    ]
