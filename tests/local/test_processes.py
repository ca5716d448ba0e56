"""Several processes of one service on one port: they share the work, and one that is killed costs no one a connection."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from accord.migrations.run import upgrade_sync
from accord_local.kafka import KafkaServer
from accord_local.processes import ProcessIdentity, free_ports, wait_for, wait_gone
from accord_local.services import SERVICES, ServiceSpec, split_by_role
from accord_local.stack import Stack, StackOptions
from accord_local.state import StackState
from tests.system.running import Silent

MIGRATIONS = Path(__file__).parents[1] / "shared" / "kit_migrations"

SERVICE = f"""
import os, sys
from pathlib import Path
from fastapi import APIRouter
from accord.db import Database
from accord.service import Service, run

router = APIRouter()

@router.get("/pid")
async def pid() -> int:
    return os.getpid()

class Waits:
    problem = staticmethod(lambda: None)
    def __init__(self, name):
        self.name = name
    async def run(self, stop):
        await stop.wait()

def build(settings):
    return Service(
        name="intake", title="Pid", settings=settings, migrations=Path({str(MIGRATIONS)!r}), routers=[router],
        database=Database(settings.database_url.get_secret_value(), application_name="pid", pool_size=2),
        workers=[Waits("pid-worker")], relays=[Waits("pid-relay")],
    )

sys.exit(run(build))
"""


class Caller:
    """Asks again and again, each time by a new connection, and notes who answered and what failed."""

    def __init__(self, url: str) -> None:
        self.answered: Counter[int] = Counter()
        self.failed: list[httpx.TransportError] = []
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answered[httpx.get(f"{self._url}/pid", trust_env=False).json()] += 1
            except httpx.TransportError as error:
                self.failed.append(error)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="accord-test-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def options(
    directory: Path,
    database_factory: Callable[..., str],
    kafka_server: KafkaServer,
    monkeypatch: pytest.MonkeyPatch,
) -> StackOptions:
    """Two API processes of a small service, with servers that somebody else runs."""
    package = directory / "pid_service"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "main.py").write_text(SERVICE)
    monkeypatch.setenv("PYTHONPATH", str(directory))
    return StackOptions(
        directory / "data",
        port_base=free_ports(5)[0],
        database_url_template=database_factory("kit", partial(upgrade_sync, MIGRATIONS)),
        kafka=kafka_server.bootstrap_servers,
        services=[ServiceSpec("pid", "pid_service", "kit", 0)],
        processes=2,
    )


@pytest.mark.slow
def test_processes_share_a_port_and_a_killed_one_is_followed_by_another_while_the_rest_answers(
    options: StackOptions,
) -> None:
    stack = Stack(options, Silent())
    stop = threading.Event()
    supervisor = threading.Thread(target=stack.supervise, args=(stop,))
    try:
        stack.start()
        supervisor.start()
        state = StackState.read(options.state_path)
        assert state is not None
        assert list(state.processes) == ["pid", "pid-2", "pid-worker", "pid-relay"]
        assert state.processes["pid"].address == state.processes["pid-2"].address
        assert len({entry.probe for entry in state.processes.values()}) == 4
        before = {name: entry.identity for name, entry in state.processes.items()}
        pids = {name: identity.pid for name, identity in before.items() if identity is not None}
        both = {pids["pid"], pids["pid-2"]}
        with Caller(stack.services["pid"].url) as caller:
            assert wait_for(lambda: set(caller.answered) == both, timeout_s=30), caller.answered
            for name in ("pid", "pid-relay"):
                identity = before[name]
                assert identity is not None
                identity.signal(9)
            restarted = wait_for(lambda: _restarted(options, "pid", "pid-relay"), timeout_s=60)
            assert restarted
            assert wait_for(lambda: restarted["pid"].pid in caller.answered, timeout_s=60), caller.answered
        # A request that the killed process had in hand is cut off; none is refused, none goes unanswered.
        assert not [error for error in caller.failed if isinstance(error, httpx.ConnectError | httpx.TimeoutException)]
        assert len(caller.failed) <= 1
        assert caller.answered.keys() == both | {restarted["pid"].pid}
    finally:
        stop.set()
        if supervisor.is_alive():
            supervisor.join()
        stack.stop()
    left = [identity for identity in [*before.values(), *restarted.values()] if identity is not None]
    assert wait_gone(left, timeout_s=1) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{stack.services['pid'].url}/pid", trust_env=False)


def _restarted(options: StackOptions, *names: str) -> dict[str, ProcessIdentity] | None:
    """Who follows those that were killed, once each has been started again."""
    state = StackState.read(options.state_path)
    found = {name: state.processes[name] for name in names} if state is not None else {}
    if not found or any(entry.restarts != 1 or entry.identity is None for entry in found.values()):
        return None
    return {name: entry.identity for name, entry in found.items() if entry.identity is not None}


def test_one_process_of_each_service_is_the_whole_service() -> None:
    assert split_by_role(SERVICES, 1) is SERVICES


def test_services_by_roles_have_every_role_and_no_port_twice() -> None:
    specs = split_by_role(SERVICES, 3)
    assert Counter(spec.role for spec in specs) == {"api": 12, "worker": 4, "relay": 4}
    assert {spec.port_offset for spec in specs if spec.role == "api"} == {0, 1, 2, 3}
    apart = [spec.port_offset if spec.probe_offset is None else spec.probe_offset for spec in specs]
    assert sorted(apart) == list(range(4, 24))
    assert [spec.name for spec in specs][:5] == ["intake", "intake-2", "intake-3", "intake-worker", "intake-relay"]
