"""What decisions say of a sale, as JSON: the deal of a lead, and the fields of one decision."""

from __future__ import annotations

from datetime import date
from typing import TypeVar

import orjson

from accord.contracts.codec import from_object, to_object
from accord.contracts.values import Money
from qualification.lifecycle.domain.facts import Fields
from qualification.lifecycle.domain.lead import Deal

T = TypeVar("T", Deal, Fields)


def deal_json(deal: Deal | Fields) -> str:
    """The members that are there."""
    given: dict[str, object] = {}
    if deal.amount is not None:
        given["amount"] = to_object(deal.amount)
    if deal.expected_close is not None:
        given["expected_close"] = deal.expected_close.isoformat()
    if deal.answers:
        given["answers"] = dict(deal.answers)
    return orjson.dumps(given).decode()


def parse_deal(stored: str, kind: type[T]) -> T:
    """What `deal_json` made."""
    given = orjson.loads(stored)
    amount, expected_close = given.get("amount"), given.get("expected_close")
    return kind(
        amount=None if amount is None else from_object(Money, amount),
        expected_close=None if expected_close is None else date.fromisoformat(expected_close),
        answers=given.get("answers", {}),
    )
