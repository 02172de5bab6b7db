"""Envelopes: exact bytes, `data` verbatim, and one error for whatever is no envelope."""

import hashlib
import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopefs.errors import InvalidEnvelope, InvalidScope, InvalidTime
from scopefs.model.envelope import (
    Envelope,
    FileFacts,
    Receipt,
    create_data_file_envelope,
    decode_envelope,
    decode_stored,
    encode_envelope,
    encode_frame,
    encode_name,
    encode_stored,
    find_payload_slice,
    stored_size,
)
from scopefs.model.payload import INLINE_MAX_BYTES, NESTING_MAX, Kind, decide_kind
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import parse_collected_at
from tests.model.strategies import explore, instants_us, json_object_texts, mutated, scopes

SCOPE = "instagram.profile"
AT = "2026-01-21T10:00:00Z"
AT_US = parse_collected_at(AT)
SHA256 = hashlib.sha256(b"x").digest()


def envelope_text(data: str = "{}", **changes: Any) -> bytes:
    """An envelope as another program may write it, with members changed or, by None, left out."""
    members = {"version": "1.0", "scope": SCOPE, "collectedAt": AT} | changes
    written = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in members.items() if v is not None]
    return f'{{{", ".join(written)}, "data": {data}}}'.encode()


def frame(payload: bytes, facts: FileFacts) -> bytes:
    """The whole envelope of a payload."""
    head, tail = encode_frame(SCOPE, AT_US, facts)
    return head + encode_stored(facts.kind, payload) + tail


def facts_of(payload: bytes, name: bytes | None = None, mtime_ns: int | None = None) -> FileFacts:
    """What the envelope says about a payload."""
    kind, digest = decide_kind(payload), hashlib.sha256(payload).digest()
    return FileFacts(kind, len(payload), digest, "text/plain", name, mtime_ns)


blobs = st.integers(1, 9).map(lambda more: b"x" * (INLINE_MAX_BYTES + more))
payloads = json_object_texts | st.binary(max_size=64) | blobs
file_facts = st.builds(
    facts_of,
    payloads,
    st.none() | st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name),
    st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
)


# Exact bytes


def test_an_envelope_has_its_members_in_order() -> None:
    """version, scope, collectedAt, data: the bytes that the format fixes."""
    envelope = Envelope(parse_scope(SCOPE), AT_US, b'{"a":1}')
    assert encode_envelope(envelope) == (
        b'{"version":"1.0","scope":"instagram.profile","collectedAt":"2026-01-21T10:00:00Z",'
        b'"data":{"a":1}}\n'
    )


def test_the_frame_of_a_document() -> None:
    """`file` stands before `data`, and the payload stands in `data` as it came."""
    facts = FileFacts(Kind.DOCUMENT, 8, SHA256, "application/json", b"My Photos/a.json", 5)
    assert frame(b'{"a": 1}', facts) == (
        b'{"version":"1.0","scope":"instagram.profile","collectedAt":"2026-01-21T10:00:00Z",'
        b'"file":{"kind":"document","name":"My Photos/a.json","sizeBytes":8,"sha256":"'
        + SHA256.hex().encode()
        + b'","mediaType":"application/json","mtimeNs":5},"data":{"a": 1}}\n'
    )


def test_the_frame_of_an_inline_payload() -> None:
    """Small binary payloads stand in `data.content`, base64-encoded."""
    envelope = json.loads(frame(b"\xff\0", FileFacts(Kind.INLINE, 2, SHA256, "image/png", b"d/a")))
    assert list(envelope["data"].items()) == [
        ("$binary", True),
        ("mimeType", "image/png"),
        ("filename", "a"),
        ("sizeBytes", 2),
        ("contentHash", f"0x{SHA256.hex()}"),
        ("encoding", "base64"),
        ("content", "/wA="),
    ]


def test_the_frame_of_a_blob() -> None:
    """Larger binary payloads are only described."""
    envelope = json.loads(frame(b"x" * 20_000, FileFacts(Kind.BLOB, 20_000, SHA256, "a/b")))
    assert list(envelope["data"].items()) == [
        ("$binary", True),
        ("mimeType", "a/b"),
        ("sizeBytes", 20_000),
        ("contentHash", f"0x{SHA256.hex()}"),
        ("encoding", "blob"),
    ]


