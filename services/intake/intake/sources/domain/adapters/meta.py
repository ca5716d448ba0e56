"""Meta Lead Ads: a subscription that is confirmed by a handshake, and events that name a lead of a form, whose fields are then fetched from
the Graph API. Signed by `X-Hub-Signature-256: sha256=` + hex HMAC-SHA256(app secret, body).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import quote

from pydantic import JsonValue

from intake.sources.domain.adapters.base import (
    Adapter,
    Answers,
    FetchRequest,
    HandshakeResponse,
    HookRequest,
    HookSettings,
    Ignored,
    RecordReference,
    Secrets,
    ToolEvent,
    Unreadable,
    Verification,
    as_list,
    as_object,
    digest_id,
    event_id,
    split_full_name,
    to_text,
)
from intake.sources.domain.adapters.urls import BaseUrl
from intake.sources.domain.signatures import Refusal, check_secret, check_signature, decode_hex, hmac_sha256

FIELDS = "id,created_time,field_data,form_id,ad_id,ad_name,adset_name,campaign_id,campaign_name,platform,is_organic"
"""What is asked of a lead of a form."""

_PREFIX = "sha256="
_CHALLENGE_CHARS_MAX = 200


class MetaSettings(HookSettings):
    """`base_url`: the Graph API, with the version that the app is made for behind it if it should stay there."""

    base_url: BaseUrl = "https://graph.facebook.com"


def verify(request: HookRequest, secrets: Secrets, _settings: MetaSettings, _now: datetime) -> Verification:
    """`X-Hub-Signature-256`. Meta's signatures have no time; the lead's id guards against replays."""
    given = request.headers.get("x-hub-signature-256", "")
    digests = [decode_hex(given.removeprefix(_PREFIX)) if given.startswith(_PREFIX) else None]
    return Verification(check_signature(digests, secrets.get("signing", ()), hmac_sha256(request.body)))


def handshake(request: HookRequest, secrets: Secrets, _settings: MetaSettings) -> HandshakeResponse | Refusal:
    """The GET of the subscription: `hub.challenge` is given back to who knows `hub.verify_token`."""
    refusal = check_secret(request.query.get("hub.verify_token"), secrets.get("verify", ()))
    if refusal is not None:
        return refusal
    challenge = request.query.get("hub.challenge", "")
    if request.query.get("hub.mode") != "subscribe" or not 0 < len(challenge) <= _CHALLENGE_CHARS_MAX:
        return "missing"
    return HandshakeResponse(200, challenge)


def read(_request: HookRequest, document: JsonValue, _settings: MetaSettings) -> Iterator[ToolEvent]:
    """Every change of every entry; those of the field `leadgen` name a lead."""
    entries = as_list(as_object(document).get("entry"))
    if not entries:
        yield Unreadable(digest_id(document), "it holds no entry", document)
    for entry in entries:
        changes = as_list(as_object(entry).get("changes"))
        if not changes:
            yield Unreadable(digest_id(entry), "it holds no changes", entry)
        for change in changes:
            yield _parse_event(as_object(entry), change)


def _parse_event(entry: Mapping[str, JsonValue], change: JsonValue) -> ToolEvent:
    value = as_object(as_object(change).get("value"))
    field = to_text(as_object(change).get("field"))
    if field is None:
        return Unreadable(digest_id(entry.get("id"), entry.get("time"), change), "it lacks field", change)
    if field != "leadgen":
        return Ignored(digest_id(entry.get("id"), entry.get("time"), change), "no-lead-ad")
    lead = to_text(value.get("leadgen_id"))
    if lead is None:
        return Unreadable(digest_id(change), "it lacks leadgen_id", change)
    return RecordReference(event_id(lead), lead, {"id": lead}, change, value.get("created_time"))


class _Fetch:
    """GET /{leadgen_id}."""

    def next_request(
        self, reference: Mapping[str, JsonValue], answers: Answers, settings: MetaSettings
    ) -> FetchRequest | None:
        if "record" in answers:
            return None
        return FetchRequest("record", f"{settings.base_url}/{quote(str(reference['id']), safe='')}?fields={FIELDS}")

    def build_view(self, event: JsonValue, answers: Answers, _settings: MetaSettings) -> JsonValue:
        """The record with the form's fields by name under `fields`; of several values of one field the first, unless it has more."""
        record = as_object(answers.get("record"))
        fields: dict[str, JsonValue] = {}
        for one in map(as_object, as_list(record.get("field_data"))):
            name, values = to_text(one.get("name")), as_list(one.get("values"))
            if name is not None and values:
                fields[name.lower()] = values[0] if len(values) == 1 else values
        return {"event": event, "record": record, "fields": _with_names(fields)}


def _with_names(fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """First and last name of a form that asks for the full name only: the last word is taken for the last name."""
    full = to_text(fields.get("full_name"))
    if full is None or "first_name" in fields or "last_name" in fields:
        return fields
    first, last = split_full_name(full)
    return {**fields, "first_name": first, "last_name": last}


ADAPTER = Adapter(
    name="meta-lead-ads",
    title="Meta Lead Ads",
    secret_kinds={
        "signing": "The app's secret, which signs the webhooks.",
        "verify": "The verify token that is typed into the app's webhook form.",
        "token": "A page access token with leads_retrieval, by which the lead's fields are fetched.",
    },
    settings=MetaSettings,
    verify=verify,
    read=read,
    fields={
        "external_id": "/record/id",
        "email": ("/fields/email", "/fields/work_email"),
        "phone": ("/fields/phone_number", "/fields/work_phone_number", "/fields/phone"),
        "first_name": "/fields/first_name",
        "last_name": "/fields/last_name",
        "company": "/fields/company_name",
        "title": "/fields/job_title",
        "campaign.name": "/record/campaign_name",
        "campaign.medium": "/record/platform",
        "campaign.content": "/record/ad_name",
        "campaign.term": "/record/adset_name",
        "occurred_at": ("/record/created_time", "/event/value/created_time"),
    },
    attribute_sources=("/fields",),
    handshake=handshake,
    fetch=_Fetch(),
)
