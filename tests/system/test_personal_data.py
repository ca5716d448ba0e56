"""Personal data stays in intake's database: it is looked for, value by value, wherever else it could have gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from accord.contracts.topics import PARTITIONS_DEFAULT, TOPIC_OF
from accord_local.demo.client import wait_for
from accord_local.demo.play import Callers, sign_templates
from accord_local.postgres import PostgresServer
from tests.system.conftest import Advance
from tests.system.one_person import (
    Caller,
    Person,
    be_decided_about,
    be_imported,
    be_looked_up,
    be_put_right,
    be_sent_by_a_tool,
    decide,
    enter,
    make_mistakes,
)
from tests.system.running import Running
from tests.system.spans import Collector

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]

READ_WITHIN_S = 60.0
OTHER_DATABASES = ("qualification", "sla", "metrics")
NOTE_TABLE = ("qualification", "decision_note")
"""Where the note of a decision lives; it is nowhere else, and nothing else is there."""


@pytest.fixture(scope="module")
def local(accord: Running) -> Running:
    if accord.stack is None:
        pytest.skip("the databases, topics and logs of a stack that somebody else runs are out of reach")
    return accord


@pytest.fixture(scope="module")
def person(local: Running, templates: Path, quietly: Advance) -> Person:
    """Somebody who did everything that can be done, and of whom every kind of error was made."""
    sign_templates(Callers(local.marketing, local.sales), local.urls, templates, quietly)
    person = Person()
    lead_id = enter(local, person)
    make_mistakes(local, person)
    be_looked_up(local, person, lead_id)
    decide(local, person, lead_id)
    be_decided_about(local, person)
    be_put_right(local, person, lead_id)
    be_sent_by_a_tool(local, person, "form")
    be_imported(local, person)
    return person


def test_the_values_are_in_intakes_database(local: Running, person: Person) -> None:
    """The search finds what is there, in text, in JSON and in bytes."""
    rows = [row for _, row in rows_of(local, "intake")]
    for what in (
        person.email,
        person.external_id,
        "title",
        "remark",
        "property",
        "consent",
        "best title",
        "release note",
        "discard reason",
        "form title",
        "row title",
        f"+1202555{person.digits}",
    ):
        assert any(what in row and found_in(row, person) for row in rows), what


@pytest.mark.parametrize("database", OTHER_DATABASES)
def test_no_other_database_holds_any_of_them(database: str, local: Running, person: Person) -> None:
    found = {table for table, row in rows_of(local, database) if found_in(row, person)}
    assert found <= {NOTE_TABLE[1] if database == NOTE_TABLE[0] else None}
    notes = [
        row for table, row in rows_of(local, database) if (database, table) == NOTE_TABLE and found_in(row, person)
    ]
    assert len(notes) == (database == NOTE_TABLE[0])


def test_no_event_carries_any_of_them(local: Running, person: Person) -> None:
    assert said_in_topics(local, person) == []


def test_no_log_and_no_metric_says_any_of_them(local: Running, person: Person) -> None:
    assert said_in_logs(local, person) == []
    assert said_in_metrics(local, person) == []


def test_no_trace_says_any_of_them(local: Running, person: Person, spans: Collector) -> None:
    assert local.stack is not None
    for service in local.stack.services:
        wait_for(f"spans of {service}", lambda of=f"accord-{service}": of in spans.text() or None)
    wait_for("the span of an export", lambda: "/v1/leads/{lead_id}/export" in spans.text() or None)
    assert not found_in(spans.text(), person)


def test_an_erased_person_is_nowhere_and_everybody_has_heard_of_it(
    local: Running, person: Person, spans: Collector
) -> None:
    """Somebody whom every record names by one of their keys; then what the other person did is still there."""
    gone = Person()
    lead_id = enter(local, gone, nameless=False)
    decide(local, gone, lead_id)
    be_decided_about(local, gone)
    be_put_right(local, gone, lead_id)
    be_sent_by_a_tool(local, gone, "another form", nameless=False)
    be_imported(local, gone, nameless=False)
    assert len({table for table, row in rows_of(local, "intake") if found_in(row, gone)}) >= 8
    call = Caller(local)
    proof = call("GET", call("DELETE", f"/v1/leads/{lead_id}", 204).headers["location"], 200).json()
    assert {table for table, row in rows_of(local, "intake") if found_in(row, gone)} == set()
    for other in (lead_id, *proof["lead_ids"]):
        call("GET", f"/v1/leads/{other}", 410)
        call("GET", f"/v1/leads/{other}/export", 410)

    urls = local.urls
    for other in proof["lead_ids"]:
        wait_for(
            "qualification to forget",
            lambda of=other: (
                local.sales.get(f"{urls.qualification}/v1/leads/{of}", expect=(200, 404, 410)).get("status") == 410
                or None
            ),
        )
    wait_for(
        "metrics to forget", lambda: local.sales.get(f"{urls.metrics}/v1/leads/{lead_id}/timeline")["erased"] or None
    )
    for database in OTHER_DATABASES:
        assert {table for table, row in rows_of(local, database) if found_in(row, gone)} == set()
    assert said_in_topics(local, gone) + said_in_logs(local, gone) + said_in_metrics(local, gone) == []
    assert not found_in(spans.text(), gone)
    assert {table for table, row in rows_of(local, "intake") if found_in(row, person)} >= {"lead", "submission"}


def said_in_topics(accord: Running, person: Person) -> list[tuple[str, str]]:
    """Topic and content of records with a value of theirs."""
    records = asyncio.run(records_of(accord))
    assert {topic for topic, _ in records} == set(TOPIC_OF.values())
    return sorted({record for record in records if found_in(record[1], person)})


def said_in_logs(accord: Running, person: Person) -> list[str]:
    """Lines of any process's log with a value of theirs."""
    assert accord.stack is not None
    logs = sorted(accord.stack.options.data_dir.rglob("*.log"))
    assert {path.stem for path in logs} >= {*accord.stack.services}
    return [f"{path.name}: {line}" for path in logs for line in lines_of(path) if found_in(line, person)]


