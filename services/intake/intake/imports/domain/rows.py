"""What a row of an import means: which column fills which field, and the submission that comes of it, or why none does. Pure; what the
values are worth, the policy says.

A mapping is `{"columns": {COLUMN: TARGET}}`, or that object alone; targets are those of sources/domain/mapping.py and `source`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime, tzinfo
from itertools import zip_longest
from typing import Annotated, Any, NamedTuple

from pydantic import Field, JsonValue, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from accord.terms.findings import Finding, pointer
from intake.imports.domain.table import ERROR_COLUMN, OURS, Row, unguarded
from intake.leads.domain.submission import ATTRIBUTES_MAX, AttributeName, Submission
from intake.sources.domain.mapping import FieldMapping, Targets, apply, as_moment, assembled, read

SOURCE = "source"
ERRORS_SAID_MAX = 5
"""Places of one row that are told; the others show when these are corrected."""
IDENTITIES = ("email", "phone", "external_id")
ATTRIBUTE_CHARS_MAX = 1_000
_MILLISECONDS_FROM = 10**11
_WORDS = re.compile(r"[^a-z0-9]+")
_OWN_WORDS = {
    ("", "timestamp"): "Is no time: write 2027-01-04, 2027-01-04 09:30 or 2027-01-04T09:30:00-06:00",
    (SOURCE, "string_pattern_mismatch"): "Is no name of a source, which has no '@', ':' or '/' at its beginning",
    ("consent.basis", "string_pattern_mismatch"): "Is no basis, which is a word of small letters",
}
"""What is told of (target or any, kind of error) instead of the words of the validator."""

SYNONYMS: dict[str, str] = {
    **dict.fromkeys(("email", "e mail", "mail", "email address", "e mail address", "work email", "email 1"), "email"),
    **dict.fromkeys(
        (
            "phone",
            "telephone",
            "tel",
            "phone number",
            "telephone number",
            "mobile",
            "mobile phone",
            "mobile number",
            "cell",
        ),
        "phone",
    ),
    **dict.fromkeys(("external id", "externalid", "id", "lead id", "contact id", "record id", "mql id"), "external_id"),
    **dict.fromkeys(("first name", "firstname", "given name", "forename", "vorname"), "first_name"),
    **dict.fromkeys(("last name", "lastname", "surname", "family name", "nachname"), "last_name"),
    **dict.fromkeys(
        ("company", "company name", "organization", "organisation", "account name", "employer", "firma"), "company"
    ),
    **dict.fromkeys(("domain", "company domain", "website", "web site", "company website"), "domain"),
    **dict.fromkeys(("title", "job title", "jobtitle", "position", "job position"), "title"),
    **dict.fromkeys(
        (
            "occurred at",
            "created at",
            "created",
            "create date",
            "created date",
            "submitted at",
            "first contact date",
            "timestamp",
        ),
        "occurred_at",
    ),
    **dict.fromkeys(("source", "lead source"), SOURCE),
    **{f"utm {word}": f"campaign.{word}" for word in ("medium", "content", "term")},
    **dict.fromkeys(("utm campaign", "campaign", "campaign name"), "campaign.name"),
    **dict.fromkeys(("landing page", "landing page url"), "campaign.landing_page"),
    **dict.fromkeys(("referrer", "referer"), "campaign.referrer"),
}
"""Names of columns, in small letters with single blanks for all else, as tools and people write them."""


# mappings ----------------------------------------------------------------------------------------------------------
class ColumnMapping(NamedTuple):
    """`columns`: name → target, `source` among them. `fields`: pointers into the documents of an NDJSON body. `at`: where the columns stand
    in what was given, as a JSON Pointer."""

    columns: Mapping[str, str]
    fields: FieldMapping
    at: str = "/columns"


def mapping_of(content: object) -> tuple[ColumnMapping, list[Finding]]:
    """The mapping in a JSON value, and everything that is wrong with it by itself; pointers are into that value."""
    if not isinstance(content, Mapping):
        return ColumnMapping({}, FieldMapping()), [
            Finding("", "Must be an object of columns and the fields that they fill")
        ]
    flat = not any(isinstance(content.get(part), Mapping) for part in ("columns", "fields"))
    given: dict[str, object] = {"columns": content} if flat else dict(content)
    columns = given.get("columns")
    sources = [name for name, target in columns.items() if target == SOURCE] if isinstance(columns, Mapping) else []
    if isinstance(columns, Mapping):
        given["columns"] = {name: target for name, target in columns.items() if target != SOURCE}
    found, flaws = read(given, "")
    flaws += [Finding(_place("/columns", name), "Another column is mapped to this field") for name in sources[1:]]
    at = "" if flat else "/columns"
    if flat:
        flaws = [Finding(flaw.pointer.removeprefix("/columns"), flaw.message) for flaw in flaws]
    return ColumnMapping({**found.columns, **dict.fromkeys(sources[:1], SOURCE)}, found, at), flaws


def column_flaws(mapping: ColumnMapping, columns: Sequence[str], repeated: Sequence[str]) -> list[Finding]:
    """What is wrong with a mapping for these columns: some are not there, one stands for several, or none says who it is."""
    known = set(columns)
    flaws = [
        Finding(_place(mapping.at, name), "There is no such column") for name in mapping.columns if name not in known
    ]
    flaws += [
        Finding(_place(mapping.at, name), "Several columns have this name")
        for name in mapping.columns
        if name in repeated
    ]
    if not flaws and not any(target in IDENTITIES for target in mapping.columns.values()):
        flaws.append(Finding("", "No column is mapped to email, phone or external_id, so nobody could be recognised"))
    return flaws


def guessed(columns: Sequence[str], attributes: Iterable[str] = ()) -> dict[str, str]:
    """The columns whose names say what they are: as fields of a submission are called, as SYNONYMS has them, or as one of the policy's
    `attributes`. The first of several for one field is taken."""
    by_word = {_word(name): f"attributes.{name}" for name in attributes}
    found: dict[str, str] = {}
    for column in columns:
        target = column if Targets.shape(column) or column == SOURCE else None
        target = target or SYNONYMS.get(_word(column)) or by_word.get(_word(column))
        if target is not None and column not in OURS and target not in found.values():
            found[column] = target
    return found


def _word(name: str) -> str:
    return _WORDS.sub(" ", name.lower()).strip()


def _place(at: str, name: str) -> str:
    return at + pointer(name)


# rows --------------------------------------------------------------------------------------------------------------
class Reading(NamedTuple):
    """A row that was read. `submission` is None where it is none, and `errors` says why. `content` is the row as JSON; `is_form`: it is
    the submission word for word."""

    submission: Submission | None
    content: str
    errors: str = ""
    is_form: bool = False


_Texts = Annotated[
    dict[AttributeName, Annotated[str, StringConstraints(max_length=ATTRIBUTE_CHARS_MAX)]],
    Field(max_length=ATTRIBUTES_MAX),
]


class _Cells(Submission):
    """A submission out of cells: attributes are texts, so each is looked at once and not as every type that it could have. Which type is
    meant, the policy says."""

    attributes: _Texts = Field(default_factory=dict)  # type: ignore[assignment]  # narrower, and nobody writes to it


_SUBMISSION = TypeAdapter(Submission)
_of_cells = TypeAdapter(_Cells).validator.validate_python
ATTRIBUTES = "attributes"
Write = Callable[[object], bytes]
"""Makes JSON of a value."""


class CsvReader:
    """Submissions out of the rows of a CSV with these columns. `defaults`: values by target where the row has none."""

    def __init__(
        self,
        columns: Sequence[str],
        mapping: Mapping[str, str],
        *,
        source: str,
        zone: tzinfo,
        marked: bool = False,
        defaults: Mapping[str, JsonValue] | None = None,
        write: Write = to_json,
    ) -> None:
        self._columns = columns
        self._write = write
        self._marked = marked
        self._zone = zone
        self._column_of = {target: name for name, target in mapping.items()}
        self._base: dict[str, JsonValue] = {**assembled(defaults or {}), SOURCE: source}
        self._nested = any(isinstance(value, dict) for value in self._base.values())
        # Defaults may be of other types than text.
        self._validate = _SUBMISSION.validate_python if ATTRIBUTES in self._base else _of_cells
        self._plain: list[tuple[int, str]] = []
        self._attributes: list[tuple[int, str]] = []
        self._parts: list[tuple[int, tuple[str, ...]]] = []
        self._moments: list[tuple[int, tuple[str, ...]]] = []
        for index, column in enumerate(columns):
            if column in mapping and column not in OURS:
                self._add(index, mapping[column])

    def _add(self, index: int, target: str) -> None:
        shape = Targets.shape(target)
        if shape == "moment":
            self._moments.append((index, tuple(target.split("."))))
        elif shape == "attribute":
            self._attributes.append((index, target.partition(".")[2]))
        elif "." in target:
            self._parts.append((index, tuple(target.split("."))))
        else:
            self._plain.append((index, target))

    def read(self, row: Row) -> Reading:
        """What this row says. It is not a blank one."""
        cells = row.cells
        if row.flaw is not None:
            return Reading(None, self.content(cells), row.flaw)
        width = len(self._columns)
        if len(cells) != width:
            if len(cells) < width or any(cells[width:]):
                return Reading(None, self.content(cells), f"The row has {len(cells)} cells, the header {width}")
            cells = cells[:width]
        if self._marked:
            cells = [unguarded(cell) for cell in cells]
        content = self.content(cells)
        try:
            return Reading(self._validate(self._document(cells)), content)
        except ValidationError as error:
            return Reading(None, content, said(error, self._column_of))

    def kept(self, row: Row) -> str:
        """The cells of the row as a JSON list, for the file of errors."""
        cells = list(row.cells)
        if self._marked:
            cells = [
                unguarded(cell) for cell, name in zip_longest(cells, self._columns, fillvalue="") if name not in OURS
            ]
        return to_json(cells).decode()

    def names(self, row: Row) -> list[Submission]:
        """What a row that is no submission says of who it is, one field each."""
        cells = [unguarded(cell) for cell in row.cells] if self._marked else row.cells
        source = str(self._base[SOURCE])
        named = [(target, cells[index]) for index, target in self._plain if target in IDENTITIES and index < len(cells)]
        return [found for target, cell in named if (found := _naming(source, target, cell)) is not None]

    def content(self, cells: Sequence[str]) -> str:
        """The row as JSON, by the names of the columns."""
        named = dict(zip(self._columns, cells, strict=False))
        if self._marked:
            named = {name: cell for name, cell in named.items() if name not in OURS}
        return self._write(named).decode()

    def _document(self, cells: Sequence[str]) -> dict[str, Any]:
        document: dict[str, Any] = deepcopy(self._base) if self._nested else dict(self._base)
        for index, name in self._plain:
            if cell := cells[index].strip():
                document[name] = cell
        if self._attributes:
            attributes = document.setdefault("attributes", {})
            for index, name in self._attributes:
                if cell := cells[index].strip():
                    attributes[name] = cell
        for index, path in self._parts:
            if cell := cells[index].strip():
                _put(document, path, cell)
        for index, path in self._moments:
            if cell := cells[index].strip():
                _put(document, path, moment(cell, self._zone))
        return document


class NdjsonReader:
    """Submissions out of lines of JSON. Without a mapping a line is a submission as `POST /v1/leads` takes it, where `source` may be left
    out; with one it is any object."""

    def __init__(
        self,
        mapping: ColumnMapping | None,
        *,
        source: str,
        zone: tzinfo,
        defaults: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self._mapping = mapping
        self._source = source
        self._zone = zone
        self._defaults = defaults or {}
        self._member_of = {target: name for name, target in mapping.columns.items()} if mapping else {}

    def read(self, row: Row) -> Reading:
        """What this line says. It is not a blank one."""
        text = row.cells[0]
        if row.flaw is not None:
            return Reading(None, text, row.flaw)
        try:
            line = from_json(text, allow_inf_nan=False)
        except ValueError:
            return Reading(None, text, "The row is not JSON")
        if not isinstance(line, dict):
            return Reading(None, text, "The row is not a JSON object")
        if ERROR_COLUMN in line:
            line = {name: value for name, value in line.items() if name not in OURS}
            text = to_json(line).decode()
        if "\\u0000" in text and _holds_nul(line):
            return Reading(None, text, "A NUL character is in the row")
        document = self._document(line)
        try:
            return Reading(_SUBMISSION.validate_python(document), text, is_form=document == line)
        except ValidationError as error:
            return Reading(None, text, said(error, self._member_of))

    def kept(self, row: Row) -> str:
        """The line, for the file of errors."""
        return row.cells[0]

    def names(self, row: Row) -> list[Submission]:
        """What a line that is no submission says of who it is, one field each."""
        try:
            line = from_json(row.cells[0])
            document = self._document(line) if isinstance(line, dict) else {}
        except ValueError:
            return []
        named = [(target, document.get(target)) for target in IDENTITIES]
        return [found for target, said in named if (found := _naming(self._source, target, said)) is not None]

    def _document(self, line: dict[str, JsonValue]) -> Mapping[str, Any]:
        if self._mapping is not None:
            return self._mapped(line, self._mapping)
        document: dict[str, Any] = {SOURCE: self._source, **line}
        if isinstance(at := document.get("occurred_at"), str):
            document["occurred_at"] = moment(at, self._zone)
        return document

    def _mapped(self, line: dict[str, JsonValue], mapping: ColumnMapping) -> Mapping[str, Any]:
        values: dict[str, JsonValue] = {}
        document: dict[str, Any] = apply(mapping.fields, line, self._defaults)
        for name, target in mapping.columns.items():
            value = line.get(name)
            if value is not None and value != "":
                values[target] = value
        source = values.pop(SOURCE, None) or self._source
        times = {target: values.pop(target) for target in list(values) if Targets.shape(target) == "moment"}
        for path, value in _leaves(assembled(values)):
            _put(document, path, value)
        for target, said_at in times.items():
            at = moment(said_at, self._zone) if isinstance(said_at, str) else as_moment(said_at)
            _put(document, tuple(target.split(".")), at)
        return {**document, SOURCE: source}


def _naming(source: str, target: str, value: object) -> Submission | None:
    """Somebody with this address, number or id and nothing else, if it can be one."""
    try:
        return _SUBMISSION.validate_python({SOURCE: source, target: value})
    except ValidationError:
        return None


def _leaves(
    document: Mapping[str, JsonValue], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
    for name, value in document.items():
        if isinstance(value, dict) and above[:1] != ("attributes",):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _put(document: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    node = document
    for name in path[:-1]:
        node = node.setdefault(name, {})
    node[path[-1]] = value


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(name) or _holds_nul(item) for name, item in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))


def moment(text: str, zone: tzinfo) -> datetime | str:
    """A time as people write it: RFC 3339, the same without an offset or a date alone (both in `zone`; a date is its midnight), or
    seconds or milliseconds since 1970. Given back as it is if it is none of these."""
    text = text.strip()
    if len(text) > 8 and text.isascii() and text.isdigit():
        return _since_1970(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    return found if found.tzinfo else found.replace(tzinfo=zone)


def _since_1970(digits: str) -> datetime | str:
    number = int(digits[:20])
    try:
        return datetime.fromtimestamp(number / 1000 if number >= _MILLISECONDS_FROM else number, UTC)
    except (ValueError, OverflowError, OSError):
        return digits


# errors ------------------------------------------------------------------------------------------------------------
def said(error: ValidationError, column_of: Mapping[str, str]) -> str:
    """What is wrong with a row, by the names that its columns have; never the value that stands there."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        place, kind = _target_of(item["loc"]), item["type"]
        # A value that may be of several types has an error for each of them; for a text, its length says most.
        if place not in found or kind == "string_too_long":
            found[place] = (
                _OWN_WORDS.get((place, kind)) or _OWN_WORDS.get(("", kind)) or _message(item["msg"], item["input"])
            )
    told = [f"{column_of.get(place, place)}: {message}" if place else message for place, message in found.items()]
    return "; ".join(told[:ERRORS_SAID_MAX]) + ("; …" if len(told) > ERRORS_SAID_MAX else "")


def _target_of(loc: Sequence[str | int]) -> str:
    """The target at a place of pydantic's, which also names branches of unions."""
    parts = [str(part) for part in loc]
    if parts[:1] == ["attributes"]:
        return ".".join(parts[:2])
    return next(
        (".".join(parts[:end]) for end in (3, 2) if ".".join(parts[:end]) in Targets.SHAPES), ".".join(parts[:1])
    )


def _message(text: str, sent: object) -> str:
    if isinstance(sent, str) and len(sent) >= 4 and sent in text:
        return "The value is not valid"
    text = text.removeprefix("Value error, ")
    return text[:1].upper() + text[1:]
