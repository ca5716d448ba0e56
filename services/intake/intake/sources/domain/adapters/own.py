"""Senders whose body the customer writes: Marketo's webhook templates, Zapier and the like, own forms. A header, a URL or a bearer token
proves them; what stands where, the source's mapping says, and without one the fields have our own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import JsonValue, StringConstraints

from intake.sources.domain.adapters.base import (
    EVENTS_MAX,
    Adapter,
    HookRequest,
    HookSettings,
    Proof,
    Said,
    Secrets,
    Submitted,
    digest_id,
    event_id,
    text_of,
)
from intake.sources.domain.adapters.bearer import BEARER, first_that_holds, prove_bearer, prove_header, prove_url
from intake.sources.domain.mapping import Rule, resolve

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
Pointer = Annotated[str, StringConstraints(max_length=500, pattern=r"^(?:/(?:[^~/]|~[01])*)+$")]


class OwnSettings(HookSettings):
    """`header`: the header that holds the secret. `event_id`: where in an event its id stands; without one `Idempotency-Key` is it, and
    without that its content. `events`: where in the body the list of events stands, if there is one."""

    header: HeaderName = "X-Accord-Secret"
    event_id: Pointer | None = None
    events: Pointer | None = None


def prove(request: HookRequest, secrets: Secrets, settings: OwnSettings, _now: datetime) -> Proof:
    """One of: a bearer token, the secret in the header, the secret in the URL."""
    return first_that_holds(
        prove_bearer(request, secrets), prove_header(request, secrets, settings.header), prove_url(request, secrets)
    )


def prove_by_header(request: HookRequest, secrets: Secrets, settings: OwnSettings, _now: datetime) -> Proof:
    """Marketo: the custom header, the only thing that it can send along."""
    return prove_header(request, secrets, settings.header)


def read(request: HookRequest, document: JsonValue, settings: OwnSettings) -> list[Said]:
    """One event, or several where the body is a list or holds one."""
    found = document if settings.events is None else resolve(document, settings.events)
    if not isinstance(found, list):
        return [Submitted(_id(request, found, settings, None), found, found)]
    return [Submitted(_id(request, one, settings, place), one, one) for place, one in enumerate(found[:EVENTS_MAX])]


def _id(request: HookRequest, event: JsonValue, settings: OwnSettings, place: int | None) -> str:
    own = None if settings.event_id is None else text_of(resolve(event, settings.event_id))
    if own is not None:
        return event_id(own)
    key = text_of(request.headers.get("idempotency-key", ""))
    if key is None:
        return digest_id(event)
    return event_id(key) if place is None else event_id(key, place)


_FIELDS: Mapping[str, Rule] = {
    "external_id": ("/external_id", "/id"),
    "email": ("/email", "/email_address", "/Email"),
    "phone": ("/phone", "/phone_number"),
    "first_name": ("/first_name", "/firstname", "/firstName"),
    "last_name": ("/last_name", "/lastname", "/lastName"),
    "company": ("/company", "/company_name"),
    "domain": ("/domain", "/website"),
    "title": ("/title", "/job_title"),
    "campaign.name": ("/campaign/name", "/utm_campaign"),
    "campaign.medium": ("/campaign/medium", "/utm_medium"),
    "campaign.content": ("/campaign/content", "/utm_content"),
    "campaign.term": ("/campaign/term", "/utm_term"),
    "campaign.landing_page": ("/campaign/landing_page", "/landing_page"),
    "campaign.referrer": ("/campaign/referrer", "/referrer"),
    "consent.basis": "/consent/basis",
    "consent.given_at": "/consent/given_at",
    "consent.text": "/consent/text",
    "occurred_at": ("/occurred_at", "/created_at", "/timestamp"),
}
_SPREAD = ("/attributes",)

MARKETO = Adapter(
    name="marketo",
    title="Marketo",
    uses={"header": "The value of the custom header that the webhook sends."},
    settings=OwnSettings,
    prove=prove_by_header,
    read=read,
    fields=_FIELDS,
    spread=_SPREAD,
    body="either",
)

GENERIC = Adapter(
    name="generic",
    title="Zapier, Make, own forms",
    uses={
        "bearer": BEARER,
        "header": "The value of the header that the settings name.",
        "url": "The secret at the end of the URL: …/v1/hooks/SOURCE/SECRET.",
    },
    settings=OwnSettings,
    prove=prove,
    read=read,
    fields=_FIELDS,
    spread=_SPREAD,
    body="either",
)
