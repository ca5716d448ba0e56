"""Intake over HTTP: single submissions, their latency at half the peak, and batches, each beside the plain baseline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.bench.environment import BASELINE_KEY, BenchEnvironment
from tests.bench.load import Load, Measured
from tests.bench.meter import Meter
from tests.bench.report import Figure, median

ROUNDS = 5
ROUND_S = 4.0
CONNECTIONS = 64
BATCH_ROWS = 500
BATCH_CONNECTIONS = 4
LATENCY_S = 6.0


@dataclass(frozen=True)
class _Side:
    """Ours or the baseline: where it listens and which processes do its work."""

    port: int
    key: str
    pids: tuple[int, ...]


@dataclass
class _Round:
    measured: Measured
    cpu_us: float
    others_cores: float


class Capturing:
    """Both sides, ready. `role` is that in which intake runs: `api` as the baseline does, or `all` with its relay."""

    def __init__(self, bench: BenchEnvironment, ours: _Side, baseline: _Side) -> None:
        self.bench = bench
        self.sides = {"ours": ours, "baseline": baseline}

    def round(self, who: str, **load: object) -> _Round:
        side = self.sides[who]
        self.bench.settle()
        meter = Meter(side.pids)
        sent = Load(side.port, side.key, self.bench.next_run(), **load)  # type: ignore[arg-type]
        measured = self.bench.load(sent)
        meter.stop()
        share = sent.seconds / (sent.seconds + sent.warm_up_s)
        return _Round(measured, meter.cpu_s * share / max(1, measured.rows) * 1e6, meter.others_cores)

    def alternately(self, **load: object) -> dict[str, list[_Round]]:
        """Rounds of both sides in turn, so that what else the machine does meets both alike."""
        rounds: dict[str, list[_Round]] = {who: [] for who in self.bench.sides}
        for _ in range(ROUNDS):
            for who, found in rounds.items():
                found.append(self.round(who, **load))
        return rounds


@contextmanager
def capturing(bench: BenchEnvironment, role: str) -> Iterator[Capturing]:
    """Intake and its baseline on one database, one of them idle while the other is measured."""
    with ExitStack() as stack:
        service = stack.enter_context(bench.service("intake", role=role))
        bench.sql("intake", "TRUNCATE outbox; ANALYZE")
        port, pid = stack.enter_context(bench.baseline("capture", "intake"))
        ours = _Side(service.port, bench.keys["ACCORD_MARKETING_KEY"], (service.pid or 0, bench.postgres_pid))
        yield Capturing(bench, ours, _Side(port, BASELINE_KEY, (pid, bench.postgres_pid)))


def single(bench: BenchEnvironment) -> list[Figure]:
    """`POST /v1/leads` at 64 connections, and its latency at half of that rate."""
    figures = []
    with capturing(bench, "api") as both:
        rounds = both.alternately(connections=CONNECTIONS, seconds=ROUND_S)
        figure = _rate("POST /v1/leads, 64 connections", "req/s", rounds)
        figure.ratio_least = 5.0 if figure.baseline else None
        figure.limit = "Python's processor time in intake's process"
        figures.append(figure)
        figures.append(_latency(both, figure))
    with capturing(bench, "all") as both:
        rounds = {"ours": [both.round("ours", connections=CONNECTIONS, seconds=ROUND_S) for _ in range(3)]}
        with_relay = _rate("… with its relay in the same process", "req/s", rounds)
        with_relay.limit = "the relay shares the process"
        figures.append(with_relay)
    return figures


def batch(bench: BenchEnvironment) -> list[Figure]:
    """`POST /v1/leads:batch` of 500, every row answered."""
    with capturing(bench, "api") as both:
        rounds = [
            both.round("ours", path="/v1/leads:batch", rows=BATCH_ROWS, connections=BATCH_CONNECTIONS, seconds=ROUND_S)
            for _ in range(ROUNDS)
        ]
        sides = {"ours": rounds}
        if "baseline" in bench.sides:
            sides["baseline"] = [both.round("baseline", connections=CONNECTIONS, seconds=ROUND_S) for _ in range(2)]
    figure = _rate("POST /v1/leads:batch of 500", "leads/s", sides)
    figure.least = 10_000
    figure.limit = "Python's processor time in intake's process"
    figure.detail["baseline_is"] = "single submissions at 64 connections"
    return [figure]


def _latency(both: Capturing, peak: Figure) -> Figure:
    """Arrivals at random at half of ours' peak; the baseline at half of its own."""
    rates = {"ours": peak.ours / 2} | ({"baseline": peak.baseline / 2} if peak.baseline else {})
    rounds = {
        who: [both.round(who, rate_per_s=rate, connections=128, seconds=LATENCY_S) for _ in range(3)]
        for who, rate in rates.items()
    }
    found = {
        who: {f"p{share:g}": median([one.measured.percentile_ms(share / 100) for one in of]) for share in (50, 99)}
        for who, of in rounds.items()
    }
    return Figure(
        "… p99 at half the peak, open loop",
        "ms",
        found["ours"]["p99"],
        found["baseline"]["p99"] if "baseline" in found else None,
        most=40.0,
        limit="waiting for the batch before, then its commit",
        detail={"percentiles_ms": found, "rates_per_s": rates, **_details(rounds)},
    )


def _rate(name: str, unit: str, rounds: dict[str, list[_Round]]) -> Figure:
    medians = {who: median([one.measured.rows_per_s for one in of]) for who, of in rounds.items()}
    cpu = {who: median([one.cpu_us for one in of]) for who, of in rounds.items()}
    return Figure(name, unit, medians["ours"], medians.get("baseline"), cpu_us=cpu, detail=_details(rounds))


def _details(rounds: dict[str, list[_Round]]) -> dict[str, object]:
    return {
        who: [
            {
                "rows_per_s": round(one.measured.rows_per_s, 1),
                "p50_ms": round(one.measured.percentile_ms(0.5), 2),
                "p99_ms": round(one.measured.percentile_ms(0.99), 2),
                "statuses": one.measured.statuses,
                "cpu_us": round(one.cpu_us, 1),
                "others_cores": round(one.others_cores, 2),
                "generator_late_ms_max": round(one.measured.late_ms_max, 2),
            }
            for one in of
        ]
        for who, of in rounds.items()
    }
