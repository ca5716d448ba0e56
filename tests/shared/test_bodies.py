"""In all four services: no route reads anything of a body before it knows the key. And what bodies may hold of the memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from accord.http.bodies import BodyBudget
from accord.http.problems import Problem
from accord.service import create_app
from accord.settings import Settings

SERVICES = ("intake", "qualification", "sla_monitor", "metrics")
SETTINGS = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "kafka_bootstrap_servers": "127.0.0.1:1"}
METHODS = ("post", "put", "patch", "delete", "get")


def app_of(service: str) -> Any:
    """The app of a service whose servers are all away."""
    settings: type[Settings] = getattr(_settings_module(service), "Settings", Settings)
    return create_app(import_module(f"{service}.main").build(settings(**SETTINGS)))  # type: ignore[arg-type]


def _settings_module(service: str) -> Any:
    return import_module(f"{service}.settings")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Method and path of every operation that asks for a key."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item and item[method].get("security"):
                yield method.upper(), re.sub(r"{[^}]*}", "0198c0de-0000-7000-8000-000000000001", path)


async def status_of(app: ASGIApp, method: str, path: str, **headers: str) -> int:
    """The answer to a request whose body must not be read."""
    answers: list[int] = []

    async def receive() -> Message:
        raise AssertionError(f"{method} {path} reads the body")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    (status,) = answers
    return status


@pytest.mark.parametrize("service", SERVICES)
async def test_no_route_reads_a_body_without_a_key(service: str) -> None:
    app = app_of(service)
    found = {}
    for method, path in operations(app.openapi()):
        for framing in ({"Content-Length": "9"}, {"Transfer-Encoding": "chunked"}):
            headers = {"Content-Type": "application/json", **framing}
            found[method, path, *framing] = await status_of(app, method, path, **headers)
            assert await status_of(app, method, "/nowhere" + path, **headers) == 404
    assert len(found) > 20
    assert set(found.values()) == {401}, {where: status for where, status in found.items() if status != 401}


# the memory that bodies may take ---------------------------------------------------------------------------------------
def test_one_caller_has_half_and_all_strangers_a_quarter() -> None:
    budget = BodyBudget(1_000)
    budget.reserve("ada", 500)
    with pytest.raises(Problem) as full:
        budget.reserve("ada", 1)
    assert full.value.status == 503
    assert full.value.headers
    assert int(full.value.headers["Retry-After"]) >= 1
    budget.reserve("", 250)
    with pytest.raises(Problem):
        budget.reserve("", 1)
    budget.reserve("bob", 250)
    with pytest.raises(Problem):
        budget.reserve("bob", 1)
    budget.release("ada", 500)
    budget.reserve("bob", 250)
    assert budget.used_bytes == 750


@example([("ada", 0, False), ("ada", 0, False)])
@given(st.lists(st.tuples(st.sampled_from(["", "ada", "bob"]), st.integers(0, 400), st.booleans()), max_size=50))
def test_what_is_released_is_free_again(steps: list[tuple[str, int, bool]]) -> None:
    budget = BodyBudget(1_000)
    held: list[tuple[str, int]] = []
    for holder, size, releases in steps:
        if releases and held:
            budget.release(*held.pop())
            continue
        try:
            budget.reserve(holder, size)
        except Problem:
            continue
        held.append((holder, size))
        assert budget.used_bytes == sum(kept for _, kept in held) <= 1_000
    for one in held:
        budget.release(*one)
    assert budget.used_bytes == 0
