"""The envelope: CloudEvents in Kafka binary mode, what is refused, and that no error quotes the data."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import TypeAdapter, ValidationError
from tests.effort import cases

from accord.contracts.base import EVENT_TYPES, EventData
from accord.contracts.codec import InvalidValue, decode_value, encode_value, from_object, to_object
from accord.contracts.envelope import (
    Event,
    MalformedEvent,
    UnknownEventType,
    canonical,
    decode,
    decode_data,
    encode,
    headers_of,
)
from accord.contracts.examples import EXAMPLES
from accord.contracts.external_key import external_key
from accord.contracts.intake_events import LeadCaptured, LeadState
from accord.contracts.models import model_of
from accord.contracts.schemas import example_event
from accord.contracts.values import (
    MOMENT_MAX,
    MOMENT_MIN,
    Attributes,
    Day,
    DecimalText,
    Money,
    SourceName,
    Timestamp,
    utc,
)

TYPES = sorted(EVENT_TYPES)
SECRET = "ada@initech.example"
CAPTURED = example_event("lead.captured.v1")


def record(event: Event = CAPTURED) -> tuple[bytes, dict[str, bytes]]:
    _, value, headers = encode(event)
    return value, dict(headers)


def refusal(value: bytes | None, headers: Any) -> str:
    with pytest.raises(MalformedEvent) as refused:
        decode(value, list(headers.items()))
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return str(refused.value)


@pytest.mark.parametrize("type_", TYPES)
def test_every_event_comes_back_from_its_record(type_: str) -> None:
    event = example_event(type_)
    key, value, headers = encode(event)
    assert decode(value, headers) == event
    assert key.decode() == event.data.key
    assert json.loads(canonical(event.data)) == json.loads(value)


def test_a_record_is_a_cloud_event_in_binary_mode() -> None:
    key, value, headers = encode(CAPTURED)
    assert key == b"01a2e152-58c0-7000-8000-000000000001"
    assert json.loads(value)["lead_id"] == key.decode()
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": str(CAPTURED.id).encode(),
        "ce_type": b"lead.captured.v1",
        "ce_source": b"/intake",
        "ce_subject": key,
        "ce_time": b"2027-01-04T15:30:00+00:00",
        "content-type": b"application/json",
        "traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }


def test_a_header_without_value_is_left_out() -> None:
    headers = headers_of(id=UUID(int=1), type="t", source="/s", subject="k", time=utc(2027, 1, 1), traceparent=None)
    assert "traceparent" not in dict(headers)
    value, found = record()
    del found["traceparent"]
    assert decode(value, list(found.items())).traceparent is None


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_type", "ce_source"])
def test_a_missing_unreadable_or_null_header_is_named(name: str) -> None:
    value, headers = record()
    assert name in refusal(value, {key: given for key, given in headers.items() if key != name})
    assert name in refusal(value, {**headers, name: b"\xff\xfe"})
    assert name in refusal(value, {**headers, name: None})


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("ce_id", SECRET.encode()),
        ("ce_specversion", b"0.3"),
        ("content-type", b"application/cloudevents+json"),
        ("content-type", b"text/plain"),
    ],
)
def test_a_header_that_does_not_fit_is_named(name: str, given: bytes) -> None:
    value, headers = record()
    assert name in refusal(value, {**headers, name: given})


def test_other_headers_and_a_charset_do_no_harm() -> None:
    value, headers = record()
    assert decode(value, list({**headers, "content-type": b"application/json; charset=utf-8", "x": b"\xff"}.items()))
    del headers["content-type"]
    assert decode(value, list(headers.items())) == CAPTURED


def test_an_unknown_type_is_distinguished_from_a_malformed_event() -> None:
    value, headers = record()
    with pytest.raises(UnknownEventType, match=r"lead\.sold\.v9"):
        decode(value, list({**headers, "ce_type": b"lead.sold.v9"}.items()))
    with pytest.raises(UnknownEventType) as unknown:
        decode(value, list({**headers, "ce_type": b"x" * 100_000}.items()))
    assert len(str(unknown.value)) <= 100


def altered(**fields: Any) -> bytes:
    return json.dumps({**to_object(CAPTURED.data), **fields}).encode()


STATE = to_object(CAPTURED.data)["state"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (None, "(root): json_invalid"),
        (b"", "(root): json_invalid"),
        (b"{", "(root): json_invalid"),
        (b'{"lead_id": "\xff"}', "(root): json_invalid"),
        (b"[" * 100_000, "(root): json_invalid"),
        (b"[]", "(root): "),
        (b'"' + SECRET.encode() + b'"', "(root): "),
        (altered(lead_id=SECRET), "/lead_id: uuid_parsing"),
        (altered(sequence=0), "/sequence: greater_than_equal"),
        (altered(occurred_at=SECRET), "/occurred_at: timestamp"),
        (altered(occurred_at=1_700_000_000), "/occurred_at: timestamp"),
        (altered(occurred_at="1700000000"), "/occurred_at: timestamp"),
        (altered(occurred_at="2027-01-04T15:30:00"), "/occurred_at: timezone_aware"),
        (altered(occurred_at="0001-01-01T00:00:00+01:00"), "/occurred_at: timestamp_range"),
        (altered(state={**STATE, "verdict": SECRET}), "/state/verdict: literal_error"),
        (altered(state={**STATE, "attributes": {SECRET: {"deep": SECRET}}}), "/state/attributes/*"),
        (altered(state={**STATE, "attributes": {"a": float("nan")}}), "/state/attributes/*"),
        (altered(state={**STATE, "external_keys": [SECRET]}), "/state/external_keys/0: string_pattern_mismatch"),
        (
            altered(state={**STATE, "campaign": {"cost": {"amount": "1e999999999", "currency": "USD"}}}),
            "/state/campaign",
        ),
    ],
)
def test_data_that_does_not_fit_is_pointed_at_and_never_quoted(value: bytes | None, place: str) -> None:
    said = refusal(value, record()[1])
    assert said.startswith("lead.captured.v1: ")
    assert place in said


def test_a_message_names_ten_problems_at_most() -> None:
    bad = altered(state={**STATE, "external_keys": ["x"] * 500})
    assert refusal(bad, record()[1]).count("external_keys") == 10


@settings(max_examples=cases(200), deadline=None)
@given(st.sampled_from(TYPES), st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_make_decoding_fail_in_another_way(type_: str, value: bytes) -> None:
    with pytest.raises(MalformedEvent):
        decode_data(type_, value)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=50))
def test_text_of_any_language_travels(word: str) -> None:
    state = replace(CAPTURED.data, state=from_object(LeadState, {**STATE, "attributes": {"industry": word}}))
    event = Event(CAPTURED.id, CAPTURED.source, state, None)
    _, value, headers = encode(event)
    assert decode(value, headers) == event


@pytest.mark.parametrize("type_", TYPES)
def test_a_field_that_a_newer_version_added_is_ignored_by_consumers_and_forbidden_to_producers(type_: str) -> None:
    data = to_object(EXAMPLES[type_])
    grown = json.dumps({**data, "added_later": SECRET}).encode()
    assert decode_data(type_, grown) == EXAMPLES[type_]
    with pytest.raises(TypeError, match="Unexpected keyword argument 'added_later'"):
        EVENT_TYPES[type_](**data, added_later=1)
    with pytest.raises(ValidationError, match="Extra inputs"):
        TypeAdapter(EVENT_TYPES[type_]).validate_python({**data, "added_later": 1})


def test_a_field_that_a_newer_version_added_inside_is_ignored_too() -> None:
    grown = altered(state={**STATE, "added_later": 1})
    assert decode_data("lead.captured.v1", grown) == CAPTURED.data


@pytest.mark.parametrize("type_", TYPES)
def test_msgspec_and_pydantic_read_the_same_event(type_: str) -> None:
    text = encode_value(EXAMPLES[type_])
    assert (
        TypeAdapter(EVENT_TYPES[type_]).validate_json(text) == EXAMPLES[type_] == decode_value(EVENT_TYPES[type_], text)
    )


def moments_in(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a JSON document holds a moment or a date."""
    if isinstance(document, dict):
        for name, part in document.items():
            yield from moments_in(part, (*path, name))
    elif isinstance(document, str) and re.fullmatch(r"\d{4}-\d\d-\d\d(T.*)?", document):
        yield path


