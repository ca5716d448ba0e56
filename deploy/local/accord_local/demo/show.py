"""What the demo shows of its numbers: funnel, velocity, owners, open clocks and breaches, as tables with their definitions beneath."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from accord_local.demo.client import Client, Urls

ROWS_MAX = 14


def show_all(console: Console, caller: Client, urls: Urls) -> None:
    """Print the six tables."""
    show_funnel(console, caller.get(f"{urls.metrics}/v1/funnel", mode="cohort"))
    show_velocity(console, caller.get(f"{urls.metrics}/v1/velocity"))
    show_owners(console, caller.get(f"{urls.qualification}/v1/routing/pools"))
    show_promises(console, caller.get(f"{urls.sla_monitor}/v1/attainment", by="clause"))
    show_clocks(console, caller.get(f"{urls.sla_monitor}/v1/clocks", state="running", limit=ROWS_MAX))
    show_breaches(console, caller.get(f"{urls.sla_monitor}/v1/breaches", limit=ROWS_MAX))


def show_funnel(console: Console, answer: Mapping[str, Any]) -> None:
    """Leads by stage with the conversion from the stage before and its 95 % interval."""
    table = _table("Funnel", "stage", "leads", "from previous", "95 % interval", "from first")
    for stage in answer["groups"][0]["stages"] if answer["groups"] else ():
        interval = stage["interval_95"]
        table.add_row(
            stage["stage"],
            str(stage.get("reached", stage["entered"])),
            _percent(stage["conversion_from_previous"]),
            f"{_percent(interval[0])} – {_percent(interval[1])}" if interval else "",
            _percent(stage["conversion_from_first"]),
        )
    table.caption = f"as of {answer['as_of']}"
    console.print(table)


def show_velocity(console: Console, answer: Mapping[str, Any]) -> None:
    """Time in each stage; the Kaplan-Meier median counts the leads that still wait."""
    table = _table("Velocity", "stage", "to", "n", "waiting", "median", "p90", "median with waiting")
    for step in answer["groups"][0]["steps"] if answer["groups"] else ():
        table.add_row(
            step["from"],
            step["to"] or "(exit)",
            str(step["n"]),
            str(step["waiting"]),
            *(_duration(step[name]) for name in ("p50_s", "p90_s", "km_median_s")),
        )
    console.print(table)


def show_owners(console: Console, answer: Mapping[str, Any]) -> None:
    """Who has how many open leads, by the pools of the routing, and how many leads wait for somebody."""
    table = _table("Owners", "owner", "pool", "weight", "open leads", "capacity")
    for pool in answer["pools"]:
        for member in pool["members"]:
            capacity = "" if member["capacity"] is None else str(member["capacity"])
            table.add_row(member["owner"], pool["pool"], str(member["weight"]), str(member["open"]), capacity)
        table.add_row("(waiting)", pool["pool"], "", str(pool["waiting"]), "", end_section=True)
    table.caption = f"routing version {answer['version']}, as of {answer['as_of']}"
    console.print(table)


def show_promises(console: Console, answer: Mapping[str, Any]) -> None:
    """How often each clause was kept."""
    table = _table("Promises", "clause", "kept", "broken", "of these late", "open", "kept of all")
    for group in answer["groups"]:
        counts = (str(group[name]) for name in ("met", "breached", "met_late", "running"))
        table.add_row(group["by"]["clause"], *counts, _percent(group["attainment"]))
    table.caption = f"as of {answer['as_of']}"
    console.print(table)


def show_clocks(console: Console, answer: Mapping[str, Any]) -> None:
    """The clocks that run now, soonest first."""
    table = _table("Open clocks", "clause", "obliges", "lead", "due")
    for clock in answer["items"]:
        table.add_row(clock["clause"], clock["obliges"], _lead(clock["lead_id"]), _moment(clock["due_at"]))
    console.print(table)


def show_breaches(console: Console, answer: Mapping[str, Any]) -> None:
    """The clauses that were not kept."""
    table = _table("Breaches", "clause", "obliges", "lead", "was due", "state")
    for breach in answer["items"]:
        table.add_row(
            breach["clause"],
            breach["obliges"],
            _lead(breach["lead_id"]),
            _moment(breach["due_at"]),
            str(breach.get("state", "")),
        )
    console.print(table)


def _lead(lead_id: str | None) -> str:
    """The end of a lead's id; a clause over a period is about none."""
    return "" if lead_id is None else lead_id[-12:]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not reached"
    span = timedelta(seconds=round(seconds))
    return (
        f"{span.days} d {span.seconds // 3600} h"
        if span.days
        else f"{span.seconds // 3600} h {span.seconds % 3600 // 60} min"
    )


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")
