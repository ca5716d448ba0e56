"""What might name a person, and so stays in intake. Pure guesses on the side of caution: better one value too few that leaves than one
address too many.
"""

from __future__ import annotations

import re

from accord.contracts.values import AttributeValue

_ADDRESS = re.compile(r"\S(?:@|%40)\S")
_DIGITS_TO_CALL = 9
_NUMBER_TO_CALL = re.compile(rf"(?:\d[\s()./-]*){{{_DIGITS_TO_CALL},}}")
_PERSONAL_NAME = re.compile(
    r"name|mail|phone|mobile|tel|fax|whatsapp|contact|address|street|city|zip|postal|birth|dob|^ip|age$|gender|note|comment|message|text"
    r"|question|answer|ssn|passport|iban|card|linkedin|twitter|facebook|skype|url|link|user|login|person",
    re.IGNORECASE,
)
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}")
NUMBER_MAX = 10**9
"""From here on a number could be one to call."""


def looks_personal(text: str) -> bool:
    """Whether a text holds something like an e-mail address, or nine digits in a row as phone numbers have."""
    if len(text) < _DIGITS_TO_CALL and "@" not in text and "%" not in text:
        return False  # most words; twice as fast as asking the expressions
    return _ADDRESS.search(text) is not None or _NUMBER_TO_CALL.search(text) is not None


def is_public_without_policy(name: str, value: AttributeValue) -> bool:
    """Without a policy nothing declares what is public. Then only truth values, numbers below NUMBER_MAX and single words that read
    like codes ("US", "541511", "software") leave intake, under names that do not speak of a person."""
    if _PERSONAL_NAME.search(name) or value is None or isinstance(value, list):
        return False
    if isinstance(value, str):
        return _CODE.fullmatch(value) is not None and not looks_personal(value)
    return isinstance(value, bool) or abs(value) < NUMBER_MAX
