"""Regular expressions as agreements may have them, on RE2: it takes time linear in the text, within a bounded memory, and lets other
threads run meanwhile. What they cost is bounded besides: of one pattern, of one text, and of one document (ADR 73).

Agreements from before RE2 were signed for another engine, and never change. What RE2 refuses of them runs there as it did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import re2
from pydantic_core import SchemaError, SchemaValidator, core_schema

from accord.terms.findings import Finding, pointer

PATTERN_LENGTH_MAX = 200
MATCHED_LENGTH_MAX = 1_000
"""A longer text matches nothing."""

PATTERNS_MAX = 64
"""Of one document. Each takes up to 5 ms to compile."""

SIZE_MAX = 10_000
"""Of all patterns of one document together, in instructions of RE2: a text meets each of them."""

_MEMORY_MAX = 256 * 1024
"""Bytes of one pattern, its instructions and what it remembers of texts."""

_CACHED_MAX = 128

_ANYWHERE, _WHOLE = re2._re2.RE2.Anchor.UNANCHORED, re2._re2.RE2.Anchor.ANCHOR_BOTH  # noqa: SLF001 - see _run_on_re2

SKIP_PATTERN_CHECKS: Mapping[str, bool] = {"as_it_stands": True}
"""pydantic's context for reading a document without a look at its patterns: they were looked at before it was agreed on."""

_TOKENS = re.compile(
    r"\\(?P<escaped>[bB]\{|.)|\[\^?\]?(?P<members>(?:\[:\^?\w+:\]|\\.|[^\]\\])*)\]|(?P<counted>\{,\d+\})",
    re.DOTALL | re.ASCII,
)
_OPERATION = re.compile(r"&&|--|~~|\[(?!:)")
_ESCAPED = re.compile(r"\\.", re.DOTALL)

_REASONS: Mapping[str, str] = {
    "missing )": "a bracket ( is not closed",
    "unexpected )": "a bracket ) closes nothing",
    "missing ]": "a class [ is not closed",
    "trailing \\": "nothing follows the last \\",
    "invalid escape sequence": "{part} means nothing here; there are no back-references",
    "invalid perl operator": "{part} is not there; there is no look-around",
    "invalid character class range": "{part} is no class or range of characters",
    "invalid named capture group": "{part} is no group",
    "no argument for repetition operator": "{part} repeats nothing",
    "bad repetition operator": "{part} repeats a repetition",
    "invalid repetition size": "{part} repeats more than 1000 times, by itself or together with those around it",
    "pattern too large": "it is too large; write + or * instead of a large number",
}


class InvalidPattern(ValueError):
    """The pattern is none that the engine can run. The message says why, in words for the one who wrote it."""


@lru_cache(maxsize=_CACHED_MAX)
def _compile(pattern: str) -> Any:
    """Raises InvalidPattern."""
    if not 0 < len(pattern) <= PATTERN_LENGTH_MAX:
        raise InvalidPattern(f"must be a regular expression of 1 to {PATTERN_LENGTH_MAX} characters")
    _check_meaning(pattern)
    options = re2.Options()
    options.max_mem = _MEMORY_MAX
    options.never_capture = True
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except UnicodeEncodeError:
        raise InvalidPattern("is no regular expression that can be used here: it is no text") from None
    except re2.error as error:
        raise InvalidPattern(f"is no regular expression that can be used here: {_describe_error(error)}") from None


def _check_meaning(pattern: str) -> None:
    """Raises InvalidPattern for what RE2 takes letter by letter and other engines do not: it would mean something else without a word."""
    for token in _TOKENS.finditer(pattern):
        reason = None
        if token["escaped"] in ("b{", "B{", "<", ">"):
            reason = f"\\{token['escaped']} is not there; the border of a word is \\b"
        elif token["counted"]:
            reason = f"{token['counted']} is not there; write {{0{token['counted'][1:]}"
        elif operation := _OPERATION.search(_ESCAPED.sub("_", token["members"] or "")):
            reason = f"{operation[0]} is no operation on classes here; as a character, write \\ before it"
        if reason is not None:
            raise InvalidPattern(f"is no regular expression that can be used here: {reason}")


