"""Settings of the SLA monitor: the shared ones, with its own port, batch size and intervals."""

from __future__ import annotations

from pydantic import Field

from accord.settings import Settings as SharedSettings


class Settings(SharedSettings):
    """From environment variables that begin with ACCORD_."""

    port: int = Field(default=8003, ge=0, le=65_535)
    """The port of the API; of probes and metrics in the roles `worker` and `relay`."""
    consumer_batch_rows_max: int = Field(default=2000, ge=1, le=10_000)
    """Events of one transaction at most."""
    fire_every_s: float = Field(default=0.5, gt=0, le=60)
    """The interval at which clocks are fired that the watermark has passed."""
    facts_retention_days: int = Field(default=90, ge=1, le=3650)
    """How long facts of a lead stay, so that clocks that open later can look back at them."""
