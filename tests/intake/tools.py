"""The marketing tools as they call us, signed by code that is not ours: openssl as a process of its own, and the reference library of
Standard Webhooks. Bodies follow what the vendors document.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from standardwebhooks.webhooks import Webhook

PUBLIC = "http://intake"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WHSEC_NEW = "whsec_" + base64.b64encode(b"another key of some thirty bytes").decode()


def hmac_by_openssl(algorithm: str, key: str, message: bytes) -> bytes:
    """HMAC by `openssl dgst`."""
    command = ["openssl", "dgst", f"-{algorithm}", "-mac", "HMAC", "-macopt", f"hexkey:{key.encode().hex()}", "-binary"]
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout


def sha256_by_openssl(message: bytes) -> bytes:
    """SHA-256 by `openssl dgst`."""
    return subprocess.run(
        ["openssl", "dgst", "-sha256", "-binary"], input=message, capture_output=True, check=True
    ).stdout


def b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


@dataclass(frozen=True)
class Call:
    """One call of a tool."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class ToolExample:
    """How one tool calls: `sign(body, secret, at, path)` gives path and headers. `timed`: the signature covers a time."""

    name: str
    secret: str
    other_secret: str
    use: str
    event: bytes
    sign: Callable[[bytes, str, datetime, str], tuple[str, dict[str, str]]]
    timed: bool = False

    def call(
        self, source: str, body: bytes | None = None, *, secret: str | None = None, at: datetime | None = None
    ) -> Call:
        sent = self.event if body is None else body
        path = f"/v1/hooks/{source}"
        path, headers = self.sign(sent, secret or self.secret, at or datetime.now(UTC), path)
        return Call(path, headers, sent)


JSON = {"content-type": "application/json"}


def _standard_webhooks(body: bytes, secret: str, at: datetime, path: str) -> tuple[str, dict[str, str]]:
    signature = Webhook(secret).sign("msg_27uH4", at, body.decode())
    stamp = str(int(at.timestamp()))
    return path, {**JSON, "webhook-id": "msg_27uH4", "webhook-timestamp": stamp, "webhook-signature": signature}


def _bearer(_body: bytes, secret: str, _at: datetime, path: str) -> tuple[str, dict[str, str]]:
    headers = {"ce-id": "a1", "ce-source": "/crm", "ce-type": "contact.created", "ce-specversion": "1.0"}
    return path, {**JSON, **headers, "authorization": f"Bearer {secret}"}


def _hubspot(body: bytes, secret: str, at: datetime, path: str) -> tuple[str, dict[str, str]]:
    stamp = str(int(at.timestamp() * 1000))
    digest = hmac_by_openssl("sha256", secret, b"POST" + (PUBLIC + path).encode() + body + stamp.encode())
    return path, {**JSON, "x-hubspot-signature-v3": b64(digest), "x-hubspot-request-timestamp": stamp}


def hubspot_v1(body: bytes, secret: str, _at: datetime, path: str) -> tuple[str, dict[str, str]]:
    digest = sha256_by_openssl(secret.encode() + body).hex()
    return path, {**JSON, "x-hubspot-signature": digest, "x-hubspot-signature-version": "v1"}


def _mautic(body: bytes, secret: str, _at: datetime, path: str) -> tuple[str, dict[str, str]]:
    return path, {**JSON, "webhook-signature": b64(hmac_by_openssl("sha256", secret, body))}


def _mailchimp(_body: bytes, secret: str, _at: datetime, path: str) -> tuple[str, dict[str, str]]:
    return f"{path}/{secret}", {"content-type": "application/x-www-form-urlencoded"}


def _typeform(body: bytes, secret: str, _at: datetime, path: str) -> tuple[str, dict[str, str]]:
    return path, {**JSON, "typeform-signature": "sha256=" + b64(hmac_by_openssl("sha256", secret, body))}


def _meta(body: bytes, secret: str, _at: datetime, path: str) -> tuple[str, dict[str, str]]:
    return path, {**JSON, "x-hub-signature-256": "sha256=" + hmac_by_openssl("sha256", secret, body).hex()}


def _linkedin(body: bytes, secret: str, _at: datetime, path: str) -> tuple[str, dict[str, str]]:
    digest = hmac_by_openssl("sha256", secret, b"hmacsha256=" + body).hex()
    return path, {**JSON, "x-li-signature": "hmacsha256=" + digest}


def _segment(body: bytes, secret: str, _at: datetime, path: str) -> tuple[str, dict[str, str]]:
    return path, {**JSON, "x-signature": hmac_by_openssl("sha1", secret, body).hex()}


def _header(_body: bytes, secret: str, _at: datetime, path: str) -> tuple[str, dict[str, str]]:
    return path, {**JSON, "x-accord-secret": secret}


def dump_json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


STANDARD = {"type": "contact.created", "timestamp": "2026-01-04T09:30:00Z", "data": {"email": "ada@initech.example"}}
HUBSPOT = [
    {
        "eventId": 1,
        "subscriptionId": 12345,
        "portalId": 62515,
        "occurredAt": 1564113600000,
        "subscriptionType": "contact.creation",
        "attemptNumber": 0,
        "objectId": 123,
        "changeSource": "CRM",
        "changeFlag": "NEW",
        "appId": 54321,
    }
]


def mautic_contact(email: str | None, number: int = 52, **core: str) -> dict[str, Any]:
    """A contact as Mautic writes it."""
    fields = {alias: {"id": "1", "alias": alias, "value": value} for alias, value in {"email": email, **core}.items()}
    return {"id": number, "points": 5, "fields": {"core": fields, "social": {}, "personal": {}, "professional": {}}}


