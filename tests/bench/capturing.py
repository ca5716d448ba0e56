"""Intake over HTTP: single submissions, their latency at half the peak, and batches, each beside the plain twin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.bench.environment import TWIN_KEY, House
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
    """Ours or the twin: where it listens and which processes do its work."""

    port: int
    key: str
    pids: tuple[int, ...]


@dataclass
class _Round:
    measured: Measured
    cpu_us: float
    others_cores: float


class Capturing:
    """Both sides, ready. `role` is that in which intake runs: `api` as the twin does, or `all` with its relay."""

    def __init__(self, house: House, ours: _Side, twin: _Side) -> None:
        self.house = house
        self.sides = {"ours": ours, "twin": twin}

    def round(self, who: str, **load: object) -> _Round:
        side = self.sides[who]
        self.house.settle()
        meter = Meter(side.pids)
        sent = Load(side.port, side.key, self.house.next_run(), **load)  # type: ignore[arg-type]
        measured = self.house.load(sent)
        meter.stop()
        share = sent.seconds / (sent.seconds + sent.warm_up_s)
        return _Round(measured, meter.cpu_s * share / max(1, measured.rows) * 1e6, meter.others_cores)

    def alternately(self, **load: object) -> dict[str, list[_Round]]:
        """Rounds of both sides in turn, so that what else the machine does meets both alike."""
        rounds: dict[str, list[_Round]] = {who: [] for who in self.house.sides}
        for _ in range(ROUNDS):
            for who, found in rounds.items():
                found.append(self.round(who, **load))
        return rounds


@contextmanager
def capturing(house: House, role: str) -> Iterator[Capturing]:
    """Intake and its twin on one database, one of them idle while the other is measured."""
    with ExitStack() as stack:
        service = stack.enter_context(house.service("intake", role=role))
        house.sql("intake", "TRUNCATE outbox; ANALYZE")
        port, pid = stack.enter_context(house.twin("capture", "intake"))
        ours = _Side(service.port, house.keys["ACCORD_MARKETING_KEY"], (service.pid or 0, house.postgres_pid))
        yield Capturing(house, ours, _Side(port, TWIN_KEY, (pid, house.postgres_pid)))


def single(house: House) -> list[Figure]:
    """`POST /v1/leads` at 64 connections, and its latency at half of that rate."""
    figures = []
    with capturing(house, "api") as both:
        rounds = both.alternately(connections=CONNECTIONS, seconds=ROUND_S)
        figure = _rate("POST /v1/leads, 64 connections", "req/s", rounds)
        figure.ratio_least = 5.0 if figure.twin else None
        figure.limit = "Python's processor time in intake's process"
        figures.append(figure)
        figures.append(_latency(both, figure))
    with capturing(house, "all") as both:
        rounds = {"ours": [both.round("ours", connections=CONNECTIONS, seconds=ROUND_S) for _ in range(3)]}
        with_relay = _rate("… with its relay in the same process", "req/s", rounds)
        with_relay.limit = "the relay shares the process"
        figures.append(with_relay)
    return figures


def batch(house: House) -> list[Figure]:
    """`POST /v1/leads:batch` of 500, every row answered."""
    with capturing(house, "api") as both:
        rounds = [
            both.round("ours", path="/v1/leads:batch", rows=BATCH_ROWS, connections=BATCH_CONNECTIONS, seconds=ROUND_S)
            for _ in range(ROUNDS)
        ]
        sides = {"ours": rounds}
        if "twin" in house.sides:
            sides["twin"] = [both.round("twin", connections=CONNECTIONS, seconds=ROUND_S) for _ in range(2)]
    figure = _rate("POST /v1/leads:batch of 500", "leads/s", sides)
    figure.least = 10_000
    figure.limit = "Python's processor time in intake's process"
    figure.detail["twin_is"] = "single submissions at 64 connections"
    return [figure]


def _latency(both: Capturing, peak: Figure) -> Figure:
    """Arrivals at random at half of ours' peak; the twin at half of its own."""
    rates = {"ours": peak.ours / 2} | ({"twin": peak.twin / 2} if peak.twin else {})
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
        found["twin"]["p99"] if "twin" in found else None,
        most=40.0,
        limit="waiting for the batch before, then its commit",
        detail={"percentiles_ms": found, "rates_per_s": rates, **_details(rounds)},
    )


def _rate(name: str, unit: str, rounds: dict[str, list[_Round]]) -> Figure:
    medians = {who: median([one.measured.rows_per_s for one in of]) for who, of in rounds.items()}
    cpu = {who: median([one.cpu_us for one in of]) for who, of in rounds.items()}
    return Figure(name, unit, medians["ours"], medians.get("twin"), cpu_us=cpu, detail=_details(rounds))


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
