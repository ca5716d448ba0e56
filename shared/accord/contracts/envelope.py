"""CloudEvents 1.0 in Kafka binary mode: attributes in `ce_*` headers, data as JSON in the value.

It reads no field of the data. Source: CloudEvents Kafka protocol binding 1.0.2, section 3.2 (binary content mode).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from uuid import UUID

from msgspec import Struct
from pydantic import ValidationError

from accord.contracts import topics as _registers_every_event  # noqa: F401
from accord.contracts.base import EVENT_TYPES, EventData
from accord.contracts.codec import decode_value, encode_value, to_object
from accord.contracts.models import model_of

Headers = Sequence[tuple[str, bytes | None]]

PROBLEMS_MAX = 10
"""How many problems of one event a message names."""

TYPE_CHARS_MAX = 200

_JSON = b"application/json"


class MalformedEvent(ValueError):
    """A record that is no event of ours: a header is missing, or the data does not fit its type."""


class UnknownEventType(ValueError):
    """A well-formed event of a type that this version does not know; a consumer keeps it for one that does."""


class Event(Struct, frozen=True, gc=False):
    """One event with its envelope.

    `id` is a UUIDv7 and the inbox's key; `source` is the producing service, as `/intake`.
    """

    id: UUID
    source: str
    data: EventData
    traceparent: str | None = None

    @property
    def type(self) -> str:
        return self.data.type


def headers_of(
    *,
    id: UUID,  # noqa: A002 - the attribute's name in CloudEvents
    type: str,  # noqa: A002 - the attribute's name in CloudEvents
    source: str,
    subject: str,
    time: datetime,
    traceparent: str | None,
) -> list[tuple[str, bytes]]:
    """The headers of one event. `time` is when it occurred."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(id).encode()),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", time.isoformat().encode()),
        ("content-type", _JSON),
    ]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return headers


def encode(event: Event) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers of the Kafka record."""
    data = event.data
    headers = headers_of(
        id=event.id,
        type=data.type,
        source=event.source,
        subject=data.key,
        time=data.occurred_at,
        traceparent=event.traceparent,
    )
    return data.key.encode(), encode_value(data), headers


def decode(value: bytes | None, headers: Headers) -> Event:
    """The event in a Kafka record. Fields that this version does not know are ignored.

    Raises MalformedEvent or UnknownEventType; neither message quotes the data.
    """
    found = dict(headers)
    if _header(found, "ce_specversion") != "1.0":
        raise MalformedEvent("header ce_specversion is not 1.0")
    if "content-type" in found and not _header(found, "content-type").startswith("application/json"):
        raise MalformedEvent("header content-type is not application/json")
    type_, source = _header(found, "ce_type"), _header(found, "ce_source")
    try:
        id_ = UUID(_header(found, "ce_id"))
    except ValueError:
        raise MalformedEvent("header ce_id is no UUID") from None
    if type_ not in EVENT_TYPES:
        raise UnknownEventType(type_[:100])
    traceparent = found.get("traceparent")
    data = decode_data(type_, value or b"")
    return Event(id_, source, data, traceparent.decode("ascii", "replace") if traceparent else None)


def event_id_of(headers: Headers) -> UUID | None:
    """The event's id, of a record that may be none of ours."""
    for name, value in headers:
        if name == "ce_id" and value is not None:
            try:
                return UUID(value.decode("ascii"))
            except ValueError:
                return None
    return None


def type_of(headers: Headers) -> str | None:
    """The event's type, of a record that may be none of ours; cut to TYPE_CHARS_MAX."""
    value = dict(headers).get("ce_type")
    return None if value is None else value.decode("utf-8", "replace").replace("\x00", "")[:TYPE_CHARS_MAX]


def _header(found: dict[str, bytes | None], name: str) -> str:
    value = found.get(name)
    if value is None:  # Kafka allows null
        raise MalformedEvent(f"header {name} is missing")
    try:
        return value.decode()
    except ValueError:
        raise MalformedEvent(f"header {name} is not readable") from None


def decode_data(type_: str, value: bytes) -> EventData:
    """The data of one event of a known type. Raises MalformedEvent with the pointers of the fields that do not fit."""
    try:
        return decode_value(EVENT_TYPES[type_], value)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)[:PROBLEMS_MAX]
        places = "; ".join(f"{_pointer(type_, problem['loc'])}: {problem['type']}" for problem in problems)
        raise MalformedEvent(f"{type_}: {places}") from None


def _pointer(type_: str, place: tuple[int | str, ...]) -> str:
    """A JSON Pointer in which a name that the type does not declare, such as an attribute's, is shown as *."""
    names = _names_in(type_)
    return "".join(f"/{part if isinstance(part, int) or part in names else '*'}" for part in place) or "(root)"


@cache
def _names_in(type_: str) -> frozenset[str]:
    schema = model_of(EVENT_TYPES[type_]).model_json_schema()
    models = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for model in models for name in model.get("properties", {}))


def canonical(data: EventData) -> str:
    """The data as JSON text with sorted keys; for comparisons in tests and examples."""
    return json.dumps(to_object(data), sort_keys=True)
