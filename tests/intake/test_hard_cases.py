"""Hard cases that a reader of intake thought of: bodies that no database can hold, people who look alike, drafts with odd errors."""

from __future__ import annotations

from typing import Any

import pytest
from tests.intake.conftest import Running

from intake.leads.service.normalization import find_account_domain, parse_email, parse_phone
from intake.policy.domain import policy

BASE: dict[str, Any] = {"source": "website", "email": "ada@initech.example"}
JSON = {"Content-Type": "application/json"}


async def raw(accord: Running, path: str, body: bytes, **headers: str) -> Any:
    http = accord.marketing.http
    http._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
    return await http.post(path, content=body, headers={**JSON, **headers})


# 1. no 5xx and nothing half-written for any body -------------------------------------------------------------------
BODIES = {
    "nul in a field": b'{"source":"a","email":"x@y.example","title":"a\\u0000b"}',
    "nul in external id": b'{"source":"a","external_id":"a\\u0000b"}',
    "nul in email": b'{"source":"a","email":"a\\u0000b@y.example","phone":"+12025550143"}',
    "nul in attribute": b'{"source":"a","email":"x@y.example","attributes":{"k":"a\\u0000b"}}',
    "nul in consent text": b'{"source":"a","email":"x@y.example","consent":{"basis":"consent","text":"a\\u0000b"}}',
    "nul in landing page": b'{"source":"a","email":"x@y.example","campaign":{"landing_page":"a\\u0000b"}}',
    "nul in campaign name": b'{"source":"a","email":"x@y.example","campaign":{"name":"a\\u0000b"}}',
    "integer beyond 64 bits": b'{"source":"a","email":"x@y.example","attributes":{"n":100000000000000000000}}',
    "integer of 400 digits": b'{"source":"a","email":"x@y.example","attributes":{"n":1' + b"0" * 400 + b"}}",
    "NaN": b'{"source":"a","email":"x@y.example","attributes":{"n":NaN}}',
    "Infinity": b'{"source":"a","email":"x@y.example","attributes":{"n":Infinity}}',
    "1e999": b'{"source":"a","email":"x@y.example","attributes":{"n":1e999}}',
    "lone surrogate": b'{"source":"a","email":"x@y.example","title":"\\ud800"}',
    "bad utf-8": b'{"source":"a","email":"x@y.example","title":"\xff"}',
    "BOM": b'\xef\xbb\xbf{"source":"a","email":"x@y.example"}',
    "cost with exponent": b'{"source":"a","email":"x@y.example","campaign":{"name":"n","cost":{"amount":"1E+30","currency":"USD"}}}',
    "cost negative exponent": b'{"source":"a","email":"x@y.example","campaign":{"name":"n","cost":{"amount":"1E-300","currency":"USD"}}}',
    "cost as float": b'{"source":"a","email":"x@y.example","campaign":{"name":"n","cost":{"amount":1e308,"currency":"USD"}}}',
}


@pytest.mark.parametrize("under_policy", [False, True])
async def test_no_body_is_a_5xx_and_accepted_ones_can_be_read(
    accord: Running, template: dict[str, Any], under_policy: bool
) -> None:
    if under_policy:
        template["attributes"]["n"] = {"type": "integer"}
        template["parameters"].append(
            {"key": "n", "rule": "range", "attribute": "n", "min": 1, "consequence": "flag", "missing": "pass"}
        )
        await accord.sign(template)
    failed: dict[str, str] = {}
    for place, (name, sent) in enumerate(BODIES.items()):
        body = sent.replace(b"x@y.example", b"x%d@y.example" % place)  # each is somebody new
        answer = await raw(accord, "/v1/leads", body)
        batch = await raw(accord, "/v1/leads:batch", b"[" + body + b"]")
        if answer.status_code >= 500 or batch.status_code >= 500:
            failed[name] = answer.text + batch.text
        elif batch.status_code == 200 and batch.json()["results"][0]["status"] >= 500:
            failed[name] = batch.text
        elif answer.status_code in (200, 201):
            got = await accord.marketing.get(f"/v1/leads/{answer.json()['lead_id']}")
            if got.status_code != 200:
                failed[name] = got.text
    assert failed == {}


PROPERTIES = {
    "nul": b'{"a":"x\\u0000"}',
    "nul in name": b'{"a\\u0000":1}',
    "big integer": b'{"a":100000000000000000000}',
    "NaN": b'{"a":NaN}',
    "deep": b'{"a":' + b"[" * 150 + b"]" * 150 + b"}",
    "deeper": b'{"a":' + b"[" * 400 + b"]" * 400 + b"}",
}


