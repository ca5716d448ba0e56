"""SQL on subscriptions and deliveries.

Business transactions change deliveries too (`drop_moot`), and must never wait in a circle with the worker. So whoever waits for rows locks
its subscription first, and then all deliveries that it will change, by one statement in the order of their ids; others skip what is locked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
import orjson
from msgspec import Struct

from accord.db import from_json
from accord.notifications.domain.model import DIGEST, SETTLING, Channel, DeliveryState, SubscriptionState

ATTEMPTS_KEPT_MAX = 50
SUBSCRIPTIONS_MAX = 1_000


class Secret(Struct, frozen=True, kw_only=True):
    """A signing secret as it is stored, encrypted. `until` None: it is the newest."""

    secret_id: str
    encrypted: str
    until: datetime | None = None


class StoredSubscription(Struct, frozen=True, kw_only=True):
    """A row of subscription; `address` is encrypted."""

    subscription_id: UUID
    name: str
    channel: Channel
    address: str
    secrets: Sequence[Secret]
    event_types: Sequence[str]
    filter: Mapping[str, object] | None
    quiet_hours: Mapping[str, Sequence[str]] | None
    digest: str | None
    timezone: str
    person: str | None
    state: SubscriptionState
    disabled_because: str | None
    failing_since: datetime | None
    last_failed_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


_JSON = ("secrets", "filter", "quiet_hours")
_COLUMNS = StoredSubscription.__struct_fields__
_LIST = ", ".join(_COLUMNS)
_SAVE = f"""
    INSERT INTO subscription ({_LIST}) VALUES ({", ".join(f"${n}" for n in range(1, len(_COLUMNS) + 1))})
    ON CONFLICT (subscription_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])}
"""


def _encode(subscription: StoredSubscription) -> list[object]:
    values = {name: getattr(subscription, name) for name in _COLUMNS}
    values["event_types"] = list(subscription.event_types)
    values["secrets"] = [
        {"secret_id": one.secret_id, "encrypted": one.encrypted, "until": one.until} for one in subscription.secrets
    ]
    return [
        orjson.dumps(value).decode() if name in _JSON and value is not None else value for name, value in values.items()
    ]


def _decode(row: asyncpg.Record) -> StoredSubscription:
    values = dict(row) | {name: from_json(row[name]) for name in _JSON}
    values["secrets"] = [
        Secret(
            secret_id=one["secret_id"],
            encrypted=one["encrypted"],
            until=None if one["until"] is None else datetime.fromisoformat(one["until"]),
        )
        for one in values["secrets"]
    ]
    return StoredSubscription(**values)


async def save_subscription(connection: asyncpg.Connection, subscription: StoredSubscription) -> None:
    """Write a subscription. Raises UniqueViolationError if another has its name."""
    await connection.execute(_SAVE, *_encode(subscription))


async def fetch_subscriptions(connection: asyncpg.Connection) -> list[StoredSubscription]:
    """All of them, by name."""
    rows = await connection.fetch(f"SELECT {_LIST} FROM subscription ORDER BY name LIMIT {SUBSCRIPTIONS_MAX}")
    return [_decode(row) for row in rows]


async def page_subscriptions(connection: asyncpg.Connection, after: str, rows: int) -> list[StoredSubscription]:
    """Those behind a name."""
    found = await connection.fetch(
        f"SELECT {_LIST} FROM subscription WHERE name > $1 ORDER BY name LIMIT $2", after, rows
    )
    return [_decode(row) for row in found]


async def count_subscriptions(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM subscription"))


async def fetch_subscription(
    connection: asyncpg.Connection, subscription_id: UUID, *, lock: bool = False
) -> StoredSubscription | None:
    """One of them; `lock`: until the end of the transaction."""
    row = await connection.fetchrow(
        f"SELECT {_LIST} FROM subscription WHERE subscription_id = $1{' FOR UPDATE' if lock else ''}", subscription_id
    )
    return None if row is None else _decode(row)


async def delete_subscription(connection: asyncpg.Connection, subscription_id: UUID) -> None:
    await connection.execute("DELETE FROM subscription WHERE subscription_id = $1", subscription_id)


# --- What is to be delivered ---


class NewDelivery(NamedTuple):
    """A delivery on its way into the table."""

    delivery_id: UUID
    subscription_id: UUID
    event_id: UUID | None
    event_type: str
    subject: str | None
    clock_id: UUID | None
    body: bytes
    state: DeliveryState
    created_at: datetime
    due_at: datetime | None
    batch: str | None
    error: str | None
    settled_at: datetime | None


async def insert_deliveries(connection: asyncpg.Connection, deliveries: Sequence[NewDelivery]) -> None:
    await connection.copy_records_to_table("delivery", records=deliveries, columns=NewDelivery._fields)


_DROP_MOOT = """
    WITH told AS (SELECT * FROM unnest($1::uuid[], $2::text[]) AS t (clock_id, why)), locked AS (
        SELECT d.delivery_id, told.why FROM delivery d JOIN told USING (clock_id)
        WHERE d.state = 'pending' AND d.subscription_id = ANY ($3::uuid[]) AND d.event_type <> ALL ($5::text[])
        ORDER BY d.delivery_id FOR UPDATE OF d
    )
    UPDATE delivery d SET moot = locked.why,
        state = CASE WHEN d.lease IS NULL THEN 'dropped' ELSE d.state END,
        error = CASE WHEN d.lease IS NULL THEN locked.why ELSE d.error END,
        settled_at = CASE WHEN d.lease IS NULL THEN $4 ELSE d.settled_at END
    FROM locked WHERE d.delivery_id = locked.delivery_id
