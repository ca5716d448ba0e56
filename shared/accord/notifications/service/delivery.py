"""The worker that delivers: it leases what is due, attempts it side by side, and records what became of it.

Several processes share the work by leases with SKIP LOCKED. An endpoint has a single place until it answers, and again once it fails, so
that those that hang take few. What a process could not record is uncertain, and the next lease says so.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import orjson
import structlog
from msgspec import Struct, structs

from accord.clock import utc_now
from accord.db import Database, connection_of, is_transient
from accord.ids import new_id
from accord.notifications import queries
from accord.notifications.channels.message import Message, Receiver, Sender
from accord.notifications.domain.model import (
    DIGEST,
    Attempt,
    Channel,
    DeliveryState,
    Outcome,
    Subscription,
    digest_id,
    endpoint_id,
)
from accord.notifications.domain.rendering import Notice, render_event
from accord.notifications.domain.schedule import (
    ATTEMPTS_MAX,
    PACED_MAX,
    UNCERTAIN_MAX,
    WAITS,
    failing_run_since,
    is_failing_too_long,
    next_attempt_at,
    next_digest,
    quiet_until,
)
from accord.notifications.metric_names import ATTEMPTS
from accord.notifications.queries import Claim, Health, Result, Wanted
from accord.notifications.service.catalog import Catalog, SubscriptionCatalog
from accord.notifications.service.routing import digest_batch
from accord.retry import Backoff
from accord.secrets import DecryptionFailed, SecretCipher
from accord.workers import StallDetector, pause

log = structlog.get_logger(__name__)

TOTAL_MAX = 128
"""Attempts of a process at once."""
ENDPOINT_MAX = 8
CHANNEL_MAX: Mapping[Channel, int] = {"email": 16}
"""All mail goes to one server; if that hangs, it must not take the places of everything else."""
LEASE = timedelta(seconds=60)
"""Longer than any attempt takes."""
IDLE_S = 0.25
IDLE_S_MAX = 1.0
EMPTY_S_MAX = 5.0
"""Between two looks whether anybody has subscribed."""
GATHER_S = 0.005
"""So long it waits for further attempts to end, which are then recorded in one transaction."""
DRAIN_S = 8.0
_FAILURES = frozenset({"failed", "refused"})
MERGED_ROWS_MAX = 500
NOTICES_MAX = 200
HELD = timedelta(minutes=1)
_PACE_S_DEFAULT = 1.0
_PACE_S_MAX = 300.0
"""Longer only if it asks for it."""
_PACE_DECAY = 0.7
_PACE_S_MIN = 0.05


@dataclass
class _Endpoint:
    """Where messages arrive, and how it fares in this process."""

    endpoint_id: UUID
    channel: Channel
    address: str
    subscriptions: dict[UUID, Subscription] = field(default_factory=dict)
    running: int = 0
    places: int = 1
    """How many attempts it may have at once: one more with each success, one again after a failure."""
    pace_s: float = 0.0
    """Seconds between two messages; 0 unless it has asked for fewer."""
    free_at: float = 0.0

    def free(self) -> int:
        """How many attempts may begin now."""
        if time.monotonic() < self.free_at:
            return 0
        return max(0, self.places - self.running)

    def learn(self, outcome: Outcome) -> None:
        """Slow down for one that answers 429, and speed up again while it does not."""
        self.places = min(self.places + 1, ENDPOINT_MAX) if outcome.kind == "delivered" and not self.pace_s else 1
        if outcome.kind == "paced":
            asked_s = _PACE_S_DEFAULT if outcome.retry_after is None else outcome.retry_after.total_seconds()
            # Several may have been on their way when the first was refused; a later one that is refused was sent too soon.
            longer_s = self.pace_s if time.monotonic() < self.free_at else 2 * self.pace_s
            self.pace_s = max(asked_s, _PACE_S_MIN, min(longer_s, _PACE_S_MAX))
        elif outcome.kind == "delivered":
            self.pace_s = self.pace_s * _PACE_DECAY if self.pace_s > _PACE_S_MIN else 0.0
        self.free_at = time.monotonic() + self.pace_s


class _Finished(Struct, frozen=True):
    """An attempt that is to be recorded."""

    claim: Claim
    channel: Channel
    outcome: Outcome
    at: datetime
    duration_ms: int | None


class DeliveryWorker:
    """The worker. `senders` are the channels that this service can send by."""

    name = "notifications"

    def __init__(
        self,
        database: Database,
        catalog: SubscriptionCatalog,
        cipher: SecretCipher,
        senders: Mapping[Channel, Sender],
        console_url: str | None,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._cipher = cipher
        self._senders = senders
        self._console_url = console_url
        self._endpoints: dict[UUID, _Endpoint] = {}
        self._endpoint_of: dict[UUID, _Endpoint] = {}
        self._known: Catalog | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: list[_Finished] = []
        self._wake = asyncio.Event()
        self._stall = StallDetector(60.0)

    async def run(self, stop: asyncio.Event) -> None:
        backoff = Backoff(first_s=0.1, max_s=5.0)
        idle_s = IDLE_S
        try:
            while not stop.is_set():
                self._stall.set_waiting(True)
                self._wake.clear()
                try:
                    began = await self.deliver_due()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    self._stall.record_failure()
                    log.warning("deliveries_failed", error=type(error).__name__)
                    await backoff.wait(stop)
                    continue
                backoff.reset()
                self._stall.set_waiting(False)
                idle_s_max = IDLE_S_MAX if self._endpoints else EMPTY_S_MAX
                idle_s = IDLE_S if began or self._tasks else min(idle_s * 1.5, idle_s_max)
                await self._wait(stop, 0.0 if began else idle_s)
        finally:
            self._stall.set_waiting(False)
            await self._drain()

    def problem(self) -> str | None:
        return f"{self.name}: a round has not finished for a minute" if self._stall.is_stuck else None

    async def deliver_due(self) -> int:
        """Record what has finished, and begin what is due and has a place; how many attempts were begun."""
        await self._record()
        self._follow(await self._catalog.get())
        if not self._endpoints or not await self._merge_due():
            return 0
        claims = await self._claim()
        for claim in claims:
            endpoint = self._endpoint_of[claim.subscription_id]
            subscription = endpoint.subscriptions[claim.subscription_id]
            task = asyncio.create_task(self._attempt(claim, subscription, endpoint), name="delivery")
            self._tasks.add(task)
            task.add_done_callback(self._on_done)
        return len(claims)

    async def finish(self) -> None:
        """Wait for the attempts that were begun, and record them."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._record()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery_raised", exc_info=error)

    async def _wait(self, stop: asyncio.Event, seconds: float) -> None:
        """Until a place is free, or so long."""
        if not self._tasks:
            await pause(stop, seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, GATHER_S)):
                await self._wake.wait()
        await asyncio.sleep(GATHER_S)

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_S)
        unfinished = list(self._tasks)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        try:
            await self._record()
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("deliveries_not_recorded", error=type(error).__name__, attempts=len(self._finished))

    # -- endpoints

    def _follow(self, catalog: Catalog) -> None:
        """Take over what has changed in the subscriptions; what is known of an endpoint stays."""
        if catalog is self._known:
            return
        endpoints: dict[UUID, _Endpoint] = {}
        endpoint_of: dict[UUID, _Endpoint] = {}
        for subscription in catalog.subscriptions:
            if subscription.state != "active" or subscription.channel not in self._senders:
                continue
            stored = catalog.stored[subscription.subscription_id]
            try:
                address = self._cipher.decrypt(stored.address, str(stored.subscription_id), "address")
            except DecryptionFailed:
                log.error("address_not_decrypted", subscription=str(stored.subscription_id))
                continue
            id_ = endpoint_id(subscription.channel, address, subscription.person)
            endpoint = endpoints.get(id_)
            if endpoint is None:
                endpoint = self._endpoints.get(id_) or _Endpoint(id_, subscription.channel, address)
                endpoint.subscriptions = {}
                endpoints[id_] = endpoint
            endpoint.subscriptions[subscription.subscription_id] = subscription
            endpoint_of[subscription.subscription_id] = endpoint
        self._endpoints, self._endpoint_of, self._known = endpoints, endpoint_of, catalog

    # -- claiming

    async def _claim(self) -> list[Claim]:
        now = utc_now()
        free = TOTAL_MAX - len(self._tasks)
        wanted: list[Wanted] = []
        rooms = self._rooms()
        for endpoint in self._endpoints.values():
            places = min(endpoint.free(), free, rooms[endpoint.channel])
            if places > 0:
                wanted.extend(
                    Wanted(one.subscription_id, places, _is_quiet(one, now)) for one in endpoint.subscriptions.values()
                )
        random.shuffle(wanted)
        if not wanted:
            return []
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            at = unit_of_work.now
            claimed = await queries.claim_deliveries(connection, wanted, free, at, new_id(), at + LEASE)
            taken, over = self._share_places(claimed)
            if over:
                await queries.release_claims(connection, over, at)
        for claim in taken:
            self._endpoint_of[claim.subscription_id].running += 1
        return taken

    def _rooms(self) -> dict[Channel, int]:
        """How many attempts may begin by each channel: none while its server refuses us."""
        rooms: dict[Channel, int] = {}
        for channel, sender in self._senders.items():
            running = sum(endpoint.running for endpoint in self._endpoints.values() if endpoint.channel == channel)
            rooms[channel] = 0 if sender.held_because else CHANNEL_MAX.get(channel, TOTAL_MAX) - running
        return rooms

    def _share_places(self, claimed: Iterable[Claim]) -> tuple[list[Claim], list[Claim]]:
        """What may begin, and what has no place: the subscriptions of an endpoint share its places."""
        taken: list[Claim] = []
        over: list[Claim] = []
        rooms = self._rooms()
        places = {id_: endpoint.free() for id_, endpoint in self._endpoints.items()}
        for claim in sorted(claimed, key=lambda one: one.created_at):
            endpoint = self._endpoint_of[claim.subscription_id]
            has_place = places[endpoint.endpoint_id] > 0 and rooms[endpoint.channel] > 0
            if has_place and len(taken) + len(self._tasks) < TOTAL_MAX:
                places[endpoint.endpoint_id] -= 1
                rooms[endpoint.channel] -= 1
                taken.append(claim)
            else:
                over.append(claim)
        return taken, over

    # -- merging

    async def _merge_due(self) -> bool:
        """Make one message of what is due at an endpoint of people. Whether there is any place at all."""
        now = utc_now()
        free = [endpoint for endpoint in self._endpoints.values() if endpoint.free() > 0]
        human = {
            one.subscription_id: endpoint
            for endpoint in free
            for one in endpoint.subscriptions.values()
            if one.is_human and not _is_quiet(one, now)
        }
        if human:
            async with self._database.read_transaction() as conn:
                due = await queries.find_due(await connection_of(conn), list(human), now)
            several: Counter[UUID] = Counter()
            for found in due:
                several[human[found.subscription_id].endpoint_id] += 2 if found.has_digest else found.rows
            for id_, rows in several.items():
                if rows > 1:
                    await self._merge_endpoint(self._endpoints[id_])
        return bool(free) and len(self._tasks) < TOTAL_MAX

    async def _merge_endpoint(self, endpoint: _Endpoint) -> None:
        async with self._database.write_transaction() as unit_of_work:
            connection, now = await unit_of_work.connection(), unit_of_work.now
            awake = [one for one in endpoint.subscriptions.values() if not _is_quiet(one, now)]
            ids = [one.subscription_id for one in awake]
            if not await queries.lock_endpoint(connection, endpoint.endpoint_id, ids, now):
                return
            for batch in await queries.find_due_batches(connection, ids, now):
                carrier = digest_id(endpoint.endpoint_id, batch)
                if await queries.insert_carrier(connection, carrier, ids[0], now):
                    await queries.merge_batch(connection, ids, batch, carrier, now)
                    continue
                for one in awake:
                    if one.digest is not None:
                        day, due_at = next_digest(one.digest, one.zone, now)
                        later = digest_batch(day)
                        await queries.postpone_batch(connection, [one.subscription_id], batch, later, due_at, now)
            waiting = await queries.lock_mergeable(connection, ids, now, MERGED_ROWS_MAX)
            if len(waiting) > 1:
                carrier = new_id()
                await queries.insert_carrier(connection, carrier, waiting[0][1], now)
                await queries.merge_deliveries(connection, [delivery for delivery, _ in waiting], carrier)

    # -- attempts

    async def _attempt(self, claim: Claim, subscription: Subscription, endpoint: _Endpoint) -> None:
        """Attempt one delivery. Its place becomes free whatever happens; where it is cancelled, the next lease calls it uncertain."""
        at, began = utc_now(), time.monotonic()
        try:
            outcome = await self._send(claim, subscription, endpoint)
        except Exception as error:
            if is_transient(error):
                outcome = Outcome(kind="held", error="the database was away")
            else:
                log.error("delivery_failed", delivery=str(claim.delivery_id), exc_info=error)
                outcome = Outcome(kind="failed", error=f"a defect of ours: {type(error).__name__}")
        finally:
            endpoint.running -= 1
        endpoint.learn(outcome)
        duration_ms = None if outcome.kind in ("held", "dropped") else round((time.monotonic() - began) * 1000)
        ATTEMPTS.labels(endpoint.channel, outcome.kind).inc()
        self._finished.append(_Finished(claim, endpoint.channel, outcome, at, duration_ms))

    async def _send(self, claim: Claim, subscription: Subscription, endpoint: _Endpoint) -> Outcome:
        if claim.uncertain_count >= UNCERTAIN_MAX and endpoint.channel != "webhook":
            return Outcome(kind="refused", error=f"it may have arrived, and was sent {UNCERTAIN_MAX} times")
        if claim.attempt_count >= ATTEMPTS_MAX:
            return Outcome(kind="refused", error="no attempt is left")
        receiver = Receiver(address=endpoint.address, secrets=self._valid_secrets(subscription))
        if endpoint.channel == "webhook":
            if not receiver.secrets:
                return Outcome(kind="held", error="no secret can be decrypted: see ACCORD_SECRETS_KEYS")
            bodies, total = [claim.body], 1
        elif claim.event_type == DIGEST:
            async with self._database.read_transaction() as conn:
                merged = await queries.fetch_merged(await connection_of(conn), claim.delivery_id, NOTICES_MAX)
            bodies, total = list(merged.bodies), merged.total
            if not bodies:
                return Outcome(kind="dropped", error="all of it was met or cancelled meanwhile")
        else:
            bodies, total = [claim.body], 1
        message = Message(
            delivery_id=claim.delivery_id,
            event_type=claim.event_type,
            created_at=claim.created_at,
            body=claim.body,
            notices=[self._render(body, subscription) for body in bodies] if subscription.is_human else (),
            total=total,
            console_url=self._console_url,
        )
        return await self._senders[endpoint.channel].send(message, receiver)

    def _render(self, body: bytes, subscription: Subscription) -> Notice:
        document = orjson.loads(body)
        return render_event(document["type"], document["data"], subscription.zone, self._console_url)

    def _valid_secrets(self, subscription: Subscription) -> list[str]:
        """All that are valid now, the newest first."""
        assert self._known is not None  # noqa: S101 - endpoints are made of it
        stored = self._known.stored.get(subscription.subscription_id)
        found: list[str] = []
        for one in reversed(stored.secrets if stored is not None else ()):
            if one.until is None or one.until > utc_now():
                with suppress(DecryptionFailed):
                    found.append(self._cipher.decrypt(one.encrypted, str(subscription.subscription_id), one.secret_id))
        return found

    # -- recording

    async def _record(self) -> None:
        """Record what has finished, in one transaction. It stays here until that is committed, and can be recorded twice without harm."""
        finished = list(self._finished)
        if not finished:
            return
        try:
            await self._store(finished)
        except Exception as error:
            if not is_transient(error):
                # They could not be recorded another time either; by their leases they are uncertain, and count as attempts.
                del self._finished[: len(finished)]
            raise
        del self._finished[: len(finished)]

    async def _store(self, finished: Sequence[_Finished]) -> None:
        async with self._database.write_transaction() as unit_of_work:
            connection, now = await unit_of_work.connection(), unit_of_work.now
            healths = await queries.lock_health(connection, {one.claim.subscription_id for one in finished})
            ours = await queries.record_results(connection, [_make_result(one, now) for one in finished], now)
            recorded = [one for one in finished if one.claim.delivery_id in ours]
            failed = await _record_health(connection, healths, recorded, now)
        for subscription_id, because in failed.items():
            await self._disable(subscription_id, because)

    async def _disable(self, subscription_id: UUID, because: str) -> None:
        """Disable a subscription, in a transaction of its own. If that fails, its next failure does it."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            is_new = await queries.disable(connection, subscription_id, because, unit_of_work.now)
        self._catalog.expire()
        if is_new:
            log.warning("subscription_disabled", subscription=str(subscription_id), because=because)


def _is_quiet(subscription: Subscription, now: datetime) -> bool:
    return (
        subscription.quiet_hours is not None
        and quiet_until(subscription.quiet_hours, subscription.zone, now) is not None
    )


def _make_result(finished: _Finished, now: datetime) -> Result:
    claim, outcome = finished.claim, finished.outcome
    error = None if outcome.error is None else _storable(outcome.error)
    attempt = Attempt(
        at=finished.at,
        outcome=outcome.kind,
        duration_ms=finished.duration_ms,
        status=outcome.status,
        error=error,
        body=None if outcome.body is None else _storable(outcome.body),
        body_is_cut=outcome.body_is_cut,
    )
    is_attempt = finished.duration_ms is not None
    counted = outcome.kind not in ("paced", "held", "dropped")
    attempts = claim.attempt_count + counted
    state: DeliveryState = "pending"
    due_at: datetime | None = None
    match outcome.kind:
        case "delivered":
            state = "delivered"
        case "refused" | "gone":
            state = "dead"
        case "dropped":
            state = "dropped"
        case "held":
            due_at = now + HELD
        case "paced" if now - claim.created_at < PACED_MAX:
            due_at = now + max(WAITS[0], outcome.retry_after or timedelta())
        case "paced":
            state = "dead"
        case _:
            due_at = next_attempt_at(attempts, now, random.random(), outcome.retry_after)  # noqa: S311 - jitter, not a secret
            state = "dead" if due_at is None else "pending"
    return Result(
        delivery_id=claim.delivery_id,
        lease=claim.lease,
        state=state,
        due_at=due_at,
        counted=int(counted),
        uncertain=int(outcome.kind == "uncertain"),
        attempts=orjson.dumps([structs.asdict(attempt)] if is_attempt else []).decode(),
        error=error,
        settled_at=None if state == "pending" else now,
    )


def _storable(text: str) -> str:
    """A text of somebody else's as PostgreSQL can hold it: whatever a receiver answers, its attempt is recorded."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


