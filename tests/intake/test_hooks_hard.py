"""Bodies that no tool should send, and that some do: too large, too deep, in no encoding, with odd values anywhere. None is answered with a
5xx, and none that is proved and readable is refused.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.intake.hook_service import HookClient, left_out, outcomes, running_hook_client
from tests.intake.tools import MAILCHIMP, TOOLS

ODD_CASES_MAX = 30


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


async def test_text_of_which_a_part_cannot_be_stored_is_left_out_and_named(intake: HookClient) -> None:
    await intake.connect("generic")
    await intake.connect("mailchimp")
    bodies = [
        b'{"email": "a@initech.example", "first_name": "A\\u0000da", "n": 1}',
        b'{"email": "b@initech.example", "first_name": "\\ud800 Ada", "n": 12345678901234567890123}',
        b'{"email": "c@initech.example", "first_name": "\xff Ada"}',
    ]
    for body in bodies:
        answer = await intake.send("generic", body=body)
        assert outcomes(answer) == ["created"]
        assert left_out(answer.json()["results"][0]) == ["/first_name"]
    form = urlencode(MAILCHIMP).replace("Ada", "A%00d%FFa").replace("ada%40", "d%40").encode()
    assert outcomes(await intake.send("mailchimp", body=form)) == ["created"]
    found = {lead["email"]: lead["first_name"] for lead in await intake.leads()}
    assert found == dict.fromkeys([f"{name}@initech.example" for name in "abcd"])


async def test_bodies_that_cannot_be_read(intake: HookClient) -> None:
    await intake.connect("generic")
    form = {"content-type": "application/x-www-form-urlencoded"}
    cases: list[tuple[bytes, dict[str, str], int]] = [
        (b"{", {}, 400),
        (b"", {}, 400),
        (b'{"a": NaN}', {}, 400),
        (b'{"a": 1e999, "b": "\\ud800"}', {}, 400),
        (b'{"a": ' + b"1" * 400 + b"}", {}, 200),
        (b"[" * 100_000, {}, 400),
        (b"[" * 1_000 + b"]" * 1_000, {}, 400),
        (b'{"a":' * 300 + b"1" + b"}" * 300, {}, 400),
        (b'{"a":' * 101 + b"1" + b"}" * 101, {}, 200),
        (b"x", {"content-type": "multipart/form-data; boundary=x"}, 415),
        (b"\x1f\x8b", {"content-encoding": "gzip"}, 400),
        (b"{}", {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"{}")[:-1], {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"{}") + b"more", {"content-encoding": "gzip"}, 400),
        (b"\x0b\x00\x80{}\x03", {"content-encoding": "br"}, 415),
        (gzip.compress(b"{}"), {"content-encoding": "gzip, gzip"}, 415),
        (b"{}", {"content-encoding": "UTF-8"}, 200),
        (b"&".join(b"a%d=1" % number for number in range(2_001)), form, 400),
        (b"null", {}, 200),
        (b"[]", {}, 200),
        (b'"text"', {}, 200),
    ]
    for body, headers, status in cases:
        sent = {"content-type": "application/json", "x-accord-secret": TOOLS["generic"].secret, **headers}
        answer = await intake.plain.post("/v1/hooks/generic", content=body, headers=sent)
        assert answer.status_code == status, (body[:40], answer.text)
    assert await intake.leads() == []


async def test_body_over_limit_is_413_with_or_without_content_length(database_url: str, keys_file: Path) -> None:
    async with running_hook_client(database_url, keys_file, body_bytes_max=10_000) as intake:
        await intake.connect("generic")

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 1_000

        headers = {"content-type": "application/json", "x-accord-secret": TOOLS["generic"].secret}
        declared = await intake.plain.post("/v1/hooks/generic", content=b" " * 200_000, headers=headers)
        chunked = await intake.plain.post("/v1/hooks/generic", content=endless(), headers=headers)
        assert (declared.status_code, chunked.status_code) == (413, 413)


ODD: tuple[Any, ...] = (
    None,
    True,
    2**70,
    -1,
    1e308,
    "",
    "\x00",
    "\ud800",
    "x" * 3_000,
    "🦄\u202e",
    [],
    {},
    [[]],
    {"": {"": [None]}},
)


def _places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [at, *(place for name, value in inner for place in _places(value, (*at, name)))]


@pytest.mark.parametrize("tool", ["standard-webhooks", "hubspot", "mautic", "typeform", "segment"])
async def test_no_signed_event_with_something_odd_in_it_is_answered_with_an_error(
    intake: HookClient, tool: str
) -> None:
    await intake.connect(tool)
    event = json.loads(TOOLS[tool].event)
    cases = [(place, odd) for place in _places(event) if place for odd in ODD]
    for place, odd in random.Random(tool).sample(cases, ODD_CASES_MAX):
        changed = copy.deepcopy(event)
        node: Any = changed
        for part in place[:-1]:
            node = node[part]
        node[place[-1]] = odd
        answer = await intake.send(tool, body=json.dumps(changed).encode())
        assert answer.status_code == 200, (place, odd, answer.text)
