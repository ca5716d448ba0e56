"""Notifications: how many signed messages a second a process delivers to 50 endpoints, five of which never answer."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import asyncpg
import httpx

from accord.contracts.codec import encode_value
from accord.contracts.examples import EXAMPLES
from accord.ids import new_id
from accord.notifications.domain.model import notification_id
from tests.bench.environment import BenchEnvironment
from tests.bench.meter import Meter
from tests.bench.report import Figure, median

ROUNDS = 3
ENDPOINTS, HANGING = 50, 5
MESSAGES = 4_500
MESSAGES_HANGING = 100
PER_S_MIN = 500.0
DELIVER_S_MAX = 120.0
_ANSWER = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
_SETTINGS = {
    "ACCORD_OUTBOUND_ALLOW_PRIVATE": "true",
    "ACCORD_SECRETS_KEYS": base64.b64encode(b"k" * 32).decode(),
}
_COLUMNS = ("delivery_id", "subscription_id", "event_id", "event_type", "body", "state", "created_at", "due_at")
_DELIVERED = "SELECT count(*) FROM delivery WHERE state = 'delivered'"
_TYPE = "sla.breached.v1"


def notifications(bench: BenchEnvironment) -> list[Figure]:
    """A backlog, committed at once, until all of it that can be delivered is."""
    os.environ.update(_SETTINGS)
    try:
        rates, costs = asyncio.run(_measure(bench))
    finally:
        for name in _SETTINGS:
            del os.environ[name]
    return [
        Figure(
            f"notifications, to {ENDPOINTS} endpoints of which {HANGING} hang",
            "deliveries/s",
            median(rates),
            least=PER_S_MIN,
            cpu_us={"ours": median(costs)},
            limit="Python and PostgreSQL: a connection and two updates for each message",
            detail={"rates": rates, "cpu_us": costs},
        )
    ]


async def _measure(bench: BenchEnvironment) -> tuple[list[float], list[float]]:
    rates: list[float] = []
    costs: list[float] = []
    with bench.service("sla-monitor") as service:
        async with _receivers() as (good, hanging):
            headers = {"Authorization": f"Bearer {bench.keys['ACCORD_ADMIN_KEY']}"}
            async with httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False) as client:
                answering = [await _subscribe(client, good, number) for number in range(ENDPOINTS - HANGING)]
                silent = [await _subscribe(client, hanging, number) for number in range(HANGING)]
            connection = await asyncpg.connect(bench.dsn("sla"))
            for _ in range(ROUNDS):
                await connection.execute("TRUNCATE delivery")
                bench.settle()
                rows = [(answering[number % len(answering)], number) for number in range(MESSAGES)]
                rows += [(silent[number % HANGING], number) for number in range(MESSAGES_HANGING)]
                meter = Meter([service.pid or 0, bench.postgres_pid])
                began = time.monotonic()
                await _insert(connection, [subscription for subscription, _ in rows])
                async with asyncio.timeout(DELIVER_S_MAX):
                    while await connection.fetchval(_DELIVERED) < MESSAGES:  # noqa: ASYNC110 - it holds in the database
                        await asyncio.sleep(0.05)
                rates.append(MESSAGES / (time.monotonic() - began))
                costs.append(meter.stop().cpu_s / MESSAGES * 1e6)
            await connection.close()
    return rates, costs


@asynccontextmanager
async def _receivers() -> AsyncIterator[tuple[str, str]]:
    """The URLs of a server that answers at once, and of one that never does."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(_ANSWER)
        writer.close()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):
            await reader.read()
        writer.close()

    servers = [await asyncio.start_server(one, "127.0.0.1", 0, backlog=1_000) for one in (answer, hang)]
    good, hanging = (f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/" for server in servers)
    try:
        yield good, hanging
    finally:
        for server in servers:
            server.close()


async def _subscribe(client: httpx.AsyncClient, url: str, number: int) -> UUID:
    body = {"name": f"{url}{number}", "channel": "webhook", "address": f"{url}{number}", "event_types": ["sla.*"]}
    answer = await client.post("/v1/subscriptions", json=body)
    answer.raise_for_status()
    return UUID(answer.json()["subscription_id"])


async def _insert(connection: asyncpg.Connection, subscriptions: list[UUID]) -> None:
    data = json.loads(encode_value(EXAMPLES[_TYPE]))
    now = await connection.fetchval("SELECT now()")
    rows = []
    for subscription in subscriptions:
        event_id = new_id()
        document = {"type": _TYPE, "timestamp": now.isoformat(), "event_id": str(event_id), "data": data}
        id_ = notification_id(subscription, event_id)
        rows.append((id_, subscription, event_id, _TYPE, json.dumps(document).encode(), "pending", now, now))
    await connection.copy_records_to_table("delivery", records=rows, columns=_COLUMNS)