@pytest.mark.parametrize(
    ("name", "members"),
    [
        (None, {}),
        (b"a.json", {"name": "a.json"}),
        ("dir/😀\n".encode(), {"name": "dir/😀\n"}),
        (b"\xff.txt", {"nameHex": "ff2e747874"}),
    ],
)
def test_names_that_are_no_text_are_written_in_hex(
    name: bytes | None, members: dict[str, str]
) -> None:
    """A name is text where it can be, so that an envelope is always UTF-8."""
    assert encode_name(name) == members


# Round trips


@explore
@given(scopes, instants_us, json_object_texts, st.none() | file_facts)
def test_an_envelope_reads_back_as_it_was(
    scope: str, collected_us: int, data: bytes, facts: FileFacts | None
) -> None:
    """Encoding, then decoding, gives an equal envelope, its data byte for byte."""
    envelope = Envelope(parse_scope(scope), collected_us, data, facts)
    assert decode_envelope(encode_envelope(envelope)) == envelope


@explore
@given(file_facts, st.data())
def test_a_frame_reads_back_as_its_facts(facts: FileFacts, data: st.DataObject) -> None:
    """Whatever the payload is called and whenever it changed, its envelope says so."""
    size = min(facts.size_bytes, 100)
    payload = b"{}" if facts.kind is Kind.DOCUMENT else data.draw(st.binary(max_size=size))
    assert decode_envelope(frame(payload, facts)).file == facts


@explore
@given(payloads)
def test_the_payload_is_cut_from_its_envelope(payload: bytes) -> None:
    """The slice by the recorded size is the stored form, and gives the payload back."""
    facts = facts_of(payload, b"a")
    content = frame(payload, facts)
    stored = find_payload_slice(decode_envelope(content), content)
    expected = b"" if facts.kind is Kind.BLOB else payload
    assert decode_stored(facts.kind, stored) == expected
    assert len(stored) == stored_size(facts.kind, len(payload))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a":1}\n',
        b'\r\n{ "a" :\t1,\r\n"a" : 2 } \n',
        b'{"b":9007199254740993,"a":1e999,"c":1.10,"d":-0}',
        b'{"\\u0061":"\\/\\u00e9\\ud83d\\ude00"}',
        b'{"$binary":true}',
        b'{"version":"2.0","data":[]}',
    ],
)
def test_a_document_stands_verbatim(payload: bytes) -> None:
    """Blanks around and inside, numbers, escapes, member order and doubles stay as they came."""
    facts = facts_of(payload)
    content = frame(payload, facts)
    assert facts.kind is Kind.DOCUMENT
    assert find_payload_slice(decode_envelope(content), content) == payload
    assert decode_envelope(content).data == payload.strip()


@explore
@given(json_object_texts)
def test_every_document_makes_json(payload: bytes) -> None:
    """An envelope is readable without scopefs: its data is what the payload says."""
    assert json.loads(frame(payload, facts_of(payload)))["data"] == json.loads(payload)


def test_an_envelope_around_the_deepest_document_is_read_by_every_reader() -> None:
    """A document that is as deep as allowed leaves room for its envelope and for the stack."""
    payload = b'{"a":' * NESTING_MAX + b"1" + b"}" * NESTING_MAX
    content = frame(payload, facts_of(payload))
    assert decode_envelope(content).data == payload
    assert json.loads(content)["data"] == json.loads(payload)


def test_an_envelope_of_another_program_is_read() -> None:
    """Order of members, blanks and members that we do not know make no difference."""
    content = (
        b'\n { "data" : {"a": 1} , "$schema": "https://x/", "file": [1],\n'
        b'"collectedAt":"2026-01-21T10:00:00.000123Z","scope":"a.b.c","version":"1.0"} '
    )
    expected = Envelope(parse_scope("a.b.c"), AT_US + 123, b'{"a": 1}')
    assert decode_envelope(content) == expected


def test_collected_at_is_the_text_of_its_instant() -> None:
    """An envelope tells its time in the form of the format."""
    assert decode_envelope(envelope_text()).collected_at == AT


