"""A client of aiokafka whose start is cancelled comes to the end of the start, so that its stop finds what to close."""

from __future__ import annotations

import asyncio

import pytest

from accord.messaging.kafka import start_client


class Client:
    """A client whose start waits for the cluster."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.answered = asyncio.Event()
        self.is_started = False

    async def start(self) -> None:
        self.begun.set()
        await self.answered.wait()
        self.is_started = True


async def test_cancelled_start_comes_to_its_end() -> None:
    client = Client()
    starting = asyncio.create_task(start_client(client))
    await client.begun.wait()
    starting.cancel()
    client.answered.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert client.is_started


async def test_cancelled_start_whose_cluster_is_gone_is_given_up() -> None:
    client = Client()
    starting = asyncio.create_task(start_client(client, timeout_s=0.01))
    await client.begun.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not client.is_started


async def test_failed_start_raises() -> None:
    class Refused(Client):
        async def start(self) -> None:
            raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await start_client(Refused())
