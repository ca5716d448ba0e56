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

from intake.hooks.domain.forms import InvalidForm, parse_form
from intake.hooks.domain.payload_mapping import PayloadMapper, attribute_name, build_activities
from intake.hooks.domain.validation import ACTIVITIES, SUBMISSIONS, validate_document
from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import (
    ActivityOccurred,
    Deleted,
    HookRequest,
    Ignored,
    RecordReference,
    Submitted,
    ToolEvent,
    Unreadable,
)
from intake.sources.domain.mapping import FieldMapping, validate_mapping

NOW = datetime(2026, 1, 4, 12, 0, tzinfo=UTC)


def request_with(**headers: str) -> HookRequest:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HookRequest("POST", "http://intake/v1/hooks/s", {}, {"webhook-id": "msg_1", **names})


def parse_events(
    tool: str, document: Any, settings: Mapping[str, Any] | None = None, **headers: str
) -> list[ToolEvent]:
    adapter = ADAPTERS[tool]
    return list(adapter.read(request_with(**headers), document, adapter.settings.model_validate(settings or {})))


def map_submission_of(
    tool: str, said: ToolEvent, mapping: FieldMapping | None = None, **defaults: Any
) -> dict[str, Any]:
    assert isinstance(said, Submitted), said
    document = PayloadMapper.build(ADAPTERS[tool], mapping or FieldMapping(), defaults).map_submission(said.view)
    validated = validate_document(SUBMISSIONS, {**document, "source": "s"}, NOW)
    assert validated.value is not None, validated.errors
    assert validated.left_out == ()
    return document


def fetched(tool: str, event: Any, settings: Mapping[str, Any] | None = None, **answers: Any) -> dict[str, Any]:
    """The submission of a record that has been fetched."""
    adapter = ADAPTERS[tool]
    assert adapter.fetch is not None
    view = adapter.fetch.build_view(event, answers, adapter.settings.model_validate(settings or {}))
    return map_submission_of(tool, Submitted("id", view, event))


# Standard Webhooks and CloudEvents


