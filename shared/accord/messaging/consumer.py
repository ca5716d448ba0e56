"""The consumer: reads topics and applies each event once, by the service's handler. It reads no event's data.

A batch is one transaction: inbox, effects, outbox and watermarks. Kafka's offsets are committed after it, so a crash
in between reads the batch again and the inbox passes it over. Failures are of three kinds:

- transient (a lost connection, a deadlock): the records are put back (seek), the partitions paused, and after a
  back-off read again; polling goes on, so the group keeps its member;
- poison (the handler fails on an event whatever else is in the batch): the batch is bisected to the event, which goes
  to the dead letters; only then its offset is passed. Malformed records go there too; unknown types are counted and
  passed over;
- bug (too many poison events in a row, or in share of the last ones): the consumer stops with TooManyPoisonEvents.

aiokafka hazards that are defended here: the sticky assignor can stall silently (range is used); a rebalance
listener's exception is swallowed (a flag is set and the loop raises it); `stop()` calls no listener (the loop is
drained first).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError
from opentelemetry import trace

from accord import tracing
from accord.contracts.envelope import Event, MalformedEvent, UnknownEventType, decode
from accord.contracts.watermarks import WatermarkAdvanced
from accord.database import Database, Recording, is_transient
from accord.messaging import dead_letters, inbox, instruments, watermark
from accord.messaging.kafka import client_options, close_quietly, ensure_topics, physical
from accord.messaging.offsets import Part, Place, first_offsets, lag, next_offsets
from accord.retry import Backoff
from accord.settings import KafkaSettings
from accord.workers import Stall

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

SESSION_TIMEOUT_S = 6.0
"""A killed member's partitions move on after this long."""

REBALANCE_TIMEOUT_S = 30.0
DRAIN_S_MAX = 10.0
"""In-flight work has this long to finish at a revoke; below REBALANCE_TIMEOUT_S, or the group would drop the member."""

_POLL_S = 0.5
_BATCH_SLOW_S = 0.4
_BATCH_QUICK_S = 0.2
_BATCH_ROWS_MIN = 50
_BACKOFF_S_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Received:
    """An event and the place it was read from. `topic` is without the cluster's prefix."""

    event: Event
    topic: str
    partition: int
    offset: int


Handler = Callable[[Recording, Sequence[Received]], Awaitable[None]]
"""Applies events that are new to the inbox, in order within each key, inside the one transaction of `Recording`."""


class Poison(Exception):
    """Raised by a handler for an event that can never be applied. With `received` it is isolated without bisecting.

    The reason is kept with the dead letter and shown to operators, so it must not quote the event's data.
    """

    def __init__(self, reason: str, received: Received | None = None) -> None:
        super().__init__(reason)
        self.received = received


class TooManyPoisonEvents(Exception):
    """So many events failed that the fault is ours, not theirs. The process must stop before it sets more aside."""


class DeadLetterFailed(Exception):
    """A poison event could not be set aside; the consumer stops rather than passing over it."""


@dataclass(frozen=True, slots=True)
class PoisonLimits:
    """When poison counts as a bug: so many in succession, or more than this share of the last `window_events`.

    The share is looked at once `window_events_min` events have been seen.
    """

    in_a_row_max: int = 20
    share_max: float = 0.5
    window_events: int = 1000
    window_events_min: int = 100


@dataclass(frozen=True, slots=True)
class _Item:
    """One record of a batch: an event, a watermark, or a record that could not be read."""

    record: ConsumerRecord
    topic: str
    received: Received | None = None
    watermark_at: datetime | None = None
    malformed: MalformedEvent | None = None

    @property
    def place(self) -> Place:
        return Place(self.topic, self.record.partition, self.record.offset)


