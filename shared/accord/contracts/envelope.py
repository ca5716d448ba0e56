"""CloudEvents 1.0 in Kafka binary mode: attributes in `ce_*` headers, data as JSON in the value. Reads no field of the data.

Source: CloudEvents Kafka protocol binding 1.0.2, section 3.2 (binary content mode).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from accord.contracts import topics as _registers_every_event  # noqa: F401
from accord.contracts.base import EVENT_TYPES, EventData

Headers = Sequence[tuple[str, bytes]]


class MalformedEvent(ValueError):
    """A record that is no event of ours: a header is missing, or the data does not fit its type."""


class UnknownEventType(ValueError):
    """A well-formed event of a type that this version does not know; a consumer passes over it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event with its envelope. `id` is a UUIDv7 and the inbox's key; `source` is the producing service, as `/intake`."""

    id: UUID
    source: str
    data: EventData
    traceparent: str | None = None

    @property
    def type(self) -> str:
        return self.data.type


def headers_of(
    *, id: UUID, type: str, source: str, subject: str, time: datetime, traceparent: str | None
) -> list[tuple[str, bytes]]:
    """The headers of one event. `time` is when it occurred."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(id).encode()),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", time.isoformat().encode()),
        ("content-type", b"application/json"),
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
    return data.key.encode(), data.model_dump_json().encode(), headers


def decode(value: bytes | None, headers: Headers) -> Event:
    """The event in a Kafka record. Fields that this version does not know are ignored.

    Raises MalformedEvent or UnknownEventType; neither message quotes the data.
    """
    found = dict(headers)
    try:
        type_ = found["ce_type"].decode()
        id_ = UUID(found["ce_id"].decode())
        source = found["ce_source"].decode()
    except KeyError as missing:
        raise MalformedEvent(f"header {missing} is missing") from None
    except ValueError:
        raise MalformedEvent("a ce_ header is not readable") from None
    if type_ not in EVENT_TYPES:
        raise UnknownEventType(type_)
    traceparent = found.get("traceparent")
    return Event(id_, source, decode_data(type_, value or b""), traceparent.decode("ascii", "replace") if traceparent else None)


def decode_data(type_: str, value: bytes) -> EventData:
    """The data of one event of a known type. Raises MalformedEvent with the pointers of the fields that do not fit."""
    try:
        return _adapter(type_).validate_json(value, extra="ignore")
    except ValidationError as error:
        places = "; ".join(
            "/".join(str(part) for part in problem["loc"]) + ": " + problem["type"]
            for problem in error.errors(include_input=False, include_url=False, include_context=False)[:10]
        )
        raise MalformedEvent(f"{type_}: {places}") from None


@cache
def _adapter(type_: str) -> TypeAdapter[EventData]:
    return TypeAdapter(EVENT_TYPES[type_])


def canonical(data: EventData) -> str:
    """The data as JSON text with sorted keys; for comparisons in tests and examples."""
    return json.dumps(data.model_dump(mode="json"), sort_keys=True)
