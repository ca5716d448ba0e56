"""Mailchimp's audience webhooks: form-encoded, unsigned, so a secret in the URL verifies them, and a GET must answer 200 before Mailchimp
accepts the URL. They have no ids and are sent again for 75 minutes, so their content is their id.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from intake.sources.domain.adapters.base import (
    ActivityOccurred,
    Adapter,
    HandshakeResponse,
    HookRequest,
    HookSettings,
    Ignored,
    Secrets,
    Submitted,
    ToolEvent,
    Unreadable,
    Verification,
    as_object,
    digest_id,
    to_text,
)
from intake.sources.domain.adapters.bearer import verify_url
from intake.sources.domain.signatures import Refusal

_WITHDRAWN = {"unsubscribe": "consent.withdrawn", "cleaned": "email.bounced"}


class MailchimpSettings(HookSettings):
    """None of its own."""


def verify(request: HookRequest, secrets: Secrets, _settings: MailchimpSettings, _now: datetime) -> Verification:
    """The secret in the URL."""
    return verify_url(request, secrets)


def handshake(request: HookRequest, secrets: Secrets, _settings: MailchimpSettings) -> HandshakeResponse | Refusal:
    """The GET by which Mailchimp looks whether somebody is there."""
    return verify_url(request, secrets).refusal or HandshakeResponse(200, "ready")


def read(_request: HookRequest, document: JsonValue, _settings: MailchimpSettings) -> list[ToolEvent]:
    """One event: `type`, `fired_at` and `data`."""
    fields = as_object(document)
    data = as_object(fields.get("data"))
    type_ = to_text(fields.get("type"))
    id_ = digest_id(document)
    at = fields.get("fired_at")
    if type_ in ("subscribe", "profile"):
        return [Submitted(id_, document, document)]
    if type_ == "upemail":
        return _parse_address_change(id_, fields, data, document)
    if type_ == "campaign":
        return [Ignored(id_, "about-no-person")]
    if type_ not in _WITHDRAWN:
        return [Unreadable(id_, "its type is not one of Mailchimp's", document)]
    email = to_text(data.get("email"))
    if email is None:
        return [Unreadable(id_, "it lacks data[email]", document)]
    properties: dict[str, JsonValue] = {
        name: data[name] for name in ("action", "reason", "list_id", "campaign_id") if name in data
    }
    return [ActivityOccurred(id_, _WITHDRAWN[type_], "lead", document, email, occurred_at=at, properties=properties)]


def _parse_address_change(
    id_: str, fields: dict[str, JsonValue], data: dict[str, JsonValue], document: JsonValue
) -> list[ToolEvent]:
    """A new address of somebody known by the old one: first their new id under the old address, then the new address under that id, so
    that both name one person."""
    new_id, new, old = (to_text(data.get(name)) for name in ("new_id", "new_email", "old_email"))
    if new_id is None or new is None or old is None:
        return [Unreadable(id_, "it lacks one of data[new_id], data[new_email], data[old_email]", document)]
    steps = (("old", old), ("new", new))
    return [
        Submitted(f"{id_}:{step}", {**fields, "data": {**data, "id": new_id, "email": email}}, document)
        for step, email in steps
    ]


ADAPTER = Adapter(
    name="mailchimp",
    title="Mailchimp",
    secret_kinds={"url": "The secret at the end of the webhook's URL: …/v1/hooks/SOURCE/SECRET."},
    settings=MailchimpSettings,
    verify=verify,
    read=read,
    fields={
        "external_id": "/data/id",
        "email": ("/data/email", "/data/merges/EMAIL"),
        "phone": ("/data/merges/PHONE", "/data/merges/SMSPHONE"),
        "first_name": "/data/merges/FNAME",
        "last_name": "/data/merges/LNAME",
        "company": "/data/merges/COMPANY",
        "title": ("/data/merges/JOBTITLE", "/data/merges/TITLE"),
        "occurred_at": "/fired_at",
    },
    attribute_sources=("/data/merges",),
    body="form",
    handshake=handshake,
)
