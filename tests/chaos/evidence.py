"""What the system shows in the end: metrics' database and the topics, compared with the ledger id by id. It waits with
a bound for what is still under way, and then judges strictly.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from accord.contracts.topics import INTAKE_EVENTS, METRICS_EVENTS, PARTITIONS_DEFAULT, QUALIFICATION_EVENTS, SLA_EVENTS
from accord_local.demo.client import UnexpectedAnswer, wait_for
from tests.chaos.ledger import Ledger
from tests.system.running import Running

SETTLED_WITHIN_S = 60.0
FLOWS_WITHIN_S = 45.0
TOPICS = (INTAKE_EVENTS, QUALIFICATION_EVENTS, SLA_EVENTS, METRICS_EVENTS)
SHOWN_MAX = 5


class MetricsView(NamedTuple):
    """What metrics holds. Lists, so that nothing that is there twice is overlooked."""

    leads: list[str]
    activities: list[tuple[str, str]]
    stages: dict[str, list[str]]
    chained: bool
    clocks: list[tuple[str, str, str]]


def rows(running: Running, database: str, sql: str) -> list[Any]:
    """The rows of a query, each as a list of its JSON values."""
    assert running.stack is not None
    assert running.stack.postgres is not None
    found = running.stack.postgres.execute(f"SELECT json_agg(to_json(q)) FROM ({sql}) q", database)
    return [list(row.values()) for row in json.loads(found or "[]") or []]


def read_metrics(running: Running) -> MetricsView:
    """All leads, activities, stage entries and clocks, read from metrics' database."""
    stages: dict[str, list[str]] = defaultdict(list)
    exits: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    entries = "SELECT lead_id, stage, entered_at, exited_at FROM stage_entry ORDER BY lead_id, position, sequence"
    for lead_id, stage, entered_at, exited_at in rows(running, "metrics", entries):
        stages[lead_id].append(stage)
        exits[lead_id].append((entered_at, exited_at))
    return MetricsView(
        [lead_id for (lead_id,) in rows(running, "metrics", "SELECT lead_id FROM lead")],
        [(one, lead_id) for one, lead_id in rows(running, "metrics", "SELECT activity_id, lead_id FROM activity")],
        dict(stages),
        all(_is_chain(way) for way in exits.values()),
        [tuple(row) for row in rows(running, "metrics", "SELECT lead_id, clause, state FROM clock")],
    )


def _is_chain(way: Sequence[tuple[str, str | None]]) -> bool:
    """Whether each stage was left at the moment at which the next was entered, and the last was not left."""
    left = [exited_at for _, exited_at in way]
    return left == [*(entered_at for entered_at, _ in way[1:]), None]


def await_settled(running: Running, ledger: Ledger, clause: str) -> MetricsView:
    """What metrics shows once everything in the ledger has arrived there, and the clocks of `clause` are met; or what it
    shows when that has taken too long, for then a comparison says what is missing.
    """

    def settled() -> MetricsView | None:
        shown = read_metrics(running)
        arrived = (
            set(ledger.leads) <= set(shown.leads)
            and set(ledger.activities) <= {activity_id for activity_id, _ in shown.activities}
            and all("mql" in shown.stages.get(lead_id, ()) for lead_id in ledger.leads)
            and all("sal" in shown.stages.get(lead_id, ()) for lead_id in ledger.decisions)
            and set(ledger.leads)
            <= {lead_id for lead_id, name, state in shown.clocks if (name, state) == (clause, "met")}
        )
        return shown if arrived else None

    try:
        return wait_for("metrics to show all that was acknowledged", settled, timeout_s=SETTLED_WITHIN_S, every_s=0.5)
    except UnexpectedAnswer:
        return read_metrics(running)


def await_flow(running: Running, ledger: Ledger) -> None:
    """Until a lead that was acknowledged only after this call has become an MQL in metrics."""
    known, _, _ = ledger.counts()

    def flows() -> bool | None:
        later = ledger.leads_after(known)
        if not later:
            return None
        ids = ", ".join(f"'{lead_id}'" for lead_id in later)
        sql = f"SELECT 1 AS one FROM stage_entry WHERE stage = 'mql' AND lead_id IN ({ids}) LIMIT 1"
        return bool(rows(running, "metrics", sql)) or None

    wait_for("new leads to come through to metrics", flows, timeout_s=FLOWS_WITHIN_S)


