"""The stack runner with real PostgreSQL and Kafka and two small stand-ins for services."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from accord_local.processes import ProcessIdentity, free_ports, wait_for, wait_gone
from accord_local.services import SERVICES
from accord_local.stack import RESTARTS_IN_A_ROW_MAX, STEADY_AFTER_S, RestartPolicy
from accord_local.state import StackState

from .fake_stack import write_package

RUNNER = Path(__file__).with_name("fake_stack.py")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 45


class Run:
    """One run of the stack as a process of its own."""

    def __init__(self, directory: Path, *, env: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.port_base, self.kafka_port = _ports()
        self.output_path = directory / "output.txt"
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, RUNNER, directory / "data", str(self.port_base), str(self.kafka_port), directory],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )

    @property
    def state(self) -> StackState | None:
        return StackState.read(self.directory / "data" / "state.json")

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def ready(self) -> StackState:
        """Wait until all is ready; the state with everybody's pid."""

        def settled() -> bool:
            state = self.state
            # The state of an earlier run that was killed says "ready" too.
            ours = state is not None and state.supervisor.pid == self.process.pid and state.status == "ready"
            return ours or self.process.poll() is not None

        assert wait_for(settled, timeout_s=START_TIMEOUT_S), self.output
        state = self.state
        assert state is not None, self.output
        return state

    def end(self, number: int) -> int:
        """Signal the runner; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)


def _ports(services: int = 2) -> tuple[int, int]:
    """A port with as many free ones behind it as there are services, and another."""
    *row, kafka = free_ports(services + 1)
    return row[0], kafka


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="accord-test-"))
    yield path
    shutil.rmtree(path)


@contextmanager
def running(directory: Path, *, env: dict[str, str] | None = None) -> Iterator[Run]:
    run = Run(directory, env=env)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.end(signal.SIGTERM)


def identities(state: StackState) -> list[ProcessIdentity]:
    found = [entry.identity for entry in state.processes.values()]
    assert None not in found
    return [identity for identity in found if identity is not None]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_leaves_nothing_behind(directory: Path, number: signal.Signals) -> None:
    with running(directory) as run:
        state = run.ready()
        assert list(state.processes) == ["postgresql", "kafka", "alpha", "beta"]
        answer = httpx.get(f"http://127.0.0.1:{run.port_base + 1}/readyz", trust_env=False)
        assert answer.text.startswith("postgresql+asyncpg://sla@/sla?")
        assert run.end(number) == 0
        assert wait_gone(identities(state), timeout_s=1) == []
        assert run.state is None


@pytest.mark.slow
def test_a_killed_runner_leaves_nothing_behind_and_the_next_one_takes_over(directory: Path) -> None:
    with running(directory) as run:
        state = run.ready()
        run.end(signal.SIGKILL)
        with running(directory) as next_run:
            after = next_run.ready()
            assert wait_gone(identities(state), timeout_s=1) == []
            assert after.supervisor != state.supervisor


@pytest.mark.slow
def test_a_service_that_dies_is_reported_without_secrets_and_restarted(directory: Path) -> None:
    with running(directory) as run:
        before = run.ready().processes["alpha"].identity
        assert before is not None
        before.signal(signal.SIGKILL)

        def back() -> bool:
            state = run.state
            entry = state.processes["alpha"] if state else None
            return entry is not None and entry.restarts == 1 and entry.identity not in {None, before}

        assert wait_for(back, timeout_s=20), run.output
        lines = [line for line in run.output.splitlines() if "alpha died" in line]
        assert len(lines) == 1
        assert "restarting in 0.5 s" in lines[0]
        assert "hunter2" not in run.output


@pytest.mark.slow
def test_postgres_and_kafka_come_back_after_a_crash(directory: Path) -> None:
    with running(directory) as run:
        state = run.ready()
        for name in ("postgresql", "kafka"):
            identity = state.processes[name].identity
            assert identity is not None
            identity.signal(signal.SIGKILL)

        def back() -> bool:
            now = run.state
            entries = [now.processes[name] for name in ("postgresql", "kafka")] if now else []
            return bool(entries) and all(entry.restarts == 1 and entry.identity for entry in entries)

        assert wait_for(back, timeout_s=60), run.output


def test_a_busy_port_is_one_clear_line(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, RUNNER, directory / "data", str(port), "1", directory]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == f"accord: alpha: port {port} is busy; stop what uses it or choose another with --port-base\n"


@pytest.mark.slow
@pytest.mark.parametrize(("role", "words"), [("migrate", "migration failed"), ("all", "ended while starting")])
def test_a_service_that_cannot_start_is_one_clear_line_and_stops_all(directory: Path, role: str, words: str) -> None:
    with running(directory, env={"FAKE_FAIL": f"beta-{role}"}) as run:
        assert run.process.wait(START_TIMEOUT_S) == 1
        last = run.output.splitlines()[-1]
        assert last.startswith(f"accord: beta: {words}")
        assert f"beta cannot {role}" in last
        assert "hunter2" not in run.output
        assert run.state is None


@pytest.mark.slow
def test_the_command_starts_in_the_background_tells_and_stops(directory: Path, stand_ins: None) -> None:
    base, kafka = _ports(4)
    options = ["--port-base", str(base), "--kafka-port", str(kafka)]
    table = _accord("up", "--detach", *options, directory=directory)
    try:
        assert table.returncode == 0, table.stderr
        for name in ("postgresql", "kafka", "intake", "qualification", "sla-monitor", "metrics"):
            assert name in table.stdout
        again = _accord("up", "--detach", *options, directory=directory)
        assert again.returncode == 1
        assert again.stderr.startswith("accord: already running as process ")
        state = json.loads(_accord("status", "--json", directory=directory).stdout)
        assert state["probes"] == dict.fromkeys(("intake", "qualification", "sla-monitor", "metrics"), "ready")
        logs = _accord("logs", "metrics", directory=directory).stdout
        assert "metrics | metrics migrate" in logs
        assert "hunter2" not in logs
    finally:
        stopped = _accord("down", directory=directory)
    assert "stopped" in stopped.stdout
    assert _accord("status", directory=directory).returncode == 1
    pids = [entry["identity"] for entry in state["processes"].values()]
    assert wait_gone([ProcessIdentity(**identity) for identity in pids], timeout_s=1) == []


@pytest.fixture
def stand_ins(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small programs in place of the four services."""
    for spec in SERVICES:
        write_package(directory, spec.package)
    monkeypatch.setenv("PYTHONPATH", str(directory))


