"""Idempotency-Key: a repeated request is executed once, and gets the first answer again. An answer is saved in the transaction of its
effect, so neither exists without the other. This module opens no transaction itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from types import MappingProxyType
from typing import Annotated, Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import orjson
from fastapi import Depends, Header
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from accord.db import Database, UnitOfWork, connection_of, from_json
from accord.http.auth import authorize
from accord.http.problems import MEDIA_TYPE, Problem
from accord.metric_names import IDEMPOTENT_REPLAYS
from accord.workers import Periodic

T = TypeVar("T")
RETENTION = timedelta(days=7)
_PRUNE_ROWS = 1_000
_PRUNE_EVERY_S = 600.0
_KEY = re.compile(r"[!-~]{1,255}")
_SAVED_HEADERS = frozenset({"location", "etag", "content-type"})
_ERASED = Problem(410, "gone", "Erased", "What this request was about has been erased since.")


class IdempotencyRequest(Struct, frozen=True):
    """A request under a key. `sha256` is over method, path, query and body: another request with the same key is refused."""

    caller: str
    key: str
    sha256: bytes


class Answer(NamedTuple):
    """An answer as it is sent and saved. `replayed`: it is the saved one of an earlier request.

    `subject` is the id that it is about (a lead's); never sent, it is how `erase` finds the answer. `is_saved` is False where nothing
    was recorded: `complete_requests` saves no such answer, so that the same request may succeed later.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    replayed: bool = False
    subject: UUID | None = None
    is_saved: bool = True

    def response(self) -> Response:
        headers = {**self.headers, "Idempotency-Replayed": "true"} if self.replayed else dict(self.headers)
        headers.setdefault("content-type", "application/json")
        return Response(self.body, self.status, headers)


class IdempotentResult(NamedTuple, Generic[T]):
    """The result of a request with its answer. `result` is None for a repeated request: only the answer was saved."""

    result: T | None
    answer: Answer


class Fresh(Struct, frozen=True):
    """The key is new and now claimed: execute the request, then `store` its answer in the same transaction."""


class Replay(Struct, frozen=True):
    """The request was executed before, with this answer."""

    answer: Answer


class KeyReused(Struct, frozen=True):
    """The key was used with another request: 422."""


class InFlight(Struct, frozen=True):
    """The same request is being executed at this moment: 409."""


Verdict = Fresh | Replay | KeyReused | InFlight
_FRESH = Fresh()


def make_idempotency_request(caller: str, key: str, *content: bytes) -> IdempotencyRequest:
    """A request that is identified by `content` (method, path, body)."""
    digest = sha256()
    for part in content:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return IdempotencyRequest(caller, key, digest.digest())


async def read_idempotency_request(
    request: Request, caller: str, body: bytes | None = None
) -> IdempotencyRequest | None:
    """The key and digest of this request, None without an Idempotency-Key. For plain routes. Raises Problem 400 for a bad key."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise Problem(
            400,
            "idempotency-key-unusable",
            "Invalid Idempotency-Key",
            "A key has 1 to 255 printable ASCII characters without spaces.",
            errors=[{"parameter": "Idempotency-Key", "message": "Must match [!-~]{1,255}"}],
        )
    content = await request.body() if body is None else body
    path = request.scope["path"].encode("utf-8", "surrogatepass")
    return make_idempotency_request(caller, key, request.method.encode(), path, request.scope["query_string"], content)


def idempotency() -> Any:
    """FastAPI dependency: `idempotency_request: IdempotencyRequest | None = idempotency()`, for the use case's `execute_once`."""

    async def idempotency_request(
        request: Request,
        _: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                description="Send the same key with a repeated request, and it is done once: the first answer is given again.",
                min_length=1,
                max_length=255,
                pattern="^[!-~]+$",
            ),
        ] = None,
    ) -> IdempotencyRequest | None:
        return await read_idempotency_request(request, (await authorize(request)).name)

    return Depends(idempotency_request)


