"""Runs test servers for as long as a client is connected, and no longer.

All workers of a test run share one manager. Their connections are closed by the kernel however they end, so the servers
never outlive the run. One request a line, the name of a server; one JSON answer a line.
"""

import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from accord_local.errors import LocalError, StartError
from accord_local.kafka import KafkaServer
from accord_local.postgres import UNSAFE_FAST_SETTINGS, PostgresServer
from accord_local.processes import free_ports

FIRST_CLIENT_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 180.0
LINE_BYTES_MAX = 4096
CONNECT_ATTEMPTS = 5


class TestServerManager:
    """The manager's process: starts a server when it is first asked for, stops all after the last client has left."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._running: dict[str, PostgresServer | KafkaServer] = {}

    def serve(self, listener: socket.socket) -> None:
        """Answer clients until none is left (or none came in time), then stop the servers and remove their data."""
        clients = 0
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while events := selector.select(FIRST_CLIENT_TIMEOUT_S if clients == 0 else None):
                for key, _ in events:
                    if key.fileobj is listener:
                        connection, _ = listener.accept()
                        selector.register(connection, selectors.EVENT_READ)
                        clients += 1
                    elif isinstance(key.fileobj, socket.socket) and not self._answer(key.fileobj):
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
                        clients -= 1
                if clients == 0:
                    break
        listener.close()
        self._stop_all()

    def _answer(self, connection: socket.socket) -> bool:
        try:
            name = connection.recv(LINE_BYTES_MAX).decode().strip()
        except OSError:
            return False
        if not name:
            return False
        try:
            answer = self._address(name)
        except LocalError as error:
            answer = {"error": str(error)}
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps(answer).encode() + b"\n")
        return True

    def _address(self, name: str) -> dict[str, object]:
        starters: dict[str, Callable[[Path], PostgresServer | KafkaServer]] = {
            "postgres": lambda directory: PostgresServer(directory, settings=UNSAFE_FAST_SETTINGS),
            "kafka": lambda directory: KafkaServer(directory, free_ports(1)[0]),
        }
        if name not in self._running:
            server = starters[name](self._data_dir / name)
            server.start()
            self._running[name] = server
        server = self._running[name]
        return {"data_dir": str(server.data_dir), "port": server.port}

    def _stop_all(self) -> None:
        for server in self._running.values():
            server.kill()  # the data is removed next, so nothing is gained by a clean shutdown
        shutil.rmtree(self._data_dir, ignore_errors=True)


class ServerManagerClient:
    """One worker's connection to the manager of its test run."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    def join(cls, directory: Path) -> "ServerManagerClient":
        """Connect to the manager that has its socket in `directory`; start one when there is none."""
        socket_path = directory / "server-manager.sock"
        with FileLock(directory / "server-manager.lock", timeout=ANSWER_TIMEOUT_S):
            for _attempt in range(CONNECT_ATTEMPTS):
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.settimeout(ANSWER_TIMEOUT_S)
                try:
                    connection.connect(str(socket_path))
                except OSError:
                    connection.close()
                    socket_path.unlink(missing_ok=True)
                    command = [sys.executable, "-m", "accord_local.server_manager", str(socket_path)]
                    subprocess.run(command, check=True, timeout=ANSWER_TIMEOUT_S, start_new_session=True)
                else:
                    return cls(connection)
        raise StartError("test servers", "the server manager does not start")

    def postgres(self) -> PostgresServer:
        """The run's PostgreSQL (fsync off), started if it is not yet; its `stop` and `kill` do nothing here."""
        answer = self._ask("postgres")
        return PostgresServer(Path(str(answer["data_dir"])))

    def kafka(self) -> KafkaServer:
        """The run's Kafka, started if it is not yet; its `stop` and `kill` do nothing here."""
        answer = self._ask("kafka")
        return KafkaServer(Path(str(answer["data_dir"])), int(str(answer["port"])))

    def close(self) -> None:
        self._connection.close()

    def _ask(self, name: str) -> dict[str, object]:
        self._connection.sendall(name.encode() + b"\n")
        with self._connection.makefile("r") as lines:
            answer: dict[str, object] = json.loads(
                lines.readline(LINE_BYTES_MAX) or '{"error": "the server manager is gone"}'
            )
        if "error" in answer:
            raise StartError("test servers", str(answer["error"]))
        return answer


def main(socket_path: Path) -> None:
    """Listen, then go on in the background: when the starting program returns, clients can connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(socket_path))
    listener.listen()
    if os.fork() != 0:
        os._exit(0)
    data_dir = Path(tempfile.mkdtemp(prefix="accord-tests-"))
    log = os.open(data_dir / "server-manager.log", os.O_WRONLY | os.O_CREAT, 0o600)
    for descriptor in (0, 1, 2):  # a pipe of the test run that stayed open here would keep its reader waiting
        os.dup2(log, descriptor)
    os.close(log)
    TestServerManager(data_dir).serve(listener)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
