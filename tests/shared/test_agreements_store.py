"""Agreements in the database: two signers at once, versions that wait for their time, and the cache of what is in force."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from shared_kit import CONTENT, POLICY, Kit, service_kit, until
from sqlalchemy import MetaData, text
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from accord.agreements import ActiveCache, AgreementStore, agreement_worker, model, tables
from accord.agreements.documents import document
from accord.agreements.store import InvalidContent, NoSuchVersion, StoredVersion
from accord.clock import utc_now
from accord.http import tables as http_tables
from accord.messaging import tables as messaging_tables
from accord.service import report_outdated


def content(**changes: Any) -> Any:
    return document({**CONTENT, **changes})


async def proposed(store: AgreementStore, at: datetime | None = None, **changes: Any) -> StoredVersion:
    draft = await store.draft(content(**changes), "marketing")
    return (await store.propose(draft.state.version, "marketing", at))[0]


async def signed(store: AgreementStore, at: datetime | None = None, **changes: Any) -> StoredVersion:
    found = await proposed(store, at, **changes)
    sha, version = found.state.content_sha256, found.state.version
    await store.sign(version, "marketing", "marketing", sha)
    return await store.sign(version, "sales", "sales", sha)


async def statuses(kit: Kit) -> list[str]:
    async with kit.database.read_transaction() as conn:
        rows = await conn.exec_driver_sql("SELECT status FROM agreement_version ORDER BY version")
        return [row[0] for row in rows]


async def test_two_signers_at_once_bring_it_into_force_once(kit: Kit) -> None:
    for number in range(1, 6):
        found = await proposed(kit.store, title=f"Number {number}")
        sha = found.state.content_sha256
        await asyncio.gather(
            kit.store.sign(number, "marketing", "marketing", sha), kit.store.sign(number, "sales", "sales", sha)
        )
        assert (await statuses(kit)).count("active") == 1
    activated = [data for type_, data in await kit.outbox() if type_ == "agreement.activated.v1"]
    assert [(data["version"], data["supersedes"]) for data in activated] == [(1, None), (2, 1), (3, 2), (4, 3), (5, 4)]


async def test_two_versions_signed_at_once_leave_one_in_force(kit: Kit) -> None:
    first, second = await proposed(kit.store, title="One"), await proposed(kit.store, title="Two")
    for found in (first, second):
        await kit.store.sign(found.state.version, "marketing", "marketing", found.state.content_sha256)
    await asyncio.gather(
        *(kit.store.sign(f.state.version, "sales", "sales", f.state.content_sha256) for f in (first, second))
    )
    assert sorted(await statuses(kit)) == ["active", "superseded"]


async def test_the_same_signature_twice_at_once_counts_once(kit: Kit) -> None:
    found = await proposed(kit.store)
    outcomes = await asyncio.gather(
        *(kit.store.sign(1, "sales", "sales", found.state.content_sha256) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(outcome, StoredVersion) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, model.KeyHasSigned) for outcome in outcomes) == 3


async def test_the_database_itself_refuses_a_second_version_in_force(kit: Kit) -> None:
    await signed(kit.store)
    await kit.store.draft(content(), "marketing")
    with pytest.raises(IntegrityError):
        async with kit.database.write_transaction() as unit_of_work:
            await unit_of_work.conn.execute(text("UPDATE agreement_version SET status = 'active' WHERE version = 2"))


async def test_drafts_at_once_get_numbers_of_their_own(kit: Kit) -> None:
    drafts = await asyncio.gather(*(kit.store.draft(content(title=f"T{n}"), "marketing") for n in range(8)))
    assert sorted(draft.state.version for draft in drafts) == list(range(1, 9))


async def test_a_signed_version_waits_for_its_time_and_then_supersedes(kit: Kit) -> None:
    await signed(kit.store)
    later = utc_now() + timedelta(days=1)
    waiting = await signed(kit.store, later, title="Next")
    assert waiting.state.status == "proposed"
    assert waiting.state.fully_signed
    assert await kit.store.activate_due() is False
    async with kit.database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(
            text("UPDATE agreement_version SET effective_at = :now WHERE version = 2"), {"now": unit_of_work.now}
        )

    async def is_in_force() -> bool:
        return await kit.store.active_version() == 2

    stop = asyncio.Event()
    running = asyncio.create_task(agreement_worker(kit.store).run(stop))
    await until(is_in_force)
    stop.set()
    await running
    assert await statuses(kit) == ["superseded", "active"]
    assert (await kit.outbox())[-1][1]["supersedes"] == 1


async def test_what_was_in_force_at_a_moment(kit: Kit) -> None:
    assert await kit.store.version_in_force(utc_now()) is None
    before = (await signed(kit.store)).state.active_from
    after = (await signed(kit.store, title="Next")).state.active_from
    assert before is not None
    assert after is not None
    for at, expected in (
        (before, 1),
        (after - timedelta(microseconds=1), 1),
        (after, 2),
        (after + timedelta(days=9), 2),
    ):
        found = await kit.store.version_in_force(at)
        assert found is not None
        assert found.version == expected
    assert await kit.store.version_in_force(before - timedelta(microseconds=1)) is None


async def test_only_what_is_or_was_in_force_can_be_acted_by(kit: Kit) -> None:
    await proposed(kit.store)
    with pytest.raises(NoSuchVersion):
        await kit.store.version(1)
    assert await kit.store.active() is None


async def test_a_draft_that_no_longer_passes_the_checks_cannot_be_proposed(kit: Kit) -> None:
    await kit.store.draft(content(), "marketing")
    strict = AgreementStore(kit.database, replace(POLICY, validate=lambda _: [_finding()]))
    with pytest.raises(InvalidContent):
        await strict.propose(1, "marketing")


def _finding() -> Any:
    from accord.agreements import Finding

    return Finding("/parameters", "no more")


# -- the cache --------------------------------------------------------------------------------------------------------


class Parsed:
    """Counts how often a content is parsed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, found: Any) -> str:
        self.count += 1
        return str(found["title"])


