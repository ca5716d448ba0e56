"""Idempotency-Key: once done, the answer is given again; saved with its effect or not at all."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import APIRouter, Response
from pydantic import BaseModel
from shared_kit import CONTENT, Kit, auth, service_kit
from sqlalchemy import text

from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.idempotency import (
    RETENTION,
    Answer,
    Fresh,
    IdempotencyRequest,
    IdempotentResult,
    InFlight,
    KeyReused,
    Replay,
    claim,
    claim_requests,
    complete_requests,
    erase,
    execute_once,
    idempotency,
    idempotency_worker,
    make_idempotency_request,
    store,
)

entered = asyncio.Event()
release = asyncio.Event()


class Note(BaseModel):
    words: str


def notes(database: Database) -> APIRouter:
    """A route whose effect is a row, and which can be held up or made to fail."""
    router = APIRouter()

    @router.post("/notes", status_code=201)
    async def create(
        note: Note,
        caller: Annotated[Caller, require("leads:read")],
        idempotency_request: Annotated[IdempotencyRequest | None, idempotency()],
    ) -> Response:
        async with database.write_transaction() as unit_of_work:

            async def act() -> Answer:
                statement = text("INSERT INTO note (words) VALUES (:words) RETURNING id")
                number = (await unit_of_work.conn.execute(statement, {"words": note.words})).scalar_one()
                if note.words == "slow":
                    entered.set()
                    await release.wait()
                if note.words == "fail":
                    raise RuntimeError("after the effect")
                return Answer(201, f'{{"id": {number}}}'.encode(), {"location": f"/notes/{number}", "x-other": "1"})

            done = await execute_once(unit_of_work, idempotency_request, act, lambda answer: answer)
        return done.answer.response()

    return router


@pytest.fixture
async def shop(kit_database: str, tmp_path: Path) -> AsyncIterator[Kit]:
    entered.clear()
    release.clear()
    async with service_kit(kit_database, tmp_path, notes) as built:
        async with built.database.write_transaction() as unit_of_work:
            await unit_of_work.conn.exec_driver_sql("CREATE TABLE note (id serial PRIMARY KEY, words text)")
        yield built


async def count(shop: Kit) -> int:
    async with shop.database.read_transaction() as conn:
        found: int = (await conn.exec_driver_sql("SELECT count(*) FROM note")).scalar_one()
        return found


def keyed(key: str, name: str = "marketing") -> dict[str, str]:
    return {**auth(name), "Idempotency-Key": key}


async def test_the_same_request_again_gets_the_first_answer_and_does_nothing(shop: Kit) -> None:
    first = await shop.client.post("/notes", json={"words": "a"}, headers=keyed("k"))
    again = await shop.client.post("/notes", json={"words": "a"}, headers=keyed("k"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await count(shop) == 1


async def test_without_a_key_each_request_is_a_new_one(shop: Kit) -> None:
    for _ in range(2):
        await shop.client.post("/notes", json={"words": "a"}, headers=auth("marketing"))
    assert await count(shop) == 2


async def test_a_key_belongs_to_its_caller(shop: Kit) -> None:
    await shop.client.post("/v1/policy/versions", json=CONTENT, headers=keyed("k", "marketing"))
    other = await shop.client.post("/v1/policy/versions", json=CONTENT, headers=keyed("k", "sales"))
    assert other.json()["version"] == 2


async def test_the_same_key_with_another_body_is_refused(shop: Kit) -> None:
    await shop.client.post("/notes", json={"words": "a"}, headers=keyed("k"))
    other = await shop.client.post("/notes", json={"words": "b"}, headers=keyed("k"))
    assert other.status_code == 422
    assert other.json()["type"] == "/problems/idempotency-key-reused"
    assert await count(shop) == 1


async def test_the_same_key_in_flight_is_409_and_then_replayed(shop: Kit) -> None:
    running = asyncio.create_task(shop.client.post("/notes", json={"words": "slow"}, headers=keyed("k")))
    await entered.wait()
    meanwhile = await shop.client.post("/notes", json={"words": "slow"}, headers=keyed("k"))
    assert meanwhile.status_code == 409
    assert meanwhile.json()["type"] == "/problems/idempotency-key-in-flight"
    assert meanwhile.headers["retry-after"] == "1"
    release.set()
    first = await running
    after = await shop.client.post("/notes", json={"words": "slow"}, headers=keyed("k"))
    assert after.content == first.content
    assert await count(shop) == 1


async def test_a_request_that_failed_left_nothing_and_may_be_tried_again(shop: Kit) -> None:
    for _ in range(2):
        assert (await shop.client.post("/notes", json={"words": "fail"}, headers=keyed("k"))).status_code == 500
    assert await count(shop) == 0


UNUSABLE: list[str] = ["", " ", "a b", "x" * 256, "ö"]


async def test_a_key_that_cannot_be_used_is_refused(shop: Kit) -> None:
    for key in UNUSABLE:
        headers = {**auth("marketing"), "Idempotency-Key": key.encode("latin-1")}
        response = await shop.client.post("/notes", json={"words": "a"}, headers=headers)
        assert response.status_code in (400, 422), key
        assert response.json()["errors"][0]["parameter"].lower() == "idempotency-key", key
    assert await count(shop) == 0


async def test_a_batch_of_keys_gets_a_verdict_each(shop: Kit) -> None:
    old = make_idempotency_request("web", "old", b"1")
    async with shop.database.write_transaction() as unit_of_work:
        assert await claim(unit_of_work.conn, [old], unit_of_work.now) == [Fresh()]
        await store(unit_of_work.conn, [(old, Answer(201, b"saved", {"location": "/x"}))])
    new = make_idempotency_request("web", "new", b"2")
    batch = [
        new,
        old,
        make_idempotency_request("web", "old", b"other"),
        make_idempotency_request("web", "new", b"2"),
        make_idempotency_request("web", "new", b"3"),
        make_idempotency_request("shop", "old", b"1"),
    ]
    async with shop.database.write_transaction() as unit_of_work:
        verdicts = await claim(unit_of_work.conn, batch, unit_of_work.now)
    assert verdicts == [
        Fresh(),
        Replay(Answer(201, b"saved", {"location": "/x"}, replayed=True)),
        KeyReused(),
        InFlight(),
        KeyReused(),
        Fresh(),
    ]


async def test_batches_with_the_same_keys_wait_for_each_other_and_replay(shop: Kit) -> None:
    idempotency_requests = [make_idempotency_request("web", f"k{number}", b"body") for number in range(50)]

    async def batch(order: list[IdempotencyRequest], mark: bytes) -> list[bytes]:
        async with shop.database.write_transaction() as unit_of_work:
            verdicts = await claim(unit_of_work.conn, order, unit_of_work.now)
            fresh = [t for t, verdict in zip(order, verdicts, strict=True) if isinstance(verdict, Fresh)]
            await store(unit_of_work.conn, [(t, Answer(201, mark)) for t in fresh])
        return [v.answer.body if isinstance(v, Replay) else mark for v in verdicts]

    answers = await asyncio.gather(*(batch(idempotency_requests[:: -1 if n % 2 else 1], b"%d" % n) for n in range(4)))
    first = set(answers[0])
    assert len(first) == 1
    assert all(set(answer) == first for answer in answers)


async def test_what_left_no_trace_frees_its_key_and_a_saved_answer_names_its_subject(shop: Kit) -> None:
    idempotency_requests, person = (
        [make_idempotency_request("web", "done", b"1"), make_idempotency_request("web", "refused", b"2")],
        uuid.uuid4(),
    )

    def encode(rows: int) -> Answer:
        return Answer(201, b"%d rows" % rows, subject=person, is_saved=rows > 0)

    async def batch(*results: int) -> list[IdempotentResult[int] | Exception]:
        async with shop.database.write_transaction() as unit_of_work:
            verdicts = await claim_requests(unit_of_work, [*idempotency_requests, None])
            return await complete_requests(unit_of_work, [*idempotency_requests, None], verdicts, results, encode)

    assert await batch(1, 0, 2) == [IdempotentResult(rows, encode(rows)) for rows in (1, 0, 2)]
    saved = Answer(201, b"1 rows", replayed=True, subject=person)
    assert await batch(3, 4) == [
        IdempotentResult(None, saved),
        IdempotentResult(3, encode(3)),
        IdempotentResult(4, encode(4)),
    ]


async def test_an_answer_is_erased_with_its_subject_and_a_repeated_request_brings_nobody_back(shop: Kit) -> None:
    person, other = uuid.uuid4(), uuid.uuid4()
    theirs, another = (
        make_idempotency_request("web", "ada@example.com", b"1"),
        make_idempotency_request("web", "another", b"3"),
    )
    async with shop.database.write_transaction() as unit_of_work:
        await claim(unit_of_work.conn, [theirs, another], unit_of_work.now)
        answers = [(theirs, Answer(201, b"ada", subject=person)), (another, Answer(201, b"saved", subject=other))]
        await store(unit_of_work.conn, answers)
    async with shop.database.write_transaction() as unit_of_work:
        assert await erase(unit_of_work.conn, [person]) == 1
        assert await erase(unit_of_work.conn, [person]) == 0
    async with shop.database.write_transaction() as unit_of_work:
        verdicts = await claim(
            unit_of_work.conn,
            [theirs, make_idempotency_request("web", "ada@example.com", b"2"), another],
            unit_of_work.now,
        )
        rows = await unit_of_work.conn.exec_driver_sql("SELECT k::text FROM idempotency_key k")
        assert not any("@" in row[0] or theirs.sha256.hex() in row[0] for row in rows)
    gone, changed, is_saved = (verdict.answer for verdict in verdicts if isinstance(verdict, Replay))
    assert (gone.status, changed.status, is_saved.body) == (410, 410, b"saved")


async def test_the_digest_of_an_erased_key_is_forgotten_with_the_others(shop: Kit) -> None:
    idempotency_request, person = make_idempotency_request("web", "k", b"1"), uuid.uuid4()
    async with shop.database.write_transaction() as unit_of_work:
        old = unit_of_work.now - RETENTION - timedelta(seconds=1)
        await claim(unit_of_work.conn, [idempotency_request], old)
        await store(unit_of_work.conn, [(idempotency_request, Answer(201, b"saved", subject=person))])
        await erase(unit_of_work.conn, [person])
        assert await claim(unit_of_work.conn, [idempotency_request], unit_of_work.now) == [Fresh()]
    await idempotency_worker(shop.database)._work()
    async with shop.database.read_transaction() as conn:
        rows = await conn.exec_driver_sql("SELECT key_name FROM idempotency_key")
        assert [row[0] for row in rows] == ["k"]


async def test_keys_are_forgotten_after_seven_days_and_may_be_used_again(shop: Kit) -> None:
    is_saved, old = make_idempotency_request("web", "kept", b"1"), make_idempotency_request("web", "old", b"1")
    async with shop.database.write_transaction() as unit_of_work:
        await claim(unit_of_work.conn, [is_saved], unit_of_work.now)
        await claim(unit_of_work.conn, [old], unit_of_work.now - RETENTION - timedelta(seconds=1))
        assert await claim(unit_of_work.conn, [make_idempotency_request("web", "old", b"2")], unit_of_work.now) == [
            Fresh()
        ]
        await claim(
            unit_of_work.conn,
            [make_idempotency_request("web", "gone", b"1")],
            unit_of_work.now - RETENTION - timedelta(seconds=1),
        )
    worker = idempotency_worker(shop.database)
    assert await worker._work() is False
    async with shop.database.read_transaction() as conn:
        rows = await conn.exec_driver_sql("SELECT key_name FROM idempotency_key ORDER BY 1")
        assert [row[0] for row in rows] == ["kept", "old"]
