"""Somebody who does everything that can be done with a stack, and of whom every kind of mistake is made. It judges nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from accord_local.demo.client import wait_for
from tests.system.running import Running

FORM_SECRET = "the secret of the form"


@dataclass(frozen=True)
class Person:
    """Made-up values, each with a word that nothing else holds, in the spelling in which it was sent."""

    word: str = field(default_factory=lambda: f"zq{uuid.uuid4().hex[:10]}")
    digits: str = field(default_factory=lambda: f"{uuid.uuid4().int % 10_000:04d}")

    @property
    def email(self) -> str:
        return f"{self.word}.mail@initech.example.com"

    @property
    def phone(self) -> str:
        return f"+1 202 555 {self.digits}"

    @property
    def external_id(self) -> str:
        return f"{self.word}.external@initech.example.com"

    def says(self, what: str) -> str:
        return f"{self.word} {what} in so many words"

    @property
    def needles(self) -> tuple[str, ...]:
        """What may be found nowhere else: the word is part of every value but the phone."""
        return self.word, f"202555{self.digits}", f"202 555 {self.digits}", f"202-555-{self.digits}"

    def submission(self, **changes: object) -> dict[str, object]:
        return {
            "source": "website",
            "external_id": self.external_id,
            "email": self.email,
            "phone": self.phone,
            "first_name": f"{self.word}-first".title(),
            "last_name": f"{self.word}-last".title(),
            "company": "Initech",
            "title": self.says("title"),
            "attributes": {"employee_count": 250, "industry": "541511", "remark": self.says("remark")},
            "campaign": {
                "name": "spring",
                "landing_page": f"/hello?who={self.word}",
                "referrer": self.says("referrer"),
            },
            "consent": {"basis": "consent", "text": self.says("consent")},
            **changes,
        }


def enter(accord: Running, person: Person, *, nameless: bool = True) -> str:
    """Two leads that turn out to be one, with activities, and a rejected record. `nameless`: also such that name them by nothing by which
    they are known, so that nobody can tell that they are the same."""
    leads, activities = f"{accord.urls.intake}/v1/leads", f"{accord.urls.intake}/v1/activities"
    apart = {
        "source": "list",
        "phone": person.phone,
        "last_name": person.says("list"),
        "attributes": {"industry": "541511"},
    }
    accord.marketing.post(leads, apart)
    by_mail = person.submission(phone=None)
    accord.marketing.post(f"{leads}:batch", [by_mail])
    lead_id: str = accord.marketing.post(leads, person.submission())["lead_id"]
    for who in (
        {"lead_id": lead_id},
        {"email": person.email},
        {"external": {"source": "website", "id": person.external_id}},
    ):
        activity = {**who, "kind": "demo.requested", "by": "lead", "properties": {"text": person.says("property")}}
        accord.marketing.post(activities, activity)
    rejected = person.submission(email=f"{person.word}@mailinator.com", phone=None)
    keyed = {"Idempotency-Key": f"{person.word}-rejected"}
    accord.marketing.post(leads, rejected, expect=(422,), headers=keyed)
    if not nameless:
        return lead_id
    accord.marketing.post(leads, {**rejected, "external_id": f"{person.word}-2"}, expect=(422,))
    quarantined = person.submission(
        email=f"{person.word}.q@initech.example.com",
        phone=None,
        external_id=f"{person.word}-3",
        attributes={"employee_count": 250, "industry": "111111"},
    )
    assert accord.marketing.post(leads, quarantined)["verdict"] == "quarantined"
    return lead_id


def make_mistakes(accord: Running, person: Person) -> None:
    """Requests that cannot be read or do not fit, each with personal values where they do not belong."""
    leads, activities = f"{accord.urls.intake}/v1/leads", f"{accord.urls.intake}/v1/activities"
    broken = f'{{"email": "{person.email}",'.encode()
    accord.marketing.post(leads, content=broken, headers={"Content-Type": "application/json"}, expect=(400,))
    accord.marketing.post(leads, {"source": person.email, person.word: person.says("field")}, expect=(422,))
    accord.marketing.post(leads, person.submission(attributes={person.email: {"a": person.word}}), expect=(422,))
    unreachable = {"email": f"{person.word} is no address", "phone": person.word, "external_id": f"{person.word}-4"}
    accord.marketing.post(leads, person.submission(**unreachable), expect=(200, 201, 422))
    for changes in ({"kind": person.email}, {"actor": person.email}, {"email": f"{person.word}@nobody.example.com"}):
        activity = {"email": person.email, "kind": "page.viewed", "by": "lead", **changes}
        accord.marketing.post(activities, activity, expect=(404, 422))
    for base in (accord.urls.qualification, accord.urls.sla_monitor, accord.urls.metrics):
        accord.admin.get(f"{base}/v1/leads/{person.email}", expect=(404, 422))
        accord.admin.get(f"{base}/v1/{person.word}", expect=(404,), q=person.email)


def be_looked_up(accord: Running, person: Person, lead_id: str) -> None:
    leads = f"{accord.urls.intake}/v1/leads"
    accord.admin.get(f"{leads}/{lead_id}")
    accord.admin.get(leads, email=person.email)
    accord.admin.get(leads, phone=person.phone)
    accord.admin.get(leads, external=f"website:{person.external_id}")


def decide(accord: Running, person: Person, lead_id: str) -> None:
    """A decision with a note, and some that are refused; then until metrics shows it, so that everything has gone its way."""
    lead = f"{accord.urls.qualification}/v1/leads/external:website:{person.external_id}"
    wait_for("the lead to be an MQL", lambda: accord.sales.get(lead, expect=(200, 404)).get("stage") == "mql" or None)
    for wrong in (
        {"decision": "accept", "reason": person.word, "note": person.says("note")},
        {"decision": "disqualify", "reason": person.email, "note": person.says("note")},
        {"decision": "accept", "fields": {person.word: person.email}, "note": person.says("note")},
    ):
        accord.sales.post(f"{lead}/decisions", wrong, expect=(422,))
    accord.sales.post(f"{lead}/decisions", {"decision": "accept", "note": person.says("note")})
    batch = f"{accord.urls.qualification}/v1/decisions:batch"
    accord.sales.post(
        batch, [{"lead": f"external:website:{person.word}", "decision": "accept", "note": person.says("note")}]
    )

    def arrived() -> bool | None:
        timeline = accord.marketing.get(f"{accord.urls.metrics}/v1/leads/{lead_id}/timeline", expect=(200, 404))
        return timeline.get("stage") == "sal" or None

    wait_for("metrics to show the decision", arrived)


@dataclass(frozen=True)
class Caller:
    """Requests to intake with the admin's key, of any method."""

    accord: Running

    def __call__(self, method: str, path: str, *expect: int, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.accord.keys['admin']}", **request.pop("headers", {})}
        url = f"{self.accord.urls.intake}{path}"
        answer = httpx.request(method, url, headers=headers, timeout=30.0, trust_env=False, **request)
        assert answer.status_code in expect, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer


def wait_in_quarantine(call: Caller, person: Person, **record: object) -> dict[str, Any]:
    """A record of theirs that waits."""
    off = {"attributes": {"industry": "111111", "remark": person.says("waiting remark")}}
    answer = call("POST", "/v1/leads", 200, 201, json=person.submission(**{**off, **record}))
    body: dict[str, Any] = answer.json()
    assert body["verdict"] == "quarantined"
    return body


def be_decided_about(accord: Running, person: Person) -> None:
    """Quarantine: listed, corrected wrongly, in vain and well, released, discarded, and asked again."""
    call = Caller(accord)
    waits = [
        wait_in_quarantine(call, person, title=person.says(f"waiting {number}"))["submission_id"] for number in range(3)
    ]
    call("GET", "/v1/quarantine", 200, params={"source": "website"})
    corrected, released, discarded = (f"/v1/quarantine/{one}" for one in waits)
    for wrong in (
        {"email": person.says("mail")},
        {person.word: person.says("field")},
        {"email": f"{person.word}@mailinator.com", "phone": None},
    ):
        call("POST", f"{corrected}/correct", 422, json={"fields": wrong})
    call("POST", f"{corrected}/correct", 200, json={"fields": {"title": person.says("better title")}})
    good = {"fields": {"title": person.says("best title"), "attributes": {"industry": "541511"}}}
    call("POST", f"{corrected}/correct", 200, json=good, headers={"Idempotency-Key": f"{person.word}-correct"})
    call("POST", f"{released}/release", 200, json={"note": person.says("release note")})
    call("POST", f"{discarded}/discard", 200, json={"reason": person.says("discard reason")})
    call("POST", f"{discarded}/discard", 409, json={"reason": person.says("another reason")})
    call("GET", corrected, 200)


