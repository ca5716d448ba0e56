"""Numbers as people write them: with grouped thousands, and a point or comma before the decimal places. Pure; where a text could be read
in two ways, it says so and reads none.
"""

from __future__ import annotations

import re
import unicodedata

_NUMBER = re.compile(r"([+-]?)([0-9.][0-9.,' ]*|,[0-9]+)(?:[eE]([+-]?[0-9]{1,3}))?", re.ASCII)
_SEPARATOR = re.compile(r"[.,' ]")
_LIKE_ASCII = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2019": "'", "\u02bc": "'", "\u066b": ".", "\u066c": "'"})
_TEXT_MAX = 100


class NotANumber(ValueError):
    """The text is no number."""


class AmbiguousNumber(NotANumber):
    """One point or comma before exactly three digits: a thousand for some, a thousandth for others."""


def read_number(text: str, *, whole: bool) -> float:
    """The number. A `whole` one has no decimal places, so its points and commas before three digits group thousands; else one such by
    itself is ambiguous. Raises NotANumber."""
    if len(text) > _TEXT_MAX:
        raise NotANumber
    plain = unicodedata.normalize("NFKC", text).translate(_LIKE_ASCII).strip()
    if plain.isdecimal() and not plain.isascii():
        plain = str(int(plain))
    found = _NUMBER.fullmatch(plain)
    if found is None:
        raise NotANumber
    sign, body, exponent = found.groups()
    try:
        return float(
            f"{sign}{_plain_digits(body.rstrip(), whole=whole, scientific=exponent is not None)}e{exponent or 0}"
        )
    except OverflowError:
        raise NotANumber from None


def _plain_digits(body: str, *, whole: bool, scientific: bool) -> str:
    """The digits with a point before the decimal places, and nothing between thousands."""
    separators = _SEPARATOR.findall(body)
    if not separators:
        return body
    last = separators[-1]
    if last in ".," and separators.count(last) == 1:
        before, places = body.rsplit(last, 1)
        if len(separators) > 1:
            return f"{_join_thousands(before, separators[0])}.{_digits(places)}"
        if scientific or len(places) != 3 or not 0 < len(before) <= 3 or before == "0":
            return f"{_digits(before or '0')}.{_digits(places)}"
        if not whole:
            raise AmbiguousNumber
    return _join_thousands(body, last)


def _join_thousands(text: str, separator: str) -> str:
    first, *groups = text.split(separator)
    *middle, last = groups or [""]
    by_thousands = all(len(group) == 3 for group in groups)
    by_lakhs = separator == "," and len(last) == 3 and bool(middle) and all(len(group) == 2 for group in middle)
    if not 0 < len(first) <= 3 or first[0] == "0" or not (by_thousands or (by_lakhs and len(first) <= 2)):
        raise NotANumber
    return _digits("".join((first, *groups)))


def _digits(text: str) -> str:
    if not text.isdecimal():
        raise NotANumber
    return text
