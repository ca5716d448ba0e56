"""Takes in what a tool sends to a source: proved over the raw bytes first, read after that, each event with an outcome of its own. When it
returns, everything is saved: as a lead, as an activity, or as an event that waits or is kept. Secrets and contents are never logged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import orjson
import structlog
from pydantic import JsonValue, TypeAdapter, ValidationError

from accord.batching import GroupCommit, Overloaded
from accord.clock import utc_now
from accord.contracts.external_key import external_key
from accord.contracts.values import Timestamp
from accord.db import Database, is_transient
from accord.http.idempotency import Answer, IdempotencyRequest, IdempotentResult, make_idempotency_request
from accord.http.problems import Problem, not_found, to_problem
from accord.ids import new_id
from accord.terms.findings import Finding
from intake.capture.service.capture import CaptureResult
from intake.capture.service.record import ActivityRequest, ActivityResult
from intake.hooks import queries as hook_events
from intake.hooks.domain.documents import ACTIVITIES, SUBMISSIONS, formed
from intake.hooks.domain.taking import activities
from intake.hooks.queries import Act, NewEvent, State
from intake.hooks.service.body import parsed
from intake.hooks.service.known import KnownSources, Ready
from intake.leads.domain.keys import key_word
from intake.leads.domain.submission import AHEAD_MAX
from intake.leads.service.family import NotThere
from intake.leads.service.person import CaptureRequest
from intake.leads.service.recognise import email_facts, phone_facts
from intake.metric_names import HOOK_EVENTS, HOOK_REFUSED
from intake.sources.domain.adapters.base import (
    Acted,
    AnyAdapter,
    Deleted,
    Greeting,
    HookRequest,
    Ignored,
    Said,
    Submitted,
    Thin,
    Unreadable,
)
from intake.sources.domain.mapping import as_moment
from intake.sources.domain.signatures import Refusal

log = structlog.get_logger(__name__)

FIRST_LOOK_AFTER = timedelta(seconds=30)
"""How long an activity of somebody who is not known yet waits for the first time."""
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Timestamp)
_ERASED = "the person was erased"
_LOCAL, _DOMAIN = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+\Z"), re.compile(r"[A-Za-z0-9.-]*[A-Za-z0-9]")
_LOCAL_MAX, _DOMAIN_MAX = 64, 253
_ADDRESSES_MAX = 50


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one event: created, updated, merged, rejected (by the policy), recorded (an activity), waiting (for a record, a lead
    or an erasure), kept (it could not be taken), ignored or replayed (it came before)."""

    event_id: str
    outcome: str
    lead_id: str | None = None
    submission_id: str | None = None
    verdict: str | None = None
    reason: str | None = None
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class _Body:
    """One body under way: the outcomes by event id, and what is to be kept."""

    name: str
    now: datetime
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    kept: list[NewEvent] = field(default_factory=list, repr=False)

    def keep(
        self,
        said: Said,
        act: Act,
        reference: JsonValue,
        content: str,
        *,
        keys: Sequence[str] = (),
        state: State = "waiting",
        error: str | None = None,
        after: timedelta = timedelta(),
        at: JsonValue = None,
    ) -> None:
        # An address that stands anywhere in it leads an erasure to it, also where nobody was recognised.
        keys = list(dict.fromkeys((*keys, *_addresses_in(content))))
        occurred_at = moment_of(at, self.now)
        due_at = self.now + after
        self.kept.append(
            NewEvent(
                new_id(), self.name, said.event_id, act, reference, keys, content, state, due_at, error, occurred_at
            )
        )
        self.outcomes[said.event_id] = Outcome(said.event_id, "waiting" if state == "waiting" else "kept", reason=error)