async def execute_once(
    unit_of_work: UnitOfWork,
    idempotency_request: IdempotencyRequest | None,
    act: Callable[[], Awaitable[T]],
    encode: Callable[[T], Answer],
) -> IdempotentResult[T]:
    """Execute a request inside a use case's unit of work: the saved answer, or the result of `act` with the answer that `encode` makes of
    it, saved in this transaction.

    Raises Problem 409 while the same key is in flight elsewhere, 422 if it belongs to another request. If `act` or `encode` raises,
    nothing is saved and the key is free again.
    """
    if idempotency_request is None:
        result = await act()
        return IdempotentResult(result, encode(result))
    lock = text(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('accord-idempotency:' || :caller || ':' || :key, 0))"
    )
    values = {"caller": idempotency_request.caller, "key": idempotency_request.key}
    if not (await unit_of_work.conn.execute(lock, values)).scalar_one():
        raise key_problem(InFlight())
    verdict = (await claim(unit_of_work.conn, [idempotency_request], unit_of_work.now))[0]
    if isinstance(verdict, Replay):
        return IdempotentResult(None, verdict.answer)
    if not isinstance(verdict, Fresh):
        raise key_problem(verdict)
    result = await act()
    answer = encode(result)
    await store(unit_of_work.conn, [(idempotency_request, answer)])
    return IdempotentResult(result, answer)


async def claim_requests(
    unit_of_work: UnitOfWork, idempotency_requests: Sequence[IdempotencyRequest | None]
) -> list[Verdict]:
    """The verdict on each request's key; a request without a key is fresh."""
    given = [request for request in idempotency_requests if request is not None]
    verdicts = iter(await claim(unit_of_work.conn, given, unit_of_work.now)) if given else iter(())
    return [_FRESH if request is None else next(verdicts) for request in idempotency_requests]


async def complete_requests(
    unit_of_work: UnitOfWork,
    idempotency_requests: Sequence[IdempotencyRequest | None],
    verdicts: Sequence[Verdict],
    results: Sequence[T],
    encode: Callable[[T], Answer],
) -> list[IdempotentResult[T] | Exception]:
    """The outcome of each request: the saved answer, the problem of its key, or the next of the fresh ones' `results` with its answer.

    A fresh answer is saved under its key, unless its `is_saved` is False: then the key is free again.
    """
    done: list[IdempotentResult[T] | Exception] = []
    saved: list[tuple[IdempotencyRequest, Answer]] = []
    freed: list[IdempotencyRequest] = []
    remaining = iter(results)
    for idempotency_request, verdict in zip(idempotency_requests, verdicts, strict=True):
        if isinstance(verdict, Fresh):
            result = next(remaining)
            answer = encode(result)
            done.append(IdempotentResult(result, answer))
            if idempotency_request is not None and answer.is_saved:
                saved.append((idempotency_request, answer))
            elif idempotency_request is not None:
                freed.append(idempotency_request)
        elif isinstance(verdict, Replay):
            done.append(IdempotentResult(None, verdict.answer))
        else:
            done.append(key_problem(verdict))
    await store(unit_of_work.conn, saved)
    await forget(unit_of_work.conn, freed)
    return done


async def reserve(database: Database, idempotency_request: IdempotencyRequest | None) -> None:
    """Claim a key for a request whose parts have keys of their own. The same request may come again.

    Raises Problem 422 if the key belongs to another request.
    """
    if idempotency_request is None:
        return
    async with database.write_transaction() as unit_of_work:
        verdict = (await claim(unit_of_work.conn, [idempotency_request], unit_of_work.now))[0]
        if isinstance(verdict, KeyReused):
            raise key_problem(verdict)
        if isinstance(verdict, Fresh):
            await store(unit_of_work.conn, [(idempotency_request, Answer(202, b""))])


