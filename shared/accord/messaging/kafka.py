"""How Kafka clients are made from settings, how they are given up, and which topics must exist. It sends and reads nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.helpers import create_ssl_context

from accord.contracts.watermarks import WATERMARKS
from accord.messaging.ports import FiniteRetention
from accord.settings import KafkaSettings

log = structlog.get_logger(__name__)

_TOPIC_READY_S_MAX = 30.0
_ADMIN_TIMEOUT_S = 10.0

_EVENT_TOPIC_CONFIG = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
"""Of a topic of events: a consumer may come to it at any time, and finds all of them."""

_WATERMARK_TOPIC_CONFIG = {
    "cleanup.policy": "compact",
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1",
    "message.timestamp.type": "LogAppendTime",
}
"""Of the topic of watermarks: the newest record of each key, dated by the broker."""


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Connection arguments that aiokafka's producer, consumer and admin client share."""
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol in ("SSL", "SASL_SSL"):
        options["ssl_context"] = create_ssl_context(cafile=kafka.ssl_cafile)
    if kafka.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = kafka.sasl_mechanism or "PLAIN"
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = kafka.sasl_password.get_secret_value() if kafka.sasl_password else None
    return options


def physical_name(kafka: KafkaSettings, topic: str) -> str:
    """The topic's name in the cluster."""
    return kafka.topic_prefix + topic


async def ensure_topics(kafka: KafkaSettings, topics: Sequence[str], *, partitions: int | None = None) -> None:
    """Create those that are missing; safe beside others doing the same. `partitions` is the setting if it is not given.

    Raises KafkaError, and FiniteRetention if one that is there would lose events.
    """
    wanted = {physical_name(kafka, topic): topic for topic in topics}
    admin = AIOKafkaAdminClient(**client_options(kafka), request_timeout_ms=int(_ADMIN_TIMEOUT_S * 1000))
    try:
        await admin.start()
        known = set(await admin.list_topics())
        missing = sorted(wanted.keys() - known)
        if missing:
            counts = {name: 1 if wanted[name] == WATERMARKS else partitions or kafka.partitions for name in missing}
            await _create(admin, kafka, counts, {name for name in missing if wanted[name] == WATERMARKS})
        events = [name for name in wanted.keys() & known if wanted[name] != WATERMARKS]
        if events:
            await _check_retention(admin, events)
    finally:
        await admin.close()


async def _create(
    admin: AIOKafkaAdminClient, kafka: KafkaSettings, counts: Mapping[str, int], compacted: set[str]
) -> None:
    copies = {} if kafka.min_insync_replicas is None else {"min.insync.replicas": str(kafka.min_insync_replicas)}
    wanted = [
        NewTopic(
            name,
            count,
            kafka.replication_factor,
            topic_configs={**(_WATERMARK_TOPIC_CONFIG if name in compacted else _EVENT_TOPIC_CONFIG), **copies},
        )
        for name, count in counts.items()
    ]
    response = await admin.create_topics(wanted)
    for name, code, *detail in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"{name}: {detail[0] if detail else ''}")
    async with asyncio.timeout(_TOPIC_READY_S_MAX):
        while not _have_leaders(await admin.describe_topics(list(counts))):  # noqa: ASYNC110 - the broker gives no sign
            await asyncio.sleep(0.05)
    log.info("topics_created", partitions=dict(counts))


def _have_leaders(topics: Iterable[dict[str, Any]]) -> bool:
    """Whether each partition of these topics has a leader by now."""
    return all(
        topic["error_code"] == 0 and topic["partitions"] and all(part["leader"] >= 0 for part in topic["partitions"])
        for topic in topics
    )


async def _check_retention(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """Raise FiniteRetention for the first topic that would lose events by age, size or key."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(_EVENT_TOPIC_CONFIG)) for name in names]
    for response in await admin.describe_configs(resources):
        for code, message, _, name, entries in response.resources:
            if code:
                raise for_code(code)(f"{name}: {message}")
            found = {entry[0]: entry[1] for entry in entries}
            for option, value in _EVENT_TOPIC_CONFIG.items():
                if found.get(option, value) != value:
                    raise FiniteRetention(f"{name} has {option}={found[option]}; set it to {value}")


async def start_client(client: Any, *, timeout_s: float = 1.0) -> None:
    """Start a client of aiokafka. Cancelled, it lets the start come to its end first: aiokafka would leave its first connection open."""
    starting = asyncio.create_task(client.start())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting], timeout=timeout_s)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        raise


async def close_quietly(client: Any, *, timeout_s: float = 5.0) -> None:
    """Stop a consumer whose cluster may be gone: bounded, and a failure to say goodbye is only logged."""
    try:
        async with asyncio.timeout(timeout_s):
            await client.stop()
    except (KafkaError, OSError, TimeoutError) as error:
        log.warning("kafka_client_not_closed", error=type(error).__name__)


async def abandon_producer(producer: Any, *, timeout_s: float = 5.0) -> None:
    """Stop a producer without waiting for what it could not deliver.

    With idempotence aiokafka's batches never expire, and `stop` waits for them: cancelled by a time-out, it would leave
    a sender that tries for ever, with its batches in memory.
    """
    producer._closed = True  # noqa: SLF001 - `stop` would be a flush without end
    sender = producer._sender.sender_task  # noqa: SLF001
    if sender is not None:
        sender.cancel()
    try:
        async with asyncio.timeout(timeout_s):
            await producer.client.close()  # ends its requests, which the sender waits for
            if sender is not None:
                with suppress(asyncio.CancelledError, KafkaError):
                    await sender
    except (KafkaError, OSError, TimeoutError) as error:
        log.warning("kafka_client_not_closed", error=type(error).__name__)
