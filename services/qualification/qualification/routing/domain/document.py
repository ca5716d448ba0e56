"""The routing document: who gets which lead. Its shape, and the same made ready for asking. What is wrong with one is in checks.py.

It is no agreement: who works for sales and who is on leave is sales' own matter and changes daily. Each content is a version all the
same, so that every assignment names the one by which it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from msgspec import Struct
from pydantic import Field

from accord.terms.criteria import Compiled, Criteria, activity_kind, compile_criteria
from accord.terms.document import DocumentPart
from accord.terms.durations import Duration
from accord.terms.week import Day, WeekTerms, parse_week
from qualification.definition.domain.rules import Rules
from qualification.routing.domain.working_time import WorkingTime

Key = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
"""A word of the document: a pool, a rule, a calendar, a stage."""

Owner = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
"""A person's opaque handle, never an e-mail address; without `/`, since it stands in paths."""

Method = Literal["smooth_weighted_round_robin", "least_open"]

CAPACITY_MAX = 2_000
"""Open leads of one person; beyond as many nobody's are counted exactly (see queries/document.py)."""

WEIGHT_MAX = 1_000
MEMBERS_MAX = 200
PEOPLE_MAX = 1_000
POOLS_MAX = 50
RULES_MAX = 100
CALENDARS_MAX = 50
DAYS_MAX = 400


class CalendarTerms(DocumentPart):
    """When one is at work. `closed` are days without work, holidays among them."""

    timezone: Annotated[str, Field(min_length=1, max_length=100)]
    week: WeekTerms
    closed: list[Day] = Field(default_factory=list, max_length=DAYS_MAX)


class Absence(DocumentPart):
    """Days on which somebody gets no lead, the last one included, in the zone of the person's calendar (else UTC)."""

    from_: Day = Field(alias="from")
    to: Day


class PersonTerms(DocumentPart):
    """What holds for a person in whichever pool. Without capacity there is no limit; without calendar every hour is one of work."""

    capacity: Annotated[int, Field(ge=1, le=CAPACITY_MAX)] | None = None
    calendar: Key | None = None
    absences: list[Absence] = Field(default_factory=list, max_length=DAYS_MAX)


class MemberTerms(DocumentPart):
    owner: Owner
    weight: Annotated[int, Field(ge=1, le=WEIGHT_MAX)] = 1


class PoolTerms(DocumentPart):
    method: Method = "smooth_weighted_round_robin"
    members: Annotated[list[MemberTerms], Field(max_length=MEMBERS_MAX)]


class RuleTerms(DocumentPart):
    """Leads for which `when` holds go to `pool`; without `when` all that are left."""

    key: Key
    when: Criteria | None = None
    pool: Key


class RoutingDocument(DocumentPart):
    """Who gets which lead, and when."""

    kind: Literal["routing"]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    at: Annotated[list[Key], Field(min_length=1, max_length=40)] | None = None
    """The stages whose entry gives a lead to somebody; without it where sales takes over (see `stages_of`)."""
    entered_within: Duration | None = None
    """Leads whose entry occurred longer ago than this, such as imported history, are given to nobody by themselves."""
    same_account: bool = True
    """A lead of a company goes to whoever was last given a lead of that company."""
    calendars: dict[Key, CalendarTerms] = Field(default_factory=dict, max_length=CALENDARS_MAX)
    people: dict[Owner, PersonTerms] = Field(default_factory=dict, max_length=PEOPLE_MAX)
    pools: Annotated[dict[Key, PoolTerms], Field(min_length=1, max_length=POOLS_MAX)]
    rules: Annotated[list[RuleTerms], Field(min_length=1, max_length=RULES_MAX)]
    fallback: Key | None = None
    """The pool for leads whose own pool has nobody available, and for those for which no rule holds."""


# --- Made ready ---


