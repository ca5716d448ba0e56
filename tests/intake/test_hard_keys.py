"""Hard cases of idempotency keys and identity keys."""

from __future__ import annotations

from typing import Any

from tests.intake.conftest import Running


# a batch key and a single key must not be able to collide
async def test_a_batch_key_does_not_collide_with_a_single_one(accord: Running) -> None:
    row = {"source": "list", "email": "ada@initech.example"}
    await accord.marketing.post("/v1/leads:batch", [row], **{"Idempotency-Key": "k"})
    a = await accord.marketing.post("/v1/leads", row, **{"Idempotency-Key": "k#0"})
    assert a.status_code in (200, 201)
    assert a.json()["outcome"] != "replayed"


async def test_same_key_for_lead_and_activity_batch_is_rejected(accord: Running) -> None:
    row = {"source": "list", "email": "ada@initech.example"}
    await accord.marketing.post("/v1/leads:batch", [row], **{"Idempotency-Key": "k"})
    a = await accord.marketing.post(
        "/v1/activities:batch",
        [{"email": "ada@initech.example", "kind": "a.b", "by": "lead"}],
        **{"Idempotency-Key": "k"},
    )
    assert a.status_code == 422


async def test_a_batch_with_another_row_is_another_request_and_leaves_nothing(accord: Running) -> None:
    rows = [{"source": "list", "email": "ada@initech.example"}]
    await accord.marketing.post("/v1/leads:batch", rows, **{"Idempotency-Key": "k"})
    for other in ([*rows, {"source": "list", "email": "bob@initech.example"}], [{**rows[0], "title": "CTO"}]):
        answer = await accord.marketing.post("/v1/leads:batch", other, **{"Idempotency-Key": "k"})
        assert answer.status_code == 422
        assert answer.json()["type"].endswith("idempotency-key-reused")
    assert (await accord.rows("SELECT count(*) AS n FROM submission"))[0]["n"] == 1


async def test_the_older_submission_does_not_decide_the_verdict(accord: Running, template: dict[str, Any]) -> None:
    await accord.sign(template)
    good = {
        "source": "a",
        "email": "ada@initech.example",
        "attributes": {"employee_count": 250, "industry": "541511", "country": "US", "line_of_business": "software"},
        "occurred_at": "2026-05-01T00:00:00Z",
    }
    lead = (await accord.marketing.post("/v1/leads", good)).json()
    assert lead["verdict"] == "accepted", lead
    await accord.marketing.post(
        "/v1/leads",
        {
            "source": "a",
            "email": "ada@initech.example",
            "occurred_at": "2026-01-01T00:00:00Z",
            "attributes": {"country": "US"},
        },
    )
    now = (await accord.marketing.get(f"/v1/leads/{lead['lead_id']}")).json()
    assert now["verdict"] == "accepted", now


async def test_a_phone_that_is_none_under_the_template_is_refused(accord: Running, template: dict[str, Any]) -> None:
    await accord.sign(template)
    a = await accord.marketing.post(
        "/v1/leads",
        {
            "source": "a",
            "phone": "call me",
            "attributes": {"employee_count": 250, "industry": "541511", "country": "US"},
        },
    )
    assert a.status_code == 422


async def test_quarantined_submission_of_pending_lead_claims_its_other_key(
    accord: Running, template: dict[str, Any]
) -> None:
    await accord.sign(template)
    bad = {"industry": "111110", "country": "US", "employee_count": 5}
    one = (
        await accord.marketing.post("/v1/leads", {"source": "a", "email": "ada@initech.example", "attributes": bad})
    ).json()
    await accord.marketing.post(
        "/v1/leads", {"source": "a", "email": "ada@initech.example", "external_id": "7", "attributes": bad}
    )
    two = (
        await accord.marketing.post(
            "/v1/leads", {"source": "a", "external_id": "7", "email": "ada2@initech.example", "attributes": bad}
        )
    ).json()
    assert one["lead_id"] == two["lead_id"]
