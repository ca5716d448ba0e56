"""Values near the ends of what a type can hold, sent as every parameter and into every place of every example body that the four
OpenAPI documents name: all are answered, none with a 5xx.
"""

from __future__ import annotations

import base64
import itertools
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
import requests

from accord_local.demo.play import Advance, Callers, sign_templates
from tests.effort import cases
from tests.system.running import Running
from tests.system.test_lead_journey import ask_for_demo, await_stage, enter

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

REQUEST_TIMEOUT_S = 30.0
FAILURES_SHOWN_MAX = 30
SERVICES = ("intake", "qualification", "sla_monitor", "metrics")

MOMENTS = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "1970-01-01T00:00:00Z",
    "2027-06-30T23:59:60Z",
    "2199-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
    "infinity",
)
DAYS = ("0001-01-01", "2199-12-31", "9999-12-31")
NUMBERS = (
    "-1",
    "0",
    "1.5",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775809",
    "1" * 5_000,
    "1e400",
    "1e-400",
    "Infinity",
    "NaN",
    "\N{ARABIC-INDIC DIGIT THREE}",
)
DURATIONS = ("P999999999D", "P99999999999999999999D", "P36525D", "PT0.000001S", "P1Y")
WORDS = ("", "\x00", "a" * 2_000, "'\";--", "(?:(?:a{0,100}){0,100}){0,5}q")
NOT_UTF8 = (b"\xff", b"\xed\xa0\x80")
TEXTS = (*MOMENTS, *DAYS, *NUMBERS, *DURATIONS, *WORDS)

# As JSON text: no Python value is written as 1e400.
JSON_VALUES = (
    *(json.dumps(text) for text in (*MOMENTS[::2], MOMENTS[5], *DAYS[::2], *DURATIONS[::2], *WORDS, "1e400")),
    *('"\\ud800"', '"0E-999999999"', "1e400", "9223372036854775808", "1" * 400, "-1", "null", "[]", "{}"),
)
PARTS = ("1970-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", 2**62, str(uuid.UUID(int=0)))
CURSORS = tuple(
    base64.urlsafe_b64encode(json.dumps(parts).encode()).rstrip(b"=").decode()
    for length in (1, 2, 3)
    for parts in itertools.product(PARTS, repeat=length)
)


@dataclass
class Sender:
    """Sends with one service's keys, and keeps what was answered with a 5xx other than that too much waits already."""

    url: str
    keys: Mapping[str, str] = field(repr=False)
    session: requests.Session
    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    turn: int = 0
    bodies: set[str] = field(default_factory=set)
    """The examples of which every value was replaced: a body that two operations share is looked at once."""

    def send(self, method: str, path: str, scope: str, where: str, **request: Any) -> None:
        # In the short form each place gets another few of the values; all of them are sent somewhere.
        self.turn += 1
        if self.turn % cases(1, 5):
            return
        # Drafts are a department's; everything else is open to the key with every scope.
        key = self.keys["marketing" if scope.startswith("agreements") else "admin"]
        headers = {"Authorization": f"Bearer {key}", **request.pop("headers", {})}
        answer = self.session.request(
            method, self.url + path, headers=headers, timeout=REQUEST_TIMEOUT_S, allow_redirects=False, **request
        )
        self.statuses[answer.status_code] += 1
        overloaded = answer.status_code == 503 and answer.json()["type"] == "/problems/overloaded"
        if answer.status_code >= 500 and not overloaded:
            self.failures.setdefault(f"{method} {where}", f"{answer.status_code} {path} {request.get('data')}"[:600])


@pytest.fixture(scope="module")
def lead(accord: Running, templates: Path, quietly: Advance) -> str:
    """A lead with a history, under agreements in force."""
    sign_templates(Callers(accord.marketing, accord.sales), accord.urls, templates, quietly)
    lead_id: str = enter(accord)["lead_id"]
    ask_for_demo(accord, lead_id)
    await_stage(accord, lead_id, "mql")
    decision = {"decision": "accept"}
    accord.sales.post(f"{accord.urls.qualification}/v1/leads/{lead_id}/decisions", decision)
    await_stage(accord, lead_id, "sal")
    return lead_id


