"""Evaluation alone, without a database: what is known of a lead to its scores, its grade and the gate that opens, on one core."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.bench.events import captured
from tests.bench.house import DEFINITION, House
from tests.bench.report import Figure, median

from accord.agreements import documents
from accord.contracts.intake_events import LeadState
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.rules import Rules, compile_definition
from qualification.lifecycle.domain.lead import Activities, microseconds
from qualification.lifecycle.domain.scoring import LeadFacts, scores
from qualification.lifecycle.domain.state_machine import first_open_gate

ROUNDS = 5
LEADS = 5_000
ROUND_S = 0.6
ACTIVITIES_MAX = 6
_KINDS = ("page.viewed", "page.viewed", "email.clicked", "form.submitted", "webinar.attended", "demo.requested")

Known = tuple[LeadState, Activities]


def evaluation(_: House) -> list[Figure]:
    """Leads a second of processor time: ours, compiled once per version, and a twin that reads the document for each lead."""
    content = documents.read(DEFINITION.read_bytes(), yaml_text=True).content
    rules = compile_definition(1, Definition.model_validate(content))
    now = datetime.now(UTC)
    leads = _leads(now)
    for lead in leads:
        _same(judged(lead, rules, now), _read(lead, content, now))
    acts: dict[str, Callable[[Known], object]] = {
        "ours": lambda lead: judged(lead, rules, now),
        "twin": lambda lead: _read(lead, content, now),
    }
    rounds: dict[str, list[float]] = {who: [] for who in acts}
    for _round in range(ROUNDS):
        for who, act in acts.items():
            rounds[who].append(_per_cpu_s(act, leads))
    rates = {who: median(found) for who, found in rounds.items()}
    return [
        Figure(
            "evaluation of 20 criteria: facts to scores, grade and gate",
            "leads/s of a core",
            rates["ours"],
            rates["twin"],
            least=150_000,
            cpu_us={who: 1e6 / rate for who, rate in rates.items()},
            limit="calls of Python: some twenty for each lead, and a power for each activity that decays",
            detail={**rounds, "activities_a_lead": sum(_count(lead) for lead in leads) / len(leads)},
        )
    ]


def judged(lead: Known, rules: Rules, at: datetime) -> tuple[float, float, str | None, str | None]:
    """A lead in its first stage, by the functions that every step of the service uses."""
    profile, activities = lead
    made = scores(profile, activities, rules, at)
    stage = rules.entry.key
    gate = first_open_gate(rules.automatic_from[stage], LeadFacts(profile, activities, stage, at, made))
    return made.fit, made.engagement, made.grade, gate.key if gate else None


def _leads(now: datetime) -> list[Known]:
    rng = random.Random(7)
    leads = []
    for n in range(LEADS):
        by_kind: dict[str, list[int]] = {}
        for _ in range(rng.randint(0, ACTIVITIES_MAX)):
            moment = microseconds(now - timedelta(minutes=rng.randrange(43_200)))
            by_kind.setdefault(rng.choice(_KINDS), []).append(moment)
        leads.append((captured(now - timedelta(days=30), n).state, Activities(by_kind)))
    return leads


def _count(lead: Known) -> int:
    return sum(map(len, lead[1].by_kind.values()))


def _per_cpu_s(act: Callable[[Known], object], leads: list[Known]) -> float:
    """Leads in a second of processor time, so that what else the machine does hardly counts."""
    done, began, until = 0, time.process_time(), time.monotonic() + ROUND_S
    while time.monotonic() < until:
        for lead in leads[done % LEADS : done % LEADS + 500]:
            act(lead)
        done += 500
    return done / (time.process_time() - began)


def _same(ours: tuple[object, ...], twin: tuple[object, ...]) -> None:
    if ours != twin:
        raise RuntimeError(f"the twin comes to {twin}, and the service to {ours}")


# --- The twin: what one writes first, the document as it is read, walked for each lead ---


def _read(lead: Known, content: Mapping[str, Any], at: datetime) -> tuple[float, float, str | None, str | None]:
    profile, activities = lead
    values: dict[str, Any] = {f"attributes.{name}": value for name, value in profile.attributes.items()}
    values |= {"source": profile.source, "campaign.name": profile.campaign.name if profile.campaign else None}
    made = content["scores"]
    fit = sum(rule["points"] for rule in made["fit"]["rules"] if _holds(rule["when"], values))
    engagement = 0.0
    moment = microseconds(at)
    for rule in made["engagement"]["rules"]:
        half_life_s = timedelta(days=int(rule["half_life"][1:-1])).total_seconds()
        ages_s = [(moment - then) / 1e6 for then in activities.moments_of(rule["activity"])]
        engagement += min(rule["max"], rule["points"] * sum(2.0 ** (-age_s / half_life_s) for age_s in ages_s))
    values["scores.fit"] = fit = round(min(made["fit"]["max"], fit), 2)
    values["scores.engagement"] = engagement = round(min(made["engagement"]["max"], engagement), 2)
    grade = _mark(made["grade"]["fit"], fit, "D") + _mark(made["grade"]["engagement"], engagement, "4")
    values["grade"] = grade
    first = content["stages"][0]["key"]
    gates = [stage for stage in content["stages"] if "when" in stage["gate"] and first in stage["from"]]
    gate = next((stage["key"] for stage in gates if _holds(stage["gate"]["when"], values)), None)
    return float(fit), engagement, grade, gate


def _mark(least: Mapping[str, float], score: float, otherwise: str) -> str:
    return next((mark for mark, from_ in sorted(least.items(), key=lambda one: -one[1]) if score >= from_), otherwise)


def _holds(tree: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    if "all" in tree:
        return all(_holds(child, values) for child in tree["all"])
    if "any" in tree:
        return any(_holds(child, values) for child in tree["any"])
    actual, op, expected = values.get(tree["path"]), tree["op"], tree["value"]
    if op == "exists":
        return (actual is not None) is expected
    if actual is None:
        return False
    if op == "in":
        return actual in expected
    return bool(actual >= expected if op == "gte" else actual < expected if op == "lt" else actual == expected)
