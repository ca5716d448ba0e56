"""Settings of the SLA monitor: those that all services share, with its own port and paces."""

from __future__ import annotations

from pydantic import Field

from accord.settings import Settings as SharedSettings


class Settings(SharedSettings):
    """From environment variables that begin with ACCORD_."""

    port: int = Field(default=8003, ge=0, le=65_535)
    consumer_batch_rows_max: int = Field(default=2000, ge=1, le=10_000)
    """Events of one transaction at most."""
    fire_every_s: float = Field(default=0.5, gt=0, le=60)
    """How often clocks are looked for whose moment the watermark has passed."""
    facts_kept_days: int = Field(default=90, ge=1, le=3650)
    """So long after it was recorded, what happened with a lead is looked back at by clocks that open later."""
