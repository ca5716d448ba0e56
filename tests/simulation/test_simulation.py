"""The simulator finds nothing in the code as it is, and finds every fault that is planted. Its runs are exact repetitions."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.loop import SimulatedLoop, SimulationStuck

ROOT = Path(__file__).parents[2]
SEEDS = 2000
PORTIONS = 4


def simulate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own, whose hashes of text are always the same."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("portion", range(PORTIONS))
def test_no_seed_breaks_a_promise(portion: int) -> None:
    seeds = SEEDS // PORTIONS
    done = simulate("--seeds", str(seeds), "--first", str(portion * seeds))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{seeds} seeds from {portion * seeds}, 0 failed" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_planted_fault_is_found() -> None:
    done = simulate("--planted", "--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= 20, done.stdout


def test_failing_seed_is_printed_and_replays_exactly() -> None:
    found = simulate("--fault", "inbox-skipped", "--seeds", "100")
    assert found.returncode == 1
    seed = found.stdout.split("seed ", 1)[1].split(" ", 1)[0]
    assert f"replay: make simulate SEED={seed} FAULT=inbox-skipped" in found.stdout
    replayed = [
        simulate("--fault", "inbox-skipped", "--seeds", "1", "--first", seed, "--trace").stdout.split("\n1 seeds", 1)[0]
        for _ in range(2)
    ]
    assert replayed[0] == replayed[1]
    assert "VIOLATION" in replayed[0]
    assert "trouble:" in replayed[0] or "appended" in replayed[0]


def test_time_passes_only_when_nothing_else_is_to_be_done() -> None:
    loop, seen = SimulatedLoop(), list[tuple[str, float]]()

    async def work(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        seen.append((name, loop.time()))

    async def main() -> None:
        try:
            async with asyncio.timeout(3600):
                await asyncio.gather(work("late", 3000.0), work("soon", 0.5), work("never", 5000.0))
        except TimeoutError:
            seen.append(("given up", loop.time()))

    loop.run_until_complete(main())
    assert seen == [("soon", 0.5), ("late", 3000.0), ("given up", 3600.0)]


def test_run_in_which_nothing_can_happen_any_more_is_stuck() -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    with pytest.raises(SimulationStuck):
        SimulatedLoop().run_until_complete(wait_for_nobody())
