"""How a lead moves: entry, automatic gates, decisions, cool-down, merge and erasure."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from accord.contracts.qualification_events import LeadDecided, LeadScored, LeadStageChanged, OpportunityUpdated
from accord.contracts.values import Money
from qualification.domain.decisions import Fields, Gone, NotAllowed, Unfit, Unknown, allowed_decisions
from qualification.domain.lead import Activities, Lead, microseconds
from qualification.domain.progress import DefinitionArrived, Merged, absorbed, decide, explain_gates
from qualification.domain.way import Outcome

AMOUNT = Money(amount=Decimal("1200.50"), currency="USD")
BANT = Fields(answers={"budget": True, "authority": "director", "need": True, "timing": "q3"})


def played(rules: Any, events: list[Any], lead: Lead | None = None) -> tuple[Lead, list[Any]]:
    """The lead after these events, and everything that was said."""
    said: list[Any] = []
    for event in events:
        now = getattr(event, "recorded_at", None) or getattr(event, "occurred_at", None)
        outcome: Outcome = decide(lead, event, rules, now)
        lead = outcome.lead
        said.extend(outcome.events)
    assert lead is not None
    return lead, said


def stages(said: list[Any]) -> list[tuple[str | None, str]]:
    return [(event.from_stage, event.stage) for event in said if isinstance(event, LeadStageChanged)]


def test_a_captured_lead_enters_the_capture_stage_at_the_time_of_capture(rules, teller, day):
    about = teller()
    lead, said = played(rules, [about.captured(day(0), employee_count=250)])
    entry = next(event for event in said if isinstance(event, LeadStageChanged))
    assert (entry.stage, entry.occurred_at, entry.visit, entry.cause) == ("inquiry", day(0), 1, "capture")
    assert (entry.stage_kind, entry.stage_rank, entry.stage_owner) == ("open", 0, "marketing")
    assert (lead.stage, lead.stage_since, lead.visit) == ("inquiry", day(0), 1)


def test_a_lead_passes_the_automatic_gate_when_its_criteria_come_to_hold(rules, teller, day):
    about = teller()
    lead, said = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(2))])
    assert stages(said) == [(None, "inquiry"), ("inquiry", "mql")]
    assert (lead.stage, lead.stage_since) == ("mql", day(2))
    changed = said[-1]
    assert (changed.cause, changed.from_since, changed.definition_version) == ("automatic", day(0), 1)


def test_a_lead_passes_several_automatic_gates_at_once_and_each_is_recorded(content, compiled, teller, day):
    content["stages"][2]["gate"] = {"when": {"path": "attributes.employee_count", "op": "gte", "value": 200}}
    about = teller()
    lead, said = played(
        compiled(content), [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))]
    )
    assert stages(said) == [(None, "inquiry"), ("inquiry", "mql"), ("mql", "sal")]
    assert [event.sequence for event in said] == list(range(1, len(said) + 1))
    assert lead.stage == "sal"


def test_scores_are_said_before_the_stage_they_opened_and_only_when_they_change(rules, teller, day):
    about = teller()
    _, said = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    kinds = [type(event) for event in said]
    assert kinds == [LeadScored, LeadStageChanged, LeadScored, LeadStageChanged]
    _, said = played(rules, [about.captured(day(0), employee_count=250), about.updated(day(1), employee_count=251)])
    assert [type(event) for event in said] == [LeadScored, LeadStageChanged]


def test_activities_from_before_the_capture_count_when_the_lead_enters(rules, teller, day):
    about = teller()
    captured = about.captured(day(0), employee_count=250)
    kept = Lead(about.lead_id, activities=_demos(day(-1), day(3)))
    lead, said = played(rules, [captured], kept)
    assert stages(said) == [(None, "inquiry"), ("inquiry", "mql")]
    assert lead.stage_since == day(0)


def test_a_lead_that_enters_late_passes_its_gates_at_the_moments_of_its_activities(rules, teller, day):
    about = teller()
    captured = about.captured(day(0), employee_count=250)
    waiting = Lead(about.lead_id, profile=captured.state, intake_sequence=1, activities=_demos(day(5)))
    outcome = decide(waiting, DefinitionArrived(), rules, day(90))
    assert outcome.lead is not None
    assert stages(list(outcome.events)) == [(None, "inquiry"), ("inquiry", "mql")]
    assert outcome.lead.stage_since == day(5)
    assert all(event.recorded_at == day(90) for event in outcome.events)


def _demos(*moments):
    return Activities({"demo.requested": [microseconds(moment) for moment in moments]})


def test_without_a_definition_a_lead_is_kept_without_a_stage(teller, day):
    about = teller()
    lead, said = played(None, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    assert said == []
    assert lead.stage is None
    assert lead.profile is not None
    assert allowed_decisions(lead, None) == ()


def test_an_activity_of_an_unknown_lead_moves_nothing(rules, teller, day):
    assert decide(None, teller().did("demo.requested", day(0)), rules, day(0)) == Outcome(None)


def test_an_older_profile_is_passed_over(rules, teller, day):
    about = teller()
    captured, older, newer = (
        about.captured(day(0), employee_count=10),
        about.updated(day(1), employee_count=20),
        about.updated(day(2), employee_count=30),
    )
    lead, _ = played(rules, [captured, newer, older])
    assert lead.profile is not None
    assert lead.profile.attributes == {"employee_count": 30}


def test_a_decision_moves_the_lead_and_says_by_whom(rules, teller, decided, day):
    about = teller()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    assert allowed_decisions(lead, rules) == ("accept", "disqualify", "recycle", "reject")
    accept = decided("accept", day(1.5))
    lead, said = played(rules, [accept], lead)
    taken, changed = said[0], said[1]
    assert isinstance(taken, LeadDecided)
    assert (taken.from_stage, taken.stage, taken.actor, taken.department) == ("mql", "sal", "ann", "sales")
    assert isinstance(changed, LeadStageChanged)
    assert (changed.cause, changed.decision, changed.decision_id) == ("decision", "accept", accept.decision_id)
    assert changed.occurred_at == day(1.5)


def test_a_decision_that_the_stage_does_not_allow_is_refused_with_what_is_allowed(rules, teller, decided, day):
    lead, _ = played(rules, [teller().captured(day(0))])
    with pytest.raises(NotAllowed) as refusal:
        decide(lead, decided("win", day(1)), rules, day(1))
    assert refusal.value.allowed == ("disqualify",)


def test_a_decision_that_the_definition_does_not_know_is_unfit(rules, teller, decided, day):
    lead, _ = played(rules, [teller().captured(day(0))])
    with pytest.raises(Unfit) as refusal:
        decide(lead, decided("applaud", day(1)), rules, day(1))
    assert refusal.value.errors[0][0] == "/decision"


@pytest.mark.parametrize("reason", [None, "weather"])
def test_a_reason_must_be_one_of_those_agreed(rules, teller, decided, day, reason):
    lead, _ = played(rules, [teller().captured(day(0))])
    with pytest.raises(Unfit) as refusal:
        decide(lead, decided("disqualify", day(1), reason), rules, day(1))
    assert [pointer for pointer, _ in refusal.value.errors] == ["/reason"]


def test_a_reason_where_none_are_agreed_is_refused(rules, teller, decided, day):
    about = teller()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    with pytest.raises(Unfit):
        decide(lead, decided("accept", day(2), "price"), rules, day(2))


def test_fields_that_the_gate_asks_for_must_be_given(rules, teller, decided, day):
    about = teller()
    lead, _ = played(
        rules,
        [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)), decided("accept", day(2))],
    )
    with pytest.raises(Unfit) as refusal:
        decide(lead, decided("qualify", day(3), fields=Fields(answers={"budget": True})), rules, day(3))
    assert [pointer for pointer, _ in refusal.value.errors] == ["/fields/authority", "/fields/need", "/fields/timing"]


def test_a_deal_is_said_when_its_amount_or_close_changes(rules, teller, decided, day):
    lead, said = _to_opportunity(rules, teller(), decided, day)
    deal = said[-1]
    assert isinstance(deal, OpportunityUpdated)
    assert (deal.stage, deal.amount, deal.expected_close) == ("opportunity", AMOUNT, date(2027, 3, 31))
    lead, said = played(rules, [decided("win", day(6), fields=Fields(amount=AMOUNT))], lead)
    assert not any(isinstance(event, OpportunityUpdated) for event in said)
    assert lead.deal.expected_close == date(2027, 3, 31)


def _to_opportunity(rules, about, decided, day):
    return played(
        rules,
        [
            about.captured(day(0), employee_count=250),
            about.did("demo.requested", day(1)),
            decided("accept", day(2)),
            decided("qualify", day(3), fields=BANT),
            decided("open_opportunity", day(4), fields=Fields(amount=AMOUNT, expected_close=date(2027, 3, 31))),
        ],
    )


def test_a_decision_from_before_the_stage_was_entered_is_recorded_as_given(rules, teller, decided, day):
    about = teller()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    lead, said = played(rules, [decided("accept", day(-3))], lead)
    assert (said[1].occurred_at, said[1].from_since, lead.stage_since) == (day(-3), day(1), day(-3))


def test_a_decision_from_the_future_is_refused(rules, teller, decided, day):
    lead, _ = played(rules, [teller().captured(day(0))])
    with pytest.raises(Unfit) as refusal:
        decide(lead, decided("disqualify", day(2), "not-a-fit"), rules, day(2) - timedelta(minutes=6))
    assert refusal.value.errors[0][0] == "/occurred_at"
    assert decide(lead, decided("disqualify", day(2), "not-a-fit"), rules, day(2) - timedelta(minutes=5)).lead


def test_a_recycled_lead_comes_back_after_its_cool_down_on_new_activity_of_its_own(rules, teller, decided, day):
    about = teller()
    lead, _ = played(
        rules,
        [
            about.captured(day(0), employee_count=250),
            about.did("demo.requested", day(1)),
            decided("reject", day(2), "no-timing"),
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


def test_a_merged_lead_leaves_its_activities_to_the_survivor(rules, teller, day):
    ours, theirs = teller(), teller()
    survivor, _ = played(rules, [ours.captured(day(0), employee_count=250)])
    other, _ = played(rules, [theirs.captured(day(1)), theirs.did("demo.requested", day(2))])
    assert other.stage == "inquiry"
    merge = ours.merged(other.lead_id, day(3), employee_count=250)
    outcome = decide(survivor, Merged(merge, other), rules, day(3))
    assert stages(list(outcome.events)) == [("inquiry", "mql")]
    gone = absorbed(other, other.lead_id, survivor.lead_id)
    assert gone.merged_into == survivor.lead_id
    assert gone.profile is not None
    assert gone.profile.attributes == {}


def test_the_survivor_of_a_merge_goes_on_from_where_the_other_had_come_to(rules, teller, decided, day):
    ours, theirs = teller(), teller()
    survivor, _ = played(rules, [ours.captured(day(0))])
    other, _ = _to_opportunity(rules, theirs, decided, day)
    outcome = decide(survivor, Merged(ours.merged(other.lead_id, day(5)), other), rules, day(5))
    assert outcome.lead is not None
    assert outcome.lead.stage == "opportunity"
    entry = next(event for event in outcome.events if isinstance(event, LeadStageChanged))
    assert (entry.cause, entry.from_stage) == ("merge", "inquiry")
    assert outcome.lead.deal.amount == AMOUNT


def test_a_lost_lead_is_not_taken_over_by_a_merge(rules, teller, decided, day):
    ours, theirs = teller(), teller()
    survivor, _ = played(rules, [ours.captured(day(0))])
    other, _ = _to_opportunity(rules, theirs, decided, day)
    other, _ = played(rules, [decided("lose", day(5), "price")], other)
    outcome = decide(survivor, Merged(ours.merged(other.lead_id, day(6)), other), rules, day(6))
    assert outcome.lead is not None
    assert outcome.lead.stage == "inquiry"


def test_an_erased_lead_keeps_its_counts_and_nothing_else(rules, teller, decided, day):
    about = teller()
    lead, _ = _to_opportunity(rules, about, decided, day)
    lead, said = played(rules, [about.erased(day(9))], lead)
    assert said == []
    assert lead.erased
    assert lead.profile is not None
    assert (lead.profile.attributes, lead.profile.campaign, lead.profile.external_keys) == ({}, None, [])
    assert (lead.stage, lead.deal.answers, lead.deal.amount) == ("opportunity", {}, AMOUNT)
    with pytest.raises(Gone):
        decide(lead, decided("win", day(10)), rules, day(10))
    after, said = played(rules, [about.did("demo.requested", day(11)), about.updated(day(12), employee_count=3)], lead)
    assert (after, said) == (lead, [])


def test_a_decision_about_a_lead_that_has_not_entered_is_refused(rules, teller, decided, day):
    with pytest.raises(Unknown):
        decide(None, decided("accept", day(0)), rules, day(0))


def test_a_decision_in_a_stage_that_the_definition_no_longer_knows_follows_the_gates_from_any(
    content, compiled, rules, teller, decided, day
):
    about = teller()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    del content["stages"][1]
    content["stages"][1]["from"] = ["inquiry"]
    for stage in content["stages"][1:]:
        if isinstance(stage["from"], list):
            stage["from"] = [key for key in stage["from"] if key != "mql"] or ["sal"]
    newer = compiled(content)
    assert allowed_decisions(lead, newer) == ("disqualify",)
    lead, said = played(newer, [decided("disqualify", day(2), "not-a-fit")], lead)
    assert said[1].from_stage == "mql"
    assert said[1].definition_version == 2


def test_gates_are_explained_leaf_by_leaf(rules, teller, day):
    lead, _ = played(rules, [teller().captured(day(0), employee_count=40)])
    (gate,) = explain_gates(lead, rules, day(0))
    assert (gate.stage, gate.holds) == ("mql", False)
    assert [(leaf.path, leaf.op, leaf.expected, leaf.actual, leaf.held) for leaf in gate.why] == [
        ("attributes.employee_count", "gte", 50, 40, False),
        ("scores.engagement", "gte", 20, 0.0, False),
    ]


def test_any_for_an_automatic_gate_means_every_way_forward(content, compiled, teller, decided, day):
    content["stages"][2].update(
        {"from": "any", "gate": {"when": {"path": "attributes.vip", "op": "eq", "value": True}}}
    )
    rules = compiled(content)
    about = teller()
    lead, said = played(rules, [about.captured(day(0), vip=True)])
    assert stages(said) == [(None, "inquiry"), ("inquiry", "sal")]
    lead, said = played(rules, [decided("lose", day(1), "price"), about.updated(day(2), vip=True, n=1)], lead)
    assert stages(said) == [("sal", "lost")]


def test_a_cool_down_holds_back_automatic_gates_of_any_stage(content, compiled, teller, day):
    content["stages"][0]["cool_down"] = "P2D"
    rules = compiled(content)
    about = teller()
    lead, _ = played(rules, [about.captured(day(0), employee_count=250), about.did("demo.requested", day(1))])
    assert lead.stage == "inquiry"
    lead, _ = played(rules, [about.updated(day(2), employee_count=251)], lead)
    assert (lead.stage, lead.stage_since) == ("mql", day(2))


def test_a_definition_without_scores_says_none(content, compiled, teller, day):
    content["scores"] = {}
    content["stages"][1]["gate"] = {"when": {"path": "attributes.employee_count", "op": "gte", "value": 50}}
    lead, said = played(compiled(content), [teller().captured(day(0), employee_count=250)])
    assert [type(event) for event in said] == [LeadStageChanged, LeadStageChanged]
    assert lead.scores is None


def test_an_activity_that_is_reported_late_is_judged_at_the_leads_own_clock(rules, teller, day):
    about = teller()
    events = [
        about.captured(day(0), employee_count=250),
        about.did("page.viewed", day(5)),
        about.did("demo.requested", day(3)),
    ]
    lead, _ = played(rules, events)
    assert (lead.stage, lead.stage_since) == ("mql", day(5))
    assert lead.scores is not None
    assert lead.scores.engagement == pytest.approx(40 * 2 ** (-2 / 30), abs=0.005)
