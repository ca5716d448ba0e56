"""Which events a subscription is about, as pure functions."""

from __future__ import annotations

from uuid import UUID

import pytest

from accord.contracts.codec import to_object
from accord.contracts.examples import EXAMPLES
from accord.contracts.topics import EVENTS_ON, SLA_EVENTS
from accord.notifications.domain.addresses import address_error
from accord.notifications.domain.matching import EventFacts, find_pattern_errors, matches_type
from accord.notifications.domain.model import SETTLING, notification_id, secret_error
from accord.terms.criteria import Criteria, compile_criteria

CAPTURED = to_object(EXAMPLES["lead.captured.v1"])
TYPES = [event.type for event in EVENTS_ON[SLA_EVENTS]]


def holds(criteria: dict, data: dict) -> bool:
    return compile_criteria(Criteria.model_validate(criteria)).holds(EventFacts(data))


@pytest.mark.parametrize(
    ("pattern", "event_type", "fits"),
    [
        ("*", "sla.met.v1", True),
        ("sla.*", "sla.met.v1", True),
        ("sla.*", "slack.met.v1", False),
        ("sla.met.*", "sla.met.v1", True),
        ("sla.met.v1", "sla.met.v1", True),
        ("sla.met.v1", "sla.met.v10", False),
    ],
)
def test_pattern_is_a_type_or_a_prefix(pattern, event_type, fits):
    assert matches_type(pattern, event_type) is fits


def test_pattern_that_fits_no_type_is_found():
    assert [
        error.pointer for error in find_pattern_errors(["sla.*", "sla.nothing.v1", "s*", "*", "lead.*"], TYPES)
    ] == [
        "/event_types/1",
        "/event_types/2",
        "/event_types/4",
    ]


def test_filter_reads_the_events_fields_and_the_leads_public_attributes():
    state = CAPTURED["state"]
    name, value = next(iter(state["attributes"].items()))
    assert holds({"path": f"attributes.{name}", "op": "eq", "value": value}, CAPTURED)
    assert holds({"path": "source", "op": "eq", "value": state["source"]}, CAPTURED)
    assert holds({"path": "campaign.name", "op": "eq", "value": state["campaign"]["name"]}, CAPTURED)
    assert holds({"path": "attributes.lead_id", "op": "eq", "value": CAPTURED["lead_id"]}, CAPTURED)
    assert not holds({"path": "stage", "op": "exists"}, CAPTURED)


def test_own_field_of_an_event_goes_before_an_attribute_of_its_name():
    data = {"owner": "ann", "state": {"attributes": {"owner": "bob"}}}
    assert holds({"path": "attributes.owner", "op": "eq", "value": "ann"}, data)


def test_list_is_asked_by_contains():
    data = {"notify": ["sales-leads", "desk"]}
    assert holds({"path": "attributes.notify", "op": "contains", "value": "desk"}, data)
    assert not holds({"path": "attributes.notify", "op": "contains", "value": "sales"}, data)


@pytest.mark.parametrize("data", [{}, {"state": None}, {"state": {"attributes": None}}, {"campaign": "x"}])
def test_event_without_what_is_asked_fits_not(data):
    for path in ("attributes.x", "source", "campaign.name"):
        assert not holds({"path": path, "op": "eq", "value": "x"}, data)


def test_events_that_settle_a_clock_are_the_sla_monitors():
    assert set(TYPES) >= SETTLING


def test_notification_has_one_id_for_a_subscription_and_an_event():
    subscription, event = UUID(int=1), UUID(int=2)
    assert notification_id(subscription, event) == notification_id(UUID(int=1), UUID(int=2))
    assert notification_id(subscription, event) != notification_id(event, subscription)


@pytest.mark.parametrize("address", ["ann@example.com", "ann.o'neil+x@mail.example.co.uk"])
def test_address_of_mail_is_accepted(address):
    assert address_error("email", address) is None


@pytest.mark.parametrize(
    "address",
    [
        "ann",
        "ann@",
        "@example.com",
        "a b@example.com",
        "ann@example.com\nBcc: x@y.example",
        "ann@localhost",
        "Ann <a@b.example>",
    ],
)
def test_what_is_no_address_of_mail_is_refused(address):
    assert address_error("email", address)


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_?", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "A" * 200, "whsec_MfKQ"]
)
def test_weak_secret_is_refused(secret):
    assert secret_error(secret)


def test_secret_of_the_standards_example_is_accepted():
    assert secret_error("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") is None
