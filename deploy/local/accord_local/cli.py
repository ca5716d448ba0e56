"""The `accord` command: the whole stack on this machine, its logs and its keys."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated

import httpx
import psutil
import typer
from rich.console import Console

from accord_local import keys
from accord_local.compose import ensure_compose_env
from accord_local.console import ConsoleReporter, state_table
from accord_local.demo.run import run_demo
from accord_local.errors import LocalError, StartError
from accord_local.import_file import FileImport, detect_media_type, parse_mapping, run_import
from accord_local.processes import log_tail, rotate, wait_for, wait_gone
from accord_local.redaction import redact
from accord_local.services import PROBE_TIMEOUT_S
from accord_local.stack import Stack, StackOptions
from accord_local.state import StackState

DATA_DIR_DEFAULT = Path(".accord")
PORT_BASE_DEFAULT = 8001
KAFKA_PORT_DEFAULT = 9092
DETACH_TIMEOUT_S = 900.0  # the first start may have to fetch Kafka's jars
DOWN_TIMEOUT_S = 75.0  # services 10 s, Kafka 20 s, PostgreSQL 20 s, and some room
FOLLOW_EVERY_S = 0.2
LOG_LINES_DEFAULT = 20
NO_TERMINAL_COLUMNS = 160
PROCESSES_MAX = 16

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
keys_app = typer.Typer(no_args_is_help=True, help="API keys.")
app.add_typer(keys_app, name="keys")

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where data, logs and keys are.", envvar="ACCORD_DATA_DIR")]


PortBase = Annotated[int, typer.Option(help="Port of intake; the other services have the next three.")]
PostgresPort = Annotated[
    int | None, typer.Option(help="Loopback port for PostgreSQL; without it, only its Unix socket.")
]
KafkaPort = Annotated[int, typer.Option(help="Loopback port for Kafka.")]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"accord {version('accord-local')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the release and end.")
    ] = False,
) -> None:
    """The whole stack on this machine, its logs and its keys."""


@app.command()
def up(
    data_dir: DataDir = DATA_DIR_DEFAULT,
    port_base: PortBase = PORT_BASE_DEFAULT,
    postgres_port: PostgresPort = None,
    kafka_port: KafkaPort = KAFKA_PORT_DEFAULT,
    database_url_template: Annotated[
        str | None,
        typer.Option(
            help="Use this PostgreSQL instead, e.g. postgresql+asyncpg://user:password@host/{database}.",
            envvar="ACCORD_DATABASE_URL_TEMPLATE",
        ),
    ] = None,
    kafka: Annotated[str | None, typer.Option(help="Use this Kafka instead: host:port.", envvar="ACCORD_KAFKA")] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=PROCESSES_MAX,
            help="API processes of each service, on one port. With more than one, worker and relay have a process each too,"
            " and the ports behind the four are taken by probes and metrics of each.",
        ),
    ] = 1,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all is ready; stop with `accord down`.")
    ] = False,
) -> None:
    """Start PostgreSQL, Kafka and the four services; Ctrl-C stops them. A second start finds its data."""
    if detach:
        _up_detached(data_dir)
        return
    options = StackOptions(
        data_dir, port_base, postgres_port, kafka_port, database_url_template, kafka, processes=processes
    )
    run_stack(options)


@app.command()
def demo(
    data_dir: DataDir = DATA_DIR_DEFAULT,
    port_base: PortBase = PORT_BASE_DEFAULT,
    postgres_port: PostgresPort = None,
    kafka_port: KafkaPort = KAFKA_PORT_DEFAULT,
) -> None:
    """Start everything, sign the template agreements, play half a year of leads, show the numbers, keep serving."""
    run_stack(StackOptions(data_dir, port_base, postgres_port, kafka_port), then=run_demo)


@app.command()
def down(data_dir: DataDir = DATA_DIR_DEFAULT) -> None:
    """Stop what `accord up` started, in order."""
    state = StackState.read(data_dir / "state.json")
    if state is None or not (state.running or state.survivors()):
        print("accord: not running")
        return
    state.supervisor.signal(signal.SIGTERM)
    for straggler in wait_gone([state.supervisor], timeout_s=DOWN_TIMEOUT_S):
        straggler.signal(signal.SIGKILL)
    # Usually none: they end with their supervisor. A pid is signalled only while its process is the one written down.
    for survivor in wait_gone(state.survivors(), timeout_s=10):
        survivor.signal(signal.SIGKILL)
    print("accord: stopped")


@app.command()
def status(
    data_dir: DataDir = DATA_DIR_DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="The state with pids, for programs.")] = False,
) -> None:
    """Show what runs, and where; exit code 1 unless all of it is ready."""
    state = _running_state(data_dir)
    probes = _probe(state)
    if as_json:
        print(json.dumps({**asdict(state), "probes": probes}, indent=2))
    else:
        _console().print(state_table(state, probes, _memory_mib(state)))
    alive = all(entry.identity is not None and entry.identity.process() for entry in state.processes.values())
    if not alive or any(probe != "ready" for probe in probes.values()):
        raise typer.Exit(1)


@app.command()
def logs(
    names: Annotated[list[str] | None, typer.Argument(help="intake, qualification, sla-monitor, metrics …")] = None,
    data_dir: DataDir = DATA_DIR_DEFAULT,
    lines: Annotated[
        int, typer.Option("-n", "--lines", help="How many of the last lines of each.")
    ] = LOG_LINES_DEFAULT,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Follow new lines until Ctrl-C.")] = False,
) -> None:
    """Show the last lines of the logs, without secrets."""
    paths = _log_paths(data_dir)
    unknown = [name for name in names or [] if name not in paths]
    if unknown:
        raise LocalError(f"no log of {unknown[0]}; there are: {' '.join(paths) or 'none'}")
    chosen = {name: path for name, path in paths.items() if not names or name in names}
    for name, path in chosen.items():
        for line in log_tail(path, lines):
            print(f"{name} | {redact(line)}")
    if follow:
        _follow(chosen)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A CSV or NDJSON file.", exists=True, dir_okay=False, readable=True)],
    source: Annotated[str, typer.Option(help="Where its leads come from.")],
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="COLUMN=FIELD, such as mql_id=external_id. May be given several times."),
    ] = None,
    mapping: Annotated[str | None, typer.Option(help="The source whose saved mapping is used.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the rows and preview the outcome; write no lead.")
    ] = False,
    errors: Annotated[Path | None, typer.Option(help="Where to save the rows that were not imported.")] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="csv or ndjson; default: by the file name.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="comma, semicolon, tab or pipe; default: detected.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Such as windows-1252; default: detected.")] = None,
    header: Annotated[bool, typer.Option(help="Whether the first row names the columns.")] = True,
    timezone: Annotated[str, typer.Option(help="Time zone of times without an offset.")] = "UTC",
    date_format: Annotated[
        str | None,
        typer.Option(help="How dates are written, such as DD.MM.YYYY; default: detected where it is certain."),
    ] = None,
    rows_per_s: Annotated[int | None, typer.Option(help="Import at most this many rows a second.", min=1)] = None,
    url: Annotated[
        str | None, typer.Option(help="Intake's address; default: that of the local stack.", envvar="ACCORD_INTAKE_URL")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="An API key; default: marketing's of the local stack. Better in ACCORD_KEY.", envvar="ACCORD_KEY"
        ),
    ] = None,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Send a file of leads, follow its import, and show what became of its rows; exit code 1 if it failed."""
    if map_ and mapping:
        raise LocalError("--map and --mapping exclude each other")
    if file_format not in (None, "csv", "ndjson"):
        raise LocalError("--format is csv or ndjson")
    parameters: dict[str, str | None] = {
        "source": source,
        "mapping": parse_mapping(map_ or []) or mapping,
        "dry_run": "true" if dry_run else None,
        "delimiter": delimiter,
        "encoding": encoding,
        "header": None if header else "false",
        "timezone": timezone,
        "date_format": date_format,
        "rows_per_s": None if rows_per_s is None else str(rows_per_s),
    }
    file_import = FileImport(
        file,
        url or _running_state(data_dir).processes["intake"].address,
        key or _marketing_key(data_dir),
        {name: value for name, value in parameters.items() if value is not None},
        detect_media_type(file, file_format),
        errors,
    )
    run_import(file_import, _console())


