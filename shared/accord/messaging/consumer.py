"""The consumer: reads topics and applies each event once, by the service's handler. It reads no event's data.

Processes share the partitions by claims, and read each from the position that is stored in the database. A batch is one
transaction: inbox, effects, outbox, and the moved positions. The move says where the position was believed to be, so of
two processes that read one partition, as after a pause, only one commits. The position that Kafka is told is for tools
that show lag; nothing here reads it. Failures are of three kinds:

- transient (a lost connection, a deadlock): after a back-off the positions are read again, and the next batch is half
  as large, so that one which never fits a time-out gets through in parts;
- poison (the handler fails on an event whatever else is in the batch): the batch is bisected to the event, which goes
  to the dead letters in the transaction that passes its position. Malformed records go there too, and events of a type
  that this version does not know, for the next one;
- bug (too many poison events in a row, or in share of the last ones): the consumer stops with TooManyPoisonEvents.

Before a partition is read, the record right before its position is compared with what is stored: a log that was made
anew, or lost its end, is noticed (LogPositionLost) instead of read on in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol
from uuid import UUID

import structlog
from msgspec import Struct
from opentelemetry import trace

from accord import tracing
from accord.contracts.base import EVENT_TYPES, EventData
from accord.contracts.envelope import MalformedEvent, UnknownEventType, decode, event_id_of, type_of
from accord.contracts.intake_events import LeadErased
from accord.contracts.watermarks import WatermarkAdvanced
from accord.db import is_transient
from accord.messaging import instruments
from accord.messaging.claims import balance
from accord.messaging.dead_letters import describe, replay
from accord.messaging.handler import Handler, Received
from accord.messaging.polling import poll_until_stopped
from accord.messaging.ports import (
    FROM_BEGINNING,
    Claims,
    ConsumedWatermarks,
    ConsumerStore,
    ConsumerTransaction,
    DeadLetterKind,
    EventLog,
    LogPositionLost,
    LogReader,
    LogRecord,
    Move,
    NewDeadLetter,
    Partition,
    Position,
    PositionConflict,
)
from accord.retry import Backoff
from accord.workers import StallDetector, pause

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

_POLL_S = 3.0
_BALANCE_EVERY_S = 3.0
_COMMIT_EVERY_S = 0.5
_COMMIT_S_MAX = 5.0
_STORE_PROGRESS_EVERY_S = 1.0
_STORE_PROGRESS_IDLE_EVERY_S = 10.0
_ROWS_PER_TURN = 500
_BATCH_SLOW_S = 0.4
_BATCH_QUICK_S = 0.2
_BATCH_ROWS_MIN = 50
_BACKOFF_S_MAX = 5.0
_REPLAYED_AT_ONCE_MAX = 500
_REPLAY_EVERY_S = 30.0
_HELD_KEY_CHARS_MAX = 200
"""A longer key is none of ours, and an announcement has to stay small."""

UNSETTLED_MAX = 10_000
"""So many unsettled dead letters, and the consumer stops: somebody has to look before it sets more aside."""


class PoisonEvent(Exception):
    """Raised by a handler for an event that can never be applied. With `received` it is isolated without bisecting.

    The reason is kept with the dead letter and shown to operators, so it must not quote the event's data.
    """

    def __init__(self, reason: str, received: Received | None = None) -> None:
        super().__init__(reason)
        self.received = received


class TooManyPoisonEvents(Exception):
    """So many events failed that the fault is ours, not theirs. The consumer must stop before it sets more aside."""

    safe_to_log = True


class DeadLetterFailed(Exception):
    """A poison event could not be set aside; the consumer stops rather than passing over it."""

    safe_to_log = True


class PoisonLimits(Struct, frozen=True):
    """When poison counts as a bug: so many in succession, or more than this share of the last `window_events`.

    The share is looked at once `window_events_min` events have been seen.
    """

    consecutive_max: int = 20
    share_max: float = 0.5
    window_events: int = 1000
    window_events_min: int = 100
    unsettled_max: int = UNSETTLED_MAX


class ProgressReader(Protocol):
    """Says how far topics were consumed by a consumer with some positions (see WatermarkReader)."""

    @property
    def doubts(self) -> int:
        """Grows with every sign that a topic is not the one that was read before."""
        ...

    def set_verified(self, is_verified: bool) -> None:
        """Whether the positions that this process reads from are known to be of the topics as they are."""
        ...

    def notify_moved(self) -> None: ...

    def consumed_by(self, positions: Mapping[Partition, int]) -> ConsumedWatermarks: ...


class _Item(Struct, frozen=True):
    """One record of a batch: an event, or a record that is set aside. With neither, it is passed over."""

    record: LogRecord
    received: Received | None = None
    dead_letter: NewDeadLetter | None = None

    @property
    def partition(self) -> Partition:
        return self.record.topic, self.record.partition


class Consumer:
    """Worker. `group` is the consumer's name in inbox, positions and dead letters, and in the log for its lag."""

    def __init__(
        self,
        store: ConsumerStore,
        event_log: EventLog,
        *,
        group: str,
        topics: Sequence[str],
        handle: Handler,
        progress: ProgressReader | None = None,
        batch_rows_max: int = 2000,
        gather_rows: int = 200,
        gather_s: float = 0.04,
        poison: PoisonLimits | None = None,
        stuck_after_s: float = 60.0,
    ) -> None:
        self.name = f"consumer-{group}"
        self.group = group
        self._store = store
        self._log = event_log
        self._topics = list(topics)
        self._handle = handle
        self._progress = progress
        self._batch_rows_max = batch_rows_max
        self._batch_rows = batch_rows_max
        self._gather_rows = gather_rows
        self._gather_s = gather_s
        self._limits = poison or PoisonLimits()
        self._stall = StallDetector(stuck_after_s)
        self._backoff = Backoff(first_s=0.1, max_s=_BACKOFF_S_MAX)
        self._consecutive_poison = 0
        self._outcomes: deque[bool] = deque(maxlen=self._limits.window_events)
        self._positions: dict[Partition, Position] = {}
        """Of the partitions that are read now: where the last transaction left them."""
        self._unverified: dict[Partition, Position] = {}
        self._doubts = 0
        self._is_set_back = False
        """Somebody else has changed a stored position."""
        self._remaining: list[LogRecord] = []
        """Records of a batch that a passing failure left, to be tried before others are fetched."""
        self._committed: dict[Partition, int] = {}
        self._committing: asyncio.Task[None] | None = None
        self._not_replayed: set[UUID] = set()
        """Dead letters of unknown events that failed here; at most as many as `replayable` gives at once."""
        self._stored_watermarks: ConsumedWatermarks | None = None
        self._store_progress_at = 0.0
        self._lag = 0
        self._in_hand = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`, then finish the batch in hand.

        A lost log or database is tried again for ever with bounded back-off; TooManyPoisonEvents, DeadLetterFailed,
        LogPositionLost and programming errors outside the handler end it.
        """
        backoff = Backoff(first_s=0.1, max_s=2.0)
        self._consecutive_poison = 0
        self._outcomes.clear()
        while not stop.is_set():
            if self._progress is not None:
                self._progress.set_verified(False)
            try:
                await self._replay_unknown(stop)
                await self._session(stop, backoff)
            except Exception as error:
                if not _is_retryable(error):
                    raise
                self._stall.record_failure()
                log.warning("consumer_disconnected", consumer=self.group, error=type(error).__name__)
                await backoff.wait(stop)

    def problem(self) -> str | None:
        if self._stall.is_stuck:
            waiting = self._lag + self._in_hand
            return f"{self.name}: {waiting} records wait, none consumed for more than {self._stall.stuck_after_s:.0f} s"
        return None

    @property
    def waiting(self) -> bool:
        """Whether records wait or are in hand, as far as the last fetch told."""
        return self._lag + self._in_hand > 0

    # -- one connection

    async def _session(self, stop: asyncio.Event, backoff: Backoff) -> None:
        """Claim partitions and consume them until `stop` or until a connection is lost."""
        self._check_unsettled(await self._store.count_unsettled())
        await self._log.prepare(self._topics)
        reader = await self._log.open_reader(self._topics, self.group)
        try:
            claims = await self._store.open_claims()
            try:
                await self._consume(reader, claims, stop, backoff)
            except LogPositionLost as error:
                await self._mark_lost(error.partitions, stop)
                raise
            finally:
                await claims.close()
        finally:
            self._positions, self._unverified, self._remaining = {}, {}, []
            self._in_hand = self._lag = 0
            self._stall.set_waiting(False)
            await self._stop_committing()
            await reader.close()

    async def _mark_lost(self, partitions: Sequence[Partition], stop: asyncio.Event) -> None:
        """Let nobody take for read what lies before these positions, as long as they are claimed."""
        backoff = Backoff(first_s=0.1, max_s=2.0)
        offsets = {part: self._positions[part].next_offset for part in partitions if part in self._positions}
        while True:
            try:
                return await self._store.set_lost(offsets, True)
            except Exception as error:
                if not _is_retryable(error) or stop.is_set():
                    raise
                await backoff.wait(stop)

    async def _consume(self, reader: LogReader, claims: Claims, stop: asyncio.Event, backoff: Backoff) -> None:
        stopped = asyncio.create_task(stop.wait())
        balance_at = 0.0
        replay_at = _now() + _REPLAY_EVERY_S
        try:
            while not stop.is_set():
                if _now() >= balance_at:
                    await self._balance(reader, claims)
                    balance_at = _now() + _BALANCE_EVERY_S
                if _now() >= replay_at:  # a process of the version before may have run on beside this one
                    await self._replay_unknown(stop)
                    replay_at = _now() + _REPLAY_EVERY_S
                if not self._positions:
                    await pause(stop, _POLL_S)
                    continue
                records = self._remaining[: self._batch_rows] or await self._gather(reader, stopped)
                self._remaining = self._remaining[len(records) :]
                backoff.reset()
                self._in_hand = len(records)
                self._measure(reader)
                if records and not await self._process_records(records):
                    await self._backoff.wait(stop)
                    await self._rewind(reader, [*records, *self._remaining])
                self._in_hand = 0
                await self._store_progress(idle=not records)
                self._commit(reader)
        finally:
            stopped.cancel()

    async def _balance(self, reader: LogReader, claims: Claims) -> None:
        """Hold a fair share of the partitions there are now, and read those."""
        counts = await reader.partitions()
        items = [(topic, partition) for topic in self._topics for partition in range(counts[topic])]
        before = set(self._positions)
        held = await balance(claims, items, before)
        doubts = 0 if self._progress is None else self._progress.doubts
        if held != before or doubts != self._doubts or self._is_set_back:
            await self._assign(reader, held)
            self._doubts, self._is_set_back = doubts, False
        self._report_verified()
        if held != before:
            log.info("partitions_claimed", consumer=self.group, partitions=len(held), of=len(items))

    async def _assign(self, reader: LogReader, held: Iterable[Partition]) -> None:
        """Read these partitions from their stored positions; where there is none yet, from where it begins. Raises LogPositionLost."""
        parts = sorted(held)
        stored = await self._store.read_positions()
        missing = [part for part in parts if part not in stored]
        if missing:
            # Where versions before stored positions had come to, or else the beginning.
            first = {**await reader.beginnings(missing), **await reader.committed(missing)}
            await self._store.create_positions(first)
        restarted = [part for part in parts if part in stored and stored[part].next_offset == FROM_BEGINNING]
        if restarted:
            beginnings = await reader.beginnings(restarted)
            moves = {part: Move(FROM_BEGINNING, Position(beginnings[part])) for part in restarted}
            async with self._store.begin() as transaction:
                await transaction.advance(moves)
        if missing or restarted:
            stored = await self._store.read_positions()
        if any(part not in stored for part in parts):
            raise PositionConflict(f"{self.group}: a position that was stored a moment ago is gone")
        if lost := [part for part in parts if stored[part].is_lost and stored[part].last_event_id is None]:
            raise LogPositionLost("what was read up to the position is not known, so it cannot be found again", lost)
        self._positions, self._remaining = {part: stored[part] for part in parts}, []
        self._unverified = {
            part: position for part, position in self._positions.items() if position.last_event_id is not None
        }
        self._seek(reader)

    def _report_verified(self) -> None:
        """Nothing counts as read by this process until the positions that it has claimed are verified."""
        if self._progress is not None:
            self._progress.set_verified(not self._unverified)

    def _seek(self, reader: LogReader) -> None:
        """Have the next records fetched, and before them those that verify positions."""
        self._report_verified()
        reader.assign(
            {part: position.next_offset - (part in self._unverified) for part, position in self._positions.items()}
        )

    async def _skip_removed(self, reader: LogReader, error: LogPositionLost) -> None:
        """Go on where a record that would verify a position was removed, and nothing that was not read. Else raises the error."""
        removed = [part for part in error.partitions if part in self._unverified and not self._unverified[part].is_lost]
        beginnings = await reader.beginnings(removed)
        if len(removed) != len(error.partitions) or any(
            beginnings[part] != self._positions[part].next_offset for part in removed
        ):
            raise error
        for part in removed:
            del self._unverified[part]
        self._seek(reader)

    async def _rewind(self, reader: LogReader, in_hand: Sequence[LogRecord]) -> None:
        """Go back to the stored positions after a failure that may pass, over the records that are in hand where they follow.

        Fetching them again would wait for the fetch that is under way.
        """
        stored = await self._store.read_positions()
        if not stored.keys() >= self._positions.keys():
            await self._assign(reader, self._positions)
            return
        left = [record for record in in_hand if record.offset >= stored[record.topic, record.partition].next_offset]
        first = {(record.topic, record.partition): record.offset for record in reversed(left)}
        for part, position in self._positions.items():
            if stored[part].is_lost or stored[part].next_offset != first.get(part, position.next_offset):
                await self._assign(reader, self._positions)
                return
        self._positions = {part: stored[part] for part in self._positions}
        self._remaining = left

    async def _gather(self, reader: LogReader, stopped: asyncio.Task[Any]) -> list[LogRecord]:
        """The next records. Few of them wait a moment for more, unless more are there already: a transaction costs the same for one as
        for many."""
        try:
            records = list(await poll_until_stopped(reader, stopped, _POLL_S, self._batch_rows))
            if records and len(records) < min(self._gather_rows, self._batch_rows) and self._gather_s:
                if not any(reader.lag().values()):
                    await asyncio.wait([stopped], timeout=self._gather_s)
                records += await poll_until_stopped(reader, stopped, 0.0, self._batch_rows - len(records))
                records.sort(key=lambda record: (record.topic, record.partition, record.offset))
        except LogPositionLost as error:
            await self._skip_removed(reader, error)
            return []
        return await self._verify(records) if self._unverified else records

    async def _verify(self, records: Sequence[LogRecord]) -> list[LogRecord]:
        """Without the records that only show that the log is the one that was read before. Raises LogPositionLost."""
        kept, found = [], dict[Partition, int]()
        for record in records:
            part = record.topic, record.partition
            position = self._unverified.pop(part, None)
            if position is None:
                kept.append(record)
            elif record.offset != position.next_offset - 1 or event_id_of(record.headers) != position.last_event_id:
                raise LogPositionLost(
                    f"{record.topic}/{record.partition}: at offset {record.offset} stands another record than was read "
                    f"there; the topic was created again or has lost its end",
                    [part],
                )
            elif position.is_lost:
                found[part] = position.next_offset
        self._report_verified()
        if found:
            await self._store.set_lost(found, False)
            log.info("position_recovered", consumer=self.group, partitions=len(found))
        return kept

    # -- one batch

    async def _process_records(self, records: Sequence[LogRecord]) -> bool:
        """Apply what was polled. False if a transient failure left some of it for another time."""
        items = []
        for number, record in enumerate(records, 1):
            items.append(self._decode_record(record))
            if number % _ROWS_PER_TURN == 0:
                await asyncio.sleep(0)  # decoding is all CPU; let the API have its turn
        try:
            await self._process_items(items)
        except Exception as error:
            if not _is_retryable(error):
                raise
            self._back_off(records, error)
            return False
        self._backoff.reset()
        self._stall.record_progress()
        return True

    def _decode_record(self, record: LogRecord) -> _Item:
        """Decode a record. Whatever goes wrong with it makes it a dead letter."""
        try:
            if record.unreadable is not None:
                raise MalformedEvent(record.unreadable)
            event = decode(record.value, record.headers)
        except UnknownEventType as error:
            return _Item(record, dead_letter=make_dead_letter("unknown", record, error))
        except Exception as error:  # noqa: BLE001 - a record may be bad in any way, and must not stop the others
            return _Item(record, dead_letter=make_dead_letter("malformed", record, error))
        if isinstance(event.data, WatermarkAdvanced):
            return _Item(record)
        return _Item(record, received=Received(event, record.topic, record.partition, record.offset))

    async def _process_items(self, items: Sequence[_Item]) -> None:
        """Apply these items in order; what is malformed or poison among them goes to the dead letters, in its place."""
        start = 0
        for index, item in enumerate(items):
            if item.dead_letter is not None and item.dead_letter.kind == "malformed":
                await self._apply_or_split(items[start:index])
                await self._send_to_dead_letters(item, item.dead_letter)
                start = index + 1
        await self._apply_or_split(items[start:])

    async def _apply_or_split(self, items: Sequence[_Item]) -> None:
        if not items:
            return
        try:
            await self._apply(items)
        except TooManyPoisonEvents:
            raise  # of what is committed already
        except Exception as error:
            if _is_retryable(error):
                raise
            if len(items) == 1:
                await self._send_to_dead_letters(
                    items[0], make_dead_letter("poison", items[0].record, error, items[0].received)
                )
                return
            for part in _split_items(items, error):
                await self._apply_or_split(part)

    async def _apply(self, items: Sequence[_Item]) -> None:
        """One transaction: inbox, handler, outbox, dead letters of unknown types, and positions."""
        started = _now()
        received = [item.received for item in items if item.received is not None]
        unknown = [item.dead_letter for item in items if item.dead_letter is not None]
        moves = self._make_moves(items)
        fresh: list[Received] = []
        unsettled = 0
        with tracer.start_as_current_span(
            f"{self.group} consume",
            kind=trace.SpanKind.CONSUMER,
            links=tracing.links(one.event.traceparent for one in received),
            attributes={"messaging.system": "kafka", "messaging.batch.message_count": len(received)},
        ):
            async with self._store.begin() as transaction:
                if received:
                    fresh = await self._select_unseen(transaction, received)
                if fresh:
                    await self._handle(transaction.unit_of_work, fresh)
                    erased = [str(one.event.data.lead_id) for one in fresh if isinstance(one.event.data, LeadErased)]
                    if erased:
                        await transaction.delete_dead_letters(erased)
                if unknown:
                    unsettled = await transaction.add_dead_letters(unknown)
                await transaction.advance(moves)
        self._apply_moves(moves)
        self._record_batch(len(received), len(fresh), _now() - started, len(items))
        if unknown:
            instruments.DEAD_LETTERS.labels(self.group, "unknown").inc(len(unknown))
            self._check_unsettled(unsettled)

    def _make_moves(self, items: Sequence[_Item]) -> dict[Partition, Move]:
        last = {item.partition: item.record for item in items}
        return {
            part: Move(self._positions[part].next_offset, Position(record.offset + 1, event_id_of(record.headers)))
            for part, record in last.items()
        }

    def _apply_moves(self, moves: Mapping[Partition, Move]) -> None:
        for part, move in moves.items():
            self._positions[part] = move.to
        if self._progress is not None:
            self._progress.notify_moved()

    async def _select_unseen(self, transaction: ConsumerTransaction, received: Sequence[Received]) -> list[Received]:
        """Those that this consumer has not applied yet, each once, in order."""
        fresh_ids = await transaction.claim_events([one.event.id for one in received])
        fresh: list[Received] = []
        for one in received:
            if one.event.id in fresh_ids:
                fresh_ids.discard(one.event.id)
                fresh.append(one)
        return fresh

    async def _send_to_dead_letters(self, item: _Item, dead_letter: NewDeadLetter) -> None:
        """Write an event to the dead letters and pass its position, in one transaction."""
        record = item.record
        moves = self._make_moves([item])
        try:
            async with self._store.begin() as transaction:
                unsettled = await transaction.add_dead_letters([dead_letter])
                await transaction.advance(moves)
        except Exception as failure:
            if _is_retryable(failure):
                raise
            raise DeadLetterFailed(
                f"{self.group}: {type(failure).__name__} while setting {record.topic}/{record.partition} offset "
                f"{record.offset} aside"
            ) from failure
        self._apply_moves(moves)
        instruments.DEAD_LETTERS.labels(self.group, dead_letter.kind).inc()
        log.error(
            "event_dead_lettered",
            consumer=self.group,
            kind=dead_letter.kind,
            error=dead_letter.error.partition(":")[0],
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )
        self._consecutive_poison += 1
        self._outcomes.append(True)
        self._check_limits()
        self._check_unsettled(unsettled)

    def _check_limits(self) -> None:
        limits = self._limits
        if self._consecutive_poison >= limits.consecutive_max:
            raise TooManyPoisonEvents(f"{self.group}: {self._consecutive_poison} events in a row could not be applied")
        seen, poisoned = len(self._outcomes), sum(self._outcomes)
        if seen >= limits.window_events_min and poisoned > limits.share_max * seen:
            raise TooManyPoisonEvents(f"{self.group}: {poisoned} of the last {seen} events could not be applied")

    def _check_unsettled(self, unsettled: int) -> None:
        if unsettled >= self._limits.unsettled_max:
            raise TooManyPoisonEvents(
                f"{self.group}: {unsettled} dead letters wait to be replayed or discarded, or for a version that knows them"
            )

    def _record_batch(self, received: int, fresh: int, elapsed_s: float, rows: int) -> None:
        """Count a batch, and keep the next to a size that takes a fraction of a second: bisecting stays short."""
        if received:
            self._consecutive_poison = 0
            self._outcomes.extend([False] * min(received, self._limits.window_events))
        instruments.CONSUMER_EVENTS.labels(self.group, "applied").inc(fresh)
        instruments.CONSUMER_EVENTS.labels(self.group, "duplicate").inc(received - fresh)
        instruments.CONSUMER_BATCH_S.labels(self.group).observe(elapsed_s)
        instruments.CONSUMER_BATCH_ROWS.labels(self.group).observe(rows)
        if elapsed_s > _BATCH_SLOW_S and rows >= self._batch_rows // 2:
            self._batch_rows = min(self._batch_rows, max(_BATCH_ROWS_MIN, self._batch_rows // 2))
        elif elapsed_s < _BATCH_QUICK_S and rows >= self._batch_rows:
            self._batch_rows = min(self._batch_rows_max, self._batch_rows * 2)

    def _back_off(self, records: Sequence[LogRecord], error: Exception) -> None:
        """Count a failure that may pass. Positions are read again; fewer records at a time may get through."""
        self._stall.record_failure()
        self._batch_rows = max(1, min(self._batch_rows, len(records)) // 2)
        instruments.CONSUMER_RETRIES.labels(self.group, type(error).__name__).inc()
        log.warning(
            "batch_retried", consumer=self.group, error=type(error).__name__, attempt=self._backoff.attempts + 1
        )

    # -- around it

    async def _replay_unknown(self, stop: asyncio.Event) -> None:
        """Replay events that an older version did not know and this one does. What came after them may have been applied: handlers put
        late facts into their place. One that fails is left to an operator."""
        while not stop.is_set():
            found = await self._store.replayable(sorted(EVENT_TYPES), _REPLAYED_AT_ONCE_MAX)
            dead_letters = [dead_letter for dead_letter in found if dead_letter not in self._not_replayed]
            replayed = 0
            for dead_letter in dead_letters:
                try:
                    await replay(self._store, self._handle, dead_letter)
                    replayed += 1
                except Exception as error:
                    if _is_retryable(error):
                        raise
                    log.error("unknown_event_not_replayed", consumer=self.group, error=type(error).__name__)
                    self._not_replayed.add(dead_letter)
            if replayed == 0:
                return
            log.info("unknown_events_replayed", consumer=self.group, events=replayed)

    async def _store_progress(self, *, idle: bool) -> None:
        """Store now and then until when the topics have been read, for answers that say what they are as of; and see whether
        somebody has set a position back."""
        if _now() < self._store_progress_at:
            return
        try:
            await self._store_watermarks()
        except Exception as error:
            if not _is_retryable(error):
                raise
            log.info("watermarks_not_stored", consumer=self.group, error=type(error).__name__)
        self._store_progress_at = _now() + (_STORE_PROGRESS_IDLE_EVERY_S if idle else _STORE_PROGRESS_EVERY_S)

    async def _store_watermarks(self) -> None:
        stored = await self._store.read_positions()
        self._is_set_back = any(
            stored[part].next_offset == FROM_BEGINNING or stored[part].is_lost > self._positions[part].is_lost
            for part in self._positions.keys() & stored.keys()
        )
        if self._progress is None:
            return
        reached = self._progress.consumed_by({part: position.reached_offset for part, position in stored.items()})
        if reached.topics and (self._stored_watermarks is None or reached.topics != self._stored_watermarks.topics):
            async with self._store.begin() as transaction:
                await transaction.store_watermarks(reached)
            self._stored_watermarks = reached

    def _commit(self, reader: LogReader) -> None:
        """Tell the log now and then how far we are, beside the work: tools show lag by it."""
        if self._committing is None and any(
            self._committed.get(part) != position.next_offset for part, position in self._positions.items()
        ):
            self._committing = asyncio.create_task(self._commit_offsets(reader))

    async def _commit_offsets(self, reader: LogReader) -> None:
        try:
            await asyncio.sleep(_COMMIT_EVERY_S)
            positions = {part: position.next_offset for part, position in self._positions.items()}
            async with asyncio.timeout(_COMMIT_S_MAX):
                await reader.commit(positions)
            self._committed = positions
        except Exception as error:  # noqa: BLE001 - nothing depends on it
            log.info("offsets_not_committed", consumer=self.group, error=type(error).__name__)
        finally:
            self._committing = None

    async def _stop_committing(self) -> None:
        task = self._committing
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _measure(self, reader: LogReader) -> None:
        """Lag by topic, from what the last fetches told."""
        by_topic = reader.lag()
        for topic, records in by_topic.items():
            instruments.CONSUMER_LAG.labels(self.group, topic).set(records)
        self._lag = sum(by_topic.values())
        self._stall.set_waiting(self._lag + self._in_hand > 0)


def _is_retryable(error: Exception) -> bool:
    return isinstance(error, PositionConflict) or is_transient(error)


def make_dead_letter(
    kind: DeadLetterKind, record: LogRecord, error: Exception, received: Received | None = None
) -> NewDeadLetter:
    """What is kept of a record that could not be applied."""
    if received is not None:
        keys: tuple[str, ...] | None = received.event.data.keys
    else:
        keys = _keys_of(record)
    return NewDeadLetter(kind, record, event_id_of(record.headers), type_of(record.headers), keys, describe(error))


def _keys_of(record: LogRecord) -> tuple[str, ...] | None:
    """Of a record that could not be read: its key, unless an event of its type concerns others too."""
    type_ = EVENT_TYPES.get(type_of(record.headers) or "")
    if type_ is not None and type_.keys is not EventData.keys:
        return None
    try:
        key = (record.key or b"").decode().replace("\x00", "")
    except ValueError:
        return None
    return (key,) if 0 < len(key) <= _HELD_KEY_CHARS_MAX else None


def _split_items(items: Sequence[_Item], error: Exception) -> list[Sequence[_Item]]:
    """The parts to try one by one: around the event that a PoisonEvent names, or else two halves."""
    named = error.received if isinstance(error, PoisonEvent) else None
    if named is not None:
        for index, item in enumerate(items):
            if item.received is named:
                return [items[:index], items[index : index + 1], items[index + 1 :]]
    middle = len(items) // 2
    return [items[:middle], items[middle:]]


def _now() -> float:
    return asyncio.get_running_loop().time()
