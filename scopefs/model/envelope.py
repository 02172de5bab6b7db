"""Envelopes: one JSON object per version, readable without scopefs.

::

    {"version":"1.0","scope":...,"collectedAt":...,"file":{...},"data":<payload>}

`data` stands last, and a document's payload stands in it byte for byte, so that it is read back as
a slice of the file. `file` holds what a rebuild of the index needs; other readers ignore it. An
envelope is a pure function of its version's facts: `encode_frame` renders what stands before and
after the payload, whoever asks, whenever.

Source: docs/format.md.
"""

import base64
from dataclasses import dataclass
from typing import Any

import msgspec

from scopefs.errors import InvalidEnvelope, InvalidScope, InvalidTime
from scopefs.model.payload import (
    NESTING_MAX,
    Kind,
    is_json_object,
    is_utf8,
    nests_within,
)
from scopefs.model.scope import Scope, parse_scope
from scopefs.model.stamps import format_collected_at, parse_collected_at

ENVELOPE_VERSION = "1.0"
SHA256_BYTES = 32


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the envelope says about the payload. Sizes in bytes, `mtime_ns` since the epoch."""

    kind: Kind
    size_bytes: int
    sha256: bytes
    media_type: str
    name: bytes | None = None
    """The name within the scope, folders included (`My Photos/a.jpg`); None for a nameless put."""
    mtime_ns: int | None = None
    metadata: str | None = None
    """What its sender said about a payload that is no document."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded envelope. `data` is the exact text of the member, `payload` what it stands for."""

    scope: Scope
    collected_us: int
    data: bytes
    file: FileFacts | None = None

    @property
    def collected_at(self) -> str:
        return format_collected_at(self.collected_us)


