"""Watermarks set by hand: without Kafka, and announced over Kafka without a relay."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from accord.contracts.watermarks import WATERMARKS, Announcement, encode_announcement
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.ports import ConsumedWatermarks
from accord.settings import KafkaSettings


class FixedWatermarks:
    """Stands for accord.messaging.watermark_reader.Watermarks: everything recorded before a topic's moment has been read."""

    def __init__(self) -> None:
        self.reached: dict[str, datetime] = {}
        self.held: frozenset[str] = frozenset()
        self._looks = 0

    @property
    def changes(self) -> int:
        """Something may have changed each time that it is asked."""
        self._looks += 1
        return self._looks

    async def read(self, _: AsyncConnection) -> ConsumedWatermarks:
        return ConsumedWatermarks(dict(self.reached), self.held)


async def announce(kafka: KafkaSettings, topic: str, at: datetime) -> None:
    """Announce as a relay does that everything recorded before `at` stands before the topic's present ends."""
    log = KafkaLog(kafka)
    await log.prepare([topic, WATERMARKS])
    writer = await log.open_writer(topic)
    try:
        await writer.announce(*encode_announcement(topic, 0, Announcement(at=at, ends=await writer.ends())))
    finally:
        await writer.close()
