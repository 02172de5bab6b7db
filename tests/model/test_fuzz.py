"""Whatever a parser of the model is given, it reads it, or raises the one error that it names.

Texts and bytes of any kind, and valid ones with a few places changed. Envelopes are also in
`test_envelope.py` and `test_imports.py`, with what they must mean. `SCOPEFS_FUZZ` multiplies the
number of examples.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scopefs.errors import (
    InvalidEnvelope,
    InvalidName,
    InvalidScope,
    InvalidTime,
    TooLarge,
)
from scopefs.model.envelope import (
    FileFacts,
    decode_envelope,
    decode_stored,
    encode_frame,
    encode_stored,
)
from scopefs.model.imports import decode_arrival
from scopefs.model.naming import NodeKind, Place, check_file_place, place_directory
from scopefs.model.payload import Kind, decide_kind, guess_media_type, is_json_object
from scopefs.model.scope import parse_scope
from scopefs.model.scratch import ScratchPatterns
from scopefs.model.stamps import (
    filename_to_timestamp,
    format_collected_at,
    format_long_stamp,
    format_stamp,
    parse_collected_at,
    parse_long_stamp,
    parse_stamp,
    parse_time,
    timestamp_to_filename,
)
from tests.model.strategies import instants_us, json_texts, mutated, scopes
from tests.model.test_envelope import OURS, file_facts, payloads

fuzz = settings(max_examples=150 * int(os.environ.get("SCOPEFS_FUZZ", "1")), deadline=None)

any_text = st.text() | st.text(st.characters(codec=None))
"""Lone surrogates too: so names come that are no UTF-8."""

_times = st.sampled_from((format_collected_at, format_stamp, format_long_stamp))
_time_texts = st.builds(lambda form, us: form(us), _times, instants_us)


def _as_text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


near_times = mutated(_time_texts.map(str.encode)).map(_as_text) | st.from_regex(
    r"[0-9]{1,5}(-[0-9]{1,3}){0,2}([T ][0-9:.,\-]{0,20})?(Z|u[0-9]*|[+-][0-9:]{0,6})?",
    fullmatch=True,
)
near_scopes = mutated(scopes.map(str.encode)).map(_as_text)


@pytest.mark.parametrize(
    "parse",
    [parse_collected_at, parse_stamp, parse_long_stamp, parse_time, timestamp_to_filename,
     filename_to_timestamp],
)  # fmt: skip
@fuzz
@given(any_text | near_times)
def test_any_text_is_a_time_or_none(parse: Callable[[str], Any], text: str) -> None:
    """Of a time, a stamp, a question: `InvalidTime` alone."""
    with suppress(InvalidTime):
        parse(text)


@fuzz
@given(any_text | near_scopes)
def test_any_text_is_a_scope_or_none(text: str) -> None:
    """`InvalidScope` alone; and what is taken is made of what may stand in a path."""
    try:
        found = parse_scope(text)
    except InvalidScope:
        return
    assert found.raw == text
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.")


@fuzz
@given(st.binary(max_size=300), st.sampled_from((NodeKind.ROOT, NodeKind.SOURCE, NodeKind.SCOPE)))
def test_any_bytes_are_a_name_or_none(name: bytes, kind: NodeKind) -> None:
    """`InvalidName` alone."""
    place = Place(kind, ("my", "files")[: int(kind)])
    for check in (place_directory, check_file_place):
        try:
            check(place, name)
        except InvalidName:
            continue
        assert b"/" not in name
        assert b"\0" not in name


def _render(payload: bytes) -> bytes:
    """An envelope as scopefs writes it."""
    kind = decide_kind(payload)
    facts = FileFacts(kind, len(payload), hashlib.sha256(payload).digest(), "text/plain", b"n", 5)
    head, tail = encode_frame("my.files", 1_000_000, facts)
    return head + encode_stored(kind, payload) + tail


@pytest.mark.parametrize("decode", [decode_envelope, decode_arrival])
@fuzz
@given(st.binary() | json_texts | mutated(payloads.map(_render) | st.just(OURS)))
def test_any_bytes_are_an_envelope_or_none(decode: Callable[[bytes], Any], content: bytes) -> None:
    """`InvalidEnvelope` alone."""
    with suppress(InvalidEnvelope):
        decode(content)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"data":{"x":', b'{"file":['])
def test_deep_nesting_is_no_envelope(opening: bytes) -> None:
    """However deep it is."""
    for depth in (100, 500, 2000, 100_000):
        with pytest.raises((InvalidEnvelope, TooLarge)):
            decode_arrival(opening * depth)


@fuzz
@given(st.sampled_from(Kind), st.binary(max_size=200))
def test_any_bytes_are_stored_or_not(kind: Kind, stored: bytes) -> None:
    """What stands in an envelope is a payload, or `InvalidEnvelope`."""
    try:
        decode_stored(kind, stored)
    except InvalidEnvelope:
        assert kind is not Kind.DOCUMENT


@fuzz
@given(st.binary(max_size=200) | mutated(json_texts), st.none() | st.binary(max_size=20))
def test_any_payload_is_of_some_kind(payload: bytes, name: bytes | None) -> None:
    """Nothing is refused for its content, and nothing is raised."""
    kind = decide_kind(payload)
    assert (kind is Kind.DOCUMENT) == is_json_object(payload)
    assert guess_media_type(kind, name, payload)


@fuzz
@given(st.lists(st.text(max_size=12), max_size=4), st.binary(max_size=20))
def test_any_texts_are_patterns(patterns: list[str], name: bytes) -> None:
    """Whatever somebody writes into config.toml: a decision, and no error."""
    assert ScratchPatterns(patterns).is_scratch(name) in (True, False)


@fuzz
@given(file_facts)
def test_any_facts_make_an_envelope_or_none(facts: FileFacts) -> None:
    """An envelope of any facts is read back, or refused by one of our errors."""
    head, tail = encode_frame("my.files", 1_000_000, facts)
    with suppress(InvalidEnvelope):
        decode_envelope(head + b"{}"[: 2 * (facts.kind is Kind.DOCUMENT)] + tail)
