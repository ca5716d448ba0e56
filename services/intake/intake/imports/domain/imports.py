"""One import: what became of its rows, and what a dry run previews. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

from msgspec import Struct, field
from msgspec.structs import asdict
from pydantic import JsonValue

from accord.terms.findings import Finding
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.quality import Quality
from intake.leads.domain.unit_of_work import contradicts

EndState = Literal["finished", "cancelled", "failed"]
State = Literal["receiving", "queued", "running", "finished", "cancelled", "failed"]
ENDED: frozenset[State] = frozenset({"finished", "cancelled", "failed"})
Outcome = Literal["created", "updated", "merged", "unchanged", "quarantined", "rejected", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
EXAMPLES_MAX = 20
"""Errors that an import shows without being asked for its file of errors."""
PARAMETERS_MAX = 200
LEFT_OUT_MAX = 200
"""Fields and reasons."""
ERROR_CHARS_MAX = 2_000


# what became of rows -----------------------------------------------------------------------------------------------
class Counts(Struct, frozen=True, gc=False):
    """Rows by outcome. Each row that is not blank is in `read` and in one of the others."""

    read: int = 0
    created: int = 0
    updated: int = 0
    merged: int = 0
    unchanged: int = 0
    quarantined: int = 0
    rejected: int = 0
    failed: int = 0

    def plus(self, results: Iterable[Result]) -> Counts:
        """These and the rows of `results`."""
        more = Counter(result.outcome for result in results)
        counted = {name: getattr(self, name) + more[name] for name in OUTCOMES}
        return Counts(read=self.read + more.total(), **counted)


class Result(NamedTuple):
    """What became of the row with this number. `verdict` and `lead_id` are None where there is none."""

    number: int
    outcome: Outcome
    verdict: str | None = None
    lead_id: UUID | None = None


_VERDICTS = (None, "accepted", "flagged", "quarantined", "unchecked", "rejected")
_HEADS: dict[tuple[str, str | None], bytes] = {
    (outcome, verdict): bytes((code, verdict_code))
    for code, outcome in enumerate(OUTCOMES)
    for verdict_code, verdict in enumerate(_VERDICTS)
}
_NOBODY = bytes(16)
RESULT_BYTES = 22
"""Place behind the first row (4), outcome, verdict, lead (16)."""


def pack_results(results: Sequence[Result]) -> bytes:
    """Results of rows, by number, in RESULT_BYTES each."""
    first = results[0].number if results else 0
    pieces: list[bytes] = []
    for number, outcome, verdict, lead_id in results:
        pieces += (
            (number - first).to_bytes(4, "big"),
            _HEADS[outcome, verdict],
            _NOBODY if lead_id is None else lead_id.bytes,
        )
    return b"".join(pieces)


def unpack_results(first: int, results: bytes) -> Iterator[Result]:
    """What `pack_results` packed; `first` is the number of the first row."""
    for at in range(0, len(results), RESULT_BYTES):
        number = first + int.from_bytes(results[at : at + 4], "big")
        lead = results[at + 6 : at + RESULT_BYTES]
        lead_id = None if lead == _NOBODY else UUID(bytes=lead)
        yield Result(number, OUTCOMES[results[at + 4]], _VERDICTS[results[at + 5]], lead_id)


def encode_outcomes(outcomes: Iterable[Outcome]) -> int:
    """A set of outcomes as bits."""
    return sum(1 << OUTCOMES.index(outcome) for outcome in set(outcomes))


class Failure(NamedTuple):
    """A row for the file of errors. `cells` is a JSON list of its cells, or its text if it was NDJSON. `keys`: by which the person in it is
    known, as far as that could be seen."""

    number: int
    outcome: Literal["rejected", "failed"]
    error: str
    content: str
    keys: Sequence[str] = ()


class Record(NamedTuple):
    """What a row says of whom, in short. `key` is the identity key, as a word, by which its source knows the record."""

    key: str
    source: str
    digest: bytes


class LeftOut(NamedTuple):
    """A reason for which values of one field were left out: in how many rows, and the first of them."""

    pointer: str
    message: str
    rows: int
    first_row: int


class Report(Struct, frozen=True, gc=False):
    """What the policy said of the rows, and the first errors."""

    verdicts: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    """Parameter → rows that did not meet it."""
    examples: Sequence[Mapping[str, JsonValue]] = ()
    left_out: Sequence[LeftOut] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any] | None) -> Report:
        """As it was kept."""
        if not document:
            return cls()
        return cls(**{**document, "left_out": [LeftOut(*one) for one in document.get("left_out", ())]})

    def document(self) -> dict[str, object]:
        """As it is kept."""
        return {**asdict(self), "left_out": [list(one) for one in self.left_out]}

    def plus(
        self,
        qualities: Iterable[Quality],
        failures: Sequence[Failure],
        left_out: Iterable[tuple[int, Finding]] = (),
    ) -> Report:
        """This and what was judged of more rows, and what of each row was left out. Submissions that came out alike have one and the same
        quality, so it is looked into once. Examples name columns and reasons, never values."""
        counted: dict[int, tuple[Quality, int]] = {}
        for quality in qualities:
            counted[id(quality)] = (quality, counted.get(id(quality), (quality, 0))[1] + 1)
        verdicts, failed = dict(self.verdicts), dict(self.failed)
        for quality, rows in counted.values():
            verdicts[quality.verdict] = verdicts.get(quality.verdict, 0) + rows
            for failure in quality.failed:
                if failure.parameter in failed or len(failed) < PARAMETERS_MAX:
                    failed[failure.parameter] = failed.get(failure.parameter, 0) + rows
        room = max(0, EXAMPLES_MAX - len(self.examples))
        more = [{"row": one.number, "outcome": one.outcome, "error": one.error} for one in failures[:room]]
        return Report(verdicts, failed, [*self.examples, *more], _count_left_out(self.left_out, left_out))


def _count_left_out(before: Sequence[LeftOut], more: Iterable[tuple[int, Finding]]) -> Sequence[LeftOut]:
    found = {(one.pointer, one.message): one for one in before}
    for row, (pointer, message) in more:
        known = found.get((pointer, message))
        if known is not None:
            found[pointer, message] = known._replace(rows=known.rows + 1)
        elif len(found) < LEFT_OUT_MAX:
            found[pointer, message] = LeftOut(pointer, message, 1, row)
    return list(found.values())


def describe_rejection(quality: Quality) -> str:
    """Why the policy rejected a row, in its own words."""
    reasons = [f"{one.parameter}: {one.reason}" for one in quality.failed if one.consequence == "reject"]
    return "; ".join(reasons)[:ERROR_CHARS_MAX]


def has_address(lead: object) -> IdentityKey:
    """Stands among the keys of a lead for whether it has an address; no address is written so."""
    return "email", f"of {lead}"


# dry runs ----------------------------------------------------------------------------------------------------------
class DryRunPreview:
    """What would become of rows, from the keys that leads have and those that earlier rows of the file would have taken.

    It foresees who is new, known or joined; it does not follow the merges that earlier rows of the same file would make.
    """

    def __init__(self, known: Mapping[IdentityKey, object]) -> None:
        self._known = dict(known)
        self.claimed: dict[IdentityKey, object] = {}
        """Keys that these rows would take, each with what stands for its lead."""

    def contradicts_id(self, keys: Sequence[IdentityKey]) -> bool:
        """As of `CaptureUnitOfWork`."""
        by_kind = dict(keys)
        owner = self._known.get(("external", by_kind["external"])) if "external" in by_kind else None
        if owner is None:
            return False
        email = "known" if has_address(owner) in self._known else None
        return contradicts(owner, by_kind, self._known, email)

    def preview_row(self, keys: Sequence[IdentityKey], verdict: str, number: int) -> Outcome:
        """The outcome of the row with this number."""
        if verdict == "rejected":
            return "rejected"
        found = {self._known[key] for key in keys if key in self._known}
        lead = next(iter(found), number)
        marks = [has_address(lead)] if any(kind == "email" for kind, _ in keys) else []
        for key in (*keys, *marks):
            if key not in self._known:
                self._known[key] = self.claimed[key] = lead
        if verdict == "quarantined":
            return "quarantined"
        return "created" if not found else "merged" if len(found) > 1 else "updated"
