"""The kinds of clauses for one lead over a real database: pauses, attempts, freshness, hands, steps, acknowledged breaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from uuid_utils.compat import uuid7

from accord.contracts.qualification_events import LeadAssigned

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
CHICAGO = ZoneInfo("America/Chicago")
CALENDARS = {
    "office": {"timezone": "America/Chicago", "week": {"mon-fri": ["09:00-12:00", "13:00-17:00"]}},
    "long": {"timezone": "America/Chicago", "week": {"mon-fri": ["08:00-18:00"]}},
}
FOUR_HOURS = {"business": "PT4H", "calendar": "long"}


def local(day: int, hour: int, minute: int = 0, second: int = 0) -> datetime:
    """A moment of May 2027 in Chicago; the 3rd is a Monday."""
    return datetime(2027, 5, day, hour, minute, second, tzinfo=CHICAGO)


def text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def clause(**terms: Any) -> dict[str, Any]:
    """A response clause from the stage mql to a person's call, unless the terms say otherwise."""
    answer = {"from": {"stage": "mql"}, "to": {"activity": ["call.attempted", "email.sent"], "by": "sales"}}
    start = {} if terms.get("kind") == "freshness" else {"from": answer["from"]}
    owed = {"to": answer["to"]} if terms.get("kind", "response") == "response" else {}
    return {"key": "promise", "obliges": "sales", "kind": "response", **start, **owed, **terms}


@pytest.fixture
def sign(stack: Any) -> Callable[..., Any]:
    """Puts clauses in force since long ago."""

    async def put_in_force(*clauses: dict[str, Any]) -> None:
        content = {"kind": "sla", "title": "SLA", "calendars": CALENDARS, "clauses": list(clauses)}
        version = await stack.sign_sla(content)
        await stack.backdate_agreement(LONG_AGO, version)

    return put_in_force


async def become_mql(stack: Any, lead: Any, at: datetime) -> None:
    await stack.apply(lead.captured(at - timedelta(hours=1), size=100), lead.entered("mql", at))


async def clocks_of(stack: Any, lead: Any) -> list[dict[str, Any]]:
    """All clocks of a lead, the earliest start first."""
    answer = await stack.http.get(f"/v1/leads/{lead.lead_id}/clocks", headers={"Authorization": "Bearer key-of-reader"})
    return sorted(answer.json()["items"], key=lambda clock: (clock["started_at"], clock["clause"]))


async def the_clock(stack: Any, lead: Any) -> dict[str, Any]:
    (clock,) = await clocks_of(stack, lead)
    return clock


async def steps_of(stack: Any, lead: Any) -> list[tuple[float, str]]:
    """Fractions and moments of the escalation steps that were published."""
    events = await stack.published_events(lead.lead_id)
    return [(event.fraction, text(event.occurred_at)) for event in events if event.type == "sla.escalated.v1"]


def reassigned(lead: Any, owner: str, at: datetime, breach_id: Any) -> LeadAssigned:
    """An assignment that a breach has brought about."""
    given: LeadAssigned = lead.assigned(owner, at)
    return LeadAssigned(**{name: getattr(given, name) for name in given.__struct_fields__} | {"breach_id": breach_id})


# --- Steps ---


async def test_steps_are_fractions_of_the_open_time_counted_forward(stack, sign, make_lead):
    steps = [{"at": at, "notify": "managers"} for at in (0.5, 0.75, 1, 1.5)]
    await sign(clause(within=FOUR_HOURS, escalate=steps))
    lead = make_lead()
    await become_mql(stack, lead, local(3, 17))
    for moment in (local(4, 8), local(4, 9, 0, 1), local(4, 10, 0, 1), local(4, 11, 0, 1), local(4, 13, 0, 1)):
        await stack.read_until(moment)
    assert await steps_of(stack, lead) == [
        (0.5, text(local(4, 9))),
        (0.75, text(local(4, 10))),
        (1.0, text(local(4, 11))),
        (1.5, text(local(4, 13))),
    ]
    assert (await the_clock(stack, lead))["state"] == "breached"


