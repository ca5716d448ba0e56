"""Regular expressions as agreements may have them: on an engine that takes time linear in the text, so that no pattern can stall a
service. It runs Rust's `regex`, which pydantic brings along: no look-around, no back-references, a bounded compiled size.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic_core import SchemaError, SchemaValidator, core_schema

PATTERN_LENGTH_MAX = 200
MATCHED_LENGTH_MAX = 1_000
"""A longer text matches nothing."""


class BadPattern(ValueError):
    """The pattern is none that the engine can run. The message says why, in words for the one who wrote it."""


def matcher(pattern: str) -> Callable[[object], bool]:
    """Whether the pattern is found anywhere in a text; anything else than a text does not match. Raises BadPattern."""
    schema = core_schema.str_schema(
        pattern=pattern, regex_engine="rust-regex", max_length=MATCHED_LENGTH_MAX, strict=True
    )
    try:
        return SchemaValidator(schema).isinstance_python
    except SchemaError as error:
        reason = str(error).rstrip().splitlines()[-1].strip().removeprefix("error: ").removeprefix("SchemaError: ")
        raise BadPattern(f"is no regular expression that can be used here: {reason}") from None


def whole_matcher(pattern: str) -> Callable[[object], bool]:
    """Whether the pattern matches the whole of a text, from its first to its last character. Raises BadPattern."""
    matcher(pattern)  # by itself, so that no bracket of it closes ours
    return matcher(rf"\A(?:{pattern})\z")
