"""Patterns of users: what they match, what is refused and in which words, and what a document may cost with them."""

from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.terms import patterns
from accord.terms.patterns import (
    MATCHED_LENGTH_MAX,
    PATTERN_LENGTH_MAX,
    PATTERNS_MAX,
    SIZE_MAX,
    InvalidPattern,
    check_pattern,
    check_patterns,
    make_matcher,
    make_whole_matcher,
)

STALLING = r"(?:(?:a{0,100}){0,100}){0,5}q"
"""On an engine without a bound on nested repetitions, six seconds for 1,000 letters."""


def reason(pattern: str) -> str:
    with pytest.raises(InvalidPattern) as refused:
        check_pattern(pattern)
    return str(refused.value).removeprefix("is no regular expression that can be used here: ")


@pytest.mark.parametrize(
    ("pattern", "text", "found", "whole"),
    [
        ("cm", "acme", True, False),
        ("^cm$", "acme", False, False),
        ("a|ab", "ab", True, True),
        ("a)|(b", "b", None, None),
        ("(?i)HEAD", "head", True, True),
        ("(?i)É", "é", True, True),
        (".", "\n", False, False),
        ("^a$", "a\n", False, False),
        ("a", "a\n", True, False),
        (r"^\p{L}+$", "Müller", True, True),
        (r"^\w+$", "Müller", False, False),  # \w, \d, \s and \b know ASCII only
        (r"\d", "٣", False, False),
        ("", "", None, None),
        ("é{2}", "éé", True, True),
        (r"\x{1F600}", "\N{GRINNING FACE}", True, True),
        ("(?P<name>a)", "a", True, True),
        ("\x00", "\x00", True, True),
    ],
)
def test_pattern_matches(pattern: str, text: str, found: bool | None, whole: bool | None) -> None:
    if found is None:
        assert reason(pattern)
        with pytest.raises(InvalidPattern):
            make_whole_matcher(pattern)
    else:
        assert (make_matcher(pattern)(text), make_whole_matcher(pattern)(text)) == (found, whole)


@pytest.mark.parametrize("value", [None, 7, True, b"a", ["a"], "a" * (MATCHED_LENGTH_MAX + 1), "a\ud800"])
def test_anything_but_a_text_of_bounded_length_matches_nothing(value: object) -> None:
    assert not make_matcher("a*")(value)
    assert not make_whole_matcher("a*.*")(value)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "a bracket ( is not closed"),
        ("a)", "a bracket ) closes nothing"),
        ("[a", "a class [ is not closed"),
        ("a\\", "nothing follows the last \\"),
        (r"(a)\1", r"\1 means nothing here; there are no back-references"),
        ("(?=a)", "(?= is not there; there is no look-around"),
        ("(?<!a)b", "(?<! is not there; there is no look-around"),
        (r"\p{Nobody}", r"\p{Nobody} is no class or range of characters"),
        ("[z-a]", "z-a is no class or range of characters"),
        ("*a", "* repeats nothing"),
        ("a**", "** repeats a repetition"),
        ("a{1001}", "{1001} repeats more than 1000 times, by itself or together with those around it"),
        (STALLING, "{0,100} repeats more than 1000 times, by itself or together with those around it"),
        (r"\pL{100}", "it is too large; write + or * instead of a large number"),
        ("[a-z&&[^aeiou]]", "&& is no operation on classes here; as a character, write \\ before it"),
        ("[a-z--m]", "-- is no operation on classes here; as a character, write \\ before it"),
        ("[[a-c][x-z]]", "[ is no operation on classes here; as a character, write \\ before it"),
        (r"\<a\>", r"\< is not there; the border of a word is \b"),
        (r"a\b{end}", r"\b{ is not there; the border of a word is \b"),
        ("a{,5}", "{,5} is not there; write {0,5}"),
        ("\ud800", "it is no text"),
        ("a" * (PATTERN_LENGTH_MAX + 1), "must be a regular expression of 1 to 200 characters"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(pattern: str, said: str) -> None:
    assert reason(pattern) == said


@pytest.mark.parametrize(
    "pattern", [r"[\&\&]", r"\[a&&b\]", "a&&b", "--", "[[:alpha:]_-]", r"[\[]", r"\\<", "[]a]", "[^]a]", "a{0,5}"]
)
def test_what_only_looks_like_another_engines_operation_is_taken(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "other"),
    [
        ("(?x) a b", "ab", "a b"),
        ("[a-z&&[^aeiou]]", "x", "e"),
        (r"\u00e9", "é", "e"),
        (r"\p{Letter}", "é", "1"),
        (r"[\p{L} ]{2,50}", "Ada Lovelace", "1"),
        (r"\<a\>", "a", "1"),
    ],
)
def test_what_was_signed_for_the_former_engine_means_what_it_meant(pattern: str, text: str, other: str) -> None:
    with pytest.raises(InvalidPattern):
        check_pattern(pattern)
    for matches in (make_matcher(pattern), make_whole_matcher(pattern)):
        assert (matches(text), matches(other), matches(None)) == (True, False, False)


