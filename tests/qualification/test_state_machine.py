"""How a lead moves: entry, automatic gates, decisions, cool-down, merge and erasure."""

from __future__ import annotations

import json
from datetime import date, timedelta
from math import log2
from typing import Any
from uuid import UUID

import pytest
from tests.qualification.memory import Memory
from uuid_utils.compat import uuid7

from accord.contracts.intake_events import LeadUnmerged
from accord.contracts.qualification_events import LeadDecided, LeadScored, LeadStageChanged, OpportunityUpdated
from accord.contracts.values import DecimalText, Money
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.rules import compile_definition
from qualification.lifecycle.domain.decisions import (
    InvalidDecision,
    LeadNotFound,
    LeadWasErased,
    NotAllowed,
    allowed_decisions,
)
from qualification.lifecycle.domain.facts import Decision, Fields
from qualification.lifecycle.domain.gates import explain_gates
from qualification.lifecycle.domain.lead import Lead, Scores

AMOUNT = Money(amount=DecimalText("1200.50"), currency="USD")
BANT = Fields(answers={"budget": True, "authority": "director", "need": True, "timing": "q3"})


MEMORIES: dict[UUID, Memory] = {}
"""A lead's memory is found again by its id."""


def played(rules: Any, events: list[Any], lead: Lead | None = None) -> tuple[Lead, list[Any]]:
    """The lead after these events, and everything that was said."""
    lead_id = lead.lead_id if lead else next(event.lead_id for event in events if not isinstance(event, Decision))
    memory = MEMORIES[lead_id] if lead else MEMORIES.setdefault(lead_id, Memory())
    if rules is not None:
        memory.activate(rules)
    said: list[Any] = []
    for event in events:
        if isinstance(event, Decision):
            said += memory.decide(event.occurred_at, lead_id, event)
        else:
            said += memory.apply_events(event.recorded_at, event)
    return memory.leads[lead_id], said


def stages(said: list[Any]) -> list[tuple[str | None, str]]:
    return [(event.from_stage, event.stage) for event in said if isinstance(event, LeadStageChanged)]


def test_a_captured_lead_enters_the_capture_stage_at_the_time_of_capture(rules, new_lead, day):
    about = new_lead()
    lead, said = played(rules, [about.captured(day(0), employee_count=250)])
    entry = next(event for event in said if isinstance(event, LeadStageChanged))
    assert (entry.stage, entry.occurred_at, entry.visit, entry.cause) == ("inquiry", day(0), 1, "capture")
    assert (entry.stage_kind, entry.stage_rank, entry.stage_owner) == ("open", 0, "marketing")
    assert (lead.stage, lead.stage_since, lead.visit) == ("inquiry", day(0), 1)


def test_a_lead_passes_the_automatic_gate_when_its_criteria_come_to_hold(rules, new_lead, day):
    about = new_lead()
    lead, said = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(2))])
    assert stages(said) == [(None, "inquiry"), ("inquiry", "mql")]
    assert (lead.stage, lead.stage_since) == ("mql", day(2))
    changed = said[-1]
    assert (changed.cause, changed.from_since, changed.definition_version) == ("automatic", day(0), 1)


def test_a_lead_passes_several_automatic_gates_at_once_and_each_is_recorded(content, compiled, new_lead, day):
    content["stages"][2]["gate"] = {"when": {"path": "attributes.employee_count", "op": "gte", "value": 200}}
    about = new_lead()
    lead, said = played(
        compiled(content), [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))]
    )
    assert stages(said) == [(None, "inquiry"), ("inquiry", "mql"), ("mql", "sal")]
    assert [event.sequence for event in said] == list(range(1, len(said) + 1))
    assert lead.stage == "sal"


def test_scores_are_said_before_the_stage_they_opened_and_only_when_they_change(rules, new_lead, day):
    about = new_lead()
    _, said = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    kinds = [type(event) for event in said]
    assert kinds == [LeadScored, LeadStageChanged, LeadScored, LeadStageChanged]
    about = new_lead()
    _, said = played(rules, [about.captured(day(0), employee_count=250), about.updated(day(1), employee_count=251)])
    assert [type(event) for event in said] == [LeadScored, LeadStageChanged]


