"""Run seeds of the simulator, and print those that fail with the command that replays them."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.simulation.run import Outcome

_FAILURES_SHOWN_MAX = 10
_VIOLATIONS_SHOWN_MAX = 5
_SEEDS_PER_TASK = 20


class Portion(NamedTuple):
    """Seeds that one process runs in a row."""

    first: int
    end: int
    fault: str
    tracing: bool


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--fault", default="none", help="plant this fault")
    parser.add_argument("--planted", action="store_true", help="plant each fault in turn; fails if one is not found")
    parser.add_argument("--all", action="store_true", help="go on after a failure")
    parser.add_argument("--trace", action="store_true", help="print every step")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of text follows from it
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])  # noqa: S606
    if options.planted:
        return find_planted(options)
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Run the seeds; the exit code says whether one failed."""
    started, done, failed, callbacks, virtual_s = time.monotonic(), 0, 0, 0, 0.0
    with closing(outcomes_of(options, options.fault)) as found:
        for outcomes in found:
            done += len(outcomes)
            callbacks += sum(outcome.callbacks for outcome in outcomes)
            virtual_s += sum(outcome.seconds for outcome in outcomes)
            bad = [outcome for outcome in outcomes if outcome.violations]
            for outcome in bad[: max(0, _FAILURES_SHOWN_MAX - failed)]:
                show(outcome, options.fault)
            failed += len(bad)
            if bad and not options.all:
                break
    elapsed_s = time.monotonic() - started
    print(
        f"{done} seeds from {options.first}, {failed} failed; {elapsed_s:.1f} s, {done / elapsed_s:.0f} seeds/s; "
        f"a seed has {virtual_s / max(1, done):.1f} virtual seconds and {callbacks // max(1, done)} callbacks"
    )
    return 1 if failed else 0


def find_planted(options: argparse.Namespace) -> int:
    """Print after how many seeds each planted fault is found; the exit code says whether one is not."""
    from tests.simulation.faults import PLANTED

    missed = 0
    for name in PLANTED:
        found = None
        with closing(outcomes_of(options, name)) as portions:
            for outcomes in portions:
                found = next((outcome for outcome in outcomes if outcome.violations), None)
                if found is not None:
                    break
        missed += found is None
        said = "NOT FOUND" if found is None else f"seed {found.seed:5}  {found.violations[0]}"
        print(f"{name:36} {said}", flush=True)
    return 1 if missed else 0


def outcomes_of(options: argparse.Namespace, fault: str) -> Iterator[Sequence[Outcome]]:
    """The outcomes of all seeds, some at a time, in order."""
    end = options.first + options.seeds
    portions = [
        Portion(first, min(first + _SEEDS_PER_TASK, end), fault, options.trace)
        for first in range(options.first, end, _SEEDS_PER_TASK)
    ]
    if options.jobs <= 1 or options.trace:
        yield from map(run_portion, portions)
        return
    pool = ProcessPoolExecutor(options.jobs)
    try:
        yield from pool.map(run_portion, portions)
    finally:
        pool.shutdown(cancel_futures=True)


def run_portion(portion: Portion) -> list[Outcome]:
    """Run some seeds in this process."""
    from tests.simulation import faults
    from tests.simulation.run import prepared, run_seed

    gc.disable()  # it would take a third of the time, for a few megabytes
    with prepared():
        outcomes = [
            run_seed(seed, faults.by_name(portion.fault), tracing=portion.tracing)
            for seed in range(portion.first, portion.end)
        ]
    gc.collect()
    return outcomes


def show(outcome: Outcome, fault: str) -> None:
    """Print what a seed found, and how to see it again."""
    print(f"seed {outcome.seed} fails after {outcome.seconds:.2f} virtual seconds:")
    for violation in outcome.violations[:_VIOLATIONS_SHOWN_MAX]:
        print(f"  {violation}")
    planted = "" if fault == "none" else f" FAULT={fault}"
    print(f"  replay: make simulate SEED={outcome.seed}{planted}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
