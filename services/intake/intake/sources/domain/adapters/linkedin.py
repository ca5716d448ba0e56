"""LinkedIn's lead sync: a handshake that is repeated now and then, and events that name a response to a lead gen form, which is then
fetched with the form that explains its questions. Signed by `X-LI-Signature` = hex HMAC-SHA256(client secret, `hmacsha256=` + body).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from pydantic import Field, JsonValue, StringConstraints

from intake.sources.domain.adapters.base import (
    Adapter,
    Answers,
    Deleted,
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
    to_text,
)
from intake.sources.domain.adapters.urls import BaseUrl
from intake.sources.domain.signatures import Refusal, check_signature, decode_hex, hmac_sha256

_PREFIX = "hmacsha256="
_CHALLENGE_CHARS_MAX = 200
_URN = "urn:li:leadGenFormResponse:"


class LinkedInSettings(HookSettings):
    """`version`: LinkedIn's API version (`LinkedIn-Version`). `questions`: the name of each question by its number, where the form is not
    to be asked for them."""

    base_url: BaseUrl = "https://api.linkedin.com"
    version: Annotated[str, StringConstraints(pattern=r"^20[0-9]{4}$")] = "202510"
    questions: Annotated[
        dict[
            Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")],
            Annotated[str, StringConstraints(min_length=1, max_length=100)],
        ],
        Field(max_length=100),
    ] = Field(default_factory=dict)


def verify(request: HookRequest, secrets: Secrets, _settings: LinkedInSettings, _now: datetime) -> Verification:
    """`X-LI-Signature`, with or without `hmacsha256=` before the digest. It has no time; response and action guard against replays."""
    given = request.headers.get("x-li-signature", "").strip()
    digests = [decode_hex(given.removeprefix(_PREFIX))]
    return Verification(
        check_signature(digests, secrets.get("signing", ()), hmac_sha256(_PREFIX.encode(), request.body))
    )


def handshake(request: HookRequest, secrets: Secrets, _settings: LinkedInSettings) -> HandshakeResponse | Refusal:
    """The GET by which LinkedIn asks for `challengeResponse`, within three seconds. The newest secret answers."""
    challenge = request.query.get("challengeCode", "")
    keys = secrets.get("signing", ())
    if not keys:
        return "no-secret"
    if not 0 < len(challenge) <= _CHALLENGE_CHARS_MAX:
        return "missing"
    response = hmac_sha256(challenge.encode())(keys[0]).hex()
    body = json.dumps({"challengeCode": challenge, "challengeResponse": response}, separators=(",", ":"))
    return HandshakeResponse(200, body, "application/json")


def read(_request: HookRequest, document: JsonValue, _settings: LinkedInSettings) -> list[ToolEvent]:
    """One event: a response was made, or deleted."""
    fields = as_object(document)
    type_ = to_text(fields.get("type"))
    if type_ is None:
        return [Unreadable(digest_id(document), "it lacks type", document)]
    if type_ != "LEAD_ACTION":
        return [Ignored(digest_id(document), "no-lead-action")]
    urn, action, at = to_text(fields.get("leadGenFormResponse")), fields.get("leadAction"), fields.get("occurredAt")
    if urn is None:
        return [Unreadable(digest_id(document), "it lacks leadGenFormResponse", document)]
    id_, response = event_id(urn, action, at), urn.removeprefix(_URN)
    if action == "DELETED":
        return [Deleted(id_, document, response, erase=True, occurred_at=at)]
    if action != "CREATED":
        return [Unreadable(id_, "its leadAction is neither CREATED nor DELETED", document)]
    reference: dict[str, JsonValue] = {"id": response}
    if (form := form_id(to_text(fields.get("leadGenForm")) or "")) is not None:
        reference["form"] = form
    return [RecordReference(id_, response, reference, document, at)]


def form_id(urn: str) -> str | None:
    """The number of the form in `urn:li:versionedLeadGenForm:(urn:li:leadGenForm:3162,1)` or `urn:li:leadGenForm:3162`."""
    _, found, rest = urn.rpartition("urn:li:leadGenForm:")
    digits = rest.partition(",")[0].rstrip(")") if found else ""
    return digits if digits.isascii() and digits.isdigit() else None


class _Fetch:
    """GET /rest/leadFormResponses/{id}, then /rest/leadForms/{form} for what its questions are, if that may be read."""

    def next_request(
        self, reference: Mapping[str, JsonValue], answers: Answers, settings: LinkedInSettings
    ) -> FetchRequest | None:
        headers = {"linkedin-version": settings.version, "x-restli-protocol-version": "2.0.0"}
        if "record" not in answers:
            url = f"{settings.base_url}/rest/leadFormResponses/{quote(str(reference['id']), safe='')}"
            return FetchRequest("record", url, headers)
        form = reference.get("form")
        if form is None or settings.questions or "form" in answers:
            return None
        return FetchRequest(
            "form", f"{settings.base_url}/rest/leadForms/{quote(str(form), safe='')}", headers, optional=True
        )

    def build_view(self, event: JsonValue, answers: Answers, settings: LinkedInSettings) -> JsonValue:
        """The response, its answers by number under `answers` and, where the names of questions are known, by name under `fields`."""
        record = as_object(answers.get("record"))
        names = {**_names(answers.get("form")), **settings.questions}
        by_number: dict[str, JsonValue] = {}
        fields: dict[str, JsonValue] = {}
        for answer in map(as_object, as_list(as_object(record.get("formResponse")).get("answers"))):
            number = to_text(answer.get("questionId"))
            value = _value(as_object(answer.get("answerDetails")))
            if number is None or value is None:
                continue
            by_number[number] = value
            if (name := names.get(number) or to_text(answer.get("name"))) is not None:
                fields[name] = value
        accepted = [
            as_object(one).get("accepted")
            for one in as_list(as_object(record.get("formResponse")).get("consentResponses"))
        ]
        consent = "consent" if accepted and all(one is True for one in accepted) else None
        return {"event": event, "record": record, "answers": by_number, "fields": fields, "consent": consent}


def _names(form: JsonValue) -> dict[str, str]:
    """The name of each question of a form: LinkedIn's predefined field in lower case (`first_name`), else the question's own."""
    names: dict[str, str] = {}
    for question in map(as_object, as_list(as_object(as_object(form).get("content")).get("questions"))):
        number = to_text(question.get("questionId"))
        field = to_text(question.get("predefinedField"))
        name = field.lower() if field else to_text(question.get("name"))
        if number is not None and name is not None:
            names[number] = name
    return names


def _value(details: Mapping[str, JsonValue]) -> JsonValue:
    """The text that was typed, or the numbers of the options that were chosen."""
    typed = to_text(as_object(details.get("textQuestionAnswer")).get("answer"))
    if typed is not None:
        return typed
    options = [to_text(one) for one in as_list(as_object(details.get("multipleChoiceAnswer")).get("options"))]
    chosen: list[JsonValue] = [one for one in options if one is not None]
    return chosen or None


ADAPTER = Adapter(
    name="linkedin-lead-gen",
    title="LinkedIn Lead Gen Forms",
    secret_kinds={
        "signing": "The app's client secret, which signs the webhooks and answers the challenge.",
        "token": "An access token with r_marketing_leadgen_automation, by which responses are fetched.",
    },
    settings=LinkedInSettings,
    verify=verify,
    read=read,
    fields={
        "external_id": "/record/id",
        "email": ("/fields/email", "/fields/work_email"),
        "phone": ("/fields/phone_number", "/fields/work_phone_number"),
        "first_name": "/fields/first_name",
        "last_name": "/fields/last_name",
        "company": ("/fields/company_name", "/fields/company"),
        "title": "/fields/job_title",
        "campaign.name": (
            "/record/leadMetadataInfo/sponsoredLeadMetadataInfo/campaign/name",
            "/record/leadMetadata/sponsoredLeadMetadata/campaign",
        ),
        "consent.basis": "/consent",
        "occurred_at": ("/record/submittedAt", "/event/occurredAt"),
    },
    attribute_sources=("/fields",),
    handshake=handshake,
    fetch=_Fetch(),
)
