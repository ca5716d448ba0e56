"""The whole process, as it is started in production: from intake's topic to its own, over real Kafka and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from tests.watermarks import announce
from uuid_utils.compat import uuid7

from accord.contracts.envelope import Event, decode, encode
from accord.contracts.qualification_events import LeadAssigned, LeadDecided, LeadScored, LeadStageChanged
from accord.contracts.sla_events import ClockBreached
from accord.messaging.kafka import ensure_topics
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.watermark_reader import WatermarkReader
from accord.settings import KafkaSettings

AWAITED_S = 60.0


@asynccontextmanager
async def running(environment: dict[str, str]):
    """The service in the role `all`, asked to stop at the end; it must end with exit code 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "qualification.main", "all", env=environment, stdout=asyncio.subprocess.PIPE
    )
    port = await asyncio.wait_for(_port(process), AWAITED_S)
    drain = asyncio.create_task(process.stdout.read())
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield http, process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), AWAITED_S)
        output = (await drain).decode()
    assert code in (0, -signal.SIGKILL), output


async def _port(process: asyncio.subprocess.Process) -> int:
    import orjson

    assert process.stdout is not None
    while line := await process.stdout.readline():
        said = orjson.loads(line)
        if said.get("event") == "started":
            return int(said["port"])
    raise AssertionError("the service did not start")


@pytest.fixture
def environment(database_url, kafka_server, kafka_topic_prefix, keys_file) -> dict[str, str]:
    return {
        **os.environ,
        "ACCORD_DATABASE_URL": database_url,
        "ACCORD_KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
        "ACCORD_KAFKA_TOPIC_PREFIX": kafka_topic_prefix,
        "ACCORD_API_KEYS_FILE": str(keys_file),
        "ACCORD_PORT": "0",
    }


