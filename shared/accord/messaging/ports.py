"""The two ports of messaging: the log that carries events (Kafka) and the store that keeps state (PostgreSQL).

Relay, consumer, watermarks and dead letters know these protocols and nothing else of a server. `kafka_log` and
`relay_store`, `consumer_store` are what production uses; tests/simulation has both in memory, and one test suite runs
over both. A failure that may pass is any error that accord.db.errors.is_transient knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

from msgspec import Struct

Partition = tuple[str, int]
"""Topic, without the cluster's prefix, and partition."""

Headers = Sequence[tuple[str, bytes | None]]


# -- the log


class OutgoingRecord(NamedTuple):
    """One record to append."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class LogRecord(NamedTuple):
    """One record as it was read. `unreadable` says why the client could not even take it apart; then the rest is empty."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    appended_at: datetime
    """The broker's time, or where the topic says so the producer's."""
    unreadable: str | None = None


class LogPositionLost(Exception):
    """What a stored position says was read is not in the log: retention, a truncated or a recreated topic.

    Reading on would pass over events without a word, so the consumer stops until somebody decides.
    """

    safe_to_log = True

    def __init__(self, reason: str, partitions: Sequence[Partition]) -> None:
        super().__init__(reason)
        self.partitions = tuple(partitions)


class FiniteRetention(Exception):
    """A topic would lose events by age or size, so that a consumer could miss some."""

    safe_to_log = True


class LogWriter(Protocol):
    """Appends to one topic. After any failure it must be closed and another opened."""

    @property
    def partitions(self) -> int:
        """How many the topic has, as of the last look at the cluster."""
        ...

    async def ends(self) -> list[int]:
        """The offset after the last record of each partition, read from the log now."""
        ...

    async def append(self, partition: int, records: Sequence[OutgoingRecord]) -> int:
        """Append as many of the records as one batch takes, at least one; how many.

        Returns once all replicas in sync have them. One call at a time for a partition.
        """
        ...

    async def announce(self, key: bytes, value: bytes) -> None:
        """Append a record to the compacted topic of watermarks."""
        ...

    async def close(self) -> None:
        """Give the connection up at once; what is not acknowledged yet may or may not arrive."""
        ...


