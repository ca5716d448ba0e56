"""The monthly statement: what both departments kept and broke, clause by clause, beside the months before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from msgspec import Struct

from accord.clock import utc_now
from accord.contracts.values import Department
from accord.db import Database, connection_of
from accord.messaging.consumer_store import watermark
from sla_monitor.domain.clock import Clock
from sla_monitor.queries import attainment
from sla_monitor.queries.attainment import AttainmentCounts, ClauseMonth
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.process_events import CONSUMED

MONTHS_BEFORE = 3
BREACHES_MAX = 5


class ClauseLine(Struct, frozen=True):
    """One clause: the counts of the month, and attainment in the months before, the earliest first."""

    department: Department
    clause: str
    counts: AttainmentCounts
    before: Sequence[float | None]


class Statement(Struct, frozen=True):
    """The statement of a month of the SLA's own time zone. Its end is the first moment of the next month."""

    month: str
    months_before: Sequence[str]
    zone: str
    start: datetime
    end: datetime
    lines: Sequence[ClauseLine]
    breaches: Sequence[Clock]
    """Those that were answered latest; unanswered ones first."""
    as_of: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether everything recorded before the month's end has been read."""
        return self.as_of is not None and self.as_of >= self.end

    def total(self, department: Department) -> AttainmentCounts:
        """All clauses of a department together."""
        counts = [line.counts for line in self.lines if line.department == department]
        names = ("met", "breached", "met_late", "running", "cancelled", "backfill")
        return AttainmentCounts(department, *(sum(getattr(each, name) for each in counts) for name in names))


async def make_statement(database: Database, sla_cache: SlaVersionCache, month: str | None) -> Statement:
    """Make the statement of a month such as 2027-05; without one, of the month before the present one.

    Raises ValueError if it is no month.
    """
    async with database.read_transaction() as conn:
        sla = await sla_cache.get_active(conn)
        zone = sla.zone if sla else ZoneInfo("UTC")
        first = _first_of(month) if month else _add_months(utc_now().astimezone(zone).date(), -1)
        months = [_add_months(first, -distance) for distance in range(MONTHS_BEFORE, -1, -1)]
        start, end = _midnight(first, zone), _midnight(_add_months(first, 1), zone)
        connection = await connection_of(conn)
        found = await attainment.fetch_clause_months(connection, _midnight(months[0], zone), end, zone.key)
        breaches = await attainment.fetch_latest_answers(connection, start, end, BREACHES_MAX)
        names = [f"{day:%Y-%m}" for day in months]
        return Statement(
            month=names[-1],
            months_before=names[:-1],
            zone=zone.key,
            start=start,
            end=end,
            lines=_make_lines(found, names),
            breaches=breaches,
            as_of=await watermark(conn, CONSUMED),
        )


def _make_lines(found: Sequence[ClauseMonth], months: Sequence[str]) -> list[ClauseLine]:
    by_clause: dict[tuple[Department, str], dict[str, AttainmentCounts]] = {}
    for each in found:
        by_clause.setdefault((each.department, each.clause), {})[each.month] = each.counts
    return [
        ClauseLine(
            department, clause, _counts(of_months, months[-1]), [_share(of_months, month) for month in months[:-1]]
        )
        for (department, clause), of_months in by_clause.items()
    ]


def _counts(of_months: Mapping[str, AttainmentCounts], month: str) -> AttainmentCounts:
    return of_months.get(month) or AttainmentCounts(None, 0, 0, 0, 0, 0, 0)


def _share(of_months: Mapping[str, AttainmentCounts], month: str) -> float | None:
    return _counts(of_months, month).attainment


def _first_of(month: str) -> date:
    return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).date()


def _add_months(day: date, months: int) -> date:
    number = day.year * 12 + day.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)
