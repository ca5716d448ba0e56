"""The Prometheus instruments of notifications."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

ATTEMPTS = Counter(
    "accord_notification_attempts_total",
    "Attempts to deliver a message, by channel and outcome (delivered, failed, refused, gone, paced, uncertain, held, dropped).",
    ["channel", "outcome"],
)
WAITING = Gauge("accord_notifications_waiting", "Deliveries that wait, by the database.", ["channel"])
WAITING_AGE_S = Gauge(
    "accord_notifications_waiting_age_seconds",
    "How long the delivery that is most overdue has been due, by the database; 0 while none is.",
    ["channel"],
)
DISABLED = Gauge("accord_subscriptions_disabled", "Subscriptions that are disabled, by the database.")
