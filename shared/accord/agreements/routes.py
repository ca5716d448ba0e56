"""The routes of one agreement, the same for every kind. They translate between HTTP and the store, and decide nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response, Security
from pydantic import BaseModel, ConfigDict, Field

from accord.agreements import model, paper
from accord.agreements.bodies import JSON, document_body, read_document
from accord.agreements.diff import Change, diff
from accord.agreements.paper_diff import diff_papers
from accord.agreements.paper_links import DAYS_MAX, TOKEN_CHARS_MAX, InvalidLink, NoEncryptionKey, PaperLinks
from accord.agreements.store import AgreementStore, InvalidContent, NoSuchVersion, StoredVersion, VersionModified
from accord.clock import utc_now
from accord.contracts.agreement_events import AgreementKind
from accord.contracts.values import Department, Timestamp
from accord.http.auth import BEARER, Caller, authorize, require
from accord.http.conditional import is_not_modified, precondition_failed, require_if_match
from accord.http.idempotency import Answer, IdempotencyRequest, idempotency
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_single_cursor, make_page
from accord.http.problems import Problem

_EXAMPLE_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

AnyCaller = Annotated[Caller, require()]
Writer = Annotated[Caller, require("agreements:write")]
Signer = Annotated[Caller, require("agreements:sign")]
Keyed = Annotated[IdempotencyRequest | None, idempotency()]
VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1, description="Number of the version.")]


class SignatureOut(BaseModel):
    """One department's signature."""

    department: Department
    signed_by: str
    signed_at: Timestamp
    content_sha256: str


class PaperLinkIn(BaseModel):
    """For how long."""

    model_config = ConfigDict(extra="forbid")

    days: int = Field(default=7, ge=1, le=DAYS_MAX)


class PaperLinkOut(BaseModel):
    """A link to one version on paper."""

    url: str = Field(description="Whoever has it can read this version.")
    expires_at: Timestamp


class VersionSummary(BaseModel):
    """A version without its content."""

    kind: AgreementKind
    version: int
    status: model.Status
    title: str
    content_sha256: str = Field(description="SHA-256 of the canonical JSON (RFC 8785) of the content; what is signed.")
    drafted_by: str
    drafted_at: Timestamp
    edited_at: Timestamp
    proposed_by: str | None
    proposed_at: Timestamp | None
    effective_from: Timestamp | None = Field(
        description="When it came or will come into force; null: at the second signature."
    )
    superseded_at: Timestamp | None
    withdrawn_by: str | None
    withdrawn_at: Timestamp | None
    signatures: list[SignatureOut]
    awaiting: list[Department] = Field(description="Departments that have not signed yet.")


class VersionOut(VersionSummary):
    """A version with its content."""

    content: dict[str, Any]


class ProposedOut(VersionOut):
    """A version that was proposed, and what both should know before they sign."""

    warnings: list[str]


class Proposal(BaseModel):
    """When the version shall come into force, once both have signed."""

    model_config = ConfigDict(extra="forbid")

    effective_from: Timestamp | None = Field(default=None, description="Null: at the second signature.")


class SignatureIn(BaseModel):
    """A signature under exactly this content."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"content_sha256": _EXAMPLE_SHA}]})

    content_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="As the version says it, and as you computed it."
    )


class ChangeOut(BaseModel):
    """One difference."""

    path: str = Field(description="JSON Pointer; elements of a list that have a `key` are named by it.")
    change: Literal["added", "removed", "changed"]
    old: Any = None
    new: Any = None


class PaperChangeOut(BaseModel):
    """A place of the paper that reads otherwise."""

    heading: str
    before: list[str] = Field(description="The lines of the one version; empty where the other adds.")
    now: list[str] = Field(description="The lines of the other; empty where it leaves out.")


class DiffOut(BaseModel):
    """What is different from one version to another."""

    kind: AgreementKind
    from_version: int
    to_version: int
    changes: list[ChangeOut]
    words: list[PaperChangeOut] = Field(description="The same in the plain words of the paper.")


def agreement_router(
    store: AgreementStore, links: PaperLinks, *, example: Mapping[str, object] | None = None
) -> APIRouter:
    """All routes of one agreement, under the kind's path. `example`: a content for OpenAPI."""
    kind = store.kind
    router = APIRouter(prefix=kind.path, tags=[f"agreement: {kind.kind}"])
    _add_reading_routes(router, store)
    _add_paper_routes(router, store, links)
    _add_drafting_routes(
        router,
        store,
        document_body(
            example or {"kind": kind.kind, "title": "What we agree", "glossary": {}},
            glossary={"type": "object", "additionalProperties": {"type": "string"}},
        ),
    )
    _add_signing_routes(router, store)
    return router


