"""Watermarks: until when everything is published, and until when everything was consumed. Pure; it talks to no server.

**Produced.** T may be announced when everything that this service recorded before T has been acknowledged by the log.
Every unit of work first takes the shared advisory lock K and reads its `now` from the server's clock *after* that. The
relay reads, in this order and each with a snapshot of its own:

1. T0, the server's `clock_timestamp()`;
2. the earliest `xact_start` among the sessions that hold K;
3. the oldest `recorded_at` in the outbox (published rows are gone from it).

T is the least of them. A writer whose `now` < T0 held K at T0. At step 2 it either still holds K, and its
`xact_start` <= `now` bounds T; or it has released K, which PostgreSQL does only after the commit has become visible,
so step 3 sees its rows or they are published. A writer whose `now` >= T0 cannot write anything before T. (Reading
locks and activity in one statement is safe in either order: a session that lost K in between has committed, one that
gained it has `now` >= T0.) The clock must not be set back while the service writes.

**Bounded by what was consumed.** A service that records consequences of others' events announces no T beyond the
consumed watermark W. W counts once every row that was in the outbox when W was known is published, and once time has
brought about everything that it owed at or before W. Leads with unsettled dead letters are announced as held.

**Announced.** One record for each lane of the relay in a compacted topic: `{at, lanes, ends, held}`. `ends` are the
offsets after the last record of each partition at that moment, so T does not stand in the partitions themselves:
added partitions, idle ones and the number of consumers make no difference.

**Consumed.** A consumer counts T once its stored positions have reached the ends. A partition that it does not know
has position 0. A position that is lost reaches nothing, and a topic that became shorter is doubted first (see
AnnouncementBoard).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from accord.contracts.watermarks import Announcement
from accord.messaging.ports import ConsumedWatermarks, Partition

log = structlog.get_logger(__name__)

ENTRIES_MAX = 64
"""Announcements of a lane that wait to be reached. Beyond, every second one is dropped: a coarser step, never a wrong one."""

DOUBTED_FOR = timedelta(minutes=1)
"""By then a consumer has verified its positions, even if another process had to lose its claims first."""


class AnnouncementBoard:
    """The announcements that were heard, by topic and lane, as far as they still matter.

    Positions say nothing of a topic that was created again, or has lost its end: it ends before them, so everybody would have
    reached its ends. So nothing counts while a lane's ends lie before those that it announced earlier, or before the
    positions that this board saw first. A consumer verifies its positions meanwhile, and marks them as lost if they are.
    After DOUBTED_FOR the topic is taken as it is: its positions were found, and only what nobody had read is gone.
    """

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._first_looks: dict[str, _FirstLook] = {}
        self.changes = 0
        """Counts what was added, so that others notice."""
        self.is_verified = True
        """Whether the positions are known to be of these topics. A consumer that runs beside the board says so of those that it reads."""
        self.doubts = 0
        """Counts topics that were found to have become shorter, so that consumers verify their positions."""

    def add(self, topic: str, lane: int, announcement: Announcement) -> None:
        """Add an announcement."""
        lane_state = self._lanes.setdefault((topic, lane), _Lane())
        entries = lane_state.entries
        if entries and _is_before(announcement.ends, entries[-1].ends):
            if announcement.at <= entries[-1].at:
                return  # an older one, heard again
            if lane_state.doubted_at is None:
                lane_state.doubted_at = announcement.at
                self.doubts += 1
                log.error("topic_truncated", topic=topic, lane=lane)
            if announcement.at < lane_state.doubted_at + DOUBTED_FOR:
                return
            entries.clear()
        lane_state.doubted_at = None
        self.changes += 1
        if len(entries) >= ENTRIES_MAX:
            kept = [entry for number, entry in enumerate(entries) if number % 2 == 0]
            entries.clear()
            entries.extend(kept)
        entries.append(announcement)

    def newest(self, topic: str) -> datetime | None:
        """What the topic's producer announced last; None before it was heard."""
        lanes = self._lanes_of(topic)
        return min((lane.entries[-1].at for lane in lanes), default=None) if lanes is not None else None

    def reached(self, topics: Iterable[str], positions: Mapping[Partition, int]) -> ConsumedWatermarks:
        """How far a consumer with these positions has read these topics."""
        by_topic: dict[str, datetime] = {}
        held: set[str] = set()
        for topic in topics if self.is_verified else ():
            entries = self._reached_entries(topic, positions)
            if entries is not None:
                by_topic[topic] = min(entry.at for entry in entries)
                held.update(*(entry.held for entry in entries))
        return ConsumedWatermarks(by_topic, frozenset(held))

    def _reached_entries(self, topic: str, positions: Mapping[Partition, int]) -> list[Announcement] | None:
        own = {partition: offset for partition, offset in positions.items() if partition[0] == topic}
        if any(offset < 0 for offset in own.values()):
            self._forget(topic)
            return None
        first_look = self._first_looks.setdefault(topic, _FirstLook(own))
        lanes = self._lanes_of(topic)
        if lanes is None or any(lane.doubted_at is not None for lane in lanes):
            return None
        if not first_look.is_confirmed([lane.entries[-1] for lane in lanes]):
            return None
        found = []
        for lane in lanes:
            entries = lane.entries
            entry = _newest_reached(topic, entries, positions)
            if entry is None or entry.lanes != entries[-1].lanes:
                return None
            found.append(entry)
        return found

    def _forget(self, topic: str) -> None:
        """Whoever goes on behind a lost position begins with the log as it is then."""
        for key in [key for key in self._lanes if key[0] == topic]:
            del self._lanes[key]
        self._first_looks.pop(topic, None)

    def _lanes_of(self, topic: str) -> list[_Lane] | None:
        """What was heard of each lane; None while they are not all heard or do not agree on their number."""
        first = self._lanes.get((topic, 0))
        if first is None:
            return None
        count = first.entries[-1].lanes
        lanes = [self._lanes.get((topic, number)) for number in range(count)]
        known = [lane for lane in lanes if lane is not None and lane.entries[-1].lanes == count]
        return known if len(known) == count else None


