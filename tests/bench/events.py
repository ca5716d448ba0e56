"""Events as intake publishes them, in quantity: leads that enter and what they do, of the mix that the template definition is
about. It sends nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from uuid_utils.compat import uuid7

from accord.contracts.codec import encode_value
from accord.contracts.envelope import Event, encode
from accord.contracts.intake_events import ActivityRecorded, LeadCaptured, LeadState
from accord.contracts.values import Campaign

ACTIVITIES_PER_LEAD = 3
_KINDS = ("page.viewed", "page.viewed", "email.clicked", "form.submitted", "webinar.attended", "demo.requested")
_OTHER_KIND = "call.logged"
"""A kind that the definition does not ask for."""

Encoded = tuple[bytes, bytes, list[tuple[str, bytes]]]


def captured(at: datetime, n: int) -> LeadCaptured:
    """One lead that has entered."""
    state = LeadState(
        source="website",
        captured_at=at,
        account_id=uuid7(),
        attributes={
            "employee_count": 20 + n % 400,
            "industry": ("541511", "522110", "334111")[n % 3],
            "country": "US",
            "line_of_business": ("software", "finance", "manufacturing")[n % 3],
            "bbb_rating": ("A+", "B")[n % 2],
        },
        campaign=Campaign(name=f"autumn-{n % 20}", medium="search"),
        verdict="accepted",
        policy_version=1,
        quality_score=0.9,
    )
    return LeadCaptured(lead_id=uuid7(), sequence=1, occurred_at=at, recorded_at=at, state=state)


def history(events: int, seed: int) -> list[Encoded]:
    """So many events, one lead in four, as Kafka records in the order in which they happened."""
    rng = random.Random(seed)
    began = datetime.now(UTC) - timedelta(days=20)
    leads = [captured(began + timedelta(minutes=rng.randrange(14_400)), n) for n in range(events // 4)]
    told: list[LeadCaptured | ActivityRecorded] = list(leads)
    for lead in leads:
        for nth in range(ACTIVITIES_PER_LEAD):
            at = lead.occurred_at + timedelta(minutes=1 + rng.randrange(14_000))
            told.append(
                ActivityRecorded(
                    lead_id=lead.lead_id,
                    sequence=nth + 2,
                    occurred_at=at,
                    recorded_at=at,
                    activity_id=uuid7(),
                    kind=_OTHER_KIND if rng.random() < 0.1 else rng.choice(_KINDS),
                    by="lead",
                )
            )
    told.sort(key=lambda event: event.occurred_at)
    return [encode(Event(uuid7(), "/intake", event)) for event in told]


def outbox_rows(events: int) -> Sequence[tuple[object, ...]]:
    """Rows of intake's outbox: event id, type, key, occurred_at, recorded_at, payload."""
    now = datetime.now(UTC)
    some = [captured(now, n) for n in range(500)]
    payloads = [encode_value(event) for event in some]
    return [(uuid7(), LeadCaptured.type, str(uuid7()), now, now, payloads[n % len(payloads)]) for n in range(events)]