def _accord(*arguments: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "accord_local.cli", *arguments, "--data-dir", str(directory / "data")]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_commands_without_a_running_stack_say_so(directory: Path) -> None:
    for command, code, words in [("status", 1, "nothing runs"), ("down", 0, "nothing runs")]:
        done = subprocess.run(
            [sys.executable, "-m", "accord_local.cli", command, "--data-dir", directory],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code
        assert words in done.stdout + done.stderr


def test_down_never_signals_a_pid_that_is_another_process_now(directory: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        stale = ProcessIdentity(bystander.pid, time.time() - 3600)
        StackState(stale, "ready").write(directory / "state.json")
        command = [sys.executable, "-m", "accord_local.cli", "down", "--data-dir", directory]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "nothing runs" in done.stdout
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_restarts_back_off_and_end_after_five_in_a_row() -> None:
    policy = RestartPolicy()
    delays = []
    for _ in range(RESTARTS_IN_A_ROW_MAX):
        policy.started(100.0)
        delays.append(policy.died(101.0))
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert policy.died(102.0) is None
    assert policy.given_up


def test_a_steady_process_starts_counting_anew() -> None:
    policy = RestartPolicy(deaths_in_a_row=RESTARTS_IN_A_ROW_MAX)
    policy.started(100.0)
    assert policy.died(100.0 + STEADY_AFTER_S) == 0.5
