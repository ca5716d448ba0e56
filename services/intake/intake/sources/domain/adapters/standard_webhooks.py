"""Standard Webhooks (standardwebhooks.com, specification 1.0): any sender that signs by it. The message's id is the event's."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from pydantic import JsonValue

from intake.sources.domain.adapters import typed
from intake.sources.domain.adapters.base import (
    Adapter,
    HookRequest,
    Proof,
    Said,
    Secrets,
    Unreadable,
    event_id,
    obj,
    text_of,
)
from intake.sources.domain.adapters.typed import TypedSettings
from intake.sources.domain.signatures import hmac_sha256, in_window, signed, unbase64, whole_seconds

_PREFIX = "whsec_"
_KEY_BYTES_MIN, _KEY_BYTES_MAX = 16, 128
_SIGNATURES_MAX = 10
"""Signatures of one message; a sender that changes its key sends one for each."""


def prove(request: HookRequest, secrets: Secrets, _settings: TypedSettings, now: datetime) -> Proof:
    """`webhook-signature` holds `v1,` + base64(HMAC-SHA256(key, `id.timestamp.body`)), several apart by blanks."""
    message_id = request.headers.get("webhook-id", "")
    timestamp = request.headers.get("webhook-timestamp", "")
    offered = [
        unbase64(one[3:])
        for one in request.headers.get("webhook-signature", "").split(" ")[:_SIGNATURES_MAX]
        if one.startswith("v1,")
    ]
    keys = [key for secret in secrets.get("signing", ()) if (key := key_of(secret)) is not None]
    seconds = whole_seconds(timestamp)
    if keys and (not message_id or seconds is None):
        return Proof("missing")
    refusal = signed(offered, keys, hmac_sha256(f"{message_id}.{timestamp}.".encode(), request.body))
    return Proof(refusal or in_window(seconds, now))


def read(request: HookRequest, document: JsonValue, settings: TypedSettings) -> list[Said]:
    """One event: `{"type", "timestamp", "data"}`."""
    body = obj(document)
    id_ = event_id(request.headers["webhook-id"])
    type_ = text_of(body.get("type"))
    if type_ is None:
        return [Unreadable(id_, "it has no type", document)]
    return [typed.said_of(id_, type_, body, document, body.get("timestamp"), settings)]


def key_of(secret: bytes) -> bytes | None:
    """The key in a secret: base64, padded or not, with or without `whsec_` before it."""
    text = secret.removeprefix(_PREFIX.encode()).rstrip(b"=")
    try:
        key = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if _KEY_BYTES_MIN <= len(key) <= _KEY_BYTES_MAX else None


def _secret_flaw(_use: str, secret: str) -> str | None:
    if key_of(secret.encode()) is None:
        return f"Must be {_KEY_BYTES_MIN} to {_KEY_BYTES_MAX} bytes in base64, with or without {_PREFIX} before it"
    return None


ADAPTER = Adapter(
    name="standard-webhooks",
    title="Standard Webhooks",
    uses={"signing": "The secret that the sender signs with (`whsec_…`)."},
    settings=TypedSettings,
    prove=prove,
    read=read,
    fields={**typed.FIELDS, "occurred_at": "/timestamp"},
    spread=typed.SPREAD,
    secret_flaw=_secret_flaw,
)
