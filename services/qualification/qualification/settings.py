"""Settings of the qualification service: those that all services share, with its own port."""

from __future__ import annotations

from pydantic import Field

from accord.settings import Settings as SharedSettings


class Settings(SharedSettings):
    """From environment variables that begin with ACCORD_."""

    port: int = Field(default=8002, ge=0, le=65_535)
    """The port of the API; of probes and metrics in the roles `worker` and `relay`."""
    consumer_batch_rows_max: int = Field(default=2000, ge=1, le=10_000)
    """Events of one transaction at most."""
