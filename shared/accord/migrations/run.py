"""Runs a service's Alembic history against its database: the `migrate` role, `env.py` and tests. It defines no table.

Two migrate jobs at once do not race: a session advisory lock makes the second wait, and then it finds nothing to do.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from accord.db import async_url, is_transient
from accord.retry import Backoff
from accord.telemetry import describe

log = structlog.get_logger(__name__)

MIGRATION_LOCK = 0x0ACC_04D1
"""Key of the session advisory lock that a running migration holds."""

_LOCK_TIMEOUT = "5s"
_WAIT_FOR_OTHER_S_MAX = 300
_ATTEMPTS_MAX = 8


def alembic_config(migrations: Path, url: str) -> Config:
    """Alembic's configuration for a directory with env.py and versions/, wherever it is installed."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def run_env(metadata: MetaData | None = None) -> None:
    """The whole of a service's env.py: `run_env(tables.metadata)`. Called by Alembic, inside or outside `migrate`."""
    config = context.config
    connection = config.attributes.get("connection")
    if connection is not None:
        _run(connection, metadata)
        return
    url = config.attributes.get("url") or config.get_main_option("sqlalchemy.url") or _url_from_environment()
    if context.is_offline_mode():
        context.configure(url="postgresql://", target_metadata=metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    asyncio.run(_run_async(url, metadata))


def _url_from_environment() -> str:
    from accord.settings import Settings  # noqa: PLC0415 - only when alembic itself is run by hand

    return Settings().database_url.get_secret_value()


async def _run_async(url: str, metadata: MetaData | None) -> None:
    options = {"target_session_attrs": "read-write"}
    engine = create_async_engine(async_url(url), poolclass=NullPool, connect_args=options)
    try:
        async with engine.connect() as conn:
            await conn.run_sync(_run, metadata)
    finally:
        await engine.dispose()


def _run(connection: Connection, metadata: MetaData | None) -> None:
    """Lock, migrate each revision in a transaction of its own, unlock."""
    connection.execute(text(f"SET lock_timeout = '{_WAIT_FOR_OTHER_S_MAX}s'"))
    connection.execute(text(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
    connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT}'"))
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            transaction_per_migration=True,
            compare_type=True,
            compare_server_default=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(text(f"SELECT pg_advisory_unlock({MIGRATION_LOCK})"))
        connection.commit()


async def upgrade(migrations: Path, url: str) -> None:
    """Bring the database to the newest revision. Raises what the database raises."""
    await asyncio.to_thread(command.upgrade, alembic_config(migrations, url), "head")


def upgrade_sync(migrations: Path, url: str) -> None:
    """The same for tests: `database_factory("intake", partial(upgrade_sync, migrations))`."""
    command.upgrade(alembic_config(migrations, url), "head")


async def migrate(migrations: Path, url: str, service: str) -> int:
    """The role `migrate`: waits a while for a database that is not up yet; exit code 0 or 1."""
    head = ScriptDirectory(str(migrations)).get_current_head()
    backoff = Backoff(first_s=0.5, max_s=5.0)
    for attempt in range(1, _ATTEMPTS_MAX + 1):
        try:
            await upgrade(migrations, url)
        except Exception as error:
            if is_transient(error) and attempt < _ATTEMPTS_MAX:
                log.warning("migration_waiting", service=service, error=describe(error))
                await asyncio.sleep(backoff.next_s())
                continue
            log.exception("migration_failed", service=service)
            return 1
        log.info("migrated", service=service, revision=head)
        return 0
    return 1
