"""PostgreSQL and Kafka for one run of the bench, and the services and baselines in it, each a real process. Nothing outlives the run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

from accord_local.demo.client import Client
from accord_local.demo.play import Callers, sign
from accord_local.keys import read_env
from accord_local.processes import ChildProcess, free_ports, log_tail, spawn, wait_for
from accord_local.services import SERVICES, Service, ServiceSpec
from accord_local.stack import Stack, StackOptions
from tests.bench.load import Load, Measured

T = TypeVar("T")
TEMPLATES = Path(__file__).parents[2] / "deploy" / "agreements"
READY_S = 60.0
STOP_S = 12.0
LOAD_SPARE_S = 60.0
BASELINE_KEY = "bench"
SPECS = {spec.name: spec for spec in SERVICES}
AGREEMENTS = {"intake": "policy", "qualification": "definition", "sla-monitor": "sla", "metrics": "plan"}
DEFINITION = Path(__file__).parent / "definition.yaml"
_DOCUMENTS = {name: TEMPLATES / f"{kind}.yaml" for name, kind in AGREEMENTS.items()} | {"qualification": DEFINITION}
"""What is signed: the templates, and for qualification a definition of 20 criteria."""

_FORGET_POSITIONS = """
DO $$ BEGIN
    IF to_regclass('consumer_position') IS NOT NULL THEN
        EXECUTE 'TRUNCATE consumer_position, consumed_watermark, partition_layout';
    END IF;
