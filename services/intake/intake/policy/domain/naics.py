"""The sectors of NAICS, the North American Industry Classification System, by code and title. It holds nothing below the sectors.

2022 NAICS (census.gov/naics), unchanged in its sectors since 1997: a code has 2 to 6 digits, of which the first two are the sector; three
sectors are ranges of them.
"""

from __future__ import annotations

import re

SECTORS: dict[str, str] = {
    "11": "Agriculture, Forestry, Fishing and Hunting",
    "21": "Mining, Quarrying, and Oil and Gas Extraction",
    "22": "Utilities",
    "23": "Construction",
    "31-33": "Manufacturing",
    "42": "Wholesale Trade",
    "44-45": "Retail Trade",
    "48-49": "Transportation and Warehousing",
    "51": "Information",
    "52": "Finance and Insurance",
    "53": "Real Estate and Rental and Leasing",
    "54": "Professional, Scientific, and Technical Services",
    "55": "Management of Companies and Enterprises",
    "56": "Administrative and Support and Waste Management and Remediation Services",
    "61": "Educational Services",
    "62": "Health Care and Social Assistance",
    "71": "Arts, Entertainment, and Recreation",
    "72": "Accommodation and Food Services",
    "81": "Other Services (except Public Administration)",
    "92": "Public Administration",
}
"""Title by code, as NAICS writes both."""

_CODE = re.compile(r"\d{2,6}", re.ASCII)
_RANGE = re.compile(r"(\d+)\s*[-–]\s*(\d+)", re.ASCII)
RANGE_MAX = 1_000
"""Prefixes that one range may stand for."""


def expand_range(value: str) -> list[str]:
    """`31-33` written out as 31, 32, 33; any other text as itself. Raises ValueError for a range that cannot be meant."""
    span = _RANGE.fullmatch(value)
    if span is None:
        return [value]
    first, last = span[1], span[2]
    if len(first) != len(last) or not 0 <= int(last) - int(first) < RANGE_MAX:
        raise ValueError("is no range of prefixes: both ends need as many digits, the lower one first")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


_SECTOR_OF = {prefix: code for code in SECTORS for prefix in expand_range(code)}
_CODE_OF = {title.lower(): code for code, title in SECTORS.items()}


def resolve_industry(value: str) -> tuple[list[str], list[str]]:
    """What a value of a policy stands for: the prefixes of its codes, and in lower case the titles of the sectors that it has whole.

    `51` and `Information` are the same. Another name than a sector's stands for itself. Raises ValueError, in words, for digits under
    which NAICS has no sector.
    """
    found = expand_range(_CODE_OF.get(value.lower(), value))
    if not found[0][:1].isdigit():
        return [], [value.lower()]
    if not all(_CODE.fullmatch(prefix) and prefix[:2] in _SECTOR_OF for prefix in found):
        raise ValueError(
            "is no NAICS code: 2 to 6 digits, of which the first two are a sector, or a range such as 31-33"
        )
    return found, [title.lower() for code, title in SECTORS.items() if set(expand_range(code)) <= set(found)]
