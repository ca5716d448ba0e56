"""Agreements of one kind in the database: the only place that writes them, each change in one unit of work with its event.

Changes of one kind follow each other under an advisory lock; a partial unique index says once more that one is active.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import model
from accord.agreements.documents import Document, document
from accord.contracts.agreement_events import (
    AgreementActivated,
    AgreementKind,
    AgreementProposed,
    AgreementSigned,
    AgreementWithdrawn,
)
from accord.contracts.values import Department
from accord.db import Database, UnitOfWork, clamp_moment
from accord.http.idempotency import Answer, IdempotencyRequest, IdempotentResult, execute_once
from accord.terms.findings import Finding, pointer
from accord.terms.paper import Section
from accord.terms.patterns import check_patterns
from accord.workers import Periodic

log = structlog.get_logger(__name__)

ACTIVATE_EVERY_S = 1.0
ACTIVATE_IDLE_EVERY_S = 5.0
_TITLE_CHARS_MAX = 200
_GLOSSARY_WORDS_MAX = 500


Warn = Callable[[AsyncConnection, Mapping[str, object]], Awaitable[Sequence[str]]]


class Kind(Struct, frozen=True):
    """One of the four documents, as its service knows it.

    `validate` finds what is wrong with a content (a draft with findings is refused); `paper` says it in plain words; `warn`,
    asked at the proposal, says what both should know before they sign.
    """

    kind: AgreementKind
    path: str
    validate: Callable[[Mapping[str, object]], list[Finding]]
    paper: Callable[[Mapping[str, object]], list[Section]]
    warn: Warn | None = None


class ActiveAgreement(Struct, frozen=True):
    """A version with its content, for those who act by it. `effective_from` is when it came into force."""

    version: int
    content: Mapping[str, object]
    content_sha256: str
    effective_from: datetime


class StoredVersion(Struct, frozen=True):
    """A version as it is kept: its state, and what stands around it."""

    state: model.Version
    title: str
    content: dict[str, object]
    drafted_by: str
    drafted_at: datetime
    edited_at: datetime

    @property
    def etag(self) -> str:
        return f'"{self.state.version}-{self.state.revision}"'


class NoSuchVersion(LookupError):
    """There is no version with this number."""


class InvalidContent(ValueError):
    """The content has findings; nothing was written."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(f"{len(findings)} findings")
        self.findings = list(findings)


class OutdatedVersion(Struct, frozen=True):
    """A document that is older than the checks of this release and would not pass them."""

    kind: str
    version: int
    status: str
    findings: Sequence[Finding]


class VersionModified(Exception):
    """The version is not the one that the caller's ETag names."""


