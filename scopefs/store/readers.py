"""Readers: bytes at rest, in memory or in files, at any offset.

A reader keeps its descriptor, so that what is moved or removed while it is read stays readable.
`CheckedReader` answers nothing that it has not compared with a hash; `Checks` is what all of one
vault share: a bounded number of buffers, and a thread that hashes ahead. Usable from every thread.
Raises `PayloadCorrupt`.
"""

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from scopefs.errors import PayloadCorrupt
from scopefs.store.atomic import Descriptor, copy_range
from scopefs.store.chunks import CHUNK_BYTES, DIGEST_BYTES, PayloadHash, digest_chunk

INLINE_READ_BYTES = 65_536
"""Reads up to this size are not worth a hop to a thread (about 116 us)."""

BUFFERS = 32
"""Checked chunks that are kept, over all readers: 32 MiB."""

_AHEAD_THREADS = 2


class PayloadReader(Protocol):
    """Bytes at rest, readable at any offset."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from an offset; fewer only at the end."""
        ...

    def is_ready(self, offset: int, size: int) -> bool:
        """Whether such a read takes next to no time."""
        ...

    def copy_to(self, fd: int, size: int, hashed: PayloadHash | None = None) -> None:
        """Copy the first `size` bytes to the start of a file, and feed them to a hash."""
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

    def is_ready(self, _offset: int, _size: int) -> bool:
        return True

    def copy_to(self, fd: int, size: int, hashed: PayloadHash | None = None) -> None:
        _copy_by_reading(self, fd, size, hashed)

    def close(self) -> None:
        return None


class FileReader:
    """A slice of a file, as it is."""

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

    def is_ready(self, _offset: int, size: int) -> bool:
        return size <= INLINE_READ_BYTES

    def copy_to(self, fd: int, size: int, hashed: PayloadHash | None = None) -> None:
        _copy_by_reading(self, fd, size, hashed)

    def copy_part(self, fd: int, offset: int, size: int) -> None:
        """Copy a part to where it stands in another file, sharing its blocks if that can be."""
        copy_range(self._open_file().number, fd, size, offset, self._start + offset)

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

    def is_ready(self, offset: int, size: int) -> bool:
        start = 0
        for part in self._parts:
            first, last = max(offset, start), min(offset + size, start + part.size)
            if first < last and not part.is_ready(first - start, last - first):
                return False
            start += part.size
        return True

    def copy_to(self, fd: int, size: int, hashed: PayloadHash | None = None) -> None:
        _copy_by_reading(self, fd, size, hashed)

    def close(self) -> None:
        for part in self._parts:
            part.close()


class Checks:
    """What the checked readers of one vault share."""

    def __init__(self, note_digests: Callable[[bytes, bytes], None]) -> None:
        """`note_digests`: told the digests of a payload (by its SHA-256) that had no row."""
        self.note_digests = note_digests
        self._numbers = itertools.count()
        # Collecting garbage can close a reader within this very lock.
        self._lock = threading.RLock()
        self._buffers: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._ahead = ThreadPoolExecutor(_AHEAD_THREADS, thread_name_prefix="scopefs-ahead")

    def next_number(self) -> int:
        """A number for a new reader."""
        return next(self._numbers)

    def find(self, reader: int, chunk: int) -> bytes | None:
        """A checked chunk, if it is still kept."""
        with self._lock:
            found = self._buffers.get((reader, chunk))
            if found is not None:
                self._buffers.move_to_end((reader, chunk))
            return found

    def keep(self, reader: int, chunk: int, data: bytes) -> None:
        """Keep a checked chunk; the one that was not asked for the longest gives way."""
        with self._lock:
            self._buffers[reader, chunk] = data
            while len(self._buffers) > BUFFERS:
                self._buffers.popitem(last=False)

    def drop(self, reader: int, chunk: int | None = None) -> None:
        """Forget a chunk of a reader, or all of them."""
        with self._lock:
            for key in [key for key in self._buffers if key[0] == reader]:
                if chunk is None or key[1] == chunk:
                    self._buffers.pop(key, None)

    def submit(self, work: Callable[[], None]) -> bool:
        """Have something done in another thread; False once that is over."""
        try:
            self._ahead.submit(work)
        except RuntimeError:
            return False
        return True

    def close(self) -> None:
        """End the threads."""
        self._ahead.shutdown(wait=True)


