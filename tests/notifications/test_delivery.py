"""The worker: several share the work, none takes the places of others, and no attempt that was made is lost from the log."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from datetime import timedelta

import pytest
from tests.notifications.conftest import at_risk, met, outcomes, started
from tests.notifications.receivers import Reply, http_receiver
from uuid_utils.compat import uuid7

from accord.notifications.domain.schedule import ATTEMPTS_MAX
from accord.notifications.service import delivery as delivery_module


async def test_two_processes_deliver_each_message_once(make_desk, receiver):
    one, other = await make_desk(), await make_desk()
    await one.subscribe(receiver.url)
    await one.publish(*(started() for _ in range(60)))
    stop = asyncio.Event()
    running = [asyncio.create_task(desk.engine.delivery.run(stop)) for desk in (one, other)]

    async def are_delivered() -> bool:
        return {found["state"] for found in await one.deliveries(limit=500)} == {"delivered"}

    await one.until(are_delivered)
    stop.set()
    await asyncio.gather(*running)
    assert Counter(request.id for request in receiver.requests).most_common(1)[0][1] == 1
    assert len(receiver.requests) == 60


async def test_attempt_of_a_process_that_ended_is_uncertain_and_made_again(make_desk, receiver):
    one, other = await make_desk(), await make_desk()
    await one.subscribe(receiver.url)
    await one.publish(started())
    await one.engine.delivery.deliver_due()
    await asyncio.wait_for(receiver.received.wait(), 10)
    await asyncio.wait(one.engine.delivery._tasks)  # the answer is there, and is never recorded

    delivery = await one.only_delivery()
    assert delivery["is_in_flight"]
    await other.step()
    assert len(receiver.requests) == 1  # its lease holds
    await other.pass_time(delivery_module.LEASE + timedelta(seconds=1))
    await other.step()

    delivery = await one.only_delivery()
    assert outcomes(delivery) == ["uncertain", "delivered"]
    assert (delivery["state"], delivery["attempts"]) == ("delivered", 2)
    assert [request.id for request in receiver.requests] == [delivery["delivery_id"]] * 2

    await one.engine.delivery.finish()  # it comes back, and its lease is another's by now
    assert outcomes(await one.only_delivery()) == ["uncertain", "delivered"]


async def test_stopping_waits_for_attempts_and_records_them(desk, receiver):
    async def later(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    await desk.subscribe(receiver.url)
    receiver.answer(Reply(write=later))
    await desk.publish(started())
    stop = asyncio.Event()
    running = asyncio.create_task(desk.engine.delivery.run(stop))
    await asyncio.wait_for(receiver.received.wait(), 10)
    stop.set()
    await running
    assert outcomes(await desk.only_delivery()) == ["delivered"]


async def test_attempt_that_is_cut_off_by_the_end_is_shown_as_uncertain(desk, receiver, monkeypatch):
    monkeypatch.setattr(delivery_module, "DRAIN_S", 0.05)

    async def hang(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    await desk.subscribe(receiver.url)
    receiver.answer(Reply(write=hang), Reply(200))
    await desk.publish(started())
    stop = asyncio.Event()
    running = asyncio.create_task(desk.engine.delivery.run(stop))
    await asyncio.wait_for(receiver.received.wait(), 10)
    stop.set()
    await running
    assert (await desk.only_delivery())["is_in_flight"]

    await desk.pass_time(delivery_module.LEASE + timedelta(seconds=1))
    await desk.step()
    assert outcomes(await desk.only_delivery()) == ["uncertain", "delivered"]


async def test_endpoints_that_hang_delay_no_other(desk, receiver):
    release = asyncio.Event()

    async def hang(_writer: asyncio.StreamWriter) -> None:
        await release.wait()

    async with http_receiver() as hanging:
        hanging.answer(Reply(write=hang))
        for number in range(20):
            await desk.subscribe(f"{hanging.url}?n={number}")
        good = await desk.subscribe(receiver.url)
        await desk.publish(*(started() for _ in range(30)))
        stop = asyncio.Event()
        running = asyncio.create_task(desk.engine.delivery.run(stop))

        async def are_delivered() -> bool:
            found = await desk.deliveries(subscription=good["subscription_id"], limit=500)
            return [one["state"] for one in found] == ["delivered"] * 30

        await desk.until(are_delivered)
        assert len(hanging.requests) == 20
        stop.set()
        release.set()
        await running


async def test_endpoint_that_answers_gets_more_places_and_loses_them_by_a_failure(desk, receiver):
    await desk.subscribe(receiver.url)
    await desk.publish(*(started() for _ in range(20)))
    worker = desk.engine.delivery
    assert await worker.deliver_due() == 1
    await worker.finish()
    assert await worker.deliver_due() == 2
    await worker.finish()
    assert await worker.deliver_due() == 4
    await worker.finish()
    receiver.answer(Reply(500))
    assert await worker.deliver_due() == delivery_module.ENDPOINT_MAX
    await worker.finish()
    assert await worker.deliver_due() == 1
    await worker.finish()


async def test_endpoint_that_fails_has_a_single_place(desk, receiver):
    most = running = 0

    async def slow(writer: asyncio.StreamWriter) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        writer.write(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    await desk.subscribe(receiver.url)
    receiver.answer(Reply(write=slow))
    await desk.publish(started())
    await desk.step()
    await desk.publish(*(started() for _ in range(5)))
    await desk.step(rounds=10)
    assert (most, len(receiver.requests)) == (1, 6)


async def test_attempt_that_cannot_be_recorded_is_uncertain_and_bounded(desk, receiver, monkeypatch):
    await desk.subscribe(receiver.url)
    await desk.publish(started())
    record = delivery_module.queries.record_results

    async def fail(*_arguments):
        raise ValueError("not storable")

    monkeypatch.setattr(delivery_module.queries, "record_results", fail)
    for _ in range(12):
        await desk.engine.delivery.deliver_due()
        while desk.engine.delivery._tasks:
            await asyncio.wait(desk.engine.delivery._tasks)
        if desk.engine.delivery._finished:
            with pytest.raises(ValueError, match="not storable"):
                await desk.engine.delivery._record()
        await desk.pass_time(delivery_module.LEASE + timedelta(seconds=1))
    assert len(receiver.requests) == ATTEMPTS_MAX
    monkeypatch.setattr(delivery_module.queries, "record_results", record)
    await desk.step()
    delivery = await desk.only_delivery()
    assert delivery["state"] == "dead"
    assert set(outcomes(delivery)[:-1]) == {"uncertain"}


async def test_lost_connection_while_recording_is_recorded_later(desk, receiver, monkeypatch):
    await desk.subscribe(receiver.url)
    await desk.publish(started())
    record = delivery_module.queries.record_results

    async def fail(*_arguments):
        raise ConnectionError

    monkeypatch.setattr(delivery_module.queries, "record_results", fail)
    stop = asyncio.Event()
    running = asyncio.create_task(desk.engine.delivery.run(stop))
    await asyncio.wait_for(receiver.received.wait(), 10)
    await desk.until(lambda: bool(desk.engine.delivery._finished))
    monkeypatch.setattr(delivery_module.queries, "record_results", record)

    async def is_delivered() -> bool:
        return (await desk.only_delivery())["state"] == "delivered"

    await desk.until(is_delivered)
    stop.set()
    await running
    assert len(receiver.requests) == 1


async def test_worker_and_business_transactions_never_wait_in_a_circle(make_desk, receiver):
    """Clocks are met in all orders while their notices are merged, attempted, paced, recorded and disabled by two processes."""
    one, other = await make_desk(), await make_desk()
    codes = itertools.cycle([200, 503, 429, 200, 400])
    receiver.reply = lambda _: Reply(next(codes))
    for number in range(4):
        made = await one.subscribe(f"{receiver.url}?n={number % 2}", channel="slack", event_types=["sla.at_risk.v1"])
    clocks = [uuid7() for _ in range(60)]
    stop = asyncio.Event()
    running = [asyncio.create_task(desk.engine.delivery.run(stop)) for desk in (one, other)]
    random_ = random.Random(1)

    async def play(desk) -> None:
        for _ in range(25):
            picked = random_.sample(clocks, 20)
            await desk.publish(*(at_risk(clock) for clock in picked))
            await desk.publish(*(met(clock) for clock in reversed(picked)))
            await desk.execute(
                "UPDATE delivery SET due_at = now() WHERE delivery_id IN"
                " (SELECT delivery_id FROM delivery WHERE due_at > now() AND lease IS NULL AND random() < 0.3 FOR UPDATE SKIP LOCKED)"
            )

    async def change() -> None:
        url = f"/v1/subscriptions/{made['subscription_id']}"
        for _ in range(15):
            for state in ("disabled", "active"):
                assert (await one.http.patch(url, json={"state": state})).status_code == 200
            await one.http.post(f"{url}/redeliver?from=2020-01-01T00:00:00Z&to=2199-01-01T00:00:00Z")

    await asyncio.gather(play(one), play(other), play(one), change())
    stop.set()
    await asyncio.gather(*running)
    async with one.database.read_transaction() as conn:
        counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert (await conn.exec_driver_sql(counted)).scalar_one() == 0
