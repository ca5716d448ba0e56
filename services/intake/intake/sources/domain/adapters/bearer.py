"""Verification for senders that sign nothing: a token in a header or a secret in the URL. Compared in constant time, written nowhere."""

from __future__ import annotations

from intake.sources.domain.adapters.base import HookRequest, Secrets, Verification
from intake.sources.domain.signatures import check_secret, decode_base64

SECRET_PARAMETER = "secret"  # noqa: S105 - the name of a query parameter


BEARER = "A token that the sender gives as `Authorization: Bearer`; a key of Accord does as well."
"""What the kind `bearer` of a secret is for."""


def verify_bearer(request: HookRequest, secrets: Secrets) -> Verification:
    """A key of Accord that may write leads, or the source's own token (kind `bearer`)."""
    if request.has_api_key:
        return Verification()
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return Verification(check_secret(token.strip() if scheme.lower() == "bearer" else None, secrets.get("bearer", ())))


def verify_header(request: HookRequest, secrets: Secrets, header: str) -> Verification:
    """The source's secret (kind `header`) in a header of this name."""
    return Verification(check_secret(request.headers.get(header.lower()), secrets.get("header", ())))


def verify_url(request: HookRequest, secrets: Secrets) -> Verification:
    """The source's secret (kind `url`) behind its name in the path, or as the query parameter `secret`."""
    return Verification(
        check_secret(request.path_secret or request.query.get(SECRET_PARAMETER), secrets.get("url", ()))
    )


def verify_basic(request: HookRequest, secrets: Secrets) -> Verification:
    """The source's secret (kind `write_key`) as the user name of `Authorization: Basic`; the password says nothing (RFC 7617)."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    clear = decode_base64(credentials) if scheme.lower() == "basic" else None
    user = None if clear is None else clear.partition(b":")[0].decode("utf-8", "replace")
    return Verification(check_secret(user, secrets.get("write_key", ())))


def first_verified(*verifications: Verification) -> Verification:
    """One of several ways is enough. If none holds, the refusal that says most: a wrong secret before a missing one."""
    for verification in verifications:
        if verification.is_verified:
            return verification
    order = ("wrong", "stale", "ahead", "missing", "no-secret")
    return min(verifications, key=lambda verification: order.index(verification.refusal or "no-secret"))
