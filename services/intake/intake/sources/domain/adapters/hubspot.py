"""HubSpot's webhooks: bodies of events that name a contact, whose record is then fetched. Signed by the app's client secret: v3 (HMAC over
method, URI, body and time), or v1 (a plain hash of secret and body) for apps that still have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import Field, JsonValue, StringConstraints

from intake.sources.domain.adapters.base import (
    Adapter,
    Answers,
    Deleted,
    FetchRequest,
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
    to_text,
)
from intake.sources.domain.adapters.urls import BaseUrl
from intake.sources.domain.signatures import (
    check_signature,
    check_time_window,
    decode_base64,
    decode_hex,
    hmac_sha256,
    keyed_sha256,
    parse_integer,
)

PROPERTIES = (
    "email",
    "phone",
    "mobilephone",
    "firstname",
    "lastname",
    "company",
    "jobtitle",
    "website",
    "country",
    "numberofemployees",
    "industry",
    "createdate",
    "lastmodifieddate",
    "hs_analytics_source",
)
"""What is asked of a contact; `properties` of the settings adds to it. All but the last three are HubSpot's own default properties."""

_DECODED = re.compile(r"%(?:3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)
_CONTACT_TYPE = "0-1"
"""The type of contacts in generic subscriptions, whose events are called `object.creation` and so on."""
_MERGED_MAX = 100
"""Contacts of one merge; HubSpot merges two."""
_FETCHED = frozenset({"creation", "propertyChange", "restore", "merge"})

Property = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,99}$")]


class HubSpotSettings(HookSettings):
    """`public_base_url`: scheme and host as HubSpot calls them, since the signature covers the URI; None: the service's setting, else
    what the request says. `on_deletion`: what a contact's deletion in HubSpot does here (its privacy deletion always erases)."""

    public_base_url: BaseUrl | None = None
    base_url: BaseUrl = "https://api.hubapi.com"
    properties: Annotated[list[Property], Field(max_length=100)] = Field(default_factory=list)
    signatures: Literal["v3", "v3-or-v1"] = "v3-or-v1"
    on_deletion: Literal["note", "erase"] = "note"


def verify(request: HookRequest, secrets: Secrets, settings: HubSpotSettings, now: datetime) -> Verification:
    """v3: `X-HubSpot-Signature-v3` = base64(HMAC-SHA256(client secret, method + URI + body + timestamp)), timestamp in milliseconds.
    v1: `X-HubSpot-Signature` = hex(SHA-256(client secret + body)); it has no time, so only its event ids guard against replays."""
    keys = secrets.get("signing", ())
    given = request.headers.get("x-hubspot-signature-v3")
    if given is not None:
        timestamp = request.headers.get("x-hubspot-request-timestamp", "")
        milliseconds = parse_integer(timestamp)
        if keys and milliseconds is None:
            return Verification("missing")
        refusal: Verification | None = None
        for url in dict.fromkeys((request.url, decode_uri(request.url))):
            mac = hmac_sha256(request.method.encode(), url.encode(), request.body, timestamp.encode())
            verification = Verification(check_signature([decode_base64(given)], keys, mac))
            if verification.is_verified:
                return Verification(check_time_window(None if milliseconds is None else milliseconds / 1000, now))
            refusal = refusal or verification
        return refusal or Verification("wrong")
    first = request.headers.get("x-hubspot-signature")
    version = request.headers.get("x-hubspot-signature-version", "v1")
    if not keys or settings.signatures == "v3" or first is None or version != "v1":
        return Verification("missing" if keys else "no-secret")
    return Verification(check_signature([decode_hex(first)], keys, keyed_sha256(request.body)))


def decode_uri(url: str) -> str:
    """The URI as HubSpot hashes it: the escapes of `: / ? @ ! $ ' ( ) * , ;` are undone, all others stay."""
    return _DECODED.sub(lambda found: bytes.fromhex(found[0][1:]).decode("ascii"), url)


def read(_request: HookRequest, document: JsonValue, settings: HubSpotSettings) -> Iterator[ToolEvent]:
    """The events of a body, an array; some apps send one alone."""
    for event in document if isinstance(document, list) else [document]:
        yield _parse_event(event, settings)


