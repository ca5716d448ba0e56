"""Probes: `/livez` (the process works), `/readyz` (each named need of this role) and `/metrics`. No key is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from accord.collectors import Collector, CollectorSet
from accord.metric_names import REGISTRY
from accord.shared_run import SharedRun
from accord.supervision import SupervisedWorker

log = structlog.get_logger(__name__)

Check = Callable[[], Awaitable[None]]
_CHECK_S_MAX = 3.0
_INFORMATION_S_MAX = 1.0
_LIVENESS_CHECK_S_MAX = 0.5
_RECOVERY_S = 60.0
"""After an outage workers have so long to be active again."""


class Health:
    """The probes of one process. Checks raise when what they look at does not answer.

    The process is not ready while a required one fails, and degraded while an optional one does. For liveness, `outside` takes the place
    of those of the same name: checks that need nothing of this process that may itself be blocked.
    """

    def __init__(
        self,
        required: Mapping[str, Check],
        workers: Sequence[SupervisedWorker] = (),
        *,
        optional: Mapping[str, Check] | None = None,
        outside: Mapping[str, Check] | None = None,
        collectors: Sequence[Collector] = (),
    ) -> None:
        self._required = {name: _share(check) for name, check in required.items()}
        self._optional = {name: _share(check) for name, check in (optional or {}).items()}
        replaced = {name: _share(check) for name, check in (outside or {}).items()}
        self._outside = {**self._required, **self._optional, **replaced}
        self._workers = list(workers)
        self._collectors = CollectorSet(collectors)
        self._outage_at: float | None = None
        self.stopping = False

    def routes(self, *, metrics: bool = True) -> list[Route]:
        """Plain routes of the probes."""
        probes = [Route("/livez", self.livez, methods=["GET"]), Route("/readyz", self.readyz, methods=["GET"])]
        return [*probes, Route("/metrics", self.metrics, methods=["GET"])] if metrics else probes

    async def livez(self, _: Request) -> Response:
        """200, or 503 with the workers that are stuck: then the process is better restarted.

        A worker that is silent because PostgreSQL or Kafka does not answer is not stuck: a new process would wait too.
        """
        problems = [problem for worker in self._workers if (problem := worker.problem()) is not None]
        if not problems:
            return JSONResponse({"status": "ok", "problems": []})
        if await self._is_outage():
            return JSONResponse({"status": "waiting", "problems": problems})
        return JSONResponse({"status": "stuck", "problems": problems}, 503)

    async def readyz(self, _: Request) -> Response:
        """200 or 503, with the outcome of each check by name, and the workers that have failed."""
        failing = {worker.name: failure for worker in self._workers if (failure := worker.failure()) is not None}
        if self.stopping:
            return JSONResponse({"status": "stopping", "checks": {}, "workers": failing}, 503)
        required, optional = await asyncio.gather(
            _run_checks(self._required, _CHECK_S_MAX), _run_checks(self._optional, _INFORMATION_S_MAX)
        )
        ready = all(outcome == "ok" for outcome in required.values())
        degraded = {name: outcome if outcome == "ok" else f"degraded: {outcome}" for name, outcome in optional.items()}
        is_healthy = not failing and all(outcome == "ok" for outcome in optional.values())
        status = "not ready" if not ready else "ready" if is_healthy else "degraded"
        return JSONResponse(
            {"status": status, "checks": {**required, **degraded}, "workers": failing}, 200 if ready else 503
        )

    async def metrics(self, _: Request) -> Response:
        """Prometheus text; it holds the process's CPU seconds and resident memory too."""
        await self._collectors.refresh()
        return Response(generate_latest(REGISTRY), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _is_outage(self) -> bool:
        """Whether something outside does not answer, or did not until a short while ago."""
        outcomes = await _run_checks(self._outside, _LIVENESS_CHECK_S_MAX)
        if any(outcome != "ok" for outcome in outcomes.values()):
            self._outage_at = monotonic()
        return self._outage_at is not None and monotonic() - self._outage_at < _RECOVERY_S


def _share(check: Check) -> Check:
    """The check, bounded, and once a second for all who ask: probes are open to anybody and must not multiply."""

    async def bounded() -> None:
        async with asyncio.timeout(_CHECK_S_MAX):
            await check()

    return SharedRun(bounded)


async def _run_checks(checks: Mapping[str, Check], timeout_s: float) -> dict[str, str]:
    """The outcome of each check by name: ok, or why not."""
    outcomes = await asyncio.gather(*(_run_check(name, check, timeout_s) for name, check in checks.items()))
    return dict(zip(checks, outcomes, strict=True))


async def _run_check(name: str, check: Check, timeout_s: float) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            await check()
    except TimeoutError:
        return f"no answer in {timeout_s:g} s"
    except Exception as error:  # noqa: BLE001 - a check may fail in any way; the answer names it by type only
        log.warning("check_failed", check=name, error=type(error).__name__)
        return f"failed: {type(error).__name__}"
    return "ok"
