"""What is wrong with a lead definition before anybody signs it: each finding points at the place. Empty means that it can be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf

from pydantic import ValidationError

from accord.terms.criteria import Criteria
from accord.terms.findings import Finding, find_shape_errors, pointer
from qualification.definition.domain.definition import (
    ACTIVITIES_PER_KIND_MAX,
    Definition,
    EngagementScore,
    FitScore,
    Stage,
)
from qualification.definition.domain.satisfiable import Domain, conjuncts, implies, why_never


def check_definition(content: Mapping[str, object]) -> list[Finding]:
    """Everything wrong with the content; shape first, since meaning can be asked only of what has a shape."""
    try:
        definition = Definition.model_validate(content)
    except ValidationError as error:
        return find_shape_errors(error, content)
    return [
        *_check_keys(definition),
        *_check_gates(definition),
        *_check_references(definition),
        *_check_moves(definition),
        *_check_decisions(definition),
        *_check_reachable(definition),
        *_check_grades(definition),
        *_check_criteria(definition),
        *_check_attributes(definition),
        *_check_overlaps(definition),
    ]


def _iter_stages(definition: Definition) -> Iterator[tuple[str, Stage]]:
    return ((pointer("stages", index), stage) for index, stage in enumerate(definition.stages))


def find_duplicates(values: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Of each value that stood earlier already its index, that of the first, and the value."""
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        if first.setdefault(value, index) != index:
            yield index, first[value], value


def _check_keys(definition: Definition) -> Iterator[Finding]:
    for index, _, key in find_duplicates([stage.key for stage in definition.stages]):
        yield Finding(pointer("stages", index, "key"), f"the stage {key} is there twice")
    for at, stage in _iter_stages(definition):
        lists: dict[str, Sequence[str]] = {
            "from": stage.from_ if isinstance(stage.from_, list) else [],
            "gate/fields": stage.gate.fields,
            "gate/decision": stage.gate.decisions,
        }
        for name, values in lists.items():
            for index, _, value in find_duplicates(values):
                yield Finding(f"{at}/{name}/{index}", f"{value} is there twice")
    for name, score in _iter_scores(definition):
        for index, _, key in find_duplicates([rule.key for rule in score.rules]):
            yield Finding(pointer("scores", name, "rules", index, "key"), f"the rule {key} is there twice")
    for name, reasons in definition.reasons.items():
        if not reasons:
            yield Finding(pointer("reasons", name), "lists no reason")


def _iter_scores(definition: Definition) -> Iterator[tuple[str, FitScore | EngagementScore]]:
    if definition.scores.fit:
        yield "fit", definition.scores.fit
    if definition.scores.engagement:
        yield "engagement", definition.scores.engagement


def _check_gates(definition: Definition) -> Iterator[Finding]:
    captures = [at for at, stage in _iter_stages(definition) if stage.gate.event]
    if not captures:
        yield Finding("/stages", "no stage has the gate {event: capture}, so no lead could ever enter")
    for at in captures[1:]:
        yield Finding(f"{at}/gate", "another stage is entered on capture already")
    for at, stage in _iter_stages(definition):
        yield from _check_gate(definition, at, stage)


def _check_gate(definition: Definition, at: str, stage: Stage) -> Iterator[Finding]:
    gate = stage.gate
    if sum((gate.event is not None, gate.when is not None, gate.decision is not None)) != 1:
        yield Finding(f"{at}/gate", "must be exactly one of event, when and decision")
        return
    if gate.decision is None:
        for name in ("fields", "reasons"):
            if name in gate.model_fields_set:
                yield Finding(f"{at}/gate/{name}", "goes only with a decision")
    if gate.event:
        yield from _check_entry(at, stage)
    elif stage.from_ is None:
        yield Finding(f"{at}/from", "is missing: from which stages, or any")
    if gate.when and stage.kind == "recycled":
        yield Finding(f"{at}/gate/when", "a lead goes back only by a decision, so a recycled stage needs one")
    elif gate.when and isinstance(stage.from_, list):
        yield from _check_origins(definition, at, stage, stage.from_)


