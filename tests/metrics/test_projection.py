"""Projections: the same reports whatever the order and the batches, equal to the pure functions over the events."""

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
from metrics.domain.definition_view import parse_stages
from metrics.domain.funnel import StagePath, Tally, compute_funnel
from metrics.domain.report_query import ReportQuery, classify_size, parse_dimensions, parse_filter
from metrics.domain.stage_history import StageChange, derive_stage_history
from metrics.domain.velocity import RESTING_KINDS, Durations, measure_passage, measure_step
from metrics.usecases.reports import (
    StagePair,
    UnknownStage,
    get_funnel,
    get_funnel_leads,
    get_leads,
    get_timeline,
    get_velocity,
)

OBSERVED_UNTIL = utc(2028, 6, 1)
RESTING_STAGES = ("won", "lost")
PERIODS = [(None, None), (utc(2027, 1, 5), utc(2027, 1, 20)), (None, utc(2027, 1, 10)), (utc(2027, 1, 12), None)]
ALL_QUERIES = [
    ReportQuery(mode=mode, order=order, entry=entry, since=since, until=until, by=parse_dimensions(by))
    for mode, order, entry, (since, until), by in itertools.product(
        ("cohort", "period"),
        ("any", "strict"),
        ("first", "last"),
        PERIODS[:2],
        ("", "source", "country,size_band,owner"),
    )
]


async def get_all_reports(database: Database, lead_ids: list[UUID]) -> list[Any]:
    reports: list[Any] = []
    for query in ALL_QUERIES:
        reports.append(await get_funnel(database, query))
        pairs = (None, StagePair("inquiry", "won")) if query.order == "any" else ()
        reports += [await get_velocity(database, query, between) for between in pairs]
    stages_or_pairs = ("mql", "won", StagePair("inquiry", "sal"))
    reports += [
        await get_leads(database, ReportQuery(), where, states=(), after=None, limit=500) for where in stages_or_pairs
    ]
    reports += [await get_timeline(database, lead_id, None, 500) for lead_id in lead_ids]
    return reports


@pytest.mark.slow
async def test_rebuilt_projection_gives_identical_reports(
    database: Database,
    other_database: Database,
    make_history: Callable[[int], Any],
    apply: Callable[..., Any],
    set_watermark: Callable[..., Any],
) -> None:
    history = make_history(3).generate(45)
    history.define()
    ids = sorted({event.lead_id for event in history.topics["intake"]})
    await apply(database, history.events, batch=500)
    await apply(other_database, history.interleave(Random(5)), batch=9)
    for each in (database, other_database):
        await set_watermark(each, OBSERVED_UNTIL)
    first, second = await get_all_reports(database, ids), await get_all_reports(other_database, ids)
    assert first == second
    await apply(other_database, history.interleave(Random(6)), batch=31)
    assert await get_all_reports(other_database, ids) == first


