"""What libraries know of how alike two names are, as plain facts for the domain. It decides nothing and asks no network.

Distances are RapidFuzz's (MIT); short forms of given names ("Bob" for "Robert") are those of the hand-kept list `nicknames`
(Apache 2.0), which is of English names.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import phonenumbers
from msgspec.structs import replace
from nicknames import NickNamer
from rapidfuzz.distance import JaroWinkler

from intake.identity.domain.similarity import Comparison, NameSimilarity, Person
from intake.leads.service.normalization import ROLES

_NAMES_CACHED = 20_000
_CHARS_MAX = 100
"""Of a name; what is longer is cut, since the distance costs time by the square of the length."""
_TOKENS_MAX = 6
_WORD = re.compile(r"[^\W\d_]+")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "ı": "i"})
"""Letters that are no base letter with an accent."""
_TITLES = frozenset("mr mrs ms miss dr prof sir dame herr frau mme mlle jr sr phd md".split())
_LEGAL_FORMS = frozenset(
    "inc incorporated llc llp ltd limited corp corporation co company plc gmbh ag kg ug se sa sas sarl srl spa bv nv ab as oy aps pty"
    " group holding holdings the".split()
)


def compare_people(one: Person, other: Person) -> Comparison:
    """What is known of a pair of leads. Most pairs have nothing in common; of those only that is found out."""
    first_names = name_words(one.fields.get("first_name", "")), name_words(other.fields.get("first_name", ""))
    last_names = name_words(one.fields.get("last_name", "")), name_words(other.fields.get("last_name", ""))
    pair = Comparison(
        name=compare_names(first_names[0] + last_names[0], first_names[1] + last_names[1]),
        last_name=compare_names(*last_names),
        same_email_name=_are_equal(_email_name(one.fields.get("email")), _email_name(other.fields.get("email"))),
        same_account=_are_equal(one.account_id, other.account_id),
    )
    if not pair.is_plausible:
        return pair
    titles = _words(one.fields.get("title", "")), _words(other.fields.get("title", ""))
    return replace(
        pair,
        first_name=compare_given_names(*first_names),
        company=compare_names(
            company_words(one.fields.get("company", "")), company_words(other.fields.get("company", ""))
        ),
        same_phone_country=_are_equal(
            _phone_country(one.fields.get("phone")), _phone_country(other.fields.get("phone"))
        ),
        same_title=_are_equal(titles[0] or None, titles[1] or None),
    )


def _are_equal(one: object, other: object) -> bool:
    return one is not None and one == other


def _email_name(address: str | None) -> str | None:
    """What stands before the @, without a tag; None for a role, which many people share."""
    name = (address or "").rpartition("@")[0].partition("+")[0]
    return None if not name or name in ROLES else name


@lru_cache(maxsize=_NAMES_CACHED)
def _phone_country(number: str | None) -> int | None:
    """The country calling code of a number in international form."""
    if number is None:
        return None
    try:
        return phonenumbers.parse(number).country_code
    except phonenumbers.NumberParseException:
        return None


@lru_cache(maxsize=1)
def _short_forms() -> NickNamer:
    return NickNamer()


@lru_cache(maxsize=_NAMES_CACHED)
def name_words(text: str) -> tuple[str, ...]:
    """The words of a person's name in plain small letters: no accents, no points, no titles."""
    return tuple(word for word in _words(text) if word not in _TITLES)[:_TOKENS_MAX]


@lru_cache(maxsize=_NAMES_CACHED)
def company_words(text: str) -> tuple[str, ...]:
    """The words of a company's name in plain small letters, without its legal form."""
    words = _words(text)
    return tuple(word for word in words if word not in _LEGAL_FORMS)[:_TOKENS_MAX] or words[:_TOKENS_MAX]


@lru_cache(maxsize=_NAMES_CACHED)
def _words(text: str) -> tuple[str, ...]:
    decomposed = unicodedata.normalize("NFKD", text[:_CHARS_MAX].casefold().translate(_LETTERS))
    plain = "".join(c for c in decomposed if not unicodedata.combining(c))
    return tuple(_WORD.findall(plain.replace("'", "").replace("’", "")))


def compare_names(one: tuple[str, ...], other: tuple[str, ...]) -> NameSimilarity | None:
    """How close two names are, whatever the order of their words; None where one of them has none."""
    if not one or not other:
        return None
    if sorted(one) == sorted(other):
        return NameSimilarity(1.0, "same")
    ratio = max(
        JaroWinkler.similarity("".join(one), "".join(other)),
        JaroWinkler.similarity("".join(sorted(one)), "".join(sorted(other))),
    )
    return NameSimilarity(round(ratio, 4), "close")


def compare_given_names(one: tuple[str, ...], other: tuple[str, ...]) -> NameSimilarity | None:
    """How close two given names are: also where one is the short form or the initial of the other."""
    if not one or not other:
        return None
    found = compare_names(one, other)
    if found is not None and found.how == "same":
        return found
    first, second = one[0], other[0]
    if first == second:
        return NameSimilarity(0.97, "close")  # one of the two has a middle name as well
    if _is_short_form(first, second):
        return NameSimilarity(0.95, "short form")
    if 1 in (len(first), len(second)) and first[0] == second[0]:
        return NameSimilarity(0.85, "initial")
    return found


@lru_cache(maxsize=_NAMES_CACHED)
def _is_short_form(one: str, other: str) -> bool:
    """Whether one is a short form of the other, or both are of a third."""
    names = _short_forms()
    of_one, of_other = names.canonicals_of(one) | {one}, names.canonicals_of(other) | {other}
    return bool(of_one & of_other)
