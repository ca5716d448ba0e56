"""The reports over HTTP: requests, responses and refused input."""

import base64
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from accord.contracts.values import utc
from accord.db import Database
from accord.service import create_app
from metrics.main import PLAN_EXAMPLE, build
from metrics.settings import Settings

Client = httpx.AsyncClient
KEYS: dict[str, tuple[str | None, list[str]]] = {
    "reader": (None, ["metrics:read"]),
    "marketing": ("marketing", ["agreements:write", "agreements:sign"]),
    "sales": ("sales", ["agreements:sign"]),
    "nobody": (None, ["leads:read"]),
    "operator": (None, ["admin"]),
}


def secret(name: str) -> str:
    return f"{name}-key-of-this-test"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    keys = [
        {"name": name, "sha256": sha256(secret(name).encode()).hexdigest(), "department": department, "scopes": scopes}
        for name, (department, scopes) in KEYS.items()
    ]
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": keys}))
    return path


@pytest.fixture
async def client(metrics_url: str, keys_file: Path) -> AsyncIterator[Client]:
    settings = Settings.model_validate(
        {"database_url": metrics_url, "kafka_bootstrap_servers": "127.0.0.1:1", "api_keys_file": keys_file}
    )
    service = build(settings)
    transport = httpx.ASGITransport(create_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
        client.headers["Authorization"] = f"Bearer {secret('reader')}"
        yield client
    await service.database.dispose()


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret(name)}"}


@pytest.fixture
async def four_leads(
    database: Database, history: Any, apply: Callable[..., Any], set_watermark: Callable[..., Any]
) -> list[str]:
    """Two leads of the website (one won after a day), one of the fair that is lost, one without a country."""
    history.define()
    ids = [
        history.capture("website", 0, "spring", country="US"),
        history.capture("website", 24, None, country="BR"),
        history.capture("=fair", 48, None, country="US"),
        history.capture("ads", 72),
    ]
    for number, lead_id in enumerate(ids):
        history.move(lead_id, "inquiry", 24 * number)
    history.move(ids[0], "mql", 12)
    history.move(ids[0], "won", 24, cause="decision", decision="win", actor="eve")
    history.move(ids[2], "lost", 50, cause="decision", decision="lose", reason="price", actor="bob")
    history.act(ids[0], 6)
    history.run_clock(ids[0], 12, 16, 20, breached=True)
    history.deal(ids[0], 24, "1200.50")
    await apply(database, history.events)
    await set_watermark(database, utc(2027, 2, 1))
    return [str(lead_id) for lead_id in ids]


async def test_funnel_counts_leads_by_stage_and_states_its_definition(client: Client, four_leads: list[str]) -> None:
    answer = await client.get("/v1/funnel")
    assert answer.status_code == 200
    body = answer.json()
    (group,) = body["groups"]
    assert (group["by"], group["leads"]) == ({}, 4)
    assert [(s["stage"], s["entered"], s["reached"], s["conversion_from_previous"]) for s in group["stages"]] == [
        ("inquiry", 4, 4, None),
        ("mql", 1, 1, 0.25),
        ("sal", 0, 1, 1.0),
        ("won", 1, 1, 1.0),
    ]
    low, high = group["stages"][1]["interval_95"]
    assert low < 0.25 < high
    assert group["exits"] == [
        {"stage": "lost", "kind": "lost", "entered": 1},
        {"stage": "recycled", "kind": "recycled", "entered": 0},
    ]
    definition = body["definition"]
    assert (definition["mode"], definition["order"], definition["entry"], definition["n"]) == (
        "cohort",
        "any",
        "first",
        4,
    )
    assert definition["definition_version"] == 1
    assert len(definition["words"]) >= 5
    assert (body["as_of"], body["anomalies"]) == ("2027-02-01T00:00:00Z", {})


async def test_groups_filters_and_periods_narrow_the_funnel(client: Client, four_leads: list[str]) -> None:
    grouped = (await client.get("/v1/funnel", params={"by": "source,attribute:country"})).json()["groups"]
    assert [(list(group["by"].values()), group["leads"]) for group in grouped] == [
        (["=fair", "US"], 1),
        (["ads", None], 1),
        (["website", "BR"], 1),
        (["website", "US"], 1),
    ]
    assert grouped[0]["by"].keys() == {"source", "attribute:country"}

    async def leads(**params: Any) -> int:
        return int((await client.get("/v1/funnel", params=params)).json()["definition"]["n"])

    assert await leads(where="source=website") == 2
    assert await leads(where=["source=website", "country=BR"]) == 1
    assert await leads(where="country=") == 1
    assert await leads(**{"from": "2027-01-02", "to": "2027-01-04"}) == 2
    assert await leads(**{"from": "2027-01-01T12:00:00-06:00"}) == 3
    assert await leads(**{"from": "2027-01-01T12:00:00+00:00", "to": "2027-01-02", "mode": "period"}) == 1


