"""The kit's service as a process; what its workers do is told by KIT_WORKER, KIT_RELAY and KIT_API_WORKER."""

import asyncio
import os
import sys
from pathlib import Path

from fastapi import APIRouter
from shared_kit import CONTENT, POLICY

from accord.agreements import AgreementStore, agreement_router
from accord.batching import GroupCommit
from accord.database import Database
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


def build(settings: Settings) -> Service:
    database = Database(settings.database_url.get_secret_value(), application_name="kit", pool_size=2)
    router = APIRouter()

    async def apply(words: list[str]) -> list[str]:
        await asyncio.sleep(0.3)
        async with database.recording():
            return [word.upper() for word in words]

    commits: GroupCommit[str, str] = GroupCommit(apply, name="kit-commits")  # type: ignore[arg-type]

    @router.get("/shout/{word}")
    async def shout(word: str) -> str:
        sys.stdout.write('{"event": "entered"}\n')
        sys.stdout.flush()
        return await commits.submit(word)

    return Service(
        name="intake",
        title="Kit",
        settings=settings,
        database=database,
        migrations=Path(__file__).parent / "kit_migrations",
        routers=[router, agreement_router(AgreementStore(database, POLICY), example=CONTENT)],
        workers=[KitWorker("kit-worker")],
        relays=[KitWorker("kit-relay")],
        api_workers=[commits, KitWorker("kit-api-worker")],
    )


if __name__ == "__main__":
    sys.exit(run(build))
