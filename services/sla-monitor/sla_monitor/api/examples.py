"""Examples for OpenAPI: a small SLA."""

from __future__ import annotations

from typing import Any

SLA: dict[str, Any] = {
    "kind": "sla",
    "title": "What marketing and sales owe each other",
    "calendars": {
        "office": {
            "timezone": "America/Chicago",
            "week": {"mon-fri": ["09:00-12:00", "13:00-17:00"]},
            "holidays": {"country": "US", "subdivision": "TX", "extra": ["2027-12-24"]},
        }
    },
    "clauses": [
        {
            "key": "accept-mql",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"decision": ["accept", "reject"]},
            "within": {"business": "PT4H", "calendar": "office"},
            "warn_at": [0.5, 0.75],
        },
        {
            "key": "first-touch",
            "obliges": "sales",
            "kind": "response",
            "from": {"assigned": True},
            "to": {"activity": ["call.attempted", "email.sent"], "by": "sales"},
            "within": {"business": "PT1H", "calendar": "office"},
            "where": {"path": "grade", "op": "in", "value": ["A1", "A2", "B1"]},
        },
    ],
}