async def test_velocity_measures_each_step(client: Client, four_leads: list[str]) -> None:
    body = (await client.get("/v1/velocity", params={"between": "inquiry,won"})).json()
    (step,) = body["groups"][0]["steps"]
    assert (step["from"], step["to"], step["n"], step["waiting"], step["left"]) == ("inquiry", "won", 1, 2, 1)
    assert step["mean_s"] == step["p50_s"] == step["p90_s"] == step["max_s"] == 86_400
    assert step["km_median_s"] is None
    body = (await client.get("/v1/velocity", params={"by": "source"})).json()
    website = next(group for group in body["groups"] if group["by"] == {"source": "website"})
    assert [(s["from"], s["to"], s["n"], s["waiting"]) for s in website["steps"]][:4] == [
        ("inquiry", None, 1, 1),
        ("inquiry", "mql", 1, 1),
        ("mql", None, 1, 0),
        ("mql", "won", 1, 0),
    ]
    assert body["definition"]["order"] is None


async def test_every_figure_lists_its_leads(client: Client, four_leads: list[str]) -> None:
    page = (await client.get("/v1/velocity/leads", params={"stage": "inquiry", "limit": 3, "by": "source"})).json()
    assert len(page["items"]) == 3
    rest = await client.get(
        "/v1/velocity/leads", params={"stage": "inquiry", "limit": 3, "by": "source", "cursor": page["next_cursor"]}
    )
    items = [*page["items"], *rest.json()["items"]]
    assert sorted(item["lead_id"] for item in items) == sorted(four_leads)
    assert rest.json()["next_cursor"] is None
    durations = [item["duration_s"] for item in items]
    assert durations == sorted(durations, reverse=True)
    *place, _ = json.loads(base64.urlsafe_b64decode(page["next_cursor"] + "=="))
    forged = base64.urlsafe_b64encode(json.dumps([*place, "no-lead"]).encode()).rstrip(b"=").decode()
    refused = await client.get(
        "/v1/velocity/leads", params={"stage": "inquiry", "limit": 3, "by": "source", "cursor": forged}
    )
    assert (refused.status_code, refused.json()["errors"][0]["parameter"]) == (422, "cursor")
    done = (await client.get("/v1/velocity/leads", params={"between": "inquiry,won", "state": "done"})).json()["items"]
    assert [(item["lead_id"], item["to"], item["duration_s"]) for item in done] == [(four_leads[0], "won", 86_400)]
    won = (await client.get("/v1/velocity/leads", params={"stage": "won"})).json()["items"]
    assert [(item["lead_id"], item["state"]) for item in won] == [(four_leads[0], "resting")]


async def test_funnel_lists_the_leads_behind_a_figure(client: Client, four_leads: list[str]) -> None:
    async def listed(**params: Any) -> list[tuple[str, str | None]]:
        items = (await client.get("/v1/funnel/leads", params=params)).json()["items"]
        return [(item["lead_id"], item["entered_at"]) for item in items]

    assert await listed(stage="sal") == [(four_leads[0], None)]
    assert await listed(stage="sal", figure="entered") == []
    assert await listed(stage="sal", order="strict") == []
    assert await listed(stage="lost", figure="entered") == [(four_leads[2], "2027-01-03T02:00:00Z")]
    first = (await client.get("/v1/funnel/leads", params={"stage": "inquiry", "limit": 3, "by": "source"})).json()
    rest = await client.get(
        "/v1/funnel/leads", params={"stage": "inquiry", "limit": 3, "by": "source", "cursor": first["next_cursor"]}
    )
    items = first["items"] + rest.json()["items"]
    assert [(item["lead_id"], item["by"]["source"]) for item in items] == list(
        zip(four_leads, ["website", "website", "=fair", "ads"], strict=True)
    )
    assert rest.json()["next_cursor"] is None


