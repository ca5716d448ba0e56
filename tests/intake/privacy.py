"""What tests of quarantine, erasure, export, consent and retention share: a policy that quarantines, and people."""

from __future__ import annotations

from typing import Any

from tests.intake.conftest import Running

POLICY: dict[str, Any] = {
    "kind": "policy",
    "title": "What every record must meet",
    "attributes": {"industry": {"type": "string"}, "employee_count": {"type": "integer"}},
    "parameters": [
        {
            "key": "reachable",
            "rule": "email",
            "disposable": False,
            "consequence": "reject",
            "weight": 3,
            "missing": "pass",
        },
        {
            "key": "vertical",
            "rule": "one_of",
            "attribute": "industry",
            "match": "prefix",
            "values": ["51", "54"],
            "consequence": "quarantine",
            "weight": 2,
        },
        {
            "key": "size",
            "rule": "range",
            "attribute": "employee_count",
            "min": 50,
            "consequence": "flag",
            "weight": 1,
            "missing": "pass",
        },
    ],
}
GOOD, BAD = {"industry": "5415"}, {"industry": "1111"}


def record(email: str | None = "ada@initech.example", **fields: Any) -> dict[str, Any]:
    """A record that passes; `attributes=BAD` makes it wait."""
    return {"source": "website", "attributes": GOOD} | ({"email": email} if email else {}) | fields


async def submitted(accord: Running, email: str | None = "ada@initech.example", **fields: Any) -> dict[str, Any]:
    """Submit a record, which is taken."""
    answer = await accord.marketing.post("/v1/leads", record(email, **fields))
    assert answer.status_code in (200, 201), answer.text
    body: dict[str, Any] = answer.json()
    return body


async def waiting(accord: Running, email: str | None = "ada@initech.example", **fields: Any) -> dict[str, Any]:
    """Submit a record that has to wait."""
    body = await submitted(accord, email, **{"attributes": BAD, **fields})
    assert body["verdict"] == "quarantined"
    return body


async def count(accord: Running, table: str, where: str = "true") -> int:
    (row,) = await accord.rows(f"SELECT count(*) AS n FROM {table} WHERE {where}")
    return int(row["n"])
