"""What names a person, and so is in no event. Pure. It recognises what is surely somebody's, an address or a telephone number, however it
is encoded, and nothing else: campaigns have ids of as many digits as telephone numbers.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from html import unescape
from urllib.parse import unquote

_DECODED_MAX = 5
"""How often a text is decoded: a link in a link in a link."""
_TEXTS_CACHED = 4_000
_TEXT_MAX = 1_000
"""A longer text is looked at up to there."""
_DASH = re.compile(r"[\u2010-\u2015\u2212\u00ad\u30fc\uff0d\u2043\u207b\u208b]")
_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_AT = re.compile(r"\s*[(\[{<]\s*(?:at|@)\s*[)\]}>]\s*", re.IGNORECASE)
_DOT = re.compile(r"\s*[(\[{<]\s*(?:dot|\.)\s*[)\]}>]\s*", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s@,;:<>()\[\]\"]\s*@\s*[^\s@,;:<>()\[\]\"]+\.[^\W\d_]{2,}")
_WHOLE_ADDRESS = re.compile(r"[^\s@]+\s*@\s*[^\W\d_][^\s@]*")
_GAP = r"[\s()./_-]{0,3}"
_INTERNATIONAL = re.compile(rf"(?:\+{_GAP}|(?<![0-9])00{_GAP}(?=[1-9]))[1-9](?:{_GAP}[0-9]){{7,14}}(?![0-9])")
_NORTH_AMERICAN = re.compile(
    r"(?<![0-9])(?:1[\s._-]{1,3})?\(?[2-9][0-9]{2}[\s)._-]{1,3}[2-9][0-9]{2}[\s._-]{1,3}[0-9]{4}(?![0-9A-Za-z])"
)
"""In its groups. Without them it could be any id."""


def find_personal(text: str) -> str | None:
    """What in a text is surely somebody's, in words that do not repeat it; None if nothing is."""
    if text.isalpha():
        return None  # most words
    return _find_personal(text[:_TEXT_MAX])


@lru_cache(maxsize=_TEXTS_CACHED)
def _find_personal(text: str) -> str | None:
    for _ in range(_DECODED_MAX):
        # A text of a form has its blanks as +, so both readings are looked at.
        for reading in (text, text.replace("+", " ")) if "+" in text else (text,):
            found = _recognise(_simplify(reading))
            if found is not None:
                return found
        decoded = unescape(unquote(text))
        if decoded == text:
            break
        text = decoded
    return None


def _simplify(text: str) -> str:
    """With plain dashes, digits and signs, without what is not seen, and `(at)` as what it stands for."""
    plain = _DASH.sub("-", unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)))
    plain = "".join(str(unicodedata.decimal(one)) if one.isdecimal() and not one.isascii() else one for one in plain)
    return _DOT.sub(".", _AT.sub("@", plain)).strip()


def _recognise(text: str) -> str | None:
    if "@" in text and (_ADDRESS.search(text) or _WHOLE_ADDRESS.fullmatch(text)):
        return "Holds an e-mail address"
    if _INTERNATIONAL.search(text) or _NORTH_AMERICAN.search(text):
        return "Holds a telephone number"
    return None


def check_not_personal(text: str) -> str:
    """The text. Raises ValueError, in words, if it holds what is surely somebody's."""
    found = find_personal(text)
    if found is not None:
        raise ValueError(f"{found[0].lower()}{found[1:]}, which stays in intake")
    return text