async def _record_health(
    connection: asyncpg.Connection, healths: Mapping[UUID, Health], finished: Sequence[_Finished], now: datetime
) -> dict[UUID, str]:
    """Note since when subscriptions fail; which are to be disabled, since they have for too long or want nothing more, and why."""
    by_subscription: dict[UUID, list[Outcome]] = {}
    for one in finished:
        by_subscription.setdefault(one.claim.subscription_id, []).append(one.outcome)
    failed: dict[UUID, str] = {}
    for subscription_id, outcomes in by_subscription.items():
        health = healths.get(subscription_id)
        kinds = {outcome.kind for outcome in outcomes}
        if health is None:
            continue
        if "gone" in kinds:
            failed[subscription_id] = "the receiver answered 410"
        elif "delivered" in kinds:
            if health.failing_since is not None:
                await queries.store_health(connection, subscription_id, Health(None, None))
        elif kinds & _FAILURES:
            since = failing_run_since(health.failing_since, health.last_failed_at, now)
            await queries.store_health(connection, subscription_id, Health(since, now))
            if is_failing_too_long(since, now):
                last = next(outcome.error for outcome in reversed(outcomes) if outcome.kind in _FAILURES)
                failed[subscription_id] = _storable(
                    f"every attempt has failed since {since:%Y-%m-%d %H:%M} UTC; the last: {last}"
                )
    return failed
