"""Whether criteria can hold for any lead at all, as far as that can be told from their text. Errs on the side of yes.

Comparisons of one path that must all hold are looked at together: as a set of candidates where the values are few or listed,
else as an interval of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor, inf, isfinite
from typing import TypeVar

from msgspec import Struct

from accord.terms.criteria import Criteria, Scalar, describe_criteria
from accord.terms.durations import parse_duration


class Domain(Struct, frozen=True, gc=False):
    """What values a path can have: one of `among`, or a number from `least` to `most`. The default knows nothing."""

    among: frozenset[str] | None = None
    least: float = -inf
    most: float = inf
    whole: bool = False
    """Only whole numbers."""


ANYTHING = Domain()

_Ordered = TypeVar("_Ordered", float, str)


def why_never(criteria: Criteria, domains: Mapping[str, Domain]) -> str | None:
    """Why these criteria can never hold, in words; None if they may."""
    if len(criteria.any) > 1:
        reasons = [why_never(child, domains) for child in criteria.any]
        return None if any(reason is None for reason in reasons) else reasons[0]
    if criteria.none:
        return None
    parts = list(conjuncts(criteria))
    for part in parts:
        if part.any and (reason := why_never(part, domains)):
            return reason
    reason = _why_not_together(parts, domains)
    if reason is not None:
        return reason
    return _why_no_branch(parts, domains)


def _why_not_together(parts: Iterable[Criteria], domains: Mapping[str, Domain]) -> str | None:
    """Why these can never all hold; what stands under `any` is not looked at."""
    required: dict[tuple[str, str | None], list[Criteria]] = {}
    excluded: dict[tuple[str, str | None], list[Criteria]] = {}
    for part in parts:
        if part.path:
            required.setdefault((part.path, part.within), []).append(part)
        for child in part.none:
            if child.path:
                excluded.setdefault((child.path, child.within), []).append(child)
    for key, leaves in required.items():
        against = [leaf for leaf in excluded.get(key, []) if _settles(leaves, leaf)]
        opposites = [opposite for leaf in against if (opposite := _opposite(leaf)) is not None]
        if not _possible([*leaves, *opposites], domains.get(key[0], ANYTHING)):
            words = [
                *(describe_criteria(leaf) for leaf in leaves),
                *(f"not that {describe_criteria(leaf)}" for leaf in against),
            ]
            return "it can never hold that " + " and ".join(words)
    return None


def _why_no_branch(parts: Sequence[Criteria], domains: Mapping[str, Domain]) -> str | None:
    """Why every branch of some `any` contradicts what must hold beside it."""
    for part in parts:
        reasons = [_why_not_together([*parts, *conjuncts(branch)], domains) for branch in part.any if len(parts) > 1]
        if reasons and all(reasons):
            return reasons[0]
    return None


def implies(parts: Sequence[Criteria], leaf: Criteria) -> bool:
    """Whether a comparison holds whenever these all do, as far as those of the same path tell."""
    opposite = _opposite(leaf)
    same = [part for part in parts if part.path == leaf.path and part.within == leaf.within]
    if opposite is None or not _settles(same, leaf):
        return False
    return not _possible([*same, opposite], ANYTHING)


_PINNING = frozenset({"eq", "in", "lt", "lte", "gt", "gte"})


def _settles(leaves: Sequence[Criteria], leaf: Criteria) -> bool:
    """Whether a value of which all these hold is there and of the type of `leaf`, so that either that holds or its opposite.

    A value that is missing, or of another type, passes neither.
    """
    pinned = [other for other in leaves if other.op in _PINNING]
    types = {type_ for other in (*pinned, leaf) if other.op != "exists" for type_ in _types(other)}
    return bool(pinned) and len(types) == 1


def _types(leaf: Criteria) -> set[type]:
    values = leaf.value if isinstance(leaf.value, list) else [leaf.value]
    return {float if isinstance(value, int) and not isinstance(value, bool) else type(value) for value in values}


_OPPOSITES = {
    "eq": "ne", "ne": "eq", "lt": "gte", "gte": "lt", "gt": "lte", "lte": "gt", "in": "not_in", "not_in": "in"
}  # fmt: skip


def _opposite(leaf: Criteria) -> Criteria | None:
    """What holds of a value that is there if the comparison does not; None if no one comparison says it."""
    if leaf.op == "exists":
        return leaf.model_copy(update={"value": not leaf.expected})
    op = _OPPOSITES.get(leaf.op)
    return None if op is None else leaf.model_copy(update={"op": op})


def conjuncts(criteria: Criteria) -> Iterable[Criteria]:
    """What must all hold."""
    if len(criteria.any) == 1:
        yield from conjuncts(criteria.any[0])
        return
    if not criteria.all:
        yield criteria
    for child in criteria.all:
        yield from conjuncts(child)


def _possible(leaves: Sequence[Criteria], domain: Domain) -> bool:
    exists = {bool(leaf.expected) for leaf in leaves if leaf.op == "exists"}
    compared = [leaf for leaf in leaves if leaf.op != "exists"]
    if False in exists:
        return True not in exists and not compared
    candidates = _candidates(compared, domain)
    if candidates is not None:
        return any(all(_admits(leaf, value) for leaf in compared) for value in candidates)
    return _interval_left(compared, domain)


def _candidates(leaves: Iterable[Criteria], domain: Domain) -> frozenset[Scalar] | None:
    """The few values that there can be; None if they are many."""
    candidates: frozenset[Scalar] | None = domain.among
    for leaf in leaves:
        listed = leaf.value if isinstance(leaf.value, list) else [leaf.value]
        if leaf.op in ("eq", "in") and leaf.path != "age":
            found = frozenset(value for value in listed if value is not None and _inside(value, domain))
            candidates = found if candidates is None else candidates & found
    return candidates


def _inside(value: Scalar, domain: Domain) -> bool:
    if isinstance(value, str | bool):
        return True
    return domain.least <= value <= domain.most and (not domain.whole or value == int(value))


def _admits(leaf: Criteria, value: Scalar) -> bool:
    """Whether a value passes one comparison; patterns are taken to pass."""
    expected = leaf.value
    if isinstance(expected, list):
        return (value in expected) is (leaf.op == "in")
    if leaf.op in ("eq", "ne"):
        return (value == expected) is (leaf.op == "eq")
    if leaf.op not in ("lt", "lte", "gt", "gte"):
        return True
    if isinstance(value, str) and isinstance(expected, str):
        return _in_order(leaf.op, value, expected)
    if isinstance(value, bool | str) or isinstance(expected, bool | str | None):
        return False
    return _in_order(leaf.op, float(value), float(expected))


def _in_order(op: str, value: _Ordered, bound: _Ordered) -> bool:
    if value == bound:
        return op in ("lte", "gte")
    return (value < bound) is (op in ("lt", "lte"))


def _interval_left(leaves: Sequence[Criteria], domain: Domain) -> bool:
    least, most = domain.least, domain.most
    open_least = open_most = False
    for leaf in leaves:
        bound = _number(leaf)
        if bound is None:
            continue
        if leaf.op in ("gt", "gte") and (bound, leaf.op == "gt") > (least, open_least):
            least, open_least = bound, leaf.op == "gt"
        if leaf.op in ("lt", "lte") and (-bound, leaf.op == "lt") > (-most, open_most):
            most, open_most = bound, leaf.op == "lt"
    if domain.whole:
        least, open_least = (
            (floor(least) + 1 if open_least else ceil(least), False) if isfinite(least) else (least, False)
        )
        most, open_most = (ceil(most) - 1 if open_most else floor(most), False) if isfinite(most) else (most, False)
    if least != most:
        return least < most
    # One number is left; it may be excluded by name.
    return not open_least and not open_most and not any(_excludes(leaf, least) for leaf in leaves)


def _excludes(leaf: Criteria, number: float) -> bool:
    listed = leaf.value if isinstance(leaf.value, list) else [leaf.value]
    return leaf.op in ("ne", "not_in") and any(_as_number(leaf.path, value) == number for value in listed)


def _number(leaf: Criteria) -> float | None:
    return None if isinstance(leaf.value, list) else _as_number(leaf.path, leaf.value)


def _as_number(path: str | None, value: Scalar | None) -> float | None:
    if path == "age" and isinstance(value, str):
        return parse_duration(value).total_seconds()
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
