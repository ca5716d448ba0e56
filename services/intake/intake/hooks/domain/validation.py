"""The documents of submissions and activities, checked for their form. A part that does not fit is left out and named, so that a wrong word
somewhere does not lose a person; what is left must still be a submission or an activity. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Generic, TypeVar

from msgspec import Struct
from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from accord.terms.findings import Finding, pointer
from intake.hooks.domain.text import REPLACEMENT
from intake.leads.domain.submission import ActivityIn, Submission, is_in_future

SUBMISSIONS: TypeAdapter[Submission] = TypeAdapter(Submission)
ACTIVITIES: TypeAdapter[ActivityIn] = TypeAdapter(ActivityIn)

Model = TypeVar("Model", Submission, ActivityIn)
_MESSAGES_MAX = 10
_ERRORS_CHARS_MAX = 500
_WHOLE = frozenset({"consent", "cost"})
"""Parts that mean nothing by halves."""
_DEPTH_MAX = 3
_QUOTED_CHARS_MIN = 4
"""From how many characters on a value is looked for in a message; shorter ones stand in many words."""


class Validated(Struct, Generic[Model], frozen=True, gc=False):
    """`value` is None where nothing usable is left; `errors` then says why. `left_out`: what did not fit, and why."""

    value: Model | None
    left_out: tuple[Finding, ...] = ()
    errors: str = ""


def validate_document(
    adapter: TypeAdapter[Model], document: Mapping[str, JsonValue], now: datetime
) -> Validated[Model]:
    """The document as a submission or activity. A time ahead of ours is left out: then it is when it came. So is a text of which a part
    could not be read."""
    places = {_enclosing_part(document, place): UNREADABLE for place in _unreadable_places(document)}
    smaller = deepcopy(dict(document)) if places else dict(document)
    for place in places:
        _remove(smaller, place)
    try:
        return _drop_future_time(adapter.validate_python(smaller), _findings(places), now)
    except ValidationError as error:
        smaller = deepcopy(smaller)
        wrong = {
            _enclosing_part(smaller, found["loc"]): _describe_error(found)
            for found in reversed(error.errors(include_url=False, include_context=False))
        }
        for place in wrong:
            _remove(smaller, place)
        places |= wrong
        left_out = _findings(places)
    try:
        return _drop_future_time(adapter.validate_python(smaller), left_out, now)
    except ValidationError as error:
        return Validated(None, left_out, describe_errors(error))


_NO_ATTRIBUTE = "is too long, or no text, number, truth value or list of texts"
UNREADABLE = "Has letters that cannot be read"


def _findings(places: Mapping[tuple[str, ...], str]) -> tuple[Finding, ...]:
    return tuple(Finding(pointer(*place), places[place]) for place in sorted(places))


def _unreadable_places(node: JsonValue | Mapping[str, JsonValue], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where a text holds REPLACEMENT; a list is one place."""
    if isinstance(node, Mapping):
        return [place for name, inner in node.items() for place in _unreadable_places(inner, (*at, name))]
    texts = node if isinstance(node, list) else [node]
    return [at] if any(isinstance(text, str) and REPLACEMENT in text for text in texts) else []


def _drop_future_time(value: Model, left_out: tuple[Finding, ...], now: datetime) -> Validated[Model]:
    if is_in_future(value.occurred_at, now):
        return Validated(
            value.model_copy(update={"occurred_at": None}),
            (*left_out, Finding("/occurred_at", "Must not be in the future")),
        )
    return Validated(value, left_out)


def describe_errors(error: ValidationError) -> str:
    """What is wrong, by place and without any value; bounded."""
    words = []
    for found in error.errors(include_url=False, include_context=False)[:_MESSAGES_MAX]:
        place, message = "/".join(str(part) for part in found["loc"][:3]), _message(found)
        words.append(f"{place}: {message}" if place else message)
    return "; ".join(dict.fromkeys(words))[:_ERRORS_CHARS_MAX]


def _message(found: ErrorDetails) -> str:
    message, said = found["msg"].removeprefix("Value error, "), found["input"]
    quoted = isinstance(said, str) and len(said) >= _QUOTED_CHARS_MIN and said in message
    return "is not valid" if quoted else message


def _describe_error(found: ErrorDetails) -> str:
    # A value that may be of several types has an error for each of them.
    message = _NO_ATTRIBUTE if found["loc"][:1] == ("attributes",) and len(found["loc"]) > 1 else _message(found)
    return message[:1].upper() + message[1:]


def _enclosing_part(document: Mapping[str, JsonValue], place: tuple[str | int, ...]) -> tuple[str, ...]:
    """The part of the document that an error's place lies in: the innermost that is an entry of an object and means something alone."""
    node, path = document, []
    for part, deeper in zip(place[:_DEPTH_MAX], (*place[1:], None), strict=False):
        path.append(str(part))
        inner = node.get(str(part))
        if not isinstance(inner, dict) or part in _WHOLE or str(deeper) not in inner:
            break
        node = inner
    return tuple(path)


def _remove(document: dict[str, JsonValue], place: tuple[str, ...]) -> None:
    node = document
    for name in place[:-1]:
        inner = node.get(name)
        if not isinstance(inner, dict):
            return
        node = inner
    if place:
        node.pop(place[-1], None)
