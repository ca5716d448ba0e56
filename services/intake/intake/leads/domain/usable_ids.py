"""Which texts can name a record of another system: words for "nothing" and numbers that have lost their digits name nobody. Pure.

Two people with `undefined` for an id would become one person, and no merge would be on record that could be reverted.
"""

from __future__ import annotations

import re
import unicodedata

from accord.contracts.values import normalize_text

_WORDS = frozenset(
    "undefined undef null nil none nan na n/a n.a. n.a n\\a #n/a #na #null! #ref! #value! #name? #num! #div/0! unknown unbekannt"
    " anonymous anon guest empty blank missing unset void tbd tba noid nouser noname notset notavailable notapplicable"
    " notprovided nodata novalue noneprovided false true yes no yesno x xx xxx xxxx objectobject test default null;null"
    " nullnull undefinedundefined nonenone".split()
)
"""In small letters, without blanks, brackets and quotes."""

_AROUND = "()[]{}<>\"'`“”‘’«» \t"
_LOST_DIGITS = re.compile(r"[+-]?[0-9](?:[.,][0-9]+)?[eE]\+[0-9]{1,3}", re.ASCII)
"""As a spreadsheet writes 123456789012."""


def check_id(text: str) -> str:
    """The id. Raises ValueError, in words, if it names nothing."""
    if _LOST_DIGITS.fullmatch(text):
        raise ValueError("is a number that has lost its digits in a spreadsheet")
    if is_placeholder(text):
        raise ValueError("is a word for nothing and names no record")
    return text


def read_id(text: str) -> str | None:
    """The id in a text; None if it names nothing."""
    try:
        return check_id(normalize_text(text)) or None
    except ValueError:
        return None


def is_placeholder(text: str) -> bool:
    """Whether a text stands for no id: such a word, nothing but zeros, or nothing but marks."""
    plain = unicodedata.normalize("NFKC", text).lower()
    letters = "".join(character for character in plain if character.isalnum())
    if not letters or not letters.strip("0"):
        return True
    bare = re.sub(r"[\s_]", "", plain.strip(_AROUND)).strip(_AROUND)
    return bare in _WORDS or re.sub(r"[\s_()\[\]-]", "", bare) in _WORDS
