"""No false breach and no missed breach: clocks end as the whole history says, whatever the order and delay of its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.effort import cases

from accord.contracts.intake_events import ActivityRecorded, LeadCaptured, LeadState, LeadUpdated
from accord.contracts.qualification_events import LeadAssigned, LeadDecided, LeadScored, LeadStageChanged
from accord.contracts.sla_events import BreachWithdrawn, ClockBreached, ClockRescheduled
from sla_monitor.domain import clock as clocks
from sla_monitor.domain.case import Case, ReadUntil, SlaVersions, apply_event, evaluate_pending
from sla_monitor.domain.facts import extract_fact
from sla_monitor.domain.lead import Lead
from sla_monitor.domain.rules import compile_sla
from sla_monitor.domain.sla import Sla

LEAD = UUID(int=1)
ZERO = datetime(2027, 1, 4, 9, tzinfo=UTC)
CONTENT: dict[str, Any] = {
    "kind": "sla",
    "title": "SLA",
    "clauses": [
        {
            "key": "accept",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"decision": ["accept", "reject"]},
            "within": {"elapsed": "PT10M"},
            "warn_at": [0.5],
        },
        {
            "key": "touch",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"activity": "call.attempted", "by": "sales"},
            "within": {"elapsed": "PT20M"},
            "where": {"path": "attributes.size", "op": "gte", "value": 5},
        },
        {
            "key": "demo",
            "obliges": "sales",
            "kind": "response",
            "from": {"activity": "demo.requested"},
            "to": {"activity": ["call.attempted", "email.sent"]},
            "within": {"elapsed": "PT15M"},
            "where": {
                "any": [
                    {"path": "grade", "op": "eq", "value": "A1"},
                    {"path": "attributes.size", "op": "gte", "value": 8},
                ]
            },
        },
        {
            "key": "progress",
            "obliges": "sales",
            "kind": "response",
            "from": {"assigned": True},
            "to": {"stage": ["sql", "lost"]},
            "within": {"elapsed": "PT30M"},
        },
        {
            "key": "tries",
            "obliges": "sales",
            "kind": "attempts",
            "from": {"stage": "sal"},
            "count": 2,
            "of": ["call.attempted", "email.sent"],
            "by": "sales",
            "within": {"elapsed": "PT25M"},
            "until": {"stage": "sql"},
        },
        {"key": "fresh", "obliges": "marketing", "kind": "freshness", "stage": "back", "within": {"elapsed": "PT20M"}},
        {
            "key": "hold",
            "obliges": "sales",
            "kind": "response",
            "from": {"captured": True},
            "to": {"activity": "call.attempted", "by": "sales"},
            "within": {"elapsed": "PT20M"},
            "paused_by": {"stage": "sal", "activity": "hold.begun", "resumed_by": "hold.ended"},
        },
    ],
}
RULES = compile_sla(1, Sla.model_validate(CONTENT), lambda country, subdivision: {})
SLAS = SlaVersions({1: RULES}, lambda moment: 1)


def at(minute: float) -> datetime:
    return ZERO + timedelta(minutes=minute)


@dataclass
class History:
    """What both services recorded of one lead, each in its own order."""

    intake: list[Any] = field(default_factory=list)
    qualification: list[Any] = field(default_factory=list)


@st.composite
def histories(draw) -> History:
    """Events with the time at which they happened and the later one at which they were recorded, often at once."""
    history = History()
    minutes = sorted(draw(st.lists(st.integers(0, 90), min_size=2, max_size=14)))
    captured = draw(st.integers(0, 30))
    visits: dict[str, int] = {}
    for number, minute in enumerate(minutes):
        lateness = draw(st.sampled_from([0, 0, 0, 0, 1, 3, 12, 40, 120]))
        base = {
            "lead_id": LEAD,
            "occurred_at": at(max(0, minute - lateness)),
            "recorded_at": at(minute) + timedelta(seconds=number),
        }
        choices = ["activity", "activity", "updated", "stage", "stage", "decided", "scored", "assigned"]
        action = draw(st.sampled_from(choices)) if number else "captured"
        if action in ("captured", "updated", "activity"):
            base["sequence"] = len(history.intake) + 1
            if action == "activity":
                kind = draw(
                    st.sampled_from(
                        [
                            "call.attempted",
                            "call.attempted",
                            "demo.requested",
                            "demo.requested",
                            "email.sent",
                            "hold.begun",
                            "hold.ended",
                        ]
                    )
                )
                by = draw(st.sampled_from(["sales", "sales", "lead"]))
                event: Any = ActivityRecorded(
                    **base,
                    activity_id=UUID(int=number),
                    kind=kind,
                    by=by,
                    actor_kind=draw(st.sampled_from([None, "person", "person", "automation"])),
                )
            else:
                state = LeadState(
                    source="web",
                    captured_at=at(captured),
                    attributes={"size": draw(st.integers(0, 9))},
                    verdict="accepted",
                )
                event = LeadUpdated(**base, state=state, changed=[]) if number else LeadCaptured(**base, state=state)
            history.intake.append(event)
            continue
        base["sequence"] = len(history.qualification) + 1
        if action == "stage":
            stage, kind = draw(
                st.sampled_from(
                    [("mql", "open"), ("sal", "open"), ("sql", "open"), ("lost", "lost"), ("back", "recycled")]
                )
            )
            visits[stage] = visits.get(stage, 0) + 1
            event = LeadStageChanged(
                **base,
                definition_version=1,
                stage=stage,
                stage_kind=kind,
                stage_rank=1,
                stage_owner="sales",
                visit=visits[stage],
                cause="automatic",
            )
        elif action == "decided":
            event = LeadDecided(
                **base,
                decision_id=UUID(int=number),
                definition_version=1,
                decision=draw(st.sampled_from(["accept", "reject", "qualify"])),
                from_stage="mql",
                stage="sal",
                actor="ann",
            )
        elif action == "scored":
            grade = draw(st.sampled_from(["A1", "B2"]))
            event = LeadScored(**base, definition_version=1, fit=1, engagement=1, grade=grade)
        else:
            event = LeadAssigned(**base, owner=draw(st.sampled_from(["ann", "bob"])), why="rule")
        history.qualification.append(event)
    return history


# --- Expected outcomes from the whole history ---


def expected_outcomes(history: History) -> Mapping[tuple[str, str], tuple[str, datetime | None]]:
    """From clause and trigger to the final state and the moment of the answer, by the whole history."""
    events = [*history.intake, *history.qualification]
    facts = [fact for event in events if (fact := extract_fact(event))]
    found = {}
    for rule in RULES.clauses.values():
        triggers = [fact for fact in facts if rule.start.matches(fact) and _in_scope(rule.key, fact, history)]
        open_until: list[tuple[str, datetime, datetime]] = []
        for trigger in sorted(triggers, key=lambda fact: (fact.occurred_at, fact.recorded_at)):
            state, answer, end, due_at = _end_of(rule, trigger, facts)
            start = trigger.occurred_at
            group = {"demo": "", "progress": trigger.name}.get(rule.key, trigger.key)
            if any(of == group and first <= start < last for of, first, last in open_until):
                continue  # a request that repeats one that is still open
            over = [moment for moment in (answer, end, due_at + timedelta(microseconds=1)) if moment is not None]
            open_until.append((group, start, min(over)))
            found[rule.key, trigger.key] = state, answer
    return found


def _in_scope(clause: str, trigger: Any, history: History) -> bool:
    size = [
        e.state.attributes["size"]
        for e in history.intake
        if hasattr(e, "state") and e.recorded_at <= trigger.recorded_at
    ]
    if not size:  # captured after the trigger was recorded: its first profile
        size = [e.state.attributes["size"] for e in history.intake if hasattr(e, "state")][:1]
    grade = [
        e.grade for e in history.qualification if isinstance(e, LeadScored) and e.recorded_at <= trigger.recorded_at
    ]
    if clause == "touch":
        return size[-1] >= 5
    if clause == "demo":
        return size[-1] >= 8 or grade[-1:] == ["A1"]
    return True


def _end_of(rule: Any, trigger: Any, facts: list[Any]) -> tuple[str, datetime | None, datetime | None, datetime]:
    """State, answer, end of the scope and deadline of the clock of a trigger."""
    start = trigger.occurred_at

    def counts(fact: Any) -> datetime | None:
        if fact.key == trigger.key:
            return None
        if fact.is_from_qualification and trigger.is_from_qualification:
            return max(fact.occurred_at, start) if fact.sequence > trigger.sequence else None
        return fact.occurred_at if fact.occurred_at >= start else None

    ends = [fact for fact in facts if _ends_scope(rule.key, trigger, fact) and counts(fact)]
    last = min((fact.sequence for fact in ends if fact.kind == "stage"), default=None)
    answers = sorted(
        counts(fact)
        for fact in facts
        if _answers(rule.key, fact)
        and counts(fact)
        and not (last and fact.is_from_qualification and fact.sequence > last)
    )
    owed = 2 if rule.key == "tries" else 1
    answer = answers[owed - 1] if len(answers) >= owed else None
    end = min(map(counts, ends), default=None)
    due_at = _due(rule, start, facts)
    if end is not None and end <= due_at and (answer is None or end < answer):
        return "cancelled", answer, end, due_at
    if answer is not None and answer <= due_at:
        return "met", answer, end, due_at
    if due_at == NEVER:
        return "paused", answer, end, due_at
    return ("breached" if answer is None else "met_late"), answer, end, due_at


def _ends_scope(clause: str, trigger: Any, fact: Any) -> bool:
    if clause == "fresh" or (clause == "hold" and fact.name == "sal"):
        return False
    if fact.kind == "assigned":
        return clause == "progress" and bool(fact.name != trigger.name)
    if fact.kind != "stage":
        return False
    if clause == "accept" or (clause == "tries" and fact.name == "sql"):
        return True
    return fact.stage_kind != "open" or trigger.stage_kind not in (None, "open")


def _answers(clause: str, fact: Any) -> bool:
    if clause == "fresh":
        return bool(fact.kind == "stage" and fact.name != "back")
    if clause == "progress":
        return fact.kind == "stage" and fact.name in ("sql", "lost")
    if clause == "accept":
        return fact.kind == "decision" and fact.name in ("accept", "reject")
    calls_only = clause in ("touch", "hold")
    kinds = ["call.attempted"] if calls_only else ["call.attempted", "email.sent"]
    by_sales = clause == "demo" or fact.by == "sales"
    return fact.kind == "activity" and fact.name in kinds and by_sales and fact.actor_kind != "automation"


NEVER = at(1_000_000)


def _due(rule: Any, start: datetime, facts: list[Any]) -> datetime:
    """Second by second, as far as any history goes."""
    allowed = rule.deadline.amount
    if rule.key != "hold":
        return start + allowed
    moved = sorted((f for f in facts if f.kind == "stage"), key=lambda f: (f.occurred_at, f.sequence))
    held = sorted(
        (f for f in facts if f.name in ("hold.begun", "hold.ended")), key=lambda f: (f.occurred_at, f.sequence)
    )
    now, left = start, allowed
    while now < at(400):
        stage = [fact.name for fact in moved if fact.occurred_at <= now][-1:]
        hold = [fact.name for fact in held if fact.occurred_at <= now][-1:]
        if stage != ["sal"] and hold != ["hold.begun"]:
            if not left:
                return now
            left -= timedelta(minutes=1)
        elif not left:
            return now
        now += timedelta(minutes=1)
    return NEVER


# --- The service, with its events in some order ---


class Monitor:
    """Reads two topics at the pace that a test draws, and fires by the watermark of what was read."""

    def __init__(self, history: History) -> None:
        self.case = Case(Lead(LEAD), {})
        self.read: dict[str, int] = {"intake": 0, "qualification": 0}
        self.topics = {"intake": history.intake, "qualification": history.qualification}
        self.announced = {topic: self.next_recorded_at(topic) for topic in self.topics}
        self.published_events: list[Any] = []
        self.now = at(500)

    def next_recorded_at(self, topic: str) -> datetime:
        """All that was recorded before it has been read: no watermark is later."""
        events, read = self.topics[topic], self.read[topic]
        return events[read].recorded_at if read < len(events) else at(400)

    def announce(self) -> None:
        """A watermark arrives on each topic; in between they stay behind what has been read."""
        self.announced = {topic: self.next_recorded_at(topic) for topic in self.topics}

    def read_until(self) -> ReadUntil:
        return ReadUntil(**self.announced)

    def step(self, topic: str) -> None:
        read_until = self.read_until()  # what had been stored when the batch began
        if self.read[topic] < len(self.topics[topic]):
            event = self.topics[topic][self.read[topic]]
            self._store_outcome(apply_event(self.case, event, SLAS, read_until, self.now))
            self.read[topic] += 1

    def do(self, action: str) -> None:
        match action:
            case "fire":
                self.fire()
            case "announce":
                self.announce()
            case _:
                self.step(action)

    def fire(self) -> None:
        read_until = self.read_until()
        self._store_outcome(evaluate_pending(self.case, SLAS, read_until, self.now))
        assert read_until.both is not None
        for clock in list(self.case.clocks.values()):
            if clock.next_at is not None and clock.next_at < read_until.both:
                transition = clocks.fire_clock(clock, SLAS.get_clause(clock), read_until.both, self.now)
                self.case = Case(
                    self.case.lead,
                    {**self.case.clocks, clock.clock_id: transition.clock},
                    self.case.pending,
                    self.case.facts,
                )
                self._check(transition.events, read_until.both)
                self.published_events += transition.events

    def _store_outcome(self, outcome: Any) -> None:
        self.case = outcome.case
        self.published_events += outcome.events

    def _check(self, events: Any, watermark: datetime) -> None:
        """A breach is false if an answer in time had been recorded before the watermark."""
        for event in events:
            if isinstance(event, ClockBreached):
                clock = self.case.clocks[event.clock_id]
                rule = RULES.clauses[clock.clause]
                in_time = 0
                for recorded in (event for topic in self.topics.values() for event in topic):
                    fact = extract_fact(recorded)
                    if recorded.recorded_at < watermark and fact and rule.answer.matches(fact):
                        counts = clocks.effective_at(clock, fact)
                        ended = clock.ended_sequence and fact.is_from_qualification
                        after = ended and fact.sequence > clock.ended_sequence
                        in_time += counts is not None and counts <= clock.due_at and not after
                assert in_time < rule.count


@settings(max_examples=cases(600), deadline=None)
@given(histories(), st.lists(st.sampled_from(["intake", "qualification", "announce", "fire"]), max_size=60))
def test_clocks_end_as_the_whole_history_says_in_any_order(history, order):
    monitor = Monitor(history)
    for action in [*order, *["intake"] * 20, "fire", *["qualification"] * 20, "announce", "fire"]:
        monitor.do(action)
    found = {
        (clock.clause, clock.trigger.key): (clock.state, clock.answered_at)
        for clock in monitor.case.clocks.values()
        if not clock.is_void
    }
    assert found == expected_outcomes(history)
    assert monitor.case.pending == ()
    _events_make_sense(monitor)


def _events_make_sense(monitor: Monitor) -> None:
    """Numbered without gaps, breached and withdrawn in turn, and the last ones tell the state."""
    for clock in monitor.case.clocks.values():
        mine = [event for event in monitor.published_events if event.clock_id == clock.clock_id]
        assert [event.sequence for event in mine] == list(range(1, len(mine) + 1))
        if clock.is_void and not mine:
            continue
        assert mine[0].type == "sla.clock_started.v1"
        turns = [type(event) for event in mine if isinstance(event, ClockBreached | BreachWithdrawn)]
        assert turns == [ClockBreached, BreachWithdrawn] * (len(turns) // 2) + [ClockBreached] * (len(turns) % 2)
        if clock.clause != "hold" and not clock.is_void:
            assert len(turns) <= 2
        assert (len(turns) % 2 == 1) == (clock.state in ("breached", "met_late"))
        assert mine[-1].due_at == clock.due_at
        last = {
            "paused": "sla.clock_rescheduled.v1",
            "met": "sla.met.v1",
            "met_late": "sla.met.v1",
            "breached": "sla.breached.v1",
            "cancelled": "sla.clock_cancelled.v1",
        }[clock.state]
        told = [event for event in mine if not isinstance(event, ClockRescheduled)]
        assert (mine[-1] if clock.state == "paused" else told[-1]).type == last
        if clock.state == "met_late":
            assert told[-1].late


@settings(max_examples=cases(300), deadline=None)
@given(histories(), st.permutations(["intake", "qualification"] * 10))
def test_no_breach_is_withdrawn_without_late_reports(history, order):
    """When all is recorded as it happens, a breach stands, whatever the delays of the topics."""
    prompt = History(
        [replace(event, occurred_at=event.recorded_at) for event in history.intake],
        [replace(event, occurred_at=event.recorded_at) for event in history.qualification],
    )
    monitor = Monitor(prompt)
    for topic in [*order, *["intake", "qualification"] * 20]:
        for action in (topic, "announce", "fire"):
            monitor.do(action)
    assert not any(isinstance(event, BreachWithdrawn) for event in monitor.published_events)