# Refusals


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="no member"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"null", id="null"),
        pytest.param(b"\xef\xbb\xbf" + envelope_text(), id="BOM"),
        pytest.param(envelope_text()[:-1], id="cut"),
        pytest.param(envelope_text() + b"{}", id="more behind"),
        pytest.param(envelope_text(version="2.0"), id="version 2.0"),
        pytest.param(envelope_text(version="1"), id="version 1"),
        pytest.param(envelope_text(version="1.00"), id="version 1.00"),
        pytest.param(envelope_text(version=1.0), id="version as a number"),
        pytest.param(envelope_text(version=None), id="no version"),
        pytest.param(envelope_text(scope="bad"), id="bad scope"),
        pytest.param(envelope_text(scope="../etc.passwd"), id="scope that climbs"),
        pytest.param(envelope_text(scope=None), id="no scope"),
        pytest.param(envelope_text(scope=["a", "b"]), id="scope as an array"),
        pytest.param(envelope_text(collectedAt="not-a-date"), id="no date"),
        pytest.param(envelope_text(collectedAt="2026-01-21"), id="a day"),
        pytest.param(envelope_text(collectedAt="2026-02-30T10:00:00Z"), id="30 February"),
        pytest.param(envelope_text(collectedAt="2026-01-21T10:00:00+00:00"), id="offset"),
        pytest.param(envelope_text(collectedAt=1768989600), id="time as a number"),
        pytest.param(envelope_text(collectedAt=None), id="no time"),
        pytest.param(envelope_text("[]"), id="data is an array"),
        pytest.param(envelope_text("null"), id="data is null"),
        pytest.param(envelope_text("1"), id="data is a number"),
        pytest.param(envelope_text('"{}"'), id="data is a string"),
        pytest.param(envelope_text('{"a":NaN}'), id="data holds NaN"),
        pytest.param(envelope_text('{"a":"\\ud800"}'), id="data holds a lone surrogate"),
        pytest.param(envelope_text(more="\ud800"), id="lone surrogate elsewhere"),
        pytest.param(envelope_text('{"a":"?"}').replace(b"?", b"\xff"), id="data is not UTF-8"),
        pytest.param(envelope_text(more="?").replace(b"?", b"\xff"), id="not UTF-8 elsewhere"),
        pytest.param(envelope_text("[" * 100_000 + "]" * 100_000), id="nested too deeply"),
        pytest.param(envelope_text('{"a":' * 5_000 + "1" + "}" * 5_000), id="objects too deep"),
        pytest.param(envelope_text('{}, "data": []'), id="second data is no object"),
    ],
)
def test_what_is_no_envelope_is_refused(content: bytes) -> None:
    """Broken JSON, another version, a bad scope or time, data that is no object."""
    with pytest.raises(InvalidEnvelope):
        decode_envelope(content)


def test_a_missing_data_member_is_refused() -> None:
    """An envelope without data is none."""
    with pytest.raises(InvalidEnvelope, match="data"):
        decode_envelope(b'{"version":"1.0","scope":"a.b","collectedAt":"2026-01-21T10:00:00Z"}')


OURS = frame(b'{"a":1}', facts_of(b'{"a":1}', b"\xff", 1))


@explore
@given(st.binary() | mutated(st.sampled_from((envelope_text('{"a":[1]}'), OURS))))
def test_decoding_any_bytes_raises_one_error_alone(content: bytes) -> None:
    """Whatever the bytes, they are an envelope or InvalidEnvelope is raised, nothing else."""
    with suppress(InvalidEnvelope):
        decode_envelope(content)


@explore
@given(mutated(st.sampled_from((envelope_text('{"a":[1]}'), OURS))))
def test_what_decodes_is_json_for_every_reader(content: bytes) -> None:
    """An envelope that we take is read by Python's json, and says the same there."""
    try:
        envelope = decode_envelope(content)
    except InvalidEnvelope:
        return
    read = json.loads(content)
    assert (read["version"], read["scope"]) == ("1.0", envelope.scope.raw)
    assert read["data"] == json.loads(envelope.data)


@explore
@given(mutated(st.just(OURS)))
def test_cutting_a_payload_from_changed_bytes_raises_one_error_alone(content: bytes) -> None:
    """A payload is cut whole from an envelope as we write it, or InvalidEnvelope is raised."""
    with suppress(InvalidEnvelope):
        envelope = decode_envelope(content)
        stored = find_payload_slice(envelope, content)
        if envelope.file is not None:
            assert len(stored) == stored_size(envelope.file.kind, envelope.file.size_bytes)


