"""Tables as CSV for whoever asks with `Accept: text/csv`, safe to open in a spreadsheet. It knows no column's
meaning."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "text/csv"
Cell = str | int | float | bool | datetime | Sequence[str] | None

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def wants_csv(request: Request) -> bool:
    """Whether the caller would rather have CSV than JSON."""
    weights = dict(_weighed(request.headers.get("accept", "")))
    asked = weights.get(MEDIA_TYPE, 0.0)
    return asked > 0 and asked >= weights.get("application/json", 0.0)


def _weighed(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(",")[:50]:
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        yield media, weight


def csv_answer(
    name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], next_cursor: str | None = None
) -> Response:
    """The table as an attachment `name`.csv (RFC 4180); the cursor of the next page, if any, as a Link header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([safe(column) for column in columns])
    writer.writerows([safe(cell) for cell in row] for row in rows)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Vary": "Accept"}
    if next_cursor is not None:
        headers["X-Next-Cursor"] = next_cursor
    return Response(text.getvalue().encode(), media_type="text/csv; charset=utf-8; header=present", headers=headers)


def safe(cell: Cell) -> str:
    """The text of a cell. A word that a spreadsheet would run as a formula gets an apostrophe before it; numbers stay
    numbers.

    Source: OWASP, "CSV Injection".
    """
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int | float):
        return repr(cell)
    if isinstance(cell, datetime):
        return cell.isoformat().replace("+00:00", "Z")
    text = cell if isinstance(cell, str) else "; ".join(cell)
    text = text.replace("\x00", "")
    return "'" + text if text.startswith(_FORMULA_STARTS) else text
