"""What a row of an import means: which column fills which field, and the submission that comes of it, or why none does. Pure; what the
values are worth, the policy says.

A mapping is `{"columns": {COLUMN: TARGET}}`, or that object alone; targets are those of sources/domain/mapping.py and `source`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from accord.terms.findings import Finding
from intake.imports.domain.dates import TimeColumn
from intake.imports.domain.imports import Record
from intake.imports.domain.table import OWN_COLUMNS, LineEnd, Row
from intake.leads.domain.keys import IdentityKey, format_key
from intake.leads.domain.submission import Submission
from intake.sources.domain.mapping import FieldMapping, Targets, child_pointer, find_undeclared, validate_mapping

SOURCE = "source"
ERRORS_SHOWN_MAX = 5
"""Errors of one row that are shown; the others show when these are corrected."""
EXTERNAL_ID = "external_id"
IDENTITIES = ("email", "phone", EXTERNAL_ID)
_WORDS = re.compile(r"[^a-z0-9]+")
_MESSAGES = {
    (
        "",
        "timestamp",
    ): "Is no time: write 2027-01-04, 2027-01-04 09:30 or 2027-01-04T09:30:00-06:00, or say the date_format",
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


DateFormats = str | dict[str, str] | None
"""A format of dates for all columns of times, or by column."""
MappingOrigin = Literal["request", "source", "names", "submissions"]
Write = Callable[[object], bytes]
"""Makes JSON of a value."""


class MappingError(Exception):
    """A parameter does not fit the columns; `findings` say where, by pointers into it."""

    def __init__(self, findings: Sequence[Finding], parameter: str = "mapping") -> None:
        super().__init__(f"the {parameter} does not fit")
        self.findings = findings
        self.parameter = parameter


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


def find_undeclared_targets(mapping: ColumnMapping, declared: Collection[str]) -> list[Finding]:
    """The targets that are attributes which the data policy does not declare."""
    by_columns = FieldMapping({}, mapping.columns)
    found = find_undeclared(FieldMapping(mapping.fields.fields), declared, "")
    return found + [
        Finding(mapping.at + one.pointer.removeprefix("/columns"), one.message)
        for one in find_undeclared(by_columns, declared, "")
    ]


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


def resolve_date_formats(asked: DateFormats, mapping: Mapping[str, str]) -> dict[str, str | None]:
    """The columns of times, each with the format that was asked for. Raises MappingError for one of a column that is none."""
    columns = [column for column, target in mapping.items() if Targets.shape(target) == "moment"]
    if isinstance(asked, dict):
        wrong = [
            Finding(child_pointer("", name), "No column of times has this name")
            for name in asked
            if name not in columns
        ]
        if wrong:
            raise MappingError(wrong, "date_format")
        return {column: asked.get(column) for column in columns}
    return dict.fromkeys(columns, asked)


def guess_columns(columns: Sequence[str], attributes: Iterable[str] = ()) -> dict[str, str]:
    """The columns whose names say what they are: as fields of a submission are called, as SYNONYMS has them, or as one of the policy's
    `attributes`. The first of several for one field is taken. A column that is called `id` and no more may count rows, so it identifies
    people only where nothing else does."""
    by_word = {_word(name): f"attributes.{name}" for name in attributes}
    found: dict[str, str] = {}
    for column in sorted(columns, key=_may_count_rows):
        if _may_count_rows(column) and not found.keys().isdisjoint(IDENTITIES):
            continue
        target = column if Targets.shape(column) or column == SOURCE else None
        target = target or SYNONYMS.get(_word(column)) or by_word.get(_word(column))
        if target is not None and column not in OWN_COLUMNS and target not in found:
            found[target] = column
    return {column: target for target, column in found.items()}


def _may_count_rows(column: str) -> bool:
    return _word(column) == "id"


def _word(name: str) -> str:
    return _WORDS.sub(" ", name.lower()).strip()


# how rows are read -------------------------------------------------------------------------------------------------
class Plan(BaseModel):
    """How the rows of one file are read, decided once, before the first of them is. `encoding` is what the file was sent in,
    `stored_encoding` what its bytes are kept in; rows begin at byte `start` after `number` rows. `mapping` is None where a row is a
    submission as it stands, and before its format has seen the names of the columns by which it is guessed."""

    model_config = ConfigDict(frozen=True)

    format: str
    encoding: str
    stored_encoding: str
    encoding_declared: bool = False
    delimiter: str | None = None
    quote: str | None = None
    line_end: LineEnd | None = None
    header: bool = True
    columns: tuple[str, ...] = ()
    mapping: dict[str, JsonValue] | None = None
    mapping_from: MappingOrigin
    timezone: str = "UTC"
    times: tuple[TimeColumn, ...] = ()
    start: int = 0
    number: int = 0
    is_error_file: bool = False
    defaults: dict[str, JsonValue] = Field(default_factory=dict)
    rows_per_s_max: Annotated[int, Field(ge=1)] | None = None

    @property
    def mapped(self) -> Mapping[str, str]:
        """Column → field."""
        mapping = self.column_mapping
        return {} if mapping is None else mapping.columns

    def describe(self, source: str, keys: Sequence[IdentityKey], content: str) -> Record:
        """The record of a row that names somebody. An id that the source gave tells its records apart best, an address next. The same text
        by another mapping says something else. The digest finds the same text again and keeps nothing secret."""
        key = keys[-1] if keys[-1][0] == "external" else keys[0]
        hashed = self._meaning.copy()
        hashed.update(content.encode())
        return Record(format_key(key), source, hashed.digest())

    @cached_property
    def _meaning(self) -> blake2b:
        said = self.model_dump(mode="json", include={"mapping", "defaults", "timezone"})
        if self.date_formats:
            said["date_formats"] = self.date_formats
        return blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16)

    @cached_property
    def date_formats(self) -> dict[str, str]:
        """Column → format, of those that have one."""
        return {one.column: one.date_format for one in self.times if one.date_format is not None}

    @cached_property
    def guesses_id(self) -> bool:
        """Whether a column is taken for the id of people by its name alone, and has not the field's own."""
        names = [column for column, target in self.mapped.items() if target == EXTERNAL_ID]
        return self.mapping_from == "names" and any(_word(name) != "external id" for name in names)

    @property
    def column_mapping(self) -> ColumnMapping | None:
        """The mapping as it is applied."""
        return None if self.mapping is None else parse_column_mapping(self.mapping)[0]


