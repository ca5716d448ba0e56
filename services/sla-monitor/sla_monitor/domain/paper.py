"""Renders the SLA in plain words, for the page that both departments read before they sign."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from accord.terms.criteria import describe_criteria
from accord.terms.durations import describe_duration
from accord.terms.paper import Section
from sla_monitor.domain.calendars import ClosedDay
from sla_monitor.domain.sla import (
    ActorKinds,
    AttemptsClause,
    CalendarTerms,
    Escalation,
    Event,
    FreshnessClause,
    From,
    LeadClause,
    PausedBy,
    PeriodClause,
    ResponseClause,
    Sla,
    VolumeClause,
    Within,
    names_of,
)

_SHORT_FOR = frozenset({"iql", "mcl", "mql", "pql", "sal", "sel", "sgl", "sql", "tal", "tql"})
"""Stages that the field writes as initials."""

_BY = {"lead": "of the lead itself", "marketing": "by marketing", "sales": "by sales"}

COUNTING = (
    "A clock starts when what the clause names has happened. It keeps the version of this agreement that was in force then.",
    (
        "Whether a clause applies to a lead is evaluated once, on what had been recorded of the lead when the clock's start "
        "was recorded."
    ),
    (
        "An answer by the deadline meets the clause (exactly at the deadline is in time), also if it is reported later: a "
        "breach is then withdrawn. An answer after the deadline is late, and the breach stays."
    ),
    (
        "A clock is cancelled when, before the deadline, the lead enters a stage that is not open (won, lost, recycled, "
        "disqualified), is merged into another or is erased. If only a decision on the stage can be the answer, any other "
        "stage cancels it too."
    ),
    (
        "A request that is repeated before it is answered, or before its deadline, has one clock, from its first moment. "
        "After the answer, another request has a clock of its own."
    ),
    (
        "An activity of a person answers. One that a tool did by itself answers only where the clause says so. Where the "
        "tool does not tell who acted, the activity counts as a person's."
    ),
    (
        "When a lead is given to somebody else before the deadline, its clocks move with it, and a breach is of whoever has "
        "the lead at the deadline; clauses that begin with an assignment start again for the new owner. Where a clause says "
        "otherwise, it says so. A lead that a breach gives to somebody else starts the breached clause no second time."
    ),
    (
        "A pause stops the time, not the clock: an answer during a pause meets the clause. Pauses that overlap count once. "
        "Shares of the time are shares of the time that counts."
    ),
    (
        "A clause over a period has a clock for each whole period that begins while the agreement is in force, so the rest of "
        "the first one does not count. What happened in it counts, once for each entry: at its end the clause is kept or "
        "broken, also if nothing happened. Leads that were merged into others by then do not count. A rate of nothing is "
        "neither kept nor broken. A later truth judges the period again."
    ),
    (
        "Whoever acknowledges a breach ends its notifications. A lead that is to be given to somebody else, or a severity, "
        "is so all the same."
    ),
    (
        "Business time counts only while the calendar is open. Business days are whole open days after the start; the last of "
        "them ends when the calendar closes."
    ),
)


ClosedDays = Mapping[str, Sequence[ClosedDay]]
"""By calendar, the days on which it is closed though its week is open."""


def render_paper(sla: Sla, closed_days: ClosedDays) -> list[Section]:
    """Render the whole agreement. `closed_days`: of the year to come, so that both departments see what they sign."""
    parts = [
        Section(
            f"What {department} owes",
            columns=("Clause", "Promise"),
            rows=[(clause.key, describe_clause(clause)) for clause in sla.clauses if clause.obliges == department],
        )
        for department in ("sales", "marketing")
        if any(clause.obliges == department for clause in sla.clauses)
    ]
    parts.extend(_calendar_section(name, terms, closed_days[name]) for name, terms in sla.calendars.items())
    zone = f"Periods, and months in reports, are those of {sla.timezone}: from midnight to midnight there."
    parts.append(Section("How it is counted", (*COUNTING, zone)))
    return parts


def describe_clause(clause: LeadClause | PeriodClause) -> str:
    """Describe a clause: `Sales answers each lead that becomes MQL with accept or reject within 4 business hours (…)`."""
    if isinstance(clause, PeriodClause):
        sentences = [f"{clause.obliges.capitalize()} {_describe_period(clause)} in each {clause.per}."]
    else:
        sentences = [
            f"{clause.obliges.capitalize()} {_describe_promise(clause)} within {_describe_time(clause.within)}."
        ]
    if isinstance(clause, ResponseClause | AttemptsClause) and clause.until is not None:
        sentences.append(f"It ends without a result with {_describe_event(clause.until)}.")
    if clause.where is not None:
        sentences.append(f"It applies to leads where: {describe_criteria(clause.where)}.")
    if not isinstance(clause, PeriodClause) and clause.paused_by is not None:
        sentences.append(_describe_pauses(clause.paused_by))
    if not isinstance(clause, PeriodClause) and clause.on_reassignment is not None:
        sentences.append(f"When the lead gets another owner, {_ON_REASSIGNMENT[clause.on_reassignment]}.")
    if clause.warn_at:
        shares = _join_and([f"{100 * part:g} %" for part in clause.warn_at])
        sentences.append(f"It counts as at risk after {shares} of the time.")
    sentences += [_describe_step(step) for step in clause.escalate]
    return " ".join(sentences)


_ON_REASSIGNMENT = {
    "moves": "its clock moves with it",
    "restarts": "its clock ends without a result and starts again for the new owner",
    "ends": "its clock ends without a result",
}


def _describe_period(clause: PeriodClause) -> str:
    if isinstance(clause, VolumeClause):
        stages = _join_or([describe_stage(name) for name in names_of(clause.stage)])
        return f"brings at least {clause.at_least:,} leads to {stages}"
    of, over = _describe_event(clause.of), _describe_event(clause.over)
    return f"reaches at least {100 * clause.at_least:g} times {of} for each 100 times {over}"


def _describe_promise(clause: LeadClause) -> str:
    if isinstance(clause, FreshnessClause):
        return f"moves each lead on that becomes {describe_stage(clause.stage)}"
    start = _describe_start(clause.from_)
    if isinstance(clause, AttemptsClause):
        times = "once" if clause.count == 1 else f"{clause.count} times"
        what = " ".join(filter(None, (_join_or(list(names_of(clause.of))), _BY.get(clause.by or ""))))
        return f"follows up on {start} {times} with {what}{_describe_actors(clause.actor_kind)}"
    return f"answers {start} with {_describe_event(clause.to)}{_describe_actors(clause.to.actor_kind)}"


_ACTORS = {"person": "a person", "automation": "a tool by its rules", "agent": "an AI agent"}


def _describe_actors(terms: ActorKinds | None) -> str:
    if terms is None:
        return ""
    return f" (of {_join_or([_ACTORS[kind] for kind in ([terms] if isinstance(terms, str) else terms)])})"


def _describe_pauses(paused: PausedBy) -> str:
    causes = []
    if paused.stage is not None:
        causes.append(f"while the lead is {_join_or([describe_stage(name) for name in names_of(paused.stage)])}")
    if paused.activity is not None:
        begins, ends = _join_or(list(names_of(paused.activity))), _join_or(list(names_of(paused.resumed_by)))
        causes.append(f"from {begins} until {ends}")
    return f"The time stands still {_join_and(causes)}."


def _describe_step(step: Escalation) -> str:
    done = []
    if step.notify is not None:
        done.append(f"{_join_and(list(names_of(step.notify)))} hear of it")
    if step.severity is not None:
        done.append(f"its severity is {step.severity}")
    if step.reassign:
        limit = f" (not more than {describe_duration(step.expires_after)} later)" if step.expires_after else ""
        done.append(f"the lead is given to somebody else{limit}")
    when = "At the deadline" if step.at == 1 else f"After {100 * step.at:g} % of the time"
    return f"{when}, unless it is kept by then, {_join_and(done)}."


def describe_stage(key: str) -> str:
    """Describe a stage as the field writes it: MQL, opportunity."""
    return key.upper() if key in _SHORT_FOR else _spell_out(key)


def _describe_start(start: From) -> str:
    if start.assigned:
        return "each assignment of a lead to an owner"
    if start.captured:
        return "each lead that is captured"
    if start.decision is not None:
        return f"each decision to {_join_or([_spell_out(name) for name in names_of(start.decision)])} a lead"
    if start.activity is not None:
        return f"each {_describe_activity(start)}"
    return f"each lead that becomes {_join_or([describe_stage(name) for name in names_of(start.stage)])}"


def _describe_event(owed: Event) -> str:
    if owed.decision is not None:
        return f"the decision {_join_or([_spell_out(name) for name in names_of(owed.decision)])}"
    if owed.activity is not None:
        return _describe_activity(owed)
    return f"its becoming {_join_or([describe_stage(name) for name in names_of(owed.stage)])}"


def _describe_activity(side: Event) -> str:
    return " ".join(filter(None, (_join_or(list(names_of(side.activity))), _BY.get(side.by or ""))))


def _describe_time(within: Within) -> str:
    if within.elapsed is not None:
        return f"{describe_duration(within.elapsed)} by the clock"
    if within.business_days is not None:
        days = "1 business day" if within.business_days == 1 else f"{within.business_days} business days"
        return f"{days} ({within.calendar} calendar)"
    if within.business is None:
        raise AssertionError("a clause that has been checked has a time")
    return f"{_insert_business(describe_duration(within.business, largest='hours'))} ({within.calendar} calendar)"


def _insert_business(words: str) -> str:
    """`4 hours` → `4 business hours`."""
    amount, _, rest = words.partition(" ")
    return f"{amount} business {rest}"


def _calendar_section(name: str, terms: CalendarTerms, closed_days: Sequence[ClosedDay]) -> Section:
    rows = [(words, ", ".join(ranges)) for words, ranges in terms.week.items()]
    rows.append(("time zone", terms.timezone))
    rows.extend(_list_days_off(terms))
    rows.extend((f"{day.date:%A} {day.date.isoformat()}", f"closed: {day.name}") for day in closed_days)
    return Section(f"Calendar {name}", columns=("Days", "Open"), rows=rows)


def _list_days_off(terms: CalendarTerms) -> Iterator[tuple[str, str]]:
    holidays = terms.holidays
    if holidays.country:
        region = f"{holidays.country}, {holidays.subdivision}" if holidays.subdivision else holidays.country
        yield f"public holidays of {region}", "closed"
    if holidays.extra:
        yield _join_and(holidays.extra), "closed"
    if holidays.except_:
        yield f"public holidays that are worked: {_join_and(holidays.except_)}", "open"


def _spell_out(key: str) -> str:
    return key.replace("_", " ").replace("-", " ")


def _join_and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _join_or(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
