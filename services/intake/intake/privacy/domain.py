"""Erasing a person: whom it covers, what is published, and what stays as a record. Pure; nothing that stays names anybody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from accord.contracts.intake_events import LeadErased
from intake.leads.domain.keys import IdentityKey, format_key
from intake.leads.domain.lead import Lead

Reason = Literal["request", "consent_withdrawn", "retention", "mistake", "other"]
"""Why. A word of ours and no free text: whoever asked could be named in it."""


class PersonRecord(Struct, frozen=True, gc=False):
    """A lead with all that were merged into it, and all their keys: what intake knows as one person."""

    root: UUID
    leads: Mapping[UUID, Lead]
    keys: frozenset[IdentityKey]

    @property
    def lead_ids(self) -> list[UUID]:
        return sorted(self.leads)

    @property
    def key_words(self) -> list[str]:
        """The keys as submissions without a lead carry them."""
        return sorted(format_key(key) for key in self.keys)


class ErasureRecord(Struct, frozen=True, gc=False):
    """That a person was erased: ids, which speak of nobody any more, and how many of what was removed."""

    erasure_id: UUID
    lead_ids: tuple[UUID, ...]
    reason: Reason
    caller: str
    policy_version: int | None
    removed: Mapping[str, int]
    recorded_at: datetime


def build_erased_events(leads: Iterable[Lead], now: datetime) -> list[LeadErased]:
    """What the other services hear: one event for each id of which they have ever heard, the last with this id."""
    return [
        LeadErased(lead_id=lead.lead_id, sequence=lead.sequence + 1, occurred_at=now, recorded_at=now)
        for lead in sorted(leads, key=lambda lead: lead.lead_id)
        if lead.sequence > 0
    ]