async def test_step_is_published_once_and_names_what_is_agreed(stack, sign, make_lead):
    steps = [
        {"at": 0.5, "severity": "high"},
        {"at": 1, "notify": ["managers", "ops"], "severity": "critical"},
        {"at": 1.5, "reassign": True},
    ]
    await sign(clause(within={"elapsed": "PT1H"}, escalate=steps))
    lead = make_lead()
    await become_mql(stack, lead, local(3, 9))
    await stack.apply(lead.assigned("ann", local(3, 9)))
    for minutes in (31, 40, 61, 61, 91, 200, 300):
        await stack.read_until(local(3, 9) + timedelta(minutes=minutes))
    events = [event for event in await stack.published_events(lead.lead_id) if event.type == "sla.escalated.v1"]
    breach_id = (await the_clock(stack, lead))["breach_id"]
    assert [(e.fraction, e.severity, e.notify, e.reassign, str(e.breach_id)) for e in events] == [
        (0.5, "high", [], False, breach_id),
        (1.0, "critical", ["managers", "ops"], False, breach_id),
        (1.5, None, [], True, breach_id),
    ]
    assert events[-1].owner == "ann"
    assert (await the_clock(stack, lead))["severity"] == "critical"


async def test_step_that_the_deadline_overtook_is_not_published_and_later_ones_are(stack, sign, make_lead):
    steps = [{"at": at, "notify": "managers"} for at in (0.5, 1, 1.5)]
    await sign(clause(within={"elapsed": "PT1H"}, escalate=steps, warn_at=[0.75]))
    lead = make_lead()
    await become_mql(stack, lead, local(3, 9))
    await stack.read_until(local(3, 12))
    assert [fraction for fraction, _ in await steps_of(stack, lead)] == [1.0, 1.5]
    assert "at_risk" not in await stack.event_names(lead.lead_id)


async def test_answered_or_cancelled_clock_has_no_further_step(stack, sign, make_lead):
    await sign(clause(within={"elapsed": "PT1H"}, escalate=[{"at": 0.75, "notify": "a"}, {"at": 1.5, "notify": "a"}]))
    lost, late, erased = make_lead(), make_lead(), make_lead()
    for lead in (lost, late, erased):
        await become_mql(stack, lead, local(3, 9))
    await stack.read_until(local(3, 9, 36))
    await stack.apply(lost.entered("lost", local(3, 9, 36)), erased.erased(local(3, 9, 36)))
    for minute in (46, 61):
        await stack.read_until(local(3, 9) + timedelta(minutes=minute))
    await stack.apply(late.did("call.attempted", local(3, 10, 10)))
    await stack.read_until(local(4, 10))
    assert [len(await steps_of(stack, lead)) for lead in (lost, late, erased)] == [0, 1, 0]
    assert [(await the_clock(stack, lead))["state"] for lead in (lost, late, erased)] == [
        "cancelled",
        "met_late",
        "cancelled",
    ]


async def test_history_reassigns_nobody_and_an_old_step_neither(stack, sign, make_lead):
    steps = [{"at": 1, "reassign": True, "expires_after": "PT1H"}]
    await sign(clause(within={"elapsed": "PT1H"}, escalate=steps))
    fresh, imported = make_lead(), make_lead()
    async with stack.database.read_transaction() as conn:
        now = (await conn.exec_driver_sql("SELECT now()")).scalar_one()
    await become_mql(stack, fresh, now - timedelta(minutes=100))
    await become_mql(stack, imported, now - timedelta(minutes=300))
    await stack.read_until(now)
    assert [fraction for fraction, _ in await steps_of(stack, fresh)] == [1.0]
    assert await steps_of(stack, imported) == []
    assert (await the_clock(stack, imported))["state"] == "breached"