def test_standard_webhook_is_submission_with_message_id() -> None:
    data = {
        "id": 7,
        "email": "ada@initech.example",
        "first_name": "Ada",
        "attributes": {"employee_count": 250},
        "phone": "+12025550143",
    }

    [said] = parse_events("standard-webhooks", {**STANDARD, "data": data}, webhook_id="msg_27uH4")

    assert said.event_id == "msg_27uH4"
    assert map_submission_of("standard-webhooks", said) == {
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
def test_type_of_an_activity_becomes_an_activity(type_: str, kind: str, by: str) -> None:
    data = {"email": "ada@initech.example", "properties": {"link": "pricing"}}

    [said] = parse_events("standard-webhooks", {"type": type_, "timestamp": "2026-01-04T09:30:00Z", "data": data})

    assert isinstance(said, ActivityOccurred)
    assert (said.kind, said.by, said.email, said.properties) == (kind, by, "ada@initech.example", {"link": "pricing"})
    assert validate_document(ACTIVITIES, build_activities("s", said, {})[0], NOW).value is not None


def test_settings_define_meaning_of_a_type() -> None:
    settings = {"types": {"a.b": "ignore", "quote.asked": "activity", "person.gone": "erasure", "odd type": "activity"}}
    document: dict[str, Any] = {"data": {"id": "7"}}

    def said(type_: str) -> ToolEvent:
        return parse_events("standard-webhooks", {**document, "type": type_}, settings)[0]

    assert isinstance(said("a.b"), Ignored)
    assert isinstance(said("quote.asked"), ActivityOccurred)
    assert said("person.gone") == Deleted("msg_1", {**document, "type": "person.gone"}, "7", None, erase=True)
    assert isinstance(said("contact.deleted"), Deleted)
    assert isinstance(said("odd type"), Unreadable)
    assert isinstance(said("anything else"), Submitted)


def test_event_without_identity_is_unreadable() -> None:
    assert isinstance(parse_events("standard-webhooks", {"type": "email.clicked", "data": {}})[0], Unreadable)
    assert isinstance(parse_events("standard-webhooks", {"data": {}})[0], Unreadable)
    assert isinstance(parse_events("standard-webhooks", ["no", "object"])[0], Unreadable)


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

    binary = parse_events("cloudevents", event["data"], content_type="application/json", **headers)
    structured = parse_events("cloudevents", event, content_type="application/cloudevents+json; charset=utf-8")
    batch = parse_events(
        "cloudevents", [event, {**event, "id": "a2"}], content_type="application/cloudevents-batch+json"
    )

    assert [said.event_id for said in (*binary, *structured, *batch)] == ["/crm:a1", "/crm:a1", "/crm:a1", "/crm:a2"]
    for said in (*binary, *structured, *batch):
        assert map_submission_of("cloudevents", said) == {
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
    [said] = parse_events("cloudevents", event, content_type="application/cloudevents+json")
    assert map_submission_of("cloudevents", said)["email"] == "a@b.example"

    for broken in ("%%%", "W05hTl0=", "bm8ganNvbg=="):
        [said] = parse_events(
            "cloudevents", {**event, "data_base64": broken}, content_type="application/cloudevents+json"
        )
        assert isinstance(said, Submitted)

    headers = {"ce_id": "%E2%82%AC1", "ce_source": "/caf%C3%A9", "ce_type": "x", "ce_specversion": "1.0"}
    [said] = parse_events("cloudevents", None, **headers)
    assert said.event_id == "/café:€1"


@pytest.mark.parametrize("lacking", ["id", "source", "type", "specversion"])
def test_incomplete_cloudevent_affects_no_other(lacking: str) -> None:
    whole = {"specversion": "1.0", "id": "a1", "source": "/crm", "type": "x", "data": {"email": "a@b.example"}}
    broken = {name: value for name, value in whole.items() if name != lacking}

    said = parse_events("cloudevents", [broken, whole], content_type="application/cloudevents-batch+json")

    assert [type(one) for one in said] == [Unreadable, Submitted]


# HubSpot


def hubspot_event(type_: str, **changes: Any) -> dict[str, Any]:
    return {**HUBSPOT[0], "subscriptionType": type_, **changes}


def test_hubspots_events_name_a_contact_to_be_fetched() -> None:
    changed = hubspot_event("contact.propertyChange", eventId=2, propertyName="email", propertyValue="a@b.example")

    said = parse_events("hubspot", [HUBSPOT[0], changed])

    assert [type(one) for one in said] == [RecordReference, RecordReference]
    assert said[0] == RecordReference(
        "62515:12345:1:123:1564113600000", "123", {"id": "123"}, HUBSPOT[0], 1564113600000
    )


def test_another_attempt_of_hubspot_is_the_same_event() -> None:
    [first] = parse_events("hubspot", HUBSPOT)
    [second] = parse_events("hubspot", [hubspot_event("contact.creation", attemptNumber=4)])
    [other] = parse_events("hubspot", [hubspot_event("contact.creation", eventId=2)])
    assert first.event_id == second.event_id != other.event_id

    without = {name: value for name, value in HUBSPOT[0].items() if name != "eventId"}
    assert (
        parse_events("hubspot", [without])[0].event_id
        == parse_events("hubspot", [{**without, "attemptNumber": 3}])[0].event_id
    )


def test_a_deletion_in_hubspot_is_noted_and_a_privacy_deletion_erases() -> None:
    def erases(type_: str, **settings: Any) -> bool:
        [said] = parse_events("hubspot", [hubspot_event(type_)], settings)
        assert isinstance(said, Deleted)
        return said.erase

    assert not erases("contact.deletion")
    assert erases("contact.deletion", on_deletion="erase")
    assert erases("contact.privacyDeletion")


def test_a_merge_in_hubspot_fetches_the_contact_that_is_left() -> None:
    [said] = parse_events(
        "hubspot", [hubspot_event("contact.merge", primaryObjectId=123, mergedObjectIds=[7], newObjectId=200)]
    )
    assert isinstance(said, RecordReference)
    assert said.external_id == "200"


def test_hubspots_events_about_other_things_are_ignored() -> None:
    said = parse_events("hubspot", [hubspot_event("deal.creation"), hubspot_event("contact.associationChange")])
    assert {type(one) for one in said} == {Ignored}


def test_generic_subscription_of_hubspot_is_about_a_contact_by_its_type() -> None:
    said = parse_events("hubspot", [hubspot_event("object.creation", objectTypeId=kind) for kind in ("0-1", "0-2")])
    assert [type(one) for one in said] == [RecordReference, Ignored]


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

    next_request = adapter.fetch.next_request({"id": "1/2?x"}, {}, settings)

    assert next_request is not None
    assert next_request.url.startswith("http://127.0.0.1:1/crm/v3/objects/contacts/1%2F2%3Fx?properties=email,phone,")
    assert next_request.url.endswith(",budget")
    assert adapter.fetch.next_request({"id": "1"}, {"record": {}}, settings) is None


# Mautic


def test_a_contact_of_mautic_becomes_a_submission() -> None:
    said = parse_events("mautic", MAUTIC)

    assert [type(one) for one in said] == [Submitted, ActivityOccurred]
    assert map_submission_of("mautic", said[0]) == {
        "external_id": "52",
        "email": "ada@initech.example",
        "first_name": "Ada",
        "last_name": "Byron",
        "company": "Initech",
        "occurred_at": "2017-06-19T09:33:58+00:00",
    }
    points = said[1]
    assert isinstance(points, ActivityOccurred)
    assert (points.kind, points.by, points.properties) == ("points.changed", "lead", {"old_points": 0, "new_points": 5})


def test_the_same_event_of_mautic_has_the_same_id_and_another_has_another() -> None:
    first, again = (
        parse_events("mautic", MAUTIC),
        parse_events("mautic", json.loads(json.dumps(MAUTIC, sort_keys=True))),
    )
    assert {one.event_id for one in first} == {one.event_id for one in again}

    changed = copy.deepcopy(MAUTIC)
    changed["mautic.lead_post_save_new"][0]["timestamp"] = "2017-06-19T09:33:59+00:00"
    assert parse_events("mautic", changed)[0].event_id != first[0].event_id


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
def test_mautic_contact_event_becomes_activity(type_: str, event: dict[str, Any], kind: str, by: str) -> None:
    if not {"hit", "stat"} & set(event):
        event = {"contact": mautic_contact("ada@initech.example"), **event}

    [said] = parse_events("mautic", {f"mautic.{type_}": [{**event, "timestamp": "2017-06-19T09:33:58+00:00"}]})

    assert isinstance(said, ActivityOccurred)
    assert (said.kind, said.by, said.email) == (kind, by, "ada@initech.example")
    assert said.actor_kind == ("automation" if by == "marketing" else None)
    activity = validate_document(ACTIVITIES, build_activities("s", said, {})[0], NOW).value
    assert activity is not None
    assert activity.actor_kind == said.actor_kind


@pytest.mark.parametrize(("told", "kind"), [("agent", "agent"), ("person", "person"), ("robot", None), (1, None)])
def test_cloudevent_may_tell_who_acted(told: Any, kind: str | None) -> None:
    data = {"email": "ada@initech.example", "actor_kind": told}
    event = {"specversion": "1.0", "id": "a1", "source": "/crm", "type": "email.sent", "data": data}

    [said] = parse_events("cloudevents", event, content_type="application/cloudevents+json")

    assert isinstance(said, ActivityOccurred)
    assert (said.kind, said.actor_kind) == ("email.sent", kind)


def test_mautic_form_values_override_contact_values() -> None:
    event = {
        "submission": {
            "id": 9,
            "lead": mautic_contact("ada@initech.example", firstname="Ada"),
            "results": {"email": "ada@initech.example", "company": "Initech", "budget": "high", "f_name": ""},
            "referer": "https://initech.example/demo",
            "dateSubmitted": "2017-06-19T09:33:58+00:00",
        }
    }

    [said] = parse_events("mautic", {"mautic.form_on_submit": [event]})

    document = map_submission_of("mautic", said)
    assert (document["email"], document["company"], document["first_name"]) == ("ada@initech.example", "Initech", "Ada")
    assert document["attributes"] == {"budget": "high"}
    assert document["campaign"] == {"referrer": "https://initech.example/demo"}


def test_mautic_event_without_contact_is_ignored_or_unreadable() -> None:
    deleted = {"mautic.lead_post_delete": [{"id": 52, "contact": mautic_contact(None)}]}
    [said] = parse_events("mautic", deleted)
    assert isinstance(said, Deleted)
    assert (said.external_id, said.erase) == ("52", False)
    assert parse_events("mautic", deleted, {"on_deletion": "erase"})[0].erase  # type: ignore[union-attr]
    assert isinstance(parse_events("mautic", {"mautic.lead_company_change": [{}]})[0], Ignored)
    assert isinstance(parse_events("mautic", {"mautic.email_on_open": [{}]})[0], Unreadable)
    assert isinstance(parse_events("mautic", {"timestamp": "x"})[0], Unreadable)
    assert isinstance(parse_events("mautic", [])[0], Unreadable)


# Mailchimp


def mailchimp(**changes: str) -> dict[str, Any]:
    return parse_form(
        urlencode(
            {
                **MAILCHIMP,
                **{name.replace("__", "[") + ("]" if "__" in name else ""): value for name, value in changes.items()},
            }
        )
    )


def test_a_subscriber_of_mailchimp_becomes_a_submission() -> None:
    [said] = parse_events("mailchimp", mailchimp())

    assert map_submission_of("mailchimp", said) == {
        "external_id": "8a25ff1d98",
        "email": "ada@initech.example",
        "first_name": "Ada",
        "last_name": "Byron",
        "attributes": {"EMPLOYEES": "250"},
        "occurred_at": "2025-01-24T15:30:00+00:00",
    }
    mapping, errors = validate_mapping({"fields": {"attributes.employee_count": "/data/merges/EMPLOYEES"}})
    assert errors == []
    assert map_submission_of("mailchimp", said, mapping)["attributes"] == {"employee_count": "250"}


def test_who_leaves_mailchimp_withdraws_consent() -> None:
    [said] = parse_events("mailchimp", mailchimp(type="unsubscribe", data__reason="manual"))
    assert isinstance(said, ActivityOccurred)
    assert (said.kind, said.by, said.email, said.properties["reason"]) == (
        "consent.withdrawn",
        "lead",
        "ada@initech.example",
        "manual",
    )
    [said] = parse_events("mailchimp", mailchimp(type="cleaned", data__reason="hard"))
    assert isinstance(said, ActivityOccurred)
    assert said.kind == "email.bounced"


def test_a_new_address_in_mailchimp_joins_both_addresses() -> None:
    validated = {
        "type": "upemail",
        "fired_at": "2025-01-24 15:30:00",
        "data[new_id]": "51da8c3259",
        "data[new_email]": "ada.new@initech.example",
        "data[old_email]": "ada@initech.example",
    }

    said = parse_events("mailchimp", parse_form(urlencode(validated)))

    assert [(one["email"], one["external_id"]) for one in (map_submission_of("mailchimp", each) for each in said)] == [
        ("ada@initech.example", "51da8c3259"),
        ("ada.new@initech.example", "51da8c3259"),
    ]
    assert len({one.event_id for one in said}) == 2


def test_other_mailchimp_events_are_ignored_or_unreadable() -> None:
    assert isinstance(parse_events("mailchimp", mailchimp(type="campaign"))[0], Ignored)
    assert isinstance(parse_events("mailchimp", mailchimp(type="something"))[0], Unreadable)
    assert isinstance(parse_events("mailchimp", {"type": "unsubscribe"})[0], Unreadable)
    assert isinstance(parse_events("mailchimp", {"type": "upemail"})[0], Unreadable)
    assert isinstance(parse_events("mailchimp", {})[0], Unreadable)


# Typeform


def test_a_response_of_typeform_becomes_a_submission() -> None:
    [said] = parse_events("typeform", TYPEFORM)

    assert said.event_id == "LtWXD3crgy"
    assert map_submission_of("typeform", said) == {
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

    found = map_submission_of("typeform", parse_events("typeform", document)[0])

    assert found["phone"] == "+12025550143"
    assert found["attributes"]["many"] == ["a", "b", "c"]
    assert found["attributes"]["one"] == "mine"
    assert "paid" not in found["attributes"]


def test_partial_typeform_response_is_ignored_or_unreadable() -> None:
    assert isinstance(parse_events("typeform", {**TYPEFORM, "event_type": "form_response_partial"})[0], Ignored)
    assert isinstance(parse_events("typeform", {"event_id": "x", "event_type": "form_response"})[0], Unreadable)


# Meta and LinkedIn


def test_a_lead_ad_of_meta_is_fetched() -> None:
    said = parse_events("meta-lead-ads", META)
    change = META["entry"][0]["changes"][0]  # type: ignore[index]
    assert said == [RecordReference("5545", "5545", {"id": "5545"}, change, 1447342026)]

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


def test_meta_handshake_needs_verify_token() -> None:
    adapter = ADAPTERS["meta-lead-ads"]
    assert adapter.handshake is not None

    def greeted(**query: str) -> Any:
        said = HookRequest("GET", "", {name.replace("_", ".", 1): value for name, value in query.items()}, {})
        assert adapter.handshake is not None
        return adapter.handshake(said, {"verify": [b"new", b"old"]}, adapter.settings())

    answer = greeted(hub_mode="subscribe", hub_challenge="1158201444", hub_verify_token="old")
    assert (answer.status, answer.body, answer.media_type) == (200, "1158201444", "text/plain")
    assert greeted(hub_mode="subscribe", hub_challenge="1", hub_verify_token="wrong") == "wrong"
    assert greeted(hub_mode="subscribe", hub_challenge="1") == "missing"
    assert greeted(hub_mode="unsubscribe", hub_challenge="1", hub_verify_token="new") == "missing"
    assert greeted(hub_mode="subscribe", hub_challenge="1" * 201, hub_verify_token="new") == "missing"
    assert adapter.handshake(HookRequest("GET", "", {}, {}), {}, adapter.settings()) == "no-secret"


def test_a_response_of_linkedin_is_fetched_with_its_form() -> None:
    [said] = parse_events("linkedin-lead-gen", LINKEDIN)
    assert isinstance(said, RecordReference)
    assert said.external_id == "1a2b3c-4"
    assert said.reference == {"id": "1a2b3c-4", "form": "3162"}

    adapter = ADAPTERS["linkedin-lead-gen"]
    assert adapter.fetch is not None
    first = adapter.fetch.next_request(said.reference, {}, adapter.settings())
    assert first is not None
    assert first.url == "https://api.linkedin.com/rest/leadFormResponses/1a2b3c-4"
    assert first.headers["x-restli-protocol-version"] == "2.0.0"
    second = adapter.fetch.next_request(said.reference, {"record": {}}, adapter.settings())
    assert second is not None
    assert (second.url, second.optional) == ("https://api.linkedin.com/rest/leadForms/3162", True)
    assert adapter.fetch.next_request(said.reference, {"record": {}, "form": None}, adapter.settings()) is None


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
        validated=None,
    )
    assert (by_settings["email"], by_settings["first_name"]) == ("ada@initech.example", "Ada")


def test_a_response_that_was_deleted_at_linkedin_erases() -> None:
    [said] = parse_events("linkedin-lead-gen", {**LINKEDIN, "leadAction": "DELETED"})
    assert isinstance(said, Deleted)
    assert (said.external_id, said.erase) == ("1a2b3c-4", True)
    assert said.event_id != parse_events("linkedin-lead-gen", LINKEDIN)[0].event_id
    assert isinstance(parse_events("linkedin-lead-gen", {"type": "OTHER"})[0], Ignored)
    assert isinstance(parse_events("linkedin-lead-gen", {"type": "LEAD_ACTION"})[0], Unreadable)


# Segment


def test_an_identify_of_segment_becomes_a_submission() -> None:
    [said] = parse_events("segment", SEGMENT)

    assert said.event_id == "022bb90c-bbac-11e4-8dfc-aa07a5b093db"
    assert map_submission_of("segment", said) == {
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

    [said] = parse_events("segment", message, {"events": {"Quote": "quote.asked", "Noise": "ignore"}})

    assert isinstance(said, ActivityOccurred)
    assert (said.kind, said.external_id, said.campaign) == (kind, "97980cfea0067", {"name": "spring", "medium": "cpc"})
    validated = validate_document(ACTIVITIES, build_activities("s", said, {"campaign.term": "crm"})[0], NOW)
    assert validated.value is not None
    assert validated.value.campaign is not None
    assert validated.value.campaign.term == "crm"


def test_anonymous_segment_event_is_ignored() -> None:
    def said(**changes: Any) -> ToolEvent:
        return parse_events(
            "segment", {**SEGMENT, "traits": {}, "context": {}, **changes}, {"events": {"Noise": "ignore"}}
        )[0]

    assert said(type="track", event="Page Seen", userId=None) == Ignored(SEGMENT["messageId"], "anonymous")  # type: ignore[arg-type]
    assert isinstance(said(type="alias"), Ignored)
    assert isinstance(said(type="track", event="Noise"), Ignored)
    assert isinstance(said(type="track", event="!!!"), Unreadable)
    assert isinstance(said(type="track", event="x", userId=None, anonymousId=None), Unreadable)
    deleted = said(type="delete")
    assert isinstance(deleted, Deleted)
    assert deleted.erase


def test_address_among_the_properties_of_a_known_user_is_somebody_elses() -> None:
    invited = {"type": "track", "event": "Invite Sent", "messageId": "m", "properties": {"email": "b@initech.example"}}
    for changes, email in (({"userId": "a"}, None), ({"anonymousId": "a"}, "b@initech.example")):
        [said] = parse_events("segment", {**invited, **changes})
        assert isinstance(said, ActivityOccurred)
        assert said.email == email


def test_segment_may_send_a_batch() -> None:
    messages = [SEGMENT, {**SEGMENT, "messageId": "other", "type": "page"}]
    for body in ({"batch": messages}, messages):
        assert [type(one) for one in parse_events("segment", body)] == [Submitted, ActivityOccurred]


# Senders whose body the customer writes


def test_own_bodies_need_no_mapping_where_they_use_our_names() -> None:
    [said] = parse_events("generic", OWN, idempotency_key="order-1")

    assert said.event_id.startswith("order-1:")
    assert map_submission_of("generic", said, **{"campaign.medium": "email"}) == {
        "email": "ada@initech.example",
        "first_name": "Ada",
        "campaign": {"name": "spring", "medium": "email"},
        "attributes": {"employee_count": 250},
    }


def test_own_bodies_are_mapped_by_pointers() -> None:
    mapping, errors = validate_mapping(
        {"fields": {"email": "/lead/mail", "attributes.size": "/lead/n", "consent.basis": {"const": "consent"}}}
    )
    assert errors == []
    document = {"lead": {"mail": "ada@initech.example", "n": 3}}

    for tool in ("generic", "marketo"):
        [said] = parse_events(tool, document)
        assert map_submission_of(tool, said, mapping) == {
            "email": "ada@initech.example",
            "attributes": {"size": 3},
            "consent": {"basis": "consent", "assumed": True},
        }


def test_own_events_have_an_id_by_pointer_key_or_content() -> None:
    assert parse_events("generic", {"n": 5}, {"event_id": "/n"}, idempotency_key="k")[0].event_id == "5"
    ids = {
        one.event_id
        for body in ([{"n": 5}, {"n": 6}], {"n": 5})
        for one in parse_events("generic", body, idempotency_key="k")
    }
    assert len(ids) == 2
    assert all(one.startswith("k:sha256:") for one in ids)
    assert [
        one.event_id
        for one in parse_events("generic", {"all": [{"n": 1}, {"n": 2}]}, {"events": "/all", "event_id": "/n"})
    ] == ["1", "2"]
    assert parse_events("generic", {"n": 5})[0].event_id == parse_events("generic", {"n": 5})[0].event_id
    assert parse_events("generic", {"n": 5})[0].event_id != parse_events("generic", {"n": 6})[0].event_id
    long = parse_events("generic", {"n": "x" * 500}, {"event_id": "/n"})[0].event_id
    assert long.startswith("sha256:")


# All of them


@pytest.mark.parametrize(
    ("tool", "document"),
    [
        ("cloudevents", {"batch": []}),
        ("cloudevents", 5),
        ("hubspot", {}),
        ("hubspot", "x"),
        ("hubspot", [None]),
        ("hubspot", [hubspot_event("contact.creation", objectId=None)]),
        ("hubspot", [hubspot_event("contact.renamed")]),
        ("mautic", {"other.event": [{"id": 1}]}),
        ("mautic", {"mautic.something_new": [{"id": 1}]}),
        ("mautic", {}),
        ("mautic", {"mautic.lead_post_save_new": []}),
        ("typeform", {"event_type": "form_answer"}),
        ("meta-lead-ads", {"object": "page"}),
        ("meta-lead-ads", {"entry": [{"id": 1, "messaging": [{}]}]}),
        ("meta-lead-ads", {"entry": [{"changes": [{"value": {"leadgen_id": 1}}]}]}),
        ("linkedin-lead-gen", []),
        ("linkedin-lead-gen", {**LINKEDIN, "leadAction": "UPDATED"}),
        ("segment", {"batch": {"type": "identify"}}),
        ("segment", {"type": "identity"}),
        ("segment", [["identify"]]),
        ("standard-webhooks", [STANDARD]),
    ],
)
def test_what_is_not_understood_is_kept_and_not_ignored(tool: str, document: Any) -> None:
    said = parse_events(tool, document, content_type="application/cloudevents-batch+json")
    assert [type(one) for one in said] == [Unreadable]


def test_body_without_events_at_their_place_is_kept_whole() -> None:
    [said] = parse_events("generic", {"records": [{"email": "a@initech.example"}]}, {"events": "/leads"})
    assert isinstance(said, Unreadable)
    assert said.content == {"records": [{"email": "a@initech.example"}]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(TOOLS)), JSON)
def test_no_document_makes_an_adapter_fail(tool: str, document: Any) -> None:
    for said in parse_events(tool, document):
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

    for said in parse_events(tool, document):
        if isinstance(said, Submitted):
            view = PayloadMapper.build(ADAPTERS[tool], FieldMapping(), {}).map_submission(said.view)
            validate_document(SUBMISSIONS, {**view, "source": "s"}, NOW)
        elif isinstance(said, ActivityOccurred):
            validate_document(ACTIVITIES, build_activities("s", said, {})[0], NOW)


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

    validated = validate_document(SUBMISSIONS, document, NOW)

    assert validated.value is not None
    assert {one.pointer for one in validated.left_out} == {
        "/title",
        "/campaign/name",
        "/campaign/cost",
        "/consent",
        "/attributes/long",
        "/attributes/9bad",
        "/occurred_at",
    }
    assert validated.value.attributes == {"good": 1}
    assert validated.value.campaign is not None
    assert validated.value.campaign.medium == "cpc"
    assert document["title"] == "x" * 501, "what was handed in stays as it is"


def test_a_time_ahead_of_ours_is_left_out() -> None:
    validated = validate_document(
        SUBMISSIONS, {"source": "s", "email": "a@b.example", "occurred_at": "2026-01-04T18:00:00Z"}, NOW
    )
    assert validated.value is not None
    assert (validated.value.occurred_at, [one.pointer for one in validated.left_out]) == (None, ["/occurred_at"])


def test_document_without_identity_is_invalid_and_errors_quote_nothing() -> None:
    validated = validate_document(SUBMISSIONS, {"source": "s", "first_name": "Ada", "email": "x" * 600}, NOW)
    assert validated.value is None
    assert "Ada" not in validated.errors
    assert "xxx" not in validated.errors


def test_forms_are_nested_by_their_brackets() -> None:
    validated = (
        "a=1&b[c]=2&b[d][e]=3&f[]=4&f[]=5&g=6&g=7&h[=8&i]=9&=10&j%20k=l+m&b=x&n[o]&a[p]=11&%C3%A9[%C3%A9]=%E2%82%AC"
    )
    assert parse_form(validated) == {
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
    with pytest.raises(InvalidForm):
        parse_form("&".join(f"a{number}=1" for number in range(2_001)))


@given(st.text(max_size=200))
def test_no_text_makes_a_form_fail(text: str) -> None:
    parse_form(text)


def test_names_of_attributes_are_made_fit() -> None:
    assert [attribute_name(name) for name in ("Company size?", "9 lives", "ünïcode", "!!", "x" * 99)] == [
        "Company_size",
        "lives",
        "n_code",
        None,
        "x" * 64,
    ]