@app.command("compose-env", hidden=True)
def compose_env(data_dir: DataDir = DATA_DIR_DEFAULT) -> None:
    """Make the passwords and keys that docker-compose.yml takes from outside (used by `make compose-up`)."""
    print(ensure_compose_env(data_dir))


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="Whose key it is; unique in the file.")],
    scope: Annotated[list[str], typer.Option(help=f"One of: {' '.join(keys.SCOPES)}. May be given several times.")],
    department: Annotated[str | None, typer.Option(help="marketing or sales; default: none.")] = None,
    file: Annotated[Path, typer.Option(help="The services' keys file.")] = DATA_DIR_DEFAULT / "api-keys.yaml",
) -> None:
    """Make a key: its hash goes into the file, the key is printed once and kept nowhere."""
    key = keys.create(file, name=name, department=department, scopes=scope)
    print(key)
    print(f"accord: added {name} to {file}; the key is shown only now", file=sys.stderr)


def main() -> None:
    """Entry point: a LocalError, a full disk and a missing permission become one line and exit code 1."""
    try:
        app()
    except LocalError as error:
        print(f"accord: {redact(str(error))}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EACCES, errno.EPERM}:
            raise
        where = f": {error.filename}" if error.filename else ""
        print(f"accord: {(error.strerror or 'no access').lower()}{where}", file=sys.stderr)
        sys.exit(1)


def run_stack(
    options: StackOptions, console: Console | None = None, then: Callable[[Stack, Console], None] | None = None
) -> None:
    """Start a stack, call `then` once it is ready, supervise it until SIGINT or SIGTERM, stop it.

    Raises LocalError when it can't start, and whatever `then` raises; the stack is stopped either way.
    """
    console = console or _console()
    reporter = ConsoleReporter(console)
    stack = Stack(options, reporter)
    stop = threading.Event()
    with _stopping_signals(stop, stack):
        try:
            with reporter:
                stack.start()
            state = StackState.read(options.state_path)
            if state is not None:
                console.print(state_table(state, _all_ready(state), {}))
            console.print(f"keys: {options.dev_keys_path}   logs: {options.logs_dir}   stop: Ctrl-C", highlight=False)
            if then is not None:
                with _supervised_in_thread(stack):
                    then(stack, console)
            stack.supervise(stop)
        except _StoppedError:
            console.print("accord: stopping")
        finally:
            # From here on a second signal means: at once.
            _on_signals(lambda _number, _frame: _kill_now(stack))
            stack.stop()


def _console() -> Console:
    """Standard output; wide where it is not a terminal, so that no address is broken into two lines."""
    return Console() if sys.stdout.isatty() else Console(width=NO_TERMINAL_COLUMNS)


@contextlib.contextmanager
def _supervised_in_thread(stack: Stack) -> Iterator[None]:
    """Supervise the stack in a thread of its own while this one is busy."""
    done = threading.Event()
    thread = threading.Thread(target=stack.supervise, args=(done,), name="accord-supervisor")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _StoppedError(BaseException):
    """A signal came while the stack was starting; nothing between here and `run_stack` may catch it."""


@contextlib.contextmanager
def _stopping_signals(stop: threading.Event, stack: Stack) -> Iterator[None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            _kill_now(stack)
        stop.set()
        raise _StoppedError

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _on_signals(handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_signals(handler: "signal._HANDLER") -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _kill_now(stack: Stack) -> None:
    stack.kill()
    os._exit(130)


def _up_detached(data_dir: Path) -> None:
    """Run the same command in the background, without --detach, and wait until it says that all is ready."""
    running = StackState.read(data_dir / "state.json")
    if running is not None and running.running:
        raise LocalError(f"already running as process {running.supervisor.pid}; see `accord status`")
    log_path = data_dir / "logs" / "accord.log"
    rotate(log_path)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
    with log_path.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "accord_local.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def settled() -> bool:
        state = StackState.read(data_dir / "state.json")
        # The state of an earlier run that was killed says "ready" too.
        ours = state is not None and state.supervisor.pid == child.pid and state.status == "ready"
        return ours or child.poll() is not None

    with Console(stderr=True).status("starting"):
        done = wait_for(settled, timeout_s=DETACH_TIMEOUT_S, every_s=0.1)
    if child.poll() is not None:
        words = [line for line in log_tail(log_path) if line.startswith("accord: ")]
        raise LocalError(words[-1].removeprefix("accord: ") if words else f"ended while starting; see {log_path}")
    if not done:
        child.terminate()
        raise StartError("accord", f"not ready after {DETACH_TIMEOUT_S:.0f} s", log_path)
    started = _running_state(data_dir)
    _console().print(state_table(started, _all_ready(started), {}))


def _all_ready(state: StackState) -> dict[str, str]:
    return {name: "ready" for name, entry in state.processes.items() if entry.probe}


def _running_state(data_dir: Path) -> StackState:
    state = StackState.read(data_dir / "state.json")
    if state is None or not state.running:
        raise LocalError(f"not running in {data_dir}")
    return state


def _probe(state: StackState) -> dict[str, str]:
    """Service → what its `/readyz` says now."""
    answers: dict[str, str] = {}
    with httpx.Client(trust_env=False, timeout=PROBE_TIMEOUT_S) as client:
        for name, entry in state.processes.items():
            if entry.probe:
                try:
                    answers[name] = client.get(f"{entry.probe}/readyz").json()["status"]
                except httpx.TransportError:
                    answers[name] = "unreachable"
                except (ValueError, KeyError, TypeError):
                    answers[name] = "not ready"
    return answers


def _memory_mib(state: StackState) -> dict[str, float]:
    memory: dict[str, float] = {}
    for name, entry in state.processes.items():
        with contextlib.suppress(psutil.Error):
            process = entry.identity.process() if entry.identity is not None else None
            if process is not None:
                memory[name] = process.memory_info().rss / 2**20
    return memory


def _marketing_key(data_dir: Path) -> str:
    path = data_dir / "dev-keys.env"
    key = keys.read_env(path).get("ACCORD_MARKETING_KEY")
    if key is None:
        raise LocalError(f"no key in {path}; give one in ACCORD_KEY")
    return key


def _log_paths(data_dir: Path) -> dict[str, Path]:
    paths = {path.stem: path for path in sorted((data_dir / "logs").glob("*.log"))}
    servers = {"kafka": data_dir / "kafka" / "kafka.log", "postgresql": data_dir / "postgres" / "postgres.log"}
    return paths | {name: path for name, path in servers.items() if path.exists()}


def _follow(paths: dict[str, Path]) -> None:
    positions = {name: path.stat().st_size for name, path in paths.items()}
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for name, path in paths.items():
                positions[name] = _print_new(name, path, positions[name])
            time.sleep(FOLLOW_EVERY_S)


def _print_new(name: str, path: Path, position: int) -> int:
    """Print whole lines after `position` bytes; answers where to go on (the start again after a rotation)."""
    try:
        size = path.stat().st_size
        with path.open("rb") as log:
            log.seek(position if size >= position else 0)
            text = log.read()
    except FileNotFoundError:
        return 0
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        print(f"{name} | {redact(line)}")
    return (position if size >= position else 0) + len(whole)


if __name__ == "__main__":
    main()
