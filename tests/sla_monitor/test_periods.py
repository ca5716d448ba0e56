"""Clauses over a period, over a real database: opened by the watermark, judged at the end, judged again by a later truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from tests.sla_monitor.conftest import bearer

from accord.contracts.envelope import decode_data
from sla_monitor.domain.rules import PeriodRule, compile_sla
from sla_monitor.domain.sla import Sla
from sla_monitor.queries import periods

CHICAGO = ZoneInfo("America/Chicago")
VOLUME = {"key": "volume", "obliges": "marketing", "kind": "volume", "stage": "mql", "per": "month", "at_least": 2}
RATE = {
    "key": "quality",
    "obliges": "marketing",
    "kind": "rate",
    "of": {"decision": "accept"},
    "over": {"decision": ["accept", "reject"]},
    "per": "month",
    "at_least": 0.5,
}
IN_FORCE = datetime(2026, 4, 1, 5, tzinfo=UTC)  # midnight in Chicago


def local(month: int, day: int, hour: int = 12, minute: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=CHICAGO)


@pytest.fixture
def sign(stack: Any) -> Callable[..., Any]:
    """Puts clauses in force since the first of April."""

    async def put_in_force(*clauses: dict[str, Any], since: datetime = IN_FORCE) -> int:
        content = {"kind": "sla", "title": "SLA", "timezone": "America/Chicago", "clauses": list(clauses)}
        version: int = await stack.sign_sla(content)
        await stack.backdate_agreement(since, version)
        return version

    return put_in_force


async def enter(stack: Any, make_lead: Callable[[], Any], *moments: datetime, stage: str = "mql") -> list[Any]:
    """Leads that enter a stage, each at one of these moments."""
    leads = []
    for moment in moments:
        lead = make_lead()
        await stack.apply(lead.captured(moment, size=100), lead.entered(stage, moment))
        leads.append(lead)
    return leads


async def clocks_of(stack: Any, clause: str) -> dict[str, tuple[str, Any]]:
    """State and counts of a clause's clocks, by the day of their begin in Chicago."""
    answer = await stack.http.get(f"/v1/clocks?clause={clause}", headers=bearer("reader"))
    assert answer.status_code == 200, answer.text
    found = {}
    for clock in answer.json()["items"]:
        assert clock["lead_id"] is None
        day = datetime.fromisoformat(clock["started_at"]).astimezone(CHICAGO).date().isoformat()
        tally = clock["tally"]
        found[day] = (clock["state"], tally and (tally["counted"], tally["over"]))
    return found


async def published(stack: Any, clause: str) -> list[Any]:
    rows = await stack.rows("SELECT type, payload FROM outbox WHERE key = :clause ORDER BY id", clause=clause)
    return [decode_data(row.type, row.payload) for row in rows]


async def names(stack: Any, clause: str) -> list[str]:
    return [event.type.split(".")[1] for event in await published(stack, clause)]


async def test_month_without_any_event_is_breached_once_at_its_end(stack, sign):
    await sign(VOLUME, RATE)
    await stack.read_until(local(4, 1, 0, 1))
    assert await clocks_of(stack, "volume") == {"2026-04-01": ("running", None)}
    await stack.read_until(local(4, 30, 23, 59))
    assert await names(stack, "volume") == ["clock_started"]
    for _ in range(3):
        await stack.read_until(local(5, 1, 0, 1))
    assert await clocks_of(stack, "volume") == {
        "2026-04-01": ("breached", (0, None)),
        "2026-05-01": ("running", None),
    }
    events = await published(stack, "volume")
    assert [event.type.split(".")[1] for event in events] == ["clock_started", "clock_started", "breached"]
    assert (events[2].lead_id, events[2].due_at) == (None, datetime(2026, 5, 1, 5, tzinfo=UTC))
    assert (await clocks_of(stack, "quality"))["2026-04-01"] == ("cancelled", (0, 0))
    cancelled = (await published(stack, "quality"))[-1]
    assert cancelled.why == "there was nothing to judge"
    url = "/v1/attainment?by=clause"
    groups = (await stack.http.get(url, headers=bearer("reader"))).json()["groups"]
    found = {group["by"]["clause"]: (group["attainment"], group["breached"], group["cancelled"]) for group in groups}
    assert found == {"volume": (0.0, 1, 0), "quality": (None, 0, 1)}


async def test_nothing_is_judged_while_the_watermark_stands(stack, sign):
    await sign(VOLUME)
    await stack.read_until(local(4, 1, 1))
    await stack.read_until(local(6, 1), local(4, 20))
    assert await clocks_of(stack, "volume") == {"2026-04-01": ("running", None)}


async def test_month_has_the_bounds_of_the_agreed_zone(stack, sign, make_lead):
    await sign(VOLUME)
    april_end, may_start = local(4, 30, 23, 30), local(5, 1, 0, 0)
    await enter(stack, make_lead, local(4, 1, 0), april_end, may_start)
    await stack.read_until(local(6, 1, 0, 1))
    assert await clocks_of(stack, "volume") == {
        "2026-04-01": ("met", (2, None)),
        "2026-05-01": ("breached", (1, None)),
        "2026-06-01": ("running", None),
    }


