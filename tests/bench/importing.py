"""Imports end to end: rows a second as the table of leads grows, the same file again, a dry run, what it does to the latency of live
traffic, and the memory of both processes as files grow. The API receives in one process, the worker takes rows and publishes in another.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import httpx

from accord_local.services import Service
from tests.bench.capturing import CONNECTIONS, ROUND_S
from tests.bench.environment import BASELINE_KEY, BenchEnvironment, rss_mib
from tests.bench.load import Load
from tests.bench.meter import Meter
from tests.bench.report import Figure, median

ROWS = 60_000
ROUNDS = 3
SIZES = (0, 500_000, 1_000_000, 2_000_000)
FILL_AT_ONCE = 250_000
FILES_MIB = (10, 200)
NOTE_CHARS = 1_000
LIVE_RATE_PER_S = 100.0
LIVE_S = 6.0
THROTTLED_ROWS_PER_S = 2_000
SOURCE = "crm-export"
PATIENCE_S = 900.0
_HEADER = (
    "email,phone,first_name,last_name,company,title,employee_count,industry,country,line_of_business,bbb_rating,"
    "utm_campaign,utm_medium"
)
_INDUSTRIES = ("541511", "541512", "518210", "522110", "334111")
_LINES = ("software", "finance", "manufacturing")

# Leads as an import leaves them: keys in no order, raw rows beside them.
_FILL = """
INSERT INTO lead (lead_id, source, captured_at, verdict, email, first_name, last_name, company, attributes, field_timestamps, external_keys,
                  policy_version, quality_score, pending, sequence, recorded_at)
SELECT id, 'filled', now(), 'accepted', email, 'Ada', 'Lovelace', 'Company', '{{"country": "US", "employee_count": 250}}',
       '{{"email": "2026-01-04T00:00:00Z", "verdict": "2026-01-04T00:00:00Z"}}', '{{}}', 1, 1, false, 1, now()
FROM (SELECT ('01900000' || lpad(to_hex(n), 8, '0') || '8000000000000000')::uuid AS id,
             md5(n::text) || '@company' || n % 4000 || '.example' AS email
      FROM generate_series({first}, {last}) AS n) AS filled;
INSERT INTO identity_key (kind, value, lead_id)
SELECT 'email', md5(n::text) || '@company' || n % 4000 || '.example', ('01900000' || lpad(to_hex(n), 8, '0') || '8000000000000000')::uuid
FROM generate_series({first}, {last}) AS n;
INSERT INTO submission (submission_id, lead_id, source, caller, outcome, verdict, failed, content, occurred_at, recorded_at)
SELECT ('01900000' || lpad(to_hex(n), 8, '0') || '9000000000000000')::uuid,
       ('01900000' || lpad(to_hex(n), 8, '0') || '8000000000000000')::uuid, 'filled', 'bench', 'created', 'accepted', '[]',
       repeat('x', 300), now(), now()
