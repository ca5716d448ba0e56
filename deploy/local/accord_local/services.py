"""The four services as processes: what each needs in its environment, and how it is migrated, started and stopped."""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    port range. A service with its API and its workers apart has two.
    """

    name: str
    package: str
    database: str
    port_offset: int
    role: Literal["api", "worker", "all"] = "all"


SERVICES: Sequence[ServiceSpec] = (
    ServiceSpec("intake", "intake", "intake", 0),
    ServiceSpec("qualification", "qualification", "qualification", 1),
    ServiceSpec("sla-monitor", "sla_monitor", "sla", 2),
    ServiceSpec("metrics", "metrics", "metrics", 3),
)


@dataclass(slots=True)
class Service:
    """A service with its environment; started and stopped any number of times."""

    spec: ServiceSpec
    port: int
    log_path: Path
    settings: Mapping[str, str] = field(repr=False)
    child: ChildProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process's pid, or None while it does not run."""
        return self.child.pid if self.child is not None and self.child.running else None

    def begin_migration(self) -> ChildProcess:
        """Start `main migrate` with a fresh log; several services can migrate at once."""
        rotate(self.log_path)
        return self._spawn("migrate")

    def end_migration(self, child: ChildProcess) -> None:
        """Wait for the migration, at most two minutes; StartError with its last words when it failed."""
        try:
            code = child.popen.wait(timeout=MIGRATE_TIMEOUT_S)
        finally:
            child.kill()
        if code != 0:
            raise StartError(self.spec.name, f"migration failed: {self.last_words()}", self.log_path)

    def start(self) -> None:
        """Start the process in its role; returns at once, see `ready`."""
        self.child = self._spawn(self.spec.role)

    def ready(self, client: httpx.Client) -> bool:
        """Whether `/readyz` says yes. Raises StartError when the process has ended."""
        if self.pid is None:
            raise StartError(self.spec.name, f"ended while starting: {self.last_words()}", self.log_path)
        try:
            return client.get(f"{self.url}/readyz", timeout=PROBE_TIMEOUT_S).status_code == httpx.codes.OK
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

    def last_words(self) -> str:
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
        return spawn(command, log_path=self.log_path, env=self._environment())

    def _environment(self) -> dict[str, str]:
        own = {
            "ACCORD_HOST": HOST,
            "ACCORD_PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }
        inherited = {name: value for name, value in os.environ.items() if name not in DEV_KEY_VARIABLES}
        return {**inherited, **own, **self.settings}
