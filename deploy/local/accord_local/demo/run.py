"""The demo from start to end: sign, play, wait until every service has caught up, route, show. Progress bars while it works."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from accord_local.demo import play, show
from accord_local.demo.client import Client, Urls, wait_for
from accord_local.demo.sample import SampleLead, make_sample
from accord_local.keys import read_env
from accord_local.stack import Stack

SEED = 20_270_104
CATCH_UP_S = 120.0
TEMPLATES = Path(__file__).parents[3] / "agreements"
ROUTING = TEMPLATES.parent / "routing.yaml"


def run_demo(stack: Stack, console: Console) -> None:
    """Play the sample into this stack, unless it has been played already, and show what came of it."""
    urls = Urls(*(stack.services[name].url for name in ("intake", "qualification", "sla-monitor", "metrics")))
    keys = read_env(stack.options.dev_keys_path)
    with Client(keys["ACCORD_MARKETING_KEY"]) as marketing, Client(keys["ACCORD_SALES_KEY"]) as sales:
        callers = play.Callers(marketing, sales)
        if _is_already_played(marketing, urls):
            console.print("The sample was played before; these are its numbers.")
        else:
            _play_sample(callers, urls, console)
        with Client(keys["ACCORD_ADMIN_KEY"]) as admin:
            play.route(admin, marketing, urls, ROUTING.read_bytes())
        show.show_all(console, marketing, urls)
    console.print(f"Everything keeps running: {urls.metrics}/docs and its neighbours describe the interface.")


def _is_already_played(caller: Client, urls: Urls) -> bool:
    in_force = caller.get(f"{urls.metrics}/v1/plan", expect=(200, 404)).get("status") == "active"
    funnel = caller.get(f"{urls.metrics}/v1/funnel")
    return in_force and any(stage["entered"] for group in funnel["groups"] for stage in group["stages"])


def _play_sample(callers: play.Callers, urls: Urls, console: Console) -> None:
    sample = make_sample(SEED, datetime.now(UTC))
    touches, steps = sum(len(lead.touches) for lead in sample), sum(len(lead.steps) for lead in sample)
    with _bars(console) as bars:

        def bar(words: str, total: int) -> play.Advance:
            task = bars.add_task(words, total=total)
            return lambda rows: bars.advance(task, rows)

        play.sign_templates(callers, urls, TEMPLATES, bar("agreements signed", 4))
        outcomes = play.post_leads(callers.marketing, urls, sample, bar("leads posted", len(sample)))
        entered = [lead for lead in sample if lead.is_accepted]
        play.post_activities(callers.marketing, urls, entered, bar("activities posted", touches))
        play.post_decisions(callers.sales, urls, entered, bar("decisions posted", steps))
        _catch_up(callers.marketing, urls, entered, bar("leads in the funnel", len(entered)))
    console.print("Submissions: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))


def _catch_up(caller: Client, urls: Urls, entered: Sequence[SampleLead], advance: play.Advance) -> None:
    """Wait until metrics shows every lead and every win, and the SLA monitor has judged all that is due."""
    now = datetime.now(UTC)
    won = sum(1 for lead in entered for step in lead.steps if step.decision == "win")
    seen = 0

    def shown() -> bool | None:
        nonlocal seen
        groups = caller.get(f"{urls.metrics}/v1/funnel")["groups"]
        stages = {stage["stage"]: stage["entered"] for stage in (groups[0]["stages"] if groups else ())}
        leads = stages.get("inquiry", 0)
        advance(leads - seen)
        seen = leads
        return (leads == len(entered) and stages.get("won") == won) or None

    wait_for("metrics to show the whole sample", shown, timeout_s=CATCH_UP_S)
    wait_for(
        "the SLA monitor to have read past all deadlines",
        lambda: not _fetch_overdue(caller, urls, now) or None,
        timeout_s=CATCH_UP_S,
    )


def _fetch_overdue(caller: Client, urls: Urls, now: datetime) -> list[object]:
    """Clocks whose deadline has passed and that are not judged yet."""
    overdue: list[object] = caller.get(
        f"{urls.sla_monitor}/v1/clocks", state="running", due_before=now.isoformat(), limit=1
    )["items"]
    return overdue


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
