"""The service as a process: it migrates, serves and shuts down on a signal."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

WAIT_S = 60.0


@pytest.fixture
def environment(
    database_factory: Callable[..., str], kafka_server: Any, kafka_topic_prefix: str, tmp_path: Path
) -> dict[str, str]:
    keys = [{"name": "reader", "sha256": sha256(b"reader-key-of-this-test").hexdigest(), "scopes": ["metrics:read"]}]
    keys_path = tmp_path / "keys.yaml"
    keys_path.write_text(yaml.safe_dump({"keys": keys}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        **os.environ,
        "ACCORD_DATABASE_URL": database_factory("metrics-empty", lambda _: None),
        "ACCORD_KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
        "ACCORD_KAFKA_TOPIC_PREFIX": kafka_topic_prefix,
        "ACCORD_API_KEYS_FILE": str(keys_path),
        "ACCORD_PORT": str(port),
    }


def command(role: str) -> list[str]:
    return [sys.executable, "-m", "metrics.main", role]


def answer(environment: Mapping[str, str], path: str) -> httpx.Response | None:
    headers = {"Authorization": "Bearer reader-key-of-this-test"}
    try:
        return httpx.get(f"http://127.0.0.1:{environment['ACCORD_PORT']}{path}", headers=headers, timeout=5)
    except httpx.TransportError:
        return None


def test_service_migrates_serves_and_shuts_down(environment: dict[str, str]) -> None:
    for _ in range(2):
        migrated = subprocess.run(command("migrate"), env=environment, capture_output=True, timeout=WAIT_S, check=False)
        assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    with subprocess.Popen(command("all"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            end = time.monotonic() + WAIT_S
            while (ready := answer(environment, "/readyz")) is None or ready.status_code != 200:
                assert time.monotonic() < end, "not ready in time"
                assert process.poll() is None
                time.sleep(0.1)
            funnel = answer(environment, "/v1/funnel")
            assert funnel is not None
            assert (funnel.status_code, funnel.json()["definition"]["n"]) == (200, 0)
            process.send_signal(signal.SIGTERM)
            log, _ = process.communicate(timeout=WAIT_S)
            assert process.returncode == 0, log.decode()
        finally:
            process.kill()


def test_service_without_settings_does_not_start() -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("ACCORD_")}
    refused = subprocess.run(command("all"), env=bare, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert refused.returncode == 2
    assert "ACCORD_DATABASE_URL" in refused.stderr
