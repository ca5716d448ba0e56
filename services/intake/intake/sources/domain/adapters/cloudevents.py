"""CloudEvents 1.0 over HTTP (HTTP protocol binding 1.0.2): binary, structured and batched. The protocol signs nothing, so a bearer token
verifies the sender. Source and id together are the event's id, as the specification has it. The handshake is that of its HTTP 1.1 Web Hooks
(1.0.2): a sender asks by OPTIONS whether it may send, without any proof.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import unquote

from pydantic import JsonValue

from intake.sources.domain.adapters import typed
from intake.sources.domain.adapters.base import (
    Adapter,
    HandshakeResponse,
    HookRequest,
    Secrets,
    ToolEvent,
    Unreadable,
    Verification,
    as_object,
    digest_id,
    event_id,
    reject_constant,
    to_text,
)
from intake.sources.domain.adapters.bearer import BEARER, first_verified, verify_bearer
from intake.sources.domain.adapters.typed import TypedSettings
from intake.sources.domain.signatures import Refusal, check_secret

_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_ATTRIBUTE = "ce-"
_ORIGIN = re.compile(r"[A-Za-z0-9*_.:-]{1,253}")


def verify(request: HookRequest, secrets: Secrets, _settings: TypedSettings, _now: datetime) -> Verification:
    """`Authorization: Bearer` with a key of Accord that may write leads, or with the source's own token; or the token as `access_token`."""
    in_query = Verification(check_secret(request.query.get("access_token"), secrets.get("bearer", ())))
    return first_verified(verify_bearer(request, secrets), in_query)


def handshake(request: HookRequest, _secrets: Secrets, _settings: TypedSettings) -> HandshakeResponse | Refusal:
    """The OPTIONS of the abuse protection: an origin that asks is allowed to send, at any rate."""
    headers = {"allow": "OPTIONS, POST"}
    origin = request.headers.get("webhook-request-origin", "")
    if _ORIGIN.fullmatch(origin):
        headers |= {"webhook-allowed-origin": origin, "webhook-allowed-rate": "*"}
    return HandshakeResponse(200, "", headers=headers)


def read(request: HookRequest, document: JsonValue, settings: TypedSettings) -> Iterator[ToolEvent]:
    """The events of a body, whichever of the three modes it is in."""
    if request.media_type in (_STRUCTURED, _BATCH):
        for one in document if isinstance(document, list) else [document]:
            yield _parse_event(one, one, settings)
    else:
        named = request.is_json or request.media_type.startswith("text/")
        event = {**_attributes(request.headers), "data" if named else "data_base64": document}
        yield _parse_event(event, event, settings)


def _attributes(headers: Mapping[str, str]) -> dict[str, JsonValue]:
    """The context attributes of binary mode; their values are percent-encoded UTF-8 (section 3.1.3.2)."""
    found: dict[str, JsonValue] = {
        name.removeprefix(_ATTRIBUTE): unquote(value, errors="replace")
        for name, value in headers.items()
        if name.startswith(_ATTRIBUTE)
    }
    if "content-type" in headers:
        found["datacontenttype"] = headers["content-type"]
    return found


def _parse_event(event: JsonValue, content: JsonValue, settings: TypedSettings) -> ToolEvent:
    view = as_object(event)
    id_, source, type_ = (to_text(view.get(name)) for name in ("id", "source", "type"))
    if id_ is None or source is None or type_ is None:
        return Unreadable(digest_id(content), "it lacks one of id, source, type", content)
    key = event_id(source, id_)
    if view.get("specversion") != "1.0":
        return Unreadable(key, "its specversion is not 1.0", content)
    if "data_base64" in view:
        view = {**view, "data": _decode_base64_json(view["data_base64"])}
    return typed.parse_event(key, type_, view, content, view.get("time"), settings)


def _decode_base64_json(said: JsonValue) -> JsonValue:
    """JSON in base64; None if it is something else."""
    try:
        found: JsonValue = json.loads(base64.b64decode(str(said), validate=True), parse_constant=reject_constant)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return found


ADAPTER = Adapter(
    name="cloudevents",
    title="CloudEvents",
    secret_kinds={"bearer": BEARER},
    settings=TypedSettings,
    verify=verify,
    read=read,
    fields={**typed.FIELDS, "occurred_at": "/time"},
    attribute_sources=typed.ATTRIBUTE_SOURCES,
    body="any",
    handshake=handshake,
    handshake_method="OPTIONS",
)
