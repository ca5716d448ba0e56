"""Meta Lead Ads: a subscription that is proved by a handshake, and events that name a lead of a form, whose fields are then fetched from
the Graph API. Signed by `X-Hub-Signature-256: sha256=` + hex HMAC-SHA256(app secret, body).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

from pydantic import JsonValue

from intake.sources.domain.adapters.base import (
    EVENTS_MAX,
    Adapter,
    Answers,
    Ask,
    Greeting,
    HookRequest,
    HookSettings,
    Ignored,
    Proof,
    Said,
    Secrets,
    Thin,
    Unreadable,
    digest_id,
    event_id,
    items,
    obj,
    text_of,
)
from intake.sources.domain.adapters.urls import BaseUrl
from intake.sources.domain.signatures import Refusal, hmac_sha256, same_secret, signed, unhex

FIELDS = "id,created_time,field_data,form_id,ad_id,ad_name,adset_name,campaign_id,campaign_name,platform,is_organic"
"""What is asked of a lead of a form."""

_PREFIX = "sha256="
_CHALLENGE_CHARS_MAX = 200


class MetaSettings(HookSettings):
    """`base_url`: the Graph API, with the version that the app is made for behind it if it should stay there."""

    base_url: BaseUrl = "https://graph.facebook.com"


def prove(request: HookRequest, secrets: Secrets, _settings: MetaSettings, _now: datetime) -> Proof:
    """`X-Hub-Signature-256`. Meta's signatures have no time; the lead's id guards against replays."""
    given = request.headers.get("x-hub-signature-256", "")
    offered = [unhex(given.removeprefix(_PREFIX)) if given.startswith(_PREFIX) else None]
    return Proof(signed(offered, secrets.get("signing", ()), hmac_sha256(request.body)))


def greet(request: HookRequest, secrets: Secrets, _settings: MetaSettings) -> Greeting | Refusal:
    """The GET of the subscription: `hub.challenge` is given back to who knows `hub.verify_token`."""
    refusal = same_secret(request.query.get("hub.verify_token"), secrets.get("verify", ()))
    if refusal is not None:
        return refusal
    challenge = request.query.get("hub.challenge", "")
    if request.query.get("hub.mode") != "subscribe" or not 0 < len(challenge) <= _CHALLENGE_CHARS_MAX:
        return "missing"
    return Greeting(200, challenge)


def read(_request: HookRequest, document: JsonValue, _settings: MetaSettings) -> list[Said]:
    """Every change of every entry; those of the field `leadgen` name a lead."""
    said: list[Said] = []
    for entry in map(obj, items(obj(document).get("entry"))):
        for change in items(entry.get("changes")):
            if len(said) >= EVENTS_MAX:
                return said
            said.append(_parse_event(entry, change))
    return said or [Unreadable(digest_id(document), "it holds no entry with changes", document)]


def _parse_event(entry: Mapping[str, JsonValue], change: JsonValue) -> Said:
    value = obj(obj(change).get("value"))
    if obj(change).get("field") != "leadgen":
        return Ignored(digest_id(entry.get("id"), entry.get("time"), change), "no-lead-ad")
    lead = text_of(value.get("leadgen_id"))
    if lead is None:
        return Unreadable(digest_id(change), "it lacks leadgen_id", change)
    return Thin(event_id(lead), lead, {"id": lead}, change, value.get("created_time"))


class _Fetch:
    """GET /{leadgen_id}."""

    def ask(self, reference: Mapping[str, JsonValue], answers: Answers, settings: MetaSettings) -> Ask | None:
        if "record" in answers:
            return None
        return Ask("record", f"{settings.base_url}/{quote(str(reference['id']), safe='')}?fields={FIELDS}")

    def view(self, event: JsonValue, answers: Answers, _settings: MetaSettings) -> JsonValue:
        """The record with the form's fields by name under `fields`; of several values of one field the first, unless it has more."""
        record = obj(answers.get("record"))
        fields: dict[str, JsonValue] = {}
        for one in map(obj, items(record.get("field_data"))):
            name, values = text_of(one.get("name")), items(one.get("values"))
            if name is not None and values:
                fields[name.lower()] = values[0] if len(values) == 1 else values
        return {"event": event, "record": record, "fields": _named(fields)}


def _named(fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """First and last name of a form that asks for the full name only: the last word is taken for the last name."""
    full = text_of(fields.get("full_name"))
    if full is None or "first_name" in fields or "last_name" in fields:
        return fields
    first, _, last = full.rpartition(" ")
    names: dict[str, JsonValue] = {"first_name": first or last, "last_name": last if first else None}
    return {**fields, **names}


ADAPTER = Adapter(
    name="meta-lead-ads",
    title="Meta Lead Ads",
    uses={
        "signing": "The app's secret, which signs the webhooks.",
        "verify": "The verify token that is typed into the app's webhook form.",
        "token": "A page access token with leads_retrieval, by which the lead's fields are fetched.",
    },
    settings=MetaSettings,
    prove=prove,
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
    spread=("/fields",),
    greet=greet,
    fetch=_Fetch(),
)
