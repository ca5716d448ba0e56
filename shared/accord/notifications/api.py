"""HTTP: subscriptions, and what became of their deliveries. Keys with the scope `admin` change them; any key of a department reads."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Body, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr

from accord.contracts.values import Handle, Timestamp
from accord.db import Database, connection_of
from accord.http.auth import Caller, forbidden, require
from accord.http.idempotency import Answer, IdempotencyRequest, idempotency
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_cursor, make_page
from accord.http.problems import not_found, validation_error_at
from accord.notifications import queries
from accord.notifications.domain.addresses import ADDRESS_CHARS_MAX, show_address
from accord.notifications.domain.model import Channel, DeliveryState, OutcomeKind, SubscriptionState
from accord.notifications.queries import StoredDelivery, StoredSubscription
from accord.notifications.service.subscriptions import REDELIVERED_MAX, Subscriptions, etag_of
from accord.terms.criteria import Criteria
from accord.terms.durations import Duration
from accord.terms.week import WeekTerms

_KEEP_DEFAULT = timedelta(hours=24)
_KEEP_MAX = timedelta(days=7)

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
EventTypes = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=100)]],
    Field(
        min_length=1, max_length=50, description="Types of this service's events, `*` for all, or a prefix: `sla.*`."
    ),
]
Address = Annotated[
    str,
    Field(
        min_length=1,
        max_length=ADDRESS_CHARS_MAX,
        description="A URL with https; for the channel `email` an e-mail address. It is kept encrypted.",
    ),
]
DigestTime = Annotated[
    str,
    Field(
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$",
        description="A local time: one message a day with all that was to be said, none where there is nothing. To people only.",
    ),
]
QuietHours = Annotated[
    WeekTerms,
    Field(description="Hours of a week in which nothing is sent; it is sent when they end, to people as one message."),
]
Zone = Annotated[
    str, Field(min_length=1, max_length=64, description="IANA time zone of the reader; UTC if none is given.")
]
GivenSecret = Annotated[
    SecretStr,
    Field(max_length=200, description="`whsec_` and 24 to 64 random bytes in base64. Without one it is made."),
]
Filter = Annotated[
    Criteria,
    Field(
        description="Criteria over the event's public fields as `attributes.NAME`, and over those of the lead where the event has them."
    ),
]


class NewSubscription(BaseModel):
    """Who is to be told of what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "sales desk",
                    "channel": "webhook",
                    "address": "https://desk.example.com/hooks/accord",
                    "event_types": ["sla.at_risk.v1", "sla.breached.v1"],
                    "filter": {"path": "attributes.obliges", "op": "eq", "value": "sales"},
                }
            ]
        },
    )

    name: Name
    channel: Channel
    address: Address
    event_types: EventTypes
    filter: Filter | None = None
    quiet_hours: QuietHours | None = None
    digest: DigestTime | None = None
    timezone: Zone | None = None
    person: Handle | None = Field(
        default=None, description="Who reads it. Messages of one person, channel and address are merged."
    )
    secret: GivenSecret | None = None


