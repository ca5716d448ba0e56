"""Sends a file of leads to intake, follows its import to the end, and shows what came of it. It reads no row itself."""

from __future__ import annotations

import ipaddress
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from accord_local.errors import LocalError

PIECE_BYTES = 256 * 1024
POLL_EVERY_S = 0.25
TIMEOUT_S = 60.0
RETRIES_MAX = 20
FORMATS = {
    ".csv": "text/csv",
    ".tsv": "text/csv",
    ".txt": "text/csv",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
}
ENDED = ("finished", "cancelled", "failed")
_ROWS = ("created", "updated", "merged", "unchanged", "quarantined", "rejected", "failed")
_ERRORS_SHOWN = 5


class ImportFailed(LocalError):
    """The import was refused, or failed."""


@dataclass(frozen=True)
class FileImport:
    """What to send where. `parameters` are those of `POST /v1/imports`."""

    file: Path
    url: str
    key: str = field(repr=False)
    parameters: Mapping[str, str]
    media: str
    errors: Path | None = None


def parse_mapping(pairs: Sequence[str]) -> str | None:
    """The JSON mapping of `COLUMN=FIELD` pairs. The last `=` parts the two, since fields have none. Raises LocalError."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        column, parted, target = pair.rpartition("=")
        if not parted or not column or not target:
            raise LocalError(f"--map {pair}: must be COLUMN=FIELD, such as --map mql_id=external_id")
        mapping[column] = target
    return json.dumps(mapping) if mapping else None


def detect_media_type(file: Path, given: str | None) -> str:
    """The media type of a file by its name, or as it was given. Raises LocalError for a name that tells nothing."""
    if given is not None:
        return "application/x-ndjson" if given == "ndjson" else "text/csv"
    media = FORMATS.get(file.suffix.lower())
    if media is None:
        raise LocalError(f"{file}: say what it is with --format csv or --format ndjson")
    return media


def run_import(file_import: FileImport, console: Console) -> None:
    """Send the file, follow the import, show the outcome. Raises ImportFailed if it was refused or did not finish."""
    loopback = _is_loopback(file_import.url)
    headers = {"Authorization": f"Bearer {file_import.key}"}
    with (
        httpx.Client(base_url=file_import.url, headers=headers, timeout=TIMEOUT_S, trust_env=not loopback) as http,
        _bars(console) as bars,
    ):
        import_id = _upload(http, file_import, bars)
        try:
            found = _follow(http, import_id, bars)
        except KeyboardInterrupt:
            console.print(
                f"The import continues without being followed: {file_import.url}/v1/imports/{import_id}",
                highlight=False,
            )
            raise
    _print_outcome(found, console)
    if found["rows"]["failed"] + found["rows"]["rejected"]:
        with httpx.Client(base_url=file_import.url, headers=headers, timeout=TIMEOUT_S, trust_env=not loopback) as http:
            _save_errors(http, found, file_import.errors, console)
    if found["state"] != "finished":
        raise ImportFailed(f"the import was {found['state']}" + (f": {found['error']}" if found["error"] else ""))


def _upload(http: httpx.Client, file_import: FileImport, bars: Progress) -> str:
    size = file_import.file.stat().st_size
    task = bars.add_task("sent", total=size, rate="")
    headers = {"Content-Type": file_import.media, "Content-Length": str(size), "Idempotency-Key": str(uuid.uuid4())}
    for _ in range(RETRIES_MAX):
        bars.reset(task, total=size)
        with file_import.file.open("rb") as file:
            try:
                answer = http.post(
                    "/v1/imports",
                    params=dict(file_import.parameters),
                    headers=headers,
                    content=_read_pieces(file, size, bars, task),
                )
            except httpx.TransportError as error:
                raise ImportFailed(f"{file_import.url} cannot be reached: {type(error).__name__}") from None
        if answer.status_code not in (429, 503):
            break
        time.sleep(float(answer.headers.get("Retry-After", "1")))
    if answer.status_code != httpx.codes.ACCEPTED:
        raise ImportFailed(_describe_problem(answer))
    import_id: str = answer.json()["import_id"]
    return import_id


def _read_pieces(file: BinaryIO, size: int, bars: Progress, task: TaskID) -> Iterator[bytes]:
    """The file, so much of it as it had when its size was read."""
    rest = size
    while rest and (piece := file.read(min(PIECE_BYTES, rest))):
        rest -= len(piece)
        yield piece
        bars.advance(task, len(piece))


def _follow(http: httpx.Client, import_id: str, bars: Progress) -> dict[str, Any]:
    task = bars.add_task("rows imported", total=None, rate="")
    failures = 0
    while True:
        try:
            answer = http.get(f"/v1/imports/{import_id}")
            failures = failures + 1 if answer.status_code in (429, 500, 503) else 0
        except httpx.TransportError:
            answer, failures = None, failures + 1
        if failures > RETRIES_MAX:
            raise ImportFailed(f"import {import_id} can no longer be followed; it continues without being followed")
        if answer is not None and not failures:
            if answer.status_code != httpx.codes.OK:
                raise ImportFailed(_describe_problem(answer))
            found: dict[str, Any] = answer.json()
            words = "rows checked" if found["dry_run"] else "rows imported"
            bars.update(
                task,
                description=f"{words} {found['rows']['read']:,}",
                total=max(1, found["bytes_received"]),
                completed=found["share_done"] * max(1, found["bytes_received"]),
                rate=_rate(found),
            )
            if found["state"] in ENDED:
                return found
        time.sleep(POLL_EVERY_S)


def _rate(found: Mapping[str, Any]) -> str:
    rate = f"{found['rows_per_s']:,.0f} rows/s" if found["rows_per_s"] else ""
    return f"{rate}, {found['eta_s']:.0f} s left" if found["eta_s"] else rate


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"),
        console=console,
    )


def _describe_problem(answer: httpx.Response) -> str:
    """A problem document in one line, its places included."""
    try:
        problem = answer.json()
    except ValueError:
        return f"the service answered {answer.status_code}"
    places = [
        f"{error.get('parameter') or 'the file'}{' ' + error['pointer'] if error.get('pointer') else ''}: {error['message']}"
        for error in problem.get("errors", ())
    ]
    return "; ".join(places) or str(problem.get("detail") or problem.get("title") or answer.status_code)


def _print_outcome(found: Mapping[str, Any], console: Console) -> None:
    _print_reading(found, console)
    table = Table("rows", "would be" if found["dry_run"] else "were", header_style="bold")
    table.columns[0].justify = "right"
    for outcome in _ROWS:
        if found["rows"][outcome]:
            table.add_row(f"{found['rows'][outcome]:,}", outcome)
    rate = f" at {found['rows_per_s']:,.0f} rows/s" if found["rows_per_s"] else ""
    table.add_row(f"{found['rows']['read']:,}", f"read{rate}", end_section=True)
    console.print(table)
    quality = found["quality"]
    if quality["verdicts"]:
        shares = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(quality["verdicts"].items()))
        console.print(f"Verdicts: {shares}", highlight=False)
    for parameter, count in sorted(quality["failed"].items(), key=lambda one: -one[1]):
        console.print(f"  not met by {count:,} rows: {parameter}", highlight=False, markup=False)
    for one in quality.get("left_out", []):
        name = one["column"] or one["pointer"]
        words = f"  left out of {one['rows']:,} rows, first of row {one['first_row']}: {name}: {one['message']}"
        console.print(words, highlight=False, markup=False)
    for one in quality["examples"][:_ERRORS_SHOWN]:
        console.print(f"  row {one['row']}: {one['error']}", highlight=False, markup=False)
    console.print(f"import {found['import_id']}", highlight=False)


def _print_reading(found: Mapping[str, Any], console: Console) -> None:
    """How the file was read."""
    if file := found["file"]:
        read_as = [
            file["format"],
            file["encoding"],
            *([f"cells separated by {_name_delimiter(file['delimiter'])}"] if file["delimiter"] else []),
        ]
        console.print("Read as " + ", ".join(read_as), highlight=False)
    if (mapping := found["mapping"]) and mapping["columns"]:
        pairs = ", ".join(f"{column} → {target}" for column, target in mapping["columns"].items())
        console.print(f"Columns: {pairs}", highlight=False, markup=False)
        if mapping["not_mapped"]:
            console.print(f"Kept, but not mapped: {', '.join(mapping['not_mapped'])}", highlight=False, markup=False)
        for one in found.get("times", []):
            shown = ", ".join(f"{example['text']} → {example['read_as'] or '?'}" for example in one["examples"])
            how = one["date_format"] or "ISO 8601"
            console.print(f"Times of {one['column']} as {how}: {shown}", highlight=False, markup=False)


def _name_delimiter(delimiter: str) -> str:
    return {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars"}.get(delimiter, delimiter)


def _save_errors(http: httpx.Client, found: Mapping[str, Any], path: Path | None, console: Console) -> None:
    """Save the rows that were not imported, or say that there are some."""
    if path is None:
        console.print("Rows were not imported; --errors FILE saves them for correction.", highlight=False)
        return
    with http.stream("GET", f"/v1/imports/{found['import_id']}/errors") as answer:
        if answer.status_code != httpx.codes.OK:
            answer.read()
            raise ImportFailed(_describe_problem(answer))
        with path.open("wb") as file:
            for piece in answer.iter_bytes():
                file.write(piece)
    console.print(f"Rows that were not imported: {path}. Correct them and import that file.", highlight=False)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
