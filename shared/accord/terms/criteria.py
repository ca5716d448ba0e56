"""The one language in which agreements ask something of a lead: `all`, `any`, `none` over comparisons.

It never fetches a fact itself and never fails on one: a fact that is missing, or of another type than the comparison
asks for, makes the comparison false. That holds for `ne` and `not_in` too ("country is not US" does not hold for a lead
of unknown country), and `none` then holds, since nothing in it does. The one question that a missing fact answers with
yes is `exists` with the value false.

Types: numbers compare with numbers, text with text (by code point), a boolean only by `eq`, `ne`, `in` and `not_in`, a
duration (`age`) only with a duration. `contains` asks whether a list has the text, or a text has it inside.
`matches` is a regular expression of RE2, found anywhere in the text unless anchored by ^ and $: without look-around and
back-references, in time linear in the text, so that no pattern can stall a service (see patterns.py).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Container, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Protocol, cast, get_args

from msgspec import Struct
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from accord.terms.durations import describe_duration, format_duration, parse_duration
from accord.terms.patterns import PATTERN_LENGTH_MAX, SKIP_PATTERN_CHECKS, InvalidPattern, check_pattern, make_matcher

DEPTH_MAX = 16
"""Levels of a tree; a single comparison is one."""

LEAVES_MAX = 256
LIST_LENGTH_MAX = 256
NUMBER_MAX = 2**53 - 1
"""Whole numbers above it are not the same in every JSON reader."""

TEXT_LENGTH_MAX = 500
Op = Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "contains", "exists", "matches"]
Scalar = bool | int | float | str

_ORDER = frozenset({"lt", "lte", "gt", "gte"})
_LISTS = frozenset({"in", "not_in"})


class _Missing:
    """There is exactly one of these: MISSING."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()
"""What Facts answer where there is no value. None means the same."""


class Facts(Protocol):
    """What is known of one lead at one moment."""

    @property
    def attributes(self) -> Mapping[str, object]:
        """What `value` answers for `attributes.NAME`, by name; one that is not there is missing. Read in place, since criteria ask for
        attributes more than for anything else."""

    def value(self, path: str, within: timedelta | None) -> object:
        """The value at a path: a plain bool, int, float, Decimal, str, list of str or timedelta; else MISSING.

        `within` is given for `activities.KIND.count` only: count no activity older than this. Counts are never missing.
        """


# --- Paths ---

_Type = Literal["number", "text", "boolean", "duration", "any"]

_NAMED = re.compile(r"(?P<root>attributes|account)\.(?P<name>[A-Za-z][A-Za-z0-9_-]{0,99})", re.ASCII)
_COUNT = re.compile(r"activities\.(?P<kind>(?=.{1,100}\.count)[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+)\.count", re.ASCII)
_GRADE = re.compile(r"[A-D][1-4]", re.ASCII)

_FIXED: dict[str, tuple[_Type, str]] = {
    "scores.fit": ("number", "fit score"),
    "scores.engagement": ("number", "engagement score"),
    "grade": ("text", "grade"),
    "source": ("text", "source"),
    "campaign.name": ("text", "campaign"),
    "stage": ("text", "stage"),
    "age": ("duration", "age of the lead"),
}

PATH_NAMES = ", ".join(("attributes.NAME", "account.NAME", "activities.KIND.count", *_FIXED))


def activity_kind(path: str) -> str | None:
    """KIND of the path `activities.KIND.count`, else None."""
    found = _COUNT.fullmatch(path)
    return found["kind"] if found else None


def _type_at(path: str) -> _Type | None:
    """The type of the values at a path; None if there is no such path."""
    if path in _FIXED:
        return _FIXED[path][0]
    if _COUNT.fullmatch(path):
        return "number"
    return "any" if _NAMED.fullmatch(path) else None


def _type_of(value: object) -> _Type | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


# --- The model ---


def _describe(schema: dict[str, Any]) -> None:
    """Say in JSON Schema what the fields alone do not: one kind at a time, and that nothing has a default."""
    for field in schema.get("properties", {}).values():
        field.pop("default", None)
    schema["oneOf"] = [
        {"required": ["all"]},
        {"required": ["any"]},
        {"required": ["none"]},
        {"required": ["path", "op"]},
    ]
    schema["examples"] = [
        {
            "all": [
                {"path": "attributes.employee_count", "op": "gte", "value": 50},
                {"path": "activities.email.clicked.count", "op": "gte", "value": 3, "within": "P30D"},
            ]
        }
    ]


