"""The one shape of all adapters: how a request of a tool is verified, and what it says. Pure; nothing here asks a network or a clock.

`verify` sees the raw bytes and comes first. `read` parses the body of a verified request into events, one after the other as they are
asked for; one that cannot be understood is `Unreadable`, which is kept, and spoils no other; `Ignored` is what is understood. `fetch`
says how a record is fetched that an event only names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, Protocol, TypeVar

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, JsonValue

from accord.contracts.values import ActorKind, Party, normalize_text
from intake.sources.domain.mapping import Rule, number_to_text
from intake.sources.domain.signatures import Refusal

EVENT_ID_CHARS_MAX = 200
EVENTS_MAX = 10_000
"""Events of one body; one with more is refused whole. HubSpot sends up to 100, Mautic and CloudEvents as many as are configured."""

TOKEN = "token"  # noqa: S105 - the kind of a secret, no secret
"""The kind of a secret that is sent out, to the tool's own API."""

Secrets = Mapping[str, Sequence[bytes]]
"""The secrets that are valid now, by kind; two of one kind while a tool is being changed over."""


@dataclass(frozen=True, slots=True)
class HookRequest:
    """One call of a tool, as it came. `headers` have lower-case names. `url` is the public one, with the query as it was written."""

    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)
    path_secret: str | None = field(default=None, repr=False)
    """What stands behind the source's name in the path."""
    has_api_key: bool = False
    """Whether the caller has an API key of Accord that may write leads."""
    call: str | None = None
    """The method of a tool's own API that was called below the source's address, such as `batch`."""

    @property
    def media_type(self) -> str:
        """What the body is said to be, in lower case, without parameters; empty if nothing is said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_json(self) -> bool:
        """Whether the body is said to be JSON, or nothing is said."""
        return self.media_type in ("", "application/json", "text/json") or self.media_type.endswith("+json")


class Verification(Struct, frozen=True, gc=False):
    """Whether the request was made by somebody who knows the source's secret; `refusal` says why not."""

    refusal: Refusal | None = None

    @property
    def is_verified(self) -> bool:
        return self.refusal is None


class HandshakeResponse(Struct, frozen=True, gc=False):
    """The answer to a tool's handshake."""

    status: int
    body: str
    media_type: str = "text/plain"
    headers: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Submitted:
    """Somebody's data. `view` is the document that mappings point into: the event, with lists of fields turned into objects by name."""

    event_id: str
    view: JsonValue = field(repr=False)
    content: JsonValue = field(repr=False)
    """The event as it came."""
    updates_only: bool = False
    """It says something of somebody who is known, and makes nobody known."""


@dataclass(frozen=True, slots=True)
class ActivityOccurred:
    """Something that a known person did, or that was done to them. `email` or `external_id` names the person."""

    event_id: str
    kind: str
    by: Party
    content: JsonValue = field(repr=False)
    email: str | None = field(default=None, repr=False)
    external_id: str | None = None
    occurred_at: JsonValue = None
    campaign: Mapping[str, JsonValue] = field(default_factory=dict)
    properties: Mapping[str, JsonValue] = field(default_factory=dict, repr=False)
    actor_kind: ActorKind | None = None
    """None where the tool does not tell."""


@dataclass(frozen=True, slots=True)
class RecordReference:
    """An event that names a record and does not hold it. `reference` is what `fetch` needs to ask for it. `merged_ids`: records that were
    merged into it."""

    event_id: str
    external_id: str
    reference: Mapping[str, JsonValue]
    content: JsonValue = field(repr=False)
    occurred_at: JsonValue = None
    merged_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Linked:
    """The tool says that these ids are of one person: `other_ids` lead to whom `external_id` names."""

    event_id: str
    external_id: str
    other_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """The tool's record of a person is gone. `email` counts only without `external_id`: what else stands in the event may be of whom the
    record was merged into."""

    event_id: str
    content: JsonValue = field(repr=False)
    external_id: str | None = None
    email: str | None = field(default=None, repr=False)
    erase: bool = False
    """Whether everything that we hold goes too."""
    occurred_at: JsonValue = None
    only_record: bool = False
    """Nobody's wish is behind it: of a person whom the tool knows by another id too, only this id goes."""
    waits: bool = False
    """It is not acted on at once, since the tool says the same of a record that it merges into another."""

    @property
    def person(self) -> dict[str, str | None]:
        """By what it names the person."""
        return {"email": None if self.external_id else self.email, "external_id": self.external_id}


