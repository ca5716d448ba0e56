"""Who gets a lead: fairness over any window, capacity, absence, working hours, accounts, and why."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.terms.week import parse_week
from qualification.routing.domain.assignment import Assignment, RoutingInput, RoutingState, assign
from qualification.routing.domain.checks import check_routing
from qualification.routing.domain.document import Routing, RoutingDocument, compile_routing, sales_stages
from qualification.routing.domain.pointer import Pointer, pick
from qualification.routing.domain.working_time import WorkingTime

LEAD = UUID("0198c0de-0000-7000-8000-000000000001")
NOW = datetime(2027, 1, 6, 16, 0, tzinfo=UTC)
"""A Wednesday, ten in the morning in Chicago."""

DOCUMENT: dict[str, Any] = {
    "kind": "routing",
    "title": "Who gets which lead",
    "at": ["mql", "sal"],
    "calendars": {
        "office": {"timezone": "America/Chicago", "week": {"mon-fri": ["09:00-17:00"]}, "closed": ["2027-01-18"]}
    },
    "people": {
        "ann": {"capacity": 3, "calendar": "office"},
        "bob": {"absences": [{"from": "2027-01-04", "to": "2027-01-08"}]},
    },
    "pools": {
        "large": {"members": [{"owner": "ann", "weight": 2}, {"owner": "bob"}, {"owner": "cho"}]},
        "desk": {"method": "least_open", "members": [{"owner": "dee"}, {"owner": "eli"}]},
    },
    "rules": [
        {
            "key": "enterprise",
            "when": {"path": "attributes.employee_count", "op": "gte", "value": 200},
            "pool": "large",
        },
        {"key": "others", "pool": "desk"},
    ],
    "fallback": "desk",
}


class Facts:
    """Attributes and nothing else."""

    def __init__(self, **attributes: object) -> None:
        self.attributes = attributes

    def value(self, path: str, within: timedelta | None) -> object:
        return self.attributes.get(path.removeprefix("attributes."))


LARGE = Facts(employee_count=250)


def routing_of(content: dict[str, Any]) -> Routing:
    assert check_routing(content, None) == []
    return compile_routing(1, RoutingDocument.model_validate(content))


def simple(weights: dict[str, int], **people: dict[str, Any]) -> Routing:
    members = [{"owner": owner, "weight": weight} for owner, weight in weights.items()]
    return routing_of(
        {
            "kind": "routing",
            "title": "One pool",
            "people": people,
            "pools": {"all": {"members": members}},
            "rules": [{"key": "everything", "pool": "all"}],
        }
    )


def asked(facts: Facts = LARGE, **more: Any) -> RoutingInput:
    return RoutingInput(LEAD, facts, **more)


def taken(
    routing: Routing, leads: int, state: RoutingState | None = None, now: datetime = NOW
) -> tuple[list[str | None], RoutingState]:
    """Who gets so many leads, one after another."""
    state = state or RoutingState()
    owners: list[str | None] = []
    for _ in range(leads):
        made, state = assign(asked(), routing, state, now)
        owners.append(made.owner)
    return owners, state


# --- Shares ---

WEIGHTS = st.lists(st.integers(1, 12), min_size=1, max_size=8).map(
    lambda weights: {f"m{number}": weight for number, weight in enumerate(weights)}
)


def test_leads_are_spread_as_nginx_spreads_requests():
    owners, _ = taken(simple({"a": 5, "b": 1, "c": 1}), 7)
    assert owners == ["a", "a", "b", "a", "c", "a", "a"]


@given(WEIGHTS, st.integers(0, 40), st.integers(1, 60))
def test_over_any_window_everybody_has_their_share_to_within_one_lead_per_weight_unit(weights, start, length):
    owners, _ = taken(simple(weights), start + length)
    window, total = owners[start:], sum(weights.values())
    for owner, weight in weights.items():
        assert abs(window.count(owner) - length * weight / total) <= weight


@given(
    WEIGHTS, st.lists(st.tuples(st.sets(st.integers(0, 7), min_size=1), st.integers(1, 15)), min_size=1, max_size=12)
)
def test_whoever_comes_and_goes_has_the_share_of_the_time_they_were_there(weights, phases):
    pointer, had, due = Pointer(), dict.fromkeys(weights, 0), dict.fromkeys(weights, 0.0)
    for present, leads in phases:
        there = {owner: weight for owner, weight in weights.items() if int(owner[1:]) in present} or weights
        for _ in range(leads):
            owner, pointer = pick(pointer, there)
            had[owner] += 1
            for other, weight in there.items():
                due[other] += weight / sum(there.values())
    for owner, weight in weights.items():
        assert abs(had[owner] - due[owner]) <= 2 * weight


@given(WEIGHTS, st.integers(0, 30), st.integers(1, 40))
def test_a_new_member_costs_nobody_a_turn_and_gets_none_for_the_time_before(weights, before, after):
    _, state = taken(simple(weights), before)
    grown = {**weights, "new": 1}
    owners, _ = taken(simple(grown), after, RoutingState(state.pointers))
    for owner, weight in grown.items():
        assert abs(owners.count(owner) - after * weight / sum(grown.values())) <= 2 * weight


@given(WEIGHTS.filter(lambda weights: len(weights) > 1), st.integers(0, 30), st.integers(1, 40))
def test_those_who_stay_keep_their_shares_when_a_member_goes(weights, before, after):
    _, state = taken(simple(weights), before)
    left = dict(list(weights.items())[:-1])
    owners, state = taken(simple(left), after, RoutingState(state.pointers))
    assert state.pointers["all"].currents.keys() == left.keys()
    for owner, weight in left.items():
        assert abs(owners.count(owner) - after * weight / sum(left.values())) <= 2 * weight


@given(WEIGHTS, st.integers(0, 25))
def test_the_same_document_and_state_give_the_same_answer(weights, before):
    routing = simple(weights)
    _, state = taken(routing, before)
    assert assign(asked(), routing, state, NOW) == assign(asked(), routing, state, NOW)


@given(st.lists(st.sampled_from(["auto", "hand", "account"]), min_size=1, max_size=40))
def test_what_is_done_by_hand_or_stays_with_an_account_moves_no_pointer(moves):
    routing = simple({"a": 2, "b": 1})
    expected, _ = taken(routing, moves.count("auto"))
    state, owners = RoutingState(), []
    for move in moves:
        if move == "auto":
            made, state = assign(asked(), routing, state, NOW)
            owners.append(made.owner)
        elif move == "hand":  # a person gives a lead to b: only the count of open leads changes
            state = RoutingState(state.pointers, {**state.open, "b": state.open.get("b", 0) + 1})
        else:
            made, state = assign(asked(account_owner="b"), routing, state, NOW)
            assert made.how == "account"
    assert owners == expected


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1),
    st.integers(1, 40),
    st.sampled_from(["smooth_weighted_round_robin", "least_open"]),
)
def test_no_capacity_is_ever_exceeded_and_no_lead_refused_while_there_is_room(members, leads, method):
    routing = routing_of(
        {
            "kind": "routing",
            "title": "Small",
            "people": {owner: {"capacity": capacity} for owner, (_, capacity) in members.items()},
            "pools": {
                "all": {"method": method, "members": [{"owner": o, "weight": w} for o, (w, _) in members.items()]}
            },
            "rules": [{"key": "everything", "pool": "all"}],
        }
    )
    owners, state = taken(routing, leads)
    room = sum(capacity for _, capacity in members.values())
    assert sum(owner is not None for owner in owners) == min(leads, room)
    for owner, (_, capacity) in members.items():
        assert state.open.get(owner, 0) == owners.count(owner) <= capacity


@given(st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 13), st.integers(1, 20))
def test_who_is_absent_is_never_picked(absent, day, leads):
    on = NOW + timedelta(days=day)
    away = {"absences": [{"from": "2027-01-08", "to": "2027-01-12"}]}
    people = {owner: away if gone else {} for owner, gone in zip("abc", absent, strict=True)}
    owners, _ = taken(simple(dict.fromkeys("abc", 1), **people), leads, now=on)
    off = {
        owner
        for owner, gone in zip("abc", absent, strict=True)
        if gone and date(2027, 1, 8) <= on.date() <= date(2027, 1, 12)
    }
    assert not off & set(owners)
    assert (None in owners) is (len(off) == 3)


def test_the_least_loaded_by_weight_gets_the_lead_and_equals_take_turns():
    content = deepcopy(DOCUMENT)
    content["pools"]["desk"]["members"] = [{"owner": "dee"}, {"owner": "eli", "weight": 2}]
    routing = routing_of(content)
    made, _ = assign(asked(Facts()), routing, RoutingState(open={"dee": 3, "eli": 5}), NOW)
    assert made.owner == "eli"
    equal = routing_of(DOCUMENT)
    owners, state = [], RoutingState()
    for _ in range(4):
        made, state = assign(asked(Facts()), equal, RoutingState(state.pointers, {"dee": 4, "eli": 4}), NOW)
        owners.append(made.owner)
    assert owners == ["dee", "eli", "dee", "eli"]


# --- Order of asking, and why ---


def test_an_assignment_says_why_to_the_last_comparison():
    made, _ = assign(asked(Facts(employee_count=250)), routing_of(DOCUMENT), RoutingState(open={"ann": 3}), NOW)
    assert (made.owner, made.how, made.pool) == ("cho", "pool", "large")
    (rule,) = made.rules
    assert (rule.rule, rule.held, rule.why[0].actual) == ("enterprise", True, 250)
    why_not = {member.owner: member.why_not for member in made.pools[0].members}
    assert why_not == {
        "ann": "has 3 open leads, and the capacity is 3",
        "bob": "absent from 2027-01-04 to 2027-01-08",
        "cho": None,
    }
    assert made.why == (
        "rule enterprise leads to pool large; in pool large cho is next by smooth weighted round robin (1 of 3 available)"
    )


def test_a_rule_that_did_not_hold_is_shown_with_what_it_found():
    made, _ = assign(asked(Facts(employee_count=20)), routing_of(DOCUMENT), RoutingState(), NOW)
    assert [(looked.rule, looked.held) for looked in made.rules] == [("enterprise", False), ("others", True)]
    assert made.rules[0].why[0].actual == 20


def test_a_lead_stays_with_its_account_whatever_rule_holds():
    routing = routing_of(DOCUMENT)
    made, state = assign(asked(account_owner="dee"), routing, RoutingState(), NOW)
    assert (made.owner, made.how, made.pool) == ("dee", "account", "desk")
    assert state.pointers == {}


@pytest.mark.parametrize(
    ("owner", "open_leads", "why"),
    [
        ("bob", {}, "absent from 2027-01-04 to 2027-01-08"),
        ("ann", {"ann": 3}, "has 3 open leads, and the capacity is 3"),
        ("gone", {}, "is in no pool"),
    ],
)
def test_the_account_s_owner_is_passed_over_for_a_reason(owner, open_leads, why):
    made, _ = assign(asked(account_owner=owner), routing_of(DOCUMENT), RoutingState(open=open_leads), NOW)
    assert made.how == "pool"
    assert [(looked.owner, looked.taken, looked.why) for looked in made.sticky] == [(owner, False, why)]


def test_whoever_had_the_lead_comes_before_whoever_has_the_account():
    made, _ = assign(asked(owner="eli", account_owner="dee"), routing_of(DOCUMENT), RoutingState(), NOW)
    assert (made.owner, made.how) == ("eli", "own")


def test_the_lead_itself_takes_no_place_of_its_owner():
    made, state = assign(asked(owner="ann", counted=True), routing_of(DOCUMENT), RoutingState(open={"ann": 3}), NOW)
    assert (made.owner, made.how, state.open["ann"]) == ("ann", "own", 3)


def test_without_sameness_of_accounts_the_account_is_not_asked():
    made, _ = assign(asked(account_owner="dee"), routing_of({**DOCUMENT, "same_account": False}), RoutingState(), NOW)
    assert (made.owner, made.sticky) == ("ann", ())


def night(made: Assignment) -> tuple[Any, ...]:
    return made.owner, made.how, made.pool


def test_where_nobody_is_available_the_fallback_is_asked_and_then_nobody():
    content = deepcopy(DOCUMENT)
    content["people"]["cho"] = {"calendar": "office"}
    evening = NOW.replace(hour=23, minute=30)
    made, _ = assign(asked(), routing_of(content), RoutingState(), evening)
    assert night(made) == ("dee", "fallback", "desk")
    assert [looked.picked for looked in made.pools] == [None, "dee"]
    content["people"] |= {"dee": {"calendar": "office"}, "eli": {"calendar": "office"}}
    made, state = assign(asked(), routing_of(content), RoutingState(), evening)
    assert night(made) == (None, "nobody", "large")
    assert made.why.endswith("nobody gets it yet")
    assert state == RoutingState()


def test_after_a_breach_the_same_person_does_not_get_it_again():
    routing = simple({"a": 1, "b": 1})
    made, state = assign(asked(owner="a", counted=True, avoid="a"), routing, RoutingState(open={"a": 1}), NOW)
    assert (made.owner, state.open) == ("b", {"a": 0, "b": 1})
    alone = simple({"a": 1})
    made, state = assign(asked(owner="a", counted=True, avoid="a"), alone, RoutingState(open={"a": 1}), NOW)
    assert (made.owner, state.open) == (None, {"a": 1})


# --- Hours ---


@pytest.mark.parametrize(
    ("at", "open_"),
    [
        ("2027-01-06T15:00:00+00:00", True),
        ("2027-01-06T14:59:59+00:00", False),
        ("2027-01-06T18:30:00+00:00", False),  # lunch
        ("2027-01-06T23:00:00+00:00", False),
        ("2027-01-09T16:00:00+00:00", False),  # Saturday
        ("2027-01-18T16:00:00+00:00", False),  # closed
        ("2027-07-07T14:00:00+00:00", True),  # summer time
    ],
)
def test_hours_are_those_of_the_wall_clock(at, open_):
    hours = WorkingTime(
        ZoneInfo("America/Chicago"),
        parse_week({"mon-fri": ["09:00-12:00", "13:00-17:00"]}),
        frozenset({date(2027, 1, 18)}),
    )
    assert hours.open_at(datetime.fromisoformat(at)) is open_


def test_a_night_belongs_to_the_day_on_which_it_begins():
    hours = WorkingTime(ZoneInfo("UTC"), parse_week({"fri": ["22:00-06:00"]}))
    assert hours.open_at(datetime(2027, 1, 9, 5, 59, tzinfo=UTC))
    assert not hours.open_at(datetime(2027, 1, 8, 5, 59, tzinfo=UTC))


# --- What is wrong with a document ---


def found(in_force: Any, /, **changes: Any) -> dict[str, str]:
    content = deepcopy(DOCUMENT) | changes
    return {finding.pointer: finding.message for finding in check_routing(content, in_force)}


def test_the_document_of_the_tests_has_no_findings(rules):
    assert found(rules) == {}


def test_sales_has_an_owner_from_the_moment_it_owes_an_answer(rules):
    assert sales_stages(rules) == {"mql", "sal", "sql", "opportunity"}


@pytest.mark.parametrize(
    ("changes", "at", "words"),
    [
        ({"fallback": "nowhere"}, "/fallback", "there is no pool nowhere"),
        ({"rules": [{"key": "r", "pool": "nowhere"}]}, "/rules/0/pool", "there is no pool nowhere"),
        (
            {"pools": {"large": {"members": []}, "desk": DOCUMENT["pools"]["desk"]}},
            "/pools/large/members",
            "nobody is in",
        ),
        (
            {"pools": {**DOCUMENT["pools"], "desk": {"members": [{"owner": "dee"}, {"owner": "dee"}]}}},
            "/pools/desk/members/1/owner",
            "dee is in this pool twice",
        ),
        ({"at": ["mqll"]}, "/at/0", "no stage mqll"),
        ({"at": ["won"]}, "/at/0", "won is no open stage"),
        (
            {"rules": [{"key": "all", "pool": "desk"}, {"key": "late", "pool": "large"}]},
            "/rules/1",
            "is never reached: the rule all before it",
        ),
        (
            {"rules": [{"key": "one", "when": {"path": "account.size", "op": "eq", "value": 1}, "pool": "desk"}]},
            "/rules/0/when/path",
            "does not reach routing",
        ),
        (
            {"rules": [{"key": "one", "when": {"path": "stage", "op": "eq", "value": "won"}, "pool": "desk"}]},
            "/rules/0/when",
            "can never hold",
        ),
        ({"people": {"ann": {"calendar": "home"}}}, "/people/ann/calendar", "there is no calendar home"),
        (
            {"people": {"ann": {"absences": [{"from": "2027-02-01", "to": "2027-01-01"}]}}},
            "/people/ann/absences/0/to",
            "before the first day",
        ),
        ({"people": {"ann": {"capacity": 0}}}, "/people/ann/capacity", "greater than or equal to 1"),
        ({"people": {"a@b.example": {}}}, "/people/a@b.example", "pattern"),
        (
            {"calendars": {"x": {"timezone": "Mars", "week": {"mon": ["09:00-17:00"]}}}},
            "/calendars/x/timezone",
            "no IANA",
        ),
        ({"calendars": {"x": {"timezone": "UTC", "week": {"mon": ["9-17"]}}}}, "/calendars/x/week/mon/0", "no range"),
        (
            {"calendars": {"x": {"timezone": "UTC", "week": {"mon": ["09:00-12:00", "11:00-17:00"]}}}},
            "/calendars/x/week/mon",
            "overlap",
        ),
        ({"surprise": 1}, "/surprise", "unknown key"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(rules, changes, at, words):
    findings = found(rules, **changes)
    assert words in findings[at]


def test_a_lead_for_which_no_rule_holds_must_go_somewhere(rules):
    content = {name: value for name, value in DOCUMENT.items() if name != "fallback"} | {"rules": DOCUMENT["rules"][:1]}
    (finding,) = check_routing(content, rules)
    assert finding.pointer == "/rules"