def _add_reading_routes(router: APIRouter, store: AgreementStore) -> None:
    kind = store.kind
    named = f"{kind.kind}_agreement"

    @router.get(
        "",
        operation_id=f"{named}_active",
        summary="The version in force",
        response_model=VersionOut,
        responses=problems(404),
    )
    async def active(request: Request, response: Response, caller: AnyCaller) -> Any:
        found = await store.get_active()
        if found is None:
            raise Problem(
                404, "not-found", "Nothing is in force", f"No {kind.kind} has been signed by both departments."
            )
        return _answer_conditionally(request, response, found, kind.kind)

    @router.get("/versions", operation_id=f"{named}_versions", summary="All versions, the newest first")
    async def versions(caller: AnyCaller, limit: Limit = 50, cursor: CursorText = None) -> Page[VersionSummary]:
        place = decode_single_cursor(cursor, int)
        before = None if place is None else min(place, 2**31 - 1)
        found = await store.versions(before=before, limit=limit + 1)
        items, after = make_page(found, limit, lambda stored: stored.state.version)
        return Page(items=[VersionSummary(**_to_summary(item, kind.kind)) for item in items], next_cursor=after)

    @router.get(
        "/versions/{version}", operation_id=f"{named}_version", summary="One version", response_model=VersionOut
    )
    async def version_(request: Request, response: Response, version: VersionNumber, caller: AnyCaller) -> Any:
        with _ProblemMapping():
            return _answer_conditionally(request, response, await store.get(version), kind.kind)

    @router.get(
        "/versions/{version}/diff/{other}",
        operation_id=f"{named}_diff",
        summary="What changed from one version to another",
    )
    async def diff_(version: VersionNumber, other: VersionNumber, caller: AnyCaller) -> DiffOut:
        with _ProblemMapping():
            old, new = await store.get(version), await store.get(other)
        changes = await asyncio.to_thread(diff, old.content, new.content)
        words = await asyncio.to_thread(lambda: diff_papers(kind.paper(old.content), kind.paper(new.content)))
        return DiffOut(
            kind=kind.kind,
            from_version=version,
            to_version=other,
            changes=[_to_change(item) for item in changes],
            words=[
                PaperChangeOut(heading=item.heading, before=list(item.before), now=list(item.now)) for item in words
            ],
        )


def _paper_reader(links: PaperLinks, kind: str) -> Any:
    """FastAPI dependency: whoever reads a paper has a key, or a link to this version that is valid."""

    async def check(
        request: Request,
        _: Annotated[object, Security(BEARER)],
        link: Annotated[
            str | None,
            Query(max_length=TOKEN_CHARS_MAX, description="Of a link made for this version, in place of a key."),
        ] = None,
    ) -> None:
        if link is None:
            await authorize(request)
            return
        request.app.state.query.check(request)
        try:
            made_by = links.read(link, kind, request.path_params["version"], utc_now())
        except InvalidLink:
            made_by = None
        if made_by is None or not request.app.state.auth.has_key(made_by):
            raise Problem(
                403, "link-not-valid", "This link is not valid", "It has ended. Ask whoever sent it for another."
            )

    return Depends(check)


