"""The composition kit of every service's main.py: the app, the process with its roles, and migrations. It knows no service.

    def build(settings: Settings) -> Service: ...

    if __name__ == "__main__":
        sys.exit(run(build))

A process has one role:

- `api`: HTTP, and nothing beside it;
- `worker`: consumers and timers; HTTP for probes and metrics only;
- `relay`: what publishes the outbox; HTTP for probes and metrics only;
- `all`: these three in one process;
- `migrate`: brings the database's tables up to date and ends;
- `openapi`: prints the document of the HTTP interface, asks no server and ends.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar, cast, get_args

import structlog
import uvicorn
import uvloop
from fastapi import APIRouter, FastAPI
from msgspec.structs import replace
from pydantic import ValidationError
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from accord.agreements.store import OutdatedVersion
from accord.collectors import Collector
from accord.contracts.topics import ServiceName
from accord.db import Database
from accord.health import Check, Health
from accord.http import problems
from accord.http.admission import Admission
from accord.http.auth import make_authenticator
from accord.http.bodies import Bodies, BodyBudget
from accord.http.connections import BoundedServer, ConnectionLimits
from accord.http.context import RequestContext
from accord.http.document_pages import document_pages
from accord.http.oidc import TokenVerifier
from accord.http.openapi import Fragment, document_route, install_openapi
from accord.http.query import QueryRules
from accord.http.routes import iterate_routes
from accord.messaging.collectors import outbox_collector
from accord.messaging.reachability import kafka_check
from accord.settings import Settings
from accord.supervision import SupervisedWorker
from accord.telemetry import configure_logging, configure_tracing, shut_tracing_down
from accord.version import VERSION
from accord.workers import Worker

log = structlog.get_logger(__name__)

Role = Literal["api", "worker", "relay", "all", "migrate", "openapi"]
S = TypeVar("S", bound=Settings)

_BACKLOG = 2048
_COLLECT_AFTER = (20_000, 20, 50)
"""New objects before the youngest are looked through, and how often that happens before the next older generation is."""
_WAIT_FOR_DISPOSE_S = 2.0
_PROBE_CONNECTIONS_MAX = 50
"""Of the port for probes and metrics alone."""


class Documents(Protocol):
    """Documents of one kind."""

    async def find_outdated(self) -> Sequence[OutdatedVersion]:
        """What this release would refuse of those that are in force or proposed."""
        ...


@dataclass(kw_only=True)
class Service:
    """What one service is made of."""

    name: ServiceName
    title: str
    settings: Settings
    database: Database
    migrations: Path
    """The directory with env.py and versions/."""
    routers: Sequence[APIRouter] = ()
    routes: Sequence[BaseRoute] = ()
    """Plain Starlette routes for hot paths."""
    openapi_paths: Mapping[str, Mapping[str, Fragment]] = field(default_factory=dict)
    """OpenAPI of the plain routes: path → method → `accord.http.openapi.operation(...)`."""
    streamed_bytes_max: Mapping[str, int] = field(default_factory=dict)
    """Path prefixes whose bodies are streamed, with their own limits."""
    raw_body_prefixes: Sequence[str] = ()
    """Path prefixes whose bodies are handed on whatever text they hold."""
    workers: Sequence[Worker] = ()
    """Consumers and timers, of the roles worker and all."""
    documents: Sequence[Documents] = ()
    """What people have agreed on or written, to be looked at after a migration."""
    relays: Sequence[Worker] = ()
    """What publishes the outbox, of the roles relay and all."""
    api_workers: Sequence[Worker] = ()
    """What requests wait for, of the roles api and all. If one fails the process ends, since requests would hang."""
    collectors: Sequence[Collector] = ()
    """Gauges of the service's own that are read from the database at each scrape, in every role; the outbox's are always."""
    description: str = ""
    close: Callable[[], Awaitable[None]] | None = None
    """Called last, before the pool is closed."""

    def health(self, role: Role = "all", workers: Sequence[SupervisedWorker] = ()) -> Health:
        """The probes of this role. The API needs its database only; who consumes or publishes needs Kafka too."""
        required: dict[str, Check] = {"database": self._database_answers}
        optional: dict[str, Check] = {}
        if role != "api":
            (optional if role == "all" else required)["kafka"] = kafka_check(self.settings.kafka)
        return Health(
            required,
            workers,
            optional=optional,
            outside={"database": self._database_accepts},
            collectors=[outbox_collector(self.database), *self.collectors],
        )

    def background_workers(self, role: Role) -> list[Worker]:
        """The relays and workers that run in this role, once each: what both wait for stands in both."""
        relays = self.relays if role in ("relay", "all") else ()
        workers = self.workers if role in ("worker", "all") else ()
        return list(dict.fromkeys([*relays, *workers]))

    async def _database_answers(self) -> None:
        async with self.database.read_transaction() as conn:
            await conn.execute(text("SELECT 1"))

    async def _database_accepts(self) -> None:
        # Outside the pool: a process that holds all of its connections is stuck, and waits for nobody else.
        connection = await self.database.connect()
        try:
            await connection.execute("SELECT 1")
        finally:
            connection.terminate()


def create_app(service: Service, health: Health | None = None, *, metrics: bool = True) -> FastAPI:
    """The HTTP app: routers, plain routes, probes, and the layers around them. Starts no worker."""
    settings = service.settings
    app = FastAPI(
        title=service.title,
        version=VERSION,
        description=service.description,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": "/", "description": "The service that this document comes from"}],
        generate_unique_id_function=lambda route: route.name,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.router.redirect_slashes = False
    oidc = settings.oidc
    app.state.auth = make_authenticator(
        settings.api_keys_file,
        TokenVerifier(oidc) if oidc is not None else None,
        settings.rate_limit_per_s,
        settings.rate_limit_burst,
    )
    problems.install(app)
    app.router.routes[:0] = [
        *service.routes,
        document_route(app),
        *document_pages(app.title),
    ]  # first, since routes are tried in order
    for router in service.routers:
        app.include_router(router)
    app.router.routes.extend((health or service.health()).routes(metrics=metrics))
    app.openapi = install_openapi(app, service.openapi_paths)  # type: ignore[method-assign]
    app.state.query = QueryRules(app.openapi, _templates(app))
    # Added innermost first.
    app.add_middleware(
        Admission,
        bodies=Bodies(
            bytes_max=settings.body_bytes_max,
            timeout_s=settings.body_timeout_s,
            requests_max=settings.requests_in_flight_max,
            budget=BodyBudget(settings.body_bytes_in_flight),
            streamed=service.streamed_bytes_max,
            raw=service.raw_body_prefixes,
        ),
    )
    app.add_middleware(RequestContext, routes=_templates(app))
    return app


def _templates(app: FastAPI) -> dict[object, str]:
    return {route.endpoint: route.path_format for route in iterate_routes(app)}


def run(build: Callable[[S], Service], argv: Sequence[str] | None = None, settings: type[S] | None = None) -> int:
    """Run one process of a service in the role that `argv` names; the exit code. `settings`: the service's own subclass."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    role = arguments[0] if len(arguments) == 1 else ""
    if role not in get_args(Role):
        sys.stderr.write(f"usage: {' | '.join(get_args(Role))} (one of them, not {' '.join(arguments) or 'nothing'})\n")
        return 2
    try:
        configured = (settings or cast("type[S]", Settings))()
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            name = "ACCORD_" + "_".join(map(str, item["loc"])).upper() if item["loc"] else "ACCORD_*"
            sys.stderr.write(f"setting {name}: {item['msg']}\n")
        return 2
    configure_logging(configured.log_level)
    try:
        return uvloop.run(_main(build, configured, cast("Role", role)))
    except KeyboardInterrupt:
        return 0
    except Exception:
        log.exception("process_failed")
        return 1


