"""The feedback of sales to marketing: what became of the leads that were handed over, and which criterion would have changed most.

Worked out when it is asked for, over bounded numbers of decisions and leads, one after the other in a process. It changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import asyncpg
from msgspec import Struct

from accord.batching import ConcurrencyLimit, TimeBudget
from accord.db import Database, connection_of
from accord.terms.dimensions import Dimension
from qualification.analysis.domain.feedback import GroupFeedback, summarize_feedback
from qualification.analysis.domain.gate_criteria import CriterionAnalysis, CriterionReport, Gate, gates_of, summarize
from qualification.analysis.queries import feedback as queries
from qualification.analysis.queries.feedback import ExaminedDecision
from qualification.analysis.service.activity_budget import take_within_budget
from qualification.definition.domain.handoff import handoff_outcome, handoff_stages
from qualification.definition.domain.rules import Rules
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.queries import logs
from qualification.lifecycle.queries.logs import LoadedLogs

DECISIONS_EXAMINED_MAX = 5_000
LEADS_EXAMINED_MAX = 5_000
"""The newest so many decisions, and so many of the leads captured last that were not handed over, are looked at for criteria."""

ACTIVITIES_EXAMINED_MAX = 150_000
"""Past it, fewer of either: the answer takes seconds, whatever there is."""

EXAMINED_FOR_MAX_S = 10.0
"""Of either. It is reached where a definition asks what takes long to answer, such as patterns."""

ROWS_MAX = 50_000
"""Combinations of step, reason and group that are counted."""

_PAGE = 250
_WAITING_MAX = 4
_RETRY_AFTER_S = 5.0


class FeedbackRequest(Struct, frozen=True):
    """Decisions taken, and leads captured, in [since, until), in steps, by group."""

    since: datetime
    until: datetime
    step: timedelta
    by: tuple[Dimension, ...]

    @property
    def steps(self) -> int:
        """How many there are; the last may be cut short."""
        return -((self.since - self.until) // self.step)


T = TypeVar("T")


class TooManyGroups(Exception):
    """There are more combinations of step, reason and group than are counted."""


class Examined(Struct, frozen=True):
    """How many decisions and leads were looked at for criteria; `all_…`: they were all that there are."""

    decisions: int
    all_decisions: bool
    unexplained: int
    leads: int
    all_leads: bool


class Feedback(Struct, frozen=True):
    """The whole answer."""

    total: GroupFeedback
    groups: tuple[GroupFeedback, ...]
    criteria: tuple[CriterionReport, ...]
    examined: Examined
    summary: str


class FeedbackService:
    """The use case."""

    def __init__(self, database: Database, definitions: DefinitionVersionCache) -> None:
        self._database = database
        self._definitions = definitions
        self._limit = ConcurrencyLimit(1, _WAITING_MAX, _RETRY_AFTER_S)

    async def get(self, request: FeedbackRequest) -> Feedback:
        """The feedback of a period. Raises TooManyGroups, and Overloaded where too many wait."""
        async with self._limit:
            return await self._build(request)

    async def _build(self, request: FeedbackRequest) -> Feedback:
        versions = dict((await self._definitions.get_versions()).versions)
        gates = {
            number: gates_of(rules, await self._definitions.definition_of(number)) for number, rules in versions.items()
        }
        handoff = sorted({stage for rules in versions.values() for stage in handoff_stages(rules)})
        async with self._database.read_transaction() as conn:
            connection = await connection_of(conn)
            since, until = request.since, request.until
            rows = await queries.count_decisions(
                connection, since, until, request.step, handoff, request.by, ROWS_MAX + 1
            )
            if len(rows) > ROWS_MAX:
                raise TooManyGroups
            examination = _Examination(connection, versions, gates)
            examined = await examination.examine(request, handoff)
        rows = [row for row in rows if row.version in versions]
        total, groups = summarize_feedback(rows, versions, request.by, since, request.step, request.steps)
        found = examination.analysis.report()
        return Feedback(total, groups, found, examined, summarize(found, total.accepted, total.rejected))


class _Examination:
    """A closer look at decisions and leads. Lives for one question."""

    def __init__(
        self, connection: asyncpg.Connection, versions: Mapping[int, Rules], gates: Mapping[int, Mapping[str, Gate]]
    ) -> None:
        self.analysis = CriterionAnalysis(gates)
        self._connection = connection
        self._versions = versions
        self._by_criteria = sorted({stage for some in gates.values() for stage in some})

    async def examine(self, request: FeedbackRequest, handoff: Sequence[str]) -> Examined:
        """Look at the newest decisions, then at the leads captured last that were not handed over."""
        since, until, made = request.since, request.until, self.analysis
        decisions = await queries.fetch_decisions(self._connection, since, until, handoff, DECISIONS_EXAMINED_MAX + 1)
        all_decisions = len(decisions) <= DECISIONS_EXAMINED_MAX
        all_decisions &= await self._examine_all(
            decisions[:DECISIONS_EXAMINED_MAX], lambda one: one.survivor_id, self._add_decision
        )
        leads = await queries.fetch_not_entered(
            self._connection, since, until, self._by_criteria, LEADS_EXAMINED_MAX + 1
        )
        all_leads = len(leads) <= LEADS_EXAMINED_MAX
        all_leads &= await self._examine_all(leads[:LEADS_EXAMINED_MAX], lambda lead_id: lead_id, self._add_lead)
        return Examined(made.decisions, all_decisions, made.unexplained, made.leads, all_leads)

    async def _examine_all(
        self, rest: Sequence[tuple[T, int]], lead_of: Callable[[T], UUID], add: Callable[[T, LoadedLogs], None]
    ) -> bool:
        """Look at each, as long as time and the activities that may be folded last; whether all were looked at."""
        activities_left = ACTIVITIES_EXAMINED_MAX
        kinds = frozenset(kind for rules in self._versions.values() for kind in rules.kinds)
        with TimeBudget(EXAMINED_FOR_MAX_S) as budget:
            while rest and activities_left > 0 and not budget.is_used_up:
                some = take_within_budget(rest[:_PAGE])
                loaded = await logs.load(self._connection, {lead_of(one) for one in some}, {}, kinds)
                done = await asyncio.to_thread(_examine_page, some, loaded, add, budget)
                activities_left -= sum(count for _, count in rest[:done])
                rest = rest[done:]
        return not rest

    def _add_decision(self, decision: ExaminedDecision, loaded: LoadedLogs) -> None:
        rules = self._versions.get(decision.version)
        outcome = handoff_outcome(rules, decision.from_stage, decision.to_stage) if rules else None
        if outcome is not None:
            entries = loaded.effective_entries.get(decision.lead_id, ())
            accepted = outcome == "accepted"
            self.analysis.add_decision(decision.lead_id, loaded.logs, entries, decision.decision_id, accepted=accepted)

    def _add_lead(self, lead_id: UUID, loaded: LoadedLogs) -> None:
        self.analysis.add_lead(lead_id, loaded.logs, loaded.effective_entries.get(lead_id, ()))


def _examine_page(
    some: Sequence[T], loaded: LoadedLogs, add: Callable[[T, LoadedLogs], None], budget: TimeBudget
) -> int:
    """Look at one after another until the budget is used up; at how many. Runs in a thread."""
    for number, one in enumerate(some):
        if budget.is_used_up:
            return number
        add(one, loaded)
    return len(some)