def said_in_metrics(accord: Running, person: Person) -> list[str]:
    """Lines of any service's metrics with a value of theirs."""
    assert accord.stack is not None
    found: list[str] = []
    for service in accord.stack.services.values():
        page = httpx.get(f"{service.url}/metrics", trust_env=False).text
        assert "# TYPE" in page
        found += [f"{service.spec.name}: {line}" for line in page.splitlines() if found_in(line, person)]
    return found


def lines_of(path: Path) -> list[str]:
    """A log's lines; those that Kafka keeps its records in have any bytes."""
    return path.read_text(errors="replace").splitlines()


def found_in(text: str, person: Person) -> bool:
    """Whether a value is there as it was sent, or as the hexadecimal digits of its bytes, as PostgreSQL shows them."""
    lower = text.lower()
    return any(needle in lower or needle.encode().hex() in lower for needle in person.needles)


def rows_of(accord: Running, database: str) -> Iterator[tuple[str, str]]:
    """Table and content of every row of every table."""
    assert accord.stack is not None
    postgres = accord.stack.postgres
    assert postgres is not None
    for table in tables_of(postgres, database):
        for row in json.loads(postgres.execute(f'SELECT json_agg(t::text) FROM "{table}" t', database) or "[]") or []:
            yield table, row


def tables_of(postgres: PostgresServer, database: str) -> Iterable[str]:
    return postgres.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database).split()


async def records_of(accord: Running) -> list[tuple[str, str]]:
    """Topic and content (key, headers, value) of every record that is in a topic now."""
    assert accord.stack is not None
    assert accord.stack.kafka is not None
    found: list[tuple[str, str]] = []
    topics = sorted(TOPIC_OF.values())
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=accord.stack.kafka.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    try:
        await consumer.start()
        assert len(consumer.assignment()) == len(topics) * PARTITIONS_DEFAULT
        async with asyncio.timeout(READ_WITHIN_S):
            ends: dict[Any, int] = await consumer.end_offsets(list(consumer.assignment()))
            while any([await consumer.position(part) < end for part, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=200, max_records=5000)).values():
                    found += [(one.topic, f"{one.key!r} {one.headers!r} {one.value!r}") for one in batch]
    finally:
        await consumer.stop()
    return found
