"""Renders the SLA in plain words, for the page that both departments read before they sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from accord.terms.criteria import describe_criteria
from accord.terms.durations import describe_duration
from accord.terms.paper import Section
from sla_monitor.domain.sla import CalendarTerms, Clause, From, Sla, To, Within, names_of

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
        "An answer by the deadline meets the clause, also if it is reported later: a breach is then withdrawn. An answer after "
        "the deadline is late, and the breach stays."
    ),
    (
        "A clock is cancelled when, before the deadline, the lead enters a stage that is not open (won, lost, recycled, "
        "disqualified), is merged into another or is erased. If only a decision on the stage can be the answer, any other "
        "stage cancels it too."
    ),
    (
        "Business time counts only while the calendar is open. Business days are whole open days after the start; the last of "
        "them ends when the calendar closes."
    ),
)


def render_paper(sla: Sla) -> list[Section]:
    """Render the whole agreement."""
    parts = [
        Section(
            f"What {department} owes",
            columns=("Clause", "Promise"),
            rows=[(clause.key, describe_clause(clause)) for clause in sla.clauses if clause.obliges == department],
        )
        for department in ("sales", "marketing")
        if any(clause.obliges == department for clause in sla.clauses)
    ]
    parts.extend(_calendar_section(name, terms) for name, terms in sla.calendars.items())
    parts.append(Section("How it is counted", COUNTING))
    return parts


def describe_clause(clause: Clause) -> str:
    """Describe a clause: `Sales answers each lead that becomes MQL with accept or reject within 4 business hours (…)`."""
    who = clause.obliges.capitalize()
    sentence = f"{who} answers {_describe_start(clause.from_)} with {_describe_answer(clause.to)} within {_describe_time(clause.within)}."
    if clause.where is not None:
        sentence += f" It applies to leads where: {describe_criteria(clause.where)}."
    if clause.warn_at:
        shares = _join_and([f"{100 * part:g} %" for part in clause.warn_at])
        sentence += f" It counts as at risk after {shares} of the time."
    if clause.escalate:
        sentence += " A breach reassigns the lead."
    return sentence


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


def _describe_answer(owed: To) -> str:
    if owed.decision is not None:
        return f"the decision {_join_or([_spell_out(name) for name in names_of(owed.decision)])}"
    if owed.activity is not None:
        return _describe_activity(owed)
    return f"its becoming {_join_or([describe_stage(name) for name in names_of(owed.stage)])}"


def _describe_activity(side: From | To) -> str:
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


def _calendar_section(name: str, terms: CalendarTerms) -> Section:
    rows = [(words, ", ".join(ranges)) for words, ranges in terms.week.items()]
    rows.append(("time zone", terms.timezone))
    rows.extend(_list_days_off(terms))
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
