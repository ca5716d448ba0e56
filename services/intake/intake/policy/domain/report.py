"""How a verdict came about, parameter by parameter, from what is kept of it; and how a whole sample of submissions came out. Pure, and it
holds no value of any record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from accord.contracts.values import PolicyFailure
from intake.leads.domain.quality import FAILED, NOT_APPLICABLE, PASSED, Quality, SubmissionVerdict
from intake.policy.domain.policy import Consequence, Policy
from intake.policy.domain.words import describe_parameter

Outcome = Literal["passed", "failed", "not_applicable", "not_recorded"]
_OUTCOMES: dict[str, Outcome] = {PASSED: "passed", FAILED: "failed", NOT_APPLICABLE: "not_applicable"}


class ParameterReport(Struct, frozen=True, gc=False):
    """One parameter with what came of it. `asks` is in plain words; `reason` is given where it failed."""

    parameter: str
    requirement: str
    outcome: Outcome
    weight: float
    consequence: Consequence
    reason: str | None


def parameter_reports(policy: Policy, outcomes: str, failed: Iterable[PolicyFailure]) -> list[ParameterReport]:
    """Every parameter of the policy that made the verdict, in its order.

    A verdict that was kept before the letters of `outcomes` were says of a parameter only whether it failed.
    """
    reasons = {failure.parameter: failure.reason for failure in failed}
    letters = outcomes if len(outcomes) == len(policy.parameters) else " " * len(policy.parameters)
    return [
        ParameterReport(
            one.key,
            describe_parameter(one),
            _OUTCOMES.get(letter, "failed" if one.key in reasons else "not_recorded"),
            one.weight,
            one.consequence,
            reasons.get(one.key),
        )
        for one, letter in zip(policy.parameters, letters, strict=True)
    ]


@dataclass(slots=True)
class Tally:
    """How the submissions of a sample come out under one policy. `outcomes` counts by place of the parameter."""

    policy: Policy
    judged: int = 0
    verdicts: Counter[SubmissionVerdict] = field(default_factory=Counter)
    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)

    def add(self, quality: Quality) -> None:
        self.judged += 1
        self.verdicts[quality.verdict] += 1
        self.outcomes.update(enumerate(quality.outcomes))

    def failed_count(self, place: int) -> int:
        """How many do not meet the parameter at this place."""
        return self.outcomes[place, FAILED]

    def applicable_count(self, place: int) -> int:
        """To how many the parameter at this place applies."""
        return self.judged - self.outcomes[place, NOT_APPLICABLE]


class Effect(Struct, frozen=True, gc=False):
    """What a policy would have made of the submissions of the last `days`, beside what the one in force makes of the same.

    `whole`: the sample is all of them; otherwise the newest. `unread`: of these, how many are not kept in a form that can be judged again.
    """

    days: int
    whole: bool
    unread: int
    proposed: Tally
    in_force: Tally | None


def format_share(part: int, whole: int) -> str:
    """A part as a percentage that says 0 or 100 only of none and all: `2 %`, `99.6 %`, `less than 0.1 %`."""
    if whole == 0 or part in (0, whole):
        return "100 %" if part and part == whole else "0 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return "less than 0.1 %"
    if percent > 99.9:
        return "more than 99.9 %"
    return f"{percent:.0f} %" if 10 <= percent <= 90 else f"{percent:.1f} %".replace(".0 %", " %")


_PARAMETERS_SAID_MAX = 10


def describe_effect(effect: Effect) -> list[str]:
    """What both departments should know before they sign; nothing where nothing has come that could be judged."""
    proposed = effect.proposed
    if not proposed.judged:
        return []
    said = [_verdict_words(effect)]
    if _count_blocked(proposed) == proposed.judged:
        said.append("Under this policy no record of them would have become a lead by itself.")
    places = range(len(proposed.policy.parameters))
    never = [place for place in places if proposed.failed_count(place) == proposed.judged]
    said += [
        f"None of them meets the parameter {proposed.policy.parameters[place].key}."
        for place in never[:_PARAMETERS_SAID_MAX]
    ]
    if len(never) > _PARAMETERS_SAID_MAX:
        said.append(f"Nor do they meet {len(never) - _PARAMETERS_SAID_MAX} more parameters.")
    return said


def _count_blocked(tally: Tally) -> int:
    return tally.verdicts["rejected"] + tally.verdicts["quarantined"]


def _verdict_words(effect: Effect) -> str:
    proposed, in_force = effect.proposed, effect.in_force
    parts: Sequence[tuple[str, SubmissionVerdict]] = (("refused", "rejected"), ("quarantined", "quarantined"))
    phrases = []
    for verb, verdict in parts:
        phrase = f"{verb} {format_share(proposed.verdicts[verdict], proposed.judged)}"
        if in_force is not None and in_force.judged:
            phrase += f" (in force now: {format_share(in_force.verdicts[verdict], in_force.judged)})"
        phrases.append(phrase)
    sample = f"the {'' if effect.whole else 'newest '}{proposed.judged:,} submissions of the last {effect.days} days"
    words = f"Of {sample}, this policy would have {' and '.join(phrases)}."
    if effect.unread:
        words += f" {effect.unread:,} more are not kept in a form that can be judged again."
    return words
