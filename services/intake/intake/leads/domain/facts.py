"""What a data policy can ask of one submission, extracted beforehand. It judges nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from accord.contracts.values import AttributeValue


class EmailFacts(NamedTuple):
    """What is known of an e-mail address. `address` is normalized; None where the text is no address."""

    address: str | None
    public_suffix: bool = False
    disposable: bool = False
    role: bool = False


class PhoneFacts(NamedTuple):
    """What is known of a phone number. `e164` is None where it is not valid for its country."""

    e164: str | None


class Facts(NamedTuple):
    """A submission's fields (`consent` is its basis), its attributes as sent, what was extracted from them, and its times."""

    fields: Mapping[str, str]
    attributes: Mapping[str, AttributeValue]
    email: EmailFacts | None
    phone: PhoneFacts | None
    occurred_at: datetime | None = None
    consent_given_at: datetime | None = None
