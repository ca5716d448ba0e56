"""CloudEvents 1.0 over HTTP (HTTP protocol binding 1.0.2): binary, structured and batched. The protocol signs nothing, so a bearer token
proves the sender. Source and id together are the event's id, as the specification has it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import unquote

from pydantic import JsonValue

from intake.sources.domain.adapters import typed
from intake.sources.domain.adapters.base import (
    EVENTS_MAX,
    Adapter,
    HookRequest,
    Proof,
    Said,
    Secrets,
    Unreadable,
    digest_id,
    event_id,
    items,
    obj,
    text_of,
)
from intake.sources.domain.adapters.bearer import BEARER, prove_bearer
from intake.sources.domain.adapters.typed import TypedSettings

_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_ATTRIBUTE = "ce-"


def prove(request: HookRequest, secrets: Secrets, _settings: TypedSettings, _now: datetime) -> Proof:
    """`Authorization: Bearer` with a key of Accord that may write leads, or with the source's own token."""
    return prove_bearer(request, secrets)


def read(request: HookRequest, document: JsonValue, settings: TypedSettings) -> list[Said]:
    """The events of a body, whichever of the three modes it is in."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == _BATCH:
        return [_parse_event(one, one, settings) for one in items(document)[:EVENTS_MAX]]
    if media == _STRUCTURED:
        return [_parse_event(document, document, settings)]
    event = {**_attributes(request.headers), "data": document}
    return [_parse_event(event, event, settings)]


def _attributes(headers: Mapping[str, str]) -> dict[str, JsonValue]:
    """The context attributes of binary mode; their values are percent-encoded UTF-8 (section 3.1.3.2)."""
    return {
        name.removeprefix(_ATTRIBUTE): unquote(value, errors="replace")
        for name, value in headers.items()
        if name.startswith(_ATTRIBUTE)
    }


def _parse_event(event: JsonValue, content: JsonValue, settings: TypedSettings) -> Said:
    view = obj(event)
    id_, source, type_ = (text_of(view.get(name)) for name in ("id", "source", "type"))
    if id_ is None or source is None or type_ is None:
        return Unreadable(digest_id(content), "it lacks one of id, source, type", content)
    key = event_id(source, id_)
    if view.get("specversion") != "1.0":
        return Unreadable(key, "its specversion is not 1.0", content)
    if "data_base64" in view:
        view = {**view, "data": _decoded(view["data_base64"])}
    return typed.said_of(key, type_, view, content, view.get("time"), settings)


def _decoded(said: JsonValue) -> JsonValue:
    """JSON in base64; None if it is something else."""
    try:
        found: JsonValue = json.loads(base64.b64decode(str(said), validate=True), parse_constant=_no_number)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return found


def _no_number(name: str) -> JsonValue:
    raise ValueError(f"{name} is no JSON")


ADAPTER = Adapter(
    name="cloudevents",
    title="CloudEvents",
    uses={"bearer": BEARER},
    settings=TypedSettings,
    prove=prove,
    read=read,
    fields={**typed.FIELDS, "occurred_at": "/time"},
    spread=typed.SPREAD,
)
