"""Payloads: document, inline or blob, and the traps on the way to that decision."""

import codecs
import json
import mmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopefs.model.payload import (
    DOCUMENT_MAX_BYTES,
    INLINE_MAX_BYTES,
    NESTING_MAX,
    Kind,
    binary_kind,
    decide_kind,
    guess_media_type,
    is_json_object,
    is_utf8,
    may_be_document,
    measure_nesting,
    nests_within,
)
from tests.model.strategies import explore, json_texts, mutated

MIB = 1 << 20


def nest(levels: int) -> bytes:
    """A JSON object that nests `levels` deep, itself included."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def object_of(size: int) -> bytes:
    """A JSON object of exactly `size` bytes."""
    return b'{"a":"' + b"x" * (size - 8) + b'"}'


def call_deep(frames: int, function: Any, *arguments: Any) -> Any:
    """Call a function with that many more frames on the stack."""
    if frames == 0:
        return function(*arguments)
    return call_deep(frames - 1, function, *arguments)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b'{"a":1}',
        b'{"a":1}\n',
        b'{"a":1}   ',
        b' \t\r\n{"a":1}\r\n',
        b'{\r\n  "a": 1,\r\n  "b": []\r\n}\r\n',
        b" " * 10_000 + b"{}" + b"\n" * 10_000,
        b'{"a":1e999,"b":-1e999}',
        b'{"a":9007199254740993,"b":123456789012345678901234567890,"c":0.1000000000000000055}',
        b'{"a":-0,"b":1E+5,"c":0e0}',
        b'{"a":1,"a":2}',
        b'{"$binary":true}',
        b'{"$binary":true,"encoding":"blob","contentHash":"0x00"}',
        b'{"":""}',
        b'{"a":"\\ud83d\\ude00"}',
        '{"ä":"😀"}'.encode(),
        b'{"a":"\\u0000"}',
        b'{"a":"\x7f"}',
        b'{"a":"\xef\xbb\xbf"}',
        b'{"a":"[[[[{{{{"}',
    ],
)
def test_one_json_object_is_a_document(payload: bytes) -> None:
    """A JSON object is a document, with whatever blanks, numbers, keys and letters it has."""
    assert decide_kind(payload) is Kind.DOCUMENT


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="blank"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'[{"a":1}]', id="array of objects"),
        pytest.param(b"1", id="number"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"{}"', id="string"),
        pytest.param(b'{"a":1}\n{"a":2}\n', id="JSONL"),
        pytest.param(b"{}{}", id="two objects"),
        pytest.param(b'{"a":1},', id="comma behind"),
        pytest.param(b'{},"b":{}', id="escapes from its member"),
        pytest.param(b"\xef\xbb\xbf{}", id="BOM"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":Infinity}', id="Infinity"),
        pytest.param(b'{"a":-Infinity}', id="-Infinity"),
        pytest.param(b'{"a":01}', id="leading zero"),
        pytest.param(b'{"a":.5}', id="no leading digit"),
        pytest.param(b'{"a":+1}', id="plus"),
        pytest.param(b'{"a":1.}', id="no digit behind the point"),
        pytest.param(b'{"a":0x10}', id="hex"),
        pytest.param(b'{"a":1', id="cut"),
        pytest.param(b'{"a":"}', id="open string"),
        pytest.param(b'{"a":1,}', id="trailing comma"),
        pytest.param(b'{"a":1 /* c */}', id="comment"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b"{a:1}", id="bare key"),
        pytest.param(b"{1:1}", id="number as key"),
        pytest.param(b'{"a":tru}', id="broken literal"),
        pytest.param(b'{"a":"\\x41"}', id="unknown escape"),
        pytest.param(b'{"a":"\\u12"}', id="short escape"),
        pytest.param(b'{"a":"\n"}', id="newline inside a string"),
        pytest.param(b'{"a":"\0"}', id="NUL inside a string"),
        pytest.param(b'{"a":1}\0', id="NUL behind"),
        pytest.param(b'\x0c{"a":1}', id="form feed before"),
        pytest.param('{"a":1}\u00a0'.encode(), id="no-break space behind"),
        pytest.param(b'{"a":"\xff"}', id="invalid UTF-8 inside a string"),
        pytest.param(b'{"\xff":1}', id="invalid UTF-8 inside a key"),
        pytest.param(b'{"a":"\xc3"}', id="cut UTF-8 inside a string"),
        pytest.param(b'{"a":"\xc0\xaf"}', id="overlong UTF-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="surrogate as UTF-8"),
        pytest.param(b'{"a":"\\ud800"}', id="lone high surrogate"),
        pytest.param(b'{"a":"\\udc00"}', id="lone low surrogate"),
        pytest.param(b'{"a":"\\udc00\\ud800"}', id="surrogates in the wrong order"),
        pytest.param(b'{"\\ud800":1}', id="lone surrogate in a key"),
        pytest.param(b"\xff\xd8\xff\xe0photo", id="photo"),
    ],
)
def test_whatever_cannot_be_embedded_safely_is_inline(payload: bytes) -> None:
    """Nothing is refused for its content: what is no JSON object is binary."""
    assert decide_kind(payload) is Kind.INLINE


def test_the_document_limit_is_fifty_mebibytes() -> None:
    """The limit is the one that the HTTP door and the format name."""
    assert DOCUMENT_MAX_BYTES == 52_428_800


@pytest.mark.parametrize(
    ("size", "kind"), [(DOCUMENT_MAX_BYTES, Kind.DOCUMENT), (DOCUMENT_MAX_BYTES + 1, Kind.BLOB)]
)
def test_an_object_over_the_limit_is_a_blob(size: int, kind: Kind) -> None:
    """A JSON object of 50 MiB is a document, one byte more makes it a blob."""
    assert decide_kind(object_of(size)) is kind


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (0, Kind.INLINE),
        (INLINE_MAX_BYTES, Kind.INLINE),
        (INLINE_MAX_BYTES + 1, Kind.BLOB),
        (1 << 40, Kind.BLOB),
    ],
)
def test_binary_payloads_are_inline_up_to_sixteen_kibibytes(size: int, kind: Kind) -> None:
    """The size alone decides between inline and blob."""
    assert binary_kind(size) is kind


def test_a_binary_payload_is_decided_by_its_length() -> None:
    """decide_kind applies the limit of inline payloads to what is no document."""
    kinds = [decide_kind(b"x" * size) for size in (INLINE_MAX_BYTES, INLINE_MAX_BYTES + 1)]
    assert kinds == [Kind.INLINE, Kind.BLOB]


@pytest.mark.parametrize("payload", [b'{"a":1}', b"[]", b'{"a":"\xff"}', nest(NESTING_MAX + 1)])
def test_every_buffer_is_decided_alike(tmp_path: Path, payload: bytes) -> None:
    """bytes, bytearray, memoryview and a mapped file of equal content have one kind."""
    path = tmp_path / "payload"
    path.write_bytes(payload)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        kinds = {decide_kind(view), decide_kind(bytearray(payload)), decide_kind(payload)}
    assert len(kinds) == 1


# Nesting


@pytest.mark.parametrize(
    ("levels", "expected"), [(NESTING_MAX, True), (NESTING_MAX + 1, False), (100_000, False)]
)
def test_deep_nesting_is_binary(levels: int, expected: bool) -> None:
    """A document nests at most NESTING_MAX deep: what is deeper breaks readers that recurse."""
    assert is_json_object(nest(levels)) is expected


def test_a_hundred_thousand_nested_arrays_are_a_blob() -> None:
    """The deepest of traps is stored like any other bytes."""
    assert decide_kind(b"[" * 100_000 + b"]" * 100_000) is Kind.BLOB


def test_unclosed_nesting_is_binary() -> None:
    """Brackets that never close neither fail nor make a document."""
    assert decide_kind(b'{"a":' * 2_000) is Kind.INLINE


@pytest.mark.parametrize("levels", [NESTING_MAX, NESTING_MAX + 1, 500, 900])
def test_regression_kind_depended_on_the_stack_of_the_caller(levels: int) -> None:
    """A payload's kind is a function of its bytes, however deep the call stack is."""
    payload = nest(levels)
    assert call_deep(300, is_json_object, payload) is is_json_object(payload)


