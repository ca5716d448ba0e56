"""The strong keys by which a person is known. Pure."""

from __future__ import annotations

from typing import Literal, cast, get_args

IdentityKind = Literal["email", "phone", "external"]
IdentityKey = tuple[IdentityKind, str]
"""A strong key: whoever has it is that person."""


def key_word(key: IdentityKey) -> str:
    """One key as one word, by which a submission that belongs to no lead is found again."""
    kind, value = key
    return f"{kind}:{value}"


def key_of(word: str) -> IdentityKey:
    """The key that `key_word` made into a word."""
    kind, _, value = word.partition(":")
    if kind not in get_args(IdentityKind):
        raise ValueError(f"no kind of key: {kind}")
    return cast("IdentityKind", kind), value
