"""Real PostgreSQL and Apache Kafka for all tests: one of each a run, shared by the workers, gone with the last of them.

A test that needs durable storage or kills a server starts its own with `accord_local.postgres.PostgresServer` and
`accord_local.kafka.KafkaServer`; the shared PostgreSQL runs without fsync.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from accord_local.kafka import KafkaServer
from accord_local.postgres import PostgresServer
from accord_local.server_manager import ServerManagerClient
from tests.databases import Databases, Migrate, owner_of

# Examples are not timed: machines are shared. Where CI is set Hypothesis has a profile of its own: the same examples each time.
if not os.environ.get("CI"):
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")

STACKS = {"tests/chaos/": "chaos", "tests/system/test_funnel.py": "funnel", "tests/system/": "system"}
"""Where tests share a stack of their own → its name. Those of one stack run in one worker."""

DatabaseFactory = Callable[[str, Migrate], str]


class StackScheduling(LoadScopeScheduling):
    """Spreads tests over workers one by one, but keeps those of one stack together. (Mark `xdist_group` does nothing
    under pytest 9.2: xdist 3.8 appends the group to an attribute that is not read any more.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((stack for path, stack in STACKS.items() if nodeid.startswith(path)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> StackScheduling:
    return StackScheduling(config, log)


@pytest.fixture(scope="session")
def _server_manager(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[ServerManagerClient]:
    own = tmp_path_factory.getbasetemp()
    run_dir: Path = own if worker_id == "master" else own.parent
    client = ServerManagerClient.join(run_dir)
    yield client
    client.close()


@pytest.fixture(scope="session")
def postgres_server(_server_manager: ServerManagerClient) -> PostgresServer:
    """The run's PostgreSQL: `.url(database)`, `.dsn(database)`, `.execute(sql, database)`."""
    return _server_manager.postgres()


@pytest.fixture(scope="session")
def kafka_server(_server_manager: ServerManagerClient) -> KafkaServer:
    """The run's Kafka: `.bootstrap_servers`. It creates no topics by itself."""
    return _server_manager.kafka()


@pytest.fixture
def kafka_topic_prefix() -> str:
    """A prefix for topics and groups that no other test of any run uses."""
    return f"t{uuid.uuid4().hex[:10]}-"


@pytest.fixture(scope="session")
def _databases(postgres_server: PostgresServer) -> Databases:
    return Databases(postgres_server)


@pytest.fixture
def database_factory(
    postgres_server: PostgresServer, _databases: Databases, request: pytest.FixtureRequest
) -> Iterator[DatabaseFactory]:
    """Make `(name, migrate) -> url`: an own database as `migrate(url)` leaves one, which it does once per worker and
    folder of tests.

    `name` is a service's database (its role is the owner) or any other word (the superuser is). After the test the
    database is emptied for a later one, or dropped if its tables were changed.
    """
    taken: list[tuple[str, str]] = []

    def make(name: str, migrate: Migrate) -> str:
        database = _databases.take((name, request.path.parent), name, migrate)
        taken.append((name, database))
        return postgres_server.url(database, owner_of(name))

    yield make
    for name, database in taken:
        _databases.give_back((name, request.path.parent), name, database)
