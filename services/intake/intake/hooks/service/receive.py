"""Receives what a tool sends to a source: verified over the raw bytes first, then read, each event with an outcome of its own. When it
returns, everything is saved: as a lead, as an activity, or as an event that waits or is kept. Secrets and contents are never logged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import orjson
import structlog
from msgspec import Struct
from msgspec.structs import replace
from pydantic import JsonValue, TypeAdapter, ValidationError

from accord.batching import GroupCommit, Overloaded
from accord.clock import utc_now
from accord.contracts.external_key import external_key
from accord.contracts.values import Timestamp, normalize_text
from accord.db import Database, is_transient
from accord.http.idempotency import Answer, IdempotencyRequest, IdempotentResult, make_idempotency_request
from accord.http.problems import Problem, not_found, to_problem
from accord.ids import new_id
from accord.terms.findings import Finding
from intake.capture.service.capture import CaptureResult
from intake.capture.service.record import ActivityRequest, ActivityResult, Recorded
from intake.hooks import queries as hook_events
from intake.hooks.domain.payload_mapping import build_activities
from intake.hooks.domain.validation import ACTIVITIES, validate_document
from intake.hooks.queries import HookAction, NewEvent, State
from intake.hooks.service.body import parse_hook_body
from intake.hooks.service.source_cache import PreparedSource, SourceCache
from intake.hooks.service.validation import validate_submission
from intake.leads.domain.keys import format_key
from intake.leads.domain.submission import CLOCK_SKEW_MAX
from intake.leads.domain.usable_ids import read_id
from intake.leads.service.merge_group import RecordNotFound
from intake.leads.service.normalization import parse_email, parse_phone
from intake.leads.service.submissions import NO_ADDRESS, CaptureRequest
from intake.metric_names import HOOK_EVENTS, HOOK_REFUSED
from intake.sources.domain.adapters.base import (
    EVENTS_MAX,
    ActivityOccurred,
    AnyAdapter,
    Deleted,
    HandshakeResponse,
    HookRequest,
    Ignored,
    Linked,
    RecordReference,
    Submitted,
    ToolEvent,
    Unreadable,
)
from intake.sources.domain.mapping import normalize_time
from intake.sources.domain.signatures import Refusal

log = structlog.get_logger(__name__)

FIRST_RETRY_AFTER = timedelta(seconds=30)
"""How long an activity of somebody who is not known yet waits for the first time."""
DELETION_WAITS = timedelta(minutes=5)
"""How long a deletion waits for word that its record was merged into another (ADR 96)."""
_TIME: TypeAdapter[datetime] = TypeAdapter(Timestamp)
_ERASED = "the person was erased"
_PORTION_EVENTS = 1_000
"""Events of one body that are under way together."""
_LOCAL, _DOMAIN = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+\Z"), re.compile(r"[A-Za-z0-9.-]*[A-Za-z0-9]")
_LOCAL_MAX, _DOMAIN_MAX = 64, 253
_NUMBER = re.compile(r"(?:\+|\b00)([1-9][0-9 ()./-]{5,24}[0-9])")
_ADDRESSES_MAX = 50


class Outcome(Struct, frozen=True):
    """What became of one event: created, updated, merged, rejected (by the policy), recorded (an activity), waiting (for a record, a lead
    or an erasure), failed (it could not be processed), ignored or replayed (it came before)."""

    event_id: str
    outcome: str
    lead_id: str | None = None
    submission_id: str | None = None
    verdict: str | None = None
    reason: str | None = None
    left_out: tuple[Finding, ...] = ()


@dataclass(slots=True)
class _EventBatch:
    """One body under way: the outcomes by event id, and what is to be kept."""

    name: str
    now: datetime
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    stored: list[NewEvent] = field(default_factory=list, repr=False)

    def store(
        self,
        said: ToolEvent,
        action: HookAction,
        reference: JsonValue,
        content: str,
        *,
        keys: Sequence[str] = (),
        state: State = "waiting",
        error: str | None = None,
        after: timedelta = timedelta(),
        at: JsonValue = None,
    ) -> None:
        # An address or a number that stands anywhere in it leads an erasure to it, also where nobody was identified.
        keys = list(dict.fromkeys((*keys, *_extract_addresses(content), *_extract_numbers(content))))
        occurred_at = parse_event_time(at, self.now)
        due_at = self.now + after
        self.stored.append(
            NewEvent(
                new_id(), self.name, said.event_id, action, reference, keys, content, state, due_at, error, occurred_at
            )
        )
        self.outcomes[said.event_id] = Outcome(said.event_id, state, reason=error)


class HookReceiver:
    """The use case. `bytes_max`: what a body may have once it is inflated."""

    def __init__(
        self,
        database: Database,
        sources: SourceCache,
        captures: GroupCommit[CaptureRequest, IdempotentResult[CaptureResult]],
        activities: GroupCommit[ActivityRequest, IdempotentResult[ActivityResult]],
        bytes_max: int,
    ) -> None:
        self._database = database
        self._bytes_max = bytes_max
        self._sources = sources
        self._captures = captures
        self._activities = activities

    async def get_source(self, name: str) -> PreparedSource:
        """The source, with its adapter. Raises Problem 404, or 409 for a source that no tool sends to."""
        prepared = await self._sources.find(normalize_text(name))
        if prepared is None:
            raise not_found("source")
        if prepared.adapter is None:
            raise Problem(
                409,
                "no-adapter",
                "No tool is configured for this source",
                "Put an adapter into the source to have it take events of a tool.",
            )
        return prepared

    def handshake(self, prepared: PreparedSource, request: HookRequest) -> HandshakeResponse:
        """The answer to a tool's handshake. Raises Problem 401, or 405 for a tool that has none."""
        adapter = _adapter(prepared)
        if adapter.handshake is None or adapter.handshake_method != request.method:
            allowed = ["POST"] if adapter.handshake is None else [adapter.handshake_method, "POST"]
            raise Problem(405, headers={"Allow": ", ".join(allowed)})
        answer = adapter.handshake(request, prepared.secrets(utc_now()), prepared.settings)
        if isinstance(answer, HandshakeResponse):
            return answer
        raise _verification_failed(prepared.source.name, answer)

    def verify(self, prepared: PreparedSource, request: HookRequest) -> None:
        """Raises Problem 401 unless the request was made by somebody who knows the source's secret."""
        now = utc_now()
        verification = _adapter(prepared).verify(request, prepared.secrets(now), prepared.settings, now)
        if verification.refusal is not None:
            raise _verification_failed(prepared.source.name, verification.refusal)

    async def ingest(self, prepared: PreparedSource, request: HookRequest) -> list[Outcome]:
        """Save all that a verified request says; an outcome for each event, in order.

        Raises Problem 400, 413 or 415 for a body that cannot be read, with nothing saved; Overloaded and what
        is transient with nothing lost: the tool sends it again, and what was saved already is replayed then.
        """
        adapter = _adapter(prepared)
        request, document, whole = parse_hook_body(adapter, request, self._bytes_max)
        said = list(islice(adapter.read(request, document, prepared.settings), EVENTS_MAX + 1))
        if len(said) > EVENTS_MAX:
            raise Problem(413, "too-many-events", "Too many events", f"A body may hold {EVENTS_MAX} events.")
        first = {one.event_id: place for place, one in reversed(list(enumerate(said)))}
        outcomes: dict[str, Outcome] = {}
        ordered = [said[place] for place in sorted(first.values())]
        for start in range(0, len(ordered), _PORTION_EVENTS):
            portion = ordered[start : start + _PORTION_EVENTS]
            texts = {one.event_id: _event_text(one, document, whole) for one in portion}
            outcomes |= await self._ingest_portion(prepared, portion, texts)
        found = [
            outcomes[one.event_id]
            if first[one.event_id] == place
            else replace(outcomes[one.event_id], outcome="replayed")
            for place, one in enumerate(said)
        ]
        for outcome in found:
            HOOK_EVENTS.labels(prepared.source.name, outcome.outcome).inc()
        return found

    async def _ingest_portion(
        self, prepared: PreparedSource, said: Sequence[ToolEvent], texts: Mapping[str, str]
    ) -> dict[str, Outcome]:
        """Save some events of a body; the outcomes by event id."""
        body = _EventBatch(prepared.source.name, utc_now())
        await self._submit(prepared, body, [one for one in said if isinstance(one, Submitted)], texts)
        await self._record(prepared, body, said, texts)
        self._store_others(prepared, body, said, texts)
        await self._save_stored(body)
        return body.outcomes

    async def _submit(
        self, prepared: PreparedSource, body: _EventBatch, said: Sequence[Submitted], texts: Mapping[str, str]
    ) -> None:
        """Submissions, in the group commit of all others: policy, identity and keys apply alike."""
        mapper = prepared.mapper
        assert mapper is not None  # noqa: S101 - there is an adapter
        requests: list[tuple[Submitted, CaptureRequest]] = []
        for one in said:
            document = {**mapper.map_submission(one.view), "source": body.name}
            if one.updates_only:
                body.store(one, "update", one.view, texts[one.event_id], keys=extract_keys(body.name, document))
                continue
            validated = validate_submission(document, body.now)
            if validated.value is None:
                body.store(
                    one,
                    "submit",
                    one.view,
                    texts[one.event_id],
                    keys=extract_keys(body.name, document),
                    **_failed_state(validated.errors),
                )
                continue
            request = CaptureRequest(
                validated.value,
                texts[one.event_id],
                caller_name(body.name),
                event_idempotency_request(body.name, one.event_id),
                left_out=validated.left_out,
            )
            requests.append((one, request))
        results = await self._captures.submit_all([request for _, request in requests])
        for (one, request), done in zip(requests, results, strict=True):
            outcome = _capture_outcome(one, done)
            if outcome is not None:
                body.outcomes[one.event_id] = outcome
                continue
            said_of = request.submission.model_dump(mode="json", include={"email", "phone", "external_id"})
            error = _describe_failure(done)
            body.store(
                one,
                "submit",
                one.view,
                texts[one.event_id],
                keys=extract_keys(body.name, said_of),
                **_failed_state(error),
            )

    async def _record(
        self, prepared: PreparedSource, body: _EventBatch, said: Sequence[ToolEvent], texts: Mapping[str, str]
    ) -> None:
        """Activities, by the first way of naming the person that leads to somebody. One of somebody who is not known yet waits for a
        day: their data may be on its way."""
        events = [
            as_activity(one) if isinstance(one, Deleted) and not (one.erase or one.waits) else one for one in said
        ]
        waiting = [
            (one, build_activities(body.name, one, prepared.source.defaults))
            for one in events
            if isinstance(one, ActivityOccurred)
        ]
        alternatives = {one.event_id: found for one, found in waiting}
        while waiting:
            waiting = await self._record_by(body, waiting, texts)
        for one in events:
            if isinstance(one, ActivityOccurred) and one.event_id not in body.outcomes:
                keys = _person_keys(body.name, one)
                reference: JsonValue = {"ways": list[JsonValue](alternatives[one.event_id])}
                text = texts[one.event_id]
                body.store(one, "activity", reference, text, keys=keys, after=FIRST_RETRY_AFTER, at=one.occurred_at)
                body.outcomes[one.event_id] = Outcome(one.event_id, "waiting", reason="no such lead yet")

    async def _record_by(
        self,
        body: _EventBatch,
        events: Sequence[tuple[ActivityOccurred, list[dict[str, JsonValue]]]],
        texts: Mapping[str, str],
    ) -> list[tuple[ActivityOccurred, list[dict[str, JsonValue]]]]:
        """Try each activity by the first of its ways; those that led to nobody and have another way."""
        requests: list[tuple[ActivityOccurred, ActivityRequest]] = []
        for one, (document, *_) in events:
            validated = validate_document(ACTIVITIES, document, body.now)
            if validated.value is None:
                self._store_activity(body, one, document, texts, validated.errors)
            else:
                idempotency_request = event_idempotency_request(body.name, one.event_id)
                requests.append(
                    (
                        one,
                        ActivityRequest(
                            validated.value, caller_name(body.name), idempotency_request, validated.left_out
                        ),
                    )
                )
        results = await self._activities.submit_all([request for _, request in requests])
        nobody: set[str] = set()
        for (one, request), done in zip(requests, results, strict=True):
            outcome = _activity_outcome(one, done)
            if outcome is not None:
                body.outcomes[one.event_id] = outcome
            elif isinstance(done, IdempotentResult) and (
                isinstance(done.result, RecordNotFound) or (done.result == NO_ADDRESS and one.external_id is not None)
            ):
                nobody.add(one.event_id)
            else:
                said: JsonValue = request.activity.model_dump(mode="json", exclude_unset=True)
                self._store_activity(body, one, said, texts, _describe_failure(done))
        return [
            (one, alternatives[1:]) for one, alternatives in events if one.event_id in nobody and len(alternatives) > 1
        ]

    @staticmethod
    def _store_activity(
        body: _EventBatch, one: ActivityOccurred, document: JsonValue, texts: Mapping[str, str], error: str
    ) -> None:
        keys = _person_keys(body.name, one)
        body.store(one, "activity", {"ways": [document]}, texts[one.event_id], keys=keys, **_failed_state(error))

    def _store_others(
        self, prepared: PreparedSource, body: _EventBatch, said: Sequence[ToolEvent], texts: Mapping[str, str]
    ) -> None:
        """What is neither a submission nor an activity. Several events about one record are one fetch."""
        fetched: dict[str, int] = {}
        for one in said:
            if isinstance(one, Ignored):
                body.outcomes[one.event_id] = Outcome(one.event_id, "ignored", reason=one.reason)
            elif isinstance(one, Unreadable):
                body.store(one, "submit", one.content, texts[one.event_id], **_failed_state(one.reason))
            elif isinstance(one, Deleted) and (one.erase or one.waits):
                self._store_deletion(prepared, body, one)
            elif isinstance(one, Linked):
                if not _store_link(body, one):
                    body.outcomes[one.event_id] = Outcome(one.event_id, "ignored", reason="no-two-ids")
            elif isinstance(one, RecordReference):
                if one.merged_ids:
                    _store_link(body, Linked(f"{one.event_id}:ids", one.external_id, one.merged_ids))
                if (place := fetched.get(one.external_id)) is not None:
                    stored, at = body.stored[place], parse_event_time(one.occurred_at, body.now)
                    body.stored[place] = stored._replace(occurred_at=max(stored.occurred_at, at))
                    body.outcomes[one.event_id] = Outcome(
                        one.event_id, "waiting", reason="one fetch for several events"
                    )
                    continue
                fetched[one.external_id] = len(body.stored)
                keys = [format_key(("external", external_key(body.name, one.external_id)))]
                body.store(one, "fetch", dict(one.reference), texts[one.event_id], keys=keys, at=one.occurred_at)

    @staticmethod
    def _store_deletion(prepared: PreparedSource, body: _EventBatch, one: Deleted) -> None:
        """An erasure; or, of a deletion that waits and erases nobody, the note that it becomes."""
        reference: dict[str, JsonValue] = {**one.person, "only_record": one.only_record, "waits": one.waits}
        if not one.erase:
            reference["ways"] = list[JsonValue](build_activities(body.name, as_activity(one), prepared.source.defaults))
        after = DELETION_WAITS if one.waits else timedelta()
        action: HookAction = "erase" if one.erase else "activity"
        body.store(
            one, action, reference, "", keys=extract_keys(body.name, one.person), after=after, at=one.occurred_at
        )

    async def _save_stored(self, body: _EventBatch) -> None:
        if not body.stored:
            return
        async with self._database.write_transaction() as unit_of_work:
            fresh = await hook_events.insert(await unit_of_work.connection(), body.stored, unit_of_work.now)
        for row in body.stored:
            if row.event_id not in fresh:
                body.outcomes[row.event_id] = Outcome(row.event_id, "replayed")


