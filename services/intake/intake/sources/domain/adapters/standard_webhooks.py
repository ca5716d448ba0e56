"""Standard Webhooks (standardwebhooks.com, specification 1.0): any sender that signs by it, also under the names that Svix gave the headers
before (`svix-id`). The message's id is the event's.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from pydantic import JsonValue

from intake.sources.domain.adapters import typed
from intake.sources.domain.adapters.base import (
    Adapter,
    HookRequest,
    Secrets,
    ToolEvent,
    Unreadable,
    Verification,
    as_object,
    event_id,
    to_text,
)
from intake.sources.domain.adapters.typed import TypedSettings
from intake.sources.domain.signatures import (
    check_signature,
    check_time_window,
    decode_base64,
    hmac_sha256,
    parse_integer,
)

_PREFIX = "whsec_"
_KEY_BYTES_MIN, _KEY_BYTES_MAX = 16, 128
_SIGNATURES_MAX = 10
"""Signatures of one message; a sender that changes its key sends one for each."""


def verify(request: HookRequest, secrets: Secrets, _settings: TypedSettings, now: datetime) -> Verification:
    """`webhook-signature` holds `v1,` + base64(HMAC-SHA256(key, `id.timestamp.body`)), several apart by blanks."""
    family = _header_family(request)
    message_id = request.headers.get(f"{family}-id", "")
    timestamp = request.headers.get(f"{family}-timestamp", "")
    digests = [
        decode_base64(one[3:])
        for one in request.headers.get(f"{family}-signature", "").split(" ")[:_SIGNATURES_MAX]
        if one.startswith("v1,")
    ]
    keys = [key for secret in secrets.get("signing", ()) if (key := decode_key(secret)) is not None]
    seconds = parse_integer(timestamp)
    if keys and (not message_id or seconds is None):
        return Verification("missing")
    refusal = check_signature(digests, keys, hmac_sha256(f"{message_id}.{timestamp}.".encode(), request.body))
    return Verification(refusal or check_time_window(seconds, now))


def read(request: HookRequest, document: JsonValue, settings: TypedSettings) -> list[ToolEvent]:
    """One event: `{"type", "timestamp", "data"}`."""
    body = as_object(document)
    id_ = event_id(request.headers[f"{_header_family(request)}-id"])
    type_ = to_text(body.get("type"))
    if type_ is None:
        return [Unreadable(id_, "it has no type", document)]
    return [typed.parse_event(id_, type_, body, document, body.get("timestamp"), settings)]


def _header_family(request: HookRequest) -> str:
    """What the names of the headers begin with."""
    return "svix" if "webhook-id" not in request.headers and "svix-id" in request.headers else "webhook"


def decode_key(secret: bytes) -> bytes | None:
    """The key in a secret: base64, padded or not, with or without `whsec_` before it."""
    text = secret.removeprefix(_PREFIX.encode()).rstrip(b"=")
    try:
        key = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if _KEY_BYTES_MIN <= len(key) <= _KEY_BYTES_MAX else None


def _validate_secret(_use: str, secret: str) -> str | None:
    if decode_key(secret.encode()) is None:
        return f"Must be {_KEY_BYTES_MIN} to {_KEY_BYTES_MAX} bytes in base64, with or without {_PREFIX} before it"
    return None


ADAPTER = Adapter(
    name="standard-webhooks",
    title="Standard Webhooks",
    secret_kinds={"signing": "The secret that the sender signs with (`whsec_…`)."},
    settings=TypedSettings,
    verify=verify,
    read=read,
    fields={**typed.FIELDS, "occurred_at": "/timestamp"},
    attribute_sources=typed.ATTRIBUTE_SOURCES,
    validate_secret=_validate_secret,
)
