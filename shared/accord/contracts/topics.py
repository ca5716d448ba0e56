"""Which service owns which topic, and which event types it may write there. Topic names use hyphens only."""

from __future__ import annotations

from typing import Literal

from accord.contracts import (
    agreement_events,
    intake_events,
    metrics_events,
    qualification_events,
    sla_events,
    watermarks,
)
from accord.contracts.base import EventData

ServiceName = Literal["intake", "qualification", "sla-monitor", "metrics"]

INTAKE_EVENTS = "intake-events"
QUALIFICATION_EVENTS = "qualification-events"
SLA_EVENTS = "sla-events"
METRICS_EVENTS = "metrics-events"

TOPIC_OF: dict[ServiceName, str] = {
    "intake": INTAKE_EVENTS,
    "qualification": QUALIFICATION_EVENTS,
    "sla-monitor": SLA_EVENTS,
    "metrics": METRICS_EVENTS,
}

CONSUMED_TOPICS: dict[ServiceName, tuple[str, ...]] = {
    "intake": (),
    "qualification": (INTAKE_EVENTS, SLA_EVENTS),
    "sla-monitor": (INTAKE_EVENTS, QUALIFICATION_EVENTS),
    "metrics": (INTAKE_EVENTS, QUALIFICATION_EVENTS, SLA_EVENTS),
}
"""The topics that each service reads."""

AWAITED_TOPICS: dict[ServiceName, tuple[str, ...]] = {**CONSUMED_TOPICS, "qualification": (INTAKE_EVENTS,)}
"""The topics whose watermarks each service's own waits for. There is no circle: qualification reads of broken promises and does not
wait for more of them, since the SLA monitor breaks none before qualification's watermark has passed it (ADR 65)."""

PARTITIONS_DEFAULT = 12

_EVERYWHERE: tuple[type[EventData], ...] = (
    agreement_events.AgreementProposed,
    agreement_events.AgreementSigned,
    agreement_events.AgreementActivated,
    agreement_events.AgreementWithdrawn,
    watermarks.WatermarkAdvanced,
)

EVENTS_ON: dict[str, tuple[type[EventData], ...]] = {
    INTAKE_EVENTS: (
        intake_events.LeadCaptured,
        intake_events.LeadUpdated,
        intake_events.LeadMerged,
        intake_events.LeadUnmerged,
        intake_events.LeadQuarantined,
        intake_events.LeadRejected,
        intake_events.LeadErased,
        intake_events.ActivityRecorded,
        intake_events.ImportFinished,
        *_EVERYWHERE,
    ),
    QUALIFICATION_EVENTS: (
        qualification_events.LeadScored,
        qualification_events.LeadStageChanged,
        qualification_events.LeadDecided,
        qualification_events.LeadAssigned,
        qualification_events.OpportunityUpdated,
        *_EVERYWHERE,
    ),
    SLA_EVENTS: (
        sla_events.ClockStarted,
        sla_events.ClockAtRisk,
        sla_events.ClockBreached,
        sla_events.ClockMet,
        sla_events.BreachWithdrawn,
        sla_events.ClockCancelled,
        sla_events.ClockRescheduled,
        sla_events.ClockEscalated,
        sla_events.BreachAcknowledged,
        *_EVERYWHERE,
    ),
    METRICS_EVENTS: (
        metrics_events.GoalReached,
        metrics_events.RewardAccrued,
        metrics_events.RewardReversed,
        *_EVERYWHERE,
    ),
}