"""


async def drop_moot(
    connection: asyncpg.Connection, clocks: Mapping[UUID, str], subscriptions: Sequence[UUID], now: datetime
) -> None:
    """Drop what waits for people of these clocks, for the reason given with each. What is being sent is not sent again."""
    await connection.execute(
        _DROP_MOOT, list(clocks), list(clocks.values()), list(subscriptions), now, sorted(SETTLING)
    )


# --- Claiming ---


class Claim(Struct, frozen=True, kw_only=True):
    """A delivery that this process may attempt until its lease ends."""

    delivery_id: UUID
    subscription_id: UUID
    event_type: str
    body: bytes
    created_at: datetime
    attempt_count: int
    uncertain_count: int
    lease: UUID


_LOST = """jsonb_build_array(jsonb_build_object('at', d.attempted_at, 'outcome', 'uncertain',
    'error', 'the process ended before the outcome could be recorded'))"""
_CLAIM = f"""
    WITH wanted AS (SELECT * FROM unnest($1::uuid[], $2::integer[], $3::boolean[]) AS w (subscription_id, free, is_quiet)),
    chosen AS (
        SELECT found.delivery_id FROM wanted CROSS JOIN LATERAL (
            SELECT delivery_id FROM delivery
            WHERE subscription_id = wanted.subscription_id AND state = 'pending' AND due_at <= $4
                AND (batch IS NULL OR batch = 'now') AND (NOT wanted.is_quiet OR batch = 'now')
            ORDER BY due_at LIMIT wanted.free FOR UPDATE SKIP LOCKED
        ) AS found LIMIT $7
    )
    UPDATE delivery d SET lease = $5, attempted_at = $4, due_at = $6,
        attempt_count = d.attempt_count + (d.lease IS NOT NULL)::integer,
        uncertain_count = d.uncertain_count + (d.lease IS NOT NULL)::integer,
        attempts = CASE WHEN d.lease IS NULL THEN d.attempts ELSE d.attempts || {_LOST} END
    FROM chosen WHERE d.delivery_id = chosen.delivery_id
    RETURNING d.delivery_id, d.subscription_id, d.event_type, d.body, d.created_at, d.attempt_count, d.uncertain_count, d.lease