def test_activities_from_before_the_capture_count_when_the_lead_enters(rules, new_lead, day):
    about = new_lead()
    captured = about.captured(day(0), employee_count=250)
    done = [about.did("demo.requested", day(-1)), about.did("demo.requested", day(3))]
    lead, said = played(rules, [*done, captured])
    assert stages(said) == [(None, "inquiry"), ("inquiry", "mql")]
    assert lead.stage_since == day(0)


def test_a_lead_that_enters_late_passes_its_gates_at_the_moments_of_its_activities(rules, new_lead, day):
    about = new_lead()
    memory = Memory()
    memory.apply_events(day(6), about.captured(day(0), employee_count=250), about.did("demo.requested", day(5)))
    memory.activate(rules)
    said = memory.enter(day(90), about.lead_id)
    assert stages(said) == [(None, "inquiry"), ("inquiry", "mql")]
    assert memory.leads[about.lead_id].stage_since == day(5)
    assert all(event.recorded_at == day(90) for event in said)
    assert not any(event.correction for event in said if isinstance(event, LeadStageChanged))


def test_without_a_definition_a_lead_is_kept_without_a_stage(new_lead, day):
    about = new_lead()
    lead, said = played(None, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    assert said == []
    assert lead.stage is None
    assert lead.profile is not None
    assert allowed_decisions(lead, None) == ()


def test_an_activity_of_an_unknown_lead_moves_nothing(rules, new_lead, day):
    memory = Memory()
    memory.activate(rules)
    assert memory.apply_events(day(0), new_lead().did("demo.requested", day(0))) == []
    assert memory.leads == {}


def test_an_older_profile_is_passed_over(rules, new_lead, day):
    about = new_lead()
    captured, older, newer = (
        about.captured(day(0), employee_count=10),
        about.updated(day(1), employee_count=20),
        about.updated(day(2), employee_count=30),
    )
    lead, _ = played(rules, [captured, newer, older])
    assert lead.profile is not None
    assert lead.profile.attributes == {"employee_count": 30}


def test_a_decision_moves_the_lead_and_says_by_whom(rules, new_lead, make_decision, day):
    about = new_lead()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    assert allowed_decisions(lead, rules) == ("accept", "disqualify", "recycle", "reject")
    accept = make_decision("accept", day(1.5))
    lead, said = played(rules, [accept], lead)
    taken, changed = said[0], said[1]
    assert isinstance(taken, LeadDecided)
    assert (taken.from_stage, taken.stage, taken.actor, taken.department) == ("mql", "sal", "ann", "sales")
    assert isinstance(changed, LeadStageChanged)
    assert (changed.cause, changed.decision, changed.decision_id) == ("decision", "accept", accept.decision_id)
    assert changed.occurred_at == day(1.5)


def test_a_decision_that_the_stage_does_not_allow_is_refused_with_what_is_allowed(rules, new_lead, make_decision, day):
    lead, _ = played(rules, [new_lead().captured(day(0))])
    with pytest.raises(NotAllowed) as refusal:
        played(rules, [make_decision("win", day(1))], lead)
    assert refusal.value.allowed == ("disqualify",)


def test_a_decision_that_the_definition_does_not_know_is_unfit(rules, new_lead, make_decision, day):
    lead, _ = played(rules, [new_lead().captured(day(0))])
    with pytest.raises(InvalidDecision) as refusal:
        played(rules, [make_decision("applaud", day(1))], lead)
    assert refusal.value.errors[0][0] == "/decision"


@pytest.mark.parametrize("reason", [None, "weather"])
def test_a_reason_must_be_one_of_those_agreed(rules, new_lead, make_decision, day, reason):
    lead, _ = played(rules, [new_lead().captured(day(0))])
    with pytest.raises(InvalidDecision) as refusal:
        played(rules, [make_decision("disqualify", day(1), reason)], lead)
    assert [pointer for pointer, _ in refusal.value.errors] == ["/reason"]


def test_a_reason_where_none_are_agreed_is_refused(rules, new_lead, make_decision, day):
    about = new_lead()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    with pytest.raises(InvalidDecision):
        played(rules, [make_decision("accept", day(2), "price")], lead)


def test_fields_that_the_gate_asks_for_must_be_given(rules, new_lead, make_decision, day):
    about = new_lead()
    lead, _ = played(
        rules,
        [
            about.captured(day(0), employee_count=250),
            about.did("demo.requested", day(1)),
            make_decision("accept", day(2)),
        ],
    )
    with pytest.raises(InvalidDecision) as refusal:
        played(rules, [make_decision("qualify", day(3), fields=Fields(answers={"budget": True}))], lead)
    assert [pointer for pointer, _ in refusal.value.errors] == ["/fields/authority", "/fields/need", "/fields/timing"]


def test_a_deal_is_said_when_its_amount_or_close_changes(rules, new_lead, make_decision, day):
    lead, said = _to_opportunity(rules, new_lead(), make_decision, day)
    deal = said[-1]
    assert isinstance(deal, OpportunityUpdated)
    assert (deal.stage, deal.amount, deal.expected_close) == ("opportunity", AMOUNT, date(2027, 3, 31))
    lead, said = played(rules, [make_decision("win", day(6), fields=Fields(amount=AMOUNT))], lead)
    assert not any(isinstance(event, OpportunityUpdated) for event in said)
    assert lead.deal.expected_close == date(2027, 3, 31)


def _to_opportunity(rules, about, make_decision, day):
    return played(
        rules,
        [
            about.captured(day(0), employee_count=250),
            about.did("demo.requested", day(1)),
            make_decision("accept", day(2)),
            make_decision("qualify", day(3), fields=BANT),
            make_decision("open_opportunity", day(4), fields=Fields(amount=AMOUNT, expected_close=date(2027, 3, 31))),
        ],
    )


def test_a_late_decision_is_put_into_its_place_and_what_followed_is_derived_anew(rules, new_lead, make_decision, day):
    about = new_lead()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    lead, _ = played(rules, [make_decision("accept", day(5))], lead)
    memory = MEMORIES[about.lead_id]
    said = memory.decide(day(9), about.lead_id, make_decision("recycle", day(3), "no-timing"))
    assert isinstance(said[0], LeadDecided)
    assert [(entry.stage, entry.occurred_at, entry.visit) for entry in memory.entries(about.lead_id)] == [
        ("inquiry", day(0), 1),
        ("mql", day(1), 1),
        ("recycled", day(3), 1),
        ("sal", day(5), 1),
    ]
    corrected = [event for event in said if isinstance(event, LeadStageChanged)]
    assert [(event.stage, event.correction, event.from_stage) for event in corrected] == [
        ("recycled", True, "mql"),
        ("sal", True, "recycled"),
    ]


def test_a_late_decision_that_its_place_does_not_allow_is_refused_with_what_was_allowed_then(
    rules, new_lead, make_decision, day
):
    about = new_lead()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    with pytest.raises(NotAllowed) as refusal:
        MEMORIES[about.lead_id].decide(day(2), about.lead_id, make_decision("accept", day(0.5)))
    assert (refusal.value.stage, refusal.value.allowed) == ("inquiry", ("disqualify",))
    assert MEMORIES[about.lead_id].leads[about.lead_id] == lead


def test_a_crm_may_date_a_decision_before_what_it_stands_on_and_it_is_taken_as_the_newest(
    rules, new_lead, make_decision, day
):
    about = new_lead()
    played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    memory = MEMORIES[about.lead_id]
    said = memory.decide(day(2), about.lead_id, make_decision("accept", day(-3)), is_batch=True)
    lead = memory.leads[about.lead_id]
    assert (said[1].occurred_at, said[1].from_since, lead.stage_since) == (day(-3), day(1), day(-3))
    with pytest.raises(InvalidDecision) as refusal:
        memory.decide(day(2), about.lead_id, make_decision("recycle", day(-1), "no-timing"))
    assert refusal.value.errors[0][0] == "/occurred_at"


def test_a_decision_from_the_future_is_refused(rules, new_lead, make_decision, day):
    lead, _ = played(rules, [new_lead().captured(day(0))])
    with pytest.raises(InvalidDecision) as refusal:
        MEMORIES[lead.lead_id].decide(
            day(2) - timedelta(minutes=6), lead.lead_id, make_decision("disqualify", day(2), "not-a-fit")
        )
    assert refusal.value.errors[0][0] == "/occurred_at"
    assert MEMORIES[lead.lead_id].decide(
        day(2) - timedelta(minutes=5), lead.lead_id, make_decision("disqualify", day(2), "not-a-fit")
    )


def test_a_recycled_lead_comes_back_after_its_cool_down_on_new_activity_of_its_own(rules, new_lead, make_decision, day):
    about = new_lead()
    lead, _ = played(
        rules,
        [
            about.captured(day(0), employee_count=250),
            about.did("demo.requested", day(1)),
            make_decision("reject", day(2), "no-timing"),
        ],
    )
    assert lead.stage == "recycled"
    lead, _ = played(rules, [about.did("demo.requested", day(20))], lead)
    assert lead.stage == "recycled"
    lead, _ = played(
        rules, [about.did("demo.requested", day(33), by="sales"), about.updated(day(34), employee_count=251)], lead
    )
    assert lead.stage == "recycled"
    lead, said = played(rules, [about.did("email.clicked", day(35))], lead)
    assert stages(said) == [("recycled", "mql")]
    assert lead.visit == 2


def together(rules, *parts):
    """One memory with what was told of several leads, a list of events each; and the memory."""
    memory = Memory()
    memory.activate(rules)
    for events in parts:
        for event in events:
            if isinstance(event, tuple):
                memory.decide(event[1].occurred_at, event[0], event[1])
            else:
                memory.apply_events(event.recorded_at, event)
    return memory


def _events_to_opportunity(about, make_decision, day):
    whole = Fields(amount=AMOUNT, expected_close=date(2027, 3, 31))
    return [
        about.captured(day(0), employee_count=250),
        about.did("demo.requested", day(1)),
        (about.lead_id, make_decision("accept", day(2))),
        (about.lead_id, make_decision("qualify", day(3), fields=BANT)),
        (about.lead_id, make_decision("open_opportunity", day(4), fields=whole)),
    ]


def test_a_merged_lead_leaves_its_activities_to_the_survivor(rules, new_lead, day):
    ours, theirs = new_lead(), new_lead()
    memory = together(
        rules,
        [ours.captured(day(0), employee_count=250)],
        [theirs.captured(day(1)), theirs.did("demo.requested", day(2))],
    )
    assert memory.leads[theirs.lead_id].stage == "inquiry"
    said = memory.apply_events(day(3), ours.merged(theirs.lead_id, day(3), employee_count=250))
    assert stages(said) == [("inquiry", "mql")]
    gone = memory.leads[theirs.lead_id]
    assert gone.merged_into == ours.lead_id
    assert gone.profile is not None
    assert gone.profile.attributes == {}


def test_the_survivor_of_a_merge_goes_on_from_where_the_other_had_come_to(rules, new_lead, make_decision, day):
    ours, theirs = new_lead(), new_lead()
    memory = together(rules, [ours.captured(day(0))], _events_to_opportunity(theirs, make_decision, day))
    said = memory.apply_events(day(5), ours.merged(theirs.lead_id, day(5)))
    assert memory.leads[ours.lead_id].stage == "opportunity"
    entry = next(event for event in said if isinstance(event, LeadStageChanged))
    assert (entry.cause, entry.from_stage) == ("merge", "inquiry")
    assert memory.leads[ours.lead_id].deal.amount == AMOUNT


def test_a_lost_lead_is_not_taken_over_by_a_merge(rules, new_lead, make_decision, day):
    ours, theirs = new_lead(), new_lead()
    lost = (theirs.lead_id, make_decision("lose", day(5), "price"))
    memory = together(rules, [ours.captured(day(0))], [*_events_to_opportunity(theirs, make_decision, day), lost])
    memory.apply_events(day(6), ours.merged(theirs.lead_id, day(6)))
    assert memory.leads[ours.lead_id].stage == "inquiry"


def _lost_and_open(rules, new_lead, make_decision, day) -> Any:
    """A lead that was lost, and an opportunity of the same person."""
    lost, opened = new_lead(), new_lead()
    smaller = Fields(amount=Money(amount=DecimalText(5), currency="USD"), expected_close=date(2027, 3, 31))
    memory = together(
        rules,
        [
            *_events_to_opportunity(lost, make_decision, day)[:-1],
            (lost.lead_id, make_decision("open_opportunity", day(4), fields=smaller)),
            (lost.lead_id, make_decision("lose", day(5), "price")),
        ],
        _events_to_opportunity(opened, make_decision, day),
    )
    return memory, lost, opened


def test_open_deal_goes_before_a_lost_one_whichever_lead_survives(rules, new_lead, make_decision, day):
    memory, lost, opened = _lost_and_open(rules, new_lead, make_decision, day)
    memory.apply_events(day(6), lost.merged(opened.lead_id, day(6), employee_count=250))
    survivor = memory.leads[lost.lead_id]
    assert (survivor.stage, survivor.deal.amount) == ("opportunity", AMOUNT)
    history = [(entry.stage, entry.cause) for entry in memory.entries(lost.lead_id)]
    assert history[-2:] == [("lost", "decision"), ("opportunity", "merge")]
    memory.decide(day(7), lost.lead_id, make_decision("win", day(7), fields=Fields(amount=AMOUNT)))
    assert memory.leads[lost.lead_id].stage == "won"

    memory, lost, opened = _lost_and_open(rules, new_lead, make_decision, day)
    memory.apply_events(day(6), opened.merged(lost.lead_id, day(6), employee_count=250))
    survivor = memory.leads[opened.lead_id]
    assert (survivor.stage, survivor.deal.amount) == ("opportunity", AMOUNT)


def test_won_lead_stays_won_when_an_open_one_is_merged_into_it(rules, new_lead, make_decision, day):
    ours, theirs = new_lead(), new_lead()
    won = (ours.lead_id, make_decision("win", day(5), fields=Fields(amount=AMOUNT)))
    memory = together(
        rules,
        [*_events_to_opportunity(ours, make_decision, day), won],
        _events_to_opportunity(theirs, make_decision, day),
    )
    memory.apply_events(day(6), ours.merged(theirs.lead_id, day(6), employee_count=250))
    assert memory.leads[ours.lead_id].stage == "won"


def test_a_merge_that_is_taken_back_leaves_two_leads_as_if_it_had_never_been(rules, new_lead, make_decision, day):
    ours, theirs = new_lead(), new_lead()
    memory = together(
        rules, [ours.captured(day(0), employee_count=10)], _events_to_opportunity(theirs, make_decision, day)
    )
    before = memory.entries(ours.lead_id), memory.entries(theirs.lead_id)
    merge = ours.merged(theirs.lead_id, day(5), employee_count=250)
    memory.apply_events(day(5), merge, theirs.did("email.clicked", day(6)))
    assert memory.leads[ours.lead_id].stage == "opportunity"
    ours.sequence += 1
    said = memory.apply_events(
        day(7),
        LeadUnmerged(
            lead_id=ours.lead_id,
            sequence=ours.sequence,
            occurred_at=day(7),
            recorded_at=day(7),
            merge_id=merge.merge_id,
            restored_lead_id=theirs.lead_id,
            state=ours.state(employee_count=10),
            restored_state=theirs.state(employee_count=250),
        ),
    )
    assert (memory.entries(ours.lead_id), memory.entries(theirs.lead_id)) == before
    withdrawn = [event for event in said if isinstance(event, LeadStageChanged)]
    assert [(event.stage, event.withdrawn, event.lead_id) for event in withdrawn] == [
        ("opportunity", True, ours.lead_id)
    ]
    assert memory.leads[ours.lead_id].activities.moments_of("email.clicked") == ()
    assert len(memory.leads[theirs.lead_id].activities.moments_of("email.clicked")) == 1


def test_an_erased_lead_keeps_its_counts_and_nothing_else(rules, new_lead, make_decision, day):
    about = new_lead()
    lead, _ = _to_opportunity(rules, about, make_decision, day)
    lead, said = played(rules, [about.erased(day(9))], lead)
    assert said == []
    assert lead.erased
    assert lead.profile is not None
    assert (lead.profile.attributes, lead.profile.campaign, lead.profile.external_keys) == ({}, None, [])
    assert (lead.stage, lead.deal.answers, lead.deal.amount) == ("opportunity", {}, AMOUNT)
    with pytest.raises(LeadWasErased):
        played(rules, [make_decision("win", day(10))], lead)
    after, said = played(rules, [about.did("demo.requested", day(11)), about.updated(day(12), employee_count=3)], lead)
    assert (after, said) == (lead, [])


def test_a_decision_about_a_lead_that_has_not_entered_is_refused(rules, new_lead, make_decision, day):
    with pytest.raises(LeadNotFound):
        together(rules, [(uuid7(), make_decision("accept", day(0)))])


def test_a_decision_in_a_stage_that_the_definition_no_longer_knows_follows_the_gates_from_any(
    content, compiled, rules, new_lead, make_decision, day
):
    about = new_lead()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    del content["stages"][1]
    content["stages"][1]["from"] = ["inquiry"]
    for stage in content["stages"][1:]:
        if isinstance(stage["from"], list):
            stage["from"] = [key for key in stage["from"] if key != "mql"] or ["sal"]
    newer = compiled(content)
    assert allowed_decisions(lead, newer) == ("disqualify",)
    lead, said = played(newer, [make_decision("disqualify", day(2), "not-a-fit")], lead)
    assert said[1].from_stage == "mql"
    assert said[1].definition_version == 2


def test_gates_are_explained_leaf_by_leaf(rules, new_lead, day):
    lead, _ = played(rules, [new_lead().captured(day(0), employee_count=40)])
    (gate,) = explain_gates(lead, rules, day(0))
    assert (gate.stage, gate.holds) == ("mql", False)
    assert [(leaf.path, leaf.op, leaf.expected, leaf.actual, leaf.held) for leaf in gate.why] == [
        ("attributes.employee_count", "gte", 50, 40, False),
        ("scores.engagement", "gte", 20, 0.0, False),
    ]


def test_any_for_an_automatic_gate_means_every_way_forward(content, compiled, new_lead, make_decision, day):
    content["stages"][2].update(
        {"from": "any", "gate": {"when": {"path": "attributes.vip", "op": "eq", "value": True}}}
    )
    rules = compiled(content)
    about = new_lead()
    lead, said = played(rules, [about.captured(day(0), vip=True)])
    assert stages(said) == [(None, "inquiry"), ("inquiry", "sal")]
    lead, said = played(rules, [make_decision("lose", day(1), "price"), about.updated(day(2), vip=True, n=1)], lead)
    assert stages(said) == [("sal", "lost")]


def test_a_cool_down_holds_back_automatic_gates_of_any_stage(content, compiled, new_lead, day):
    content["stages"][0]["cool_down"] = "P2D"
    rules = compiled(content)
    about = new_lead()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    assert lead.stage == "inquiry"
    lead, _ = played(rules, [about.updated(day(2), employee_count=251)], lead)
    assert (lead.stage, lead.stage_since) == ("mql", day(2))


def test_a_definition_without_scores_says_none(content, compiled, new_lead, day):
    content["scores"] = {}
    content["stages"][1]["gate"] = {"when": {"path": "attributes.employee_count", "op": "gte", "value": 50}}
    lead, said = played(compiled(content), [new_lead().captured(day(0), employee_count=250)])
    assert [type(event) for event in said] == [LeadStageChanged, LeadStageChanged]
    assert lead.scores is None


def test_an_activity_that_is_reported_late_counts_from_its_own_moment(rules, new_lead, day):
    about = new_lead()
    _, said = played(
        rules,
        [
            about.captured(day(0), employee_count=250),
            about.did("page.viewed", day(5)),
            about.did("demo.requested", day(3)),
        ],
    )
    lead = MEMORIES[about.lead_id].leads[about.lead_id]
    assert (lead.stage, lead.stage_since) == ("mql", day(3))
    assert lead.scores is not None
    assert lead.scores.engagement == pytest.approx(40 * 2 ** (-2 / 30), abs=0.005)
    assert [event.correction for event in said if isinstance(event, LeadStageChanged)] == [False, False]


def test_a_late_profile_takes_away_what_followed_from_the_one_before(rules, new_lead, day):
    about = new_lead()
    played(
        rules,
        [
            about.captured(day(0), employee_count=250),
            about.did("demo.requested", day(2)),
            about.did("page.viewed", day(4)),
        ],
    )
    memory = MEMORIES[about.lead_id]
    said = memory.apply_events(day(9), about.updated(day(1), employee_count=10))
    assert [entry.stage for entry in memory.entries(about.lead_id)] == ["inquiry"]
    withdrawn = [event for event in said if isinstance(event, LeadStageChanged)]
    assert [(event.stage, event.withdrawn, event.correction) for event in withdrawn] == [("mql", True, True)]
    assert memory.leads[about.lead_id].stage == "inquiry"


def test_decay_that_crosses_a_threshold_is_noticed_without_an_activity(rules, new_lead, day):
    about = new_lead()
    played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(0))])
    memory = MEMORIES[about.lead_id]
    assert memory.leads[about.lead_id].scores == Scores(40, 40, "C3")
    said = memory.advance_time(day(60), day(60))
    # 40 points fall to 24.995, which is shown as 24.99, after 30 days times the binary logarithm of 40 / 24.995.
    assert [(type(event), event.grade) for event in said] == [(LeadScored, "C4")]
    assert abs(said[0].occurred_at - day(30 * log2(40 / 24.995))) < timedelta(seconds=1)
    assert memory.leads[about.lead_id].due_at is None
    assert memory.advance_time(day(90), day(90)) == []