@pytest.mark.parametrize("type_", TYPES)
def test_every_moment_of_an_event_is_bounded(type_: str) -> None:
    paths = [path for path in moments_in(to_object(EXAMPLES[type_])) if path[0] != "content"]
    assert len(paths) >= 2
    for path in paths:
        document = to_object(EXAMPLES[type_])
        part = document
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = "2200-01-01" + part[path[-1]][10:]
        with pytest.raises(MalformedEvent, match="/" + "/".join(path)):
            decode_data(type_, json.dumps(document).encode())


@pytest.mark.parametrize("type_", TYPES)
def test_events_never_change(type_: str) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        EXAMPLES[type_].recorded_at = utc(2027, 1, 1)


def test_a_type_has_one_class() -> None:
    from accord.contracts.base import event

    class Second(LeadCaptured, frozen=True):
        pass

    with pytest.raises(ValueError, match="registered twice"):
        event(Second)
    with pytest.raises(TypeError, match="has no key"):
        _ = EventData(occurred_at=utc(2027, 1, 1), recorded_at=utc(2027, 1, 1)).key


# Values.


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-6)), timezone(timedelta(hours=14))])))
def test_a_moment_is_held_in_utc_or_refused(at: datetime) -> None:
    try:
        held = TypeAdapter(Timestamp).validate_python(at)
    except ValidationError:
        assert not MOMENT_MIN <= at <= MOMENT_MAX
    else:
        assert MOMENT_MIN <= at <= MOMENT_MAX
        assert held == at
        assert held.tzinfo is UTC