"""


class Wanted(NamedTuple):
    """So many deliveries of a subscription; while it `is_quiet` only those that wait for nobody."""

    subscription_id: UUID
    free: int
    is_quiet: bool


async def claim_deliveries(
    connection: asyncpg.Connection, wanted: Sequence[Wanted], rows_max: int, now: datetime, lease: UUID, until: datetime
) -> list[Claim]:
    """Lease so much of what is due, of a subscription the longest waiting first.

    An attempt whose lease has ended unrecorded is counted as uncertain.
    """
    rows = await connection.fetch(
        _CLAIM,
        [one.subscription_id for one in wanted],
        [one.free for one in wanted],
        [one.is_quiet for one in wanted],
        now,
        lease,
        until,
        rows_max,
    )
    return [Claim(**row) for row in rows]


# --- Recording ---


class Result(NamedTuple):
    """What is recorded of one attempt. `attempts` is a JSON list of one, or of none where nothing was tried."""

    delivery_id: UUID
    lease: UUID
    state: DeliveryState
    due_at: datetime | None
    counted: int
    uncertain: int
    attempts: str
    error: str | None
    settled_at: datetime | None


_RECORD = f"""
    UPDATE delivery d SET lease = NULL, attempted_at = NULL, error = coalesce(given.moot, r.error),
        state = coalesce(given.state, r.state), due_at = r.due_at,
        settled_at = CASE WHEN given.state IS NULL THEN r.settled_at ELSE now() END,
        attempt_count = d.attempt_count + r.counted, uncertain_count = d.uncertain_count + r.uncertain,
        attempts = CASE WHEN jsonb_array_length(d.attempts) < {ATTEMPTS_KEPT_MAX} THEN d.attempts ELSE d.attempts - 0 END
            || r.attempts::jsonb
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::integer[], $6::integer[], $7::text[], $8::text[],
        $9::timestamptz[]) AS r (delivery_id, lease, state, due_at, counted, uncertain, attempts, error, settled_at)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN r.state = 'pending' AND known.moot IS NOT NULL THEN 'dropped' END AS state,
            CASE WHEN r.state = 'pending' THEN known.moot END AS moot
        FROM delivery known WHERE known.delivery_id = r.delivery_id
    ) AS given
    WHERE d.delivery_id = r.delivery_id AND d.lease = r.lease
    RETURNING d.delivery_id, d.state, d.event_type
"""
_LOCK_RESULTS = """
    SELECT FROM delivery WHERE delivery_id = ANY ($1::uuid[]) OR merged_into = ANY ($1::uuid[]) ORDER BY delivery_id FOR UPDATE
"""
_SETTLE_MERGED = """
    UPDATE delivery d SET state = t.state, settled_at = $3, error = t.error
    FROM unnest($1::uuid[], $2::text[], $4::text[]) AS t (carrier, state, error)
    WHERE d.merged_into = t.carrier AND d.state = 'pending'
"""


async def record_results(connection: asyncpg.Connection, results: Sequence[Result], now: datetime) -> set[UUID]:
    """Record attempts whose lease is still ours; the ids of those. What was merged into a message shares its end."""
    await connection.execute(_LOCK_RESULTS, [result.delivery_id for result in results])
    rows = await connection.fetch(_RECORD, *(list(column) for column in zip(*results, strict=True)))
    errors = {result.delivery_id: result.error for result in results}
    settled = [row for row in rows if row["event_type"] == DIGEST and row["state"] != "pending"]
    if settled:
        ids = [row["delivery_id"] for row in settled]
        await connection.execute(
            _SETTLE_MERGED, ids, [row["state"] for row in settled], now, [errors[one] for one in ids]
        )
    return {row["delivery_id"] for row in rows}


async def release_claims(connection: asyncpg.Connection, claims: Sequence[Claim], now: datetime) -> None:
    """Give back what was leased and not tried."""
    await connection.execute(
        "UPDATE delivery d SET lease = NULL, attempted_at = NULL, due_at = $3 FROM unnest($1::uuid[], $2::uuid[]) AS t (id, lease)"
        " WHERE d.delivery_id = t.id AND d.lease = t.lease",
        [claim.delivery_id for claim in claims],
        [claim.lease for claim in claims],
        now,
    )


class Health(NamedTuple):
    """How a subscription fares: since when it has failed, and when last."""

    failing_since: datetime | None
    last_failed_at: datetime | None


async def lock_health(connection: asyncpg.Connection, subscriptions: Collection[UUID]) -> dict[UUID, Health]:
    rows = await connection.fetch(
        "SELECT subscription_id, failing_since, last_failed_at FROM subscription WHERE subscription_id = ANY ($1) AND state = 'active'"
        " ORDER BY subscription_id FOR UPDATE",
        list(subscriptions),
    )
    return {row["subscription_id"]: Health(row["failing_since"], row["last_failed_at"]) for row in rows}


async def store_health(connection: asyncpg.Connection, subscription_id: UUID, health: Health) -> None:
    await connection.execute(
        "UPDATE subscription SET failing_since = $2, last_failed_at = $3 WHERE subscription_id = $1",
        subscription_id,
        *health,
    )


_LOCK_PENDING = """
    WITH locked AS (
        SELECT delivery_id FROM delivery WHERE subscription_id = $1 AND state = 'pending' AND {condition} ORDER BY delivery_id FOR UPDATE
    )