def _add_paper_routes(router: APIRouter, store: AgreementStore, links: PaperLinks) -> None:
    kind = store.kind
    named = f"{kind.kind}_agreement"

    @router.get(
        "/versions/{version}/paper",
        operation_id=f"{named}_paper",
        summary="On paper: a page to print, or Markdown",
        response_class=Response,
        responses={200: {"description": "The agreement in plain words.", "content": _PAPER_CONTENT}},
        dependencies=[_paper_reader(links, kind.kind)],
    )
    async def on_paper(
        version: VersionNumber,
        accept: Annotated[str | None, Header(description="`text/markdown` for Markdown.")] = None,
    ) -> Response:
        with _ProblemMapping():
            found = await store.get(version)
        sections = await asyncio.to_thread(kind.paper, found.content)
        if _prefers_markdown(accept):
            return Response(
                paper.render_markdown(kind.kind, found, sections),
                media_type="text/markdown; charset=utf-8",
                headers=_VARY,
            )
        html = paper.render_html(kind.kind, found, sections)
        return Response(html, media_type="text/html; charset=utf-8", headers={**_VARY, **paper.HEADERS})

    @router.post(
        "/versions/{version}/paper-links",
        operation_id=f"{named}_paper_link",
        summary="A link to the paper for somebody without a key, for some days",
        status_code=201,
        responses=problems(409),
    )
    async def make_link(
        request: Request,
        version: VersionNumber,
        caller: AnyCaller,
        wish: Annotated[PaperLinkIn | None, Body(openapi_examples={"a week": {"value": {"days": 7}}})] = None,
    ) -> PaperLinkOut:
        """Whoever has the link reads this version and nothing else. It ends after these days, or when the API key that made it is
        removed or given another name."""
        if not request.app.state.auth.has_key(caller.name):
            raise Problem(
                403, "no-api-key", "API key required", "A link ends with the key that made it; a token has none."
            )
        with _ProblemMapping():
            await store.get(version)
        try:
            token, until = links.make(kind.kind, version, caller.name, utc_now(), (wish or PaperLinkIn()).days)
        except NoEncryptionKey:
            raise Problem(
                409, "no-encryption-key", "No encryption key", "The service has no ACCORD_SECRETS_KEYS."
            ) from None
        address = request.url.replace(path=request.url.path.removesuffix("-links"), query=f"link={token}")
        return PaperLinkOut(url=str(address), expires_at=until)


def _add_drafting_routes(router: APIRouter, store: AgreementStore, content_body: dict[str, Any]) -> None:
    kind = store.kind
    named = f"{kind.kind}_agreement"

    @router.post(
        "/versions",
        operation_id=f"{named}_draft",
        summary="A new draft",
        status_code=201,
        response_model=VersionOut,
        responses=problems(409, 413, 415),
        openapi_extra=content_body,
    )
    async def draft(request: Request, caller: Writer, idempotency_request: Keyed) -> Response:
        content = await read_document(request)
        with _ProblemMapping():
            done = await store.draft_once(
                content, caller.name, idempotency_request, partial(_encode_draft, kind=kind.kind, path=kind.path)
            )
        return done.answer.response()

    @router.put(
        "/versions/{version}",
        operation_id=f"{named}_edit",
        summary="Change a draft",
        response_model=VersionOut,
        responses=problems(409, 412, 413, 415, 428),
        openapi_extra=content_body,
    )
    async def edit(
        request: Request,
        response: Response,
        version: VersionNumber,
        caller: Writer,
        if_match: Annotated[str | None, Header(description="The ETag that the change is based on; required.")] = None,
    ) -> VersionOut:
        etag = require_if_match(request)
        content = await read_document(request)
        with _ProblemMapping():
            return _with_etag(response, await store.edit(version, content, etag), kind.kind)


def _add_signing_routes(router: APIRouter, store: AgreementStore) -> None:
    kind = store.kind
    named = f"{kind.kind}_agreement"

    @router.post(
        "/versions/{version}/propose",
        operation_id=f"{named}_propose",
        summary="Put a draft up for signature; from here its content never changes",
        responses=problems(409),
    )
    async def propose(
        response: Response,
        version: VersionNumber,
        caller: Writer,
        proposal: Annotated[Proposal | None, Body(openapi_examples={"at once": {"value": {}}})] = None,
    ) -> ProposedOut:
        with _ProblemMapping():
            wish = proposal.effective_from if proposal is not None else None
            found, warnings = await store.propose(version, caller.name, wish)
        response.headers["ETag"] = found.etag
        return ProposedOut(**_to_version(found, kind.kind), warnings=warnings)

    @router.post(
        "/versions/{version}/signatures",
        operation_id=f"{named}_sign",
        summary="Sign for the key's department; the second signature brings the version into force",
        status_code=201,
        responses=problems(409),
    )
    async def sign(response: Response, version: VersionNumber, signature: SignatureIn, caller: Signer) -> VersionOut:
        if caller.department is None:
            raise Problem(403, "no-department", "Department required", "The key belongs to no department.")
        with _ProblemMapping():
            found = await store.sign(version, caller.department, caller.name, signature.content_sha256)
        return _with_etag(response, found, kind.kind)

    @router.post(
        "/versions/{version}/withdraw",
        operation_id=f"{named}_withdraw",
        summary="Take back a draft or a proposed version",
        responses=problems(409),
    )
    async def withdraw(response: Response, version: VersionNumber, caller: Writer) -> VersionOut:
        with _ProblemMapping():
            return _with_etag(response, await store.withdraw(version, caller.name), kind.kind)


