"""The formats of files that are read. A new one is a module like csv_format.py and a line of FORMATS."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Protocol

from intake.imports.domain.csv_format import CsvFormat
from intake.imports.domain.imports import Failure
from intake.imports.domain.ndjson_format import NdjsonFormat
from intake.imports.domain.rows import DateFormats, MappingOrigin, Plan, RowReader, Write
from intake.imports.domain.table import Rows


class Format(Protocol):
    """How files of one format are read and written. A mapping that is saved at a source is used where it has one of `mapping_parts`."""

    @property
    def name(self) -> str:
        """By which plans and people call it; the suffix of a file of errors."""

    @property
    def media_type(self) -> str:
        """What a client says that it sends."""

    @property
    def encoding(self) -> str | None:
        """The one in which it is written; None if that is found out."""

    @property
    def mapping_parts(self) -> Sequence[str]: ...

    @property
    def mapping_default(self) -> MappingOrigin:
        """Where the mapping comes from if nobody says one."""

    def complete(
        self, plan: Plan, sample: bytes, attributes: Sequence[str], date_formats: DateFormats, *, whole: bool
    ) -> Plan:
        """The plan with what the beginning of the file says, which is all of it if `whole`; `attributes` are those that the policy
        declares. Raises NotATable and MappingError."""

    def rows(self, plan: Plan, offset: int, number: int) -> Rows:
        """A reader of rows from this byte on, where `number` rows have been read."""

    def reader(self, plan: Plan, source: str, zone: tzinfo, write: Write) -> RowReader:
        """What makes submissions of those rows; `write` makes the JSON by which they are kept."""

    def begin_errors(self, plan: Plan) -> bytes:
        """What stands before the rows of a file of errors."""

    def encode_failure(self, plan: Plan, failure: Failure) -> bytes:
        """One row of a file of errors."""


_ALL: tuple[Format, ...] = (
    CsvFormat(),
    NdjsonFormat(),
)
FORMATS = {one.name: one for one in _ALL}
BY_MEDIA_TYPE = {one.media_type: one for one in _ALL}
