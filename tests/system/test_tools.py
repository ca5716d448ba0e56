"""Tools that sign by code that is not ours send somebody's data to a running stack; each lead appears in the funnel under its source."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from accord_local.demo.client import wait_for
from accord_local.demo.play import Callers, sign
from tests.intake.tools import TOOLS
from tests.system.running import Running

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]
SENDERS = ("standard-webhooks", "mautic", "typeform")
GOOD_ENOUGH = {"attributes.country": "US", "attributes.employee_count": 250, "attributes.industry": "541511"}
"""For the template policy, which may be in force."""
SHOWN_WITHIN_S = 90.0


def test_what_tools_send_appears_in_the_funnel_under_their_sources(accord: Running, templates: Path) -> None:
    sign(
        Callers(accord.marketing, accord.sales),
        f"{accord.urls.qualification}/v1/definition",
        (templates / "definition.yaml").read_bytes(),
    )
    headers = {"Authorization": f"Bearer {accord.keys['admin']}"}
    with httpx.Client(base_url=accord.urls.intake, trust_env=False) as client:
        for name in SENDERS:
            tool = TOOLS[name]
            body = {"adapter": name, "secrets": {tool.use: tool.secret}, "defaults": GOOD_ENOUGH}
            client.put(f"/v1/sources/by {name}", json=body, headers=headers).raise_for_status()
            call = tool.call(f"by {name}", tool.event.replace(b"ada@", name.encode() + b"@"))
            answer = client.post(call.path, content=call.body, headers=dict(call.headers)).raise_for_status().json()
            assert answer["results"][0]["outcome"] == "created", answer

    def shown() -> dict[str, int] | None:
        funnel = accord.marketing.get(f"{accord.urls.metrics}/v1/funnel", mode="cohort", by="source")
        entered = {group["by"]["source"]: group["stages"][0]["entered"] for group in funnel["groups"]}
        ours = {name: entered.get(f"by {name}", 0) for name in SENDERS}
        return ours if all(ours.values()) else None

    assert wait_for("the funnel to show the three sources", shown, timeout_s=SHOWN_WITHIN_S) == dict.fromkeys(
        SENDERS, 1
    )
