"""The subscriptions, compiled and at hand. Another process's change is seen after two seconds at most, one of this process at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import time
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements.cache import CurrentValue
from accord.db import Database, connection_of
from accord.notifications import queries
from accord.notifications.domain.matching import matches_type
from accord.notifications.domain.model import Subscription
from accord.notifications.queries import StoredSubscription
from accord.terms.criteria import Compiled, Criteria, compile_criteria
from accord.terms.patterns import SKIP_PATTERN_CHECKS
from accord.terms.week import parse_week

log = structlog.get_logger(__name__)

REFRESH_S = 2.0


class Catalog(Struct, frozen=True):
    """All subscriptions, and those that an event of each type is compared with."""

    subscriptions: Sequence[Subscription] = ()
    stored: Mapping[UUID, StoredSubscription] = {}
    by_type: Mapping[str, Sequence[Subscription]] = {}
    human_ids: Sequence[UUID] = ()


class SubscriptionCatalog:
    """Reads the catalog, at most every two seconds. `event_types` are those of the service."""

    def __init__(self, database: Database, event_types: Collection[str]) -> None:
        self._database = database
        self._event_types = event_types
        self._compiled: dict[tuple[UUID, int], Subscription] = {}
        self._current = CurrentValue(self._read, "subscriptions", REFRESH_S)

    async def get(self, conn: AsyncConnection | None = None) -> Catalog:
        """The catalog. Pass the connection of an open transaction; otherwise reading takes one of its own."""
        return await self._current.get(conn)

    def expire(self) -> None:
        """Something was changed here."""
        self._current.expire()

    async def _read(self, conn: AsyncConnection | None) -> Catalog:
        if conn is None:
            async with self._database.read_transaction() as own:
                stored = await queries.fetch_subscriptions(await connection_of(own))
        else:
            stored = await queries.fetch_subscriptions(await connection_of(conn))
        if not stored:
            return Catalog()
        known = self._compiled
        self._compiled = {}
        for one in stored:
            key = (one.subscription_id, one.version)
            self._compiled[key] = known.get(key) or self._compile(one)
        subscriptions = tuple(self._compiled.values())
        by_type: defaultdict[str, list[Subscription]] = defaultdict(list)
        for subscription in subscriptions:
            for event_type in subscription.event_types:
                by_type[event_type].append(subscription)
        return Catalog(
            subscriptions,
            {one.subscription_id: one for one in stored},
            by_type,
            [one.subscription_id for one in subscriptions if one.is_human],
        )

    def _compile(self, stored: StoredSubscription) -> Subscription:
        state = stored.state
        compiled: Compiled | None = None
        try:
            if stored.filter is not None:
                compiled = compile_criteria(Criteria.model_validate(stored.filter, context=SKIP_PATTERN_CHECKS))
        except Exception:
            # Written by a release that knows more: nothing is sent that may not be meant, and all of it can be sent later.
            log.exception("subscription_not_compiled", subscription=str(stored.subscription_id))
            state = "disabled"
        return Subscription(
            subscription_id=stored.subscription_id,
            name=stored.name,
            channel=stored.channel,
            state=state,
            event_types=frozenset(
                event_type
                for event_type in self._event_types
                if any(matches_type(pattern, event_type) for pattern in stored.event_types)
            ),
            filter=compiled,
            quiet_hours=None if stored.quiet_hours is None else parse_week(stored.quiet_hours),
            digest=None if stored.digest is None else time.fromisoformat(stored.digest),
            zone=ZoneInfo(stored.timezone),
            person=stored.person,
            version=stored.version,
        )
