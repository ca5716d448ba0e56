"""What was measured, as a table for people and as JSON. It measures nothing."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table


@dataclass
class Figure:
    """One line. `least` or `most` is the target for `ours`, `ratio_least` that for ours / baseline; None where there is none.

    `cpu_us` is the processor time of one row, ours and the baseline's, all processes of the product together: unlike a rate, it
    hardly depends on what else the machine does.
    """

    name: str
    unit: str
    ours: float
    baseline: float | None = None
    least: float | None = None
    most: float | None = None
    ratio_least: float | None = None
    cpu_us: dict[str, float] = field(default_factory=dict)
    limit: str = ""
    detail: dict[str, object] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return self.ours / self.baseline if self.baseline else None

    @property
    def met(self) -> bool | None:
        """Whether every target is met; None where there is none."""
        checks = [
            *([self.ours >= self.least] if self.least is not None else []),
            *([self.ours <= self.most] if self.most is not None else []),
            *([(self.ratio or 0.0) >= self.ratio_least] if self.ratio_least is not None else []),
        ]
        return all(checks) if checks else None

    @property
    def target(self) -> str:
        said = [
            *([f"≥ {self.least:,.0f}"] if self.least is not None else []),
            *([f"≤ {self.most:,.0f}"] if self.most is not None else []),
            *([f"≥ {self.ratio_least:g} × baseline"] if self.ratio_least is not None else []),
        ]
        return ", ".join(said)


def show(console: Console, figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table(title="Accord on this machine", show_lines=False, header_style="bold")
    for column in ("figure", "ours", "baseline", "ratio", "target", "CPU a row, ours / baseline", "what limits it"):
        table.add_column(
            column, justify="right" if column in ("ours", "baseline", "ratio") else "left", overflow="fold"
        )
    for one in figures:
        style = {True: "green", False: "red", None: ""}[one.met]
        cpu = " / ".join(f"{one.cpu_us[who]:,.0f} µs" for who in ("ours", "baseline") if who in one.cpu_us)
        table.add_row(
            one.name,
            f"[{style}]{format_number(one.ours)} {one.unit}[/]" if style else f"{format_number(one.ours)} {one.unit}",
            "" if one.baseline is None else format_number(one.baseline),
            "" if one.ratio is None else f"{one.ratio:.1f}",
            one.target,
            cpu,
            one.limit,
        )
    console.print(table)


def write(directory: Path, figures: Sequence[Figure]) -> Path:
    """Write all of it as JSON; the file's path."""
    rows = [{**asdict(one), "ratio": one.ratio, "met": one.met} for one in figures]
    return write_json(directory, {"figures": rows})


def write_json(directory: Path, content: Mapping[str, object], *, suffix: str = "") -> Path:
    """Write what was measured, with the moment and the machine; the file's path."""
    directory.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = directory / f"{now:%Y-%m-%dT%H%M%SZ}{suffix}.json"
    machine = {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "python_loop_ms": round(_loop_ms(), 1),
    }
    path.write_text(json.dumps({"at": now.isoformat(), "machine": machine, **content}, indent=2) + "\n")
    return path


def higher_is_better(unit: str) -> bool:
    """Rates are; times, shares and volumes are not."""
    return "/s" in unit


def _loop_ms() -> float:
    """Processor time of a fixed loop of plain Python, the best of five: how quick a core is here and now."""

    def once() -> float:
        began, held = time.process_time(), {}
        for n in range(200_000):
            held[n & 1023] = (n, n * 3)
        return (time.process_time() - began) * 1000

    return min(once() for _ in range(5))


def median(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def format_number(value: float) -> str:
    """With a digit behind the point where there are few before it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
