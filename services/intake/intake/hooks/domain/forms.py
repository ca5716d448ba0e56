"""Form-encoded bodies as documents: `data[merges][FNAME]=Ada` is `{"data": {"merges": {"FNAME": "Ada"}}}`, as PHP and Rails read them.
Pure.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from pydantic import JsonValue

from intake.hooks.domain.text import find_encoding

FIELDS_MAX = 2_000
_CHARSET_FIELD = re.compile(r"(?:^|&)_charset_=([A-Za-z0-9._:-]+)")
_DEPTH_MAX = 8
_PART = re.compile(r"\[([^\[\]]*)\]")


class InvalidForm(ValueError):
    """The body has too many fields, or is none of this form."""


def parse_form(body: str, charset: str | None = None) -> dict[str, JsonValue]:
    """The fields, nested by their brackets; a name that comes again, and one that ends in `[]`, makes a list. Raises InvalidForm.

    `charset` is what the escapes are in; None: what the field `_charset_` says, as browsers fill it, else UTF-8.
    """
    try:
        if charset is None and (named := _CHARSET_FIELD.search(body)) is not None:
            charset = find_encoding(named[1])
        pairs = parse_qsl(
            body, keep_blank_values=True, max_num_fields=FIELDS_MAX, encoding=charset or "utf-8", errors="replace"
        )
    except ValueError:
        raise InvalidForm from None
    document: dict[str, JsonValue] = {}
    for name, value in pairs:
        _put(document, _path(name), value)
    return document


def _path(name: str) -> list[str]:
    head, bracket, _ = name.partition("[")
    if not head or not bracket or not name.endswith("]"):
        return [name]
    parts = _PART.findall(name[len(head) :])
    whole = head + "".join(f"[{part}]" for part in parts)
    return [head, *parts] if whole == name and len(parts) < _DEPTH_MAX else [name]


def _put(document: dict[str, JsonValue], path: list[str], value: str) -> None:
    node = document
    listed = len(path) > 1 and path[-1] == ""
    *parents, last = path[:-1] if listed else path
    for part in parents:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            node = document
            last = "".join((path[0], *(f"[{one}]" for one in path[1:])))
            break
        node = inner
    known = node.get(last)
    if isinstance(known, list):
        known.append(value)
    elif known is None:
        node[last] = [value] if listed else value
    elif isinstance(known, dict):
        known.setdefault("", value)
    else:
        node[last] = [known, value]