class Consumer:
    """Worker. `group` is both the Kafka group and the consumer's name in inbox, dead letters and watermarks."""

    def __init__(
        self,
        database: Database,
        kafka: KafkaSettings,
        *,
        group: str,
        topics: Sequence[str],
        handle: Handler,
        batch_rows_max: int = 2000,
        poison: PoisonLimits | None = None,
        stuck_after_s: float = 60.0,
    ) -> None:
        self.name = f"consumer-{group}"
        self.group = group
        self._database = database
        self._kafka = kafka
        self._topics = list(topics)
        self._logical = {physical(kafka, topic): topic for topic in topics}
        self._handle = handle
        self._batch_rows_max = batch_rows_max
        self._batch_rows = batch_rows_max
        self._limits = poison or PoisonLimits()
        self._stall = Stall(stuck_after_s)
        self._client: AIOKafkaConsumer | None = None
        self._busy = asyncio.Lock()
        self._fatal: BaseException | None = None
        self._backoff = Backoff(first_s=0.1, max_s=_BACKOFF_S_MAX)
        self._poison_in_a_row = 0
        self._outcomes: deque[bool] = deque(maxlen=self._limits.window_events)
        self._lag = 0
        self._in_hand = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`, then finish the batch in hand, commit and leave the group.

        A lost Kafka is tried again for ever with bounded back-off; TooManyPoisonEvents, DeadLetterFailed and
        programming errors outside the handler end the process.
        """
        backoff = Backoff(first_s=0.1, max_s=2.0)
        while not stop.is_set():
            try:
                await self._membership(stop, backoff)
            except Exception as error:
                if not is_transient(error):
                    raise
                self._stall.failed()
                log.warning("consumer_disconnected", consumer=self.group, error=type(error).__name__)
                await backoff.wait(stop)

    def problem(self) -> str | None:
        if self._stall.stuck:
            waiting = self._lag + self._in_hand
            return f"{self.name}: {waiting} records wait, none consumed for more than {self._stall.stuck_after_s:.0f} s"
        return None

    @property
    def waiting(self) -> bool:
        """Whether records wait or are in hand, as far as the last fetch told."""
        return self._lag + self._in_hand > 0

    async def _membership(self, stop: asyncio.Event, backoff: Backoff) -> None:
        """Join the group and consume until `stop` or until the connection is lost for good."""
        await ensure_topics(self._kafka, self._topics)
        client = AIOKafkaConsumer(
            **client_options(self._kafka),
            group_id=physical(self._kafka, self.group),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_uncommitted",
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=int(SESSION_TIMEOUT_S * 1000),
            heartbeat_interval_ms=int(SESSION_TIMEOUT_S * 1000 / 4),
            rebalance_timeout_ms=int(REBALANCE_TIMEOUT_S * 1000),
            max_poll_interval_ms=300_000,
            fetch_max_wait_ms=200,
            max_partition_fetch_bytes=1_048_576,
            metadata_max_age_ms=30_000,
        )
        self._fatal, self._client = None, client  # the listener may be called before `start` returns
        try:
            client.subscribe(list(self._logical), listener=_Listener(self))
            await client.start()
            await self._consume(client, stop, backoff)
        finally:
            self._client = None
            await close_quietly(client)

    async def _consume(self, client: AIOKafkaConsumer, stop: asyncio.Event, backoff: Backoff) -> None:
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                batches = await _poll(client, stopped, _POLL_S, self._batch_rows)
                if self._fatal is not None:
                    raise self._fatal
                backoff.reset()
                self._in_hand = sum(map(len, batches.values()))
                self._measure(client)
                if batches and not await self._take(client, batches):
                    await self._hold(client, stopped)
                self._in_hand = 0
        finally:
            stopped.cancel()
            self._in_hand = self._lag = 0
            self._stall.waits(False)

    async def _take(self, client: AIOKafkaConsumer, batches: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> bool:
        """Apply what was polled and commit its offsets. False if it was put back because of a transient failure.

        Records of partitions that were revoked since are left to their new owner. Those that are ours again may be
        applied a second time by the new position; the inbox passes them over.
        """
        async with self._busy:
            held = client.assignment()
            records = [record for part, found in batches.items() if part in held for record in found]
            if not records:
                return True
            items: list[_Item] = []
            for part in held.intersection(batches):
                items.extend(self._read(self._logical[part.topic], batches[part]))
                await asyncio.sleep(0)  # decoding is all CPU; let the API have its turn
            try:
                await self._process(items)
            except Exception as error:
                if not is_transient(error):
                    raise
                self._put_back(client, records, error)
                return False
            self._backoff.reset()
            self._stall.progressed()
            await self._commit(client, records)
            return True

    def _read(self, topic: str, records: Sequence[ConsumerRecord]) -> Iterable[_Item]:
        """Decode the records of one partition. Unknown types are counted and left out."""
        passed_over = 0
        for record in records:
            try:
                event = decode(record.value, record.headers)
            except UnknownEventType:
                passed_over += 1
                continue
            except MalformedEvent as error:
                yield _Item(record, topic, malformed=error)
                continue
            if isinstance(event.data, WatermarkAdvanced):
                yield _Item(record, topic, watermark_at=event.data.watermark_at)
            else:
                yield _Item(record, topic, received=Received(event, topic, record.partition, record.offset))
        if passed_over:
            instruments.CONSUMER_EVENTS.labels(self.group, "unknown_type").inc(passed_over)

    async def _process(self, items: Sequence[_Item]) -> None:
        """Apply these items in order; what is poison among them goes to the dead letters, in its place."""
        at = 0
        for place, item in enumerate(items):
            if item.malformed is not None:
                await self._apply_or_split(items[at:place])
                await self._set_aside(item, item.malformed)
                at = place + 1
        await self._apply_or_split(items[at:])

    async def _apply_or_split(self, items: Sequence[_Item]) -> None:
        if not items:
            return
        try:
            await self._apply(items)
        except Exception as error:
            if is_transient(error):
                raise
            if len(items) == 1:
                await self._set_aside(items[0], error)
                return
            for part in _split(items, error):
                await self._apply_or_split(part)

    async def _apply(self, items: Sequence[_Item]) -> None:
        """One transaction: inbox, handler, outbox and watermarks."""
        started = time.monotonic()
        received = [item.received for item in items if item.received is not None]
        with tracer.start_as_current_span(
            f"{self.group} consume",
            kind=trace.SpanKind.CONSUMER,
            links=tracing.links(one.event.traceparent for one in received),
            attributes={"messaging.system": "kafka", "messaging.batch.message_count": len(received)},
        ):
            async with self._database.recording() as recording:
                driver = await recording.driver()
                fresh: list[Received] = []
                if received:
                    fresh = await self._unseen(driver, received, recording.now)
                if fresh:
                    await self._handle(recording, fresh)
                reached: dict[Part, datetime | None] = {
                    (item.topic, item.record.partition): item.watermark_at for item in items if item.watermark_at
                }
                if reached:
                    await watermark.store(driver, self.group, reached)
        self._account(len(received), len(fresh), time.monotonic() - started, len(items))
        self._show_watermarks(reached)

    async def _unseen(self, driver: Any, received: Sequence[Received], now: datetime) -> list[Received]:
        """Those that this consumer has not applied yet, each once, in order."""
        fresh_ids = await inbox.claim(driver, self.group, [one.event.id for one in received], now)
        fresh: list[Received] = []
        for one in received:
            if one.event.id in fresh_ids:
                fresh_ids.discard(one.event.id)
                fresh.append(one)
        return fresh

    async def _set_aside(self, item: _Item, error: BaseException) -> None:
        """Write a poison event to the dead letters. The offset is passed only once this has committed."""
        kind = "malformed" if item.malformed is not None else "poison"
        try:
            async with self._database.recording() as recording:
                await dead_letters.add(
                    await recording.driver(), self.group, item.topic, item.record, error, recording.now
                )
        except Exception as failure:
            if is_transient(failure):
                raise
            raise DeadLetterFailed(
                f"{self.group}: {type(failure).__name__} while setting {item.place} aside"
            ) from failure
        instruments.DEAD_LETTERS.labels(self.group, kind).inc()
        log.error("event_set_aside", consumer=self.group, kind=kind, error=type(error).__name__, **item.place._asdict())
        self._poison_in_a_row += 1
        self._outcomes.append(True)
        self._check_limits()

    def _check_limits(self) -> None:
        limits = self._limits
        if self._poison_in_a_row >= limits.in_a_row_max:
            raise TooManyPoisonEvents(f"{self.group}: {self._poison_in_a_row} events in a row could not be applied")
        seen, poisoned = len(self._outcomes), sum(self._outcomes)
        if seen >= limits.window_events_min and poisoned > limits.share_max * seen:
            raise TooManyPoisonEvents(f"{self.group}: {poisoned} of the last {seen} events could not be applied")

    def _account(self, received: int, fresh: int, elapsed_s: float, rows: int) -> None:
        """Count a batch, and keep the next to a size that takes a fraction of a second: bisecting stays short."""
        if received:
            self._poison_in_a_row = 0
            self._outcomes.extend([False] * min(received, self._limits.window_events))
        instruments.CONSUMER_EVENTS.labels(self.group, "applied").inc(fresh)
        instruments.CONSUMER_EVENTS.labels(self.group, "duplicate").inc(received - fresh)
        instruments.CONSUMER_BATCH_S.labels(self.group).observe(elapsed_s)
        instruments.CONSUMER_BATCH_ROWS.labels(self.group).observe(rows)
        if elapsed_s > _BATCH_SLOW_S and rows >= self._batch_rows // 2:
            self._batch_rows = max(_BATCH_ROWS_MIN, self._batch_rows // 2)
        elif elapsed_s < _BATCH_QUICK_S and rows >= self._batch_rows:
            self._batch_rows = min(self._batch_rows_max, self._batch_rows * 2)

    def _show_watermarks(self, reached: Mapping[Part, datetime | None]) -> None:
        now = datetime.now(UTC)
        for (topic, _), at in reached.items():
            if at is not None:
                instruments.CONSUMER_WATERMARK_AGE_S.labels(self.group, topic).set((now - at).total_seconds())

    def _put_back(self, client: AIOKafkaConsumer, records: Sequence[ConsumerRecord], error: BaseException) -> None:
        """Have these records read again: nothing of them was passed, and what was applied is in the inbox."""
        self._stall.failed()
        instruments.CONSUMER_RETRIES.labels(self.group, type(error).__name__).inc()
        log.warning(
            "batch_put_back", consumer=self.group, error=type(error).__name__, attempt=self._backoff.attempts + 1
        )
        held = client.assignment()
        for (topic, partition), offset in first_offsets(_places(records)).items():
            part = TopicPartition(topic, partition)
            if part in held:
                client.seek(part, offset)

    async def _hold(self, client: AIOKafkaConsumer, stopped: asyncio.Task[Any]) -> None:
        """Back off with every partition paused, polling all the while; what newly assigned ones give is put back."""
        until = time.monotonic() + self._backoff.next_s()
        while not stopped.done() and (left_s := until - time.monotonic()) > 0:
            client.pause(*client.assignment())
            early = await _poll(client, stopped, min(left_s, _POLL_S), 1)
            if self._fatal is not None:
                raise self._fatal
            for part, records in early.items():
                if part in client.assignment():
                    client.seek(part, records[0].offset)
        client.resume(*client.assignment())

    async def _commit(self, client: AIOKafkaConsumer, records: Sequence[ConsumerRecord]) -> None:
        """Commit the offsets after these records. If partitions have moved on, their new owner reads them again."""
        after = {TopicPartition(*part): offset for part, offset in next_offsets(_places(records)).items()}
        try:
            await client.commit(after)
        except (CommitFailedError, IllegalStateError) as error:
            log.info("offsets_not_committed", consumer=self.group, error=type(error).__name__)

    def _measure(self, client: AIOKafkaConsumer) -> None:
        """Lag by topic, from what the last fetches told."""
        by_topic = dict.fromkeys(self._topics, 0)
        for part in client.assignment():
            end = client.highwater(part)
            state = client._subscription.subscription.assignment.state_value(part)  # noqa: SLF001 - position() may wait
            if end is not None and state is not None and state.has_valid_position:
                at = (part.topic, part.partition)
                by_topic[self._logical[part.topic]] += lag({at: state.position}, {at: end})
        for topic, records in by_topic.items():
            instruments.CONSUMER_LAG.labels(self.group, topic).set(records)
        self._lag = sum(by_topic.values())
        self._stall.waits(self._lag + self._in_hand > 0)

    async def revoked(self) -> None:
        """Wait until the batch in hand is committed."""
        async with asyncio.timeout(DRAIN_S_MAX), self._busy:
            return

    async def assigned(self, parts: Iterable[TopicPartition]) -> None:
        """Make every partition of the topics known as one whose watermark is unknown yet."""
        client = self._client
        if client is None:
            return
        unknown: dict[Part, datetime | None] = {}
        for name, topic in self._logical.items():
            for partition in client.partitions_for_topic(name) or ():
                unknown[(topic, partition)] = None
        for part in parts:
            unknown[(self._logical[part.topic], part.partition)] = None
        async with self._database.recording() as recording:
            await watermark.store(await recording.driver(), self.group, unknown)

    def fail(self, error: BaseException) -> None:
        """Have the loop raise this; aiokafka would only log it."""
        self._fatal = error


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Drains on revoke. Never lets an exception get lost."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        try:
            await self._consumer.revoked()
        except BaseException as error:
            self._consumer.fail(error)
            raise

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        try:
            await self._consumer.assigned(assigned)
        except BaseException as error:
            self._consumer.fail(error)
            raise


def _split(items: Sequence[_Item], error: Exception) -> list[Sequence[_Item]]:
    """The parts to try one by one: around the event that a Poison names, or else two halves."""
    named = error.received if isinstance(error, Poison) else None
    if named is not None:
        for at, item in enumerate(items):
            if item.received is named:
                return [items[:at], items[at : at + 1], items[at + 1 :]]
    middle = len(items) // 2
    return [items[:middle], items[middle:]]


def _places(records: Iterable[ConsumerRecord]) -> Iterable[Place]:
    return (Place(record.topic, record.partition, record.offset) for record in records)


async def _poll(
    client: AIOKafkaConsumer, stopped: asyncio.Task[Any], timeout_s: float, rows_max: int
) -> dict[TopicPartition, list[ConsumerRecord]]:
    """`getmany` that also ends when the worker is told to stop; during a rebalance it would otherwise wait on."""
    polling = asyncio.create_task(client.getmany(timeout_ms=max(1, int(timeout_s * 1000)), max_records=rows_max))
    try:
        await asyncio.wait([polling, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not polling.done():
            return {}
        found: dict[TopicPartition, list[ConsumerRecord]] = polling.result()
        return found
    finally:
        if not polling.done():
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
