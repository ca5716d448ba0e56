"""What senders really do beyond the documents of their vendor: batches of any size, other names of headers, other forms of a body."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.intake.hook_service import HookClient, left_out, outcomes, running_hook_client
from tests.intake.tools import OWN, SEGMENT, STANDARD, TOOLS, dump_json

from intake.sources.domain.adapters.base import EVENTS_MAX


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


async def test_signed_array_of_segment_is_taken(intake: HookClient) -> None:
    await intake.connect("segment")
    page = {**SEGMENT, "type": "page", "messageId": "m-2"}
    odd = {"kind": "unheard of"}

    answer = await intake.send("segment", body=dump_json([SEGMENT, page, odd]))

    assert outcomes(answer) == ["created", "recorded", "failed"]
    [kept] = await intake.events_of("segment", "failed")
    assert kept["error"] == "its type is not one of Segment's"
    whole = await intake.admin.get(f"/v1/sources/segment/events/{kept['hook_event_id']}")
    assert whole.json()["content"] == odd


async def test_every_event_of_a_large_body_is_taken(intake: HookClient) -> None:
    await intake.connect("generic")
    people = [{"email": f"n{number}@initech.example"} for number in range(1_200)]

    assert outcomes(await intake.send("generic", body=dump_json([*people, people[0]]))) == ["created"] * 1_200 + [
        "replayed"
    ]

    assert len(await intake.leads()) == 1_200


@pytest.mark.parametrize("tool", ["generic", "segment", "hubspot", "mautic", "meta-lead-ads", "cloudevents"])
async def test_body_of_too_many_events_is_413_and_nothing_of_it_is_saved(intake: HookClient, tool: str) -> None:
    await intake.connect(tool)
    events = [{"email": f"n{number}@initech.example"} for number in range(EVENTS_MAX + 1)]
    body = {
        "mautic": {"mautic.lead_post_save_new": events},
        "meta-lead-ads": {"entry": [{"changes": events}]},
    }.get(tool, events)
    call = TOOLS[tool].call(tool, dump_json(body))
    kind = {"content-type": "application/cloudevents-batch+json"} if tool == "cloudevents" else {}

    answer = await intake.plain.post(call.path, content=call.body, headers={**call.headers, **kind})

    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-many-events")
    assert await intake.rows("SELECT 1 FROM submission UNION ALL SELECT 1 FROM hook_event") == []


async def test_idempotency_key_of_everybody_loses_nobody(intake: HookClient) -> None:
    await intake.connect("generic")
    headers = {"x-accord-secret": TOOLS["generic"].secret, "idempotency-key": "zapier"}

    answers = [
        await intake.plain.post("/v1/hooks/generic", json={"email": f"{name}@initech.example"}, headers=headers)
        for name in ("ada", "grace", "ada")
    ]

    assert [outcomes(one) for one in answers] == [["created"], ["created"], ["replayed"]]


async def test_svix_signs_under_its_own_names(intake: HookClient) -> None:
    await intake.connect("standard-webhooks")
    call = TOOLS["standard-webhooks"].call("standard-webhooks", dump_json(STANDARD))
    svix = {name.replace("webhook-", "svix-"): value for name, value in call.headers.items()}

    first = await intake.plain.post(call.path, content=call.body, headers=svix)
    again = await intake.plain.post(call.path, content=call.body, headers={**svix, **call.headers})
    mixed = {**svix, "webhook-id": "another", "webhook-timestamp": svix["svix-timestamp"]}

    assert (outcomes(first), outcomes(again)) == (["created"], ["replayed"])
    assert (await intake.plain.post(call.path, content=call.body, headers=mixed)).status_code == 401
    stale = TOOLS["standard-webhooks"].call("s", dump_json(STANDARD), at=datetime(2026, 1, 1, tzinfo=UTC))
    old = {name.replace("webhook-", "svix-"): value for name, value in stale.headers.items()}
    assert (await intake.plain.post(call.path, content=call.body, headers=old)).json()["reason"] == "stale"


async def test_sender_of_cloudevents_is_allowed_to_send_when_it_asks(intake: HookClient) -> None:
    await intake.connect("cloudevents")
    await intake.connect("mautic")
    asked = {"webhook-request-origin": "eventgrid.azure.net", "webhook-request-rate": "120"}

    answer = await intake.plain.options("/v1/hooks/cloudevents", headers=asked)

    assert answer.status_code == 200
    assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
    assert answer.headers["webhook-allowed-rate"] == "*"
    assert answer.headers["allow"] == "OPTIONS, POST"
    for headers in ({}, {"webhook-request-origin": "a b"}, {"webhook-request-origin": "x" * 300}):
        plain = await intake.plain.options("/v1/hooks/cloudevents", headers=headers)
        assert (plain.status_code, "webhook-allowed-origin" in plain.headers) == (200, False)
    refused = await intake.plain.options("/v1/hooks/mautic", headers=asked)
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    got = await intake.plain.get("/v1/hooks/cloudevents")
    assert (got.status_code, got.headers["allow"]) == (405, "OPTIONS, POST")
    assert (await intake.plain.options("/v1/hooks/nowhere", headers=asked)).status_code == 404


async def test_token_of_cloudevents_may_stand_in_the_query(intake: HookClient) -> None:
    await intake.connect("cloudevents")
    call = TOOLS["cloudevents"].call("cloudevents")
    headers = {name: value for name, value in call.headers.items() if name != "authorization"}

    async def send(**query: str) -> httpx.Response:
        return await intake.plain.post(call.path, params=query, content=call.body, headers=headers)

    assert outcomes(await send(access_token=TOOLS["cloudevents"].secret)) == ["created"]
    assert [(await send(**query)).status_code for query in ({}, {"access_token": "wrong"})] == [401, 401]


BINARY: dict[str, tuple[bytes, str, Any]] = {
    "text": (b"Ada has called", "text/plain", {"data": "Ada has called"}),
    "latin": (b"M\xfcller", "text/plain; charset=iso-8859-1", {"data": "M\u00fcller"}),
    "xml": (b"<a/>", "application/xml", {"data_base64": base64.b64encode(b"<a/>").decode()}),
    "bytes": (b"\x00\xff", "application/octet-stream", {"data_base64": "AP8="}),
    "nothing": (b"", "text/plain", {"data": None}),
    "json": (b'{"n": 1}', "application/vnd.acme+json", {"data": {"n": 1}}),
}


@pytest.mark.parametrize("kind", BINARY)
async def test_binary_cloudevent_of_any_type_is_like_a_structured_one(intake: HookClient, kind: str) -> None:
    await intake.connect("cloudevents")
    body, media, data = BINARY[kind]
    call = TOOLS["cloudevents"].call("cloudevents", body)
    attributes = {"specversion": "1.0", "id": "a2", "source": "/crm", "type": "contact.created"}
    structured = dump_json({**attributes, "datacontenttype": media, **data})

    binary = await intake.plain.post(call.path, content=body, headers={**call.headers, "content-type": media})
    headers = {**call.headers, "content-type": "application/cloudevents+json"}
    same = await intake.plain.post(call.path, content=structured, headers=headers)

    assert outcomes(binary) == outcomes(same) == ["failed"]
    assert binary.json()["results"][0]["reason"] == "needs one of email, phone, external_id"
    whole = [
        (await intake.admin.get(f"/v1/sources/cloudevents/events/{one['hook_event_id']}")).json()["content"]
        for one in await intake.events_of("cloudevents", "failed")
    ]
    assert [{**one, "id": ""} for one in whole] == [{**attributes, "id": "", "datacontenttype": media, **data}] * 2


async def test_compressed_body_is_read_and_a_bomb_is_413(database_url: str, keys_file: Path) -> None:
    async with running_hook_client(database_url, keys_file, body_bytes_max=100_000) as intake:
        await intake.connect("generic")
        headers = {"x-accord-secret": TOOLS["generic"].secret, "content-type": "application/json"}

        async def send(body: bytes, coding: str = "gzip") -> httpx.Response:
            return await intake.plain.post(
                "/v1/hooks/generic", content=body, headers={**headers, "content-encoding": coding}
            )

        half = len(dump_json(OWN)) // 2
        in_two = gzip.compress(dump_json(OWN)[:half]) + gzip.compress(dump_json(OWN)[half:])
        assert outcomes(await send(gzip.compress(dump_json(OWN)))) == ["created"]
        assert outcomes(await send(in_two, "x-gzip")) == ["replayed"]
        fits = dump_json({**OWN, "email": "b@initech.example"}).ljust(100_000)
        assert outcomes(await send(gzip.compress(fits))) == ["created"]
        assert (await send(gzip.compress(fits + b" "))).status_code == 413
        assert (await send(gzip.compress(b" " * 50_000_000))).status_code == 413
        assert (await send(gzip.compress(fits[:90_000]) * 2)).status_code == 413
        # Nothing is inflated for who has no proof.
        unproved = {"content-encoding": "gzip"}
        answer = await intake.plain.post(
            "/v1/hooks/generic", content=gzip.compress(b" " * 50_000_000), headers=unproved
        )
        assert answer.status_code == 401


JSON_BODIES: dict[str, tuple[str, str]] = {
    "utf-8-sig": ("utf-8-sig", ""),
    "utf-8 said in capitals": ("utf-8", "UTF-8"),
    "latin-1": ("latin-1", "ISO-8859-1"),
    "latin-1 in quotes": ("latin-1", '"iso-8859-1"'),
    "windows-1252": ("cp1252", "windows-1252"),
    "utf-16 with its mark": ("utf-16", ""),
    "utf-16 without": ("utf-16-le", ""),
    "utf-16 said": ("utf-16-be", "utf-16be"),
    "utf-32": ("utf-32", ""),
    "a mark says more than the header": ("utf-8-sig", "iso-8859-1"),
    "unknown names say nothing": ("utf-8", "x-klingon"),
    "no text encoding is used": ("utf-8", "unicode_escape"),
    "ascii is UTF-8": ("utf-8", "us-ascii"),
    "mac": ("mac-roman", "macintosh"),
    "gb18030": ("gb18030", "GB18030"),
}


@pytest.mark.parametrize("case", JSON_BODIES)
async def test_charset_and_mark_of_a_json_body_are_honoured(intake: HookClient, case: str) -> None:
    await intake.connect("generic")
    encoding, said = JSON_BODIES[case]
    kind = f"application/json; charset={said}" if said else "application/json"
    body = json.dumps({"email": "a@initech.example", "last_name": "M\u00fcller"}, ensure_ascii=False).encode(encoding)
    headers = {"x-accord-secret": TOOLS["generic"].secret, "content-type": kind}

    answer = await intake.plain.post("/v1/hooks/generic", content=body, headers=headers)

    assert (outcomes(answer), "left_out" in answer.json()["results"][0]) == (["created"], False)
    [lead] = await intake.leads()
    assert lead["last_name"] == "M\u00fcller"


FORM_BODIES: dict[str, tuple[bytes, str]] = {
    "a mark": (b"\xef\xbb\xbfemail=a@initech.example&last_name=M%C3%BCller", ""),
    "windows-1252": (b"email=a@initech.example&last_name=M%FCller", "; charset=windows-1252"),
    "not escaped": (b"email=a@initech.example&last_name=M\xfcller", "; charset=latin1"),
    "_charset_": (b"email=a@initech.example&_charset_=windows-1252&last_name=M%FCller", ""),
    "_charset_ first": (b"_charset_=ISO-8859-15&email=a@initech.example&last_name=M%FCller", ""),
    "the header says more than _charset_": (
        b"_charset_=utf-8&email=a@initech.example&last_name=M%FCller",
        ";charset=cp1252",
    ),
    "_charset_ that is none": (b"_charset_=zlib&email=a@initech.example&last_name=M%C3%BCller", ""),
    "utf-8": (b"email=a@initech.example&last_name=M%C3%BCller", "; charset=utf-8"),
}


@pytest.mark.parametrize("case", FORM_BODIES)
async def test_charset_and_mark_of_a_form_are_honoured(intake: HookClient, case: str) -> None:
    await intake.connect("generic")
    body, parameter = FORM_BODIES[case]
    kind = "application/x-www-form-urlencoded" + parameter
    headers = {"x-accord-secret": TOOLS["generic"].secret, "content-type": kind}

    answer = await intake.plain.post("/v1/hooks/generic", content=body, headers=headers)

    assert outcomes(answer) == ["created"]
    [lead] = await intake.leads()
    assert (lead["email"], lead["last_name"]) == ("a@initech.example", "M\u00fcller")


async def test_letters_that_cannot_be_read_are_left_out_and_named_also_in_an_address(intake: HookClient) -> None:
    await intake.connect("generic")
    bodies = [
        b'{"email": "a@initech.example", "last_name": "M\xfcller"}',
        b'{"id": "7", "email": "M\xfcller@initech.example"}',
        b'{"email": "M\xfcller@initech.example"}',
        b'{"email": "b@initech.example", "attributes": {"tags": ["a", "\xff"], "n": 1}}',
    ]
    results = [(await intake.send("generic", body=body)).json()["results"][0] for body in bodies]

    assert [one["outcome"] for one in results] == ["created", "created", "failed", "created"]
    assert [left_out(one) for one in results] == [["/last_name"], ["/email"], [], ["/attributes/tags"]]
    assert not any("\ufffd" in json.dumps(lead, default=str) for lead in await intake.leads())


async def test_kept_event_says_its_reason_in_words(intake: HookClient) -> None:
    await intake.connect("generic")
    for event in ({"first_name": "Ada"}, {"email": "x" * 501}, {"email": {"of": "nobody"}}, {"id": ""}, "text"):
        await intake.send("generic", body=dump_json(event))

    kept = await intake.events_of("generic", "failed")

    assert {event["error"] for event in kept} == {"needs one of email, phone, external_id"}


async def test_ids_of_many_digits_are_ids_as_they_were_sent(intake: HookClient) -> None:
    await intake.connect("generic")
    bodies = [
        b'{"id":100000000000000000001,"email":"b1@initech.example"}',
        b'{"id":100000000000000000002,"email":"b2@initech.example"}',
        b'{"id":1234567890123456789,"first_name":"\\ud83d","email":"b3@initech.example"}',
        b'{"id":1234567890123456788,"first_name":"\\ud83d","email":"b4@initech.example"}',
        b'{"id":12345678901234567,"email":"b5@initech.example"}',
        b'{"id":12345678901234568,"email":"b6@initech.example"}',
        b'{"id":-7,"email":"b7@initech.example"}',
    ]
    for body in bodies:
        assert outcomes(await intake.send("generic", body=body)) == ["created"]

    rows = await intake.rows("SELECT external_id FROM identity_key WHERE kind = 'external' ORDER BY lead_id")
    digits = ["100000000000000000001", "100000000000000000002", "1234567890123456789", "1234567890123456788"]
    assert [row["external_id"] for row in rows] == [*digits, "12345678901234567", "12345678901234568", "-7"]
    contents = await intake.rows("SELECT content FROM submission ORDER BY submission_id")
    assert contents[0]["content"] == bodies[0].decode()


@pytest.mark.parametrize("id_", ["1e20", "1.2345678901234567e+18", "9007199254740993.0"])
async def test_id_of_which_digits_are_lost_is_none(intake: HookClient, id_: str) -> None:
    await intake.connect("generic")
    for number in (1, 2):
        body = f'{{"id":{id_},"email":"b{number}@initech.example"}}'.encode()
        answer = await intake.send("generic", body=body)
        assert (outcomes(answer), left_out(answer.json()["results"][0])) == (["created"], ["/external_id"])
    assert len(await intake.leads()) == 2


TIMES: list[tuple[Any, str | None]] = [
    (46026, None),
    (0, None),
    (-1, None),
    (46026.5, None),
    (99_999_999, None),
    (1e300, None),
    (True, None),
    ("46026", None),
    (1767225600, "2026-01-01T00:00:00+00:00"),
    ("1767225600", "2026-01-01T00:00:00+00:00"),
    (1767225600.0, "2026-01-01T00:00:00+00:00"),
    (1767225600000, "2026-01-01T00:00:00+00:00"),
    (100_000_000, "1973-03-03T09:46:40+00:00"),
]


@pytest.mark.parametrize(("said", "moment"), TIMES)
async def test_number_is_a_moment_where_a_text_of_its_digits_is(
    intake: HookClient, said: Any, moment: str | None
) -> None:
    await intake.connect("generic")
    await intake.connect("segment")
    answer = await intake.send("generic", body=dump_json({"email": "t@initech.example", "created_at": said}))
    track = {"type": "track", "event": "Demo Requested", "messageId": "t", "traits": {"email": "t@initech.example"}}
    done = await intake.send("segment", body=dump_json({**track, "timestamp": said}))

    [lead] = await intake.leads()
    [activity] = await intake.rows("SELECT occurred_at FROM activity")
    for result, at in ((answer, lead["captured_at"]), (done, activity["occurred_at"])):
        dropped = left_out(result.json()["results"][0])
        if moment is None:
            assert (dropped, at.year) == (["/occurred_at"], datetime.now(UTC).year)
        else:
            assert (dropped, at.isoformat()) == ([], moment)


@pytest.mark.parametrize(("first", "second"), [(42.0, 42), (42, "42"), ("42", 42.0), ("42 ", 42), (4.5, "4.5")])
async def test_one_id_is_read_alike_in_a_submission_and_in_an_activity(
    intake: HookClient, first: Any, second: Any
) -> None:
    await intake.connect("segment")
    await intake.connect("cloudevents")
    identify = {"type": "identify", "messageId": "i", "userId": first, "traits": {"email": "seg@initech.example"}}
    track = {"type": "track", "event": "Demo Requested", "messageId": "t", "userId": second}
    assert outcomes(await intake.send("segment", body=dump_json(identify))) == ["created"]
    assert outcomes(await intake.send("segment", body=dump_json(track))) == ["recorded"]

    call = TOOLS["cloudevents"].call("cloudevents")
    for number, (kind, id_, outcome) in enumerate(
        (("contact.created", first, "created"), ("demo.requested", second, "recorded"))
    ):
        headers = {**call.headers, "ce-type": kind, "ce-id": str(number)}
        data = {"id": id_, **({"email": "ce@initech.example"} if number == 0 else {})}
        answer = await intake.plain.post(call.path, content=dump_json(data), headers=headers)
        assert outcomes(answer) == [outcome]


@pytest.mark.parametrize(
    "said", ["+49 (30) 901820-00", "0049 30 90182000", "tel:+493090182000", "call +49.30.90182000 today"]
)
async def test_number_in_an_unknown_field_of_a_kept_event_leads_an_erasure_to_it(intake: HookClient, said: str) -> None:
    await intake.connect("generic")
    made = await intake.admin.post("/v1/leads", {"source": "web", "phone": "+493090182000"})
    for event in ({"note": {"who": [said]}}, {"note": "+1 202 555 0188", "number": 1764590000000}):
        assert outcomes(await intake.send("generic", body=dump_json(event))) == ["failed"]

    erased = await intake.admin.http.delete(f"/v1/leads/{made.json()['lead_id']}")

    assert erased.status_code in (200, 204)
    [left] = await intake.rows("SELECT content FROM hook_event")
    assert "202" in left["content"]


async def test_properties_of_an_activity_are_bounded(intake: HookClient) -> None:
    await intake.connect("segment")
    await intake.send("segment")
    track = {"type": "track", "event": "Demo Requested", "userId": SEGMENT["userId"]}
    for size, dropped in ((60_000, []), (66_000, ["/properties"])):
        body = dump_json({**track, "messageId": str(size), "properties": {"text": "x" * size, "n": 1}})
        answer = await intake.send("segment", body=body)
        assert (outcomes(answer), left_out(answer.json()["results"][0])) == (["recorded"], dropped)
    lead = (await intake.leads())[0]["lead_id"]
    refused = await intake.admin.post(
        "/v1/activities",
        {"lead_id": str(lead), "kind": "a.b", "by": "lead", "properties": {"text": "x" * 66_000}},
    )
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/properties")
