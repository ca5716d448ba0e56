"""A person's or the CRM's decision about a lead: where it leads, and why one is refused. Changes nothing."""

from __future__ import annotations

from datetime import datetime, timedelta

from qualification.definition.domain.rules import Rules, StageRule
from qualification.lifecycle.domain.facts import Decision
from qualification.lifecycle.domain.lead import Deal, Lead

FUTURE_S_MAX = 300
"""A decision may be dated this far ahead of our clock, for clocks that differ."""


class Refused(Exception):
    """A decision that changes nothing. `stage` is where the lead stands and `allowed` what could be decided there."""

    def __init__(self, reason: str, stage: str | None = None, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stage = stage
        self.allowed = allowed


class NotAllowed(Refused):
    """The lead's stage does not allow this decision."""


class InvalidDecision(Refused):
    """The decision is not as agreed. `errors` are pairs of a JSON pointer into the request and what is wrong there."""

    def __init__(self, errors: tuple[tuple[str, str], ...], stage: str | None, allowed: tuple[str, ...]) -> None:
        super().__init__("; ".join(message for _, message in errors), stage, allowed)
        self.errors = errors


class LeadNotFound(Refused):
    """No such lead has entered, or arrived here yet."""


class LeadModified(Refused):
    """The lead is no longer as the caller believes it to be. `revision` is the present one."""

    def __init__(self, revision: int, stage: str | None, allowed: tuple[str, ...]) -> None:
        super().__init__("the lead has changed since", stage, allowed)
        self.revision = revision


class DefinitionChanged(Refused):
    """Another version of the definition is in force than the caller believes. `version` is the present one."""

    def __init__(self, version: int | None, stage: str | None, allowed: tuple[str, ...]) -> None:
        super().__init__("the definition has changed since", stage, allowed)
        self.version = version


class LeadWasErased(Refused):
    """The lead was erased."""


def allowed_decisions(lead: Lead, rules: Rules | None) -> tuple[str, ...]:
    """What may be decided about the lead now, in alphabetical order."""
    if rules is None or lead.erased:
        return ()
    return tuple(sorted(rules.decisions_in(lead.stage)))


def require_decidable(lead: Lead | None, rules: Rules | None) -> None:
    """Raise LeadWasErased, LeadNotFound or NotAllowed for a lead about which nothing can be decided."""
    if lead is not None and lead.erased:
        raise LeadWasErased("the lead was erased")
    if lead is None or lead.profile is None:
        raise LeadNotFound("no such lead has entered")
    if rules is None or lead.entry_version is None:
        raise NotAllowed("the lead has no stage, since no definition has been in force", None, ())


def resolve_target(stage: str | None, deal: Deal, event: Decision, rules: Rules, now: datetime) -> StageRule:
    """The stage that a decision leads to from `stage`, under these rules. Raises Refused."""
    allowed = tuple(sorted(rules.decisions_in(stage)))
    target = rules.decisions_in(stage).get(event.decision)
    if target is None and event.decision in rules.decisions:
        raise NotAllowed(f"{event.decision} is not allowed in {stage}", stage, allowed)
    if target is None:
        known = ", ".join(sorted(rules.decisions))
        raise InvalidDecision((("/decision", f"not a decision of the definition in force: {known}"),), stage, allowed)
    errors = _field_errors(event, target, now) + _currency_errors(event, deal, rules)
    if errors:
        raise InvalidDecision(errors, stage, allowed)
    return target


def _currency_errors(event: Decision, deal: Deal, rules: Rules) -> tuple[tuple[str, str], ...]:
    """Amounts of two currencies cannot be compared or added: that of the definition counts, else that of the lead's earlier amount."""
    agreed = rules.currency or (deal.amount.currency if deal.amount else None)
    given = event.fields.amount
    if given is None or agreed is None or given.currency == agreed:
        return ()
    whose = "agreed" if rules.currency else "that of the lead's earlier amount"
    return (("/fields/amount/currency", f"must be {agreed}, the currency {whose}"),)


def _field_errors(event: Decision, target: StageRule, now: datetime) -> tuple[tuple[str, str], ...]:
    errors = []
    if event.occurred_at > now + timedelta(seconds=FUTURE_S_MAX):
        errors.append(("/occurred_at", f"more than {FUTURE_S_MAX} s in the future"))
    if target.reasons is None:
        if event.reason is not None:
            errors.append(("/reason", f"no reasons are agreed for {event.decision}"))
    elif event.reason is None:
        errors.append(("/reason", f"needed; one of {', '.join(target.reasons)}"))
    elif event.reason not in target.reasons:
        errors.append(("/reason", f"not agreed; one of {', '.join(target.reasons)}"))
    missing = (name for name in target.fields if not event.fields.has(name))
    errors.extend((f"/fields/{name}", f"needed for {event.decision}") for name in missing)
    return tuple(errors)
