"""How a submission was judged, and what happens where nothing judges. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

from accord.contracts.values import Attributes, AttributeValue, PolicyFailure
from intake.leads.domain.personal import is_public_without_policy

SubmissionVerdict = Literal["accepted", "flagged", "quarantined", "unchecked", "rejected"]

PASSED, FAILED, NOT_APPLICABLE = "p", "f", "n"


class Quality(Struct, frozen=True, gc=False):
    """The verdict with its reasons. `score` = weight passed / weight applicable; None where nothing was checked.

    `outcomes` has a letter for each parameter, in the policy's order: PASSED, FAILED or NOT_APPLICABLE.
    """

    verdict: SubmissionVerdict
    score: float | None = None
    policy_version: int | None = None
    failed: tuple[PolicyFailure, ...] = field(default=())
    outcomes: str = ""

    @property
    def rejection_reason(self) -> str:
        """Why the policy rejects it, in words."""
        return "; ".join(failure.reason for failure in self.failed if failure.consequence == "reject")


def evaluate_without_policy(attributes: Mapping[str, AttributeValue]) -> tuple[Quality, Attributes]:
    """What happens without a policy in force: everything is taken, and nothing is claimed about it."""
    return Quality("unchecked"), {n: v for n, v in attributes.items() if is_public_without_policy(n, v)}
