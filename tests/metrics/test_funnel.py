"""The funnel's promises: parts add up to the whole, later stages never count more leads, detours never count twice."""

from hypothesis import given
from hypothesis import strategies as st

from accord.terms.dimensions import Dimension
from metrics.domain.choices import Choices, Order, Visit
from metrics.domain.definition_view import Stage, Stages, stages_of, stages_of_definition
from metrics.domain.funnel import Funnel, Group, Journey, Tally, funnel, standing

TEMPLATE = stages_of(
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
KEYS = [stage.key for stage in TEMPLATE.every]
orders: st.SearchStrategy[Order] = st.sampled_from(["any", "strict"])
visits: st.SearchStrategy[Visit] = st.sampled_from(["first", "last"])
by_source = (Dimension("source"),)


@st.composite
def journeys(draw: st.DrawFn) -> Journey:
    path = tuple(draw(st.lists(st.sampled_from([*KEYS, "retired"]), max_size=8)))
    counted = draw(st.none() | st.frozensets(st.integers(0, 7)))
    return Journey(path, counted)


tallies = st.lists(
    st.builds(
        Tally,
        st.tuples(st.sampled_from(["website", "fair", None])),
        journeys(),
        st.integers(1, 5),
        st.frozensets(st.sampled_from(["stage_before_capture"])),
    ),
    max_size=12,
)


def of(found: Funnel, stage: str) -> tuple[int, int]:
    (group,) = found.groups
    return next((count.entered, count.reached) for count in group.stages if count.stage.key == stage)


def alone(path: str, order: Order = "any", visit: Visit = "first") -> set[str]:
    return set(standing(TEMPLATE, Journey(tuple(path.split())), order, visit).reached)


@given(tallies, orders, visits)
def test_the_groups_add_up_to_the_whole(leads: list[Tally], order: Order, visit: Visit) -> None:
    split = funnel(TEMPLATE, leads, Choices(order=order, entry=visit, by=by_source))
    whole = funnel(
        TEMPLATE, [Tally((), t.journey, t.leads, t.anomalies) for t in leads], Choices(order=order, entry=visit)
    )
    (total,) = whole.groups
    assert split.leads == whole.leads == total.leads == sum(tally.leads for tally in leads)
    assert split.anomalies == whole.anomalies
    for place, count in enumerate(total.stages):
        assert count.entered == sum(group.stages[place].entered for group in split.groups)
        assert count.reached == sum(group.stages[place].reached for group in split.groups)
    for exit_ in total.exits:
        assert exit_.entered == sum(e.entered for group in split.groups for e in group.exits if e.stage == exit_.stage)


@given(tallies, orders, visits)
def test_no_stage_is_reached_by_more_leads_than_the_one_before(leads: list[Tally], order: Order, visit: Visit) -> None:
    for group in funnel(TEMPLATE, leads, Choices(order=order, entry=visit, by=by_source)).groups:
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


@given(journeys(), visits)
def test_what_was_reached_strictly_was_reached_in_any_order_and_was_entered(journey: Journey, visit: Visit) -> None:
    strictly = standing(TEMPLATE, journey, "strict", visit)
    anyhow = standing(TEMPLATE, journey, "any", visit)
    assert strictly.reached <= anyhow.reached
    assert strictly.reached <= strictly.entered
    assert strictly.entered == anyhow.entered


@given(tallies, orders, visits)
def test_leads_may_be_tallied_alone_or_together(leads: list[Tally], order: Order, visit: Visit) -> None:
    one_by_one = [Tally(t.group, t.journey, 1, t.anomalies) for t in leads for _ in range(t.leads)]
    choices = Choices(order=order, entry=visit, by=by_source)
    assert funnel(TEMPLATE, one_by_one, choices) == funnel(TEMPLATE, leads, choices)


def test_a_lead_that_comes_back_counts_once_a_stage() -> None:
    found = funnel(
        TEMPLATE, [Tally((), Journey(("inquiry", "mql", "recycled", "mql", "recycled", "mql", "sal")), 1)], Choices()
    )
    assert [of(found, stage) for stage in ("inquiry", "mql", "sal", "won")] == [(1, 1), (1, 1), (1, 1), (0, 0)]
    assert {exit_.stage: exit_.entered for exit_ in found.groups[0].exits} == {"lost": 0, "recycled": 1}


def test_a_lead_that_jumps_over_a_stage_reached_it_in_any_order_but_not_strictly() -> None:
    assert alone("inquiry sal won") == {"inquiry", "mql", "sal", "won"}
    assert alone("inquiry sal won", "strict") == {"inquiry"}


def test_a_lost_lead_is_not_beyond_the_stages_of_the_way() -> None:
    assert alone("inquiry lost") == {"inquiry"}


def test_strict_order_looks_at_the_chosen_entries() -> None:
    path = "inquiry sal recycled mql sal"
    assert alone(path, "strict", "first") == {"inquiry", "mql"}
    assert alone(path, "strict", "last") == {"inquiry", "mql", "sal"}


def test_in_a_period_only_the_chosen_entry_of_each_stage_is_looked_at() -> None:
    again = Journey(("inquiry", "mql", "recycled", "mql"), frozenset({3}))
    assert standing(TEMPLATE, again, "any", "first").entered == frozenset()
    assert standing(TEMPLATE, again, "any", "last").entered == {"mql"}


def test_two_kinds_of_won_are_not_beyond_one_another() -> None:
    stages = stages_of(1, [Stage("inquiry", 0, "open"), Stage("won-shop", 1, "won"), Stage("won-partner", 2, "won")])
    found = funnel(
        stages, [Tally((), Journey(("inquiry", "won-partner")), 3), Tally((), Journey(("inquiry",)), 1)], Choices()
    )
    assert [(c.stage.key, c.reached, c.conversion_from_previous) for c in found.groups[0].stages] == [
        ("inquiry", 4, None),
        ("won-shop", 0, 0.0),
        ("won-partner", 3, 0.75),
    ]


def test_a_stage_nobody_entered_and_an_empty_funnel_are_still_shown() -> None:
    (group,) = funnel(TEMPLATE, [], Choices()).groups
    assert [(count.stage.key, count.reached, count.conversion_from_first) for count in group.stages] == [
        ("inquiry", 0, None),
        ("mql", 0, None),
        ("sal", 0, None),
        ("won", 0, None),
    ]


def test_unknown_groups_come_last_and_stay_null() -> None:
    found = funnel(
        TEMPLATE,
        [Tally((None,), Journey(("inquiry",)), 1), Tally(("b",), Journey(()), 1), Tally(("a",), Journey(()), 1)],
        Choices(by=by_source),
    )
    assert [group.key for group in found.groups] == [("a",), ("b",), (None,)]
    assert found.anomalies == {"lead_without_stage": 2}


def test_a_stage_the_definition_no_longer_has_is_shown_apart_and_reported() -> None:
    found = funnel(TEMPLATE, [Tally((), Journey(("inquiry", "demo")), 2)], Choices())
    assert found.anomalies == {"stage_not_in_definition": 2}
    assert [(e.stage, e.kind, e.entered) for e in found.groups[0].exits][-1] == ("demo", None, 2)


def test_the_stages_are_read_from_the_definition_that_was_activated() -> None:
    content = {
        "stages": [
            {"key": "inquiry", "owner": "marketing", "kind": "open"},
            {"key": "won", "owner": "sales", "kind": "won"},
        ]
    }
    stages: Stages = stages_of_definition(4, content)
    assert stages.version == 4
    assert [(s.key, s.rank, s.kind, s.owner) for s in stages.every] == [
        ("inquiry", 0, "open", "marketing"),
        ("won", 1, "won", "sales"),
    ]
