"""Another commit of ours measured beside this checkout, in turn within one run, so that what the machine does meets both alike.

Both are measured by this checkout's bench, each in its own environment and with servers of its own. Where this bench does not fit
the other commit, that commit's own bench is taken for that group, and the output says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from accord_local.processes import log_tail, spawn
from tests.bench.report import format_number, higher_is_better, median, write_json

ROUNDS = 3
WORSE_SHARE_MAX = 0.05
ROOT = Path(__file__).parents[2]
HARNESS = Path("tests") / "bench"
SETUP_S_MAX = 1_200
GROUP_S_MAX = 3_600
STOP_S = 45.0
_MAKE_VARIABLES = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "VIRTUAL_ENV")


class BenchFailedError(Exception):
    """A process of the bench ended without figures; the message has its last words."""


@dataclass(frozen=True)
class Side:
    """What is measured: an environment, and the directory in which `tests.bench` is found."""

    name: str
    python: Path
    harness: Path


@dataclass
class Rounds:
    """One figure of both sides over all rounds."""

    name: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=lambda: {"base": [], "ours": []})
    cpu_us: dict[str, list[float]] = field(default_factory=lambda: {"base": [], "ours": []})

    @property
    def is_complete(self) -> bool:
        return all(self.values.values())

    @property
    def ratio(self) -> float:
        """Ours / base, of the figure itself."""
        return _divide(median(self.values["ours"]), median(self.values["base"]))

    @property
    def cpu_ratio(self) -> float | None:
        """Ours / base, of the processor time of a row."""
        if not all(self.cpu_us.values()):
            return None
        return _divide(median(self.cpu_us["ours"]), median(self.cpu_us["base"]))

    @property
    def worse_by(self) -> dict[str, float]:
        """What is worse by more than the tolerance, and by which share of the base's."""
        better = 1.0 if higher_is_better(self.unit) else -1.0
        shares = {"figure": better * (1 - self.ratio), "processor time": (self.cpu_ratio or 1.0) - 1}
        return {what: share for what, share in shares.items() if share > WORSE_SHARE_MAX}

    @property
    def is_clear(self) -> bool:
        """Whether the rounds of the two sides lie apart, of all that is worse; one round says nothing about that."""
        found = {"figure": self.values, "processor time": self.cpu_us}
        return len(self.values["ours"]) > 1 and all(
            min(found[what]["ours"]) > max(found[what]["base"]) or max(found[what]["ours"]) < min(found[what]["base"])
            for what in self.worse_by
        )


def compare(
    commit: str, names: Sequence[str], rounds: int, options: Sequence[str], results: Path, console: Console
) -> int:
    """Measure the groups of both sides in turn, print the table, write JSON; 1 when a group of one side failed."""
    found: dict[str, Rounds] = {}
    loops: dict[str, list[float]] = {"base": [], "ours": []}
    notes: list[str] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="accord-bench-base-") as directory, contextlib.ExitStack() as stack:
        commits = {"base": _git("rev-parse", "--verify", f"{commit}^{{commit}}"), "ours": _describe_ours()}
        console.print(f"base is {commits['base']}, ours is {commits['ours']}")
        base = stack.enter_context(check_out(commits["base"], Path(directory), console))
        for name in names:
            pair = _Pair(name, base, Path(directory), options, console)
            try:
                for nth in range(rounds):
                    for side in ("base", "ours") if nth % 2 == 0 else ("ours", "base"):
                        result = pair.measure(side)
                        loops[side].append(result["machine"]["python_loop_ms"])
                        _collect(found, side, result["figures"])
            except BenchFailedError as error:
                console.print(f"[red]{name}: {escape(str(error))}[/]")
                failed = True
            notes += pair.notes
    complete = [one for one in found.values() if one.is_complete]
    notes += [f"of one side only: {one.name}" for one in found.values() if not one.is_complete]
    show(console, complete, loops, notes)
    rows = [
        {**asdict(one), "ratio": one.ratio, "cpu_ratio": one.cpu_ratio, "worse_by": one.worse_by} for one in complete
    ]
    content = {"commits": commits, "python_loop_ms": loops, "notes": notes, "comparison": rows}
    console.print(f"written to {write_json(results, content, suffix='-comparison')}")
    return int(failed)


# --- The other commit ---


@contextlib.contextmanager
def check_out(commit: str, directory: Path, console: Console) -> Iterator[Path]:
    """A worktree of the commit with an environment of its own; removed at the end."""
    worktree = directory / "base"
    try:
        _git("worktree", "add", "--quiet", "--detach", str(worktree), commit)
        console.print("setting up the base's environment")
        began = time.monotonic()
        environment = _make_environment()
        if not shutil.which("uv") and (uv := Path(sys.executable).with_name("uv")).exists():
            (tools := directory / "tools").mkdir()
            (tools / "uv").symlink_to(uv)
            environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
        _run(["make", "setup"], worktree, environment, directory / "setup.log", SETUP_S_MAX)
        console.print(f"set up in {time.monotonic() - began:.0f} s")
        yield worktree
    finally:
        with contextlib.suppress(BenchFailedError):
            _git("worktree", "remove", "--force", str(worktree))
        shutil.rmtree(worktree, ignore_errors=True)
        _git("worktree", "prune")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchFailedError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _describe_ours() -> str:
    return _git("rev-parse", "HEAD") + (" with changes" if _git("status", "--porcelain") else "")


def _make_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _MAKE_VARIABLES}


# --- One run ---


