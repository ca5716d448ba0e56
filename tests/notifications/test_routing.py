"""Which event goes to whom is decided with the event, once, and never for history."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import orjson
import pytest
from tests.notifications.conftest import at_risk, breached, met, started
from uuid_utils.compat import uuid7

from accord.contracts.base import EVENT_TYPES
from accord.contracts.codec import to_object
from accord.contracts.examples import EXAMPLES
from accord.db.outbox import row_of
from accord.notifications.domain.model import notification_id
from accord.notifications.service.routing import encode_body


async def test_event_is_delivered_to_each_subscription_that_it_fits(desk, receiver):
    all_of_sla = await desk.subscribe(receiver.url, event_types=["sla.*"])
    breaches = await desk.subscribe(receiver.url, event_types=["sla.breached.v1"])
    await desk.publish(started(), breached())

    found = await desk.deliveries()

    by_subscription = {(one["subscription_id"], one["event_type"]) for one in found}
    assert by_subscription == {
        (all_of_sla["subscription_id"], "sla.clock_started.v1"),
        (all_of_sla["subscription_id"], "sla.breached.v1"),
        (breaches["subscription_id"], "sla.breached.v1"),
    }


async def test_filter_asks_for_the_events_own_fields(desk, receiver):
    await desk.subscribe(receiver.url, filter={"path": "attributes.obliges", "op": "eq", "value": "marketing"})
    await desk.subscribe(receiver.url, filter={"path": "source", "op": "eq", "value": "fair"})
    await desk.publish(
        started(owner="ann"), started(obliges="marketing", owner="bob"), started(source="fair", owner="cy")
    )

    found = [await desk.delivery(one["delivery_id"]) for one in await desk.deliveries()]
    assert sorted(one["body"]["data"]["owner"] for one in found) == ["bob", "cy"]


async def test_delivery_has_the_id_of_subscription_and_event(desk, receiver):
    subscription = await desk.subscribe(receiver.url)
    (event_id,) = await desk.publish(started())
    (delivery,) = await desk.deliveries()
    assert delivery["delivery_id"] == str(notification_id(UUID(subscription["subscription_id"]), event_id))


async def test_event_that_is_rolled_back_notifies_nobody(desk, receiver):
    await desk.subscribe(receiver.url)

    async def publish_and_fail() -> None:
        async with desk.database.write_transaction() as unit_of_work:
            unit_of_work.publish(started()(unit_of_work.now))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await publish_and_fail()
    assert await desk.deliveries() == []


async def test_imported_history_notifies_nobody(desk, receiver):
    await desk.subscribe(receiver.url)
    await desk.publish(started(backfill=True), breached(backfill=True))
    assert await desk.deliveries() == []


async def test_subscription_of_another_process_is_seen_within_two_seconds(make_desk, receiver):
    one, other = await make_desk(), await make_desk()
    await other.publish(started())  # it has read that there are none
    await one.subscribe(receiver.url)

    async def is_routed() -> bool:
        await other.publish(started())
        return bool(await other.deliveries())

    await other.until(is_routed, within_s=10)


async def test_deleted_subscription_does_not_break_those_who_do_not_know_it(make_desk, receiver):
    one, other = await make_desk(), await make_desk()
    made = await one.subscribe(receiver.url)
    await other.publish(started())
    assert (await one.http.delete(f"/v1/subscriptions/{made['subscription_id']}")).status_code == 204

    await other.publish(started())  # still routed, by what this process knows
    (prune,) = [worker for worker in one.engine.workers() if worker.name == "notifications-prune"]
    stop = asyncio.Event()
    running = asyncio.create_task(prune.run(stop))

    async def are_dropped() -> bool:
        return [found["state"] for found in await one.deliveries()] == ["dropped", "dropped"]

    await one.until(are_dropped)
    stop.set()
    await running
    await one.step()
    assert receiver.requests == []


async def test_disabled_subscription_lists_what_comes_and_sends_it_by_time_later(desk, receiver):
    made = await desk.subscribe(receiver.url)
    url = f"/v1/subscriptions/{made['subscription_id']}"
    assert (await desk.http.patch(url, json={"state": "disabled"})).json()["state"] == "disabled"
    await desk.publish(started(), breached())
    await desk.step()
    found = await desk.deliveries(state="dropped")
    assert [one["error"] for one in found] == ["the subscription was disabled"] * 2
    assert receiver.requests == []
    range_ = {"from": "2020-01-01T00:00:00Z", "to": "2199-01-01T00:00:00Z"}
    assert (await desk.http.post(f"{url}/redeliver", params=range_)).status_code == 409

    await desk.http.patch(url, json={"state": "active"})
    assert (await desk.http.post(f"{url}/redeliver", params=range_)).json() == {"redelivered": 2, "more": False}
    await desk.step()
    assert {request.id for request in receiver.requests} == {one["delivery_id"] for one in found}


async def test_service_without_subscriptions_reads_them_every_two_seconds_at_most(desk):
    reads = 0
    read = desk.engine.catalog._current._read

    async def count(conn):
        nonlocal reads
        reads += 1
        return await read(conn)

    desk.engine.catalog._current._read = count
    for _ in range(50):
        await desk.publish(started())
    assert reads <= 2


@pytest.mark.parametrize("type_", sorted(EVENT_TYPES))
def test_webhook_says_what_the_event_says_and_nothing_else(type_):
    example = EXAMPLES[type_]
    row = row_of(example, example.recorded_at, None)

    document = orjson.loads(encode_body(row))

    assert set(document) == {"type", "timestamp", "event_id", "data"}
    assert document["data"] == to_object(example)
    assert (document["type"], document["event_id"]) == (type_, str(row.event_id))
    text = json.dumps(document)
    assert "@" not in text  # no event holds an address, so no notification does


async def test_met_clock_drops_what_waits_for_people_and_nothing_of_systems(desk, receiver):
    clock, other = uuid7(), uuid7()
    await desk.subscribe(receiver.url, channel="slack", event_types=["sla.at_risk.v1"])
    await desk.subscribe(receiver.url, channel="webhook", event_types=["sla.at_risk.v1"])
    await desk.publish(at_risk(clock), at_risk(other))
    await desk.publish(met(clock))

    found = [(await desk.delivery(one["delivery_id"])) for one in await desk.deliveries()]

    states = sorted((one["state"], one["body"]["data"]["clock_id"] == str(clock)) for one in found)
    assert states == [("dropped", True), ("pending", False), ("pending", False), ("pending", True)]
    (dropped,) = [one for one in found if one["state"] == "dropped"]
    assert dropped["error"].startswith("the clause was met on ")
