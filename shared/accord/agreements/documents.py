"""Reads an agreement from JSON or YAML into plain values, and hashes it. It runs no tag, follows no alias and guesses no type.

YAML is read by the core schema of YAML 1.2: `on`, `no` and `2027-01-01` are text as written, keys are always text. So the
same document in JSON and in YAML has one canonical form (RFC 8785) and one SHA-256.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

import rfc8785
import yaml
from msgspec import Struct

BYTES_MAX = 1024 * 1024
CANONICAL_BYTES_MAX = 800_000
"""The event of an activation carries the content whole, and a Kafka record may have about a megabyte."""

DEPTH_MAX = 40
VALUES_MAX = 100_000

_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INT_MAX = 2**53 - 1
_SHORT_FROM = 1e21
_KEYWORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_NOT_A_NUMBER = frozenset(
    {".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "-.inf", "-.Inf", "-.INF", "+.inf", "+.Inf", "+.INF"}
)

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableDocument(Exception):
    """The document cannot be read. The message says why and, where known, in which line; it quotes nothing."""


class DocumentTooLarge(UnreadableDocument):
    """The document is over a limit of size."""


class Document(Struct, frozen=True):
    """An agreement's content with its canonical text and its hash."""

    content: dict[str, Json]
    canonical: str
    sha256: str


def read(body: bytes, *, yaml_text: bool) -> Document:
    """The document in this text. Raises UnreadableDocument."""
    if len(body) > BYTES_MAX:
        raise DocumentTooLarge(f"A document may have {BYTES_MAX} bytes")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise UnreadableDocument("The document is not UTF-8") from None
    value = _read_yaml(text) if yaml_text else _read_json(text)
    if not isinstance(value, dict):
        raise UnreadableDocument("The document is not a mapping of names to values")
    return document(value)


def document(content: Mapping[str, object]) -> Document:
    """The document of a content that is plain values already. Raises UnreadableDocument."""
    _check(content)
    try:
        canonical = rfc8785.dumps(content)  # type: ignore[arg-type]  # checked above
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError):
        raise UnreadableDocument("The document holds a value that has no canonical form") from None
    if len(canonical) > CANONICAL_BYTES_MAX:
        raise DocumentTooLarge(f"A document may have {CANONICAL_BYTES_MAX} bytes in its canonical form")
    return Document(json.loads(canonical), canonical.decode(), sha256(canonical).hexdigest())


def _read_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique_names, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UnreadableDocument(f"The document is not JSON (line {error.lineno})") from None
    except RecursionError:
        raise UnreadableDocument(f"The document is nested deeper than {DEPTH_MAX}") from None
    except ValueError:
        raise UnreadableDocument("A number has too many digits") from None


def _unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnreadableDocument("A name stands twice in one mapping")
    return found


def _refuse_constant(_: str) -> float:
    raise UnreadableDocument("A number is not finite")


def _check(value: object) -> None:
    """Only plain values, of bounded depth and number; each number exact in every reader (RFC 8785, I-JSON)."""
    todo: list[tuple[object, int]] = [(value, 1)]
    seen = 0
    while todo:
        item, depth = todo.pop()
        seen += 1
        if depth > DEPTH_MAX:
            raise UnreadableDocument(f"The document is nested deeper than {DEPTH_MAX}")
        if seen > VALUES_MAX:
            raise UnreadableDocument(f"The document has more than {VALUES_MAX} values")
        if isinstance(item, Mapping):
            for name in item:
                _check_text(name)
            todo.extend((inner, depth + 1) for inner in item.values())
        elif isinstance(item, list):
            todo.extend((inner, depth + 1) for inner in item)
        else:
            _check_scalar(item)


def _check_scalar(item: object) -> None:
    if isinstance(item, str):
        _check_text(item)
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise UnreadableDocument("A number is not finite")
        if _INT_MAX < abs(item) < _SHORT_FROM:  # canonical JSON writes it with all its digits, like a whole number
            raise UnreadableDocument("A whole number is beyond 2^53; write it as text")
    elif isinstance(item, int):
        if abs(item) > _INT_MAX:
            raise UnreadableDocument("A whole number is beyond 2^53; write it as text")
    elif item is not None:
        raise UnreadableDocument("A value is neither text, number, truth value, list nor mapping")


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise UnreadableDocument("A name is not text")
    if "\x00" in text:
        raise UnreadableDocument("A NUL character is in the document")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnreadableDocument("A surrogate without its partner is in the document") from None


