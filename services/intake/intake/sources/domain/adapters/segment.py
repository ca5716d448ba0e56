"""Segment's messages, by its webhook destination or by the SDKs of Segment and RudderStack: `identify` is somebody's data, `track`, `page`
and `screen` are what they did. The destination signs by `X-Signature` = hex HMAC-SHA1(shared secret, body), SDKs give their write key as
Basic user name; `messageId` is the event's id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints

from accord.contracts.personal import find_personal
from intake.sources.domain.adapters.base import (
    ActivityOccurred,
    Adapter,
    Deleted,
    HookRequest,
    HookSettings,
    Ignored,
    Linked,
    Secrets,
    Submitted,
    ToolEvent,
    Unreadable,
    Verification,
    as_object,
    digest_id,
    event_id,
    split_full_name,
    to_text,
)
from intake.sources.domain.adapters.bearer import first_verified, verify_basic
from intake.sources.domain.signatures import check_signature, decode_hex, hmac_sha1

_EVENTS: Mapping[str, str] = {
    "email link clicked": "email.clicked",
    "email marked as spam": "consent.withdrawn",
    "unsubscribed": "consent.withdrawn",
    "email unsubscribed": "consent.withdrawn",
    "signed up": "account.signed_up",
    "signed in": "account.signed_in",
    "subscribed": "email.subscribed",
    "demo requested": "demo.requested",
    "requested demo": "demo.requested",
}
"""Events of Segment's specifications (E-mail, B2B SaaS) whose words are not `Object Verb`."""

CALLS = frozenset({"batch", "identify", "track", "page", "screen", "alias", "group"})
"""Methods of the HTTP tracking API that both SDKs call."""
_WORD = re.compile(r"[^a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_KIND_CHARS_MAX = 100
_PROPERTIES_MAX = 100

Kind = Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$|^ignore$")]


class SegmentSettings(HookSettings):
    """`events`: the kind of activity for a track event by its name, or `ignore`. Those not named are taken as `Object Verb`."""

    events: Annotated[
        dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], Kind], Field(max_length=500)
    ] = Field(default_factory=dict)


def verify(request: HookRequest, secrets: Secrets, _settings: SegmentSettings, _now: datetime) -> Verification:
    """`X-Signature`, or an SDK's write key. Neither has a time; the message's id guards against replays."""
    digests = [decode_hex(request.headers.get("x-signature", ""))]
    signed = Verification(check_signature(digests, secrets.get("signing", ()), hmac_sha1(request.body)))
    return first_verified(signed, verify_basic(request, secrets))


def read(request: HookRequest, document: JsonValue, settings: SegmentSettings) -> Iterator[ToolEvent]:
    """One message, a list of them ("Webhooks (Actions)" with batching), or the messages of a `batch`, as the SDKs send them. What is
    said beside the batch holds for each of its messages, and so does what the call is named for."""
    whole = as_object(document)
    batch = whole.get("batch", document)
    if not isinstance(batch, list):
        batch, whole = [document], {}
    common: dict[str, JsonValue] = {
        name: whole[name] for name in ("context", "integrations", "sentAt") if name in whole
    }
    if request.call in CALLS - {"batch"}:
        common["type"] = request.call
    for message in batch:
        yield _parse_event({**common, **_without_key(message)} if isinstance(message, dict) else message, settings)


