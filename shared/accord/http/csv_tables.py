"""Renders tables as CSV for requests with `Accept: text/csv`, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "text/csv"
Cell = str | int | float | bool | Decimal | datetime | Sequence[str] | None

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def wants_csv(request: Request) -> bool:
    """Whether the caller prefers CSV to JSON."""
    weights = dict(_parse_accept(request.headers.get("accept", "")))
    csv_weight = weights.get(MEDIA_TYPE, 0.0)
    return csv_weight > 0 and csv_weight >= weights.get("application/json", 0.0)


def table_responses(example: object = None) -> dict[int | str, dict[str, Any]]:
    """For a FastAPI route that answers with JSON or, where that is asked for, with the same table as CSV."""
    content: dict[str, Any] = {} if example is None else {"application/json": {"example": example}}
    return {200: {"content": {**content, MEDIA_TYPE: {"schema": {"type": "string"}}}}}


def _parse_accept(accept: str) -> Iterator[tuple[str, float]]:
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


def csv_response(
    name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], next_cursor: str | None = None
) -> Response:
    """The table as an attachment `name`.csv (RFC 4180); the cursor of the next page, if any, as the header X-Next-Cursor."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([escape_cell(column) for column in columns])
    writer.writerows([escape_cell(cell) for cell in row] for row in rows)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Vary": "Accept"}
    if next_cursor is not None:
        headers["X-Next-Cursor"] = next_cursor
    return Response(text.getvalue().encode(), media_type="text/csv; charset=utf-8; header=present", headers=headers)


def escape_cell(cell: Cell) -> str:
    """Escape a cell. Text that a spreadsheet would run as a formula gets an apostrophe before it; numbers stay numbers.

    Source: OWASP, "CSV Injection".
    """
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int | float):
        return repr(cell)
    if isinstance(cell, Decimal):  # with its zeros, a sign and a point, and never as 1E-5
        return format(cell, "f")
    if isinstance(cell, datetime):
        return cell.isoformat().replace("+00:00", "Z")
    text = cell if isinstance(cell, str) else "; ".join(cell)
    text = text.replace("\x00", "")
    return "'" + text if text.startswith(_FORMULA_STARTS) else text
