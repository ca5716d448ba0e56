"""PostgreSQL and Kafka start, keep their data over stops and crashes, and say in one line why they can't start."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from accord_local import postgres as postgres_module
from accord_local import processes
from accord_local.errors import AlreadyRunningError, DiskFullError, PortBusyError, StartError
from accord_local.kafka import KafkaServer
from accord_local.postgres import PostgresServer
from accord_local.processes import ProcessIdentity, free_ports, wait_for, wait_gone


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory that only this user may enter, as `mktemp -d` makes them."""
    directory = Path(tempfile.mkdtemp(prefix="accord-test-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def _fetch(url: str, sql: str) -> object:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return (await connection.execute(text(sql))).scalar()
    finally:
        await engine.dispose()


async def _produce(server: KafkaServer, value: bytes, *, new_topic: bool) -> None:
    if new_topic:
        admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap_servers)
        await admin.start()
        await admin.create_topics([NewTopic("kept", 1, 1)])
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=server.bootstrap_servers, acks="all")
    await producer.start()
    await producer.send_and_wait("kept", value)
    await producer.stop()


async def _read(server: KafkaServer, count: int) -> list[bytes | None]:
    consumer = AIOKafkaConsumer("kept", bootstrap_servers=server.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        return [(await asyncio.wait_for(consumer.getone(), 30)).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_postgres_keeps_what_was_committed_over_a_stop_and_a_crash(short_dir: Path) -> None:
    server = PostgresServer(short_dir / "pg")
    server.start()
    server.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)", "intake")
    server.stop()
    assert server.pid is None
    server.start()
    server.execute("INSERT INTO kept VALUES (2)", "intake")
    server.kill()
    with server:
        assert await _fetch(server.url("intake", "postgres"), "SELECT sum(n) FROM kept") == 3
        assert await _fetch(server.url("sla"), "SHOW fsync") == "on"


async def test_postgres_asks_for_its_password_over_tcp(short_dir: Path) -> None:
    (port,) = free_ports(1)
    with PostgresServer(short_dir / "pg", port) as server:
        assert await _fetch(server.tcp_url("sla"), "SELECT current_user") == "sla"
        password = (short_dir / "pg" / "password").read_text().strip()
        assert (short_dir / "pg" / "password").stat().st_mode & 0o777 == 0o600
        with pytest.raises(Exception, match="password authentication failed"):
            await _fetch(server.tcp_url("sla").replace(password, "wrong"), "SELECT 1")


def test_postgres_never_runs_as_root_and_opens_no_directory_to_others(short_dir: Path) -> None:
    with PostgresServer(short_dir / "pg") as server:
        assert server.pid is not None
        assert psutil.Process(server.pid).uids().effective != 0
        assert short_dir.stat().st_mode & 0o077 == 0


def test_postgres_serves_below_a_path_too_long_for_a_socket(short_dir: Path) -> None:
    with PostgresServer(short_dir / ("long" * 30) / "pg") as server:
        assert server.execute("SELECT 1") == "1"


def test_a_busy_port_is_named_with_the_option_that_changes_it(short_dir: Path, busy_port: int) -> None:
    with pytest.raises(PortBusyError, match=rf"^PostgreSQL: port {busy_port} is busy.*--postgres-port$"):
        PostgresServer(short_dir / "pg", busy_port).start()
    with pytest.raises(PortBusyError, match=rf"^Kafka: port {busy_port} is busy.*--kafka-port$"):
        KafkaServer(short_dir / "kafka", busy_port).start()


def test_a_full_disk_is_one_line(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DISK_FREE_MIN_BYTES", 1 << 62)
    for server in (PostgresServer(short_dir / "pg"), KafkaServer(short_dir / "kafka", free_ports(1)[0])):
        with pytest.raises(DiskFullError, match=r"^(PostgreSQL|Kafka): the disk of .* is full") as caught:
            server.start()
        assert "\n" not in str(caught.value)


def test_a_data_directory_in_use_is_not_served_twice(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "PREDECESSOR_TIMEOUT_S", 0.1)
    with PostgresServer(short_dir / "pg") as server, pytest.raises(AlreadyRunningError, match=f"process {server.pid}"):
        PostgresServer(short_dir / "pg").start()


def test_a_stale_pid_of_another_program_is_neither_trusted_nor_signalled(short_dir: Path) -> None:
    with PostgresServer(short_dir / "pg"):
        pass
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (short_dir / "pg" / "data" / "postmaster.pid").write_text(
            f"{bystander.pid}\n{short_dir}\n0\n5432\n\n\n\nready\n"
        )
        with PostgresServer(short_dir / "pg") as server:
            assert server.execute("SELECT 1") == "1"
        kafka = KafkaServer(short_dir / "kafka", free_ports(1)[0])
        kafka.data_dir.mkdir()
        (kafka.data_dir / "kafka.pid").write_text(f'{{"pid": {bystander.pid}, "started_at_s": 1.0}}')
        kafka._clear_stale_pid()
        assert not (kafka.data_dir / "kafka.pid").exists()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_setting_that_postgres_refuses_is_shown_in_its_own_words(short_dir: Path) -> None:
    with pytest.raises(StartError, match="max_connections") as caught:
        PostgresServer(short_dir / "pg", settings={"max_connections": "many"}).start()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
async def test_kafka_keeps_what_was_acknowledged_over_a_stop_and_a_crash(short_dir: Path) -> None:
    server = KafkaServer(short_dir / "kafka", free_ports(1)[0])
    server.start()
    try:
        await _produce(server, b"1", new_topic=True)
        server.stop()
        assert server.pid is None
        server.start()
        await _produce(server, b"2", new_topic=False)
        server.kill()
        server.start()
        assert await _read(server, 2) == [b"1", b"2"]
    finally:
        server.stop()


PARENT = """
import sys, time
from pathlib import Path
from accord_local.kafka import KafkaServer
from accord_local.postgres import PostgresServer
directory = Path(sys.argv[1])
postgres = PostgresServer(directory / "pg"); postgres.start()
kafka = KafkaServer(directory / "kafka", int(sys.argv[2])); kafka.start()
print(postgres.pid, kafka.pid, flush=True)
time.sleep(100)
"""


@pytest.mark.slow
def test_servers_die_with_a_parent_that_is_killed(short_dir: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(short_dir), str(free_ports(1)[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        children = [child.pid for child in psutil.Process(pids[0]).children()]
        identities = [identity for identity in map(ProcessIdentity.of, [*pids, *children]) if identity]
        assert len(identities) >= 3
        os.kill(parent.pid, signal.SIGKILL)
        assert wait_gone(identities, timeout_s=30) == []


@pytest.mark.slow
def test_the_shared_servers_die_with_a_test_run_that_is_killed(short_dir: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from accord_local.server_manager import ServerManagerClient\n"
        "client = ServerManagerClient.join(Path(sys.argv[1])); server = client.postgres()\n"
        "print(server.execute('SELECT pg_postmaster_start_time()'), server.data_dir, flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", holder, str(short_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        data_dir = Path(run.stdout.readline().split()[-1])
        assert data_dir.exists()
        run.kill()
    assert wait_for(lambda: not data_dir.parent.exists(), timeout_s=30)
