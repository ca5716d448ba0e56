"""How an agreement reads on paper: sections of plain words. It knows no agreement and renders nothing."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Section(Struct, frozen=True, gc=False):
    """A part of an agreement on paper, in plain words. `rows` make a table under `columns`."""

    heading: str
    paragraphs: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
