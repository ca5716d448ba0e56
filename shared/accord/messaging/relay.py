"""The relay: publishes the outbox to the service's topic, in order, at least once. It reads no event's data.

The outbox is split into lanes by the hash of the key. A lane is published by the process that has claimed it on the
connection which also reads its rows and deletes them, so each statement proves that the claim still holds. Rows are
read in id order from whatever is in the table, never from a high-water mark: ids commit out of order, and a late one
must be found.

Order: all rows of a key stand in one partition and one lane; a partition has one batch in flight, and the next is sent
only after its acknowledgement. If one fails, the partition rests and begins again from the table over another writer,
while the others go on. So a consumer may see a row twice, but among first sightings there is no gap and no change of
order; this also holds while a relay that lost its claim finishes what it had begun, since both walk the same rows in
the same order.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from accord.contracts.envelope import headers_of
from accord.contracts.topics import TOPIC_OF, ServiceName
from accord.contracts.watermarks import WATERMARKS, Announcement, encode_announcement
from accord.db import is_transient
from accord.messaging import instruments
from accord.messaging.claims import balance
from accord.messaging.frontier import Bound, Consumed, Frontier
from accord.messaging.ports import (
    EventLog,
    Lane,
    LogWriter,
    OutboxRow,
    OutgoingRecord,
    Partition,
    RelaySession,
    RelayStore,
    Resting,
)
from accord.partitioning import Partitioner, hash_key
from accord.retry import Backoff
from accord.workers import StallDetector, pause

log = structlog.get_logger(__name__)

_BATCH_BYTES_MAX = 16 * 1024 * 1024
"""A batch ends with the first row past this, so that large events cannot fill the memory."""

_ROWS_PER_TURN = 500
"""So many rows are prepared before other tasks of the process, such as its API, get their turn (some 5 ms)."""

_BEHIND_ROWS = 500
"""Of a batch; some 20 ms of publishing."""

_RECLAIM_AFTER_ROWS = 50_000
"""Deleted rows after which the relay has their space reused. Autovacuum looks only once a minute, and at 20,000
events a second the table would have grown by half a gigabyte in between."""

_ROUND_S_MAX = 1.0
"""A partition that takes longer goes on by itself, and the round ends without it."""

_BALANCE_EVERY_S = 3.0
_LAYOUTS_EVERY_S = 30.0
"""Far less than what a layout is announced ahead of its time (see PostgresRelaySession.add_layout)."""

_QUIET_ROUNDS = 20

_ANNOUNCEMENT = -1
"""Stands for an announcement among the partitions that are under way on a channel."""
_STANDBY_S = 0.5
_BACKOFF_S_MAX = 2.0
_REST_S_MAX = 5.0
_ANNOUNCE_S_MIN = 0.2
_DRAIN_S_MAX = 5.0


class PublishFailed(Exception):
    """Nothing of a batch was acknowledged, or the log cannot be reached."""


@dataclass(slots=True)
class _Channel:
    """A writer with what is under way on it. Retired after a failure, it is closed once nothing is under way any more."""

    writer: LogWriter
    sending: set[int] = field(default_factory=set)
    retired: bool = False


@dataclass(slots=True)
class _Outcome:
    """What became of one partition's rows."""

    partition: int
    published: list[int]
    error: Exception | None = None