FROM generate_series({first}, {last}) AS n
"""


def rows_csv(run: int, rows: int, *, note: int = 0) -> bytes:
    """A CSV of new people, other ones for each `run`; every fourth has a phone number. Addresses are in no order, as they are in life.
    With `note`, each row has so many characters more, which no field takes."""
    rng = random.Random(run)
    lines = [_HEADER + (",notes" if note else "")]
    for n in range(rows):
        company = n * 7919 % 4_000
        who = blake2b(f"{run}-{n}".encode(), digest_size=8).hexdigest()
        phone = "" if n % 4 else f"+1201{2_000_000 + (run * 400_000 + n // 4) % 8_000_000}"
        lines.append(
            f"{who}@company{company}.example,{phone},Ada,Lovelace{n},Company {company},Head of Research,{50 + n % 900},"
            f"{_INDUSTRIES[n % 5]},US,{_LINES[n % 3]},A+,autumn-{n % 20},search"
        )
        if note:
            lines[-1] += "," + f"{rng.getrandbits(64):016x}" * (note // 16)
    return ("\n".join(lines) + "\n").encode()


@dataclass
class Imported:
    """One import as it ended, and what it cost in the processes that did the work."""

    found: dict[str, Any]
    rows_per_s: float
    cpu_us: dict[str, float]
    others_cores: float


class Importing:
    """Both processes of intake, and a client."""

    def __init__(self, bench: BenchEnvironment, api: Service, worker: Service) -> None:
        self.bench, self.api, self.worker = bench, api, worker
        headers = {"Authorization": f"Bearer {bench.keys['ACCORD_MARKETING_KEY']}"}
        self.http = httpx.Client(base_url=api.url, headers=headers, trust_env=False, timeout=120)

    def send(self, body: bytes, **params: object) -> str:
        """POST a file; the import's id."""
        answer = self.http.post(
            "/v1/imports", params={"source": SOURCE, **params}, content=body, headers={"Content-Type": "text/csv"}
        )
        answer.raise_for_status()
        import_id: str = answer.json()["import_id"]
        return import_id

    def ended(self, import_id: str, look: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """The import once it has ended."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            found: dict[str, Any] = self.http.get(f"/v1/imports/{import_id}").raise_for_status().json()
            look()
            if found["state"] == "finished":
                return found
            if found["state"] in ("failed", "cancelled"):
                raise RuntimeError(f"the import was {found['state']}: {found['error']}")
            time.sleep(0.1)
        raise RuntimeError(f"an import took more than {PATIENCE_S:.0f} s")

    def measure(self, body: bytes, **params: object) -> Imported:
        """Send a file and measure its rows, from the first to the last commit."""
        self.bench.settle()
        pids = {"api": self.api.pid or 0, "worker": self.worker.pid or 0, "postgres": self.bench.postgres_pid}
        meters = {who: Meter([pid]) for who, pid in pids.items()}
        whole = Meter(pids.values())
        found = self.ended(self.send(body, **params))
        read = found["rows"]["read"]
        cpu = {who: meter.stop().cpu_s / read * 1e6 for who, meter in meters.items()}
        return Imported(found, found["rows_per_s"], cpu, round(whole.stop().others_cores, 2))


@contextmanager
def importing(bench: BenchEnvironment) -> Iterator[Importing]:
    """Intake as it is run apart: one process for HTTP, one for work, and the relay beside them."""
    with ExitStack() as stack:
        stack.enter_context(bench.service("intake", role="relay"))
        worker = stack.enter_context(bench.service("intake", role="worker"))
        api = stack.enter_context(bench.service("intake", role="api"))
        bench.sql("intake", "TRUNCATE outbox; ANALYZE")
        both = Importing(bench, api, worker)
        stack.callback(both.http.close)
        yield both


def imports(bench: BenchEnvironment, sizes: Sequence[int] = SIZES) -> list[Figure]:
    """All of it. `sizes`: leads that are there before the imports, ascending."""
    with importing(bench) as both:
        curve = _curve(both, sizes)
        again = _again(both)
        live = _live(both)
    with importing(bench) as both:
        memory = _memory(both)
    return [*curve, *again, *live, memory]


def _curve(both: Importing, sizes: Sequence[int]) -> list[Figure]:
    figures: list[Figure] = []
    baseline = _measure_baseline_rate(both)
    filled = 0
    for size in sizes:
        _fill(both.bench, filled, size)
        filled = size
        rounds = [both.measure(rows_csv(both.bench.next_run(), ROWS)) for _ in range(ROUNDS)]
        figure = Figure(
            f"import of CSV, {size:,} leads before",
            "rows/s",
            median([one.rows_per_s for one in rounds]),
            baseline,
            least=12_000 if size == 0 else None,
            cpu_us={"ours": median([sum(one.cpu_us.values()) for one in rounds])},
            limit="Python's processor time in the worker",
            detail={"rounds": [_detail(one) for one in rounds], "baseline_is": "single submissions at 64 connections"},
        )
        if figures:
            figure.least = 0.85 * figures[0].ours
        figures.append(figure)
    return figures


def _detail(one: Imported) -> dict[str, object]:
    cpu = {who: round(used, 1) for who, used in one.cpu_us.items()}
    return {"rows_per_s": one.rows_per_s, "cpu_us": cpu, "others_cores": one.others_cores, "rows": one.found["rows"]}


def _fill(bench: BenchEnvironment, before: int, size: int) -> None:
    """Make it so many leads beside those that were imported."""
    for first in range(before + 1, size + 1, FILL_AT_ONCE):
        bench.sql("intake", _FILL.format(first=first, last=min(size, first + FILL_AT_ONCE - 1)))
    if size > before:
        bench.sql("intake", "VACUUM (ANALYZE) lead, identity_key, submission")


def _measure_baseline_rate(both: Importing) -> float:
    with both.bench.baseline("capture", "intake") as (port, _):
        load = Load(port, BASELINE_KEY, both.bench.next_run(), connections=CONNECTIONS, seconds=ROUND_S)
        return both.bench.load(load).rows_per_s


def _again(both: Importing) -> list[Figure]:
    """The same file once more, and a dry run of another."""
    body = rows_csv(both.bench.next_run(), ROWS)
    both.measure(body)
    again = both.measure(body)
    dry = both.measure(rows_csv(both.bench.next_run(), ROWS), dry_run=True)
    return [
        Figure(name, "rows/s", one.rows_per_s, cpu_us={"ours": sum(one.cpu_us.values())}, detail=_detail(one))
        for name, one in (("… the same file again, nothing changed", again), ("… a dry run", dry))
    ]


def _live(both: Importing) -> list[Figure]:
    """The p99 of single submissions in the API's process, alone, while an import runs, and while it runs held back."""
    found: dict[str, float] = {}
    for name, params in {"alone": None, "import": {}, "held back": {"rows_per_s": THROTTLED_ROWS_PER_S}}.items():
        import_id = None
        if params is not None:
            import_id = both.send(rows_csv(both.bench.next_run(), 3 * ROWS), **params)
        load = Load(
            both.api.port,
            both.bench.keys["ACCORD_MARKETING_KEY"],
            both.bench.next_run(),
            connections=32,
            rate_per_s=LIVE_RATE_PER_S,
            seconds=LIVE_S,
        )
        found[name] = both.bench.load(load).percentile_ms(0.99)
        if import_id is not None:
            both.http.post(f"/v1/imports/{import_id}/cancel").raise_for_status()
            _await_end(both, import_id)
    words = {
        "alone": f"POST /v1/leads at {LIVE_RATE_PER_S:.0f}/s, p99, no import",
        "import": "… while an import runs in the worker",
        "held back": f"… held back to {THROTTLED_ROWS_PER_S:,} rows/s",
    }
    return [Figure(words[name], "ms", p99) for name, p99 in found.items()]


def _await_end(both: Importing, import_id: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if both.http.get(f"/v1/imports/{import_id}").json()["state"] in ("cancelled", "finished"):
            return
        time.sleep(0.1)


def _memory(both: Importing) -> Figure:
    """The most that both processes have held while files of these sizes were sent and worked off."""
    both.ended(both.send(rows_csv(both.bench.next_run(), 2_000)))  # what is loaded once is loaded
    found: dict[str, dict[str, float]] = {}
    for size in FILES_MIB:
        rows = size * 2**20 // (NOTE_CHARS + 130)
        body = rows_csv(both.bench.next_run(), rows, note=NOTE_CHARS)
        with _peaks({"api": both.api, "worker": both.worker}) as peaks:
            both.ended(both.send(body))
        found[f"{len(body) / 2**20:.0f} MiB"] = {who: round(peak, 1) for who, peak in peaks.items()}
    small, large = found.values()
    growth = max(large[who] - small[who] for who in small)
    return Figure(
        f"memory of API and worker, {FILES_MIB[1]} MiB against {FILES_MIB[0]} MiB of file, the greater growth",
        "MiB",
        growth,
        most=32.0,
        limit="caches of addresses and companies",
        detail={"peaks_mib": found},
    )


@contextmanager
def _peaks(services: dict[str, Service]) -> Iterator[dict[str, float]]:
    """The highest resident memory of these, looked at twenty times a second."""
    peaks = dict.fromkeys(services, 0.0)
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            for who, service in services.items():
                peaks[who] = max(peaks[who], rss_mib(service))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield peaks
    finally:
        done.set()
        looking.join()
