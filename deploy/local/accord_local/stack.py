"""The whole stack as one object: start everything in order, restart what dies, stop everything in order."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx
from filelock import FileLock, Timeout

from accord_local.errors import AlreadyRunningError, LocalError, StartError
from accord_local.kafka import KafkaServer
from accord_local.keys import ensure_dev_keys, ensure_encryption_key
from accord_local.postgres import CONNECTIONS_MAX, PostgresServer
from accord_local.processes import ProcessIdentity, require_disk, require_port, wait_for, wait_gone
from accord_local.services import HOST, SERVICES, STOP_GRACE_S, Service, ServiceSpec, split_by_role
from accord_local.state import ProcessState, StackState

READY_TIMEOUT_S = 60.0
SUPERVISE_EVERY_S = 0.25
RESTARTS_IN_A_ROW_MAX = 5
RESTART_DELAY_FIRST_S = 0.5
STEADY_AFTER_S = 60.0
ABANDON_TIMEOUT_S = 15.0
LISTEN_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class StackOptions:
    """Where the data is and on which ports things listen; servers of someone else's instead of the embedded ones."""

    data_dir: Path
    port_base: int = 8001
    postgres_port: int | None = None
    kafka_port: int = 9092
    database_url_template: str | None = None
    kafka: str | None = None
    services: Sequence[ServiceSpec] = SERVICES
    processes: int = 1
    """API processes of each service on one port, beside a worker and a relay; 1: one process for all three."""

    @property
    def specs(self) -> Sequence[ServiceSpec]:
        """Every process of the services."""
        return split_by_role(self.services, self.processes)

    @property
    def state_path(self) -> Path:
        return self.data_dir / "state.json"

    @property
    def keys_path(self) -> Path:
        return self.data_dir / "api-keys.yaml"

    @property
    def dev_keys_path(self) -> Path:
        return self.data_dir / "dev-keys.env"

    @property
    def encryption_key_path(self) -> Path:
        return self.data_dir / "secrets-keys"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"