async def _main(build: Callable[[S], Service], settings: S, role: Role) -> int:
    service = build(settings)
    configure_logging(settings.log_level, service=service.name)
    if role == "migrate":
        from accord.migrations.run import migrate  # noqa: PLC0415 - Alembic's memory and start belong to this role only

        await service.database.dispose()
        code = await migrate(service.migrations, settings.database_url.get_secret_value(), service.name)
        if code == 0:
            await report_outdated(service)
        return code
    if role == "openapi":
        sys.stdout.write(json.dumps(create_app(service).openapi(), indent=1, ensure_ascii=False) + "\n")
        await service.database.dispose()
        return 0
    configure_tracing(service.name)
    try:
        return await Process(service, role).run()
    finally:
        shut_tracing_down()


async def report_outdated(service: Service) -> None:
    """Log what goes on as it was agreed on and would be refused today."""
    for documents in service.documents:
        for found in await documents.find_outdated():
            findings = [f"{finding.pointer}: {finding.message}" for finding in found.findings]
            log.warning(
                "agreement_outdated", kind=found.kind, version=found.version, status=found.status, findings=findings
            )
    await service.database.dispose()


class Process:
    """One running process: servers, workers, and an orderly end.

    The first failure of a server or of what requests wait for ends it with exit code 1; so does any worker's in the
    roles worker and relay. In the role all a worker that has failed is started again while the API goes on.
    """

    def __init__(self, service: Service, role: Role) -> None:
        self._service = service
        self._role = role
        self._background = [
            SupervisedWorker(worker, restarts=role == "all") for worker in service.background_workers(role)
        ]
        self._api_workers = [
            SupervisedWorker(worker, restarts=False)
            for worker in (service.api_workers if role in ("api", "all") else ())
        ]
        self._health = service.health(role, [*self._background, *self._api_workers])
        self._serves_probes_only = role in ("worker", "relay")
        self._stop = asyncio.Event()
        self._stop_api_workers = asyncio.Event()
        self._failed = False

    async def run(self) -> int:
        """Serve until SIGTERM, SIGINT or a failure; then stop accepting, drain, and close."""
        settings = self._service.settings
        try:
            servers = self._servers()
        except OSError as error:
            log.error("port_not_bound", host=settings.host, port=settings.port, why=error.strerror or str(error))
            return 1
        _tune_garbage_collector()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        serving = [asyncio.create_task(server.serve_on(sock), name="http") for server, sock in servers]
        own = [_start(worker, self._stop) for worker in self._background]
        beside = [_start(worker, self._stop_api_workers) for worker in self._api_workers]
        for task in [*serving, *own, *beside]:
            task.add_done_callback(self._on_end)
        log.info("started", role=self._role, port=servers[0][1].getsockname()[1])
        await self._stop.wait()
        self._health.stopping = True
        log.info("stopping", role=self._role)
        await self._drain([server for server, _ in servers], serving, own, beside)
        if self._service.close is not None:
            await self._service.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_FOR_DISPOSE_S):
                await self._service.database.dispose()
        log.info("stopped", exit_code=int(self._failed))
        return int(self._failed)

    def _servers(self) -> list[tuple[BoundedServer, socket.socket]]:
        settings = self._service.settings
        apart = settings.metrics_port is not None and not self._serves_probes_only
        # Ports first: a process that cannot have its port does nothing else.
        listening = (
            _listen(settings.host, settings.port) if settings.listen_fd is None else _inherit_socket(settings.listen_fd)
        )
        beside = _listen(settings.host, settings.metrics_port or 0) if apart else None
        app: ASGIApp = (
            _probes(self._health)
            if self._serves_probes_only
            else create_app(self._service, self._health, metrics=not apart)
        )
        servers = [(serve(app, settings), listening)]
        if beside is not None:
            servers.append((serve(_probes(self._health), settings, _PROBE_CONNECTIONS_MAX), beside))
        return servers

    def _on_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None and self._stop.is_set():
            return
        log.error("process_failing", because=task.get_name(), exc_info=error)
        self._failed = True
        self._stop.set()

    async def _drain(
        self,
        servers: Sequence[BoundedServer],
        serving: Sequence[asyncio.Task[None]],
        own: Sequence[asyncio.Task[None]],
        beside: Sequence[asyncio.Task[None]],
    ) -> None:
        """Stop accepting first; group commits end only after the requests that wait for them."""
        for server in servers:
            server.should_exit = True
        loop = asyncio.get_running_loop()
        end_at = loop.time() + self._service.settings.drain_s
        await _finish(serving, end_at - loop.time())
        self._stop_api_workers.set()
        await _finish([*own, *beside], end_at - loop.time())
        remaining = [task for task in (*serving, *own, *beside) if not task.done()]
        if remaining:
            log.error("drain_timed_out", workers=[task.get_name() for task in remaining])
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)