def _check_entry(at: str, stage: Stage) -> Iterator[Finding]:
    if stage.kind != "open":
        yield Finding(f"{at}/kind", "the stage that leads enter on capture must be open")
    if stage.from_ is not None:
        yield Finding(f"{at}/from", "a stage that is entered on capture comes from nowhere")


def _check_origins(definition: Definition, at: str, stage: Stage, origins: Iterable[str]) -> Iterator[Finding]:
    known = {other.key: other for other in definition.stages}
    for index, key in enumerate(origins):
        origin = known.get(key)
        if origin is not None and origin is not stage and not definition.goes_forward(origin, stage):
            yield Finding(
                f"{at}/from/{index}",
                f"only a decision leads from {key} to {stage.key}: by itself a lead goes on from open stages of lower rank and "
                "from recycled ones",
            )


def _check_references(definition: Definition) -> Iterator[Finding]:
    keys = {stage.key for stage in definition.stages}
    for at, stage in _iter_stages(definition):
        for index, key in enumerate(stage.from_ if isinstance(stage.from_, list) else ()):
            if key not in keys:
                yield Finding(f"{at}/from/{index}", f"there is no stage {key}")
            elif key == stage.key:
                yield Finding(f"{at}/from/{index}", "a stage is not entered from itself")
        if stage.gate.reasons is not None and stage.gate.reasons not in definition.reasons:
            yield Finding(f"{at}/gate/reasons", f"there is no list of reasons {stage.gate.reasons}")


def _check_moves(definition: Definition) -> Iterator[Finding]:
    stages = {stage.key: stage for stage in definition.stages}
    for old, new in definition.moves.items():
        if old in stages:
            yield Finding(pointer("moves", old), f"{old} is a stage of this version, so no lead has to leave it")
        if new not in stages:
            yield Finding(pointer("moves", old), f"there is no stage {new}")
        elif stages[new].kind == "won":
            yield Finding(pointer("moves", old), "a lead is won only by a decision")


def _check_decisions(definition: Definition) -> Iterator[Finding]:
    """One decision in one stage leads to one place."""
    leads_to: dict[tuple[str, str], str] = {}
    for at, stage in _iter_stages(definition):
        for decision in stage.gate.decisions:
            for origin in definition.origins(stage):
                other = leads_to.setdefault((origin, decision), stage.key)
                if other != stage.key:
                    yield Finding(f"{at}/gate/decision", f"{decision} in {origin} leads to {other} already")


def _check_reachable(definition: Definition) -> Iterator[Finding]:
    if not any(stage.gate.event for stage in definition.stages):
        return
    reached = {stage.key for stage in definition.stages if stage.gate.event}
    grown = True
    while grown:
        more = {stage.key for stage in definition.stages if reached & set(definition.origins(stage))}
        grown = not more <= reached
        reached |= more
    for at, stage in _iter_stages(definition):
        if stage.key not in reached:
            yield Finding(at, f"no way leads from the capture to {stage.key}")


def _check_grades(definition: Definition) -> Iterator[Finding]:
    grade = definition.scores.grade
    if grade is None:
        return
    scored = dict(_iter_scores(definition))
    for name, thresholds in (("fit", grade.fit.best_first()), ("engagement", grade.engagement.best_first())):
        at = pointer("scores", "grade", name)
        score = scored.get(name)
        if score is None:
            yield Finding(at, f"there are no rules for {name}, of which a grade could be made")
            continue
        before = inf
        for mark, least in thresholds:
            if least >= before:
                yield Finding(f"{at}/{mark}", "must be less than the one before it")
            if least > score.max:
                yield Finding(f"{at}/{mark}", f"no lead can have more than {score.max:g}")
            before = least


