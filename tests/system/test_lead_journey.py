"""One lead, followed from the HTTP call to the funnel, under the four templates that both departments sign. Reads as
docs/lead-journey.md does.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from accord_local.demo.client import wait_for
from accord_local.demo.play import Advance, Callers, sign_templates
from tests.system.running import Running

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def signed(accord: Running, templates: Path, quietly: Advance) -> Running:
    sign_templates(Callers(accord.marketing, accord.sales), accord.urls, templates, quietly)
    return accord


def submission(**changes: object) -> dict[str, object]:
    """A lead that meets the template policy; no two calls are the same person."""
    who = uuid.uuid4().hex[:12]
    return {
        "source": "website",
        "external_id": who,
        "email": f"{who}@initech.example.com",
        "first_name": "Ada",
        "last_name": "Byron",
        "company": "Initech",
        "attributes": {
            "employee_count": 250,
            "industry": "541511",
            "country": "US",
            "line_of_business": "software",
            "dnb_rating": "4A1",
            "bbb_rating": "A+",
        },
        "campaign": {"name": "spring", "medium": "cpc"},
        **changes,
    }


def enter(accord: Running, **changes: object) -> dict[str, Any]:
    answer: dict[str, Any] = accord.marketing.post(f"{accord.urls.intake}/v1/leads", submission(**changes))
    return answer


def ask_for_demo(accord: Running, lead_id: str, at: datetime | None = None) -> None:
    activity = {
        "lead_id": lead_id,
        "kind": "demo.requested",
        "by": "lead",
        "occurred_at": (at or datetime.now(UTC)).isoformat(),
    }
    accord.marketing.post(f"{accord.urls.intake}/v1/activities", activity)


def await_stage(accord: Running, lead_id: str, stage: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        lead: dict[str, Any] = accord.sales.get(f"{accord.urls.qualification}/v1/leads/{lead_id}", expect=(200, 404))
        return lead if lead.get("stage") == stage else None

    return wait_for(f"{lead_id} to be {stage}", look)


def test_a_lead_goes_from_the_first_touch_to_the_funnel(signed: Running) -> None:
    answer = enter(signed)
    assert answer["outcome"] == "created"
    assert answer["verdict"] == "accepted"
    lead_id = answer["lead_id"]
    inquiry = await_stage(signed, lead_id, "inquiry")
    assert [gate["stage"] for gate in inquiry["gates"] if not gate["holds"]] == ["mql"]

    ask_for_demo(signed, lead_id)
    mql = await_stage(signed, lead_id, "mql")
    assert "accept" in mql["allowed_decisions"]

    clock = wait_for(
        "a clock for sales to accept",
        lambda: next(
            (
                found
                for found in signed.sales.get(
                    f"{signed.urls.sla_monitor}/v1/leads/{lead_id}/clocks", expect=(200, 404)
                ).get("items", [])
                if found["clause"] == "accept-mql"
            ),
            None,
        ),
    )
    assert clock["state"] == "running"
    assert clock["obliges"] == "sales"

    decided = signed.sales.post(f"{signed.urls.qualification}/v1/leads/{lead_id}/decisions", {"decision": "accept"})
    assert (decided["from"], decided["stage"]) == ("mql", "sal")

    def met() -> bool | None:
        clocks = signed.sales.get(f"{signed.urls.sla_monitor}/v1/leads/{lead_id}/clocks")["items"]
        return any(found["clause"] == "accept-mql" and found["state"] == "met" for found in clocks) or None

    wait_for("the clock to be met", met)

    def in_funnel() -> list[str] | None:
        timeline = signed.marketing.get(f"{signed.urls.metrics}/v1/leads/{lead_id}/timeline", expect=(200, 404))
        stages = [item["stage"] for item in timeline.get("items", []) if item["type"] == "stage"]
        return stages if len(stages) == 3 else None

    assert wait_for("the timeline to show all stages", in_funnel) == ["inquiry", "mql", "sal"]


def test_a_missed_deadline_is_a_breach_once_everything_before_it_was_read(signed: Running) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=21)
    lead_id = enter(signed, occurred_at=long_ago.isoformat())["lead_id"]
    ask_for_demo(signed, lead_id, long_ago + timedelta(minutes=5))

    def breached() -> dict[str, Any] | None:
        breaches = signed.sales.get(f"{signed.urls.sla_monitor}/v1/breaches", clause="accept-mql", limit=500)["items"]
        return next((found for found in breaches if found["lead_id"] == lead_id), None)

    breach = wait_for("the breach", breached)
    assert breach["obliges"] == "sales"


def test_the_policy_refuses_a_record_that_nobody_can_be_reached_by_and_says_why(signed: Running) -> None:
    problem = signed.marketing.post(
        f"{signed.urls.intake}/v1/leads", submission(email="nobody@mailinator.com"), expect=(422,)
    )
    assert problem["type"].endswith("rejected-by-policy")
    assert [failure["parameter"] for failure in problem["quality"]["failed"] if failure["consequence"] == "reject"] == [
        "reachable"
    ]
    assert "mailinator" not in str(problem)


def test_every_document_can_be_read_on_paper_with_both_signatures(signed: Running) -> None:
    for base, kind in (
        (signed.urls.intake, "policy"),
        (signed.urls.qualification, "definition"),
        (signed.urls.sla_monitor, "sla"),
        (signed.urls.metrics, "plan"),
    ):
        active = signed.marketing.get(f"{base}/v1/{kind}")
        assert active["status"] == "active"
        assert {signature["department"] for signature in active["signatures"]} == {"marketing", "sales"}
