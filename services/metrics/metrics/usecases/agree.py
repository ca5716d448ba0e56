"""The plan as an agreement: how its content is checked, what both departments are told before they sign, how it reads
on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import Kind, Section
from metrics.domain import plan
from metrics.domain.plan_words import in_words
from metrics.queries.stages import stages_in_force


def _paper(content: Mapping[str, object]) -> list[Section]:
    return [
        Section(
            heading=part.heading,
            paragraphs=part.paragraphs,
            columns=part.rows[0] if part.rows else (),
            rows=part.rows[1:],
        )
        for part in in_words(plan.parse(content))
    ]


async def _warnings(conn: AsyncConnection, content: Mapping[str, object]) -> Sequence[str]:
    """Stages of the plan that the definition in force lacks; nothing while no definition is known."""
    stages = await stages_in_force(conn)
    if stages.version is None:
        return []
    flaws = plan.stages_not_in(plan.parse(content), [stage.key for stage in stages.every])
    return [f"{flaw.pointer}: {flaw.message}." for flaw in flaws]


PLAN = Kind(kind="plan", path="/v1/plan", validate=plan.flaws, paper=_paper, warn=_warnings)