def test_a_gate_that_asks_for_age_opens_by_itself_to_the_microsecond(content, compiled, new_lead, day):
    content["stages"][1]["gate"] = {"when": {"path": "age", "op": "gt", "value": "P3D"}}
    about = new_lead()
    played(compiled(content), [about.captured(day(0))])
    memory = MEMORIES[about.lead_id]
    assert memory.advance_time(day(3), day(3)) == []
    said = memory.advance_time(day(9), day(9))
    assert [(event.stage, event.occurred_at) for event in said] == [("mql", day(3) + timedelta(microseconds=1))]


def test_a_window_that_moves_on_opens_a_gate_for_what_no_longer_happened(content, compiled, new_lead, day):
    replaying = {"path": "activities.page.viewed.count", "op": "lt", "value": 2, "within": "P7D"}
    seen = {"path": "activities.page.viewed.count", "op": "gte", "value": 2}
    content["stages"][1]["gate"] = {"when": {"all": [replaying, seen]}}
    about = new_lead()
    events = [about.captured(day(0)), *(about.did("page.viewed", day(n)) for n in (1, 2, 3))]
    lead, _ = played(compiled(content), events)
    assert lead.stage == "inquiry"
    said = MEMORIES[about.lead_id].advance_time(day(30), day(30))
    assert [event.occurred_at for event in said if isinstance(event, LeadStageChanged)] == [
        day(9) + timedelta(microseconds=1)
    ]


