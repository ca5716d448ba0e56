"""What is wrong with a routing document: each finding points at the place. Empty means that it can be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter, ValidationError

from accord.contracts.values import MOMENTS_IN_WORDS, Day
from accord.terms.criteria import Criteria
from accord.terms.findings import Finding, find_shape_errors, pointer
from accord.terms.patterns import check_patterns
from accord.terms.week import find_week_errors
from qualification.definition.domain.checks import find_duplicates, iter_leaves
from qualification.definition.domain.definition import ACTIVITIES_PER_KIND_MAX
from qualification.definition.domain.rules import Rules
from qualification.definition.domain.satisfiable import Domain, why_never
from qualification.routing.domain.document import RoutingDocument, sales_stages

_DAY: TypeAdapter[date] = TypeAdapter(Day)
_GRADES = Domain(among=frozenset(letter + digit for letter in "ABCD" for digit in "1234"))


def check_routing(content: Mapping[str, object], rules: Rules | None) -> list[Finding]:
    """Everything wrong with the content, by itself and beside the definition in force (None: stages are not looked at)."""
    too_much = check_patterns(content)
    if too_much:
        return too_much
    try:
        document = RoutingDocument.model_validate(content)
    except ValidationError as error:
        return find_shape_errors(error, content)
    return [
        *_check_stages(document, rules),
        *_check_calendars(document),
        *_check_people(document),
        *_check_pools(document),
        *_check_rules(document),
        *_check_criteria(document, rules),
    ]


def _check_stages(document: RoutingDocument, rules: Rules | None) -> Iterator[Finding]:
    for index, _, key in find_duplicates(document.at or ()):
        yield Finding(pointer("at", index), f"{key} is there twice")
    if rules is None:
        return
    if document.at is None and not sales_stages(rules):
        yield Finding("/at", "is missing: in the definition in force sales has no open stage")
    for index, key in enumerate(document.at or ()):
        stage = rules.stages.get(key)
        if stage is None:
            yield Finding(pointer("at", index), f"the definition in force has no stage {key}")
        elif stage.kind != "open":
            yield Finding(pointer("at", index), f"{key} is no open stage, so nobody works on a lead in it")


def _check_calendars(document: RoutingDocument) -> Iterator[Finding]:
    for name, terms in document.calendars.items():
        at = pointer("calendars", name)
        try:
            ZoneInfo(terms.timezone)
        except (KeyError, ValueError, OSError):
            yield Finding(f"{at}/timezone", "is no IANA time zone, such as America/Chicago")
        yield from (Finding(f"{at}/week{pointer(*way)}", message) for way, message in find_week_errors(terms.week))
        yield from _check_days(f"{at}/closed", terms.closed)


def _check_days(at: str, days: Sequence[str]) -> Iterator[Finding]:
    for index, day in enumerate(days):
        if _parse_date(day) is None:
            yield Finding(f"{at}/{index}", f"is no date {MOMENTS_IN_WORDS}")


def _parse_date(text: str) -> date | None:
    try:
        return _DAY.validate_python(text)
    except ValueError:
        return None


def _check_people(document: RoutingDocument) -> Iterator[Finding]:
    for owner, person in document.people.items():
        at = pointer("people", owner)
        if person.calendar is not None and person.calendar not in document.calendars:
            yield Finding(f"{at}/calendar", f"there is no calendar {person.calendar}")
        for index, away in enumerate(person.absences):
            first, last = _parse_date(away.from_), _parse_date(away.to)
            for name, day in (("from", first), ("to", last)):
                if day is None:
                    yield Finding(f"{at}/absences/{index}/{name}", f"is no date {MOMENTS_IN_WORDS}")
            if first is not None and last is not None and last < first:
                yield Finding(f"{at}/absences/{index}/to", "is before the first day")


def _check_pools(document: RoutingDocument) -> Iterator[Finding]:
    for key, pool in document.pools.items():
        at = pointer("pools", key, "members")
        if not pool.members:
            yield Finding(at, "nobody is in this pool")
        for index, _, owner in find_duplicates([member.owner for member in pool.members]):
            yield Finding(f"{at}/{index}/owner", f"{owner} is in this pool twice")
    if document.fallback is not None and document.fallback not in document.pools:
        yield Finding("/fallback", f"there is no pool {document.fallback}")


def _check_rules(document: RoutingDocument) -> Iterator[Finding]:
    for index, _, key in find_duplicates([rule.key for rule in document.rules]):
        yield Finding(pointer("rules", index, "key"), f"the rule {key} is there twice")
    catch_all: str | None = None
    for index, rule in enumerate(document.rules):
        if rule.pool not in document.pools:
            yield Finding(pointer("rules", index, "pool"), f"there is no pool {rule.pool}")
        if catch_all is not None:
            yield Finding(pointer("rules", index), f"is never reached: the rule {catch_all} before it takes every lead")
        elif rule.when is None:
            catch_all = rule.key
    if catch_all is None and document.fallback is None:
        yield Finding(
            "/rules",
            "a lead for which no rule holds would go to nobody: end with a rule without when, or name a fallback",
        )


def _check_criteria(document: RoutingDocument, rules: Rules | None) -> Iterator[Finding]:
    refused = _unavailable_paths(rules)
    known = {"age": Domain(least=0), "grade": _GRADES, **_scores()}
    stages = document.at or (sorted(sales_stages(rules)) if rules else None)
    if stages:
        known["stage"] = Domain(among=frozenset(stages))
    for index, rule in enumerate(document.rules):
        if rule.when is None:
            continue
        at = pointer("rules", index, "when")
        found = [
            Finding(f"{spot}/path", refused[asked])
            for spot, leaf in iter_leaves(at, rule.when)
            if (asked := "account" if leaf.path.startswith("account.") else leaf.path) in refused
        ]
        yield from found
        if not found:
            yield from _check_satisfiable(at, rule.when, known)


def _scores() -> dict[str, Domain]:
    return {"scores.fit": Domain(least=0), "scores.engagement": Domain(least=0)}


def _unavailable_paths(rules: Rules | None) -> dict[str, str]:
    """What the paths that never have an answer lack."""
    refused = {"account": "what is known of accounts does not reach routing; ask for an attribute"}
    if rules is None:
        return refused
    if not rules.fit:
        refused["scores.fit"] = "the definition in force has no rules for fit"
    if not rules.engagement:
        refused["scores.engagement"] = "the definition in force has no rules for engagement"
    if rules.grade is None:
        refused["grade"] = "the definition in force makes no grade"
    return refused


def _check_satisfiable(at: str, when: Criteria, known: Mapping[str, Domain]) -> Iterator[Finding]:
    counts = {
        leaf.path: Domain(least=0, most=ACTIVITIES_PER_KIND_MAX)
        for _, leaf in iter_leaves(at, when)
        if leaf.path.startswith("activities.")
    }
    reason = why_never(when, {**known, **counts})
    if reason:
        yield Finding(at, f"the rule can never hold: {reason}")