def _describe_error(error: Exception) -> str:
    found = error.args[0]
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    kind, _, part = text.partition(": ")
    return _REASONS.get(kind.removesuffix(" - compile failed"), text).replace("{part}", part)


def check_pattern(pattern: str) -> None:
    """Raises InvalidPattern for one that nothing new may have."""
    _compile(pattern)


def make_matcher(pattern: str) -> Callable[[object], bool]:
    """Whether the pattern is found anywhere in a text; anything else than a text does not match.

    Only for what is signed or was checked: what `check_pattern` refuses may take seconds. Raises InvalidPattern if no engine runs it.
    """
    try:
        return _compile_re2(pattern, _ANYWHERE)
    except InvalidPattern as refused:
        return _make_legacy_matcher(pattern, refused, whole=False)


def make_whole_matcher(pattern: str) -> Callable[[object], bool]:
    """Whether the pattern matches the whole of a text, from its first to its last character; otherwise as `matcher`."""
    try:
        return _compile_re2(pattern, _WHOLE)
    except InvalidPattern as refused:
        return _make_legacy_matcher(pattern, refused, whole=True)


def _make_legacy_matcher(pattern: str, refused: InvalidPattern, *, whole: bool) -> Callable[[object], bool]:
    """The pattern on Rust's `regex` inside pydantic, for which all were signed before RE2. Raises `refused` if that has none either."""
    if not 0 < len(pattern) <= PATTERN_LENGTH_MAX:
        raise refused
    try:
        found = _compile_rust(pattern)  # by itself, so that no bracket of it closes ours
        return _compile_rust(rf"\A(?:{pattern})\z") if whole else found
    except SchemaError:
        raise refused from None


def _compile_rust(pattern: str) -> Callable[[object], bool]:
    schema = core_schema.str_schema(
        pattern=pattern, regex_engine="rust-regex", max_length=MATCHED_LENGTH_MAX, strict=True
    )
    return SchemaValidator(schema).isinstance_python


def _compile_re2(pattern: str, anchor: Any) -> Callable[[object], bool]:
    # The engine itself: its wrapper makes an object of each match, with the places in characters, in six times the time.
    match = _compile(pattern)._regexp.Match  # noqa: SLF001

    def matches(value: object) -> bool:
        if not isinstance(value, str) or len(value) > MATCHED_LENGTH_MAX:
            return False
        try:
            text = value.encode()
        except UnicodeEncodeError:  # half a surrogate pair: no text
            return False
        start, _ = match(anchor, text, 0, len(text))[0]
        return bool(start >= 0)

    return matches


def check_patterns(document: Mapping[str, object]) -> list[Finding]:
    """What is too much about the patterns of a whole document. To be asked before anything else is made of it: patterns are
    counted before any is compiled. One that cannot be compiled is left to whoever reads it."""
    found = list(_iterate_patterns(document))
    if len(found) > PATTERNS_MAX:
        return [
            Finding(
                found[PATTERNS_MAX][0], f"a document has at most {PATTERNS_MAX} patterns, and this has {len(found)}"
            )
        ]
    size = 0
    for at, pattern in found:
        try:
            size += _compile(pattern).programsize
        except InvalidPattern:
            continue
        if size > SIZE_MAX:
            message = "the patterns of the document are too large together; write + or * instead of large numbers"
            return [Finding(at, message)]
    return []


def _iterate_patterns(document: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Where patterns stand, and each of them: `{op: matches, value: …}` of criteria, `{rule: pattern, pattern: …}` of a policy."""
    waiting: list[tuple[tuple[str | int, ...], object]] = [((), document)]
    while waiting:
        at, node = waiting.pop()
        if isinstance(node, Mapping):
            for name, value in (("value", node.get("op") == "matches"), ("pattern", node.get("rule") == "pattern")):
                pattern = node.get(name) if value else None
                if isinstance(pattern, str):
                    yield pointer(*at, name), pattern
            waiting.extend(((*at, str(name)), inner) for name, inner in reversed(list(node.items())))
        elif isinstance(node, list):
            waiting.extend(((*at, place), inner) for place, inner in reversed(list(enumerate(node))))