_VARY = {"Vary": "Accept"}
_PAPER_CONTENT: dict[str, Any] = {
    "text/html": {"schema": {"type": "string"}},
    "text/markdown": {"schema": {"type": "string"}},
}


class _ProblemMapping:
    """Turns what the store raises into problems."""

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, NoSuchVersion):
            raise Problem(404, "not-found", "No such version", "There is no version with this number.") from None
        if isinstance(error, VersionModified):
            raise precondition_failed() from None
        if isinstance(error, InvalidContent):
            items = [{"pointer": item.pointer, "message": item.message} for item in error.findings]
            detail = (
                f"{len(items)} places are wrong; see errors." if len(items) > 1 else "One place is wrong; see errors."
            )
            raise Problem(422, "agreement-refused", "Invalid agreement", detail, errors=items) from None
        if isinstance(error, model.EffectiveInThePast):
            items = [{"pointer": "/effective_from", "message": str(error)}]
            raise Problem(422, error.code, "Validation failed", str(error), errors=items) from None
        if isinstance(error, model.AgreementError):
            raise Problem(409, error.code, "Conflict with the current state", str(error)) from None


def _to_summary(found: StoredVersion, kind: AgreementKind) -> dict[str, Any]:
    state = found.state
    signatures = sorted(state.signatures.values(), key=lambda signature: signature.signed_at)
    return {
        "kind": kind,
        "version": state.version,
        "status": state.status,
        "title": found.title,
        "content_sha256": state.content_sha256,
        "drafted_by": found.drafted_by,
        "drafted_at": found.drafted_at,
        "edited_at": found.edited_at,
        "proposed_by": state.proposed_by,
        "proposed_at": state.proposed_at,
        "effective_from": state.active_from or state.effective_at,
        "superseded_at": state.superseded_at,
        "withdrawn_by": state.withdrawn_by,
        "withdrawn_at": state.withdrawn_at,
        "signatures": [
            SignatureOut(
                department=signature.department,
                signed_by=signature.signed_by,
                signed_at=signature.signed_at,
                content_sha256=signature.content_sha256,
            )
            for signature in signatures
        ],
        "awaiting": _awaiting(state),
    }


def _awaiting(state: model.Version) -> Sequence[Department]:
    if state.status not in ("draft", "proposed"):
        return []
    return sorted(model.DEPARTMENTS - state.signatures.keys())


def _to_version(found: StoredVersion, kind: AgreementKind) -> dict[str, Any]:
    return {**_to_summary(found, kind), "content": found.content}


def _encode_draft(found: StoredVersion, *, kind: AgreementKind, path: str) -> Answer:
    body = VersionOut(**_to_version(found, kind)).model_dump_json().encode()
    place = f"{path}/versions/{found.state.version}"
    return Answer(201, body, {"location": place, "etag": found.etag, "content-type": JSON})


def _with_etag(response: Response, found: StoredVersion, kind: AgreementKind) -> VersionOut:
    response.headers["ETag"] = found.etag
    return VersionOut(**_to_version(found, kind))


def _answer_conditionally(
    request: Request, response: Response, found: StoredVersion, kind: AgreementKind
) -> VersionOut | Response:
    if is_not_modified(request, found.etag):
        return Response(status_code=304, headers={"ETag": found.etag})
    return _with_etag(response, found, kind)


def _to_change(item: Change) -> ChangeOut:
    return ChangeOut(path=item.path, change=item.change, old=item.old, new=item.new)


def _prefers_markdown(accept: str | None) -> bool:
    """Whether text/markdown is asked for, and not less than HTML."""
    weights: dict[str, float] = {}
    for part in (accept or "").split(",")[:50]:
        media, _, parameters = part.strip().lower().partition(";")
        weight = 1.0
        for parameter in parameters.split(";"):
            name, _, value = parameter.strip().partition("=")
            if name == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        weights[media.strip()] = weight
    markdown = max(weights.get("text/markdown", 0.0), weights.get("text/x-markdown", 0.0))
    return markdown > 0 and markdown >= weights.get("text/html", 0.0)
