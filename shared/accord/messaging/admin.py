"""HTTP for operators: what waits in the outbox, and what could not be applied. It shows no event's body."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from accord.contracts.envelope import MalformedEvent, UnknownEventType
from accord.db import Database, is_transient, outbox
from accord.http.auth import require
from accord.http.openapi import problems
from accord.http.problems import Problem, not_found
from accord.messaging import dead_letters
from accord.messaging.consumer_store import PostgresConsumerStore, restart
from accord.messaging.handler import Handler
from accord.messaging.ports import DeadLetterKind, DeadLetterState


class OutboxState(BaseModel):
    """What is recorded and not yet published. `unpublished` is counted up to `unpublished_max`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"unpublished": 0, "oldest_age_s": None, "oldest_at": None}]}
    )

    unpublished: int = Field(description="Events not yet acknowledged by Kafka, counted up to 100,000.")
    oldest_at: datetime | None = Field(description="When the oldest of them was recorded.")
    oldest_age_s: float | None = Field(description="How long ago that was, in seconds.")


class DeadLetterView(BaseModel):
    """An event that could not be applied, without its body."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    consumer: str = Field(examples=["qualification"])
    topic: str = Field(examples=["intake-events"])
    partition: int
    offset: int
    event_id: UUID | None
    kind: DeadLetterKind = Field(
        description="Why it is here: `malformed` (no event of ours), `poison` (the handler failed on it) or `unknown` (a type "
        "that this version does not know; the next one replays it when it starts)."
    )
    type: str | None = Field(examples=["lead.captured.v1"])
    key: str | None
    error: str = Field(examples=["ValueError: no such stage"])
    failed_at: datetime
    state: DeadLetterState
    settled_at: datetime | None
    value_bytes: int | None


class DeadLetterPage(BaseModel):
    items: list[DeadLetterView]
    next_cursor: str | None


class Restarted(BaseModel):
    consumer: str = Field(examples=["qualification"])
    topic: str = Field(examples=["intake-events"])
    partitions: int


class Settled(BaseModel):
    id: UUID
    state: Literal["replayed", "discarded"]


def admin_router(database: Database, handlers: Mapping[str, Handler]) -> APIRouter:
    """The routes under /v1/admin for outbox and dead letters, for keys with the scope `admin`."""
    routes = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[require("admin")])

    @routes.get("/outbox")
    async def read_outbox() -> OutboxState:
        """What is recorded and not yet published."""
        async with database.read_transaction() as conn:
            depth = await outbox.depth(conn)
        return OutboxState(unpublished=depth.rows, oldest_at=depth.oldest_at, oldest_age_s=depth.oldest_age_s)

    @routes.get("/dead-letters")
    async def list_dead_letters(
        state: Annotated[Literal["new", "replayed", "discarded", "all"], Query()] = "new",
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        cursor: Annotated[str | None, Query(max_length=100)] = None,
    ) -> DeadLetterPage:
        """Events that could not be applied, oldest first; without their bodies."""
        async with database.read_transaction() as conn:
            found = await dead_letters.list_dead_letters(
                conn, limit=limit + 1, after=_after(cursor), state=None if state == "all" else state
            )
        items = [DeadLetterView.model_validate(dead_letter) for dead_letter in found[:limit]]
        return DeadLetterPage(items=items, next_cursor=str(items[-1].id) if len(found) > limit else None)

    @routes.post("/dead-letters/{dead_letter_id}/replay", responses=problems(404, 409))
    async def replay_dead_letter(dead_letter_id: UUID, response: Response) -> Settled:
        """Apply the event now, by the handler that failed on it. If it fails again, nothing has changed (422)."""
        response.headers["Cache-Control"] = "no-store"
        try:
            await _replay(database, handlers, dead_letter_id)
        except Exception as error:
            raise _problem_of(error) from error
        return Settled(id=dead_letter_id, state="replayed")

    @routes.post("/dead-letters/{dead_letter_id}/discard", responses=problems(404, 409))
    async def discard_dead_letter(dead_letter_id: UUID, response: Response) -> Settled:
        """Give the event up: it counts as received, and is passed over when it comes again."""
        response.headers["Cache-Control"] = "no-store"
        try:
            await _discard(database, dead_letter_id)
        except Exception as error:
            raise _problem_of(error) from error
        return Settled(id=dead_letter_id, state="discarded")

    @routes.post("/consumers/{consumer}/topics/{topic}/restart", responses=problems(404))
    async def restart_consumer(consumer: str, topic: str, response: Response) -> Restarted:
        """Have a consumer read a topic again from its beginning. It is meant for one that has stopped with `LogPositionLost`,
        because the topic was created again or has lost records: what is there is read, and what it had before stays applied."""
        response.headers["Cache-Control"] = "no-store"
        partitions = await restart(database, consumer, topic)
        if partitions == 0:
            raise not_found("consumer of this topic")
        return Restarted(consumer=consumer, topic=topic, partitions=partitions)

    return routes


async def _replay(database: Database, handlers: Mapping[str, Handler], dead_letter_id: UUID) -> None:
    async with database.read_transaction() as conn:
        consumer = await dead_letters.find_consumer(conn, dead_letter_id)
    if consumer not in handlers:
        raise Problem(
            409, "unknown-consumer", "Unknown consumer", "This service has no handler for its consumer any more."
        )
    await dead_letters.replay(PostgresConsumerStore(database, consumer), handlers[consumer], dead_letter_id)


async def _discard(database: Database, dead_letter_id: UUID) -> None:
    async with database.read_transaction() as conn:
        consumer = await dead_letters.find_consumer(conn, dead_letter_id)
    await dead_letters.discard(PostgresConsumerStore(database, consumer), dead_letter_id)


def _after(cursor: str | None) -> UUID | None:
    try:
        return UUID(cursor) if cursor else None
    except ValueError:
        raise Problem(422, "invalid-cursor", "Invalid cursor", "The cursor is not one that this list gave.") from None


def _problem_of(error: Exception) -> Exception:
    """The answer to a replay or discard that changed nothing."""
    match error:
        case Problem():
            return error
        case dead_letters.UnknownDeadLetter():
            return not_found("dead letter")
        case dead_letters.AlreadySettled():
            return Problem(409, "already-settled", "Already settled", f"This dead letter is {error.state}.")
        case MalformedEvent() | UnknownEventType():
            return Problem(422, "unreadable-event", "Unreadable event", "The record is still no event of a known type.")
        case _ if is_transient(error):
            return error
        case _:
            return Problem(422, "replay-failed", "Replay failed", dead_letters.describe(error))
