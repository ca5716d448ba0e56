"""The plain baselines: what a careful engineer writes first. Each is a process of its own, as ours are, over the same tables and with
the same rules of the domain, so that only the way of doing it differs. None of this ships.

`python -m tests.bench.baselines capture|relay|consume`, configured by the same environment variables as the services.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import uvicorn
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel
from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from uuid_utils.compat import uuid7

from accord.agreements import ActiveCache, AgreementStore
from accord.contracts.codec import encode_value, to_object
from accord.contracts.envelope import decode, headers_of
from accord.contracts.intake_events import LeadCaptured, LeadState
from accord.contracts.topics import INTAKE_EVENTS
from accord.db import Database
from accord.messaging import inbox
from accord.messaging.handler import Received
from accord.settings import Settings
from intake import tables
from intake.leads.domain.facts import Facts
from intake.leads.domain.submission import Submission
from intake.leads.service.normalization import derive_account_id, find_account_domain, parse_email, parse_phone
from intake.policy.service.agreement import POLICY, compile_policy
from qualification.definition.service import KIND as DEFINITION
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.service.evaluation_context import EvaluationContexts
from qualification.lifecycle.service.intake_events import process_intake_events
from qualification.routing.service.assignment import assign_after_save
from qualification.routing.service.document import RoutingVersionCache

FETCHED_ROWS = 5_000
POLL_S = 0.1
OFFSETS_EVERY = 100
KEY_HEADER = "Bearer bench"


class BaselineOut(BaseModel):
    """The baseline's answer."""

    submission_id: UUID
    lead_id: UUID
    outcome: str
    verdict: str
    quality_score: float | None


def capture_app(settings: Settings) -> FastAPI:
    """`POST /v1/leads` as a FastAPI route with a pydantic body, SQLAlchemy and a transaction per request."""
    url = settings.database_url.get_secret_value()
    engine = create_async_engine(url, pool_size=settings.database_pool_size, max_overflow=0, pool_timeout=30)
    policies = AgreementStore(Database(url, application_name="baseline"), POLICY)
    outbox = tables.metadata.tables["outbox"]
    app = FastAPI()
    evaluator: Any = None

    async def known(conn: AsyncConnection, email: str | None) -> UUID | None:
        key = tables.identity_key.c
        found = await conn.execute(select(key.lead_id).where(key.kind == "email", key.value == email).with_for_update())
        return found.scalar()

    @app.post("/v1/leads", status_code=201)
    async def submit(submission: Submission, response: Response, authorization: str = Header()) -> BaselineOut:
        nonlocal evaluator
        if authorization != KEY_HEADER:
            raise HTTPException(401)
        if evaluator is None:
            evaluator = compile_policy(await _in_force(policies))
        email = parse_email(submission.email) if submission.email else None
        country = submission.attributes.get("country")
        phone = parse_phone(submission.phone, str(country)) if submission.phone else None
        address = email.address if email else None
        now = datetime.now(UTC)
        facts = Facts(submission.model_dump(exclude_none=True), submission.attributes, email, phone)
        quality, attributes, _ = evaluator.evaluate(facts, 1, now)
        domain = find_account_domain(submission.domain, address.rpartition("@")[2] if address else None)
        account_id = derive_account_id(domain) if domain else None
        at = min(submission.occurred_at or now, now)
        async with engine.begin() as conn:
            lead_id = await known(conn, address)
            outcome = "updated" if lead_id else "created"
            if lead_id is None:
                lead_id = uuid7()
                state = LeadState(
                    source=submission.source,
                    captured_at=at,
                    account_id=account_id,
                    attributes=attributes,
                    campaign=submission.campaign.public() if submission.campaign else None,
                    verdict=quality.verdict,
                    policy_version=1,
                    quality_score=quality.score,
                )
                event = LeadCaptured(lead_id=lead_id, sequence=1, occurred_at=at, recorded_at=now, state=state)
                await conn.execute(
                    insert(tables.lead).values(
                        lead_id=lead_id,
                        email=address,
                        phone=phone.e164 if phone else None,
                        **submission.model_dump(include={"source", "first_name", "last_name", "company", "title"}),
                        captured_at=at,
                        verdict=quality.verdict,
                        attributes=state.attributes,
                        field_timestamps={"email": at.isoformat()},
                        account_id=account_id,
                        campaign=to_object(state.campaign) if state.campaign else None,
                        external_keys=[],
                        policy_version=1,
                        quality_score=quality.score,
                        pending=False,
                        sequence=1,
                        recorded_at=now,
                    )
                )
                keys = [("email", address), *([("phone", phone.e164)] if phone else [])]
                await conn.execute(
                    insert(tables.identity_key),
                    [{"kind": kind, "value": value, "lead_id": lead_id} for kind, value in keys],
                )
                if domain:
                    account = {"account_id": account_id, "domain": domain, "name": submission.company}
                    await conn.execute(
                        upsert(tables.account).values(**account, recorded_at=now).on_conflict_do_nothing()
                    )
                await conn.execute(
                    insert(outbox).values(
                        event_id=uuid7(),
                        type=event.type,
                        key=event.key,
                        occurred_at=at,
                        recorded_at=now,
                        payload=encode_value(event),
                    )
                )
            submission_id = uuid7()
            await conn.execute(
                insert(tables.submission).values(
                    submission_id=submission_id,
                    lead_id=lead_id,
                    source=submission.source,
                    caller="baseline",
                    outcome=outcome,
                    verdict=quality.verdict,
                    quality_score=quality.score,
                    policy_version=1,
                    failed=[to_object(failure) for failure in quality.failed],
                    content=submission.model_dump_json(exclude_none=True),
                    occurred_at=at,
                    recorded_at=now,
                )
            )
        if outcome == "updated":
            response.status_code = 200
        return BaselineOut(
            submission_id=submission_id,
            lead_id=lead_id,
            outcome=outcome,
            verdict=quality.verdict,
            quality_score=quality.score,
        )

    @app.get("/readyz")
    async def ready() -> None:
        async with engine.connect():
            return

    return app


