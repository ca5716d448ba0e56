"""What-if over a stored year: 100,000 leads with ten activities each, folded by a draft, in the service that also answers and consumes."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta

import httpx

from accord.db import Database, connection_of
from qualification.analysis.queries import what_ifs
from qualification.analysis.service.what_if import LEADS_PER_BATCH_MAX
from qualification.lifecycle.queries import logs
from tests.bench.environment import TEMPLATES, BenchEnvironment
from tests.bench.meter import Meter
from tests.bench.report import Figure, median

ROUNDS = 3
LEADS = 100_000
ACTIVITIES_PER_LEAD = 10
WAIT_S_MAX = 300.0
SAMPLE_S = 0.2
KINDS = ("demo.requested", "email.clicked", "form.submitted", "page.viewed", "webinar.attended")

# As the service would have written them under the template definition: half of the leads became MQL, a part of those was decided on.
_SEED = (
    f"""
    INSERT INTO lead (lead_id, profile, intake_sequence, stage, stage_since, visits, deal, evaluated_at, erased, sequence, revision,
        changed_at, profile_at, position_rank, position_tie, entry_version, applied_version, definition_version)
    SELECT (lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid,
        jsonb_build_object('source', (ARRAY['website', 'fair', 'referral'])[1 + n % 3], 'captured_at', at, 'verdict', 'accepted',
            'campaign', jsonb_build_object('name', 'campaign-' || n % 20),
            'attributes', jsonb_build_object('employee_count', 10 + (n * 37) % 400, 'industry', (ARRAY['541511', '522110'])[1 + n % 2],
                'country', 'US', 'bbb_rating', 'A+')),
        1, 'inquiry', at, '{{"inquiry": 1}}', '{{}}', at, false, 1, 1, at, at, 0, '00000000-0000-0000-0000-000000000001', 1, 1, 1
    FROM (SELECT n, now() - interval '300 days' + n * interval '220 days' / {LEADS} AS at FROM generate_series(1, {LEADS}) AS n) AS row
    """,
    f"""
    INSERT INTO activity (lead_id, kind, occurred_at, activity_id, by)
    SELECT lead_id, (ARRAY['page.viewed', 'page.viewed', 'email.clicked', 'form.submitted', 'webinar.attended', 'demo.requested'])[
            1 + floor(random() * 6)::int], stage_since + random() * interval '60 days', gen_random_uuid(), 'lead'
    FROM lead CROSS JOIN generate_series(1, {ACTIVITIES_PER_LEAD})
    """,
    """
    INSERT INTO stage_entry (lead_id, sequence, stage, stage_kind, stage_rank, stage_owner, visit, from_stage, from_since, entered_at,
        recorded_at, cause, definition_version)
    SELECT lead_id, 1, 'inquiry', 'open', 0, 'marketing', 1, NULL, NULL, stage_since, stage_since, 'capture', 1 FROM lead
    UNION ALL
    SELECT lead_id, 2, 'mql', 'open', 1, 'marketing', 1, 'inquiry', stage_since, stage_since + interval '30 days', stage_since,
        'automatic', 1 FROM lead WHERE (profile -> 'attributes' ->> 'employee_count')::int >= 200
    """,
    """
    INSERT INTO decision (lead_id, decision_id, decision, reason, from_stage, stage, occurred_at, recorded_at, actor, department, fields,
        definition_version, effective_at)
    SELECT lead_id, gen_random_uuid(), decision, reason, 'mql', to_stage, entered_at + interval '1 day', entered_at, 'ann', 'sales', '{}',
        1, entered_at + interval '1 day'
    FROM stage_entry
    CROSS JOIN LATERAL (VALUES ('accept', NULL, 'sal'), ('reject', 'no-timing', 'recycled'), ('disqualify', 'not-a-fit', 'disqualified'))
        AS made (decision, reason, to_stage)
    WHERE stage = 'mql' AND abs(hashtext(lead_id::text)) % 3 = CASE decision WHEN 'accept' THEN 0 WHEN 'reject' THEN 1 ELSE 2 END
    """,
    """
    INSERT INTO stage_entry (lead_id, sequence, stage, stage_kind, stage_rank, stage_owner, visit, from_stage, from_since, entered_at,
        recorded_at, cause, decision_id, definition_version)
    SELECT lead_id, 3, stage, CASE stage WHEN 'sal' THEN 'open' ELSE stage END,
        CASE stage WHEN 'sal' THEN 2 WHEN 'recycled' THEN 7 ELSE 8 END,
        CASE stage WHEN 'sal' THEN 'sales' ELSE 'marketing' END, 1, 'mql', occurred_at - interval '1 day', occurred_at, occurred_at,
        'decision', decision_id, 1 FROM decision
    """,
    "ANALYZE",
)


def what_if(bench: BenchEnvironment) -> list[Figure]:
    """Seconds from the beginning to the report, and processor time a lead; the baseline only reads the same logs."""
    costs: dict[str, list[float]] = {"ours": [], "baseline": []}
    seconds: dict[str, list[float]] = {"ours": [], "baseline": []}
    others: list[float] = []
    with bench.service("qualification", prefix="what-if-") as service:
        for statement in _SEED:
            bench.sql("qualification", statement)
        version = _draft(service.url, bench.keys["ACCORD_MARKETING_KEY"])
        for _ in range(ROUNDS):
            bench.settle()
            meter = Meter([service.pid or 0, bench.postgres_pid])
            seconds["ours"].append(_measure_what_if(service.url, bench.keys["ACCORD_MARKETING_KEY"], version))
            meter.stop()
            costs["ours"].append(meter.cpu_s / LEADS * 1e6)
            others.append(round(meter.others_cores, 2))
        meter = Meter([service.pid or 0, bench.postgres_pid])
        answers = [_feedback(service.url, bench.keys["ACCORD_MARKETING_KEY"]) for _ in range(ROUNDS)]
        meter.stop()
        answering_s = meter.cpu_s / ROUNDS
    for _ in range(ROUNDS):
        bench.settle()
        meter = Meter([bench.postgres_pid, os.getpid()])
        asyncio.run(_read_only(bench.database_url("qualification")))
        meter.stop()
        seconds["baseline"].append(meter.seconds)
        costs["baseline"].append(meter.cpu_s / LEADS * 1e6)
    return [
        Figure(
            f"what-if of {LEADS:,} leads with {LEADS * ACTIVITIES_PER_LEAD:,} activities",
            "s",
            median(seconds["ours"]),
            median(seconds["baseline"]),
            most=60,
            cpu_us={who: median(of) for who, of in costs.items()},
            limit="Python: the fold; the baseline reads the same logs and judges nothing",
            detail={"seconds": seconds, "cpu_us": costs, "others_cores": others},
        ),
        Figure(
            f"feedback over {answers[0][1]:,} decisions",
            "s",
            median([taken for taken, _ in answers]),
            most=5,
            limit="Python: the gates of the newest 5,000 decisions and leads, as they stood",
            detail={"seconds": [taken for taken, _ in answers], "cpu_s": answering_s},
        ),
    ]


async def _read_only(url: str) -> None:
    """The statements of a what-if, and nothing else."""
    database = Database(url, application_name="baseline")
    since, until = datetime.now(UTC) - timedelta(days=365), datetime.now(UTC)
    after, read = what_ifs.FIRST_LEAD, 0
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        while page := await what_ifs.fetch_leads(connection, since, until, after, LEADS_PER_BATCH_MAX):
            loaded = await logs.load(connection, [lead_id for lead_id, _ in page], {}, KINDS)
            after, read = page[-1][0], read + len(loaded.logs)
    await database.dispose()
    if read != LEADS:
        raise RuntimeError(f"{read} leads were read")


def _feedback(url: str, key: str) -> tuple[float, int]:
    """How long the answer took, and how many decisions it is about."""
    began = time.monotonic()
    query = {"from": (datetime.now(UTC) - timedelta(days=400)).isoformat(), "step": "P28D", "by": "source"}
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.get(f"{url}/v1/feedback", params=query, headers=headers, timeout=WAIT_S_MAX, trust_env=False)
    answer.raise_for_status()
    total = answer.json()["total"]
    return time.monotonic() - began, total["accepted"] + total["rejected"]


def _draft(url: str, key: str) -> int:
    """The template with a stricter first gate, as a draft."""
    content = (TEMPLATES / "definition.yaml").read_text().replace("op: gte, value: 50}", "op: gte, value: 100}", 1)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/yaml"}
    answer = httpx.post(f"{url}/v1/definition/versions", content=content, headers=headers, trust_env=False)
    answer.raise_for_status()
    return int(answer.json()["version"])


def _measure_what_if(url: str, key: str, version: int) -> float:
    """Ask, wait, and say how long it took from its beginning."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
        asked = client.post(f"/v1/definition/versions/{version}/what-if", json={})
        asked.raise_for_status()
        began = time.monotonic()
        while time.monotonic() - began < WAIT_S_MAX:
            found = client.get(asked.headers["location"]).json()
            if found["state"] == "done":
                if found["report"]["leads"] != LEADS:
                    raise RuntimeError(f"{found['report']['leads']} leads were judged")
                return time.monotonic() - began
            if found["state"] == "failed":
                raise RuntimeError(str(found["error"]))
            time.sleep(SAMPLE_S)
    raise RuntimeError(f"no report after {WAIT_S_MAX:.0f} s")
