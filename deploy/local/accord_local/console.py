"""How the stack shows its progress and its problems to a person. Never shows a secret."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from accord_local.redaction import redact
from accord_local.state import StackState

STATUS_STYLES = {"running": "green", "ready": "green", "starting": "yellow"}


class ConsoleReporter:
    """Progress bars while the stack starts (with `with`), single lines afterwards."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )

    def progress(self, what: str, done: int, total: int) -> None:
        """Show a bar for `what`; a new one the first time."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def report_problem(self, line: str) -> None:
        """Print one line that stands out."""
        self._console.print(f"accord: {redact(line)}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "ConsoleReporter":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()


def state_table(state: StackState, probes: dict[str, str], memory_mib: dict[str, float]) -> Table:
    """All processes of a stack, one a line."""
    table = Table(title=None, box=None, header_style="bold", pad_edge=False)
    for column in ("", "status", "pid", "restarts", "MiB", "address"):
        table.add_column(column, overflow="fold", justify="right" if column in {"pid", "restarts", "MiB"} else "left")
    for name, entry in state.processes.items():
        status = probes.get(name, entry.status)
        memory = f"{memory_mib[name]:.0f}" if name in memory_mib else ""
        pid = str(entry.identity.pid) if entry.identity is not None else ""
        style = STATUS_STYLES.get(status, "red")
        table.add_row(name, f"[{style}]{status}", pid, str(entry.restarts), memory, redact(entry.address))
    return table
