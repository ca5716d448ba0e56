"""The definition in plain words, as it is read on paper before it is signed. It adds no rule and leaves none out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from accord.terms.criteria import Criteria, describe_criteria, describe_path
from accord.terms.durations import describe_duration
from accord.terms.paper import Section
from qualification.definition.domain.definition import Definition, EngagementScoreRule, Stage

_SHORT_FOR = frozenset({"iql", "mcl", "mql", "pql", "sal", "sel", "sgl", "sql", "tal", "tql"})
"""Stages that the field knows by their initials."""

_KIND_WORDS = {
    "won": "The sale is made.",
    "lost": "The sale is lost.",
    "recycled": "The lead goes back to be nurtured.",
    "disqualified": "The lead is outside what was agreed.",
}


def describe_definition(definition: Definition) -> list[Section]:
    """The whole definition in words."""
    parts = [Section("How a lead goes on", [_stage(definition, stage) for stage in definition.stages])]
    if definition.moves:
        moves = [(stage_in_words(old), stage_in_words(new)) for old, new in definition.moves.items()]
        parts.append(
            Section("Stages of before that are no longer there", columns=("Stage", "Its leads go on as"), rows=moves)
        )
    if definition.reasons:
        rows = [(name, key, words) for name, reasons in definition.reasons.items() for key, words in reasons.items()]
        parts.append(Section("Reasons that may be given", columns=("List", "Reason", "Meaning"), rows=rows))
    parts.extend(_scores(definition))
    if definition.attributes:
        known = [(name, known.type, known.words or "") for name, known in definition.attributes.items()]
        parts.append(Section("Attributes that may be asked for", columns=("Attribute", "Type", "Called"), rows=known))
    if definition.currency:
        parts.append(Section("Amounts", [f"Every amount is in {definition.currency}."]))
    return parts


def stage_in_words(key: str) -> str:
    """A stage as the field writes it: MQL, opportunity."""
    return key.upper() if key in _SHORT_FOR else key.replace("-", " ").replace("_", " ")


def _stage(definition: Definition, stage: Stage) -> str:
    name = stage_in_words(stage.key)
    gate = stage.gate
    if gate.when is not None:
        how = f"A lead becomes {name} when {_when(gate.when, definition)}. {_origins(definition, stage)}"
    elif gate.decision is not None:
        how = f"A lead becomes {name} when it is decided to {_or(gate.decisions)}{_requirements(stage)}. {_origins(definition, stage)}"
    else:
        how = f"A lead becomes {name} when it is captured."
    owner = f"It belongs to {stage.owner} there."
    return " ".join(
        sentence for sentence in (how, owner, _KIND_WORDS.get(stage.kind, ""), _cool_down(stage)) if sentence
    )


def _when(criteria: Criteria, definition: Definition) -> str:
    """Criteria as a phrase whose parts can each stand in a sentence: `the company has 50 employees or more and the grade is A1`."""
    if criteria.path:
        return comparison_in_words(criteria, definition)
    parts = [_when(child, definition) for child in criteria.children]
    if criteria.none:
        return "none of these holds: " + "; ".join(parts)
    grouped = [
        part if child.path or len(parts) == 1 else f"({part})"
        for child, part in zip(criteria.children, parts, strict=True)
    ]
    return (" and " if criteria.all else " or ").join(grouped)


_EMPLOYEES = {
    "eq": "exactly {} employees",
    "lt": "fewer than {} employees",
    "lte": "{} employees or fewer",
    "gt": "more than {} employees",
    "gte": "{} employees or more",
}


def comparison_in_words(leaf: Criteria, definition: Definition) -> str:
    """One comparison as a phrase: `the company has 50 employees or more`."""
    own = describe_path(leaf.path, leaf.within)
    rest = describe_criteria(leaf).removeprefix(own)
    root, _, name = leaf.path.partition(".")
    known = (definition.attributes or {}).get(name) if root == "attributes" else None
    if known is not None and known.words is not None:
        return f"the {known.words}{rest}"
    if leaf.path == "attributes.employee_count" and leaf.op in _EMPLOYEES:
        return f"the company has {_EMPLOYEES[leaf.op].format(leaf.value)}"
    return own + rest if own.startswith("the ") else f"the {own}{rest}"


def _requirements(stage: Stage) -> str:
    requirements = []
    if stage.gate.fields:
        requirements.append(f"with {_and([field.replace('_', ' ') for field in stage.gate.fields])}")
    if stage.gate.reasons:
        requirements.append(f"giving one of the reasons of the list {stage.gate.reasons}")
    return f", {' and '.join(requirements)}" if requirements else ""


def _origins(definition: Definition, stage: Stage) -> str:
    if stage.from_ == "any" and stage.gate.when is None:
        return "It may come from any other stage."
    return f"It comes from {_or([stage_in_words(key) for key in definition.origins(stage)])}."


def _cool_down(stage: Stage) -> str:
    after = f"after {describe_duration(stage.cool_down)}" if stage.cool_down else ""
    if stage.kind == "recycled":
        return f"By itself it comes back only {f'{after}, ' if after else ''}on new activity of its own."
    return f"By itself it goes on only {after}." if after else ""


def _scores(definition: Definition) -> Iterator[Section]:
    fit, engagement, grade = definition.scores.fit, definition.scores.engagement, definition.scores.grade
    if fit:
        rows = [(rule.key, _when(rule.when, definition), f"{rule.points:g}") for rule in fit.rules]
        heading = f"Fit score, at most {fit.max:g}"
        yield Section(heading, columns=("Rule", "Holds when", "Points"), rows=rows)
    if engagement:
        lines = [_engagement(rule) for rule in engagement.rules]
        columns = ("Rule", "Activity", "Points each", "At most", "Halved every")
        yield Section(f"Engagement score, at most {engagement.max:g}", columns=columns, rows=lines)
    if grade:
        marks = [(mark, f"fit of {least:g} or more") for mark, least in grade.fit.best_first()]
        marks.append(("D", "less"))
        marks.extend((mark, f"engagement of {least:g} or more") for mark, least in grade.engagement.best_first())
        marks.append(("4", "less"))
        yield Section("Grade", columns=("Mark", "Means"), rows=marks)


def _engagement(rule: EngagementScoreRule) -> tuple[str, ...]:
    return (
        rule.key,
        rule.activity,
        f"{rule.points:g}",
        "" if rule.max is None else f"{rule.max:g}",
        describe_duration(rule.half_life) if rule.half_life else "never",
    )


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _or(words: Sequence[str]) -> str:
    named = [word.replace("_", " ") for word in words]
    return named[0] if len(named) == 1 else ", ".join(named[:-1]) + " or " + named[-1]