async def test_acknowledged_breach_notifies_no_more_but_keeps_its_consequences(stack, sign, make_lead, auth):
    steps = [{"at": 1, "notify": "managers"}, {"at": 1.5, "notify": "managers"}, {"at": 2, "reassign": True}]
    await sign(clause(within={"elapsed": "PT1H"}, escalate=steps))
    lead = make_lead()
    await become_mql(stack, lead, local(3, 9))
    await stack.read_until(local(3, 10, 1))
    (breach,) = (await stack.http.get("/v1/breaches", headers=auth("reader"))).json()["items"]
    url = f"/v1/breaches/{breach['breach_id']}/acknowledge"
    assert (await stack.http.post(url, json={"note": "on it"}, headers=auth("reader"))).status_code == 403
    assert (await stack.http.post(url, json={"note": "x" * 2001}, headers=auth("manager"))).status_code == 422
    unknown = f"/v1/breaches/{uuid7()}/acknowledge"
    assert (await stack.http.post(unknown, json={}, headers=auth("manager"))).status_code == 404
    for note in ("on it", "called back"):
        answer = await stack.http.post(url, json={"note": note}, headers=auth("manager"))
        assert answer.status_code == 200, answer.text
    assert (answer.json()["acknowledged_by"], answer.json()["acknowledged_note"]) == ("manager", "called back")
    await stack.read_until(local(3, 12))
    events = await stack.published_events(lead.lead_id)
    assert [event.type.split(".")[1] for event in events] == [
        "clock_started",
        "breached",
        "escalated",
        "breach_acknowledged",
        "escalated",
    ]
    assert (events[-1].fraction, events[-1].reassign, events[-1].acknowledged_by) == (2.0, True, "manager")
    assert all("called back" not in repr(event) and "on it" not in repr(event) for event in events)


async def test_note_about_a_breach_goes_with_the_person(stack, sign, make_lead, auth):
    await sign(clause(within={"elapsed": "PT1H"}))
    lead = make_lead()
    await become_mql(stack, lead, local(3, 9))
    await stack.read_until(local(3, 11))
    breach_id = (await the_clock(stack, lead))["breach_id"]
    url = f"/v1/breaches/{breach_id}/acknowledge"
    await stack.http.post(url, json={"note": "Ada Byron was away"}, headers=auth("manager"))
    await stack.apply(lead.erased(local(4, 9)))
    (breach,) = (await stack.http.get("/v1/breaches", headers=auth("reader"))).json()["items"]
    assert (breach["acknowledged_by"], breach["acknowledged_note"]) == ("manager", None)


async def test_withdrawn_breach_cannot_be_acknowledged(stack, sign, make_lead, auth):
    await sign(clause(within={"elapsed": "PT1H"}))
    lead = make_lead()
    await become_mql(stack, lead, local(3, 9))
    await stack.read_until(local(3, 11))
    breach_id = (await the_clock(stack, lead))["breach_id"]
    await stack.apply(lead.did("call.attempted", local(3, 9, 30), recorded=local(3, 12)))
    url = f"/v1/breaches/{breach_id}/acknowledge"
    assert (await stack.http.post(url, json={}, headers=auth("manager"))).status_code == 404


# --- Pauses ---


PAUSED = {"stage": "waiting", "activity": "hold.begun", "resumed_by": "hold.ended"}


async def test_pause_moves_the_deadline_within_open_hours(stack, sign, make_lead):
    await sign(clause(within=FOUR_HOURS, paused_by=PAUSED, warn_at=[0.25, 0.5]))
    lead = make_lead()
    await become_mql(stack, lead, local(4, 13))
    await stack.apply(lead.did("hold.begun", local(4, 14)))
    await stack.read_until(local(4, 15))
    assert (await the_clock(stack, lead))["state"] == "paused"
    await stack.apply(lead.did("hold.ended", local(4, 16, 30)))
    clock = await the_clock(stack, lead)
    assert (clock["state"], clock["due_at"]) == ("running", text(local(5, 9, 30)))
    await stack.read_until(local(5, 9, 31))
    events = await stack.published_events(lead.lead_id)
    at_risk = [(event.fraction, event.occurred_at) for event in events if event.type == "sla.at_risk.v1"]
    assert at_risk == [(0.25, local(4, 14))]  # that at half of the time was overtaken by the deadline in one look
    assert (await the_clock(stack, lead))["state"] == "breached"
    rescheduled = [event.paused for event in events if event.type == "sla.clock_rescheduled.v1"]
    assert rescheduled == [True, False]


async def test_pauses_that_overlap_count_once_and_their_closed_hours_do_not(stack, sign, make_lead):
    await sign(clause(within={"business": "PT4H", "calendar": "office"}, paused_by=PAUSED))
    lead = make_lead()
    await become_mql(stack, lead, local(7, 15))  # a Friday
    events: Sequence[Any] = [
        lead.did("hold.begun", local(7, 16)),
        lead.entered("waiting", local(7, 16, 30)),
        lead.did("hold.ended", local(8, 9)),
        lead.entered("sal", local(10, 10)),
    ]
    for event in events:
        await stack.apply(event)
    assert (await the_clock(stack, lead))["due_at"] == text(local(10, 14))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_answer_counts_also_at_and_after_the_begin_of_a_pause(stack, sign, make_lead, order):
    await sign(clause(within=FOUR_HOURS, paused_by=PAUSED))
    for after in (0, 1):
        lead = make_lead()
        await become_mql(stack, lead, local(4, 9))
        pair = [lead.entered("waiting", local(4, 10)), lead.did("email.sent", local(4, 10, 0, after))]
        for index in order:
            await stack.apply(pair[index])
        assert (await the_clock(stack, lead))["state"] == "met"