class Hooks:
    """The use case."""

    def __init__(
        self,
        database: Database,
        known: KnownSources,
        captures: GroupCommit[CaptureRequest, IdempotentResult[CaptureResult]],
        activities: GroupCommit[ActivityRequest, IdempotentResult[ActivityResult]],
    ) -> None:
        self._database = database
        self._known = known
        self._captures = captures
        self._activities = activities

    async def source(self, name: str) -> Ready:
        """The source, with its adapter. Raises Problem 404, or 409 for a source that no tool sends to."""
        ready = await self._known.find(name)
        if ready is None:
            raise not_found("source")
        if ready.adapter is None:
            raise Problem(
                409,
                "no-adapter",
                "No tool is configured for this source",
                "Put an adapter into the source to have it take events of a tool.",
            )
        return ready

    def greet(self, ready: Ready, request: HookRequest) -> Greeting:
        """The answer to a tool's handshake. Raises Problem 401, or 405 for a tool that has none."""
        adapter = _adapter(ready)
        if adapter.greet is None:
            raise Problem(405, headers={"Allow": "POST"})
        answer = adapter.greet(request, ready.secrets(utc_now()), ready.settings)
        if isinstance(answer, Greeting):
            return answer
        raise _unproved(ready.source.name, answer)

    def prove(self, ready: Ready, request: HookRequest) -> None:
        """Raises Problem 401 unless the request was made by somebody who knows the source's secret."""
        now = utc_now()
        proof = _adapter(ready).prove(request, ready.secrets(now), ready.settings, now)
        if proof.refusal is not None:
            raise _unproved(ready.source.name, proof.refusal)

    async def ingest(self, ready: Ready, request: HookRequest) -> list[Outcome]:
        """Save all that a proved request says; an outcome for each event, in order.

        Raises Problem 400 or 415 for a body that cannot be read, Overloaded and what is transient with nothing lost: the tool sends it
        again, and what was saved already is replayed then.
        """
        adapter = _adapter(ready)
        document, clean = parsed(adapter, request)
        said = adapter.read(request, document, ready.settings)
        whole = request.body.decode() if clean else None
        body = _Body(ready.source.name, utc_now())
        events = {one.event_id: one for one in reversed(said)}
        ordered = [events[id_] for id_ in dict.fromkeys(one.event_id for one in said)]
        texts = {one.event_id: _text(one, document, whole) for one in ordered}
        await self._submit(ready, body, [one for one in ordered if isinstance(one, Submitted)], texts)
        await self._record(ready, body, ordered, texts)
        self._put_aside(ready, body, ordered, texts)
        await self._keep(body)
        outcomes = [body.outcomes[one.event_id] for one in ordered]
        for outcome in outcomes:
            HOOK_EVENTS.labels(body.name, outcome.outcome).inc()
        return outcomes

    async def _submit(self, ready: Ready, body: _Body, said: Sequence[Submitted], texts: Mapping[str, str]) -> None:
        """Submissions, in the group commit of all others: policy, identity and keys apply alike."""
        taking = ready.taking
        assert taking is not None  # noqa: S101 - there is an adapter
        asked: list[tuple[Submitted, CaptureRequest, tuple[str, ...]]] = []
        for one in said:
            document = {**taking.submission(one.view), "source": body.name}
            form = formed(SUBMISSIONS, document, body.now)
            if form.form is None:
                body.keep(
                    one,
                    "submit",
                    one.view,
                    texts[one.event_id],
                    keys=keys_in(body.name, document),
                    **_given_up(form.flaws),
                )
                continue
            request = CaptureRequest(
                form.form, texts[one.event_id], caller(body.name), idempotency_request(body.name, one.event_id)
            )
            asked.append((one, request, form.left_out))
        became = await self._captures.submit_all([request for _, request, _ in asked])
        for (one, request, left_out), done in zip(asked, became, strict=True):
            outcome = _captured(one, done)
            if outcome is not None:
                body.outcomes[one.event_id] = replace(outcome, left_out=left_out)
                continue
            said_of = request.submission.model_dump(mode="json", include={"email", "phone", "external_id"})
            flaw = _flaw(done)
            body.keep(one, "submit", one.view, texts[one.event_id], keys=keys_in(body.name, said_of), **_given_up(flaw))

    async def _record(self, ready: Ready, body: _Body, said: Sequence[Said], texts: Mapping[str, str]) -> None:
        """Activities, by the first way of naming the person that leads to somebody. One of somebody who is not known yet waits for a
        day: their data may be on its way."""
        acted = [noted(one) if isinstance(one, Deleted) and not one.erase else one for one in said]
        waiting = [(one, activities(body.name, one, ready.source.defaults)) for one in acted if isinstance(one, Acted)]
        ways = {one.event_id: found for one, found in waiting}
        while waiting:
            waiting = await self._record_by(body, waiting, texts)
        for one in acted:
            if isinstance(one, Acted) and one.event_id not in body.outcomes:
                keys = _keys(body.name, one)
                reference: JsonValue = {"ways": list[JsonValue](ways[one.event_id])}
                text = texts[one.event_id]
                body.keep(one, "activity", reference, text, keys=keys, after=FIRST_LOOK_AFTER, at=one.occurred_at)
                body.outcomes[one.event_id] = Outcome(one.event_id, "waiting", reason="no such lead yet")

    async def _record_by(
        self, body: _Body, acted: Sequence[tuple[Acted, list[dict[str, JsonValue]]]], texts: Mapping[str, str]
    ) -> list[tuple[Acted, list[dict[str, JsonValue]]]]:
        """Try each activity by the first of its ways; those that led to nobody and have another way."""
        asked: list[tuple[Acted, ActivityRequest, tuple[str, ...]]] = []
        for one, (document, *_) in acted:
            form = formed(ACTIVITIES, document, body.now)
            if form.form is None:
                self._keep_activity(body, one, document, texts, form.flaws)
            else:
                request = ActivityRequest(form.form, caller(body.name), idempotency_request(body.name, one.event_id))
                asked.append((one, request, form.left_out))
        became = await self._activities.submit_all([request for _, request, _ in asked])
        nobody: set[str] = set()
        for (one, request, left_out), done in zip(asked, became, strict=True):
            outcome = _recorded(one, done)
            if outcome is not None:
                body.outcomes[one.event_id] = replace(outcome, left_out=left_out)
            elif isinstance(done, IdempotentResult) and isinstance(done.result, NotThere):
                nobody.add(one.event_id)
            else:
                said: JsonValue = request.activity.model_dump(mode="json", exclude_unset=True)
                self._keep_activity(body, one, said, texts, _flaw(done))
        return [(one, ways[1:]) for one, ways in acted if one.event_id in nobody and len(ways) > 1]

    @staticmethod
    def _keep_activity(body: _Body, one: Acted, document: JsonValue, texts: Mapping[str, str], flaw: str) -> None:
        keys = _keys(body.name, one)
        body.keep(one, "activity", {"ways": [document]}, texts[one.event_id], keys=keys, **_given_up(flaw))

    def _put_aside(self, ready: Ready, body: _Body, said: Sequence[Said], texts: Mapping[str, str]) -> None:
        """What is neither a submission nor an activity. Several events about one record are one fetch."""
        fetched: dict[str, str] = {}
        for one in said:
            if isinstance(one, Ignored):
                body.outcomes[one.event_id] = Outcome(one.event_id, "ignored", reason=one.reason)
            elif isinstance(one, Unreadable):
                body.keep(one, "submit", one.content, texts[one.event_id], **_given_up(one.reason))
            elif isinstance(one, Deleted) and one.erase:
                keys = _keys(body.name, one)
                body.keep(
                    one,
                    "erase",
                    {"email": one.email, "external_id": one.external_id},
                    "",
                    keys=keys,
                    at=one.occurred_at,
                )
            elif isinstance(one, Thin):
                if one.external_id in fetched:
                    body.outcomes[one.event_id] = Outcome(
                        one.event_id, "waiting", reason="one fetch for several events"
                    )
                    continue
                fetched[one.external_id] = one.event_id
                keys = [key_word(("external", external_key(body.name, one.external_id)))]
                body.keep(one, "fetch", dict(one.reference), texts[one.event_id], keys=keys, at=one.occurred_at)

    async def _keep(self, body: _Body) -> None:
        if not body.kept:
            return
        async with self._database.write_transaction() as unit_of_work:
            fresh = await hook_events.insert(await unit_of_work.connection(), body.kept, unit_of_work.now)
        for row in body.kept:
            if row.event_id not in fresh:
                body.outcomes[row.event_id] = Outcome(row.event_id, "replayed")