ENDS_OF_TIME = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "1969-12-31T23:59:59.999999Z",
    "1970-01-01T00:59:59+01:00",
    "2200-01-01T00:00:00Z",
    "2199-12-31T23:59:59-00:01",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
]


@pytest.mark.parametrize("text", ENDS_OF_TIME)
def test_moment_outside_range_is_refused_with_the_range(text: str) -> None:
    for value in (text, datetime.fromisoformat(text)):
        with pytest.raises(ValidationError) as refused:
            TypeAdapter(Timestamp).validate_python(value)
        assert refused.value.errors()[0]["msg"] == "must be a time from 1970-01-01 to 2199-12-31"


def test_first_and_last_moment_of_range_are_taken() -> None:
    for at in (MOMENT_MIN, MOMENT_MAX):
        assert TypeAdapter(Timestamp).validate_python(at.isoformat()) == at
        assert TypeAdapter(Day).validate_python(at.date().isoformat()) == at.date()


@pytest.mark.parametrize("value", ["0001-01-01", "1969-12-31", "2200-01-01", "9999-12-31", date.min, date.max])
def test_date_outside_range_is_refused_with_the_range(value: str | date) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(Day).validate_python(value)
    assert refused.value.errors()[0]["msg"] == "must be a date from 1970-01-01 to 2199-12-31"


@pytest.mark.parametrize("value", [1_800_000_000, "1800000000", "2027-01-04T00:00:00", datetime(2027, 1, 4), True])  # noqa: DTZ001
def test_only_a_date_is_a_date(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Day).validate_python(value)


@pytest.mark.parametrize("text", ["0E-999999999", "0E-41", "1E-999999999", "1E+999999999", "Infinity", "NaN", "9" * 41])
def test_decimal_that_would_be_written_at_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="digits"):
        DecimalText(text)
    with pytest.raises(ValidationError):
        from_object(Money, {"amount": text, "currency": "USD"})


def test_decimal_keeps_its_places() -> None:
    for text in ("0.00", "0E-40", "1e-40", "12.50"):
        assert to_object(Money(amount=DecimalText(text), currency="USD"))["amount"] == format(Decimal(text), "f")


def test_attribute_number_that_json_cannot_hold_is_refused_or_a_float() -> None:
    attributes: TypeAdapter[Attributes] = TypeAdapter(Attributes)
    assert attributes.validate_json('{"a": 9007199254740992, "b": 9007199254740993, "c": true}') == {
        "a": 2**53,
        "b": float(2**53),
        "c": True,
    }
    for number in ("1e400", "-1e400", "1" * 400):
        with pytest.raises(ValidationError):
            attributes.validate_json(f'{{"a": {number}}}')


