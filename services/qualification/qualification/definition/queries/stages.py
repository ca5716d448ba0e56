"""How many leads stand in stages. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

# The stages of all versions that were ever in force, each looked up in the index of leads by stage. Of which kind a stage is says the
# newest version that had it.
_OUTSIDE = """
WITH known AS (
    SELECT DISTINCT ON (stage ->> 'key') stage ->> 'key' AS key, stage ->> 'kind' AS kind
    FROM agreement_version AS version, jsonb_array_elements(version.content::jsonb -> 'stages') AS stage
    WHERE version.kind = 'definition' AND version.active_from IS NOT NULL
    ORDER BY stage ->> 'key', version.version DESC
)
SELECT known.key, counted.leads FROM known
CROSS JOIN LATERAL (
    SELECT count(*) AS leads FROM lead
    WHERE lead.stage = known.key AND lead.stage IS NOT NULL AND lead.merged_into IS NULL AND NOT lead.erased
) AS counted
WHERE known.kind NOT IN ('won', 'lost') AND known.key <> ALL ($1::text[]) AND counted.leads > 0
ORDER BY known.key
"""


async def count_leads_outside(connection: asyncpg.Connection, stages: Collection[str]) -> dict[str, int]:
    """Of every stage of any version but these, and but won and lost ones, how many leads stand in it, where there are any."""
    return {row["key"]: row["leads"] for row in await connection.fetch(_OUTSIDE, sorted(stages))}