class AgreementStore:
    """The versions of one kind."""

    def __init__(self, database: Database, kind: Kind) -> None:
        self.database = database
        self.kind = kind
        self.activations = 0
        """Counts activations by this process; ActiveVersion looks at it."""

    # -- changes: each is one transaction --------------------------------------------------------------------------

    async def draft(self, content: Document, by: str) -> StoredVersion:
        """A new draft. Raises InvalidContent."""
        await self.check(content)
        async with self.database.write_transaction() as unit_of_work:
            return await self._insert_draft(unit_of_work, content, by)

    async def draft_once(
        self,
        content: Document,
        by: str,
        idempotency_request: IdempotencyRequest | None,
        encode: Callable[[StoredVersion], Answer],
    ) -> IdempotentResult[StoredVersion]:
        """The same under an Idempotency-Key: the answer is saved in the draft's own transaction. Raises InvalidContent."""
        await self.check(content)
        async with self.database.write_transaction() as unit_of_work:
            return await execute_once(
                unit_of_work, idempotency_request, lambda: self._insert_draft(unit_of_work, content, by), encode
            )

    async def edit(self, version: int, content: Document, etag: str) -> StoredVersion:
        """A draft with other content. Raises InvalidContent, NoSuchVersion, VersionModified, NotADraft."""
        await self.check(content)
        async with self.database.write_transaction() as unit_of_work:
            found = await self._lock_version(unit_of_work, version)
            if found.etag != etag:
                raise VersionModified
            state = model.edit(found.state, content.sha256)
            edited = StoredVersion(
                state,
                title_of(content.content),
                {**content.content},
                found.drafted_by,
                found.drafted_at,
                unit_of_work.now,
            )
            await unit_of_work.conn.execute(
                text(
                    "UPDATE agreement_version SET revision = :revision, title = :title, content = :content,"
                    " content_sha256 = :sha, edited_at = :now WHERE kind = :kind AND version = :version"
                ),
                {
                    "revision": state.revision,
                    "title": edited.title,
                    "content": content.canonical,
                    "sha": content.sha256,
                    "now": unit_of_work.now,
                    "kind": self.kind.kind,
                    "version": version,
                },
            )
            return edited

    async def propose(
        self, version: int, by: str, effective_from: datetime | None = None
    ) -> tuple[StoredVersion, list[str]]:
        """Put a draft up for signature; the warnings that go with it. Raises InvalidContent, NoSuchVersion, NotADraft, EffectiveInThePast.

        The content is checked again: the draft may be older than the checks of this release.
        """
        await self.check_version(version)
        async with self.database.write_transaction() as unit_of_work:
            found = await self._lock_version(unit_of_work, version)
            state = model.propose(found.state, by, unit_of_work.now, effective_from)
            warnings = [] if self.kind.warn is None else list(await self.kind.warn(unit_of_work.conn, found.content))
            stored = await self._save(unit_of_work, found, state)
            unit_of_work.publish(AgreementProposed(**self._make_event_fields(stored, unit_of_work.now), proposed_by=by))
            return stored, warnings

    async def sign(self, version: int, department: Department, by: str, content_sha256: str) -> StoredVersion:
        """Add a signature; the second one brings the version into force if its time has come.

        Raises InvalidContent, NoSuchVersion, NotProposed, ContentDiffers, DepartmentHasSigned, KeyHasSigned. The content is checked
        again, as at the proposal.
        """
        await self.check_version(version)
        async with self.database.write_transaction() as unit_of_work:
            found = await self._lock_version(unit_of_work, version)
            state = model.sign(found.state, department, by, content_sha256, unit_of_work.now)
            await unit_of_work.conn.execute(
                text(
                    "INSERT INTO agreement_signature (kind, version, department, signed_by, signed_at, content_sha256)"
                    " VALUES (:kind, :version, :department, :by, :now, :sha)"
                ),
                {
                    "kind": self.kind.kind,
                    "version": version,
                    "department": department,
                    "by": by,
                    "now": unit_of_work.now,
                    "sha": content_sha256,
                },
            )
            stored = await self._save(unit_of_work, found, state)
            unit_of_work.publish(
                AgreementSigned(
                    **self._make_event_fields(stored, unit_of_work.now), department=department, signed_by=by
                )
            )
            activated = model.is_due(state, unit_of_work.now)
            if activated:
                stored = await self._activate(unit_of_work, stored)
        if activated:
            self.activations += 1
        return stored

    async def withdraw(self, version: int, by: str) -> StoredVersion:
        """Take back a draft or a proposed version. Raises NoSuchVersion, NotWithdrawable."""
        async with self.database.write_transaction() as unit_of_work:
            found = await self._lock_version(unit_of_work, version)
            stored = await self._save(unit_of_work, found, model.withdraw(found.state, by, unit_of_work.now))
            unit_of_work.publish(
                AgreementWithdrawn(**self._make_event_fields(stored, unit_of_work.now), withdrawn_by=by)
            )
            return stored

    async def activate_due(self) -> bool:
        """Bring into force the next signed version whose time has come; whether there was one.

        One that does not pass the checks of this release stays proposed: both departments withdraw it and agree on another.
        """
        due = text(
            "SELECT v.version FROM agreement_version v WHERE v.kind = :kind AND v.status = 'proposed'"
            " AND v.effective_at <= clock_timestamp() AND (SELECT count(*) FROM agreement_signature s"
            " WHERE s.kind = v.kind AND s.version = v.version) = 2 ORDER BY v.effective_at, v.version"
        )
        async with self.database.read_transaction() as conn:
            versions = (await conn.execute(due, {"kind": self.kind.kind})).scalars().all()
        for version in versions:
            try:
                await self.check_version(version)
            except InvalidContent as refused:
                findings = [f"{finding.pointer}: {finding.message}" for finding in refused.findings]
                log.error("agreement_not_activated", kind=self.kind.kind, version=version, findings=findings)
                continue
            async with self.database.write_transaction() as unit_of_work:
                found = await self._lock_version(unit_of_work, version)
                if not model.is_due(found.state, unit_of_work.now):
                    return False
                await self._activate(unit_of_work, found)
            self.activations += 1
            return True
        return False

    # -- reading ---------------------------------------------------------------------------------------------------

    async def active(self, conn: AsyncConnection | None = None) -> ActiveAgreement | None:
        """The version in force, read in the caller's transaction or in one of its own."""
        return await self._fetch_one("v.status = 'active'", {}, conn)

    async def version_in_force(self, at: datetime, conn: AsyncConnection | None = None) -> ActiveAgreement | None:
        """The version that was in force at a moment."""
        condition = "v.active_from <= :at AND (v.superseded_at IS NULL OR v.superseded_at > :at)"
        return await self._fetch_one(condition, {"at": at}, conn)

    async def version(self, version: int, conn: AsyncConnection | None = None) -> ActiveAgreement:
        """A version that is or was in force. Raises NoSuchVersion for any other."""
        found = await self._fetch_one("v.version = :version AND v.active_from IS NOT NULL", {"version": version}, conn)
        if found is None:
            raise NoSuchVersion(version)
        return found

    async def active_version(self, conn: AsyncConnection | None = None) -> int | None:
        """The number of the version in force; cheap."""
        statement = text("SELECT version FROM agreement_version WHERE kind = :kind AND status = 'active'")
        if conn is not None:
            return (await conn.execute(statement, {"kind": self.kind.kind})).scalar_one_or_none()
        async with self.database.read_transaction() as own:
            return (await own.execute(statement, {"kind": self.kind.kind})).scalar_one_or_none()

    async def get(self, version: int, conn: AsyncConnection | None = None) -> StoredVersion:
        """A version in any state, read in the caller's transaction or in one of its own. Raises NoSuchVersion."""
        if conn is None:
            async with self.database.read_transaction() as own:
                return await self.get(version, own)
        found = await self._select(conn, "v.version = :version", {"version": version})
        if not found:
            raise NoSuchVersion(version)
        return found[0]

    async def get_active(self) -> StoredVersion | None:
        """The version in force with all that stands around it."""
        async with self.database.read_transaction() as conn:
            found = await self._select(conn, "v.status = 'active'", {})
        return found[0] if found else None

    async def versions(self, *, before: int | None, limit: int) -> list[StoredVersion]:
        """Versions from the newest, those below `before`."""
        condition = "(CAST(:before AS integer) IS NULL OR v.version < :before) ORDER BY v.version DESC LIMIT :limit"
        async with self.database.read_transaction() as conn:
            return await self._select(conn, condition, {"before": before, "limit": limit})

    async def check(self, content: Document) -> None:
        """Raises InvalidContent if the content has findings. A large document is checked beside the loop."""
        found = common_findings(self.kind.kind, content.content)
        if not found:
            found = await asyncio.to_thread(self._find_errors, content.content)
        if found:
            raise InvalidContent(found)

    async def check_version(self, version: int) -> StoredVersion:
        """A version that passes the checks of this release, which it may be older than. Raises InvalidContent, NoSuchVersion."""
        found = await self.get(version)
        await self.check(document(found.content))
        return found

    async def find_outdated(self) -> list[OutdatedVersion]:
        """What this release would refuse of the versions that are in force or proposed."""
        async with self.database.read_transaction() as conn:
            kept = await self._select(conn, "v.status IN ('active', 'proposed') ORDER BY v.version", {})
        outdated: list[OutdatedVersion] = []
        for found in kept:
            try:
                await self.check(document(found.content))
            except InvalidContent as refused:
                outdated.append(
                    OutdatedVersion(self.kind.kind, found.state.version, found.state.status, refused.findings)
                )
        return outdated

    def _find_errors(self, content: Mapping[str, object]) -> list[Finding]:
        return check_patterns(content) or self.kind.validate(content)

    # -- parts -----------------------------------------------------------------------------------------------------

    async def _insert_draft(self, unit_of_work: UnitOfWork, content: Document, by: str) -> StoredVersion:
        await self._lock(unit_of_work)
        statement = text(
            "INSERT INTO agreement_version"
            " (kind, version, revision, status, title, content, content_sha256, drafted_by, drafted_at, edited_at)"
            " SELECT :kind, coalesce(max(version), 0) + 1, 1, 'draft', :title, :content, :sha, :by, :now, :now"
            " FROM agreement_version WHERE kind = :kind RETURNING version"
        )
        title = title_of(content.content)
        values = {
            "kind": self.kind.kind,
            "title": title,
            "content": content.canonical,
            "sha": content.sha256,
            "by": by,
            "now": unit_of_work.now,
        }
        version: int = (await unit_of_work.conn.execute(statement, values)).scalar_one()
        state = model.Version(version, "draft", content.sha256)
        return StoredVersion(state, title, {**content.content}, by, unit_of_work.now, unit_of_work.now)

    async def _lock(self, unit_of_work: UnitOfWork) -> None:
        statement = text("SELECT pg_advisory_xact_lock(hashtextextended('accord-agreement:' || :kind, 0))")
        await unit_of_work.conn.execute(statement, {"kind": self.kind.kind})

    async def _lock_version(self, unit_of_work: UnitOfWork, version: int) -> StoredVersion:
        await self._lock(unit_of_work)
        found = await self._select(unit_of_work.conn, "v.version = :version", {"version": version})
        if not found:
            raise NoSuchVersion(version)
        return found[0]

    async def _activate(self, unit_of_work: UnitOfWork, found: StoredVersion) -> StoredVersion:
        current = await self._select(unit_of_work.conn, "v.status = 'active'", {})
        state, superseded = model.activate(found.state, current[0].state if current else None, unit_of_work.now)
        if superseded is not None:
            await self._save(unit_of_work, current[0], superseded)
        stored = await self._save(unit_of_work, found, state)
        unit_of_work.publish(
            AgreementActivated(
                **self._make_event_fields(stored, unit_of_work.now),
                effective_from=state.active_from or unit_of_work.now,
                supersedes=superseded.version if superseded is not None else None,
                content=stored.content,
            )
        )
        return stored

    async def _save(self, unit_of_work: UnitOfWork, found: StoredVersion, state: model.Version) -> StoredVersion:
        await unit_of_work.conn.execute(
            text(
                "UPDATE agreement_version SET revision = :revision, status = :status, effective_at = :effective_at,"
                " proposed_by = :proposed_by, proposed_at = :proposed_at, active_from = :active_from,"
                " superseded_at = :superseded_at, withdrawn_by = :withdrawn_by, withdrawn_at = :withdrawn_at"
                " WHERE kind = :kind AND version = :version"
            ),
            {
                "revision": state.revision,
                "status": state.status,
                "effective_at": state.effective_at,
                "proposed_by": state.proposed_by,
                "proposed_at": state.proposed_at,
                "active_from": state.active_from,
                "superseded_at": state.superseded_at,
                "withdrawn_by": state.withdrawn_by,
                "withdrawn_at": state.withdrawn_at,
                "kind": self.kind.kind,
                "version": state.version,
            },
        )
        return StoredVersion(state, found.title, found.content, found.drafted_by, found.drafted_at, found.edited_at)

    def _make_event_fields(self, stored: StoredVersion, now: datetime) -> dict[str, Any]:
        return {
            "occurred_at": now,
            "recorded_at": now,
            "kind": self.kind.kind,
            "version": stored.state.version,
            "title": stored.title,
            "content_sha256": stored.state.content_sha256,
        }

    async def _fetch_one(
        self, condition: str, values: Mapping[str, object], conn: AsyncConnection | None
    ) -> ActiveAgreement | None:
        if conn is None:
            async with self.database.read_transaction() as own:
                return await self._fetch_one(condition, values, own)
        found = await self._select(conn, condition, values)
        if not found:
            return None
        state = found[0].state
        if state.active_from is None:
            raise RuntimeError(f"version {state.version} of {self.kind.kind} is in force and says not since when")
        return ActiveAgreement(state.version, found[0].content, state.content_sha256, state.active_from)

    async def _select(self, conn: AsyncConnection, condition: str, values: Mapping[str, object]) -> list[StoredVersion]:
        rows = await conn.execute(text(_SELECT + condition), {**values, "kind": self.kind.kind})
        return [_version_from_row(row) for row in rows]


