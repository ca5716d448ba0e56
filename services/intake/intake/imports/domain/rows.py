"""What a row of an import means: which column fills which field, and the submission that comes of it, or why none does. Pure; what the
values are worth, the policy says.

A mapping is `{"columns": {COLUMN: TARGET}}`, or that object alone; targets are those of sources/domain/mapping.py and `source`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import tzinfo
from itertools import zip_longest
from typing import Annotated, Any, NamedTuple

from pydantic import Field, JsonValue, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from accord.terms.findings import Finding
from intake.imports.domain.table import ERROR_COLUMN, OWN_COLUMNS, Row, unguard_cell
from intake.leads.domain.submission import ATTRIBUTES_MAX, AttributeName, Submission
from intake.sources.domain.mapping import (
    FieldMapping,
    Targets,
    apply_mapping,
    child_pointer,
    nest_values,
    parse_time,
    validate_mapping,
)

SOURCE = "source"
ERRORS_SHOWN_MAX = 5
"""Errors of one row that are shown; the others show when these are corrected."""
IDENTITIES = ("email", "phone", "external_id")
ATTRIBUTE_CHARS_MAX = 1_000
_WORDS = re.compile(r"[^a-z0-9]+")
_MESSAGES = {
    ("", "timestamp"): "Is no time: write 2027-01-04, 2027-01-04 09:30 or 2027-01-04T09:30:00-06:00",
    (SOURCE, "string_pattern_mismatch"): "Is no name of a source, which has no '@', ':' or '/' at its beginning",
    ("consent.basis", "string_pattern_mismatch"): "Is no basis, which is a word of small letters",
}
"""What is reported for (target or any, kind of error) instead of the words of the validator."""

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


def parse_column_mapping(content: object) -> tuple[ColumnMapping, list[Finding]]:
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
    found, errors = validate_mapping(given, "")
    errors += [
        Finding(child_pointer("/columns", name), "Another column is mapped to this field") for name in sources[1:]
    ]
    at = "" if flat else "/columns"
    if flat:
        errors = [Finding(error.pointer.removeprefix("/columns"), error.message) for error in errors]
    return ColumnMapping({**found.columns, **dict.fromkeys(sources[:1], SOURCE)}, found, at), errors


def validate_columns(mapping: ColumnMapping, columns: Sequence[str], repeated: Sequence[str]) -> list[Finding]:
    """What is wrong with a mapping for these columns: some are not there, one stands for several, or none says who it is."""
    known = set(columns)
    errors = [
        Finding(child_pointer(mapping.at, name), "There is no such column")
        for name in mapping.columns
        if name not in known
    ]
    errors += [
        Finding(child_pointer(mapping.at, name), "Several columns have this name")
        for name in mapping.columns
        if name in repeated
    ]
    if not errors and not any(target in IDENTITIES for target in mapping.columns.values()):
        errors.append(Finding("", "No column is mapped to email, phone or external_id, so nobody could be identified"))
    return errors


def guess_columns(columns: Sequence[str], attributes: Iterable[str] = ()) -> dict[str, str]:
    """The columns whose names say what they are: as fields of a submission are called, as SYNONYMS has them, or as one of the policy's
    `attributes`. The first of several for one field is taken."""
    by_word = {_word(name): f"attributes.{name}" for name in attributes}
    found: dict[str, str] = {}
    for column in columns:
        target = column if Targets.shape(column) or column == SOURCE else None
        target = target or SYNONYMS.get(_word(column)) or by_word.get(_word(column))
        if target is not None and column not in OWN_COLUMNS and target not in found.values():
            found[column] = target
    return found


def _word(name: str) -> str:
    return _WORDS.sub(" ", name.lower()).strip()


# rows --------------------------------------------------------------------------------------------------------------
class ParsedRow(NamedTuple):
    """A row that was read. `submission` is None where it is none, and `errors` says why. `content` is the row as JSON; `is_canonical`:
    it is the submission word for word."""

    submission: Submission | None
    content: str
    errors: str = ""
    is_canonical: bool = False


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
        is_error_file: bool = False,
        defaults: Mapping[str, JsonValue] | None = None,
        write: Write = to_json,
    ) -> None:
        self._columns = columns
        self._write = write
        self._is_error_file = is_error_file
        self._zone = zone
        self._column_of = {target: name for name, target in mapping.items()}
        self._base: dict[str, JsonValue] = {**nest_values(defaults or {}), SOURCE: source}
        self._nested = any(isinstance(value, dict) for value in self._base.values())
        # Defaults may be of other types than text.
        self._validate = _SUBMISSION.validate_python if ATTRIBUTES in self._base else _of_cells
        self._plain: list[tuple[int, str]] = []
        self._attributes: list[tuple[int, str]] = []
        self._parts: list[tuple[int, tuple[str, ...]]] = []
        self._moments: list[tuple[int, tuple[str, ...]]] = []
        for index, column in enumerate(columns):
            if column in mapping and column not in OWN_COLUMNS:
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

    def read(self, row: Row) -> ParsedRow:
        """What this row says. It is not a blank one."""
        cells = row.cells
        if row.error is not None:
            return ParsedRow(None, self.content(cells), row.error)
        width = len(self._columns)
        if len(cells) != width:
            if len(cells) < width or any(cells[width:]):
                return ParsedRow(None, self.content(cells), f"The row has {len(cells)} cells, the header {width}")
            cells = cells[:width]
        if self._is_error_file:
            cells = [unguard_cell(cell) for cell in cells]
        content = self.content(cells)
        try:
            return ParsedRow(self._validate(self._document(cells)), content)
        except ValidationError as error:
            return ParsedRow(None, content, describe_errors(error, self._column_of))

    def encode_original(self, row: Row) -> str:
        """The cells of the row as a JSON list, for the file of errors."""
        cells = list(row.cells)
        if self._is_error_file:
            cells = [
                unguard_cell(cell)
                for cell, name in zip_longest(cells, self._columns, fillvalue="")
                if name not in OWN_COLUMNS
            ]
        return to_json(cells).decode()

    def find_identities(self, row: Row) -> list[Submission]:
        """What a row that is no submission says of who it is, one field each."""
        cells = [unguard_cell(cell) for cell in row.cells] if self._is_error_file else row.cells
        source = str(self._base[SOURCE])
        named = [(target, cells[index]) for index, target in self._plain if target in IDENTITIES and index < len(cells)]
        return [found for target, cell in named if (found := _identify(source, target, cell)) is not None]

    def content(self, cells: Sequence[str]) -> str:
        """The row as JSON, by the names of the columns."""
        named = dict(zip(self._columns, cells, strict=False))
        if self._is_error_file:
            named = {name: cell for name, cell in named.items() if name not in OWN_COLUMNS}
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
                _put(document, path, parse_time(cell, self._zone))
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

    def read(self, row: Row) -> ParsedRow:
        """What this line says. It is not a blank one."""
        text = row.cells[0]
        if row.error is not None:
            return ParsedRow(None, text, row.error)
        try:
            line = from_json(text, allow_inf_nan=False)
        except ValueError:
            return ParsedRow(None, text, "The row is not JSON")
        if not isinstance(line, dict):
            return ParsedRow(None, text, "The row is not a JSON object")
        if ERROR_COLUMN in line:
            line = {name: value for name, value in line.items() if name not in OWN_COLUMNS}
            text = to_json(line).decode()
        if "\\u0000" in text and _holds_nul(line):
            return ParsedRow(None, text, "A NUL character is in the row")
        document = self._document(line)
        try:
            return ParsedRow(_SUBMISSION.validate_python(document), text, is_canonical=document == line)
        except ValidationError as error:
            return ParsedRow(None, text, describe_errors(error, self._member_of))

    def encode_original(self, row: Row) -> str:
        """The line, for the file of errors."""
        return row.cells[0]

    def find_identities(self, row: Row) -> list[Submission]:
        """What a line that is no submission says of who it is, one field each."""
        try:
            line = from_json(row.cells[0])
            document = self._document(line) if isinstance(line, dict) else {}
        except ValueError:
            return []
        named = [(target, document.get(target)) for target in IDENTITIES]
        return [found for target, value in named if (found := _identify(self._source, target, value)) is not None]

    def _document(self, line: dict[str, JsonValue]) -> Mapping[str, Any]:
        if self._mapping is not None:
            return self._mapped(line, self._mapping)
        document: dict[str, Any] = {SOURCE: self._source, **line}
        if isinstance(at := document.get("occurred_at"), str):
            document["occurred_at"] = parse_time(at, self._zone)
        return document

    def _mapped(self, line: dict[str, JsonValue], mapping: ColumnMapping) -> Mapping[str, Any]:
        values: dict[str, JsonValue] = {}
        document: dict[str, Any] = apply_mapping(mapping.fields, line, self._defaults)
        for name, target in mapping.columns.items():
            value = line.get(name)
            if value is not None and value != "":
                values[target] = value
        source = values.pop(SOURCE, None) or self._source
        times = {target: values.pop(target) for target in list(values) if Targets.shape(target) == "moment"}
        for path, value in _leaves(nest_values(values)):
            _put(document, path, value)
        for target, said_at in times.items():
            at = parse_time(said_at, self._zone)
            _put(document, tuple(target.split(".")), at)
        return {**document, SOURCE: source}


def _identify(source: str, target: str, value: object) -> Submission | None:
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


# errors ------------------------------------------------------------------------------------------------------------
def describe_errors(error: ValidationError, column_of: Mapping[str, str]) -> str:
    """What is wrong with a row, by the names that its columns have; never the value that stands there."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        place, kind = _target_of(item["loc"]), item["type"]
        # A value that may be of several types has an error for each of them; for a text, its length says most.
        if place not in found or kind == "string_too_long":
            found[place] = (
                _MESSAGES.get((place, kind)) or _MESSAGES.get(("", kind)) or _message(item["msg"], item["input"])
            )
    messages = [f"{column_of.get(place, place)}: {message}" if place else message for place, message in found.items()]
    return "; ".join(messages[:ERRORS_SHOWN_MAX]) + ("; …" if len(messages) > ERRORS_SHOWN_MAX else "")


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
