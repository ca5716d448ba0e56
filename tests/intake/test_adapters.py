"""What each tool's events mean: whose data it is, what they did, what has to be fetched, who is to be erased; and under which id an event
is known again when it is sent again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.intake.tools import (
    HUBSPOT,
    LINKEDIN,
    MAILCHIMP,
    MAUTIC,
    META,
    OWN,
    SEGMENT,
    STANDARD,
    TOOLS,
    TYPEFORM,
    mautic_contact,
)

from intake.hooks.domain.documents import ACTIVITIES, SUBMISSIONS, formed
from intake.hooks.domain.forms import NotAForm, document_of
from intake.hooks.domain.taking import Taking, activities, attribute_name
from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import Acted, Deleted, HookRequest, Ignored, Said, Submitted, Thin, Unreadable
from intake.sources.domain.mapping import FieldMapping, read

NOW = datetime(2026, 1, 4, 12, 0, tzinfo=UTC)


def request_with(**headers: str) -> HookRequest:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HookRequest("POST", "http://intake/v1/hooks/s", {}, {"webhook-id": "msg_1", **names})


def said_by(tool: str, document: Any, settings: Mapping[str, Any] | None = None, **headers: str) -> list[Said]:
    adapter = ADAPTERS[tool]
    return adapter.read(request_with(**headers), document, adapter.settings.model_validate(settings or {}))


def submission_of(tool: str, said: Said, mapping: FieldMapping | None = None, **defaults: Any) -> dict[str, Any]:
    assert isinstance(said, Submitted), said
    document = Taking.of(ADAPTERS[tool], mapping or FieldMapping(), defaults).submission(said.view)
    form = formed(SUBMISSIONS, {**document, "source": "s"}, NOW)
    assert form.form is not None, form.flaws
    assert form.left_out == ()
    return document


def fetched(tool: str, event: Any, settings: Mapping[str, Any] | None = None, **answers: Any) -> dict[str, Any]:
    """The submission of a record that has been fetched."""
    adapter = ADAPTERS[tool]
    assert adapter.fetch is not None
    view = adapter.fetch.view(event, answers, adapter.settings.model_validate(settings or {}))
    return submission_of(tool, Submitted("id", view, event))


# Standard Webhooks and CloudEvents


def test_a_standard_webhook_is_somebodys_data_under_the_messages_id() -> None:
    data = {
        "id": 7,
        "email": "ada@initech.example",
        "first_name": "Ada",
        "attributes": {"employee_count": 250},
        "phone": "+12025550143",
    }

    [said] = said_by("standard-webhooks", {**STANDARD, "data": data}, webhook_id="msg_27uH4")

    assert said.event_id == "msg_27uH4"
    assert submission_of("standard-webhooks", said) == {
        "external_id": "7",
        "email": "ada@initech.example",
        "phone": "+12025550143",
        "first_name": "Ada",
        "attributes": {"employee_count": 250},
        "occurred_at": "2026-01-04T09:30:00+00:00",
    }


@pytest.mark.parametrize(
    ("type_", "kind", "by"),
    [
        ("email.clicked", "email.clicked", "lead"),
        ("com.acme.email.opened", "email.opened", "lead"),
        ("consent.withdrawn", "consent.withdrawn", "lead"),
        ("meeting.booked", "meeting.booked", "sales"),
    ],
)
def test_a_known_activity_is_one(type_: str, kind: str, by: str) -> None:
    data = {"email": "ada@initech.example", "properties": {"link": "pricing"}}

    [said] = said_by("standard-webhooks", {"type": type_, "timestamp": "2026-01-04T09:30:00Z", "data": data})

    assert isinstance(said, Acted)
    assert (said.kind, said.by, said.email, said.properties) == (kind, by, "ada@initech.example", {"link": "pricing"})
    assert formed(ACTIVITIES, activities("s", said, {})[0], NOW).form is not None


def test_settings_say_what_a_type_means() -> None:
    settings = {"types": {"a.b": "ignore", "quote.asked": "activity", "person.gone": "erasure", "odd type": "activity"}}
    document: dict[str, Any] = {"data": {"id": "7"}}

    def said(type_: str) -> Said:
        return said_by("standard-webhooks", {**document, "type": type_}, settings)[0]

    assert isinstance(said("a.b"), Ignored)
    assert isinstance(said("quote.asked"), Acted)
    assert said("person.gone") == Deleted("msg_1", {**document, "type": "person.gone"}, "7", None, erase=True)
    assert isinstance(said("contact.deleted"), Deleted)
    assert isinstance(said("odd type"), Unreadable)
    assert isinstance(said("anything else"), Submitted)


def test_an_event_that_names_nobody_is_kept_as_unreadable() -> None:
    assert isinstance(said_by("standard-webhooks", {"type": "email.clicked", "data": {}})[0], Unreadable)
    assert isinstance(said_by("standard-webhooks", {"data": {}})[0], Unreadable)
    assert isinstance(said_by("standard-webhooks", ["no", "object"])[0], Unreadable)


def test_cloudevents_come_in_three_modes_and_source_and_id_are_their_id() -> None:
    event = {
        "specversion": "1.0",
        "id": "a1",
        "source": "/crm",
        "type": "contact.created",
        "time": "2026-01-04T09:30:00Z",
        "data": {"email": "ada@initech.example"},
    }
    headers = {f"ce_{name}": str(value) for name, value in event.items() if name != "data"}

    binary = said_by("cloudevents", event["data"], content_type="application/json", **headers)
    structured = said_by("cloudevents", event, content_type="application/cloudevents+json; charset=utf-8")
    batch = said_by("cloudevents", [event, {**event, "id": "a2"}], content_type="application/cloudevents-batch+json")

    assert [said.event_id for said in (*binary, *structured, *batch)] == ["/crm:a1", "/crm:a1", "/crm:a1", "/crm:a2"]
    for said in (*binary, *structured, *batch):
        assert submission_of("cloudevents", said) == {
            "email": "ada@initech.example",
            "occurred_at": "2026-01-04T09:30:00+00:00",
        }


def test_a_cloudevent_may_bring_its_data_in_base64_and_its_headers_escaped() -> None:
    event = {
        "specversion": "1.0",
        "id": "a1",
        "source": "/crm",
        "type": "x",
        "data_base64": "eyJlbWFpbCI6ICJhQGIuZXhhbXBsZSJ9",
    }
    [said] = said_by("cloudevents", event, content_type="application/cloudevents+json")
    assert submission_of("cloudevents", said)["email"] == "a@b.example"

    for broken in ("%%%", "W05hTl0=", "bm8ganNvbg=="):
        [said] = said_by("cloudevents", {**event, "data_base64": broken}, content_type="application/cloudevents+json")
        assert isinstance(said, Submitted)

    headers = {"ce_id": "%E2%82%AC1", "ce_source": "/caf%C3%A9", "ce_type": "x", "ce_specversion": "1.0"}
    [said] = said_by("cloudevents", None, **headers)
    assert said.event_id == "/café:€1"


@pytest.mark.parametrize("lacking", ["id", "source", "type", "specversion"])
def test_a_cloudevent_without_what_it_must_have_spoils_no_other(lacking: str) -> None:
    whole = {"specversion": "1.0", "id": "a1", "source": "/crm", "type": "x", "data": {"email": "a@b.example"}}
    broken = {name: value for name, value in whole.items() if name != lacking}

    said = said_by("cloudevents", [broken, whole], content_type="application/cloudevents-batch+json")

    assert [type(one) for one in said] == [Unreadable, Submitted]


# HubSpot


def hubspot_event(type_: str, **changes: Any) -> dict[str, Any]:
    return {**HUBSPOT[0], "subscriptionType": type_, **changes}


def test_hubspots_events_name_a_contact_to_be_fetched() -> None:
    changed = hubspot_event("contact.propertyChange", eventId=2, propertyName="email", propertyValue="a@b.example")

    said = said_by("hubspot", [HUBSPOT[0], changed])

    assert [type(one) for one in said] == [Thin, Thin]
    assert said[0] == Thin("62515:12345:1:123:1564113600000", "123", {"id": "123"}, HUBSPOT[0], 1564113600000)


def test_another_attempt_of_hubspot_is_the_same_event() -> None:
    [first] = said_by("hubspot", HUBSPOT)
    [second] = said_by("hubspot", [hubspot_event("contact.creation", attemptNumber=4)])
    [other] = said_by("hubspot", [hubspot_event("contact.creation", eventId=2)])
    assert first.event_id == second.event_id != other.event_id

    without = {name: value for name, value in HUBSPOT[0].items() if name != "eventId"}
    assert (
        said_by("hubspot", [without])[0].event_id == said_by("hubspot", [{**without, "attemptNumber": 3}])[0].event_id
    )


def test_a_deletion_in_hubspot_is_noted_and_a_privacy_deletion_erases() -> None:
    def erases(type_: str, **settings: Any) -> bool:
        [said] = said_by("hubspot", [hubspot_event(type_)], settings)
        assert isinstance(said, Deleted)
        return said.erase

    assert not erases("contact.deletion")
    assert erases("contact.deletion", on_deletion="erase")
    assert erases("contact.privacyDeletion")


def test_a_merge_in_hubspot_fetches_the_contact_that_is_left() -> None:
    [said] = said_by(
        "hubspot", [hubspot_event("contact.merge", primaryObjectId=123, mergedObjectIds=[7], newObjectId=200)]
    )
    assert isinstance(said, Thin)
    assert said.external_id == "200"


def test_hubspots_events_about_other_things_are_ignored() -> None:
    said = said_by("hubspot", [hubspot_event("deal.creation"), hubspot_event("contact.associationChange"), {}, "x"])
    assert {type(one) for one in said} == {Ignored}
    assert isinstance(said_by("hubspot", [hubspot_event("contact.creation", objectId=None)])[0], Unreadable)


def test_a_contact_of_hubspot_becomes_a_submission() -> None:
    record = {
        "id": "123",
        "properties": {
            "email": "ada@initech.example",
            "firstname": "Ada",
            "lastname": "Byron",
            "mobilephone": "+1 202 555 0143",
            "phone": None,
            "company": "Initech",
            "website": "initech.example",
            "jobtitle": "CTO",
            "numberofemployees": "250",
            "industry": "COMPUTER_SOFTWARE",
            "lifecyclestage": "lead",
            "lastmodifieddate": "2024-01-04T09:30:00.123Z",
        },
        "archived": False,
    }

    assert fetched("hubspot", HUBSPOT[0], record=record) == {
        "external_id": "123",
        "email": "ada@initech.example",
        "phone": "+1 202 555 0143",
        "first_name": "Ada",
        "last_name": "Byron",
        "company": "Initech",
        "domain": "initech.example",
        "title": "CTO",
        "attributes": {"employee_count": "250", "industry": "COMPUTER_SOFTWARE", "lifecyclestage": "lead"},
        "occurred_at": "2024-01-04T09:30:00.123000+00:00",
    }


def test_hubspot_is_asked_for_the_properties_of_the_settings_too() -> None:
    adapter = ADAPTERS["hubspot"]
    assert adapter.fetch is not None
    settings = adapter.settings.model_validate({"properties": ["budget"], "base_url": "http://127.0.0.1:1/"})

    ask = adapter.fetch.ask({"id": "1/2?x"}, {}, settings)

    assert ask is not None
    assert ask.url.startswith("http://127.0.0.1:1/crm/v3/objects/contacts/1%2F2%3Fx?properties=email,phone,")
    assert ask.url.endswith(",budget")
    assert adapter.fetch.ask({"id": "1"}, {"record": {}}, settings) is None


# Mautic


def test_a_contact_of_mautic_becomes_a_submission() -> None:
    said = said_by("mautic", MAUTIC)

    assert [type(one) for one in said] == [Submitted, Acted]
    assert submission_of("mautic", said[0]) == {
        "external_id": "52",
        "email": "ada@initech.example",
        "first_name": "Ada",
        "last_name": "Byron",
        "company": "Initech",
        "occurred_at": "2017-06-19T09:33:58+00:00",
    }
    points = said[1]
    assert isinstance(points, Acted)
    assert (points.kind, points.by, points.properties) == ("points.changed", "lead", {"old_points": 0, "new_points": 5})


def test_the_same_event_of_mautic_has_the_same_id_and_another_has_another() -> None:
    first, again = said_by("mautic", MAUTIC), said_by("mautic", json.loads(json.dumps(MAUTIC, sort_keys=True)))
    assert {one.event_id for one in first} == {one.event_id for one in again}

    changed = copy.deepcopy(MAUTIC)
    changed["mautic.lead_post_save_new"][0]["timestamp"] = "2017-06-19T09:33:59+00:00"
    assert said_by("mautic", changed)[0].event_id != first[0].event_id


@pytest.mark.parametrize(
    ("type_", "event", "kind", "by"),
    [
        ("email_on_send", {"email": {"id": 3, "name": "Spring"}}, "email.sent", "marketing"),
        (
            "page_on_hit",
            {"hit": {"lead": mautic_contact("ada@initech.example"), "page": {"title": "Demo"}}},
            "page.viewed",
            "lead",
        ),
        (
            "email_on_open",
            {"stat": {"lead": mautic_contact("ada@initech.example"), "email": {"id": 3}}},
            "email.opened",
            "lead",
        ),
        (
            "lead_channel_subscription_changed",
            {"channel": "email", "new_status": "unsubscribed"},
            "consent.withdrawn",
            "lead",
        ),
        ("lead_channel_subscription_changed", {"channel": "email", "new_status": "bounced"}, "email.bounced", "lead"),
        (
            "lead_channel_subscription_changed",
            {"channel": "sms", "new_status": "contactable"},
            "sms.subscribed",
            "lead",
        ),
    ],
)
def test_what_mautic_says_of_a_contact_becomes_an_activity(
    type_: str, event: dict[str, Any], kind: str, by: str
) -> None:
    if not {"hit", "stat"} & set(event):
        event = {"contact": mautic_contact("ada@initech.example"), **event}

    [said] = said_by("mautic", {f"mautic.{type_}": [{**event, "timestamp": "2017-06-19T09:33:58+00:00"}]})

    assert isinstance(said, Acted)
    assert (said.kind, said.by, said.email) == (kind, by, "ada@initech.example")
    assert formed(ACTIVITIES, activities("s", said, {})[0], NOW).form is not None


def test_a_form_in_mautic_brings_what_was_typed_over_what_was_known() -> None:
    event = {
        "submission": {
            "id": 9,
            "lead": mautic_contact("ada@initech.example", firstname="Ada"),
            "results": {"email": "ada@initech.example", "company": "Initech", "budget": "high", "f_name": ""},
            "referer": "https://initech.example/demo",
            "dateSubmitted": "2017-06-19T09:33:58+00:00",
        }
    }

    [said] = said_by("mautic", {"mautic.form_on_submit": [event]})

    document = submission_of("mautic", said)
    assert (document["email"], document["company"], document["first_name"]) == ("ada@initech.example", "Initech", "Ada")
    assert document["attributes"] == {"budget": "high"}
    assert document["campaign"] == {"referrer": "https://initech.example/demo"}


def test_what_mautic_says_of_no_contact_is_ignored_or_kept() -> None:
    deleted = {"mautic.lead_post_delete": [{"id": 52, "contact": mautic_contact(None)}]}
    [said] = said_by("mautic", deleted)
    assert isinstance(said, Deleted)
    assert (said.external_id, said.erase) == ("52", False)
    assert said_by("mautic", deleted, {"on_deletion": "erase"})[0].erase  # type: ignore[union-attr]
    assert isinstance(said_by("mautic", {"mautic.lead_company_change": [{}]})[0], Ignored)
    assert isinstance(said_by("mautic", {"mautic.email_on_open": [{}]})[0], Unreadable)
    assert isinstance(said_by("mautic", {"timestamp": "x"})[0], Unreadable)
    assert isinstance(said_by("mautic", [])[0], Unreadable)


# Mailchimp


def mailchimp(**changes: str) -> dict[str, Any]:
    return document_of(
        urlencode(
            {
                **MAILCHIMP,
                **{name.replace("__", "[") + ("]" if "__" in name else ""): value for name, value in changes.items()},
            }
        )
    )


def test_a_subscriber_of_mailchimp_becomes_a_submission() -> None:
    [said] = said_by("mailchimp", mailchimp())

    assert submission_of("mailchimp", said) == {
        "external_id": "8a25ff1d98",
        "email": "ada@initech.example",
        "first_name": "Ada",
        "last_name": "Byron",
        "attributes": {"EMPLOYEES": "250"},
        "occurred_at": "2025-01-24T15:30:00+00:00",
    }
    mapping, flaws = read({"fields": {"attributes.employee_count": "/data/merges/EMPLOYEES"}})
    assert flaws == []
    assert submission_of("mailchimp", said, mapping)["attributes"] == {"employee_count": "250"}


def test_who_leaves_mailchimp_withdraws_consent() -> None:
    [said] = said_by("mailchimp", mailchimp(type="unsubscribe", data__reason="manual"))
    assert isinstance(said, Acted)
    assert (said.kind, said.by, said.email, said.properties["reason"]) == (
        "consent.withdrawn",
        "lead",
        "ada@initech.example",
        "manual",
    )
    [said] = said_by("mailchimp", mailchimp(type="cleaned", data__reason="hard"))
    assert isinstance(said, Acted)
    assert said.kind == "email.bounced"


def test_a_new_address_in_mailchimp_joins_both_addresses() -> None:
    form = {
        "type": "upemail",
        "fired_at": "2025-01-24 15:30:00",
        "data[new_id]": "51da8c3259",
        "data[new_email]": "ada.new@initech.example",
        "data[old_email]": "ada@initech.example",
    }

    said = said_by("mailchimp", document_of(urlencode(form)))

    assert [(one["email"], one["external_id"]) for one in (submission_of("mailchimp", each) for each in said)] == [
        ("ada@initech.example", "51da8c3259"),
        ("ada.new@initech.example", "51da8c3259"),
    ]
    assert len({one.event_id for one in said}) == 2


def test_mailchimps_other_events_are_ignored_or_kept() -> None:
    assert isinstance(said_by("mailchimp", mailchimp(type="campaign"))[0], Ignored)
    assert isinstance(said_by("mailchimp", mailchimp(type="something"))[0], Unreadable)
    assert isinstance(said_by("mailchimp", {"type": "unsubscribe"})[0], Unreadable)
    assert isinstance(said_by("mailchimp", {"type": "upemail"})[0], Unreadable)
    assert isinstance(said_by("mailchimp", {})[0], Unreadable)


# Typeform


def test_a_response_of_typeform_becomes_a_submission() -> None:
    [said] = said_by("typeform", TYPEFORM)

    assert said.event_id == "LtWXD3crgy"
    assert submission_of("typeform", said) == {
        "email": "ada@initech.example",
        "first_name": "Ada",
        "campaign": {"name": "spring", "medium": "cpc"},
        "consent": {"basis": "consent"},
        "attributes": {
            "work": "ada@initech.example",
            "line_of_business": "software",
            "employee_count": 250,
            "terms": True,
        },
        "occurred_at": "2018-01-18T18:17:02+00:00",
    }


def test_choices_of_typeform_are_their_labels() -> None:
    document = copy.deepcopy(TYPEFORM)
    document["form_response"]["answers"] += [  # type: ignore[index]
        {"type": "choices", "choices": {"labels": ["a", "b"], "other": "c"}, "field": {"ref": "many"}},
        {"type": "choice", "choice": {"other": "mine"}, "field": {"ref": "one"}},
        {"type": "phone_number", "phone_number": "+12025550143", "field": {"ref": "call_me"}},
        {"type": "payment", "payment": {"amount": "1"}, "field": {"ref": "paid"}},
        {"type": "text", "field": {"ref": "empty"}},
        "no answer",
    ]

    found = submission_of("typeform", said_by("typeform", document)[0])

    assert found["phone"] == "+12025550143"
    assert found["attributes"]["many"] == ["a", "b", "c"]
    assert found["attributes"]["one"] == "mine"
    assert "paid" not in found["attributes"]


def test_what_typeform_has_not_got_whole_is_ignored_or_kept() -> None:
    assert isinstance(said_by("typeform", {**TYPEFORM, "event_type": "form_response_partial"})[0], Ignored)
    assert isinstance(said_by("typeform", {"event_id": "x", "event_type": "form_response"})[0], Unreadable)


# Meta and LinkedIn


def test_a_lead_ad_of_meta_is_fetched() -> None:
    said = said_by("meta-lead-ads", META)
    change = META["entry"][0]["changes"][0]  # type: ignore[index]
    assert said == [Thin("5545", "5545", {"id": "5545"}, change, 1447342026)]

    record = {
        "created_time": "2015-02-28T08:49:14+0000",
        "id": "5545",
        "campaign_name": "spring",
        "platform": "fb",
        "field_data": [
            {"name": "EMAIL", "values": ["ada@initech.example"]},
            {"name": "full_name", "values": ["Ada Augusta Byron"]},
            {"name": "phone_number", "values": ["+12025550143"]},
            {"name": "car_make", "values": ["Honda", "Ford"]},
            {"name": "empty", "values": []},
        ],
    }
    document = fetched("meta-lead-ads", change, record=record)
    assert document.pop("attributes")["car_make"] == ["Honda", "Ford"]
    assert document == {
        "external_id": "5545",
        "email": "ada@initech.example",
        "phone": "+12025550143",
        "first_name": "Ada Augusta",
        "last_name": "Byron",
        "campaign": {"name": "spring", "medium": "fb"},
        "occurred_at": "2015-02-28T08:49:14+00:00",
    }


def test_meta_is_greeted_by_who_knows_the_verify_token() -> None:
    adapter = ADAPTERS["meta-lead-ads"]
    assert adapter.greet is not None

    def greeted(**query: str) -> Any:
        said = HookRequest("GET", "", {name.replace("_", ".", 1): value for name, value in query.items()}, {})
        assert adapter.greet is not None
        return adapter.greet(said, {"verify": [b"new", b"old"]}, adapter.settings())

    answer = greeted(hub_mode="subscribe", hub_challenge="1158201444", hub_verify_token="old")
    assert (answer.status, answer.body, answer.media_type) == (200, "1158201444", "text/plain")
    assert greeted(hub_mode="subscribe", hub_challenge="1", hub_verify_token="wrong") == "wrong"
    assert greeted(hub_mode="subscribe", hub_challenge="1") == "missing"
    assert greeted(hub_mode="unsubscribe", hub_challenge="1", hub_verify_token="new") == "missing"
    assert greeted(hub_mode="subscribe", hub_challenge="1" * 201, hub_verify_token="new") == "missing"
    assert adapter.greet(HookRequest("GET", "", {}, {}), {}, adapter.settings()) == "no-secret"


def test_a_response_of_linkedin_is_fetched_with_its_form() -> None:
    [said] = said_by("linkedin-lead-gen", LINKEDIN)
    assert isinstance(said, Thin)
    assert said.external_id == "1a2b3c-4"
    assert said.reference == {"id": "1a2b3c-4", "form": "3162"}

    adapter = ADAPTERS["linkedin-lead-gen"]
    assert adapter.fetch is not None
    first = adapter.fetch.ask(said.reference, {}, adapter.settings())
    assert first is not None
    assert first.url == "https://api.linkedin.com/rest/leadFormResponses/1a2b3c-4"
    assert first.headers["x-restli-protocol-version"] == "2.0.0"
    second = adapter.fetch.ask(said.reference, {"record": {}}, adapter.settings())
    assert second is not None
    assert (second.url, second.optional) == ("https://api.linkedin.com/rest/leadForms/3162", True)
    assert adapter.fetch.ask(said.reference, {"record": {}, "form": None}, adapter.settings()) is None


LINKEDIN_RECORD = {
    "id": "1a2b3c-4",
    "submittedAt": 1756051199000,
    "testLead": False,
    "formResponse": {
        "answers": [
            {"questionId": 1, "answerDetails": {"textQuestionAnswer": {"answer": "ada@initech.example"}}},
            {"questionId": 2, "answerDetails": {"textQuestionAnswer": {"answer": "Ada"}}},
            {"questionId": 3, "answerDetails": {"multipleChoiceAnswer": {"options": [4, 5]}}},
        ],
        "consentResponses": [{"consentId": 7, "accepted": True}],
    },
}
LINKEDIN_FORM = {
    "content": {
        "questions": [
            {"questionId": 1, "predefinedField": "WORK_EMAIL"},
            {"questionId": 2, "predefinedField": "FIRST_NAME"},
            {"questionId": 3, "name": "interests"},
        ]
    }
}


def test_a_response_of_linkedin_becomes_a_submission_by_its_form_or_by_the_settings() -> None:
    by_form = fetched("linkedin-lead-gen", LINKEDIN, record=LINKEDIN_RECORD, form=LINKEDIN_FORM)
    assert by_form == {
        "external_id": "1a2b3c-4",
        "email": "ada@initech.example",
        "first_name": "Ada",
        "attributes": {"interests": ["4", "5"]},
        "consent": {"basis": "consent"},
        "occurred_at": "2025-08-24T15:59:59+00:00",
    }
    by_settings = fetched(
        "linkedin-lead-gen",
        LINKEDIN,
        {"questions": {"1": "email", "2": "first_name"}},
        record=LINKEDIN_RECORD,
        form=None,
    )
    assert (by_settings["email"], by_settings["first_name"]) == ("ada@initech.example", "Ada")


def test_a_response_that_was_deleted_at_linkedin_erases() -> None:
    [said] = said_by("linkedin-lead-gen", {**LINKEDIN, "leadAction": "DELETED"})
    assert isinstance(said, Deleted)
    assert (said.external_id, said.erase) == ("1a2b3c-4", True)
    assert said.event_id != said_by("linkedin-lead-gen", LINKEDIN)[0].event_id
    assert isinstance(said_by("linkedin-lead-gen", {"type": "OTHER"})[0], Ignored)
    assert isinstance(said_by("linkedin-lead-gen", {**LINKEDIN, "leadAction": "UPDATED"})[0], Ignored)
    assert isinstance(said_by("linkedin-lead-gen", {"type": "LEAD_ACTION"})[0], Unreadable)


# Segment


def test_an_identify_of_segment_becomes_a_submission() -> None:
    [said] = said_by("segment", SEGMENT)

    assert said.event_id == "022bb90c-bbac-11e4-8dfc-aa07a5b093db"
    assert submission_of("segment", said) == {
        "external_id": "97980cfea0067",
        "email": "ada@initech.example",
        "first_name": "Ada",
        "last_name": "Byron",
        "company": "Initech",
        "attributes": {"employee_count": 250, "industry": "541511", "name": "Ada Byron", "plan": "trial"},
        "campaign": {"name": "spring", "medium": "cpc", "landing_page": "https://initech.example/demo"},
        "occurred_at": "2015-02-23T22:28:55.111000+00:00",
    }


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("Email Link Clicked", "email.clicked"),
        ("Email Opened", "email.opened"),
        ("Unsubscribed", "consent.withdrawn"),
        ("Trial Plan Started", "trial_plan.started"),
        ("orderCompleted", "order.completed"),
        ("Liked", "event.liked"),
        ("3D View 2", "event_3d_view.v2"),
        ("Quote", "quote.asked"),
    ],
)
def test_a_track_of_segment_becomes_an_activity(event: str, kind: str) -> None:
    message = {**SEGMENT, "type": "track", "event": event, "properties": {"link": "pricing"}, "traits": {}}

    [said] = said_by("segment", message, {"events": {"Quote": "quote.asked", "Noise": "ignore"}})

    assert isinstance(said, Acted)
    assert (said.kind, said.external_id, said.campaign) == (kind, "97980cfea0067", {"name": "spring", "medium": "cpc"})
    form = formed(ACTIVITIES, activities("s", said, {"campaign.term": "crm"})[0], NOW)
    assert form.form is not None
    assert form.form.campaign is not None
    assert form.form.campaign.term == "crm"


def test_what_nobody_did_at_segment_is_ignored() -> None:
    def said(**changes: Any) -> Said:
        return said_by("segment", {**SEGMENT, "traits": {}, "context": {}, **changes}, {"events": {"Noise": "ignore"}})[
            0
        ]

    assert said(type="track", event="Page Seen", userId=None) == Ignored(SEGMENT["messageId"], "anonymous")  # type: ignore[arg-type]
    assert isinstance(said(type="alias"), Ignored)
    assert isinstance(said(type="track", event="Noise"), Ignored)
    assert isinstance(said(type="track", event="!!!"), Unreadable)
    assert isinstance(said(type="track", event="x", userId=None, anonymousId=None), Unreadable)
    deleted = said(type="delete")
    assert isinstance(deleted, Deleted)
    assert deleted.erase


def test_segment_may_send_a_batch() -> None:
    said = said_by("segment", {"batch": [SEGMENT, {**SEGMENT, "messageId": "other", "type": "page"}]})
    assert [type(one) for one in said] == [Submitted, Acted]


# Senders whose body the customer writes


def test_own_bodies_need_no_mapping_where_they_use_our_names() -> None:
    [said] = said_by("generic", OWN, idempotency_key="order-1")

    assert said.event_id == "order-1"
    assert submission_of("generic", said, **{"campaign.medium": "email"}) == {
        "email": "ada@initech.example",
        "first_name": "Ada",
        "campaign": {"name": "spring", "medium": "email"},
        "attributes": {"employee_count": 250},
    }


def test_own_bodies_are_mapped_by_pointers() -> None:
    mapping, flaws = read(
        {"fields": {"email": "/lead/mail", "attributes.size": "/lead/n", "consent.basis": {"const": "consent"}}}
    )
    assert flaws == []
    document = {"lead": {"mail": "ada@initech.example", "n": 3}}

    for tool in ("generic", "marketo"):
        [said] = said_by(tool, document)
        assert submission_of(tool, said, mapping) == {
            "email": "ada@initech.example",
            "attributes": {"size": 3},
            "consent": {"basis": "consent"},
        }


def test_own_events_have_an_id_by_pointer_key_or_content() -> None:
    assert said_by("generic", {"n": 5}, {"event_id": "/n"}, idempotency_key="k")[0].event_id == "5"
    assert said_by("generic", {"n": 5}, idempotency_key="k")[0].event_id == "k"
    assert [one.event_id for one in said_by("generic", [{}, {}], idempotency_key="k")] == ["k:0", "k:1"]
    assert [
        one.event_id for one in said_by("generic", {"all": [{"n": 1}, {"n": 2}]}, {"events": "/all", "event_id": "/n"})
    ] == ["1", "2"]
    assert said_by("generic", {"n": 5})[0].event_id == said_by("generic", {"n": 5})[0].event_id
    assert said_by("generic", {"n": 5})[0].event_id != said_by("generic", {"n": 6})[0].event_id
    long = said_by("generic", {"n": "x" * 500}, {"event_id": "/n"})[0].event_id
    assert long.startswith("sha256:")


# All of them


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(TOOLS)), JSON)
def test_no_document_makes_an_adapter_fail(tool: str, document: Any) -> None:
    for said in said_by(tool, document):
        assert said.event_id


def _places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [at, *(place for name, value in inner for place in _places(value, (*at, name)))]


EVENTS = {
    "hubspot": HUBSPOT,
    "mautic": MAUTIC,
    "typeform": TYPEFORM,
    "meta-lead-ads": META,
    "linkedin-lead-gen": LINKEDIN,
    "segment": SEGMENT,
}


@given(st.data(), st.sampled_from(sorted(EVENTS)), JSON)
def test_an_event_of_which_one_part_is_something_else_makes_no_adapter_fail(data: Any, tool: str, instead: Any) -> None:
    document: Any = copy.deepcopy(EVENTS[tool])
    *parents, last = data.draw(st.sampled_from([place for place in _places(document) if place]))
    node = document
    for part in parents:
        node = node[part]
    node[last] = instead

    for said in said_by(tool, document):
        if isinstance(said, Submitted):
            view = Taking.of(ADAPTERS[tool], FieldMapping(), {}).submission(said.view)
            formed(SUBMISSIONS, {**view, "source": "s"}, NOW)
        elif isinstance(said, Acted):
            formed(ACTIVITIES, activities("s", said, {})[0], NOW)


def test_a_part_that_does_not_fit_is_left_out_and_named() -> None:
    document: dict[str, Any] = {
        "source": "s",
        "email": "ada@initech.example",
        "title": "x" * 501,
        "campaign": {"name": "x" * 201, "medium": "cpc", "cost": {"amount": "much", "currency": "USD"}},
        "consent": {"basis": "No Such Word!", "text": "…"},
        "attributes": {"good": 1, "long": "x" * 1001, "9bad": 1},
        "occurred_at": "2999-01-01T00:00:00Z",
    }

    form = formed(SUBMISSIONS, document, NOW)

    assert form.form is not None
    assert set(form.left_out) == {
        "/title",
        "/campaign/name",
        "/campaign/cost",
        "/consent",
        "/attributes/long",
        "/attributes/9bad",
        "/occurred_at",
    }
    assert form.form.attributes == {"good": 1}
    assert form.form.campaign is not None
    assert form.form.campaign.medium == "cpc"
    assert document["title"] == "x" * 501, "what was handed in stays as it is"


def test_a_time_ahead_of_ours_is_left_out() -> None:
    form = formed(SUBMISSIONS, {"source": "s", "email": "a@b.example", "occurred_at": "2026-01-04T18:00:00Z"}, NOW)
    assert form.form is not None
    assert (form.form.occurred_at, form.left_out) == (None, ("/occurred_at",))


def test_nobody_is_no_submission_and_the_flaws_quote_nothing() -> None:
    form = formed(SUBMISSIONS, {"source": "s", "first_name": "Ada", "email": "x" * 600}, NOW)
    assert form.form is None
    assert "Ada" not in form.flaws
    assert "xxx" not in form.flaws


def test_forms_are_nested_by_their_brackets() -> None:
    form = "a=1&b[c]=2&b[d][e]=3&f[]=4&f[]=5&g=6&g=7&h[=8&i]=9&=10&j%20k=l+m&b=x&n[o]&a[p]=11&%C3%A9[%C3%A9]=%E2%82%AC"
    assert document_of(form) == {
        "a": "1",
        "b": {"c": "2", "d": {"e": "3"}, "": "x"},
        "f": ["4", "5"],
        "g": ["6", "7"],
        "h[": "8",
        "i]": "9",
        "": "10",
        "j k": "l m",
        "n": {"o": ""},
        "a[p]": "11",
        "é": {"é": "€"},
    }
    with pytest.raises(NotAForm):
        document_of("&".join(f"a{number}=1" for number in range(2_001)))


@given(st.text(max_size=200))
def test_no_text_makes_a_form_fail(text: str) -> None:
    document_of(text)


def test_names_of_attributes_are_made_fit() -> None:
    assert [attribute_name(name) for name in ("Company size?", "9 lives", "ünïcode", "!!", "x" * 99)] == [
        "Company_size",
        "lives",
        "n_code",
        None,
        "x" * 64,
    ]