def _read_yaml(text: str) -> object:
    try:
        events = yaml.parse(text, Loader=_LOADER)
        return _Builder(events).document()
    except yaml.MarkedYAMLError as error:
        if (
            error.problem and "nesting depth" in error.problem
        ):  # libyaml looks ahead, and gives up before we see an event
            raise UnreadableDocument(f"The document is nested deeper than {DEPTH_MAX}") from None
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark is not None else ""
        raise UnreadableDocument(f"The document is not YAML{line}") from None
    except yaml.YAMLError:
        raise UnreadableDocument("The document is not YAML") from None


class _Builder:
    """Builds the value from the parser's events with a stack of its own, so that depth is bounded and nothing recurses."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._values = 0

    def document(self) -> object:
        stack: list[list[object] | dict[str, object]] = []
        keys: list[str | None] = []
        root: list[object] = []
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise UnreadableDocument("The text holds more than one document")
            elif isinstance(event, yaml.AliasEvent):
                raise UnreadableDocument(f"Aliases are not allowed; write the value out{_line(event)}")
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._count(event, len(stack))
                _check_tag(event, ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"))
                container: list[object] | dict[str, object] = {} if isinstance(event, yaml.MappingStartEvent) else []
                _attach(container, event, stack, keys, root)
                stack.append(container)
                keys.append(None)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                stack.pop()
                keys.pop()
            elif isinstance(event, yaml.ScalarEvent):
                self._count(event, len(stack))
                self._scalar(event, stack, keys, root)
        return root[0] if root else None

    def _scalar(
        self,
        event: yaml.ScalarEvent,
        stack: list[list[object] | dict[str, object]],
        keys: list[str | None],
        root: list[object],
    ) -> None:
        if stack and isinstance(stack[-1], dict) and keys[-1] is None:
            if event.value in stack[-1]:
                raise UnreadableDocument(f"A name stands twice in one mapping{_line(event)}")
            keys[-1] = event.value
            return
        _attach(_scalar_value(event), event, stack, keys, root)

    def _count(self, event: yaml.Event, depth: int) -> None:
        self._values += 1
        if self._values > 2 * VALUES_MAX:
            raise UnreadableDocument(f"The document has more than {VALUES_MAX} values")
        if depth >= DEPTH_MAX:
            raise UnreadableDocument(f"The document is nested deeper than {DEPTH_MAX}{_line(event)}")


def _attach(
    value: object,
    event: yaml.Event,
    stack: Sequence[list[object] | dict[str, object]],
    keys: list[str | None],
    root: list[object],
) -> None:
    if not stack:
        root.append(value)
        return
    parent = stack[-1]
    if isinstance(parent, list):
        parent.append(value)
        return
    key = keys[-1]
    if key is None:
        raise UnreadableDocument(f"A name is not text{_line(event)}")
    parent[key] = value
    keys[-1] = None


def _scalar_value(event: yaml.ScalarEvent) -> object:
    _check_tag(event, ("tag:yaml.org,2002:str",))
    text: str = event.value
    if not event.implicit[0] or event.tag is not None:  # quoted, or said to be text
        return text
    if text in _KEYWORDS:
        return _KEYWORDS[text]
    if _INT.match(text):
        if len(text) > 20:
            raise UnreadableDocument(f"A number has too many digits{_line(event)}")
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    if text in _NOT_A_NUMBER:
        raise UnreadableDocument(f"A number is not finite{_line(event)}")
    return text


def _check_tag(event: yaml.NodeEvent, allowed: tuple[str, ...]) -> None:
    tag = getattr(event, "tag", None)
    if tag is not None and tag not in allowed and tag != "!":
        raise UnreadableDocument(f"Tags are not allowed{_line(event)}")


def _line(event: yaml.Event) -> str:
    return f" (line {event.start_mark.line + 1})" if event.start_mark is not None else ""
