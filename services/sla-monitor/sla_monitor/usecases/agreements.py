"""The SLA as an agreement: what is checked, how it reads on paper, and every version that is or was in force, compiled once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import AgreementStore, Finding, Kind, Section
from accord.terms.patterns import AS_IT_STANDS
from sla_monitor.domain.case import Slas
from sla_monitor.domain.checks import check
from sla_monitor.domain.paper import paper
from sla_monitor.domain.rules import Rules, compile_sla
from sla_monitor.domain.sla import Sla
from sla_monitor.usecases.public_holidays import public_holidays


def _validate(content: Mapping[str, object]) -> list[Finding]:
    return check(content, public_holidays)


def _paper(content: Mapping[str, object]) -> list[Section]:
    return paper(Sla.model_validate(content, context=AS_IT_STANDS))


KIND = Kind(kind="sla", path="/v1/sla", validate=_validate, paper=_paper)

_IN_FORCE = text("""
    SELECT version, active_from, superseded_at FROM agreement_version
    WHERE kind = 'sla' AND active_from IS NOT NULL ORDER BY version
""")


class SlaBook:
    """Every version that came into force; read anew with each transaction, compiled once.

    Which version a clock starts under is told by when its trigger was *recorded*: so it does not depend on when this
    service came to read it, and imported history has clocks under the agreement that was in force at the import.
    """

    def __init__(self, store: AgreementStore) -> None:
        self._store = store
        self._compiled: dict[int, Rules] = {}

    async def open(self, conn: AsyncConnection) -> Slas:
        """The versions as this transaction sees them."""
        rows = (await conn.execute(_IN_FORCE)).all()
        spans = [(int(row.version), row.active_from, row.superseded_at) for row in rows]
        for version, _, _ in spans:
            if version not in self._compiled:
                content = (await self._store.version(version, conn)).content
                # In a thread: the first look at a country's holidays takes half a second.
                sla = Sla.model_validate(content, context=AS_IT_STANDS)
                self._compiled[version] = await asyncio.to_thread(compile_sla, version, sla, public_holidays)
        return Slas(self._compiled, lambda moment: _version_at(spans, moment))

    async def in_force(self, conn: AsyncConnection) -> Rules | None:
        """The version in force now."""
        slas = await self.open(conn)
        version = await self._store.active_version(conn)
        return None if version is None else slas.rules[version]


def _version_at(spans: list[tuple[int, datetime, datetime | None]], moment: datetime) -> int | None:
    for version, since, until in reversed(spans):
        if since <= moment and (until is None or moment < until):
            return version
    return None