def serve(app: ASGIApp, settings: Settings, connections_max: int | None = None) -> BoundedServer:
    """The server of an app; `serve_on` a socket runs it. `connections_max`: less than the settings allow."""
    limits = ConnectionLimits.of(settings)
    if connections_max is not None:
        limits = replace(limits, connections_max=min(connections_max, limits.connections_max))
    return BoundedServer(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=max(1, int(settings.drain_s) - 2),
        ),
        limits,
    )


def _tune_garbage_collector() -> None:
    """Tell the garbage collector that what is loaded by now stays: some hundred thousand objects that it would walk again and
    again. And have it look less often, since a request leaves few cycles; that made requests more than twice as cheap.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def _start(worker: Worker, stop: asyncio.Event) -> asyncio.Task[None]:
    return asyncio.create_task(worker.run(stop), name=worker.name)


async def _finish(tasks: Sequence[asyncio.Task[None]], timeout_s: float) -> None:
    """Wait for these to end, cancelling none."""
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, timeout_s))


def _probes(health: Health) -> ASGIApp:
    return Starlette(routes=health.routes())


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listening.setblocking(False)
    return listening


def _inherit_socket(descriptor: int) -> socket.socket:
    """The listening socket that was handed down."""
    listening = socket.socket(fileno=descriptor)
    if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listening.close()
        raise OSError(errno.EINVAL, f"descriptor {descriptor} is no listening socket")
    listening.set_inheritable(False)
    listening.setblocking(False)
    return listening


__all__ = ["Process", "Role", "Service", "create_app", "run", "serve"]
