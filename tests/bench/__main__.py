"""`python -m tests.bench [names…]`: measure, print a table, write JSON to bench-results/. Without names: everything."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
from rich.console import Console
from tests.bench import (
    capturing,
    hooking,
    importing,
    judging,
    qualifying,
    reevaluating,
    relaying,
    routing,
    what_if,
    whole_way,
)
from tests.bench.house import House
from tests.bench.report import Figure, show, write

RESULTS = Path("bench-results")
GROUPS: dict[str, Callable[[House], list[Figure]]] = {
    "single": capturing.single,
    "batch": capturing.batch,
    "imports": importing.imports,
    "webhooks": hooking.webhooks,
    "relay": relaying.throughput,
    "relay-latency": relaying.latency,
    "qualification": qualifying.throughput,
    "evaluation": judging.evaluation,
    "reevaluation": reevaluating.reevaluation,
    "routing": routing.routed,
    "what-if": what_if.what_if,
    "way": whole_way.whole_way,
}


def main(arguments: list[str]) -> int:
    """Run the groups that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*GROUPS, []], help="what to measure; without: everything")
    parser.add_argument(
        "--leads",
        type=lambda text: tuple(map(int, text.split(","))),
        default=importing.SIZES,
        help="leads that are there before the imports, apart by commas",
    )
    asked = parser.parse_args(arguments)
    names = asked.names or list(GROUPS)
    groups = {**GROUPS, "imports": partial(importing.imports, sizes=asked.leads)}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is stopped in order
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = Console(width=None if sys.stdout.isatty() else 160)
    figures: list[Figure] = []
    failed = False
    with House() as house:
        for name in names:
            with console.status(f"measuring {name}"):
                try:
                    figures.extend(groups[name](house))
                except Exception:  # noqa: BLE001 - what the other groups measure is worth showing
                    console.print_exception(max_frames=4)
                    failed = True
    show(console, figures)
    console.print(f"written to {write(RESULTS, figures)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
