"""Senders whose body the customer writes: Marketo's webhook templates, Zapier and the like, own forms. A header, a URL or a bearer token
verifies them; what stands where, the source's mapping says, and without one the fields have our own names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated

from pydantic import JsonValue, StringConstraints

from intake.sources.domain.adapters.base import (
    Adapter,
    HookRequest,
    HookSettings,
    Secrets,
    Submitted,
    ToolEvent,
    Unreadable,
    Verification,
    digest_id,
    event_id,
    to_text,
)
from intake.sources.domain.adapters.bearer import BEARER, first_verified, verify_bearer, verify_header, verify_url
from intake.sources.domain.mapping import Rule, resolve

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
Pointer = Annotated[str, StringConstraints(max_length=500, pattern=r"^(?:/(?:[^~/]|~[01])*)+$")]


class CustomSettings(HookSettings):
    """`header`: the header that holds the secret. `event_id`: where in an event its id stands; without one it is `Idempotency-Key` with
    its content, and without that its content. `events`: where in the body the list of events stands, if there is one."""

    header: HeaderName = "X-Accord-Secret"
    event_id: Pointer | None = None
    events: Pointer | None = None


def verify(request: HookRequest, secrets: Secrets, settings: CustomSettings, _now: datetime) -> Verification:
    """One of: a bearer token, the secret in the header, the secret in the URL."""
    return first_verified(
        verify_bearer(request, secrets), verify_header(request, secrets, settings.header), verify_url(request, secrets)
    )


def verify_by_header(request: HookRequest, secrets: Secrets, settings: CustomSettings, _now: datetime) -> Verification:
    """Marketo: the custom header, the only thing that it can send along."""
    return verify_header(request, secrets, settings.header)


def read(request: HookRequest, document: JsonValue, settings: CustomSettings) -> Iterator[ToolEvent]:
    """One event, or several where the body is a list or holds one."""
    found = document if settings.events is None else resolve(document, settings.events)
    if found is None:
        yield Unreadable(digest_id(document), "there is nothing at the place of its events", document)
        return
    for one in found if isinstance(found, list) else [found]:
        yield Submitted(_id(request, one, settings), one, one)


def _id(request: HookRequest, event: JsonValue, settings: CustomSettings) -> str:
    own = None if settings.event_id is None else to_text(resolve(event, settings.event_id))
    if own is not None:
        return event_id(own)
    key = to_text(request.headers.get("idempotency-key", ""))
    # A key that somebody has typed once and for all must not make everybody's events one.
    return digest_id(event) if key is None else event_id(key, digest_id(event))


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
_ATTRIBUTE_SOURCES = ("/attributes",)

MARKETO = Adapter(
    name="marketo",
    title="Marketo",
    secret_kinds={"header": "The value of the custom header that the webhook sends."},
    settings=CustomSettings,
    verify=verify_by_header,
    read=read,
    fields=_FIELDS,
    attribute_sources=_ATTRIBUTE_SOURCES,
    body="either",
)

GENERIC = Adapter(
    name="generic",
    title="Zapier, Make, own forms",
    secret_kinds={
        "bearer": BEARER,
        "header": "The value of the header that the settings name.",
        "url": "The secret at the end of the URL: …/v1/hooks/SOURCE/SECRET.",
    },
    settings=CustomSettings,
    verify=verify,
    read=read,
    fields=_FIELDS,
    attribute_sources=_ATTRIBUTE_SOURCES,
    body="either",
)
