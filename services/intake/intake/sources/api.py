"""GET|PUT|DELETE /v1/sources: how tools are connected. A secret goes in and is never shown again, only that it is there and since when."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, SecretStr, StringConstraints
from starlette.requests import Request

from accord.contracts.personal import check_not_personal
from accord.contracts.values import Normalized, Timestamp
from accord.http.auth import require
from accord.http.conditional import is_not_modified
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_single_cursor, make_page
from accord.http.problems import Problem
from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.mapping import Targets
from intake.sources.domain.source import Source
from intake.sources.service.sources import NewSecret, SourceContent, Sources, compute_etag

_NAME = r"^[^\s@:/\x00-\x1f\x7f]([^@:/\x00-\x1f\x7f]*[^\s@:/\x00-\x1f\x7f])?$"
Name = Annotated[
    str,
    Path(
        min_length=1,
        max_length=100,
        pattern=_NAME,
        description="The source as submissions name it; without `/`, since it stands in paths.",
    ),
    AfterValidator(check_not_personal),
    Normalized,
]
SecretKind = Annotated[str, StringConstraints(min_length=1, max_length=30)]

_PUT_EXAMPLE: dict[str, Any] = {
    "adapter": "typeform",
    "settings": {},
    "mapping": {"fields": {"attributes.employee_count": "/answers/company_size", "campaign.name": {"const": "spring"}}},
    "defaults": {"campaign.medium": "form"},
    "secrets": {"signing": "what stands in Typeform's webhook form"},
}


class SecretIn(BaseModel):
    """A new secret beside the one before, or what becomes of the one before."""

    model_config = ConfigDict(extra="forbid")

    value: SecretStr | None = Field(default=None, description="The new secret.")
    previous_until: Timestamp | None = Field(
        default=None,
        description="When the one before stops being valid. Without it: when it is dropped or a third one comes.",
    )
    drop_previous: bool = Field(default=False, description="The one before is no longer valid from now on.")


class SourceIn(BaseModel):
    """A source as it shall be. What is left out is empty, except secrets: those that are not named stay."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_PUT_EXAMPLE]})

    adapter: str | None = Field(
        default=None,
        max_length=50,
        description=f"The tool that sends: {', '.join(ADAPTERS)}. Null for a source of imports and of POST /v1/leads only.",
    )
    settings: Annotated[dict[str, JsonValue], Field(max_length=50)] = Field(
        default_factory=dict, description="What the adapter wants to know; see the guide of the tool."
    )
    mapping: dict[str, JsonValue] = Field(
        default_factory=dict,
        description=(
            "`fields`: field of a submission → JSON Pointer into the event, list of pointers (the first that finds something), or"
            f' `{{"const": value}}`. `columns`: column of an import → field. Fields: {", ".join(Targets.names())}.'
        ),
    )
    defaults: dict[str, JsonValue] = Field(
        default_factory=dict, description="Field → value, where the mapping finds none."
    )
    secrets: Annotated[dict[SecretKind, SecretStr | SecretIn | None], Field(max_length=10)] = Field(
        default_factory=dict,
        description="Kind → secret. A new one leaves the one before valid as well; null drops all of the kind.",
    )


class SecretOut(BaseModel):
    """That there is a secret. Never the secret."""

    id: str
    set_at: datetime
    until: datetime | None = Field(description="When it stops being valid; null: no time is set.")


class SourceOut(BaseModel):
    """A configured source."""

    name: str
    adapter: str | None
    settings: dict[str, JsonValue]
    mapping: dict[str, JsonValue]
    defaults: dict[str, JsonValue]
    secrets: dict[str, list[SecretOut]] = Field(
        description="By kind, the newest first: two while a tool is changed over."
    )
    secret_kinds: dict[str, str] = Field(description="The secrets that the adapter knows, and what each is for.")
    hook_path: str | None = Field(description="Where the tool sends to, below the address of this service.")
    version: int
    created_at: datetime
    updated_at: datetime


