"""What the simulated services tell each other. The types are registered only while a simulation runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal
from unittest import mock

from accord.contracts import envelope
from accord.contracts.base import EVENT_TYPES, EventData, LeadEvent
from accord.contracts.values import Timestamp
from accord.messaging import consumer
from tests.simulation.process import CURRENT


class LeadReported(LeadEvent, frozen=True, kw_only=True):
    """Intake: something happened with a lead. It opens a clock, answers it, is acted on by qualification, or is only noted."""

    type: ClassVar[str] = "sim.told.v1"
    what: Literal["open", "answer", "act", "note"]
    due_ms: int = 0
    """After so long the clock that it opens is due."""
    owes_ms: int = 0
    """After so long, unless it was answered, time alone brings something about in qualification; 0 for nothing."""
    poison: tuple[str, ...] = ()
    """Consumers that cannot apply it before they are mended."""


class LeadAdded(LeadEvent, frozen=True, kw_only=True):
    """Intake: a type that programs know from their second version on."""

    type: ClassVar[str] = "sim.noted.v2"


class LeadReacted(LeadEvent, frozen=True, kw_only=True):
    """Qualification: what follows from intake's event `cause`, by acting on it or by time alone."""

    type: ClassVar[str] = "sim.followed.v1"
    what: Literal["acted", "aged"]
    cause: int
    root_at: Timestamp
    """When intake recorded what it follows from, or when time brought it about."""


_TYPES: dict[str, type[EventData]] = {cls.type: cls for cls in (LeadReported, LeadAdded, LeadReacted)}


class _KnownTypes(dict[str, type[EventData]]):
    """The register as each process has it: an old version does not know the newest types."""

    def __contains__(self, type_: object) -> bool:
        process = CURRENT.get()
        return super().__contains__(type_) and (process is None or process.knows(str(type_)))

    def __iter__(self) -> Iterator[str]:
        return (type_ for type_ in super().__iter__() if type_ in self)


@contextmanager
def registered() -> Iterator[None]:
    """Let the envelope and the consumer know the simulated types."""
    known = _KnownTypes({**EVENT_TYPES, **_TYPES})
    with mock.patch.object(envelope, "EVENT_TYPES", known), mock.patch.object(consumer, "EVENT_TYPES", known):
        yield
