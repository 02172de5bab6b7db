"""Scopes: what parses, and what is refused with which words."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scopefs.errors import InvalidScope
from scopefs.model.scope import (
    MAX_SEGMENT_BYTES,
    Scope,
    find_segment_fault,
    is_segment,
    parse_scope,
    scope_to_path_segments,
    suggest_segment,
)
from tests.model.strategies import explore, scopes, segments

LONGEST = "a" * MAX_SEGMENT_BYTES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("instagram.profile", ("instagram", "profile", None)),
        ("chatgpt.conversations.shared", ("chatgpt", "conversations", "shared")),
        ("youtube.watch_history", ("youtube", "watch_history", None)),
        ("a.b", ("a", "b", None)),
        ("a1.b_2.c__", ("a1", "b_2", "c__")),
        (f"a.{LONGEST}", ("a", LONGEST, None)),
    ],
)
def test_scope_parses_into_its_segments(text: str, expected: tuple[str, str, str | None]) -> None:
    """Two or three lower-case segments are a scope."""
    assert parse_scope(text) == Scope(*expected, raw=text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", "has 1 segment(s)"),
        ("a.b.c.d", "has 4 segment(s)"),
        ("", "segment 1 ('') is empty"),
        (".", "segment 1 ('') is empty"),
        ("a.", "segment 2 ('') is empty"),
        (".a", "segment 1 ('') is empty"),
        ("a..b", "segment 2 ('') is empty"),
        ("a.b.", "segment 3 ('') is empty"),
        ("Instagram.Profile", "segment 1 ('Instagram') has the capital letter 'I'"),
        ("instagram.Profile", "segment 2 ('Profile') has the capital letter 'P'"),
        ("a.b.sharedX", "segment 3 ('sharedX') has the capital letter 'X'"),
        ("123.abc", "segment 1 ('123') starts with '1'"),
        ("abc.1a", "segment 2 ('1a') starts with '1'"),
        ("a._b", "segment 2 ('_b') starts with '_'"),
        ("a/b.c", "segment 1 ('a/b') has '/'"),
        ("a.b/c", "segment 2 ('b/c') has '/'"),
        ("../etc.passwd", "segment 1 ('') is empty"),
        ("a.b\0", "segment 2 ('b\\x00') has '\\x00'"),
        ("a b.c", "segment 1 ('a b') has ' '"),
        ("a.b ", "segment 2 ('b ') has ' '"),
        (" a.b", "segment 1 (' a') has ' '"),
        ("a.b\t", "segment 2 ('b\\t') has '\\t'"),
        ("a.b\n", "segment 2 ('b\\n') has '\\n'"),
        ("a.b\u00a0", "segment 2 ('b\\xa0') has '\\xa0'"),
        ("a.b-c", "segment 2 ('b-c') has '-'"),
        ("\u00e4.b", "segment 1 ('\u00e4') has '\u00e4'"),
        ("a.b\u0663", "segment 2 ('b\u0663') has '\u0663'"),
        ("\u212ba.b", "segment 1 ('\u212ba') has '\u212b'"),
        ("a." + "x" * 300, "has 300 characters, more than 255"),
        ("x" * 300 + ".b", "segment 1 ("),
        (f"a.b.{LONGEST}x", "has 256 characters, more than 255"),
    ],
)
def test_refusal_names_the_segment_and_the_reason(text: str, words: str) -> None:
    """What is no scope is refused with a message that says which segment, and why."""
    with pytest.raises(InvalidScope, match=re.escape(words)):
        parse_scope(text)


def test_refusal_of_a_long_scope_is_short() -> None:
    """A message about a huge scope does not repeat all of it."""
    with pytest.raises(InvalidScope) as caught:
        parse_scope("x" * 1_000_000)
    assert len(str(caught.value)) < 300


@explore
@given(scopes)
def test_scope_keeps_its_text(text: str) -> None:
    """raw, str() and the joined segments are the text that was parsed."""
    scope = parse_scope(text)
    assert scope.raw == str(scope) == ".".join(scope.segments) == text


@explore
@given(scopes)
def test_path_segments_are_the_scope_split_at_dots(text: str) -> None:
    """A scope's directories are its segments, outermost first."""
    assert scope_to_path_segments(text) == text.split(".")


@explore
@given(st.text(max_size=12) | st.from_regex(r"[a-zA-Z0-9_./ ]{1,12}", fullmatch=True))
def test_whatever_parses_has_the_shape_of_a_scope(text: str) -> None:
    """Text parses if and only if it is two or three segments of [a-z][a-z0-9_]*."""
    has_shape = re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,2}", text) is not None
    try:
        parse_scope(text)
    except InvalidScope:
        assert not has_shape
    else:
        assert has_shape


@explore
@given(segments | st.text(max_size=12) | st.sampled_from((LONGEST, f"{LONGEST}a")))
@example("a\n")
def test_a_segment_without_fault_is_a_segment(text: str) -> None:
    """The two ways to ask about a segment agree."""
    assert is_segment(text) == (find_segment_fault(text) is None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Photos", "photos"),
        ("My Photos", "my_photos"),
        ("2024", "from_2024"),
        ("\u00fc", "files"),
        ("", "files"),
        ("a.json", "a_json"),
        ("__x__", "x"),
    ],
)
def test_suggestion_is_close_to_what_was_meant(text: str, expected: str) -> None:
    """The proposed segment keeps what it can of the name."""
    assert suggest_segment(text) == expected


@explore
@given(st.text(max_size=40))
@example("x" * 400)
@example("9" * 400)
def test_suggestion_is_always_a_segment(text: str) -> None:
    """Whatever was asked for, what is proposed is allowed."""
    assert is_segment(suggest_segment(text))