"""


async def disable(connection: asyncpg.Connection, subscription_id: UUID, because: str, now: datetime) -> bool:
    """Disable a subscription; False if it is already. What waits is dropped, and can be sent by time range once it is active again."""
    status = await connection.execute(
        "UPDATE subscription SET state = 'disabled', disabled_because = $2, updated_at = $3, version = version + 1"
        " WHERE subscription_id = $1 AND state = 'active'",
        subscription_id,
        because,
        now,
    )
    await drop_pending(connection, subscription_id, because, now)
    return bool(status.endswith(" 1"))


async def drop_pending(connection: asyncpg.Connection, subscription_id: UUID, because: str, now: datetime) -> None:
    """Drop what waits of a subscription and is not just being sent."""
    await connection.execute(
        _LOCK_PENDING.format(condition="lease IS NULL")
        + "UPDATE delivery d SET state = 'dropped', error = $2, settled_at = $3, due_at = NULL"
        " FROM locked WHERE d.delivery_id = locked.delivery_id",
        subscription_id,
        because,
        now,
    )


# --- Messages to people that are made of several notifications ---

_MERGEABLE = f"event_type <> '{DIGEST}' AND attempt_count = 0 AND lease IS NULL AND merged_into IS NULL"
_LOCK_ENDPOINT = "SELECT pg_try_advisory_xact_lock(hashtextextended('accord-endpoint:' || $1::text, 0))"
_LOCK_DUE = """
    SELECT FROM delivery WHERE subscription_id = ANY ($1::uuid[]) AND state = 'pending' AND due_at <= $2 ORDER BY delivery_id FOR UPDATE
"""
_FIND_DUE = f"""
    SELECT w.subscription_id, found.rows, found.has_digest FROM unnest($1::uuid[]) AS w (subscription_id) CROSS JOIN LATERAL (
        SELECT count(*) AS rows, coalesce(bool_or(batch LIKE 'digest:%'), false) AS has_digest FROM (
            SELECT batch FROM delivery d
            WHERE d.subscription_id = w.subscription_id AND state = 'pending' AND due_at <= $2 AND {_MERGEABLE}
            ORDER BY batch LIKE 'digest:%' DESC NULLS LAST LIMIT 2
        ) AS first
    ) AS found WHERE found.rows > 0
