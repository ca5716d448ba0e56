"""The contracts for readers in any language: a JSON Schema per event type and an AsyncAPI document. Writes no file.

The schemas describe what travels and what a consumer may rely on: a field with a default is not required, since events
of an older version lack it, and unknown fields are allowed, since a newer version may add them. (Producers forbid them:
see Value.)
"""

from __future__ import annotations

import re
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from accord.contracts.base import EVENT_TYPES, EventData
from accord.contracts.codec import to_object
from accord.contracts.envelope import Event, encode
from accord.contracts.examples import EXAMPLES, TRACEPARENT, example_id, source_of
from accord.contracts.models import model_of
from accord.contracts.topics import CONSUMED_TOPICS, EVENTS_ON, PARTITIONS_DEFAULT, TOPIC_OF

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
CONTRACTS_VERSION = "1.1.0"
"""Of the whole set, apart from the release (ADR 86). The middle number grows with additions; the first never does, since new types are
named `.v2`."""

_TITLES = {
    "intake": "What intake says: leads as they enter, change, merge and vanish, and activities",
    "qualification": "What qualification says: scores, stages, decisions, owners and deals",
    "sla-monitor": "What the SLA monitor says: clocks and breaches",
    "metrics": "What metrics says: goals reached and rewards",
}


class _Untitled(GenerateJsonSchema):
    """Fields need no title that only repeats their name."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def json_schema(type_: str) -> Schema:
    """The JSON Schema (2020-12) of one type's data."""
    schema = model_of(EVENT_TYPES[type_]).model_json_schema(mode="serialization", schema_generator=_Untitled)
    for model in (schema, *schema.get("$defs", {}).values()):
        model.pop("additionalProperties", None)
    description = _one_line(schema.pop("description", ""))
    return {"$schema": DIALECT, "$id": f"urn:accord:{type_}", "title": type_, "description": description} | {
        key: value for key, value in schema.items() if key != "title"
    }


def example_event(type_: str) -> Event:
    """The example of a type in its envelope."""
    number = 100 + sorted(EXAMPLES).index(type_)
    return Event(example_id(number), source_of(type_), EXAMPLES[type_], TRACEPARENT)


def asyncapi() -> Schema:
    """The AsyncAPI 3.0 document of all four services. Payload schemas are the files beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Accord's events",
            "version": CONTRACTS_VERSION,
            "description": (
                "What the four services say to each other over Apache Kafka, and what other systems may read along. "
                "CloudEvents 1.0 in Kafka binary mode; the key keeps all events of one lead in order. "
                "No event holds personal data. A type only grows; ignore fields and types that you do not know."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {topic: _channel(service, topic) for service, topic in TOPIC_OF.items()},
        "operations": _operations(),
        "components": {
            "messages": {type_: _message(type_) for type_ in sorted(EVENT_TYPES)},
            "messageTraits": {"CloudEvent": {"headers": _HEADERS, "contentType": "application/json"}},
        },
    }


_HEADERS: Schema = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "content-type"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "format": "uuid", "description": "UUIDv7; the same again on a redelivery."},
        "ce_type": {"type": "string", "enum": sorted(EVENT_TYPES)},
        "ce_source": {"type": "string", "enum": [f"/{service}" for service in TOPIC_OF]},
        "ce_subject": {"type": "string", "description": "The key, for most types the lead id."},
        "ce_time": {"type": "string", "format": "date-time", "description": "When it occurred."},
        "content-type": {"const": "application/json"},
        "traceparent": {"type": "string", "description": "W3C Trace Context, from the request that caused it."},
    },
}


def _channel(service: str, topic: str) -> Schema:
    return {
        "address": topic,
        "title": topic,
        "description": f"{_TITLES[service]}. Written by {service} alone.",
        "messages": {event.type: {"$ref": f"#/components/messages/{event.type}"} for event in EVENTS_ON[topic]},
        "bindings": {"kafka": {"topic": topic, "partitions": PARTITIONS_DEFAULT, "bindingVersion": "0.5.0"}},
    }


def _operations() -> Schema:
    sends = {f"{service}-sends": _operation("send", service, topic) for service, topic in TOPIC_OF.items()}
    receives = {
        f"{service}-receives-{topic}": _operation("receive", service, topic)
        for service, topics in CONSUMED_TOPICS.items()
        for topic in topics
    }
    return sends | receives


def _operation(action: str, service: str, topic: str) -> Schema:
    does = "writes" if action == "send" else "reads, in its own consumer group,"
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic}"},
        "title": f"{service} {does} {topic}",
        "tags": [{"name": service}],
        "messages": [{"$ref": f"#/channels/{topic}/messages/{_escaped(event.type)}"} for event in EVENTS_ON[topic]],
    }


def _message(type_: str) -> Schema:
    event = example_event(type_)
    _, _, headers = encode(event)
    return {
        "name": type_,
        "title": _in_words(EVENT_TYPES[type_]),
        "summary": _one_line(EVENT_TYPES[type_].__doc__ or ""),
        "traits": [{"$ref": "#/components/messageTraits/CloudEvent"}],
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"./{type_}.schema.json"},
        },
        "examples": [
            {
                "name": type_,
                "headers": {name: value.decode() for name, value in headers},
                "payload": to_object(event.data),
            }
        ],
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _in_words(event: type[EventData]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", event.__name__).capitalize()


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