def caller_name(source: str) -> str:
    """Who submits what a tool has sent."""
    return f"hook:{source}"


def event_idempotency_request(source: str, event_id: str) -> IdempotencyRequest:
    """The idempotency key of an event. Its content is the event's id: sent again with another attempt's number, it is the same."""
    return make_idempotency_request(caller_name(source), event_id, event_id.encode())


def parse_event_time(said: JsonValue, now: datetime) -> datetime:
    """The moment that a tool says; now where it says none that can be."""
    try:
        at = _TIME.validate_python(normalize_time(said))
    except ValidationError:
        return now
    return at if at <= now + CLOCK_SKEW_MAX else now


def as_activity(said: Deleted) -> ActivityOccurred:
    """A deletion that nobody's wish is behind: something that marketing did."""
    return ActivityOccurred(
        said.event_id,
        "record.deleted",
        "marketing",
        said.content,
        said.person["email"],
        said.external_id,
        said.occurred_at,
    )


def _store_link(body: _EventBatch, said: Linked) -> bool:
    """Ids that are one person's, if two of them name somebody. It is found by those that lead to another now, so that they are not taken
    for deleted."""
    ids = list(dict.fromkeys(id_ for one in (said.external_id, *said.other_ids) if (id_ := read_id(one))))
    if len(ids) > 1:
        keys = [format_key(("external", external_key(body.name, id_))) for id_ in ids[1:]]
        body.store(said, "link", {"ids": list[JsonValue](ids)}, "", keys=keys)
    return len(ids) > 1


