"""The data policy as an agreement: how its content is checked, and how it reads on paper."""

from __future__ import annotations

from collections.abc import Mapping

from accord.agreements import Finding, Kind, Section
from intake.policy.domain import policy, words
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.service.report import proposal_warnings


def _findings(content: Mapping[str, object]) -> list[Finding]:
    return policy.validate_policy(content)[1]


def _paper(content: Mapping[str, object]) -> list[Section]:
    read = policy.parse_policy(content)
    return [
        Section("What every record must meet", [words.describe_policy(read)]),
        Section(
            "Parameters",
            columns=("Parameter", "What it asks", "If it is not met", "Weight"),
            rows=words.parameter_rows(read),
        ),
        Section(
            "What may leave intake",
            ["Everything else stays with the submission and is seen by nobody else."],
            columns=("Attribute", "Type"),
            rows=[(name, declared.type) for name, declared in read.attributes.items()],
        ),
    ]


def compile_policy(content: Mapping[str, object]) -> PolicyEvaluator:
    """A version in force, made ready for judging."""
    return PolicyEvaluator.of(policy.parse_policy(content))


POLICY = Kind(kind="policy", path="/v1/policy", validate=_findings, paper=_paper, warn=proposal_warnings)
