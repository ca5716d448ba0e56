"""Reads what relays announce, and says how far a transaction's service has consumed its topics. It stores nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.clock import utc_now
from accord.contracts.watermarks import WATERMARKS, InvalidAnnouncement, decode_announcement
from accord.db import connection_of, is_transient
from accord.messaging import instruments
from accord.messaging.announcement_board import AnnouncementBoard
from accord.messaging.consumer_store import read_progress
from accord.messaging.polling import poll_until_stopped
from accord.messaging.ports import (
    ConsumedWatermarks,
    EventLog,
    LogPositionLost,
    LogReader,
    LogRecord,
    Partition,
    Progress,
)
from accord.retry import Backoff

log = structlog.get_logger(__name__)

AHEAD_MAX = timedelta(seconds=10)
"""An announcement further ahead of the broker's clock or ours is none: believed, it would break every promise at once."""

_POLL_S = 5.0
_RECORDS_MAX = 1_000
_PARTITION = (WATERMARKS, 0)


class ChangeGate:
    """Spares looking for what a watermark brings while none has moved. Other processes move it too, so now and then it opens
    anyway."""

    def __init__(self, watermarks: WatermarkReader, every_s: float = 5.0) -> None:
        self._watermarks = watermarks
        self._every_s = every_s
        self._seen = -1
        self._opens_at = 0.0

    async def run_if_changed(self, work: Callable[[], Awaitable[bool | None]]) -> bool:
        """Do `work` if it is worth a look now; whether there is more to do at once, as it says. None: it has found nothing.

        After that the next look is when something has changed. One that has found something, or failed, is made again soon.
        """
        now, changes = asyncio.get_running_loop().time(), self._watermarks.changes
        if changes == self._seen and now < self._opens_at:
            return False
        more = await work()
        if more is not None:
            return more
        self._seen, self._opens_at = changes, now + self._every_s
        return False


class WatermarkReader:
    """Worker. Every process that waits for watermarks reads all of them: the topic holds one record for each lane. Those of
    other topics than it waits for are passed over."""

    name = "watermarks"

    def __init__(
        self,
        event_log: EventLog,
        *,
        consumer: str,
        topics: Sequence[str],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.topics = tuple(topics)
        self.consumer = consumer
        self.board = AnnouncementBoard()
        self._log = event_log
        self._now = now
        self._moves = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop`; a lost log is tried again for ever."""
        backoff = Backoff(first_s=0.1, max_s=2.0)
        while not stop.is_set():
            try:
                await self._log.prepare([WATERMARKS])
                reader = await self._log.open_reader([WATERMARKS], None)
                try:
                    await self._read(reader, stop, backoff)
                finally:
                    await reader.close()
            except Exception as error:
                if not is_transient(error) and not isinstance(error, LogPositionLost):
                    raise
                log.warning("watermarks_disconnected", consumer=self.consumer, error=type(error).__name__)
                await backoff.wait(stop)

    def problem(self) -> str | None:
        return None

    def notify_moved(self) -> None:
        """A consumer of this process has moved on."""
        self._moves += 1

    @property
    def doubts(self) -> int:
        return self.board.doubts

    def set_verified(self, is_verified: bool) -> None:
        """Whether the positions of the consumer beside it are known to be of these topics."""
        self.board.is_verified = is_verified

    @property
    def changes(self) -> int:
        """Grows with everything that may have changed how far the topics have been consumed."""
        return self.board.changes + self._moves

    def consumed_by(self, positions: Mapping[Partition, int]) -> ConsumedWatermarks:
        """How far a consumer with these positions has come, without what its dead letters hold."""
        return self.board.reached(self.topics, positions)

    async def read(self, conn: AsyncConnection) -> ConsumedWatermarks:
        """How far the topics have been consumed, as this transaction sees it."""
        return self.reached(await read_progress(await connection_of(conn), [self.consumer]))

    def reached(self, progress: Progress) -> ConsumedWatermarks:
        """How far a consumer has come that has made such progress."""
        reached = self.consumed_by(progress.positions)
        return ConsumedWatermarks(reached.topics, reached.held | progress.held, progress.holds_all)

    async def _read(self, reader: LogReader, stop: asyncio.Event, backoff: Backoff) -> None:
        reader.assign(await reader.beginnings([_PARTITION]))
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                for record in await poll_until_stopped(reader, stopped, _POLL_S, _RECORDS_MAX):
                    self._add(record)
                backoff.reset()
        finally:
            stopped.cancel()

    def _add(self, record: LogRecord) -> None:
        if record.value is None and record.unreadable is None:
            return  # a key that somebody has removed
        try:
            if record.unreadable is not None:
                raise InvalidAnnouncement(record.unreadable)
            topic, lane, announcement = decode_announcement(record.key, record.value)
            if announcement.at > min(self._now(), record.appended_at) + AHEAD_MAX:
                raise InvalidAnnouncement("it is ahead of the clock")
        except InvalidAnnouncement as error:
            instruments.WATERMARKS_REJECTED.inc()
            log.error("watermark_rejected", offset=record.offset, why=str(error))
            return
        if topic in self.topics:
            self.board.add(topic, lane, announcement)