# rows --------------------------------------------------------------------------------------------------------------
class ParsedRow(NamedTuple):
    """A row that was read. `submission` is None where it is none, and `errors` says why. `content` is the row as JSON; `is_canonical`:
    it is the submission word for word."""

    submission: Submission | None
    content: str
    errors: str = ""
    is_canonical: bool = False


class RowReader(Protocol):
    """Makes submissions of the rows of a format."""

    def read(self, row: Row) -> ParsedRow:
        """What this row says. It is not a blank one."""

    def encode_original(self, row: Row) -> str:
        """The row as it was sent, for the file of errors."""

    def find_identities(self, row: Row) -> list[Submission]:
        """What a row that is no submission says of who it is, one field each."""


SUBMISSION = TypeAdapter(Submission)


def identify(source: str, target: str, value: object) -> Submission | None:
    """Somebody with this address, number or id and nothing else, if it can be one."""
    try:
        return SUBMISSION.validate_python({SOURCE: source, target: value})
    except ValidationError:
        return None


def put_value(document: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    node = document
    for name in path[:-1]:
        node = node.setdefault(name, {})
    node[path[-1]] = value


def assume_consent(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a row, whose consent is what a list says, and not what the person says now."""
    consent = document.get("consent")
    if isinstance(consent, dict) and "basis" in consent:
        document["consent"] = {**consent, "assumed": True}
    return document


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