def key_problem(verdict: KeyReused | InFlight) -> Problem:
    """The error answer of a key that can't be used now."""
    if isinstance(verdict, InFlight):
        return Problem(
            409,
            "idempotency-key-in-flight",
            "Request in progress",
            "A request with this Idempotency-Key is being answered. Try again.",
            headers={"Retry-After": "1"},
        )
    return Problem(
        422,
        "idempotency-key-reused",
        "Idempotency-Key reused",
        "The key was used with another body or path. Use a new key for a new request.",
        errors=[{"parameter": "Idempotency-Key", "message": "Used with another request"}],
    )


# What remains of a key after `erase`. Two spaces stand in no key that a caller can send, nor in one made for a row of a batch.
_DIGEST = "'erased  ' || encode(sha256(convert_to(t.key_name, 'UTF8')), 'hex')"
_CLAIM = f"""
    INSERT INTO idempotency_key (caller, key_name, request_sha256, created_at)
    SELECT caller, key_name, request_sha256, $4
    FROM unnest($1::text[], $2::text[], $3::bytea[]) AS t (caller, key_name, request_sha256)
    WHERE NOT EXISTS (SELECT FROM idempotency_key e WHERE e.caller = t.caller AND e.key_name = {_DIGEST} AND e.created_at >= $5)
    ORDER BY caller, key_name
    ON CONFLICT (caller, key_name) DO UPDATE
    SET request_sha256 = excluded.request_sha256, created_at = excluded.created_at, status = NULL, headers = NULL, body = NULL,
        subject = NULL
    WHERE idempotency_key.created_at < $5
    RETURNING caller, key_name
"""  # noqa: S608 - a constant of ours
_SAVED = f"""
    SELECT t.caller, t.key_name, k.request_sha256, k.status, k.headers, k.body, k.subject
    FROM unnest($1::text[], $2::text[]) AS t (caller, key_name)
    JOIN idempotency_key k ON k.caller = t.caller AND k.key_name IN (t.key_name, {_DIGEST})
"""  # noqa: S608 - a constant of ours
_STORE = """
    UPDATE idempotency_key k SET status = t.status, headers = t.headers::json, body = t.body, subject = t.subject
    FROM unnest($1::text[], $2::text[], $3::smallint[], $4::text[], $5::bytea[], $6::uuid[])
         AS t (caller, key_name, status, headers, body, subject)
    WHERE k.caller = t.caller AND k.key_name = t.key_name
"""
_ERASE = f"""
    WITH locked AS (
        SELECT caller, key_name FROM idempotency_key WHERE subject = ANY ($1::uuid[]) ORDER BY caller, key_name FOR UPDATE
    ), gone AS (
        DELETE FROM idempotency_key k USING locked l WHERE k.caller = l.caller AND k.key_name = l.key_name
        RETURNING k.caller, k.key_name, k.created_at
    )
    INSERT INTO idempotency_key (caller, key_name, request_sha256, status, created_at)
    SELECT t.caller, {_DIGEST}, '', {_ERASED.status}, t.created_at FROM gone t ORDER BY 1, 2
    ON CONFLICT (caller, key_name) DO UPDATE SET created_at = excluded.created_at
"""  # noqa: S608 - a constant of ours


async def claim(
    conn: AsyncConnection, idempotency_requests: Sequence[IdempotencyRequest], now: datetime
) -> list[Verdict]:
    """Claim these keys in the caller's transaction; the verdict for each, in order. For batches on hot paths.

    A key that another transaction is claiming is waited for (its batch is short), then replayed. The second of two equal
    keys in one batch is InFlight. Keys are claimed in sorted order, so that batches do not deadlock.
    """
    if not idempotency_requests:
        return []
    first: dict[tuple[str, str], IdempotencyRequest] = {}
    for idempotency_request in idempotency_requests:
        first.setdefault((idempotency_request.caller, idempotency_request.key), idempotency_request)
    rows = list(first.values())
    callers, keys = [row.caller for row in rows], [row.key for row in rows]
    connection = await connection_of(conn)
    taken = await connection.fetch(_CLAIM, callers, keys, [row.sha256 for row in rows], now, now - RETENTION)
    fresh = {(row["caller"], row["key_name"]) for row in taken}
    saved: dict[tuple[str, str], Any] = {}
    if len(fresh) < len(rows):
        old = [place for place in first if place not in fresh]
        found = await connection.fetch(_SAVED, [place[0] for place in old], [place[1] for place in old])
        saved = {(row["caller"], row["key_name"]): row for row in found}
    return [_verdict(idempotency_request, first, fresh, saved) for idempotency_request in idempotency_requests]