def caller(source: str) -> str:
    """Who submits what a tool has sent."""
    return f"hook:{source}"


def idempotency_request(source: str, event_id: str) -> IdempotencyRequest:
    """The idempotency key of an event. Its content is the event's id: sent again with another attempt's number, it is the same."""
    return make_idempotency_request(caller(source), event_id, event_id.encode())


def moment_of(said: JsonValue, now: datetime) -> datetime:
    """The moment that a tool says; now where it says none that can be."""
    try:
        at = _MOMENT.validate_python(as_moment(said))
    except ValidationError:
        return now
    return at if at <= now + AHEAD_MAX else now


def noted(said: Deleted) -> Acted:
    """A deletion that nobody's wish is behind: something that marketing did."""
    return Acted(
        said.event_id,
        "record.deleted",
        "marketing",
        said.content,
        said.email,
        said.external_id,
        said.occurred_at,
    )


def _text(said: Said, document: JsonValue, whole: str | None) -> str:
    """The event's JSON: as it came where it is all of the body."""
    content = getattr(said, "content", None)
    if whole is not None and content is document:
        return whole
    return orjson.dumps(content).decode()


def keys_in(source: str, document: Mapping[str, Any]) -> list[str]:
    """The identity keys that can be recognised in a document, as words."""
    words: list[str] = []
    email, phone, external_id = (document.get(name) for name in ("email", "phone", "external_id"))
    if isinstance(email, str) and (address := email_facts(email).address):
        words.append(key_word(("email", address)))
    if isinstance(phone, str) and (number := phone_facts(phone, None).e164):
        words.append(key_word(("phone", number)))
    if isinstance(external_id, str) and external_id:
        words.append(key_word(("external", external_key(source, external_id))))
    return words