def _check_criteria(definition: Definition) -> Iterator[Finding]:
    fit = definition.scores.fit
    domains = _domains(definition)
    for at, stage in _iter_stages(definition):
        if stage.gate.when:
            stages = Domain(among=frozenset(definition.origins(stage)))
            yield from _check_satisfiable(f"{at}/gate/when", stage.gate.when, {**domains, "stage": stages}, "the gate")
    for index, rule in enumerate(fit.rules if fit else ()):
        at = pointer("scores", "fit", "rules", index, "when")
        inadmissible = [spot for spot, leaf in iter_leaves(at, rule.when) if not _fit_path(leaf.path)]
        for spot in inadmissible:
            yield Finding(f"{spot}/path", "fit asks only for attributes, source and campaign.name")
        if not inadmissible:
            yield from _check_satisfiable(at, rule.when, domains, "the rule")


def _all_criteria(definition: Definition) -> Iterator[tuple[str, Criteria]]:
    """Everything that is asked of a lead, with its pointer."""
    for at, stage in _iter_stages(definition):
        if stage.gate.when:
            yield f"{at}/gate/when", stage.gate.when
    for index, rule in enumerate(definition.scores.fit.rules if definition.scores.fit else ()):
        yield pointer("scores", "fit", "rules", index, "when"), rule.when


_FITS: Mapping[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
    "text": (str,),
    "list": (str,),
}


def _check_attributes(definition: Definition) -> Iterator[Finding]:
    """What is asked of attributes that the definition does not list, or that have another type."""
    if definition.attributes is None:
        return
    for at, criteria in _all_criteria(definition):
        for spot, leaf in iter_leaves(at, criteria):
            root, _, name = leaf.path.partition(".")
            if root != "attributes":
                continue
            known = definition.attributes.get(name)
            if known is None:
                listed = ", ".join(sorted(definition.attributes)) or "none"
                yield Finding(f"{spot}/path", f"there is no attribute {name}; listed are {listed}")
            elif leaf.op != "exists" and not _fits(leaf, known.type):
                yield Finding(f"{spot}/value", f"{name} is of the type {known.type}")


def _fits(leaf: Criteria, type_: str) -> bool:
    values = leaf.value if isinstance(leaf.value, list) else [leaf.value]
    if type_ == "list" and leaf.op != "contains":
        return False
    return all(isinstance(value, _FITS[type_]) and isinstance(value, bool) is (type_ == "boolean") for value in values)


def _check_overlaps(definition: Definition) -> Iterator[Finding]:
    """Rules that say the same twice, and gates before which another always opens."""
    fit, engagement = definition.scores.fit, definition.scores.engagement
    for index, first, _ in find_duplicates([rule.when.model_dump_json() for rule in (fit.rules if fit else ())]):
        what = fit.rules[first].key if fit else ""
        yield Finding(
            pointer("scores", "fit", "rules", index, "when"),
            f"asks the same as the rule {what}; give one the points of both",
        )
    same = [f"{rule.activity} {rule.half_life}" for rule in (engagement.rules if engagement else ())]
    for index, first, _ in find_duplicates(same):
        what = engagement.rules[first].key if engagement else ""
        where = pointer("scores", "engagement", "rules", index, "activity")
        yield Finding(where, f"counts the same activities as the rule {what}; give one the points of both")
    yield from _check_shadowed_gates(definition)


def _check_shadowed_gates(definition: Definition) -> Iterator[Finding]:
    """Automatic gates that no lead ever passes, since from each of their stages an earlier one holds whenever they do."""
    automatic = [(at, stage) for at, stage in _iter_stages(definition) if stage.gate.when]
    for number, (at, stage) in enumerate(automatic):
        earlier = [other for _, other in automatic[:number] if _is_implied_by(other, stage)]
        origins = set(definition.origins(stage))
        taken = {origin: other for other in earlier for origin in definition.origins(other) if origin in origins}
        open_still = origins - taken.keys() or {key for key in (other.key for other in earlier) if key in origins}
        if origins and not open_still:
            names = " or ".join(sorted({other.key for other in taken.values()}))
            yield Finding(
                f"{at}/gate/when",
                f"whenever it holds, the lead has gone to {names} already, from where no way leads here",
            )