async def test_no_property_of_an_activity_is_a_5xx(accord: Running) -> None:
    await accord.marketing.post("/v1/leads", BASE)
    failed: dict[str, str] = {}
    for name, properties in PROPERTIES.items():
        body = b'{"email":"ada@initech.example","kind":"page.viewed","by":"lead","properties":' + properties + b"}"
        answer = await raw(accord, "/v1/activities", body)
        if answer.status_code >= 500:
            failed[name] = answer.text
    assert failed == {}


# 2. identity -------------------------------------------------------------------------------------------------------
async def test_an_email_that_is_no_address_is_422_with_its_pointer_and_nothing_is_written(accord: Running) -> None:
    answer = await accord.marketing.post("/v1/leads", {"source": "a", "email": "nobody"})
    assert answer.status_code == 422, answer.text
    assert await accord.rows("SELECT 1 FROM lead") == []


async def test_a_lead_always_has_a_key_by_which_it_is_found_again(accord: Running) -> None:
    await accord.marketing.post("/v1/leads", {"source": "a", "email": "nobody", "phone": "soon"})
    await accord.marketing.post("/v1/leads", {"source": "a", "email": "nobody", "phone": "soon"})
    keyless = await accord.rows(
        "SELECT lead_id FROM lead l WHERE NOT EXISTS (SELECT FROM identity_key k WHERE k.lead_id = l.lead_id)"
    )
    assert keyless == []


async def test_two_extensions_of_one_switchboard_are_two_people(accord: Running) -> None:
    one = await accord.marketing.post(
        "/v1/leads", {"source": "a", "email": "ada@initech.example", "phone": "+1 202 555 0143 ext. 5"}
    )
    two = await accord.marketing.post(
        "/v1/leads", {"source": "a", "email": "bob@initech.example", "phone": "+1 202 555 0143 ext. 6"}
    )
    assert one.json()["lead_id"] != two.json()["lead_id"]


async def test_a_country_in_small_letters_is_a_country(accord: Running) -> None:
    assert parse_phone("202 555 0143", "us").e164 == "+12025550143"


async def test_an_invalid_email_never_replaces_a_valid_one(accord: Running) -> None:
    lead = (await accord.marketing.post("/v1/leads", {**BASE, "phone": "+12025550143"})).json()["lead_id"]
    await accord.marketing.post("/v1/leads", {"source": "b", "phone": "+12025550143", "email": "n/a"})
    person = (await accord.marketing.get(f"/v1/leads/{lead}")).json()["person"]
    assert person["email"] == "ada@initech.example"


def test_an_address_longer_than_254_is_none() -> None:
    domain = ".".join(["a" * 60] * 5) + ".com"
    assert parse_email(f"ada@{domain}").address is None


def test_accounts_are_by_registered_domain() -> None:
    assert find_account_domain("eu.initech.com", None) == find_account_domain("initech.com", None)


def test_a_public_suffix_is_no_account() -> None:
    assert find_account_domain("co.uk", None) is None


async def test_the_account_of_a_merge_follows(accord: Running) -> None:
    post = accord.marketing.post
    older = {"source": "a", "email": "ada@gmail.com", "occurred_at": "2026-01-01T00:00:00Z"}
    newer = {"source": "a", "external_id": "7", "domain": "initech.example", "occurred_at": "2026-01-02T00:00:00Z"}
    survivor, gone = [(await post("/v1/leads", row)).json()["lead_id"] for row in (older, newer)]
    account = (await accord.marketing.get(f"/v1/leads/{gone}")).json()["account_id"]
    joined = (await post("/v1/leads", {"source": "a", "email": "ada@gmail.com", "external_id": "7"})).json()
    assert (joined["lead_id"], joined["outcome"]) == (survivor, "merged")
    assert (await accord.marketing.get(f"/v1/leads/{survivor}")).json()["account_id"] == account


# 3. quarantine -----------------------------------------------------------------------------------------------------
def farmer(**more: Any) -> dict[str, Any]:
    return {
        "source": "list",
        "title": "Farmer",
        "attributes": {"employee_count": 9999, "industry": "111110", "country": "US"},
        **more,
    }


