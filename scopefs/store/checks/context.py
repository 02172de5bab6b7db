"""What the checks share: the vault that is looked at, pages, reading files at a limited rate."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import apsw

from scopefs.store.chunks import CHUNK_BYTES, PayloadHash
from scopefs.store.layout import Layout
from scopefs.store.problems import Problem

Cursor: TypeAlias = list[Any]
"""Where a check goes on: what JSON can hold."""

T = TypeVar("T")

REINDEX = "unmount, then `scopefs reindex` makes the index again from the files"
FOREIGN = "it is not of scopefs: move it out of the vault"
_BURST_S = 0.1


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a check: where to go on, how much was looked at, and what was found."""

    cursor: Cursor
    count: int
    problems: list[Problem]


@dataclass(slots=True)
class Checked:
    """A vault that is looked at, from a process that has it open."""

    layout: Layout
    read: Callable[[], AbstractContextManager[apsw.Connection]]
    hold: Callable[[], AbstractContextManager[None]]
    """While it is held, nobody settles: files in data/, trash/, blobs/ and events/ stay."""
    rate_bytes: float | None = None
    """How many bytes may be read in a second."""
    bytes_read: int = 0
    tell: Callable[[], None] = lambda: None
    """Called after each read."""
    _due_s: float = field(default=0.0, init=False)
    """When the next read may be, by the monotonic clock."""

    def open(self, path: Path) -> "OpenFile":
        """Open a file to be read and hashed. Raises `OSError`."""
        return OpenFile(self, path)

    def count_bytes(self, count: int) -> None:
        """Count what was read, and wait if it was too much."""
        self.bytes_read += count
        self.tell()
        if self.rate_bytes:
            now = time.monotonic()
            # Time in which nothing was read is not made up for.
            self._due_s = max(self._due_s, now) + count / self.rate_bytes
            if self._due_s - now > _BURST_S:
                time.sleep(self._due_s - now)

    def find(
        self, statement: str, keys: Iterable[Any], extra: tuple[Any, ...] = ()
    ) -> Iterator[tuple[Any, ...]]:
        """Rows for some keys, which the statement has as `?1`, a JSON list."""
        with self.read() as db:
            yield from db.execute(statement, (to_json(keys), *extra)).fetchall()


class OpenFile:
    """A file that is checked: read from the disk, not from memory, as far as the kernel lets us."""

    def __init__(self, checked: Checked, path: Path) -> None:
        self._checked = checked
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.size = os.fstat(self._fd).st_size
        self._forget()

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes."""
        data = os.pread(self._fd, size, offset)
        self._checked.count_bytes(len(data))
        return data

    def hash(self, offset: int, size: int) -> PayloadHash:
        """The hash of a part, and the digests of its chunks."""
        found = PayloadHash()
        for start in range(offset, offset + size, CHUNK_BYTES):
            found.update(self.read(start, min(CHUNK_BYTES, offset + size - start)))
        return found

    def __enter__(self) -> "OpenFile":
        return self

    def __exit__(self, *_: object) -> None:
        # What was read for a check is not worth keeping in memory.
        self._forget()
        os.close(self._fd)

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)


def to_json(values: Iterable[Any]) -> str:
    """A list for `json_each`; numbers and texts."""
    return json.dumps(list(values), ensure_ascii=True)


def batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Values in lists of `size`, the last one shorter."""
    batch: list[T] = []
    for value in values:
        batch.append(value)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def show_path(path: str) -> str:
    """A path that may not be UTF-8, as text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
