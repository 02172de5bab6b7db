"""Reading what is stored: payloads and envelopes of versions, settled or not.

Until a version is settled its bytes are read from its staged row or staging file; afterwards from
its envelope or blob. A reader keeps its descriptor, so a version that is moved to the trash while
it is read stays readable. Raises `PayloadMissing`, `PayloadCorrupt`, `NotFound`.
"""

import errno
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

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
from scopefs.store.atomic import Descriptor, copy_range
from scopefs.store.index import Version, find_by_id
from scopefs.store.layout import Layout
from scopefs.store.sql import fetch

WHOLE_MAX_BYTES = 65_536
"""Settled payloads up to this size are read and checked whole when they are opened."""

_CHUNK_BYTES = 1 << 20


class PayloadReader(Protocol):
    """Bytes at rest, readable at any offset."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from an offset; fewer only at the end."""
        ...

    def copy_to(self, fd: int, offset: int = 0) -> None:
        """Copy everything to `offset` of a file."""
        ...

    def close(self) -> None:
        """Give up the file; reads under way in other threads still finish."""
        ...


class BytesReader:
    """Bytes that are in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]

    def copy_to(self, fd: int, offset: int = 0) -> None:
        view = memoryview(self._content)
        while view:
            done = os.pwrite(fd, view, offset)
            view, offset = view[done:], offset + done

    def close(self) -> None:
        return None


class FileReader:
    """A slice of a file."""

    def __init__(self, file: Descriptor, start: int, size: int) -> None:
        self._file: Descriptor | None = file
        self._start = start
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        file = self._open_file()
        size = max(0, min(size, self.size - offset))
        data = os.pread(file.number, size, self._start + offset)
        if len(data) != size:
            raise PayloadCorrupt("a stored file is shorter than recorded")
        return data

    def copy_to(self, fd: int, offset: int = 0) -> None:
        if self._start == 0:
            copy_range(self._open_file().number, fd, self.size, offset)
            return
        for start in range(0, self.size, _CHUNK_BYTES):
            BytesReader(self.read(start, _CHUNK_BYTES)).copy_to(fd, offset + start)

    def slice(self, start: int, size: int) -> "FileReader":
        """A reader of a part."""
        return FileReader(self._open_file(), self._start + start, size)

    def close(self) -> None:
        self._file = None

    def _open_file(self) -> Descriptor:
        if self._file is None:
            raise ValueError("the reader is closed")
        return self._file


class JoinedReader:
    """Several readers, one behind the other."""

    def __init__(self, parts: Sequence[PayloadReader]) -> None:
        self._parts = parts
        self.size = sum(part.size for part in parts)

    def read(self, offset: int, size: int) -> bytes:
        pieces = []
        for part in self._parts:
            if offset < part.size and size > 0:
                piece = part.read(offset, size)
                pieces.append(piece)
                size -= len(piece)
                offset = 0
            else:
                offset = max(0, offset - part.size)
        return b"".join(pieces)

    def copy_to(self, fd: int, offset: int = 0) -> None:
        for part in self._parts:
            part.copy_to(fd, offset)
            offset += part.size

    def close(self) -> None:
        for part in self._parts:
            part.close()


def file_facts(version: Version) -> FileFacts:
    """What the version's envelope says about its payload."""
    return FileFacts(
        version.kind, version.payload_size, version.payload_sha256,
        version.media_type or "application/octet-stream", version.name, version.mtime_ns,
    )  # fmt: skip


def open_payload(db: apsw.Connection, layout: Layout, version: Version) -> PayloadReader:
    """Open the exact bytes that were put."""
    return _open(db, layout, version, envelope=False)


def open_envelope(db: apsw.Connection, layout: Layout, version: Version) -> PayloadReader:
    """Open the envelope, as it stands or will stand in data/."""
    return _open(db, layout, version, envelope=True)


