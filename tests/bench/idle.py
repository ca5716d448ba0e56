"""What a stack costs that nobody uses: processor time and bytes written, beside PostgreSQL and Kafka without any service."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import psutil

from tests.bench.backlog import open_backlog
from tests.bench.environment import SPECS, BenchEnvironment
from tests.bench.load import Load
from tests.bench.meter import Meter
from tests.bench.report import Figure

WINDOW_S = 60.0
LEADS_PER_S = 300.0
LEADS_S = 12.0
CALM_S = 10.0
DRAIN_S_MAX = 120.0
DAY_S = 86_400.0
_PREFIX = "idle-"
_GROWTH = "idle, growth of PostgreSQL's WAL and Kafka's logs"


@dataclass(frozen=True)
class IdleWindow:
    """One window: cores taken by each process, and bytes that each server wrote, by the name of the kernel's counter."""

    seconds: float
    cores: dict[str, float]
    written: dict[str, dict[str, int]]
    wal_bytes: int
    kafka_log_bytes: int
    others_cores: float

    @property
    def volumes(self) -> dict[str, float]:
        """What was written, in megabytes a day.

        `write_bytes` is in the detail alone: where a file system has large folios, the kernel counts a whole one (1 MiB) for
        each page of 8 KiB that is written.
        """
        counted = {
            _GROWTH: self.wal_bytes + self.kafka_log_bytes,
            "… of that the WAL": self.wal_bytes,
            "… of that Kafka's logs": self.kafka_log_bytes,
            "… written to files by PostgreSQL": self.written["PostgreSQL"]["wchar"],
            "… written to files and sockets by Kafka": self.written["Kafka"]["wchar"],
        }
        return {name: count / self.seconds * DAY_S / 1e6 for name, count in counted.items()}


def idle(bench: BenchEnvironment, window_s: float = WINDOW_S) -> list[Figure]:
    """All four services with some thousand leads and nothing to do, then the two servers alone over the same data."""
    with ExitStack() as stack:
        services = {name: stack.enter_context(bench.service(name, prefix=_PREFIX)) for name in SPECS}
        load = Load(
            services["intake"].port,
            bench.keys["ACCORD_MARKETING_KEY"],
            bench.next_run(),
            rate_per_s=LEADS_PER_S,
            seconds=LEADS_S,
        )
        bench.load(load)
        asyncio.run(_drain(bench))
        bench.vacuum()
        time.sleep(CALM_S)
        with_services = _measure_window(bench, {name: one.pid or 0 for name, one in services.items()}, window_s)
    bench.vacuum()
    time.sleep(CALM_S)
    return _make_figures(with_services, _measure_window(bench, {}, window_s))


async def _drain(bench: BenchEnvironment) -> None:
    async with open_backlog(bench, _PREFIX) as backlog:
        await backlog.drain(timeout_s=DRAIN_S_MAX)


def _measure_window(bench: BenchEnvironment, services: Mapping[str, int], window_s: float) -> IdleWindow:
    servers = {"PostgreSQL": bench.postgres_pid, "Kafka": bench.kafka_pid}
    wal, logs = _read_wal_position(bench), bench.measure_kafka_logs()
    before = {name: _read_written(pid) for name, pid in servers.items()}
    meters = {name: Meter([pid]) for name, pid in {**services, **servers}.items()}
    time.sleep(window_s)
    for meter in meters.values():
        meter.stop()
    written = {name: _read_written(pid) for name, pid in servers.items()}
    return IdleWindow(
        meters["Kafka"].seconds,
        {name: meter.cpu_s / meter.seconds for name, meter in meters.items()},
        {
            name: {counter: after - before[name][counter] for counter, after in found.items()}
            for name, found in written.items()
        },
        _read_wal_position(bench) - wal,
        bench.measure_kafka_logs() - logs,
        meters["Kafka"].others_cores,
    )


def _read_wal_position(bench: BenchEnvironment) -> int:
    return int(str(bench.sql("postgres", "SELECT pg_current_wal_lsn() - '0/0'")).strip())


def _read_written(pid: int) -> Counter[str]:
    """Bytes that a process, its living descendants and those that have ended wrote: the kernel adds those of a process that has
    ended to its parent's, as it does with processor time. `wchar` is without what PostgreSQL sends, since it sends by `send`.
    """
    written: Counter[str] = Counter()
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                counted = process.io_counters()
                written.update(wchar=counted.write_chars, write_bytes=counted.write_bytes)
    return written


def _make_figures(busy: IdleWindow, bare: IdleWindow) -> list[Figure]:
    total, bare_total = sum(busy.cores.values()), sum(bare.cores.values())
    volumes, bare_volumes = busy.volumes, bare.volumes
    detail: dict[str, object] = {"with_services": asdict(busy), "servers_alone": asdict(bare)}
    return [
        Figure(
            "idle, processor time of everything",
            "% of a core",
            total * 100,
            bare_total * 100,
            limit=f"a window of {busy.seconds:.0f} s; the baseline is PostgreSQL and Kafka without services",
            detail=detail,
        ),
        Figure("… that the services add", "% of a core", (total - bare_total) * 100),
        *(
            Figure(
                f"… of {name}",
                "% of a core",
                share * 100,
                bare.cores[name] * 100 if name in bare.cores else None,
            )
            for name, share in busy.cores.items()
        ),
        *(Figure(name, "MB a day", volume, bare_volumes[name]) for name, volume in volumes.items()),
        Figure("… of that growth the services add", "MB a day", volumes[_GROWTH] - bare_volumes[_GROWTH]),
    ]