def _is_implied_by(one: Stage, other: Stage) -> bool:
    """Whether all that one gate asks is asked by the other too."""
    if one.gate.when is None or other.gate.when is None:
        return False
    parts = list(conjuncts(other.gate.when))
    asked = {part.model_dump_json() for part in parts}
    return all(part.model_dump_json() in asked or implies(parts, part) for part in conjuncts(one.gate.when))


def _fit_path(path: str) -> bool:
    return path.startswith(("attributes.", "account.")) or path in ("source", "campaign.name")


def _check_satisfiable(
    at: str, criteria: Criteria, domains: Mapping[str, Domain | str], what: str
) -> Iterator[Finding]:
    unknown = False
    for spot, leaf in iter_leaves(at, criteria):
        domain = domains.get("account" if leaf.path.startswith("account.") else leaf.path)
        if isinstance(domain, str):
            unknown = True
            yield Finding(f"{spot}/path", domain)
    if unknown:
        return
    counts = {
        leaf.path: Domain(least=0, most=ACTIVITIES_PER_KIND_MAX)
        for _, leaf in iter_leaves(at, criteria)
        if leaf.path.startswith("activities.")
    }
    known = {path: domain for path, domain in domains.items() if isinstance(domain, Domain)}
    reason = why_never(criteria, {**known, **counts})
    if reason:
        yield Finding(at, f"{what} can never hold: {reason}")


def iter_leaves(at: str, criteria: Criteria) -> Iterator[tuple[str, Criteria]]:
    """Every comparison with its pointer."""
    if criteria.path:
        yield at, criteria
    name = "all" if criteria.all else "any" if criteria.any else "none"
    for index, child in enumerate(criteria.children):
        yield from iter_leaves(f"{at}/{name}/{index}", child)


def _domains(definition: Definition) -> dict[str, Domain | str]:
    """What the paths of this definition can answer; a text says why a path answers nothing."""
    scores = definition.scores
    domains: dict[str, Domain | str] = {
        "age": Domain(least=0),
        "account": "what is known of accounts does not reach the definition; ask for an attribute",
        "scores.fit": "the definition has no rules for fit",
        "scores.engagement": "the definition has no rules for engagement",
        "grade": "the definition makes no grade",
    }
    if scores.fit:
        most = min(scores.fit.max, sum(max(0.0, rule.points) for rule in scores.fit.rules))
        domains["scores.fit"] = Domain(least=0, most=most)
    if scores.engagement:
        reachable = sum(_max_points(rule.points, rule.max) for rule in scores.engagement.rules)
        domains["scores.engagement"] = Domain(least=0, most=min(scores.engagement.max, reachable))
    if scores.grade:
        domains["grade"] = Domain(among=_possible_grades(definition, domains))
    for name, attribute in (definition.attributes or {}).items():
        if attribute.type == "integer":
            domains[f"attributes.{name}"] = Domain(whole=True)
    return domains


def _possible_grades(definition: Definition, domains: Mapping[str, Domain | str]) -> frozenset[str]:
    """The grades that a lead can have: a letter whose threshold no fit reaches is none of them."""
    grade = definition.scores.grade
    if grade is None:
        return frozenset()
    marks: list[list[str]] = []
    for path, thresholds, last in (
        ("scores.fit", grade.fit.best_first(), "D"),
        ("scores.engagement", grade.engagement.best_first(), "4"),
    ):
        domain = domains[path]
        most = domain.most if isinstance(domain, Domain) else inf
        marks.append([*(mark for mark, least in thresholds if least <= most), last])
    return frozenset(letter + digit for letter in marks[0] for digit in marks[1])


def _max_points(points: float, cap: float | None) -> float:
    return 0.0 if points <= 0 else (inf if cap is None else cap)