async def test_pause_that_is_reported_late_withdraws_the_breach_and_the_clock_runs_on(stack, sign, make_lead):
    await sign(clause(within={"elapsed": "PT1H"}, paused_by=PAUSED))
    lead = make_lead()
    await become_mql(stack, lead, local(4, 9))
    await stack.read_until(local(4, 10, 1))
    await stack.apply(
        lead.did("hold.begun", local(4, 9, 30), recorded=local(4, 10, 5)),
        lead.did("hold.ended", local(4, 9, 50), recorded=local(4, 10, 5)),
    )
    clock = await the_clock(stack, lead)
    assert (clock["state"], clock["due_at"]) == ("running", text(local(4, 10, 20)))
    await stack.read_until(local(4, 10, 21))
    names = await stack.event_names(lead.lead_id)
    assert names.count("breached") == 2
    assert names.count("breach_withdrawn") == 1
    events = await stack.published_events(lead.lead_id)
    assert len({event.breach_id for event in events if event.type == "sla.breached.v1"}) == 1


# --- Whose touch, and what repeats ---


async def test_tool_does_not_answer_for_a_person(stack, sign, make_lead):
    await sign(
        clause(within={"elapsed": "PT1H"}),
        clause(
            key="any-touch",
            to={"activity": "email.sent", "by": "sales", "actor_kind": ["automation", "person"]},
            within={"elapsed": "PT1H"},
        ),
    )
    lead, unknown = make_lead(), make_lead()
    for each in (lead, unknown):
        await become_mql(stack, each, local(4, 10))
    await stack.apply(
        lead.did("email.sent", local(4, 10, 0, 5), actor_kind="automation"),
        lead.did("call.attempted", local(4, 10, 40), actor_kind="person"),
        unknown.did("email.sent", local(4, 10, 5)),
    )
    found = {clock["clause"]: clock for clock in await clocks_of(stack, lead)}
    assert (found["promise"]["answered_at"], found["promise"]["actor_kind"]) == (text(local(4, 10, 40)), "person")
    assert (found["any-touch"]["answered_at"], found["any-touch"]["actor_kind"]) == (
        text(local(4, 10, 0, 5)),
        "automation",
    )
    assert {clock["state"] for clock in await clocks_of(stack, unknown)} == {"met"}
    url = "/v1/attainment?by=actor_kind"
    groups = (await stack.http.get(url, headers={"Authorization": "Bearer key-of-reader"})).json()["groups"]
    assert {group["by"]["actor_kind"]: group["met"] for group in groups} == {"person": 1, "automation": 1, None: 2}


DEMO = {"key": "demo", "from": {"activity": "demo.requested"}, "within": {"elapsed": "PT1H"}}


async def test_repeated_request_has_one_clock_from_its_first_moment(stack, sign, make_lead):
    await sign(clause(**DEMO))
    lead = make_lead()
    await stack.apply(lead.captured(local(4, 9)), lead.did("demo.requested", local(4, 10), by="lead"))
    await stack.apply(lead.did("demo.requested", local(4, 10, 30), by="lead"))
    await stack.apply(lead.did("call.attempted", local(4, 10, 45)))
    clock = await the_clock(stack, lead)
    assert (clock["started_at"], clock["state"]) == (text(local(4, 10)), "met")
    assert await stack.event_names(lead.lead_id) == ["clock_started", "met"]
    await stack.read_until(local(5, 10))
    assert len(await clocks_of(stack, lead)) == 1


async def test_request_after_the_answer_has_a_clock_of_its_own_in_any_order(stack, sign, make_lead):
    await sign(clause(**DEMO))
    lead = make_lead()
    await stack.apply(lead.captured(local(4, 9)), lead.did("demo.requested", local(4, 10), by="lead"))
    await stack.apply(lead.did("demo.requested", local(4, 10, 30), by="lead"))
    assert len(await clocks_of(stack, lead)) == 1
    await stack.apply(lead.did("call.attempted", local(4, 10, 15), recorded=local(4, 10, 40)))
    first, second = await clocks_of(stack, lead)
    assert (first["state"], second["state"], second["started_at"]) == ("met", "running", text(local(4, 10, 30)))


