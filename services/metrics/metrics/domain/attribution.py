"""Attribution: how a win is shared among the touches before it, by six named models. Pure, exact, and without a rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from typing import Literal
from uuid import UUID

from msgspec import Struct

Model = Literal["first", "last", "linear", "u_shaped", "w_shaped", "full_path", "time_decay"]
Role = Literal["first", "lead", "opportunity", "last"]

ROLE_WEIGHTS: Mapping[Model, Mapping[Role, Fraction]] = {
    "first": {"first": Fraction(1)},
    "last": {"last": Fraction(1)},
    "u_shaped": {"first": Fraction(40, 100), "last": Fraction(40, 100)},
    "w_shaped": dict.fromkeys(("first", "lead", "opportunity"), Fraction(30, 100)),
    "full_path": dict.fromkeys(("first", "lead", "opportunity", "last"), Fraction(225, 1000)),
}
"""What each role gets; what is left goes evenly to the touches without a role."""

HALF_LIFE = timedelta(days=7)
_PRECISION = Context(prec=40)

MODEL_DESCRIPTIONS: Mapping[Model, str] = {
    "first": "All to the first touch.",
    "last": "All to the last touch before the win.",
    "linear": "Evenly to all touches.",
    "u_shaped": "40 % to the first touch, 40 % to the last, 20 % evenly to those between.",
    "w_shaped": "30 % each to the first touch, the one that made the lead and the one that made the opportunity, 10 % to others.",
    "full_path": "22.5 % each to first touch, lead, opportunity and last touch, 10 % evenly to others.",
    "time_decay": "Each touch half as much for every 7 days that it lies before the win.",
}
DESCRIPTIONS: tuple[str, ...] = (
    "Touches: activities by the lead or marketing at or before the win, also those of leads merged into it.",
    "The touch that made the lead is the last one at or before its capture.",
    "The one that made the opportunity is the last one at or before the first entry into the last open stage.",
    "A touch with two roles gets both weights.",
    "The weight of a role that no touch has, or of others if there are none, goes to the present ones in proportion.",
    "Wins without a touch are the line `unattributed`. Shares sum to the wins and their amounts to the last unit.",
)


class Touch(Struct, frozen=True, gc=False):
    """One touch, of the source and campaign that it names."""

    at: datetime
    activity_id: UUID
    source: str | None
    campaign: str | None


class Path(Struct, frozen=True, gc=False):
    """A win and when its lead, and its opportunity, were made."""

    won_at: datetime
    captured_at: datetime
    opportunity_at: datetime | None


def weigh_touches(model: Model, path: Path, touches: Sequence[Touch]) -> list[Fraction]:
    """Weigh touches, in their order; those after the win get nothing. The others' weights sum to one, if there are any."""
    counted = [index for index, touch in enumerate(touches) if touch.at <= path.won_at]
    weights = [Fraction(0)] * len(touches)
    if not counted:
        return weights
    if model == "time_decay":
        for index in counted:
            weights[index] = _decay(path.won_at - touches[index].at)
    elif model == "linear":
        for index in counted:
            weights[index] = Fraction(1)
    else:
        _add_role_weights(weights, ROLE_WEIGHTS[model], _find_roles(path, touches, counted), counted)
    whole = sum(weights)
    return [weight / whole for weight in weights]


def _decay(age: timedelta) -> Fraction:
    exponent = _PRECISION.divide(
        Decimal(-(age // timedelta(microseconds=1))), Decimal(HALF_LIFE // timedelta(microseconds=1))
    )
    return Fraction(_PRECISION.power(Decimal(2), exponent))


def _find_roles(path: Path, touches: Sequence[Touch], counted: Sequence[int]) -> dict[Role, int]:
    """Find the touch of each role. Touches are in the order of time."""
    roles: dict[Role, int] = {"first": counted[0], "last": counted[-1]}
    moments: tuple[tuple[Role, datetime | None], ...] = (
        ("lead", path.captured_at),
        ("opportunity", path.opportunity_at),
    )
    for role, moment in moments:
        before = [index for index in counted if moment is not None and touches[index].at <= moment]
        if before:
            roles[role] = before[-1]
    return roles


def _add_role_weights(
    weights: list[Fraction], shares: Mapping[Role, Fraction], roles: Mapping[Role, int], counted: Sequence[int]
) -> None:
    for role, share in shares.items():
        if role in roles:
            weights[roles[role]] += share
    rest = 1 - sum(shares.values(), Fraction(0))
    others = [index for index in counted if weights[index] == 0]
    for index in others:
        weights[index] = rest / len(others)
    if not any(weights):  # no touch has any of the model's roles, and nothing is left for others
        for index in counted:
            weights[index] = Fraction(1)