class ExpectedReports:
    """The expected reports of the same events, computed the slow way."""

    def __init__(self, history: Any) -> None:
        self.states: dict[UUID, Any] = {}
        self.merged: set[UUID] = set()
        self.erased: set[UUID] = set()
        self.owners: dict[UUID, list[tuple[datetime, int, str | None]]] = defaultdict(list)
        changes: dict[UUID, list[StageChange]] = defaultdict(list)
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
                    StageChange(event.sequence, event.stage, event.visit, event.occurred_at, event.correction)
                )
            elif event.type == "lead.assigned.v1":
                self.owners[event.lead_id].append((event.occurred_at, event.sequence, event.owner))
        self.histories = {lead_id: derive_stage_history(changes[lead_id]) for lead_id in self.states}

    def owner(self, lead_id: UUID, query: ReportQuery) -> str | None:
        counted = [e for e in self.histories[lead_id] if query.mode == "cohort" or in_period(e.entered_at, query)]
        moment: datetime | None = None
        if counted and counted[-1].stage in RESTING_STAGES:
            moment = counted[-1].entered_at
        elif counted:
            end = query.until - timedelta(microseconds=1) if query.until and query.mode == "period" else None
            moment = min((at for at in (counted[-1].exited_at, end) if at is not None), default=None)
        held = [assigned for assigned in sorted(self.owners[lead_id]) if moment is None or assigned[0] <= moment]
        return held[-1][2] if held else None

    def value(self, lead_id: UUID, name: str, query: ReportQuery) -> Any:
        state = self.states[lead_id]
        attributes = {} if lead_id in self.erased else state.attributes
        named = {
            "source": state.source,
            "campaign": state.campaign and state.campaign.name,
            "owner": self.owner(lead_id, query),
            "size_band": classify_size(attributes.get("employee_count")),
        }
        return named[name] if name in named else attributes.get(name.removeprefix("attribute:"))

    def selected(self, query: ReportQuery) -> list[UUID]:
        found = []
        for lead_id, state in self.states.items():
            inside = in_period(state.captured_at, query)
            matches = all(self.value(lead_id, part.dimension.name, query) == part.value for part in query.where)
            if query.mode == "period":
                inside = any(in_period(entry.entered_at, query) for entry in self.histories[lead_id])
            if lead_id not in self.merged and inside and matches:
                found.append(lead_id)
        return found

    def key(self, lead_id: UUID, query: ReportQuery) -> tuple[Any, ...]:
        return tuple(self.value(lead_id, dimension.name, query) for dimension in query.by)

    def tallies(self, query: ReportQuery) -> list[Tally]:
        found = []
        for lead_id in self.selected(query):
            entries = self.histories[lead_id]
            counted = frozenset(e.position for e in entries if in_period(e.entered_at, query))
            anomalies = set()
            if any(entry.entered_at < self.states[lead_id].captured_at for entry in entries):
                anomalies.add("stage_before_capture")
            elif any((entry.duration_us or 0) < 0 for entry in entries):
                anomalies.add("stage_out_of_order")
            journey = StagePath(tuple(e.stage for e in entries), counted if query.mode == "period" else None)
            found.append(Tally(self.key(lead_id, query), journey, 1, frozenset(anomalies)))
        return found


def in_period(at: datetime, query: ReportQuery) -> bool:
    return (query.since is None or query.since <= at) and (query.until is None or at < query.until)


@st.composite
def report_queries(draw: st.DrawFn) -> ReportQuery:
    since, until = draw(st.sampled_from(PERIODS))
    wheres = st.sampled_from(
        ["source=fair", "country=US", "owner=", "size_band=250-999", "campaign=spring", "attribute:country="]
    )
    return ReportQuery(
        mode=draw(st.sampled_from(["cohort", "period"])),
        order=draw(st.sampled_from(["any", "strict"])),
        entry=draw(st.sampled_from(["first", "last"])),
        since=since,
        until=until,
        by=parse_dimensions(
            draw(st.sampled_from(["", "source", "campaign,country", "size_band", "owner,attribute:employee_count"]))
        ),
        where=tuple(parse_filter(text) for text in draw(st.lists(wheres, max_size=2, unique=True))),
    )


@pytest.mark.slow
@settings(
    max_examples=cases(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, 10**6), st.lists(report_queries(), min_size=4, max_size=8))
def test_reports_equal_the_pure_functions_over_the_events(
    metrics_url: str,
    loop_runner: asyncio.Runner,
    make_history: Callable[[int], Any],
    apply: Callable[..., Any],
    set_watermark: Callable[..., Any],
    seed: int,
    queries: list[ReportQuery],
) -> None:
    history = make_history(seed).generate(40)
    history.define()
    expected = ExpectedReports(history)
    stages = parse_stages(1, history.topics["qualification"][-1].content)

    async def run() -> None:
        database = Database(metrics_url, application_name="test")
        try:
            async with database.write_transaction() as unit_of_work:
                names = ", ".join(
                    f'"{name}"' for name in ("lead", "stage_entry", "assignment", "activity", "clock", "opportunity")
                )
                await unit_of_work.conn.execute(text(f"TRUNCATE {names}"))
            await apply(database, history.interleave(Random(seed)), batch=Random(seed).randint(1, 60))
            await set_watermark(database, OBSERVED_UNTIL)
            for query in queries:
                report = await get_funnel(database, query)
                assert report.funnel == compute_funnel(stages, expected.tallies(query), query)
                for between in (StagePair("inquiry", "won"), StagePair("mql", "recycled")):
                    assert_passages(await get_velocity(database, query, between), expected, query, between)
                velocity = await get_velocity(database, query, None)
                assert_stage_steps(velocity, expected, query)
                assert [(group.key, group.leads) for group in velocity.groups] == [
                    (group.key, group.leads) for group in report.funnel.groups
                ]
                assert {**report.funnel.anomalies, **velocity.anomalies} == report.funnel.anomalies
                await assert_lists_equal_figures(database, report, query)
        finally:
            await database.dispose()

    loop_runner.run(run())