def assert_exactly_what_was_acknowledged(shown: MetricsView, ledger: Ledger, clause: str) -> None:
    """Each acknowledged lead, activity and decision once, in its order, and nothing that nobody sent."""
    assert _more_than_once(shown.leads) == []
    assert _difference(shown.leads, ledger.leads.keys() | ledger.aside) == []
    assert _more_than_once(activity_id for activity_id, _ in shown.activities) == []
    assert _difference(shown.activities, ledger.activities.items()) == []
    ways = {lead_id: ["inquiry", "mql"] for lead_id in ledger.leads}
    ways |= {lead_id: ["inquiry", "mql", "sal"] for lead_id in ledger.decisions}
    ways |= {lead_id: ["inquiry"] for lead_id in ledger.aside}
    assert {lead_id: way for lead_id, way in shown.stages.items() if way != ways.get(lead_id)} == {}
    assert shown.chained
    of_clause = [(lead_id, state) for lead_id, name, state in shown.clocks if name == clause]
    assert _more_than_once(lead_id for lead_id, _ in of_clause) == []
    expected = [(lead_id, "met") for lead_id in ledger.leads] + [(lead_id, "running") for lead_id in ledger.aside]
    assert _difference(of_clause, expected) == []


def _more_than_once(items: Any) -> list[Any]:
    return [item for item, count in Counter(items).items() if count > 1][:SHOWN_MAX]


def _difference(one: Any, other: Any) -> list[Any]:
    return sorted(set(one) ^ set(other))[:SHOWN_MAX]


class PublishedEvent(NamedTuple):
    """An event of a topic at its first sighting."""

    partition: int
    key: str
    type: str
    data: dict[str, Any]


@asynccontextmanager
async def reader(running: Running, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group, at the beginning of every partition."""
    assert running.stack is not None
    assert running.stack.kafka is not None
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=running.stack.kafka.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


def records_of(running: Running, topic: str) -> list[ConsumerRecord]:
    """All records that are in a topic now, in order within each partition."""
    return asyncio.run(_records_of(running, topic))


async def _records_of(running: Running, topic: str) -> list[ConsumerRecord]:
    found: list[ConsumerRecord] = []
    async with reader(running, topic) as consumer, asyncio.timeout(SETTLED_WITHIN_S):
        assert len(consumer.assignment()) == PARTITIONS_DEFAULT
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(part) < end for part, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=200, max_records=5000)).values():
                found.extend(batch)
    return found


def read_published(running: Running, topic: str) -> list[PublishedEvent]:
    """The readable events of a topic, each once, at its first sighting."""
    seen: set[bytes] = set()
    told: list[PublishedEvent] = []
    for record in records_of(running, topic):
        headers = dict(record.headers)
        event_id, type_ = headers.get("ce_id"), headers.get("ce_type", b"").decode()
        if event_id is None or event_id in seen or type_.startswith("watermark."):
            continue
        seen.add(event_id)
        try:
            data = json.loads(record.value)
        except ValueError:
            continue
        told.append(PublishedEvent(record.partition, record.key.decode(), type_, data))
    return told


def assert_published_in_order(running: Running) -> None:
    """On each topic a key has one partition, and the events of a lead or a clock are numbered 1, 2, 3 … without a gap."""
    for topic in TOPICS:
        partitions: dict[str, set[int]] = defaultdict(set)
        sequences: dict[str, list[int]] = defaultdict(list)
        for event in read_published(running, topic):
            partitions[event.key].add(event.partition)
            if "sequence" in event.data:
                sequences[event.data.get("clock_id") or event.key].append(event.data["sequence"])
        assert {key for key, parts in partitions.items() if len(parts) > 1} == set(), topic
        broken = {key: found for key, found in sequences.items() if found != list(range(1, len(found) + 1))}
        assert dict(list(broken.items())[:SHOWN_MAX]) == {}, topic