def _event_text(said: ToolEvent, document: JsonValue, whole: str | None) -> str:
    """The event's JSON: as it came where it is all of the body."""
    content = getattr(said, "content", None)
    if whole is not None and content is document:
        return whole
    return orjson.dumps(content).decode()


def extract_keys(source: str, document: Mapping[str, Any]) -> list[str]:
    """The identity keys that can be identified in a document, as words."""
    words: list[str] = []
    email, phone, external_id = (document.get(name) for name in ("email", "phone", "external_id"))
    if isinstance(email, str) and (address := parse_email(email).address):
        words.append(format_key(("email", address)))
    if isinstance(phone, str) and (number := parse_phone(phone, None).e164):
        words.append(format_key(("phone", number)))
    if isinstance(external_id, str) and (id_ := read_id(external_id)):
        words.append(format_key(("external", external_key(source, id_))))
    return words


def _extract_addresses(text: str) -> list[str]:
    """The e-mail addresses in a text, as key words; bounded."""
    found: dict[str, None] = {}
    for sign in islice(re.finditer("@", text), _ADDRESSES_MAX):
        before, after = (
            text[max(0, sign.start() - _LOCAL_MAX) : sign.start()],
            text[sign.end() : sign.end() + _DOMAIN_MAX],
        )
        local, domain = _LOCAL.search(before), _DOMAIN.match(after)
        if local is not None and domain is not None:
            found[f"{local[0]}@{domain[0]}"] = None
    return [format_key(("email", address)) for one in found if (address := parse_email(one).address)]