@pytest.mark.parametrize("text", ENDS_OF_TIME)
def test_event_outside_range_is_neither_written_nor_read(text: str) -> None:
    with pytest.raises(InvalidValue, match="occurred_at"):
        encode_value(replace(CAPTURED.data, occurred_at=datetime.fromisoformat(text)))
    value, headers = record()
    assert (
        refusal(json.dumps(json.loads(value) | {"occurred_at": text}).encode(), headers)
        == "lead.captured.v1: /occurred_at: timestamp_range"
    )


def test_an_amount_travels_as_text_digit_for_digit() -> None:
    cost = Money(amount=DecimalText("1E+3"), currency="USD")
    assert encode_value(cost) == b'{"amount":"1000","currency":"USD"}'
    assert to_object(decode_value(Money, '{"amount":"0.10","currency":"USD"}'))["amount"] == "0.10"
    for amount in ("NaN", "Infinity", "1E+100"):
        with pytest.raises(ValidationError):
            decode_value(Money, f'{{"amount":"{amount}","currency":"USD"}}')


@pytest.mark.parametrize("name", ["website", "organic search", "Messe München", "a", "été"])
def test_a_source_is_called_as_the_organisation_writes_it(name: str) -> None:
    assert TypeAdapter(SourceName).validate_python(name) == name


@pytest.mark.parametrize("name", [" a", "a ", "\u200ba", "a\n"])
def test_a_source_is_named_without_what_stands_around_it(name: str) -> None:
    assert TypeAdapter(SourceName).validate_python(name) == "a"


@pytest.mark.parametrize("name", ["", " ", "a:b", SECRET, "a\nb", "a\x1fb", "/intake", "x" * 101])
def test_a_source_is_no_address_and_cannot_be_mistaken_in_a_path(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SourceName).validate_python(name)


def test_an_external_id_travels_as_a_digest_that_tells_sources_apart() -> None:
    assert external_key("website", "42") == "ac18126e851ef95ecadfd26f349e91bb68db8054d2cc812b54f11ee820a87630"
    assert external_key("a", "bc") != external_key("ab", "c")
    assert external_key("website", SECRET).isalnum()


# Personal data.

PERSONAL = {
    *["email", "e_mail", "mail", "phone", "telephone", "mobile", "fax", "address", "street", "city", "postcode", "zip"],
    *[
        "first_name",
        "last_name",
        "full_name",
        "given_name",
        "family_name",
        "middle_name",
        "nickname",
        "person",
        "contact",
    ],
    *[
        "salutation",
        "gender",
        "birthday",
        "birth_date",
        "age",
        "job_title",
        "company",
        "domain",
        "website",
        "url",
        "ip",
    ],
    *[
        "ip_address",
        "user_agent",
        "cookie",
        "linkedin",
        "twitter",
        "note",
        "notes",
        "text",
        "comment",
        "message",
        "body",
    ],
    *[
        "subject",
        "free_text",
        "properties",
        "extra",
        "raw",
        "payload",
        "external_id",
        "landing_page",
        "referrer",
        "name",
    ],
    "title",
}
ALLOWED = {
    ("agreement", "title"): "what a document signed by both departments calls itself; of no lead",
    ("Campaign", "name"): "what marketing calls a campaign; of no lead",
}


@pytest.mark.parametrize("type_", TYPES)
def test_no_event_has_a_field_for_personal_data(type_: str) -> None:
    schema = model_of(EVENT_TYPES[type_]).model_json_schema()
    models = {type_.split(".", maxsplit=1)[0]: schema, **schema.get("$defs", {})}
    fields = {(model, name) for model, part in models.items() for name in part.get("properties", {})}
    assert {(model, name) for model, name in fields if name in PERSONAL} <= ALLOWED.keys()


@pytest.mark.parametrize("type_", TYPES)
def test_only_attributes_and_agreements_have_names_that_the_contract_does_not_know(type_: str) -> None:
    schema = model_of(EVENT_TYPES[type_]).model_json_schema()
    models = {type_: schema, **schema.get("$defs", {})}
    for model, part in models.items():
        for name, field in part.get("properties", {}).items():
            if field.get("type") == "object" and "properties" not in field:
                assert (model, name) in {("LeadState", "attributes"), ("agreement.activated.v1", "content")}
