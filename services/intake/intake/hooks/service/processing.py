"""Processes stored events: fetches records from tools, retries activities whose lead was not there, and erases whom a tool says to
erase. What is claimed by a process that dies is claimed again; what is done twice has one effect.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, Protocol
from uuid import UUID

import orjson
import structlog
from pydantic import JsonValue

from accord.batching import Overloaded
from accord.clock import utc_now
from accord.collectors import Collector
from accord.contracts.external_key import external_key
from accord.db import Database, connection_of, is_transient
from accord.http.idempotency import Answer, Fresh, claim_requests, store
from accord.terms.findings import Finding
from accord.workers import Periodic
from intake.capture.service.capture import Capture
from intake.capture.service.record import ActivityRecorder, ActivityRequest
from intake.hooks import queries as hook_events
from intake.hooks.domain.validation import ACTIVITIES, validate_document
from intake.hooks.queries import HookEvent, State
from intake.hooks.service.outbound import FetchError, OutboundClient
from intake.hooks.service.receive import caller_name, event_idempotency_request
from intake.hooks.service.source_cache import PreparedSource, SourceCache
from intake.hooks.service.validation import validate_submission
from intake.identity.service import external_ids
from intake.leads.domain.keys import IdentityKey, parse_key
from intake.leads.queries import leads as lead_queries
from intake.leads.service.merge_group import RecordNotFound
from intake.leads.service.normalization import parse_email
from intake.leads.service.submissions import CaptureRequest, normalize_submission
from intake.leads.service.unit_of_work import retry_on_conflict
from intake.metric_names import HOOK_EVENTS_FAILED, HOOK_EVENTS_WAITING, HOOK_FETCHES
from intake.sources.domain.adapters.base import FetchRequest

log = structlog.get_logger(__name__)

RETRY_WINDOW = timedelta(hours=24)
"""From when an event came, or was given another chance, to when it is given up."""
LEASE_S = 90.0
"""How long a claimed event is left to its worker; longer than all of its requests may take."""
CLAIMED_MAX = 5
"""Fetches of one source that one process has under way; more are claimed when all of these have come back."""
_FETCHES_MAX = 40
"""Fetches of all sources; fewer than the connections that the way out may have."""
_BATCH = 20
"""Events that ask no tool and are worked on at a time."""
_DRAIN_S = 8.0
_EVERY_S = 1.0
_IDLE_EVERY_S = 2.0
_FIRST_S, _LAST_S = 2.0, 3_600.0
_REST_FIRST_S, _REST_LAST_S = 5.0, 120.0
_UNAVAILABLE = frozenset(
    {"no-connection", "not-resolved", "timed-out", "server-error", "too-many-requests", "unauthorised"}
)
_ACTIVITY_AFTER_S = (30.0, 300.0, 3_600.0, 6 * 3_600.0)
"""The person may come a moment later, or with tonight's import."""
_OF_KNOWN = frozenset({"activity", "update", "link"})
"""What means nothing of somebody who is no lead."""
_REQUESTS_MAX = 5
_DONE_RETENTION = timedelta(days=7)
"""As long as idempotency keys are: an event that comes again within it is known."""
_PRUNE_ROWS = 1_000
_PRUNE_EVERY_S = 600.0


class Eraser(Protocol):
    """The use case that erases a person."""

    async def erase(self, lead_id: UUID, reason: Literal["request"], caller_name: str) -> object: ...