def test_a_cool_down_ends_by_itself(content, compiled, new_lead, day):
    content["stages"][0]["cool_down"] = "P2D"
    about = new_lead()
    lead, _ = played(
        compiled(content), [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))]
    )
    assert lead.stage == "inquiry"
    said = MEMORIES[about.lead_id].advance_time(day(5), day(5))
    assert [(event.stage, event.occurred_at) for event in said if isinstance(event, LeadStageChanged)] == [
        ("mql", day(2))
    ]


def _renamed(content: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The definition with a stage of another name, and where its leads go on."""
    renamed: dict[str, Any] = json.loads(json.dumps(content).replace(f'"{old}"', f'"{new}"'))
    return renamed | {"moves": {old: new}}


def test_lead_goes_on_from_a_renamed_stage_through_all_versions_that_it_has_missed(
    content, new_lead, make_decision, day
):
    first = compile_definition(1, Definition.model_validate(content))
    second = compile_definition(2, Definition.model_validate(_renamed(content, "sal", "accepted")))
    third = compile_definition(
        3, Definition.model_validate(_renamed(_renamed(content, "sal", "accepted"), "accepted", "taken"))
    )
    about = new_lead()
    memory = together(
        first,
        [
            about.captured(day(0), employee_count=250),
            about.did("demo.requested", day(1)),
            (about.lead_id, make_decision("accept", day(2))),
        ],
    )
    memory.activate(second)
    memory.activate(third)
    memory.reevaluate(day(3), about.lead_id)
    lead = memory.leads[about.lead_id]
    entry = memory.entries(about.lead_id)[-1]
    assert (lead.stage, entry.cause, entry.from_stage, entry.definition_version) == ("taken", "definition", "sal", 3)
    assert "qualify" in allowed_decisions(lead, third)
    assert memory.folded(about.lead_id).lead.stage == "taken"
