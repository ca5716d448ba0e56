"""Plays a sample over HTTP: signs the four agreements with both keys, posts the leads, their activities and the decisions of sales, and
has the open leads given to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from accord_local.demo.client import Client, UnexpectedAnswer, Urls, wait_for
from accord_local.demo.sample import SampleLead

T = TypeVar("T")
BATCH_ROWS = 100
PAGE_ROWS = 500
ROUTED_STAGES = ("mql", "sal", "sql", "opportunity")
"""Where the template definition has sales take over, so that a lead there has an owner or waits for one."""
Advance = Callable[[int], None]
"""Called with the number of rows that were just done."""


@dataclass(frozen=True)
class Callers:
    """The two departments. Each signs with its own key."""

    marketing: Client
    sales: Client


def sign_templates(callers: Callers, urls: Urls, templates: Path, advance: Advance) -> None:
    """Draft, propose and sign each of the four documents, unless one of its kind is in force already."""
    for kind, base in (
        ("policy", urls.intake),
        ("definition", urls.qualification),
        ("sla", urls.sla_monitor),
        ("plan", urls.metrics),
    ):
        sign(callers, f"{base}/v1/{kind}", (templates / f"{kind}.yaml").read_bytes())
        advance(1)


def sign(callers: Callers, url: str, content: bytes) -> None:
    """Bring a YAML document into force at `url` by both signatures."""
    if callers.marketing.get(url, expect=(200, 404)).get("status") == "active":
        return
    draft = callers.marketing.post(f"{url}/versions", content=content, headers={"Content-Type": "application/yaml"})
    version = f"{url}/versions/{draft['version']}"
    proposed = callers.marketing.post(f"{version}/propose")
    for caller in (callers.marketing, callers.sales):
        caller.post(f"{version}/signatures", {"content_sha256": proposed["content_sha256"]})
    wait_for(f"{url} to come into force", lambda: _is_in_force(callers.marketing, url))


def _is_in_force(caller: Client, url: str) -> bool | None:
    return caller.get(url, expect=(200, 404)).get("status") == "active" or None


def post_leads(caller: Client, urls: Urls, sample: Sequence[SampleLead], advance: Advance) -> Counter[str]:
    """Post all submissions; the count of each outcome, `rejected` among them."""
    outcomes: Counter[str] = Counter()
    for chunk in _chunks(sample):
        answer = caller.post(f"{urls.intake}/v1/leads:batch", [lead.submission for lead in chunk])
        outcomes.update(row.get("outcome", "rejected") for row in answer["results"])
        advance(len(chunk))
    return outcomes


def post_activities(caller: Client, urls: Urls, sample: Sequence[SampleLead], advance: Advance) -> int:
    """Post what the leads, marketing and sales did, in time order; the number of activities."""
    touches = sorted(((touch.at, lead, touch) for lead in sample for touch in lead.touches), key=lambda found: found[0])
    for chunk in _chunks(touches):
        rows = [
            {
                "external": {"source": lead.source, "id": lead.external_id},
                "kind": touch.kind,
                "by": touch.by,
                "actor_kind": touch.actor_kind,
                "occurred_at": at.isoformat(),
            }
            for at, lead, touch in chunk
        ]
        answer = caller.post(f"{urls.intake}/v1/activities:batch", rows)
        _refuse_failures(answer["results"])
        advance(len(chunk))
    return len(touches)


def post_decisions(caller: Client, urls: Urls, sample: Sequence[SampleLead], advance: Advance) -> int:
    """Post what sales decided, in time order, once the leads are where they can be decided on; the number of decisions."""
    deciding = [lead for lead in sample if lead.steps]
    _await_mql(caller, urls, deciding)
    steps = sorted(((step.at, lead, step) for lead in deciding for step in lead.steps), key=lambda found: found[0])
    for chunk in _chunks(steps):
        rows: list[dict[str, object]] = []
        for at, lead, step in chunk:
            row: dict[str, object] = {
                "lead": f"external:{lead.source}:{lead.external_id}",
                "decision": step.decision,
                "occurred_at": at.isoformat(),
            }
            if step.reason:
                row["reason"] = step.reason
            if step.fields:
                row["fields"] = step.fields
            rows.append(row)
        answer = caller.post(f"{urls.qualification}/v1/decisions:batch", rows)
        _refuse_failures(answer["results"])
        advance(len(chunk))
    return len(steps)


def routing_document(text: bytes) -> dict[str, Any]:
    """The routing to start from, but for two things that a sample lacks.

    Everybody is at work, since the demo plays half a year in a minute, at whatever hour it is run. And accounts are not kept together,
    since all the sample's people write from example.com, which is one company.
    """
    document: dict[str, Any] = yaml.safe_load(text)
    document.pop("calendars", None)
    document["same_account"] = False
    document["people"] = {
        name: {term: value for term, value in terms.items() if term not in ("calendar", "absences")}
        for name, terms in document["people"].items()
    }
    return document


def route(admin: Client, caller: Client, urls: Urls, text: bytes) -> None:
    """Put the routing into force, unless one is, and wait until every open lead of sales has an owner or waits for one.

    It comes after the sample, so the leads are given out in the order of their arrival, and each time to the same people.
    """
    url = f"{urls.qualification}/v1/routing"
    if admin.get(url, expect=(200, 404)).get("version") is None:
        admin.put(url, routing_document(text))

    def all_given() -> bool | None:
        waiting = sum(pool["waiting"] for pool in caller.get(f"{url}/pools")["pools"])
        return waiting == sum(_without_owner(caller, urls, stage) for stage in ROUTED_STAGES) or None

    wait_for("every lead to have an owner or to wait for one", all_given)


def _without_owner(caller: Client, urls: Urls, stage: str) -> int:
    url = f"{urls.qualification}/v1/leads"
    answer = caller.get(url, stage=stage, limit=PAGE_ROWS)
    found = _ownerless(answer)
    while (cursor := answer["next_cursor"]) is not None:
        answer = caller.get(url, stage=stage, limit=PAGE_ROWS, cursor=cursor)
        found += _ownerless(answer)
    return found


def _ownerless(answer: Any) -> int:
    return sum(lead["owner"] is None for lead in answer["items"])


def _await_mql(caller: Client, urls: Urls, leads: Sequence[SampleLead]) -> None:
    for lead in leads:
        url = f"{urls.qualification}/v1/leads/external:{lead.source}:{lead.external_id}"
        wait_for(
            f"{lead.external_id} to become mql",
            lambda url=url: caller.get(url, expect=(200, 404)).get("stage") == "mql" or None,  # type: ignore[misc]
        )


def _refuse_failures(results: Sequence[dict[str, object]]) -> None:
    for row in results:
        if not str(row["status"]).startswith("2"):
            raise UnexpectedAnswer(f"a row of the sample was refused: {row}")


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_ROWS):
        yield items[start : start + BATCH_ROWS]