async def test_cursor_of_another_query_is_refused(client: Client, four_leads: list[str]) -> None:
    lists: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("/v1/funnel/leads", {"stage": "inquiry"}, {"order": "strict"}),
        ("/v1/funnel/leads", {"stage": "inquiry"}, {"by": "source"}),
        ("/v1/funnel/leads", {"stage": "inquiry"}, {"figure": "entered"}),
        ("/v1/velocity/leads", {"stage": "inquiry"}, {"where": "source=ads"}),
        ("/v1/velocity/leads", {"stage": "inquiry"}, {"state": "done"}),
    ]
    for path, params, change in lists:
        cursor = (await client.get(path, params={**params, "limit": 2})).json()["next_cursor"]
        assert cursor
        refused = await client.get(path, params={**params, **change, "cursor": cursor})
        assert (refused.status_code, refused.json()["errors"][0]["parameter"]) == (422, "cursor")
        assert (await client.get(path, params={**params, "limit": 500, "cursor": cursor})).status_code == 200


async def test_days_begin_at_midnight_of_the_zone(client: Client, four_leads: list[str]) -> None:
    params = {"from": "2027-01-02", "to": "2027-01-03"}
    utc_day = (await client.get("/v1/funnel", params=params)).json()["definition"]
    chicago = (await client.get("/v1/funnel", params={**params, "timezone": "America/Chicago"})).json()["definition"]
    assert (utc_day["from"], utc_day["timezone"], utc_day["n"]) == ("2027-01-02T00:00:00Z", "UTC", 1)
    assert (chicago["from"], chicago["to"]) == ("2027-01-02T06:00:00Z", "2027-01-03T06:00:00Z")
    assert (chicago["timezone"], chicago["n"]) == ("America/Chicago", 1)


async def test_month_without_leads_has_nulls_and_empty_cells(client: Client, four_leads: list[str]) -> None:
    params = {"from": "2026-02-01", "to": "2026-03-01", "mode": "period"}
    (group,) = (await client.get("/v1/funnel", params=params)).json()["groups"]
    assert {(s["reached"], s["conversion_from_first"], s["interval_95"]) for s in group["stages"]} == {(0, None, None)}
    answer = await client.get("/v1/funnel", params=params, headers={"Accept": "text/csv"})
    assert answer.status_code == 200
    assert {line["conversion_from_previous"] for line in csv.DictReader(io.StringIO(answer.text))} == {""}


async def test_plan_shows_its_needs_and_progress(
    client: Client, database: Database, four_leads: list[str], sign_plan: Callable[..., Any]
) -> None:
    for path in ("/v1/plan/needs", "/v1/plan/progress"):
        assert (await client.get(path)).status_code == 404
    await sign_plan(database)
    needs = (await client.get("/v1/plan/needs")).json()
    assert [(s["stage"], s["exact"], s["leads"], s["days_to_win"]) for s in needs["stages"]] == [
        ("inquiry", "8000.00", 8000, "37"),
        ("mql", "2000.00", 2000, "30"),
        ("sal", "1000.00", 1000, "20"),
        ("won", "200.00", 200, "0"),
    ]
    assert sum(month["leads"] for month in needs["stages"][0]["months"]) == 8000
    assert (needs["stages"][0]["due_from"], needs["plan"]["timezone"]) == ("2026-11-25", "America/Chicago")
    body = (await client.get("/v1/plan/progress", params={"at": "2027-01-11"})).json()
    assert body["at"] == "2027-01-11T06:00:00Z"
    assert (await client.get("/v1/plan/progress", params={"at": "soon"})).status_code == 422
    goals = {goal["goal"]: goal for goal in body["goals"]}
    figures = ("unit", "target", "actual", "expected", "pace", "projection", "status")
    assert [goals["mqls"][name] for name in figures] == ["leads", "290", "1", "93.55", "0.0107", "3.10", "at_risk"]
    assert [goals["accept"][name] for name in figures][:4] == ["share", "0.5000", "1.0000", "0.5000"]
    assert [goals["revenue"][name] for name in figures][:3] == ["USD", "1232876.72", "1200.50"]
    assert (goals["mqls"]["from"], goals["mqls"]["to"]) == ("2027-01-01T06:00:00Z", "2027-02-01T06:00:00Z")
    listed = await client.get(
        "/v1/funnel/leads",
        params={"stage": "mql", "figure": "entered", "mode": "period", "from": "2027-01-01", "to": "2027-02-01"},
    )
    assert len(listed.json()["items"]) == goals["mqls"]["leads"]
    for path, rows in (("/v1/plan/needs", 48), ("/v1/plan/progress?at=2027-05-02", 8)):
        answer = await client.get(path, headers={"Accept": "text/csv"})
        assert len(list(csv.DictReader(io.StringIO(answer.text)))) == rows


