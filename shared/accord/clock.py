"""Time outside a transaction. Inside one, `UnitOfWork.now` is the only clock; the domain reads none at all."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The process's wall clock, in UTC."""
    return datetime.now(UTC)
