"""The Prometheus instruments of qualification, each with its meaning. Labels are words of ours, never a lead or a person."""

from __future__ import annotations

from prometheus_client import Gauge

LEADS_WAITING = Gauge(
    "accord_leads_waiting",
    "Leads that wait for somebody, by what they wait for: owner (they have none) or another (a clause was broken, and their owner keeps"
    " them until somebody else is there).",
    ["wait"],
)
LEADS_WAITING_AGE_S = Gauge(
    "accord_leads_waiting_age_seconds", "For how long the oldest of them has waited; 0 if none does.", ["wait"]
)
REEVALUATION_VERSION = Gauge(
    "accord_reevaluation_version", "The version of the definition by which leads are or were judged anew; 0 if none."
)
REEVALUATION_LEADS = Gauge("accord_reevaluation_leads", "How many leads there were to be judged when that began.")
REEVALUATION_PROCESSED = Gauge("accord_reevaluation_processed", "How many of them have been looked at.")
REEVALUATION_CHANGED = Gauge("accord_reevaluation_changed", "How many of them entered another stage by it.")
REEVALUATION_RUNNING = Gauge("accord_reevaluation_running", "1 while there are leads left to look at.")

__all__ = [
    "LEADS_WAITING",
    "LEADS_WAITING_AGE_S",
    "REEVALUATION_CHANGED",
    "REEVALUATION_LEADS",
    "REEVALUATION_PROCESSED",
    "REEVALUATION_RUNNING",
    "REEVALUATION_VERSION",
]