_SELECT = (
    "SELECT v.*, (SELECT coalesce(json_agg(json_build_object('department', s.department, 'signed_by', s.signed_by,"
    " 'signed_at', s.signed_at, 'content_sha256', s.content_sha256) ORDER BY s.signed_at), '[]')"
    " FROM agreement_signature s WHERE s.kind = v.kind AND s.version = v.version) AS signatures"
    " FROM agreement_version v WHERE v.kind = :kind AND "
)


def _version_from_row(row: Row[tuple[object, ...]]) -> StoredVersion:
    values = row._mapping  # noqa: SLF001 - the documented name of the row's mapping
    signatures: dict[Department, model.Signature] = {
        item["department"]: model.Signature(
            item["department"], item["signed_by"], datetime.fromisoformat(item["signed_at"]), item["content_sha256"]
        )
        for item in values["signatures"]
    }
    state = model.Version(
        version=values["version"],
        status=values["status"],
        content_sha256=values["content_sha256"],
        revision=values["revision"],
        effective_at=values["effective_at"] and clamp_moment(values["effective_at"]),
        proposed_by=values["proposed_by"],
        proposed_at=values["proposed_at"],
        signatures=signatures,
        active_from=values["active_from"],
        superseded_at=values["superseded_at"],
        withdrawn_by=values["withdrawn_by"],
        withdrawn_at=values["withdrawn_at"],
    )
    content = json.loads(values["content"])
    return StoredVersion(
        state, values["title"], content, values["drafted_by"], values["drafted_at"], values["edited_at"]
    )


