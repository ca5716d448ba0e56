"""The relay: publishes the outbox to the service's topic, in order, at least once. It reads no event's data.

One relay per service is active, by a session advisory lock on a connection of its own. That same connection reads the
rows and deletes them, so each statement proves that the lock is still held. Rows are polled in id order from whatever
is in the table, never from a high-water mark: ids commit out of order, and a late one must be found.

Order: all rows of a key go to one partition; a partition has one Kafka batch in flight, and the next is sent only
after its acknowledgement. If one fails, nothing after it is sent on that partition in this round, and the round
begins again from the table with a new producer. So a consumer may see a row twice, but among first sightings there is
no gap and no change of order; this also holds while a relay that lost its lock finishes what it had begun, since both
walk the same rows in the same order.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from accord.contracts.envelope import headers_of
from accord.contracts.topics import TOPIC_OF, ServiceName
from accord.contracts.watermarks import WatermarkAdvanced
from accord.database import Database, is_transient
from accord.ids import new_id
from accord.messaging import instruments, outbox
from accord.messaging.kafka import client_options, close_quietly, ensure_topics, partition_of, physical
from accord.messaging.watermark import Frontier
from accord.retry import Backoff
from accord.settings import KafkaSettings
from accord.workers import Stall, pause

log = structlog.get_logger(__name__)

RELAY_LOCK = 0x0ACC_04D2
"""Key of the session advisory lock that makes one relay of a database active."""

_READ = """
SELECT id, event_id, type, key, occurred_at, traceparent, payload
FROM (SELECT *, sum(octet_length(payload)) OVER (ORDER BY id) - octet_length(payload) AS bytes_before
      FROM (SELECT * FROM outbox ORDER BY id LIMIT $1) AS first) AS counted
