"""The Prometheus instruments of messaging. Labels are names of ours, never a lead, key or person."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

OUTBOX_ROWS = Gauge("accord_outbox_rows", "Rows of the outbox that are not published yet.")
OUTBOX_AGE_S = Gauge("accord_outbox_age_seconds", "Age of the oldest row that is not published yet.")
RELAY_LEADER = Gauge("accord_relay_leader", "Lanes of the outbox that this process publishes.")
RELAY_PUBLISHED = Counter("accord_relay_published_total", "Events that Kafka has acknowledged.")
RELAY_FAILURES = Counter(
    "accord_relay_failures_total", "Rounds of the relay that failed and were tried again.", ["cause"]
)
RELAY_PUBLISH_S = Histogram(
    "accord_relay_batch_seconds",
    "From reading a batch of the outbox to having deleted it.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WATERMARK_AGE_S = Gauge("accord_watermark_age_seconds", "How far the watermark last published lies in the past.")

WATERMARKS_REJECTED = Counter(
    "accord_watermarks_rejected_total", "Announcements that could not be read, or were ahead of the clock."
)

CONSUMER_LAG = Gauge(
    "accord_consumer_lag_records", "Records not yet consumed, of the partitions held.", ["consumer", "topic"]
)
CONSUMER_EVENTS = Counter(
    "accord_consumer_events_total", "Events read, by what became of them.", ["consumer", "outcome"]
)
CONSUMER_BATCH_S = Histogram(
    "accord_consumer_batch_seconds",
    "From records in hand to the commit of their transaction.",
    ["consumer"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CONSUMER_BATCH_ROWS = Histogram(
    "accord_consumer_batch_rows", "Records per batch.", ["consumer"], buckets=(1, 5, 10, 50, 100, 250, 500, 1000, 2000)
)
CONSUMER_RETRIES = Counter(
    "accord_consumer_retries_total", "Batches put back because of a transient failure.", ["consumer", "cause"]
)
CONSUMER_WATERMARK_AGE_S = Gauge(
    "accord_consumer_watermark_age_seconds", "Age of the newest watermark consumed.", ["consumer", "topic"]
)
DEAD_LETTERS = Counter("accord_dead_letters_total", "Events written to the dead letters.", ["consumer", "kind"])
DEAD_LETTERS_WAITING = Gauge("accord_dead_letters_waiting", "Dead letters that nobody has replayed or discarded yet.")
DEAD_LETTERS_WAITING_AGE_S = Gauge(
    "accord_dead_letters_waiting_age_seconds", "How long the oldest of them waits; its lead is held for so long."
)
DEAD_LETTERS_SETTLED = Counter(
    "accord_dead_letters_settled_total", "Dead letters replayed or discarded.", ["consumer", "how"]
)
