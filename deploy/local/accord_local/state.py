"""What runs, written down for `accord status` and `accord down`: pids with their start times, addresses, no secrets."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accord_local.files import write_atomically
from accord_local.processes import ProcessIdentity


@dataclass(slots=True)
class ProcessState:
    """One process of the stack."""

    identity: ProcessIdentity | None
    address: str
    status: str = "starting"
    restarts: int = 0
    probe: str = ""
    """Where the process answers `/readyz`; empty for what has none."""


@dataclass(slots=True)
class StackState:
    """The content of state.json; `status` is starting, ready or stopping."""

    supervisor: ProcessIdentity
    status: str = "starting"
    processes: dict[str, ProcessState] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "StackState | None":
        """The state of a run, or None when there is none or it can't be understood (an older version's, say)."""
        try:
            raw = json.loads(path.read_text())
            processes = {
                name: ProcessState(
                    identity=ProcessIdentity(**entry["identity"]) if entry["identity"] else None,
                    address=str(entry["address"]),
                    status=str(entry["status"]),
                    restarts=int(entry["restarts"]),
                    probe=str(entry.get("probe", "")),
                )
                for name, entry in raw["processes"].items()
            }
            return cls(ProcessIdentity(**raw["supervisor"]), str(raw["status"]), processes)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    @property
    def running(self) -> bool:
        """Whether the `accord up` that wrote this still runs."""
        return self.supervisor.process() is not None

    def survivors(self) -> list[ProcessIdentity]:
        """Processes of the stack, without the supervisor, that still are what was written down."""
        identities = [entry.identity for entry in self.processes.values() if entry.identity is not None]
        return [identity for identity in identities if identity.process() is not None]