def _parse_event(event: JsonValue, settings: HubSpotSettings) -> ToolEvent:
    fields = as_object(event)
    type_ = to_text(fields.get("subscriptionType")) or ""
    number = to_text(fields.get("eventId"))
    # HubSpot does not promise that eventId alone is unique, so what it is about goes with it; the attempt's number does not.
    parts = [fields.get(name) for name in ("portalId", "subscriptionId", "eventId", "objectId", "occurredAt")]
    id_ = event_id(*parts) if number else digest_id({**fields, "attemptNumber": 0})
    noun, _, verb = type_.rpartition(".")
    if noun == "object" and fields.get("objectTypeId") == _CONTACT_TYPE:
        noun = "contact"
    if noun not in ("", "contact"):
        return Ignored(id_, "not-about-a-contact")
    at = fields.get("occurredAt")
    primary = to_text(fields.get("primaryObjectId"))
    contact = to_text(fields.get("newObjectId")) or primary or to_text(fields.get("objectId"))
    if verb == "associationChange":
        return Ignored(id_, "no-change-of-a-contact")
    if contact is None or not noun or verb not in (*_FETCHED, "deletion", "privacyDeletion"):
        return Unreadable(id_, "it lacks objectId, or its subscriptionType is not one of HubSpot's", event)
    if verb in _FETCHED:
        others = _merged_ids(fields, contact) if verb == "merge" else ()
        return RecordReference(id_, contact, {"id": contact}, event, at, others)
    if verb == "privacyDeletion":
        return Deleted(id_, event, contact, erase=True, occurred_at=at)
    # HubSpot says of each contact that was merged into another that it was deleted, before or after it tells of the merge.
    erase = settings.on_deletion == "erase"
    return Deleted(id_, event, contact, erase=erase, occurred_at=at, only_record=True, waits=True)


def _merged_ids(fields: Mapping[str, JsonValue], contact: str) -> tuple[str, ...]:
    """The ids of a merge that lead to another from then on."""
    said = (fields.get("primaryObjectId"), *as_list(fields.get("mergedObjectIds"))[:_MERGED_MAX])
    ids = dict.fromkeys(id_ for id_ in map(to_text, said) if id_ is not None)
    return tuple(id_ for id_ in ids if id_ != contact)


class _Fetch:
    """GET /crm/v3/objects/contacts/{id}."""

    def next_request(
        self, reference: Mapping[str, JsonValue], answers: Answers, settings: HubSpotSettings
    ) -> FetchRequest | None:
        if "record" in answers:
            return None
        names = dict.fromkeys((*PROPERTIES, *settings.properties))
        path = f"/crm/v3/objects/contacts/{quote(str(reference['id']), safe='')}?properties={','.join(names)}"
        return FetchRequest("record", settings.base_url + path)

    def build_view(self, event: JsonValue, answers: Answers, _settings: HubSpotSettings) -> JsonValue:
        return {"event": event, "record": answers.get("record")}


ADAPTER = Adapter(
    name="hubspot",
    title="HubSpot",
    secret_kinds={
        "signing": "The app's client secret, which signs the webhooks.",
        "token": "The access token of a private app with the scope crm.objects.contacts.read, by which contacts are fetched.",
    },
    settings=HubSpotSettings,
    verify=verify,
    read=read,
    fields={
        "external_id": "/record/id",
        "email": "/record/properties/email",
        "phone": ("/record/properties/phone", "/record/properties/mobilephone"),
        "first_name": "/record/properties/firstname",
        "last_name": "/record/properties/lastname",
        "company": "/record/properties/company",
        "domain": "/record/properties/website",
        "title": "/record/properties/jobtitle",
        "attributes.employee_count": "/record/properties/numberofemployees",
        "campaign.medium": "/record/properties/hs_analytics_source",
        "occurred_at": ("/record/properties/lastmodifieddate", "/record/updatedAt", "/event/occurredAt"),
    },
    attribute_sources=("/record/properties",),
    fetch=_Fetch(),
)
