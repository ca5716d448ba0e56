"""What must have come out in the end, computed in a straight line from what intake committed. No time, no order, no faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct

from tests.simulation.events import LeadAdded, LeadReported

Intake = Sequence[tuple[UUID, LeadReported | LeadAdded]]
"""All that intake told, by event id."""


class Answer(Struct, frozen=True):
    """Something that answers a lead's clocks. `root_at`: from when on everybody could have known."""

    occurred_at: datetime
    root_at: datetime


class ExpectedClock(Struct, frozen=True):
    due_at: datetime
    state: str
    is_breach_true: bool
    """Whether a breach may have been told: nothing that answers in time could have been known by then."""


def compute_reactions(reported: Intake, discarded: Set[UUID]) -> dict[tuple[str, str, int], Answer]:
    """What qualification tells, by lead, what it is and its cause."""
    found: dict[tuple[str, str, int], Answer] = {}
    events = [event for id_, event in reported if id_ not in discarded and isinstance(event, LeadReported)]
    stops: dict[str, list[datetime]] = {}
    for event in events:
        if event.what in ("answer", "act"):
            stops.setdefault(event.key, []).append(event.recorded_at)
    for event in events:
        if event.what == "act":
            found[(event.key, "acted", event.sequence)] = Answer(event.occurred_at, event.recorded_at)
        if event.owes_ms:
            due_at = event.recorded_at + timedelta(milliseconds=event.owes_ms)
            if not any(event.recorded_at <= stop <= due_at for stop in stops.get(event.key, ())):
                found[(event.key, "aged", event.sequence)] = Answer(due_at, due_at)
    return found


def clocks(
    reported: Intake, follows: Mapping[tuple[str, str, int], Answer], discarded: Set[UUID]
) -> dict[tuple[str, int], ExpectedClock]:
    """The SLA monitor's clocks, by lead and the sequence of what opened them, once all deadlines have passed."""
    events = [event for id_, event in reported if id_ not in discarded and isinstance(event, LeadReported)]
    answers: dict[str, list[Answer]] = {}
    for event in events:
        if event.what == "answer":
            answers.setdefault(event.key, []).append(Answer(event.occurred_at, event.recorded_at))
    for (lead, _, _), answer in follows.items():
        answers.setdefault(lead, []).append(answer)
    return {
        (event.key, event.sequence): _clock(event, answers.get(event.key, ()))
        for event in events
        if event.what == "open"
    }


def _clock(opened: LeadReported, answers: Sequence[Answer]) -> ExpectedClock:
    due_at = opened.occurred_at + timedelta(milliseconds=opened.due_ms)
    after = [answer for answer in answers if answer.occurred_at >= opened.occurred_at]
    in_time = [answer for answer in after if answer.occurred_at <= due_at]
    state = "met" if in_time else "met_late" if after else "breached"
    known_by = max(due_at, opened.recorded_at)
    return ExpectedClock(due_at, state, not any(answer.root_at <= known_by for answer in in_time))
