"""Personal data stays in intake's database: it is looked for, value by value, wherever else it could have gone."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from tests.system.conftest import Advance
from tests.system.running import Running

from accord.contracts.topics import PARTITIONS_DEFAULT, TOPIC_OF
from accord_local.demo.client import wait_for
from accord_local.demo.play import Callers, sign_templates
from accord_local.postgres import PostgresServer

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]

READ_WITHIN_S = 60.0
OTHER_DATABASES = ("qualification", "sla", "metrics")
NOTE_TABLE = ("qualification", "decision_note")
"""Where the note of a decision lives; it is nowhere else, and nothing else is there."""


@dataclass(frozen=True)
class Person:
    """Made-up values, each with a word that nothing else holds, in the spelling in which it was sent."""

    word: str = field(default_factory=lambda: f"zq{uuid.uuid4().hex[:10]}")
    digits: str = field(default_factory=lambda: f"{uuid.uuid4().int % 10_000:04d}")

    @property
    def email(self) -> str:
        return f"{self.word}.mail@initech.example.com"

    @property
    def phone(self) -> str:
        return f"+1 202 555 {self.digits}"

    @property
    def external_id(self) -> str:
        return f"{self.word}.external@initech.example.com"

    def says(self, what: str) -> str:
        return f"{self.word} {what} in so many words"

    @property
    def needles(self) -> tuple[str, ...]:
        """What may be found nowhere else: the word is part of every value but the phone."""
        return self.word, f"202555{self.digits}", f"202 555 {self.digits}", f"202-555-{self.digits}"

    def submission(self, **changes: object) -> dict[str, object]:
        return {
            "source": "website",
            "external_id": self.external_id,
            "email": self.email,
            "phone": self.phone,
            "first_name": f"{self.word}-first".title(),
            "last_name": f"{self.word}-last".title(),
            "company": "Initech",
            "title": self.says("title"),
            "attributes": {"employee_count": 250, "industry": "541511", "remark": self.says("remark")},
            "campaign": {
                "name": "spring",
                "landing_page": f"/hello?who={self.word}",
                "referrer": self.says("referrer"),
            },
            "consent": {"basis": "consent", "text": self.says("consent")},
            **changes,
        }


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
    return person


def enter(accord: Running, person: Person) -> str:
    """Two leads that turn out to be one, with activities, a rejected record and a quarantined one."""
    leads, activities = f"{accord.urls.intake}/v1/leads", f"{accord.urls.intake}/v1/activities"
    apart = {
        "source": "list",
        "phone": person.phone,
        "last_name": person.says("list"),
        "attributes": {"industry": "541511"},
    }
    accord.marketing.post(leads, apart)
    by_mail = person.submission(phone=None)
    accord.marketing.post(f"{leads}:batch", [by_mail])
    lead_id: str = accord.marketing.post(leads, person.submission())["lead_id"]
    for who in (
        {"lead_id": lead_id},
        {"email": person.email},
        {"external": {"source": "website", "id": person.external_id}},
    ):
        activity = {**who, "kind": "demo.requested", "by": "lead", "properties": {"text": person.says("property")}}
        accord.marketing.post(activities, activity)
    rejected = person.submission(email=f"{person.word}@mailinator.com", phone=None, external_id=f"{person.word}-2")
    accord.marketing.post(leads, rejected, expect=(422,))
    quarantined = person.submission(
        email=f"{person.word}.q@initech.example.com",
        phone=None,
        external_id=f"{person.word}-3",
        attributes={"employee_count": 250, "industry": "111111"},
    )
    assert accord.marketing.post(leads, quarantined)["verdict"] == "quarantined"
    return lead_id


def make_mistakes(accord: Running, person: Person) -> None:
    """Requests that cannot be read or do not fit, each with personal values where they do not belong."""
    leads, activities = f"{accord.urls.intake}/v1/leads", f"{accord.urls.intake}/v1/activities"
    broken = f'{{"email": "{person.email}",'.encode()
    accord.marketing.post(leads, content=broken, headers={"Content-Type": "application/json"}, expect=(400,))
    accord.marketing.post(leads, {"source": person.email, person.word: person.says("field")}, expect=(422,))
    accord.marketing.post(leads, person.submission(attributes={person.email: {"a": person.word}}), expect=(422,))
    unreachable = {"email": f"{person.word} is no address", "phone": person.word, "external_id": f"{person.word}-4"}
    accord.marketing.post(leads, person.submission(**unreachable), expect=(200, 201, 422))
    for changes in ({"kind": person.email}, {"actor": person.email}, {"email": f"{person.word}@nobody.example.com"}):
        activity = {"email": person.email, "kind": "page.viewed", "by": "lead", **changes}
        accord.marketing.post(activities, activity, expect=(404, 422))
    for base in (accord.urls.qualification, accord.urls.sla_monitor, accord.urls.metrics):
        accord.admin.get(f"{base}/v1/leads/{person.email}", expect=(404, 422))
        accord.admin.get(f"{base}/v1/{person.word}", expect=(404,), q=person.email)


def be_looked_up(accord: Running, person: Person, lead_id: str) -> None:
    leads = f"{accord.urls.intake}/v1/leads"
    accord.admin.get(f"{leads}/{lead_id}")
    accord.admin.get(leads, email=person.email)
    accord.admin.get(leads, phone=person.phone)
    accord.admin.get(leads, external=f"website:{person.external_id}")


def decide(accord: Running, person: Person, lead_id: str) -> None:
    """A decision with a note, and some that are refused; then until metrics shows it, so that everything has gone its way."""
    lead = f"{accord.urls.qualification}/v1/leads/external:website:{person.external_id}"
    wait_for("the lead to be an MQL", lambda: accord.sales.get(lead, expect=(200, 404)).get("stage") == "mql" or None)
    for wrong in (
        {"decision": "accept", "reason": person.word, "note": person.says("note")},
        {"decision": "disqualify", "reason": person.email, "note": person.says("note")},
        {"decision": "accept", "fields": {person.word: person.email}, "note": person.says("note")},
    ):
        accord.sales.post(f"{lead}/decisions", wrong, expect=(422,))
    accord.sales.post(f"{lead}/decisions", {"decision": "accept", "note": person.says("note")})
    batch = f"{accord.urls.qualification}/v1/decisions:batch"
    accord.sales.post(
        batch, [{"lead": f"external:website:{person.word}", "decision": "accept", "note": person.says("note")}]
    )

    def arrived() -> bool | None:
        timeline = accord.marketing.get(f"{accord.urls.metrics}/v1/leads/{lead_id}/timeline", expect=(200, 404))
        return timeline.get("stage") == "sal" or None

    wait_for("metrics to show the decision", arrived)


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
    records = asyncio.run(records_of(local))
    assert {topic for topic, _ in records} == set(TOPIC_OF.values())
    assert sorted({record for record in records if found_in(record[1], person)}) == []


def test_no_log_and_no_metric_says_any_of_them(local: Running, person: Person) -> None:
    assert local.stack is not None
    logs = sorted(local.stack.options.data_dir.rglob("*.log"))
    assert {path.stem for path in logs} >= {*local.stack.services}
    said = [f"{path.name}: {line}" for path in logs for line in lines_of(path) if found_in(line, person)]
    assert said == []
    for service in local.stack.services.values():
        page = httpx.get(f"{service.url}/metrics", trust_env=False).text
        assert "# TYPE" in page
        assert [line for line in page.splitlines() if found_in(line, person)] == [], service.spec.name


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