class _Pair:
    """One group, measured of either side by turns. The base's first run decides whose bench measures it."""

    def __init__(self, name: str, base: Path, directory: Path, options: Sequence[str], console: Console) -> None:
        self._name = name
        self._directory = directory
        self._console = console
        self._options = ["--no-baselines", *options]
        self._worktree = base
        self._sides = {
            "base": Side("base", base / ".venv/bin/python", _make_harness(directory, base)),
            "ours": Side("ours", Path(sys.executable), ROOT),
        }
        self.notes: list[str] = []

    def measure(self, side: str) -> dict[str, Any]:
        """What a run of this side wrote."""
        try:
            return self._run(self._sides[side], self._options)
        except BenchFailedError as error:
            if side == "ours" or self._sides["base"].harness == self._worktree or self.notes:
                raise
            self._console.print(f"{self._name}: this bench does not fit the base: {escape(str(error))}")
        result = self._run(own := Side("base", self._sides["base"].python, self._worktree), [])
        self._sides["base"], self._options = own, []
        differing = ", ".join(_list_differing(self._worktree / HARNESS)) or "none"
        self.notes.append(
            f"{self._name}: the base is measured by its own bench; files of the bench that differ: {differing}"
        )
        return result

    def _run(self, side: Side, options: Sequence[str]) -> dict[str, Any]:
        began = time.monotonic()
        cwd = Path(tempfile.mkdtemp(prefix=f"{self._name}-{side.name}-", dir=self._directory))
        environment = {**_make_environment(), "PYTHONPATH": str(side.harness)}
        command = [side.python, "-m", "tests.bench", self._name, *options]
        _run(command, cwd, environment, cwd / "bench.log", GROUP_S_MAX)
        self._console.print(f"{self._name}, {side.name}: {time.monotonic() - began:.0f} s")
        (path,) = (cwd / "bench-results").glob("*.json")
        result: dict[str, Any] = json.loads(path.read_text())
        return result


def _make_harness(directory: Path, base: Path) -> Path:
    """This checkout's bench beside the base's own files, in a directory that is not part of either."""
    harness = directory / "harness"
    if not harness.exists():
        shutil.copytree(ROOT / HARNESS, harness / HARNESS, ignore=shutil.ignore_patterns("__pycache__"))
        (harness / "deploy").symlink_to(base / "deploy")
    return harness


def _list_differing(theirs: Path) -> list[str]:
    ours = ROOT / HARNESS
    names = {path.name for folder in (ours, theirs) for path in folder.iterdir() if path.is_file()}
    return sorted(name for name in names if _read(ours / name) != _read(theirs / name))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _run(
    command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str], log_path: Path, timeout_s: float
) -> None:
    child = spawn(command, log_path=log_path, env=environment, cwd=cwd)
    try:
        code = child.popen.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise BenchFailedError(f"{command[-1]} took more than {timeout_s:.0f} s") from None
    finally:
        child.stop(grace_s=STOP_S)
    if code != 0:
        raise BenchFailedError(f"ended with {code}: {' | '.join(log_tail(log_path, 12))}")


# --- What came out ---


def _collect(found: dict[str, Rounds], side: str, figures: Sequence[Mapping[str, Any]]) -> None:
    for figure in figures:
        one = found.setdefault(figure["name"], Rounds(figure["name"], figure["unit"]))
        one.values[side].append(figure["ours"])
        if "ours" in figure["cpu_us"]:
            one.cpu_us[side].append(figure["cpu_us"]["ours"])


def show(
    console: Console, figures: Sequence[Rounds], loops: Mapping[str, Sequence[float]], notes: Sequence[str]
) -> None:
    """Print the table: medians, ratios of ours to the base, and the least and greatest round of each."""
    table = Table(title="This checkout beside its base", header_style="bold")
    for column in (
        "figure",
        "base",
        "ours",
        "ratio",
        "CPU a row, base / ours",
        "ratio",
        "base, rounds",
        "ours, rounds",
        "",
    ):
        table.add_column(column, justify="left" if column in ("figure", "") else "right", overflow="fold")
    for one in figures:
        cpu = one.cpu_ratio is not None
        table.add_row(
            one.name,
            format_number(median(one.values["base"])),
            f"{format_number(median(one.values['ours']))} {one.unit}",
            f"{one.ratio:.2f}",
            " / ".join(f"{median(one.cpu_us[side]):,.0f}" for side in ("base", "ours")) + " µs" if cpu else "",
            f"{one.cpu_ratio:.2f}" if one.cpu_ratio is not None else "",
            *(_format_range(one.values[side]) for side in ("base", "ours")),
            _format_verdict(one),
        )
    console.print(table)
    speeds = ", ".join(f"{side} {median(found):.1f} ({_format_range(found)})" for side, found in loops.items())
    console.print(f"a fixed loop of plain Python, in ms: {speeds}")
    for note in notes:
        console.print(f"[yellow]{escape(note)}[/]")


def _format_verdict(one: Rounds) -> str:
    """What is worse; in red where no round of one side reaches into those of the other."""
    worse = ", ".join(f"{what} worse by {share:.0%}" for what, share in one.worse_by.items())
    if not worse:
        return ""
    return f"[red]{worse}[/]" if one.is_clear else f"[yellow]{worse}, within what rounds differ[/]"


def _format_range(values: Sequence[float]) -> str:
    return f"{format_number(min(values))} to {format_number(max(values))}" if values else ""


def _divide(one: float, other: float) -> float:
    return one / other if other else float("nan")
