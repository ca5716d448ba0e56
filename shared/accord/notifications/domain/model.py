"""Subscriptions, deliveries and the outcome of an attempt."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime, time, timedelta
from typing import Literal
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from msgspec import Struct

from accord.terms.criteria import Compiled
from accord.terms.week import Week

Channel = Literal["webhook", "email", "slack", "teams"]
SubscriptionState = Literal["active", "disabled"]
DeliveryState = Literal["pending", "delivered", "dead", "dropped"]

DIGEST = "accord.digest"
"""The type of a message to a person that is made of several notifications."""
TEST = "accord.test"
SETTLING = frozenset({"sla.met.v1", "sla.clock_cancelled.v1", "sla.breach_withdrawn.v1", "sla.breach_acknowledged.v1"})
"""Events after which nobody has to read that the same clock is at risk or breached."""

_IDS = UUID("3f0c7a0e-5c57-5f0b-9a3e-0a4d1f6f7c11")
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
SECRET_BYTES = 32
_DISTINCT_BYTES_MIN = 12


class Subscription(Struct, frozen=True, kw_only=True):
    """One that is in force, with what it was compiled to. `filter` None: every event of its types."""

    subscription_id: UUID
    name: str
    channel: Channel
    state: SubscriptionState
    event_types: frozenset[str]
    filter: Compiled | None
    quiet_hours: Week | None
    digest: time | None
    zone: ZoneInfo
    person: str | None
    version: int

    @property
    def is_human(self) -> bool:
        return self.channel != "webhook"


OutcomeKind = Literal["delivered", "failed", "refused", "gone", "paced", "uncertain", "held", "dropped"]
"""`failed` is tried again; `refused` is not; `gone` asks for no more; `paced` asks to wait and counts as no failure; `uncertain` may have
arrived; `held` is a fault of our own configuration, for which no message dies; `dropped` has nothing left to say."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one attempt. `body` is the beginning of the answer."""

    kind: OutcomeKind
    error: str | None = None
    status: int | None = None
    body: str | None = None
    body_is_cut: bool = False
    retry_after: timedelta | None = None


class Attempt(Struct, frozen=True, kw_only=True):
    """An outcome with its time, as it is kept."""

    at: datetime
    outcome: OutcomeKind
    duration_ms: int | None = None
    status: int | None = None
    error: str | None = None
    body: str | None = None
    body_is_cut: bool = False


def notification_id(subscription_id: UUID, event_id: UUID) -> UUID:
    """The one id of an event for a subscription, however often it is tried."""
    return uuid5(subscription_id, str(event_id))


def endpoint_id(channel: Channel, address: str, person: str | None) -> UUID:
    """The id of where messages arrive: subscriptions with the same one share its pace, and their messages to people are merged."""
    return uuid5(_IDS, "\n".join((channel, address, person or "")))


def digest_id(endpoint: UUID, batch: str) -> UUID:
    """The id of the digest of an endpoint and a named day."""
    return uuid5(endpoint, batch)


def secret_error(secret: str) -> str | None:
    """What is wrong with a secret that somebody gives, None if it is one of Standard Webhooks and hard to guess."""
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if encoded == secret or not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        return f"must be whsec_ and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random bytes in base64"
    if len(set(key)) < _DISTINCT_BYTES_MIN:
        return "is too easy to guess: use random bytes"
    return None