def _extract_numbers(text: str) -> list[str]:
    """The telephone numbers in international form in a text, as key words; bounded. Others would need to know whose country it is."""
    found = dict.fromkeys("+" + said[1] for said in islice(_NUMBER.finditer(text), _ADDRESSES_MAX))
    return [format_key(("phone", number)) for one in found if (number := parse_phone(one, None).e164)]


def _person_keys(source: str, said: ActivityOccurred) -> list[str]:
    return extract_keys(source, {"email": said.email, "external_id": said.external_id})


def _failed_state(error: str) -> dict[str, Any]:
    return {"state": "failed", "error": error}


def _capture_outcome(said: Submitted, done: IdempotentResult[CaptureResult] | Exception) -> Outcome | None:
    """The outcome of a submission that was taken; None for one that was not. Raises what may pass."""
    if isinstance(done, Exception):
        _raise_if_transient(done)
        return None
    taken = done.result
    if taken is None:
        return _replayed_outcome(said, done.answer)
    if isinstance(taken, Finding):
        return None
    lead_id = None if taken.lead_id is None else str(taken.lead_id)
    reason = taken.quality.rejection_reason if taken.outcome is None else None
    verdict = taken.quality.verdict
    submission_id = str(taken.submission_id)
    return Outcome(said.event_id, taken.outcome or "rejected", lead_id, submission_id, verdict, reason, taken.left_out)


