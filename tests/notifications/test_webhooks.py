"""Webhooks over real sockets: what counts as delivered, what is tried again and when, and what is never connected to."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from tests.notifications.conftest import outcomes, started
from tests.notifications.receivers import Reply, http_receiver

from accord.notifications.channels import posting
from accord.notifications.domain.schedule import WAITS


def wait_until_next(delivery) -> timedelta:
    at = datetime.fromisoformat(delivery["log"][-1]["at"])
    return datetime.fromisoformat(delivery["next_attempt_at"]) - at


async def test_message_verifies_by_the_standard_library(desk, receiver):
    made = await desk.subscribe(receiver.url)
    await desk.publish(started())
    await desk.step()

    (request,) = receiver.requests
    document = Webhook(made["secret"]).verify(request.body, request.headers)
    assert document["type"] == "sla.clock_started.v1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == receiver.url.removeprefix("http://").removesuffix("/hook")
    delivery = await desk.only_delivery()
    assert (delivery["state"], delivery["attempts"], outcomes(delivery)) == ("delivered", 1, ["delivered"])
    assert delivery["delivery_id"] == request.id


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_a_failure_that_names_its_location(desk, receiver, status):
    await desk.subscribe(receiver.url)
    elsewhere = receiver.url.replace("/hook", "/elsewhere")
    receiver.answer(Reply(status, headers=[("Location", elsewhere)]))
    await desk.publish(started())
    await desk.step()

    assert [request.target for request in receiver.requests] == ["/hook"]
    delivery = await desk.only_delivery()
    assert (delivery["state"], outcomes(delivery)) == ("pending", ["failed"])
    assert elsewhere in delivery["error"]
    assert "correct the URL" in delivery["error"]


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f.1",
        "127.0.0.1",
        "127.0.0.1.",
        "localhost",
        "localhost.",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::a00:1]",
        "[fe80::1]",
        "[fe80::1%25nowhere]",
        "[::]",
        "100.64.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "0",
    ],
)
@pytest.mark.parametrize("channel", ["webhook", "slack", "teams"])
async def test_address_that_is_not_public_is_refused_at_the_call(make_desk, host, channel):
    desk = await make_desk(outbound_allow_private=False)
    body = {"name": "x", "channel": channel, "address": f"https://{host}/hook", "event_types": ["*"]}
    answer = await desk.http.post("/v1/subscriptions", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/address"]


async def test_name_with_a_public_and_a_private_record_is_refused(make_desk):
    async def both(_host, _port):
        return [ipaddress.ip_address("93.184.216.34"), ipaddress.ip_address("10.0.0.1")]

    desk = await make_desk(outbound_allow_private=False, look_up=both)
    body = {"name": "x", "channel": "webhook", "address": "https://receiver.example/", "event_types": ["*"]}
    assert (await desk.http.post("/v1/subscriptions", json=body)).status_code == 422


async def test_name_that_turns_private_after_the_call_is_not_connected_to(make_desk, receiver):
    found = [ipaddress.ip_address("93.184.216.34")]

    async def rebinding(_host, _port):
        return found

    desk = await make_desk(outbound_allow_private=False, look_up=rebinding)
    port = receiver.url.split(":")[2]
    await desk.subscribe(f"https://receiver.example:{port}")
    found[:] = [ipaddress.ip_address("127.0.0.1")]
    receiver.answer(Reply(200, b"internal"))
    await desk.publish(started())
    await desk.step()

    delivery = await desk.only_delivery()
    assert (delivery["state"], delivery["error"]) == (
        "pending",
        "the host has an address that may not be connected to",
    )
    assert delivery["log"][0]["body"] is None
    assert receiver.requests == []


async def test_name_is_looked_up_once_for_an_attempt_and_stays_the_host(make_desk, receiver):
    asked = []

    async def look_up(host, port):
        asked.append((host, port))
        return [ipaddress.ip_address("127.0.0.1")]

    desk = await make_desk(look_up=look_up)
    port = int(receiver.url.split(":")[2].removesuffix("/hook"))
    await desk.subscribe(f"http://receiver.example:{port}/hook")
    asked.clear()
    await desk.publish(started())
    await desk.step()

    assert asked == [("receiver.example", port)]
    assert receiver.requests[0].headers["host"] == f"receiver.example:{port}"
    assert (await desk.only_delivery())["state"] == "delivered"


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000000\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3600\r\n\r\n")
    while True:
        writer.write(b"y")
        await writer.drain()
        await asyncio.sleep(1)


async def _bomb(writer: asyncio.StreamWriter) -> None:
    body = gzip.compress(b"0" * 50_000_000)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


async def _lie(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort")
    await writer.drain()


@pytest.mark.parametrize(
    ("write", "beginning"),
    [(_endless, "xxx"), (_drip, "y"), (_bomb, "(encoded as gzip, not read)"), (_lie, "short")],
    ids=["2 GB", "a byte a second", "gzip bomb", "length that lies"],
)
async def test_status_decides_whatever_the_body_does(desk, receiver, write, beginning):
    await desk.subscribe(receiver.url)
    receiver.answer(Reply(write=write))
    await desk.publish(started())
    await desk.step()

    delivery = await desk.only_delivery()
    assert (delivery["state"], outcomes(delivery), len(receiver.requests)) == ("delivered", ["delivered"], 1)
    (attempt,) = delivery["log"]
    assert attempt["body"].startswith(beginning)
    assert attempt["body_is_cut"]
    assert len(attempt["body"]) <= posting.EXCERPT_BYTES_MAX


async def test_answer_that_cannot_be_text_is_logged_all_the_same(desk, receiver):
    await desk.subscribe(receiver.url)
    receiver.answer(Reply(500, b"\x00\xff\xfe oh"))
    await desk.publish(started())
    await desk.step()
    (attempt,) = (await desk.only_delivery())["log"]
    assert attempt["body"] == "\ufffd\ufffd\ufffd oh"
    assert not attempt["body_is_cut"]


async def test_receiver_that_says_nothing_fails_in_bounded_time(desk, receiver, monkeypatch):
    monkeypatch.setattr(posting, "TIMEOUT_S", 0.3)

    async def hang(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    await desk.subscribe(receiver.url)
    receiver.answer(Reply(write=hang))
    await desk.publish(started())
    await desk.step()
    delivery = await desk.only_delivery()
    assert (delivery["state"], outcomes(delivery)) == ("pending", ["failed"])
    assert delivery["error"].startswith("no answer within")


async def test_attempts_follow_the_schedule_with_one_id_and_body_and_new_signatures(desk, receiver, monkeypatch):
    made = await desk.subscribe(receiver.url)
    receiver.answer(Reply(503))
    await desk.publish(started())
    for number, wait in enumerate(WAITS):
        await desk.step()
        delivery = await desk.only_delivery()
        assert delivery["attempts"] == number + 1
        assert wait <= wait_until_next(delivery) <= wait * 1.1 + timedelta(seconds=30)
        await desk.pass_time(wait * 1.1 + timedelta(seconds=31))
    await desk.step()

    delivery = await desk.only_delivery()
    assert (delivery["state"], delivery["attempts"], delivery["next_attempt_at"]) == ("dead", 8, None)
    assert len({request.id for request in receiver.requests}) == 1
    assert len({request.body for request in receiver.requests}) == 1
    for request in receiver.requests:
        Webhook(made["secret"]).verify(request.body, request.headers)

    receiver.answer(Reply(204))
    again = await desk.http.post(f"/v1/deliveries/{delivery['delivery_id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    await desk.step()
    assert (await desk.only_delivery())["state"] == "delivered"
    assert receiver.requests[-1].id == delivery["delivery_id"]


async def test_both_secrets_sign_during_a_rotation_and_the_new_one_after_it(desk, receiver):
    made = await desk.subscribe(receiver.url)
    receiver.answer(Reply(503), Reply(200))
    await desk.publish(started())
    await desk.step()
    url = f"/v1/subscriptions/{made['subscription_id']}"
    rotated = (await desk.http.post(f"{url}/rotate-secret", json={"keep_previous_for": "PT1H"})).json()
    await desk.pass_time(timedelta(seconds=10))
    await desk.step()

    first, second = receiver.requests
    assert first.id == second.id
    Webhook(made["secret"]).verify(first.body, first.headers)
    for secret in (made["secret"], rotated["secret"]):
        Webhook(secret).verify(second.body, second.headers)

    await desk.http.post(f"{url}/rotate-secret", json={"keep_previous_for": "PT0S"})
    await desk.publish(started())
    await desk.step()
    for secret in (made["secret"], rotated["secret"]):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(receiver.requests[-1].body, receiver.requests[-1].headers)


@pytest.mark.parametrize(
    "headers",
    [
        [("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")],
        [("Retry-After", "-5")],
        [("Retry-After", "120junk")],
        [("Retry-After", "1")],
        [("Retry-After", "600"), ("Retry-After", "700")],
        [("Retry-After", "")],
    ],
)
async def test_wait_is_never_shorter_than_the_schedules(desk, receiver, headers):
    await desk.subscribe(receiver.url)
    receiver.answer(Reply(503, headers=headers))
    await desk.publish(started())
    await desk.step()
    assert timedelta(seconds=5) <= wait_until_next(await desk.only_delivery()) <= timedelta(seconds=60)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("600", timedelta(seconds=600), timedelta(seconds=660)),
        ("date", timedelta(seconds=590), timedelta(seconds=660)),
        ("9999999999", timedelta(hours=24), timedelta(hours=24, minutes=1)),
    ],
)
async def test_receiver_may_ask_for_a_longer_wait_up_to_a_day(desk, receiver, value, least, most):
    await desk.subscribe(receiver.url)
    sent = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True) if value == "date" else value
    receiver.answer(Reply(503, headers=[("Retry-After", sent)]))
    await desk.publish(started())
    await desk.step()
    assert least <= wait_until_next(await desk.only_delivery()) <= most


async def test_one_endpoints_wait_holds_back_no_other(desk, receiver):
    async with http_receiver() as other:
        await desk.subscribe(receiver.url)
        await desk.subscribe(other.url)
        receiver.answer(Reply(429, headers=[("Retry-After", "86400")]))
        for _ in range(3):
            await desk.publish(started())
            await desk.step()
        assert len(receiver.requests) == 1
        assert len(other.requests) == 3


async def test_too_many_requests_pace_an_endpoint_and_disable_nothing(desk, receiver):
    made = await desk.subscribe(receiver.url)
    receiver.answer(Reply(429, headers=[("Retry-After", "2")]), Reply(429), Reply(200))
    await desk.publish(started(), started(), started())
    for _ in range(6):
        await desk.pass_time(timedelta(seconds=10))
        await desk.step()

    found = await desk.deliveries()
    assert [one["state"] for one in found] == ["delivered"] * 3
    accepted = [request.id for request in receiver.requests]
    assert set(accepted) == {one["delivery_id"] for one in found}
    subscription = await desk.subscription(made["subscription_id"])
    assert (subscription["state"], subscription["failing_since"]) == ("active", None)


async def test_delivery_that_is_paced_for_days_ends(desk, receiver):
    await desk.subscribe(receiver.url)
    receiver.answer(Reply(429))
    await desk.publish(started())
    for _ in range(5):
        await desk.step()
        await desk.pass_time(timedelta(days=1))
    delivery = await desk.only_delivery()
    assert (delivery["state"], set(outcomes(delivery))) == ("dead", {"paced"})


async def fail_for_a_day(desk) -> None:
    await desk.publish(started())
    for wait in WAITS[:-2]:
        await desk.step()
        await desk.pass_time(wait * 1.1 + timedelta(minutes=1))
    await desk.step()
    await desk.pass_time(timedelta(hours=15))


async def test_one_dead_delivery_and_a_quiet_week_disable_nothing(desk, receiver):
    made = await desk.subscribe(receiver.url)
    receiver.answer(Reply(500))
    await desk.publish(started())
    for wait in WAITS:
        await desk.step()
        await desk.pass_time(wait * 1.1 + timedelta(minutes=1))
    await desk.step()
    assert [one["state"] for one in await desk.deliveries()] == ["dead"]
    await desk.pass_time(timedelta(days=7))
    await desk.publish(started())
    await desk.step()
    assert (await desk.subscription(made["subscription_id"]))["state"] == "active"


async def test_success_on_the_fourth_day_begins_the_five_days_anew(desk, receiver):
    made = await desk.subscribe(receiver.url)
    receiver.answer(Reply(500))
    for _ in range(4):
        await fail_for_a_day(desk)
    receiver.answer(Reply(200))
    await desk.step()
    assert (await desk.subscription(made["subscription_id"]))["failing_since"] is None
    receiver.answer(Reply(500))
    for _ in range(2):
        await fail_for_a_day(desk)
    assert (await desk.subscription(made["subscription_id"]))["state"] == "active"


async def test_five_days_of_failures_disable_with_the_reason(desk, receiver):
    made = await desk.subscribe(receiver.url)
    receiver.answer(Reply(500))
    for _ in range(6):
        await fail_for_a_day(desk)
    await desk.publish(started())
    await desk.step()

    subscription = await desk.subscription(made["subscription_id"])
    assert subscription["state"] == "disabled"
    assert subscription["disabled_because"].startswith("every attempt has failed since ")
    assert "answered 500" in subscription["disabled_because"]
    asked = len(receiver.requests)
    await desk.publish(started())
    await desk.pass_time(timedelta(days=1))
    await desk.step()
    assert len(receiver.requests) == asked
    assert (await desk.deliveries())[-1]["state"] == "dropped"


async def test_gone_disables_at_once(desk, receiver):
    made = await desk.subscribe(receiver.url)
    receiver.answer(Reply(410))
    await desk.publish(started())
    await desk.step()
    subscription = await desk.subscription(made["subscription_id"])
    assert (subscription["state"], subscription["disabled_because"]) == ("disabled", "the receiver answered 410")
    assert (await desk.only_delivery())["state"] == "dead"