WHERE bytes_before <= $2 ORDER BY id
"""
_DELETE = "DELETE FROM outbox WHERE id = ANY ($1::bigint[])"
_VACUUM = "VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON, TRUNCATE OFF) outbox"
_LEAD = f"SELECT pg_try_advisory_lock({RELAY_LOCK})"

_BATCH_BYTES_MAX = 16 * 1024 * 1024
"""A batch ends with the first row past this, so that large events cannot fill the memory."""

_ROWS_PER_TURN = 500
"""So many rows are prepared before other tasks of the process, such as its API, get their turn (some 5 ms)."""

_BEHIND_ROWS = 500
"""Of a batch; some 20 ms of publishing."""

_VACUUM_AFTER_ROWS = 50_000
"""Deleted rows after which the relay has their space reused. Autovacuum looks only once a minute, and at 20,000
events a second the table would have grown by half a gigabyte in between."""

_KAFKA_BATCH_BYTES_MAX = 512 * 1024
_REQUEST_TIMEOUT_S = 8.0
_ACK_TIMEOUT_S = 3 * _REQUEST_TIMEOUT_S
_STANDBY_S = 0.5
_BACKOFF_S_MAX = 2.0

Record = tuple[int, bytes, bytes, list[tuple[str, bytes]]]
"""Outbox id, key, value and headers."""


class PublishFailed(Exception):
    """Some of a batch was not acknowledged; `published` counts what was."""

    def __init__(self, published: int, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__} after {published} acknowledged events")
        self.published = published


class Relay:
    """Worker. `consumed` are the topics whose watermarks bound those of this service."""

    name = "relay"

    def __init__(
        self,
        database: Database,
        kafka: KafkaSettings,
        service: ServiceName,
        consumed: Sequence[str] = (),
        *,
        batch_rows_max: int = 5000,
        poll_s: float = 0.1,
        watermark_every_s: float = 1.0,
        stuck_after_s: float = 60.0,
    ) -> None:
        self._database = database
        self._kafka = kafka
        self._service = service
        self._topic = physical(kafka, TOPIC_OF[service])
        self._source = f"/{service}"
        self._consumed = consumed
        self._batch_rows_max = batch_rows_max
        self._poll_s = poll_s
        self._watermark_every_s = watermark_every_s
        self._stall = Stall(stuck_after_s)
        self._producer: AIOKafkaProducer | None = None
        self._partitions = 0
        self._frontier = Frontier(consumed)
        self._watermark_due_at = 0.0
        self._deleted_rows = 0
        self._in_hand = 0
        self._fixed_headers: dict[str, list[tuple[str, bytes]]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`; lost connections are made anew with back-off, anything else ends the process."""
        backoff = Backoff(first_s=0.05, max_s=_BACKOFF_S_MAX)
        try:
            while not stop.is_set():
                try:
                    await self._lead(stop, backoff)
                except Exception as error:
                    if not is_transient(error):
                        raise
                    self._failed("database", error)
                    await backoff.wait(stop)
        finally:
            await self._drop_producer()

    @property
    def behind(self) -> bool:
        """Whether so many events are being published that the next ones have to wait."""
        return self._in_hand > _BEHIND_ROWS

    def problem(self) -> str | None:
        if self._stall.stuck:
            return f"relay: a round has not finished for more than {self._stall.stuck_after_s:.0f} s"
        return None

    async def _lead(self, stop: asyncio.Event, backoff: Backoff) -> None:
        """Take the lock, or wait as standby, and publish while it is held."""
        driver = await self._database.connect()
        try:
            while not await driver.fetchval(_LEAD):
                await pause(stop, _STANDBY_S)
                if stop.is_set():
                    return
            log.info("relay_leads", topic=self._topic)
            instruments.RELAY_LEADER.set(1)
            self._frontier = Frontier(self._consumed)
            await self._publish_until(stop, driver, backoff)
        finally:
            instruments.RELAY_LEADER.set(0)
            self._stall.waits(False)
            await _close(driver)

    async def _publish_until(self, stop: asyncio.Event, driver: asyncpg.Connection, backoff: Backoff) -> None:
        while not stop.is_set():
            self._database.written.clear()
            try:
                more = await self._round(driver)
            except (PublishFailed, KafkaError) as error:
                self._failed("kafka", error)
                await self._drop_producer()
                await backoff.wait(stop)
                continue
            backoff.reset()
            if not more:
                await self._wait_for_rows(stop)

    async def _wait_for_rows(self, stop: asyncio.Event) -> None:
        """Until this process has written, or the next poll or watermark is due, or `stop`."""
        timeout_s = min(self._poll_s, max(0.0, self._watermark_due_at - time.monotonic()))
        if stop.is_set() or timeout_s <= 0:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._database.written.wait()
        except TimeoutError:
            return

    async def _round(self, driver: asyncpg.Connection) -> bool:
        """Publish one batch, and the watermark when it is due. True if the batch was full, so that more may wait."""
        started = time.monotonic()
        self._stall.waits(True)
        rows = await driver.fetch(_READ, self._batch_rows_max, _BATCH_BYTES_MAX)
        self._in_hand = len(rows)
        if rows:
            await self._publish(driver, rows)
            instruments.RELAY_PUBLISH_S.observe(time.monotonic() - started)
            self._stall.progressed()
        if time.monotonic() >= self._watermark_due_at:
            await self._announce(driver)
            self._watermark_due_at = time.monotonic() + self._watermark_every_s
        if self._deleted_rows >= _VACUUM_AFTER_ROWS:
            await driver.execute(_VACUUM)
            self._deleted_rows = 0
        self._stall.waits(False)
        return len(rows) == self._batch_rows_max or sum(len(row["payload"]) for row in rows) > _BATCH_BYTES_MAX

    async def _publish(self, driver: asyncpg.Connection, rows: Sequence[asyncpg.Record]) -> None:
        producer = await self._ready_producer()
        by_partition: dict[int, list[Record]] = defaultdict(list)
        for at, (id_, event_id, type_, key, occurred_at, traceparent, payload) in enumerate(rows, 1):
            if at % _ROWS_PER_TURN == 0:
                await asyncio.sleep(0)
            subject: bytes = key.encode()
            headers = self._headers(type_, event_id, subject, occurred_at, traceparent)
            by_partition[partition_of(subject, self._partitions)].append((id_, subject, payload, headers))
        published: list[int] = []
        outcomes = await asyncio.gather(
            *(self._send(producer, partition, records, published) for partition, records in by_partition.items()),
            return_exceptions=True,
        )
        if published:
            await driver.execute(_DELETE, published)
            instruments.RELAY_PUBLISHED.inc(len(published))
            self._deleted_rows += len(published)
        _raise_first(outcomes, len(published))

    async def _send(
        self, producer: AIOKafkaProducer, partition: int, records: Sequence[Record], published: list[int]
    ) -> None:
        """Send one partition's records by Kafka batches, each after the acknowledgement of the one before."""
        at = 0
        while at < len(records):
            batch, sent_to = producer.create_batch(), at
            for _, key, value, headers in records[at:]:
                if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                    break
                sent_to += 1
            await self._deliver(producer, batch, partition)
            published.extend(record[0] for record in records[at:sent_to])
            at = sent_to

    async def _deliver(self, producer: AIOKafkaProducer, batch: Any, partition: int) -> None:
        async with asyncio.timeout(_ACK_TIMEOUT_S):
            acknowledged = await producer.send_batch(batch, self._topic, partition=partition)
            await acknowledged

    def _headers(
        self, type_: str, event_id: UUID, subject: bytes, occurred_at: datetime, traceparent: str | None
    ) -> list[tuple[str, bytes]]:
        """What accord.contracts.envelope.headers_of gives, with the parts that do not change built once per type."""
        fixed = self._fixed_headers.get(type_)
        if fixed is None:
            fixed = headers_of(
                id=event_id, type=type_, source=self._source, subject="", time=occurred_at, traceparent=None
            )
            self._fixed_headers[type_] = fixed
        version, _, type_header, source, _, _, content_type = fixed
        headers = [
            version,
            ("ce_id", str(event_id).encode()),
            type_header,
            source,
            ("ce_subject", subject),
            ("ce_time", occurred_at.isoformat().encode()),
            content_type,
        ]
        if traceparent:
            headers.append(("traceparent", traceparent.encode()))
        return headers

    async def _announce(self, driver: asyncpg.Connection) -> None:
        """Write the watermark to every partition, and measure the outbox."""
        reached = await self._frontier.advance(driver)
        rows, _, age_s = (await driver.fetch(outbox.DEPTH))[0]
        instruments.OUTBOX_ROWS.set(rows)
        instruments.OUTBOX_AGE_S.set(age_s or 0.0)
        if reached is None:
            return
        producer = await self._ready_producer()
        now = datetime.now(UTC)
        instruments.WATERMARK_AGE_S.set((now - reached).total_seconds())
        value = WatermarkAdvanced(occurred_at=reached, recorded_at=reached, watermark_at=reached)
        outcomes = await asyncio.gather(
            *(self._announce_to(producer, part, value) for part in range(self._partitions)), return_exceptions=True
        )
        _raise_first(outcomes, 0)

    async def _announce_to(self, producer: AIOKafkaProducer, partition: int, value: WatermarkAdvanced) -> None:
        batch = producer.create_batch()
        headers = self._headers(value.type, new_id(), value.key.encode(), value.occurred_at, None)
        batch.append(timestamp=None, key=value.key.encode(), value=value.model_dump_json().encode(), headers=headers)
        await self._deliver(producer, batch, partition)

    async def _ready_producer(self) -> AIOKafkaProducer:
        if self._producer is not None:
            return self._producer
        try:
            await ensure_topics(self._kafka, [TOPIC_OF[self._service]])
        except (TimeoutError, OSError) as error:
            raise PublishFailed(0, error) from error
        producer = AIOKafkaProducer(
            **client_options(self._kafka),
            acks="all",
            enable_idempotence=True,
            max_batch_size=_KAFKA_BATCH_BYTES_MAX,
            request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
            metadata_max_age_ms=30_000,
        )
        try:
            async with asyncio.timeout(_ACK_TIMEOUT_S):
                await producer.start()
                self._partitions = len(await producer.partitions_for(self._topic))
        except BaseException as error:
            await close_quietly(producer)
            if isinstance(error, (TimeoutError, OSError)):
                raise PublishFailed(0, error) from error
            raise
        self._producer = producer
        return producer

    async def _drop_producer(self) -> None:
        """Give up the producer: after a failure its sequence numbers cannot be trusted (aiokafka#1017)."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_quietly(producer)

    def _failed(self, cause: str, error: BaseException) -> None:
        self._stall.failed()
        instruments.RELAY_FAILURES.labels(cause).inc()
        log.warning("relay_round_failed", cause=cause, error=type(error.__cause__ or error).__name__)


def _raise_first(outcomes: Sequence[BaseException | None], published: int) -> None:
    """Raise what went wrong on the first partition that failed, if one did."""
    for outcome in outcomes:
        if isinstance(outcome, (KafkaError, TimeoutError, OSError)):
            raise PublishFailed(published, outcome) from outcome
        if outcome is not None:
            raise outcome


async def _close(driver: asyncpg.Connection) -> None:
    try:
        await driver.close(timeout=2.0)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        driver.terminate()