def _replayed_outcome(said: Submitted, answer: Answer) -> Outcome:
    """The outcome of a submission that came before, out of the answer that was saved then."""
    if answer.status == 410:
        return Outcome(said.event_id, "ignored", reason=_ERASED)
    body = orjson.loads(answer.body)
    verdict = "rejected" if answer.status == 422 else body["verdict"]
    return Outcome(said.event_id, "replayed", body.get("lead_id"), body["submission_id"], verdict, body.get("detail"))


def _activity_outcome(said: ActivityOccurred, done: IdempotentResult[ActivityResult] | Exception) -> Outcome | None:
    """The outcome of an activity that was recorded, or whose lead was erased; None for one that was not. Raises what may pass."""
    if isinstance(done, Exception):
        _raise_if_transient(done)
        return None
    answer = done.answer
    if answer.status == 410:
        return Outcome(said.event_id, "ignored", reason=_ERASED)
    if answer.subject is None:
        return None
    left_out = done.result.left_out if isinstance(done.result, Recorded) else ()
    return Outcome(said.event_id, "replayed" if answer.replayed else "recorded", str(answer.subject), left_out=left_out)


def _raise_if_transient(error: Exception) -> None:
    if isinstance(error, Problem) and error.status == 409:  # the same event is being taken at this moment
        raise Overloaded(1.0)
    if isinstance(error, Overloaded) or is_transient(error):
        raise error


