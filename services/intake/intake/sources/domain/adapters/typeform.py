"""Typeform's webhooks: one response to a form each. Signed by `Typeform-Signature: sha256=` + base64(HMAC-SHA256(secret, body))."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from intake.sources.domain.adapters.base import (
    Adapter,
    HookRequest,
    HookSettings,
    Ignored,
    Secrets,
    Submitted,
    ToolEvent,
    Unreadable,
    Verification,
    as_list,
    as_object,
    digest_id,
    event_id,
    to_text,
)
from intake.sources.domain.signatures import check_signature, decode_base64, hmac_sha256

_PREFIX = "sha256="
_NAMED = {"email": "email", "phone_number": "phone_number"}
"""Types of answers that are one thing whatever the question is called."""


class TypeformSettings(HookSettings):
    """None of its own."""


def verify(request: HookRequest, secrets: Secrets, _settings: TypeformSettings, _now: datetime) -> Verification:
    """`Typeform-Signature`."""
    given = request.headers.get("typeform-signature", "")
    digests = [decode_base64(given.removeprefix(_PREFIX)) if given.startswith(_PREFIX) else None]
    return Verification(check_signature(digests, secrets.get("signing", ()), hmac_sha256(request.body)))


def read(_request: HookRequest, document: JsonValue, _settings: TypeformSettings) -> list[ToolEvent]:
    """One response, with its answers by the `ref` of their question."""
    fields = as_object(document)
    id_ = to_text(fields.get("event_id"))
    key = digest_id(document) if id_ is None else event_id(id_)
    type_ = fields.get("event_type")
    if type_ == "form_response_partial":
        return [Ignored(key, "no-whole-response")]
    if type_ != "form_response":
        return [Unreadable(key, "its event_type is not one of Typeform's", document)]
    response = as_object(fields.get("form_response"))
    if not response:
        return [Unreadable(key, "it lacks form_response", document)]
    return [Submitted(key, _view(response), document)]


def _view(response: Mapping[str, JsonValue]) -> JsonValue:
    answers: dict[str, JsonValue] = {}
    typed: dict[str, JsonValue] = {}
    for answer in map(as_object, as_list(response.get("answers"))):
        field = as_object(answer.get("field"))
        type_ = to_text(answer.get("type")) or ""
        value = _value(type_, answer.get(type_))
        name = to_text(field.get("ref")) or to_text(field.get("id"))
        if value is None or name is None:
            continue
        answers.setdefault(name, value)
        if type_ in _NAMED:
            typed.setdefault(_NAMED[type_], value)
        if field.get("type") == "legal" and value is True:
            typed["consent"] = "consent"
    return {
        "form_id": response.get("form_id"),
        "token": response.get("token"),
        "submitted_at": response.get("submitted_at"),
        "landed_at": response.get("landed_at"),
        "hidden": {name: value for name, value in as_object(response.get("hidden")).items() if value not in (None, "")},
        "answers": answers,
        "typed": typed,
        "calculated": response.get("calculated"),
        "variables": {
            name: value
            for one in map(as_object, as_list(response.get("variables")))
            if (name := to_text(one.get("key"))) and (value := one.get(to_text(one.get("type")) or "")) is not None
        },
    }


def _value(type_: str, said: JsonValue) -> JsonValue:
    """What was answered: a choice by its label, several by theirs."""
    if type_ == "choice":
        return as_object(said).get("label") or as_object(said).get("other")
    if type_ == "choices":
        labels = [one for one in as_list(as_object(said).get("labels")) if isinstance(one, str)]
        other = to_text(as_object(said).get("other"))
        return [*labels, *([other] if other else [])] or None
    return said


ADAPTER = Adapter(
    name="typeform",
    title="Typeform",
    secret_kinds={"signing": "The secret of the webhook in Typeform."},
    settings=TypeformSettings,
    verify=verify,
    read=read,
    fields={
        "external_id": ("/hidden/external_id", "/hidden/user_id"),
        "email": ("/answers/email", "/typed/email", "/hidden/email"),
        "phone": ("/answers/phone", "/typed/phone_number", "/answers/phone_number", "/hidden/phone"),
        "first_name": ("/answers/first_name", "/hidden/first_name"),
        "last_name": ("/answers/last_name", "/hidden/last_name"),
        "company": ("/answers/company", "/hidden/company"),
        "domain": ("/answers/domain", "/hidden/domain"),
        "title": ("/answers/title", "/answers/job_title", "/hidden/title"),
        "campaign.name": ("/hidden/utm_campaign", "/hidden/campaign"),
        "campaign.medium": "/hidden/utm_medium",
        "campaign.content": "/hidden/utm_content",
        "campaign.term": "/hidden/utm_term",
        "campaign.referrer": "/hidden/referrer",
        "consent.basis": "/typed/consent",
        "occurred_at": "/submitted_at",
    },
    attribute_sources=("/answers", "/hidden", "/variables"),
)
