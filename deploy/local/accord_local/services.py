"""The four services as processes: what each needs in its environment, and how it is migrated, started and stopped."""

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import httpx

from accord_local.errors import StartError
from accord_local.keys import DEV_KEY_VARIABLES
from accord_local.processes import ChildProcess, log_tail, rotate, spawn
from accord_local.redaction import redact

HOST = "127.0.0.1"
MIGRATE_TIMEOUT_S = 120.0
STOP_GRACE_S = 10.0
PROBE_TIMEOUT_S = 2.0
LOG_BYTES_MAX = 32 * 1024 * 1024
TAIL_LINES = 5


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One process of a service: its name, package (run as `python -m package.main ROLE`), database, and place in the
    port range. A service that is run by roles has several. Those of one port share its listening socket, and each has
    another port for probes and metrics, so that one can be told from the other.
    """

    name: str
    package: str
    database: str
    port_offset: int
    role: Literal["api", "worker", "relay", "all"] = "all"
    probe_offset: int | None = None


SERVICES: Sequence[ServiceSpec] = (
    ServiceSpec("intake", "intake", "intake", 0),
    ServiceSpec("qualification", "qualification", "qualification", 1),
    ServiceSpec("sla-monitor", "sla_monitor", "sla", 2),
    ServiceSpec("metrics", "metrics", "metrics", 3),
)


def split_by_role(services: Sequence[ServiceSpec], processes: int) -> Sequence[ServiceSpec]:
    """Each service as `processes` of its API on one port, beside one worker and one relay; as it is if that is one.

    Behind the services' own ports follow those of the workers, the relays, and the probes of each API process.
    """
    if processes == 1:
        return services
    width = max(spec.port_offset for spec in services) + 1
    specs: list[ServiceSpec] = []
    for spec in services:
        ports = range(spec.port_offset, (processes + 3) * width, width)
        for number in range(processes):
            name = spec.name if number == 0 else f"{spec.name}-{number + 1}"
            specs.append(replace(spec, name=name, role="api", probe_offset=ports[3 + number]))
        specs.append(replace(spec, name=f"{spec.name}-worker", role="worker", port_offset=ports[1]))
        specs.append(replace(spec, name=f"{spec.name}-relay", role="relay", port_offset=ports[2]))
    return specs


@dataclass(slots=True)
class Service:
    """A service with its environment; started and stopped any number of times."""

    spec: ServiceSpec
    port: int
    log_path: Path
    settings: Mapping[str, str] = field(repr=False)
    probe_port: int | None = None
    listening: socket.socket | None = None
    """The socket that it shares with other processes; None: it opens its own."""
    child: ChildProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def probe_url(self) -> str:
        """Where this very process answers probes."""
        return f"http://{HOST}:{self.port if self.probe_port is None else self.probe_port}"

    @property
    def pid(self) -> int | None:
        """The process's pid, or None while it does not run."""
        return self.child.pid if self.child is not None and self.child.running else None

    def begin_migration(self) -> ChildProcess:
        """Start `main migrate`; several services can migrate at once."""
        self.rotate_log()
        return self._spawn("migrate")

    def rotate_log(self) -> None:
        """Put the log of an earlier run aside."""
        rotate(self.log_path)

    def end_migration(self, child: ChildProcess) -> None:
        """Wait for the migration, at most two minutes; StartError with its last words when it failed."""
        try:
            code = child.popen.wait(timeout=MIGRATE_TIMEOUT_S)
        finally:
            child.kill()
        if code != 0:
            raise StartError(self.spec.name, f"migration failed: {self.read_last_lines()}", self.log_path)

    def start(self) -> None:
        """Start the process in its role; returns at once, see `ready`."""
        self.child = self._spawn(self.spec.role)

    def ready(self, client: httpx.Client) -> bool:
        """Whether `/readyz` says yes. Raises StartError when the process has ended."""
        if self.pid is None:
            raise StartError(self.spec.name, f"ended while starting: {self.read_last_lines()}", self.log_path)
        try:
            return client.get(f"{self.probe_url}/readyz", timeout=PROBE_TIMEOUT_S).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def begin_stop(self) -> None:
        """Ask the process to drain and end."""
        if self.child is not None and self.child.running:
            self.child.popen.send_signal(signal.SIGTERM)

    def end_stop(self, deadline_s: float) -> None:
        """Wait until `time.monotonic()` is `deadline_s`, then kill."""
        if self.child is not None:
            self.child.stop(grace_s=max(0.0, deadline_s - time.monotonic()))
            self.child = None

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.child is not None:
            self.child.kill()

    def read_last_lines(self) -> str:
        """The last lines of the log in one line, without secrets."""
        lines = [line.strip() for line in log_tail(self.log_path, TAIL_LINES) if line.strip()]
        return redact(" | ".join(lines)) or "it said nothing"

    def bound_log(self) -> None:
        """Start the log again when it is too long; the process appends to the same file, so it is cut, not moved."""
        try:
            if self.log_path.stat().st_size > LOG_BYTES_MAX:
                os.truncate(self.log_path, 0)
        except FileNotFoundError:
            return

    def _spawn(self, role: str) -> ChildProcess:
        command = [sys.executable, "-m", f"{self.spec.package}.main", role]
        shared = [] if self.listening is None else [self.listening.fileno()]
        return spawn(command, log_path=self.log_path, env=self._environment(), pass_fds=shared)

    def _environment(self) -> dict[str, str]:
        own = {
            "ACCORD_HOST": HOST,
            "ACCORD_PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }
        if self.probe_port is not None:
            own["ACCORD_METRICS_PORT"] = str(self.probe_port)
        if self.listening is not None:
            own["ACCORD_LISTEN_FD"] = str(self.listening.fileno())
        inherited = {name: value for name, value in os.environ.items() if name not in DEV_KEY_VARIABLES}
        return {**inherited, **own, **self.settings}
