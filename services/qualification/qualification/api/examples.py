"""Examples for OpenAPI: a small definition, and what is answered about a lead under it."""

from __future__ import annotations

from typing import Any

DEFINITION: dict[str, Any] = {
    "kind": "definition",
    "title": "What we both call a lead",
    "glossary": {"lead": "A person at a company we could sell to, who has shown interest."},
    "stages": [
        {"key": "inquiry", "owner": "marketing", "kind": "open", "gate": {"on": "capture"}},
        {
            "key": "mql",
            "owner": "marketing",
            "kind": "open",
            "from": ["inquiry"],
            "gate": {"when": {"path": "attributes.employee_count", "op": "gte", "value": 50}},
        },
        {"key": "sal", "owner": "sales", "kind": "open", "from": ["mql"], "gate": {"decision": "accept"}},
        {
            "key": "won",
            "owner": "sales",
            "kind": "won",
            "from": ["sal"],
            "gate": {"decision": "win", "fields": ["amount"]},
        },
        {
            "key": "lost",
            "owner": "sales",
            "kind": "lost",
            "from": "any",
            "gate": {"decision": "lose", "reasons": "lost"},
        },
    ],
    "reasons": {"lost": {"price": "Price", "competitor": "Went elsewhere"}},
    "scores": {
        "fit": {
            "max": 100,
            "rules": [
                {"key": "size", "when": {"path": "attributes.employee_count", "op": "gte", "value": 200}, "points": 40}
            ],
        }
    },
}

LEAD: dict[str, Any] = {
    "lead_id": "0198c0de-0000-7000-8000-000000000001",
    "source": "website",
    "captured_at": "2027-01-04T15:30:00Z",
    "stage": "mql",
    "stage_since": "2027-01-04T15:30:00Z",
    "visit": 1,
    "owner": None,
    "fit": 40.0,
    "engagement": 0.0,
    "grade": None,
    "definition_version": 1,
    "allowed_decisions": ["accept", "lose"],
    "amount": None,
    "expected_close": None,
    "gates": [
        {
            "stage": "mql",
            "holds": True,
            "why": [
                {
                    "path": "attributes.employee_count",
                    "op": "gte",
                    "expected": 50,
                    "actual": 250,
                    "held": True,
                    "at": "/all/0",
                }
            ],
        }
    ],
    "score": [{"rule": "size", "score": "fit", "points": 40.0, "reason": "employee count is 200 or more"}],
    "as_of": "2027-01-04T16:00:00Z",
}

DECISION: dict[str, Any] = {
    "decision": "win",
    "note": "Signed today.",
    "fields": {"amount": {"amount": "1200.50", "currency": "USD"}, "expected_close": "2027-03-31"},
}

DECIDED: dict[str, Any] = {
    "lead_id": "0198c0de-0000-7000-8000-000000000001",
    "merged_lead_id": None,
    "decision_id": "0198c0de-0000-7000-8000-000000000002",
    "decision": "win",
    "reason": None,
    "stage": "won",
    "from": "sal",
    "stage_now": "won",
    "visit": 1,
    "occurred_at": "2027-02-01T09:00:00Z",
    "recorded_at": "2027-02-01T09:00:00Z",
    "definition_version": 1,
    "allowed_decisions": ["lose"],
}

ROWS: list[dict[str, Any]] = [
    {"lead": "external:crm:4711", "decision": "accept", "occurred_at": "2027-01-05T10:00:00-06:00"},
    {"lead": "0198c0de-0000-7000-8000-000000000003", "decision": "lose", "reason": "price"},
]

ROUTING: dict[str, Any] = {
    "kind": "routing",
    "title": "Who gets which lead",
    "calendars": {
        "office": {"timezone": "America/Chicago", "week": {"mon-fri": ["09:00-17:00"]}, "closed": ["2027-12-24"]}
    },
    "people": {
        "ann": {"capacity": 40, "calendar": "office"},
        "bob": {"capacity": 40, "absences": [{"from": "2027-07-01", "to": "2027-07-14"}]},
    },
    "pools": {
        "enterprise": {"members": [{"owner": "ann", "weight": 2}, {"owner": "bob"}]},
        "desk": {"method": "least_open", "members": [{"owner": "cho"}, {"owner": "dee"}]},
    },
    "rules": [
        {
            "key": "large",
            "when": {"path": "attributes.employee_count", "op": "gte", "value": 200},
            "pool": "enterprise",
        },
        {"key": "everyone-else", "pool": "desk"},
    ],
    "fallback": "desk",
}

ASSIGNMENT: dict[str, Any] = {"owner": "ann", "reason": "territory"}

ASSIGNED: dict[str, Any] = {
    "lead_id": "0198c0de-0000-7000-8000-000000000001",
    "owner": "ann",
    "previous_owner": "bob",
    "changed": True,
    "occurred_at": "2027-01-04T16:00:00Z",
}

PREVIEW: dict[str, Any] = {"facts": {"attributes": {"employee_count": 250}, "source": "website", "grade": "A1"}}

WHAT_IF: dict[str, Any] = {"from": "2027-01-01T00:00:00Z", "to": "2028-01-01T00:00:00Z", "by": ["source"]}
