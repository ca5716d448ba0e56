"""The log in memory: partitions of records, and the ways of a cluster: late, lost and repeated answers, stale metadata.

A record that was acknowledged is never lost (`acks=all`). A batch whose answer is lost may stand in the log, or arrive
when its writer is long closed. Partitions that are added are seen by each client only some time later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, NotEnoughReplicasError, RequestTimedOutError

from accord.contracts.watermarks import WATERMARKS
from accord.messaging.ports import LogPositionLost, LogReader, LogRecord, LogWriter, OutgoingRecord, Partition
from tests.simulation.process import Environment, Process

_REQUEST_TIMEOUT_S = 1.0
_LATE_S_MAX = 1.5
_METADATA_AGE_S = 0.8


class StoredRecord(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    appended_at: datetime


class Cluster:
    """The brokers."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.topics: dict[str, list[list[StoredRecord | None]]] = {}
        """By partition; None where compaction has removed a record."""
        self.partitions_default = 2
        self.unavailable: set[Partition] = set()
        self.is_up = True
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def create(self, topic: str) -> None:
        if topic not in self.topics:
            self.topics[topic] = [[] for _ in range(1 if topic == WATERMARKS else self.partitions_default)]

    def add_partitions(self, topic: str, count: int) -> None:
        self.topics[topic].extend([] for _ in range(count - len(self.topics[topic])))

    def append(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> int:
        """The offset after them."""
        stored, now = self.topics[topic][partition], self.environment.now()
        stored.extend(StoredRecord(key, value, headers, now) for key, value, headers in records)
        self.wake(topic)
        return len(stored)

    def compact(self, topic: str) -> None:
        """Remove what a later record of the same key supersedes."""
        for stored in self.topics.get(topic, ()):
            newest = {record.key: offset for offset, record in enumerate(stored) if record is not None}
            for offset, record in enumerate(stored):
                if record is not None and newest[record.key] != offset:
                    stored[offset] = None

    def wake(self, topic: str) -> None:
        for future in self._waiting.pop(topic, ()):
            if not future.done():
                future.set_result(None)

    def next_change(self, topics: Sequence[str]) -> asyncio.Future[None]:
        """Done once something is appended to one of these topics."""
        future: asyncio.Future[None] = self.environment.loop.create_future()
        for topic in topics:
            self._waiting.setdefault(topic, []).append(future)
        return future


class MemoryLog:
    """The cluster as one process sees it: an `EventLog`."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self.cluster = cluster
        self.process = process

    async def prepare(self, topics: Sequence[str]) -> None:
        await self._reach()
        for topic in topics:
            self.cluster.create(topic)

    async def open_writer(self, topic: str) -> LogWriter:
        await self._reach()
        return MemoryWriter(self.cluster, self.process, topic)

    async def open_reader(self, topics: Sequence[str], group: str | None) -> LogReader:
        await self._reach()
        return MemoryReader(self.cluster, self.process, topics)

    async def _reach(self) -> None:
        await self.process.step()
        await self.cluster.environment.travel()
        if not self.cluster.is_up:
            raise KafkaConnectionError("no broker is reachable")
        await self.process.step()


class _Client:
    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process
        self._nature = cluster.environment
        self._counts: dict[str, int] = {}
        self._counted_at = 0.0

    def _count(self, topics: Sequence[str]) -> Mapping[str, int]:
        """Partitions of topics as of the last look at the cluster, which may be a while ago."""
        now = self._nature.loop.time()
        if not self._counts or now > self._counted_at + _METADATA_AGE_S:
            self._counts = {topic: len(self._cluster.topics.get(topic, ())) for topic in topics}
            self._counted_at = now - 0.3 * self._nature.rng.random()
        return self._counts

    async def _request(self) -> None:
        await self._process.step()
        await self._nature.travel()
        if not self._cluster.is_up:
            raise KafkaConnectionError("no broker is reachable")

    async def _answer(self) -> None:
        if self._nature.rng.random() < 0.25:
            await self._nature.travel()
        await self._process.step()


class MemoryWriter(_Client):
    """An idempotent producer with `acks=all`. Used after a failure it would not keep the order, so that is an error here."""

    def __init__(self, cluster: Cluster, process: Process, topic: str) -> None:
        super().__init__(cluster, process)
        self._topic = topic
        self._busy: set[int] = set()
        self._failed: set[int] = set()
        self._is_closed = False
        self._count([topic])

    @property
    def partitions(self) -> int:
        return self._count([self._topic])[self._topic]

    async def ends(self) -> list[int]:
        await self._request()
        ends = [len(stored) for stored in self._cluster.topics[self._topic][: self.partitions]]
        await self._answer()
        return ends

    async def append(self, partition: int, records: Sequence[OutgoingRecord]) -> int:
        environment = self._nature
        self._check_use(partition)
        count = len(records) if environment.rng.random() < 0.7 else environment.rng.randint(1, len(records))
        self._busy.add(partition)
        try:
            await self._send(self._topic, partition, records[:count])
        except BaseException:
            self._failed.add(partition)
            raise
        finally:
            self._busy.discard(partition)
        return count

    def _check_use(self, partition: int) -> None:
        if self._is_closed or partition in self._failed or partition in self._busy:
            why = "is closed" if self._is_closed else "has failed" if partition in self._failed else "is busy"
            self._nature.violated(f"a writer was used for partition {partition} that {why}")

    async def announce(self, key: bytes, value: bytes) -> None:
        if self._nature.trace:
            self._nature.trace("announces", key.decode(), value.decode())
        await self._send(WATERMARKS, 0, [OutgoingRecord(key, value, [])])

    async def _send(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> int:
        environment, cluster = self._nature, self._cluster
        await self._process.step()
        is_sent = False
        try:
            await environment.travel()
            if environment.happens(environment.odds.fail_append):
                raise NotEnoughReplicasError
            deadline = environment.loop.time() + _REQUEST_TIMEOUT_S
            while not cluster.is_up or (topic, partition) in cluster.unavailable:
                if environment.loop.time() > deadline:
                    raise RequestTimedOutError
                await environment.loop.sleep(0.1)  # the client tries again by itself
            end = cluster.append(topic, partition, records)
            is_sent = True
            if environment.trace and topic != WATERMARKS:
                environment.trace(
                    "appended", topic, partition, end, [dict(record.headers)["ce_id"][-4:] for record in records]
                )
        finally:
            if not is_sent and environment.rng.random() < 0.5:
                # On the wire when its writer gave up or died: it arrives all the same.
                environment.loop.call_later(
                    _LATE_S_MAX * environment.rng.random(), self._arrive_late, topic, partition, records
                )
        await self._answer()
        if environment.happens(environment.odds.lose_ack):
            raise RequestTimedOutError
        return end

    def _arrive_late(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> None:
        if self._nature.trace:
            self._nature.trace("late", topic, partition, len(records))
        self._cluster.append(topic, partition, records)

    async def close(self) -> None:
        self._is_closed = True
        await self._process.step()


class MemoryReader(_Client):
    """A consumer client with partitions assigned by hand."""

    def __init__(self, cluster: Cluster, process: Process, topics: Sequence[str]) -> None:
        super().__init__(cluster, process)
        self._topics = list(topics)
        self._next: dict[Partition, int] = {}

    async def partitions(self) -> Mapping[str, int]:
        await self._request()
        counts = self._count(self._topics)
        await self._answer()
        return counts

    async def beginnings(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        await self._request()
        if not self._cluster.unavailable.isdisjoint(partitions):
            raise KafkaTimeoutError  # as aiokafka does once it has asked for a leader long enough
        await self._answer()
        return dict.fromkeys(partitions, 0)

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        await self._request()
        await self._answer()
        return {}

    def assign(self, positions: Mapping[Partition, int]) -> None:
        self._next = dict(positions)

    async def poll(self, timeout_s: float, records_max: int) -> Sequence[LogRecord]:
        deadline = self._nature.loop.time() + timeout_s
        await self._request()
        while True:
            found = self._fetch(records_max)
            if found:
                await self._answer()
                return self._hand_on(found)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._cluster.next_change(self._topics)
                    await self._request()
            except TimeoutError:
                return []

    def _fetch(self, records_max: int) -> list[LogRecord]:
        rng, found = self._nature.rng, list[LogRecord]()
        parts = list(self._next)
        rng.shuffle(parts)
        for topic, partition in parts:
            if (topic, partition) in self._cluster.unavailable or not self._cluster.is_up:
                continue
            stored, offset = self._stored((topic, partition)), self._next[(topic, partition)]
            if offset > len(stored):
                raise LogPositionLost(f"{topic}/{partition} has no offset {offset}", [(topic, partition)])
            left = records_max - len(found)
            if left <= 0:
                break
            until = min(len(stored), offset + left)
            if until - offset > 1 and rng.random() < 0.3:
                until = rng.randint(offset + 1, until)
            found += [
                LogRecord(topic, partition, at, *record)
                for at, record in enumerate(stored[offset:until], offset)
                if record is not None
            ]
        return found

    def _stored(self, partition: Partition) -> list[StoredRecord | None]:
        topic, number = partition
        partitions = self._cluster.topics.get(topic, [])
        return partitions[number] if number < len(partitions) else []

    def _hand_on(self, found: Sequence[LogRecord]) -> list[LogRecord]:
        """What of it is still asked for: the partitions may have been assigned anew in the meantime."""
        handed = []
        for record in found:
            part = (record.topic, record.partition)
            if self._next.get(part, record.offset + 1) <= record.offset:
                self._next[part] = record.offset + 1
                handed.append(record)
        return handed

    def lag(self) -> Mapping[str, int]:
        by_topic = dict.fromkeys(self._topics, 0)
        for part, offset in self._next.items():
            by_topic[part[0]] += max(0, len(self._stored(part)) - offset)
        return by_topic

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        await self._request()

    async def close(self) -> None:
        await self._process.step()
