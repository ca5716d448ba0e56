"""Which partition a key's records stand in. Pure.

A key stays in its partition for good, or the order of its events would break. So added partitions take only the keys
of leads that come after them: a lead's id is a UUIDv7 and says when that was (see Layout). Other keys, such as those
of agreements, stay where the first layout put them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from uuid import UUID

from accord.messaging.ports import Layout

_UUID7_TIME_SHIFT = 80


@lru_cache(maxsize=4_096)
def hash_key(key: bytes) -> int:
    """The positive murmur2 of a key, as aiokafka and Java have it; modulo the number of partitions it is the partition."""
    return murmur2(key) & 0x7FFF_FFFF


class Partitioner:
    """Finds partitions under the layouts of a topic, oldest first."""

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self._newest_first = [(int(layout.since.timestamp() * 1000), layout.partitions) for layout in layouts[::-1]]
        self._only = layouts[0].partitions if len(layouts) == 1 else None

    @property
    def counts(self) -> list[int]:
        """Every number of partitions that keys are spread over."""
        return [partitions for _, partitions in self._newest_first]

    def partition_of(self, key: str, key_hash: int) -> int:
        """The partition of a key. The first layout holds for all that came before the second."""
        if self._only is not None:
            return key_hash % self._only
        came_ms = _uuid7_ms(key)
        for since_ms, partitions in self._newest_first[:-1]:
            if came_ms >= since_ms:
                return key_hash % partitions
        return key_hash % self._newest_first[-1][1]


def _uuid7_ms(key: str) -> int:
    try:
        id_ = UUID(key)
    except ValueError:
        return 0
    return id_.int >> _UUID7_TIME_SHIFT if id_.version == 7 else 0


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 (org.apache.kafka.common.utils.Utils.murmur2), by words instead of aiokafka's bytes."""
    multiplier, mask = 0x5BD1_E995, 0xFFFF_FFFF
    length = len(data)
    whole = length & ~3
    h = 0x9747_B28C ^ length
    for word in memoryview(data)[:whole].cast("I") if _LITTLE else _words(data[:whole]):
        k = word * multiplier & mask
        h = (h * multiplier ^ (k ^ k >> 24) * multiplier) & mask
    if whole != length:
        h = ((h ^ int.from_bytes(data[whole:], "little")) * multiplier) & mask
    h ^= h >> 13
    h = (h * multiplier) & mask
    return h ^ (h >> 15)


_LITTLE = memoryview(b"\x01\x00\x00\x00").cast("I")[0] == 1


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