async def test_earlier_request_that_is_read_late_takes_the_place_of_the_later_one(stack, sign, make_lead):
    await sign(clause(**DEMO))
    lead = make_lead()
    await stack.apply(lead.captured(local(4, 9)), lead.did("demo.requested", local(4, 10, 30), by="lead"))
    await stack.apply(lead.did("demo.requested", local(4, 10), by="lead", recorded=local(4, 10, 40)))
    first, second = await clocks_of(stack, lead)
    assert (first["state"], second["state"]) == ("running", "cancelled")
    assert second["ended_why"] == "an earlier request is still open"


async def test_request_after_a_missed_deadline_is_owed_an_answer_again(stack, sign, make_lead):
    await sign(clause(**DEMO))
    lead = make_lead()
    await stack.apply(lead.captured(local(4, 9)), lead.did("demo.requested", local(4, 10), by="lead"))
    await stack.apply(lead.did("demo.requested", local(4, 15), by="lead"))
    await stack.read_until(local(4, 15, 30))
    assert [clock["state"] for clock in await clocks_of(stack, lead)] == ["breached", "running"]


async def test_second_visit_has_its_own_clock_and_a_late_report_belongs_to_the_first(stack, sign, make_lead):
    await sign(clause(to={"decision": ["accept"]}, within={"elapsed": "PT1H"}))
    lead = make_lead()
    await become_mql(stack, lead, local(3, 10))
    await stack.read_until(local(3, 12))
    await stack.apply(lead.entered("recycled", local(4, 10)), lead.entered("mql", local(20, 10)))
    await stack.apply(lead.decided("accept", local(20, 10, 30)))
    first, second = await clocks_of(stack, lead)
    assert (first["state"], second["state"], second["answered_at"]) == ("breached", "met", text(local(20, 10, 30)))


# --- Attempts and freshness ---


TRIES = {
    "kind": "attempts",
    "from": {"stage": "sal"},
    "count": 3,
    "of": ["call.attempted", "email.sent"],
    "by": "sales",
    "within": {"business_days": 2, "calendar": "office"},
    "until": {"stage": "sql"},
}


async def test_attempts_are_met_by_the_last_one_that_is_owed(stack, sign, make_lead):
    await sign(clause(**TRIES))
    lead = make_lead()
    await stack.apply(lead.captured(local(3, 8)), lead.entered("sal", local(3, 8, 30)))
    call = lead.did("call.attempted", local(3, 10))
    await stack.apply(call, call, lead.did("email.sent", local(4, 16)))
    assert ((await the_clock(stack, lead))["state"], (await the_clock(stack, lead))["answers"]) == ("running", 2)
    await stack.read_until(local(4, 17, 0, 1))
    assert (await the_clock(stack, lead))["state"] == "breached"
    await stack.apply(lead.did("call.attempted", local(3, 9), recorded=local(5, 9)))
    clock = await the_clock(stack, lead)
    assert (clock["state"], clock["answered_at"]) == ("met", text(local(4, 16)))


async def test_attempts_end_without_a_result_where_the_clause_says_so(stack, sign, make_lead):
    await sign(clause(**TRIES))
    lead = make_lead()
    await stack.apply(lead.captured(local(3, 8)), lead.entered("sal", local(3, 8, 30)))
    await stack.apply(lead.entered("sql", local(3, 15)))
    await stack.read_until(local(6, 10))
    clock = await the_clock(stack, lead)
    assert (clock["state"], clock["ended_why"]) == ("cancelled", "the lead entered sql")


async def test_lead_that_stays_in_a_stage_breaches_its_freshness(stack, sign, make_lead):
    await sign(clause(kind="freshness", stage="recycled", within={"elapsed": "P2D"}))
    stays, goes = make_lead(), make_lead()
    for lead in (stays, goes):
        await stack.apply(lead.captured(local(3, 8)), lead.entered("recycled", local(3, 9)))
    await stack.apply(goes.entered("lost", local(4, 9)))
    await stack.read_until(local(5, 9, 0, 1))
    assert [(await the_clock(stack, lead))["state"] for lead in (stays, goes)] == ["breached", "met"]