async def test_first_period_is_the_first_whole_one(stack, sign, make_lead):
    await sign(VOLUME, since=local(4, 20))
    await enter(stack, make_lead, local(4, 25))
    await stack.read_until(local(6, 1, 0, 1))
    assert await clocks_of(stack, "volume") == {"2026-05-01": ("breached", (0, None)), "2026-06-01": ("running", None)}


async def test_rate_counts_both_sides_in_the_period(stack, sign, make_lead):
    await sign(RATE)
    leads = await enter(stack, make_lead, *[local(4, 3)] * 4)
    for lead, decision in zip(leads, ["accept", "accept", "reject", "qualify"], strict=True):
        await stack.apply(lead.decided(decision, local(4, 5)))
    await stack.read_until(local(5, 1, 0, 1))
    assert (await clocks_of(stack, "quality"))["2026-04-01"] == ("met", (2, 3))


async def test_late_report_withdraws_the_breach_of_a_period(stack, sign, make_lead):
    await sign(VOLUME)
    first, second = await enter(stack, make_lead, local(4, 3), local(5, 2))
    await stack.read_until(local(5, 10))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("breached", (1, None))
    await stack.apply(second.entered("mql", local(4, 29), recorded=local(5, 11)))
    await stack.read_until(local(5, 12))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("met", (2, None))
    assert (await names(stack, "volume")).count("breach_withdrawn") == 1
    assert first.lead_id != second.lead_id


async def test_correction_and_merge_judge_a_period_again(stack, sign, make_lead):
    await sign(VOLUME)
    first, second = await enter(stack, make_lead, local(4, 3), local(4, 4))
    await stack.read_until(local(5, 1, 0, 1))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("met", (2, None))
    merge = first.merged(second.lead_id, local(4, 20))
    await stack.apply(merge)
    await stack.read_until(local(5, 2))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("breached", (1, None))
    await stack.apply(first.unmerged(merge, local(5, 3)))
    await stack.read_until(local(5, 4))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("met", (2, None))
    later = first.merged(second.lead_id, local(5, 5))
    await stack.apply(later)  # at the end of April they were two
    await stack.read_until(local(5, 6))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("met", (2, None))
    assert (await names(stack, "volume")).count("breached") == 1


async def test_entry_that_a_correction_removes_counts_no_more(stack, sign, make_lead):
    await sign(VOLUME)
    first, second = await enter(stack, make_lead, local(4, 3), local(4, 4))
    await stack.read_until(local(5, 1, 0, 1))
    removed = second.entered("mql", local(4, 4), recorded=local(5, 2))
    fields = {name: getattr(removed, name) for name in removed.__struct_fields__}
    await stack.apply(type(removed)(**fields | {"replaces": 1, "withdrawn": True, "correction": True}))
    await stack.read_until(local(5, 3))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("breached", (1, None))
    assert first.lead_id != second.lead_id


async def test_where_decides_which_leads_count_and_waits_for_intake(stack, sign, make_lead):
    where = {"path": "attributes.size", "op": "gte", "value": 50}
    await sign({**VOLUME, "at_least": 1, "where": where})
    small, unknown = make_lead(), make_lead()
    await stack.apply(small.captured(local(4, 3), size=5), small.entered("mql", local(4, 3)))
    await stack.apply(unknown.entered("mql", local(4, 4)))
    await stack.read_until(local(5, 1, 0, 1))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("running", None)  # nobody knows yet of one
    await stack.apply(unknown.captured(local(4, 2), recorded=local(4, 4), size=80))
    await stack.read_until(local(5, 1, 0, 2))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("met", (1, None))


async def test_held_lead_lets_no_period_be_judged_short(stack, sign, make_lead):
    await sign(VOLUME, {**VOLUME, "key": "reached", "at_least": 1})
    await enter(stack, make_lead, local(4, 3))
    await stack.read_until(local(4, 4))
    stack.watermarks.held = frozenset({"somebody"})
    await stack.read_until(local(5, 1, 0, 1))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("running", None)
    assert (await clocks_of(stack, "reached"))["2026-04-01"] == ("met", (1, None))
    stack.watermarks.held = frozenset()
    await stack.read_until(local(5, 1, 0, 2))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("breached", (1, None))


async def test_warning_comes_only_where_the_pace_is_too_slow(stack, sign, make_lead):
    steps = [{"at": 0.8, "notify": "marketing"}, {"at": 1, "notify": "managers", "severity": "high"}]
    await sign({**VOLUME, "warn_at": [0.5], "escalate": steps})
    (lead,) = await enter(stack, make_lead, local(4, 3))
    assert lead
    await stack.read_until(local(4, 16, 1))
    assert await names(stack, "volume") == ["clock_started"]  # half of the time, half of the leads
    await stack.read_until(local(4, 26))
    await stack.read_until(local(5, 1, 0, 1))
    events = await published(stack, "volume")
    assert [event.type.split(".")[1] for event in events] == [
        "clock_started",
        "escalated",
        "clock_started",
        "breached",
        "escalated",
    ]
    assert [(event.fraction, event.notify, event.severity) for event in (events[1], events[4])] == [
        (0.8, ["marketing"], None),
        (1.0, ["managers"], "high"),
    ]


