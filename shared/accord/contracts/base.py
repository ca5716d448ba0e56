"""The base of every event's data, and the register in which each type is found by its name."""

from __future__ import annotations

from typing import ClassVar, TypeVar
from uuid import UUID

from accord.contracts.values import Ordinal, Timestamp, Value


class EventData(Value, frozen=True, kw_only=True):
    """What every event carries.

    A producer may add optional fields to a type, but never remove, rename, narrow or newly require one.
    """

    type: ClassVar[str]
    """CloudEvents type, past tense and versioned: `lead.captured.v1`."""

    occurred_at: Timestamp
    """When it happened, possibly reported late."""
    recorded_at: Timestamp
    """The time of the transaction that wrote it."""

    @property
    def key(self) -> str:
        """The Kafka key: all events of one key keep their order."""
        raise TypeError(f"{type(self).__name__} has no key")

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all that it concerns, its own first."""
        return (self.key,)


class LeadEvent(EventData, frozen=True, kw_only=True):
    """An event in the life of one lead."""

    lead_id: UUID
    sequence: Ordinal
    """Counts the producer's events of this lead from 1, without gaps."""

    @property
    def key(self) -> str:
        return str(self.lead_id)


EVENT_TYPES: dict[str, type[EventData]] = {}

E = TypeVar("E", bound=type[EventData])


def event(cls: E) -> E:
    """Register a final event class under its `type`. Two classes with one type are a programming error."""
    if cls.type in EVENT_TYPES:
        raise ValueError(f"event type {cls.type} is registered twice")
    EVENT_TYPES[cls.type] = cls
    return cls
