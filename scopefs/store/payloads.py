"""Opening what is stored: payloads and envelopes of versions, settled or not.

Until a version is settled its bytes are read from its staged row or staging file; afterwards from
its envelope or blob. Up to 64 KiB they are read and compared with their hash when they are opened;
larger ones when they are read (`CheckedReader`), unless the caller gives no `Checks`. What stands
around a payload in its envelope is compared in any case, and answered from what it must be.
Raises `PayloadMissing`, `PayloadCorrupt`, `NotFound`.
"""

import errno
import hashlib
import os
from pathlib import Path

import apsw

from scopefs.errors import InvalidEnvelope, NotFound, PayloadCorrupt, PayloadMissing, Unavailable
from scopefs.model.envelope import (
    FileFacts,
    decode_stored,
    encode_frame,
    encode_stored,
    stored_size,
)
from scopefs.model.payload import Kind
from scopefs.store.atomic import Descriptor
from scopefs.store.chunks import find_digests
from scopefs.store.index import Version, find_by_id
from scopefs.store.layout import Layout
from scopefs.store.readers import (
    BytesReader,
    CheckedReader,
    Checks,
    FileReader,
    JoinedReader,
    PayloadReader,
)
from scopefs.store.sql import fetch

WHOLE_MAX_BYTES = 65_536
"""Payloads up to this size are read and checked whole when they are opened."""


def file_facts(version: Version) -> FileFacts:
    """What the version's envelope says about its payload."""
    return FileFacts(
        version.kind, version.payload_size, version.payload_sha256,
        version.media_type or "application/octet-stream", version.name, version.mtime_ns,
        version.metadata,
    )  # fmt: skip


def open_payload(
    db: apsw.Connection, layout: Layout, version: Version, checks: Checks | None = None
) -> PayloadReader:
    """Open the exact bytes that were put."""
    return _open(db, layout, version, checks, envelope=False)


def open_envelope(
    db: apsw.Connection, layout: Layout, version: Version, checks: Checks | None = None
) -> PayloadReader:
    """Open the envelope, as it stands or will stand in data/."""
    return _open(db, layout, version, checks, envelope=True)


def open_scratch(
    db: apsw.Connection, layout: Layout, node: int, checks: Checks | None = None
) -> PayloadReader:
    """Open the bytes of a scratch file."""
    rows = fetch(db, "SELECT payload, file, size, sha256 FROM scratch WHERE node = ?", (node,))
    if not rows:
        raise NotFound(f"node {node} is no scratch file any more")
    payload, file, size, sha256 = rows[0]
    if payload is not None:
        return BytesReader(_check_hash(f"the scratch file {node}", sha256, payload))
    path = layout.staging / file
    try:
        return _check_file(db, _open_file(path, 0, size), sha256, path, checks)
    except FileNotFoundError as error:
        raise PayloadMissing(f"the staging file {file} of a scratch file is missing") from error


def is_settled(db: apsw.Connection, version_id: int) -> bool:
    """Whether the version's envelope stands on the disk and will not change any more."""
    return not fetch(db, "SELECT 1 FROM staged WHERE version = ?", (version_id,))


def envelope_size(version: Version) -> int:
    """The length of the envelope as its row describes it now, in bytes."""
    head, tail = encode_frame(version.scope, version.collected_us, file_facts(version))
    return len(head) + stored_size(version.kind, version.payload_size) + len(tail)


def _open(
    db: apsw.Connection, layout: Layout, version: Version, checks: Checks | None, *, envelope: bool
) -> PayloadReader:
    # What is looked up may be settled or moved before it is opened: then the row tells where to.
    for attempt in range(3):
        found = version if attempt == 0 else find_by_id(db, version.id)
        if found is None:
            raise NotFound(f"{version.scope} {version.stamp} is gone")
        try:
            staged = fetch(db, "SELECT payload, file FROM staged WHERE version = ?", (version.id,))
            if not staged:
                return _open_settled(db, layout, found, checks, envelope=envelope)
            payload = _open_staged(db, layout, found, staged[0][0], staged[0][1], checks)
            if not envelope:
                return payload
            # Its name may have changed since.
            return _join_envelope(find_by_id(db, version.id) or found, payload)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise Unavailable(f"too many open files: {error.strerror}") from error
            raise PayloadMissing(f"{version.path} cannot be read: {error.strerror}") from error
    if not layout.vault_json.exists():
        raise Unavailable(f"{layout.root} is gone: is its disk mounted?")
    raise PayloadMissing(
        f"{version.path}: the payload of {version.scope} {version.stamp} is missing"
    )


