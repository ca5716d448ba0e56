"""The stack runner with real PostgreSQL and Kafka and two small stand-ins for services."""

import io
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
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import httpx
import psutil
import pytest

from accord_local import cli
from accord_local.processes import ProcessIdentity, free_ports, wait_for, wait_gone
from accord_local.services import SERVICES
from accord_local.stack import RESTARTS_IN_A_ROW_MAX, STEADY_AFTER_S, RestartPolicy
from accord_local.state import StackState

from .fake_stack import write_package

RUNNER = Path(__file__).with_name("fake_stack.py")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 45


class Run:
    """One run of the stack as a process of its own, with PostgreSQL and Kafka or with somebody else's."""

    def __init__(self, directory: Path, *, env: dict[str, str] | None = None, servers: bool = True) -> None:
        self.directory = directory
        self.port_base, kafka_port = _ports()
        self.output_path = directory / "output.txt"
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    RUNNER,
                    directory / "data",
                    str(self.port_base),
                    str(kafka_port if servers else 0),
                    directory,
                ],
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
def running(directory: Path, *, env: dict[str, str] | None = None, servers: bool = True) -> Iterator[Run]:
    run = Run(directory, env=env, servers=servers)
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
@pytest.mark.timeout(240)
def test_a_killed_runner_is_followed_by_one_that_restarts_what_dies_and_leaves_nothing_behind(directory: Path) -> None:
    with running(directory) as run:
        state = run.ready()
        assert list(state.processes) == ["postgresql", "kafka", "alpha", "beta"]
        answer = httpx.get(f"http://127.0.0.1:{run.port_base + 1}/readyz", trust_env=False)
        assert answer.json()["database_url"].startswith("postgresql+asyncpg://sla@/sla?")
        run.end(signal.SIGKILL)
        with running(directory) as next_run:
            after = next_run.ready()
            assert wait_gone(identities(state), timeout_s=1) == []
            assert after.supervisor != state.supervisor
            kill_and_await(next_run, "alpha")
            lines = [line for line in next_run.output.splitlines() if "alpha died" in line]
            assert len(lines) == 1
            assert "restarting in 0.5 s" in lines[0]
            assert "hunter2" not in next_run.output
            last = kill_and_await(next_run, "postgresql", "kafka")
            assert next_run.end(signal.SIGINT) == 0
            assert wait_gone(identities(last), timeout_s=1) == []
            assert next_run.state is None


def kill_and_await(run: Run, *names: str) -> StackState:
    """Kill processes of a stack that is ready; its state once each has been restarted."""
    before = run.ready().processes
    for name in names:
        identity = before[name].identity
        assert identity is not None
        identity.signal(signal.SIGKILL)

    def back() -> bool:
        state = run.state
        entries = {name: state.processes[name] for name in names} if state else {}
        return bool(entries) and all(
            entry.restarts == 1 and entry.identity not in {None, before[name].identity}
            for name, entry in entries.items()
        )

    assert wait_for(back, timeout_s=60), run.output
    return run.ready()


def test_a_signal_stops_the_services_of_servers_that_somebody_else_runs(directory: Path) -> None:
    with running(directory, servers=False) as run:
        state = run.ready()
        assert list(state.processes) == ["alpha", "beta"]
        answer = httpx.get(f"http://127.0.0.1:{run.port_base + 1}/readyz", trust_env=False)
        assert answer.json()["database_url"] == "postgresql://127.0.0.1:1/sla"
        assert run.end(signal.SIGTERM) == 0
        assert wait_gone(identities(state), timeout_s=1) == []
        assert run.state is None


def test_a_busy_port_is_one_clear_line(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, RUNNER, directory / "data", str(port), "1", directory]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == f"accord: alpha: port {port} is busy; stop what uses it or choose another with --port-base\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "words", "servers"), [("migrate", "migration failed", True), ("all", "ended while starting", False)]
)
def test_a_service_that_cannot_start_is_one_clear_line_and_stops_all(
    directory: Path, role: str, words: str, servers: bool
) -> None:
    """Beside the migration Kafka is still starting, and is abandoned."""
    with running(directory, env={"FAKE_FAIL": f"beta-{role}"}, servers=servers) as run:
        assert run.process.wait(START_TIMEOUT_S) == 1
        last = run.output.splitlines()[-1]
        assert last.startswith(f"accord: beta: {words}")
        assert f"beta cannot {role}" in last
        assert "hunter2" not in run.output
        assert run.state is None
        assert serving(directory) == []
        assert_nobody_listens(run.port_base, run.port_base + 1)


def serving(directory: Path) -> list[psutil.Process]:
    """PostgreSQL and Kafka, if they run over this directory."""
    everybody = psutil.process_iter(["cmdline"])
    return [process for process in everybody if str(directory) in " ".join(process.info["cmdline"] or [])]


def assert_nobody_listens(*ports: int) -> None:
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()


@pytest.mark.slow
def test_the_command_starts_in_the_background_tells_and_stops(directory: Path, fake_services: None) -> None:
    base, kafka = _ports(4)
    options = ["--port-base", str(base), "--kafka-port", str(kafka)]
    command = [sys.executable, "-m", "accord_local.cli", "up", "--detach", *options, "--data-dir", directory / "data"]
    table = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
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
def fake_services(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small programs in place of the four services."""
    for spec in SERVICES:
        write_package(directory, spec.package)
    monkeypatch.setenv("PYTHONPATH", str(directory))


def _accord(*arguments: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """What the command answers, in this process."""
    command = ["accord", *arguments, "--data-dir", str(directory / "data")]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            cli.main()
    return subprocess.CompletedProcess(command, int(end.value.code or 0), out.getvalue(), err.getvalue())


def test_commands_without_a_running_stack_say_so(directory: Path) -> None:
    for command, code in [("status", 1), ("down", 0)]:
        done = _accord(command, directory=directory)
        assert done.returncode == code
        assert "not running" in done.stdout + done.stderr


def test_down_never_signals_a_pid_that_is_another_process_now(directory: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        stale = ProcessIdentity(bystander.pid, time.time() - 3600)
        (directory / "data").mkdir()
        StackState(stale, "ready").write(directory / "data" / "state.json")
        assert "not running" in _accord("down", directory=directory).stdout
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


def test_a_steady_process_starts_counting_again() -> None:
    policy = RestartPolicy(deaths_in_a_row=RESTARTS_IN_A_ROW_MAX)
    policy.started(100.0)
    assert policy.died(100.0 + STEADY_AFTER_S) == 0.5
