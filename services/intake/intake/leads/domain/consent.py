"""On what basis a person may be contacted, as it was said over time. Pure: nothing here is ever changed, only added."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from msgspec import Struct

WITHDRAWN = "withdrawn"
"""The basis that ends every other one."""


class Consent(Struct, frozen=True, gc=False):
    """One thing that was said. `submission_id` is the record that brought it, None where somebody wrote it down by itself. Where nobody
    said when, `dated` is false and `given_at` is the record's time."""

    consent_id: UUID
    basis: str
    given_at: datetime
    recorded_at: datetime
    caller: str
    text: str | None = None
    source: str | None = None
    submission_id: UUID | None = None
    dated: bool = True


def resolve_given_at(said: datetime | None, occurred_at: datetime, now: datetime) -> datetime:
    """When it was given: as said, else with the record. Never later than now, or it would outlast a withdrawal."""
    return min(said or occurred_at, now)


def find_current_consent(history: Iterable[Consent]) -> Consent | None:
    """What holds now: the newest by when it was given, and of two at one moment the one that was recorded later. What nobody dated is
    older than all that is dated.

    None where nothing was ever said, and after a withdrawal.
    """
    newest = max(history, key=lambda one: (one.dated, one.given_at, one.recorded_at, one.consent_id), default=None)
    return None if newest is None or newest.basis == WITHDRAWN else newest


WITHDRAWAL = "consent.withdrawn"
"""The activity by which everybody else learns that the person is not to be contacted any more. It carries no text."""
