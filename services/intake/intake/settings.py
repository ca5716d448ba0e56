"""Settings of intake: those that every service has, and how many requests share a transaction."""

from __future__ import annotations

from pydantic import Field

from accord.settings import Settings as CommonSettings
from intake.sources.domain.adapters.urls import BaseUrl


class Settings(CommonSettings):
    """From environment variables that begin with ACCORD_."""

    port: int = Field(default=8001, ge=0, le=65_535)
    """The port of the API; of probes and metrics in the roles `worker` and `relay`."""
    group_rows_max: int = Field(default=250, ge=1, le=500)
    """Requests that share one transaction at most. Each holds up to three advisory locks (ADR 17), which the server has not many of."""
    queue_rows_max: int = Field(default=5_000, ge=1, le=100_000)
    """Submissions, and activities, that wait at most; past it callers get 503."""
    submission_retention_days: int = Field(default=90, ge=1, le=36_500)
    """How long what was submitted is kept as it came, and what waits in quarantine waits; in days. Verdicts and consent stay."""
    import_bytes_max: int = Field(default=2 * 1024**3, ge=1)
    """Size of one file."""
    import_rows_max: int = Field(default=500, ge=1, le=1_000)
    """Rows of an import that share one transaction. They hold advisory locks like requests do, and whoever is captured at the same moment
    and stands among them waits for their commit."""
    import_rows_per_s: int | None = Field(default=None, ge=1)
    """Rows that one process takes a second at most, so that other traffic keeps its latency; None: as many as it can."""
    import_failures_max: int = Field(default=1_000_000, ge=0)
    """An import of which more rows than that fail or are rejected is stopped."""
    imports_open_max: int = Field(default=50, ge=1, le=50)
    """Imports that are received, wait or run at most; past it a new one gets 503."""
    imports_open_per_key_max: int = Field(default=25, ge=1, le=50)
    """Those of one key, so that no key takes the place of all others."""
    import_results_days: int = Field(default=90, ge=1, le=36_500)
    """How long it is kept what became of single rows."""
    public_base_url: BaseUrl | None = None
    """Scheme and host, and a path if there is one, under which tools reach this service; None: what the request itself says."""
    outbound_timeout_s: float = Field(default=15.0, gt=0, le=60)
    """For one whole request to a tool, its answer included."""
    outbound_bytes_max: int = Field(default=1024 * 1024, ge=1)
    """Size of one answer of a tool."""
