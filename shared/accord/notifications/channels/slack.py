"""Slack: an incoming webhook with blocks. All text is plain and escaped, so none of it pages anybody or becomes a link.

Limits and escaping: Slack's reference of Block Kit, "Formatting text for app surfaces".
"""

from __future__ import annotations

from typing import Any

import orjson

from accord.notifications.channels.message import Message, Receiver
from accord.notifications.channels.posting import Poster
from accord.notifications.domain.model import Outcome
from accord.notifications.domain.rendering import cut_to

HEADER_CHARS_MAX = 150
SECTION_CHARS_MAX = 3_000
TEXT_CHARS_MAX = 3_000
NOTICES_MAX = 30
"""A message may have 50 blocks; this leaves room for header, rest and button."""
_NOTICE_CHARS_MAX = 1_000


class SlackSender:
    """Posts to an incoming webhook."""

    held_because: str | None = None

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    async def send(self, message: Message, receiver: Receiver) -> Outcome:
        return await self._poster.post(receiver.address, {}, render_slack(message), is_chat=True)


def render_slack(message: Message) -> bytes:
    """The JSON of a message."""
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(message.title, HEADER_CHARS_MAX)}]
    if message.total == 1:
        notice = message.notices[0]
        lines = "\n".join(f"{label}: {value}" for label, value in notice.lines)
        blocks.extend([{"type": "section", "text": _plain(lines, SECTION_CHARS_MAX)}] if lines else ())
        link = notice.link
    else:
        shown = message.notices[:NOTICES_MAX]
        blocks.extend({"type": "section", "text": _plain(notice.summary, _NOTICE_CHARS_MAX)} for notice in shown)
        if message.total > len(shown):
            blocks.append({"type": "section", "text": _plain(f"and {message.total - len(shown)} more", 100)})
        link = message.console_url
    if link is not None:
        button = {"type": "button", "text": _plain("Open in Accord", 75), "url": link}
        blocks.append({"type": "actions", "elements": [button]})
    fallback = message.notices[0].summary if message.total == 1 else message.title
    document = {
        "text": _escape_to(fallback, TEXT_CHARS_MAX),
        "mrkdwn": False,
        "parse": "none",
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "blocks": blocks,
    }
    return orjson.dumps(document)


def _plain(text: str, chars_max: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": _escape_to(text, chars_max), "emoji": False}


def _escape_to(text: str, chars_max: int) -> str:
    return _escape(cut_to(text, chars_max, lambda part: len(_escape(part))))


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
