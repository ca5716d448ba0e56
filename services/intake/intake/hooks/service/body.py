"""Reads the body of what a tool sends: JSON or a form, with what no database holds mended."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson
from pydantic import JsonValue

from accord.http.problems import malformed, unsupported_media_type
from intake.hooks.domain.forms import InvalidForm, parse_form
from intake.sources.domain.adapters.base import AnyAdapter, HookRequest, reject_constant

_FORM = "application/x-www-form-urlencoded"
_NOT_STORED = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
DEPTH_MAX = 100
"""Lists and objects inside each other, in one body; more is no event of any tool."""


def parse_hook_body(adapter: AnyAdapter, request: HookRequest) -> tuple[JsonValue, bool]:
    """The document in a body, and whether the body is the document's own text. Raises Problem 400 or 415.

    What no database holds (NUL, lone surrogates, bytes that are no UTF-8) becomes U+FFFD: a tool would send the same again for ever.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise unsupported_media_type("application/json (without a content encoding)")
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        raise unsupported_media_type("application/json", _FORM)
    if adapter.body == "form" or (adapter.body == "either" and media == _FORM):
        try:
            document: JsonValue = parse_form(request.body.decode("utf-8", "replace"))
        except InvalidForm:
            raise malformed("The body is not a form.") from None
        return (_storable(document) if b"%00" in request.body or b"\x00" in request.body else document), False
    if not request.body and adapter.name == "cloudevents":
        return None, False
    try:
        document = orjson.loads(request.body)
        _check_depth(request.body, document)
    except orjson.JSONDecodeError:
        return _parse_leniently(request.body), False
    if b"\\u0000" in request.body:
        return _storable(document), False
    return document, True


def _parse_leniently(body: bytes) -> JsonValue:
    """JSON that only offends by its characters."""
    try:
        document: JsonValue = json.loads(
            body.decode("utf-8", "replace"),
            parse_constant=reject_constant,
            parse_int=_parse_integer,
            parse_float=_parse_real,
        )
    except (ValueError, RecursionError):
        raise malformed("The body is not well-formed JSON.") from None
    _check_depth(body, document)
    return _storable(document)


def _check_depth(body: bytes, document: JsonValue) -> None:
    """Raises Problem 400 for a document that nests deeper than DEPTH_MAX. Only a body with so many brackets can."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    level: list[JsonValue] = [document]
    for _ in range(DEPTH_MAX + 1):
        inner: list[JsonValue] = []
        for node in level:
            if isinstance(node, dict):
                inner.extend(value for value in node.values() if isinstance(value, dict | list))
            elif isinstance(node, list):
                inner.extend(value for value in node if isinstance(value, dict | list))
        if not inner:
            return
        level = inner
    raise malformed("The body is nested too deeply.")


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= 18 else _parse_real(digits)


def _parse_real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def _storable(value: Any) -> JsonValue:
    if isinstance(value, str):
        return _NOT_STORED.sub(_REPLACEMENT, value)
    if isinstance(value, dict):
        return {str(_storable(name)): _storable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    checked: JsonValue = value
    return checked