def source_router(configured: Sources) -> APIRouter:
    """The routes, for keys with the scope `admin`."""
    router = APIRouter(prefix="/v1/sources", tags=["sources"], dependencies=[require("admin")])

    @router.get("", summary="All configured sources, by name")
    async def list_sources(limit: Limit = 50, cursor: CursorText = None) -> Page[SourceOut]:
        found = await configured.page(decode_single_cursor(cursor, str) or "", limit + 1)
        items, after = make_page(found, limit, lambda source: source.name)
        return Page(items=[_to_out(source) for source in items], next_cursor=after)

    @router.get(
        "/{name}",
        summary="One source",
        response_model=SourceOut,
        responses={**problems(404), 304: {"description": "As you know it."}},
    )
    async def get_source(name: Name, request: Request, response: Response) -> Any:
        """Its ETag is what a change is based on."""
        source = await configured.get(name)
        if is_not_modified(request, compute_etag(source)):
            return Response(status_code=304, headers={"ETag": compute_etag(source)})
        response.headers["ETag"] = compute_etag(source)
        return _to_out(source)

    @router.put(
        "/{name}",
        summary="Make a source, or put another in its place",
        responses={**problems(409, 412, 422, 428), 201: {"description": "It is new.", "model": SourceOut}},
    )
    async def put_source(
        name: Name,
        body: SourceIn,
        request: Request,
        response: Response,
        if_match: Annotated[
            str | None, Header(max_length=200, description="The ETag of the source as you know it.")
        ] = None,
        if_none_match: Annotated[
            str | None, Header(max_length=200, description="`*`: only if there is no such source.")
        ] = None,
    ) -> SourceOut:
        """A new source needs no If-Match; a change does, since it replaces everything but the secrets that it does not name."""
        source, new = await configured.put(name, _content(body), _match(if_match, if_none_match))
        response.headers["ETag"] = compute_etag(source)
        response.headers["Cache-Control"] = "no-store"
        response.status_code = 201 if new else 200
        return _to_out(source)

    @router.delete("/{name}", status_code=204, summary="Forget a source and its secrets", responses=problems(404, 412))
    async def delete_source(
        name: Name,
        if_match: Annotated[
            str | None, Header(max_length=200, description="The ETag of the source as you know it.")
        ] = None,
    ) -> None:
        """Its leads stay, and POST /v1/leads still takes submissions under its name."""
        await configured.delete(name, if_match)

    return router


def _match(if_match: str | None, if_none_match: str | None) -> str | None:
    if if_none_match is not None:
        if if_none_match.strip() != "*" or if_match is not None:
            raise Problem(
                400,
                "malformed-request",
                "The request cannot be read",
                "Send If-Match with an ETag, or If-None-Match: *.",
                errors=[{"parameter": "If-None-Match", "message": "Must be *"}],
            )
        return "*"
    return None if if_match is None else if_match.strip()


def _content(body: SourceIn) -> SourceContent:
    secrets: dict[str, NewSecret | None] = {}
    for kind, said in body.secrets.items():
        if said is None:
            secrets[kind] = None
        elif isinstance(said, SecretStr):
            secrets[kind] = NewSecret(said.get_secret_value())
        else:
            value = None if said.value is None else said.value.get_secret_value()
            secrets[kind] = NewSecret(value, said.previous_until, said.drop_previous)
    return SourceContent(body.adapter, body.settings, body.mapping, body.defaults, secrets)


def _to_out(source: Source) -> SourceOut:
    adapter = None if source.adapter is None else ADAPTERS.get(source.adapter)
    secrets: dict[str, list[SecretOut]] = {}
    for get_source in source.secrets:
        secrets.setdefault(get_source.kind, []).append(
            SecretOut(id=get_source.secret_id, set_at=get_source.set_at, until=get_source.until)
        )
    assert source.created_at is not None and source.updated_at is not None  # noqa: PT018, S101 - it was read or saved
    return SourceOut(
        name=source.name,
        adapter=source.adapter,
        settings=dict(source.settings),
        mapping=dict(source.mapping_document),
        defaults=dict(source.defaults),
        secrets=secrets,
        secret_kinds={} if adapter is None else dict(adapter.secret_kinds),
        hook_path=None if adapter is None else f"/v1/hooks/{quote(source.name, safe='')}",
        version=source.version,
        created_at=source.created_at,
        updated_at=source.updated_at,
    )
