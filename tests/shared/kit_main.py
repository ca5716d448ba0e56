"""The kit's service as a process; what its workers do is told by KIT_WORKER, KIT_RELAY and KIT_API_WORKER."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import APIRouter
from pydantic import BaseModel
from shared_kit import CONTENT, POLICY
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from accord.agreements import AgreementStore, PaperLinks, agreement_router
from accord.batching import GroupCommit
from accord.db import Database
from accord.http.auth import Caller, authorize, require
from accord.service import Service, run
from accord.settings import Settings


class KitWorker:
    """Waits for the end, dies, ends early, is stuck or never drains, as told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.manner = os.environ.get(name.upper().replace("-", "_"), "")

    async def run(self, stop: asyncio.Event) -> None:
        if self.manner == "dies":
            raise ValueError("ada@initech.example")
        if self.manner == "ends":
            return
        await stop.wait()
        if self.manner == "never-drains":
            await asyncio.sleep(3600)

    def problem(self) -> str | None:
        return f"{self.name}: stuck" if self.manner == "stuck" else None


class Word(BaseModel):
    word: str


async def measure(request: Request) -> Response:
    """A plain route: the key, then the whole body."""
    await authorize(request, "leads:read")
    return PlainTextResponse(str(len(await request.body())))


async def stream(request: Request) -> Response:
    """A plain route that takes the body as it comes."""
    await authorize(request, "leads:read")
    return PlainTextResponse(str(sum([len(piece) async for piece in request.stream()])))


async def hook(request: Request) -> Response:
    """What asks for no key; a tool proves itself by its bytes."""
    return PlainTextResponse(str(len(await request.body())))


async def endless(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000
            await asyncio.sleep(0)

    return StreamingResponse(pieces())


def build(settings: Settings) -> Service:
    database = Database(settings.database_url.get_secret_value(), application_name="kit", pool_size=2)
    router = APIRouter()

    async def apply(words: list[str]) -> list[str]:
        await asyncio.sleep(0.3)
        async with database.write_transaction():
            return [word.upper() for word in words]

    commits: GroupCommit[str, str] = GroupCommit(apply, name="kit-commits")  # type: ignore[arg-type]

    @router.get("/shout/{word}")
    async def shout(word: str) -> str:
        sys.stdout.write('{"event": "entered"}\n')
        sys.stdout.flush()
        return await commits.submit(word)

    @router.post("/model")
    async def model(word: Word, _: Caller = require("leads:read")) -> str:
        return word.word

    return Service(
        name="intake",
        title="Kit",
        settings=settings,
        database=database,
        migrations=Path(__file__).parent / "kit_migrations",
        routes=[
            Route("/measure", measure, methods=["POST"]),
            Route("/stream", stream, methods=["POST"]),
            Route("/hook", hook, methods=["POST"]),
            Route("/endless", endless),
        ],
        streamed_bytes_max={"/stream": 2**40},
        raw_body_prefixes=["/hook"],
        routers=[router, agreement_router(AgreementStore(database, POLICY), PaperLinks([]), example=CONTENT)],
        workers=[KitWorker("kit-worker")],
        relays=[KitWorker("kit-relay")],
        api_workers=[commits, KitWorker("kit-api-worker")],
    )


if __name__ == "__main__":
    sys.exit(run(build))