# --- Hands ---


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("moves", [("breached", (3, 11), "bob")]),
        ("restarts", [("cancelled", (3, 11), "ann"), ("breached", (3, 13, 30), "bob")]),
        ("ends", [("cancelled", (3, 11), "ann")]),
    ],
)
async def test_clock_of_a_lead_that_is_given_to_somebody_else(stack, sign, make_lead, policy, expected):
    within = {"business": "PT2H", "calendar": "office"}
    await sign(clause(within=within, on_reassignment=policy))
    lead = make_lead()
    await become_mql(stack, lead, local(3, 9))
    await stack.apply(lead.assigned("ann", local(3, 9)))
    await stack.apply(lead.assigned("bob", local(3, 10, 30)))
    await stack.read_until(local(4, 9))
    await stack.apply(lead.assigned("cho", local(4, 10)))  # after the deadline: the ledger keeps whose it was
    found = [(clock["state"], clock["due_at"], clock["owner"]) for clock in await clocks_of(stack, lead)]
    assert found == [(state, text(local(*due)), owner) for state, due, owner in expected]


async def test_restarted_clock_is_not_needed_where_the_first_was_answered_before(stack, sign, make_lead):
    await sign(clause(within={"elapsed": "PT4H"}, on_reassignment="restarts"))
    lead = make_lead()
    await become_mql(stack, lead, local(3, 9))
    await stack.apply(lead.assigned("ann", local(3, 9)))
    await stack.apply(lead.assigned("bob", local(3, 10, 30)))
    await stack.apply(lead.did("call.attempted", local(3, 10), recorded=local(3, 10, 40)))
    assert [clock["state"] for clock in await clocks_of(stack, lead)] == ["met", "cancelled"]


async def test_clause_from_an_assignment_ends_with_the_hand_over(stack, sign, make_lead):
    await sign(clause(**{"from": {"assigned": True}}, within={"elapsed": "PT2M"}))
    lead = make_lead()
    at = local(3, 9)
    await stack.apply(lead.captured(at), lead.assigned("bob", at))
    await stack.apply(lead.assigned("bob", at + timedelta(seconds=30)))  # again: nothing new
    await stack.apply(lead.assigned("ann", at + timedelta(seconds=85)))
    await stack.apply(lead.did("email.sent", at + timedelta(seconds=140)))
    await stack.read_until(local(3, 10))
    found = [(clock["owner"], clock["state"], clock["ended_why"]) for clock in await clocks_of(stack, lead)]
    assert found == [("bob", "cancelled", "the lead was given to somebody else"), ("ann", "met", None)]


@pytest.mark.parametrize("start", [{"assigned": True}, {"stage": "mql"}])
async def test_breach_that_reassigns_starts_its_clause_no_second_time(stack, sign, make_lead, start):
    steps = [{"at": 1.0, "reassign": True}]
    await sign(clause(**{"from": start}, within={"elapsed": "PT1H"}, on_reassignment="restarts", escalate=steps))
    lead = make_lead()
    await stack.apply(lead.captured(local(3, 8)), lead.assigned("ann", local(3, 9)), lead.entered("mql", local(3, 9)))
    await stack.read_until(local(3, 10, 1))
    breach_id = (await stack.published_events(lead.lead_id))[-1].breach_id
    await stack.apply(reassigned(lead, "bob", local(3, 10, 2), breach_id))
    await stack.read_until(local(3, 18))
    clock = await the_clock(stack, lead)
    assert (clock["state"], clock["owner"]) == ("breached", "ann")
    assert (await stack.event_names(lead.lead_id)).count("escalated") == 1


async def test_clock_that_opens_late_knows_who_had_the_lead(stack, sign, make_lead):
    where = {"path": "attributes.size", "op": "gte", "value": 50}
    await sign(clause(within={"elapsed": "PT1H"}, where=where))
    lead = make_lead()
    await stack.apply(lead.assigned("ann", local(3, 8)), lead.entered("mql", local(3, 9)))
    await stack.apply(lead.assigned("bob", local(3, 12)))
    await stack.apply(lead.captured(local(3, 7), size=100))
    await stack.read_until(local(3, 13))
    assert (await the_clock(stack, lead))["owner"] == "ann"
