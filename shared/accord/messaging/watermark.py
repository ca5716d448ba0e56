"""Watermarks: until when everything is published, and until when everything was consumed. Pure; it talks to no server.

**Produced.** T may be announced when everything that this service recorded before T has been acknowledged by the log.
Every recording first takes the shared advisory lock K and reads its `now` from the server's clock *after* that. The
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
has position 0. A position that is lost reaches nothing: a topic that was made anew ends before where its old one was
read until. Until the consumer has noticed, announcements that end before an earlier one do not count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from accord.contracts.watermarks import Announcement
from accord.messaging.ports import Partition

ENTRIES_MAX = 64
"""Announcements of a lane that wait to be reached. Beyond, every second one is dropped: a coarser step, never a wrong one."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a service has consumed the topics that it reads, as one transaction sees it."""

    topics: Mapping[str, datetime]
    """Until when all of a topic has been read; a topic of which that is not known is left out."""
    held: frozenset[str] = frozenset()
    """Keys for which it is not so, since something of them could not be applied."""
    holds_all: bool = False
    """Something could not be applied of which nobody knows whom it concerns."""

    def until(self, topics: Iterable[str]) -> datetime | None:
        """Until when all of these topics has been read; None if that is not known, or everything is held."""
        if self.holds_all or any(topic not in self.topics for topic in topics):
            return None
        return min((self.topics[topic] for topic in topics), default=None)


class AnnouncementBoard:
    """The announcements that were heard, by topic and lane, as far as they still matter."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int], deque[Announcement]] = {}
        self.changes = 0
        """Counts what was added, so that others notice."""
        self.doubts = 0
        """Counts announcements of a topic that has become shorter, so that consumers verify what they stand on."""

    def add(self, topic: str, lane: int, announcement: Announcement) -> None:
        """Take an announcement in, unless its ends lie before those of another: everybody would have reached them."""
        entries = self._entries.setdefault((topic, lane), deque())
        if entries and _is_shorter(announcement.ends, entries[-1].ends):
            self.doubts += announcement.at > entries[-1].at  # else it is an older one, heard again
            return
        self.changes += 1
        if len(entries) >= ENTRIES_MAX:
            kept = [entry for number, entry in enumerate(entries) if number % 2 == 0]
            entries.clear()
            entries.extend(kept)
        entries.append(announcement)

    def newest(self, topic: str) -> datetime | None:
        """What the topic's producer announced last; None before it was heard."""
        lanes = self._lanes(topic)
        return min((entries[-1].at for entries in lanes), default=None) if lanes is not None else None

    def reached(self, topics: Iterable[str], positions: Mapping[Partition, int]) -> Reached:
        """How far a consumer with these positions has read these topics."""
        by_topic: dict[str, datetime] = {}
        held: set[str] = set()
        for topic in topics:
            if any(offset < 0 for (name, _), offset in positions.items() if name == topic):
                self._forget(topic)
            entries = self._reached_entries(topic, positions)
            if entries is not None:
                by_topic[topic] = min(entry.at for entry in entries)
                held.update(*(entry.held for entry in entries))
        return Reached(by_topic, frozenset(held))

    def _forget(self, topic: str) -> None:
        """Whoever goes on behind a lost position begins with the log as it is then."""
        for key in [key for key in self._entries if key[0] == topic]:
            del self._entries[key]

    def _reached_entries(self, topic: str, positions: Mapping[Partition, int]) -> list[Announcement] | None:
        lanes = self._lanes(topic)
        if lanes is None:
            return None
        found = []
        for entries in lanes:
            count = entries[-1].lanes
            entry = _newest_reached(topic, entries, positions)
            if entry is None or entry.lanes != count:
                return None
            found.append(entry)
        return found

    def _lanes(self, topic: str) -> list[deque[Announcement]] | None:
        """The entries of each lane; None while the lanes are not all heard or do not agree on their number."""
        first = self._entries.get((topic, 0))
        if not first:
            return None
        count = first[-1].lanes
        lanes = [self._entries.get((topic, lane)) for lane in range(count)]
        known = [entries for entries in lanes if entries and entries[-1].lanes == count]
        return known if len(known) == count else None


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


def _is_shorter(ends: Sequence[int], before: Sequence[int]) -> bool:
    return len(ends) < len(before) or any(end < other for end, other in zip(ends, before, strict=False))


def _is_reached(topic: str, ends: Sequence[int], positions: Mapping[Partition, int]) -> bool:
    return all(positions.get((topic, partition), 0) >= end for partition, end in enumerate(ends))
