"""The HTTP routes: lists by deadline, attainment, due times, the agreement and bad input."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from urllib.parse import quote

import pytest

from accord.clock import utc_now
from sla_monitor.api.examples import SLA

START = datetime(2027, 1, 4, 9, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


@pytest.fixture
async def played(signed, make_lead):
    """Five leads: met, met late, breached, cancelled, running; of two sources and two owners."""
    met, met_late, breached, cancelled, running = leads = [make_lead() for _ in range(5)]
    for number, lead in enumerate(leads):
        lead.source = "website" if number < 3 else "fair"
        await signed.apply(lead.captured(at(-5)), lead.assigned("ann" if number % 2 else "bob", at(-1)))
    for number, lead in enumerate((met, met_late, breached, cancelled)):
        await signed.apply(lead.entered("mql", at(number)))
    await signed.apply(running.entered("mql", at(600)))
    await signed.apply(
        met.decided("accept", at(10)), met_late.decided("accept", at(100)), cancelled.entered("lost", at(10))
    )
    await signed.read_until(at(610))
    return signed


async def get(stack, url: str, key: str = "reader"):
    return await stack.http.get(url, headers={"Authorization": f"Bearer key-of-{key}"})


async def test_clocks_are_listed_by_deadline_with_the_watermark(played):
    answer = await get(played, "/v1/clocks")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [item["state"] for item in body["items"]] == ["met", "met_late", "breached", "cancelled", "running"]
    assert body["as_of"] == "2027-01-04T19:10:00Z"
    assert body["next_cursor"] is None


async def test_clocks_are_paged(played):
    found, cursor = [], ""
    while True:
        body = (await get(played, f"/v1/clocks?limit=2{cursor}")).json()
        found += [item["state"] for item in body["items"]]
        if body["next_cursor"] is None:
            break
        cursor = f"&cursor={body['next_cursor']}"
    assert found == ["met", "met_late", "breached", "cancelled", "running"]


async def test_clocks_are_filtered(played):
    async def states(query: str) -> list[str]:
        return [item["state"] for item in (await get(played, f"/v1/clocks?{query}")).json()["items"]]

    assert await states("state=running") == ["running"]
    assert await states("owner=ann") == ["met_late", "cancelled"]
    assert await states("clause=accept-mql&due_before=2027-01-04T10:01:00Z") == ["met"]
    assert await states("clause=nothing") == []


async def test_breaches_are_one_ledger_for_both_departments(played):
    body = (await get(played, "/v1/breaches")).json()
    assert [(item["state"], item["obliges"], item["owner"]) for item in body["items"]] == [
        ("met_late", "sales", "ann"),
        ("breached", "sales", "bob"),
    ]
    assert (await get(played, "/v1/breaches?obliges=marketing")).json()["items"] == []
    query = f"from={quote('2027-01-04T10:02:00Z')}&to={quote('2027-01-04T10:03:00Z')}&clause=accept-mql"
    assert [item["state"] for item in (await get(played, f"/v1/breaches?{query}")).json()["items"]] == ["breached"]


async def test_attainment_counts_late_as_breached(played):
    body = (await get(played, "/v1/attainment")).json()
    (group,) = body["groups"]
    assert group["by"] == {}
    assert (group["met"], group["breached"], group["met_late"], group["running"], group["cancelled"]) == (1, 2, 1, 1, 1)
    assert group["attainment"] == pytest.approx(1 / 3)
    assert body["definition"]["measure"].startswith("met / (met + breached)")


async def test_attainment_is_grouped_by_clause_department_owner_source_and_month(played):
    expected = {
        "clause": {"accept-mql": 1 / 3},
        "department": {"sales": 1 / 3},
        "owner": {"ann": 0.0, "bob": 0.5},
        "source": {"fair": None, "website": 1 / 3},
        "month": {"2027-01": 1 / 3},
    }
    found = {}
    for by in expected:
        groups = (await get(played, f"/v1/attainment?by={by}")).json()["groups"]
        found[by] = {group["by"][by]: group["attainment"] for group in groups}
    assert found == {
        by: {name: None if share is None else pytest.approx(share) for name, share in shares.items()}
        for by, shares in expected.items()
    }


async def test_attainment_of_a_period_counts_what_was_due_in_it(played):
    query = f"from={quote('2027-01-04T10:01:00+00:00')}&to={quote('2027-01-04T10:02:00+00:00')}"
    (group,) = (await get(played, f"/v1/attainment?{query}")).json()["groups"]
    assert (group["met"], group["breached"]) == (0, 1)
    assert (await get(played, "/v1/attainment?to=2020-01-01T00:00:00Z&by=clause")).json()["groups"] == []


async def test_due_time_is_explained(signed):
    start = quote("2027-01-09T16:00:00-06:00")
    body = (await get(signed, f"/v1/calendar/due?calendar=office&start={start}&business=PT1H")).json()
    assert (body["due"], body["timezone"]) == ("2027-01-11T17:00:00Z", "America/Chicago")
    assert body["steps"] == [
        {
            "from": "2027-01-09T22:00:00Z",
            "to": "2027-01-11T16:00:00Z",
            "counted": "PT0S",
            "why": "Saturday 2027-01-09 is closed; Sunday 2027-01-10 is closed",
        },
        {"from": "2027-01-11T16:00:00Z", "to": "2027-01-11T17:00:00Z", "counted": "PT1H", "why": "open"},
    ]


async def test_calendar_that_the_sla_in_force_lacks_is_not_found(stack):
    url = "/v1/calendar/due?calendar=office&start=2027-01-09T16:00:00Z&business=PT1H"
    assert (await get(stack, url)).status_code == 404
    await stack.sign_sla()
    assert (await get(stack, url)).status_code == 200
    missing = await get(stack, url.replace("office", "factory"))
    assert missing.status_code == 404
    assert missing.json()["detail"] == "This version of the SLA has these: office."


CLOSED_DAYS = "/v1/calendar/closed-days?calendar=office&year=2027"


async def test_closed_days_name_the_holiday_or_the_agreed_day_off(stack):
    content = deepcopy(SLA)
    content["calendars"]["office"]["holidays"]["except"] = ["2027-04-21"]
    await stack.sign_sla(content)
    body = (await get(stack, CLOSED_DAYS)).json()
    assert (body["calendar"], body["year"], body["timezone"], body["sla_version"]) == (
        "office",
        2027,
        "America/Chicago",
        1,
    )
    by_date = {item["date"]: item for item in body["items"]}
    assert list(by_date) == sorted(by_date)
    assert by_date["2027-05-31"] == {
        "date": "2027-05-31",
        "weekday": "Monday",
        "name": "Memorial Day",
        "origin": "public_holiday",
    }
    assert by_date["2027-12-24"] == {
        "date": "2027-12-24",
        "weekday": "Friday",
        "name": "agreed day off",
        "origin": "extra",
    }
    assert "2027-04-21" not in by_date, "an exception is worked"
    assert not {"Saturday", "Sunday"} & {item["weekday"] for item in body["items"]}, "closed by the week already"


async def test_closed_days_of_a_draft_are_listed_before_anybody_signs(stack, auth):
    await stack.sign_sla()
    drafted = await stack.http.post("/v1/sla/versions", json=SLA, headers=auth("marketing"))
    assert drafted.status_code == 201, drafted.text
    assert (await get(stack, CLOSED_DAYS)).json()["items"] == []
    body = (await get(stack, f"{CLOSED_DAYS}&version=2")).json()
    assert body["sla_version"] == 2
    assert "2027-12-24" in {item["date"] for item in body["items"]}


async def test_closed_days_are_those_that_the_paper_shows(stack, auth):
    await stack.sign_sla(SLA)
    headers = {**auth("reader"), "Accept": "text/markdown"}
    page = (await stack.http.get("/v1/sla/versions/1/paper", headers=headers)).text.replace("\\", "")
    today = utc_now().date()
    items = (await get(stack, CLOSED_DAYS.replace("2027", str(today.year + 1)))).json()["items"]
    shown = [item for item in items if date.fromisoformat(item["date"]) < today + timedelta(days=366)]
    assert shown
    for item in shown:
        assert f"{item['weekday']} {item['date']} | closed: {item['name']}" in page


async def test_closed_days_of_what_does_not_exist_are_not_found(stack):
    assert (await get(stack, CLOSED_DAYS)).json()["title"] == "No SLA is in force"
    assert (await get(stack, f"{CLOSED_DAYS}&version=1")).status_code == 404
    await stack.sign_sla()
    missing = await get(stack, f"{CLOSED_DAYS}&version=7")
    assert (missing.status_code, missing.json()["title"]) == (404, "No such version")
    missing = await get(stack, CLOSED_DAYS.replace("office", "factory"))
    assert missing.status_code == 404
    assert missing.json()["detail"] == "This version of the SLA has these: office."


BAD_INPUT = [
    ("/v1/calendar/closed-days?calendar=office&year=1999", "year"),
    ("/v1/calendar/closed-days?calendar=office&year=2061", "year"),
    ("/v1/calendar/closed-days?calendar=office", "year"),
    ("/v1/calendar/closed-days?calendar=office&year=2027&version=0", "version"),
    ("/v1/calendar/closed-days?calendar=office&year=2027&version=99999999999", "version"),
    ("/v1/calendar/due?calendar=office&start=2027-01-09T16:00:00Z&business=4h", "business"),
    ("/v1/calendar/due?calendar=office&start=2027-01-09T16:00:00Z&business=PT0S", "business"),
    ("/v1/calendar/due?calendar=office&start=2027-01-09T16:00:00Z&business=P999D", "business"),
    ("/v1/calendar/due?calendar=office&start=2027-01-09T16:00:00&business=PT1H", "start"),
    ("/v1/calendar/due?calendar=office&business=PT1H", "start"),
    ("/v1/clocks?state=resting", "state"),
    ("/v1/clocks?limit=0", "limit"),
    ("/v1/clocks?limit=501", "limit"),
    ("/v1/clocks?cursor=nonsense", "cursor"),
    ("/v1/clocks?cursor=WyJhIiwiYiJd", "cursor"),
    ("/v1/clocks?due_before=yesterday", "due_before"),
    ("/v1/breaches?from=2027-01-09", "from"),
    ("/v1/breaches?obliges=support", "obliges"),
    ("/v1/attainment?by=weather", "by"),
    ("/v1/leads/42/clocks", "lead_id"),
]


async def test_bad_input_is_refused_with_its_parameter(signed):
    found, expected = {}, {}
    for url, parameter in BAD_INPUT:
        answer = await get(signed, url)
        named = [error.get("parameter") for error in answer.json().get("errors", [])]
        found[url] = (answer.status_code, answer.headers["content-type"], parameter in named or named)
        expected[url] = (422, "application/problem+json", True)
    assert found == expected


MOMENTS_OUT_OF_RANGE = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00%2B14:00",
    "1969-12-31T23:59:59Z",
    "2200-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
)


@pytest.mark.parametrize("moment", MOMENTS_OUT_OF_RANGE)
async def test_moment_out_of_range_is_refused_with_the_range(signed, moment):
    for query in (
        f"calendar/due?calendar=office&business=P80D&start={moment}",
        f"clocks?due_before={moment}",
        f"breaches?from={moment}",
        f"attainment?to={moment}",
    ):
        answer = await get(signed, f"/v1/{query}")
        assert answer.status_code == 422, query
        assert "from 1970-01-01 to 2199-12-31" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("moment", ["1970-01-01T00:00:00Z", "2199-12-31T23:59:59.999999Z"])
async def test_first_and_last_moment_are_accepted(signed, moment):
    due = await get(signed, f"/v1/calendar/due?calendar=office&business=P80D&start={moment}")
    assert due.status_code == 200, due.text
    assert due.json()["due"] <= "2199-12-31T23:59:59.999999Z"
    for query in (f"clocks?due_before={moment}", f"breaches?from={moment}", f"attainment?to={moment}"):
        assert (await get(signed, f"/v1/{query}")).status_code == 200, query


async def test_read_without_the_scope_is_forbidden(signed):
    for url in ("/v1/clocks", "/v1/breaches", "/v1/attainment"):
        assert (await get(signed, url, key="stranger")).status_code == 403, url
        assert (await signed.http.get(url)).status_code == 401, url


async def test_draft_of_an_invalid_sla_returns_its_findings(stack, auth):
    content = deepcopy(SLA)
    content["clauses"][0]["within"]["calendar"] = "factory"
    content["clauses"].append({"key": "volume", "obliges": "marketing", "kind": "promise", "stage": "mql"})
    answer = await stack.http.post("/v1/sla/versions", json=content, headers=auth("marketing"))
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {
            "pointer": "/clauses/2/kind",
            "message": "must be one of 'response', 'attempts', 'freshness', 'volume', 'rate'",
        }
    ]
    assert (await stack.http.get("/v1/sla", headers=auth("marketing"))).status_code == 404


async def test_sla_is_rendered_on_paper(stack, auth):
    await stack.sign_sla(SLA)
    headers = {**auth("marketing"), "Accept": "text/markdown"}
    page = await stack.http.get("/v1/sla/versions/1/paper", headers=headers)
    assert page.status_code == 200
    assert "within 4 business hours" in page.text


async def test_operators_see_outbox_and_dead_letters(played, auth):
    outbox = await played.http.get("/v1/admin/outbox", headers=auth("admin"))
    assert outbox.json()["unpublished"] > 0
    assert (await played.http.get("/v1/admin/dead-letters", headers=auth("admin"))).json()["items"] == []
    assert (await played.http.get("/v1/admin/outbox", headers=auth("reader"))).status_code == 403


async def test_openapi_describes_the_routes(stack):
    document = (await stack.http.get("/openapi.json")).json()
    ours = {
        path
        for path in document["paths"]
        if path.startswith("/v1/")
        and not any(other in path for other in ("/sla", "admin", "subscriptions", "deliveries"))
    }
    assert ours == {
        "/v1/clocks",
        "/v1/leads/{lead_id}/clocks",
        "/v1/breaches",
        "/v1/breaches/{breach_id}/acknowledge",
        "/v1/attainment",
        "/v1/statement",
        "/v1/calendar/due",
        "/v1/calendar/closed-days",
    }