class Receipt(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a put: the ingest response of the personal server."""

    scope: str
    collected_at: str
    status: str = "stored"

    def __post_init__(self) -> None:
        if self.status not in ("stored", "syncing"):
            raise ValueError(f"status {self.status!r} is neither stored nor syncing")
        parse_collected_at(self.collected_at)


class _Wire(msgspec.Struct, rename="camel"):
    version: str
    scope: str
    collected_at: str
    data: msgspec.Raw
    file: msgspec.Raw = msgspec.Raw(b"")


class _WireFile(msgspec.Struct, rename="camel"):
    kind: str
    size_bytes: int
    sha256: str
    media_type: str = "application/octet-stream"
    name: str | None = None
    name_hex: str | None = None
    mtime_ns: int | None = None
    metadata: str | None = None


def create_data_file_envelope(scope: str, collected_at: str, data: bytes) -> Envelope:
    """Build an envelope around the text of one JSON object, as the personal server does.

    Raises `InvalidScope`, `InvalidTime`, and `InvalidEnvelope` if `data` is no JSON object that
    can stand in an envelope.
    """
    envelope = Envelope(parse_scope(scope), parse_collected_at(collected_at), data)
    if not is_json_object(data):
        raise InvalidEnvelope("the data is no JSON object that can stand in an envelope")
    return envelope


def encode_envelope(envelope: Envelope) -> bytes:
    """The bytes of an envelope, as they stand on disk."""
    head = _encode_head(envelope.scope.raw, envelope.collected_at, envelope.file)
    return head + b'"data":' + envelope.data + b"}\n"


def encode_frame(scope: str, collected_us: int, file: FileFacts) -> tuple[bytes, bytes]:
    """What stands before and after the stored form of the payload: `(head, tail)`.

    The envelope is `head + encode_stored(kind, payload) + tail`; for a document the payload's
    offset in the file is `len(head)`.
    """
    head = _encode_head(scope, format_collected_at(collected_us), file) + b'"data":'
    if file.kind is Kind.DOCUMENT:
        return head, b"}\n"
    members: dict[str, Any] = {"$binary": True, "mimeType": file.media_type}
    if file.name is not None:
        members["filename"] = file.name.rpartition(b"/")[2].decode("utf-8", "replace")
    members["sizeBytes"] = file.size_bytes
    members["contentHash"] = f"0x{file.sha256.hex()}"
    if file.metadata is not None:
        members["metadata"] = _as_json(file.metadata)
    members["encoding"] = "base64" if file.kind is Kind.INLINE else "blob"
    text = head + msgspec.json.encode(members)
    if file.kind is Kind.INLINE:
        return text[:-1] + b',"content":"', b'"}}\n'
    return text, b"}\n"


def encode_stored(kind: Kind, payload: bytes) -> bytes:
    """The form in which a payload stands in its envelope."""
    if kind is Kind.DOCUMENT:
        return payload
    return base64.b64encode(payload) if kind is Kind.INLINE else b""


def decode_stored(kind: Kind, stored: bytes) -> bytes:
    """The payload of a document or of an inline version from its form in the envelope.

    Raises `InvalidEnvelope` if it is no base64.
    """
    if kind is Kind.DOCUMENT:
        return stored
    try:
        return base64.b64decode(stored, validate=True)
    except ValueError as error:
        raise InvalidEnvelope(f"the payload is no base64: {error}") from error


def stored_size(kind: Kind, size_bytes: int) -> int:
    """The length of the payload's form in the envelope, in bytes."""
    if kind is Kind.DOCUMENT:
        return size_bytes
    return (size_bytes + 2) // 3 * 4 if kind is Kind.INLINE else 0


def decode_envelope(content: bytes) -> Envelope:
    """Read an envelope.

    Raises `InvalidEnvelope`: not JSON, not UTF-8, a version other than 1.0, a scope or a time that
    is none, `data` that is no object.
    """
    try:
        wire = msgspec.json.decode(content, type=_Wire)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEnvelope(f"not an envelope: {error}") from error
    except RecursionError as error:
        raise InvalidEnvelope("not an envelope: nested too deeply") from error
    if wire.version != ENVELOPE_VERSION:
        raise InvalidEnvelope(f"envelope version {wire.version!r}: only 1.0 is known")
    data = bytes(wire.data)
    if not data.startswith(b"{"):
        raise InvalidEnvelope("the member data is no JSON object")
    if not is_utf8(content):
        raise InvalidEnvelope("not an envelope: not UTF-8")
    try:
        scope = parse_scope(wire.scope)
        collected_us = parse_collected_at(wire.collected_at)
    except (InvalidScope, InvalidTime) as error:
        raise InvalidEnvelope(f"not an envelope: {error}") from error
    return Envelope(scope, collected_us, data, _decode_file(bytes(wire.file)))


def decode_envelope_head(start: bytes) -> Envelope:
    """Read an envelope of ours from its first bytes, as far as `data`, which is given as `{}`.

    Raises `InvalidEnvelope`, also if the head does not end within `start`.
    """
    # A quote within a member would be escaped, so that this stands where `data` begins.
    head, mark, _ = start.partition(b',"data":')
    if not mark:
        raise InvalidEnvelope("not an envelope: it has no member data where it should be")
    return decode_envelope(head + b',"data":{}}')


def find_payload_slice(envelope: Envelope, content: bytes) -> bytes:
    """The stored form of the payload in one of our own envelopes, cut by its recorded size.

    Raises `InvalidEnvelope` if the bytes around it are not those that scopefs writes.
    """
    if envelope.file is None:
        return envelope.data
    head, tail = encode_frame(envelope.scope.raw, envelope.collected_us, envelope.file)
    size = stored_size(envelope.file.kind, envelope.file.size_bytes)
    whole = len(head) + size + len(tail) == len(content)
    if not (whole and content.startswith(head) and content.endswith(tail)):
        raise InvalidEnvelope("the envelope is not as scopefs wrote it")
    return content[len(head) : len(head) + size]


def _decode_file(raw: bytes) -> FileFacts | None:
    """The member `file`, if it is one of ours: other programs may put anything there."""
    if not raw:
        return None
    try:
        wire = msgspec.json.decode(raw, type=_WireFile)
        kind = Kind[wire.kind.upper()]
        name = bytes.fromhex(wire.name_hex) if wire.name_hex is not None else None
        sha256 = bytes.fromhex(wire.sha256)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, ValueError):
        return None
    if wire.size_bytes < 0 or len(sha256) != SHA256_BYTES:
        return None
    if name is None and wire.name is not None:
        name = wire.name.encode("utf-8")
    return FileFacts(
        kind, wire.size_bytes, sha256, wire.media_type, name, wire.mtime_ns, wire.metadata
    )


def _encode_head(scope: str, collected_at: str, file: FileFacts | None) -> bytes:
    head = (
        b'{"version":"1.0","scope":"%b","collectedAt":"%b",'
        % (scope.encode("ascii"), collected_at.encode("ascii"))
    )  # fmt: skip
    if file is None:
        return head
    members: dict[str, Any] = {"kind": file.kind.word}
    members |= encode_name(file.name)
    members["sizeBytes"] = file.size_bytes
    members["sha256"] = file.sha256.hex()
    members["mediaType"] = file.media_type
    if file.mtime_ns is not None:
        members["mtimeNs"] = file.mtime_ns
    if file.metadata is not None:
        # As a string: nothing in a head may look like the member `data`.
        members["metadata"] = file.metadata
    return head + b'"file":' + msgspec.json.encode(members) + b","


def _as_json(text: str) -> msgspec.Raw | str:
    """Text as the JSON that it is; as a string, if it is none, or none that every reader takes."""
    content = text.encode("utf-8")
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return text
    return msgspec.Raw(content) if nests_within(content, NESTING_MAX - 1) else text


def encode_name(name: bytes | None, key: str = "name") -> dict[str, str]:
    """A file name as JSON members: text under `key`, or `<key>Hex` where it is not UTF-8."""
    if name is None:
        return {}
    try:
        return {key: name.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{key}Hex": name.hex()}
