"""Drafts: bytes that are being written, at any offset, until they are sealed.

Up to 64 KiB a draft lives in memory and is journalled as a row; beyond, it is a file in staging/
that is written as the bytes come, so that memory does not grow with the file. SHA-256, of all and
of its chunks, is computed on the way where writes come in order.
"""

import errno
import hashlib
import mmap
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from scopefs.model.payload import (
    Kind,
    binary_kind,
    decide_kind,
    guess_media_type,
    is_any_json_object,
    may_be_document,
)
from scopefs.store.atomic import Descriptor, write_all
from scopefs.store.chunks import PayloadHash
from scopefs.store.owners import Owner
from scopefs.store.publish import Sealed
from scopefs.store.readers import PayloadReader

MEMORY_MAX_BYTES = 65_536
_CHUNK_BYTES = 1 << 20
_EDGE_BYTES = 4096


class Draft:
    """The bytes of one unfinished write. Not for several threads at once."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._memory = bytearray()
        self._file: Descriptor | None = None
        self._path: Path | None = None
        self._size = 0
        self._hash: PayloadHash | None = PayloadHash()
        """Of the beginning, as far as it has come; None if a part of that was changed since."""
        self._name_is_durable = False
        self.changed = True
        """Whether anything was written since the last seal."""

    def __enter__(self) -> "Draft":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if error is not None:
            self.discard()
        self.close()

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    @property
    def in_memory(self) -> bool:
        """Whether reads and writes touch no file."""
        return self._file is None

    def copy_from(
        self, reader: PayloadReader, size: int | None = None, *, hashed: bool = False
    ) -> None:
        """Start as a copy of a stored payload, or of its first `size` bytes.

        `hashed`: whether it is hashed on the way, which pays if these bytes are to stay.
        """
        size = reader.size if size is None else min(size, reader.size)
        if size <= MEMORY_MAX_BYTES:
            self.write(0, reader.read(0, size))
            return
        fd = self._spill()
        digest = PayloadHash() if hashed else None
        self._hash = None
        reader.copy_to(fd, size, digest)
        self._hash = digest
        self._size = size

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write at an offset; a gap before it is filled with zeros. Raises `OSError`."""
        end = offset + len(data)
        self.changed = True
        if self._file is None and max(end, self._size) <= MEMORY_MAX_BYTES:
            if offset > len(self._memory):
                self._memory.extend(bytes(offset - len(self._memory)))
            self._memory[offset:end] = data
        else:
            fd = self._spill()
            view = memoryview(data)
            at = offset
            # A hash that ran ahead of a failed write would be wrong.
            digest, self._hash = self._hash, None
            while view:
                done = os.pwrite(fd, view, at)
                view, at = view[done:], at + done
            if digest is not None and offset >= digest.size:
                if offset == digest.size:
                    digest.update(data)
                self._hash = digest
        self._size = max(self._size, end)

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write at the end."""
        self.write(self._size, data)

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from an offset; fewer at the end."""
        file = self._file
        size = max(0, min(size, self._size - offset))
        if file is None:
            return bytes(self._memory[offset : offset + size])
        data = os.pread(file.number, size, offset)
        return data + bytes(size - len(data))

    def truncate(self, size: int) -> None:
        """Set the length; what is gained reads as zeros. Raises `OSError`."""
        self.changed = True
        if self._file is None and size <= MEMORY_MAX_BYTES:
            if size > len(self._memory):
                self._memory.extend(bytes(size - len(self._memory)))
            del self._memory[size:]
        else:
            os.ftruncate(self._spill(), size)
            if self._hash is not None and self._hash.size > size:
                self._hash = None
        self._size = size

    def sync(self) -> None:
        """Make the bytes durable where they are in a file."""
        if self._file is not None:
            os.fdatasync(self._file.number)
            if not self._name_is_durable:
                self._owner.sync_names()
                self._name_is_durable = True

    def seal(self, name: bytes | None, *, is_synced: bool = False) -> Sealed:
        """Make the bytes durable in their file, if there is one, and say what they are.

        `name` is only asked for its ending. Writing may go on afterwards; then the seal is void.
        `is_synced`: a syncfs has made them durable.
        """
        if not is_synced:
            self.sync()
        self.changed = False
        head = self.read(0, _EDGE_BYTES)
        kind = self._decide_kind(head)
        media_type = guess_media_type(kind, name, head)
        if self._file is None:
            payload = bytes(self._memory)
            digest = hashlib.sha256(payload).digest()
            return Sealed(self._size, digest, kind, media_type, payload, None)
        found = self._hash_file()
        return Sealed(
            self._size, found.sha256, kind, media_type, None, self._relative_path(), found.digests
        )

    def holds_object(self) -> bool:
        """Whether all of it is one JSON object, of whatever size and depth."""
        if self._file is None:
            return is_any_json_object(self._memory)
        with (
            mmap.mmap(self._file.number, self._size, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
        ):
            return is_any_json_object(view)

    def close(self) -> None:
        """Let go; a staging file stays for whoever its row names."""
        self._file = None

    def leave(self) -> None:
        """Leave the staging file to the journal; if no row names it, the next open removes it."""
        self._path = None

    def discard(self) -> None:
        """Remove the staging file; the bytes stay readable while somebody reads them."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def save(self, path: Path) -> None:
        """Write the bytes to a new file, durably if the disk lets us. Raises `OSError`."""
        if self._path is not None:
            if self._file is not None:
                with suppress(OSError):
                    os.fdatasync(self._file.number)
            self._path.rename(path)
            self._path = None
            return
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, bytes(self._memory))
            os.fdatasync(fd)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(fd)

    def _spill(self) -> int:
        """The descriptor of the staging file, which memory gives way to."""
        if self._file is None:
            path = self._owner.next_path()
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                file = Descriptor(os.open(path, flags, 0o600))
            except FileNotFoundError as error:
                # Whoever writes a file must not hear that this one is missing.
                message = f"{path.parent} is gone: is the vault's disk mounted?"
                raise OSError(errno.EIO, message) from error
            if self._memory:
                try:
                    write_all(file.number, self._memory)
                except OSError:
                    # What is in memory is all there is, and stays.
                    path.unlink(missing_ok=True)
                    raise
                self._hash = PayloadHash()
                self._hash.update(self._memory)
            self._path = path
            self._file = file
            self._memory = bytearray()
        return self._file.number

    def _relative_path(self) -> str:
        assert self._path is not None
        return f"{self._owner.name}/{self._path.name}"

    def _decide_kind(self, head: bytes) -> Kind:
        tail = self.read(max(0, self._size - _EDGE_BYTES), _EDGE_BYTES)
        if self._file is None:
            return decide_kind(self._memory)
        if not may_be_document(self._size, head, tail):
            return binary_kind(self._size)
        # Mapped, so that a large document costs page cache and no memory of ours.
        with (
            mmap.mmap(self._file.number, self._size, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
        ):
            return decide_kind(view)

    def _hash_file(self) -> PayloadHash:
        found = self._hash or PayloadHash()
        while found.size < self._size:
            found.update(self.read(found.size, min(_CHUNK_BYTES, self._size - found.size)))
        self._hash = found
        return found