def open_scratch(db: apsw.Connection, layout: Layout, node: int) -> PayloadReader:
    """Open the bytes of a scratch file."""
    rows = fetch(db, "SELECT payload, file, size FROM scratch WHERE node = ?", (node,))
    if not rows:
        raise NotFound(f"node {node} is no scratch file any more")
    payload, file, size = rows[0]
    if payload is not None:
        return BytesReader(payload)
    try:
        return _open_file(layout.staging / file, 0, size)
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
    db: apsw.Connection, layout: Layout, version: Version, *, envelope: bool
) -> PayloadReader:
    # What is looked up may be settled or moved before it is opened: then the row tells where to.
    for attempt in range(3):
        found = version if attempt == 0 else find_by_id(db, version.id)
        if found is None:
            raise NotFound(f"{version.scope} {version.stamp} is gone")
        try:
            staged = fetch(db, "SELECT payload, file FROM staged WHERE version = ?", (version.id,))
            if staged:
                if envelope:
                    found = find_by_id(db, version.id) or found
                return _open_staged(layout, found, *staged[0], envelope=envelope)
            return _open_settled(db, layout, found, envelope=envelope)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise Unavailable(f"too many open files: {error.strerror}") from error
            raise PayloadMissing(f"{version.path} cannot be read: {error.strerror}") from error
    raise PayloadMissing(
        f"{version.path}: the payload of {version.scope} {version.stamp} is missing"
    )


def _open_staged(
    layout: Layout, version: Version, payload: bytes | None, file: str | None, *, envelope: bool
) -> PayloadReader:
    if payload is None and file is None:
        raise PayloadMissing(f"{version.scope} {version.stamp}: nothing is staged for it")
    body: PayloadReader
    if payload is not None:
        body = BytesReader(payload)
    else:
        body = _open_file(layout.staging / str(file), 0, version.payload_size)
    if not envelope:
        return body
    head, tail = encode_frame(version.scope, version.collected_us, file_facts(version))
    if version.kind is not Kind.DOCUMENT:
        is_inline = version.kind is Kind.INLINE
        stored = encode_stored(version.kind, body.read(0, body.size)) if is_inline else b""
        body.close()
        body = BytesReader(stored)
    return JoinedReader((BytesReader(head), body, BytesReader(tail)))


def _open_settled(
    db: apsw.Connection, layout: Layout, version: Version, *, envelope: bool
) -> PayloadReader:
    if version.kind is Kind.BLOB and not envelope:
        path = layout.blob(version.payload_sha256)
        blob = _open_file(path, 0, version.payload_size)
        if version.payload_size > WHOLE_MAX_BYTES:
            return blob
        return BytesReader(_check_hash(path, version, blob.read(0, blob.size)))
    path = _find_file(db, layout, version.path)
    head, tail = encode_frame(version.scope, version.collected_us, file_facts(version))
    size = stored_size(version.kind, version.payload_size)
    whole = _open_file(path, 0, len(head) + size + len(tail))
    if whole.read(0, len(head)) != head or whole.read(len(head) + size, len(tail)) != tail:
        whole.close()
        raise PayloadCorrupt(f"{path} is not the envelope that was stored")
    if envelope:
        return whole
    if version.kind is Kind.DOCUMENT and version.payload_size > WHOLE_MAX_BYTES:
        return whole.slice(len(head), size)
    stored = whole.read(len(head), size)
    whole.close()
    try:
        payload = decode_stored(version.kind, stored)
    except InvalidEnvelope as error:
        raise PayloadCorrupt(f"{path}: {error}") from error
    return BytesReader(_check_hash(path, version, payload))


def _find_file(db: apsw.Connection, layout: Layout, path: str) -> Path:
    """Where the file is that stands at a path, or will once the pending moves are made."""
    seen: set[str] = set()
    while not (layout.root / path).exists() and path not in seen:
        seen.add(path)
        moves = fetch(db, "SELECT source FROM moves WHERE target = ? ORDER BY id DESC", (path,))
        path = moves[0][0] if moves else path
    return layout.root / path


def _check_hash(path: Path, version: Version, payload: bytes) -> bytes:
    if hashlib.sha256(payload).digest() != version.payload_sha256:
        raise PayloadCorrupt(f"{path}: the payload does not have the hash that was stored")
    return payload


def _open_file(path: Path, start: int, size: int) -> FileReader:
    file = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    found = os.fstat(file.number).st_size
    if found != start + size:
        raise PayloadCorrupt(f"{path} has {found} bytes instead of {start + size}")
    return FileReader(file, start, size)
