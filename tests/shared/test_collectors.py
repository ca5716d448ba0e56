"""Gauges are read at the scrape, within bounds; what cannot be read is NaN and said so."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import Gauge
from shared_kit import Kit, service_kit

from accord.collectors import Collector, CollectorSet
from accord.contracts.intake_events import ActivityRecorded
from accord.contracts.values import utc
from accord.metric_names import REGISTRY

PLAIN = "accord_test_waiting"
LABELLED = "accord_test_waiting_by_kind"


@pytest.fixture
def gauges() -> Iterator[tuple[Gauge, Gauge]]:
    made = Gauge(PLAIN, "In a test."), Gauge(LABELLED, "In a test.", ["kind"])
    yield made
    for gauge in made:
        REGISTRY.unregister(gauge)


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def collector(collect: Callable[[], Awaitable[None]], *gauges: Gauge) -> Collector:
    return Collector(name="test", gauges=gauges, collect=collect)


async def test_scrapes_at_once_and_within_a_second_share_one_run(gauges: tuple[Gauge, Gauge]) -> None:
    runs = 0

    async def collect() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        gauges[0].set(runs)

    collectors = CollectorSet([collector(collect, *gauges)], every_s=3600)
    await asyncio.gather(*(collectors.refresh() for _ in range(50)))
    await collectors.refresh()
    assert runs == value(PLAIN) == 1
    collectors = CollectorSet([collector(collect, *gauges)], every_s=0)
    await collectors.refresh()
    await collectors.refresh()
    assert runs == value(PLAIN) == 3


async def test_what_fails_leaves_no_old_value_and_is_logged_until_it_answers_again(gauges: tuple[Gauge, Gauge]) -> None:
    fails = False

    async def collect() -> None:
        if fails:
            raise ConnectionResetError
        gauges[0].set(7)
        gauges[1].labels("a").set(8)

    collectors = CollectorSet([collector(collect, *gauges)], every_s=0)
    for fails in (False, True, False):
        await collectors.refresh()
        shown = [value(PLAIN), value(LABELLED, kind="a")]
        assert shown == [7, 8] or all(one is not None and math.isnan(one) for one in shown) is fails
        assert value("accord_collector_up", collector="test") == (0 if fails else 1)


async def test_what_hangs_holds_up_no_scrape_and_is_not_begun_twice(gauges: tuple[Gauge, Gauge]) -> None:
    begun = 0
    release = asyncio.Event()

    async def collect() -> None:
        nonlocal begun
        begun += 1
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:  # as a driver that waits for the server's answer to its cancel request
                continue
        gauges[0].set(1)

    async def healthy() -> None:
        gauges[1].labels("b").set(2)

    hangs = collector(collect, gauges[0])
    other = Collector(name="other", gauges=gauges[1:], collect=healthy)
    collectors = CollectorSet([hangs, other], within_s=0.01, every_s=0)
    async with asyncio.timeout(10):
        for _ in range(3):
            await collectors.refresh()
    assert begun == 1
    assert math.isnan(value(PLAIN) or 0)
    assert value("accord_collector_up", collector="test") == 0
    assert (value(LABELLED, kind="b"), value("accord_collector_up", collector="other")) == (2, 1)
    release.set()


async def test_the_outbox_is_shown_by_an_instance_that_publishes_nothing_while_kafka_is_away(kit: Kit) -> None:
    async with kit.database.write_transaction() as unit_of_work:
        unit_of_work.publish(
            *(
                ActivityRecorded(
                    occurred_at=utc(2027, 1, 4),
                    recorded_at=unit_of_work.now,
                    lead_id=uuid4(),
                    sequence=1,
                    activity_id=uuid4(),
                    kind="email.clicked",
                    by="lead",
                )
                for _ in range(3)
            )
        )
    shown = (await kit.client.get("/metrics")).text
    assert "accord_outbox_rows 3.0\n" in shown
    assert 'accord_collector_up{collector="outbox"} 1.0\n' in shown


async def test_without_its_database_an_instance_shows_no_healthy_value(kit: Kit, tmp_path: Path) -> None:
    assert "accord_outbox_rows 0.0\n" in (await kit.client.get("/metrics")).text
    async with service_kit("postgresql://nobody@127.0.0.1:1/none", tmp_path) as lost:
        shown = (await lost.client.get("/metrics")).text
    assert "accord_outbox_rows NaN\n" in shown
    assert "accord_outbox_age_seconds NaN\n" in shown
    assert 'accord_collector_up{collector="outbox"} 0.0\n' in shown
