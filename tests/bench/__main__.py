"""`python -m tests.bench [names…]`: measure, print a table, write JSON to bench-results/. Without names: everything.

With `--base COMMIT` the same is measured of another commit of ours in turn with this one, and the two are compared.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console

from tests.bench.comparison import ROUNDS, BenchFailedError, compare
from tests.bench.environment import BenchEnvironment
from tests.bench.report import Figure, show, write

RESULTS = Path("bench-results")
GROUPS = {
    "single": "capturing:single",
    "batch": "capturing:batch",
    "imports": "importing:imports",
    "webhooks": "webhooks:webhooks",
    "relay": "relaying:throughput",
    "relay-latency": "relaying:latency",
    "qualification": "qualifying:throughput",
    "evaluation": "evaluating:evaluation",
    "reevaluation": "reevaluating:reevaluation",
    "routing": "routing:routed",
    "what-if": "what_if:what_if",
    "way": "end_to_end:end_to_end",
    "firing": "firing:firing",
    "notifications": "notifying:notifications",
    "idle": "idle:idle",
}
"""Name → module and function. A module is imported when it is asked for: some import what they measure, and another commit may not
have it."""


def main(arguments: list[str]) -> int:
    """Run the groups that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*GROUPS, []], help="what to measure; without: everything")
    parser.add_argument(
        "--leads",
        type=lambda text: tuple(map(int, text.split(","))),
        help="leads that are there before the imports, apart by commas",
    )
    parser.add_argument("--idle-seconds", type=float, help="how long a window of `idle` is")
    parser.add_argument("--no-baselines", action="store_true", help="measure ours alone in rounds that have both")
    parser.add_argument("--base", metavar="COMMIT", help="compare with this commit, measured in turn")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="so many runs of each side of a comparison")
    asked = parser.parse_args(arguments)
    names = asked.names or list(GROUPS)
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that everything is stopped in order
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = Console(width=None if sys.stdout.isatty() else 160)
    if asked.base:
        options = [f"--leads={','.join(map(str, asked.leads))}"] if asked.leads else []
        options += [f"--idle-seconds={asked.idle_seconds:g}"] if asked.idle_seconds else []
        try:
            return compare(asked.base, names, asked.rounds, options, RESULTS, console)
        except BenchFailedError as error:
            sys.exit(f"the comparison cannot begin: {error}")
    return _measure(asked, names, console)


def _measure(asked: argparse.Namespace, names: list[str], console: Console) -> int:
    options: dict[str, dict[str, Any]] = {
        "imports": {"sizes": asked.leads} if asked.leads else {},
        "idle": {"window_s": asked.idle_seconds} if asked.idle_seconds else {},
    }
    figures: list[Figure] = []
    failed = False
    with BenchEnvironment(with_baselines=not asked.no_baselines) as bench:
        for name in names:
            with console.status(f"measuring {name}"):
                try:
                    figures.extend(_load_group(name)(bench, **options.get(name, {})))
                except Exception:  # noqa: BLE001 - what the other groups measure is worth showing
                    console.print_exception(max_frames=4)
                    failed = True
    show(console, figures)
    console.print(f"written to {write(RESULTS, figures)}")
    return int(failed)


def _load_group(name: str) -> Callable[..., list[Figure]]:
    module, function = GROUPS[name].split(":")
    group: Callable[..., list[Figure]] = getattr(import_module(f"tests.bench.{module}"), function)
    return group


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
