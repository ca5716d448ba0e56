"""ETag, If-Match and If-None-Match of things with versions (RFC 9110, section 13). It knows no thing."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header
from starlette.requests import Request

from accord.http.problems import Problem

LeadMatch = Annotated[
    str | None, Header(alias="If-Match", description="The lead's ETag, if it must be as it was read.")
]
"""`if_match: LeadMatch = None` in a route that changes a lead."""


def require_if_match(request: Request) -> str:
    """The one strong ETag in If-Match. Raises Problem 428 without one, 400 for one that is no ETag."""
    value = request.headers.get("if-match", "").strip()
    if not value:
        raise Problem(
            428,
            "precondition-required",
            "Precondition required",
            "Send the ETag of the state that your change is based on as If-Match, so that nobody's change is lost.",
        )
    if len(value) < 2 or len(value) > 200 or not (value.startswith('"') and value.endswith('"')):
        raise invalid_etag()
    return value


def invalid_etag() -> Problem:
    """400 for an If-Match that holds none."""
    return Problem(
        400,
        "malformed-request",
        "Malformed request",
        "If-Match must hold one strong ETag, in quotes.",
        errors=[{"parameter": "If-Match", "message": "Must be one strong ETag"}],
    )


def precondition_failed(etag: str | None = None, **extra: object) -> Problem:
    """412; with the present ETag if it is known, and further members that tell the present state."""
    problem = Problem(
        412,
        "precondition-failed",
        "Precondition failed",
        "Read it again, and base your change on what it is now.",
        headers={"ETag": etag} if etag else None,
    )
    problem.extra = extra
    return problem


def is_not_modified(request: Request, etag: str) -> bool:
    """Whether If-None-Match names this ETag (or any): then 304."""
    value = request.headers.get("if-none-match")
    if value is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in value.split(",")]
    return "*" in tags or etag in tags
