"""Nothing that somebody wrote about an erased person, or that explains them, is left in any table; counts are."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from tests.qualification.test_routing_api import NOBODY, ROUTING, put

from accord.contracts.external_key import external_key
from accord.ids import new_id

NOTE = "Drinks lapsang every noon."
WORDS = ("lapsang", "velvet-rope", "by-the-harbour", "territory-of-eve", "dnb-9z9")


@pytest.fixture
async def routed(stack, content, auth):
    """Leads are routed by an attribute, so that explanations quote it."""
    await stack.activate(content)
    document = deepcopy(ROUTING)
    vip = {"key": "vip", "when": {"path": "attributes.tier", "op": "eq", "value": "velvet-rope"}, "pool": "large"}
    document["rules"].insert(0, vip)
    assert (await put(stack, auth, document)).status_code == 201
    return stack


async def tables_with(stack: Any, *words: str) -> dict[str, set[str]]:
    """Word → the tables in whose rows it stands, in text, in JSON or in bytes."""
    names = await stack.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    found: dict[str, set[str]] = {}
    for (name,) in names:
        rows = await stack.rows(f'SELECT * FROM "{name}"')
        said = " ".join(
            bytes(value).decode(errors="replace") if isinstance(value, bytes | memoryview) else str(value)
            for row in rows
            for value in row
        )
        for word in words:
            if word in said:
                found.setdefault(word, set()).add(name)
    return found


async def test_no_table_holds_a_word_about_an_erased_person(routed, new_lead, auth, day):
    about, absorbed, other = new_lead(), new_lead(), new_lead()
    about.external_keys = [external_key("crm", "1")]
    about.account_id = new_id()
    for lead in (about, absorbed, other):
        await routed.apply_events(
            lead.captured(day(0), employee_count=250, tier="velvet-rope", dnb_rating="dnb-9z9"),
            lead.did("demo.requested", day(1)),
        )
    answers = []
    for number, lead in enumerate((absorbed, about, other)):
        path, headers = f"/v1/leads/{lead.lead_id}", auth("sales") | {"Idempotency-Key": f"once-{number}"}
        decision = {"decision": "accept", "note": NOTE, "fields": {"timing": "by-the-harbour"}}
        answers.append((f"{path}/decisions", decision, headers))
        handed = {"owner": "boss", "reason": "territory-of-eve"}
        answers.append((f"{path}/assignment", handed, headers | {"Idempotency-Key": f"given-{number}"}))
    for path, body, headers in answers:
        answer = await routed.http.post(path, json=body, headers=headers)
        assert answer.is_success, answer.text
    await routed.apply_events(
        about.merged(absorbed.lead_id, day(3), employee_count=250, tier="velvet-rope", dnb_rating="dnb-9z9")
    )
    held = await tables_with(routed, *WORDS)
    assert held["lapsang"] == {"decision_note"}
    assert held["velvet-rope"] >= {"lead", "lead_fact", "assignment"}
    await routed.apply_events(other.erased(day(4)), about.erased(day(4)), absorbed.erased(day(4)))
    left = await tables_with(routed, *WORDS)
    # What both departments wrote stays: a rule may name a value, and the routing document names this one.
    assert left == {"velvet-rope": {"routing"}}
    for path, body, headers in answers:
        answer = await routed.http.post(path, json=body, headers=headers)
        assert answer.status_code == 410, answer.text
    counted = await routed.rows("SELECT count(*) FROM decision")
    assert counted[0][0] == 3
    ids = await tables_with(routed, *(str(lead.lead_id) for lead in (about, absorbed, other)))
    assert all("idempotency_key" not in tables and "account_owner" not in tables for tables in ids.values())


async def test_an_erased_lead_waits_for_nobody(routed, new_lead, auth, day):
    nobody = deepcopy(ROUTING) | {"people": dict.fromkeys(("ann", "bob", "cho"), NOBODY)}
    assert (await put(routed, auth, nobody, '"1"')).is_success
    about = new_lead()
    await routed.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
    assert len(await routed.rows("SELECT 1 FROM waiting_lead")) == 1
    await routed.apply_events(about.erased(day(2)))
    assert await routed.rows("SELECT 1 FROM waiting_lead") == []
