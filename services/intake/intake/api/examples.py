"""Examples for OpenAPI: made-up people at reserved domains."""

from __future__ import annotations

LEAD_ID = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10"

SUBMISSION_EXAMPLE: dict[str, object] = {
    "source": "website",
    "external_id": "42",
    "email": "ada@initech.example",
    "phone": "+1 202 555 0143",
    "first_name": "Ada",
    "last_name": "Byron",
    "company": "Initech",
    "domain": "initech.example",
    "title": "CTO",
    "attributes": {
        "employee_count": 250,
        "industry": "541511",
        "country": "US",
        "line_of_business": "software",
        "dnb_rating": "4A1",
        "bbb_rating": "A+",
    },
    "campaign": {
        "name": "spring",
        "medium": "cpc",
        "content": "a",
        "term": "crm",
        "landing_page": "/demo",
        "cost": {"amount": "2.10", "currency": "USD"},
    },
    "consent": {"basis": "consent", "given_at": "2026-01-04T09:29:00-06:00"},
    "occurred_at": "2026-01-04T09:30:00-06:00",
}

CAPTURED_EXAMPLE: dict[str, object] = {
    "submission_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e11",
    "lead_id": LEAD_ID,
    "outcome": "created",
    "verdict": "flagged",
    "quality": {
        "score": 0.86,
        "policy_version": 3,
        "failed": [{"parameter": "company-size", "consequence": "flag", "reason": "employee_count is below 50"}],
    },
}

ACTIVITY_EXAMPLE: dict[str, object] = {
    "lead_id": LEAD_ID,
    "kind": "email.clicked",
    "by": "lead",
    "occurred_at": "2026-01-05T10:12:00Z",
    "campaign": {"name": "spring"},
    "properties": {"link": "pricing"},
}

POLICY_EXAMPLE: dict[str, object] = {
    "kind": "policy",
    "title": "What every record must meet",
    "attributes": {"employee_count": {"type": "integer"}},
    "parameters": [
        {"key": "reachable", "rule": "email", "consequence": "reject", "weight": 3},
        {
            "key": "company-size",
            "rule": "range",
            "attribute": "employee_count",
            "min": 50,
            "consequence": "flag",
            "weight": 2,
        },
    ],
    "score_min": 0.5,
}

OTHER_LEAD_ID = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e20"

MERGE_EXAMPLE: dict[str, object] = {
    "merge_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e21",
    "survivor_id": LEAD_ID,
    "merged_lead_id": OTHER_LEAD_ID,
    "submission_id": None,
    "merged_by": "marketing",
    "merged_at": "2026-01-06T08:00:00Z",
    "reverted_at": None,
    "reverted_by": None,
}
MERGED_EXAMPLE: dict[str, object] = {**MERGE_EXAMPLE, "followed": []}
REVERTED_EXAMPLE: dict[str, object] = {
    **MERGE_EXAMPLE,
    "reverted_at": "2026-01-07T08:00:00Z",
    "reverted_by": "marketing",
}

ACCOUNT_EXAMPLE: dict[str, object] = {
    "account_id": "1f0b4a57-0f0a-5c3b-9e52-6f0f3c6d2a11",
    "domain": "initech.example",
    "name": "Initech",
    "leads": 12,
    "first_heard_at": "2026-01-04T15:30:00Z",
}

CORRECTION_EXAMPLE: dict[str, object] = {
    "email": "ada@initech.example",
    "title": None,
    "attributes": {"employee_count": 260},
}
