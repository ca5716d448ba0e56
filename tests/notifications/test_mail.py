"""E-mail over real SMTP servers: nothing lost, nothing in clear, and one Message-ID for each notification."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.notifications.conftest import at_risk, breached, outcomes
from tests.notifications.mailservers import mail_server, make_certificate
from tests.notifications.receivers import http_receiver

from accord.notifications.channels import mail as mail_module
from accord.notifications.domain.schedule import UNCERTAIN_MAX
from accord.notifications.service.delivery import CHANNEL_MAX

ANN = {"channel": "email", "address": "ann@example.com", "person": "ann"}


@pytest.fixture
async def server():
    async with mail_server() as one:
        yield one


@pytest.fixture
def make_mail_desk(make_desk):
    async def make(server, **options):
        settings = {"smtp_security": "none", "smtp_from": "accord@example.org", **options}
        return await make_desk(smtp_host="127.0.0.1", smtp_port=server.port, **settings)

    return make


@pytest.fixture
async def desk(make_mail_desk, server):
    return await make_mail_desk(server)


async def subscribe(desk, **content):
    body = {**ANN, **content}
    return await desk.subscribe(body.pop("address"), **body)


async def release_mail(desk):
    """Let the channel try again, as if the minute were over for which it holds."""
    desk.engine.delivery._senders["email"]._held_until = 0.0
    await desk.pass_time(timedelta(minutes=2))


async def test_notification_is_a_mail_with_text_and_html(desk, server):
    await subscribe(desk, timezone="Asia/Kathmandu")
    await desk.publish(breached(owner="bob"))
    await desk.step()

    delivery = await desk.only_delivery()
    (mail,) = server.accepted
    assert (mail["From"], mail["To"]) == ("accord@example.org", "ann@example.com")
    assert mail["Subject"] == "Accord: SLA breached"
    assert mail["Message-ID"] == f"<{delivery['delivery_id']}@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "Owner: bob" in mail.get_body(("plain",)).get_content()
    assert "Asia/Kathmandu" in mail.get_body(("html",)).get_content()
    assert (delivery["state"], outcomes(delivery)) == ("delivered", ["delivered"])


async def test_server_that_closes_before_its_answer_leaves_an_uncertain_attempt(desk, server):
    await subscribe(desk)
    server.closes_after_data = True
    await desk.publish(breached())
    await desk.step()
    delivery = await desk.only_delivery()
    assert (delivery["state"], outcomes(delivery)) == ("pending", ["uncertain"])
    assert "may have arrived" in delivery["error"]

    server.closes_after_data = False
    await desk.pass_time(timedelta(seconds=10))
    await desk.step()
    assert outcomes(await desk.only_delivery()) == ["uncertain", "delivered"]
    assert len({mail["Message-ID"] for mail in server.accepted}) == 1


async def test_server_that_answers_too_late_leaves_an_uncertain_attempt(desk, server, monkeypatch):
    monkeypatch.setattr(mail_module, "COMMAND_TIMEOUT_S", 0.5)
    await subscribe(desk)
    server.data_delay_s = 2.0
    await desk.publish(breached())
    await desk.step()
    assert outcomes(await desk.only_delivery()) == ["uncertain"]


async def test_process_that_ends_between_answer_and_commit_repeats_with_one_message_id(make_mail_desk, server):
    one, other = await make_mail_desk(server), await make_mail_desk(server)
    await subscribe(one)
    await one.publish(breached())
    await one.engine.delivery.deliver_due()
    await asyncio.wait(one.engine.delivery._tasks)
    await other.pass_time(timedelta(seconds=61))
    await other.step()
    assert outcomes(await one.only_delivery()) == ["uncertain", "delivered"]
    assert len(server.accepted) == 2
    assert len({mail["Message-ID"] for mail in server.accepted}) == 1


async def test_uncertain_repeats_are_bounded(desk, server):
    await subscribe(desk)
    server.closes_after_data = True
    await desk.publish(breached())
    for _ in range(UNCERTAIN_MAX + 2):
        await desk.step()
        await desk.pass_time(timedelta(hours=6))
    delivery = await desk.only_delivery()
    assert delivery["state"] == "dead"
    assert outcomes(delivery) == ["uncertain"] * UNCERTAIN_MAX + ["refused"]
    assert len(server.accepted) == UNCERTAIN_MAX


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
async def test_try_later_is_tried_later_wherever_it_comes(desk, server, command):
    made = await subscribe(desk)
    server.answers[command] = "451 4.7.1 greylisted, try later"
    await desk.publish(breached())
    await desk.step()
    await desk.pass_time(timedelta(seconds=10))
    await desk.step()
    delivery = await desk.only_delivery()
    assert (delivery["state"], outcomes(delivery)) == ("pending", ["failed", "failed"])
    server.answers.clear()
    await desk.pass_time(timedelta(minutes=20))
    await desk.step()
    assert (await desk.only_delivery())["state"] == "delivered"
    assert (await desk.subscription(made["subscription_id"]))["state"] == "active"


async def test_busy_server_is_tried_later(make_mail_desk):
    async def busy(_reader, writer):
        writer.write(b"421 4.3.2 busy\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(busy, "127.0.0.1", 0)
    busy_port = type("Server", (), {"port": server.sockets[0].getsockname()[1]})
    desk = await make_mail_desk(busy_port)
    await subscribe(desk)
    await desk.publish(breached())
    await desk.step()
    assert ((await desk.only_delivery())["state"], outcomes(await desk.only_delivery())) == ("pending", ["failed"])
    server.close()


async def test_server_that_is_away_is_tried_later(make_mail_desk):
    desk = await make_mail_desk(type("Server", (), {"port": 1}))
    await subscribe(desk)
    await desk.publish(breached())
    await desk.step()
    assert ((await desk.only_delivery())["state"], outcomes(await desk.only_delivery())) == ("pending", ["failed"])


async def test_refused_recipient_is_dead_at_once(desk, server):
    await subscribe(desk)
    server.answers["RCPT"] = "550 5.1.1 no such user"
    await desk.publish(breached())
    await desk.step()
    delivery = await desk.only_delivery()
    assert (delivery["state"], outcomes(delivery)) == ("dead", ["refused"])
    assert "no such user" in delivery["error"]
    assert [one["delivery_id"] for one in await desk.deliveries(state="dead")] == [delivery["delivery_id"]]


async def test_answer_that_is_no_text_is_recorded_all_the_same(make_mail_desk):
    async def odd(_reader, writer):
        writer.write(b"421 \xff\xfe\x00 busy\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(odd, "127.0.0.1", 0)
    desk = await make_mail_desk(type("Server", (), {"port": server.sockets[0].getsockname()[1]}))
    await subscribe(desk)
    await desk.publish(breached())
    await desk.step()
    assert outcomes(await desk.only_delivery()) == ["failed"]
    server.close()


async def test_refused_credentials_hold_all_mail_and_kill_none(make_mail_desk, server):
    desk = await make_mail_desk(server, smtp_username="accord", smtp_password="wrong")
    made = await subscribe(desk)
    await subscribe(desk, address="bob@example.com", person="bob")
    server.answers["AUTH"] = "535 5.7.8 bad credentials"
    await desk.publish(breached())
    for _ in range(12):
        await desk.step()
        await release_mail(desk)
    assert [one["state"] for one in await desk.deliveries()] == ["pending", "pending"]
    assert all("535" in one["error"] for one in await desk.deliveries())
    assert (await desk.subscription(made["subscription_id"]))["failing_since"] is None
    server.answers.clear()
    await desk.step()
    assert [one["state"] for one in await desk.deliveries()] == ["delivered", "delivered"]


async def test_held_channel_asks_the_server_once(make_mail_desk, server):
    desk = await make_mail_desk(server, smtp_username="accord", smtp_password="wrong")
    await subscribe(desk)
    server.answers["AUTH"] = "535 5.7.8 bad credentials"
    await desk.publish(breached())
    await desk.step()
    asked = len(server.commands)
    await desk.pass_time(timedelta(minutes=2))
    await desk.step()
    assert len(server.commands) == asked


async def test_starttls_is_one_handshake(make_mail_desk, tmp_path):
    cafile, context = make_certificate(tmp_path)
    async with mail_server(starttls=context) as server:
        desk = await make_mail_desk(
            server, smtp_security="starttls", smtp_cafile=cafile, smtp_username="accord", smtp_password="right"
        )
        await subscribe(desk)
        await desk.publish(breached())
        await desk.step()
        assert (await desk.only_delivery())["state"] == "delivered"
        assert server.commands == ["EHLO", "EHLO over TLS", "AUTH", "MAIL", "RCPT", "DATA"]


async def test_implicit_tls_is_one_handshake(make_mail_desk, tmp_path):
    cafile, context = make_certificate(tmp_path)
    async with mail_server(tls=context) as server:
        desk = await make_mail_desk(server, smtp_security="tls", smtp_cafile=cafile)
        await subscribe(desk)
        await desk.publish(breached())
        await desk.step()
        assert (await desk.only_delivery())["state"] == "delivered"
        assert server.commands == ["EHLO", "MAIL", "RCPT", "DATA"]


async def test_stripped_starttls_sends_nothing_in_clear(make_mail_desk, server):
    desk = await make_mail_desk(server, smtp_security="starttls", smtp_username="accord", smtp_password="secret")
    await subscribe(desk)
    await desk.publish(breached())
    await desk.step()
    delivery = await desk.only_delivery()
    assert (delivery["state"], delivery["attempts"]) == ("pending", 0)
    assert "STARTTLS" in delivery["error"]
    assert server.commands == ["EHLO"]
    assert desk.engine.delivery._senders["email"].held_because == delivery["error"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_certificate_of_another_name_sends_nothing(make_mail_desk, tmp_path, security):
    cafile, context = make_certificate(tmp_path, "mail.example.com")
    async with mail_server(**{security: context}) as server:
        desk = await make_mail_desk(server, smtp_security=security, smtp_cafile=cafile)
        await subscribe(desk)
        await desk.publish(breached())
        await desk.step()
        delivery = await desk.only_delivery()
        assert (delivery["state"], delivery["attempts"]) == ("pending", 0)
        assert "certificate is not valid" in delivery["error"]
        assert "MAIL" not in server.commands


async def test_several_notifications_are_one_mail(desk, server):
    await subscribe(desk)
    await desk.publish(breached(), at_risk(), at_risk())
    await desk.step()
    (mail,) = server.accepted
    assert mail["Subject"] == "Accord: 3 notifications"
    assert {one["state"] for one in await desk.deliveries()} == {"delivered"}


async def test_mail_server_that_hangs_takes_no_places_of_webhooks(make_mail_desk):
    release, connections = asyncio.Event(), 0

    async def hang(_reader, writer):
        nonlocal connections
        connections += 1
        await release.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    desk = await make_mail_desk(type("Server", (), {"port": server.sockets[0].getsockname()[1]}))
    for number in range(40):
        await subscribe(desk, address=f"reader{number}@example.com", person=f"reader{number}")
    async with http_receiver() as receiver:
        await desk.subscribe(receiver.url)
        await desk.publish(*(breached() for _ in range(20)))
        stop = asyncio.Event()
        running = asyncio.create_task(desk.engine.delivery.run(stop))
        await desk.until(lambda: len(receiver.requests) == 20 and connections > 0)
        await desk.publish(*(breached() for _ in range(20)))
        await desk.until(lambda: len(receiver.requests) == 40)
        most = connections
        stop.set()
        release.set()
        await running
    server.close()
    assert 0 < most <= CHANNEL_MAX["email"]
