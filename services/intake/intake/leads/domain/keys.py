"""The strong keys by which a person is known. Pure."""

from __future__ import annotations

from typing import Literal, cast, get_args

IdentityKind = Literal["email", "phone", "external"]
IdentityKey = tuple[IdentityKind, str]
"""A strong key: whoever has it is that person."""


def format_key(key: IdentityKey) -> str:
    """One key as one word, by which a submission that belongs to no lead is found again."""
    kind, value = key
    return f"{kind}:{value}"


def parse_key(word: str) -> IdentityKey:
    """The key that `format_key` made into a word."""
    kind, _, value = word.partition(":")
    if kind not in get_args(IdentityKind):
        raise ValueError(f"no kind of key: {kind}")
    return cast("IdentityKind", kind), value
