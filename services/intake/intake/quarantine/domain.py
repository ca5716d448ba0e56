"""What a person can do with a submission that the policy held back, and what is left of a pending lead without it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from msgspec.structs import replace
from pydantic import JsonValue

from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead, create_lead
from intake.leads.domain.quality import Quality
from intake.leads.domain.unit_of_work import Candidate

SettledState = Literal["released", "corrected", "discarded", "expired"]
"""How a submission left quarantine. `expired`: nobody decided before raw submissions are dropped."""
Action = Literal["released", "corrected", "discarded", "expired", "requarantined"]
"""What was done with it; `kept` is a correction after which it waits on."""

FIXED_FIELDS = frozenset({"source", "occurred_at"})
"""Where and when a record came from is a fact about the sender; no correction of the record changes it."""
PATCH_DEPTH_MAX = 8


class FixedField(ValueError):
    """A correction names what cannot be corrected; `field` says what."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


def apply_merge_patch(form: Mapping[str, JsonValue], fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The record after a JSON Merge Patch (RFC 7396): null takes a field away, objects are merged, all else takes its place.

    Raises FixedField. Whether the outcome is a record at all, its own form decides. Deeper than PATCH_DEPTH_MAX nothing is merged.
    """
    for name in sorted(FIXED_FIELDS & fields.keys()):
        raise FixedField(name)
    return _merge_patch(form, fields, PATCH_DEPTH_MAX)


def _merge_patch(target: Mapping[str, JsonValue], patch: Mapping[str, JsonValue], depth: int) -> dict[str, JsonValue]:
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and depth > 0:
            below = merged.get(name)
            merged[name] = _merge_patch(below if isinstance(below, dict) else {}, value, depth - 1)
        else:
            merged[name] = value
    return merged


def flag_released(quality: Quality) -> Quality:
    """The judgement of a record that a person let in as it is: the policy's own, but flagged instead of quarantined."""
    return replace(quality, verdict="flagged")


def remove_submission(pending: Lead, first: Candidate | None, kept: Collection[IdentityKey]) -> Lead:
    """A pending lead without one of the submissions that it waited for. `first` is the oldest that still waits, `kept` the keys of all
    that do.

    Without any other nothing is left of it but its id, its first source and its first time; what it is, a corrected record will say.
    """
    if first is None:
        return replace(
            pending, person={}, attributes={}, field_timestamps={}, account_id=None, campaign=None, external_keys=()
        )
    external = tuple(sorted(value for kind, value in kept if kind == "external"))
    if (first.values.at, first.values.source) == (pending.captured_at, pending.source):
        return replace(pending, external_keys=external)  # what made it still waits
    lead = create_lead(pending.lead_id, first.values, pending=True, sequence=pending.sequence)
    return replace(lead, external_keys=external)
