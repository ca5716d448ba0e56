"""A plan for tests, with a goal of each kind."""

from typing import Any


def plan_content(year: int = 2027, **changes: Any) -> dict[str, Any]:
    """The content of a plan of one year in Chicago; `changes` replace its parts."""
    return {
        "kind": "plan",
        "title": "One plan",
        "period": {"from": f"{year}-01-01", "to": f"{year}-12-31", "timezone": "America/Chicago"},
        "revenue": {"amount": "5000000", "currency": "USD"},
        "average_deal": {"amount": "25000", "currency": "USD"},
        "funnel": [
            {"stage": "inquiry"},
            {"stage": "mql", "conversion": 0.25, "days": 7},
            {"stage": "sal", "conversion": 0.5, "days": 10},
            {"stage": "won", "conversion": 0.2, "days": 20},
        ],
        "goals": [
            {"key": "mqls", "department": "marketing", "measure": {"entered": "mql"}, "per": "month", "target": 290},
            {"key": "leads", "department": "marketing", "measure": {"entered": "inquiry"}, "per": "month"},
            {"key": "accept", "department": "sales", "measure": {"conversion": ["mql", "sal"]}, "per": "quarter"},
            {"key": "revenue", "department": "both", "measure": {"revenue": "won"}, "per": "quarter"},
        ],
        **changes,
    }
