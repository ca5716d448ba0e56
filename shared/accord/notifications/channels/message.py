"""What every channel is given, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from accord.notifications.domain.model import Outcome
from accord.notifications.domain.rendering import Notice


class Message(Struct, frozen=True, kw_only=True):
    """One message. `body` is what webhooks are sent; people read `notices`, the first of `total`."""

    delivery_id: UUID
    event_type: str
    created_at: datetime
    body: bytes
    notices: Sequence[Notice] = ()
    total: int = 1
    console_url: str | None = None

    @property
    def title(self) -> str:
        return self.notices[0].title if self.total == 1 else f"{self.total} notifications"


class Receiver(Struct, frozen=True, kw_only=True):
    """Where a message goes. `secrets` are all that are valid, in clear; they and the address stand in no log."""

    address: str
    secrets: Sequence[str] = ()


class Sender(Protocol):
    """A channel."""

    @property
    def held_because(self) -> str | None:
        """Why nothing is to be sent for the time being, None if nothing is in the way."""
        ...

    async def send(self, message: Message, receiver: Receiver) -> Outcome:
        """One attempt, within a bounded time. It raises nothing that belongs to the receiver."""
        ...
