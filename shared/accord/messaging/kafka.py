"""How Kafka clients are made from settings, where a key goes, which topics must exist. It sends and reads nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.helpers import create_ssl_context

from accord.contracts.topics import PARTITIONS_DEFAULT
from accord.settings import KafkaSettings

log = structlog.get_logger(__name__)

_TOPIC_READY_S_MAX = 30.0


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


def physical(kafka: KafkaSettings, topic: str) -> str:
    """The topic's name in the cluster."""
    return kafka.topic_prefix + topic


async def ensure_topics(kafka: KafkaSettings, topics: Sequence[str], *, partitions: int = PARTITIONS_DEFAULT) -> None:
    """Create those that are missing, with unlimited retention; safe beside others doing the same. Raises KafkaError."""
    names = [physical(kafka, topic) for topic in topics]
    admin = AIOKafkaAdminClient(**client_options(kafka), request_timeout_ms=10_000)
    try:
        await admin.start()
        missing = sorted(set(names) - set(await admin.list_topics()))
        if missing:
            await _create(admin, kafka, missing, partitions)
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, kafka: KafkaSettings, names: Sequence[str], partitions: int) -> None:
    config = {"retention.ms": "-1", "cleanup.policy": "delete"}
    if kafka.min_insync_replicas is not None:
        config["min.insync.replicas"] = str(kafka.min_insync_replicas)
    wanted = [NewTopic(name, partitions, kafka.replication_factor, topic_configs=config) for name in names]
    response = await admin.create_topics(wanted)
    for name, code, *detail in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"{name}: {detail[0] if detail else ''}")
    async with asyncio.timeout(_TOPIC_READY_S_MAX):
        while not _all_led(await admin.describe_topics(list(names))):  # noqa: ASYNC110 - the broker gives no sign
            await asyncio.sleep(0.05)
    log.info("topics_created", topics=list(names), partitions=partitions)


def _all_led(topics: Iterable[dict[str, Any]]) -> bool:
    """Whether each partition of these topics has a leader by now."""
    return all(
        topic["error_code"] == 0 and topic["partitions"] and all(part["leader"] >= 0 for part in topic["partitions"])
        for topic in topics
    )


async def close_quietly(client: Any, *, timeout_s: float = 5.0) -> None:
    """Stop a producer or consumer whose cluster may be gone: bounded, and a failure to say goodbye is only logged."""
    try:
        async with asyncio.timeout(timeout_s):
            await client.stop()
    except (KafkaError, OSError, TimeoutError) as error:
        log.warning("kafka_client_not_closed", error=type(error).__name__)


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as aiokafka and Java have it by default: positive murmur2 modulo partitions."""
    return (murmur2(key) & 0x7FFF_FFFF) % partitions


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 (org.apache.kafka.common.utils.Utils.murmur2), by words instead of aiokafka's bytes."""
    multiplier, mask = 0x5BD1_E995, 0xFFFF_FFFF
    length = len(data)
    whole = length & ~3
    h = 0x9747_B28C ^ length
    for word in memoryview(data)[:whole].cast("I") if _LITTLE else _words(data[:whole]):
        k = (word * multiplier) & mask
        k ^= k >> 24
        h = ((h * multiplier) & mask) ^ ((k * multiplier) & mask)
    if whole != length:
        h = ((h ^ int.from_bytes(data[whole:], "little")) * multiplier) & mask
    h ^= h >> 13
    h = (h * multiplier) & mask
    return h ^ (h >> 15)


_LITTLE = memoryview(b"\x01\x00\x00\x00").cast("I")[0] == 1


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