async def test_the_cache_sees_an_activation_of_this_process_at_once_and_parses_once(kit: Kit) -> None:
    parse = Parsed()
    cache = ActiveCache(kit.store, parse)
    assert await cache.current() is None
    await signed(kit.store)
    for _ in range(5):
        assert await cache.current() == (1, CONTENT["title"])
    await signed(kit.store, title="Next")
    assert await asyncio.gather(*(cache.current() for _ in range(20))) == [(2, "Next")] * 20
    assert await cache.at(1) == CONTENT["title"]
    assert parse.count == 2


async def test_the_cache_sees_another_processes_activation_soon(kit: Kit) -> None:
    cache = ActiveCache(kit.store, Parsed())
    assert await cache.current() is None
    await signed(AgreementStore(kit.database, POLICY))

    async def is_seen() -> bool:
        return await cache.current() is not None

    await until(is_seen)
    assert await cache.at(1) == CONTENT["title"]
    with pytest.raises(NoSuchVersion):
        await cache.at(2)


async def test_the_cache_asks_the_database_only_now_and_then(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accord.agreements.cache._REFRESH_S", 3600.0)
    await signed(kit.store)
    cache = ActiveCache(kit.store, Parsed())
    first = await cache.current()
    async with kit.database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("DELETE FROM agreement_signature"))
        await unit_of_work.conn.execute(text("DELETE FROM agreement_version"))
    assert await cache.current() == first


async def test_without_a_database_the_version_last_seen_stays_but_none_is_made_up(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accord.agreements.cache._REFRESH_S", 0.0)
    await signed(kit.store)
    cache = ActiveCache(kit.store, Parsed())
    assert await cache.current() is not None
    async with service_kit("postgresql://nobody@127.0.0.1:1/none", tmp_path) as lost:
        kit.store.database = lost.database
        assert await cache.current() == (1, CONTENT["title"])
        with pytest.raises(OSError, match="Connect"):
            await ActiveCache(lost.store, Parsed()).current()


# -- tables -----------------------------------------------------------------------------------------------------------


async def test_the_tables_are_those_of_the_migrations(kit: Kit) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import Connection

    metadata = MetaData()
    messaging_tables.define_tables(metadata)
    tables.define_tables(metadata)
    http_tables.define_tables(metadata)

    def compare(conn: Connection) -> Any:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, metadata)

    async with kit.database.engine.connect() as conn:
        assert await conn.run_sync(compare) == []


# -- versions that are older than the checks of this release ----------------------------------------------------------


def _stricter(kit: Kit) -> AgreementStore:
    """The store of a release that refuses the title Old."""
    refuse = replace(POLICY, validate=lambda found: [_finding()] if found["title"] == "Old" else [])
    return AgreementStore(kit.database, refuse)


async def test_proposed_version_that_no_longer_passes_the_checks_is_not_signed(kit: Kit) -> None:
    found = await proposed(kit.store, title="Old")
    with pytest.raises(InvalidContent):
        await _stricter(kit).sign(1, "marketing", "marketing", found.state.content_sha256)
    assert (await kit.store.get(1)).state.signatures == {}


async def test_signed_version_that_no_longer_passes_the_checks_stays_proposed_and_holds_up_no_other(kit: Kit) -> None:
    later = utc_now() + timedelta(days=1)
    await signed(kit.store, later, title="Old")
    await signed(kit.store, later, title="Next")
    async with kit.database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("UPDATE agreement_version SET effective_at = now()"))
    strict = _stricter(kit)
    with capture_logs() as logs:
        assert [await strict.activate_due() for _ in range(2)] == [True, False]
    assert await statuses(kit) == ["proposed", "active"]
    assert {(line["event"], line["version"], *line["findings"]) for line in logs} == {
        ("agreement_not_activated", 1, "/parameters: no more")
    }


async def test_outdated_versions_are_found_where_they_are_in_force_or_proposed(kit: Kit) -> None:
    await signed(kit.store, title="Old")
    await signed(kit.store, title="Old")
    await proposed(kit.store, title="Old")
    await proposed(kit.store, title="New")
    await kit.store.draft(content(title="Old"), "marketing")
    outdated = await _stricter(kit).find_outdated()
    assert [(found.kind, found.version, found.status) for found in outdated] == [
        ("policy", 2, "active"),
        ("policy", 3, "proposed"),
    ]
    assert outdated[0].findings == [_finding()]


async def test_migration_reports_each_outdated_version_with_its_findings(kit: Kit) -> None:
    await signed(kit.store, title="Old")
    with capture_logs() as logs:
        await report_outdated(dataclasses.replace(kit.service, documents=[_stricter(kit)]))
    (line,) = (line for line in logs if line["event"] == "agreement_outdated")
    assert (line["kind"], line["version"], line["status"]) == ("policy", 1, "active")
    assert line["findings"] == ["/parameters: no more"]
