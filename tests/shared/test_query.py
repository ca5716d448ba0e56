"""A query that an operation does not declare is refused, by name; what is declared is taken as often as it may stand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import APIRouter, Query
from shared_kit import Kit, auth, service_kit
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from accord.http.auth import authorize, require
from accord.http.openapi import operation
from accord.http.query import find_errors

router = APIRouter()


@router.get("/v1/books/{isbn}", dependencies=[require("leads:read")])
async def list_books(isbn: str, genre: list[str] = Query(default=[]), limit: int = 10) -> dict[str, object]:
    return {"isbn": isbn, "genre": genre, "limit": limit}


async def lend_book(request: Request) -> JSONResponse:
    await authorize(request, "leads:read")
    return JSONResponse({"days": request.query_params.get("days")}, 201)


DAYS = {"name": "days", "in": "query", "required": False, "schema": {"type": "integer"}}
LENDING = {"/v1/loans": {"post": operation("Lend a book", scope="leads:read", parameters=[DAYS], answers={201: None})}}


@pytest.fixture
async def shop(kit_database: str, tmp_path: Path) -> AsyncIterator[Kit]:
    plain = [Route("/v1/loans", lend_book, methods=["POST"])]
    async with service_kit(kit_database, tmp_path, router, routes=plain, openapi_paths=LENDING) as built:
        yield built


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("", {}),
        ("limit=5", {}),
        ("genre=a&genre=b&limit=5", {}),
        ("genre=a&genre=a", {}),
        ("Limit=5", {"Limit": "no parameter"}),
        ("limit=5&limit=5", {"limit": "once"}),
        ("limit=5&genre=a&gener=b", {"gener": "no parameter"}),
        ("limit%5B%5D=5", {"limit[]": "no parameter"}),
        ("offset", {"offset": "no parameter"}),
        ("isbn=7", {"isbn": "no parameter"}),
        ("%ff=1", {"\N{REPLACEMENT CHARACTER}": "no parameter"}),
        ("a=1&b=2", {"a": "no parameter", "b": "no parameter"}),
    ],
)
async def test_query_is_held_to_its_operation(shop: Kit, query: str, wrong: dict[str, str]) -> None:
    answer = await shop.client.get(f"/v1/books/1?{query}", headers=auth("marketing"))
    assert answer.status_code == (422 if wrong else 200)
    errors = {found["parameter"]: found["message"] for found in answer.json().get("errors", [])}
    assert errors.keys() == wrong.keys()
    assert all(words in errors[name] for name, words in wrong.items())


async def test_message_names_what_there_is(shop: Kit) -> None:
    answer = await shop.client.get("/v1/books/1?gener=a", headers=auth("marketing"))
    assert answer.json()["errors"][0]["message"] == "Is no parameter of this operation; it has genre, limit"


async def test_plain_route_is_held_to_its_document(shop: Kit) -> None:
    taken = await shop.client.post("/v1/loans?days=3", headers=auth("marketing"))
    assert (taken.status_code, taken.json()) == (201, {"days": "3"})
    for query, name in (("weeks=3", "weeks"), ("days=3&days=4", "days")):
        refused = await shop.client.post(f"/v1/loans?{query}", headers=auth("marketing"))
        assert (refused.status_code, refused.json()["errors"][0]["parameter"]) == (422, name)


async def test_who_is_not_known_learns_nothing_of_the_query(shop: Kit) -> None:
    assert (await shop.client.get("/v1/books/1?gener=a")).status_code == 401


async def test_query_of_many_parameters_is_refused_unread(shop: Kit) -> None:
    query = "&".join(f"p{number}=1" for number in range(101))
    assert (await shop.client.get(f"/v1/books/1?{query}", headers=auth("marketing"))).status_code == 400


def test_long_name_is_cut_in_the_answer() -> None:
    (found,) = find_errors(["x" * 5_000], {})
    assert found == {"parameter": "x" * 60, "message": "Is no parameter of this operation; it has none"}