async def test_quarantined_values_do_not_reach_lead_by_merge(accord: Running, template: dict[str, Any]) -> None:
    await accord.sign(template)
    good = {
        **BASE,
        "title": "CTO",
        "attributes": {"employee_count": 250, "industry": "541511", "country": "US"},
        "occurred_at": "2026-01-01T00:00:00Z",
    }
    lead = (await accord.marketing.post("/v1/leads", good)).json()
    assert lead["verdict"] == "accepted", lead
    pending = (
        await accord.marketing.post(
            "/v1/leads", farmer(email="ada@home.example", external_id="7", occurred_at="2026-02-01T00:00:00Z")
        )
    ).json()
    assert pending["verdict"] == "quarantined", pending
    joins = {
        "source": "list",
        "external_id": "7",
        "email": BASE["email"],
        "attributes": {"country": "US", "employee_count": 250},
        "occurred_at": "2026-01-15T00:00:00Z",
    }
    joined = await accord.marketing.post("/v1/leads", joins)
    assert joined.json()["outcome"] == "merged", joined.text
    now = (await accord.marketing.get(f"/v1/leads/{lead['lead_id']}")).json()
    assert now["attributes"]["industry"] == "541511", now
    assert now["person"]["title"] == "CTO", now


async def test_an_entering_lead_does_not_publish_what_was_only_quarantined(
    accord: Running, template: dict[str, Any]
) -> None:
    await accord.sign(template)
    await accord.marketing.post("/v1/leads", farmer(email="ada@initech.example", occurred_at="2026-02-01T00:00:00Z"))
    ok = {**BASE, "attributes": {"country": "US", "employee_count": 60}, "occurred_at": "2026-03-01T00:00:00Z"}
    answer = await accord.marketing.post("/v1/leads", ok)
    assert answer.json()["verdict"] in ("accepted", "flagged"), answer.text
    (captured,) = await accord.events("lead.captured.v1")
    assert captured["state"]["attributes"].get("industry") is None, captured


# 4. time and order -------------------------------------------------------------------------------------------------


async def test_rows_of_one_person_in_one_batch_are_applied_in_order(accord: Running) -> None:
    people = 400
    first = [{"source": "first", "email": f"p{n}@initech.example"} for n in range(people)]
    second = [{"source": "second", "email": f"p{n}@initech.example"} for n in range(people)]
    results = (await accord.marketing.post("/v1/leads:batch", first + second)).json()["results"]
    assert [row["outcome"] for row in results] == ["created"] * people + ["updated"] * people
    sources = await accord.rows("SELECT source, count(*) FROM lead GROUP BY 1")
    assert sources == [{"source": "first", "count": people}]


# 5. personal data --------------------------------------------------------------------------------------------------
LEAKS = {
    "tel as integer": {"tel": 12025550143},
    "contact": {"contact": "Ada Byron"},
    "street": {"street": "12 Baker Street"},
    "dob": {"dob": "1985-12-10"},
    "linkedin": {"linkedin": "linkedin.com/in/ada-byron"},
    "question": {"question": "I am ill and need help soon, call me"},
    "ip": {"ip": "192.0.2.17"},
    "iban": {"iban": "DE89370400440532013000"},
    "whatsapp": {"whatsapp": 4915112345678},
}


async def test_without_a_policy_no_attribute_with_personal_data_leaves_intake(accord: Running) -> None:
    for place, attributes in enumerate(LEAKS.values()):
        lead = {**BASE, "email": f"ada{place}@initech.example", "attributes": attributes}
        assert (await accord.marketing.post("/v1/leads", lead)).status_code == 201
    events = await accord.events("lead.captured.v1")
    found = {name: event["state"]["attributes"] for name, event in zip(LEAKS, events, strict=True)}
    assert found == {name: {} for name in LEAKS}


async def test_campaign_words_hold_no_address_in_disguise(accord: Running) -> None:
    await accord.marketing.post(
        "/v1/leads", {**BASE, "campaign": {"name": "ada%40initech.example", "term": "+1 202 555 0143"}}
    )
    (event,) = await accord.events("lead.captured.v1")
    assert "initech" not in str(event)
    assert "0143" not in str(event)


# 6. policy drafts --------------------------------------------------------------------------------------------------
def doc(*parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "kind": "policy",
        "title": "t",
        "attributes": {"employees": {"type": "integer"}, "industry": {"type": "string"}},
        "parameters": list(parameters),
        **more,
    }


