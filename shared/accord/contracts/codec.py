"""Values as JSON. What could not be read back is not written; what msgspec does not read is read, or refused, by pydantic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, get_args, get_type_hints
from uuid import UUID

import msgspec
from pydantic import TypeAdapter, ValidationError

from accord.contracts.values import MOMENT_MAX, MOMENT_MIN, DecimalText, Value

V = TypeVar("V", bound=Value)


class InvalidValue(ValueError):
    """A value that does not fit its type. The message quotes nothing of it."""


def encode_value(value: Value) -> bytes:
    """The JSON of a value. Raises InvalidValue where nobody could read it."""
    text = _encode(value)
    try:
        decode_value(type(value), text)
    except ValidationError as error:
        problems = "; ".join(f"{'/'.join(map(str, p['loc']))}: {p['type']}" for p in error.errors(include_input=False))
        raise InvalidValue(f"{type(value).__name__}: {problems}") from None
    return text


def decode_value(type_: type[V], text: bytes | str) -> V:
    """The value in a JSON text. Unknown fields are ignored.

    Raises ValidationError, which names every field that does not fit. msgspec reads what `encode_value` writes; anything
    else, such as a moment with another offset, is left to pydantic.
    """
    try:
        value: V = _decoder(type_).decode(text)
        if _is_in_range(value):
            return value
    except (msgspec.MsgspecError, RecursionError):
        pass
    adapter: TypeAdapter[V] = _adapter(type_)
    return adapter.validate_json(text, extra="ignore")


def from_object(type_: type[V], found: object) -> V:
    """The value of JSON's objects, lists and scalars, as `decode_value` reads it from their text."""
    try:
        value = msgspec.convert(found, type_, dec_hook=_decode_other)
        if _is_in_range(value):
            return value
    except msgspec.MsgspecError:
        pass
    adapter: TypeAdapter[V] = _adapter(type_)
    return adapter.validate_python(found, extra="ignore")


def to_object(value: Value) -> dict[str, Any]:
    """The value as its JSON's objects, lists and scalars."""
    made: dict[str, Any] = msgspec.json.decode(_encode(value))
    return made


def _encode(value: Value) -> bytes:
    try:
        return _ENCODER.encode(value)
    except OverflowError:  # an integer beyond 64 bits in an agreement
        return _adapter(type(value)).dump_json(value)


def _encode_other(value: object) -> str:
    if isinstance(value, DecimalText):
        return format(value, "f")
    if isinstance(value, UUID):  # of the driver's class
        return str(value)
    raise TypeError(f"{type(value).__name__} is no part of a value")


def _decode_other(type_: type, value: object) -> object:
    if type_ is DecimalText and isinstance(value, str):
        return DecimalText(value)
    raise ValueError("must be a decimal as text")


_ENCODER = msgspec.json.Encoder(enc_hook=_encode_other)


@cache
def _decoder(type_: type[V]) -> msgspec.json.Decoder[V]:
    return msgspec.json.Decoder(type_, dec_hook=_decode_other)


@cache
def _adapter(type_: type[V]) -> TypeAdapter[V]:
    return TypeAdapter(type_)


def _is_in_range(value: Value) -> bool:
    for read_at, low, high in _bounded_fields(type(value)):
        at = read_at(value)
        if at is not None and not (low <= at <= high and getattr(at, "tzinfo", UTC) is UTC):
            return False
    return True


@cache
def _bounded_fields(type_: type[Value]) -> tuple[tuple[Callable[[Any], Any], Any, Any], ...]:
    """A reader of each moment and date of a value, its own and those of the values in it, with the bounds."""
    return tuple(
        (attrgetter(path), MOMENT_MIN, MOMENT_MAX)
        if kind is datetime
        else (attrgetter(path), MOMENT_MIN.date(), MOMENT_MAX.date())
        for path, kind in _paths(type_)
    )


def _paths(type_: type[Value]) -> Iterator[tuple[str, type]]:
    for name, hint in get_type_hints(type_).items():
        if name not in type_.__struct_fields__:
            continue
        if isinstance(hint, type) and issubclass(hint, Value):
            yield from ((f"{name}.{path}", kind) for path, kind in _paths(hint))
            continue
        for kind in {hint, *get_args(hint)} & {datetime, date}:
            yield name, kind
