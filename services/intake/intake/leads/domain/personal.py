"""What may leave intake where no data policy declares it. Pure."""

from __future__ import annotations

import re

from accord.contracts.personal import find_personal
from accord.contracts.values import AttributeValue

_PERSONAL_NAME = re.compile(
    r"name|mail|phone|mobile|tel|fax|whatsapp|contact|address|street|city|zip|postal|birth|dob|^ip|age$|gender|note|comment|message|text"
    r"|question|answer|ssn|passport|iban|card|linkedin|twitter|facebook|skype|url|link|user|login|person",
    re.IGNORECASE,
)
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}")
_DIGITS_TO_CALL = re.compile(r"(?:[0-9][_.+-]*){9,}")
NUMBER_MAX = 10**9
"""From here on a number could be one to call, where nobody has declared what it is."""


def is_public_without_policy(name: str, value: AttributeValue) -> bool:
    """Without a policy nothing declares what is public, so this guesses on the side of caution: only truth values, numbers below NUMBER_MAX
    and single words that read like codes ("US", "541511", "software") leave intake, under names that do not speak of a person."""
    if _PERSONAL_NAME.search(name) or value is None or isinstance(value, list):
        return False
    if isinstance(value, str):
        return _CODE.fullmatch(value) is not None and not _DIGITS_TO_CALL.search(value) and find_personal(value) is None
    return isinstance(value, bool) or abs(value) < NUMBER_MAX
