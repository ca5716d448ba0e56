"""A whole stack as real processes for tests, or clients of one that somebody else has started. It judges nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accord_local.demo.client import Client, Urls
from accord_local.keys import DEV_KEY_VARIABLES
from accord_local.processes import free_ports
from accord_local.services import SERVICES, ServiceSpec
from accord_local.stack import Stack, StackOptions

RUN_BY_SOMEBODY_ELSE = "ACCORD_SYSTEM_URL_TEMPLATE"
"""Environment variable with the services' URL, `{port}` in it, of a stack that runs already."""

INTAKE_APART: Sequence[ServiceSpec] = (
    ServiceSpec("intake", "intake", "intake", 0, role="api"),
    *SERVICES[1:],
    ServiceSpec("intake-worker", "intake", "intake", 4, role="worker"),
    ServiceSpec("intake-relay", "intake", "intake", 5, role="relay"),
)
"""The four services, intake by roles, so that its relay can be stopped while it goes on answering and working."""


@dataclass
class Silent:
    """A reporter for tests: trouble is kept, so that a failing test can show it."""

    problems: list[str] = field(default_factory=list)

    def progress(self, what: str, done: int, total: int) -> None:
        """Nobody watches."""

    def report_problem(self, line: str) -> None:
        self.problems.append(line)


@dataclass(frozen=True)
class Running:
    """A stack that is ready, and a client for each of its dev keys. `stack` is None where somebody else runs it."""

    urls: Urls
    marketing: Client
    sales: Client
    admin: Client
    keys: dict[str, str] = field(repr=False)
    stack: Stack | None = None
    reporter: Silent = field(default_factory=Silent)


@contextlib.contextmanager
def running_stack(data_dir: Path, services: Sequence[ServiceSpec] = SERVICES) -> Iterator[Running]:
    """PostgreSQL, Kafka and the services on free ports, stopped at the end."""
    width = max(spec.port_offset for spec in services) + 1
    base = free_ports(width + 1)[0]
    reporter = Silent()
    stack = Stack(StackOptions(data_dir, port_base=base, kafka_port=base + width, services=services), reporter)
    try:
        stack.start()
        urls = Urls(*(f"http://127.0.0.1:{base + offset}" for offset in range(4)))
        with clients_of(data_dir, urls) as running:
            yield Running(urls, running.marketing, running.sales, running.admin, running.keys, stack, reporter)
    finally:
        stack.stop()


@contextlib.contextmanager
def clients_of(data_dir: Path, urls: Urls) -> Iterator[Running]:
    """Clients with the dev keys of a data directory."""
    keys = dev_keys(data_dir)
    with Client(keys["marketing"]) as marketing, Client(keys["sales"]) as sales, Client(keys["admin"]) as admin:
        yield Running(urls, marketing, sales, admin, keys)


def dev_keys(data_dir: Path) -> dict[str, str]:
    """The keys that a stack made for its developer: marketing, sales, admin."""
    lines = (data_dir / "dev-keys.env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.removeprefix("ACCORD_").removesuffix("_KEY").lower(): found[name] for name in DEV_KEY_VARIABLES}