@pytest.mark.parametrize("service", SERVICES)
def test_hostile_value_in_any_place_is_no_server_error(service: str, accord: Running, lead: str) -> None:
    url = getattr(accord.urls, service)
    with requests.Session() as session:
        session.trust_env = False
        document = session.get(f"{url}/openapi.json", timeout=REQUEST_TIMEOUT_S).json()
        sender = Sender(url, accord.keys, session)
        for path, item in document["paths"].items():
            for method, operation in item.items():
                send_all(sender, method.upper(), path, operation, lead)
        assert session.get(f"{url}/livez", timeout=REQUEST_TIMEOUT_S).status_code == requests.codes.ok
    shown = [f"{place}\n    {how}" for place, how in list(sender.failures.items())[:FAILURES_SHOWN_MAX]]
    assert not sender.failures, f"{len(sender.failures)} places\n" + "\n".join(shown)
    assert sender.statuses[422] > cases(300, 50)
    assert sender.statuses[200] > cases(20, 4)
    assert sender.statuses[429] == sender.statuses[401] == 0


def send_all(sender: Sender, method: str, path: str, operation: Mapping[str, Any], lead: str) -> None:
    scope = operation.get("x-scope") or ""
    parameters = operation.get("parameters", [])
    usual = {
        parameter["name"]: quote(usual_value(parameter, lead), safe=":")
        for parameter in parameters
        if parameter["in"] == "path" or parameter.get("required")
    }
    named = [parameter["name"] for parameter in parameters if parameter["in"] == "query" and parameter.get("required")]
    body = example_of(operation)
    media = {"Content-Type": "application/json"}
    content = {} if body is None else {"data": json.dumps(body), "headers": media}
    for parameter in parameters:
        where = f"{path} {parameter['name']}"
        if parameter["in"] == "header":
            for text in filter(is_header_value, TEXTS):
                headers = {**content.get("headers", {}), parameter["name"]: text}
                sender.send(method, address(path, usual, named), scope, where, **{**content, "headers": headers})
            continue
        values = [quote(text, safe="") for text in TEXTS] + [quote_from_bytes(raw) for raw in NOT_UTF8]
        if parameter["name"] == "cursor":
            values += CURSORS
        for value in values:
            asked = address(path, usual | {parameter["name"]: value}, {*named, parameter["name"]} - usual_paths(path))
            sender.send(method, asked, scope, where, **content)
    if body is None or json.dumps(body) in sender.bodies:
        return
    sender.bodies.add(json.dumps(body))
    for place, text in mutations(body):
        where = f"{path} {'/'.join(map(str, place))}"
        sender.send(method, address(path, usual, named), scope, where, data=text, headers=media)


def usual_paths(path: str) -> set[str]:
    return {part.split("}")[0] for part in path.split("{")[1:]}


def address(path: str, values: Mapping[str, str], query: Any) -> str:
    """The path with its parameters, all percent-encoded already."""
    filled = path.format_map({name: values[name] for name in usual_paths(path)})
    asked = "&".join(f"{name}={values[name]}" for name in sorted(query))
    return f"{filled}?{asked}" if asked else filled


def usual_value(parameter: Mapping[str, Any], lead: str) -> str:
    """A value that leads to what there is, so that the others are looked at."""
    name, schema = parameter["name"], parameter["schema"]
    if name in ("lead", "lead_id"):
        return lead
    if name in ("version", "other"):
        return "1"
    if schema.get("format") == "uuid":
        return str(uuid.UUID(int=7))
    examples = schema.get("examples") or [parameter.get("example") or (schema.get("enum") or ["website"])[0]]
    return str(examples[0])


def is_header_value(text: str) -> bool:
    """Whether a client can send it at all."""
    return text.isascii() and text.isprintable() and text == text.strip()


def example_of(operation: Mapping[str, Any]) -> Any:
    """The first example of the JSON body; None where there is none."""
    media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" in media:
        return media["example"]
    return next((found["value"] for found in media.get("examples", {}).values() if "value" in found), None)


def mutations(body: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The body as JSON text with each of its values replaced in turn; of a list, the first member stands for all."""
    mark = uuid.uuid4().hex
    for place in places(body, ()):
        changed = replaced(deepcopy(body), place, mark)
        before, after = json.dumps(changed).split(f'"{mark}"')
        for value in JSON_VALUES:
            yield place, before + value + after


def places(node: Any, at: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if at:
        yield at
    inner: Any = node.items() if isinstance(node, dict) else enumerate(node[:1]) if isinstance(node, list) else ()
    for name, value in inner:
        yield from places(value, (*at, name))


def replaced(node: Any, place: tuple[str | int, ...], value: object) -> Any:
    target = node
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    return node
