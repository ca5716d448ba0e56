"""An event as people read it: a title, lines and a link. All channels to people show what this makes, and none of them shows more."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from msgspec import Struct

_UPPER = {"sla": "SLA"}
_FIELDS = (
    "message",
    "clause",
    "obliges",
    "lead_id",
    "stage",
    "from_stage",
    "decision",
    "reason",
    "owner",
    "previous_owner",
    "fraction",
    "severity",
    "step",
    "due_at",
    "met_at",
    "late",
    "why",
    "source",
    "kind",
    "title",
    "version",
    "goal",
    "person",
)
"""What is shown of an event, in this order, where it has it."""
_LABELS = {"lead_id": "Lead", "due_at": "Due", "met_at": "Met", "obliges": "Obliges", "fraction": "Time used"}
_VALUE_CHARS_MAX = 1_000
_ELLIPSIS = "…"
_ZWJ = "\u200d"

SizeOf = Callable[[str], int]


class Notice(Struct, frozen=True):
    """One notification. `link` is None where no console is set up."""

    title: str
    lines: Sequence[tuple[str, str]]
    link: str | None = None

    @property
    def summary(self) -> str:
        """All of it in one line, for a list of several."""
        return f"{self.title}: " + ", ".join(f"{label} {value}" for label, value in self.lines)


def render_event(event_type: str, data: Mapping[str, object], zone: ZoneInfo, console_url: str | None) -> Notice:
    """What a person reads of an event, with times on the reader's clock."""
    lines = [
        (_LABELS.get(name, name.replace("_", " ").capitalize()), _render_value(name, data[name], zone))
        for name in _FIELDS
        if data.get(name) is not None and isinstance(data[name], str | int | float)
    ]
    return Notice(render_title(event_type), lines, _render_link(data, console_url))


def render_title(event_type: str) -> str:
    """`SLA at risk` for `sla.at_risk.v1`."""
    words = event_type.replace("_", " ").split(".")
    if words[-1][:1] == "v" and words[-1][1:].isdigit():
        words.pop()
    title = " ".join(_UPPER.get(word, word) for word in words)
    return title[:1].upper() + title[1:]


def _render_value(name: str, value: object, zone: ZoneInfo) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "fraction" and isinstance(value, int | float):
        return f"{value:.0%}"
    if name.endswith("_at") and isinstance(value, str):
        moment = datetime.fromisoformat(value).astimezone(zone)
        return f"{moment:%a %Y-%m-%d %H:%M} {zone.key}"
    return cut(str(value), _VALUE_CHARS_MAX)


def _render_link(data: Mapping[str, object], console_url: str | None) -> str | None:
    if console_url is None:
        return None
    base, lead_id = console_url.rstrip("/"), data.get("lead_id")
    return f"{base}/leads/{lead_id}" if isinstance(lead_id, str) else base


def cut(text: str, chars_max: int) -> str:
    """The text, or as much of it as fits with an ellipsis. What people see as one character stays whole."""
    if len(text) <= chars_max:
        return text
    end = chars_max - len(_ELLIPSIS)
    while end > 0 and _joins(text[end - 1], text[end]):
        end -= 1
    return text[:end].rstrip() + _ELLIPSIS


def cut_to(text: str, size_max: int, size_of: SizeOf) -> str:
    """The same for any measure of size that grows with the text, such as its length once it is escaped."""
    if size_of(text) <= size_max:
        return text
    low, high = 0, min(len(text), size_max)
    while low < high:
        middle = (low + high + 1) // 2
        if size_of(cut(text, middle)) <= size_max:
            low = middle
        else:
            high = middle - 1
    return cut(text, low)


def _joins(before: str, after: str) -> bool:
    """Whether two code points are parts of one character that people see (UAX 29, as far as names and titles need it)."""
    if _ZWJ in (before, after) or unicodedata.combining(after) or unicodedata.category(after) in ("Mn", "Me", "Mc"):
        return True
    point = ord(after)
    is_modifier = 0x1F3FB <= point <= 0x1F3FF or 0xFE00 <= point <= 0xFE0F or 0xE0020 <= point <= 0xE007F
    is_flag = 0x1F1E6 <= point <= 0x1F1FF and 0x1F1E6 <= ord(before) <= 0x1F1FF
    return is_modifier or is_flag