class Person(Struct, frozen=True, gc=False):
    """Somebody who can be given leads."""

    owner: str
    capacity: int | None = None
    hours: WorkingTime | None = None
    calendar: str | None = None
    absences: tuple[tuple[date, date], ...] = ()

    def why_absent(self, now: datetime) -> str | None:
        """Why nothing can be given to this person at this moment, in words; None if it can."""
        zone: tzinfo = self.hours.zone if self.hours else UTC
        today = now.astimezone(zone).date()
        for first, last in self.absences:
            if first <= today <= last:
                return f"absent from {first} to {last}"
        if self.hours is not None and not self.hours.open_at(now):
            return f"off duty by the calendar {self.calendar}"
        return None

    def why_full(self, open_leads: int) -> str | None:
        """Why the capacity lets nothing be given to this person, in words; None if it does."""
        if self.capacity is None or open_leads < self.capacity:
            return None
        return f"has {open_leads} open leads, and the capacity is {self.capacity}"


class Pool(Struct, frozen=True, gc=False):
    """Those among whom leads are shared, with their weights, in the order in which they are written."""

    key: str
    method: Method
    weights: Mapping[str, int]


class Rule(Struct, frozen=True, gc=False):
    key: str
    when: Compiled | None
    pool: str


class Routing(Struct, frozen=True, gc=False):
    """One version of the document, compiled."""

    version: int
    at: frozenset[str] | None
    entered_within: timedelta | None
    same_account: bool
    people: Mapping[str, Person]
    """Everybody that the document names, in whichever place."""
    members: frozenset[str]
    """Those who are in a pool."""
    pools: Mapping[str, Pool]
    rules: tuple[Rule, ...]
    fallback: str | None
    kinds: frozenset[str]
    """The kinds of activity that rules ask for."""

    def stages_of(self, rules: Rules) -> frozenset[str]:
        """The stages whose entry gives a lead to somebody, under a definition.

        Unless the document names them: the open stages of sales, and those in which marketing's lead waits for sales, from which
        a decision leads into an open stage of sales. So sales has an owner for a lead from the moment it owes an answer.
        """
        return self.at if self.at is not None else sales_stages(rules)


def sales_stages(rules: Rules) -> frozenset[str]:
    """Where sales has a lead, or owes an answer to one that waits for it."""
    sales = {stage.key for stage in rules.stages.values() if stage.owner == "sales" and stage.kind == "open"}
    waiting = {
        key
        for key, decisions in rules.decisions_from.items()
        if rules.stages[key].kind == "open" and any(to.key in sales for to in decisions.values())
    }
    return frozenset(sales | waiting)


def open_stages(rules: Rules) -> frozenset[str]:
    """The stages in which a lead is work for its owner."""
    return frozenset(stage.key for stage in rules.stages.values() if stage.kind == "open")


def compile_routing(version: int, document: RoutingDocument) -> Routing:
    """Make a checked document ready. It must have no findings (see checks.py)."""
    calendars = {name: _hours(terms) for name, terms in document.calendars.items()}
    members = {member.owner for pool in document.pools.values() for member in pool.members}
    nobody = PersonTerms()
    named: Iterable[str] = dict.fromkeys([*document.people, *sorted(members)])
    rules = tuple(
        Rule(rule.key, compile_criteria(rule.when) if rule.when else None, rule.pool) for rule in document.rules
    )
    asked = {activity_kind(path) for rule in rules if rule.when for path in rule.when.paths}
    return Routing(
        version=version,
        at=frozenset(document.at) if document.at is not None else None,
        entered_within=document.entered_within,
        same_account=document.same_account,
        people={owner: _person(owner, document.people.get(owner, nobody), calendars) for owner in named},
        members=frozenset(members),
        pools={
            key: Pool(key, pool.method, {member.owner: member.weight for member in pool.members})
            for key, pool in document.pools.items()
        },
        rules=rules,
        fallback=document.fallback,
        kinds=frozenset(kind for kind in asked if kind),
    )


def _hours(terms: CalendarTerms) -> WorkingTime:
    return WorkingTime(
        ZoneInfo(terms.timezone), parse_week(terms.week), frozenset(date.fromisoformat(day) for day in terms.closed)
    )


def _person(owner: str, terms: PersonTerms, calendars: Mapping[str, WorkingTime]) -> Person:
    return Person(
        owner=owner,
        capacity=terms.capacity,
        hours=calendars[terms.calendar] if terms.calendar else None,
        calendar=terms.calendar,
        absences=tuple(
            (date.fromisoformat(why_absent.from_), date.fromisoformat(why_absent.to)) for why_absent in terms.absences
        ),
    )
