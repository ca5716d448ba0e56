"""Example for OpenAPI: a small definition."""

from __future__ import annotations

from typing import Any

DEFINITION: dict[str, Any] = {
    "kind": "definition",
    "title": "What we both call a lead",
    "glossary": {"lead": "A person at a company we could sell to, who has shown interest."},
    "stages": [
        {"key": "inquiry", "owner": "marketing", "kind": "open", "gate": {"event": "capture"}},
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
