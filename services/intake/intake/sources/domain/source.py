"""A configured source: by which adapter its tool speaks to us, how its fields become ours, and which secrets verify it. Pure; the
secrets are encrypted here, never in clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from msgspec import Struct
from pydantic import JsonValue

from intake.sources.domain.mapping import FieldMapping, parse_mapping

SECRETS_VALID_MAX = 2
"""Of one kind, at a time: the new one and the one before, so that a tool can be changed over without losing an event."""


class EncryptedSecret(Struct, frozen=True, gc=False):
    """One secret as it lies in the database. `kind` is what the adapter needs it for (`signing`, `url`, `token`, …)."""

    kind: str
    secret_id: str
    encrypted: str
    set_at: datetime
    until: datetime | None = None
    """The moment from which it is no longer valid; None: until it is replaced or dropped."""


@dataclass(frozen=True, slots=True)
class Source:
    """One source as it is configured. `mapping_document` is the mapping as it was put, `defaults` values by target."""

    name: str
    adapter: str | None
    settings: Mapping[str, JsonValue]
    mapping_document: Mapping[str, JsonValue]
    defaults: Mapping[str, JsonValue]
    secrets: tuple[EncryptedSecret, ...] = field(default=(), repr=False)
    version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def mapping(self) -> FieldMapping:
        """The mapping ready for use; parsed anew each time, so keep it."""
        return parse_mapping(self.mapping_document)