END $$
"""


class _QuietReporter:
    def progress(self, what: str, done: int, total: int) -> None:
        """Nobody watches the servers start."""

    def report_problem(self, line: str) -> None:
        print(line, file=sys.stderr)


class BenchEnvironment:
    """Where the bench happens. A context manager."""

    def __init__(self, *, with_baselines: bool = True) -> None:
        """Without baselines, groups that measure in rounds of both sides measure ours alone."""
        self.sides = ("ours", "baseline") if with_baselines else ("ours",)
        self._dir = Path(tempfile.mkdtemp(prefix="accord-bench-"))
        self._stack = Stack(StackOptions(self._dir, kafka_port=free_ports(1)[0], services=()), _QuietReporter())
        self._exit = contextlib.ExitStack()
        self._migrated: set[str] = set()
        self._prefixes: dict[str, str] = {}
        self._runs = 0

    def __enter__(self) -> BenchEnvironment:
        self._exit.callback(shutil.rmtree, self._dir, ignore_errors=True)
        self._exit.callback(self._stack.stop)
        try:
            self._stack.start()
            self.keys = read_env(self._stack.options.dev_keys_path)
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    # -- servers

    @property
    def bootstrap_servers(self) -> str:
        kafka = self._stack.kafka
        if kafka is None:
            raise RuntimeError("Kafka has not been started")
        return kafka.bootstrap_servers

    def database_url(self, database: str) -> str:
        """SQLAlchemy URL of a service's database."""
        postgres = self._stack.postgres
        if postgres is None:
            raise RuntimeError("PostgreSQL has not been started")
        return postgres.url(database)

    def dsn(self, database: str) -> str:
        """The same for asyncpg alone."""
        return self.database_url(database).replace("postgresql+asyncpg://", "postgresql://", 1)

    @property
    def postgres_pid(self) -> int:
        """The postmaster's pid."""
        return (self._stack.postgres.pid if self._stack.postgres else None) or 0

    @property
    def kafka_pid(self) -> int:
        """The broker's pid."""
        return (self._stack.kafka.pid if self._stack.kafka else None) or 0

    def measure_kafka_logs(self) -> int:
        """Bytes in the segments of all topics, Kafka's own among them."""
        return sum(path.stat().st_size for path in (self._dir / "kafka" / "logs").rglob("*.log"))

    def sql(self, database: str, statement: str) -> str:
        """Run a statement as the superuser."""
        postgres = self._stack.postgres
        if postgres is None:
            raise RuntimeError("PostgreSQL has not been started")
        return postgres.execute(statement, database)

    def settle(self) -> None:
        """Have PostgreSQL write out what the last round left, so that each round begins alike."""
        self.sql("postgres", "CHECKPOINT")

    def vacuum(self) -> None:
        """Have PostgreSQL do now what autovacuum would do at a moment of its own; once more, since statistics leave dead rows."""
        for spec in SPECS.values():
            self.sql(spec.database, "VACUUM ANALYZE; VACUUM")
        self.settle()

    # -- processes

    @contextlib.contextmanager
    def service(self, name: str, *, role: str = "all", prefix: str = "") -> Iterator[Service]:
        """A service, migrated, ready, with its agreement signed; stopped at the end."""
        spec = SPECS[name]
        service = self._service(replace(spec, role=role), prefix)  # type: ignore[arg-type]  # one of four words
        if name not in self._migrated:
            service.end_migration(service.begin_migration())
            self._migrated.add(name)
            with self._started(replace(spec, role="all"), prefix="signing-") as signing:
                self.sign(signing, AGREEMENTS[name], _DOCUMENTS[name].read_bytes())
        if self._prefixes.get(name) != prefix:
            # Its topics were others; so are the positions in them. (Versions before have no such table.)
            self.sql(spec.database, _FORGET_POSITIONS)
            self._prefixes[name] = prefix
        with self._running(service):
            yield service

    @contextlib.contextmanager
    def _started(self, spec: ServiceSpec, prefix: str) -> Iterator[Service]:
        with self._running(self._service(spec, prefix)) as service:
            yield service

    @contextlib.contextmanager
    def _running(self, service: Service) -> Iterator[Service]:
        service.start()
        try:
            with httpx.Client(trust_env=False) as client:
                if not wait_for(lambda: service.ready(client), timeout_s=READY_S, every_s=0.1):
                    raise RuntimeError(f"{service.spec.name} is not ready after {READY_S:.0f} s")
            yield service
        finally:
            service.begin_stop()
            service.end_stop(time.monotonic() + STOP_S)

    def _service(self, spec: ServiceSpec, prefix: str) -> Service:
        log_path = self._dir / "logs" / f"{spec.name}-{spec.role}.log"
        return Service(spec, free_ports(1)[0], log_path, self._settings(spec.database, prefix))

    def _settings(self, database: str, prefix: str) -> dict[str, str]:
        return {
            "ACCORD_DATABASE_URL": self.database_url(database),
            "ACCORD_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "ACCORD_KAFKA_TOPIC_PREFIX": prefix,
            "ACCORD_API_KEYS_FILE": str(self._stack.options.keys_path.resolve()),
        }

    def sign(self, service: Service, kind: str, document: bytes) -> None:
        """Have both departments sign a version, which then is in force."""
        keys = self.keys
        with Client(keys["ACCORD_MARKETING_KEY"]) as marketing, Client(keys["ACCORD_SALES_KEY"]) as sales:
            sign(Callers(marketing, sales), f"{service.url}/v1/{kind}", document)

    @contextlib.contextmanager
    def baseline(self, name: str, database: str, *, prefix: str = "") -> Iterator[tuple[int, int]]:
        """A baseline of tests/bench/baselines.py; gives its port, where it has one, and its pid."""
        port = free_ports(1)[0]
        settings = {**self._settings(database, prefix), "ACCORD_HOST": "127.0.0.1", "ACCORD_PORT": str(port)}
        child = self._spawn("tests.bench.baselines", name, log=f"baseline-{name}", env=settings)
        try:
            if name == "capture":
                self._await_port(child, port)
            yield port, child.pid
        finally:
            child.stop(grace_s=STOP_S)

    def _await_port(self, child: ChildProcess, port: int) -> None:
        def ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == httpx.codes.OK
            if not child.running:
                raise RuntimeError(f"a baseline has ended: {log_tail(child.log_path or Path(), 5)}")
            return False

        if not wait_for(ready, timeout_s=READY_S, every_s=0.1):
            raise RuntimeError(f"a baseline is not ready after {READY_S:.0f} s")

    def _spawn(self, module: str, *arguments: str, log: str, env: dict[str, str] | None = None) -> ChildProcess:
        return spawn(
            [sys.executable, "-m", module, *arguments],
            log_path=self._dir / "logs" / f"{log}.log",
            env={**os.environ, **(env or {})},
        )

    # -- load

    def next_run(self) -> int:
        """A number for a load whose people nobody has seen."""
        self._runs += 1
        return self._runs

    @contextlib.contextmanager
    def loading(self, load: Load) -> Iterator[Callable[[], Measured]]:
        """Start sending; what is given waits for the end and says what was measured."""
        name = f"load-{load.run}"
        config, result = self._dir / f"{name}.json", self._dir / f"{name}-result.json"
        config.write_text(json.dumps(asdict(load)))
        child = self._spawn("tests.bench.load", str(config), str(result), log=name)

        def measured() -> Measured:
            child.popen.wait(timeout=load.warm_up_s + load.seconds + LOAD_SPARE_S)
            if not result.exists():
                raise RuntimeError(
                    f"the load generator ended without a result: {log_tail(child.log_path or config, 5)}"
                )
            return Measured(**json.loads(result.read_text()))

        try:
            yield measured
        finally:
            child.kill()

    def load(self, load: Load) -> Measured:
        """Send a load and say what was measured."""
        with self.loading(load) as measured:
            return measured()


def rss_mib(service: Service) -> float:
    """Resident memory of a service's process."""
    if service.pid is None:
        raise RuntimeError(f"{service.spec.name} does not run")
    return float(psutil.Process(service.pid).memory_info().rss) / 2**20
