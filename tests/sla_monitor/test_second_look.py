"""The whole service over its database, told many leads' histories in some order and in batches of some size: the clocks end
as a plain reading of each history says."""

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
class Told:
    """One event, and what a person would note of it: minutes of occurrence, `what` happened."""

    event: EventData
    recorded_at: datetime
    occurred_at: datetime
    what: str


@dataclass
class History:
    """One lead: each topic's events in the order in which they were recorded there. `size` decides whether touch is owed."""

    lead: Any
    size: int
    started_at: datetime
    intake: list[Told]
    qualification: list[Told]


def live(random: Random, teller: Callable[[], Any]) -> History:
    """Captured, an MQL once; then calls and one or two turns of qualification, some of them reported late."""
    lead = teller()
    size = random.choice([10, 80])
    born = ZERO + timedelta(minutes=random.randrange(300))
    start = born + timedelta(minutes=random.randrange(1, 30))
    intake = [Told(lead.captured(born, size=size), born, born, "captured")]
    qualification = [Told(lead.entered("mql", start), start, start, "mql")]
    for topic, what in _course(random):
        queue = intake if topic == "intake" else qualification
        recorded = max(queue[-1].recorded_at, start) + timedelta(minutes=random.randrange(1, 110))
        occurred = recorded - timedelta(minutes=random.choice(LATENESS_MIN))
        queue.append(Told(_event(lead, what, occurred, recorded), recorded, occurred, what))
    return History(lead, size, start, intake, qualification)


def _course(random: Random) -> list[tuple[str, str]]:
    calls = [("intake", "call")] * random.choice([0, 1, 1, 2])
    moves = random.choice([[], ["accept"], ["accept"], ["lost"], ["accept", "lost"], ["lost", "accept"]])
    return [*calls, *(("qualification", move) for move in moves)]


def _event(lead: Any, what: str, occurred: datetime, recorded: datetime) -> EventData:
    made: EventData
    if what == "call":
        made = lead.did("call.attempted", occurred, recorded=recorded)
    elif what == "accept":
        made = lead.decided("accept", occurred, recorded)
    else:
        made = lead.entered(what, occurred, recorded)
    return made


def expected(history: History) -> dict[str, str]:
    """What one would say who has the whole history before them. Qualification's own order tells what came first there."""
    start = history.started_at
    lost_at = answered_at = None
    for told in history.qualification[1:]:
        if told.what == "lost":
            lost_at = max(told.occurred_at, start)
        elif lost_at is None:
            answered_at = max(told.occurred_at, start)
    calls = [told.occurred_at for told in history.intake if told.what == "call" and told.occurred_at >= start]
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


def next_recorded_at(topic: list[Told]) -> datetime:
    """All of the topic that was recorded before it has been read."""
    return topic[0].recorded_at if topic else END


@pytest.mark.parametrize("seed", range(6))
async def test_many_leads_end_as_their_histories_say_in_whatever_order_these_are_read(
    signed: Any, teller: Callable[[], Any], seed: int
) -> None:
    random = Random(seed)
    histories = [live(random, teller) for _ in range(LEADS)]
    topics = [
        sorted((told for history in histories for told in history.intake), key=lambda told: told.recorded_at),
        sorted((told for history in histories for told in history.qualification), key=lambda told: told.recorded_at),
    ]
    while any(topics):
        topic = random.choice([each for each in topics if each])
        size = random.choice([1, 3, 20, 60])
        batch, topic[:] = topic[:size], topic[size:]
        await signed.tell(*(told.event for told in batch))
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
