"""Settings of intake: those that every service has, and how many requests share a transaction."""

from __future__ import annotations

from pydantic import Field

from accord.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """From environment variables that begin with ACCORD_."""

    port: int = Field(default=8001, ge=0, le=65_535)
    group_rows_max: int = Field(default=250, ge=1, le=500)
    """Requests that share one transaction at most. Each holds up to three advisory locks (ADR 17), which the server has not many of."""
    queue_rows_max: int = Field(default=5_000, ge=1, le=100_000)
    """Submissions, and activities, that wait at most; past it callers get 503."""
