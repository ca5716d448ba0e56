"""Webhooks as Standard Webhooks 1.0 describes them, signed by its own library."""

from __future__ import annotations

from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

from accord.notifications.channels.message import Message, Receiver
from accord.notifications.channels.posting import Poster
from accord.notifications.domain.model import Outcome


class WebhookSender:
    """Sends the same body and id with each attempt, and a new timestamp, signed with every secret that is valid."""

    held_because: str | None = None

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    async def send(self, message: Message, receiver: Receiver) -> Outcome:
        sent_at = datetime.now(UTC)
        delivery_id, text = str(message.delivery_id), message.body.decode()
        headers = {
            "webhook-id": delivery_id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": " ".join(
                Webhook(secret).sign(delivery_id, sent_at, text) for secret in receiver.secrets
            ),
        }
        return await self._poster.post(receiver.address, headers, message.body, is_chat=False)
