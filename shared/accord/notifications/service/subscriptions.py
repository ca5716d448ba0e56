"""Makes, changes and deletes subscriptions. Addresses and secrets are encrypted before they reach a statement; a secret is shown once."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

import asyncpg
import orjson
import structlog
from msgspec import Struct
from msgspec.structs import replace

from accord.db import Database, UnitOfWork, connection_of
from accord.http.conditional import precondition_failed
from accord.http.idempotency import Answer, IdempotencyRequest, IdempotentResult, execute_once
from accord.http.problems import Problem, not_found, validation_error
from accord.ids import new_id
from accord.notifications import queries
from accord.notifications.domain.addresses import address_error
from accord.notifications.domain.matching import find_filter_errors, find_pattern_errors
from accord.notifications.domain.model import SECRET_BYTES, TEST, Channel, secret_error
from accord.notifications.domain.schedule import is_quiet_throughout
from accord.notifications.queries import NewDelivery, Secret, StoredDelivery, StoredSubscription
from accord.notifications.service.catalog import SubscriptionCatalog
from accord.outbound import AddressRefused, LookUp, NotResolved, look_up, resolve
from accord.secrets import DecryptionFailed, SecretCipher
from accord.terms.criteria import Criteria
from accord.terms.findings import Finding, pointer
from accord.terms.patterns import SKIP_PATTERN_CHECKS
from accord.terms.week import find_week_errors, parse_week

log = structlog.get_logger(__name__)

REDELIVERED_MAX = 10_000
ROTATION_MAX = timedelta(days=7)
_DISABLED_BY_HAND = "disabled by a key with the scope admin"


class SubscriptionSecret(Struct, frozen=True):
    """A subscription with the secret that was made or given; None for people, who verify no signature."""

    subscription: StoredSubscription
    secret: str | None


class Subscriptions:
    """The use cases of those who configure. `channels` are those that this service can send by."""

    def __init__(
        self,
        database: Database,
        catalog: SubscriptionCatalog,
        cipher: SecretCipher,
        *,
        event_types: Collection[str],
        channels: Collection[Channel],
        allow_private: bool,
        look_up: LookUp = look_up,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._cipher = cipher
        self._event_types = event_types
        self._channels = channels
        self._allow_private = allow_private
        self._look_up = look_up

    async def page(self, after: str, rows: int) -> list[StoredSubscription]:
        """Subscriptions by name, those behind `after`."""
        async with self._database.read_transaction() as conn:
            return await queries.page_subscriptions(await connection_of(conn), after, rows)

    async def get(self, subscription_id: UUID) -> StoredSubscription:
        """Raises Problem 404."""
        async with self._database.read_transaction() as conn:
            found = await queries.fetch_subscription(await connection_of(conn), subscription_id)
        return _existing(found)

    def address_of(self, subscription: StoredSubscription) -> str | None:
        """The address in clear, None if none of the keys decrypts it."""
        try:
            return self._cipher.decrypt(subscription.address, str(subscription.subscription_id), "address")
        except DecryptionFailed:
            return None

    async def create(
        self,
        content: Mapping[str, Any],
        idempotency_request: IdempotencyRequest | None,
        encode: Callable[[StoredSubscription], Answer],
    ) -> IdempotentResult[SubscriptionSecret]:
        """Make a subscription of validated content. Raises Problem 409 if its name is taken, 422 with pointers for what does not fit."""
        await self._check(content)
        secret: str | None = content.get("secret")
        if content["channel"] == "webhook" and secret is None:
            secret = _new_secret()
        subscription_id = new_id()

        async def act() -> SubscriptionSecret:
            connection = await unit_of_work.connection()
            if await queries.count_subscriptions(connection) >= queries.SUBSCRIPTIONS_MAX:
                raise Problem(409, "too-many", "Too many subscriptions", "There may be 1,000 subscriptions.")
            now = unit_of_work.now
            subscription = StoredSubscription(
                subscription_id=subscription_id,
                name=content["name"],
                channel=content["channel"],
                address=self._encrypt(content["address"], subscription_id, "address"),
                secrets=() if secret is None else (self._seal(secret, subscription_id),),
                **{name: content.get(name) for name in ("filter", "quiet_hours", "digest", "person")},
                event_types=content["event_types"],
                timezone=content.get("timezone") or "UTC",
                state="active",
                disabled_because=None,
                failing_since=None,
                last_failed_at=None,
                version=1,
                created_at=now,
                updated_at=now,
            )
            await _save(connection, subscription)
            return SubscriptionSecret(subscription, secret)

        async with self._database.write_transaction() as unit_of_work:
            result = await execute_once(unit_of_work, idempotency_request, act, lambda made: encode(made.subscription))
        self._catalog.expire()
        return result

    async def change(self, subscription_id: UUID, changes: Mapping[str, Any], match: str | None) -> StoredSubscription:
        """Change what is named. Raises Problem 404, 409, 412 by the ETag, and 422 with pointers."""
        before = await self.get(subscription_id)
        content = {name: getattr(before, name) for name in ("name", "channel", "event_types", *_SETTINGS)}
        await self._check({**content, "address": changes.get("address"), **changes})
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            before = _existing(await queries.fetch_subscription(connection, subscription_id, lock=True))
            if match is not None and match != etag_of(before):
                raise precondition_failed(etag_of(before))
            now = unit_of_work.now
            after = replace(
                before,
                **{name: changes[name] for name in ("name", "event_types", *_SETTINGS) if name in changes},
                version=before.version + 1,
                updated_at=now,
            )
            if "address" in changes:
                address = self._encrypt(changes["address"], subscription_id, "address")
                after = replace(after, address=address, failing_since=None, last_failed_at=None)
            state = changes.get("state", before.state)
            if state == "disabled" and before.state == "active":
                after = replace(after, state="disabled", disabled_because=_DISABLED_BY_HAND)
                await queries.drop_pending(connection, subscription_id, _DISABLED_BY_HAND, now)
            elif state == "active" and before.state == "disabled":
                after = replace(after, state="active", disabled_because=None, failing_since=None, last_failed_at=None)
            if (after.digest, after.timezone) != (before.digest, before.timezone):
                await queries.send_digests_now(connection, subscription_id, now)
            await _save(connection, after)
        self._catalog.expire()
        return after

    async def delete(self, subscription_id: UUID) -> None:
        """Forget a subscription with its secrets; what waits is dropped. Raises Problem 404."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            _existing(await queries.fetch_subscription(connection, subscription_id, lock=True))
            await queries.drop_pending(connection, subscription_id, "the subscription was deleted", unit_of_work.now)
            await queries.delete_subscription(connection, subscription_id)
        self._catalog.expire()

    async def rotate_secret(
        self, subscription_id: UUID, given: str | None, keep_for: timedelta
    ) -> tuple[SubscriptionSecret, datetime]:
        """Make or take a new secret; the one before signs beside it for so long. Raises Problem 404, 422."""
        if given is not None and (error := secret_error(given)):
            raise _findings([Finding("/secret", error)])
        secret = given or _new_secret()
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            before = _existing(await queries.fetch_subscription(connection, subscription_id, lock=True))
            if before.channel != "webhook":
                raise Problem(409, "no-secret", "No secret", "Only messages to webhooks are signed.")
            until = unit_of_work.now + keep_for
            newest = before.secrets[-1]
            after = replace(
                before,
                secrets=(replace(newest, until=until), self._seal(secret, subscription_id)),
                version=before.version + 1,
                updated_at=unit_of_work.now,
            )
            await _save(connection, after)
        self._catalog.expire()
        return SubscriptionSecret(after, secret), until

    async def test(self, subscription_id: UUID) -> UUID:
        """Have a test message sent, whatever the hour; its id. Raises Problem 404, 409 if the subscription is disabled."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            _active(await queries.fetch_subscription(connection, subscription_id))
            delivery_id, now = new_id(), unit_of_work.now
            body = {
                "type": TEST,
                "timestamp": now,
                "event_id": str(delivery_id),
                "data": {"message": "This is a test. Please look whether it arrived as it should."},
            }
            test = NewDelivery(
                delivery_id=delivery_id,
                subscription_id=subscription_id,
                event_id=None,
                event_type=TEST,
                subject=None,
                clock_id=None,
                body=orjson.dumps(body, option=orjson.OPT_UTC_Z),
                state="pending",
                created_at=now,
                due_at=now,
                batch="now",
                error=None,
                settled_at=None,
            )
            await queries.insert_deliveries(connection, [test])
        return delivery_id

    async def redeliver(self, delivery_id: UUID) -> StoredDelivery:
        """Have a delivery sent again. Raises Problem 404, 409 if it still waits or its subscription is disabled."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            found = await queries.fetch_delivery(connection, delivery_id, lock=True)
            if found is None:
                raise not_found("delivery")
            delivery = found[0]
            _active(await queries.fetch_subscription(connection, delivery.subscription_id))
            if delivery.state == "pending":
                raise Problem(409, "still-pending", "Still pending", "The delivery still waits for its next attempt.")
            await queries.redeliver(connection, delivery_id, delivery.event_type, unit_of_work.now)
            again = await queries.fetch_delivery(connection, delivery_id)
            assert again is not None  # noqa: S101 - it is locked
            return again[0]

    async def redeliver_range(self, subscription_id: UUID, since: datetime, until: datetime) -> int:
        """Have what is dead or dropped of a time sent again, the oldest first; how many they are. Raises Problem 404, 409."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            _active(await queries.fetch_subscription(connection, subscription_id))
            return await queries.redeliver_range(
                connection, subscription_id, since, until, unit_of_work.now, REDELIVERED_MAX
            )

    async def reencrypt(self) -> None:
        """Encrypt with the first key what was encrypted with another, so that the others can be taken away."""
        if not self._cipher.can_encrypt:
            return
        for one in (await self._catalog.get()).stored.values():
            if all(map(self._cipher.is_current, (one.address, *(secret.encrypted for secret in one.secrets)))):
                continue
            async with self._database.write_transaction() as unit_of_work:
                await self._reencrypt(unit_of_work, one.subscription_id)
        self._catalog.expire()

    async def _reencrypt(self, unit_of_work: UnitOfWork, subscription_id: UUID) -> None:
        connection = await unit_of_work.connection()
        found = await queries.fetch_subscription(connection, subscription_id, lock=True)
        if found is None:
            return
        owner = str(subscription_id)

        def renew(encrypted: str, part: str) -> str:
            return self._cipher.encrypt(self._cipher.decrypt(encrypted, owner, part), owner, part)

        try:
            renewed = replace(
                found,
                address=renew(found.address, "address"),
                secrets=[replace(one, encrypted=renew(one.encrypted, one.secret_id)) for one in found.secrets],
            )
        except DecryptionFailed:
            log.error("subscription_not_reencrypted", subscription=owner)  # the others are, and it is tried again
            return
        await _save(connection, renewed)

    async def _check(self, content: Mapping[str, Any]) -> None:
        """Raise Problem with all that is wrong. An address or secret that is None is not given."""
        findings: list[Finding] = []
        channel: Channel = content["channel"]
        if channel not in self._channels:
            findings.append(Finding("/channel", "is not set up here: set ACCORD_SMTP_HOST and ACCORD_SMTP_FROM"))
        findings.extend(find_pattern_errors(content["event_types"], self._event_types))
        if (address := content.get("address")) is not None:
            error = address_error(channel, address)
            if error is None and channel != "email":
                error = await self._host_error(address)
            findings.extend([Finding("/address", error)] if error else ())
        if (secret := content.get("secret")) is not None:
            error = "goes only with the channel webhook" if channel != "webhook" else secret_error(secret)
            findings.extend([Finding("/secret", error)] if error else ())
        findings.extend(_find_setting_errors(content, channel))
        if findings:
            raise _findings(findings)

    async def _host_error(self, url: str) -> str | None:
        try:
            await resolve(url, allow_private=self._allow_private, look_up=self._look_up)
        except AddressRefused:
            return "must be a URL with https of a host whose addresses are all public"
        except NotResolved:
            # A name may be unknown for a moment only; else each attempt says it. An address stays what it is.
            return "must be a URL with a host that can be connected to" if "[" in url else None
        return None

    def _seal(self, secret: str, subscription_id: UUID) -> Secret:
        secret_id = str(new_id())
        return Secret(secret_id=secret_id, encrypted=self._encrypt(secret, subscription_id, secret_id))

    def _encrypt(self, text: str, subscription_id: UUID, part: str) -> str:
        if not self._cipher.can_encrypt:
            raise Problem(
                409,
                "no-encryption-key",
                "No encryption key",
                "Addresses and secrets are kept encrypted: set ACCORD_SECRETS_KEYS or ACCORD_SECRETS_KEYS_FILE first.",
            )
        return self._cipher.encrypt(text, str(subscription_id), part)


_SETTINGS = ("filter", "quiet_hours", "digest", "timezone", "person")


def _find_setting_errors(content: Mapping[str, Any], channel: Channel) -> list[Finding]:
    findings: list[Finding] = []
    if (criteria := content.get("filter")) is not None:
        findings.extend(find_filter_errors(Criteria.model_validate(criteria, context=SKIP_PATTERN_CHECKS)))
    if (zone := content.get("timezone")) is not None and zone not in available_timezones():
        findings.append(Finding("/timezone", "is no IANA time zone, such as America/Chicago"))
    if (terms := content.get("quiet_hours")) is not None:
        errors = [Finding(pointer("quiet_hours", *place), message) for place, message in find_week_errors(terms)]
        if not errors and is_quiet_throughout(parse_week(terms)):
            errors = [Finding("/quiet_hours", "leaves no moment at which anything could be sent")]
        findings.extend(errors)
    findings.extend(
        Finding(f"/{name}", "goes only with channels to people")
        for name in ("digest", "person")
        if content.get(name) is not None and channel == "webhook"
    )
    return findings


def etag_of(subscription: StoredSubscription) -> str:
    return f'"{subscription.version}"'


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(SECRET_BYTES)).decode()


async def _save(connection: asyncpg.Connection, subscription: StoredSubscription) -> None:
    try:
        await queries.save_subscription(connection, subscription)
    except asyncpg.UniqueViolationError:
        raise Problem(409, "name-taken", "Name taken", "Another subscription has this name.") from None


def _existing(found: StoredSubscription | None) -> StoredSubscription:
    if found is None:
        raise not_found("subscription")
    return found


def _active(found: StoredSubscription | None) -> StoredSubscription:
    if _existing(found).state == "disabled":
        raise Problem(
            409, "subscription-disabled", "Subscription disabled", "Set its state to active first; nothing was sent."
        )
    return _existing(found)


def _findings(findings: Sequence[Finding]) -> Problem:
    items = [{"pointer": one.pointer, "message": one.message} for one in findings]
    summary = "1 place is wrong; see errors." if len(items) == 1 else f"{len(items)} places are wrong; see errors."
    return validation_error(summary, *items)
