"""What people read: bounded, whole characters, times on the reader's clock, and nothing of it a command."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from accord.contracts.base import EVENT_TYPES
from accord.contracts.codec import to_object
from accord.contracts.examples import EXAMPLES
from accord.notifications.channels.mail import build_email
from accord.notifications.channels.message import Message
from accord.notifications.channels.slack import HEADER_CHARS_MAX, SECTION_CHARS_MAX, render_slack
from accord.notifications.channels.teams import BYTES_MAX, render_teams
from accord.notifications.domain.rendering import Notice, cut, render_event

HOSTILE = "<!channel> & <https://evil.example|Accepted> <at>everyone</at> <b>x</b>"
MARKDOWN = "*a*_b_~c~ [x](http://evil.example) `d` :tada:"
LONG_TITLE = ("e\u0301" + "👩‍👩‍👧‍👦" + "👍🏽" + "🇳🇵") * 60
ATTACK = Notice(MARKDOWN, [("Owner", HOSTILE), ("Clause", MARKDOWN)], "https://console.example/leads/1")


def message(*notices: Notice, total: int | None = None) -> Message:
    return Message(
        delivery_id=uuid7(),
        event_type="sla.breached.v1",
        created_at=datetime(2027, 5, 3, tzinfo=UTC),
        body=b"",
        notices=notices,
        total=len(notices) if total is None else total,
        console_url="https://console.example",
    )


def texts_of(node: object) -> list[str]:
    """All values of `text` in a JSON document that are texts."""
    if isinstance(node, dict):
        own = [node["text"]] if isinstance(node.get("text"), str) else []
        return own + [text for value in node.values() for text in texts_of(value)]
    return [text for value in node for text in texts_of(value)] if isinstance(node, list) else []


def urls_of(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["url"]] if "url" in node else []
        return own + [url for value in node.values() for url in urls_of(value)]
    return [url for value in node for url in urls_of(value)] if isinstance(node, list) else []


def test_event_is_a_title_lines_and_a_link_on_the_readers_clock():
    notice = render_event(
        "sla.at_risk.v1", to_object(EXAMPLES["sla.at_risk.v1"]), ZoneInfo("Asia/Kathmandu"), "https://console.example/"
    )
    lines = dict(notice.lines)
    lead_id = to_object(EXAMPLES["sla.at_risk.v1"])["lead_id"]
    assert notice.title == "SLA at risk"
    assert (lines["Clause"], lines["Lead"]) == (EXAMPLES["sla.at_risk.v1"].clause, lead_id)
    due = EXAMPLES["sla.at_risk.v1"].due_at.astimezone(ZoneInfo("Asia/Kathmandu"))
    assert lines["Due"] == f"{due:%a %Y-%m-%d %H:%M} Asia/Kathmandu"
    assert lines["Time used"].endswith("%")
    assert notice.link == f"https://console.example/leads/{lead_id}"


@pytest.mark.parametrize("type_", sorted(EVENT_TYPES))
def test_every_event_can_be_shown_without_a_console(type_):
    notice = render_event(type_, to_object(EXAMPLES[type_]), ZoneInfo("UTC"), None)
    assert notice.title
    assert notice.link is None
    for made in (render_slack(message(notice)), render_teams(message(notice))):
        json.loads(made)
    build_email(message(notice), "ann@example.com", "accord@example.com").as_bytes()


@given(st.text(), st.integers(1, 50))
def test_cut_text_fits(text, chars_max):
    found = cut(text, chars_max)
    assert len(found) <= chars_max
    assert found == text or found.endswith("…")


def test_cut_leaves_whole_characters():
    for chars_max in range(1, 80):
        found = cut(LONG_TITLE, chars_max)[:-1]
        following = LONG_TITLE[len(found)]
        assert not unicodedata.combining(following)
        assert following != "\u200d"
        assert not found.endswith("\u200d")
        assert not 0x1F3FB <= ord(following) <= 0x1F3FF


def test_long_text_fits_into_every_channel():
    notice = Notice(LONG_TITLE, [("Why", "<&>" * 2_000), ("Reason", "ü" * 5_000)])
    slack = json.loads(render_slack(message(notice)))
    header, section = slack["blocks"]
    assert len(header["text"]["text"]) <= HEADER_CHARS_MAX
    assert len(section["text"]["text"]) <= SECTION_CHARS_MAX
    assert section["text"]["text"].endswith("…")
    assert "&lt;&amp;&gt;" in section["text"]["text"]
    assert not section["text"]["text"].removesuffix("…").rpartition("&")[2].startswith(("l…", "lt…", "am"))
    assert len(render_teams(message(notice))) <= BYTES_MAX
    mail = build_email(message(notice), "ann@example.com", "accord@example.com")
    assert len(mail["Subject"]) <= 150


@pytest.mark.parametrize("line", ["accept the lead", "\u00fc<&>" * 500, '"\\\n' * 500])
def test_digest_of_300_leads_says_how_many_more_there_are(line):
    notices = [Notice("SLA breached", [("Why", line)]) for _ in range(200)]
    slack = json.loads(render_slack(message(*notices, total=300)))
    assert len(slack["blocks"]) <= 50
    assert "and 270 more" in texts_of(slack)
    assert urls_of(slack) == ["https://console.example"]
    teams = render_teams(message(*notices, total=300))
    assert len(teams) <= BYTES_MAX
    assert "and 270 more" in texts_of(json.loads(teams))
    mail = build_email(message(*notices, total=300), "ann@example.com", "accord@example.com")
    assert "and 100 more" in mail.get_body(("plain",)).get_content()
    assert mail["Subject"] == "Accord: 300 notifications"


@pytest.mark.parametrize("total", [1, 2])
def test_text_is_no_command_in_slack(total):
    document = json.loads(render_slack(message(*[ATTACK] * total)))
    for text in texts_of(document):
        assert "<" not in text
        assert ">" not in text
    for block in document["blocks"]:
        if "text" in block:
            assert (block["text"]["type"], block["text"]["emoji"]) == ("plain_text", False)
    assert (document["mrkdwn"], document["parse"], document["link_names"]) == (False, "none", False)
    assert all(url.startswith("https://console.example") for url in urls_of(document))
    assert any("&lt;!channel&gt; &amp; &lt;https://evil.example|Accepted&gt;" in text for text in texts_of(document))


@pytest.mark.parametrize("total", [1, 2])
def test_text_is_no_command_in_teams(total):
    document = json.loads(render_teams(message(*[ATTACK] * total)))
    (attachment,) = document["attachments"]
    card = attachment["content"]
    assert (document["type"], attachment["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    assert {inline["type"] for block in card["body"] for inline in block["inlines"]} == {"TextRun"}
    assert "msteams" not in card
    assert any(MARKDOWN in text for text in texts_of(card))
    assert all(url.startswith("https://console.example") for url in urls_of(document))


@pytest.mark.parametrize("total", [1, 2])
def test_text_is_no_command_in_mail(total):
    hostile = Notice(f"{MARKDOWN}\r\nBcc: all@example.com", [("Owner", HOSTILE)], "https://console.example/leads/1")
    raw = build_email(message(*[hostile] * total), "ann@example.com", "accord@example.com").as_bytes()
    mail = message_from_bytes(raw, policy=default)
    assert mail["Bcc"] is None
    html = mail.get_body(("html",)).get_content()
    assert "<https:" not in html
    assert "<b>" not in html
    assert "&lt;!channel&gt; &amp; &lt;https://evil.example|Accepted&gt;" in html
    assert html.count("<a ") == total
    assert HOSTILE in mail.get_body(("plain",)).get_content()