"""


class Due(NamedTuple):
    """What is due of a subscription to a person and was not tried yet: rows, counted up to two, and whether a digest is among them."""

    subscription_id: UUID
    rows: int
    has_digest: bool


async def find_due(connection: asyncpg.Connection, subscriptions: Sequence[UUID], now: datetime) -> list[Due]:
    """Those of these subscriptions of which something is due that may be merged."""
    return [Due(*row) for row in await connection.fetch(_FIND_DUE, list(subscriptions), now)]


async def lock_endpoint(
    connection: asyncpg.Connection, endpoint: UUID, subscriptions: Sequence[UUID], now: datetime
) -> bool:
    """Whether this transaction may merge the messages of an endpoint; another may just be doing so. Locks what is due."""
    if not await connection.fetchval(_LOCK_ENDPOINT, str(endpoint)):
        return False
    await connection.execute(_LOCK_DUE, list(subscriptions), now)
    return True


async def find_due_batches(connection: asyncpg.Connection, subscriptions: Sequence[UUID], now: datetime) -> list[str]:
    """The digests that are due, the earliest day first."""
    rows = await connection.fetch(
        "SELECT DISTINCT batch FROM delivery WHERE subscription_id = ANY ($1) AND state = 'pending' AND due_at <= $2"
        " AND batch LIKE 'digest:%' ORDER BY batch",
        list(subscriptions),
        now,
    )
    return [row["batch"] for row in rows]


async def insert_carrier(connection: asyncpg.Connection, carrier: UUID, subscription_id: UUID, now: datetime) -> bool:
    """Make the message that others are merged into; False if there was one with this id."""
    inserted = await connection.fetchval(
        "INSERT INTO delivery (delivery_id, subscription_id, event_type, body, state, created_at, due_at)"
        f" VALUES ($1, $2, '{DIGEST}', '', 'pending', $3, $3) ON CONFLICT (delivery_id) DO NOTHING RETURNING true",
        carrier,
        subscription_id,
        now,
    )
    return bool(inserted)


async def merge_batch(
    connection: asyncpg.Connection, subscriptions: Sequence[UUID], batch: str, carrier: UUID, now: datetime
) -> None:
    await connection.execute(
        "UPDATE delivery SET merged_into = $3, due_at = NULL WHERE subscription_id = ANY ($1) AND state = 'pending' AND batch = $2"
        " AND due_at <= $4",
        list(subscriptions),
        batch,
        carrier,
        now,
    )


async def postpone_batch(
    connection: asyncpg.Connection, subscriptions: Sequence[UUID], batch: str, to: str, due_at: datetime, now: datetime
) -> None:
    """Move to a later digest what came too late for its own."""
    await connection.execute(
        "UPDATE delivery SET batch = $3, due_at = $4 WHERE subscription_id = ANY ($1) AND state = 'pending' AND batch = $2"
        " AND due_at <= $5 AND merged_into IS NULL",
        list(subscriptions),
        batch,
        to,
        due_at,
        now,
    )


async def lock_mergeable(
    connection: asyncpg.Connection, subscriptions: Sequence[UUID], now: datetime, rows_max: int
) -> list[tuple[UUID, UUID]]:
    """Delivery and subscription of what is due, was not tried and belongs to no digest."""
    rows = await connection.fetch(
        f"SELECT delivery_id, subscription_id FROM delivery WHERE subscription_id = ANY ($1) AND state = 'pending' AND due_at <= $2"
        f" AND {_MERGEABLE} AND (batch IS NULL OR batch = 'now') ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED",
        list(subscriptions),
        now,
        rows_max,
    )
    return [(row["delivery_id"], row["subscription_id"]) for row in rows]


async def merge_deliveries(connection: asyncpg.Connection, deliveries: Sequence[UUID], carrier: UUID) -> None:
    await connection.execute(
        "UPDATE delivery SET merged_into = $2, due_at = NULL WHERE delivery_id = ANY ($1)", list(deliveries), carrier
    )


class Merged(Struct, frozen=True):
    """What is still to be said by a message: the bodies of the first events, each once, and how many there are."""

    bodies: Sequence[bytes]
    total: int


_MERGED = """
    SELECT body, count(*) OVER () AS total FROM (
        SELECT DISTINCT ON (coalesce(event_id, delivery_id)) body, created_at, delivery_id FROM delivery
        WHERE merged_into = $1 AND state = 'pending' AND moot IS NULL ORDER BY coalesce(event_id, delivery_id), delivery_id
    ) AS found ORDER BY created_at, delivery_id LIMIT $2
"""


async def fetch_merged(connection: asyncpg.Connection, carrier: UUID, rows_max: int) -> Merged:
    rows = await connection.fetch(_MERGED, carrier, rows_max)
    return Merged([row["body"] for row in rows], rows[0]["total"] if rows else 0)


# --- Reading and sending again ---


class StoredDelivery(Struct, frozen=True, kw_only=True):
    """A row of delivery without what is only for the worker."""

    delivery_id: UUID
    subscription_id: UUID
    event_id: UUID | None
    event_type: str
    subject: str | None
    state: DeliveryState
    created_at: datetime
    due_at: datetime | None
    batch: str | None
    merged_into: UUID | None
    attempted_at: datetime | None
    attempt_count: int
    error: str | None
    settled_at: datetime | None


_DELIVERY = ", ".join(StoredDelivery.__struct_fields__)


async def page_deliveries(
    connection: asyncpg.Connection,
    state: DeliveryState | None,
    subscription_id: UUID | None,
    before: tuple[datetime, UUID] | None,
    rows: int,
) -> list[StoredDelivery]:
    """Deliveries, the newest first."""
    values: list[object] = [rows]
    conditions = ["true"]
    for condition, value in (("state = ", state), ("subscription_id = ", subscription_id)):
        if value is not None:
            values.append(value)
            conditions.append(f"{condition}${len(values)}")
    if before is not None:
        values.extend(before)
        conditions.append(f"(created_at, delivery_id) < (${len(values) - 1}, ${len(values)})")
    found = await connection.fetch(
        f"SELECT {_DELIVERY} FROM delivery WHERE {' AND '.join(conditions)} ORDER BY created_at DESC, delivery_id DESC LIMIT $1",
        *values,
    )
    return [StoredDelivery(**row) for row in found]


async def fetch_delivery(
    connection: asyncpg.Connection, delivery_id: UUID, *, lock: bool = False
) -> tuple[StoredDelivery, list[dict[str, object]], bytes] | None:
    """One delivery with its attempts and its body."""
    row = await connection.fetchrow(
        f"SELECT {_DELIVERY}, attempts, body FROM delivery WHERE delivery_id = $1{' FOR UPDATE' if lock else ''}",
        delivery_id,
    )
    if row is None:
        return None
    values = dict(row)
    attempts, body = from_json(values.pop("attempts")), values.pop("body")
    return StoredDelivery(**values), attempts, body


_AGAIN = "state = 'pending', due_at = $1, batch = 'now', merged_into = NULL, attempt_count = 0, uncertain_count = 0, error = NULL,"
_REDELIVER = f"""
    UPDATE delivery SET {_AGAIN} moot = NULL, settled_at = NULL WHERE delivery_id = ANY ($2::uuid[])