async def test_period_stays_with_its_version(stack, sign, make_lead):
    await sign(VOLUME)
    await stack.read_until(local(4, 2))
    version = await sign({**VOLUME, "at_least": 1}, since=local(4, 15))
    await stack.backdate_supersession(local(4, 15), version - 1)
    await enter(stack, make_lead, local(4, 20), local(5, 2))
    await stack.read_until(local(6, 1, 0, 1))
    assert await clocks_of(stack, "volume") == {
        "2026-04-01": ("breached", (1, None)),
        "2026-05-01": ("met", (1, None)),
        "2026-06-01": ("running", None),
    }
    content = {"kind": "sla", "title": "SLA", "clauses": [RATE]}
    await stack.sign_sla(content)
    await stack.backdate_supersession(local(6, 10), version)
    await stack.read_until(local(8, 2))
    assert (await clocks_of(stack, "volume"))["2026-06-01"] == ("breached", (0, None))
    assert "2026-07-01" not in await clocks_of(stack, "volume")


async def test_breach_of_a_period_is_acknowledged_like_any_other(stack, sign):
    await sign(VOLUME)
    await stack.read_until(local(5, 1, 0, 1))
    (breach,) = (await stack.http.get("/v1/breaches?obliges=marketing", headers=bearer("reader"))).json()["items"]
    url = f"/v1/breaches/{breach['breach_id']}/acknowledge"
    answer = await stack.http.post(url, json={"note": "spring campaign was late"}, headers=bearer("manager"))
    assert (answer.status_code, answer.json()["lead_id"]) == (200, None)


async def test_entry_that_commits_beside_the_judgement_is_not_missed(stack, sign, make_lead, database_url):
    await sign(VOLUME)
    first, second = await enter(stack, make_lead, local(4, 3), local(5, 2))
    await stack.read_until(local(4, 4))
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "INSERT INTO period_entry SELECT $1, clause, sla_version, 'late', occurred_at, is_of, is_over"
        " FROM period_entry WHERE lead_id = $2",
        second.lead_id,
        first.lead_id,
    )
    await periods.judge_leads_again(connection, [second.lead_id])
    await stack.read_until(local(5, 1, 0, 1))  # passes over the clock, which is locked
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("running", None)
    await transaction.commit()
    await connection.close()
    await stack.read_until(local(5, 1, 0, 2))
    assert (await clocks_of(stack, "volume"))["2026-04-01"] == ("met", (2, None))


def rule_per(per: str, zone: str) -> PeriodRule:
    content = {"kind": "sla", "title": "SLA", "timezone": zone, "clauses": [{**VOLUME, "per": per}]}
    return compile_sla(1, Sla.model_validate(content), lambda country, subdivision: {}).periods["volume"]


@pytest.mark.parametrize(
    ("per", "zone", "moment", "start", "end"),
    [
        ("month", "America/Chicago", "2027-05-31T23:30-05:00", "2027-05-01T05:00Z", "2027-06-01T05:00Z"),
        ("month", "America/Chicago", "2027-06-01T00:00-05:00", "2027-06-01T05:00Z", "2027-07-01T05:00Z"),
        ("month", "America/Chicago", "2027-01-15T12:00-06:00", "2027-01-01T06:00Z", "2027-02-01T06:00Z"),
        ("month", "America/Chicago", "2027-03-31T12:00-05:00", "2027-03-01T06:00Z", "2027-04-01T05:00Z"),
        ("quarter", "Asia/Kathmandu", "2027-12-31T23:59+05:45", "2027-09-30T18:15Z", "2027-12-31T18:15Z"),
        ("week", "Europe/Berlin", "2027-03-28T12:00+02:00", "2027-03-21T23:00Z", "2027-03-28T22:00Z"),
        ("week", "America/Santiago", "2024-09-10T12:00-03:00", "2024-09-09T03:00Z", "2024-09-16T03:00Z"),
    ],
)
def test_period_of_a_moment(per, zone, moment, start, end):
    found = rule_per(per, zone).period_of(datetime.fromisoformat(moment))
    assert (found.start, found.end) == (datetime.fromisoformat(start), datetime.fromisoformat(end))


def test_periods_follow_one_another_without_gap_for_forty_years():
    rule = rule_per("month", "America/Sao_Paulo")
    found = list(rule.whole_periods(datetime(2000, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)))
    assert all(first.end == second.start for first, second in itertools.pairwise(found))
    assert all(timedelta(days=27) < period.end - period.start < timedelta(days=32) for period in found)
    assert len(found) == 480