class LogReader(Protocol):
    """Reads partitions from the positions it is given. It keeps no position of its own beyond the connection."""

    async def partitions(self) -> Mapping[str, int]:
        """How many partitions each of its topics has now."""
        ...

    async def beginnings(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The offset of the oldest record that is still there, of each."""
        ...

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The positions that versions before stored positions committed to the log, where there are any; never what
        `commit` told it.
        """
        ...

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets, and no others. What was fetched before is dropped."""
        ...

    async def poll(self, timeout_s: float, records_max: int) -> Sequence[LogRecord]:
        """The next records, in order within each partition; none if none come in time. May be cancelled.

        Raises LogPositionLost.
        """
        ...

    def lag(self) -> Mapping[str, int]:
        """Records behind the ends, by topic, as far as the last fetches told."""
        ...

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """Tell the log how far the group has read, for tools that show lag. Nothing here reads it again."""
        ...

    async def close(self) -> None: ...


class EventLog(Protocol):
    """A cluster."""

    async def prepare(self, topics: Sequence[str]) -> None:
        """Create the topics that are missing. Raises FiniteRetention for one that would lose events."""
        ...

    async def open_writer(self, topic: str) -> LogWriter: ...

    async def open_reader(self, topics: Sequence[str], group: str | None) -> LogReader: ...


# -- claims: who may publish a lane or read a partition


class Claims(Protocol):
    """What one session holds of a shared pool. All of it is free again when the session ends, however it ends."""

    async def members(self) -> int:
        """How many sessions share the pool, this one among them."""
        ...

    async def claim(self, item: Partition) -> bool:
        """Hold an item, unless another session does."""
        ...

    async def release(self, item: Partition) -> None: ...

    async def close(self) -> None: ...


# -- the store, as the relay sees it


class OutboxRow(NamedTuple):
    """One event that is not published yet."""

    id: int
    event_id: UUID
    type: str
    key: str
    key_hash: int | None
    """None on rows of versions before it."""
    occurred_at: datetime
    traceparent: str | None
    payload: bytes


class Lane(Struct, frozen=True):
    """A share of the outbox: the rows whose key's hash, modulo `count`, is `number`."""

    number: int
    count: int


class Resting(Struct, frozen=True):
    """Partitions that are not to be read for now, under each number of partitions that keys are spread over."""

    partitions: Sequence[int]
    layouts: Sequence[int]


class Layout(Struct, frozen=True):
    """From this moment on the keys of new leads are spread over so many partitions; older keys stay where they are."""

    since: datetime
    partitions: int


class Writers(Struct, frozen=True):
    """Sessions that write now. `hidden`: how many of them cannot be seen, so that nothing may be concluded."""

    hidden: int
    writing_since: datetime | None


class Debts(Struct, frozen=True):
    """What a service still has to publish of what it has consumed, read in one snapshot."""

    last_id: int
    """The highest id in the outbox, 0 if it is empty."""
    owed_at: datetime | None
    """The earliest moment up to the consumed watermark that time still has to bring about."""
    held: frozenset[str] = frozenset()
    """Keys that bound nothing, so they have to be announced as held: those that were given, those of which something is missing with
    them, and those of rows that raised and owe for as long as they rest."""


class Progress(Struct, frozen=True):
    """How far a service has consumed, read in one snapshot."""

    positions: Mapping[Partition, int]
    held: frozenset[str]
    """Keys of which something could not be applied, so of unsettled dead letters."""
    holds_all: bool
    """It is not known of what something could not be applied, or it is too much."""


class RelaySession(Protocol):
    """A connection outside the pool; each call is a transaction with a snapshot of its own.

    The lanes that it has claimed are its own while it lives, so each call proves that they still are.
    """

    @property
    def lanes(self) -> Claims: ...

    async def read_layouts(self) -> list[Layout]:
        """Oldest first; empty before the topic was ever written."""
        ...

    async def add_layout(self, partitions: int) -> None:
        """Spread the keys of leads that come from a little later on over so many partitions."""
        ...

    async def read_rows(
        self, lane: Lane, after_id: int, resting: Resting, rows_max: int, bytes_max: int
    ) -> Sequence[OutboxRow]:
        """The first unpublished rows of a lane in id order, without those of resting partitions."""
        ...

    async def delete_rows(self, ids: Sequence[int]) -> None: ...

    async def read_clock(self) -> tuple[int, datetime]:
        """The last outbox id that was handed out, and then the server's time."""
        ...

    async def read_writers(self) -> Writers: ...

    async def oldest_recorded_at(self, lane: Lane, since: datetime) -> datetime | None:
        """Of the unpublished rows of a lane recorded since that moment."""
        ...

    async def first_id(self, lane: Lane, after_id: int) -> int | None:
        """The lowest unpublished id of a lane beyond `after_id`."""
        ...

    async def read_progress(self, consumers: Sequence[str]) -> Progress:
        """How far these consumers have come."""
        ...

    async def read_debts(self, consumed_at: datetime, held: frozenset[str]) -> Debts:
        """What is still to be published of what was consumed before that moment, but for what is held, and what that is."""
        ...

    async def close(self) -> None: ...


class RelayStore(Protocol):
    """A service's database, for its relay."""

    written: asyncio.Event
    """Set after each commit of this process that added rows."""

    async def open_session(self) -> RelaySession: ...

    async def reclaim_space(self) -> None:
        """Let the space of deleted rows be used again; may take minutes."""
        ...


# -- the store, as a consumer sees it


FROM_BEGINNING = -1
"""As a stored position: an operator has decided that the partition is read from whatever is its beginning by then."""

REACHES_NOTHING = -1
"""As the offset that a position reaches: nothing counts as read."""


class Position(Struct, frozen=True):
    """Where a consumer goes on in a partition, and the event that stands right before it, where that is known."""

    next_offset: int
    last_event_id: UUID | None = None
    is_lost: bool = False
    """The log does not hold what was read up to here. Nothing counts as read until it does again, or somebody decides."""

    @property
    def reached_offset(self) -> int:
        """The offset before which all counts as read."""
        return REACHES_NOTHING if self.is_lost else self.next_offset


class Move(Struct, frozen=True):
    """One step of a stored position: from where this consumer believes it to be, to where it is now."""

    expected: int
    to: Position


class PositionConflict(Exception):
    """Another process has moved a position in the meantime; nothing of this transaction may stay."""


DeadLetterKind = Literal["malformed", "poison", "unknown"]


class NewDeadLetter(Struct, frozen=True):
    """A record that is set aside, with all that is needed to apply it later."""

    kind: DeadLetterKind
    record: LogRecord
    event_id: UUID | None
    type: str | None
    keys: tuple[str, ...] | None
    """The keys of what it concerns; None if that is not known."""
    error: str


DeadLetterState = Literal["new", "replayed", "discarded"]


class StoredDeadLetter(Struct, frozen=True):
    """A dead letter as it is taken to be settled."""

    record: LogRecord
    event_id: UUID | None
    state: DeadLetterState


class ConsumedWatermarks(Struct, frozen=True):
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


class ConsumerTransaction(Protocol):
    """One transaction of a consumer: everything in it becomes true together or not at all."""

    @property
    def unit_of_work(self) -> Any:
        """What the handler gets: `now`, `publish`, and the connection."""
        ...

    async def claim_events(self, event_ids: Sequence[UUID]) -> set[UUID]:
        """Those that this consumer has not applied yet, now marked as applied."""
        ...

    async def advance(self, moves: Mapping[Partition, Move]) -> None:
        """Move the stored positions. Raises PositionConflict if one is not where it was expected."""
        ...

    async def add_dead_letters(self, dead_letters: Sequence[NewDeadLetter]) -> int:
        """Keep these records; how many unsettled ones there are now, counted up to a bound."""
        ...

    async def lock_dead_letter(self, id_: UUID) -> StoredDeadLetter | None:
        """One of this consumer's, locked until the end of the transaction; None if there is none."""
        ...

    async def settle_dead_letter(self, id_: UUID, state: DeadLetterState) -> None: ...

    async def delete_dead_letters(self, keys: Collection[str]) -> None:
        """Delete those of this consumer, settled or not, whose records have one of these keys: the person was erased."""
        ...

    async def store_watermarks(self, reached: ConsumedWatermarks) -> None:
        """Store until when the topics have been read, for answers that say what they are as of."""
        ...


class ConsumerStore(Protocol):
    """A service's database, for one consumer."""

    @property
    def consumer(self) -> str:
        """Its name."""
        ...

    def begin(self) -> AbstractAsyncContextManager[ConsumerTransaction]: ...

    async def open_claims(self) -> Claims:
        """A session that shares the consumer's partitions with those of other processes."""
        ...

    async def read_positions(self) -> Mapping[Partition, Position]:
        """All stored positions of this consumer."""
        ...

    async def set_lost(self, offsets: Mapping[Partition, int], is_lost: bool) -> None:
        """Mark positions as lost, or as found again, where they still are at these offsets."""
        ...

    async def create_positions(self, positions: Mapping[Partition, int]) -> None:
        """Store where partitions begin that have no position yet; those that have one stay."""
        ...

    async def count_unsettled(self) -> int:
        """Its dead letters that nobody has settled, counted up to a bound."""
        ...

    async def replayable(self, types: Sequence[str], limit: int) -> Sequence[UUID]:
        """Dead letters of kind `unknown` whose type is known by now, oldest first."""
        ...
