"""What a relay announces: 'all that I recorded before T is published', and what older versions wrote into each partition."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import field
from pydantic import ValidationError

from accord.contracts.base import EventData, event
from accord.contracts.codec import decode_value, encode_value
from accord.contracts.values import Timestamp, Value, limits

Offset = Annotated[int, *limits(ge=0, le=2**63 - 1)]

HeldKey = Annotated[str, *limits(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""The key of an event. Readers pass it to their databases, which know no NUL."""

WATERMARKS = "watermarks"
"""The compacted topic of announcements; its one partition keeps the newest record of each key."""


class InvalidAnnouncement(ValueError):
    """A record of the topic that says nothing a consumer may rely on."""


class Announcement(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that a lane of a service's relay recorded before `at` stands before `ends` in its topic.

    The record's key is `TOPIC/LANE`, its value this as JSON.
    """

    at: Timestamp
    lanes: Annotated[int, *limits(ge=1, le=64)] = 1
    """How many lanes the relay's keys are spread over; the service's watermark is the least of them."""
    ends: Annotated[list[Offset], *limits(max_length=10_000)]
    """The offset after the last record, by partition."""
    held: Annotated[list[HeldKey], *limits(max_length=1_000)] = field(default_factory=list)
    """Keys for which it is not so: something of them could not be applied yet."""


def encode_announcement(topic: str, lane: int, announcement: Announcement) -> tuple[bytes, bytes]:
    """Key and value of the record."""
    return f"{topic}/{lane}".encode(), encode_value(announcement)


def decode_announcement(key: bytes | None, value: bytes | None) -> tuple[str, int, Announcement]:
    """Topic, lane and announcement of a record. Raises InvalidAnnouncement, which quotes nothing of it."""
    try:
        topic, _, name = (key or b"").decode().rpartition("/")
        lane, announcement = int(name), decode_value(Announcement, value or b"")
    except ValidationError as error:
        raise InvalidAnnouncement(f"{error.error_count()} fields do not fit") from None
    except ValueError:
        raise InvalidAnnouncement("the key is not TOPIC/LANE") from None
    if not 0 <= lane < announcement.lanes:
        raise InvalidAnnouncement("there is no such lane")
    return topic, lane, announcement


@event
class WatermarkAdvanced(EventData, frozen=True, kw_only=True):
    """Everything its producer recorded before `watermark_at` stands before this record in every partition.

    Written into each partition by versions before announcements; consumers pass over it.
    """

    type: ClassVar[str] = "watermark.advanced.v1"
    watermark_at: Timestamp

    @property
    def key(self) -> str:
        return "watermark"
