"""The Prometheus instruments of the process, the HTTP side and agreements, each with its meaning. Labels are names of ours, never a person.

All instruments, these and those of accord.messaging and of the services, live in the process's default registry, which also
holds the process's CPU time and resident memory; `/metrics` prints that one registry.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter and histogram, which nobody asks for

HTTP_REQUESTS = Counter(
    "accord_http_requests_total",
    "Requests answered, by method, route template and status.",
    ["method", "route", "status"],
)
HTTP_SECONDS = Histogram(
    "accord_http_request_seconds",
    "From the request's head to the last byte of the answer.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
HTTP_IN_FLIGHT = Gauge("accord_http_requests_in_flight", "Requests begun and not yet answered.")
HTTP_REFUSED = Counter(
    "accord_http_refused_total",
    "Requests refused before any work: overload, rate, auth, malformed, head or body (too large), slow (head or body), memory (bytes of"
    " bodies in flight, or of answers that are not read), connections (too many) or unchecked (a fault of ours).",
    ["reason"],
)
HTTP_CONNECTIONS = Gauge("accord_http_connections", "Open connections of clients.")
HTTP_BODY_BYTES = Gauge(
    "accord_http_body_bytes_in_flight", "Bytes of bodies that are held for requests not yet answered."
)
KEYS_RELOAD_FAILURES = Counter(
    "accord_api_keys_reload_failures_total", "Reloads of the keys file that failed; the old keys stay."
)
IDEMPOTENT_REPLAYS = Counter(
    "accord_idempotent_replays_total", "Requests answered with the saved answer of an earlier one."
)
AGREEMENT_ACTIVE = Gauge("accord_agreement_active_version", "The version in force; 0 if none.", ["kind"])
WORKER_UP = Gauge(
    "accord_worker_up", "1 while this worker runs; 0 once it has failed and until it is started again.", ["worker"]
)
WORKER_FAILURES = Counter(
    "accord_worker_failures_total",
    "Failures of a worker that it could not retry by itself; each is logged as worker_failed.",
    ["worker"],
)
COLLECTOR_UP = Gauge(
    "accord_collector_up",
    "1 if the gauges of this collector were read from the database for this scrape; 0 if they could not be, and are NaN.",
    ["collector"],
)

__all__ = [
    "AGREEMENT_ACTIVE",
    "COLLECTOR_UP",
    "HTTP_BODY_BYTES",
    "HTTP_CONNECTIONS",
    "HTTP_IN_FLIGHT",
    "HTTP_REFUSED",
    "HTTP_REQUESTS",
    "HTTP_SECONDS",
    "IDEMPOTENT_REPLAYS",
    "KEYS_RELOAD_FAILURES",
    "REGISTRY",
    "WORKER_FAILURES",
    "WORKER_UP",
]


GROUP_COMMIT_ROWS = Histogram(
    "accord_group_commit_rows",
    "Requests that shared one transaction.",
    ["name"],
    buckets=(1, 2, 5, 10, 25, 50, 100, 200, 500),
)


GROUP_COMMIT_QUEUE = Gauge("accord_group_commit_waiting", "Requests that wait for the next batch.", ["name"])