class Relay:
    """Worker. `consumed`: what the service reads of others, whose watermarks bound its own. Unless `is_waited_for`, nobody acts by
    what it announces, and it may come late."""

    name = "relay"

    def __init__(
        self,
        store: RelayStore,
        event_log: EventLog,
        service: ServiceName,
        consumed: Consumed | None = None,
        *,
        lanes: int = 1,
        batch_rows_max: int = 5000,
        poll_s: float = 0.1,
        idle_poll_s: float = 1.0,
        gather_s: float = 0.04,
        announce_every_s: float = 1.0,
        idle_announce_every_s: float = 3.0,
        is_waited_for: bool = True,
        stuck_after_s: float = 60.0,
    ) -> None:
        self._store = store
        self._log = event_log
        self._service: ServiceName = service
        self._topic = TOPIC_OF[service]
        self._source = f"/{service}"
        self._consumed = consumed
        self._lanes = [Lane(number, lanes) for number in range(lanes)]
        self._batch_rows_max = batch_rows_max
        self._poll_s = poll_s
        self._idle_poll_s = idle_poll_s
        self._gather_s = gather_s
        self._announce_every_s = announce_every_s
        self._idle_announce_every_s = idle_announce_every_s
        self._is_waited_for = is_waited_for
        self._stall = StallDetector(stuck_after_s)
        self._frontiers: dict[int, Frontier] = {}
        self._partitioner: Partitioner | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._main: _Channel | None = None
        self._trial: _Channel | None = None
        """For partitions that failed: they must not take the others' writer with them again."""
        self._retired: list[_Channel] = []
        self._sends: dict[int, asyncio.Task[_Outcome]] = {}
        self._resting: dict[int, tuple[float, Backoff]] = {}
        """Partitions that failed: until when they rest."""
        self._reclaiming: asyncio.Task[None] | None = None
        self._deleted_rows = 0
        self._in_hand = 0
        self._quiet_rounds = 0
        self._announced_at = 0.0
        self._announced_changes = 0
        self._layouts_read_at = -_LAYOUTS_EVERY_S
        self._active = True
        self._fixed_headers: dict[str, list[tuple[str, bytes]]] = {}
        self.announced: datetime | None = None
        """The moment that this process announced last, of its lowest lane."""

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`; lost connections are made anew with back-off, anything else ends the process."""
        backoff = Backoff(first_s=0.05, max_s=_BACKOFF_S_MAX)
        try:
            while not stop.is_set():
                try:
                    await self._session(stop, backoff)
                except Exception as error:
                    if not is_transient(error):
                        raise
                    self._record_failure("database", error)
                    await backoff.wait(stop)
        finally:
            if (reclaiming := self._reclaiming) is not None:
                reclaiming.cancel()
                await asyncio.gather(reclaiming, return_exceptions=True)

    @property
    def behind(self) -> bool:
        """Whether so many events are being published that the next ones have to wait."""
        return self._in_hand > _BEHIND_ROWS

    def problem(self) -> str | None:
        if self._stall.is_stuck:
            return f"relay: a round has not finished for more than {self._stall.stuck_after_s:.0f} s"
        return None

    # -- one connection

    async def _session(self, stop: asyncio.Event, backoff: Backoff) -> None:
        """Claim lanes, or stand by, and publish them over one connection."""
        session = await self._store.open_session()
        self._frontiers = {}
        balance_at = 0.0
        try:
            while not stop.is_set():
                if _now() >= balance_at:
                    await self._balance(session)
                    balance_at = _now() + _BALANCE_EVERY_S
                if not self._frontiers:
                    await pause(stop, _STANDBY_S)
                    continue
                try:
                    more = await self._round(session)
                except PublishFailed as error:
                    self._record_failure("log", error.__cause__ or error)
                    await self._close_channels()
                    await backoff.wait(stop)
                    continue
                backoff.reset()
                if not more:
                    await self._wait_for_rows(stop)
            await self._drain(session)
        finally:
            instruments.RELAY_LEADER.set(0)
            self._stall.set_waiting(False)
            await self._close_channels()
            await session.close()

    async def _balance(self, session: RelaySession) -> None:
        items: list[Partition] = [("lane", lane.number) for lane in self._lanes]
        before = {("lane", number) for number in self._frontiers}
        held = await balance(session.lanes, items, before, before_release=lambda: self._drain(session))
        numbers = {number for _, number in held}
        gained = sorted(numbers - self._frontiers.keys())
        for number in gained:
            self._frontiers[number] = Frontier(self._lanes[number], self._consumed)
        self._frontiers = {number: self._frontiers[number] for number in sorted(numbers)}
        if gained:
            log.info("lanes_claimed", topic=self._topic, lanes=gained)
        instruments.RELAY_LEADER.set(len(numbers))

    async def _wait_for_rows(self, stop: asyncio.Event) -> None:
        """Until this process has written, or the next poll or announcement is due, or `stop`; then gather for a moment."""
        poll_s = self._poll_s if self._quiet_rounds < _QUIET_ROUNDS else self._idle_poll_s
        timeout_s = min(poll_s, max(0.0, self._announce_due() - _now()))
        if stop.is_set() or timeout_s <= 0:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._store.written.wait()
        except TimeoutError:
            return
        await pause(stop, self._gather_s)

    # -- publishing

    async def _round(self, session: RelaySession) -> bool:
        """Publish one batch of each lane, and announce what is due. True if more may wait."""
        self._store.written.clear()
        self._stall.set_waiting(True)
        more = False
        await self._record_outcomes(session, [task for task in self._sends.values() if task.done()])
        for number in self._frontiers:
            more |= await self._publish_lane(session, self._lanes[number])
        if _now() >= self._announce_due():
            await self._announce(session)
        self._reclaim_space()
        self._stall.set_waiting(False)
        return more

    async def _publish_lane(self, session: RelaySession, lane: Lane) -> bool:
        started = _now()
        frontier = self._frontiers[lane.number]
        rows = await session.read_rows(
            lane, frontier.floor_id, self._find_blocked_partitions(), self._batch_rows_max, _BATCH_BYTES_MAX
        )
        self._in_hand = len(rows)
        if not rows:
            self._quiet_rounds += 1
            return False
        self._quiet_rounds, self._active = 0, True
        sends = await self._send_rows(session, rows)
        if sends:
            done, _ = await asyncio.wait(sends, timeout=_ROUND_S_MAX)
            await self._record_outcomes(session, list(done))
        instruments.RELAY_PUBLISH_S.observe(_now() - started)
        self._stall.record_progress()
        return len(rows) == self._batch_rows_max or sum(len(row.payload) for row in rows) > _BATCH_BYTES_MAX

    def _find_blocked_partitions(self) -> Resting:
        """Partitions with something under way, and those that rest after a failure."""
        now = _now()
        resting = {partition for partition, (until, _) in self._resting.items() if until > now}
        counts = self._partitioner.counts if self._partitioner else []
        return Resting(sorted(resting | self._sends.keys()), counts)

    async def _send_rows(self, session: RelaySession, rows: Sequence[OutboxRow]) -> list[asyncio.Task[_Outcome]]:
        """Begin to send rows, by partition."""
        await self._prepare(session)
        partitioner = self._partitioner
        if partitioner is None:
            raise RuntimeError("the layouts are not known")
        by_partition: dict[int, list[tuple[int, OutgoingRecord]]] = defaultdict(list)
        for number, row in enumerate(rows, 1):
            if number % _ROWS_PER_TURN == 0:
                await asyncio.sleep(0)
            key = row.key.encode()
            key_hash = hash_key(key) if row.key_hash is None else row.key_hash
            partition = partitioner.partition_of(row.key, key_hash)
            if partition not in self._sends:
                record = OutgoingRecord(key, row.payload, self._headers(row, key))
                by_partition[partition].append((row.id, record))
        for partition, records in by_partition.items():
            channel = await self._channel(trial=partition in self._resting)
            channel.sending.add(partition)
            self._sends[partition] = asyncio.create_task(self._send(channel, partition, records))
        return [self._sends[partition] for partition in by_partition]

    async def _send(self, channel: _Channel, partition: int, records: Sequence[tuple[int, OutgoingRecord]]) -> _Outcome:
        """Send one partition's records batch by batch, each after the acknowledgement of the one before."""
        outcome = _Outcome(partition, [])
        try:
            while len(outcome.published) < len(records):
                left = records[len(outcome.published) :]
                count = await channel.writer.append(partition, [record for _, record in left])
                outcome.published.extend(id_ for id_, _ in left[:count])
        except Exception as error:  # noqa: BLE001 - it is the round's to judge
            outcome.error = error
            channel.retired = True
        channel.sending.discard(partition)
        return outcome

    async def _record_outcomes(self, session: RelaySession, done: Sequence[asyncio.Task[_Outcome]]) -> None:
        """Delete what is published; let partitions that failed rest. Raises what no retry can mend, or PublishFailed."""
        outcomes = [task.result() for task in done]
        for outcome in outcomes:
            self._sends.pop(outcome.partition, None)
        published = [id_ for outcome in outcomes for id_ in outcome.published]
        if published:
            await session.delete_rows(published)
            instruments.RELAY_PUBLISHED.inc(len(published))
            self._deleted_rows += len(published)
        failed = [outcome for outcome in outcomes if outcome.error is not None]
        for outcome in outcomes:
            if outcome.error is None:
                self._resting.pop(outcome.partition, None)
            elif not is_transient(outcome.error):
                raise outcome.error
        for outcome in failed:
            _, backoff = self._resting.get(outcome.partition, (0.0, Backoff(first_s=0.5, max_s=_REST_S_MAX)))
            self._resting[outcome.partition] = (_now() + backoff.next_s(), backoff)
            self._record_failure("partition", outcome.error, partition=outcome.partition)
        if failed and not published and len(failed) == len(outcomes) and not self._sends:
            raise PublishFailed from failed[0].error
        await self._close_retired()

    async def _drain(self, session: RelaySession) -> None:
        """Have nothing under way any more. Rows whose acknowledgement does not come in time stay in the outbox: they must
        not be deleted once somebody else may have read the ends."""
        if self._sends:
            done, _ = await asyncio.wait(self._sends.values(), timeout=_DRAIN_S_MAX)
            with suppress(PublishFailed):
                await self._record_outcomes(session, list(done))
            if self._sends:
                await self._close_channels()

    # -- writers

    async def _prepare(self, session: RelaySession) -> None:
        """Have a writer, and know the layouts of the topic."""
        channel = await self._channel(trial=False)
        await self._read_layouts(session, channel.writer.partitions)
        spread_over = 0 if self._partitioner is None else max(self._partitioner.counts)
        if not 0 < spread_over <= channel.writer.partitions:
            raise PublishFailed(
                f"the topic has {channel.writer.partitions} partitions and keys are spread over {spread_over}; add partitions"
            )

    async def _read_layouts(self, session: RelaySession, partitions: int) -> None:
        """Know how keys are spread, in time before a new layout holds, whoever has added it."""
        known = 0 if self._partitioner is None else max(self._partitioner.counts)
        if partitions <= known and _now() < self._layouts_read_at + _LAYOUTS_EVERY_S:
            return
        layouts = await session.read_layouts()
        if partitions > max((layout.partitions for layout in layouts), default=0):
            await session.add_layout(partitions)
            layouts = await session.read_layouts()
        self._partitioner = Partitioner(layouts)
        self._layouts_read_at = _now()

    async def _channel(self, *, trial: bool) -> _Channel:
        channel = self._trial if trial else self._main
        if channel is None or channel.retired:
            if channel is not None and not channel.sending:
                await channel.writer.close()
            elif channel is not None:
                self._retired.append(channel)
            try:
                await self._log.prepare([self._topic, WATERMARKS])
                channel = _Channel(await self._log.open_writer(self._topic))
            except Exception as error:
                if not is_transient(error):
                    raise
                raise PublishFailed from error
            if trial:
                self._trial = channel
            else:
                self._main = channel
        return channel

    async def _close_retired(self) -> None:
        """Close writers that failed, once the other partitions' records on them have come through or failed as well."""
        idle = [channel for channel in self._retired if not channel.sending]
        self._retired = [channel for channel in self._retired if channel.sending]
        for channel in idle:
            await channel.writer.close()

    async def _close_channels(self) -> None:
        """Give up everything that is under way; its rows are still in the outbox."""
        sends: list[asyncio.Task[Any]] = list(self._sends.values())
        if self._announcing is not None:
            sends.append(self._announcing)
        self._sends, self._announcing = {}, None
        for task in sends:
            task.cancel()
        await asyncio.gather(*sends, return_exceptions=True)
        channels = [channel for channel in (self._main, self._trial, *self._retired) if channel is not None]
        self._main = self._trial = None
        self._retired = []
        for channel in channels:
            await channel.writer.close()

    def _headers(self, row: OutboxRow, key: bytes) -> list[tuple[str, bytes]]:
        """What accord.contracts.envelope.headers_of gives, with the parts that do not change built once per type."""
        fixed = self._fixed_headers.get(row.type)
        if fixed is None:
            fixed = headers_of(
                id=row.event_id, type=row.type, source=self._source, subject="", time=row.occurred_at, traceparent=None
            )
            self._fixed_headers[row.type] = fixed
        version, _, type_header, source, _, _, content_type = fixed
        headers = [
            version,
            ("ce_id", str(row.event_id).encode()),
            type_header,
            source,
            ("ce_subject", key),
            ("ce_time", row.occurred_at.isoformat().encode()),
            content_type,
        ]
        if row.traceparent:
            headers.append(("traceparent", row.traceparent.encode()))
        return headers

    # -- announcing

    def _announce_due(self) -> float:
        """When the next announcement is due: sooner while events flow, and soon after what bounds it has moved on."""
        every_s = self._announce_every_s if self._active else self._idle_announce_every_s
        due_at = self._announced_at + every_s
        if (
            self._is_waited_for
            and self._consumed is not None
            and self._consumed.board.changes != self._announced_changes
        ):
            due_at = min(due_at, self._announced_at + _ANNOUNCE_S_MIN)
        return due_at

    async def _announce(self, session: RelaySession) -> None:
        """Find out what may be announced of each lane, and begin to announce it beside the rounds."""
        self._announced_at, self._active = _now(), False
        if self._announcing is not None:
            if not self._announcing.done():
                return
            self._announcing.result()
        if self._consumed is not None:
            self._announced_changes = self._consumed.board.changes
        found = {number: await frontier.advance(session) for number, frontier in self._frontiers.items()}
        bounds = {number: bound for number, bound in found.items() if bound is not None}
        if not bounds:
            return
        await self._prepare(session)
        channel = await self._channel(trial=False)
        channel.sending.add(_ANNOUNCEMENT)
        self._announcing = asyncio.create_task(self._announce_lanes(channel, bounds))

    async def _announce_lanes(self, channel: _Channel, bounds: Mapping[int, Bound]) -> None:
        """Announce bounds with the ends of now: whoever has published a row before its bound has had the acknowledgement by then,
        this process, one that had the lane before, or a relay of another version beside it."""
        try:
            ends = await channel.writer.ends()
            try:
                for number, bound in bounds.items():
                    announcement = Announcement(at=bound.at, lanes=len(self._lanes), ends=ends, held=sorted(bound.held))
                    await channel.writer.announce(*encode_announcement(self._topic, number, announcement))
            except Exception:
                channel.retired = True
                raise
            self.announced = bounds[min(bounds)].at
        except Exception as error:
            if not is_transient(error):
                raise
            self._record_failure("announcement", error)
        finally:
            channel.sending.discard(_ANNOUNCEMENT)

    # -- around it

    def _reclaim_space(self) -> None:
        """Have the space of deleted rows reused, beside the rounds: on a table that was never vacuumed it takes minutes."""
        if self._deleted_rows < _RECLAIM_AFTER_ROWS or self._reclaiming is not None:
            return
        self._deleted_rows = 0
        self._reclaiming = asyncio.create_task(self._store.reclaim_space())
        self._reclaiming.add_done_callback(self._on_reclaimed)

    def _on_reclaimed(self, task: asyncio.Task[None]) -> None:
        self._reclaiming = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._record_failure("vacuum", error)

    def _record_failure(self, cause: str, error: BaseException | None, **where: object) -> None:
        self._stall.record_failure()
        instruments.RELAY_FAILURES.labels(cause).inc()
        if isinstance(error, PublishFailed):
            where["reason"] = str(error)
        log.warning("relay_round_failed", cause=cause, error=type(error).__name__, **where)


def _now() -> float:
    return asyncio.get_running_loop().time()
