"""Any interleaving of what can happen to leads: visits, the chain of stages and the sequence of events stay whole."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.qualification import conftest

from accord.contracts.qualification_events import LeadScored, LeadStageChanged
from accord.contracts.values import Money
from qualification.domain.decisions import Decided, Fields, Refused, allowed_decisions
from qualification.domain.definition import Definition
from qualification.domain.lead import Lead
from qualification.domain.progress import DefinitionArrived, Merged, absorbed, decide
from qualification.domain.rules import Rules, compile_definition

LEADS = 3
WHOLE = Fields(
    amount=Money(amount=Decimal(100), currency="EUR"),
    expected_close=datetime(2024, 6, 1).date(),  # noqa: DTZ001 - a date
    answers={"budget": True, "authority": True, "need": True, "timing": True},
)

lead_numbers = st.integers(0, LEADS - 1)
hours = st.integers(-48, 24 * 60)


class Ways(RuleBasedStateMachine):
    """A few leads, two definitions, and everything that can happen, in any order and dated at any time."""

    @initialize(with_definition=st.booleans())
    def begin(self, with_definition: bool) -> None:
        content = deepcopy(conftest.CONTENT)
        first = compile_definition(1, Definition.model_validate(content))
        content["stages"][2]["gate"] = {"when": {"path": "scores.engagement", "op": "gte", "value": 35}}
        content["stages"][7]["cool_down"] = "P2D"
        content["scores"]["fit"]["rules"][0]["points"] = 60
        self.definitions = [first, compile_definition(2, Definition.model_validate(content))]
        self.rules: Rules | None = first if with_definition else None
        self.tellers = [conftest.Teller(UUID(int=number + 1)) for number in range(LEADS)]
        self.leads: dict[UUID, Lead] = {}
        self.said: dict[UUID, list[Any]] = {teller.lead_id: [] for teller in self.tellers}
        self.now = conftest.START + timedelta(days=100)
        for teller in self.tellers[1:]:
            self.apply(teller.lead_id, teller.captured(self.at(0), employee_count=60))
            self.apply(teller.lead_id, teller.did("demo.requested", self.at(1)))

    def at(self, hour: int) -> datetime:
        return conftest.START + timedelta(hours=hour)

    def survivor(self, number: int) -> UUID:
        lead_id = self.tellers[number].lead_id
        while (lead := self.leads.get(lead_id)) and lead.merged_into:
            lead_id = lead.merged_into
        return lead_id

    def apply(self, lead_id: UUID, event: Any) -> None:
        before = self.leads.get(lead_id)
        outcome = decide(before, event, self.rules, self.now)
        assert decide(before, event, self.rules, self.now) == outcome, "the same inputs give the same outputs"
        if outcome.lead is not None:
            self.leads[lead_id] = outcome.lead
        self.said[lead_id] += outcome.events

    @rule(number=lead_numbers, hour=hours, employees=st.sampled_from([10, 60, 300]))
    def captured(self, number: int, hour: int, employees: int) -> None:
        teller = self.tellers[number]
        if self.survivor(number) == teller.lead_id and teller.lead_id not in self.leads:
            self.apply(teller.lead_id, teller.captured(self.at(hour), employee_count=employees))

    @rule(number=lead_numbers, hour=hours, employees=st.sampled_from([10, 60, 300]), stale=st.booleans())
    def updated(self, number: int, hour: int, employees: int, stale: bool) -> None:
        teller = self.tellers[number]
        if self.survivor(number) != teller.lead_id:
            return
        event = teller.updated(self.at(hour), employee_count=employees)
        self.apply(teller.lead_id, event.model_copy(update={"sequence": 1}) if stale else event)

    @rule(
        number=lead_numbers,
        hour=hours,
        kind=st.sampled_from(["demo.requested", "email.clicked", "page.viewed"]),
        by=st.sampled_from(["lead", "sales"]),
    )
    def did(self, number: int, hour: int, kind: str, by: str) -> None:
        self.apply(self.survivor(number), self.tellers[number].did(kind, self.at(hour), by))

    @rule(number=lead_numbers, hour=hours, choice=st.integers(0, 20), anything=st.booleans())
    def decided(self, number: int, hour: int, choice: int, anything: bool) -> None:
        lead_id = self.survivor(number)
        lead = self.leads.get(lead_id)
        allowed = allowed_decisions(lead, self.rules) if lead else ()
        words = sorted(self.definitions[0].decisions) if anything else allowed
        if not words:
            return
        decision = words[choice % len(words)]
        target = self.rules.open_to(lead.stage).get(decision) if self.rules and lead else None
        reason = next(iter(target.reasons)) if target and target.reasons else None
        event = Decided(UUID(int=choice + 1), decision, "ann", self.at(hour), "sales", reason, WHOLE)
        try:
            self.apply(lead_id, event)
        except Refused:
            assert decision not in allowed, "what is said to be allowed is taken"
        else:
            assert decision in allowed

    @rule(number=lead_numbers, hour=hours, days=st.sampled_from([1, 3, 31]))
    def sent_back_and_heard_of_again(self, number: int, hour: int, days: int) -> None:
        """What chance alone would seldom bring about: back to marketing, and new interest after a while."""
        lead = self.leads.get(self.survivor(number))
        if lead and "recycle" in allowed_decisions(lead, self.rules):
            event = Decided(UUID(int=99), "recycle", "ann", self.at(hour), "sales", "no-timing")
            self.apply(lead.lead_id, event)
            self.apply(lead.lead_id, self.tellers[number].did("demo.requested", self.at(hour + 24 * days)))

    @rule(ours=lead_numbers, theirs=lead_numbers, hour=hours)
    def merged(self, ours: int, theirs: int, hour: int) -> None:
        survivor, other = self.survivor(ours), self.survivor(theirs)
        teller = next(teller for teller in self.tellers if teller.lead_id == survivor)
        if survivor == other:
            return
        merge = teller.merged(other, self.at(hour), employee_count=60)
        gone = self.leads.get(other)
        self.apply(survivor, Merged(merge, gone))
        self.leads[other] = absorbed(gone, other, survivor)

    @rule(number=lead_numbers)
    def erased(self, number: int) -> None:
        lead_id = self.survivor(number)
        if lead_id in self.leads:
            self.apply(lead_id, self.tellers[number].erased(self.now))

    @rule(version=st.integers(0, 1))
    def definition_activates(self, version: int) -> None:
        self.rules = self.definitions[version]
        for lead_id, lead in list(self.leads.items()):
            if lead.stage is None and lead.profile and not lead.erased and not lead.merged_into:
                self.apply(lead_id, DefinitionArrived())

    @invariant()
    def sequences_have_no_gaps(self) -> None:
        for lead_id, said in self.said.items():
            assert [event.sequence for event in said] == list(range(1, len(said) + 1))
            if lead_id in self.leads:
                assert self.leads[lead_id].sequence == len(said)

    @invariant()
    def history_is_a_chain_and_visits_count_up(self) -> None:
        for lead_id, entries in self.entries().items():
            assert [entry.from_stage for entry in entries] == [None, *[entry.stage for entry in entries]][
                : len(entries)
            ]
            for before, entry in pairwise(entries):
                assert entry.from_since == before.occurred_at
            counted: dict[str, int] = {}
            for entry in entries:
                counted[entry.stage] = counted.get(entry.stage, 0) + 1
                assert entry.visit == counted[entry.stage]
            lead = self.leads.get(lead_id)
            if lead is not None:
                assert dict(lead.visits) == counted
                assert lead.stage == (entries[-1].stage if entries else None)
                assert lead.stage_since == (entries[-1].occurred_at if entries else None)

    @invariant()
    def only_decisions_and_merges_lead_back(self) -> None:
        for entries in self.entries().values():
            for before, entry in pairwise(entries):
                assert entry.cause != "capture"
                if entry.cause == "automatic":
                    assert before.stage_kind == "recycled" or before.stage_rank < entry.stage_rank

    @invariant()
    def what_happens_by_itself_never_runs_backwards(self) -> None:
        for said in self.said.values():
            own = [event.occurred_at for event in said if getattr(event, "cause", None) == "automatic"]
            assert own == sorted(own)

    @invariant()
    def scores_stay_within_their_maximum_and_are_said_once(self) -> None:
        for said in self.said.values():
            scored = [event for event in said if isinstance(event, LeadScored)]
            assert all(0 <= event.fit <= 100 and 0 <= event.engagement <= 100 for event in scored)
            values = [(event.fit, event.engagement, event.grade) for event in scored]
            assert all(before != after for before, after in pairwise(values))

    def entries(self) -> dict[UUID, list[LeadStageChanged]]:
        return {
            lead_id: [event for event in said if isinstance(event, LeadStageChanged)]
            for lead_id, said in self.said.items()
        }


TestWays = Ways.TestCase
TestWays.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
