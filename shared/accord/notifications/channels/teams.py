"""Teams: the URL of a Workflow ("When a Teams webhook request is received"), which posts an Adaptive Card.

Text of others stands in text runs only, which know no Markdown. A card of 24 KB was refused at Teams' limit of 28 KB, since the platform
adds to it; so ours are smaller. 202 means that the Workflow has begun, not that anybody sees a card.
"""

from __future__ import annotations

from typing import Any

import orjson

from accord.notifications.channels.message import Message, Receiver
from accord.notifications.channels.posting import Poster
from accord.notifications.domain.model import Outcome
from accord.notifications.domain.rendering import Notice, cut, cut_to

BYTES_MAX = 18_000
NOTICES_MAX = 30
CARD_VERSION = "1.4"
_TITLE_CHARS_MAX = 150
_NOTICE_BYTES_MAX = 500
_TEXT_BYTES_MAX = 12_000
_ACCEPTED = "accepted by the Workflow; whether a card is shown, only its reader can tell"


class TeamsSender:
    """Posts to a Workflow."""

    held_because: str | None = None

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    async def send(self, message: Message, receiver: Receiver) -> Outcome:
        outcome = await self._poster.post(receiver.address, {}, render_teams(message), is_chat=True)
        if outcome.kind == "delivered":
            return Outcome(
                kind="delivered",
                error=_ACCEPTED,
                status=outcome.status,
                body=outcome.body,
                body_is_cut=outcome.body_is_cut,
            )
        return outcome


def render_teams(message: Message) -> bytes:
    """The JSON of a message."""
    blocks = [_text(cut(message.title, _TITLE_CHARS_MAX), weight="Bolder", size="Large")]
    if message.total == 1:
        notice = message.notices[0]
        blocks.extend(_text(line) for line in _fit_lines(notice))
        link = notice.link
    else:
        shown = message.notices[:NOTICES_MAX]
        blocks.extend(_text(cut_to(notice.summary, _NOTICE_BYTES_MAX, _json_bytes)) for notice in shown)
        if message.total > len(shown):
            blocks.append(_text(f"and {message.total - len(shown)} more"))
        link = message.console_url
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": CARD_VERSION,
        "body": blocks,
    }
    if link is not None:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open in Accord", "url": link}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return orjson.dumps({"type": "message", "attachments": [attachment]})


def _fit_lines(notice: Notice) -> list[str]:
    left = _TEXT_BYTES_MAX
    lines: list[str] = []
    for label, value in notice.lines:
        line = cut_to(f"{label}: {value}", left, _json_bytes)
        left -= _json_bytes(line)
        lines.append(line)
        if left <= 0:
            break
    return lines


def _text(text: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}


def _json_bytes(text: str) -> int:
    return len(orjson.dumps(text))
