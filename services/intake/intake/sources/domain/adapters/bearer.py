"""Proofs for senders that sign nothing: a token in a header or a secret in the URL. Compared in constant time, written nowhere."""

from __future__ import annotations

from intake.sources.domain.adapters.base import HookRequest, Proof, Secrets
from intake.sources.domain.signatures import same_secret

SECRET_PARAMETER = "secret"  # noqa: S105 - the name of a query parameter


BEARER = "A token that the sender gives as `Authorization: Bearer`; a key of Accord does as well."
"""What the use `bearer` of a secret is for."""


def prove_bearer(request: HookRequest, secrets: Secrets) -> Proof:
    """A key of Accord that may write leads, or the source's own token (use `bearer`)."""
    if request.key_holder:
        return Proof()
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return Proof(same_secret(token.strip() if scheme.lower() == "bearer" else None, secrets.get("bearer", ())))


def prove_header(request: HookRequest, secrets: Secrets, header: str) -> Proof:
    """The source's secret (use `header`) in a header of this name."""
    return Proof(same_secret(request.headers.get(header.lower()), secrets.get("header", ())))


def prove_url(request: HookRequest, secrets: Secrets) -> Proof:
    """The source's secret (use `url`) behind its name in the path, or as the query parameter `secret`."""
    return Proof(same_secret(request.path_secret or request.query.get(SECRET_PARAMETER), secrets.get("url", ())))


def first_that_holds(*proofs: Proof) -> Proof:
    """One of several ways is enough. If none holds, the refusal that says most: a wrong secret before a missing one."""
    for proof in proofs:
        if proof.holds:
            return proof
    order = ("wrong", "stale", "ahead", "missing", "no-secret")
    return min(proofs, key=lambda proof: order.index(proof.refusal or "no-secret"))
