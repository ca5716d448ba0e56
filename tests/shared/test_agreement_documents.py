"""Reading an agreement: JSON and YAML give the same content and hash, and what could mean two things is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from accord.agreements.diff import diff
from accord.agreements.documents import DEPTH_MAX, UnreadableDocument, document, read
from accord.http.problems import pointer

TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not 2**53 <= abs(x) < 1e21)
    | TEXT
    | st.sampled_from(
        ["on", "no", "2027-01-01", "09:00", "1_000", "0x10", "1e3", "~", "null", "true", ".inf", "<<", "=", "é"]
    )
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=15
)
CONTENTS = st.dictionaries(TEXT, VALUES, max_size=6)


@given(CONTENTS)
def test_json_and_yaml_of_one_content_have_one_hash(content: dict[str, Any]) -> None:
    from_json = read(json.dumps(content).encode(), yaml_text=False)
    indented = read(json.dumps(content, indent=3, ensure_ascii=False, sort_keys=True).encode(), yaml_text=False)
    assert from_json == indented
    assert from_json == document(from_json.content)
    assert from_json.content == json.loads(json.dumps(content))


@given(CONTENTS)
def test_json_is_yaml_too(content: dict[str, Any]) -> None:
    # ASCII escapes: YAML allows fewer characters in plain than JSON does; surrogate pairs are JSON's alone.
    text = json.dumps(content)
    if "\\ud" not in text:
        assert read(text.encode(), yaml_text=True).sha256 == read(text.encode(), yaml_text=False).sha256


def test_yaml_is_read_as_it_is_written() -> None:
    text = """
    gate: {on: capture, off: no, y: yes}
    day: 2027-12-24
    at: 2027-01-04T09:30:00-06:00
    week: {mon-fri: [09:00-12:00, 13:00]}
    country: NO
    numbers: [1, -2, 1.5, 1e3, .5, 1_000, 0x10, 010, +7]
    words: [true, True, null, ~, "", "true", 'null', !!str 12]
    merge: {<<: here}
    1: one
    null: nothing
    """
    assert read(text.encode(), yaml_text=True).content == {
        "gate": {"on": "capture", "off": "no", "y": "yes"},
        "day": "2027-12-24",
        "at": "2027-01-04T09:30:00-06:00",
        "week": {"mon-fri": ["09:00-12:00", "13:00"]},
        "country": "NO",
        "numbers": [1, -2, 1.5, 1000, 0.5, "1_000", "0x10", 10, 7],
        "words": [True, True, None, None, "", "true", "null", "12"],
        "merge": {"<<": "here"},
        "1": "one",
        "null": "nothing",
    }


def test_the_hash_is_that_of_rfc_8785() -> None:
    read_ = read(b'{"b": 1.0, "a": "\\u20ac", "c": [1E30, 4.50, 2e-3]}', yaml_text=False)
    assert read_.canonical == '{"a":"€","b":1,"c":[1e+30,4.5,0.002]}'


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "Aliases"),
        ("a: &a x\nb: *a", "Aliases"),
        ("a: !!python/object/apply:os.system [ls]", "Tags"),
        ("a: !!binary aGk=", "Tags"),
        ("a: !thing x", "Tags"),
        ("a: 1\na: 2", "twice"),
        ("a: {b: 1, b: 2}", "twice"),
        ("[a, b]", "mapping"),
        ("just text", "mapping"),
        ("", "mapping"),
        ("a: .inf", "finite"),
        ("a: 1e999", "finite"),
        ("a: 9007199254740993", "2\\^53"),
        ("a: 9007199254740992.0", "2\\^53"),
        ("a: 1e20", "2\\^53"),
        ("a: " + "9" * 5_000, "digits"),
        ("? [a, b]\n: c", "not text"),
        ("? {a: b}\n: c", "not text"),
        ("a: 1\n---\nb: 2", "more than one"),
        ("a: [1", "YAML"),
        ("a: b: c", "YAML"),
        ("\ta: 1", "YAML"),
        ("a: " + "[" * 100_000, "deeper"),
        ("a: " + "[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), "deeper"),
        ('a: "\\0"', "NUL"),
        ("a: [" + "1," * 300_000 + "]", "values"),
        ("a: '" + "x" * 1_100_000 + "'", "bytes"),
    ],
)
def test_what_yaml_may_not_hold(text: str, why: str) -> None:
    with pytest.raises(UnreadableDocument, match=why):
        read(text.encode(), yaml_text=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "finite"),
        (b'{"a": 1e400}', "finite"),
        (b'{"a": 9007199254740992}', "2\\^53"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "digits"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": ' + b"[" * 50_000, "deeper"),
        (b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}", "deeper"),
        (b"[]", "mapping"),
        (b"\xff", "UTF-8"),
        (b"{", "JSON"),
    ],
)
def test_what_json_may_not_hold(text: bytes, why: str) -> None:
    with pytest.raises(UnreadableDocument, match=why):
        read(text, yaml_text=False)


@given(
    st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.booleans(),
)
def test_any_bytes_are_read_or_refused(body: bytes, yaml_text: bool) -> None:
    try:
        found = read(body, yaml_text=yaml_text)
    except UnreadableDocument:
        return
    assert read(found.canonical.encode(), yaml_text=False) == found


@given(CONTENTS)
def test_text_that_another_writer_quotes_is_read_as_text(content: dict[str, Any]) -> None:
    words = {name: str(value) for name, value in content.items()}
    text = yaml.safe_dump(words, allow_unicode=True, default_style='"').encode()
    assert read(text, yaml_text=True).content == words


# -- differences ------------------------------------------------------------------------------------------------------


@given(CONTENTS)
def test_a_content_does_not_differ_from_itself(content: dict[str, Any]) -> None:
    assert diff(content, content) == []


@given(CONTENTS, CONTENTS)
def test_applying_the_differences_turns_one_content_into_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    changes = diff(old, new)
    assert (changes == []) == (json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True))
    back = diff(new, old)
    assert {(c.path, c.change) for c in back} == {
        (c.path, {"added": "removed", "removed": "added"}.get(c.change, c.change)) for c in changes
    }


def test_elements_with_a_key_are_compared_by_it() -> None:
    old = {"clauses": [{"key": "a", "n": 1}, {"key": "b", "n": 1}, {"key": "c", "n": 1}]}
    new = {"clauses": [{"key": "d", "n": 1}, {"key": "c", "n": 1}, {"key": "a", "n": 2}]}
    assert [(c.path, c.change, c.old, c.new) for c in diff(old, new)] == [
        ("/clauses/a/n", "changed", 1, 2),
        ("/clauses/b", "removed", {"key": "b", "n": 1}, None),
        ("/clauses/d", "added", None, {"key": "d", "n": 1}),
        ("/clauses", "changed", ["a", "b", "c"], ["d", "c", "a"]),
    ]


def test_other_lists_are_compared_by_place_and_names_are_escaped() -> None:
    found = diff({"a/b": [1, True, 3]}, {"a/b": [1, 1], "~": None})
    assert [(c.path, c.change) for c in found] == [("/a~1b/1", "changed"), ("/a~1b/2", "removed"), ("/~0", "added")]
    assert pointer(("a/b", 1)) == "/a~1b/1"
