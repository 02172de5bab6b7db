"""What a payload is: a JSON document, small inline bytes, or a blob.

Nothing is ever refused for its content: whatever cannot stand verbatim inside an envelope, so that
every JSON reader can still read that envelope, is binary.
"""

import codecs
import enum
import functools
import mimetypes
import re
from itertools import accumulate
from typing import NoReturn, TypeAlias

import msgspec

from scopefs.errors import IndexBroken

Buffer: TypeAlias = bytes | bytearray | memoryview

DOCUMENT_MAX_BYTES = 52_428_800
"""Largest payload that is embedded verbatim: 50 MiB."""

INLINE_MAX_BYTES = 16_384
"""Largest binary payload that stands base64-encoded in its envelope instead of in a blob."""

NESTING_MAX = 200
"""Deepest nesting of arrays and objects in a document. A fixed number, because what a parser that
recurses can take depends on who calls it: beyond about 990 levels Python's readers fail, beyond 256
those of jq 1.6."""

_CHUNK_BYTES = 1 << 20
_STEPS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
_NO_STEPS = bytes(set(range(256)) - set(b'"[]{}'))
_JSON_BLANKS = b" \t\n\r"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F](?=[0-9a-fA-F]{2})")
_EDGE_BYTES = 4096

# Only what the interpreter ships: the machine's own mime.types must not decide what is stored.
_TYPES = mimetypes.MimeTypes()
_TYPES.add_type("application/jsonl", ".jsonl")
_TYPES.add_type("application/jsonl", ".ndjson")
_TYPES.add_type("text/markdown", ".md")
_TYPES.add_type("image/heic", ".heic")


class Kind(enum.IntEnum):
    """How a version's payload is stored; decides everything, never a look into user data."""

    DOCUMENT = 0
    """One JSON object, verbatim in `data`."""
    INLINE = 1
    """Other bytes, base64 in `data.content`."""
    BLOB = 2
    """Other bytes, in `blobs/`."""

    @property
    def word(self) -> str:
        """The word that stands in envelopes and listings."""
        return self.name.lower()

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise IndexBroken(f"index.db names a kind that never was: {value!r}")


def decide_kind(payload: Buffer) -> Kind:
    """The kind of a payload, from all of its bytes."""
    if len(payload) <= DOCUMENT_MAX_BYTES and is_json_object(payload):
        return Kind.DOCUMENT
    return binary_kind(len(payload))


def binary_kind(size: int) -> Kind:
    """The kind of a payload that is no document."""
    return Kind.INLINE if size <= INLINE_MAX_BYTES else Kind.BLOB


def may_be_document(size: int, head: bytes, tail: bytes) -> bool:
    """Whether a payload can be a document, by its size and its first and last bytes alone.

    A cheap filter before `is_json_object`, which must see everything.
    """
    if not 2 <= size <= DOCUMENT_MAX_BYTES:
        return False
    first, last = head.lstrip(_JSON_BLANKS)[:1], tail.rstrip(_JSON_BLANKS)[-1:]
    # An edge of nothing but blanks tells nothing.
    return first in (b"{", b"") and last in (b"}", b"")


def is_json_object(payload: Buffer) -> bool:
    """Whether the payload is one JSON object that can be embedded verbatim.

    `msgspec.Raw` checks the grammar and refuses lone surrogates, but not UTF-8 inside strings;
    nesting beyond the interpreter's recursion limit raises, and is no document long before.
    """
    view = memoryview(payload)
    if not may_be_document(len(view), bytes(view[:_EDGE_BYTES]), bytes(view[-_EDGE_BYTES:])):
        return False
    try:
        raw = msgspec.json.decode(view, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    if bytes(memoryview(raw)[:1]) != b"{":
        return False
    return nests_within(view, NESTING_MAX) and is_utf8(view)


def is_any_json_object(payload: Buffer) -> bool:
    """Whether the payload is one JSON object, though it may be none that can be a document.

    It may be too large, nest too deeply (to about 1,000 levels), or escape lone surrogates, which
    the grammar allows and `JSON.stringify` writes.
    """
    view = memoryview(payload)
    if not is_utf8(view):
        return False
    # Any other escape in the place of a surrogate's leaves the rest as it is, whatever is before.
    return _begins_object(view) or (
        _SURROGATE.search(view) is not None and _begins_object(_SURROGATE.sub(rb"\\u00", view))
    )


def _begins_object(text: Buffer) -> bool:
    try:
        raw = msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return bytes(memoryview(raw)[:1]) == b"{"


def nests_within(payload: Buffer, levels: int) -> bool:
    """Whether arrays and objects nest no deeper than so many levels in a valid JSON text."""
    view = memoryview(payload)
    if len(view) <= _CHUNK_BYTES:
        # Most have fewer of them altogether.
        text = bytes(view)
        if text.count(b"{") + text.count(b"[") <= levels:
            return True
    return measure_nesting(view) <= levels


def measure_nesting(payload: Buffer) -> int:
    """How deep arrays and objects nest in a valid JSON text. Needs memory for one chunk only."""
    view = memoryview(payload)
    level = deepest = 0
    in_string = False
    carry = b""
    for start in range(0, len(view), _CHUNK_BYTES):
        chunk = carry + bytes(view[start : start + _CHUNK_BYTES])
        text = chunk.rstrip(b"\\")
        carry = chunk[len(text) :]
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        # Without escapes, every quote opens or closes a string; a pair of neighbours is no matter.
        marks = text.translate(_STEPS, _NO_STEPS).replace(b'""', b"").split(b'"')
        steps = memoryview(b"".join(marks[in_string::2])).cast("b")
        highest = max(accumulate(steps, initial=level))
        deepest = max(deepest, highest)
        level += sum(steps)
        in_string ^= len(marks) % 2 == 0
    return deepest


def is_utf8(payload: Buffer) -> bool:
    """Whether the bytes are valid UTF-8. Needs memory for one chunk only."""
    view = memoryview(payload)
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(view), _CHUNK_BYTES):
            decoder.decode(bytes(view[start : start + _CHUNK_BYTES]))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def guess_type_of_name(kind: Kind, name: bytes | None) -> str | None:
    """The media type by kind, then by the name's ending; None if neither tells."""
    if kind is Kind.DOCUMENT:
        return "application/json"
    if name is None:
        return None
    base = name.rpartition(b"/")[2].lstrip(b".")
    return _guess_type_of_ending(b"".join(base.partition(b".")[1:]))


@functools.lru_cache(4096)
def _guess_type_of_ending(ending: bytes) -> str | None:
    known, encoding = _TYPES.guess_type(f"/x{ending.decode('utf-8', 'replace')}")
    if encoding is None:
        return known
    return {"gzip": "application/gzip", "bzip2": "application/x-bzip2",
            "xz": "application/x-xz"}.get(encoding, "application/octet-stream")  # fmt: skip


def guess_media_type(kind: Kind, name: bytes | None, head: bytes) -> str:
    """The media type by kind, then by the name's ending, then by the first bytes."""
    known = guess_type_of_name(kind, name)
    if known is not None:
        return known
    if b"\0" in head:
        return "application/octet-stream"
    try:
        # A cut at the edge may split a character: what is begun there is forgiven.
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain"
