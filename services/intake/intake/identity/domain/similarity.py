"""How alike two leads are that no strong key joins. Pure, and only ever a suggestion: nothing here merges anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple
from uuid import UUID

from msgspec import Struct

How = Literal["same", "close", "short form", "initial"]
Field = Literal["name", "last_name", "first_name", "email_name", "account", "company", "phone_country", "title"]

SCORE_MIN = 0.6
"""Pairs below it are not suggested."""
LAST_NAME_MIN = 0.9
"""Jaro-Winkler similarity from which last names are close: one letter more, less or other in a name of seven."""
NAME_MIN = 0.9
FIRST_NAME_MIN = 0.84
COMPANY_MIN = 0.92

_LAST_SHARE = 0.55
_UNKNOWN_FIRST = 0.7
"""What a last name alone is worth beside a full one."""
_NAME_SHARE = 0.5
"""The score of two equal names of whom nothing else is known to agree; below SCORE_MIN, as there are many of one name."""
_SUPPORT: dict[Field, float] = {
    "account": 0.7,
    "company": 0.5,
    "email_name": 0.6,
    "phone_country": 0.25,
    "title": 0.2,
}
"""By how much of what is missing to 1 each further agreement raises the score."""
_ADDRESS_SCORE = 0.75
"""The score of two leads of one account whose e-mail addresses have the same name before the @, and no names to compare."""


class Person(NamedTuple):
    """A lead as it is compared with others. `fields` are its personal fields, normalized as they are kept."""

    lead_id: UUID
    account_id: UUID | None
    fields: Mapping[str, str]


class NameSimilarity(Struct, frozen=True, gc=False):
    """How close two texts are: `ratio` from 0 to 1."""

    ratio: float
    how: How


class Comparison(Struct, frozen=True, gc=False):
    """What is known of a pair. None: one of the two has no such value."""

    name: NameSimilarity | None = None
    """All words of the names, in any order: for those that put them into other fields."""
    last_name: NameSimilarity | None = None
    first_name: NameSimilarity | None = None
    company: NameSimilarity | None = None
    same_email_name: bool = False
    """The same before the @, at different domains, and no role such as `info`."""
    same_account: bool = False
    same_phone_country: bool = False
    same_title: bool = False

    @property
    def is_plausible(self) -> bool:
        """Whether the names, or those before the @, are close enough for anything else to matter."""
        last, whole = self.last_name, self.name
        return (
            self.same_email_name
            or (last is not None and last.ratio >= LAST_NAME_MIN)
            or (whole is not None and whole.ratio >= NAME_MIN)
        )


class Reason(Struct, frozen=True, gc=False):
    """In what two leads are alike."""

    field: Field
    how: How


class Similarity(Struct, frozen=True, gc=False):
    """A suggestion: `score` from SCORE_MIN to 1, and why."""

    score: float
    reasons: tuple[Reason, ...]


def score_pair(pair: Comparison) -> Similarity | None:
    """How likely a person should look at these two; None where they are not alike enough.

    Score = name · (a + (1 - a) · (1 - Π(1 - support))), a = _NAME_SHARE, over all that agrees beside the name (a noisy-or).
    The name is a weighted mean of last and first name, or that of all words where the fields are swapped.
    """
    name = _name(pair)
    context = tuple(_context(pair))
    if name is None:
        if pair.same_account and pair.same_email_name and not _contradicted(pair):
            return Similarity(_ADDRESS_SCORE, context)
        return None
    ratio, reasons = name
    missing = 1.0
    for reason in context:
        missing *= 1 - _SUPPORT[reason.field]
    score = round(ratio * (_NAME_SHARE + (1 - _NAME_SHARE) * (1 - missing)), 4)
    return Similarity(score, (*reasons, *context)) if score >= SCORE_MIN else None


def _name(pair: Comparison) -> tuple[float, tuple[Reason, ...]] | None:
    """How close the names are, and in what; None where they are not, or there are none."""
    last, first, whole = pair.last_name, pair.first_name, pair.name
    if last is not None and last.ratio >= LAST_NAME_MIN:
        if first is None:
            return _LAST_SHARE * last.ratio + (1 - _LAST_SHARE) * _UNKNOWN_FIRST, (Reason("last_name", last.how),)
        if first.ratio >= FIRST_NAME_MIN:
            ratio = _LAST_SHARE * last.ratio + (1 - _LAST_SHARE) * first.ratio
            return ratio, (Reason("last_name", last.how), Reason("first_name", first.how))
    if whole is not None and (whole.how == "same" or (whole.ratio >= NAME_MIN and (last is None or first is None))):
        return whole.ratio, (Reason("name", whole.how),)
    return None


def _contradicted(pair: Comparison) -> bool:
    """Both have names, and they differ."""
    return pair.last_name is not None or pair.first_name is not None


def _context(pair: Comparison) -> Iterator[Reason]:
    if pair.same_account:
        yield Reason("account", "same")
    elif pair.company is not None and pair.company.ratio >= COMPANY_MIN:
        yield Reason("company", pair.company.how)
    if pair.same_email_name:
        yield Reason("email_name", "same")
    if pair.same_phone_country:
        yield Reason("phone_country", "same")
    if pair.same_title:
        yield Reason("title", "same")