"""
_REOPEN_MERGED = "UPDATE delivery SET state = 'pending', settled_at = NULL WHERE merged_into = $1 AND moot IS NULL"
_FIND_RANGE = f"""
    SELECT delivery_id FROM delivery WHERE delivery_id = ANY (ARRAY(
        SELECT delivery_id FROM delivery
        WHERE subscription_id = $1 AND created_at >= $2 AND created_at < $3 AND state IN ('dead', 'dropped') AND moot IS NULL
            AND event_type <> '{DIGEST}'
        ORDER BY created_at, delivery_id LIMIT $4
    )) AND state IN ('dead', 'dropped') ORDER BY delivery_id FOR UPDATE
"""


async def redeliver(connection: asyncpg.Connection, delivery_id: UUID, event_type: str, now: datetime) -> None:
    """Have one delivery sent again from its first attempt, with what was merged into it."""
    await connection.execute(_REDELIVER, now, [delivery_id])
    if event_type == DIGEST:
        await connection.execute(_REOPEN_MERGED, delivery_id)


async def redeliver_range(
    connection: asyncpg.Connection,
    subscription_id: UUID,
    since: datetime,
    until: datetime,
    now: datetime,
    rows_max: int,
) -> int:
    """Have what is dead or was dropped in a time sent again; how many they are."""
    rows = await connection.fetch(_FIND_RANGE, subscription_id, since, until, rows_max)
    await connection.execute(_REDELIVER, now, [row["delivery_id"] for row in rows])
    return len(rows)


async def send_digests_now(connection: asyncpg.Connection, subscription_id: UUID, now: datetime) -> None:
    """Let go what waits for a digest, whose time is no longer the same."""
    await connection.execute(
        _LOCK_PENDING.format(condition="batch LIKE 'digest:%' AND merged_into IS NULL")
        + "UPDATE delivery d SET batch = NULL, due_at = $2 FROM locked WHERE d.delivery_id = locked.delivery_id",
        subscription_id,
        now,
    )


# --- Upkeep ---


async def prune_deliveries(connection: asyncpg.Connection, before: datetime, rows_max: int) -> int:
    status = await connection.execute(
        "DELETE FROM delivery WHERE delivery_id = ANY (ARRAY(SELECT delivery_id FROM delivery WHERE created_at < $1"
        " ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
        before,
        rows_max,
    )
    return int(status.rpartition(" ")[2])


async def drop_orphans(connection: asyncpg.Connection, now: datetime, rows_max: int) -> None:
    """Drop what a process routed that did not know yet that its subscription was deleted or disabled."""
    await connection.execute(
        "UPDATE delivery SET state = 'dropped', error = 'the subscription is disabled or deleted', settled_at = $1, due_at = NULL"
        " WHERE delivery_id = ANY (ARRAY(SELECT delivery_id FROM delivery d WHERE state = 'pending' AND lease IS NULL"
        " AND NOT EXISTS (SELECT FROM subscription s WHERE s.subscription_id = d.subscription_id AND s.state = 'active') LIMIT $2"
        " FOR UPDATE SKIP LOCKED))",
        now,
        rows_max,
    )


async def count_waiting(connection: asyncpg.Connection) -> list[tuple[str, int, float]]:
    """By channel: deliveries that wait, and how long the one that is most overdue has been due, in seconds."""
    rows = await connection.fetch(
        "SELECT s.channel, count(*) AS rows, coalesce(extract(epoch FROM now() - min(d.due_at)), 0)::float8 AS age_s"
        " FROM delivery d JOIN subscription s USING (subscription_id) WHERE d.state = 'pending' GROUP BY s.channel"
    )
    return [(row["channel"], row["rows"], max(0.0, row["age_s"])) for row in rows]


async def count_disabled(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM subscription WHERE state = 'disabled'"))
