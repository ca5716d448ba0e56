"""The routes of subscriptions and deliveries: who may, what is refused and where, and that a secret is shown once."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from standardwebhooks.webhooks import Webhook
from tests.notifications.conftest import ENCRYPTION_KEY, bearer, outcomes, started

NEW = {"name": "desk", "channel": "webhook", "address": "http://127.0.0.1:9/hook", "event_types": ["sla.*"]}
STRONG = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()


async def pointers(desk, url: str, body: dict, method: str = "POST") -> list[str]:
    answer = await desk.http.request(method, url, json=body)
    assert answer.status_code == 422, answer.text
    return sorted(error["pointer"] for error in answer.json()["errors"])


async def test_secret_is_shown_once_and_kept_encrypted(desk):
    made = await desk.http.post("/v1/subscriptions", json=NEW)
    assert made.status_code == 201
    body = made.json()
    secret = body["secret"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert made.headers["location"] == f"/v1/subscriptions/{body['subscription_id']}"
    read = await desk.http.get(made.headers["location"])
    assert read.json() == {**body, "secret": None}
    listed = (await desk.http.get("/v1/subscriptions")).json()["items"]
    assert listed == [read.json()]
    async with desk.database.read_transaction() as conn:
        stored = (await conn.exec_driver_sql("SELECT s::text FROM subscription s")).scalar_one()
    assert secret not in stored
    assert NEW["address"] not in stored


async def test_repeated_request_makes_one_subscription_and_shows_no_secret_again(desk):
    headers = {"Idempotency-Key": "k1"}
    first = await desk.http.post("/v1/subscriptions", json=NEW, headers=headers)
    again = await desk.http.post("/v1/subscriptions", json=NEW, headers=headers)
    assert first.json()["secret"] is not None
    assert again.json() == {**first.json(), "secret": None}
    async with desk.database.read_transaction() as conn:
        saved = (await conn.exec_driver_sql("SELECT body FROM idempotency_key")).scalar_one()
    assert first.json()["secret"].encode() not in bytes(saved)


async def test_only_admins_change_and_departments_read(desk):
    made = (await desk.http.post("/v1/subscriptions", json=NEW)).json()
    url = f"/v1/subscriptions/{made['subscription_id']}"
    changes = [("POST", "/v1/subscriptions"), ("PATCH", url), ("DELETE", url), ("POST", f"{url}/rotate-secret")]
    changes += [("POST", f"{url}/test"), ("POST", f"/v1/deliveries/{made['subscription_id']}/redeliver")]
    for key in ("sales", "stranger"):
        for method, path in changes:
            answer = await desk.http.request(method, path, json=NEW if path.endswith("s") else {}, headers=bearer(key))
            assert (answer.status_code, answer.json()["missing_scope"]) == (403, "admin")
    for path in (url, "/v1/subscriptions", "/v1/deliveries"):
        assert (await desk.http.get(path, headers=bearer("sales"))).status_code == 200
        assert (await desk.http.get(path, headers=bearer("stranger"))).status_code == 403


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"address": "not a url"}, "/address"),
        ({"address": "ftp://receiver.example/"}, "/address"),
        ({"address": "https://user:pass@receiver.example/"}, "/address"),
        ({"address": "https://receiver.example:99999/"}, "/address"),
        ({"address": "https://"}, "/address"),
        ({"address": "https://receiver.example/#x"}, "/address"),
        ({"event_types": ["lead.captured.v1"]}, "/event_types/0"),
        ({"event_types": ["sla.breached.v1", "sla.*.v1"]}, "/event_types/1"),
        ({"event_types": ["nothing.*"]}, "/event_types/0"),
        ({"event_types": []}, "/event_types"),
        ({"event_types": ["watermark.advanced.v1"]}, "/event_types/0"),
        ({"filter": {"path": "scores.fit", "op": "gt", "value": 3}}, "/filter/path"),
        ({"filter": {"all": [{"path": "activities.a.b.count", "op": "gt", "value": 3}]}}, "/filter/all/0/path"),
        ({"filter": {"path": "attributes.owner", "op": "matches", "value": "("}}, "/filter/value"),
        ({"timezone": "Mars/Olympus"}, "/timezone"),
        ({"quiet_hours": {"mon-fri": ["22:00-07:00"], "someday": ["01:00-02:00"]}}, "/quiet_hours/someday"),
        ({"quiet_hours": {"mon-sun": ["00:00-24:00"]}}, "/quiet_hours"),
        ({"secret": "whsec_aaaa"}, "/secret"),
        ({"secret": "not-a-secret-of-the-standard-but-long"}, "/secret"),
        ({"secret": "whsec_" + base64.b64encode(b"a" * 32).decode()}, "/secret"),
        ({"digest": "08:00"}, "/digest"),
        ({"channel": "email", "address": "ann@example.com"}, "/channel"),
        ({"channel": "slack", "secret": STRONG}, "/secret"),
        ({"channel": "pigeon"}, "/channel"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_place(desk, changes, pointer):
    assert pointer in await pointers(desk, "/v1/subscriptions", {**NEW, **changes})


@pytest.mark.parametrize(
    "changes", [{"event_types": ["nothing.*"]}, {"timezone": "Mars/Olympus"}, {"channel": "email"}]
)
async def test_change_is_checked_like_the_whole(desk, changes):
    made = (await desk.http.post("/v1/subscriptions", json=NEW)).json()
    found = await pointers(desk, f"/v1/subscriptions/{made['subscription_id']}", changes, "PATCH")
    assert found[0].startswith(f"/{next(iter(changes))}")


async def test_change_leaves_what_is_not_named_and_null_takes_away(desk):
    made = await desk.subscribe(
        NEW["address"], filter={"path": "source", "op": "eq", "value": "fair"}, timezone="Asia/Kathmandu"
    )
    url = f"/v1/subscriptions/{made['subscription_id']}"
    etag = (await desk.http.get(url)).headers["etag"]
    changed = await desk.http.patch(url, json={"event_types": ["*"], "filter": None}, headers={"If-Match": etag})
    assert changed.json() == {
        **made,
        "event_types": ["*"],
        "filter": None,
        "secret": None,
        "updated_at": changed.json()["updated_at"],
    }
    late = await desk.http.patch(url, json={"event_types": ["*"]}, headers={"If-Match": etag})
    assert (late.status_code, late.headers["etag"]) == (412, changed.headers["etag"])


async def test_two_subscriptions_do_not_share_a_name(desk):
    await desk.http.post("/v1/subscriptions", json=NEW)
    assert (await desk.http.post("/v1/subscriptions", json=NEW)).status_code == 409


async def test_lists_are_paged(desk):
    for number in range(5):
        await desk.subscribe(NEW["address"], name=f"s{number}")
    await desk.publish(started(), started())
    for path, key, total in (("/v1/subscriptions", "name", 5), ("/v1/deliveries", "delivery_id", 10)):
        found, cursor = [], None
        while True:
            page = (await desk.http.get(path, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
            found += [item[key] for item in page["items"]]
            if (cursor := page["next_cursor"]) is None:
                break
        assert len(set(found)) == len(found) == total


async def test_address_of_a_chat_is_not_shown(desk):
    made = await desk.subscribe("http://127.0.0.1:9/services/T0/B0/secret", channel="slack")
    assert made["address"] == "http://127.0.0.1:9/…"
    assert made["secret"] is None


async def test_without_a_key_nothing_is_kept_in_clear(make_desk):
    desk = await make_desk(secrets_keys=None)
    answer = await desk.http.post("/v1/subscriptions", json=NEW)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/no-encryption-key")


async def test_secrets_are_encrypted_again_under_a_new_key(make_desk, receiver):
    old = await make_desk()
    made = await old.subscribe(receiver.url)
    new_key = base64.b64encode(bytes(range(32, 64))).decode()
    both = await make_desk(secrets_keys=f"{new_key},{ENCRYPTION_KEY}")
    await both.engine.subscriptions.reencrypt()
    alone = await make_desk(secrets_keys=new_key)
    assert (await alone.subscription(made["subscription_id"]))["address"] == receiver.url
    await alone.publish(started())
    await alone.step()
    Webhook(made["secret"]).verify(receiver.requests[0].body, receiver.requests[0].headers)


async def test_given_secret_is_used_and_a_weak_one_refused_at_rotation(desk, receiver):
    made = await desk.subscribe(receiver.url, secret=STRONG)
    assert made["secret"] == STRONG
    url = f"/v1/subscriptions/{made['subscription_id']}/rotate-secret"
    assert await pointers(desk, url, {"secret": "whsec_aaaa"}) == ["/secret"]
    assert await pointers(desk, url, {"keep_previous_for": "P8D"}) == ["/keep_previous_for"]
    assert (await desk.http.post(url)).json()["secret"] != STRONG


async def test_test_message_is_sent_at_once_and_says_what_it_is(desk, receiver):
    made = await desk.subscribe(receiver.url, event_types=["sla.breached.v1"])
    sent = await desk.http.post(f"/v1/subscriptions/{made['subscription_id']}/test")
    assert sent.status_code == 202
    await desk.step()
    (request,) = receiver.requests
    assert (request.json["type"], request.id) == ("accord.test", sent.json()["delivery_id"])
    assert outcomes(await desk.delivery(request.id)) == ["delivered"]


async def test_delivery_that_waits_is_not_sent_again(desk):
    await desk.subscribe(NEW["address"])
    await desk.publish(started())
    (delivery,) = await desk.deliveries()
    answer = await desk.http.post(f"/v1/deliveries/{delivery['delivery_id']}/redeliver")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/still-pending")


async def test_unknown_ids_are_not_found(desk):
    for path in ("subscriptions", "deliveries"):
        assert (await desk.http.get(f"/v1/{path}/0198c0de-0000-7000-8000-000000000001")).status_code == 404


async def test_new_address_is_used_by_what_waits(desk, receiver):
    made = await desk.subscribe("http://127.0.0.1:9/nobody")
    await desk.publish(started())
    await desk.step()
    await desk.http.patch(f"/v1/subscriptions/{made['subscription_id']}", json={"address": receiver.url})
    await desk.pass_time(timedelta(seconds=10))
    await desk.step()
    assert outcomes(await desk.only_delivery()) == ["failed", "delivered"]
    assert len(receiver.requests) == 1


async def test_subscription_whose_key_is_gone_is_listed_and_can_be_given_an_address_again(make_desk, receiver):
    old = await make_desk()
    made = await old.subscribe(receiver.url, channel="slack")
    other = await make_desk(secrets_keys=base64.b64encode(bytes(range(32, 64))).decode())
    assert [one["address"] for one in (await other.http.get("/v1/subscriptions")).json()["items"]] == [None]
    await other.publish(started())
    await other.step()
    assert receiver.requests == []
    await other.http.patch(f"/v1/subscriptions/{made['subscription_id']}", json={"address": receiver.url})
    await other.step()
    assert len(receiver.requests) == 1