MAUTIC = {
    "mautic.lead_post_save_new": [
        {
            "contact": mautic_contact("ada@initech.example", firstname="Ada", lastname="Byron", company="Initech"),
            "timestamp": "2017-06-19T09:33:58+00:00",
        }
    ],
    "mautic.lead_points_change": [
        {
            "contact": mautic_contact("ada@initech.example"),
            "points": {"old_points": 0, "new_points": 5},
            "timestamp": "2017-06-19T09:34:02+00:00",
        }
    ],
}
MAILCHIMP = {
    "type": "subscribe",
    "fired_at": "2025-01-24 15:30:00",
    "data[id]": "8a25ff1d98",
    "data[list_id]": "a6b5da1054",
    "data[email]": "ada@initech.example",
    "data[merges][EMAIL]": "ada@initech.example",
    "data[merges][FNAME]": "Ada",
    "data[merges][LNAME]": "Byron",
    "data[merges][EMPLOYEES]": "250",
}
TYPEFORM = {
    "event_id": "LtWXD3crgy",
    "event_type": "form_response",
    "form_response": {
        "form_id": "lT4Z3j",
        "token": "a3a12ec67a1365927098a606107fac15",
        "submitted_at": "2018-01-18T18:17:02Z",
        "landed_at": "2018-01-18T18:07:02Z",
        "hidden": {"utm_campaign": "spring", "utm_medium": "cpc"},
        "answers": [
            {"type": "text", "text": "Ada", "field": {"id": "JwWggjAKtOkA", "type": "short_text", "ref": "first_name"}},
            {
                "type": "email",
                "email": "ada@initech.example",
                "field": {"id": "SMEUb7VJz92Q", "type": "email", "ref": "work"},
            },
            {
                "type": "choice",
                "choice": {"label": "software"},
                "field": {"id": "k6TP9oLGgHjl", "type": "multiple_choice", "ref": "line_of_business"},
            },
            {
                "type": "number",
                "number": 250,
                "field": {"id": "Q7M2XAwY04dW", "type": "number", "ref": "employee_count"},
            },
            {"type": "boolean", "boolean": True, "field": {"id": "RUqkXSeXBXSd", "type": "legal", "ref": "terms"}},
        ],
    },
}
META = {
    "object": "page",
    "entry": [
        {
            "id": "51044",
            "time": 1447342027,
            "changes": [
                {
                    "field": "leadgen",
                    "value": {"leadgen_id": 5545, "form_id": 5511, "page_id": 5165, "created_time": 1447342026},
                }
            ],
        }
    ],
}
LINKEDIN = {
    "type": "LEAD_ACTION",
    "leadGenFormResponse": "urn:li:leadGenFormResponse:1a2b3c-4",
    "leadGenForm": "urn:li:versionedLeadGenForm:(urn:li:leadGenForm:3162,1)",
    "owner": {"sponsoredAccount": "urn:li:sponsoredAccount:123"},
    "leadAction": "CREATED",
    "occurredAt": 1756051200,
}
SEGMENT = {
    "type": "identify",
    "userId": "97980cfea0067",
    "anonymousId": "507f191e810c19729de860ea",
    "messageId": "022bb90c-bbac-11e4-8dfc-aa07a5b093db",
    "timestamp": "2015-02-23T22:28:55.111Z",
    "traits": {
        "email": "ada@initech.example",
        "name": "Ada Byron",
        "company": {"name": "Initech", "employee_count": 250, "industry": "541511"},
        "plan": "trial",
    },
    "context": {"campaign": {"name": "spring", "medium": "cpc"}, "page": {"url": "https://initech.example/demo"}},
}
OWN = {
    "email": "ada@initech.example",
    "first_name": "Ada",
    "utm_campaign": "spring",
    "attributes": {"employee_count": 250},
}

URL_SECRET, URL_SECRET_NEW = "a-secret-in-the-url-1", "a-secret-in-the-url-2"

TOOLS = {
    tool.name: tool
    for tool in (
        ToolExample(
            "standard-webhooks", WHSEC, WHSEC_NEW, "signing", dump_json(STANDARD), _standard_webhooks, timed=True
        ),
        ToolExample(
            "cloudevents",
            "a-token-of-its-own",
            "another-token-of-its-own",
            "bearer",
            dump_json(STANDARD["data"]),
            _bearer,
        ),
        ToolExample(
            "hubspot", "client-secret", "new-client-secret", "signing", dump_json(HUBSPOT), _hubspot, timed=True
        ),
        ToolExample("mautic", "mautic secret", "new mautic secret", "signing", dump_json(MAUTIC), _mautic),
        ToolExample("mailchimp", URL_SECRET, URL_SECRET_NEW, "url", urlencode(MAILCHIMP).encode(), _mailchimp),
        ToolExample("typeform", "typeform-secret", "new-typeform-secret", "signing", dump_json(TYPEFORM), _typeform),
        ToolExample("meta-lead-ads", "app-secret", "new-app-secret", "signing", dump_json(META), _meta),
        ToolExample(
            "linkedin-lead-gen", "li-client-secret", "new-li-client-secret", "signing", dump_json(LINKEDIN), _linkedin
        ),
        ToolExample("segment", "shared-secret", "new-shared-secret", "signing", dump_json(SEGMENT), _segment),
        ToolExample("marketo", "the-custom-header", "the-new-custom-header", "header", dump_json(OWN), _header),
        ToolExample("generic", "the-header-of-mine", "the-new-header-of-mine", "header", dump_json(OWN), _header),
    )
}
