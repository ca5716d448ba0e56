"""Probes: `/livez` (the loop turns and no worker is stuck), `/readyz` (each named need of this role), `/metrics`. No key is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from accord.metric_names import REGISTRY
from accord.workers import Worker

log = structlog.get_logger(__name__)

Check = Callable[[], Awaitable[None]]
_CHECK_S_MAX = 3.0


class Health:
    """The probes of one process. `checks` raise when what they look at is not ready."""

    def __init__(self, checks: Mapping[str, Check], workers: Sequence[Worker]) -> None:
        self._checks = dict(checks)
        self._workers = list(workers)
        self.stopping = False
        self.started = asyncio.Event()

    def routes(self, *, metrics: bool = True) -> list[Route]:
        """Plain routes of the probes."""
        probes = [Route("/livez", self.livez, methods=["GET"]), Route("/readyz", self.readyz, methods=["GET"])]
        return [*probes, Route("/metrics", self.metrics, methods=["GET"])] if metrics else probes

    async def livez(self, _: Request) -> Response:
        """200, or 503 with the workers that are stuck: then the process is better started anew."""
        problems = [problem for worker in self._workers if (problem := worker.problem()) is not None]
        return JSONResponse({"status": "stuck" if problems else "ok", "problems": problems}, 503 if problems else 200)

    async def readyz(self, _: Request) -> Response:
        """200 or 503, with the outcome of each check by name."""
        if self.stopping:
            return JSONResponse({"status": "stopping", "checks": {}}, 503)
        names = list(self._checks)
        outcomes = dict(zip(names, await asyncio.gather(*(self._try(name) for name in names)), strict=True))
        ready = all(outcome == "ok" for outcome in outcomes.values())
        return JSONResponse({"status": "ready" if ready else "not ready", "checks": outcomes}, 200 if ready else 503)

    async def metrics(self, _: Request) -> Response:
        """Prometheus text; it holds the process's CPU seconds and resident memory too."""
        return Response(generate_latest(REGISTRY), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _try(self, name: str) -> str:
        try:
            async with asyncio.timeout(_CHECK_S_MAX):
                await self._checks[name]()
        except TimeoutError:
            return f"no answer in {_CHECK_S_MAX:.0f} s"
        except Exception as error:  # noqa: BLE001 - a check may fail in any way; the answer names it by type only
            log.warning("not_ready", check=name, error=type(error).__name__)
            return f"failed: {type(error).__name__}"
        return "ok"