async def test_diagnosis_sums_to_the_gap_and_lists_its_leads(
    client: Client,
    database: Database,
    history: Any,
    apply: Callable[..., Any],
    set_watermark: Callable[..., Any],
    sign_plan: Callable[..., Any],
) -> None:
    history.define()
    day = 24
    leads = [history.capture("website", day * at + 7) for at in (1, 2, 3, 50)]
    leads += [history.capture("ads & more", day * 2 + 7)]
    for lead_id in leads:
        history.move(lead_id, "inquiry", day * 3)
    for lead_id, amount in ((leads[0], "24000.00"), (leads[4], "10000.00"), (leads[1], "99.00")):
        history.move(lead_id, "mql", day * 20)
        history.move(lead_id, "won", day * 40)
        history.deal(lead_id, day * 40, amount)
    history.move(leads[1], "sal", day * 41)
    await apply(database, history.events)
    await set_watermark(database, utc(2027, 3, 2))
    await sign_plan(database, sources=[{"source": "website", "share": 0.75}, {"source": "fair", "share": 0.25}])
    params = {"from": "2027-02-01", "to": "2027-03-01"}
    body = (await client.get("/v1/plan/diagnosis", params=params)).json()
    assert (body["planned"], body["actual"], body["gap"]) == ("383561.64", "34000.00", "-349561.64")
    assert (body["cohort_from"], body["cohort_to"]) == ("2026-12-26T06:00:00Z", "2027-01-23T06:00:00Z")
    assert [term["factor"] for term in body["terms"]] == [
        *("volume", "conversion", "conversion", "conversion", "cycle_time", "deal_size")
    ]
    assert sum(Decimal(term["amount"]) for term in body["terms"]) == Decimal(body["gap"])
    sources = {source["source"]: source for source in body["sources"]}
    for source in sources.values():
        assert sum(Decimal(term["amount"]) for term in source["terms"]) == Decimal(source["gap"])
        for term in source["terms"]:
            assert len((await client.get(term["leads_url"])).json()["items"]) == term["leads"], term
    assert {name: source["method"] for name, source in sources.items()} == {
        "website": "logarithmic_mean",
        "fair": "first_zero_factor",
        "ads & more": "first_zero_factor",
    }
    assert [term["amount"] for term in sources["ads & more"]["terms"]] == ["10000.00", *["0.00"] * 5]
    assert [term["leads"] for term in sources["website"]["terms"]] == [3, 2, 2, 1, 1, 1]
    depends = sources["website"]["terms"][1]["depends_on"]
    assert (depends["definition_version"], depends["pointer"]) == (1, "/stages/1/gate")
    table = await client.get("/v1/plan/diagnosis", params=params, headers={"Accept": "text/csv"})
    lines = list(csv.DictReader(io.StringIO(table.text)))
    assert sum(Decimal(line["amount"]) for line in lines) == Decimal(body["gap"])
    for wrong in ({"from": "2026-12-31"}, {"to": "2028-01-02"}, {"to": "2027-02-01"}, {"from": "soon"}):
        assert (await client.get("/v1/plan/diagnosis", params={**params, **wrong})).status_code == 422