class Criteria(BaseModel):
    """A tree: exactly one of `all`, `any`, `none` (a list of criteria) or a comparison `{path, op, value, within?}`.

    It is written back exactly as it was read. Errors point at the place: `all`, 1, `value`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, json_schema_extra=_describe)

    all: _Group = Field(default_factory=list)
    """All of these hold."""
    any: _Group = Field(default_factory=list)
    """At least one of these holds."""
    none: _Group = Field(default_factory=list)
    """None of these holds."""
    path: Annotated[str, Field(min_length=1, max_length=200)] = ""
    op: Op = "exists"
    value: Scalar | list[Scalar] | None = None
    within: str | None = None
    """Count no activity older than this; only with `activities.KIND.count`."""

    @property
    def children(self) -> list[Criteria]:
        """The criteria of a group; none of a comparison."""
        return self.all or self.any or self.none

    @property
    def leaves(self) -> Iterator[Criteria]:
        """The comparisons, in the order in which they are written."""
        if self.path:
            yield self
        for child in self.children:
            yield from child.leaves

    @property
    def expected(self) -> object:
        """What is compared with; true for an `exists` that was written without a value."""
        return True if self.op == "exists" and self.value is None else self.value

    @model_validator(mode="before")
    @classmethod
    def _check_size(cls, raw: object) -> object:
        # Before anything is read: aliases in YAML can make a small text a huge tree.
        _check_bounds(raw)
        return raw

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if _type_at(path) is None:
            raise _error(f"is no path; the paths are {PATH_NAMES}")
        return path

    @field_validator("value", mode="plain", json_schema_input_type=Scalar | list[Scalar])
    @classmethod
    def _check_value_fits(cls, value: object, info: ValidationInfo) -> object:
        path, op = info.data.get("path"), info.data.get("op")
        if path and op:
            _check_value(value, cast("Op", op), _type_at(path) or "any", path)
            if op == "matches" and info.context is not SKIP_PATTERN_CHECKS:
                _check_pattern(cast("str", value))
        return value

    @field_validator("within", mode="plain", json_schema_input_type=str)
    @classmethod
    def _check_window(cls, value: object, info: ValidationInfo) -> object:
        if _duration(value) <= timedelta():
            raise _error("must be longer than nothing")
        if activity_kind(str(info.data.get("path", ""))) is None:
            raise _error("goes only with activities.KIND.count")
        return value

    @model_validator(mode="after")
    def _check_one_kind(self) -> Criteria:
        given = self.model_fields_set
        kinds = given & {"all", "any", "none", "path"}
        if len(kinds) != 1:
            raise _error("must be exactly one of all, any, none, or a comparison of path, op and value")
        if "path" not in kinds:
            for name in ("op", "value", "within"):
                if name in given:
                    raise _error_at(name, _error("goes only with a path"))
        elif "op" not in given:
            raise _error_at("op", _error("is missing"))
        elif "value" not in given and self.op != "exists":
            raise _error_at("value", _error("is missing"))
        return self

    @model_serializer(mode="wrap")
    def _serialize_as_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        written: dict[str, object] = write(self)
        return {name: value for name, value in written.items() if name in self.model_fields_set}


_Group = Annotated[list[Criteria], Field(min_length=1, max_length=LEAVES_MAX)]


def _check_bounds(raw: object) -> None:
    leaves = nodes = 0
    waiting: list[tuple[object, int]] = [(raw, 1)]
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        children = _children_of(node)
        leaves += not children
        if depth > DEPTH_MAX:
            raise _error(f"is nested deeper than {DEPTH_MAX} levels")
        if leaves > LEAVES_MAX or nodes + len(children) > LEAVES_MAX * DEPTH_MAX:
            raise _error(f"has more than {LEAVES_MAX} comparisons")
        waiting.extend((child, depth + 1) for child in children)


def _children_of(node: object) -> list[object]:
    if isinstance(node, Criteria):
        return list(node.children)
    if not isinstance(node, Mapping):
        return []
    groups = [node[name] for name in ("all", "any", "none") if name in node]
    return [child for group in groups if isinstance(group, list) for child in group[: LEAVES_MAX + 1]]


def _error(message: str) -> PydanticCustomError:
    return PydanticCustomError("criteria", "{message}", {"message": message})


def _error_at(place: str | int, problem: PydanticCustomError) -> ValidationError:
    """The problem, at a place below the one that is being validated."""
    return ValidationError.from_exception_data("Criteria", [InitErrorDetails(type=problem, loc=(place,), input=None)])


def _duration(value: object) -> timedelta:
    try:
        return parse_duration(value if isinstance(value, str) else "")
    except ValueError as error:
        raise _error(str(error)) from None


def _check_value(value: object, op: Op, type_: _Type, path: str) -> None:
    """Raise, at its place, if the value does not fit the op or the type of the path."""
    if op == "exists":
        if not isinstance(value, bool):
            raise _error("must be true or false")
    elif op in _LISTS:
        _check_list(value, type_, path)
    elif op == "matches":
        if type_ not in ("text", "any") or not isinstance(value, str) or not 0 < len(value) <= PATTERN_LENGTH_MAX:
            raise _error(f"must be a regular expression of 1 to {PATTERN_LENGTH_MAX} characters, for a text")
    elif op == "contains":
        if type_ not in ("text", "any") or not isinstance(value, str) or not value:
            raise _error("contains asks a text or a list for a text that is not empty")
        _check_scalar(value, "text", path)
    else:
        _check_scalar(value, type_, path)
        if op in _ORDER and isinstance(value, bool):
            raise _error("true and false have no order: use eq or ne")


def _check_scalar(value: object, type_: _Type, path: str) -> None:
    if type_ == "duration":
        _duration(value)
        return
    found = _type_of(value)
    if found is None:
        raise _error("must be a number, a text, true or false (write a date in quotes)")
    if type_ not in ("any", found):
        raise _error(f"{path} is a {type_}, so this must be one")
    if found == "number" and not -NUMBER_MAX <= cast("float", value) <= NUMBER_MAX:
        raise _error(f"must be a number from {-NUMBER_MAX} to {NUMBER_MAX}")
    if isinstance(value, str) and len(value) > TEXT_LENGTH_MAX:
        raise _error(f"must be at most {TEXT_LENGTH_MAX} characters long")
    if path == "grade" and not _GRADE.fullmatch(str(value)):
        raise _error("must be a grade, A1 to D4")


def _check_list(value: object, type_: _Type, path: str) -> None:
    if type_ == "duration":
        raise _error("a duration is compared by lt, lte, gt or gte")
    if not isinstance(value, list) or not value:
        raise _error("must be a list that is not empty")
    if len(value) > LIST_LENGTH_MAX:
        raise _error(f"must have at most {LIST_LENGTH_MAX} members")
    for place, member in enumerate(value):
        try:
            _check_scalar(member, type_, path)
            if _type_of(member) != _type_of(value[0]):
                raise _error("must be of one type with the first")
        except PydanticCustomError as problem:
            raise _error_at(place, problem) from None


def _check_pattern(pattern: str) -> None:
    try:
        check_pattern(pattern)
    except InvalidPattern as error:
        raise _error(str(error)) from None


# --- Evaluation ---

_Node = Callable[[Facts], bool]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
# Exact types: a bool is an int to isinstance, and a lookup of the class is faster.
_CLASSES: dict[str, frozenset[type]] = {
    "number": frozenset({int, float, Decimal}),
    "text": frozenset({str}),
    "boolean": frozenset({bool}),
    "duration": frozenset({timedelta}),
}
_CONTAINERS: frozenset[type] = frozenset({str, list, tuple, set, frozenset})


class Leaf(Struct, frozen=True, gc=False):
    """One comparison as it came out. Values are fit for JSON: a duration is ISO 8601 text, a missing value None.

    `at` is where it stands in the criteria, a JSON Pointer such as `/all/0/none/1`; empty if it is all of them.
    """

    path: str
    op: Op
    expected: object
    actual: object
    held: bool
    within: str | None = None
    at: str = ""


class Question(Struct, frozen=True, gc=False):
    """One comparison, compiled. `window` is the duration of `within`, `at` its place in the criteria as a JSON Pointer."""

    path: str
    op: Op
    expected: object
    within: str | None
    window: timedelta | None
    at: str
    holds: _Node


class Compiled:
    """Criteria made fast. Safe to share between threads; of facts it holds only the text that a pattern saw last."""

    __slots__ = ("_questions", "holds", "paths")

    holds: Callable[[Facts], bool]
    """Whether the criteria hold for these facts. Stops at the first comparison that decides."""
    paths: frozenset[str]
    """Every path that is asked for."""

    def __init__(self, criteria: Criteria) -> None:
        self._questions: list[Question] = []
        self.holds = self._compile_node(criteria, "")
        self.paths = frozenset(question.path for question in self._questions)

    @property
    def questions(self) -> tuple[Question, ...]:
        """Every comparison, in the order in which they are written."""
        return tuple(self._questions)

    def explain(self, facts: Facts) -> list[Leaf]:
        """Every comparison with its actual value, in the order in which they are written."""
        return [_evaluate_leaf(question, facts) for question in self._questions]

    def _compile_node(self, criteria: Criteria, at: str) -> _Node:
        if criteria.path:
            question = _compile_leaf(criteria, at)
            self._questions.append(question)
            return question.holds
        group = "all" if criteria.all else "any" if criteria.any else "none"
        nodes = tuple(
            self._compile_node(child, f"{at}/{group}/{place}") for place, child in enumerate(criteria.children)
        )
        if criteria.all:
            return _make_all_node(nodes)
        return _make_any_node(nodes) if criteria.any else _make_none_node(nodes)


def compile_criteria(criteria: Criteria) -> Compiled:
    """Compile once per version; evaluate often."""
    return Compiled(criteria)


def _compile_leaf(leaf: Criteria, at: str) -> Question:
    window = parse_duration(leaf.within) if leaf.within else None
    return Question(leaf.path, leaf.op, leaf.expected, leaf.within, window, at, _make_leaf_node(leaf, window))


def _evaluate_leaf(question: Question, facts: Facts) -> Leaf:
    actual = facts.value(question.path, question.window)
    held = question.holds(facts)
    return Leaf(question.path, question.op, question.expected, _to_json(actual), held, question.within, question.at)


def _to_json(actual: object) -> object:
    if isinstance(actual, timedelta):
        # An age is negative where something happened before the lead was captured.
        return f"-{format_duration(-actual)}" if actual < timedelta() else format_duration(actual)
    return None if actual is MISSING else actual


def _make_all_node(nodes: tuple[_Node, ...]) -> _Node:
    def holds(facts: Facts) -> bool:
        for node in nodes:  # noqa: SIM110 - a loop is twice as fast as all() over a generator
            if not node(facts):
                return False
        return True

    return holds


def _make_any_node(nodes: tuple[_Node, ...]) -> _Node:
    def holds(facts: Facts) -> bool:
        for node in nodes:  # noqa: SIM110 - as above
            if node(facts):
                return True
        return False

    return holds


def _make_none_node(nodes: tuple[_Node, ...]) -> _Node:
    def holds(facts: Facts) -> bool:
        for node in nodes:  # noqa: SIM110 - as above
            if node(facts):
                return False
        return True

    return holds


def _make_leaf_node(leaf: Criteria, window: timedelta | None) -> _Node:
    expected, path = leaf.expected, leaf.path
    if leaf.op == "exists":
        return _make_exists_node(path, wanted=bool(expected))
    if leaf.op == "matches":
        return _make_match_node(path, make_matcher(cast("str", expected)))
    if leaf.op == "contains":
        return _make_contains_node(path, cast("str", expected))
    if isinstance(expected, list):
        return _make_membership_node(path, window, expected, wanted=leaf.op == "in")
    type_: _Type = "duration" if _type_at(path) == "duration" else _type_of(expected) or "any"
    operand = parse_duration(cast("str", expected)) if type_ == "duration" else expected
    return _make_comparison_node(path, window, _CLASSES[type_], _COMPARE[leaf.op], operand)


def _make_exists_node(path: str, *, wanted: bool) -> _Node:
    def holds(facts: Facts) -> bool:
        actual = facts.value(path, None)
        return (actual is not MISSING and actual is not None) is wanted

    return holds


def _make_match_node(path: str, test: Callable[[object], bool]) -> _Node:
    # A lead's text is asked about at each of its events, and is mostly the same object then.
    last: tuple[object, bool] = (MISSING, False)

    def holds(facts: Facts) -> bool:
        nonlocal last
        value = facts.value(path, None)
        text, held = last
        if value is not text:
            held = test(value)
            last = value, held
        return held

    return holds


def _make_contains_node(path: str, part: str) -> _Node:
    def holds(facts: Facts) -> bool:
        actual = facts.value(path, None)
        return actual.__class__ in _CONTAINERS and part in cast("Container[str]", actual)

    return holds


def _make_membership_node(path: str, window: timedelta | None, members: list[Scalar], *, wanted: bool) -> _Node:
    classes, known = _CLASSES[_type_of(members[0]) or "any"], frozenset(members)
    attribute = _attribute_name(path)

    def holds_of_attribute(facts: Facts) -> bool:
        actual = facts.attributes.get(attribute)
        return actual.__class__ in classes and (actual in known) is wanted

    def holds(facts: Facts) -> bool:
        actual = facts.value(path, window)
        return actual.__class__ in classes and (actual in known) is wanted

    return holds_of_attribute if attribute else holds


def _make_comparison_node(
    path: str,
    window: timedelta | None,
    classes: frozenset[type],
    compare: Callable[[Any, Any], bool],
    expected: object,
) -> _Node:
    attribute = _attribute_name(path)

    def holds_of_attribute(facts: Facts) -> bool:
        actual = facts.attributes.get(attribute)
        return actual.__class__ in classes and compare(actual, expected)

    def holds(facts: Facts) -> bool:
        actual = facts.value(path, window)
        return actual.__class__ in classes and compare(actual, expected)

    return holds_of_attribute if attribute else holds


def _attribute_name(path: str) -> str:
    """The attribute's name, empty for any other path."""
    root, _, name = path.partition(".")
    return name if root == "attributes" else ""