class Reporter(Protocol):
    """Receives progress and problems."""

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of something are there."""

    def report_problem(self, line: str) -> None:
        """Something died, was restarted or was given up; one line."""


class Member(Protocol):
    """What is supervised: PostgreSQL, Kafka or a service."""

    @property
    def pid(self) -> int | None:
        """None while it does not run."""

    def start(self) -> None:
        """Start it; LocalError when that fails."""


@dataclass(slots=True)
class RestartPolicy:
    """How long to wait before the next start; pure, times are `time.monotonic()` seconds."""

    deaths_in_a_row: int = 0
    started_at_s: float = 0.0
    start_due_at_s: float | None = None
    given_up: bool = False

    def started(self, now_s: float) -> None:
        self.started_at_s = now_s
        self.start_due_at_s = None

    def died(self, now_s: float) -> float | None:
        """The delay in seconds before the next start, or None when five in a row did not help."""
        if now_s - self.started_at_s >= STEADY_AFTER_S:
            self.deaths_in_a_row = 0
        self.deaths_in_a_row += 1
        if self.deaths_in_a_row > RESTARTS_IN_A_ROW_MAX:
            self.given_up = True
            return None
        delay_s: float = RESTART_DELAY_FIRST_S * 2 ** (self.deaths_in_a_row - 1)
        self.start_due_at_s = now_s + delay_s
        return delay_s


@dataclass(slots=True)
class _Supervised:
    name: str
    member: Member
    address: str
    read_last_lines: Callable[[], str]
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    restarts: int = 0


class Stack:
    """PostgreSQL, Kafka and the services of one data directory."""

    def __init__(self, options: StackOptions, reporter: Reporter) -> None:
        self.options = options
        self.postgres: PostgresServer | None = None
        self.kafka: KafkaServer | None = None
        self.services: dict[str, Service] = {}
        self._reporter = reporter
        self._supervised: list[_Supervised] = []
        self._state: StackState | None = None
        self._lock = FileLock(options.data_dir / ".lock")
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="accord-start")
        self._starting: list[Future[None]] = []
        self._listening: dict[int, socket.socket] = {}
        """Port → the socket that several processes share. It stays open while they die and are started again."""

    # -- life

    def start(self) -> None:
        """Start everything and return when every `/readyz` says yes.

        Raises LocalError with one clear line; call `stop` then as well.
        """
        require_disk("the stack", self.options.data_dir)
        self._take_over()
        self._check_ports()
        ensure_dev_keys(self.options.dev_keys_path, self.options.keys_path)
        ensure_encryption_key(self.options.encryption_key_path)
        self._write_state("starting")
        self._start_servers()
        self._make_services()
        self._migrate()
        if self.kafka is not None:
            self._starting[-1].result()
        for service in self.services.values():
            service.start()
        self._write_state("starting")
        self._wait_ready()
        now_s = time.monotonic()
        for entry in self._supervised:
            entry.policy.started(now_s)
        self._write_state("ready")

    def supervise(self, stop: threading.Event) -> None:
        """Restart what dies until `stop` is set: after 0.5, 1, 2 … seconds, at most five times in a row."""
        while not stop.wait(SUPERVISE_EVERY_S):
            changed = [self._check(entry) for entry in self._supervised]
            if any(changed):
                self._write_state("ready")
            for service in self.services.values():
                service.bound_log()

    def stop(self) -> None:
        """Services first (10 s to drain), then Kafka, then PostgreSQL; nothing is left behind."""
        if self._state is not None:
            self._write_state("stopping")
        self._stop_listening()
        for service in self.services.values():
            service.begin_stop()
        deadline_s = time.monotonic() + STOP_GRACE_S
        for service in self.services.values():
            service.end_stop(deadline_s)
        self._abandon_starts()
        if self.kafka is not None:
            self.kafka.stop()
        if self.postgres is not None:
            self.postgres.stop()
        if self._state is not None:
            self.options.state_path.unlink(missing_ok=True)
            self._state = None
        self._lock.release()

    def kill(self) -> None:
        """SIGKILL everything at once, for someone in a hurry; committed data stays."""
        for service in self.services.values():
            service.kill()
        if self.kafka is not None:
            self.kafka.kill()
        if self.postgres is not None:
            self.postgres.kill()

    # -- addresses

    def urls(self) -> dict[str, str]:
        """Name → address of each server and service; without passwords."""
        return {entry.name: entry.address for entry in self._supervised}

    # -- steps of the start

    def _take_over(self) -> None:
        """Make sure that no other stack, living or left behind, uses this directory."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            state = StackState.read(self.options.state_path)
            raise AlreadyRunningError(
                "the stack", self.options.data_dir, state.supervisor.pid if state else 0
            ) from None
        state = StackState.read(self.options.state_path)
        if state is None:
            return
        # Left over by a supervisor that was killed: they were told by the kernel to end, and get the time for it.
        for survivor in wait_gone(state.survivors(), timeout_s=STOP_GRACE_S):
            survivor.signal(signal.SIGKILL)
        self.options.state_path.unlink(missing_ok=True)

    def _check_ports(self) -> None:
        offsets = {spec.port_offset: spec.name for spec in reversed(self.options.specs)}
        offsets |= {spec.probe_offset: spec.name for spec in self.options.specs if spec.probe_offset is not None}
        for offset, name in sorted(offsets.items()):
            require_port(name, self.options.port_base + offset, "--port-base")

    def _start_servers(self) -> None:
        """PostgreSQL and Kafka at the same time; returns when PostgreSQL is there, Kafka takes longer."""
        if self.options.database_url_template is None:
            self.postgres = PostgresServer(
                self.options.data_dir / "postgres",
                self.options.postgres_port,
                settings={"max_connections": str(CONNECTIONS_MAX * self.options.processes)},
            )
            self._starting.append(self._pool.submit(self.postgres.start))
            address = self.postgres.dsn("postgres")
            self._supervise_later("postgresql", self.postgres, address, self.postgres.log_path)
        if self.options.kafka is None:
            self.kafka = KafkaServer(
                self.options.data_dir / "kafka",
                self.options.kafka_port,
                progress=lambda done, total: self._reporter.progress("Kafka's jars", done, total),
            )
            self._starting.append(self._pool.submit(self.kafka.start))
            self._supervise_later("kafka", self.kafka, self.kafka.bootstrap_servers, self.kafka.log_path)
        if self.postgres is not None:
            self._reporter.progress("PostgreSQL", 0, 1)
            self._starting[0].result()
            self._reporter.progress("PostgreSQL", 1, 1)

    def _make_services(self) -> None:
        for spec in self.options.specs:
            settings = {
                "ACCORD_DATABASE_URL": self._database_url(spec.database),
                "ACCORD_KAFKA_BOOTSTRAP_SERVERS": self._bootstrap_servers(),
                "ACCORD_API_KEYS_FILE": str(self.options.keys_path.resolve()),
            }
            if not os.environ.keys() & {"ACCORD_SECRETS_KEYS", "ACCORD_SECRETS_KEYS_FILE"}:
                settings["ACCORD_SECRETS_KEYS_FILE"] = str(self.options.encryption_key_path.resolve())
            log_path = self.options.logs_dir / f"{spec.name}.log"
            port = self.options.port_base + spec.port_offset
            service = Service(spec, port, log_path, settings)
            if spec.probe_offset is not None:
                service.probe_port = self.options.port_base + spec.probe_offset
                service.listening = self._listen(port)
            self.services[spec.name] = service
            self._supervise_later(spec.name, service, service.url, log_path)

    def _listen(self, port: int) -> socket.socket:
        if port not in self._listening:
            self._listening[port] = socket.create_server((HOST, port), backlog=LISTEN_BACKLOG)
        return self._listening[port]

    def _stop_listening(self) -> None:
        """Close our copies, so that a port is closed when the last process that shares it stops to accept."""
        while self._listening:
            self._listening.popitem()[1].close()

    def _migrate(self) -> None:
        migrating: dict[str, Service] = {}
        for service in self.services.values():
            if migrating.setdefault(service.spec.database, service) is not service:
                service.rotate_log()
        total = len(migrating)
        running = [(service, service.begin_migration()) for service in migrating.values()]
        try:
            for done, (service, child) in enumerate(running):
                self._reporter.progress("migrations", done, total)
                service.end_migration(child)
        finally:
            for _, child in running:
                child.kill()
        self._reporter.progress("migrations", total, total)

    def _wait_ready(self) -> None:
        waiting = dict(self.services)
        total = len(waiting)

        def all_ready() -> bool:
            for name in [name for name, service in waiting.items() if service.ready(client)]:
                del waiting[name]
            self._reporter.progress("services", total - len(waiting), total)
            return not waiting

        with httpx.Client(trust_env=False) as client:
            if not wait_for(all_ready, timeout_s=READY_TIMEOUT_S, every_s=0.1):
                name, service = next(iter(waiting.items()))
                raise StartError(name, f"not ready after {READY_TIMEOUT_S:.0f} s", service.log_path)

    def _database_url(self, database: str) -> str:
        if self.postgres is not None:
            return self.postgres.url(database)
        return str(self.options.database_url_template).replace("{database}", database)

    def _bootstrap_servers(self) -> str:
        return self.kafka.bootstrap_servers if self.kafka is not None else str(self.options.kafka)

    # -- supervision

    def _supervise_later(self, name: str, member: Member, address: str, log_path: Path) -> None:
        words = member.read_last_lines if isinstance(member, Service) else lambda: f"see {log_path}"
        self._supervised.append(_Supervised(name, member, address, words))

    def _check(self, entry: _Supervised) -> bool:
        """Look after one member; True when its state changed."""
        policy = entry.policy
        if entry.member.pid is not None or policy.given_up:
            return False
        now_s = time.monotonic()
        if policy.start_due_at_s is None:
            self._report_death(entry, entry.read_last_lines(), policy.died(now_s))
            return True
        if now_s < policy.start_due_at_s:
            return False
        entry.restarts += 1
        try:
            entry.member.start()
        except LocalError as error:
            self._report_death(entry, str(error), policy.died(time.monotonic()))
        else:
            policy.started(time.monotonic())
        return True

    def _report_death(self, entry: _Supervised, words: str, delay_s: float | None) -> None:
        then = f"restarting in {delay_s:g} s" if delay_s is not None else "given up after five restarts in a row"
        self._reporter.report_problem(f"{entry.name} died, {then}; last: {words}")

    def _abandon_starts(self) -> None:
        """End starts that are still under way in other threads, by killing what they wait for."""
        deadline_s = time.monotonic() + ABANDON_TIMEOUT_S
        while any(not start.done() for start in self._starting) and time.monotonic() < deadline_s:
            for server in (self.kafka, self.postgres):
                if server is not None:
                    server.kill()
            time.sleep(0.05)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _write_state(self, status: str) -> None:
        supervisor = ProcessIdentity.of(os.getpid())
        if supervisor is None:
            return
        self._state = StackState(supervisor, status)
        for entry in self._supervised:
            pid = entry.member.pid
            identity = ProcessIdentity.of(pid) if pid is not None else None
            process_status = "given up" if entry.policy.given_up else "running" if identity else "stopped"
            probe = entry.member.probe_url if isinstance(entry.member, Service) else ""
            self._state.processes[entry.name] = ProcessState(
                identity, entry.address, process_status, entry.restarts, probe
            )
        self._state.write(self.options.state_path)