ANY = {"key": "x", "rule": "any_of", "consequence": "flag"}


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (
            doc({**ANY, "of": [{"rule": "email"}, {"rule": "range", "attribute": "industry", "min": 1}]}),
            "/parameters/0/of/1/attribute",
        ),
        (
            doc({**ANY, "of": [{"rule": "email"}, {"rule": "required", "attribute": "shoes"}]}),
            "/parameters/0/of/1/attribute",
        ),
        (
            doc(
                {
                    **ANY,
                    "of": [{"rule": "email"}, {"rule": "any_of", "of": [{"rule": "range", "attribute": "employees"}]}],
                }
            ),
            "/parameters/0/of/1/of/0",
        ),
        (
            doc({**ANY, "of": [{"rule": "email"}, {"rule": "horoscope", "attribute": "industry"}]}),
            "/parameters/0/of/1/rule",
        ),
        (doc({**ANY, "of": [{"rule": "email"}]}, attributes={"email": {"type": "date"}}), "/attributes/email/type"),
        (doc({**ANY, "of": [{"rule": "email"}]}, **{"a/b": 1}), "/a~1b"),
        (doc({"key": "x", "rule": "email", "weight": "3", "consequence": "flag"}), "/parameters/0/weight"),
        (doc({"key": "x", "rule": "email", "disposable": "no", "consequence": "flag"}), "/parameters/0/disposable"),
        (
            doc({"key": "x", "rule": "required", "attribute": "employees", "missing": "pass", "consequence": "flag"}),
            "/parameters/0/missing",
        ),
    ],
    ids=[
        "nested range on text",
        "nested unknown attribute",
        "nested twice",
        "nested unknown rule",
        "attribute named as a rule",
        "escaped",
        "weight as text",
        "bool as text",
        "required that cannot fail",
    ],
)
def test_a_draft_points_to_the_place(content: dict[str, Any], pointer: str) -> None:
    _read, errors = policy.validate_policy(content)
    assert pointer in {f.pointer for f in errors}, errors


def test_a_deep_any_of_is_refused_not_a_crash() -> None:
    rule: dict[str, Any] = {"rule": "email"}
    for _ in range(500):
        rule = {"rule": "any_of", "of": [rule]}
    _read, errors = policy.validate_policy(doc({**rule, "key": "x", "consequence": "flag"}))
    assert errors


# 7. bounds ---------------------------------------------------------------------------------------------------------
async def test_a_person_with_very_many_external_ids_stays_writable(accord: Running) -> None:
    await accord.marketing.post("/v1/leads", BASE)
    keys = ",".join(f"{n:064x}" for n in range(14_000))
    await accord.rows(f"UPDATE lead SET external_keys = '{{{keys}}}'")
    answer = await raw(accord, "/v1/leads", b'{"source":"website","email":"ada@initech.example","external_id":"new"}')
    assert answer.status_code == 200, answer.text


async def test_a_list_in_an_attribute_is_bounded(accord: Running) -> None:
    answer = await accord.marketing.post("/v1/leads", {**BASE, "attributes": {"tags": ["x"] * 20_000}})
    assert answer.status_code == 422


async def test_own_headers_do_not_reach_the_caller(accord: Running) -> None:
    answer = await accord.marketing.post(
        "/v1/activities", {"email": "x@y.example", "kind": "page.viewed", "by": "lead"}
    )
    assert "accord-recorded" not in answer.headers


async def test_external_ids_of_a_chain_of_merges_are_all_shown(accord: Running) -> None:
    post = accord.marketing.post
    a = (await post("/v1/leads", {"source": "s", "external_id": "a", "occurred_at": "2026-01-03T00:00:00Z"})).json()[
        "lead_id"
    ]
    b = (
        await post(
            "/v1/leads",
            {"source": "s", "external_id": "b", "email": "b@x.example", "occurred_at": "2026-01-02T00:00:00Z"},
        )
    ).json()["lead_id"]
    c = (
        await post(
            "/v1/leads",
            {"source": "s", "external_id": "c", "phone": "+12025550143", "occurred_at": "2026-01-01T00:00:00Z"},
        )
    ).json()["lead_id"]
    await post("/v1/leads", {"source": "s", "external_id": "a", "email": "b@x.example"})
    await post("/v1/leads", {"source": "s", "email": "b@x.example", "phone": "+12025550143"})
    found = (await accord.marketing.get(f"/v1/leads/{a}")).json()
    assert found["lead_id"] == c
    assert {one["id"] for one in found["person"]["external"]} == {"a", "b", "c"}
    assert set(found["merged"]) == {a, b}


# 8. scale: the locks of one server -----------------------------------------------------------------------------------
