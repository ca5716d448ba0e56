"""Judges one submission by the data policy. Pure; a reason names the parameter and the class of the value, never the value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from accord.contracts.values import Attributes, AttributeValue, PolicyFailure
from accord.terms.findings import Finding, pointer
from intake.leads.domain.facts import Facts
from intake.leads.domain.quality import FAILED, NOT_APPLICABLE, PASSED, Quality, SubmissionVerdict
from intake.policy.domain.attributes import READERS, NotOfType, describe_misfit
from intake.policy.domain.checks import NOT_TYPED, NotTyped, RuleFailure, compile_rule
from intake.policy.domain.policy import Policy

SCORE_DIGITS = 6
_QUALITIES_MAX = 4_096
"""Ways to come out that a judge remembers; a policy in use has some dozens."""


class Evaluation(NamedTuple):
    """The verdict, the attributes that may leave intake, and which of those that were sent were not read, each with why."""

    quality: Quality
    attributes: Attributes
    left_out: tuple[Finding, ...] = ()


class PolicyEvaluator:
    """A policy made ready for judging; built once per version.

    A submission comes out in one of few ways: each parameter met, or failed for one of its reasons. So the quality is made once for each
    way that occurs, and most submissions share one.
    """

    __slots__ = ("_checks", "_qualities", "_readers", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._readers = {name: (READERS[declared.type], declared.type) for name, declared in policy.attributes.items()}
        self._checks = [compile_rule(parameter.rule, policy.attributes) for parameter in policy.parameters]
        self._qualities: dict[tuple[int, tuple[RuleFailure | None, ...]], Quality] = {}

    @classmethod
    def of(cls, policy: Policy) -> PolicyEvaluator:
        return cls(policy)

    def evaluate(self, facts: Facts, version: int, now: datetime) -> Evaluation:
        """The verdict, stamped with `version`, and the attributes that may leave intake, as their declared types.

        Every parameter is judged, so that a sender learns of all failures at once. What does not read as its type fails the parameters
        that ask for it, stays in the submission, and is named in `left_out`.
        """
        values, public, left_out = self._read(facts.attributes)
        way = (version, tuple([check(values, facts, now) for check in self._checks]))
        quality = self._qualities.get(way)
        if quality is None:
            if len(self._qualities) >= _QUALITIES_MAX:
                self._qualities.clear()
            quality = self._qualities[way] = self._quality(version, way[1])
        return Evaluation(quality, public, left_out)

    def _read(
        self, attributes: Mapping[str, AttributeValue]
    ) -> tuple[Mapping[str, AttributeValue | NotTyped], Attributes, tuple[Finding, ...]]:
        """The declared ones as their types, those of them that could be read, and why others could not."""
        public: Attributes = {}
        wrong: dict[str, Finding] | None = None
        readers = self._readers
        for name, raw in attributes.items():
            if name in readers:
                read, type_ = readers[name]
                try:
                    value = read(raw)
                except NotOfType as error:
                    found = Finding(pointer("attributes", name), describe_misfit(error, type_))
                    wrong = {**(wrong or {}), name: found}
                else:
                    if value is not None:
                        public[name] = value
        if wrong is None:
            return public, public, ()
        return {**public, **dict.fromkeys(wrong, NOT_TYPED)}, public, tuple(wrong.values())

    def _quality(self, version: int, failures: Sequence[RuleFailure | None]) -> Quality:
        applicable, passed, outcomes = [], [], []
        failed: list[PolicyFailure] = []
        for parameter, failure in zip(self.policy.parameters, failures, strict=True):
            if failure is not None and failure.missing and parameter.missing_passes:
                outcomes.append(NOT_APPLICABLE)
                continue
            applicable.append(parameter.weight)
            if failure is None:
                passed.append(parameter.weight)
                outcomes.append(PASSED)
            else:
                outcomes.append(FAILED)
                failed.append(
                    PolicyFailure(parameter=parameter.key, consequence=parameter.consequence, reason=failure.reason)
                )
        score = round(math.fsum(passed) / math.fsum(applicable), SCORE_DIGITS) if applicable else 1.0
        return Quality(self._verdict(failed, score), score, version, tuple(failed), "".join(outcomes))

    def _verdict(self, failed: Sequence[PolicyFailure], score: float) -> SubmissionVerdict:
        consequences = {failure.consequence for failure in failed}
        if "reject" in consequences:
            return "rejected"
        if "quarantine" in consequences or score < self.policy.score_min:
            return "quarantined"
        return "flagged" if consequences else "accepted"
