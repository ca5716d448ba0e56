"""Fixtures for the tests of the shared library: a little service on a database of its own."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported by path; this makes `shared_kit` importable

from shared_kit import Kit, migrate_kit, service_kit

from accord.telemetry import configure_logging


@pytest.fixture(autouse=True)
def _logs() -> None:
    configure_logging("info")


@pytest.fixture
def kit_database(database_factory: Callable[..., str]) -> str:
    """The URL of a database with the shared tables."""
    return database_factory("kit", migrate_kit)


@pytest.fixture
async def kit(kit_database: str, tmp_path: Path) -> AsyncIterator[Kit]:
    """The kit's service, with a client."""
    async with service_kit(kit_database, tmp_path) as built:
        yield built
