"""A cursor gives back the place that it was made of, and only as the types of its own list."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.http.paging import decode_cursor, decode_single_cursor, encode_cursor, make_page
from accord.http.problems import Problem

moments = st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive there
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=50)


@given(moments, st.uuids(), st.integers(-(2**63) + 1, 2**63 - 1), texts)
def test_a_place_comes_back_as_it_was(at: datetime, id_: UUID, number: int, text: str) -> None:
    assert decode_cursor(encode_cursor(at, number, id_), datetime, int, UUID) == (at, number, id_)
    assert decode_single_cursor(encode_cursor(text), str) == text
    assert decode_single_cursor(None, UUID) is None


def cursor_of(*place: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode()


@pytest.mark.parametrize(
    ("cursor", "kind"),
    [
        (cursor_of("abc"), UUID),
        (cursor_of(7), UUID),
        (cursor_of("2027-01-01"), datetime),
        (cursor_of("2027-01-01T00:00:00"), datetime),
        (cursor_of("0001-01-01T00:00:00+23:00"), datetime),
        (cursor_of("9999-12-31T23:59:59Z"), datetime),
        (cursor_of("7"), int),
        (cursor_of(True), int),
        (cursor_of(2**63), int),
        (cursor_of(1.5), int),
        (cursor_of(None), str),
        (cursor_of("a\x00b"), str),
        (cursor_of("a", "b"), str),
        (cursor_of(), str),
        ("é", str),
        ("{}", str),
        ("A" * 1_001, str),
    ],
)
def test_what_is_no_cursor_of_the_list_is_refused(cursor: str, kind: type[UUID]) -> None:
    with pytest.raises(Problem) as refused:
        decode_single_cursor(cursor, kind)
    assert refused.value.status == 422
    assert refused.value.errors[0]["parameter"] == "cursor"


def test_a_page_ends_with_the_place_of_its_last_item_if_there_is_more() -> None:
    ids = [uuid4() for _ in range(3)]
    items, cursor = make_page(ids, 2, lambda id_: id_)
    assert items == ids[:2]
    assert decode_single_cursor(cursor, UUID) == ids[1]
    assert make_page(ids, 3, lambda id_: id_) == (ids, None)
