"""The monthly statement: counts by clause in the SLA's own months, beside the months before, as JSON, table and page."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.sla_monitor.conftest import bearer

CHICAGO = ZoneInfo("America/Chicago")
CONTENT: dict[str, Any] = {
    "kind": "sla",
    "title": "SLA",
    "timezone": "America/Chicago",
    "clauses": [
        {
            "key": "call",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"activity": "call.attempted", "by": "sales"},
            "within": {"elapsed": "PT1H"},
        },
        {"key": "volume", "obliges": "marketing", "kind": "volume", "stage": "mql", "per": "month", "at_least": 2},
    ],
}


def local(month: int, day: int, hour: int = 12, minute: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=CHICAGO)


@pytest.fixture
async def two_months(stack: Any, make_lead: Any) -> Any:
    """April: one call kept, one late, one missed at the last minute of the month; May: one missed."""
    await stack.sign_sla(CONTENT)
    await stack.backdate_agreement(datetime(2026, 4, 1, 5, tzinfo=UTC))
    kept, late, missed, in_may = (make_lead() for _ in range(4))
    starts = [(kept, local(4, 3)), (late, local(4, 4)), (missed, local(4, 30, 22, 59)), (in_may, local(4, 30, 23, 30))]
    for lead, start in starts:
        await stack.apply(lead.captured(start, size=100), lead.entered("mql", start))
    await stack.apply(kept.did("call.attempted", local(4, 3, 12, 30)), late.did("call.attempted", local(4, 4, 15)))
    await stack.read_until(local(6, 1, 1))
    return stack


async def get(stack: Any, url: str, accept: str = "application/json") -> Any:
    answer = await stack.http.get(url, headers={**bearer("reader"), "Accept": accept})
    assert answer.status_code == 200, answer.text
    return answer


async def test_statement_counts_by_clause_in_the_months_of_the_sla(two_months):
    april = (await get(two_months, "/v1/statement?month=2026-04")).json()
    may = (await get(two_months, "/v1/statement?month=2026-05")).json()
    assert (april["timezone"], april["from"], april["to"]) == (
        "America/Chicago",
        "2026-04-01T05:00:00Z",
        "2026-05-01T05:00:00Z",
    )
    assert april["is_final"]
    counts = {
        (name, line["clause"]): (line["met"], line["breached"], line["met_late"], line["attainment"])
        for name, answer in (("april", april), ("may", may))
        for line in answer["clauses"]
    }
    assert counts == {
        ("april", "call"): (1, 2, 1, 1 / 3),
        ("april", "volume"): (1, 0, 0, 1.0),
        ("may", "call"): (0, 1, 0, 0.0),
        ("may", "volume"): (0, 1, 0, 0.0),
    }
    assert may["clauses"][1]["before"] == {"2026-02": None, "2026-03": None, "2026-04": 1 / 3}
    assert [breach["answered_at"] for breach in april["breaches"]] == [None, "2026-04-04T20:00:00Z"]


async def test_statement_equals_attainment_and_breaches_of_the_month(two_months):
    bounds = "from=2026-05-01T05:00:00Z&to=2026-06-01T05:00:00Z"
    groups = (await get(two_months, f"/v1/attainment?by=clause&{bounds}")).json()["groups"]
    may = (await get(two_months, "/v1/statement?month=2026-05")).json()
    names = ("met", "breached", "met_late", "running", "cancelled")
    assert {group["by"]["clause"]: [group[name] for name in names] for group in groups} == {
        line["clause"]: [line[name] for name in names] for line in may["clauses"]
    }
    breaches = (await get(two_months, f"/v1/breaches?{bounds}")).json()["items"]
    assert sorted(breach["breach_id"] for breach in breaches) == sorted(each["breach_id"] for each in may["breaches"])
    months = (await get(two_months, "/v1/attainment?by=month")).json()
    assert months["definition"]["timezone"] == "America/Chicago"
    assert {group["by"]["month"]: group["breached"] for group in months["groups"]} == {
        "2026-04": 2,
        "2026-05": 2,
        "2026-06": 0,
    }


async def test_statement_is_a_table_and_a_page_to_print(two_months):
    table = await get(two_months, "/v1/statement?month=2026-04", "text/csv")
    first, second = csv.DictReader(io.StringIO(table.text))
    assert (first["department"], first["clause"], first["met"]) == ("marketing", "volume", "1")
    assert (second["clause"], second["breached"], second["attainment 2026-03"]) == ("call", "2", "")
    page = await get(two_months, "/v1/statement?month=2026-04", "text/html,*/*;q=0.8")
    assert page.headers["content-type"].startswith("text/html")
    for words in (
        "April 2026",
        "Sales kept 1 of 3 promises (33.3\u00a0%).",
        "Marketing kept 1 of 1 promises",
        "2 hours late",
    ):
        assert words in page.text, words


async def test_statement_without_month_is_of_the_last_whole_one_also_without_an_sla(stack):
    found = (await get(stack, "/v1/statement")).json()
    today = datetime.now(UTC)
    assert found["month"] == f"{today.replace(day=1) - timedelta(days=1):%Y-%m}"
    assert (found["clauses"], found["is_final"], found["timezone"]) == ([], False, "UTC")
    page = await get(stack, "/v1/statement", "text/html")
    assert "Sales had no promise that was due." in page.text


@pytest.mark.parametrize("month", ["2026-13", "2026-4", "May", "1969-01", "2200-01", "9999-12", ""])
async def test_what_is_no_month_is_refused(stack, month):
    answer = await stack.http.get(f"/v1/statement?month={month}", headers=bearer("reader"))
    assert answer.status_code == 422, answer.text
