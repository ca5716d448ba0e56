"""What could not be applied can be looked at, replayed once, or discarded; its body is shown to nobody."""

import asyncio
from uuid import uuid4

import pytest
from aiokafka import ConsumerRecord
from sqlalchemy import text

from accord.contracts.envelope import Event, MalformedEvent, encode
from accord.contracts.intake_events import ActivityRecorded
from accord.contracts.values import utc
from accord.messaging import dead_letters, inbox
from accord.messaging.dead_letters import AlreadySettled, UnknownConsumer, UnknownDeadLetter

AT = utc(2027, 1, 4)


def record_of(event, offset=7, value=None):
    key, body, headers = encode(event)
    return ConsumerRecord(
        "x-intake-events", 3, offset, 0, 0, key, body if value is None else value, None, 0, 0, tuple(headers)
    )


@pytest.fixture
def event():
    data = ActivityRecorded(
        occurred_at=AT,
        recorded_at=AT,
        lead_id=uuid4(),
        sequence=1,
        activity_id=uuid4(),
        kind="demo.requested",
        by="lead",
    )
    return Event(uuid4(), "/intake", data)


async def put(database, record, error=None):
    async with database.recording() as recording:
        driver = await recording.driver()
        await dead_letters.add(driver, "test", "intake-events", record, error or ValueError("no"), recording.now)
    [letter] = await every(database)
    return letter


async def every(database, state=None):
    async with database.reading() as conn:
        return await dead_letters.listed(conn, limit=10, state=state)


async def keep(recording, received):
    for one in received:
        await recording.conn.execute(text("INSERT INTO effect (event_id) VALUES (:id)"), {"id": one.event.id})


async def effect_count(database):
    async with database.reading() as conn:
        return (await conn.execute(text("SELECT count(*) FROM effect"))).scalar_one()


async def test_replaying_applies_the_event_by_its_handler_and_only_once(database, event):
    letter = await put(database, record_of(event))
    seen = []

    async def handle(recording, received):
        seen.extend(received)
        await keep(recording, received)

    await dead_letters.replay(database, letter.id, {"test": handle})
    assert [(one.event, one.topic, one.partition, one.offset) for one in seen] == [(event, "intake-events", 3, 7)]
    with pytest.raises(AlreadySettled):
        await dead_letters.replay(database, letter.id, {"test": handle})
    assert await effect_count(database) == 1
    [letter] = await every(database)
    assert letter.state == "replayed"
    async with database.recording() as recording:
        assert await inbox.claim(await recording.driver(), "test", [event.id], recording.now) == set()


async def test_two_replays_at_once_apply_it_once(database, event):
    letter = await put(database, record_of(event))
    answers = await asyncio.gather(
        *(dead_letters.replay(database, letter.id, {"test": keep}) for _ in range(4)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["AlreadySettled"] * 3 + ["NoneType"]
    assert await effect_count(database) == 1


async def test_replaying_what_a_redelivery_has_applied_meanwhile_only_settles_it(database, event):
    letter = await put(database, record_of(event))
    async with database.recording() as recording:
        await inbox.claim(await recording.driver(), "test", [event.id], recording.now)
    await dead_letters.replay(database, letter.id, {"test": keep})
    assert await effect_count(database) == 0
    assert (await every(database))[0].state == "replayed"


async def test_a_replay_that_fails_changes_nothing(database, event):
    letter = await put(database, record_of(event))

    async def fail(recording, received):
        await keep(recording, received)
        raise LookupError

    with pytest.raises(LookupError):
        await dead_letters.replay(database, letter.id, {"test": fail})
    assert await effect_count(database) == 0
    assert (await every(database, "new"))[0].id == letter.id
    with pytest.raises(UnknownConsumer):
        await dead_letters.replay(database, letter.id, {})
    with pytest.raises(UnknownDeadLetter):
        await dead_letters.replay(database, uuid4(), {"test": keep})


async def test_a_malformed_record_stays_malformed(database, event):
    letter = await put(database, record_of(event, value=b"\x00\xff"))
    with pytest.raises(MalformedEvent):
        await dead_letters.replay(database, letter.id, {"test": keep})


async def test_a_discarded_event_is_passed_over_when_it_comes_again(database, event):
    letter = await put(database, record_of(event))
    await dead_letters.discard(database, letter.id)
    assert (await every(database))[0].state == "discarded"
    with pytest.raises(AlreadySettled):
        await dead_letters.replay(database, letter.id, {"test": keep})
    async with database.recording() as recording:
        assert await inbox.claim(await recording.driver(), "test", [event.id], recording.now) == set()


async def test_the_same_event_or_place_is_kept_once(database, event):
    await put(database, record_of(event))
    await put(database, record_of(event))
    await put(database, record_of(event, offset=8))


async def test_an_error_is_described_without_the_row_it_quotes(database, event):
    async with database.recording() as recording:
        await recording.conn.execute(text("CREATE TABLE person (email text PRIMARY KEY)"))
        await recording.conn.execute(text("INSERT INTO person VALUES ('ada@initech.example')"))
    try:
        async with database.recording() as recording:
            await recording.conn.execute(text("INSERT INTO person VALUES (:e)"), {"e": "ada@initech.example"})
    except Exception as error:  # noqa: BLE001
        letter = await put(database, record_of(event), error)
    assert "UniqueViolation" in letter.error
    assert "ada" not in letter.error


async def test_pages_follow_each_other(database):
    ids = []
    for n in range(5):
        data = ActivityRecorded(
            occurred_at=AT, recorded_at=AT, lead_id=uuid4(), sequence=1, activity_id=uuid4(), kind="a.b", by="lead"
        )
        async with database.recording() as recording:
            driver = await recording.driver()
            record = record_of(Event(uuid4(), "/intake", data), offset=n)
            await dead_letters.add(driver, "test", "intake-events", record, ValueError(), recording.now)
    after = None
    async with database.reading() as conn:
        while page := await dead_letters.listed(conn, limit=2, after=after):
            ids += [letter.offset for letter in page]
            after = page[-1].id
    assert ids == [0, 1, 2, 3, 4]