def title_of(content: Mapping[str, object]) -> str:
    """The title of a content that has been checked."""
    return str(content["title"])


def common_findings(kind: str, content: Mapping[str, object]) -> list[Finding]:
    """What every agreement must have: its own kind, a title, and a glossary of texts if any."""
    found = []
    if content.get("kind") != kind:
        found.append(Finding("/kind", f"This is the place for documents of the kind '{kind}'"))
    title = content.get("title")
    if not isinstance(title, str) or not title.strip():
        found.append(Finding("/title", "A title is required"))
    elif len(title) > _TITLE_CHARS_MAX:
        found.append(Finding("/title", f"A title may have {_TITLE_CHARS_MAX} characters"))
    glossary = content.get("glossary", {})
    if not isinstance(glossary, dict):
        found.append(Finding("/glossary", "A glossary maps words to what they mean"))
    else:
        if len(glossary) > _GLOSSARY_WORDS_MAX:
            found.append(Finding("/glossary", f"A glossary may have {_GLOSSARY_WORDS_MAX} words"))
        bad = [word for word, meaning in glossary.items() if not isinstance(meaning, str)]
        found.extend(Finding(pointer("glossary", word), "A meaning is text") for word in bad[:20])
    return found


def agreement_worker(store: AgreementStore) -> Periodic:
    """The worker that brings signed versions into force when their time comes."""

    async def work() -> bool | None:
        return await store.activate_due() or None

    return Periodic(f"agreement-{store.kind.kind}", ACTIVATE_EVERY_S, work, idle_every_s=ACTIVATE_IDLE_EVERY_S)


__all__ = [
    "ActiveAgreement",
    "AgreementStore",
    "Finding",
    "InvalidContent",
    "Kind",
    "NoSuchVersion",
    "Section",
    "StoredVersion",
    "VersionModified",
    "agreement_worker",
    "common_findings",
]