@pytest.mark.parametrize("pattern", ["(", "a)|(b", "(?=a)", "", "a" * (PATTERN_LENGTH_MAX + 1)])
def test_what_no_engine_runs_is_refused_by_all(pattern: str) -> None:
    for make in (check_pattern, make_matcher, make_whole_matcher):
        with pytest.raises(InvalidPattern):
            make(pattern)


@given(st.text(max_size=PATTERN_LENGTH_MAX + 1), st.text(max_size=20))
def test_any_text_is_a_pattern_or_refused(pattern: str, text: str) -> None:
    try:
        matches = make_matcher(pattern)
    except InvalidPattern:
        assert reason(pattern)
    else:
        assert matches(text) in (True, False)


def test_other_threads_run_while_a_text_is_matched() -> None:
    # Nothing but the engine gives the interpreter up here: were it held, the loop would run to its end.
    matches, matched, stopped = make_matcher("(a?){1000}q"), 0, threading.Event()

    def match() -> None:
        nonlocal matched
        while matched < 1_000 and not stopped.is_set():
            matches("a" * MATCHED_LENGTH_MAX)
            matched += 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1_000)
    try:
        thread = threading.Thread(target=match)
        thread.start()
        stopped.set()
        thread.join()
    finally:
        sys.setswitchinterval(before)
    assert matched < 1_000


def leaf(pattern: str) -> dict[str, object]:
    return {"path": "attributes.a", "op": "matches", "value": pattern}


def rule(pattern: str) -> dict[str, object]:
    return {"key": "k", "rule": "pattern", "field": "title", "pattern": pattern}


def test_a_document_may_have_so_many_patterns_and_no_more() -> None:
    some: dict[str, object] = {"parameters": [rule(f"a{number}") for number in range(PATTERNS_MAX)]}
    assert check_patterns(some) == []
    (finding,) = check_patterns({**some, "stages": [{"gate": {"all": [leaf("a")]}}]})
    assert finding.message == "a document has at most 64 patterns, and this has 65"


def test_patterns_are_counted_before_any_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(patterns, "_compile", compiled.append)
    assert len(check_patterns({"all": [leaf(STALLING)] * 10_000})) == 1
    assert compiled == []


def test_patterns_of_a_document_have_a_size_together() -> None:
    large = ".{0,400}q"
    assert check_patterns({"any": [leaf(large)]}) == []
    (finding,) = check_patterns({"any": [leaf(large), {"all": [leaf(large), leaf(f"{large}u")]}, leaf("a")]})
    assert finding.pointer == "/any/1/all/1/value"
    assert "too large together" in finding.message
    assert SIZE_MAX == 10_000


def test_a_word_that_is_no_pattern_is_not_counted() -> None:
    members = [{"path": "attributes.a", "op": "eq", "value": ".{0,1000}q"}, {"rule": "one_of", "pattern": ".{0,1000}"}]
    assert check_patterns({"glossary": {"pattern": "x", "value": "y"}, "all": members * 40}) == []


def test_a_pattern_that_cannot_be_compiled_is_left_to_its_reader() -> None:
    assert check_patterns({"all": [leaf("("), {"op": "matches", "value": 7}]}) == []
