"""Leads whose funnel is known beforehand: those of Olist where that data set lies beside the checkout, else the sample of
the demo. The facts are counted here without any help of Accord's.
"""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from accord_local.demo.sample import make_sample

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "olist"
LEADS = FOLDER / "olist_marketing_qualified_leads_dataset.csv"
DEALS = FOLDER / "olist_closed_deals_dataset.csv"
SAMPLE_SEED = 7
DAY = timedelta(days=1)

DEFINITION = b"""
kind: definition
title: What Olist calls a lead
glossary: {lead: "A seller who asked to sell on the marketplace."}
stages:
  - {key: mql, owner: marketing, kind: open, gate: {on: capture}}
  - {key: won, owner: sales, kind: won, from: [mql], gate: {decision: win}}
"""


@dataclass(frozen=True)
class KnownLead:
    """A lead with its first contact and, if it was won, the moment of that."""

    id: str
    source: str
    entered_at: datetime
    won_at: datetime | None

    @property
    def days_to_win(self) -> float | None:
        return None if self.won_at is None else (self.won_at - self.entered_at) / DAY


@dataclass(frozen=True)
class Facts:
    """What any correct funnel over some leads shows."""

    leads_count: int
    won_count: int
    by_source: dict[str, tuple[int, int]]
    """Source → won, leads."""
    median_days: float
    longest_days: float
    won_before_entry: int


OLIST_FACTS = Facts(
    leads_count=8_000,
    won_count=842,
    by_source={
        "organic search": (271, 2296),
        "paid search": (195, 1586),
        "social": (75, 1350),
        "unknown": (179, 1099),
        "direct traffic": (56, 499),
        "email": (15, 493),
        "referral": (24, 284),
        "other": (4, 150),
        "display": (6, 118),
        "other publicities": (3, 65),
        "none": (14, 60),
    },
    median_days=14.65,
    longest_days=427.55,
    won_before_entry=1,
)
"""As the README of the data set lists them."""


def known_leads() -> list[KnownLead]:
    """Olist's leads, else those of the sample, in the order of their arrival."""
    return _olist() if LEADS.exists() else _sample()


def _olist() -> list[KnownLead]:
    with DEALS.open(newline="") as file:
        won = {row["mql_id"]: _utc(row["won_date"]) for row in csv.DictReader(file)}
    with LEADS.open(newline="") as file:
        return [
            KnownLead(row["mql_id"], row["origin"] or "none", _utc(row["first_contact_date"]), won.get(row["mql_id"]))
            for row in csv.DictReader(file)
        ]


def _sample() -> list[KnownLead]:
    return [
        KnownLead(
            lead.external_id,
            lead.source,
            datetime.fromisoformat(str(lead.submission["occurred_at"])),
            next((step.at for step in lead.steps if step.decision == "win"), None),
        )
        for lead in make_sample(SAMPLE_SEED, datetime(2026, 7, 1, 12, tzinfo=UTC))
    ]


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def extract_facts(leads: Sequence[KnownLead]) -> Facts:
    """The facts, counted one lead at a time."""
    won = [lead for lead in leads if lead.won_at]
    days = [lead.days_to_win for lead in won if lead.days_to_win is not None]
    won_by, all_by = Counter(lead.source for lead in won), Counter(lead.source for lead in leads)
    return Facts(
        leads_count=len(leads),
        won_count=len(won),
        by_source={source: (won_by[source], count) for source, count in all_by.items()},
        median_days=statistics.median(days),
        longest_days=max(days),
        won_before_entry=sum(found < 0 for found in days),
    )
