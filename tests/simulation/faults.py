"""Planted faults: each breaks one rule that the real code keeps, so that a test can show that the simulator would notice.

They wrap the ports, or the little that the simulated services do themselves; nothing in production code knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from accord.messaging.ports import EventLog
from tests.simulation.database import Session

if TYPE_CHECKING:
    from tests.simulation.services import Instance

CLOCKS_MAX = 5


class Faults:
    """None: everything as it should be."""

    name = "none"

    def log(self, log: EventLog, instance: Instance) -> EventLog:
        return log

    def relay_store(self, store: Any, instance: Instance) -> Any:
        return store

    def consumer_store(self, store: Any, instance: Instance) -> Any:
        return store

    def newer_state(self, known: int, told: int) -> int:
        """Which of two states of a lead holds, by their sequences."""
        return max(known, told)

    async def claim_clocks(
        self, session: Session, before: datetime, held: frozenset[str]
    ) -> Sequence[tuple[tuple[str, int], Any]]:
        """Clocks with something due before that moment, locked, without those of held leads or that others hold."""
        return await session.call(lambda: claim_due(session, before, held, lock=True))

    async def move_clocks(self, session: Session, moved: Sequence[tuple[tuple[str, int], Any, Any]]) -> None:
        """Write clocks, each as it was read and as it is now."""
        await session.call(lambda: None)
        for key, was, becomes in moved:
            found = await session.lock("clock", key)
            if found is None or found[0].said != was[0].said:
                raise asyncpg.SerializationError("a clock was moved on by another transaction")
            session.put("clock", key, becomes)


def claim_due(
    session: Session, before: datetime, held: frozenset[str], *, lock: bool
) -> list[tuple[tuple[str, int], Any]]:
    """What is due, as one statement."""
    found = []
    for key, stored in sorted(session.rows("clock").items()):
        next_at = stored[0].next_at
        if next_at is None or next_at >= before or key[0] in held or not session.can_lock("clock", key):
            continue
        if lock:
            session.take_lock(("clock", key))
        found.append((key, stored))
        if len(found) == CLOCKS_MAX:
            break
    return found


PLANTED: dict[str, type[Faults]] = {}


def by_name(name: str) -> Faults:
    """A planted fault, or none."""
    return Faults() if name == "none" else PLANTED[name]()
