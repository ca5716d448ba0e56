"""Up to which moment a lane of a relay may announce that all is published. The reasons are in accord.messaging.announcement_board."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog
from msgspec import Struct

from accord.messaging.announcement_board import AnnouncementBoard
from accord.messaging.ports import Lane, RelaySession

log = structlog.get_logger(__name__)

_CLOCK_STEP_MAX = timedelta(minutes=1)
"""The server's clock may be set back so far without a row being overlooked."""

_SAMPLES_MAX = 600

HELD_MAX = 1_000
"""So many keys an announcement may hold; beyond, it claims nothing new."""


class Consumed(Struct, frozen=True):
    """What a service reads of others, and so waits for: topics, and the consumers that read them."""

    board: AnnouncementBoard
    topics: Sequence[str]
    consumers: Sequence[str]


class Bound(Struct, frozen=True):
    """What may be announced: everything before `at` is published, but for `held`."""

    at: datetime
    held: frozenset[str] = frozenset()


class Frontier:
    """Of one lane, while its lock is held. `floor_id`: no unpublished row has an id so low."""

    def __init__(self, lane: Lane, consumed: Consumed | None = None) -> None:
        self._lane = lane
        self._consumed = consumed
        self._bound: Bound | None = None
        self._awaited: tuple[Bound, int] | None = None
        self._published_until = datetime.fromtimestamp(0, UTC) + _CLOCK_STEP_MAX
        self._samples: deque[tuple[datetime, int]] = deque(maxlen=_SAMPLES_MAX)
        self.floor_id = 0

    async def advance(self, session: RelaySession) -> Bound | None:
        """What may be announced now; None while nothing may."""
        last_id, now = await session.read_clock()
        writers = await session.read_writers()
        if writers.hidden:
            log.warning("watermark_withheld", reason="writers that cannot be seen", writers=writers.hidden)
            return None
        oldest = await session.oldest_recorded_at(self._lane, self._published_until - _CLOCK_STEP_MAX)
        own = min(bound for bound in (now, writers.writing_since, oldest) if bound is not None)
        self._samples.append((now, last_id))
        self._raise_floor(own)
        if self._consumed is None:
            return Bound(own)
        await self._advance_bound(session, self._consumed)
        bound = self._bound
        return None if bound is None else Bound(min(own, bound.at), bound.held)

    def _raise_floor(self, own: datetime) -> None:
        """Rows recorded before `own` are published, and later ones have ids handed out later: dead rows of published ones,
        which a long snapshot keeps from being removed, need not be waded through."""
        self._published_until = max(self._published_until, own)
        while self._samples and self._samples[0][0] + _CLOCK_STEP_MAX <= own:
            _, self.floor_id = self._samples.popleft()

    async def _advance_bound(self, session: RelaySession, consumed: Consumed) -> None:
        """Let a consumed watermark count once every row that was in the outbox when it was read is published."""
        if self._awaited is None:
            progress = await session.read_progress(consumed.consumers)
            reached = consumed.board.reached(consumed.topics, progress.positions)
            until = reached.until(consumed.topics)
            if until is None or progress.holds_all:
                return
            # After the positions: what they cover is committed by now, as rows of the outbox or as a debt of time.
            debts = await session.read_debts(until, reached.held | progress.held)
            if len(debts.held) > HELD_MAX:
                return
            at = until if debts.owed_at is None else min(until, debts.owed_at)
            self._awaited = (Bound(at, debts.held), debts.last_id)
        claim, last_id = self._awaited
        first_id = await session.first_id(self._lane, self.floor_id)
        if first_id is None or first_id > last_id:
            self._bound, self._awaited = claim, None
