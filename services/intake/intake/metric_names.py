"""The Prometheus instruments of intake, each with its meaning. Labels are names of configured sources and words of ours, never a person."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

HOOK_REFUSED = Counter(
    "accord_hook_refused_total",
    "Requests to a configured source that failed verification, by reason: no-secret, missing, wrong, stale or ahead.",
    ["source", "reason"],
)
HOOK_EVENTS = Counter(
    "accord_hook_events_total",
    "Events that tools have sent, by what became of them: created, updated, merged, rejected, recorded, waiting, failed, ignored or"
    " replayed.",
    ["source", "outcome"],
)
HOOK_EVENTS_WAITING = Gauge(
    "accord_hook_events_waiting", "Events that wait for something: a record to be fetched, a lead to come, an erasure."
)
HOOK_EVENTS_FAILED = Gauge(
    "accord_hook_events_failed", "Events that were given up and are kept for somebody to look at."
)
HOOK_FETCHES = Counter(
    "accord_hook_fetches_total",
    "Attempts at an event that waited, by how they ended: done, retried or failed.",
    ["source", "outcome"],
)
SECRETS_UNREADABLE = Counter(
    "accord_source_secrets_unreadable_total",
    "Secrets of sources that none of the keys decrypts; their source is refused.",
)
IMPORT_ROWS = Counter(
    "accord_import_rows_total",
    "Rows of imports, dry runs apart, by what became of them: created, updated, merged, unchanged, quarantined, rejected or failed.",
    ["outcome"],
)
IMPORTS_ENDED = Counter(
    "accord_imports_ended_total", "Imports by how they ended: finished, cancelled or failed.", ["state"]
)
ERASED = Counter("accord_persons_erased_total", "Persons erased, by the reason given.", ["reason"])
RETENTION_DROPPED = Counter(
    "accord_retention_dropped_total",
    "Records whose content was dropped because they are old: submission, quarantined (nobody decided) or import_row.",
    ["what"],
)

__all__ = [
    "ERASED",
    "HOOK_EVENTS",
    "HOOK_EVENTS_FAILED",
    "HOOK_EVENTS_WAITING",
    "HOOK_FETCHES",
    "HOOK_REFUSED",
    "IMPORTS_ENDED",
    "IMPORT_ROWS",
    "RETENTION_DROPPED",
    "SECRETS_UNREADABLE",
]
