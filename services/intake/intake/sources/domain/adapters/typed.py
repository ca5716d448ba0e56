"""What the two protocols for any sender share (Standard Webhooks and CloudEvents): an event has a type, and the type says what it means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field, JsonValue, StringConstraints

from accord.contracts.values import ActorKind, Party
from intake.sources.domain.adapters.base import (
    ActivityOccurred,
    Deleted,
    HookSettings,
    Ignored,
    Submitted,
    ToolEvent,
    Unreadable,
    as_object,
    to_text,
)
from intake.sources.domain.mapping import Rule

Meaning = Literal["lead", "activity", "deletion", "erasure", "ignore"]
TypeName = Annotated[str, StringConstraints(min_length=1, max_length=200)]

_ACTIVITIES: Mapping[str, Party] = {
    "page.viewed": "lead",
    "form.submitted": "lead",
    "email.opened": "lead",
    "email.clicked": "lead",
    "email.bounced": "lead",
    "email.unsubscribed": "lead",
    "consent.withdrawn": "lead",
    "webinar.registered": "lead",
    "webinar.attended": "lead",
    "demo.requested": "lead",
    "content.downloaded": "lead",
    "meeting.booked": "sales",
    "meeting.held": "sales",
    "call.attempted": "sales",
    "call.connected": "sales",
    "email.sent": "marketing",
    "ad.shown": "marketing",
}
"""Types that are activities unless the source's settings say otherwise, and who did them."""

_NOUN_VERB = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+")
_KIND_CHARS_MAX = 100


class TypedSettings(HookSettings):
    """`types`: what events of a type mean, by the whole type. Those not named mean what their names say: `….deleted` that a record is
    gone, a known activity (`email.clicked`) that somebody did something, and everything else that somebody left their data."""

    types: Annotated[dict[TypeName, Meaning], Field(max_length=200)] = Field(default_factory=dict)
    by: Party | None = None
    """Who did the activities; None: by their kind, and the lead where it says nothing."""


FIELDS: Mapping[str, Rule] = {
    "email": ("/data/email", "/data/email_address"),
    "phone": ("/data/phone", "/data/phone_number"),
    "external_id": ("/data/external_id", "/data/id"),
    "first_name": ("/data/first_name", "/data/firstname", "/data/firstName"),
    "last_name": ("/data/last_name", "/data/lastname", "/data/lastName"),
    "company": ("/data/company", "/data/company_name"),
    "domain": ("/data/domain", "/data/company_domain"),
    "title": ("/data/title", "/data/job_title"),
    "campaign.name": ("/data/campaign/name", "/data/utm_campaign"),
    "campaign.medium": ("/data/campaign/medium", "/data/utm_medium"),
    "campaign.content": ("/data/campaign/content", "/data/utm_content"),
    "campaign.term": ("/data/campaign/term", "/data/utm_term"),
    "campaign.landing_page": ("/data/campaign/landing_page", "/data/landing_page"),
    "campaign.referrer": ("/data/campaign/referrer", "/data/referrer"),
    "consent.basis": "/data/consent/basis",
    "consent.given_at": "/data/consent/given_at",
    "consent.text": "/data/consent/text",
}
"""Where most senders put what; the time of the event is each protocol's own."""

ATTRIBUTE_SOURCES = ("/data/attributes",)


def classify_event(type_: str, settings: TypedSettings) -> Meaning:
    """What an event of this type means."""
    said = settings.types.get(type_)
    if said is not None:
        return said
    if activity_kind(type_) in _ACTIVITIES:
        return "activity"
    return "deletion" if type_.lower().endswith((".deleted", ".erased", "_deleted")) else "lead"


def activity_kind(type_: str) -> str | None:
    """The kind of activity in a type: `com.acme.email.clicked` is `email.clicked`. None if it is no `noun.verb`."""
    lower = type_.lower().replace("-", "_")
    for known in _ACTIVITIES:
        if lower == known or lower.endswith("." + known):
            return known
    return lower if len(lower) <= _KIND_CHARS_MAX and _NOUN_VERB.fullmatch(lower) else None


def parse_event(
    event_id: str, type_: str, view: dict[str, JsonValue], content: JsonValue, at: JsonValue, settings: TypedSettings
) -> ToolEvent:
    """What one event says. `view` has its fields under `data`."""
    means = classify_event(type_, settings)
    data = as_object(view.get("data"))
    if means == "ignore":
        return Ignored(event_id, "by-settings")
    if means == "lead":
        return Submitted(event_id, view, content)
    email = to_text(data.get("email")) or to_text(data.get("email_address"))
    external_id = to_text(data.get("external_id")) or to_text(data.get("id"))
    if email is None and external_id is None:
        return Unreadable(event_id, "it names nobody: neither data.email nor data.id", content)
    if means == "activity":
        kind = activity_kind(type_)
        if kind is None:
            return Unreadable(event_id, "its type is no noun.verb", content)
        by = settings.by or _ACTIVITIES.get(kind, "lead")
        properties, actor_kind = _properties(data), _actor_kind(data)
        return ActivityOccurred(
            event_id, kind, by, content, email, external_id, at, properties=properties, actor_kind=actor_kind
        )
    return Deleted(event_id, content, external_id, email, means == "erasure", at)


def _actor_kind(data: Mapping[str, JsonValue]) -> ActorKind | None:
    said = data.get("actor_kind")
    return next((kind for kind in get_args(ActorKind) if kind == said), None)


def _properties(data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    given = data.get("properties")
    return dict(given) if isinstance(given, dict) else {}
