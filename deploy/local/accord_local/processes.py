"""Child processes that never outlive their parent, and pids that are only signalled while they are what they were.

Nothing here knows what the processes do.
"""

import contextlib
import ctypes
import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from accord_local.errors import DiskFullError, LocalError, PortBusyError

PORTS_TRIED_MAX = 100

T = TypeVar("T")

PR_SET_PDEATHSIG = 1
DISK_FREE_MIN_BYTES = 256 * 1024 * 1024
LOG_TAIL_BYTES_MAX = 64 * 1024
START_TIME_TOLERANCE_S = 1.0

# Linux sends a child its death signal when the *thread* that started it ends. All children are therefore started by
# this one thread, which lives as long as the program.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="accord-spawner")
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A pid together with the time its process started (seconds since the epoch), so that a reused pid is not it."""

    pid: int
    started_at_s: float

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """The identity of a living process, or None when there is none with this pid."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def process(self) -> psutil.Process | None:
        """The living process with this identity, or None when it is gone, a zombie, or the pid is another's now."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_at_s) <= START_TIME_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def signal(self, number: int) -> bool:
        """Send a signal if the process still is what it was; False when it is gone."""
        process = self.process()
        if process is None:
            return False
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            return False
        return True


@dataclass(slots=True)
class ChildProcess:
    """A started process in a process group of its own, and the file its output goes to."""

    popen: "subprocess.Popen[bytes]"
    log_path: Path | None

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def stop(self, *, grace_s: float, number: int = signal.SIGTERM) -> None:
        """Signal the process, wait `grace_s` seconds, then kill its whole group."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.popen.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout=grace_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL the process and what is left of its group, and reap it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.wait(timeout=10)


def spawn(
    command: Sequence[str | Path],
    *,
    log_path: Path | None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: int = signal.SIGTERM,
    pass_fds: Sequence[int] = (),
) -> ChildProcess:
    """Start a command in a new session; its output is appended to `log_path`, and it gets `death_signal` if we die.

    `pass_fds` are open in it under the same numbers.

    Raises LocalError when the command can't be started.
    """
    arguments = [str(part) for part in command]
    try:
        return _spawner.submit(_spawn, arguments, log_path, env, cwd, death_signal, pass_fds).result()
    except OSError as error:
        if error.errno == errno.ENOSPC and log_path is not None:
            raise DiskFullError(Path(arguments[0]).name, log_path.parent) from error
        raise LocalError(f"cannot start {arguments[0]}: {error.strerror or error}") from error


def _spawn(
    arguments: list[str],
    log_path: Path | None,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    death_signal: int,
    pass_fds: Sequence[int],
) -> ChildProcess:
    parent_pid = os.getpid()

    def die_with_parent() -> None:
        if _libc is None:
            return
        _libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent_pid:  # the parent died before prctl took effect
            os._exit(1)

    with contextlib.ExitStack() as stack:
        output = subprocess.DEVNULL
        if log_path is not None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(log_path.open("ab")).fileno()
        popen = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - only two system calls between fork and exec
        )
    return ChildProcess(popen, log_path)


def wait_for(condition: Callable[[], T | None], *, timeout_s: float, every_s: float = 0.02) -> T | None:
    """Poll until `condition` gives something truthy; None after `timeout_s` seconds."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline_s:
            return None
        time.sleep(every_s)


def wait_gone(identities: Iterable[ProcessIdentity], *, timeout_s: float) -> list[ProcessIdentity]:
    """Wait until all of these processes are gone; answers those that are still there after `timeout_s` seconds."""
    remaining = list(identities)

    def all_gone() -> bool:
        remaining[:] = [identity for identity in remaining if identity.process() is not None]
        return not remaining

    wait_for(all_gone, timeout_s=timeout_s)
    return remaining


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on this TCP port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """TCP ports in a row on loopback that were free a moment ago.

    They lie below those that the kernel gives to outgoing connections, so that no client can take one in the meantime.
    """
    for _ in range(PORTS_TRIED_MAX):
        first = random.randrange(10_100, 32_000 - count)  # noqa: S311 - a guess, not a secret
        row = list(range(first, first + count))
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in row:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return row
    raise LocalError(f"no {count} free ports in a row in {PORTS_TRIED_MAX} tries")


def require_port(what: str, port: int, option: str) -> None:
    """Raise PortBusyError unless the port is free; `option` names how a person chooses another."""
    if not port_is_free(port):
        raise PortBusyError(what, port, option)


def require_disk(what: str, directory: Path) -> None:
    """Create the directory and raise DiskFullError when too little room is left on its disk."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFullError(what, directory.parent) from error
        raise LocalError(f"{what}: cannot create {directory}: {error.strerror}") from error
    if shutil.disk_usage(directory).free < DISK_FREE_MIN_BYTES:
        raise DiskFullError(what, directory)


def log_tail(log_path: Path, lines_max: int = 20) -> list[str]:
    """The last lines of a log, at most `lines_max`; empty when there is none."""
    try:
        with log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - LOG_TAIL_BYTES_MAX))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines_max:]


def rotate(log_path: Path, *, keep: int = 3) -> None:
    """Move `x.log` to `x.log.1` and so on, so that each start has a log of its own and old ones are bounded."""
    for number in range(keep, 0, -1):
        older = log_path.with_name(f"{log_path.name}.{number}")
        newer = log_path if number == 1 else log_path.with_name(f"{log_path.name}.{number - 1}")
        if newer.exists():
            newer.replace(older)
