"""Decides which event goes to whom, in the transaction that writes the event to the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import orjson

from accord.db import UnitOfWork
from accord.db.outbox import Row
from accord.notifications import queries
from accord.notifications.domain.matching import EventFacts
from accord.notifications.domain.model import SETTLING, Subscription, notification_id
from accord.notifications.domain.schedule import next_digest
from accord.notifications.queries import NewDelivery
from accord.notifications.service.catalog import SubscriptionCatalog

DISABLED = "the subscription was disabled"
_MOOT = {
    "sla.met.v1": "the clause was met",
    "sla.clock_cancelled.v1": "the clock was cancelled",
    "sla.breach_withdrawn.v1": "the breach was withdrawn",
    "sla.breach_acknowledged.v1": "the breach was acknowledged",
}


class EventRouter:
    """Writes a delivery for each subscription that an event fits. A service without subscriptions reads them every two seconds."""

    def __init__(self, catalog: SubscriptionCatalog) -> None:
        self._catalog = catalog

    async def route(self, unit_of_work: UnitOfWork) -> None:
        """Route what this unit of work publishes. Imported history (`backfill`) notifies nobody."""
        catalog = await self._catalog.get(unit_of_work.conn)
        if not catalog.by_type:
            return
        deliveries: list[NewDelivery] = []
        moot: dict[UUID, str] = {}
        for row in unit_of_work.pending:
            subscriptions = catalog.by_type.get(row.type)
            if subscriptions is None and row.type not in SETTLING:
                continue
            data = orjson.loads(row.payload)
            clock_id = _clock_id(data)
            if row.type in SETTLING and clock_id is not None:
                moot[clock_id] = f"{_MOOT[row.type]} on {row.occurred_at.isoformat()}"
            if data.get("backfill") or not subscriptions:
                continue
            facts, body = EventFacts(data), encode_body(row)
            deliveries.extend(
                _make_delivery(subscription, row, clock_id, body, unit_of_work.now)
                for subscription in subscriptions
                if subscription.filter is None or subscription.filter.holds(facts)
            )
        connection = await unit_of_work.connection()
        if moot and catalog.human_ids:
            await queries.drop_moot(connection, moot, catalog.human_ids, unit_of_work.now)
        if deliveries:
            await queries.insert_deliveries(connection, deliveries)


def encode_body(row: Row) -> bytes:
    """What a webhook is sent, the same bytes with each attempt."""
    head = {"type": row.type, "timestamp": row.occurred_at, "event_id": str(row.event_id)}
    return orjson.dumps(head, option=orjson.OPT_UTC_Z)[:-1] + b',"data":' + row.payload + b"}"


def _make_delivery(
    subscription: Subscription, row: Row, clock_id: UUID | None, body: bytes, now: datetime
) -> NewDelivery:
    is_active = subscription.state == "active"
    due_at, batch = now, None
    if subscription.digest is not None:
        day, due_at = next_digest(subscription.digest, subscription.zone, now)
        batch = digest_batch(day)
    return NewDelivery(
        delivery_id=notification_id(subscription.subscription_id, row.event_id),
        subscription_id=subscription.subscription_id,
        event_id=row.event_id,
        event_type=row.type,
        subject=row.key,
        clock_id=clock_id,
        body=body,
        state="pending" if is_active else "dropped",
        created_at=now,
        due_at=due_at if is_active else None,
        batch=batch if is_active else None,
        error=None if is_active else DISABLED,
        settled_at=None if is_active else now,
    )


def digest_batch(day: object) -> str:
    """What the notifications of one day's digest are marked with."""
    return f"digest:{day}"


def _clock_id(data: Mapping[str, object]) -> UUID | None:
    found = data.get("clock_id")
    return UUID(found) if isinstance(found, str) else None
