"""The routing document over HTTP: read, written, tried, and how its pools stand. Decides nothing itself."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Header, Path, Request, Response
from pydantic import BaseModel, Field, JsonValue, StringConstraints

from accord.agreements.bodies import document_body, read_document
from accord.clock import utc_now
from accord.contracts.values import Attributes, SourceName, Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.conditional import is_not_modified, precondition_failed, require_if_match
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_single_cursor, make_page
from accord.http.problems import Problem, not_found, validation_error_at
from accord.terms.criteria import Facts
from accord.terms.durations import parse_duration
from accord.terms.findings import Finding
from qualification.definition.domain.rules import Rules
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.api.models import Wire
from qualification.routing.api.assignments import ExplanationAnswer, MemberAnswer, build_explanation
from qualification.routing.domain.assignment import Assignment
from qualification.routing.domain.checks import check_routing
from qualification.routing.domain.document import Method, Routing, RoutingDocument, compile_routing
from qualification.routing.queries.document import Version
from qualification.routing.service.document import (
    WAITING_COUNTED_MAX,
    GivenFacts,
    InvalidDocument,
    RoutingVersionCache,
    VersionConflict,
    get_newest_version,
    get_version,
    list_versions,
    preview_facts,
    preview_lead,
    view_pools,
)

_ROUTING: dict[str, Any] = {
    "kind": "routing",
    "title": "Who gets which lead",
    "calendars": {
        "office": {"timezone": "America/Chicago", "week": {"mon-fri": ["09:00-17:00"]}, "closed": ["2027-12-24"]}
    },
    "people": {
        "ann": {"capacity": 40, "calendar": "office"},
        "bob": {"capacity": 40, "absences": [{"from": "2027-07-01", "to": "2027-07-14"}]},
    },
    "pools": {
        "enterprise": {"members": [{"owner": "ann", "weight": 2}, {"owner": "bob"}]},
        "desk": {"method": "least_open", "members": [{"owner": "cho"}, {"owner": "dee"}]},
    },
    "rules": [
        {
            "key": "large",
            "when": {"path": "attributes.employee_count", "op": "gte", "value": 200},
            "pool": "enterprise",
        },
        {"key": "everyone-else", "pool": "desk"},
    ],
    "fallback": "desk",
}

_PREVIEW: dict[str, Any] = {"facts": {"attributes": {"employee_count": 250}, "source": "website", "grade": "A1"}}


_VERSION_MAX = 2**31 - 1
VersionNumber = Annotated[int, Path(ge=1, le=_VERSION_MAX, description="Number of the version.")]


class RoutingVersionSummary(BaseModel):
    """A version of the routing document without its content."""

    version: int
    content_sha256: str
    written_at: Timestamp
    written_by: str


class VersionAnswer(RoutingVersionSummary):
    """A version of the routing document."""

    content: dict[str, JsonValue]


class PoolState(BaseModel):
    """A pool as it stands at this moment."""

    pool: str
    method: Method
    fallback: bool
    members: list[MemberAnswer]
    waiting: int = Field(
        description=f"Leads that wait for somebody of this pool, counted up to {WAITING_COUNTED_MAX:,}."
    )


class PoolStates(BaseModel):
    """Every pool of the document in force."""

    version: int
    as_of: Timestamp
    pools: list[PoolState]


_Kind = Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")]


class GivenLead(Wire):
    """A lead that is made up: what is left out is missing, counts of activities are 0."""

    attributes: Annotated[Attributes, Field(max_length=200)] = Field(default_factory=dict)
    source: SourceName | None = None
    campaign: Annotated[str, StringConstraints(max_length=200)] | None = None
    stage: Annotated[str, StringConstraints(max_length=60)] | None = None
    grade: Annotated[str, StringConstraints(pattern=r"^[A-D][1-4]$")] | None = None
    fit: Annotated[float, Field(ge=0, le=1000)] | None = None
    engagement: Annotated[float, Field(ge=0, le=1000)] | None = None
    age: Annotated[str, StringConstraints(max_length=40)] | None = Field(default=None, examples=["P3D"])
    activities: Annotated[dict[_Kind, Annotated[int, Field(ge=0, le=1_000_000)]], Field(max_length=100)] = Field(
        default_factory=dict, description="Counts by kind, whatever the window."
    )
    account_id: UUID | None = Field(default=None, description="The company, for who has the account.")

    def facts(self) -> Facts:
        """What criteria find. Raises Problem 422 for an age that is none."""
        values: dict[str, object] = {f"attributes.{name}": value for name, value in self.attributes.items()}
        values |= {f"activities.{kind}.count": count for kind, count in self.activities.items()}
        values |= {
            "source": self.source,
            "campaign.name": self.campaign,
            "stage": self.stage,
            "grade": self.grade,
            "scores.fit": self.fit,
            "scores.engagement": self.engagement,
            "age": _parse_age(self.age),
        }
        return GivenFacts(values)


class PreviewRequest(Wire):
    """Which lead, and by which document: exactly one of `lead_id` and `facts`; `routing` is a document to try, else the one in force."""

    lead_id: UUID | None = None
    facts: GivenLead | None = None
    routing: dict[str, JsonValue] | None = None


class PreviewAnswer(BaseModel):
    """Whom the lead would go to, and why. Nothing was written and no pointer moved."""

    owner: str | None
    pool: str | None
    why: str
    routing_version: int | None = Field(description="Null for a document that is only tried.")
    explanation: ExplanationAnswer


def router(database: Database, definitions: DefinitionVersionCache, routing_cache: RoutingVersionCache) -> APIRouter:
    """The routes over one database, the definition and the routing in force."""
    routes = APIRouter(tags=["routing"])
    _documents(routes, database, definitions, routing_cache)
    _questions(routes, database, definitions, routing_cache)
    return routes


def _documents(
    routes: APIRouter, database: Database, definitions: DefinitionVersionCache, routing_cache: RoutingVersionCache
) -> None:
    @routes.get(
        "/v1/routing",
        summary="The routing in force",
        operation_id="get_routing",
        response_model=VersionAnswer,
        responses=problems(404),
    )
    async def get_routing(request: Request, response: Response, _caller: Caller = require("leads:read")) -> Any:
        """Who gets which lead. 404 while nobody has written it; then leads have no owner but by hand."""
        return _answer(request, response, await get_newest_version(database))

    @routes.put(
        "/v1/routing",
        summary="Change the routing",
        operation_id="put_routing",
        response_model=VersionAnswer,
        responses={
            201: {"description": "A new version is in force.", "model": VersionAnswer},
            **problems(412, 413, 415, 428),
        },
        openapi_extra=document_body(_ROUTING, "pools", "rules"),
    )
    async def put_routing(
        request: Request,
        response: Response,
        if_match: Annotated[
            str | None, Header(alias="If-Match", description="The ETag that the change is based on; not for the first.")
        ] = None,
        caller: Caller = require("admin"),
    ) -> VersionAnswer:
        """Write the whole document, as JSON or YAML. It is in force at once, for leads that need somebody from now on.

        What is wrong is answered with a pointer to each place. The same content again makes no new version. Leads that stand in
        one of its stages without an owner are given to somebody in the background.
        """
        document = await read_document(request)
        based_on = await _based_on(request, database, if_match)
        try:
            written, new = await routing_cache.write(document, await definitions.in_force(), based_on, caller.name)
        except InvalidDocument as wrong:
            raise refuse(wrong) from None
        except VersionConflict as stale:
            raise precondition_failed(_etag(stale.version) if stale.version else None) from None
        response.status_code = 201 if new else 200
        response.headers["ETag"] = _etag(written.version)
        return _build_version(written)

    @routes.get("/v1/routing/versions", summary="Versions of the routing", operation_id="list_routing_versions")
    async def get_versions(
        limit: Limit = 50, cursor: CursorText = None, _caller: Caller = require("leads:read")
    ) -> Page[RoutingVersionSummary]:
        """The newest first."""
        before = decode_single_cursor(cursor, int) or _VERSION_MAX
        rows = await list_versions(database, max(0, min(before, _VERSION_MAX)), limit + 1)
        kept, next_cursor = make_page(rows, limit, lambda row: int(row["version"]))
        return Page(items=[RoutingVersionSummary(**dict(row)) for row in kept], next_cursor=next_cursor)

    @routes.get(
        "/v1/routing/versions/{version}",
        summary="One version of the routing",
        operation_id="get_routing_version",
        response_model=VersionAnswer,
        responses=problems(404),
    )
    async def get_version_by_number(
        request: Request, response: Response, version: VersionNumber, _caller: Caller = require("leads:read")
    ) -> Any:
        """As it was written."""
        return _answer(request, response, await get_version(database, version))


def _questions(
    routes: APIRouter, database: Database, definitions: DefinitionVersionCache, routing_cache: RoutingVersionCache
) -> None:
    @routes.get(
        "/v1/routing/pools",
        summary="How the pools stand",
        operation_id="get_routing_pools",
        responses=problems(404),
    )
    async def get_pools(_caller: Caller = require("leads:read")) -> PoolStates:
        """Each member's current weight and open leads, who could be given a lead at this moment, and why the others could not."""
        routing, now = await routing_cache.in_force(), utc_now()
        if routing is None:
            raise not_found("routing")
        found = await view_pools(database, routing, await definitions.in_force(), now)
        states = [
            PoolState(
                pool=view.evaluation.pool,
                method=view.evaluation.method,
                fallback=view.evaluation.fallback,
                members=[
                    MemberAnswer.model_validate(member, from_attributes=True) for member in view.evaluation.members
                ],
                waiting=view.waiting,
            )
            for view in found
        ]
        return PoolStates(version=routing.version, as_of=now, pools=states)

    @routes.post(
        "/v1/routing/preview",
        summary="Who would get a lead, and why",
        operation_id="preview_routing",
        responses=problems(404),
    )
    async def preview_routing(
        body: Annotated[PreviewRequest, Body(openapi_examples={"made up": {"value": _PREVIEW}})],
        _caller: Caller = require("leads:read"),
    ) -> PreviewAnswer:
        """Asks the routing in force, or a document that is only tried, about a lead or made-up facts. Nothing is written.

        A lead that has an owner would keep that one, as it would when it came back.
        """
        if (body.lead_id is None) == (body.facts is None):
            raise validation_error_at("", "Must have exactly one of lead_id and facts")
        rules = await definitions.in_force()
        routing = await _compile(body.routing, rules) if body.routing is not None else await routing_cache.in_force()
        if routing is None:
            raise not_found("routing")
        if body.facts is not None:
            facts = body.facts.facts()
            made = await preview_facts(database, facts, body.facts.account_id, routing, rules, utc_now())
        else:
            made = await _preview_lead(database, body.lead_id, routing, rules)
        return PreviewAnswer(
            owner=made.owner,
            pool=made.pool,
            why=made.why,
            routing_version=None if body.routing is not None else routing.version,
            explanation=build_explanation(made),
        )