class Ignored(Struct, frozen=True, gc=False):
    """An event about no person, or one that means nothing here. `reason` is one of a few words of the adapter."""

    event_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An event without what it must have. It is kept, with the reason, for somebody to look at."""

    event_id: str
    reason: str
    content: JsonValue = field(repr=False)


ToolEvent = Submitted | ActivityOccurred | RecordReference | Linked | Deleted | Ignored | Unreadable


class HookSettings(BaseModel):
    """The settings that every adapter has."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """One GET of the outbound port: a URL, headers, and the secret that goes into `Authorization: Bearer`. `optional`: without an
    answer the record is read all the same."""

    part: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str = TOKEN
    optional: bool = False


Settings = TypeVar("Settings", bound=HookSettings)
_Settings_contra = TypeVar("_Settings_contra", bound=HookSettings, contravariant=True)

Answers = Mapping[str, JsonValue]
"""What was answered to the asks of one record, by their `part`."""


class Fetch(Protocol[_Settings_contra]):
    """How a record is fetched that an event only names: the next request, given the answers so far (None: no more), and the view of all."""

    def next_request(
        self, reference: Mapping[str, JsonValue], answers: Answers, settings: _Settings_contra
    ) -> FetchRequest | None: ...

    def build_view(self, event: JsonValue, answers: Answers, settings: _Settings_contra) -> JsonValue: ...


BodyFormat = Literal["json", "form", "either", "any"]
"""`either`: a form where the sender says so, else JSON. `any`: JSON where the sender says so or says nothing, else text, else base64."""


def accept_any_secret(_use: str, _secret: str) -> str | None:
    """For tools whose secrets have no form."""
    return None


class Adapter(Struct, Generic[Settings], frozen=True, gc=False):
    """One tool. `secret_kinds` are the secrets that it knows, with what each is for; `fields` and `attribute_sources` how its view
    becomes a submission.

    `attribute_sources` names places of the view whose single values become attributes of the same name, unless a rule of `fields`
    has taken them.
    """

    name: str
    title: str
    secret_kinds: Mapping[str, str]
    settings: type[Settings]
    verify: Callable[[HookRequest, Secrets, Settings, datetime], Verification]
    read: Callable[[HookRequest, JsonValue, Settings], Iterable[ToolEvent]]
    fields: Mapping[str, Rule]
    attribute_sources: tuple[str, ...] = ()
    body: BodyFormat = "json"
    handshake: Callable[[HookRequest, Secrets, Settings], HandshakeResponse | Refusal] | None = None
    handshake_method: Literal["GET", "OPTIONS"] = "GET"
    calls: frozenset[str] = frozenset()
    """Methods of the tool's own API that are answered below the source's address, for its SDKs."""
    fetch: Fetch[Settings] | None = None
    validate_secret: Callable[[str, str], str | None] = accept_any_secret
    """What is wrong with a secret of this kind; None if nothing is."""


AnyAdapter = Adapter[Any]
"""An adapter of the table, whose settings are known to be its own."""


def digest_id(*parts: JsonValue) -> str:
    """An event id of what was said, for tools that give none: the same event sent again has the same."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def event_id(*parts: JsonValue) -> str:
    """An event id of the tool's own words, of bounded length."""
    text = ":".join(str(part) for part in parts)
    return text if len(text) <= EVENT_ID_CHARS_MAX and text.isprintable() else digest_id(text)


def as_object(value: JsonValue) -> dict[str, JsonValue]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: JsonValue) -> list[JsonValue]:
    """The value if it is a list, else a list of none."""
    return value if isinstance(value, list) else []


def to_text(value: JsonValue) -> str | None:
    """A text that says something, or a number as fields have it; None for anything else."""
    text = number_to_text(value)
    return normalize_text(text) or None if isinstance(text, str) else None


def reject_constant(name: str) -> JsonValue:
    """For `parse_constant`: NaN and the infinities are no JSON. Raises ValueError."""
    raise ValueError(f"{name} is no JSON")


def split_full_name(full: str) -> tuple[str, str | None]:
    """First and last name: the last word is taken for the last name."""
    first, _, last = full.rpartition(" ")
    return (first, last) if first else (last, None)