class CheckedReader:
    """A payload in a file, of which nothing is answered that was not compared with its hash.

    Chunks are read whole, hashed, and answered from memory; while they are read in order, the next
    one is hashed ahead. A chunk that is damaged is an error, again and again; others are served.
    """

    def __init__(
        self, checks: Checks, source: FileReader, sha256: bytes, digests: bytes | None, path: object
    ) -> None:
        """`digests`: of its chunks; None: unknown, so that all is hashed before the first read."""
        self.size = source.size
        self._checks = checks
        self._source = source
        self._sha256 = sha256
        self._digests = digests
        self._path = path
        self._number = checks.next_number()
        self._lock = threading.Lock()
        self._learning = threading.Lock()
        self._loading: dict[int, Future[bytes]] = {}
        self._last = -1
        self._is_damaged = False

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size)
        pieces = []
        while offset < end:
            chunk, start = divmod(offset, CHUNK_BYTES)
            # First the thread, so that it hashes while this one does.
            self._look_ahead(chunk)
            data = self._load(chunk)
            piece = data[start : start + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def is_ready(self, offset: int, size: int) -> bool:
        end = min(offset + size, self.size)
        if end <= offset:
            return True
        chunks = range(offset // CHUNK_BYTES, (end - 1) // CHUNK_BYTES + 1)
        return all(self._checks.find(self._number, chunk) is not None for chunk in chunks)

    def copy_to(self, fd: int, size: int, hashed: PayloadHash | None = None) -> None:
        for chunk in range((size + CHUNK_BYTES - 1) // CHUNK_BYTES):
            data = self._read_checked(chunk)
            offset = chunk * CHUNK_BYTES
            used = min(len(data), size - offset)
            self._source.copy_part(fd, offset, used)
            if hashed is not None:
                hashed.update(memoryview(data)[:used], self._digest_of(chunk))

    def close(self) -> None:
        self._checks.drop(self._number)
        self._source.close()

    def __del__(self) -> None:
        self._checks.drop(self._number)

    def _load(self, chunk: int) -> bytes:
        """A checked chunk, by whichever thread is at it already."""
        data = self._checks.find(self._number, chunk)
        if data is not None:
            return data
        future, is_mine = self._claim(chunk)
        if is_mine:
            self._fill(chunk, future)
        return future.result()

    def _look_ahead(self, chunk: int) -> None:
        """Have the next chunk hashed, if this one follows the last."""
        if chunk == self._last:
            return
        is_sequential = chunk == self._last + 1
        self._last = chunk
        if not is_sequential:
            return
        if chunk >= 2:
            # Who reads in order does not come back; others may need the room.
            self._checks.drop(self._number, chunk - 2)
        following = chunk + 1
        if following * CHUNK_BYTES >= self.size or self._digests is None:
            return
        if self._checks.find(self._number, following) is None:
            future, is_mine = self._claim(following)
            if is_mine and not self._checks.submit(lambda: self._fill(following, future)):
                self._fill(following, future)

    def _claim(self, chunk: int) -> tuple[Future[bytes], bool]:
        """What a chunk will be, and whether it is for the caller to load it."""
        with self._lock:
            known = self._loading.get(chunk)
            if known is not None:
                return known, False
            future: Future[bytes] = Future()
            self._loading[chunk] = future
            return future, True

    def _fill(self, chunk: int, future: "Future[bytes]") -> None:
        try:
            data = self._read_checked(chunk)
        except BaseException as error:
            with self._lock:
                del self._loading[chunk]
            future.set_exception(error)
        else:
            self._checks.keep(self._number, chunk, data)
            with self._lock:
                del self._loading[chunk]
            future.set_result(data)

    def _read_checked(self, chunk: int) -> bytes:
        """A chunk from the file. Raises `PayloadCorrupt` unless it is what was stored."""
        expected = self._digest_of(chunk)
        data = self._read_file(chunk * CHUNK_BYTES)
        if digest_chunk(data) != expected:
            raise self._damage()
        return data

    def _digest_of(self, chunk: int) -> bytes:
        digests = self._digests
        if digests is None:
            with self._learning:
                digests = self._digests or self._learn()
        return digests[chunk * DIGEST_BYTES : (chunk + 1) * DIGEST_BYTES]

    def _learn(self) -> bytes:
        """Hash all of it once."""
        if self._is_damaged:
            raise self._damage()
        found = PayloadHash()
        for start in range(0, self.size, CHUNK_BYTES):
            found.update(self._read_file(start))
        if found.sha256 != self._sha256:
            self._is_damaged = True
            raise self._damage()
        assert found.digests is not None
        self._digests = found.digests
        self._checks.note_digests(self._sha256, found.digests)
        return found.digests

    def _read_file(self, offset: int) -> bytes:
        try:
            return self._source.read(offset, CHUNK_BYTES)
        except OSError as error:
            raise PayloadCorrupt(f"{self._path} cannot be read: {error.strerror}") from error
        except PayloadCorrupt as error:
            raise self._damage() from error

    def _damage(self) -> PayloadCorrupt:
        return PayloadCorrupt(f"{self._path}: the payload does not have the hash that was stored")


def _copy_by_reading(reader: PayloadReader, fd: int, size: int, hashed: PayloadHash | None) -> None:
    for start in range(0, size, CHUNK_BYTES):
        data = reader.read(start, min(CHUNK_BYTES, size - start))
        if hashed is not None:
            hashed.update(data)
        view, offset = memoryview(data), start
        while view:
            done = os.pwrite(fd, view, offset)
            view, offset = view[done:], offset + done