class SubscriptionChanges(BaseModel):
    """What is to be different; null takes away. The channel stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"event_types": ["sla.*"]}, {"state": "active"}]}
    )

    name: Name = "-"
    address: Address = "-"
    event_types: EventTypes = Field(default_factory=list)
    filter: Filter | None = None
    quiet_hours: QuietHours | None = None
    digest: DigestTime | None = None
    timezone: Zone = "UTC"
    person: Handle | None = None
    state: SubscriptionState = "active"


class NewSecret(BaseModel):
    """How the secret is changed."""

    model_config = ConfigDict(extra="forbid")

    secret: GivenSecret | None = None
    keep_previous_for: Duration = Field(
        default=_KEEP_DEFAULT,
        description="How long the secret before signs beside it: up to seven days, `PT0S` for not at all.",
    )


class SubscriptionAnswer(BaseModel):
    """A subscription. The secret is shown when it is made, and never again."""

    subscription_id: UUID
    name: str
    channel: Channel
    address: str | None = Field(
        description="Of Slack and Teams the host only: who knows the URL can post. Null if no key in ACCORD_SECRETS_KEYS decrypts it: then"
        " nothing is sent."
    )
    event_types: list[str]
    filter: dict[str, JsonValue] | None
    quiet_hours: dict[str, list[str]] | None
    digest: str | None
    timezone: str
    person: str | None
    state: SubscriptionState
    disabled_because: str | None
    failing_since: datetime | None = Field(description="The first failed attempt since the last success.")
    created_at: datetime
    updated_at: datetime
    secret: str | None = Field(default=None, description="Only in the answer that made it.")


class RotatedSecret(BaseModel):
    secret: str = Field(description="The new secret, shown once.")
    previous_until: datetime = Field(description="Until then messages are signed with the one before, too.")


class DeliveryAnswer(BaseModel):
    """One notification of one subscription."""

    delivery_id: UUID = Field(description="`webhook-id`, and part of a mail's Message-ID: the same with each attempt.")
    subscription_id: UUID
    event_id: UUID | None
    event_type: str = Field(
        description="`accord.digest` is a message to a person made of several notifications, `accord.test` a test."
    )
    subject: str | None = Field(description="The event's key: mostly the lead's id.")
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    is_in_flight: bool = Field(description="An attempt is being made, or its process ended before it was recorded.")
    held_for: str | None = Field(description="The digest that it waits for.")
    merged_into: UUID | None = Field(description="The message that it became part of, whose end it shares.")
    error: str | None = Field(description="What was said of it last.")
    created_at: datetime
    settled_at: datetime | None


class AttemptAnswer(BaseModel):
    at: datetime
    outcome: OutcomeKind = Field(
        description="`uncertain`: it may have arrived; `paced`: 429, which counts as no failure; `refused`: not tried again."
    )
    status: int | None = None
    error: str | None = None
    body: str | None = Field(default=None, description="The beginning of the answer.")
    body_is_cut: bool = False
    duration_ms: int | None = None


class DeliveryDetail(DeliveryAnswer):
    log: list[AttemptAnswer] = Field(description="The attempts, of which the last 50 are kept.")
    body: JsonValue = Field(description="What a webhook is sent; null for a message made of several.")


class Redelivered(BaseModel):
    redelivered: int
    more: bool = Field(description="There were more than 10,000: ask again.")


class TestSent(BaseModel):
    __test__ = False

    delivery_id: UUID


SubscriptionMatch = Annotated[
    str | None, Header(alias="If-Match", description="The subscription's ETag, if it must be as it was read.")
]


def notification_router(database: Database, subscriptions: Subscriptions) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["notifications"])
    _add_subscription_routes(routes, subscriptions)
    _add_change_routes(routes, subscriptions)
    _add_sending_routes(routes, subscriptions)
    _add_delivery_routes(routes, database)
    return routes


def _add_subscription_routes(routes: APIRouter, subscriptions: Subscriptions) -> None:
    @routes.get("/v1/subscriptions", summary="List subscriptions", operation_id="list_subscriptions")
    async def list_subscriptions(
        limit: Limit = 100, cursor: CursorText = None, caller: Caller = require()
    ) -> Page[SubscriptionAnswer]:
        """Who is told of what, by name. For keys of a department or with the scope `admin`."""
        _check_reader(caller)
        after = decode_cursor(cursor, str)
        found = await subscriptions.page(after[0] if after else "", limit + 1)
        items, next_cursor = make_page([_answer(subscriptions, one) for one in found], limit, lambda one: one.name)
        return Page(items=items, next_cursor=next_cursor)

    @routes.post(
        "/v1/subscriptions",
        status_code=201,
        response_model=SubscriptionAnswer,
        summary="Subscribe",
        operation_id="create_subscription",
        responses=problems(409),
    )
    async def create_subscription(
        content: NewSubscription,
        idempotency_request: IdempotencyRequest | None = idempotency(),
        _caller: Caller = require("admin"),
    ) -> Response:
        """Make a subscription. The secret of a webhook is in this answer alone; a repeated request gets it without."""

        def encode(made: StoredSubscription) -> Answer:
            headers = {"location": f"/v1/subscriptions/{made.subscription_id}", "etag": etag_of(made)}
            return Answer(201, _answer(subscriptions, made).model_dump_json().encode(), headers)

        made = await subscriptions.create(_plain(content), idempotency_request, encode)
        if made.result is None:
            return made.answer.response()
        shown = _answer(subscriptions, made.result.subscription, made.result.secret).model_dump_json().encode()
        return made.answer._replace(body=shown).response()

    @routes.get("/v1/subscriptions/{subscription_id}", summary="A subscription", operation_id="get_subscription")
    async def get_subscription(
        subscription_id: UUID, response: Response, caller: Caller = require()
    ) -> SubscriptionAnswer:
        """One subscription, without its secret. For keys of a department or with the scope `admin`."""
        _check_reader(caller)
        found = await subscriptions.get(subscription_id)
        response.headers["ETag"] = etag_of(found)
        return _answer(subscriptions, found)


def _add_change_routes(routes: APIRouter, subscriptions: Subscriptions) -> None:
    @routes.patch(
        "/v1/subscriptions/{subscription_id}",
        summary="Change a subscription",
        operation_id="change_subscription",
        responses=problems(404, 409, 412),
    )
    async def change_subscription(
        subscription_id: UUID,
        changes: SubscriptionChanges,
        response: Response,
        if_match: SubscriptionMatch = None,
        _caller: Caller = require("admin"),
    ) -> SubscriptionAnswer:
        """Change what is named. `state: active` enables it again; what came meanwhile is listed and can be sent by `…/redeliver`."""
        after = await subscriptions.change(subscription_id, _plain(changes), if_match)
        response.headers["ETag"] = etag_of(after)
        return _answer(subscriptions, after)

    @routes.delete(
        "/v1/subscriptions/{subscription_id}",
        status_code=204,
        summary="Unsubscribe",
        operation_id="delete_subscription",
        responses=problems(404),
    )
    async def delete_subscription(subscription_id: UUID, _caller: Caller = require("admin")) -> None:
        """Delete a subscription. What still waits is dropped; its deliveries stay listed for 30 days."""
        await subscriptions.delete(subscription_id)


def _add_sending_routes(routes: APIRouter, subscriptions: Subscriptions) -> None:
    @routes.post(
        "/v1/subscriptions/{subscription_id}/rotate-secret",
        summary="Change the secret",
        operation_id="rotate_subscription_secret",
        responses=problems(404, 409),
    )
    async def rotate_secret(
        subscription_id: UUID,
        content: Annotated[NewSecret | None, Body()] = None,
        _caller: Caller = require("admin"),
    ) -> RotatedSecret:
        """Make a new secret. For a day, or as long as is said, messages are signed with both."""
        wanted = content or NewSecret()
        if wanted.keep_previous_for > _KEEP_MAX:
            raise validation_error_at("/keep_previous_for", "must be seven days at most")
        given = None if wanted.secret is None else wanted.secret.get_secret_value()
        rotated, until = await subscriptions.rotate_secret(subscription_id, given, wanted.keep_previous_for)
        assert rotated.secret is not None  # noqa: S101 - it was made or given
        return RotatedSecret(secret=rotated.secret, previous_until=until)

    @routes.post(
        "/v1/subscriptions/{subscription_id}/test",
        status_code=202,
        summary="Send a test",
        operation_id="test_subscription",
        responses=problems(404, 409),
    )
    async def send_test(subscription_id: UUID, _caller: Caller = require("admin")) -> TestSent:
        """Send a test message at once, also in quiet hours. What became of it is in `GET /v1/deliveries/{id}`."""
        return TestSent(delivery_id=await subscriptions.test(subscription_id))

    @routes.post(
        "/v1/subscriptions/{subscription_id}/redeliver",
        status_code=202,
        summary="Send a time again",
        operation_id="redeliver_subscription",
        responses=problems(404, 409),
    )
    async def redeliver_range(
        subscription_id: UUID,
        since: Annotated[Timestamp, Query(alias="from", description="Made then or later.")],
        until: Annotated[Timestamp, Query(alias="to", description="Made before then.")],
        _caller: Caller = require("admin"),
    ) -> Redelivered:
        """Send again what is dead or was dropped, the oldest first, but for what was met or cancelled meanwhile."""
        count = await subscriptions.redeliver_range(subscription_id, since, until)
        return Redelivered(redelivered=count, more=count >= REDELIVERED_MAX)

    @routes.post(
        "/v1/deliveries/{delivery_id}/redeliver",
        status_code=202,
        summary="Send a delivery again",
        operation_id="redeliver_delivery",
        responses=problems(404, 409),
    )
    async def redeliver_delivery(delivery_id: UUID, _caller: Caller = require("admin")) -> DeliveryAnswer:
        """Send a delivery again under its id, from its first attempt, whatever became of it."""
        return DeliveryAnswer(**_delivery(await subscriptions.redeliver(delivery_id)))


def _add_delivery_routes(routes: APIRouter, database: Database) -> None:
    @routes.get("/v1/deliveries", summary="List deliveries", operation_id="list_deliveries")
    async def list_deliveries(
        state: DeliveryState | None = None,
        subscription: UUID | None = None,
        limit: Limit = 100,
        cursor: CursorText = None,
        caller: Caller = require(),
    ) -> Page[DeliveryAnswer]:
        """Deliveries of the last 30 days, the newest first. For keys of a department or with the scope `admin`."""
        _check_reader(caller)
        async with database.read_transaction() as conn:
            found = await queries.page_deliveries(
                await connection_of(conn), state, subscription, decode_cursor(cursor, datetime, UUID), limit + 1
            )
        items, next_cursor = make_page(
            [DeliveryAnswer(**_delivery(one)) for one in found], limit, lambda one: (one.created_at, one.delivery_id)
        )
        return Page(items=items, next_cursor=next_cursor)

    @routes.get("/v1/deliveries/{delivery_id}", summary="A delivery", operation_id="get_delivery")
    async def get_delivery(delivery_id: UUID, caller: Caller = require()) -> DeliveryDetail:
        """One delivery with its attempts. For keys of a department or with the scope `admin`."""
        _check_reader(caller)
        async with database.read_transaction() as conn:
            found = await queries.fetch_delivery(await connection_of(conn), delivery_id)
        if found is None:
            raise not_found("delivery")
        delivery, attempts, body = found
        log = [AttemptAnswer.model_validate(attempt) for attempt in attempts]
        return DeliveryDetail(**_delivery(delivery), log=log, body=orjson.loads(body) if body else None)


def _answer(
    subscriptions: Subscriptions, subscription: StoredSubscription, secret: str | None = None
) -> SubscriptionAnswer:
    address = subscriptions.address_of(subscription)
    shown = None if address is None else show_address(subscription.channel, address)
    values = {
        name: getattr(subscription, name)
        for name in SubscriptionAnswer.model_fields
        if name not in ("address", "secret")
    }
    return SubscriptionAnswer(**values, address=shown, secret=secret)


def _check_reader(caller: Caller) -> None:
    if caller.department is None and "admin" not in caller.scopes:
        raise forbidden("admin")


def _plain(content: BaseModel) -> dict[str, Any]:
    """What was sent, as it is stored."""
    sent = content.model_dump(mode="json", exclude_unset=True)
    secret = getattr(content, "secret", None)
    return sent if secret is None else {**sent, "secret": secret.get_secret_value()}


def _delivery(delivery: StoredDelivery) -> dict[str, Any]:
    return {
        "delivery_id": delivery.delivery_id,
        "subscription_id": delivery.subscription_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "subject": delivery.subject,
        "state": delivery.state,
        "attempts": delivery.attempt_count,
        "next_attempt_at": delivery.due_at if delivery.state == "pending" else None,
        "is_in_flight": delivery.attempted_at is not None,
        "held_for": delivery.batch if delivery.batch != "now" else None,
        "merged_into": delivery.merged_into,
        "error": delivery.error,
        "created_at": delivery.created_at,
        "settled_at": delivery.settled_at,
    }