# --- Words ---

_PHRASES: dict[str, str] = {
    "eq": "is {}",
    "ne": "is not {}",
    "lt": "is less than {}",
    "lte": "is {} or less",
    "gt": "is more than {}",
    "gte": "is {} or more",
    "in": "is {}",
    "not_in": "is none of {}",
    "contains": "contains {}",
    "matches": "matches the pattern {}",
}
_TEXT_ORDER = {
    "lt": "comes before {}",
    "lte": "is {} or comes before it",
    "gt": "comes after {}",
    "gte": "is {} or comes after it",
}


def describe_criteria(criteria: Criteria) -> str:
    """The criteria as a phrase, for paper: `employee count is 50 or more and engagement score is 20 or more`."""
    if criteria.path:
        return _describe_leaf(criteria)
    if criteria.none:
        return "none of these holds: " + "; ".join(describe_criteria(child) for child in criteria.none)
    parts = [
        describe_criteria(child) if child.path or len(criteria.children) == 1 else f"({describe_criteria(child)})"
        for child in criteria.children
    ]
    return (" and " if criteria.all else " or ").join(parts)


def describe_path(path: str, within: str | None = None) -> str:
    """What a path asks for, as a phrase: `employee count`, `number of email.clicked in the last 30 days`."""
    if path in _FIXED:
        return _FIXED[path][1]
    kind = activity_kind(path)
    if kind is not None:
        return f"number of {kind}" + (f" in the last {describe_duration(parse_duration(within))}" if within else "")
    root, _, name = path.partition(".")
    words = name.replace("_", " ").replace("-", " ")
    return words if root == "attributes" else f"the account's {words}"


def _describe_leaf(leaf: Criteria) -> str:
    subject = describe_path(leaf.path, leaf.within)
    expected = leaf.expected
    if leaf.op == "exists":
        return f"{subject} is {'known' if expected else 'not known'}"
    if isinstance(expected, list):
        members = _join_or([_describe_value(leaf, member) for member in expected])
        return f"{subject} {_PHRASES[leaf.op].format(members)}"
    ordered_text = leaf.op in _ORDER and isinstance(expected, str) and leaf.path != "age"
    return f"{subject} {(_TEXT_ORDER if ordered_text else _PHRASES)[leaf.op].format(_describe_value(leaf, expected))}"


def _describe_value(leaf: Criteria, value: object) -> str:
    if leaf.path == "age":
        return describe_duration(parse_duration(str(value)))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"“{value}”" if leaf.op in ("contains", "matches") else str(value)


def _join_or(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " or " + parts[-1]


OPS: Final[tuple[Op, ...]] = get_args(Op)