async def assert_lists_equal_figures(database: Database, report: Any, query: ReportQuery) -> None:
    """Each figure of each group has as many leads behind it, and no lead twice."""
    for stage, figure in (("mql", "reached"), ("sal", "reached"), ("won", "reached"), ("inquiry", "entered")):
        page = await get_funnel_leads(database, query, stage, figure, after=None, limit=500)
        counts: dict[Any, int] = defaultdict(int)
        for item in page.items:
            counts[item.group] += 1
            assert (item.entered_at is not None) or figure == "reached"
        assert len({item.lead_id for item in page.items}) == len(page.items)
        figures = {
            group.key: getattr(count, figure)
            for group in report.funnel.groups
            for count in group.stages
            if count.stage.key == stage and getattr(count, figure)
        }
        assert counts == figures


def waited(since: datetime) -> int:
    return max(0, (OBSERVED_UNTIL - since) // timedelta(microseconds=1))


def assert_passages(report: Any, expected: ExpectedReports, query: ReportQuery, between: StagePair) -> None:
    resting = frozenset(stage.key for stage in report.stages.by_rank if stage.kind in RESTING_KINDS)
    groups: dict[Any, dict[str, list[int]]] = {} if query.by else {(): defaultdict(list)}
    for lead_id in expected.selected(query):
        by_state = groups.setdefault(expected.key(lead_id, query), defaultdict(list))
        entries = expected.histories[lead_id]
        found = measure_passage(entries, between.from_, between.to, query.entry, resting)
        if found is None:
            continue
        start = next(
            e for e in entries if e.stage == between.from_ and (e.is_first if query.entry == "first" else e.is_last)
        )
        if query.mode == "period" and not in_period(start.entered_at, query):
            continue
        by_state[found.state].append(waited(start.entered_at) if found.duration_us is None else found.duration_us)
    assert {group.key: group.steps for group in report.groups} == {
        key: [measure_step(between.from_, between.to, Durations(found["done"], found["waiting"], found["left"]))]
        for key, found in groups.items()
    }


def assert_stage_steps(report: Any, expected: ExpectedReports, query: ReportQuery) -> None:
    counts: dict[Any, int] = defaultdict(int)
    for lead_id in expected.selected(query):
        for entry in expected.histories[lead_id]:
            chosen = entry.is_first if query.entry == "first" else entry.is_last
            inside = query.mode == "cohort" or in_period(entry.entered_at, query)
            if chosen and inside and entry.next_stage:
                counts[expected.key(lead_id, query), entry.stage, None] += 1
                counts[expected.key(lead_id, query), entry.stage, entry.next_stage] += 1
    found = {(group.key, step.from_, step.to): step.n for group in report.groups for step in group.steps if step.n}
    assert found == counts


async def test_stage_change_read_before_its_lead_counts_in_no_group(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    lead_id = history.capture()
    history.move(lead_id, "inquiry", 0)
    history.define()
    await apply(database, history.topics["qualification"])
    early = await get_funnel(database, ReportQuery())
    assert (early.funnel.leads, early.funnel.anomalies) == (0, {"lead_not_captured": 1})
    await apply(database, history.topics["intake"])
    whole = await get_funnel(database, ReportQuery())
    assert (whole.funnel.leads, whole.funnel.anomalies) == (1, {})


async def test_merged_lead_is_not_counted_and_its_activities_are_the_survivors(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    survivor, merged, again = history.capture(), history.capture("fair"), history.capture("ads")
    for lead_id in (survivor, merged, again):
        history.move(lead_id, "inquiry", 0)
    acts = [history.act(again, 1), history.act(merged, 2), history.act(survivor, 3)]
    history.merge(merged, again, 5, history.state("fair"))
    merge_id = history.merge(survivor, merged, 6, history.state())
    await apply(database, history.interleave(Random(1)), batch=2)
    assert (await get_funnel(database, ReportQuery(by=parse_dimensions("source")))).funnel.leads == 1
    page = await get_timeline(database, survivor, None, 500)
    assert [row.activity_id for cursor, row in page.items if cursor.type == "activity"] == acts
    history.unmerge(survivor, merged, 9, merge_id, history.state(), history.state("fair"))
    await apply(database, history.topics["intake"][-1:])
    found = await get_funnel(database, ReportQuery(by=parse_dimensions("source")))
    assert [(group.key, group.leads) for group in found.funnel.groups] == [(("fair",), 1), (("website",), 1)]
    page = await get_timeline(database, survivor, None, 500)
    assert [row.activity_id for cursor, row in page.items if cursor.type == "activity"] == acts[2:]


async def test_erased_lead_keeps_its_counts_and_loses_its_attributes(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.define()
    lead_id = history.capture(country="US", employee_count=250)
    history.move(lead_id, "inquiry", 0)
    history.erase(lead_id, 5)
    history.update(lead_id, 6, history.state(country="US"))
    await apply(database, history.events)
    found = await get_funnel(database, ReportQuery(by=parse_dimensions("country,size_band")))
    assert [(group.key, group.leads) for group in found.funnel.groups] == [((None, None), 1)]
    async with database.read_transaction() as conn:
        assert (await conn.execute(text("SELECT attributes, account_id FROM lead"))).one() == ({}, None)


async def test_stages_are_ordered_by_the_definition_or_else_by_events(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    lead_id = history.capture()
    history.move(lead_id, "inquiry", 0)
    history.move(lead_id, "won", 1)
    await apply(database, history.events)
    before = await get_funnel(database, ReportQuery())
    assert (before.stages.version, [stage.key for stage in before.stages.sales_path]) == (None, ["inquiry", "won"])
    history.define({"stages": [{"key": "hello", "kind": "open"}, {"key": "won", "kind": "won"}]}, version=2)
    await apply(database, history.topics["qualification"][-1:])
    after = await get_funnel(database, ReportQuery())
    assert (after.stages.version, [stage.key for stage in after.stages.sales_path]) == (2, ["hello", "won"])
    assert after.funnel.anomalies == {"stage_not_in_definition": 1}


async def test_invalid_definition_raises_and_rolls_its_batch_back(
    database: Database, history: Any, apply: Callable[..., Any]
) -> None:
    history.capture()
    history.define({"stages": "none"})
    with pytest.raises(ValueError, match="list of stages"):
        await apply(database, history.events)
    assert (await get_funnel(database, ReportQuery())).funnel.leads == 0


async def test_report_of_an_unknown_stage_raises(database: Database, history: Any, apply: Callable[..., Any]) -> None:
    history.define()
    await apply(database, history.events)
    for report in (
        get_velocity(database, ReportQuery(), StagePair("inquiry", "demo")),
        get_leads(database, ReportQuery(), "demo", states=(), after=None, limit=5),
    ):
        with pytest.raises(UnknownStage):
            await report


async def test_leads_behind_a_figure_are_paged_longest_first(
    database: Database, make_history: Callable[[int], Any], apply: Callable[..., Any], set_watermark: Callable[..., Any]
) -> None:
    history = make_history(11).generate(60)
    history.define()
    await apply(database, history.events)
    await set_watermark(database, OBSERVED_UNTIL)
    for where in ("inquiry", StagePair("inquiry", "won")):
        whole = await get_leads(database, ReportQuery(), where, states=(), after=None, limit=500)
        durations = [item.duration_us for item in whole.items]
        assert durations == sorted(durations, reverse=True)
        assert whole.next is None
        paged, after = [], None
        for _ in range(100):
            page = await get_leads(database, ReportQuery(), where, states=(), after=after, limit=7)
            paged += page.items
            after = page.next
            if after is None:
                break
        assert paged == list(whole.items)
        (group,) = (await get_velocity(database, ReportQuery(), where if isinstance(where, StagePair) else None)).groups
        figure = group.steps[0]
        by_state = [len([item for item in whole.items if item.state == state]) for state in ("done", "waiting", "left")]
        assert by_state == [figure.n, figure.waiting, figure.left]
        assert max(item.duration_us for item in whole.items if item.state == "done") == figure.max_us


async def test_timeline_pages_lose_and_repeat_nothing(
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
    whole = await get_timeline(database, lead_id, None, 500)
    times = [cursor.at for cursor, _ in whole.items]
    assert len(whole.items) == 24
    assert times == sorted(times)
    for limit in (1, 2, 5):
        paged, after = [], None
        for _ in range(30):
            page = await get_timeline(database, lead_id, after, limit)
            paged += [cursor for cursor, _ in page.items]
            after = page.next
            if after is None:
                break
        assert paged == [cursor for cursor, _ in whole.items]