class _RetryLater(Exception):
    """It did not work, and may later. `after_s`: not before."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_s = after_s


class _PermanentFailure(Exception):
    """It will not work before somebody changes something."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Cooldowns:
    """Tools that do not answer are left alone for a while, so that what waits for them does not hold up everybody else's events."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, float]] = {}
        """Source → when its rest is over (monotonic), and how long it was."""

    def sources(self) -> list[str]:
        now = time.monotonic()
        return [source for source, (until, _) in self._until.items() if until > now]

    def start(self, source: str, asked_s: float | None) -> None:
        """The next rest of a tool is twice as long as the last, unless it has asked for more."""
        now = time.monotonic()
        until, last_s = self._until.get(source, (0.0, 0.0))
        if until > now:
            return  # another of the same round has said so
        rest_s = max(min(last_s * 2 or _REST_FIRST_S, _REST_LAST_S), asked_s or 0.0)
        self._until[source] = (now + rest_s, rest_s)

    def clear(self, source: str) -> None:
        self._until.pop(source, None)


class _HookEventWorker(Periodic):
    """Works until it is told to stop, then lets what is under way end."""

    def __init__(self, processor: HookEventProcessor) -> None:
        super().__init__("hook-events", _EVERY_S, processor.work, idle_every_s=_IDLE_EVERY_S, stuck_after_s=LEASE_S * 2)
        self._processor = processor

    async def run(self, stop: asyncio.Event) -> None:
        try:
            await super().run(stop)
        finally:
            await self._processor.drain()


class HookEventProcessor:
    """The use case; `work` is what a worker calls every so often. `failed_kept`: as long as raw submissions are."""

    def __init__(
        self,
        database: Database,
        sources: SourceCache,
        capture: Capture,
        record: ActivityRecorder,
        erase: Eraser,
        outbound: OutboundClient,
        failed_retention: timedelta,
    ) -> None:
        self._database = database
        self._sources = sources
        self._capture = capture
        self._record = record
        self._erase = erase
        self._outbound = outbound
        self._cooldowns = _Cooldowns()
        self._fetching: dict[asyncio.Task[None], str] = {}
        """Fetches under way, with their source."""
        self._failed_retention = failed_retention

    def workers(self) -> list[Periodic]:
        """Those that do the work and forget what is old."""
        return [
            _HookEventWorker(self),
            Periodic("hook-events-prune", _PRUNE_EVERY_S, self.prune),
        ]

    def collector(self) -> Collector:
        """How many wait and how many were given up."""
        return Collector(name="hook-events", gauges=[HOOK_EVENTS_WAITING, HOOK_EVENTS_FAILED], collect=self._count)

    async def work(self) -> bool | None:
        """One round; whether there may be more to do at once, None if there was nothing. Fetches go on beyond it, so that a tool that takes
        its time holds up neither other tools nor what asks none."""
        excluded = [*self._cooldowns.sources(), *self._fetching.values()]
        free = _FETCHES_MAX - len(self._fetching)
        async with self._database.write_transaction() as unit_of_work:
            connection, now = await unit_of_work.connection(), unit_of_work.now
            events = await hook_events.claim(connection, now, LEASE_S, _BATCH)
            fetches = await hook_events.claim_fetches(connection, now, LEASE_S, CLAIMED_MAX, excluded, free)
        for event in fetches:
            self._fetching[asyncio.create_task(self._process(event))] = event.source
        await asyncio.gather(*(self._process(event) for event in events))
        if self._fetching and not events:
            await asyncio.wait(self._fetching, timeout=_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        done = [task for task in self._fetching if task.done()]
        for task in done:
            del self._fetching[task]
            task.result()
        return True if done or len(events) == _BATCH else False if events or self._fetching else None

    async def drain(self) -> None:
        """Let the fetches under way end. What does not in time is claimed again when its lease is over."""
        if self._fetching:
            _, late = await asyncio.wait(self._fetching, timeout=_DRAIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._fetching, return_exceptions=True)
            self._fetching.clear()

    async def prune(self) -> bool:
        """Forget what was done a week ago, and what was given up long ago."""
        async with self._database.write_transaction() as unit_of_work:
            now = unit_of_work.now
            connection = await unit_of_work.connection()
            return (
                await hook_events.prune(connection, now - _DONE_RETENTION, now - self._failed_retention, _PRUNE_ROWS)
                >= _PRUNE_ROWS
            )

    async def _count(self) -> None:
        async with self._database.read_transaction() as conn:
            counts = await hook_events.count_by_state(await connection_of(conn))
        HOOK_EVENTS_WAITING.set(counts.get("waiting", 0))
        HOOK_EVENTS_FAILED.set(counts.get("failed", 0))

    async def _process(self, event: HookEvent) -> None:
        """Do one event, or say when to try again. A transient failure leaves it to the end of its lease."""
        try:
            prepared = await self._sources.find(event.source)
            if prepared is None or prepared.adapter is None:
                raise _PermanentFailure("no-source")
            await self._perform(event, prepared)
            HOOK_FETCHES.labels(event.source, "done").inc()
        except _RetryLater as later:
            await self._postpone(event, later.reason, later.after_s)
        except _PermanentFailure as failure:
            await self._give_up(event, failure.reason)
        except Overloaded:
            await self._postpone(event, "overloaded", None)
        except Exception as error:
            if is_transient(error):
                log.warning(
                    "hook_event_postponed", source=event.source, action=event.action, error=type(error).__name__
                )
                return
            log.exception("hook_event_failed", source=event.source, action=event.action)
            await self._give_up(event, "something went wrong here")

    async def _perform(self, event: HookEvent, prepared: PreparedSource) -> None:
        match event.action:
            case "fetch":
                await self._fetch(event, prepared)
            case "submit":
                await self._submit(event, prepared, event.reference, None)
            case "update":
                await self._update(event, prepared)
            case "activity":
                await self._record_activity(event)
            case "link":
                await self._link(event)
            case "erase":
                await self._erase_person(event)

    async def _postpone(self, event: HookEvent, reason: str, after_s: float | None) -> None:
        async with self._database.write_transaction() as unit_of_work:
            now = unit_of_work.now
            delay_s = max(_delay_s(event), after_s or 0.0)
            late = now + timedelta(seconds=delay_s) > event.recorded_at + RETRY_WINDOW
            state: State = "failed" if late else "waiting"
            connection = await unit_of_work.connection()
            if late and event.action in _OF_KNOWN:
                # Somebody who is no lead a day later; what they did means nothing here.
                await hook_events.complete(connection, event.hook_event_id, None, "no-lead", now)
            else:
                await hook_events.postpone(connection, event, state, now + timedelta(seconds=delay_s), reason, now)
        HOOK_FETCHES.labels(event.source, "failed" if late else "retried").inc()

    async def _give_up(self, event: HookEvent, reason: str) -> None:
        async with self._database.write_transaction() as unit_of_work:
            await hook_events.postpone(
                await unit_of_work.connection(), event, "failed", unit_of_work.now, reason, unit_of_work.now
            )
        HOOK_FETCHES.labels(event.source, "failed").inc()

    async def _fetch(self, event: HookEvent, prepared: PreparedSource) -> None:
        """Ask the tool for the record, then submit it as if it had come with the event."""
        adapter, settings = prepared.adapter, prepared.settings
        assert adapter is not None  # noqa: S101 - `_process` has checked
        fetch = adapter.fetch
        if fetch is None or not isinstance(event.reference, dict):
            raise _PermanentFailure("the adapter fetches nothing")
        answers: dict[str, JsonValue] = {}
        for _ in range(_REQUESTS_MAX):
            request = fetch.next_request(event.reference, answers, settings)
            if request is None:
                break
            answers[request.part] = await self._fetch_part(request, prepared)
        said: JsonValue = orjson.loads(event.content)
        await self._submit(event, prepared, fetch.build_view(said, answers, settings), {"event": said, **answers})

    async def _fetch_part(self, request: FetchRequest, prepared: PreparedSource) -> JsonValue:
        tokens = prepared.secrets(utc_now()).get(request.token, ())
        if not tokens:
            raise _RetryLater(f"the source has no secret '{request.token}'")
        for place, token in enumerate(tokens):
            try:
                found = await self._outbound.get_json(
                    request.url, {**request.headers, "authorization": f"Bearer {token.decode()}"}
                )
            except FetchError as error:
                if error.failure == "unauthorised" and place + 1 < len(tokens):
                    continue
                if request.optional and error.failure in ("unauthorised", "not-found", "refused"):
                    return None
                if error.failure == "address-refused":
                    raise _PermanentFailure(error.failure) from None
                if error.failure in _UNAVAILABLE:
                    self._cooldowns.start(prepared.source.name, error.retry_after_s)
                raise _RetryLater(error.failure, error.retry_after_s) from None
            else:
                self._cooldowns.clear(prepared.source.name)
                return found
        raise _RetryLater("unauthorised")

    async def _submit(
        self, event: HookEvent, prepared: PreparedSource, view: JsonValue, content: Mapping[str, JsonValue] | None
    ) -> None:
        mapper = prepared.mapper
        assert mapper is not None  # noqa: S101 - `_process` has checked
        document = {**mapper.map_submission(view), "source": event.source}
        validated = validate_submission(document, utc_now())
        if validated.value is None:
            raise _PermanentFailure(validated.errors)
        text = event.content if content is None else orjson.dumps(content).decode()
        request = CaptureRequest(validated.value, text, caller_name(event.source), left_out=validated.left_out)
        await retry_on_conflict(lambda: self._ingest(event, request))

    async def _ingest(self, event: HookEvent, request: CaptureRequest) -> None:
        """The submission, the answer under its key and the end of the event in one transaction: none is there without the others."""
        own = event_idempotency_request(event.source, event.event_id)
        active_policy = await self._capture.get_active_policy()
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            if not await hook_events.lock_claimed(connection, event):
                return
            verdict = (await claim_requests(unit_of_work, [own]))[0]
            if not isinstance(verdict, Fresh):
                # The tool sent it again meanwhile, and it was taken then.
                await hook_events.complete(
                    connection, event.hook_event_id, None, "taken when it came again", unit_of_work.now
                )
                return
            taken = (await self._capture.ingest(unit_of_work, [normalize_submission(request)], active_policy))[0]
            if isinstance(taken, Finding):
                raise _PermanentFailure(f"{taken.pointer}: {taken.message}")
            await store(unit_of_work.conn, [(own, self._capture.encode(taken))])
            await hook_events.complete(
                connection, event.hook_event_id, taken.lead_id, taken.quality.verdict, unit_of_work.now
            )

    async def _update(self, event: HookEvent, prepared: PreparedSource) -> None:
        """What an event says of somebody who is known, once they are."""
        async with self._database.write_transaction() as unit_of_work:
            keys = map(parse_key, event.keys)
            found = await lead_queries.find_key_owners(await unit_of_work.connection(), keys)
        if not found:
            raise _RetryLater("no such lead yet")
        await self._submit(event, prepared, event.reference, None)

    async def _link(self, event: HookEvent) -> None:
        """Ids of one person, once one of them is known."""
        ids = [str(id_) for id_ in _reference(event).get("ids") or ()]
        caller = caller_name(event.source)

        async def link() -> None:
            async with self._database.write_transaction() as unit_of_work:
                connection = await unit_of_work.connection()
                if await hook_events.lock_claimed(connection, event):
                    lead_id = await external_ids.link_ids(unit_of_work, event.source, ids, caller)
                    if lead_id is None:
                        raise _RetryLater("no such lead yet")
                    await hook_events.complete(connection, event.hook_event_id, lead_id, None, unit_of_work.now)

        await retry_on_conflict(link)

    async def _is_settled(self, event: HookEvent) -> bool:
        """Whether a deletion that has waited came to nothing meanwhile; then it is done."""
        if not _reference(event).get("waits"):
            return False
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            settled = await hook_events.is_superseded(connection, event)
            if settled:
                note = "merged or restored"
                await hook_events.complete(connection, event.hook_event_id, None, note, unit_of_work.now)
        return settled

    async def _remove_id(self, event: HookEvent) -> bool:
        """Whether a deletion only took away one of several ids of a person; then it is done."""
        said = _reference(event)
        id_ = said.get("external_id")
        if not (said.get("only_record") and isinstance(id_, str)):
            return False

        async def remove() -> bool:
            async with self._database.write_transaction() as unit_of_work:
                lead_id = await external_ids.remove_id(unit_of_work, event.source, id_)
                if lead_id is not None:
                    await hook_events.complete(
                        await unit_of_work.connection(), event.hook_event_id, lead_id, "id removed", unit_of_work.now
                    )
            return lead_id is not None

        return await retry_on_conflict(remove)

    async def _record_activity(self, event: HookEvent) -> None:
        """An activity whose lead was not there, by each way of naming the person."""
        if await self._is_settled(event):
            return
        alternatives = _reference(event).get("ways")
        answer: Answer | None = None
        for alternative in alternatives if isinstance(alternatives, list) else ():
            validated = validate_document(ACTIVITIES, alternative if isinstance(alternative, dict) else {}, utc_now())
            if validated.value is None:
                raise _PermanentFailure(validated.errors)
            request = ActivityRequest(
                validated.value,
                caller_name(event.source),
                event_idempotency_request(event.source, event.event_id),
                validated.left_out,
            )
            done = (await self._record.apply([request]))[0]
            if isinstance(done, Exception):
                raise done
            answer = done.answer
            if answer.status not in (404, 422):
                break
        if answer is None:
            raise _PermanentFailure("there is no activity in it")
        if answer.status == 404:
            raise _RetryLater("no such lead yet")
        note = None if answer.status == 202 else "not recorded"
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            await hook_events.complete(connection, event.hook_event_id, answer.subject, note, unit_of_work.now)

    async def _erase_person(self, event: HookEvent) -> None:
        """A tool says that a person is gone, or wants to be. What waits of them goes first, so that nothing brings them back."""
        if await self._is_settled(event):
            return
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            await hook_events.drop_superseded(connection, event, unit_of_work.now)
        if await self._remove_id(event):
            return
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            found = await lead_queries.find_key_owners(connection, _identity_keys(event))
        for lead_id in sorted(set(found.values())):
            with suppress(RecordNotFound):
                await self._erase.erase(lead_id, "request", caller_name(event.source))
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            note = "erased" if found else "nobody of this id"
            await hook_events.complete(connection, event.hook_event_id, None, note, unit_of_work.now)


def _delay_s(event: HookEvent) -> float:
    """How long until the next attempt: doubling and jittered, or the few looks for a person who may still come."""
    if event.action in _OF_KNOWN:
        return _ACTIVITY_AFTER_S[min(event.attempts, len(_ACTIVITY_AFTER_S)) - 1]
    ceiling = min(_LAST_S, _FIRST_S * 2.0 ** min(event.attempts - 1, 20))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def _identity_keys(event: HookEvent) -> list[IdentityKey]:
    """The keys by which a deletion names a person."""
    said = _reference(event)
    email, external_id = said.get("email"), said.get("external_id")
    if isinstance(external_id, str):
        return [("external", external_key(event.source, external_id))]
    address = parse_email(email).address if isinstance(email, str) else None
    return [] if address is None else [("email", address)]


def _reference(event: HookEvent) -> Mapping[str, Any]:
    return event.reference if isinstance(event.reference, dict) else {}
