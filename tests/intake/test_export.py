"""Everything held about a person, as one document: whole, of a stable shape, and no larger in memory than one page."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.intake.conftest import Running
from tests.intake.privacy import GOOD, POLICY, record, submitted, waiting

from accord.db import Database
from intake.privacy.queries import exports
from intake.privacy.service.export import Export, ExportInterrupted

SHAPE: dict[str, set[str]] = {
    "leads": {
        *(
            "lead_id",
            "source",
            "captured_at",
            "recorded_at",
            "pending",
            "merged_into",
            "verdict",
            "quality_score",
            "policy_version",
        ),
        *(
            "email",
            "phone",
            "first_name",
            "last_name",
            "company",
            "domain",
            "title",
            "attributes",
            "campaign",
            "field_timestamps",
        ),
        *("account_id", "account_domain", "account_name"),
    },
    "keys": {"kind", "value", "source", "lead_id"},
    "merges": {
        *(
            "merge_id",
            "survivor_id",
            "merged_lead_id",
            "submission_id",
            "caller",
            "recorded_at",
            "reverted_at",
            "reverted_by",
        ),
        "survivor_before",
    },
    "consents": {
        *("consent_id", "basis", "given_at", "dated", "recorded_at", "caller", "text", "source", "submission_id")
    },
    "submissions": {
        *(
            "submission_id",
            "lead_id",
            "source",
            "caller",
            "outcome",
            "verdict",
            "quality_score",
            "policy_version",
            "failed",
        ),
        *("occurred_at", "recorded_at", "content", "canonical", "settled", "settled_at", "decisions"),
    },
    "activities": {
        *(
            "lead_id",
            "activity_id",
            "kind",
            "by",
            "actor",
            "actor_kind",
            "campaign",
            "properties",
            "caller",
            "occurred_at",
            "recorded_at",
        ),
    },
    "hook_events": {
        *(
            "hook_event_id",
            "source",
            "event_id",
            "action",
            "reference",
            "state",
            "content",
            "occurred_at",
            "recorded_at",
        ),
    },
    "import_rows": {"import_id", "row_number", "outcome", "error", "content", "source", "created_at"},
}
"""The document's lists and the members of their items. Others build on it, so it only grows."""


@pytest.fixture
async def shop(accord: Running) -> Running:
    await accord.sign(POLICY)
    return accord


async def exported(accord: Running, lead_id: str) -> dict[str, Any]:
    answer = await accord.caller("reader").get(f"/v1/leads/{lead_id}/export")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_export_contains_everything_in_documented_shape(shop: Running) -> None:
    older = await submitted(shop, None, phone="+12025550143", external_id="7", last_name="Byron")
    said = {"consent": {"basis": "consent", "text": "Yes"}, "campaign": {"name": "spring"}}
    await submitted(shop, first_name="Ada", company="Initech", **said)
    lead = await submitted(shop, phone="+12025550143", attributes={**GOOD, "remark": "Says hello"})
    activity = {"lead_id": lead["lead_id"], "kind": "form.submitted", "by": "lead", "properties": {"q": "Why?"}}
    await shop.marketing.post("/v1/activities", activity)
    pending = await waiting(shop, title="CTO")
    await shop.marketing.post(f"/v1/quarantine/{pending['submission_id']}/release", {"note": "Known to us"})
    await shop.marketing.post("/v1/leads", record("ada@mailinator.com", phone="+12025550143", title="Refused"))
    await submitted(shop, "bob@initech.example", first_name="Bob")
    await shop.rows(
        "INSERT INTO hook_event (hook_event_id, source, event_id, action, reference, keys, content, state, attempts, due_at,"
        " occurred_at, recorded_at, updated_at) VALUES (gen_random_uuid(), 'crm', 'e1', 'fetch', '{\"id\": 5}',"
        " '{phone:+12025550143}', 'raw', 'waiting', 0, now(), now(), now(), now())"
    )

    document = await exported(shop, lead["lead_id"])
    assert (document["format"], document["lead_id"], document["consent_in_force"]) == (
        "accord.person.v1",
        older["lead_id"],
        "consent",
    )
    assert document["exported_at"]
    for name, members in SHAPE.items():
        assert {frozenset(item) for item in document[name]} <= {frozenset(members)}, name
    assert document["leads"][0]["lead_id"] == older["lead_id"]
    assert {one["merged_into"] for one in document["leads"]} == {None, older["lead_id"]}
    whole = document["leads"][0]
    assert (whole["email"], whole["first_name"], whole["last_name"], whole["title"], whole["account_name"]) == (
        "ada@initech.example",
        "Ada",
        "Byron",
        "CTO",
        "Initech",
    )
    assert {(key["kind"], key["value"], key["source"]) for key in document["keys"]} == {
        ("email", "ada@initech.example", None),
        ("phone", "+12025550143", None),
        ("external", "7", "website"),
    }
    assert [one["text"] for one in document["consents"]] == ["Yes"]
    assert [one["properties"] for one in document["activities"]] == [{"q": "Why?"}]
    assert len(document["merges"]) == 1
    assert [one["verdict"] for one in document["submissions"]] == [
        "accepted",
        "accepted",
        "accepted",
        "quarantined",
        "rejected",
    ]
    assert "Says hello" in document["submissions"][2]["content"]
    (decision,) = document["submissions"][3]["decisions"]
    assert (decision["action"], decision["note"], decision["caller"]) == ("released", "Known to us", "marketing")
    assert [one["content"] for one in document["hook_events"]] == ["raw"]
    assert "Bob" not in json.dumps(document)


