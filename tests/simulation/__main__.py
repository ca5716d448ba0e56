"""`python -m tests.simulation --seeds 2000 [--first 0] [--jobs 2] [--fault NAME] [--trace]`: run seeds and print those that fail."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

_FAILURES_SHOWN_MAX = 10
_SEEDS_PER_TASK = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--fault", default="none", help="a planted fault, by name")
    parser.add_argument("--trace", action="store_true", help="print every step (one seed)")
    parser.add_argument("--all", action="store_true", help="go on after a failure")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of text depends on it
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    return run(options)


def run(options: argparse.Namespace) -> int:
    started, done, failed, callbacks, virtual_s = time.monotonic(), 0, 0, 0, 0.0
    portions = [
        (first, min(first + _SEEDS_PER_TASK, options.first + options.seeds), options.fault, options.trace)
        for first in range(options.first, options.first + options.seeds, _SEEDS_PER_TASK)
    ]
    with ProcessPoolExecutor(options.jobs) as pool:
        results = pool.map(run_portion, portions) if options.jobs > 1 else map(run_portion, portions)
        for outcomes in results:
            done += len(outcomes)
            callbacks += sum(outcome.callbacks for outcome in outcomes)
            virtual_s += sum(outcome.seconds for outcome in outcomes)
            bad = [outcome for outcome in outcomes if outcome.violations]
            for outcome in islice(bad, max(0, _FAILURES_SHOWN_MAX - failed)):
                print(f"seed {outcome.seed} fails after {outcome.seconds:.2f} virtual seconds:")
                for violation in outcome.violations[:5]:
                    print(f"  {violation}")
                fault = "" if options.fault == "none" else f" FAULT={options.fault}"
                print(f"  replay: make simulate SEED={outcome.seed}{fault}", flush=True)
            failed += len(bad)
            if bad and not options.all:
                pool.shutdown(cancel_futures=True)
                break
    elapsed_s = time.monotonic() - started
    print(
        f"{done} seeds from {options.first}, {failed} failed; {elapsed_s:.1f} s, {done / elapsed_s:.0f} seeds/s, "
        f"{virtual_s / max(1, done):.1f} virtual seconds and {callbacks // max(1, done)} callbacks a seed"
    )
    return 1 if failed else 0


def run_portion(portion: tuple[int, int, str, bool]):
    from tests.simulation import faults, run as runner

    first, end, fault, tracing = portion
    gc.disable()  # it takes a third of the time, for a few megabytes
    with runner.prepared():
        outcomes = [runner.run_seed(seed, faults.by_name(fault), tracing=tracing) for seed in range(first, end)]
    gc.collect()
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
