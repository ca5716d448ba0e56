"""One clock from its events in any order: what a breach, an answer and their corrections leave."""

from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from accord.contracts.sla_events import (
    BreachWithdrawn,
    ClockAtRisk,
    ClockBreached,
    ClockCancelled,
    ClockEvent,
    ClockMet,
    ClockStarted,
)
from accord.contracts.values import utc
from metrics.domain.clock import Clock, apply_event

START = utc(2027, 3, 1)
CLOCK_ID = UUID(int=1)


def event(kind: type[ClockEvent], sequence: int, **fields: Any) -> ClockEvent:
    at = START + timedelta(hours=sequence)
    return kind(
        occurred_at=at,
        recorded_at=at,
        clock_id=CLOCK_ID,
        lead_id=UUID(int=2),
        sequence=sequence,
        clause="accept-mql",
        obliges="sales",
        sla_version=1,
        owner=f"owner-{sequence}",
        started_at=START,
        due_at=START + timedelta(hours=4),
        **fields,
    )


def started(sequence: int) -> ClockEvent:
    return event(ClockStarted, sequence)


def breached(sequence: int) -> ClockEvent:
    return event(ClockBreached, sequence, breach_id=UUID(int=sequence))


def met(sequence: int, *, late: bool = False) -> ClockEvent:
    return event(ClockMet, sequence, late=late)


def withdrawn(sequence: int) -> ClockEvent:
    return event(BreachWithdrawn, sequence, breach_id=UUID(int=2), met_at=START + timedelta(hours=1))


def fold(events: list[ClockEvent]) -> Clock:
    clock: Clock | None = None
    for each in events:
        clock = apply_event(clock, each)
    assert clock is not None
    return clock


def hours(clock: Clock) -> tuple[str, float | None, float | None]:
    moments = (clock.breached_at, clock.settled_at)
    breach, settlement = (None if at is None else (at - START) / timedelta(hours=1) for at in moments)
    return clock.state, breach, settlement


def test_clock_breached_after_it_was_met_is_not_settled() -> None:
    assert hours(fold([started(1), met(2), breached(3)])) == ("breached", 3, None)


def test_breach_read_after_the_late_answer_is_kept() -> None:
    for order in permutations([started(1), breached(2), met(3, late=True)]):
        assert hours(fold(list(order))) == ("met_late", 2, 3)


def test_withdrawn_breach_leaves_a_clock_met_in_time() -> None:
    for order in permutations([started(1), breached(2), withdrawn(3)]):
        assert hours(fold(list(order))) == ("met", None, 1)


def test_clock_started_again_forgets_breach_and_answer() -> None:
    for order in permutations([started(1), breached(2), met(3, late=True), started(4)]):
        assert hours(fold(list(order))) == ("running", None, None)


@given(st.data())
def test_order_and_number_of_deliveries_do_not_matter(data: st.DataObject) -> None:
    makers = [
        started,
        breached,
        met,
        withdrawn,
        lambda sequence: met(sequence, late=True),
        lambda sequence: event(ClockAtRisk, sequence, fraction=0.5),
        lambda sequence: event(ClockCancelled, sequence, why="The lead left the scope"),
    ]
    chosen = data.draw(st.lists(st.sampled_from(makers), max_size=7))
    events = [started(1), *(make(sequence) for sequence, make in enumerate(chosen, start=2))]
    delivered = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=3))))
    assert fold(list(delivered)) == fold(events)
