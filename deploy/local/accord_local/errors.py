"""What can go wrong on a developer's machine, each as a type whose text is one clear line."""

from pathlib import Path


class LocalError(Exception):
    """A reason that the local stack can't do what was asked; `str()` is one line for a person."""


class PortBusyError(LocalError):
    """Another program listens on a port that a server needs."""

    def __init__(self, what: str, port: int, option: str) -> None:
        super().__init__(f"{what}: port {port} is busy; stop what uses it or choose another with {option}")
        self.port = port


class DiskFullError(LocalError):
    """Too little room is left where a server keeps its data."""

    def __init__(self, what: str, directory: Path) -> None:
        super().__init__(f"{what}: the disk of {directory} is full; free some space there or choose another directory")


class AlreadyRunningError(LocalError):
    """A living process already serves this data directory."""

    def __init__(self, what: str, directory: Path, pid: int) -> None:
        super().__init__(f"{what}: process {pid} already uses {directory}; stop it first (accord down)")
        self.pid = pid


class StartError(LocalError):
    """A server ended, or was not ready in time; carries the last lines of its log."""

    def __init__(self, what: str, reason: str, log_path: Path | None = None) -> None:
        where = f"; see {log_path}" if log_path is not None else ""
        super().__init__(f"{what}: {reason}{where}")


class JarError(LocalError):
    """A jar can't be fetched, or is not the one that the lock file names."""
