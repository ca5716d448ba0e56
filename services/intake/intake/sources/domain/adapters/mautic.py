"""Mautic's webhooks: a body whose keys are event types and whose values are lists of events. It gives events no ids, so their content is
their id: the same event sent again has the same. Signed by base64(HMAC-SHA256(secret, body)) in `Webhook-Signature`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct
from pydantic import JsonValue

from accord.contracts.values import ActorKind, Party
from intake.sources.domain.adapters.base import (
    ActivityOccurred,
    Adapter,
    Deleted,
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
from intake.sources.domain.signatures import check_signature, decode_base64, hmac_sha256

_PREFIX = "mautic."
_SUBMISSIONS = frozenset({"lead_post_save_new", "lead_post_save_update", "lead_post_save"})
_ACTIVITIES: Mapping[str, tuple[str, Party]] = {
    "lead_points_change": ("points.changed", "lead"),
    "email_on_send": ("email.sent", "marketing"),
    "email_on_open": ("email.opened", "lead"),
    "form_on_submit": ("form.submitted", "lead"),
    "page_on_hit": ("page.viewed", "lead"),
    "sms_on_send": ("text.sent", "marketing"),
    "text_on_send": ("text.sent", "marketing"),
}
_IGNORED = frozenset({"lead_company_change", "company_post_save", "company_post_delete", "lead_list_change"})
_CHANNEL = "lead_channel_subscription_changed"
_DELETED = "lead_post_delete"
_WITHDRAWN = frozenset({"unsubscribed", "manual"})
_WRAPPERS = ("submission", "hit", "stat")
"""Where an event that is about a form, a page or an e-mail keeps the contact."""


class MauticSettings(HookSettings):
    """`on_deletion`: what deleting a contact in Mautic does here."""

    on_deletion: Literal["note", "erase"] = "note"


def verify(request: HookRequest, secrets: Secrets, _settings: MauticSettings, _now: datetime) -> Verification:
    """`Webhook-Signature` = base64(HMAC-SHA256(secret, body))."""
    digests = [decode_base64(request.headers.get("webhook-signature", ""))]
    return Verification(check_signature(digests, secrets.get("signing", ()), hmac_sha256(request.body)))


def read(_request: HookRequest, document: JsonValue, settings: MauticSettings) -> Iterator[ToolEvent]:
    """Every event of every type, in the order of the body."""
    is_empty = True
    for name, events in as_object(document).items():
        for event in events if isinstance(events, list) else [events]:
            is_empty = False
            if name.startswith(_PREFIX):
                yield _parse_event(name.removeprefix(_PREFIX), event, settings)
            else:
                yield Unreadable(digest_id(name, event), "it is no mautic.… event", {name: event})
    if is_empty:
        yield Unreadable(digest_id(document), "it holds no event", document)


def _parse_event(type_: str, event: JsonValue, settings: MauticSettings) -> ToolEvent:
    fields = as_object(event)
    id_ = digest_id(type_, event)
    contact = _contact(fields)
    view = _view(type_, fields, contact)
    if type_ in _SUBMISSIONS:
        return Submitted(id_, view, event)
    person = as_object(view.get("fields"))
    email, external_id = to_text(person.get("email")), to_text(contact.get("id") or fields.get("id"))
    if type_ == "form_on_submit" and (email or external_id is None):
        return _form(id_, event, view)
    return _parse_contact_event(id_, type_, event, _Person(email, external_id), view.get("timestamp"), settings)


class _Person(Struct, frozen=True, gc=False):
    email: str | None
    external_id: str | None


def _parse_contact_event(
    id_: str, type_: str, event: JsonValue, person: _Person, at: JsonValue, settings: MauticSettings
) -> ToolEvent:
    """What an event says of somebody who is known already."""
    fields = as_object(event)
    if type_ in _IGNORED:
        return Ignored(id_, "no-event-of-a-lead")
    if type_ not in _ACTIVITIES and type_ not in (_CHANNEL, _DELETED):
        return Unreadable(id_, "its type is not one of Mautic's", event)
    if person.email is None and person.external_id is None:
        return Unreadable(id_, "it names no contact", event)
    if type_ == _DELETED:
        # The contact in it has no id any more, and the address of whom it was merged into.
        number = to_text(fields.get("id")) or person.external_id
        erase = settings.on_deletion == "erase"
        return Deleted(id_, event, number, person.email, erase, at, only_record=True)
    if type_ == _CHANNEL:
        kind, properties = _channel(fields)
        return ActivityOccurred(id_, kind, "lead", event, person.email, person.external_id, at, properties=properties)
    kind, by = _ACTIVITIES[type_]
    properties = _properties(type_, fields)
    # What Mautic sends, it sends by its campaigns, segments and forms.
    actor_kind: ActorKind | None = "automation" if by == "marketing" else None
    email, external_id = person.email, person.external_id
    return ActivityOccurred(id_, kind, by, event, email, external_id, at, properties=properties, actor_kind=actor_kind)


def _contact(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    for node in (fields, *(as_object(fields.get(name)) for name in _WRAPPERS)):
        found = node.get("contact") or node.get("lead")
        if isinstance(found, dict):
            return found
    return {}


def _view(type_: str, fields: dict[str, JsonValue], contact: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The event with the contact's fields by alias under `fields`, and a form's results under `results`."""
    flat: dict[str, JsonValue] = {}
    for group in as_object(contact.get("fields")).values():
        for alias, field in as_object(group).items():
            value = as_object(field).get("value") if isinstance(field, dict) else field
            if value not in (None, "", []):
                flat[alias] = value
    submission = as_object(fields.get("submission"))
    results: dict[str, JsonValue] = {
        name: value for name, value in as_object(submission.get("results")).items() if value not in (None, "")
    }
    at = fields.get("timestamp") or submission.get("dateSubmitted") or as_object(fields.get("hit")).get("dateHit")
    return {
        **fields,
        "type": type_,
        "contact": contact,
        "fields": flat,
        "results": results,
        "timestamp": at,
    }


