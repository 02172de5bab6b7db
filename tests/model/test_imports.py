"""Arrivals: what is taken for an envelope that can be imported, and what it becomes."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopefs.errors import BadRequest, InvalidEnvelope, InvalidName, InvalidTime, TooLarge
from scopefs.model import imports
from scopefs.model.envelope import FileFacts, encode_frame, encode_stored
from scopefs.model.imports import (
    AHEAD_MAX_US,
    check_arrival_time,
    check_name_within,
    decode_arrival,
)
from scopefs.model.payload import INLINE_MAX_BYTES, NESTING_MAX, Kind, decide_kind
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import parse_collected_at
from tests.model.strategies import explore, json_object_texts, mutated

SCOPE = "my.notes"
AT = "2026-01-21T10:00:00Z"
AT_US = parse_collected_at(AT)


def render(payload: bytes, name: bytes | None = b"a.txt", **changes: Any) -> bytes:
    """The envelope that scopefs writes, with some facts changed."""
    kind = changes.pop("kind", decide_kind(payload))
    facts = {
        "size_bytes": len(payload), "sha256": hashlib.sha256(payload).digest(),
        "media_type": "text/plain", "name": name, "mtime_ns": 5,
    } | changes  # fmt: skip
    head, tail = encode_frame(SCOPE, AT_US, FileFacts(kind, **facts))
    return head + encode_stored(kind, payload) + tail


def foreign(data: str, **more: str) -> bytes:
    """An envelope as another program writes it."""
    members = "".join(f'"{key}":{value},' for key, value in more.items())
    head = f'"version":"1.0","scope":"{SCOPE}","collectedAt":"{AT}",'
    return f'{{{head}{members}"data":{data}}}'.encode()


blobs = st.integers(1, 9).map(lambda more: b"x" * (INLINE_MAX_BYTES + more))
payloads = json_object_texts | st.binary(min_size=1, max_size=64) | blobs
names = st.none() | st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & set(b"\0/.")
)


@explore
@given(payloads, names, st.none() | st.integers(-(1 << 63), (1 << 63) - 1), st.text())
def test_an_envelope_of_scopefs_is_rendered_again_to_the_same_bytes(
    payload: bytes, name: bytes | None, mtime_ns: int | None, media_type: str
) -> None:
    """All facts are kept, and so every byte."""
    media_type = media_type.encode("utf-8", "replace").decode()
    content = render(payload, name, mtime_ns=mtime_ns, media_type=media_type)
    arrival = decode_arrival(content)
    head, tail = encode_frame(SCOPE, AT_US, arrival.facts)
    assert (arrival.scope.raw, arrival.collected_us) == (SCOPE, AT_US)
    assert arrival.payload == (None if arrival.facts.kind is Kind.BLOB else payload)
    assert head + encode_stored(arrival.facts.kind, arrival.payload or b"") + tail == content


@explore
@given(mutated(payloads.map(render)))
def test_whatever_is_taken_is_what_scopefs_writes(content: bytes) -> None:
    """Bytes that were changed are refused, or are the exact envelope of something."""
    try:
        arrival = decode_arrival(content)
    except BadRequest:
        return
    if b'"file":' in content:
        head, tail = encode_frame(arrival.scope.raw, arrival.collected_us, arrival.facts)
        stored = encode_stored(arrival.facts.kind, arrival.payload or b"")
        assert head + stored + tail == content
    if arrival.payload is not None:
        assert hashlib.sha256(arrival.payload).digest() == arrival.facts.sha256


@pytest.mark.parametrize("data", ['{"a": 1.0}', "{}", ' {"$binary":true,"encoding":"blob"}'])
def test_data_of_another_program_becomes_a_nameless_document(data: str) -> None:
    """Its text is the payload, byte for byte; nobody looks into it."""
    arrival = decode_arrival(foreign(data))
    assert arrival.payload == data.strip().encode()
    assert arrival.facts.kind is Kind.DOCUMENT
    assert (arrival.facts.name, arrival.facts.mtime_ns) == (None, None)
    assert arrival.facts.media_type == "application/json"


def test_data_of_another_program_that_nests_too_deeply_is_no_document() -> None:
    """Nothing is refused for its content."""
    data = '{"a":' * (NESTING_MAX + 1) + "1" + "}" * (NESTING_MAX + 1)
    arrival = decode_arrival(foreign(data))
    assert arrival.facts.kind is Kind.INLINE
    assert arrival.payload == data.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"x", b"[]", foreign("{}")[:-1], foreign("[]"), foreign("{}", file="{}"),
        foreign("{}", file='{"kind":"stream","sizeBytes":2}'),
        foreign("{}").replace(AT.encode(), b"1969-12-31T23:59:59Z"),
        foreign("{}").replace(AT.encode(), b"1970-01-01T00:00:00Z"),
        foreign("{}").replace(SCOPE.encode(), b"My.notes"),
        render(b"")[:-1], render(b"x") + b"\n", render(b"x").rstrip(), b" " + render(b"x"),
        render(b"", kind=Kind.INLINE), render(b"x", sha256=bytes(32)),
        render(b"{}", sha256=bytes(32)), render(b"x", size_bytes=2), render(b"{}", size_bytes=3),
        render(b"x", mtime_ns=1 << 63), render(b"x").replace(b"eA==", b"eB=="),
        render(b'{"a":1},"x":{"b":2}', kind=Kind.DOCUMENT), render(b"[1]", kind=Kind.DOCUMENT),
    ],
)  # fmt: skip
def test_what_is_no_envelope_of_a_version_is_refused(content: bytes) -> None:
    """Not JSON, no scope, no time, wrong hash, wrong size, other bytes around the payload."""
    with pytest.raises(InvalidEnvelope):
        decode_arrival(content)


@pytest.mark.parametrize(
    "name",
    [b"", b".", b"..", b"a/../b", b"/a", b"a/", b"a//b", b"x\0", b"n" * 256, b".versions",
     b".history/a", b"photos/a.jpg"],
)  # fmt: skip
def test_a_name_that_no_file_of_the_scope_can_have_is_refused(name: bytes) -> None:
    """Nothing leads out of the scope, into a view, or into a scope of its own."""
    with pytest.raises(InvalidEnvelope, match="name"):
        decode_arrival(render(b"x", name))
    with pytest.raises(InvalidName):
        check_name_within(parse_scope(SCOPE), name)


@pytest.mark.parametrize("name", [b"Photos/a.jpg", b"My Photos/photos/a", b"\xff/\n", b"...", b"a"])
def test_a_name_with_folders_is_taken(name: bytes) -> None:
    """Whatever a file of the scope can be called."""
    assert decode_arrival(render(b"x", name)).facts.name == name


def test_a_folder_of_a_subcategory_may_be_called_like_a_segment() -> None:
    """There is no scope below it."""
    check_name_within(parse_scope("my.notes.shared"), b"photos/a.jpg")


def test_too_much_for_an_envelope_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than any envelope of scopefs is not parsed."""
    monkeypatch.setattr(imports, "ENVELOPE_MAX_BYTES", 10)
    with pytest.raises(TooLarge):
        decode_arrival(render(b"x"))


def test_a_version_may_come_from_five_seconds_ahead() -> None:
    """Clocks differ a little; a version of tomorrow is an error."""
    check_arrival_time(AT_US + AHEAD_MAX_US, AT_US)
    with pytest.raises(InvalidTime, match="ahead"):
        check_arrival_time(AT_US + AHEAD_MAX_US + 1, AT_US)
