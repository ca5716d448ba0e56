"""Consent of which nobody says when it was given lifts no withdrawal, whichever list or setting it comes from."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.intake.conftest import Running
from tests.intake.hook_service import HookClient, outcomes, running_hook_client
from tests.intake.import_service import NDJSON, ImportClient, running_import_client

EMAIL = "w@initech.example"
GIVEN, WITHDRAWN, LATER = "2026-10-01T00:00:00Z", "2026-10-15T00:00:00Z", "2026-11-01T00:00:00Z"
MAPPING = json.dumps({"email": "email", "consent": "consent.basis", "given": "consent.given_at", "at": "occurred_at"})


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


@pytest.fixture
async def imports(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    async with running_import_client(database_url, keys_file) as one:
        yield one


async def withdrawn(accord: Running) -> str:
    """Somebody who gave consent and has withdrawn it."""
    consent = {"basis": "consent", "given_at": GIVEN}
    lead = {"source": "form", "email": EMAIL, "occurred_at": GIVEN, "consent": consent}
    lead_id: str = (await accord.marketing.post("/v1/leads", lead)).json()["lead_id"]
    said = {"basis": "withdrawn", "given_at": WITHDRAWN}
    assert (await accord.marketing.post(f"/v1/leads/{lead_id}/consents", said)).status_code == 201
    return lead_id


async def consents(accord: Running, lead_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await accord.marketing.get(f"/v1/leads/{lead_id}/consents")).raise_for_status().json()
    return found


async def in_force(accord: Running, lead_id: str) -> str | None:
    basis: str | None = ((await consents(accord, lead_id))["in_force"] or {}).get("basis")
    return basis


@pytest.mark.parametrize(
    ("row", "basis"),
    [
        ("consent,,", None),
        ("contract,,", None),
        (f"consent,,{LATER}", None),
        (f"consent,{GIVEN},", None),
        ("consent,2026-10-14T23:59:59Z,", None),
        ("consent,2026-10-14,2026-11-20", None),
        (f"consent,{LATER},", "consent"),
        (f"legitimate_interests,{LATER[:10]},2026-01-01", "legitimate_interests"),
        ("withdrawn,,", None),
        (",,", None),
    ],
)
@pytest.mark.parametrize("format_", ["csv", "ndjson", "mapped"])
async def test_row_of_a_file_lifts_a_withdrawal_only_with_a_later_date(
    imports: ImportClient, row: str, basis: str | None, format_: str
) -> None:
    lead_id = await withdrawn(imports)
    said, given, at = row.split(",")
    if format_ == "csv":
        found = await imports.import_file(f"email,consent,given,at\n{EMAIL},{row}\n".encode(), mapping=MAPPING)
    elif format_ == "mapped":
        line = {"email": EMAIL, "consent": said, "given": given, "at": at}
        found = await imports.import_file(json.dumps(line).encode(), NDJSON, mapping=MAPPING)
    else:
        document: dict[str, Any] = {"email": EMAIL, **({"occurred_at": at} if at else {})}
        when = {"given_at": given if "T" in given else f"{given}T00:00:00Z"} if given else {}
        document |= {"consent": {"basis": said, "assumed": False, **when}} if said else {}
        found = await imports.import_file(json.dumps(document).encode(), NDJSON)
    assert found["rows"]["updated"] == 1, found
    assert await in_force(imports, lead_id) == basis
    history = (await consents(imports, lead_id))["items"]
    assert [one["dated"] for one in history].count(False) == (said not in ("", "withdrawn") and not given)


@pytest.mark.parametrize(
    ("changes", "event", "basis"),
    [
        ({"defaults": {"consent.basis": "consent"}}, {}, None),
        ({"mapping": {"fields": {"consent.basis": {"const": "consent"}}}}, {"consent": {"basis": "contract"}}, None),
        (
            {"mapping": {"fields": {"consent.basis": {"const": "consent"}, "consent.given_at": "/at"}}},
            {"at": LATER},
            "consent",
        ),
        ({"defaults": {"consent.basis": "consent", "consent.given_at": GIVEN}}, {}, None),
        ({"defaults": {"consent.basis": "consent"}}, {"consent": {"basis": "contract"}}, "contract"),
        ({}, {"consent": {"basis": "consent"}}, "consent"),
    ],
)
async def test_constant_or_default_of_a_source_lifts_no_withdrawal(
    intake: HookClient, changes: dict[str, Any], event: dict[str, Any], basis: str | None
) -> None:
    lead_id = await withdrawn(intake)
    await intake.connect("generic", **changes)
    sent = await intake.send("generic", body=json.dumps({"email": EMAIL, "first_name": "Will", **event}).encode())
    assert outcomes(sent) == ["updated"]
    assert await in_force(intake, lead_id) == basis


async def test_live_form_lifts_a_withdrawal_and_a_copied_state_does_not(intake: HookClient) -> None:
    lead_id = await withdrawn(intake)
    consent = {"basis": "consent", "assumed": True}
    lead = {"source": "crm", "email": EMAIL, "consent": consent}
    assert (await intake.marketing.post("/v1/leads", lead)).status_code == 200
    assert await in_force(intake, lead_id) is None
    await intake.marketing.post("/v1/leads", {**lead, "consent": {"basis": "consent"}})
    assert await in_force(intake, lead_id) == "consent"


async def test_undated_consent_is_in_force_where_nothing_else_was_said(imports: ImportClient) -> None:
    mapping = json.dumps({"email": "email", "consent": "consent.basis"})
    await imports.import_file(f"email,consent\n{EMAIL},consent\n".encode(), mapping=mapping)
    [lead] = (await imports.marketing.get("/v1/leads", email=EMAIL)).json()["items"]
    assert await in_force(imports, lead["lead_id"]) == "consent"
    document = (await imports.marketing.get(f"/v1/leads/{lead['lead_id']}/export")).json()
    assert (document["consent_in_force"], document["consents"][0]["dated"]) == ("consent", False)


async def test_assumed_consent_stays_so_through_quarantine(intake: HookClient) -> None:
    lead_id = await withdrawn(intake)
    named = {"key": "name", "rule": "required", "field": "last_name", "consequence": "quarantine"}
    await intake.sign({"kind": "policy", "title": "Wait", "parameters": [named]})
    lead = {"source": "crm", "email": EMAIL, "consent": {"basis": "consent", "assumed": True}}
    waits = (await intake.marketing.post("/v1/leads", lead)).json()
    assert waits["verdict"] == "quarantined"
    released = await intake.marketing.post(f"/v1/quarantine/{waits['submission_id']}/release", {})
    assert released.status_code == 200, released.text
    assert await in_force(intake, lead_id) is None