def test_cutting_needs_the_frame_that_we_write() -> None:
    """A blank more in an envelope of ours, and its payload is not guessed."""
    content = OURS.replace(b'"data":', b'"data": ')
    with pytest.raises(InvalidEnvelope, match="not as scopefs wrote it"):
        find_payload_slice(decode_envelope(content), content)


def test_an_envelope_without_facts_gives_its_data() -> None:
    """In the envelope of another program the payload is the text of `data`."""
    content = envelope_text('{ "a": 1}')
    assert find_payload_slice(decode_envelope(content), content) == b'{ "a": 1}'


@pytest.mark.parametrize("stored", [b"!", b"YQ", b"YQ==\n", b"YQ= ="])
def test_broken_base64_is_refused(stored: bytes) -> None:
    """An inline payload is decoded exactly or not at all."""
    with pytest.raises(InvalidEnvelope):
        decode_stored(Kind.INLINE, stored)


GOOD_FACTS = {"kind": "document", "sizeBytes": 2, "sha256": "00" * 32, "mediaType": "a/b"}


@pytest.mark.parametrize(
    "member",
    [
        None,
        [],
        "x",
        {},
        GOOD_FACTS | {"kind": "photo"},
        GOOD_FACTS | {"kind": 0},
        GOOD_FACTS | {"sizeBytes": "2"},
        GOOD_FACTS | {"sizeBytes": -1},
        GOOD_FACTS | {"sizeBytes": 1.5},
        GOOD_FACTS | {"sha256": "0x00"},
        GOOD_FACTS | {"sha256": "00"},
        GOOD_FACTS | {"sha256": "00" * 33},
        GOOD_FACTS | {"nameHex": "é"},
        GOOD_FACTS | {"nameHex": "f"},
        GOOD_FACTS | {"mtimeNs": "now"},
    ],
)
def test_a_file_member_that_is_not_ours_is_ignored(member: Any) -> None:
    """Other programs may put anything into `file`: the envelope stays one."""
    data = f'{{}}, "file": {json.dumps(member)}'
    assert decode_envelope(envelope_text(data)).file is None


def test_the_facts_of_the_table_above_are_ours() -> None:
    """Without its one fault, each `file` of that table is taken."""
    expected = FileFacts(Kind.DOCUMENT, 2, bytes(32), "a/b")
    assert decode_envelope(envelope_text(file=GOOD_FACTS)).file == expected


# Making one


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"1", b"null", b'{"a":NaN}', b'{"a":"\xff"}', b'{"a":1}{}', b"\xff"]
)
def test_an_envelope_is_made_around_an_object_only(data: bytes) -> None:
    """What cannot stand in `data` is refused before anything is written."""
    with pytest.raises(InvalidEnvelope):
        create_data_file_envelope(SCOPE, AT, data)


@pytest.mark.parametrize("data", [b'{},"scope":"a.b"', b'[],"data":{}', b'{}}\n{"a":{}'])
def test_regression_data_could_write_members_of_its_envelope(data: bytes) -> None:
    """Data that closes its member and opens another never becomes an envelope."""
    with pytest.raises(InvalidEnvelope):
        create_data_file_envelope(SCOPE, AT, data)


def test_an_envelope_needs_a_scope_and_a_time() -> None:
    """The errors for scope and time are those of their parsers."""
    with pytest.raises(InvalidScope):
        create_data_file_envelope("bad", AT, b"{}")
    with pytest.raises(InvalidTime):
        create_data_file_envelope(SCOPE, "2026", b"{}")


# Receipts


def test_a_receipt_is_the_ingest_response() -> None:
    """A receipt is written with the personal server's members, in their order."""
    expected = b'{"scope":"a.b","collectedAt":"2026-01-21T10:00:00Z","status":"stored"}'
    assert msgspec.json.encode(Receipt("a.b", AT)) == expected


@pytest.mark.parametrize("status", ["stored", "syncing"])
def test_a_receipt_has_one_of_two_statuses(status: str) -> None:
    """stored and syncing are known."""
    assert Receipt("a.b", AT, status).status == status


@pytest.mark.parametrize(
    ("at", "status", "error"),
    [(AT, "lost", ValueError), (AT, "", ValueError), ("now", "stored", InvalidTime)],
)
def test_other_receipts_are_refused(at: str, status: str, error: type[Exception]) -> None:
    """A receipt never carries another status, nor a time that is none."""
    with pytest.raises(error):
        Receipt("a.b", at, status)