def _form(id_: str, event: JsonValue, view: dict[str, JsonValue]) -> ToolEvent:
    """What somebody typed into a form, over what was known of them."""
    merged = {**as_object(view.get("fields")), **as_object(view.get("results"))}
    return Submitted(id_, {**view, "fields": merged}, event)


def _channel(fields: Mapping[str, JsonValue]) -> tuple[str, dict[str, JsonValue]]:
    """Somebody may or may not be written to any more."""
    channel, status = to_text(fields.get("channel")), to_text(fields.get("new_status"))
    properties: dict[str, JsonValue] = {"channel": channel, "status": status}
    if status in _WITHDRAWN:
        return "consent.withdrawn", properties
    return f"{_word(channel)}.{'bounced' if status == 'bounced' else 'subscribed'}", properties


def _word(channel: str | None) -> str:
    return channel if channel in ("email", "sms") else "channel"


def _properties(type_: str, fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    if type_ == "lead_points_change":
        points = as_object(fields.get("points"))
        return {name: points.get(name) for name in ("old_points", "new_points")}
    found: dict[str, JsonValue] = {}
    for name in ("email", "page", "form", "sms"):
        about = as_object(fields.get(name) or next((as_object(fields.get(w)).get(name) for w in _WRAPPERS), None))
        for part in ("id", "name", "subject", "title", "alias"):
            if (value := to_text(about.get(part))) is not None:
                found[f"{name}_{part}"] = value
    return found


ADAPTER = Adapter(
    name="mautic",
    title="Mautic",
    secret_kinds={"signing": "The secret of the webhook in Mautic."},
    settings=MauticSettings,
    verify=verify,
    read=read,
    fields={
        "external_id": "/contact/id",
        "email": "/fields/email",
        "phone": ("/fields/phone", "/fields/mobile"),
        "first_name": ("/fields/firstname", "/fields/first_name"),
        "last_name": ("/fields/lastname", "/fields/last_name"),
        "company": ("/fields/company", "/fields/companyname"),
        "title": "/fields/position",
        "attributes.employee_count": "/fields/companynumber_of_employees",
        "campaign.name": "/fields/utm_campaign",
        "campaign.medium": "/fields/utm_medium",
        "campaign.content": "/fields/utm_content",
        "campaign.term": "/fields/utm_term",
        "campaign.referrer": "/submission/referer",
        "occurred_at": "/timestamp",
    },
    attribute_sources=("/fields",),
)
