"""The SLA as an agreement: its checks, its paper form, and a cache of every compiled version."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import AgreementStore, Finding, Kind, Section
from accord.clock import utc_now
from accord.terms.patterns import SKIP_PATTERN_CHECKS
from sla_monitor.domain.calendars import list_closed_days
from sla_monitor.domain.case import SlaVersions
from sla_monitor.domain.checks import check_sla, find_warnings
from sla_monitor.domain.paper import render_paper
from sla_monitor.domain.rules import CompiledSla, compile_sla
from sla_monitor.domain.sla import Sla
from sla_monitor.usecases.public_holidays import public_holidays


def _validate(content: Mapping[str, object]) -> list[Finding]:
    return check_sla(content, public_holidays)


_SHOWN_DAYS = timedelta(days=366)
"""The paper names the closed days of the year to come."""


def _render_paper(content: Mapping[str, object]) -> list[Section]:
    sla = Sla.model_validate(content, context=SKIP_PATTERN_CHECKS)
    first = utc_now().date()
    last = first + _SHOWN_DAYS - timedelta(days=1)
    return render_paper(
        sla,
        {name: list(list_closed_days(terms, first, last, public_holidays)) for name, terms in sla.calendars.items()},
    )


_DROPPED = text("""
    SELECT clause, count(*) AS clocks FROM clock
    WHERE state IN ('running', 'paused') AND NOT clause = ANY (:kept) GROUP BY clause ORDER BY clause
""")


async def _find_warnings(conn: AsyncConnection, content: Mapping[str, object]) -> list[str]:
    sla = Sla.model_validate(content, context=SKIP_PATTERN_CHECKS)
    dropped = await conn.execute(_DROPPED, {"kept": [clause.key for clause in sla.clauses]})
    return [
        *find_warnings(sla, public_holidays),
        *(
            f"The clause {row.clause} is dropped. Its {row.clocks} open clocks end by the version under which they began."
            for row in dropped
        ),
    ]


KIND = Kind(kind="sla", path="/v1/sla", validate=_validate, paper=_render_paper, warn=_find_warnings)

_ACTIVATED_VERSIONS = text("""
    SELECT version, active_from, superseded_at FROM agreement_version
    WHERE kind = 'sla' AND active_from IS NOT NULL ORDER BY version
""")


class SlaVersionCache:
    """Every version that was in force: its periods are read with each transaction, its content is compiled once.

    A clock starts under the version that was in force when its trigger was *recorded*. So the version does not depend on
    when this service reads the trigger, and imported history has the version of the import.
    """

    def __init__(self, store: AgreementStore) -> None:
        self._store = store
        self._compiled: dict[int, CompiledSla] = {}

    async def load(self, conn: AsyncConnection) -> SlaVersions:
        """Load the versions as this transaction sees them."""
        rows = (await conn.execute(_ACTIVATED_VERSIONS)).all()
        spans = [(int(row.version), row.active_from, row.superseded_at) for row in rows]
        for version, _, _ in spans:
            if version not in self._compiled:
                content = (await self._store.version(version, conn)).content
                # In a thread: the first read of a country's holidays takes half a second.
                sla = Sla.model_validate(content, context=SKIP_PATTERN_CHECKS)
                self._compiled[version] = await asyncio.to_thread(compile_sla, version, sla, public_holidays)
        periods = {version: (since, until) for version, since, until in spans}
        return SlaVersions(self._compiled, lambda moment: _version_at(spans, moment), periods)

    async def get_active(self, conn: AsyncConnection) -> CompiledSla | None:
        """The version that is in force now; None if none is."""
        slas = await self.load(conn)
        version = await self._store.active_version(conn)
        return None if version is None else slas.by_number[version]


def _version_at(spans: list[tuple[int, datetime, datetime | None]], moment: datetime) -> int | None:
    for version, since, until in reversed(spans):
        if since <= moment and (until is None or moment < until):
            return version
    return None
