"""The whole service over its database, with random histories in random order and batches: clocks end as each history says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from accord.contracts.base import EventData

ZERO = datetime(2027, 1, 4, 9, tzinfo=UTC)
END = ZERO + timedelta(days=3)
LEADS = 40
LATENESS_MIN = (0, 0, 0, 0, 2, 30, 200)


@dataclass(frozen=True)
class HistoryEvent:
    """One event, with when it happened and its plain `name`."""

    event: EventData
    recorded_at: datetime
    occurred_at: datetime
    name: str


@dataclass
class History:
    """One lead: each topic's events in the order in which they were recorded there. `size` decides whether touch is owed."""

    lead: Any
    size: int
    started_at: datetime
    intake: list[HistoryEvent]
    qualification: list[HistoryEvent]


def make_history(random: Random, make_lead: Callable[[], Any]) -> History:
    """Captured, an MQL once; then calls and one or two turns of qualification, some of them reported late."""
    lead = make_lead()
    size = random.choice([10, 80])
    born = ZERO + timedelta(minutes=random.randrange(300))
    start = born + timedelta(minutes=random.randrange(1, 30))
    intake = [HistoryEvent(lead.captured(born, size=size), born, born, "captured")]
    qualification = [HistoryEvent(lead.entered("mql", start), start, start, "mql")]
    for topic, name in _make_course(random):
        queue = intake if topic == "intake" else qualification
        recorded = max(queue[-1].recorded_at, start) + timedelta(minutes=random.randrange(1, 110))
        occurred = recorded - timedelta(minutes=random.choice(LATENESS_MIN))
        queue.append(HistoryEvent(_event(lead, name, occurred, recorded), recorded, occurred, name))
    return History(lead, size, start, intake, qualification)


def _make_course(random: Random) -> list[tuple[str, str]]:
    calls = [("intake", "call")] * random.choice([0, 1, 1, 2])
    moves = random.choice([[], ["accept"], ["accept"], ["lost"], ["accept", "lost"], ["lost", "accept"]])
    return [*calls, *(("qualification", move) for move in moves)]


def _event(lead: Any, name: str, occurred: datetime, recorded: datetime) -> EventData:
    made: EventData
    if name == "call":
        made = lead.did("call.attempted", occurred, recorded=recorded)
    elif name == "accept":
        made = lead.decided("accept", occurred, recorded)
    else:
        made = lead.entered(name, occurred, recorded)
    return made


def expected(history: History) -> dict[str, str]:
    """The final states by the whole history. Qualification's sequence orders its own events."""
    start = history.started_at
    lost_at = answered_at = None
    for event in history.qualification[1:]:
        if event.name == "lost":
            lost_at = max(event.occurred_at, start)
        elif lost_at is None:
            answered_at = max(event.occurred_at, start)
    calls = [event.occurred_at for event in history.intake if event.name == "call" and event.occurred_at >= start]
    found = {"accept-mql": _end(start + timedelta(hours=1), answered_at, lost_at)}
    if history.size >= 50:
        found["first-touch"] = _end(start + timedelta(hours=2), min(calls, default=None), lost_at)
    return found


def _end(due: datetime, answer: datetime | None, left: datetime | None) -> str:
    if left is not None and left <= due and (answer is None or left < answer):
        return "cancelled"
    if answer is None:
        return "breached"
    return "met" if answer <= due else "met_late"


def next_recorded_at(topic: list[HistoryEvent]) -> datetime:
    """All of the topic that was recorded before it has been read."""
    return topic[0].recorded_at if topic else END


@pytest.mark.parametrize("seed", range(6))
async def test_random_histories_end_as_expected_in_any_order(
    signed: Any, make_lead: Callable[[], Any], seed: int
) -> None:
    random = Random(seed)
    histories = [make_history(random, make_lead) for _ in range(LEADS)]
    topics = [
        sorted((event for history in histories for event in history.intake), key=lambda event: event.recorded_at),
        sorted(
            (event for history in histories for event in history.qualification), key=lambda event: event.recorded_at
        ),
    ]
    while any(topics):
        topic = random.choice([each for each in topics if each])
        size = random.choice([1, 3, 20, 60])
        batch, topic[:] = topic[:size], topic[size:]
        await signed.apply(*(item.event for item in batch))
        if random.random() < 0.5:
            await signed.read_until(next_recorded_at(topics[0]), next_recorded_at(topics[1]))
    await signed.read_until(END)
    found = {history.lead.lead_id: await signed.states(history.lead.lead_id) for history in histories}
    assert found == {history.lead.lead_id: expected(history) for history in histories}
    assert {state for states in found.values() for state in states.values()} == {
        "met",
        "met_late",
        "breached",
        "cancelled",
    }