def _addresses_in(text: str) -> list[str]:
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
    return [key_word(("email", address)) for one in found if (address := email_facts(one).address)]


def _keys(source: str, said: Acted | Deleted) -> list[str]:
    return keys_in(source, {"email": said.email, "external_id": said.external_id})


def _given_up(error: str) -> dict[str, Any]:
    return {"state": "failed", "error": error}


def _captured(said: Submitted, done: IdempotentResult[CaptureResult] | Exception) -> Outcome | None:
    """The outcome of a submission that was taken; None for one that was not. Raises what may pass."""
    if isinstance(done, Exception):
        _raise_what_passes(done)
        return None
    taken = done.result
    if taken is None:
        return _captured_before(said, done.answer)
    if isinstance(taken, Finding):
        return None
    lead_id = None if taken.lead_id is None else str(taken.lead_id)
    reason = taken.quality.refusal if taken.outcome is None else None
    verdict = taken.quality.verdict
    return Outcome(said.event_id, taken.outcome or "rejected", lead_id, str(taken.submission_id), verdict, reason)


def _captured_before(said: Submitted, answer: Answer) -> Outcome:
    """The outcome of a submission that came before, out of the answer that was saved then."""
    if answer.status == 410:
        return Outcome(said.event_id, "ignored", reason=_ERASED)
    body = orjson.loads(answer.body)
    verdict = "rejected" if answer.status == 422 else body["verdict"]
    return Outcome(said.event_id, "replayed", body.get("lead_id"), body["submission_id"], verdict, body.get("detail"))


def _recorded(said: Acted, done: IdempotentResult[ActivityResult] | Exception) -> Outcome | None:
    """The outcome of an activity that was recorded, or whose lead was erased; None for one that was not. Raises what may pass."""
    if isinstance(done, Exception):
        _raise_what_passes(done)
        return None
    answer = done.answer
    if answer.status == 410:
        return Outcome(said.event_id, "ignored", reason=_ERASED)
    if answer.subject is None:
        return None
    return Outcome(said.event_id, "replayed" if answer.replayed else "recorded", str(answer.subject))


def _raise_what_passes(error: Exception) -> None:
    if isinstance(error, Problem) and error.status == 409:  # the same event is being taken at this moment
        raise Overloaded(1.0)
    if isinstance(error, Overloaded) or is_transient(error):
        raise error


def _flaw(done: IdempotentResult[CaptureResult] | IdempotentResult[ActivityResult] | Exception) -> str:
    """Why one event was not taken, without any of its values."""
    if isinstance(done, IdempotentResult):
        return f"{done.result.pointer}: {done.result.message}" if isinstance(done.result, Finding) else "refused"
    problem = to_problem(done)
    if problem is not None:
        return problem.title
    # The others of the body are saved, and this one is kept for when the defect is mended.
    log.error("hook_event_failed", exc_info=done)
    return "something went wrong here"


def _adapter(ready: Ready) -> AnyAdapter:
    assert ready.adapter is not None  # noqa: S101 - `source` has looked
    return ready.adapter


_WHY: Mapping[Refusal, str] = {
    "no-secret": "The source has no secret of this kind, so nothing can be proved.",
    "missing": "The request bears no signature or secret of the form that this tool has.",
    "wrong": "The signature or secret is not one of this source.",
    "stale": "The signed time lies more than five minutes back.",
    "ahead": "The signed time lies more than five minutes ahead.",
}


def _unproved(source: str, refusal: Refusal) -> Problem:
    HOOK_REFUSED.labels(source, refusal).inc()
    return Problem(
        401,
        "hook-not-proved",
        "Who sends this is not known",
        _WHY[refusal],
        headers={"WWW-Authenticate": 'Hook realm="accord"'},
        reason=refusal,
    )