async def test_export_is_uncached_attachment_for_personal_read(shop: Running) -> None:
    lead = await submitted(shop)
    path = f"/v1/leads/{lead['lead_id']}/export"
    answer = await shop.caller("reader").get(path)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == f'attachment; filename="lead-{lead["lead_id"]}.json"'
    assert answer.headers["cache-control"] == "no-store"
    assert (await shop.caller("public").get(path)).status_code == 403
    assert (await shop.marketing.get(f"/v1/leads/{uuid4()}/export")).status_code == 404


async def test_submissions_are_listed_and_content_needs_personal_read(
    shop: Running,
) -> None:
    one = await submitted(shop, None, phone="+12025550143", title="CTO")
    await submitted(shop)
    await submitted(shop, phone="+12025550143")
    await waiting(shop)
    path = f"/v1/leads/{one['lead_id']}/submissions"
    first = (await shop.caller("reader").get(path, limit="3")).json()
    rest = (await shop.caller("reader").get(path, limit="3", cursor=first["next_cursor"])).json()
    items = [*first["items"], *rest["items"]]
    assert [item["verdict"] for item in items] == ["accepted", "accepted", "accepted", "quarantined"]
    assert [item["state"] for item in items] == [None, None, None, "waiting"]
    assert items[0]["submission_id"] == one["submission_id"]
    assert json.loads(items[0]["content"])["title"] == "CTO"
    public = await shop.caller("public").get(path)
    assert {item["content"] for item in public.json()["items"]} == {None}
    assert "CTO" not in public.text


async def export_parts(accord: Running, lead_id: str) -> tuple[list[bytes], Database]:
    database = Database(accord.dsn, pool_size=1, application_name="export")
    export = Export(database, UUID(lead_id), "reader")
    await export.prepare()
    return [part async for part in export.document()], database


async def test_a_lead_with_very_many_activities_is_sent_in_bounded_parts(shop: Running) -> None:
    lead = await submitted(shop)
    await shop.rows(
        "INSERT INTO activity SELECT $1, gen_random_uuid(), 'page.viewed', 'lead', NULL, NULL,"
        " jsonb_build_object('n', n, 'text', repeat('x', 500)), 'web', now(), now() FROM generate_series(1, 20000) n",
        UUID(lead["lead_id"]),
    )
    parts, database = await export_parts(shop, lead["lead_id"])
    await database.dispose()
    assert max(map(len, parts)) < exports.PAGE_ROWS * 1_000
    document = json.loads(b"".join(parts))
    assert sorted(one["properties"]["n"] for one in document["activities"]) == list(range(1, 20_001))


async def test_a_few_very_large_records_are_no_one_part(shop: Running) -> None:
    lead = await submitted(shop)
    await shop.rows("UPDATE submission SET content = repeat('x', 3000000) WHERE lead_id = $1", UUID(lead["lead_id"]))
    await shop.rows(
        "INSERT INTO submission (submission_id, lead_id, source, caller, outcome, verdict, failed, content, occurred_at, recorded_at)"
        " SELECT gen_random_uuid(), $1, 'web', 'web', 'updated', 'accepted', '[]', repeat('y', 3000000), now(), now()"
        " FROM generate_series(1, 6)",
        UUID(lead["lead_id"]),
    )
    parts, database = await export_parts(shop, lead["lead_id"])
    await database.dispose()
    assert max(map(len, parts)) < exports.PAGE_BYTES + 4_000_000
    assert len(json.loads(b"".join(parts))["submissions"]) == 7


async def test_one_that_is_erased_meanwhile_breaks_off_and_does_not_look_whole(shop: Running) -> None:
    lead = await submitted(shop)
    database = Database(shop.dsn, pool_size=1, application_name="export")
    export = Export(database, UUID(lead["lead_id"]), "reader")
    await export.prepare()
    document = export.document()
    parts = [await anext(document)]
    assert (await shop.marketing.http.delete(f"/v1/leads/{lead['lead_id']}")).status_code == 204
    with pytest.raises(ExportInterrupted):
        parts.extend([part async for part in document])
    await database.dispose()
    with pytest.raises(json.JSONDecodeError):
        json.loads(b"".join(parts))