def _without_key(message: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Some SDKs repeat the write key in each message; it is kept nowhere."""
    return {name: value for name, value in message.items() if name != "writeKey"} if "writeKey" in message else message


def _parse_event(message: JsonValue, settings: SegmentSettings) -> ToolEvent:
    fields = as_object(message)
    number = to_text(fields.get("messageId"))
    # Without an id of its own a message is what it says, whenever it is sent.
    said = {name: value for name, value in fields.items() if name != "sentAt"}
    id_ = event_id(number) if number else digest_id(said or message)
    type_ = fields.get("type")
    user = to_text(fields.get("userId"))
    if type_ == "identify":
        traits = _traits(fields)
        view = {**fields, "traits": traits, "campaign": _campaign(fields), "name": _parse_names(traits)}
        return Submitted(id_, view, message)
    if type_ == "alias":
        previous = to_text(fields.get("previousId"))
        return Ignored(id_, "no-two-ids") if user is None or previous is None else Linked(id_, user, (previous,))
    if type_ not in ("track", "page", "screen", "group", "delete"):
        return Unreadable(id_, "its type is not one of Segment's", message)
    email = to_text(_traits(fields).get("email")) if type_ != "group" else None
    if user is None and email is None and type_ != "group":
        email = to_text(as_object(fields.get("properties")).get("email"))
    if user is None and email is None:
        anonymous = type_ != "delete" and to_text(fields.get("anonymousId")) is not None
        return Ignored(id_, "anonymous") if anonymous else Unreadable(id_, "it names nobody: no userId", message)
    return _parse_message(id_, message, email, user, settings)


def _parse_message(
    id_: str, message: JsonValue, email: str | None, user: str | None, settings: SegmentSettings
) -> ToolEvent:
    """What a message says of somebody who is known already."""
    fields = as_object(message)
    match fields.get("type"):
        case "delete":
            return Deleted(id_, message, user, email, erase=True, occurred_at=fields.get("timestamp"))
        case "group":
            return Submitted(id_, _company_view(fields), message, updates_only=True)
    return _parse_activity(id_, message, email, user, settings)


def _traits(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {**as_object(as_object(fields.get("context")).get("traits")), **as_object(fields.get("traits"))}


def _company_view(fields: Mapping[str, JsonValue]) -> JsonValue:
    """What a `group` says of the company of somebody: its traits are the company's, its address and number too."""
    traits = as_object(fields.get("traits"))
    company: dict[str, JsonValue] = {
        "name": traits.get("name"),
        "domain": traits.get("domain") or traits.get("website"),
        "employee_count": traits.get("employee_count") or traits.get("employees"),
        "industry": traits.get("industry"),
    }
    return {"userId": fields.get("userId"), "timestamp": fields.get("timestamp"), "traits": {"company": company}}


def _parse_activity(
    id_: str, message: JsonValue, email: str | None, user: str | None, settings: SegmentSettings
) -> ToolEvent:
    fields = as_object(message)
    tracked = fields.get("type") == "track"
    event = to_text(fields.get("event")) or ""
    if tracked and find_personal(event):
        return Unreadable(id_, "its event's name holds an address or a telephone number", message)
    kind = activity_kind(event, settings) if tracked else "page.viewed"
    if kind is None:
        return Unreadable(id_, "its event has no name", message)
    if kind == "ignore":
        return Ignored(id_, "by-settings")
    properties = dict(list(as_object(fields.get("properties")).items())[:_PROPERTIES_MAX])
    at, campaign = fields.get("timestamp"), _campaign(fields)
    return ActivityOccurred(id_, kind, "lead", message, email, user, at, campaign, properties)


def activity_kind(event: str, settings: SegmentSettings) -> str | None:
    """The kind of activity of a track event: `Trial Plan Started` is `trial_plan.started`. None for an event without a name."""
    said = settings.events.get(event)
    if said is not None:
        return said
    words = [word for word in _WORD.split(_CAMEL.sub(" ", event).lower()) if word]
    known = _EVENTS.get(" ".join(words))
    if known is not None:
        return known
    if not words:
        return None
    noun, verb = ("_".join(words[:-1]) or "event"), words[-1]
    kind = f"{noun if noun[0].isalpha() else 'event_' + noun}.{verb if verb[0].isalpha() else 'v' + verb}"
    return kind if len(kind) <= _KIND_CHARS_MAX else None


def _campaign(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    campaign = as_object(as_object(fields.get("context")).get("campaign"))
    return {name: campaign[name] for name in ("name", "medium", "content", "term") if name in campaign}


def _parse_names(traits: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """First and last name of somebody whose whole name is given only: the last word is taken for the last name."""
    first, last = traits.get("firstName") or traits.get("first_name"), traits.get("lastName") or traits.get("last_name")
    whole = to_text(traits.get("name"))
    if whole is not None and not first and not last:
        first, last = split_full_name(whole)
    return {"first": first, "last": last}


ADAPTER = Adapter(
    name="segment",
    title="Segment",
    secret_kinds={
        "signing": "The shared secret of the webhook destination.",
        "write_key": "The write key of Segment's or RudderStack's SDKs, which they give as user name.",
    },
    settings=SegmentSettings,
    verify=verify,
    read=read,
    fields={
        "external_id": "/userId",
        "email": "/traits/email",
        "phone": "/traits/phone",
        "first_name": "/name/first",
        "last_name": "/name/last",
        "company": ("/traits/company/name", "/traits/company"),
        "domain": ("/traits/company/domain", "/traits/website"),
        "title": "/traits/title",
        "attributes.employee_count": ("/traits/company/employee_count", "/traits/employees"),
        "attributes.industry": ("/traits/company/industry", "/traits/industry"),
        "attributes.country": "/traits/address/country",
        "campaign.name": "/campaign/name",
        "campaign.medium": "/campaign/medium",
        "campaign.content": "/campaign/content",
        "campaign.term": "/campaign/term",
        "campaign.landing_page": "/context/page/url",
        "campaign.referrer": ("/context/page/referrer", "/context/referrer/url"),
        "occurred_at": ("/timestamp", "/sentAt"),
    },
    attribute_sources=("/traits",),
    calls=CALLS,
)