def _describe_failure(done: IdempotentResult[CaptureResult] | IdempotentResult[ActivityResult] | Exception) -> str:
    """Why one event was not taken, without any of its values."""
    if isinstance(done, IdempotentResult):
        return f"{done.result.pointer}: {done.result.message}" if isinstance(done.result, Finding) else "refused"
    problem = to_problem(done)
    if problem is not None:
        return problem.title
    # The others of the body are saved, and this one is kept for when the defect is mended.
    log.error("hook_event_failed", exc_info=done)
    return "something went wrong here"


def _adapter(prepared: PreparedSource) -> AnyAdapter:
    assert prepared.adapter is not None  # noqa: S101 - `get_source` has checked
    return prepared.adapter


_REFUSALS: Mapping[Refusal, str] = {
    "no-secret": "The source has no secret of this kind, so nothing can be verified.",
    "missing": "The request bears no signature or secret of the form that this tool has.",
    "wrong": "The signature or secret is not one of this source.",
    "stale": "The signed time lies more than five minutes back.",
    "ahead": "The signed time lies more than five minutes ahead.",
}


def _verification_failed(source: str, refusal: Refusal) -> Problem:
    HOOK_REFUSED.labels(source, refusal).inc()
    return Problem(
        401,
        "webhook-verification-failed",
        "Webhook verification failed",
        _REFUSALS[refusal],
        headers={"WWW-Authenticate": 'Hook realm="accord"'},
        reason=refusal,
    )
