"""OpenAPI says what the service does: each route with its problems, scheme and examples, plain routes too."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from pydantic import BaseModel, Field
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from shared_kit import Kit, auth, service_kit
from shared_process import process
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from accord.http import openapi
from accord.http.openapi import operation
from accord.service import create_app


class Part(BaseModel):
    name: str


class Lamp(BaseModel):
    """A lamp."""

    parts: list[Part] = Field(max_length=5)


async def lamps(_: Request) -> JSONResponse:
    return JSONResponse({}, 201)


LAMPS = {
    "/v1/lamps": {
        "post": operation(
            "Make lamps",
            scope="leads:write",
            body=list[Lamp],
            body_examples={"one": [{"parts": [{"name": "bulb"}]}]},
            answers={201: Lamp},
            answer_examples={201: {"parts": []}},
            problems=[409],
            idempotent=True,
        )
    }
}


@pytest.fixture
async def shop(kit_database: str, tmp_path: Path) -> AsyncIterator[Kit]:
    routes = [Route("/v1/lamps", lamps, methods=["POST"])]
    async with service_kit(kit_database, tmp_path, routes=routes, openapi_paths=LAMPS) as built:
        yield built


async def document(shop: Kit) -> dict[str, Any]:
    found: dict[str, Any] = (await shop.client.get("/openapi.json")).json()
    return found


async def test_document_is_written_once_for_all_requests(shop: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await shop.client.get("/openapi.json")
    monkeypatch.setattr(openapi.json, "dumps", None)
    again = await shop.client.get("/openapi.json")
    assert (again.status_code, again.headers["content-type"]) == (200, "application/json")
    assert again.content == first.content


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(inner) for inner in node.values()))
    if isinstance(node, list):
        return set().union(*(references(inner) for inner in node))
    return set()


async def test_every_route_has_its_problems_and_its_scheme(shop: Kit) -> None:
    found = await document(shop)
    assert len(found["paths"]) == 10
    for path, item in found["paths"].items():
        for method, operation_ in item.items():
            place = f"{method} {path}"
            assert operation_["security"] == [{"bearer": []}], place
            assert {"400", "401", "403", "422", "429", "500", "503"} <= operation_["responses"].keys(), place
            assert operation_["summary"], place
            if "requestBody" in operation_:
                assert {"413", "415"} <= operation_["responses"].keys(), place
                for media in operation_["requestBody"]["content"].values():
                    assert "example" in media or "examples" in media or "$ref" in media["schema"], place
            if "{" in path:
                assert "404" in operation_["responses"], place
    assert found["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in str(found)


async def test_every_reference_leads_somewhere(shop: Kit) -> None:
    found = await document(shop)
    for reference in references(found):
        node: Any = found
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


async def test_scopes_are_named_for_both_kinds_of_routes(shop: Kit) -> None:
    paths = (await document(shop))["paths"]
    assert paths["/v1/policy/versions"]["post"]["x-scope"] == "agreements:write"
    assert "`agreements:sign`" in paths["/v1/policy/versions/{version}/signatures"]["post"]["description"]
    lamp = paths["/v1/lamps"]["post"]
    assert "`leads:write`" in lamp["description"]
    assert lamp["parameters"][0]["name"] == "Idempotency-Key"
    assert lamp["responses"]["409"] == {"$ref": "#/components/responses/Conflict"}


async def test_the_same_document_each_time(shop: Kit) -> None:
    assert await document(shop) == create_app(shop.service).openapi()


@pytest.mark.slow
async def test_nothing_that_is_sent_makes_a_5xx(kit_database: str, tmp_path: Path) -> None:
    """Schemathesis over the agreement routes, with data that fits the document and data that does not."""
    async with process(kit_database, tmp_path, "api") as running:
        port = (await running.logged("started"))["port"]
        tried = await asyncio.to_thread(send_everything, f"http://127.0.0.1:{port}")
        assert sum(tried.values()) > 200
        assert {200, 201, 400, 422} <= tried.keys()
        assert 401 not in tried
        assert await running.end(signal.SIGTERM) == 0
        assert "request_failed" not in running.events()


def send_everything(url: str) -> Counter[int]:
    """Requests that Schemathesis makes up from the document; how many there were by the status of the answer."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried: Counter[int] = Counter()
    for found in schema.get_all_operations():
        for mode in GenerationMode:
            tried += send(found.ok(), mode)
    return tried


def send(operation_: Any, mode: GenerationMode) -> Counter[int]:
    tried: Counter[int] = Counter()

    @settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(operation_.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.headers = {**(case.headers or {}), **auth("marketing")}
        response = case.call_and_validate(
            checks=[not_a_server_error, response_schema_conformance, content_type_conformance]
        )
        tried[response.status_code] += 1

    with contextlib.suppress(Unsatisfiable):  # an operation without parameters has nothing that is wrong
        check()
    return tried
