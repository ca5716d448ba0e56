"""SQL on configured sources. Secrets are only ever seen here encrypted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.db import from_json
from intake.sources.domain.source import EncryptedSecret, Source

_COLUMNS = "name, adapter, settings, mapping, defaults, secrets, version, created_at, updated_at"
_READ = text(f"SELECT {_COLUMNS} FROM source WHERE name = :name")
_READ_LOCKED = text(f"SELECT {_COLUMNS} FROM source WHERE name = :name FOR UPDATE")
_LIST = text(f"SELECT {_COLUMNS} FROM source WHERE name > :after ORDER BY name LIMIT :rows")
_SAVE = text(
    """
    INSERT INTO source (name, adapter, settings, mapping, defaults, secrets, version, created_at, updated_at)
    VALUES (:name, :adapter, CAST(:settings AS jsonb), CAST(:mapping AS jsonb), CAST(:defaults AS jsonb),
            CAST(:secrets AS jsonb), :version, :now, :now)
    ON CONFLICT (name) DO UPDATE
    SET adapter = excluded.adapter, settings = excluded.settings, mapping = excluded.mapping, defaults = excluded.defaults,
        secrets = excluded.secrets, version = excluded.version, updated_at = excluded.updated_at
    """
)
_DELETE = text("DELETE FROM source WHERE name = :name")
_COUNT = text("SELECT count(*) FROM source")
_LOCK_NAME = text("SELECT pg_advisory_xact_lock(hashtextextended('accord-source:' || :name, 0))")


async def read(conn: AsyncConnection, name: str) -> Source | None:
    """The source of this name, None if none is configured."""
    row = (await conn.execute(_READ, {"name": name})).one_or_none()
    return None if row is None else _source(row)


async def lock(conn: AsyncConnection, name: str) -> Source | None:
    """The source of this name for a change; whoever else would change or make it waits, also while there is none."""
    await conn.execute(_LOCK_NAME, {"name": name})
    row = (await conn.execute(_READ_LOCKED, {"name": name})).one_or_none()
    return None if row is None else _source(row)


async def page(conn: AsyncConnection, after: str, rows: int) -> list[Source]:
    """Sources by name, those behind `after`."""
    return [_source(row) for row in await conn.execute(_LIST, {"after": after, "rows": rows})]


async def count(conn: AsyncConnection) -> int:
    """How many are configured."""
    found: int = (await conn.execute(_COUNT)).scalar_one()
    return found


async def save(conn: AsyncConnection, source: Source, now: datetime) -> None:
    """Insert it, or put it in the place of what stood there."""
    await conn.execute(
        _SAVE,
        {
            "name": source.name,
            "adapter": source.adapter,
            "settings": _text(source.settings),
            "mapping": _text(source.mapping_document),
            "defaults": _text(source.defaults),
            "secrets": _text([_encode_secret(one) for one in source.secrets]),
            "version": source.version,
            "now": now,
        },
    )


async def delete(conn: AsyncConnection, name: str) -> None:
    """Forget the source with its secrets."""
    await conn.execute(_DELETE, {"name": name})


def _text(value: object) -> str:
    return orjson.dumps(value).decode()


def _encode_secret(secret: EncryptedSecret) -> dict[str, object]:
    return {
        "use": secret.kind,
        "id": secret.secret_id,
        "sealed": secret.encrypted,
        "set_at": secret.set_at,
        "until": secret.until,
    }


def _source(row: Any) -> Source:
    return Source(
        name=row.name,
        adapter=row.adapter,
        settings=from_json(row.settings),
        mapping_document=from_json(row.mapping),
        defaults=from_json(row.defaults),
        secrets=tuple(_decode_secret(one) for one in from_json(row.secrets)),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _decode_secret(said: dict[str, Any]) -> EncryptedSecret:
    until = said.get("until")
    return EncryptedSecret(
        said["use"],
        said["id"],
        said["sealed"],
        datetime.fromisoformat(said["set_at"]),
        None if until is None else datetime.fromisoformat(until),
    )
