"""The one record that is no business event: 'all that I recorded before T is published', written to every partition."""

from __future__ import annotations

from typing import ClassVar

from accord.contracts.base import EventData, event
from accord.contracts.values import Timestamp


@event
class WatermarkAdvanced(EventData):
    """Everything its producer recorded before `watermark_at` stands before this record in every partition."""

    type: ClassVar[str] = "watermark.advanced.v1"
    watermark_at: Timestamp

    @property
    def key(self) -> str:
        return "watermark"
