"""The Olist leads (see the reference data's README): where they are, and the facts that any funnel over them shows."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "olist"
LEADS = FOLDER / "olist_marketing_qualified_leads_dataset.csv"
DEALS = FOLDER / "olist_closed_deals_dataset.csv"

LEADS_COUNT = 8_000
WON_COUNT = 842
MEDIAN_DAYS = 14.65
LONGEST_DAYS = 427.55
WON_BY_ORIGIN = {
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
}

DEFINITION = b"""
kind: definition
title: What Olist calls a lead
glossary: {lead: "A seller who asked to sell on the marketplace."}
stages:
  - {key: mql, owner: marketing, kind: open, gate: {on: capture}}
  - {key: won, owner: sales, kind: won, from: [mql], gate: {decision: win}}
"""


@dataclass(frozen=True)
class OlistLead:
    """A lead with its day of first contact and, if it was won, the moment of that."""

    id: str
    first_contact: str
    origin: str
    won_at: str | None


def read() -> list[OlistLead]:
    """All leads, in the file's order."""
    with DEALS.open(newline="") as file:
        won = {row["mql_id"]: row["won_date"] for row in csv.DictReader(file)}
    with LEADS.open(newline="") as file:
        return [
            OlistLead(row["mql_id"], row["first_contact_date"], row["origin"] or "none", won.get(row["mql_id"]))
            for row in csv.DictReader(file)
        ]
