"""Where marketing hands leads over to sales, and what sales made of them. It follows from the definition alone and moves nothing."""

from __future__ import annotations

from typing import Literal

from accord.contracts.values import StageKind
from qualification.definition.domain.rules import Rules

HandoffOutcome = Literal["accepted", "rejected"]

_SALES_KINDS = frozenset[StageKind]({"open", "won"})


def handoff_stages(rules: Rules) -> tuple[str, ...]:
    """The open stages of marketing in which a lead waits for sales: a decision leads from there to work of sales. By rank."""
    return tuple(
        key
        for key, stage in rules.stages.items()
        if stage.owner == "marketing"
        and stage.kind == "open"
        and any(_is_worked_by_sales(rules, to.key) for to in rules.decisions_from[key].values())
    )


def handoff_outcome(rules: Rules, from_stage: str, to_stage: str) -> HandoffOutcome | None:
    """What a decision says of a lead that was handed over: sales works on it, or not. None if it was not about such a lead."""
    if from_stage not in handoff_stages(rules) or to_stage not in rules.stages:
        return None
    return "accepted" if _is_worked_by_sales(rules, to_stage) else "rejected"


def _is_worked_by_sales(rules: Rules, stage: str) -> bool:
    return rules.stages[stage].owner == "sales" and rules.stages[stage].kind in _SALES_KINDS