class Topics:
    """Writes to intake's topic as intake's relay does, and reads qualification's."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._bootstrap, self._prefix = bootstrap, prefix
        self.read: list[tuple[UUID, object]] = []

    async def __aenter__(self):
        settings = KafkaSettings(bootstrap_servers=self._bootstrap, topic_prefix=self._prefix)
        await ensure_topics(settings, ["intake-events", "qualification-events", "sla-events"])
        self._producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap)
        self._consumer = AIOKafkaConsumer(
            f"{self._prefix}qualification-events", bootstrap_servers=self._bootstrap, auto_offset_reset="earliest"
        )
        await self._producer.start()
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._consumer.stop()

    async def write(self, *events, ids: list[UUID] | None = None, topic: str = "intake-events") -> None:
        for number, data in enumerate(events):
            event = Event(ids[number] if ids else uuid7(), f"/{topic.removesuffix('-events')}", data)
            key, value, headers = encode(event)
            await self._producer.send_and_wait(f"{self._prefix}{topic}", value, key, headers=headers)

    async def watermarks(self, topic: str, at: datetime) -> None:
        """Announce that all which was recorded before `at` is published."""
        await announce(KafkaSettings(bootstrap_servers=self._bootstrap, topic_prefix=self._prefix), topic, at)

    async def announced(self, topic: str) -> datetime:
        """What is announced of a topic, once something is."""
        settings = KafkaSettings(bootstrap_servers=self._bootstrap, topic_prefix=self._prefix)
        heard, stop = WatermarkReader(KafkaLog(settings), consumer="test", topics=[topic]), asyncio.Event()
        running = asyncio.create_task(heard.run(stop))
        async with asyncio.timeout(AWAITED_S):
            while (newest := heard.board.newest(topic)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        stop.set()
        await running
        return newest

    async def write_raw(self, value: bytes, key: bytes, headers) -> None:
        await self._producer.send_and_wait(f"{self._prefix}intake-events", value, key, headers=headers)

    async def until(self, condition) -> list[object]:
        """Read on until the condition holds of everything that was read about leads."""
        async with asyncio.timeout(AWAITED_S):
            while not condition(self.data()):
                batch = await self._consumer.getmany(timeout_ms=200)
                for records in batch.values():
                    for record in records:
                        event = decode(record.value, record.headers)
                        self.read.append((event.id, event.data))
        return self.data()

    def data(self) -> list[object]:
        return [
            data
            for _, data in self.read
            if isinstance(data, LeadScored | LeadStageChanged | LeadDecided | LeadAssigned)
        ]


@pytest.fixture
async def topics(kafka_server, kafka_topic_prefix):
    async with Topics(kafka_server.bootstrap_servers, kafka_topic_prefix) as both:
        yield both


def stages(data, lead_id: UUID) -> list[str]:
    return [event.stage for event in data if isinstance(event, LeadStageChanged) and event.lead_id == lead_id]


async def answered(http: httpx.AsyncClient, lead_id: UUID, headers, condition) -> None:
    """Ask for the lead until it is known and the condition holds of the answer."""
    async with asyncio.timeout(AWAITED_S):
        while True:
            answer = await http.get(f"/v1/leads/{lead_id}", headers=headers)
            if answer.status_code == 200 and condition(answer.json()):
                return
            await asyncio.sleep(0.05)


async def sign(http: httpx.AsyncClient, content, auth) -> None:
    drafted = (await http.post("/v1/definition/versions", json=content, headers=auth("marketing"))).json()
    at = f"/v1/definition/versions/{drafted['version']}"
    await http.post(f"{at}/propose", headers=auth("marketing"))
    for department in ("marketing", "sales"):
        signed = await http.post(
            f"{at}/signatures", json={"content_sha256": drafted["content_sha256"]}, headers=auth(department)
        )
        assert signed.is_success, signed.text


@pytest.mark.slow
async def test_a_lead_goes_from_intakes_topic_to_its_own(environment, topics, content, new_lead, auth, day):
    early, late = new_lead(), new_lead()
    async with running(environment) as (http, _):
        await topics.write(early.captured(day(0), employee_count=250), early.did("demo.requested", day(1)))
        await answered(http, early.lead_id, auth("reader"), lambda lead: lead["stage"] is None)
        await sign(http, content, auth)
        await topics.write(late.captured(day(2), employee_count=250))
        data = await topics.until(
            lambda read: stages(read, early.lead_id) == ["inquiry", "mql"] and stages(read, late.lead_id) == ["inquiry"]
        )
        entered = next(event for event in data if isinstance(event, LeadStageChanged) and event.stage == "mql")
        assert entered.occurred_at == day(1)
        decided = await http.post(
            f"/v1/leads/{early.lead_id}/decisions", json={"decision": "accept"}, headers=auth("sales")
        )
        assert decided.status_code == 201, decided.text
        await topics.until(lambda read: stages(read, early.lead_id) == ["inquiry", "mql", "sal"])
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await http.get(path)).status_code == 200
        assert (await http.get("/v1/admin/outbox", headers=auth("admin"))).status_code == 200


@pytest.mark.slow
async def test_killed_amid_its_work_it_loses_nothing_and_does_nothing_twice(
    environment, topics, content, new_lead, auth, day
):
    tellers = [new_lead() for _ in range(150)]
    async with running(environment) as (http, process):
        await sign(http, content, auth)
        await topics.write(*[about.captured(day(0), employee_count=250) for about in tellers])
        await topics.until(lambda read: len(read) > 0)
        process.kill()
        await process.wait()
    await topics.write(*[about.did("demo.requested", day(1)) for about in tellers])
    async with running(environment):
        data = await topics.until(lambda read: all(stages(read, about.lead_id)[-1:] == ["mql"] for about in tellers))
    once = {id_: item for id_, item in topics.read if item in data}
    for about in tellers:
        told = [item for item in once.values() if item.lead_id == about.lead_id]
        assert [item.sequence for item in told] == [1, 2, 3, 4]


@pytest.mark.slow
async def test_an_event_that_cannot_be_read_is_set_aside_and_delays_no_other(
    environment, topics, content, new_lead, auth, day
):
    about = new_lead()
    captured = about.captured(day(0), employee_count=250)
    key, value, headers = encode(Event(uuid7(), "/intake", captured))
    broken = value.replace(b'"sequence":1', b'"sequence":"one"')
    async with running(environment) as (http, _):
        await sign(http, content, auth)
        await topics.write_raw(broken, key, headers)
        await topics.write(captured)
        await topics.until(lambda read: stages(read, about.lead_id) == ["inquiry"])
        letters = (await http.get("/v1/admin/dead-letters", headers=auth("admin"))).json()
        assert [letter["type"] for letter in letters["items"]] == ["lead.captured.v1"]


@pytest.mark.slow
async def test_an_event_that_is_delivered_twice_is_applied_once(environment, topics, content, new_lead, auth, day):
    about, marker = new_lead(), new_lead()
    click, id_ = None, uuid7()
    async with running(environment) as (http, _):
        await sign(http, content, auth)
        await topics.write(about.captured(day(0), employee_count=250))
        click = about.did("email.clicked", day(1))
        await topics.write(click, click, ids=[id_, id_])
        await topics.write(about.did("page.viewed", day(2)), marker.captured(day(0)))
        await topics.until(lambda read: stages(read, marker.lead_id) == ["inquiry"])
        await answered(
            http,
            about.lead_id,
            auth("reader"),
            lambda lead: any("1 x email.clicked" in line["reason"] for line in lead["score"]),
        )


ROUTING = {
    "kind": "routing",
    "title": "Who gets which lead",
    "pools": {"all": {"members": [{"owner": "ann"}, {"owner": "bob"}]}},
    "rules": [{"key": "all", "pool": "all"}],
}


def owners(data, lead_id: UUID) -> list[str | None]:
    return [event.owner for event in data if isinstance(event, LeadAssigned) and event.lead_id == lead_id]


def broken(lead_id: UUID, owner: str) -> ClockBreached:
    now = datetime.now(UTC)
    return ClockBreached(
        clock_id=uuid7(),
        lead_id=lead_id,
        sequence=2,
        clause="first-touch",
        obliges="sales",
        sla_version=1,
        owner=owner,
        started_at=now - timedelta(hours=1),
        due_at=now,
        occurred_at=now,
        recorded_at=now,
        breach_id=uuid7(),
        reassign=True,
    )


@pytest.mark.slow
async def test_a_lead_gets_an_owner_and_after_a_broken_promise_another(
    environment, topics, content, new_lead, auth, day
):
    about, marker = new_lead(), new_lead()
    async with running(environment) as (http, _):
        await sign(http, content, auth)
        put = await http.put("/v1/routing", json=ROUTING, headers=auth("admin"))
        assert put.status_code == 201, put.text
        await topics.write(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
        await topics.until(lambda read: owners(read, about.lead_id) == ["ann"])
        id_, breach = uuid7(), broken(about.lead_id, "ann")
        await topics.write(breach, breach, ids=[id_, id_], topic="sla-events")
        await topics.until(lambda read: owners(read, about.lead_id) == ["ann", "bob"])
        await topics.write(marker.captured(day(0), employee_count=250), marker.did("demo.requested", day(1)))
        await topics.until(lambda read: len(owners(read, marker.lead_id)) == 1)
        told = await http.get(f"/v1/leads/{about.lead_id}/assignments", headers=auth("reader"))
        first, second = told.json()["items"]
    assert owners(topics.data(), about.lead_id) == ["ann", "bob"]
    assert (first["cause"], first["explanation"]["rules"][0]["rule"]) == ("stage", "all")
    assert (second["cause"], second["clause"], second["previous_owner"]) == ("breach", "first-touch", "ann")


@pytest.mark.slow
async def test_our_watermark_waits_for_intake_and_never_for_broken_promises(environment, topics, content, auth):
    """The SLA monitor breaks no clock before our watermark has passed it; waited ours for its, nothing would ever be broken."""
    async with running(environment) as (http, _):
        await sign(http, content, auth)
        at = datetime.now(UTC)
        await topics.watermarks("intake-events", at)
        assert await topics.announced("qualification-events") <= at