def be_put_right(accord: Running, person: Person, lead_id: str) -> None:
    """Corrections, merges and their reversal, consent, and everything that is held; each refused once as well."""
    call = Caller(accord)
    lead = f"/v1/leads/{lead_id}"
    etag = call("GET", lead, 200).headers["etag"]
    call("PATCH", lead, 422, json={"title": person.says("title"), person.word: 1}, headers={"If-Match": etag})
    call("PATCH", lead, 412, json={"title": person.says("stale title")}, headers={"If-Match": f'"{person.word}"'})
    call("PATCH", lead, 200, json={"title": person.says("right title")}, headers={"If-Match": etag})
    other = call(
        "POST", "/v1/leads", 201, json={"source": "fair", "email": f"{person.word}.fair@initech.example.com"}
    ).json()
    keyed = {"Idempotency-Key": f"{person.word}-merge"}
    merged = call("POST", f"{lead}/merge", 201, json={"with": other["lead_id"]}, headers=keyed).json()
    call("POST", f"{lead}/merge", 422, json={"with": person.email})
    call("GET", f"{lead}/merges", 200)
    call("GET", f"{lead}/duplicates", 200)
    call("POST", f"/v1/merges/{merged['merge_id']}/revert", 200)
    call("POST", f"{lead}/merge", 201, json={"with": other["lead_id"]})
    said = {"basis": "contract", "text": person.says("consent in words")}
    call("POST", f"{lead}/consents", 201, json=said, headers={"Idempotency-Key": f"{person.word}-consent"})
    call("POST", f"{lead}/consents", 422, json={"basis": person.says("basis"), "text": person.says("text")})
    call("GET", f"{lead}/consents", 200)
    call("GET", f"{lead}/submissions", 200)
    assert person.email in call("GET", f"{lead}/export", 200).text


def be_sent_by_a_tool(accord: Running, person: Person, form: str, *, nameless: bool = True) -> None:
    """A form that is signed, signed wrongly, and one that cannot be taken and is kept. `nameless`: also such in which nobody can be
    recognised, so that no erasure finds them."""
    call = Caller(accord)
    source: Mapping[str, Any] = {
        "adapter": "typeform",
        "secrets": {"signing": FORM_SECRET},
        "mapping": {"fields": {"first_name": "/answers/first_name", "title": "/answers/title"}},
    }
    call("PUT", f"/v1/sources/{form}", 201, json=source)
    texts = {"first_name": f"{person.word} by form", "title": person.says("form title")}
    answers = [{"type": "text", "text": text, "field": {"id": ref, "ref": ref}} for ref, text in texts.items()]
    mail = {"type": "email", "email": person.email, "field": {"id": "m", "ref": "m"}}
    post(accord, form, response(person, "1", [*answers, mail]), FORM_SECRET, 200)
    phone = {"type": "phone_number", "phone_number": person.phone, "field": {"id": "p", "ref": "p"}}
    post(
        accord, form, response(person, "2", [*answers, phone, {**mail, "email": person.says("mail")}]), FORM_SECRET, 200
    )
    post(accord, form, response(person, "3", [*answers, mail]), person.word, 401)
    if nameless:
        post(accord, form, response(person, "4", answers), FORM_SECRET, 200)
        post(accord, form, f'{{"{person.word}": '.encode(), FORM_SECRET, 200, 400)
    for state in ("waiting", "failed"):
        call("GET", f"/v1/sources/{form}/events", 200, params={"state": state})


def response(person: Person, number: str, answers: list[dict[str, Any]]) -> bytes:
    form = {
        "form_id": "f",
        "token": f"{person.word}-{number}",
        "submitted_at": "2026-01-18T18:17:02Z",
        "answers": answers,
    }
    event = {"event_id": f"{person.word}-{number}", "event_type": "form_response", "form_response": form}
    return json.dumps(event).encode()


def post(accord: Running, form: str, body: bytes, secret: str, *expect: int) -> None:
    signature = base64.b64encode(hmac.digest(secret.encode(), body, hashlib.sha256)).decode()
    headers = {"Typeform-Signature": f"sha256={signature}", "Content-Type": "application/json"}
    answer = httpx.post(f"{accord.urls.intake}/v1/hooks/{form}", content=body, headers=headers, trust_env=False)
    assert answer.status_code in expect, f"{answer.status_code} {answer.text[:300]}"


def be_imported(accord: Running, person: Person, *, nameless: bool = True) -> None:
    """A file with a row that is taken, one that cannot be read, one that is rejected and one with too many fields. `nameless`: it is
    about somebody as a whole, in its head and its key, which no erasure of a person finds."""
    call = Caller(accord)
    word = person.word if nameless else "a word"
    title = person.says("row title")
    rows = (
        f"email,title,{word},external_id",
        f"{person.email},{title},{title},{person.external_id}",
        f"{person.word} is no address,{title},{title},{person.external_id}",
        f"{person.word}@mailinator.com,{title},{title},{person.external_id}",
        f"{person.email},{title},{title},{person.external_id},{title},{title}",
    )
    headers = {"Content-Type": "text/csv", "Idempotency-Key": f"{word.split()[0]}-import"}
    sent = call(
        "POST", "/v1/imports", 202, params={"source": "fair"}, content="\n".join(rows).encode(), headers=headers
    ).json()
    path = f"/v1/imports/{sent['import_id']}"
    ended = ("finished", "cancelled", "failed")
    wait_for("the import to end", lambda: call("GET", path, 200).json()["state"] in ended or None)
    call("GET", f"{path}/errors", 200)
    call(
        "POST",
        "/v1/imports",
        422,
        params={"source": person.email},
        content=b"email\n",
        headers={"Content-Type": "text/csv"},
    )
