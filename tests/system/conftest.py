"""The stack that system tests share: one that this run starts, or one that somebody else has started
(`ACCORD_SYSTEM_URL_TEMPLATE`, as `make compose-test` does).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from accord_local.demo.client import Urls
from tests.system.running import RUN_BY_SOMEBODY_ELSE, Running, clients_of, running_stack
from tests.system.spans import Collector, collecting

TEMPLATES = Path(__file__).parents[2] / "deploy" / "agreements"
PORTS = range(8001, 8005)

Advance = Callable[[int], None]


@pytest.fixture(scope="session")
def spans() -> Iterator[Collector]:
    """What the shared stack exports as traces."""
    with collecting() as (collector, endpoint), pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")
        environment.setenv("NO_PROXY", "127.0.0.1")
        yield collector


@pytest.fixture(scope="session")
def accord(tmp_path_factory: pytest.TempPathFactory, spans: Collector) -> Iterator[Running]:
    """One stack for the tests that can share it. It exports traces."""
    template = os.environ.get(RUN_BY_SOMEBODY_ELSE)
    if template is None:
        with running_stack(tmp_path_factory.mktemp("accord")) as running:
            yield running
        return
    urls = Urls(*(template.replace("{port}", str(port)) for port in PORTS))
    with clients_of(Path(os.environ["ACCORD_DATA_DIR"]), urls) as running:
        yield running


@pytest.fixture(scope="session")
def templates() -> Path:
    """The folder of the four agreement templates."""
    return TEMPLATES


@pytest.fixture(scope="session")
def quietly() -> Advance:
    """A progress callback that shows nothing."""
    return lambda _rows: None