def _verdict(
    idempotency_request: IdempotencyRequest,
    first: Mapping[tuple[str, str], IdempotencyRequest],
    fresh: set[tuple[str, str]],
    saved: Mapping[tuple[str, str], Any],
) -> Verdict:
    place = (idempotency_request.caller, idempotency_request.key)
    if place in fresh:
        if first[place] is idempotency_request:
            return Fresh()
        return InFlight() if first[place].sha256 == idempotency_request.sha256 else KeyReused()
    row = saved.get(place)
    if row is None or row["status"] is None:
        return InFlight()
    if row["status"] == _ERASED.status and not row["request_sha256"]:
        return Replay(Answer(_ERASED.status, orjson.dumps(_ERASED.document()), {"content-type": MEDIA_TYPE}))
    if bytes(row["request_sha256"]) != idempotency_request.sha256:
        return KeyReused()
    IDEMPOTENT_REPLAYS.inc()
    headers = from_json(row["headers"])
    return Replay(
        Answer(row["status"], bytes(row["body"] or b""), headers or {}, replayed=True, subject=row["subject"])
    )


async def store(conn: AsyncConnection, answers: Sequence[tuple[IdempotencyRequest, Answer]]) -> None:
    """Save the answers of keys that `claim` found Fresh, in the same transaction."""
    if not answers:
        return
    headers = [
        json.dumps({name: value for name, value in answer.headers.items() if name.lower() in _SAVED_HEADERS})
        for _, answer in answers
    ]
    connection = await connection_of(conn)
    await connection.execute(
        _STORE,
        [idempotency_request.caller for idempotency_request, _ in answers],
        [idempotency_request.key for idempotency_request, _ in answers],
        [answer.status for _, answer in answers],
        headers,
        [answer.body for _, answer in answers],
        [answer.subject for _, answer in answers],
    )


async def erase(conn: AsyncConnection, subjects: Sequence[UUID]) -> int:
    """Forget the answers that are about these ids, their keys and the digests of their requests; how many they were.

    Of a key only its digest stays, for what is left of its time: whoever repeats the request gets 410 and does not bring back
    what was erased.
    """
    connection = await connection_of(conn)
    return int((await connection.execute(_ERASE, list(subjects))).rpartition(" ")[2])


_FORGET = """
    DELETE FROM idempotency_key k USING unnest($1::text[], $2::text[]) AS t (caller, key_name)
    WHERE k.caller = t.caller AND k.key_name = t.key_name
"""


async def forget(conn: AsyncConnection, idempotency_requests: Sequence[IdempotencyRequest]) -> None:
    """Free keys that `claim` found Fresh, in the same transaction: nothing was done, and the same request may succeed later."""
    if idempotency_requests:
        connection = await connection_of(conn)
        await connection.execute(
            _FORGET,
            [request.caller for request in idempotency_requests],
            [request.key for request in idempotency_requests],
        )


def idempotency_worker(database: Database) -> Periodic:
    """The worker that forgets keys after seven days."""

    async def prune() -> bool:
        statement = text(
            "DELETE FROM idempotency_key WHERE (caller, key_name) IN (SELECT caller, key_name FROM idempotency_key"
            " WHERE created_at < :before ORDER BY created_at LIMIT :rows)"
        )
        async with database.write_transaction() as unit_of_work:
            result = await unit_of_work.conn.execute(
                statement, {"before": unit_of_work.now - RETENTION, "rows": _PRUNE_ROWS}
            )
            return result.rowcount >= _PRUNE_ROWS

    return Periodic("idempotency-prune", _PRUNE_EVERY_S, prune)
