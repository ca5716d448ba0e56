"""What could not be applied can be looked at, replayed once, or discarded; its body is shown to nobody."""

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from accord.contracts.envelope import Event, MalformedEvent, encode
from accord.contracts.intake_events import ActivityRecorded
from accord.contracts.values import utc
from accord.ids import new_id
from accord.messaging import dead_letters, inbox
from accord.messaging.consumer import make_dead_letter
from accord.messaging.consumer_store import PostgresConsumerStore
from accord.messaging.dead_letters import AlreadySettled, UnknownDeadLetter
from accord.messaging.ports import LogRecord
from accord.messaging.pruning import Pruner

AT = utc(2027, 1, 4)


def record_of(event, offset=7, value=None):
    key, body, headers = encode(event)
    return LogRecord("intake-events", 3, offset, key, body if value is None else value, tuple(headers), AT)


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


def store_of(database):
    return PostgresConsumerStore(database, "test")


async def put(database, record, error=None):
    letter = make_dead_letter("poison", record, error or ValueError("no"))
    async with PostgresConsumerStore(database, "test").begin() as transaction:
        await transaction.add_dead_letters([letter])
    [kept] = await every(database)
    return kept


async def every(database, state=None):
    async with database.read_transaction() as conn:
        return await dead_letters.list_dead_letters(conn, limit=10, state=state)


async def keep(unit_of_work, received):
    for one in received:
        await unit_of_work.conn.execute(text("INSERT INTO effect (event_id) VALUES (:id)"), {"id": one.event.id})


async def effect_count(database):
    async with database.read_transaction() as conn:
        return (await conn.execute(text("SELECT count(*) FROM effect"))).scalar_one()


async def test_replaying_applies_the_event_by_its_handler_and_only_once(database, event):
    letter = await put(database, record_of(event))
    seen = []

    async def handle(unit_of_work, received):
        seen.extend(received)
        await keep(unit_of_work, received)

    await dead_letters.replay(store_of(database), handle, letter.id)
    assert [(one.event, one.topic, one.partition, one.offset) for one in seen] == [(event, "intake-events", 3, 7)]
    with pytest.raises(AlreadySettled):
        await dead_letters.replay(store_of(database), handle, letter.id)
    assert await effect_count(database) == 1
    [letter] = await every(database)
    assert letter.state == "replayed"
    async with database.write_transaction() as unit_of_work:
        assert await inbox.claim(await unit_of_work.connection(), "test", [event.id], unit_of_work.now) == set()


