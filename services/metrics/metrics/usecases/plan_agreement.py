"""The plan as an agreement: its validation, its warnings before it is signed, and its paper form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import Kind, Section
from metrics.domain import plan
from metrics.domain.plan_paper import render_plan
from metrics.queries.stages import fetch_stages


def _render_paper(content: Mapping[str, object]) -> list[Section]:
    return [
        Section(
            heading=part.heading,
            paragraphs=part.paragraphs,
            columns=part.rows[0] if part.rows else (),
            rows=part.rows[1:],
        )
        for part in render_plan(plan.parse_plan(content))
    ]


async def _find_warnings(conn: AsyncConnection, content: Mapping[str, object]) -> Sequence[str]:
    """Find stages of the plan that the definition in force lacks; none while no definition is known."""
    stages = await fetch_stages(conn)
    if stages.version is None:
        return []
    findings = plan.find_unknown_stages(plan.parse_plan(content), [stage.key for stage in stages.by_rank])
    return [f"{finding.pointer}: {finding.message}." for finding in findings]


PLAN = Kind(kind="plan", path="/v1/plan", validate=plan.validate_plan, paper=_render_paper, warn=_find_warnings)
