"""Projections: whatever the order and the batches, the same numbers; and those that the pure functions give for the
same events."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from tests.effort import cases

from accord.contracts.intake_events import LeadCaptured, LeadErased, LeadMerged, LeadUnmerged, LeadUpdated
from accord.contracts.qualification_events import LeadStageChanged
from accord.contracts.values import utc
from accord.db import Database
from metrics.domain.choices import Choices, dimensions, filter_of, size_band
from metrics.domain.definition_view import stages_of_definition
from metrics.domain.funnel import Journey, Tally, funnel
from metrics.domain.journey import Change, chain
from metrics.domain.velocity import RESTING_KINDS, Durations, passage, step
from metrics.usecases.ask import Between, UnknownStage, ask_funnel, ask_leads, ask_timeline, ask_velocity

LOOKED_AT = utc(2028, 6, 1)
PERIODS = [(None, None), (utc(2027, 1, 5), utc(2027, 1, 20)), (None, utc(2027, 1, 10)), (utc(2027, 1, 12), None)]
ALL_CHOICES = [
    Choices(mode=mode, order=order, entry=entry, since=since, until=until, by=dimensions(by))
    for mode, order, entry, (since, until), by in itertools.product(
        ("cohort", "period"),
        ("any", "strict"),
        ("first", "last"),
        PERIODS[:2],
        ("", "source", "country,size_band,owner"),
    )
]


async def all_answers(database: Database, lead_ids: list[UUID]) -> list[Any]:
    answers: list[Any] = []
    for choices in ALL_CHOICES:
        answers.append(await ask_funnel(database, choices))
        ways = (None, Between("inquiry", "won")) if choices.order == "any" else ()
        answers += [await ask_velocity(database, choices, between) for between in ways]
    places = ("mql", "won", Between("inquiry", "sal"))
    answers += [await ask_leads(database, Choices(), where, states=(), after=None, limit=500) for where in places]
    answers += [await ask_timeline(database, lead_id, None, 500) for lead_id in lead_ids]
    return answers


@pytest.mark.slow
async def test_a_projection_made_anew_gives_the_same_numbers_to_the_last_digit(
    database: Database,
    other_database: Database,
    make_history: Callable[[int], Any],
    apply: Callable[..., Any],
    heard_until: Callable[..., Any],
) -> None:
    history = make_history(3).live(45)
    history.define()
    ids = sorted({event.lead_id for event in history.topics["intake"]})
    await apply(database, history.events, batch=500)
    await apply(other_database, history.interleaved(Random(5)), batch=9)
    for one in (database, other_database):
        await heard_until(one, LOOKED_AT)
    first, second = await all_answers(database, ids), await all_answers(other_database, ids)
    assert first == second
    await apply(other_database, history.interleaved(Random(6)), batch=31)
    assert await all_answers(other_database, ids) == first


class Told:
    """The same events, understood the slow way."""

    def __init__(self, history: Any) -> None:
        self.states: dict[UUID, Any] = {}
        self.merged: set[UUID] = set()
        self.erased: set[UUID] = set()
        self.owners: dict[UUID, str | None] = {}
        changes: dict[UUID, list[Change]] = defaultdict(list)
        for event in history.topics["intake"]:
            if isinstance(event, LeadCaptured | LeadUpdated | LeadMerged | LeadUnmerged):
                self.states[event.lead_id] = event.state
            if isinstance(event, LeadMerged):
                self.merged.add(event.merged_lead_id)
            if isinstance(event, LeadUnmerged):
                self.merged.discard(event.restored_lead_id)
                self.states[event.restored_lead_id] = event.restored_state
            if isinstance(event, LeadErased):
                self.erased.add(event.lead_id)
        for event in history.topics["qualification"]:
            if isinstance(event, LeadStageChanged):
                changes[event.lead_id].append(
                    Change(event.sequence, event.stage, event.visit, event.occurred_at, event.correction)
                )
            elif event.type == "lead.assigned.v1":
                self.owners[event.lead_id] = event.owner
        self.chains = {lead_id: chain(changes[lead_id]) for lead_id in self.states}

    def value(self, lead_id: UUID, name: str) -> Any:
        state = self.states[lead_id]
        attributes = {} if lead_id in self.erased else state.attributes
        named = {
            "source": state.source,
            "campaign": state.campaign and state.campaign.name,
            "owner": self.owners.get(lead_id),
            "size_band": size_band(attributes.get("employee_count")),
        }
        return named[name] if name in named else attributes.get(name.removeprefix("attribute:"))

    def selected(self, choices: Choices) -> list[UUID]:
        found = []
        for lead_id, state in self.states.items():
            inside = choices.mode == "period" or in_period(state.captured_at, choices)
            matches = all(self.value(lead_id, one.dimension.name) == one.value for one in choices.where)
            if lead_id not in self.merged and inside and matches:
                found.append(lead_id)
        return found

    def key(self, lead_id: UUID, choices: Choices) -> tuple[Any, ...]:
        return tuple(self.value(lead_id, one.name) for one in choices.by)

    def tallies(self, choices: Choices) -> list[Tally]:
        found = []
        for lead_id in self.selected(choices):
            entries = self.chains[lead_id]
            counted = frozenset(e.position for e in entries if in_period(e.entered_at, choices))
            if choices.mode == "period" and not counted:
                continue
            anomalies = set()
            if any(entry.entered_at < self.states[lead_id].captured_at for entry in entries):
                anomalies.add("stage_before_capture")
            elif any((entry.duration_us or 0) < 0 for entry in entries):
                anomalies.add("stage_out_of_order")
            journey = Journey(tuple(e.stage for e in entries), counted if choices.mode == "period" else None)
            found.append(Tally(self.key(lead_id, choices), journey, 1, frozenset(anomalies)))
        return found


def in_period(at: datetime, choices: Choices) -> bool:
    return (choices.since is None or choices.since <= at) and (choices.until is None or at < choices.until)


@st.composite
def questions(draw: st.DrawFn) -> Choices:
    since, until = draw(st.sampled_from(PERIODS))
    wheres = st.sampled_from(
        ["source=fair", "country=US", "owner=", "size_band=250-999", "campaign=spring", "attribute:country="]
    )
    return Choices(
        mode=draw(st.sampled_from(["cohort", "period"])),
        order=draw(st.sampled_from(["any", "strict"])),
        entry=draw(st.sampled_from(["first", "last"])),
        since=since,
        until=until,
        by=dimensions(
            draw(st.sampled_from(["", "source", "campaign,country", "size_band", "owner,attribute:employee_count"]))
        ),
        where=tuple(filter_of(text) for text in draw(st.lists(wheres, max_size=2, unique=True))),
    )


@pytest.mark.slow
@settings(
    max_examples=cases(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, 10**6), st.lists(questions(), min_size=4, max_size=8))
def test_what_is_asked_of_the_database_is_what_the_pure_functions_say_of_the_events(
    metrics_url: str,
    loop_runner: asyncio.Runner,
    make_history: Callable[[int], Any],
    apply: Callable[..., Any],
    heard_until: Callable[..., Any],
    seed: int,
    asked: list[Choices],
) -> None:
    history = make_history(seed).live(40)
    history.define()
    told = Told(history)
    stages = stages_of_definition(1, history.topics["qualification"][-1].content)

    async def run() -> None:
        database = Database(metrics_url, application_name="test")
        try:
            async with database.recording() as recording:
                names = ", ".join(f'"{name}"' for name in ("lead", "stage_entry", "activity", "clock", "opportunity"))
                await recording.conn.execute(text(f"TRUNCATE {names}"))
            await apply(database, history.interleaved(Random(seed)), batch=Random(seed).randint(1, 60))
            await heard_until(database, LOOKED_AT)
            for choices in asked:
                answer = await ask_funnel(database, choices)
                assert answer.funnel == funnel(stages, told.tallies(choices), choices)
                for between in (Between("inquiry", "won"), Between("mql", "recycled")):
                    assert_passages(await ask_velocity(database, choices, between), told, choices, between)
                assert_stage_steps(await ask_velocity(database, choices, None), told, choices)
        finally:
            await database.dispose()

    loop_runner.run(run())


def waited(since: datetime) -> int:
    return max(0, (LOOKED_AT - since) // timedelta(microseconds=1))


def assert_passages(answer: Any, told: Told, choices: Choices, between: Between) -> None:
    resting = frozenset(stage.key for stage in answer.stages.every if stage.kind in RESTING_KINDS)
    groups: dict[Any, dict[str, list[int]]] = {} if choices.by else {(): defaultdict(list)}
    for lead_id in told.selected(choices):
        by_state = groups.setdefault(told.key(lead_id, choices), defaultdict(list))
        entries = told.chains[lead_id]
        found = passage(entries, between.from_, between.to, choices.entry, resting)
        if found is None:
            continue
        start = next(
            e for e in entries if e.stage == between.from_ and (e.first if choices.entry == "first" else e.last)
        )
        if choices.mode == "period" and not in_period(start.entered_at, choices):
            continue
        by_state[found.state].append(waited(start.entered_at) if found.duration_us is None else found.duration_us)
    assert {group.key: group.steps for group in answer.groups} == {
        key: [step(between.from_, between.to, Durations(found["done"], found["waiting"], found["left"]))]
        for key, found in groups.items()
    }


def assert_stage_steps(answer: Any, told: Told, choices: Choices) -> None:
    expected: dict[Any, int] = defaultdict(int)
    for lead_id in told.selected(choices):
        for entry in told.chains[lead_id]:
            chosen = entry.first if choices.entry == "first" else entry.last
            inside = choices.mode == "cohort" or in_period(entry.entered_at, choices)
            if chosen and inside and entry.next_stage:
                expected[told.key(lead_id, choices), entry.stage, None] += 1
                expected[told.key(lead_id, choices), entry.stage, entry.next_stage] += 1
    found = {(group.key, one.from_, one.to): one.n for group in answer.groups for one in group.steps if one.n}
    assert found == expected


async def test_a_stage_change_read_before_its_lead_waits_outside_all_groups(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    lead_id = history.capture()
    history.move(lead_id, "inquiry", 0)
    history.define()
    await apply(database, history.topics["qualification"])
    early = await ask_funnel(database, Choices())
    assert (early.funnel.leads, early.funnel.anomalies) == (0, {"lead_not_captured": 1})
    await apply(database, history.topics["intake"])
    whole = await ask_funnel(database, Choices())
    assert (whole.funnel.leads, whole.funnel.anomalies) == (1, {})


async def test_a_merged_lead_counts_no_longer_and_its_activities_are_the_survivors(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    survivor, merged, again = history.capture(), history.capture("fair"), history.capture("ads")
    for lead_id in (survivor, merged, again):
        history.move(lead_id, "inquiry", 0)
    acts = [history.act(again, 1), history.act(merged, 2), history.act(survivor, 3)]
    history.merge(merged, again, 5, history.state("fair"))
    merge_id = history.merge(survivor, merged, 6, history.state())
    await apply(database, history.interleaved(Random(1)), batch=2)
    assert (await ask_funnel(database, Choices(by=dimensions("source")))).funnel.leads == 1
    page = await ask_timeline(database, survivor, None, 500)
    assert [row.activity_id for place, row in page.items if place.type == "activity"] == acts
    history.unmerge(survivor, merged, 9, merge_id, history.state(), history.state("fair"))
    await apply(database, history.topics["intake"][-1:])
    found = await ask_funnel(database, Choices(by=dimensions("source")))
    assert [(group.key, group.leads) for group in found.funnel.groups] == [(("fair",), 1), (("website",), 1)]
    page = await ask_timeline(database, survivor, None, 500)
    assert [row.activity_id for place, row in page.items if place.type == "activity"] == acts[2:]


async def test_an_erased_lead_keeps_its_counts_and_loses_its_attributes_for_good(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    lead_id = history.capture(country="US", employee_count=250)
    history.move(lead_id, "inquiry", 0)
    history.erase(lead_id, 5)
    history.update(lead_id, 6, history.state(country="US"))
    await apply(database, history.events)
    found = await ask_funnel(database, Choices(by=dimensions("country,size_band")))
    assert [(group.key, group.leads) for group in found.funnel.groups] == [((None, None), 1)]
    async with database.reading() as conn:
        assert (await conn.execute(text("SELECT attributes, account_id FROM lead"))).one() == ({}, None)


async def test_the_definition_in_force_orders_the_stages_and_before_one_is_known_the_events_do(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    lead_id = history.capture()
    history.move(lead_id, "inquiry", 0)
    history.move(lead_id, "won", 1)
    await apply(database, history.events)
    before = await ask_funnel(database, Choices())
    assert (before.stages.version, [stage.key for stage in before.stages.way]) == (None, ["inquiry", "won"])
    history.define({"stages": [{"key": "hello", "kind": "open"}, {"key": "won", "kind": "won"}]}, version=2)
    await apply(database, history.topics["qualification"][-1:])
    after = await ask_funnel(database, Choices())
    assert (after.stages.version, [stage.key for stage in after.stages.way]) == (2, ["hello", "won"])
    assert after.funnel.anomalies == {"stage_not_in_definition": 1}


async def test_a_definition_that_cannot_be_read_is_refused_and_nothing_of_its_batch_is_written(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.capture()
    history.define({"stages": "none"})
    with pytest.raises(ValueError, match="list of stages"):
        await apply(database, history.events)
    assert (await ask_funnel(database, Choices())).funnel.leads == 0


async def test_asking_for_a_stage_that_is_not_there_says_so(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    await apply(database, history.events)
    for question in (
        ask_velocity(database, Choices(), Between("inquiry", "demo")),
        ask_leads(database, Choices(), "demo", states=(), after=None, limit=5),
    ):
        with pytest.raises(UnknownStage):
            await question


async def test_the_leads_behind_a_figure_come_longest_first_and_page_by_page(
    database: Database, make_history: Callable[[int], Any], apply: Callable[..., Any], heard_until: Callable[..., Any]
) -> None:
    history = make_history(11).live(60)
    history.define()
    await apply(database, history.events)
    await heard_until(database, LOOKED_AT)
    for where in ("inquiry", Between("inquiry", "won")):
        whole = await ask_leads(database, Choices(), where, states=(), after=None, limit=500)
        durations = [item.duration_us for item in whole.items]
        assert durations == sorted(durations, reverse=True)
        assert whole.next is None
        paged, after = [], None
        for _ in range(100):
            page = await ask_leads(database, Choices(), where, states=(), after=after, limit=7)
            paged += page.items
            after = page.next
            if after is None:
                break
        assert paged == list(whole.items)
        (group,) = (await ask_velocity(database, Choices(), where if isinstance(where, Between) else None)).groups
        figure = group.steps[0]
        by_state = [len([item for item in whole.items if item.state == state]) for state in ("done", "waiting", "left")]
        assert by_state == [figure.n, figure.waiting, figure.left]
        assert max(item.duration_us for item in whole.items if item.state == "done") == figure.max_us


async def test_a_timeline_pages_without_losing_or_repeating_anything(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    lead_id = history.capture()
    for at in range(6):
        history.move(lead_id, ["inquiry", "mql", "recycled"][at % 3], at)
        history.act(lead_id, at)
        history.act(lead_id, at)
        history.run_clock(lead_id, at, at + 1, at + 2)
    await apply(database, history.events)
    whole = await ask_timeline(database, lead_id, None, 500)
    times = [place.at for place, _ in whole.items]
    assert len(whole.items) == 24
    assert times == sorted(times)
    for limit in (1, 2, 5):
        paged, after = [], None
        for _ in range(30):
            page = await ask_timeline(database, lead_id, after, limit)
            paged += [place for place, _ in page.items]
            after = page.next
            if after is None:
                break
        assert paged == [place for place, _ in whole.items]
