"""Reads the body of what a tool sends: JSON, a form or text, perhaps compressed, with what no database holds mended."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from dataclasses import replace
from typing import Any

import orjson
from pydantic import JsonValue

from accord.http.problems import Problem, malformed, unsupported_media_type
from intake.hooks.domain.forms import InvalidForm, parse_form
from intake.hooks.domain.text import REPLACEMENT, decode_text, find_charset
from intake.sources.domain.adapters.base import AnyAdapter, HookRequest, reject_constant

_FORM = "application/x-www-form-urlencoded"
_NOT_STORED = re.compile("[\x00\ud800-\udfff]")
_LONG_NUMBER = re.compile(rb"[0-9]{17}")
_PLAIN = frozenset({"", "identity", "utf-8", "utf8"})
"""Content codings that change nothing. UTF-8 is none, and some senders say so."""
_GZIP = frozenset({"gzip", "x-gzip"})
DEPTH_MAX = 100
"""Lists and objects inside each other, in one body; more is no event of any tool."""


def parse_hook_body(
    adapter: AnyAdapter, request: HookRequest, bytes_max: int
) -> tuple[HookRequest, JsonValue, str | None]:
    """The request with its body inflated, the document in the body, and the body's text if that is the document's own.

    Raises Problem 400, 413 (inflated, it has more than `bytes_max`) or 415. What no database holds (NUL, lone surrogates, bytes
    that are no text) becomes U+FFFD: a tool would send the same again for ever.
    """
    request = _inflated(request, bytes_max)
    media, body = request.media_type, request.body
    if media == "multipart/form-data":
        raise unsupported_media_type("application/json", _FORM)
    charset = find_charset(request.headers.get("content-type", ""))
    if adapter.body == "form" or (adapter.body == "either" and media == _FORM):
        try:
            return request, _storable(parse_form(decode_text(body, charset or "utf-8"), charset)), None
        except InvalidForm:
            raise malformed("The body is not a form.") from None
    if adapter.body == "any" and not (body and request.is_json):
        if not body or media.startswith("text/"):
            return request, _storable(decode_text(body, charset or "utf-8")) or None, None
        return request, base64.b64encode(body).decode(), None
    try:
        return request, *parse_json(body, charset)
    except ValueError as error:
        raise malformed(str(error)) from None


def _inflated(request: HookRequest, bytes_max: int) -> HookRequest:
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding in _GZIP:
        return replace(request, body=inflate(request.body, bytes_max))
    if coding not in _PLAIN:
        raise unsupported_media_type("application/json (as it is, or with Content-Encoding: gzip)")
    return request


def inflate(body: bytes, bytes_max: int) -> bytes:
    """The content of gzip. Raises Problem 400 for what is none or ends too soon, 413 for more than `bytes_max`; more is never made."""
    found = b""
    while body:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            found += member.decompress(body, bytes_max + 1 - len(found))
        except zlib.error:
            raise malformed("The body is not gzip.") from None
        if len(found) > bytes_max:
            raise Problem(413, "body-too-large", "Body too large", f"Inflated, a body may have {bytes_max} bytes here.")
        if not member.eof:
            raise malformed("The body is gzip that ends too soon.")
        body = member.unused_data
    return found


def parse_json(body: bytes, charset: str | None = None) -> tuple[JsonValue, str | None]:
    """The document, with what no database holds mended, and its text where nothing was. Raises ValueError, which quotes nothing."""
    if charset in (None, "utf-8") and not _LONG_NUMBER.search(body):
        try:
            document: JsonValue = orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
        else:
            _check_depth(body, document)
            return (_storable(document), None) if b"\\u0000" in body else (document, body.decode())
    # Only its characters or its numbers offend.
    text = decode_text(body, charset or json.detect_encoding(body))
    try:
        document = json.loads(text, parse_constant=reject_constant, parse_int=_parse_integer, parse_float=_parse_real)
    except (ValueError, RecursionError):
        raise ValueError("The body is not well-formed JSON.") from None
    _check_depth(text.encode("utf-8", "replace"), document)
    stored = _storable(document)
    return stored, None if stored != document or "\\u0000" in text else text


def _check_depth(body: bytes, document: JsonValue) -> None:
    """Raises ValueError for a document that nests deeper than DEPTH_MAX. Only a body with so many brackets can."""
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
    raise ValueError("The body is nested too deeply.")


def _parse_integer(digits: str) -> int | str:
    """An integer; one that no reader of JSON is sure to hold as its digits, so that two ids are never one."""
    return int(digits) if len(digits) <= 16 else digits


def _parse_real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def _storable(value: Any) -> JsonValue:
    if isinstance(value, str):
        return _NOT_STORED.sub(REPLACEMENT, value)
    if isinstance(value, dict):
        return {str(_storable(name)): _storable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    checked: JsonValue = value
    return checked
