"""Whether criteria can hold for any lead at all, as far as that can be told from their text. Errs on the side of yes.

Comparisons of one path that must all hold are looked at together: as a set of candidates where the values are few or listed,
else as an interval of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeVar

from accord.contracts.criteria import Criteria, Scalar, in_words
from accord.contracts.durations import parse_duration


@dataclass(frozen=True, slots=True)
class Domain:
    """What values a path can have: one of `among`, or a number from `least` to `most`. The default knows nothing."""

    among: frozenset[str] | None = None
    least: float = -inf
    most: float = inf


ANYTHING = Domain()

_Ordered = TypeVar("_Ordered", float, str)


def why_never(criteria: Criteria, domains: Mapping[str, Domain]) -> str | None:
    """Why these criteria can never hold, in words; None if they may."""
    if criteria.any:
        reasons = [why_never(child, domains) for child in criteria.any]
        return None if any(reason is None for reason in reasons) else reasons[0]
    if criteria.none:
        return None
    parts = list(conjuncts(criteria))
    for part in parts:
        if part.any and (reason := why_never(part, domains)):
            return reason
    asked: dict[tuple[str, str | None], list[Criteria]] = {}
    for part in parts:
        if part.path:
            asked.setdefault((part.path, part.within), []).append(part)
    for (path, _), leaves in asked.items():
        if not _possible(leaves, domains.get(path, ANYTHING)):
            return "it can never hold that " + " and ".join(in_words(leaf) for leaf in leaves)
    return None


def conjuncts(criteria: Criteria) -> Iterable[Criteria]:
    """What must all hold."""
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
    return isinstance(value, str | bool) or domain.least <= value <= domain.most


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
