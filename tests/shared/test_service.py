"""A service as a real process: its roles, its signals, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from kit_main import build
from raw_http import connected, metric
from shared_kit import until
from shared_process import SECRET, process

from accord.service import Service, _inherit_socket, run
from accord.settings import Settings
from accord_local.kafka import KafkaServer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_requests_finish_and_the_process_end_with_0(
    kit_database: str, tmp_path: Path, number: int
) -> None:
    async with process(kit_database, tmp_path, "all") as running:
        port = (await running.logged("started"))["port"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            ready = await client.get("/readyz")
            assert ready.status_code == 200
            assert ready.json() == {
                "status": "degraded",
                "checks": {"database": "ok", "kafka": "degraded: failed: KafkaConnectionError"},
                "workers": {},
            }
            asking = asyncio.create_task(client.get("/shout/hello"))
            await running.logged("entered")
            running.process.send_signal(number)
            await running.logged("stopping")
            assert (await asking).json() == "HELLO"
            assert await running.end() == 0
            with pytest.raises(httpx.ConnectError):
                await client.get("/livez")
        assert running.events()[-1] == "stopped"


async def test_each_role_runs_its_own_workers_and_only_the_api_answers_requests(
    kit_database: str, kafka_server: KafkaServer, tmp_path: Path
) -> None:
    dying = {"KIT_WORKER": "dies", "KIT_RELAY": "dies", "KIT_API_WORKER": "dies"}
    async with process(kit_database, tmp_path, "api", **{**dying, "KIT_API_WORKER": ""}) as running:
        port = (await running.logged("started"))["port"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/shout/hello")).json() == "HELLO"
            assert (await client.get("/readyz")).json()["checks"] == {"database": "ok"}
        assert await running.end(signal.SIGTERM) == 0
    kafka = {"ACCORD_KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers}
    for role in ("worker", "relay"):
        async with process(kit_database, tmp_path, role, **{**dying, f"KIT_{role.upper()}": ""}, **kafka) as running:
            port = (await running.logged("started"))["port"]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                assert (await client.get("/shout/hello")).status_code == 404
                for path in ("/livez", "/readyz", "/metrics"):
                    assert (await client.get(path)).status_code == 200
            assert await running.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("role", "worker", "manner", "error"),
    [
        ("worker", "kit-worker", "dies", "ValueError"),
        ("relay", "kit-relay", "ends", "WorkerEnded"),
        ("all", "kit-api-worker", "dies", "ValueError"),
    ],
)
async def test_a_failed_worker_ends_a_process_that_has_no_other_work_or_whose_requests_would_hang(
    kit_database: str, tmp_path: Path, role: str, worker: str, manner: str, error: str
) -> None:
    async with process(kit_database, tmp_path, role, **{worker.upper().replace("-", "_"): manner}) as running:
        assert await running.end() == 1
        line = next(line for line in running.lines if line["event"] == "worker_failed")
        assert (line["worker"], line["level"], line["error"], line["restarts_in_s"]) == (worker, "error", error, None)
        assert line["action"]
        assert "initech" not in json.dumps(running.lines)


async def test_a_failed_worker_is_started_again_while_the_api_of_the_same_process_goes_on(
    kit_database: str, tmp_path: Path
) -> None:
    async with process(kit_database, tmp_path, "all", KIT_WORKER="dies", KIT_RELAY="ends") as running:
        port = (await running.logged("started"))["port"]
        failed = [await running.logged("worker_failed") for _ in range(2)]
        assert {line["worker"] for line in failed} == {"kit-worker", "kit-relay"}
        assert all(0 < line["restarts_in_s"] <= 60 for line in failed)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def have_failed_again() -> bool:
                workers = (await client.get("/readyz")).json()["workers"].values()
                return len(workers) == 2 and all("times in a row" in how for how in workers)

            await until(have_failed_again)
            assert (await client.get("/shout/hello")).json() == "HELLO"
            assert (await client.get("/livez")).status_code == 200
            ready = await client.get("/readyz")
            assert ready.status_code == 200
            assert ready.json()["status"] == "degraded"
            assert ready.json()["workers"].keys() == {"kit-worker", "kit-relay"}
            assert "ValueError" in ready.json()["workers"]["kit-worker"]
            metrics = (await client.get("/metrics")).text
            assert 'accord_worker_failures_total{worker="kit-worker"}' in metrics
            assert 'accord_worker_up{worker="kit-api-worker"} 1.0' in metrics
        assert await running.end(signal.SIGTERM) == 0
        assert "initech" not in json.dumps(running.lines)


async def test_a_worker_that_never_drains_does_not_hold_the_process(kit_database: str, tmp_path: Path) -> None:
    async with process(kit_database, tmp_path, "all", KIT_WORKER="never-drains", ACCORD_DRAIN_S="0.5") as running:
        await running.logged("started")
        assert await running.end(signal.SIGTERM) == 0
        line = next(line for line in running.lines if line["event"] == "drain_timed_out")
        assert line["workers"] == ["kit-worker"]


async def test_metrics_can_have_a_port_of_their_own(kit_database: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics_port = free.getsockname()[1]
    async with process(kit_database, tmp_path, "all", ACCORD_METRICS_PORT=str(metrics_port)) as running:
        port = (await running.logged("started"))["port"]
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/metrics")).status_code == 404
            text = (await client.get(f"http://127.0.0.1:{metrics_port}/metrics")).text
        for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "accord_http_requests_total"):
            assert name in text
        assert await running.end(signal.SIGTERM) == 0


async def test_a_port_for_metrics_alone_has_few_connections(kit_database: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics_port = free.getsockname()[1]
    async with process(kit_database, tmp_path, "api", ACCORD_METRICS_PORT=str(metrics_port)) as running:
        port = (await running.logged("started"))["port"]
        async with connected(port, 60) as clients, connected(metrics_port, 60):
            open_count = await metric(metrics_port, "accord_http_connections")
            assert open_count <= 60 + 50
            await clients[0].head("GET", "/livez")
            assert (await clients[0].answer()).status == 200
        assert await running.end(signal.SIGTERM) == 0


async def test_a_busy_port_is_one_clear_line(kit_database: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        async with process(kit_database, tmp_path, "all", ACCORD_PORT=str(port)) as running:
            assert await running.end() == 1
            assert running.events() == ["port_not_bound"]
            assert running.lines[0]["why"].startswith("Address already in use")
            assert running.lines[0]["port"] == port


def test_only_a_listening_socket_is_taken_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        inherited = _inherit_socket(os.dup(listening.fileno()))
        assert inherited.getsockname() == listening.getsockname()
        inherited.close()
    with socket.socket() as other, pytest.raises(OSError, match="no listening socket"):
        _inherit_socket(os.dup(other.fileno()))


@pytest.mark.parametrize(
    ("role", "environment", "said"),
    [
        ("sing", {}, "usage"),
        ("", {}, "usage"),
        ("all worker", {}, "usage"),
        ("all", {"ACCORD_DATABASE_URL": ""}, "setting ACCORD_DATABASE_URL: Field required"),
        ("all", {"ACCORD_PORT": "99999"}, "setting ACCORD_PORT:"),
        ("all", {"ACCORD_OIDC_ISSUER": "https://x.example"}, "belong together"),
    ],
)
def test_what_is_wrong_with_the_start_is_printed(
    role: str,
    environment: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = {
        "ACCORD_DATABASE_URL": f"postgresql://accord:{SECRET}@127.0.0.1:1/none",
        "ACCORD_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }
    for name, value in {**usual, **environment}.items():
        monkeypatch.setenv(name, value)

    def never(_: Settings) -> Service:
        raise AssertionError("nothing is built")

    assert run(never, role.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert SECRET not in captured.err + captured.out


async def test_migrations_at_once_do_not_race(database_factory: Callable[..., str], tmp_path: Path) -> None:
    url = database_factory("empty", lambda _: None)
    async with (
        process(url, tmp_path, "migrate") as one,
        process(url, tmp_path, "migrate") as two,
        process(url, tmp_path, "migrate") as three,
    ):
        assert await asyncio.gather(one.end(), two.end(), three.end()) == [0, 0, 0]
        assert [running.events()[-1] for running in (one, two, three)] == ["migrated"] * 3
        assert one.lines[-1]["revision"] == "0002"
    async with process(url, tmp_path, "all") as running:
        await running.logged("started")
        assert await running.end(signal.SIGTERM) == 0


async def test_a_migration_that_fails_ends_with_1(kit_database: str, tmp_path: Path) -> None:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    from accord.db import async_url

    engine = create_async_engine(async_url(kit_database))
    async with engine.begin() as conn:
        await conn.execute(text("UPDATE alembic_version SET version_num = 'unknown'"))
    await engine.dispose()
    async with process(kit_database, tmp_path, "migrate") as running:
        assert await running.end() == 1
        assert running.events()[-1] == "migration_failed"


async def test_a_stuck_worker_fails_liveness_and_the_probe_command_of_containers_says_so(
    kit_database: str, kafka_server: KafkaServer, tmp_path: Path
) -> None:
    async def probe(port: int, path: str) -> int:
        command = "import sys; from accord.probe import main; main()"
        asked = await asyncio.create_subprocess_exec(
            sys.executable, "-c", command, str(port), path, stdout=-3, stderr=-3
        )
        return await asked.wait()

    kafka = {"ACCORD_KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers}
    async with process(kit_database, tmp_path, "worker", KIT_WORKER="stuck", **kafka) as running:
        port = (await running.logged("started"))["port"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            answer = await client.get("/livez")
        assert answer.status_code == 503
        assert answer.json() == {"status": "stuck", "problems": ["kit-worker: stuck"]}
        assert await probe(port, "/readyz") == 0
        assert await probe(port, "/livez") == 1
        assert await running.end(signal.SIGTERM) == 0
    assert await probe(port, "/readyz") == 1


def test_a_service_that_cannot_be_built_says_so_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCORD_DATABASE_URL", f"mysql://u:{SECRET}@h/d")
    monkeypatch.setenv("ACCORD_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    assert run(build, ["all"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["event"] == "process_failed"
    assert SECRET not in captured.err + captured.out
