"""What is different between two contents as it reads on paper: sentences and rows, before and now. It knows no kind."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from msgspec import Struct

from accord.agreements.store import Section


class PaperChange(Struct, frozen=True):
    """One place under a heading that reads otherwise: its lines before and now, either of which may be none."""

    heading: str
    before: tuple[str, ...]
    now: tuple[str, ...]


def diff_papers(old: Sequence[Section], new: Sequence[Section]) -> list[PaperChange]:
    """The places that read otherwise, in the order of the new paper; what went with its whole heading comes last."""
    known = {section.heading: _list_lines(section) for section in old}
    found: list[PaperChange] = []
    for section in new:
        found += _diff_section(section.heading, known.pop(section.heading, []), _list_lines(section))
    for heading, lines in known.items():
        found += _diff_section(heading, lines, [])
    return found


def _diff_section(heading: str, before: list[str], now: list[str]) -> list[PaperChange]:
    matcher = SequenceMatcher(None, before, now, autojunk=False)
    return [
        PaperChange(heading, tuple(before[a:b]), tuple(now[c:d]))
        for change, a, b, c, d in matcher.get_opcodes()
        if change != "equal"
    ]


def _list_lines(section: Section) -> list[str]:
    """The paragraphs, and each row of the table as a line that names its columns."""
    lines = list(section.paragraphs)
    for row in section.rows:
        named = [*section.columns, *[""] * (len(row) - len(section.columns))]
        cells = [f"{column}: {cell}" if column else cell for column, cell in zip(named, row, strict=False) if cell]
        lines.append("; ".join(cells))
    return lines