async def _preview_lead(database: Database, lead_id: UUID | None, routing: Routing, rules: Rules | None) -> Assignment:
    found = await preview_lead(database, lead_id, routing, rules, utc_now()) if lead_id and rules else None
    if found is None:
        raise not_found("lead")
    return found


async def _compile(content: Mapping[str, JsonValue], rules: Rules | None) -> Routing:
    """A document of a request, compiled as version 0. Raises Problem 422."""
    tried = await asyncio.to_thread(_check_and_compile, content, rules)
    if isinstance(tried, list):
        raise refuse(InvalidDocument(tried), "/routing")
    return tried


def _check_and_compile(content: Mapping[str, JsonValue], rules: Rules | None) -> Routing | list[Finding]:
    return check_routing(content, rules) or compile_routing(0, RoutingDocument.model_validate(content))


def refuse(wrong: InvalidDocument, at: str = "") -> Problem:
    """422 with a pointer to each place that is wrong."""
    items = [{"pointer": at + found.pointer, "message": found.message} for found in wrong.findings]
    detail = f"{len(items)} places are wrong; see errors." if len(items) > 1 else "One place is wrong; see errors."
    return Problem(422, "routing-refused", "The routing cannot be used", detail, errors=items)


async def _based_on(request: Request, database: Database, if_match: str | None) -> int | None:
    """The version in If-Match; None for the first. Raises Problem 412 and 428."""
    if if_match is None:
        if await get_newest_version(database) is None:
            return None
        require_if_match(request)
    etag = require_if_match(request)
    number = etag.strip('"')
    if not number.isascii() or not number.isdigit() or len(number) > 9 or etag != _etag(int(number)):
        raise precondition_failed()
    return int(number)


def _answer(request: Request, response: Response, found: Version | None) -> VersionAnswer | Response:
    if found is None:
        raise not_found("routing")
    etag = _etag(found.version)
    if is_not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return _build_version(found)


def _build_version(found: Version) -> VersionAnswer:
    return VersionAnswer(
        version=found.version,
        content_sha256=found.sha256,
        written_at=found.written_at,
        written_by=found.written_by,
        content=dict(found.content),
    )


def _etag(version: int) -> str:
    return f'"{version}"'


def _parse_age(text: str | None) -> object:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise validation_error_at("/facts/age", str(error)) from None