async def _in_force(store: AgreementStore) -> Any:
    found = await ActiveCache(store, lambda content: content).current()
    if found is None:
        raise RuntimeError("no version is in force")
    return found[1]


def capture(settings: Settings) -> None:
    """Serve the baseline of intake as intake is served: uvloop, httptools, no access log."""
    uvicorn.run(
        capture_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        timeout_keep_alive=75,
    )


async def relay(settings: Settings) -> None:
    """Poll the outbox, `send` each event and wait for all, delete them."""
    url = settings.database_url.get_secret_value().replace("postgresql+asyncpg://", "postgresql://", 1)
    connection = await asyncpg.connect(url)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=1
    )
    await producer.start()
    topic = settings.kafka_topic_prefix + INTAKE_EVENTS
    while True:
        rows = await connection.fetch("SELECT * FROM outbox ORDER BY id LIMIT $1", FETCHED_ROWS)
        sent = []
        for row in rows:
            headers = headers_of(
                id=row["event_id"],
                type=row["type"],
                source="/intake",
                subject=row["key"],
                time=row["occurred_at"],
                traceparent=row["traceparent"],
            )
            sent.append(await producer.send(topic, value=row["payload"], key=row["key"].encode(), headers=headers))
        await asyncio.gather(*sent)
        if rows:
            await connection.execute("DELETE FROM outbox WHERE id = ANY ($1::bigint[])", [row["id"] for row in rows])
        if len(rows) < FETCHED_ROWS:
            await asyncio.sleep(POLL_S)


async def consume(settings: Settings) -> None:
    """qualification with a transaction per message: the same inbox, rules and outbox, one event at a time."""
    database = Database(settings.database_url.get_secret_value(), application_name="twin")
    contexts = EvaluationContexts(
        DefinitionVersionCache(AgreementStore(database, DEFINITION)), assign_after_save(RoutingVersionCache(database))
    )
    topic = settings.kafka_topic_prefix + INTAKE_EVENTS
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        group_id="baseline",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    seen = 0
    async for record in consumer:
        event = decode(record.value, record.headers)
        async with database.write_transaction() as unit_of_work:
            if await inbox.claim(await unit_of_work.connection(), "baseline", [event.id], unit_of_work.now):
                received = Received(event, INTAKE_EVENTS, record.partition, record.offset)
                await process_intake_events(unit_of_work, [received], await contexts.open(unit_of_work.conn))
        seen += 1
        if seen % OFFSETS_EVERY == 0:
            await consumer.commit()


_ASYNC: dict[str, Callable[[Settings], Coroutine[Any, Any, None]]] = {"relay": relay, "consume": consume}


def main(name: str) -> None:
    """Run one baseline until it is told to stop."""
    settings = Settings()
    if name == "capture":
        capture(settings)
    else:
        uvloop.run(_ASYNC[name](settings))


if __name__ == "__main__":
    main(sys.argv[1])