@dataclass(slots=True)
class _Lane:
    """What was heard of one lane of a topic."""

    entries: deque[Announcement] = field(default_factory=deque)
    """Never empty once something was added."""
    doubted_at: datetime | None = None
    """The first announcement that ended before an earlier one; None while there is none."""


class _FirstLook:
    """The positions that a board saw first of a topic. They count once announcements end after them, since others may be of a
    log that was created again while this process was down."""

    def __init__(self, offsets: Mapping[Partition, int]) -> None:
        self._offsets = offsets
        self._doubted_at: datetime | None = None

    def is_confirmed(self, newest: Sequence[Announcement]) -> bool:
        """Whether one of these announcements, one of each lane, ends after the positions, or they have come for so long that none
        ever will."""
        at = min(announcement.at for announcement in newest)
        if any(_ends_after(announcement.ends, self._offsets) for announcement in newest):
            self._offsets = {}
        elif self._doubted_at is None:
            self._doubted_at = at
        elif at >= self._doubted_at + DOUBTED_FOR:
            self._offsets = {}
        return not self._offsets


def _ends_after(ends: Sequence[int], offsets: Mapping[Partition, int]) -> bool:
    return all(offset <= (ends[number] if number < len(ends) else 0) for (_, number), offset in offsets.items())


def _newest_reached(
    topic: str, entries: deque[Announcement], positions: Mapping[Partition, int]
) -> Announcement | None:
    """The newest entry whose ends are reached. What is older than it never matters again."""
    for number in range(len(entries) - 1, -1, -1):
        if _is_reached(topic, entries[number].ends, positions):
            for _ in range(number):
                entries.popleft()
            return entries[0]
    return None


def _is_before(ends: Sequence[int], earlier: Sequence[int]) -> bool:
    return len(ends) < len(earlier) or any(end < other for end, other in zip(ends, earlier, strict=False))


def _is_reached(topic: str, ends: Sequence[int], positions: Mapping[Partition, int]) -> bool:
    return all(positions.get((topic, partition), 0) >= end for partition, end in enumerate(ends))
