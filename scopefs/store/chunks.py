"""Digests of chunks: so that a part of a large payload can be checked without reading all of it.

A payload over 1 MiB has a row in the table `chunks`, by its SHA-256: the first 16 bytes of the
SHA-256 of each of its chunks of 1 MiB, one behind the other. It is computed while the payload is
hashed, and written with its version. The row is a convenience, and may be missing (an older index,
one that was rebuilt): whoever reads then hashes the whole payload once, and has it written.
A payload of one chunk needs none, for its digest is the beginning of its SHA-256.
"""

import hashlib
from collections.abc import Mapping

import apsw

from scopefs.store.sql import fetch

CHUNK_BYTES = 1 << 20
DIGEST_BYTES = 16


class PayloadHash:
    """The hash of a payload, and the digests of its chunks, fed from its start to its end."""

    def __init__(self) -> None:
        self.size = 0
        self._whole = hashlib.sha256()
        self._chunk = hashlib.sha256()
        self._digests = bytearray()

    def update(self, data: bytes | bytearray | memoryview, digest: bytes | None = None) -> None:
        """Feed what comes next. `digest`: that of `data`, if it is one chunk and that is known."""
        if digest is not None and self.size % CHUNK_BYTES == 0 and len(data) == CHUNK_BYTES:
            self._whole.update(data)
            self._digests += digest
            self.size += CHUNK_BYTES
            return
        view = memoryview(data).cast("B")
        while view:
            part = view[: CHUNK_BYTES - self.size % CHUNK_BYTES]
            view = view[len(part) :]
            self._whole.update(part)
            if self.size >= CHUNK_BYTES:
                self._chunk.update(part)
            self.size += len(part)
            if self.size % CHUNK_BYTES == 0:
                # The first chunk is hashed once: until its end it is the whole.
                ended = self._whole if self.size == CHUNK_BYTES else self._chunk
                self._digests += ended.digest()[:DIGEST_BYTES]
                self._chunk = hashlib.sha256()

    @property
    def sha256(self) -> bytes:
        """SHA-256 of all that was fed."""
        return self._whole.digest()

    @property
    def digests(self) -> bytes | None:
        """Those of the chunks; None if there is only one."""
        if self.size <= CHUNK_BYTES:
            return None
        rest = self._chunk.digest()[:DIGEST_BYTES] if self.size % CHUNK_BYTES else b""
        return bytes(self._digests) + rest


def digest_chunk(data: bytes | memoryview) -> bytes:
    """What stands in the row for a chunk."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def find_digests(db: apsw.Connection, sha256: bytes, size: int) -> bytes | None:
    """The digests of a payload's chunks; None if they are not known."""
    if size <= CHUNK_BYTES:
        return sha256[:DIGEST_BYTES]
    rows = fetch(db, "SELECT digests FROM chunks WHERE sha256 = ?", (sha256,))
    count = (size + CHUNK_BYTES - 1) // CHUNK_BYTES
    if not rows or len(rows[0][0]) != count * DIGEST_BYTES:
        return None
    return bytes(rows[0][0])


def record_digests(db: apsw.Connection, digests: Mapping[bytes, bytes]) -> None:
    """Write the rows of payloads, by their SHA-256; within a transaction."""
    for sha256, found in digests.items():
        db.execute("INSERT OR REPLACE INTO chunks(sha256, digests) VALUES(?,?)", (sha256, found))


def drop_digests(db: apsw.Connection, sha256: bytes) -> None:
    """Forget a payload; if somebody else has the same, whoever reads it has the row made anew."""
    db.execute("DELETE FROM chunks WHERE sha256 = ?", (sha256,))
