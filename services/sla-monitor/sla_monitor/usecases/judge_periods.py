"""Opens and judges the periods of clauses as the watermark passes them. The wall clock decides nothing."""

from __future__ import annotations

from datetime import datetime

import asyncpg

from accord.db import Database, UnitOfWork
from accord.messaging.consumer_store import store_watermarks
from accord.messaging.ports import ConsumedWatermarks
from accord.messaging.watermark_reader import ChangeGate, WatermarkReader
from accord.workers import Periodic
from sla_monitor.domain.case import SlaVersions
from sla_monitor.domain.clock import Clock, Tally, Transition
from sla_monitor.domain.period import is_kept, judge_period, moments_to_count, open_period
from sla_monitor.domain.rules import PeriodRule
from sla_monitor.queries import cases, periods
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.process_events import CONSUMED, read_reached

BATCH_PERIODS_MAX = 100
_JUDGE_EVERY_S = 5.0
"""A verdict on a week or a month may take some seconds, so that an idle service has less to do."""


async def judge_periods(database: Database, sla_cache: SlaVersionCache, watermarks: WatermarkReader) -> bool | None:
    """Open periods that have begun and judge what is due; whether there may be more, None if nothing was done."""
    async with database.write_transaction() as unit_of_work:
        slas = await sla_cache.load(unit_of_work.conn)
        reached = await read_reached(unit_of_work, watermarks)
        until = reached.until(CONSUMED)
        if until is None or not any(sla.periods for sla in slas.by_number.values()):
            return None
        opened = await _open_periods(unit_of_work, slas, until)
        judged = await _judge_due(unit_of_work, slas, reached, until)
        if not opened and not judged:
            return None
        # A response's `as_of` must not lie before what it shows.
        await store_watermarks(await unit_of_work.connection(), reached)
        return max(opened, judged) >= BATCH_PERIODS_MAX


async def _open_periods(unit_of_work: UnitOfWork, slas: SlaVersions, until: datetime) -> int:
    """Open the whole periods that began before `until`, each under the version that was in force then; how many."""
    connection = await unit_of_work.connection()
    rules = [(version, rule) for version, sla in slas.by_number.items() for rule in sla.periods.values()]
    latest = await periods.fetch_latest_periods(connection, {rule.key for _, rule in rules})
    transitions: list[Transition] = []
    for version, rule in rules:
        known_until = latest.get((rule.key, version))
        active_from, superseded_at = slas.spans[version]
        since = active_from if known_until is None else rule.period_of(known_until).end
        for period in rule.whole_periods(since, min(until, superseded_at or until)):
            if len(transitions) < BATCH_PERIODS_MAX:
                transitions.append(open_period(rule, version, period, unit_of_work.now))
    for transition in transitions:
        unit_of_work.publish(*transition.events)
    await cases.insert_clocks(connection, [transition.clock for transition in transitions])
    return len(transitions)


async def _judge_due(unit_of_work: UnitOfWork, slas: SlaVersions, reached: ConsumedWatermarks, until: datetime) -> int:
    """Judge the periods that are due at the watermark; how many."""
    connection = await unit_of_work.connection()
    changed = []
    for clock in await periods.lock_due_periods(connection, until, BATCH_PERIODS_MAX):
        rule = slas.by_number[clock.sla_version].periods[clock.clause]
        tallies = {
            moment: await periods.count_entries(connection, clock, moment) for moment in moments_to_count(clock, until)
        }
        if await _is_uncertain(connection, clock, rule, tallies, is_held=bool(reached.held)):
            continue
        transition = judge_period(clock, rule, tallies, until, unit_of_work.now)
        unit_of_work.publish(*transition.events)
        changed.append((clock, transition.clock))
    await cases.update_clocks(connection, changed)
    return len(changed)


async def _is_uncertain(
    connection: asyncpg.Connection, clock: Clock, rule: PeriodRule, tallies: dict[datetime, Tally], *, is_held: bool
) -> bool:
    """Whether something that may count is missing, so that nobody can tell yet: of a lead that is held, or that is not evaluated.

    A volume that is reached stays so, whatever is missing.
    """
    if rule.of is None and all(is_kept(rule, tally) for tally in tallies.values()):
        return False
    return is_held or await periods.is_waited_for(connection, clock)


def periods_worker(database: Database, sla_cache: SlaVersionCache, watermarks: WatermarkReader) -> Periodic:
    """The worker that opens and judges periods."""
    gate = ChangeGate(watermarks)
    return Periodic(
        "judge-periods",
        _JUDGE_EVERY_S,
        lambda: gate.run_if_changed(lambda: judge_periods(database, sla_cache, watermarks)),
    )