async def test_reopened_deal_is_never_won_and_open_at_once(
    client: Client, database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    day = 24
    lead_id = history.capture()
    history.move(lead_id, "inquiry", 0)
    history.deal(lead_id, day, "24000.00")
    history.move(lead_id, "won", day * 68)
    history.move(lead_id, "sal", day * 78)
    history.deal(lead_id, day * 94, "26000.00")
    history.move(lead_id, "won", day * 94)
    await apply(database, history.interleave(history.random), batch=2)

    async def pipeline(at: str) -> tuple[int, list[tuple[int, str]]]:
        body = (await client.get("/v1/pipeline", params={"at": at})).json()
        return body["won"], [(line["deals"], line["amount"]) for line in body["lines"]]

    assert await pipeline("2027-03-15") == (1, [])
    assert await pipeline("2027-03-25") == (0, [(1, "24000.00")])
    assert await pipeline("2027-04-10") == (1, [])
    assert (await client.get("/v1/pipeline", params={"at": "2027-03-25"})).json()["lines"][0]["reason"] == (
        "no_closed_deal"
    )
    wins = (await client.get("/v1/wins", params={"stage": "won"})).json()["items"]
    assert [(win["won_at"], win["amount"]) for win in wins] == [("2027-04-05T00:00:00Z", "26000.00")]


async def test_waterfall_lands_and_lists_its_leads(
    client: Client, database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    leads = {name: history.capture() for name in "ABCDE"}
    for lead_id, amount in zip(leads.values(), ("10.00", "20.00", "30.00", "40.00", "300"), strict=True):
        history.move(lead_id, "inquiry", 0)
        history.move(lead_id, "sal", 1)
        history.deal(lead_id, 1, amount)
    history.deal(leads["A"], 30, "12.00")
    history.move(leads["A"], "won", 31)
    history.move(leads["B"], "lost", 31)
    history.deal(leads["C"], 31, "25.00")
    history.move(leads["D"], "inquiry", 31)
    await apply(database, history.interleave(history.random), batch=3)
    params = {"from": "2027-01-02", "to": "2027-01-03", "stage": "sal"}
    body = (await client.get("/v1/waterfall", params=params)).json()
    (line,) = body["lines"]
    assert (line["opening_amount"], line["closing_amount"]) == ("400.00", "325.00")
    terms = {term["term"]: term for term in line["terms"]}
    assert {name: (term["leads"], term["amount"]) for name, term in terms.items() if term["leads"]} == {
        "grew": (1, "2.00"),
        "shrank": (1, "-5.00"),
        "won": (1, "-12.00"),
        "lost": (1, "-20.00"),
        "moved_back": (1, "-40.00"),
    }
    for name, term in terms.items():
        listed = await client.get("/v1/waterfall/leads", params={**params, "term": name, "currency": "USD"})
        assert len(listed.json()["items"]) == term["leads"]
    table = await client.get("/v1/waterfall", params=params, headers={"Accept": "text/csv"})
    cells = {row["term"]: row["amount"] for row in csv.DictReader(io.StringIO(table.text))}
    assert (cells["won"], cells["closing"]) == ("-12.00", "325.00")


async def test_attribution_sums_to_the_wins_also_without_a_touch(
    client: Client, database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    day = 24
    won, merged, untouched = history.capture(), history.capture(), history.capture()
    for lead_id, amount in ((won, "1000.00"), (untouched, "0.05")):
        history.move(lead_id, "inquiry", 0)
        history.move(lead_id, "sal", day * 20)
        history.move(lead_id, "won", day * 30)
        history.deal(lead_id, day * 30, amount)
    for lead_id, at, campaign in ((won, 16, "c1"), (merged, 23, "c1"), (won, 30, "c2"), (won, 31, "c2")):
        history.act(lead_id, day * at, campaign=campaign)
    history.merge(won, merged, day * 32, history.state())
    history.run_clock(won, 1, 2, 3)
    history.run_clock(won, 1, 2, 3)
    await apply(database, history.interleave(history.random), batch=3)

    async def shares(model: str) -> list[tuple[str | None, bool, str, str]]:
        params = {"stage": "won", "model": model, "by": "campaign"}
        body = (await client.get("/v1/attribution", params=params)).json()
        assert (body["n"], sum(Decimal(credit["amount"]) for credit in body["credits"])) == (2, Decimal("1000.05"))
        assert sum(Decimal(credit["wins"]) for credit in body["credits"]) == 2
        return [(c["value"], c["is_attributed"], c["wins"], c["amount"]) for c in body["credits"]]

    unattributed = (None, False, "1.0000", "0.05")
    assert await shares("linear") == [
        ("c1", True, "0.6667", "666.67"),
        ("c2", True, "0.3333", "333.33"),
        unattributed,
    ]
    assert await shares("time_decay") == [
        ("c1", True, "0.4286", "428.57"),
        ("c2", True, "0.5714", "571.43"),
        unattributed,
    ]
    for model in ("first", "last", "u_shaped", "w_shaped", "full_path"):
        assert unattributed in await shares(model)
    named, unnamed = [(await client.get("/v1/attribution", params=params)).json() for params in ({"stage": "won"}, {})]
    assert named == unnamed
    wins = (await client.get("/v1/wins")).json()
    assert wins["items"] == (await client.get("/v1/wins", params={"stage": "won"})).json()["items"]
    assert len(wins["items"]) == 2
    params = {"stage": "won", "by": "campaign"}
    table = await client.get("/v1/attribution", params=params, headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["amount"] for row in rows] == ["666.67", "333.33", "0.05"]


async def test_wins_are_listed_page_by_page(
    client: Client, database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    for number in range(5):
        lead_id = history.capture("website" if number else "ads", number)
        history.move(lead_id, "won", number)
        history.deal(lead_id, number, f"{number}.50")
    await apply(database, history.events)
    found: list[Any] = []
    cursor = None
    for _ in range(9):
        params = {"stage": "won", "limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await client.get("/v1/wins", params=params)).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [win["amount"] for win in found] == ["0.50", "1.50", "2.50", "3.50", "4.50"]
    params = {"stage": "won", "where": "source=ads"}
    assert [win["source"] for win in (await client.get("/v1/wins", params=params)).json()["items"]] == ["ads"]
    for wrong in (
        {"stage": "demo"},
        {"stage": "won", "where": "email=a"},
        {"stage": "won", "from": "2027-02-01", "to": "2027-01-01"},
    ):
        assert (await client.get("/v1/wins", params=wrong)).status_code == 422
    table = await client.get("/v1/wins", params={"stage": "won"}, headers={"Accept": "text/csv"})
    assert [line["amount"] for line in csv.DictReader(io.StringIO(table.text))] == [win["amount"] for win in found]


async def test_timeline_shows_both_departments_in_time_order(client: Client, four_leads: list[str]) -> None:
    body = (await client.get(f"/v1/leads/{four_leads[0]}/timeline")).json()
    assert [(item["type"], item["at"]) for item in body["items"]] == [
        ("stage", "2027-01-01T00:00:00Z"),
        ("activity", "2027-01-01T06:00:00Z"),
        ("stage", "2027-01-01T12:00:00Z"),
        ("clock", "2027-01-01T12:00:00Z"),
        ("stage", "2027-01-02T00:00:00Z"),
    ]
    inquiry, _, mql, clock, won = body["items"]
    assert (inquiry["stage"], inquiry["exited_at"], inquiry["duration_s"]) == (
        "inquiry",
        "2027-01-01T12:00:00Z",
        43_200,
    )
    assert (mql["next_stage"], won["actor"], won["decision"], won["exited_at"]) == ("won", "eve", "win", None)
    assert (clock["clause"], clock["state"], clock["breached_at"]) == ("accept-mql", "met_late", "2027-01-01T16:00:00Z")
    assert (body["stage"], body["source"], body["campaign"], body["amount"]) == (
        "won",
        "website",
        "spring",
        {"amount": "1200.50", "currency": "USD"},
    )
    assert [stage["stage"] for stage in body["stages"]] == ["inquiry", "mql", "won"]
    paged, cursor = [], None
    for _ in range(9):
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await client.get(f"/v1/leads/{four_leads[0]}/timeline", params=params)).json()
        paged += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert paged == body["items"]


async def test_every_report_is_available_as_safe_csv(client: Client, four_leads: list[str]) -> None:
    tables = {
        "/v1/funnel": {"by": "source"},
        "/v1/velocity": {"by": "source"},
        "/v1/velocity/leads": {"stage": "inquiry", "by": "source"},
        "/v1/funnel/leads": {"stage": "inquiry", "by": "source"},
        f"/v1/leads/{four_leads[0]}/timeline": {},
    }
    for path, params in tables.items():
        answer = await client.get(path, params=params, headers={"Accept": "text/csv"})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/csv")
        head, *rows = csv.reader(io.StringIO(answer.text))
        assert rows
        assert {len(row) for row in rows} == {len(head)}
        assert not any(cell.startswith(("=", "@", "+")) for row in rows for cell in row)
        if params:
            assert any("'=fair" in row for row in rows)
    funnel = await client.get("/v1/funnel", params={"by": "source"}, headers={"Accept": "text/csv"})
    lines = list(csv.DictReader(io.StringIO(funnel.text)))
    website = [line for line in lines if line["source"] == "website"]
    assert [(line["stage"], line["entered"]) for line in website][:2] == [("inquiry", "2"), ("mql", "1")]
    assert website[1]["conversion_from_previous"] == "0.5"
    assert {line["order"] for line in lines} == {"any"}


NONSENSE: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/funnel", {"mode": "guess"}, "mode"),
    ("/v1/funnel", {"order": "random"}, "order"),
    ("/v1/funnel", {"entry": "third"}, "entry"),
    ("/v1/funnel", {"from": "soon"}, "from"),
    ("/v1/funnel", {"from": "2027-01-01T09:30:00"}, "from"),
    ("/v1/funnel", {"from": "2027-02-30"}, "from"),
    ("/v1/funnel", {"from": "0001-01-01T00:00:00+14:00"}, "from"),
    ("/v1/funnel", {"from": "9999-12-31T23:59:59-14:00"}, "from"),
    ("/v1/funnel", {"from": "0001-01-01"}, "from"),
    ("/v1/funnel", {"to": "9999-12-31"}, "to"),
    ("/v1/funnel", {"from": "1700000000"}, "from"),
    ("/v1/funnel", {"to": "2027-01-01T25:00:00Z"}, "to"),
    ("/v1/funnel", {"from": "2027-02-01", "to": "2027-02-01"}, "to"),
    ("/v1/funnel", {"by": "email"}, "by"),
    ("/v1/funnel", {"by": "source,source"}, "by"),
    ("/v1/funnel", {"by": "attribute:a;drop"}, "by"),
    ("/v1/funnel", {"by": "source,"}, "by"),
    ("/v1/funnel", {"where": "source"}, "where"),
    ("/v1/funnel", {"where": "email=a"}, "where"),
    ("/v1/funnel", {"where": ["source=a"] * 11}, "where"),
    ("/v1/funnel", {"surprise": "1"}, "surprise"),
    ("/v1/funnel", {"timezone": "Chicago"}, "timezone"),
    ("/v1/funnel/leads", {}, "stage"),
    ("/v1/funnel/leads", {"stage": "demo"}, "stage"),
    ("/v1/funnel/leads", {"stage": "won", "figure": "lost"}, "figure"),
    ("/v1/funnel/leads", {"stage": "won", "cursor": "abc"}, "cursor"),
    ("/v1/pipeline", {"stage": "demo"}, "stage"),
    ("/v1/attribution", {"stage": "demo"}, "stage"),
    ("/v1/attribution", {"stage": "won", "model": "guess"}, "model"),
    ("/v1/pipeline", {"close_from": "2027-02-01", "close_to": "2027-02-01"}, "close_to"),
    ("/v1/waterfall", {"from": "2027-02-01", "to": "2027-02-01"}, "to"),
    ("/v1/waterfall", {"from": "2027-02-01"}, "to"),
    ("/v1/waterfall/leads", {"from": "2027-01-01", "to": "2027-02-01", "term": "gone"}, "term"),
    ("/v1/velocity", {"between": "inquiry"}, "between"),
    ("/v1/velocity", {"between": "inquiry,inquiry"}, "between"),
    ("/v1/velocity", {"between": "inquiry,demo"}, "between"),
    ("/v1/velocity/leads", {}, "stage"),
    ("/v1/velocity/leads", {"stage": "inquiry", "between": "inquiry,won"}, "stage"),
    ("/v1/velocity/leads", {"stage": "demo"}, "stage"),
    ("/v1/velocity/leads", {"stage": "inquiry", "limit": "0"}, "limit"),
    ("/v1/velocity/leads", {"stage": "inquiry", "limit": "501"}, "limit"),
    ("/v1/velocity/leads", {"stage": "inquiry", "cursor": "abc"}, "cursor"),
    ("/v1/velocity/leads", {"stage": "inquiry", "cursor": "WyJub3ciLDEsIngiXQ"}, "cursor"),
    ("/v1/velocity/leads", {"stage": "inquiry", "state": "asleep"}, "state"),
    ("/v1/leads/{lead}/timeline", {"cursor": "WyJub3ciLCJzdGFnZSIsIngiXQ"}, "cursor"),
    ("/v1/leads/{lead}/timeline", {"limit": "many"}, "limit"),
    ("/v1/leads/ada/timeline", {}, "lead_id"),
]


async def test_invalid_parameter_is_refused_by_name(client: Client, four_leads: list[str]) -> None:
    found, expected = {}, {}
    for path, params, parameter in NONSENSE:
        case = f"{path} {params}"
        answer = await client.get(path.format(lead=four_leads[0]), params=params)
        errors = answer.json().get("errors", [])
        named = parameter in [error["parameter"] for error in errors] and all(error["message"] for error in errors)
        found[case] = (answer.status_code, answer.headers["content-type"], named or answer.text)
        expected[case] = (422, "application/problem+json", True)
    assert found == expected


async def test_request_without_scope_is_forbidden_and_unknown_lead_is_not_found(
    client: Client, four_leads: list[str]
) -> None:
    paths = [
        "/v1/funnel",
        "/v1/funnel/leads?stage=won",
        "/v1/velocity",
        "/v1/velocity/leads?stage=won",
        "/v1/plan/needs",
        "/v1/plan/progress",
        "/v1/plan/diagnosis?from=2027-01-01&to=2027-02-01",
        "/v1/wins?stage=won",
        "/v1/pipeline",
        "/v1/attribution?stage=won",
        "/v1/waterfall?from=2027-01-01&to=2027-02-01",
        "/v1/waterfall/leads?from=2027-01-01&to=2027-02-01&term=won",
        f"/v1/leads/{four_leads[0]}/timeline",
    ]
    for path in paths:
        assert (await client.get(path, headers={"Authorization": ""})).status_code == 401
        assert (await client.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get(path, headers=by("nobody"))).status_code == 403
    assert (await client.get(f"/v1/leads/{uuid4()}/timeline")).status_code == 404


async def test_reports_without_events_are_empty(client: Client) -> None:
    funnel = (await client.get("/v1/funnel")).json()
    assert (funnel["as_of"], funnel["groups"][0]["stages"], funnel["groups"][0]["leads"]) == (None, [], 0)
    assert (await client.get("/v1/funnel", params={"by": "source", "mode": "period"})).json()["groups"] == []
    assert (await client.get("/v1/velocity")).json()["groups"] == [{"by": {}, "leads": 0, "steps": []}]


async def test_plan_signed_by_both_departments_comes_into_force(client: Client, four_leads: list[str]) -> None:
    assert (await client.get("/v1/plan", headers=by("reader"))).status_code == 404
    broken = {**PLAN_EXAMPLE, "average_deal": {"amount": "1", "currency": "EUR"}}
    refused = await client.post("/v1/plan/versions", json=broken, headers=by("marketing"))
    assert refused.status_code == 422
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/average_deal/currency"]
    funnel = [
        {"stage": "inquiry"},
        {"stage": "demo", "conversion": 0.5, "days": 3},
        {"stage": "won", "conversion": 0.1, "days": 9},
    ]
    content = {**PLAN_EXAMPLE, "funnel": funnel, "goals": []}
    drafted = await client.post(
        "/v1/plan/versions",
        content=yaml.safe_dump(content),
        headers={**by("marketing"), "Content-Type": "application/yaml"},
    )
    assert drafted.status_code == 201, drafted.text
    version, digest = drafted.json()["version"], drafted.json()["content_sha256"]
    number = f"/v1/plan/versions/{version}"
    proposed = await client.post(f"{number}/propose", headers=by("marketing"))
    assert proposed.status_code == 200, proposed.text
    assert "the definition in force has no stage demo" in proposed.text
    for name in ("marketing", "sales"):
        signed = await client.post(f"{number}/signatures", json={"content_sha256": digest}, headers=by(name))
        assert signed.status_code < 300, signed.text
    active = (await client.get("/v1/plan", headers=by("reader"))).json()
    assert (active["version"], active["status"], active["content"]["revenue"]["amount"]) == (
        version,
        "active",
        "5000000",
    )
    paper = await client.get(f"{number}/paper", headers={**by("reader"), "Accept": "text/markdown"})
    assert "we want to earn 5,000,000 USD" in paper.text


async def test_operators_see_outbox_and_dead_letters(client: Client) -> None:
    assert (await client.get("/v1/admin/outbox", headers=by("operator"))).status_code == 200
    assert (await client.get("/v1/admin/dead-letters", headers=by("operator"))).json()["items"] == []
    assert (await client.get("/v1/admin/dead-letters", headers=by("reader"))).status_code == 403


async def test_openapi_describes_every_route(client: Client) -> None:
    document = (await client.get("/openapi.json")).json()
    paths = {
        path
        for path in document["paths"]
        if path.startswith("/v1")
        and not path.startswith(("/v1/plan", "/v1/admin", "/v1/subscriptions", "/v1/deliveries"))
    }
    assert paths == {
        "/v1/funnel",
        "/v1/funnel/leads",
        "/v1/velocity",
        "/v1/velocity/leads",
        "/v1/wins",
        "/v1/pipeline",
        "/v1/attribution",
        "/v1/waterfall",
        "/v1/waterfall/leads",
        "/v1/leads/{lead_id}/timeline",
    }
    for path in paths:
        operation = document["paths"][path]["get"]
        assert "text/csv" in operation["responses"]["200"]["content"]
        assert {"401", "403", "422"} <= operation["responses"].keys()
        assert operation["x-scope"] == "metrics:read"
