"""Whether Kafka answers, for readiness. It holds no connection in between and knows no topic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiokafka.client import AIOKafkaClient

from accord.messaging.kafka import client_options
from accord.settings import KafkaSettings

_TIMEOUT_S = 1.0


def kafka_check(kafka: KafkaSettings) -> Callable[[], Awaitable[None]]:
    """A check that raises KafkaError while no broker answers."""

    async def ask() -> None:
        client = AIOKafkaClient(**client_options(kafka), request_timeout_ms=int(_TIMEOUT_S * 1000))
        try:
            await client.bootstrap()
        finally:
            await client.close()

    return ask
