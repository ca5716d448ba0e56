"""Ratings of companies by Dun & Bradstreet and by the Better Business Bureau, read by the keys that the two publish. It judges nothing:
which rating is good enough, the data policy says.

D&B Rating (D&B, "Guide to creditworthiness", dnb.com/cipr/help/instruction_guide_creditworthiness.html, and the Ratings Guide of each
market, docs.dnb.com/reference/ratings/en-US/iso-country/XX; both as published in 2026)::

    rating       = appraised / undetermined / symbol
    appraised    = worth [sep] appraisal / employees [sep] estimated
    undetermined = worth [sep] ("-" / "S")                     ; too little known, or a service company: no condition assigned
    appraisal    = "1" / "2" / "3" / "4"                       ; composite credit appraisal: strong, good, fair, limited
    estimated    = "2" / "3" / "4"                             ; 2 is the best without a financial statement
    employees    = "1R" / "2R"                                 ; no statement; 10 or more employees, 1 to 9
    worth        = "5A" "4A" "3A" "2A" "1A"                    ; tangible net worth, all markets
                 / "BA" "BB" "CB" "CC" "DC" "DD" "EE" "FF" "GG" "HH"  ; below 1A in the US and Canada
                 / "A" "B" "C" "D" "E" "F" "G" "H"             ; below 1A in most other markets
                 / "5AA" "4AA" "3AA" "2AA" "1AA" "AA"          ; issued capital where net worth is unknown (with BB ... HH)
                 / "N" / "O" / "NB"                            ; negative net worth, undetermined, new business
    symbol       = "ER1" ... "ER8" / "ERN"                     ; employee range only: says nothing of credit
                 / "--"                                        ; no rating; "not to be read as a denial of credit"
                 / "DS" / "INV" / "NB" / "BR" / "FB"           ; not classified, being investigated, new, branch, foreign branch
                 / "NQ"                                        ; no longer active
    sep          = " " / "-" / "/"

What each letter is worth differs by market, and so it is kept and not compared. Case and white space do not count.

PAYDEX (D&B, dandb.com/glossary/paydex): a whole number from 0 to 100, 80 is prompt; `UN` where there are too few payments to tell.

BBB rating (bbb.org, "Overview of ratings"): A+ the best to F, with + and - but for F; NR where the BBB gives none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct


class NotARating(ValueError):
    """The text stands in no key of this rating."""


class DnbRating(Struct, frozen=True, gc=False):
    """`appraisal` is 1 (strong) to 4 (limited); None where the rating says nothing of credit. `active` is False for NQ alone."""

    strength: str | None
    appraisal: int | None
    active: bool = True


_WORTH = (
    "5A 4A 3A 2A 1A BA BB CB CC DC DD EE FF GG HH A B C D E F G H 5AA 4AA 3AA 2AA 1AA AA N O NB".split()
)  # BB to HH stand for issued capital too
_EMPLOYEES = ("1R", "2R")
_SYMBOLS = ("--", "-", "DS", "INV", "NB", "BR", "FB", "ERN", *(f"ER{n}" for n in range(1, 9)))
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))


def _key() -> Iterator[tuple[str, DnbRating]]:
    for strength in _WORTH:
        for mark, appraisal in (("1", 1), ("2", 2), ("3", 3), ("4", 4), ("-", None), ("S", None)):
            yield strength + mark, DnbRating(strength, appraisal)
    for strength in _EMPLOYEES:
        for appraisal in (2, 3, 4):
            yield f"{strength}{appraisal}", DnbRating(strength, appraisal)
    for symbol in _SYMBOLS:
        yield symbol, DnbRating(None, None)
    yield "NQ", DnbRating(None, None, active=False)


_DNB = dict(_key())


def parse_dnb_rating(text: str) -> DnbRating:
    """The rating in a text such as `5A1`, `1r 2`, `4A-3`, `ER7`, `--`. Raises NotARating."""
    found = _DNB.get(text)
    if found is not None:
        return found
    compact = _compact(text).replace("/", "-")
    found = _DNB.get(compact)
    if found is None and len(compact) > 2 and compact[-2] == "-":
        found = _DNB.get(compact[:-2] + compact[-1])
    if found is None:
        raise NotARating
    return found


PAYDEX_MAX = 100
_NO_PAYDEX = frozenset({"UN", "UNAVAILABLE", "N/A", "NA", "--", "-"})


def parse_paydex(value: bool | int | float | str) -> int | None:
    """The PAYDEX, 0 to 100; None where D&B has none (`UN`). Raises NotARating."""
    if isinstance(value, str):
        compact = _compact(value)
        if compact in _NO_PAYDEX:
            return None
        if not (compact.isascii() and compact.isdigit() and len(compact) <= 3):
            raise NotARating
        value = int(compact)
    if isinstance(value, bool) or not 0 <= value <= PAYDEX_MAX or value != int(value):
        raise NotARating
    return int(value)


BBB_GRADES: Final = ("A+", "A", "A-", "B+", "B", "B-", "C+", "C", "C-", "D+", "D", "D-", "F", "NR")
"""From the best; NR (no rating) stands last, since it is no grade."""
BBB_UNRATED: Final = len(BBB_GRADES) - 1
_BBB = {grade: rank for rank, grade in enumerate(BBB_GRADES)} | {"NORATING": BBB_UNRATED, "NOTRATED": BBB_UNRATED}


def parse_bbb_grade(text: str) -> int:
    """The place of a grade in BBB_GRADES: 0 is the best, BBB_UNRATED is NR. Raises NotARating."""
    found = _BBB.get(text)
    if found is None:
        found = _BBB.get(_compact(text))
    if found is None:
        raise NotARating
    return found


def _compact(text: str) -> str:
    return "".join(text.upper().translate(_DASHES).split())