async def test_two_replays_at_once_apply_it_once(database, event):
    letter = await put(database, record_of(event))
    answers = await asyncio.gather(
        *(dead_letters.replay(store_of(database), keep, letter.id) for _ in range(4)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["AlreadySettled"] * 3 + ["NoneType"]
    assert await effect_count(database) == 1


async def test_replaying_what_a_redelivery_has_applied_meanwhile_only_settles_it(database, event):
    letter = await put(database, record_of(event))
    async with database.write_transaction() as unit_of_work:
        await inbox.claim(await unit_of_work.connection(), "test", [event.id], unit_of_work.now)
    await dead_letters.replay(store_of(database), keep, letter.id)
    assert await effect_count(database) == 0
    assert (await every(database))[0].state == "replayed"


async def test_a_replay_that_fails_changes_nothing(database, event):
    letter = await put(database, record_of(event))

    async def fail(unit_of_work, received):
        await keep(unit_of_work, received)
        raise LookupError

    with pytest.raises(LookupError):
        await dead_letters.replay(store_of(database), fail, letter.id)
    assert await effect_count(database) == 0
    assert (await every(database, "new"))[0].id == letter.id
    with pytest.raises(UnknownDeadLetter):
        await dead_letters.replay(PostgresConsumerStore(database, "another"), keep, letter.id)
    with pytest.raises(UnknownDeadLetter):
        await dead_letters.replay(store_of(database), keep, uuid4())


async def test_a_malformed_record_stays_malformed(database, event):
    letter = await put(database, record_of(event, value=b"\x00\xff"))
    with pytest.raises(MalformedEvent):
        await dead_letters.replay(store_of(database), keep, letter.id)


async def test_a_discarded_event_is_passed_over_when_it_comes_again(database, event):
    letter = await put(database, record_of(event))
    await dead_letters.discard(store_of(database), letter.id)
    assert (await every(database))[0].state == "discarded"
    with pytest.raises(AlreadySettled):
        await dead_letters.replay(store_of(database), keep, letter.id)
    async with database.write_transaction() as unit_of_work:
        assert await inbox.claim(await unit_of_work.connection(), "test", [event.id], unit_of_work.now) == set()


async def test_the_same_event_is_kept_once_wherever_it_stands(database, event):
    await put(database, record_of(event))
    await put(database, record_of(event))
    await put(database, record_of(event, offset=8))


async def test_two_events_at_one_place_are_both_kept(database, event):
    """A topic that was made anew has another record where the first stood."""
    await put(database, record_of(event))
    other = Event(uuid4(), "/intake", event.data)
    async with PostgresConsumerStore(database, "test").begin() as transaction:
        await transaction.add_dead_letters([make_dead_letter("poison", record_of(other), ValueError())])
    assert {letter.event_id for letter in await every(database)} == {event.id, other.id}


async def test_a_record_that_is_no_event_is_kept_once_for_its_place(database):
    record = LogRecord("intake-events", 3, 7, None, b"?", (), AT)
    for _ in range(2):
        async with PostgresConsumerStore(database, "test").begin() as transaction:
            await transaction.add_dead_letters([make_dead_letter("malformed", record, ValueError())])
    assert len(await every(database)) == 1


async def test_settled_dead_letters_and_the_inbox_are_pruned_and_unsettled_ones_are_not(database, event):
    waits, done = record_of(event), record_of(Event(uuid4(), "/intake", event.data), offset=8)
    async with PostgresConsumerStore(database, "test").begin() as transaction:
        await transaction.add_dead_letters([make_dead_letter("poison", one, ValueError()) for one in (waits, done)])
        old = [UUID(f"01800000-0000-7000-8000-{number:012d}") for number in range(2)]  # of July 2022
        await transaction.claim_events([*old, new_id()])
    [letter] = [one for one in await every(database) if one.event_id != event.id]
    await dead_letters.discard(store_of(database), letter.id)
    pruner = Pruner(database)
    await pruner.prune()
    assert (len(await every(database)), await received(database)) == (2, 4)
    async with database.write_transaction() as unit_of_work:
        for table, column in (("dead_letter", "settled_at"), ("dead_letter", "failed_at"), ("inbox", "received_at")):
            await unit_of_work.conn.execute(text(f"UPDATE {table} SET {column} = {column} - interval '1 year'"))
    await pruner.prune()
    assert [one.event_id for one in await every(database)] == [event.id]
    assert await received(database) == 2, "the new one, and the one of the letter, whose id has no time"


async def received(database):
    """How many rows the inbox has."""
    async with database.read_transaction() as conn:
        return (await conn.execute(text("SELECT count(*) FROM inbox"))).scalar_one()


async def test_old_events_that_were_received_again_are_walked_page_by_page(database):
    """As after a restart of a topic: for a week none of them may go, and what may go lies behind them."""
    old = [UUID(f"01800000-0000-7000-8000-{number:012d}") for number in range(7)]
    async with PostgresConsumerStore(database, "test").begin() as transaction:
        await transaction.claim_events(old)
    async with database.write_transaction() as unit_of_work:
        long_ago = text("UPDATE inbox SET received_at = received_at - interval '1 year' WHERE event_id >= :id")
        await unit_of_work.conn.execute(long_ago, {"id": old[4]})
    pruner, left = Pruner(database, rows_max=2), []
    for _ in range(4):
        more = await pruner.prune()
        left.append((await received(database), more))
    assert left == [(7, False), (7, False), (5, True), (4, False)], "two rows are looked at each time"
    async with database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("UPDATE inbox SET received_at = received_at - interval '1 year'"))
    assert (await pruner.prune(), await received(database)) == (True, 2), "it has begun again"


async def test_an_error_is_described_without_the_row_it_quotes(database, event):
    async with database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("CREATE TABLE person (email text PRIMARY KEY)"))
        await unit_of_work.conn.execute(text("INSERT INTO person VALUES ('ada@initech.example')"))
    try:
        async with database.write_transaction() as unit_of_work:
            await unit_of_work.conn.execute(text("INSERT INTO person VALUES (:e)"), {"e": "ada@initech.example"})
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
        record = record_of(Event(uuid4(), "/intake", data), offset=n)
        async with PostgresConsumerStore(database, "test").begin() as transaction:
            await transaction.add_dead_letters([make_dead_letter("poison", record, ValueError())])
    after = None
    async with database.read_transaction() as conn:
        while page := await dead_letters.list_dead_letters(conn, limit=2, after=after):
            ids += [letter.offset for letter in page]
            after = page[-1].id
    assert ids == [0, 1, 2, 3, 4]
