"""Slack, Teams, quiet hours and digests: merged for a person, held until their time, and never for what is over."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.notifications.conftest import acknowledged, at_risk, breached, cancelled, met, outcomes
from tests.notifications.receivers import Reply
from uuid_utils.compat import uuid7

from accord.notifications.domain.model import DIGEST

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def quiet_around(now: datetime) -> dict[str, list[str]]:
    """Quiet hours in UTC that began an hour ago and end in one or two."""
    begin, end = now - timedelta(hours=1), now + timedelta(hours=2)
    return {DAYS[begin.weekday()]: [f"{begin:%H}:00-{end:%H}:00"]}


def quiet_elsewhere(now: datetime) -> dict[str, list[str]]:
    return {DAYS[(now + timedelta(days=3)).weekday()]: ["01:00-02:00"]}


async def only_carrier(desk):
    (found,) = [one for one in await desk.deliveries(limit=500) if one["event_type"] == DIGEST]
    return found


@pytest.mark.parametrize("channel", ["slack", "teams"])
async def test_notification_is_posted_as_json(desk, receiver, channel):
    await desk.subscribe(receiver.url, channel=channel)
    receiver.answer(Reply(202 if channel == "teams" else 200, b"ok"))
    await desk.publish(breached())
    await desk.step()
    (request,) = receiver.requests
    assert request.headers["content-type"] == "application/json"
    assert "SLA breached" in json.dumps(request.json)
    delivery = await desk.only_delivery()
    assert delivery["state"] == "delivered"
    assert (delivery["error"] is not None) is (channel == "teams")


async def test_accepted_by_teams_is_not_shown_and_the_test_asks_a_person_to_look(desk, receiver):
    made = await desk.subscribe(receiver.url, channel="teams")
    receiver.answer(Reply(202))
    await desk.http.post(f"/v1/subscriptions/{made['subscription_id']}/test")
    await desk.step()
    assert "Please look" in json.dumps(receiver.requests[0].json)
    assert "only its reader can tell" in (await desk.only_delivery())["error"]


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_refusal_of_a_form_is_dead_at_once_with_the_answer(desk, receiver, status):
    await desk.subscribe(receiver.url, channel="slack")
    receiver.answer(Reply(status, b"invalid_blocks"))
    await desk.publish(breached())
    await desk.step()
    delivery = await desk.only_delivery()
    assert (delivery["state"], outcomes(delivery)) == ("dead", ["refused"])
    assert "invalid_blocks" in delivery["error"]


async def test_chat_that_is_gone_is_disabled_after_five_days(desk, receiver):
    made = await desk.subscribe(receiver.url, channel="slack")
    receiver.answer(Reply(404, b"no_service"))
    for _ in range(7):
        await desk.publish(breached())
        await desk.step()
        await desk.pass_time(timedelta(days=1))
    subscription = await desk.subscription(made["subscription_id"])
    assert subscription["state"] == "disabled"
    assert "no_service" in subscription["disabled_because"]


async def test_many_breaches_of_a_monday_morning_are_merged_and_paced(desk, receiver):
    await desk.subscribe(receiver.url, channel="slack")
    receiver.answer(Reply(429, headers=[("Retry-After", "2")]), Reply(200, b"ok"))
    for _ in range(3):
        await desk.publish(*(breached() for _ in range(100)))
    for _ in range(4):
        await desk.step()
        await desk.pass_time(timedelta(seconds=5))

    found = await desk.deliveries(limit=500)
    assert {one["state"] for one in found} == {"delivered"}
    assert len([one for one in found if one["event_type"] != DIGEST]) == 300
    assert len(receiver.requests) == 2
    assert receiver.requests[0].body == receiver.requests[1].body
    assert "300 notifications" in receiver.requests[1].body.decode()


async def test_subscriptions_of_one_person_share_a_message(desk, receiver):
    for name in ("risk", "breach"):
        kind = {"risk": "sla.at_risk.v1", "breach": "sla.breached.v1"}[name]
        await desk.subscribe(receiver.url, name=name, channel="slack", person="ann", event_types=[kind])
    await desk.subscribe(receiver.url, name="other", channel="slack", person="bob", event_types=["sla.breached.v1"])
    await desk.publish(breached(), at_risk())
    await desk.step()
    assert sorted("2 notifications" in request.body.decode() for request in receiver.requests) == [False, True]


async def test_quiet_hours_hold_people_and_then_send_one_message_by_themselves(desk, receiver):
    now = datetime.now(UTC)
    made = await desk.subscribe(receiver.url, channel="slack", quiet_hours=quiet_around(now))
    await desk.publish(breached())
    await desk.publish(at_risk())
    await desk.step()
    assert receiver.requests == []
    assert [one["state"] for one in await desk.deliveries()] == ["pending", "pending"]

    # The hours end: here by other hours, since the clock of the machine stays.
    changes = {"quiet_hours": quiet_elsewhere(now)}
    await desk.http.patch(f"/v1/subscriptions/{made['subscription_id']}", json=changes)
    await desk.step()
    (request,) = receiver.requests
    assert "2 notifications" in request.body.decode()


async def test_quiet_hours_of_another_zone_do_not_hold(desk, receiver):
    now = datetime.now(UTC)
    await desk.subscribe(receiver.url, channel="slack", quiet_hours=quiet_around(now), timezone="Pacific/Auckland")
    await desk.publish(breached())
    await desk.step()
    assert len(receiver.requests) == 1


async def test_systems_are_held_only_if_that_is_asked_for(desk, receiver):
    quiet = quiet_around(datetime.now(UTC))
    held = await desk.subscribe(receiver.url, quiet_hours=quiet)
    await desk.subscribe(receiver.url + "?at=once")
    await desk.publish(breached())
    await desk.step()
    assert [request.target for request in receiver.requests] == ["/hook?at=once"]
    await desk.http.post(f"/v1/subscriptions/{held['subscription_id']}/test")
    await desk.step()
    assert receiver.requests[-1].json["type"] == "accord.test"


async def test_what_was_met_or_cancelled_in_quiet_hours_is_not_sent(desk, receiver):
    now = datetime.now(UTC)
    made = await desk.subscribe(
        receiver.url, channel="slack", event_types=["sla.at_risk.v1"], quiet_hours=quiet_around(now)
    )
    first, second, third = uuid7(), uuid7(), uuid7()
    await desk.publish(at_risk(first), at_risk(second), at_risk(third))
    await desk.publish(met(first), cancelled(second))
    await desk.http.patch(f"/v1/subscriptions/{made['subscription_id']}", json={"quiet_hours": quiet_elsewhere(now)})
    await desk.step()
    assert len(receiver.requests) == 1
    assert "notifications" not in receiver.requests[0].body.decode()
    assert sorted(one["state"] for one in await desk.deliveries()) == ["delivered", "dropped", "dropped"]


@pytest.mark.parametrize(
    ("event_type", "make_event", "make_settling_event", "why"),
    [
        ("sla.at_risk.v1", at_risk, met, "the clause was met"),
        ("sla.breached.v1", breached, acknowledged, "the breach was acknowledged"),
    ],
)
async def test_message_that_is_settled_between_two_attempts_is_not_sent_again(
    desk, receiver, event_type, make_event, make_settling_event, why
):
    await desk.subscribe(receiver.url, channel="slack", event_types=[event_type])
    receiver.answer(Reply(503))
    clock = uuid7()
    await desk.publish(make_event(clock))
    await desk.step()
    await desk.publish(make_settling_event(clock))
    await desk.pass_time(timedelta(seconds=10))
    await desk.step()
    assert len(receiver.requests) == 1
    delivery = await desk.only_delivery()
    assert (delivery["state"], delivery["error"].split(" on ")[0]) == ("dropped", why)


async def test_what_is_met_while_it_is_sent_is_not_sent_again(desk, receiver):
    await desk.subscribe(receiver.url, channel="slack", event_types=["sla.at_risk.v1"])
    release, clock = asyncio.Event(), uuid7()

    async def fail_later(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    receiver.answer(Reply(write=fail_later))
    await desk.publish(at_risk(clock))
    await desk.engine.delivery.deliver_due()
    await receiver.received.wait()
    await desk.publish(met(clock))
    release.set()
    await desk.engine.delivery.finish()
    delivery = await desk.only_delivery()
    assert (delivery["state"], outcomes(delivery)) == ("dropped", ["failed"])
    assert delivery["error"].startswith("the clause was met")


async def test_message_of_several_says_at_each_attempt_what_still_holds(desk, receiver):
    await desk.subscribe(receiver.url, channel="slack", event_types=["sla.at_risk.v1"])
    receiver.answer(Reply(503))
    first, second, third = uuid7(), uuid7(), uuid7()
    await desk.publish(at_risk(first), at_risk(second), at_risk(third))
    await desk.step()
    await desk.publish(met(first))
    await desk.pass_time(timedelta(seconds=10))
    await desk.step()
    assert "3 notifications" in receiver.requests[0].body.decode()
    assert "2 notifications" in receiver.requests[1].body.decode()
    await desk.publish(met(second), cancelled(third))
    await desk.pass_time(timedelta(minutes=10))
    await desk.step()
    assert len(receiver.requests) == 2
    assert (await only_carrier(desk))["state"] == "dropped"


async def until_digest(desk) -> None:
    """Let the time of the digest come."""
    await desk.execute("UPDATE delivery SET due_at = now() WHERE batch LIKE 'digest:%' AND merged_into IS NULL")


async def test_digest_is_one_message_of_a_named_day(desk, receiver):
    await desk.subscribe(receiver.url, channel="slack", digest="08:00", timezone="America/Chicago")
    await desk.publish(breached())
    await desk.publish(at_risk())
    await desk.step()
    assert receiver.requests == []
    found = await desk.deliveries()
    assert len({one["held_for"] for one in found}) == 1
    assert found[0]["held_for"].startswith("digest:")

    await until_digest(desk)
    await desk.step()
    assert len(receiver.requests) == 1
    await desk.step()
    assert len(receiver.requests) == 1


async def test_two_processes_and_a_crash_make_one_digest_with_one_id(make_desk, receiver):
    one, other = await make_desk(), await make_desk()
    await one.subscribe(receiver.url, channel="slack", digest="08:00")
    await one.publish(*(breached() for _ in range(20)))
    await until_digest(one)
    await asyncio.gather(one.engine.delivery._merge_due(), other.engine.delivery._merge_due())
    for desk in (one, other):
        desk.engine.delivery._follow(await desk.engine.catalog.get())
    await asyncio.gather(one.engine.delivery._merge_due(), other.engine.delivery._merge_due())
    carrier = await only_carrier(one)

    await one.engine.delivery.deliver_due()
    await asyncio.wait(one.engine.delivery._tasks)  # sent, and never recorded
    await other.pass_time(timedelta(seconds=61))
    await other.step()
    assert (await only_carrier(one))["delivery_id"] == carrier["delivery_id"]
    assert outcomes(await one.delivery(carrier["delivery_id"])) == ["uncertain", "delivered"]
    assert {found["state"] for found in await one.deliveries(limit=500)} == {"delivered"}


async def test_notification_that_comes_too_late_for_its_digest_is_in_the_next(desk, receiver):
    await desk.subscribe(receiver.url, channel="slack", digest="08:00")
    await desk.publish(breached())
    await until_digest(desk)
    await desk.step()
    day = next(one["held_for"] for one in await desk.deliveries() if one["held_for"])
    await desk.publish(breached())
    await desk.execute("UPDATE delivery SET batch = $1, due_at = now() WHERE state = 'pending'", "digest:2020-01-01")
    await desk.execute("UPDATE delivery SET batch = $1 WHERE state = 'pending'", day)
    await desk.step()
    assert len(receiver.requests) == 1
    (late,) = await desk.deliveries(state="pending")
    assert datetime.fromisoformat(late["next_attempt_at"]) > datetime.now(UTC)


async def test_digest_without_anything_left_is_not_sent(desk, receiver):
    await desk.subscribe(receiver.url, channel="slack", digest="08:00", event_types=["sla.at_risk.v1"])
    clock = uuid7()
    await desk.publish(at_risk(clock))
    await desk.publish(met(clock))
    await until_digest(desk)
    await desk.step()
    assert receiver.requests == []
    assert [one["state"] for one in await desk.deliveries()] == ["dropped"]


async def test_dead_message_of_several_can_be_sent_again(desk, receiver):
    made = await desk.subscribe(receiver.url, channel="slack")
    receiver.answer(Reply(400, b"invalid_blocks"), Reply(200))
    await desk.publish(breached(), breached())
    await desk.step()
    assert {one["state"] for one in await desk.deliveries()} == {"dead"}
    range_ = {"from": "2020-01-01T00:00:00Z", "to": "2199-01-01T00:00:00Z"}
    again = await desk.http.post(f"/v1/subscriptions/{made['subscription_id']}/redeliver", params=range_)
    assert again.json()["redelivered"] == 2
    await desk.step()
    assert "2 notifications" in receiver.requests[-1].body.decode()
    states = {one["event_type"]: one["state"] for one in await desk.deliveries()}
    assert states["sla.breached.v1"] == "delivered"


async def test_message_of_several_can_be_sent_again_as_it_is(desk, receiver):
    await desk.subscribe(receiver.url, channel="slack")
    receiver.answer(Reply(400), Reply(200))
    await desk.publish(breached(), breached())
    await desk.step()
    carrier = await only_carrier(desk)
    await desk.http.post(f"/v1/deliveries/{carrier['delivery_id']}/redeliver")
    await desk.step()
    assert {one["state"] for one in await desk.deliveries()} == {"delivered"}


async def test_event_that_two_subscriptions_of_a_person_fit_is_said_once(desk, receiver):
    for name in ("one", "other"):
        await desk.subscribe(receiver.url, name=name, channel="slack", person="ann")
    await desk.publish(breached())
    await desk.step()
    (request,) = receiver.requests
    assert "notifications" not in request.body.decode()
    assert {one["state"] for one in await desk.deliveries()} == {"delivered"}
