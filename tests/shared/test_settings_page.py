"""The page of settings tells every one of them: its values, its default, and what it means."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field, SecretStr

from accord.settings import Settings
from accord.settings_reference import settings_page
from intake.settings import Settings as IntakeSettings
from metrics.settings import Settings as MetricsSettings
from qualification.settings import Settings as QualificationSettings
from sla_monitor.settings import Settings as SlaSettings


class LampSettings(Settings):
    port: int = Field(default=9001, ge=0, le=65_535)
    """The port."""
    glow: Literal["warm", "cold"] = "warm"
    """How it glows."""
    watts: float | None = Field(default=None, gt=0)
    """What it
    takes."""
    code: SecretStr
    """Opens it."""
    dims: bool = True
    """Whether it dims."""


def test_page_has_values_bounds_and_defaults() -> None:
    _, _, own = settings_page({"lamp_shop": LampSettings}).partition("## lamp-shop")
    rows = [line for line in own.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `ACCORD_PORT` | number ≥ 0 ≤ 65535 | `9001` | The port. |",
        "| `ACCORD_GLOW` | `warm`, `cold` | `warm` | How it glows. |",
        "| `ACCORD_WATTS` | number over 0 | none | What it takes. |",
        "| `ACCORD_CODE` | secret | **required** | Opens it. |",
        "| `ACCORD_DIMS` | `true`, `false` | `true` | Whether it dims. |",
    ]


@pytest.mark.parametrize("settings", [IntakeSettings, QualificationSettings, SlaSettings, MetricsSettings])
def test_every_setting_says_what_it_means(settings: type[Settings]) -> None:
    assert [name for name, field in settings.model_fields.items() if not field.description] == []