def _open_staged(
    db: apsw.Connection, layout: Layout, version: Version, payload: bytes | None, file: str | None,
    checks: Checks | None,
) -> PayloadReader:  # fmt: skip
    if payload is not None:
        where = f"the journal's row of {version.scope} {version.stamp}"
        return BytesReader(_check_hash(where, version.payload_sha256, payload))
    if file is None:
        raise PayloadMissing(f"{version.scope} {version.stamp}: nothing is staged for it")
    path = layout.staging / file
    source = _open_file(path, 0, version.payload_size)
    return _check_file(db, source, version.payload_sha256, path, checks)


def _join_envelope(version: Version, payload: PayloadReader) -> PayloadReader:
    """An envelope that is not placed yet, around its payload."""
    head, tail = encode_frame(version.scope, version.collected_us, file_facts(version))
    if version.kind is Kind.DOCUMENT:
        return JoinedReader((BytesReader(head), payload, BytesReader(tail)))
    is_inline = version.kind is Kind.INLINE
    stored = encode_stored(version.kind, payload.read(0, payload.size)) if is_inline else b""
    payload.close()
    return BytesReader(head + stored + tail)


def _open_settled(
    db: apsw.Connection, layout: Layout, version: Version, checks: Checks | None, *, envelope: bool
) -> PayloadReader:
    if version.kind is Kind.BLOB and not envelope:
        path = layout.blob(version.payload_sha256)
        source = _open_file(path, 0, version.payload_size)
        return _check_file(db, source, version.payload_sha256, path, checks)
    path = _find_file(db, layout, version.path)
    head, tail = encode_frame(version.scope, version.collected_us, file_facts(version))
    size = stored_size(version.kind, version.payload_size)
    whole = _open_file(path, 0, len(head) + size + len(tail))
    if whole.read(0, len(head)) != head or whole.read(len(head) + size, len(tail)) != tail:
        raise PayloadCorrupt(f"{path} is not the envelope that was stored")
    if version.kind is Kind.BLOB:
        return BytesReader(head + tail)
    if version.kind is Kind.DOCUMENT:
        source = whole.slice(len(head), size)
        payload = _check_file(db, source, version.payload_sha256, path, checks)
        if envelope:
            return JoinedReader((BytesReader(head), payload, BytesReader(tail)))
        return payload
    stored = whole.read(len(head), size)
    try:
        content = decode_stored(version.kind, stored)
    except InvalidEnvelope as error:
        raise PayloadCorrupt(f"{path}: {error}") from error
    _check_hash(path, version.payload_sha256, content)
    if encode_stored(version.kind, content) != stored:
        raise PayloadCorrupt(f"{path} is not the envelope that was stored")
    return BytesReader(head + stored + tail if envelope else content)


def _check_file(
    db: apsw.Connection, source: FileReader, sha256: bytes, path: Path, checks: Checks | None
) -> PayloadReader:
    """A reader of a payload in a file: checked at once if it is small, else as it is read."""
    if source.size <= WHOLE_MAX_BYTES:
        return BytesReader(_check_hash(path, sha256, source.read(0, source.size)))
    if checks is None:
        return source
    return CheckedReader(checks, source, sha256, find_digests(db, sha256, source.size), path)


def _find_file(db: apsw.Connection, layout: Layout, path: str) -> Path:
    """Where the file is that stands at a path, or will once the pending moves are made."""
    seen: set[str] = set()
    while not (layout.root / path).exists() and path not in seen:
        seen.add(path)
        moves = fetch(db, "SELECT source FROM moves WHERE target = ? ORDER BY id DESC", (path,))
        path = moves[0][0] if moves else path
    return layout.root / path


def _check_hash(where: Path | str, sha256: bytes, payload: bytes) -> bytes:
    if hashlib.sha256(payload).digest() != sha256:
        raise PayloadCorrupt(f"{where}: the payload does not have the hash that was stored")
    return payload


def _open_file(path: Path, start: int, size: int) -> FileReader:
    file = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    found = os.fstat(file.number).st_size
    if found != start + size:
        raise PayloadCorrupt(f"{path} has {found} bytes instead of {start + size}")
    return FileReader(file, start, size)
