"""Tools send to their hooks: each call creates what it says under its source, once, and nothing that was answered with 200 is lost."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY
from pydantic import JsonValue
from tests.intake.hook_service import HookClient, left_out, outcomes, running_hook_client
from tests.intake.tools import (
    HUBSPOT,
    MAILCHIMP,
    MAUTIC,
    META,
    OWN,
    SEGMENT,
    STANDARD,
    TOOLS,
    URL_SECRET,
    b64,
    dump_json,
    hmac_by_openssl,
    mautic_contact,
)

from accord import telemetry
from accord.contracts.values import utc
from accord.telemetry import configure_logging
from intake.hooks.service.receive import parse_event_time


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


CREATING = ["standard-webhooks", "cloudevents", "mautic", "mailchimp", "typeform", "segment", "marketo", "generic"]


@pytest.mark.parametrize("tool", CREATING)
async def test_a_signed_call_creates_a_lead_under_its_source_once(intake: HookClient, tool: str) -> None:
    source = await intake.connect(tool, f"our {tool}")

    answer = await intake.send(tool, source)

    assert outcomes(answer)[0] == "created"
    [lead] = await intake.leads()
    assert (lead["source"], lead["email"]) == (source, "ada@initech.example")
    assert str(lead["lead_id"]) == answer.json()["results"][0]["lead_id"]
    [submission] = await intake.rows("SELECT * FROM submission")
    assert (submission["source"], submission["caller"]) == (source, f"hook:{source}")
    [event] = await intake.events("lead.captured.v1")
    assert event["state"]["source"] == source

    before = await intake.rows("SELECT count(*) FROM outbox")
    again = outcomes(await intake.send(tool, source))
    assert set(again) == {"replayed"}
    assert len(again) == len(outcomes(answer))
    assert await intake.rows("SELECT count(*) FROM outbox") == before


async def test_failed_verification_is_401_counted_and_stores_nothing(intake: HookClient) -> None:
    for tool, known in TOOLS.items():
        source = await intake.connect(tool)

        def refused(reason: str, source: str = source) -> float:
            return counted("accord_hook_refused_total", source=source, reason=reason)

        wrong, missing = refused("wrong"), refused("missing")
        answers = [
            await intake.send(tool, secret=known.other_secret),
            await intake.plain.post(f"/v1/hooks/{source}", content=known.event),
            await intake.plain.post(f"/v1/hooks/{source}", content=b"not even JSON"),
        ]
        assert [answer.status_code for answer in answers] == [401, 401, 401]
        assert [answer.json()["reason"] for answer in answers] == ["wrong", "missing", "missing"]
        assert (refused("wrong"), refused("missing")) == (wrong + 1, missing + 2)
    assert await intake.rows("SELECT 1 FROM submission UNION ALL SELECT 1 FROM hook_event") == []


@pytest.mark.parametrize("tool", [name for name, tool in TOOLS.items() if tool.timed])
async def test_a_stale_time_is_401_with_its_own_reason(intake: HookClient, tool: str) -> None:
    await intake.connect(tool)

    for apart, reason in ((-6, "stale"), (6, "ahead")):
        answer = await intake.send(tool, at=datetime.now(UTC) + timedelta(minutes=apart))
        assert (answer.status_code, answer.json()["reason"]) == (401, reason)


async def test_unknown_source_is_404_and_source_without_adapter_409(intake: HookClient) -> None:
    (await intake.put("imports", {})).raise_for_status()
    (await intake.put("bare", {"adapter": "mautic"})).raise_for_status()

    assert (await intake.send("mautic", "nowhere")).status_code == 404
    assert (await intake.send("mautic", "imports")).status_code == 409
    unset = await intake.send("mautic", "bare")
    assert (unset.status_code, unset.json()["reason"]) == (401, "no-secret")
    assert (await intake.plain.get("/v1/hooks/bare")).status_code == 405
    assert counted("accord_hook_refused_total", source="nowhere", reason="wrong") == 0


async def test_the_handshakes_of_the_tools(intake: HookClient) -> None:
    await intake.connect("mailchimp")
    await intake.connect("meta-lead-ads", secrets={"verify": "a verify token"})
    await intake.connect("linkedin-lead-gen")

    assert (await intake.plain.get(f"/v1/hooks/mailchimp/{URL_SECRET}")).status_code == 200
    assert (await intake.plain.get("/v1/hooks/mailchimp", params={"secret": URL_SECRET})).status_code == 200
    assert (await intake.plain.get("/v1/hooks/mailchimp/wrong")).status_code == 401

    asked = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "a verify token"}
    answer = await intake.plain.get("/v1/hooks/meta-lead-ads", params=asked)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert answer.headers["content-type"].startswith("text/plain")
    refused = await intake.plain.get("/v1/hooks/meta-lead-ads", params={**asked, "hub.verify_token": "wrong"})
    assert refused.status_code == 401

    code = "7d0d5b0a-0e7e-4a7e-9c1f-b3f3d8d4d0aa"
    answer = await intake.plain.get("/v1/hooks/linkedin-lead-gen", params={"challengeCode": code})
    digest = hmac_by_openssl("sha256", TOOLS["linkedin-lead-gen"].secret, code.encode()).hex()
    assert (answer.status_code, answer.json()) == (200, {"challengeCode": code, "challengeResponse": digest})
    assert (await intake.plain.get("/v1/hooks/linkedin-lead-gen")).status_code == 401


async def test_every_event_of_a_batch_has_its_own_outcome(intake: HookClient) -> None:
    await intake.connect("mautic")
    body = dump_json(
        {
            "mautic.lead_post_save_new": [
                {"contact": mautic_contact("ada@initech.example", 1), "timestamp": "2026-01-04T09:33:58+00:00"},
                {"contact": {**mautic_contact("no address", 2), "id": None}, "timestamp": "2026-01-04T09:33:58+00:00"},
                {"contact": mautic_contact("grace@initech.example", 3, title="x" * 501)},
            ],
            "mautic.email_on_open": [
                {"stat": {"lead": mautic_contact("ada@initech.example", 1)}, "timestamp": "2026-01-04T10:00:00+00:00"},
                {"stat": {"lead": mautic_contact("later@initech.example", 4)}},
            ],
            "mautic.lead_company_change": [{"company": 1}],
        }
    )

    answer = await intake.send("mautic", body=body)

    assert outcomes(answer) == ["created", "failed", "created", "recorded", "waiting", "ignored"]
    assert answer.json()["results"][1]["reason"] == "/email: Is not an e-mail address"
    assert {lead["email"] for lead in await intake.leads()} == {"ada@initech.example", "grace@initech.example"}
    [kept] = await intake.events_of("mautic", "failed")
    assert (kept["action"], kept["error"], "no address" in json.dumps(kept)) == (
        "submit",
        "/email: Is not an e-mail address",
        False,
    )
    whole = (await intake.admin.get(f"/v1/sources/mautic/events/{kept['hook_event_id']}")).json()
    assert whole["content"]["contact"]["fields"]["core"]["email"]["value"] == "no address"


async def test_invalid_part_is_left_out_and_lead_is_created(intake: HookClient) -> None:
    await intake.connect("generic")

    answer = await intake.send("generic", body=dump_json({**OWN, "title": "x" * 501, "occurred_at": "2999-01-01"}))

    assert outcomes(answer) == ["created"]
    assert left_out(answer.json()["results"][0]) == ["/occurred_at", "/title"]
    [row] = await intake.rows("SELECT content FROM submission")
    assert "x" * 501 in row["content"], "the event is kept as it came"


async def test_raw_event_is_stored_with_unmapped_fields(intake: HookClient) -> None:
    body = b'{"email": "ada@initech.example",   "unknown": {"deep": [1, 2.50, "\\u20ac \xe2\x82\xac"]}, "email": "ada@initech.example"}'
    await intake.connect("generic")

    await intake.send("generic", body=body)

    [row] = await intake.rows("SELECT content FROM submission")
    assert row["content"] == body.decode()


async def test_another_attempt_of_the_same_event_is_a_replay(intake: HookClient) -> None:
    await intake.connect("hubspot")
    again = dump_json([{**HUBSPOT[0], "attemptNumber": 3}])

    assert outcomes(await intake.send("hubspot")) == ["waiting"]
    assert outcomes(await intake.send("hubspot", body=again)) == ["replayed"]
    await intake.connect("standard-webhooks")
    assert outcomes(await intake.send("standard-webhooks")) == ["created"]
    other = dump_json({**STANDARD, "attempt": 2})
    assert outcomes(await intake.send("standard-webhooks", body=other)) == ["replayed"]


async def test_one_event_twice_in_one_body_is_one(intake: HookClient) -> None:
    await intake.connect("segment")
    answer = await intake.send("segment", body=dump_json({"batch": [SEGMENT, SEGMENT]}))
    assert outcomes(answer) == ["created", "replayed"]


async def test_the_same_call_at_one_instant_makes_one_lead(intake: HookClient) -> None:
    await intake.connect("typeform")

    answers = await asyncio.gather(*(intake.send("typeform") for _ in range(8)))

    found = sorted(one for answer in answers if answer.status_code == 200 for one in outcomes(answer))
    assert found.count("created") == 1
    assert set(found) <= {"created", "replayed"}
    assert len(await intake.leads()) == 1
    assert {answer.status_code for answer in answers} <= {200, 503}


async def test_several_events_about_one_record_are_one_fetch(intake: HookClient) -> None:
    await intake.connect("hubspot")
    events = [{**HUBSPOT[0], "eventId": number, "subscriptionType": "contact.propertyChange"} for number in range(5)]

    assert (
        outcomes(await intake.send("hubspot", body=dump_json([*events, {**HUBSPOT[0], "eventId": 9, "objectId": 7}])))
        == ["waiting"] * 6
    )
    assert len(await intake.rows("SELECT 1 FROM hook_event")) == 2


async def test_policy_applies_and_a_rejected_event_is_still_answered_with_200(intake: HookClient) -> None:
    parameter = {"key": "company", "rule": "required", "field": "company", "consequence": "reject", "weight": 1}
    await intake.sign(
        {"kind": "policy", "title": "x", "glossary": {}, "attributes": {}, "parameters": [parameter], "score_min": 0}
    )
    await intake.connect("typeform")

    answer = await intake.send("typeform")

    assert outcomes(answer) == ["rejected"]
    assert answer.json()["results"][0]["reason"] == "company is missing"
    assert [row["verdict"] for row in await intake.rows("SELECT verdict FROM submission")] == ["rejected"]
    assert outcomes(await intake.send("typeform")) == ["replayed"]


async def test_two_tools_know_one_person_once(intake: HookClient) -> None:
    for tool in ("typeform", "mautic", "segment"):
        await intake.connect(tool)
    assert outcomes(await intake.send("typeform")) == ["created"]
    assert outcomes(await intake.send("mautic")) == ["updated", "recorded"]
    assert outcomes(await intake.send("segment")) == ["updated"]
    [lead] = await intake.leads()
    assert (lead["source"], lead["last_name"], len(lead["external_keys"])) == ("typeform", "Byron", 2)


async def test_mappings_and_defaults_of_the_source_apply(intake: HookClient) -> None:
    mapping = {"fields": {"company": "/answers/line_of_business", "title": {"const": "Visitor"}}}
    await intake.connect("typeform", mapping=mapping, defaults={"campaign.term": "crm"})
    await intake.send("typeform")
    [lead] = await intake.leads()
    assert (lead["company"], lead["title"]) == ("software", "Visitor")
    assert json.loads(lead["campaign"])["term"] == "crm"


async def test_who_leaves_withdraws_consent(intake: HookClient) -> None:
    await intake.connect("mailchimp")
    await intake.send("mailchimp")

    answer = await intake.send(
        "mailchimp", body=urlencode({**MAILCHIMP, "type": "unsubscribe", "data[reason]": "manual"}).encode()
    )

    assert outcomes(answer) == ["recorded"]
    [activity] = await intake.rows("SELECT kind, by, properties FROM activity")
    assert (activity["kind"], activity["by"]) == ("consent.withdrawn", "lead")
    [consent] = await intake.rows("SELECT * FROM consent")
    assert (consent["basis"], consent["caller"]) == ("withdrawn", "hook:mailchimp")


async def test_a_deletion_is_noted_on_the_lead(intake: HookClient) -> None:
    await intake.connect("mautic")
    await intake.send("mautic")
    body = dump_json({"mautic.lead_post_delete": [{"contact": mautic_contact("ada@initech.example")}]})

    assert outcomes(await intake.send("mautic", body=body)) == ["recorded"]
    assert [row["kind"] for row in await intake.rows("SELECT kind FROM activity ORDER BY activity_id")] == [
        "points.changed",
        "record.deleted",
    ]


async def test_behind_a_proxy_hubspot_signs_the_public_uri(database_url: str, keys_file: Path) -> None:
    def signed(base: str, source: str) -> dict[str, str]:
        stamp = str(int(datetime.now(UTC).timestamp() * 1000))
        message = f"POST{base}/v1/hooks/{source}?a=b%20c".encode() + dump_json(HUBSPOT) + stamp.encode()
        digest = b64(hmac_by_openssl("sha256", TOOLS["hubspot"].secret, message))
        return {
            "x-hubspot-signature-v3": digest,
            "x-hubspot-request-timestamp": stamp,
            "content-type": "application/json",
        }

    async with running_hook_client(
        database_url, keys_file, public_base_url="https://leads.initech.example/accord"
    ) as intake:
        await intake.connect("hubspot", "hub one")
        await intake.connect("hubspot", "two", settings={"public_base_url": "https://two.initech.example"})

        async def status(source: str, base: str) -> int:
            headers = signed(base, source)
            return (
                await intake.plain.post(f"/v1/hooks/{source}?a=b%20c", content=dump_json(HUBSPOT), headers=headers)
            ).status_code

        assert await status("hub%20one", "https://leads.initech.example/accord") == 200
        assert await status("two", "https://two.initech.example") == 200
        assert await status("two", "https://leads.initech.example/accord") == 401
        assert await status("hub%20one", "http://intake") == 401


async def test_api_key_verifies_only_with_leads_write(intake: HookClient) -> None:
    await intake.connect("cloudevents")
    call = TOOLS["cloudevents"].call("cloudevents")

    async def status(key: str) -> int:
        headers = {**call.headers, "authorization": f"Bearer {key}"}
        return (await intake.plain.post(call.path, content=call.body, headers=headers)).status_code

    assert await status("acc_marketing") == 200
    assert await status("acc_reader") == 401
    assert await status("acc_nobody") == 401
    await intake.connect("mautic")
    key = {"authorization": "Bearer acc_marketing"}
    assert (await intake.plain.post("/v1/hooks/mautic", content=dump_json(MAUTIC), headers=key)).status_code == 401


@contextmanager
def everything_logged() -> Iterator[None]:
    root, handlers = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level
    configure_logging("debug", service="intake")
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


async def test_no_secret_of_a_url_reaches_a_log_a_metric_a_trace_or_an_answer(
    intake: HookClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr(telemetry, "_records", lambda: True)
    await intake.connect("mailchimp")
    body = TOOLS["mailchimp"].event
    form = {"content-type": "application/x-www-form-urlencoded"}
    with everything_logged():
        answers = [
            await intake.plain.post(f"/v1/hooks/mailchimp/{URL_SECRET}", content=body, headers=form),
            await intake.plain.post(f"/v1/hooks/mailchimp?secret={URL_SECRET}", content=body, headers=form),
            await intake.plain.get(f"/v1/hooks/mailchimp/{URL_SECRET}"),
            await intake.plain.get(f"/v1/hooks/mailchimp/{URL_SECRET}x"),
            await intake.plain.post(f"/v1/hooks/nowhere/{URL_SECRET}", content=body, headers=form),
            await intake.plain.put(f"/v1/hooks/mailchimp/{URL_SECRET}", content=body, headers=form),
            await intake.plain.post(f"/v1/hooks/mailchimp/{URL_SECRET}/more", content=body, headers=form),
        ]
        metrics = await intake.plain.get("/metrics")
    assert [answer.status_code for answer in answers] == [200, 200, 200, 401, 404, 405, 404]
    seen = capsys.readouterr()
    assert '"event":"request"' in seen.out, "requests were logged at all"
    traced = [span.to_json() for span in spans.get_finished_spans()]
    assert len(traced) > len(answers), "requests were traced at all"
    for text in (seen.out, seen.err, metrics.text, *traced, *(answer.text for answer in answers)):
        assert URL_SECRET not in text
    for personal in ("ada@initech", "Byron"):
        assert personal not in seen.out + seen.err + metrics.text
    assert '/v1/hooks/{source}/{secret}"' in metrics.text


async def test_a_meta_change_about_something_else_is_counted_and_ignored(intake: HookClient) -> None:
    await intake.connect("meta-lead-ads")
    document: Any = copy.deepcopy(META)
    document["entry"][0]["changes"].append({"field": "feed", "value": {}})
    before = counted("accord_hook_events_total", source="meta-lead-ads", outcome="ignored")

    assert outcomes(await intake.send("meta-lead-ads", body=dump_json(document))) == ["waiting", "ignored"]
    assert counted("accord_hook_events_total", source="meta-lead-ads", outcome="ignored") == before + 1


async def test_an_answer_comes_only_after_the_commit(intake: HookClient) -> None:
    await intake.connect("hubspot")
    await intake.rows("ALTER TABLE hook_event ADD CONSTRAINT never CHECK (false) NOT VALID")
    call = TOOLS["hubspot"].call("hubspot")
    transport = httpx.ASGITransport(intake.transport.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://intake") as client:
        broken = await client.post(call.path, content=call.body, headers=dict(call.headers))
    assert broken.status_code == 500

    await intake.rows("ALTER TABLE hook_event DROP CONSTRAINT never")
    assert outcomes(await intake.send("hubspot")) == ["waiting"], "the tool sends it again, and nothing is lost"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("2026-12-31T18:00:00-06:00", "2027-01-01T00:00:00Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        ("1970-01-01T00:00:00+14:00", None),
        ("1969-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("2200-01-01", None),
        ("soon", None),
        (True, None),
        (None, None),
    ],
)
def test_moment_of_an_event_that_cannot_be_meant_is_when_it_came(said: JsonValue, kept: str | None) -> None:
    now = utc(2027, 1, 4)
    assert parse_event_time(said, now) == (now if kept is None else datetime.fromisoformat(kept))
