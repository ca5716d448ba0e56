"""Facts about a lead, as clauses see them: one shape for activities, decisions, stage entries, assignments and captures."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.base import EventData
from accord.contracts.intake_events import ActivityRecorded, LeadCaptured
from accord.contracts.qualification_events import LeadAssigned, LeadDecided, LeadStageChanged
from accord.contracts.values import ActorKind, Party, StageKind

FactKind = Literal["activity", "decision", "stage", "assigned", "captured", "period"]
"""A period begins by itself; every other fact comes from an event."""

_BY_QUALIFICATION = frozenset({"decision", "stage", "assigned"})


class Fact(Struct, frozen=True, gc=False):
    """One fact. `key` identifies it among the lead's facts. `sequence` is the producer's for this lead.

    A correction has the sequence 0: its time alone orders it. `name` is the activity's kind, the decision, the stage or
    the owner. `cause` is the decision that led to a stage, or the breach that led to an assignment.
    """

    kind: FactKind
    key: str
    name: str
    occurred_at: datetime
    recorded_at: datetime
    sequence: int
    by: Party | None = None
    stage_kind: StageKind | None = None
    cause: UUID | None = None
    actor_kind: ActorKind | None = None

    def is_stage_entry(self, sequence: int) -> bool:
        """Whether this is the stage entry that was published under a sequence."""
        return self.kind == "stage" and (self.sequence == sequence or self.key.endswith(f"#{sequence}"))

    @property
    def is_from_qualification(self) -> bool:
        """Whether qualification published it, so that its sequence orders it; otherwise intake did."""
        return self.kind in _BY_QUALIFICATION


def extract_fact(event: EventData) -> Fact | None:  # noqa: PLR0911 - one for each type
    """Extract the fact that an event carries, None if no clause can name one."""
    match event:
        case ActivityRecorded():
            return _make_fact(
                "activity", f"activity/{event.activity_id}", event.kind, event, event.by, event.actor_kind
            )
        case LeadDecided():
            key = f"decision/{event.decision_id}"
            return _drop_sequence_of_correction(
                _make_fact("decision", key, event.decision, event, cause=event.decision_id), event
            )
        case LeadStageChanged(withdrawn=True):
            return None
        case LeadStageChanged():
            key = f"stage/{event.stage}/{event.visit}" + (f"#{event.sequence}" if event.correction else "")
            fact = _make_fact("stage", key, event.stage, event, stage_kind=event.stage_kind, cause=event.decision_id)
            return _drop_sequence_of_correction(fact, event)
        case LeadAssigned(owner=str(owner)):
            return _make_fact("assigned", f"assigned/{event.sequence}", owner, event, cause=event.breach_id)
        case LeadCaptured():
            return _make_fact("captured", "captured", "", event)
        case _:
            return None


FactEvent = ActivityRecorded | LeadDecided | LeadStageChanged | LeadAssigned | LeadCaptured


def _drop_sequence_of_correction(fact: Fact, event: LeadDecided | LeadStageChanged) -> Fact:
    return replace(fact, sequence=0) if event.correction else fact


def _make_fact(
    kind: FactKind,
    key: str,
    name: str,
    event: FactEvent,
    by: Party | None = None,
    actor_kind: ActorKind | None = None,
    *,
    stage_kind: StageKind | None = None,
    cause: UUID | None = None,
) -> Fact:
    at, recorded_at, sequence = event.occurred_at, event.recorded_at, event.sequence
    return Fact(kind, key, name, at, recorded_at, sequence, by, stage_kind, cause, actor_kind)
