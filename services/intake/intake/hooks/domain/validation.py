"""The documents of submissions and activities, checked for their form. A part that does not fit is left out and named, so that a wrong word
somewhere does not lose a person; what is left must still be a submission or an activity. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Generic, TypeVar

from msgspec import Struct
from pydantic import JsonValue, TypeAdapter, ValidationError

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
    """`canonical` is None where nothing usable is left; `errors` then says why. `left_out`: pointers to what did not fit."""

    value: Model | None
    left_out: tuple[str, ...] = ()
    errors: str = ""


def validate_document(
    adapter: TypeAdapter[Model], document: Mapping[str, JsonValue], now: datetime
) -> Validated[Model]:
    """The document as a submission or activity. A time ahead of ours is left out: then it is when it came. So is a text of which a part
    could not be read."""
    places = {_enclosing_part(document, place) for place in _unreadable_places(document)}
    smaller = deepcopy(dict(document)) if places else dict(document)
    for place in places:
        _remove(smaller, place)
    try:
        return _drop_future_time(adapter.validate_python(smaller), _pointers(places), now)
    except ValidationError as error:
        smaller = deepcopy(smaller)
        for place in {_enclosing_part(smaller, found["loc"]) for found in _list_errors(error)}:
            places.add(place)
            _remove(smaller, place)
        left_out = _pointers(places)
    try:
        return _drop_future_time(adapter.validate_python(smaller), left_out, now)
    except ValidationError as error:
        return Validated(None, left_out, describe_errors(error))


def _pointers(places: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple("/" + "/".join(place) for place in sorted(places))


def _unreadable_places(node: JsonValue | Mapping[str, JsonValue], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where a text holds REPLACEMENT; a list is one place."""
    if isinstance(node, Mapping):
        return [place for name, inner in node.items() for place in _unreadable_places(inner, (*at, name))]
    texts = node if isinstance(node, list) else [node]
    return [at] if any(isinstance(text, str) and REPLACEMENT in text for text in texts) else []


def _drop_future_time(value: Model, left_out: tuple[str, ...], now: datetime) -> Validated[Model]:
    if is_in_future(value.occurred_at, now):
        return Validated(value.model_copy(update={"occurred_at": None}), (*left_out, "/occurred_at"))
    return Validated(value, left_out)


def describe_errors(error: ValidationError) -> str:
    """What is wrong, by place and without any value; bounded."""
    words = []
    for found in error.errors(include_url=False, include_context=False)[:_MESSAGES_MAX]:
        place, message = "/".join(str(part) for part in found["loc"][:3]), found["msg"].removeprefix("Value error, ")
        said = found["input"]
        if isinstance(said, str) and len(said) >= _QUOTED_CHARS_MIN and said in message:
            message = "is not valid"
        words.append(f"{place}: {message}" if place else message)
    return "; ".join(dict.fromkeys(words))[:_ERRORS_CHARS_MAX]


def _list_errors(error: ValidationError) -> Sequence[Mapping[str, tuple[str | int, ...]]]:
    found: Sequence[Mapping[str, tuple[str | int, ...]]] = error.errors(  # type: ignore[assignment]
        include_url=False, include_context=False, include_input=False
    )
    return found


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