def measure_by_hand(value: Any) -> int:
    """The nesting of a value that json has read."""
    if isinstance(value, dict):
        return 1 + max(map(measure_by_hand, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(measure_by_hand, value), default=0)
    return 0


@explore
@given(json_texts)
def test_nesting_is_that_of_the_parsed_value(text: bytes) -> None:
    """Brackets are counted, those inside strings are not."""
    depth = measure_by_hand(json.loads(text))
    assert measure_nesting(text) == depth
    assert [nests_within(text, levels) for levels in (depth - 1, depth, depth + 1)] == [
        False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("shift", range(24))
def test_nesting_is_measured_over_the_seams_of_chunks(shift: int) -> None:
    """Strings, escapes and brackets are told apart wherever a large payload is cut."""
    tricky = rb'{"\\\"[":["]\\",{"\"":"\\\\"}],"[[[[":[[["{"]]]}'
    start = b'{"a":"'
    padding = b"x" * (MIB - len(start) - shift)
    payload = start + padding + b'","b":' + tricky + b"}"
    middle = start + b"x" + b'","b":"' + padding + rb"\\\"" + b'","c":' + tricky + b"}"
    assert [measure_nesting(payload), measure_nesting(middle)] == [5, 5]


# The oracle


def python_takes_it(payload: bytes) -> bool:
    """Whether Python's json module reads the payload as one object that can be written as UTF-8."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        # Digits without end are JSON; Python's int refuses more than 4300 of them.
        value = json.loads(payload.decode(), parse_constant=refuse, parse_int=str)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return False
    return isinstance(value, dict)


@explore
@given(json_texts | mutated(json_texts))
def test_documents_are_what_python_reads_as_an_object(payload: bytes) -> None:
    """Outside of deep nesting, a document is exactly what the json module reads as an object."""
    assert is_json_object(payload) == python_takes_it(payload)


@explore
@given(st.binary(max_size=200))
def test_any_bytes_have_a_kind(payload: bytes) -> None:
    """Nothing is refused for its content."""
    assert decide_kind(payload) in Kind


# The cheap filters


@explore
@given(json_texts, st.integers(1, 8))
def test_the_filter_by_edges_passes_every_document(payload: bytes, edge: int) -> None:
    """may_be_document refuses nothing that is a document, however little it is shown."""
    passes = may_be_document(len(payload), payload[:edge], payload[-edge:])
    assert passes or not is_json_object(payload)


@pytest.mark.parametrize(
    ("size", "head", "tail"),
    [
        (0, b"", b""),
        (1, b"{", b"{"),
        (DOCUMENT_MAX_BYTES + 1, b"{", b"}"),
        (10, b"[", b"]"),
        (10, b"{", b"]"),
        (10, b"\xef\xbb\xbf{", b"}"),
        (10, b"  [", b"}"),
    ],
)
def test_the_filter_by_edges_refuses_what_cannot_be_a_document(
    size: int, head: bytes, tail: bytes
) -> None:
    """Size, first and last bytes alone rule most binary payloads out."""
    assert not may_be_document(size, head, tail)


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 4])
def test_utf8_is_checked_over_the_seams_of_chunks(shift: int) -> None:
    """A character that lies across two chunks is whole."""
    payload = b"x" * (MIB - shift) + "😀".encode()
    assert [is_utf8(payload), is_utf8(payload + b"x"), is_utf8(payload[:-1])] == [True, True, False]


@explore
@given(
    st.binary(max_size=8) | st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace"))
)
def test_utf8_is_what_python_decodes(payload: bytes) -> None:
    """is_utf8 agrees with the codec."""
    try:
        codecs.decode(payload, "utf-8")
    except UnicodeDecodeError:
        assert not is_utf8(payload)
    else:
        assert is_utf8(payload)


# Words


def test_kinds_have_their_words() -> None:
    """Envelopes and listings call the kinds document, inline and blob."""
    assert [kind.word for kind in Kind] == ["document", "inline", "blob"]


@pytest.mark.parametrize(
    ("kind", "name", "head", "expected"),
    [
        (Kind.DOCUMENT, b"photo.jpg", b"{}", "application/json"),
        (Kind.DOCUMENT, None, b"{}", "application/json"),
        (Kind.INLINE, b"a.json", b"[]", "application/json"),
        (Kind.INLINE, b"a.jsonl", b"{}\n{}", "application/jsonl"),
        (Kind.INLINE, b"a.ndjson", b"{}\n{}", "application/jsonl"),
        (Kind.INLINE, b"README.md", b"#", "text/markdown"),
        (Kind.BLOB, b"a.jpg", b"{}", "image/jpeg"),
        (Kind.BLOB, b"a.JPG", b"\xff\xd8", "image/jpeg"),
        (Kind.BLOB, b"a.heic", b"\0", "image/heic"),
        (Kind.BLOB, b"service-2.json.gz", b"\x1f\x8b", "application/gzip"),
        (Kind.BLOB, b"a.tar.bz2", b"BZh", "application/x-bzip2"),
        (Kind.BLOB, b"a.tar.xz", b"\xfd", "application/x-xz"),
        (Kind.BLOB, b"a.Z", b"\x1f", "application/octet-stream"),
        (Kind.INLINE, b"folder.jpg/notes", b"text", "text/plain"),
        (Kind.INLINE, b"data:text/html,x", b"text", "text/plain"),
        (Kind.INLINE, b"\xff\xfe", b"text", "text/plain"),
        (Kind.INLINE, None, b"", "text/plain"),
        (Kind.INLINE, None, "zoë".encode()[:-1], "text/plain"),
        (Kind.INLINE, None, b"a\0b", "application/octet-stream"),
        (Kind.INLINE, None, b"\xff\xfe\xfd\xfc", "application/octet-stream"),
    ],
)
def test_media_type_comes_from_kind_then_name_then_bytes(
    kind: Kind, name: bytes | None, head: bytes, expected: str
) -> None:
    """A document is JSON; else the name's ending decides, else the first bytes."""
    assert guess_media_type(kind, name, head) == expected
