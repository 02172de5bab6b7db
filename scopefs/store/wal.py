"""The file index.db-wal, beside SQLite: made longer ahead, and synced for all who wait.

SQLite commits with synchronous=NORMAL: what is committed is written behind the WAL's end, and
nobody waits for the disk. Whoever has to wait has the file synced here, once for all that was
committed before, while the next transaction is already under way. That is all that FULL would do
(SQLite syncs by itself what NORMAL needs: the header of a WAL that starts anew, and checkpoints).

SQLite's locks are on index.db and -shm alone: this file may be opened and closed at any time.
Sizes in bytes. Raises `NoSpace`, `Unavailable`.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from scopefs.errors import FULL_ERRNOS, NoSpace, ScopefsError, Unavailable
from scopefs.store.index import PAGE_BYTES

RESERVE_BYTES = 1 << 20
"""How much the WAL is made longer at a time, by a process that commits often."""

QUICK_S = 0.0005
"""A sync that takes less is quick: to wait for a thread that waits for it takes as long."""

_MEMORY_SYNCS = 16
"""Over about so many of the last ones it is averaged how long a sync takes."""

_RESERVE_LEFT_BYTES = 256 << 10
_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24


class Wal:
    """The WAL of one open index. Commits are known by tickets, numbered as they were made."""

    def __init__(self, index_path: Path) -> None:
        self._path = f"{index_path}-wal"
        self._fd = -1
        self._is_to_close = False
        self._lock = threading.Lock()
        self._committed = 1
        self._synced = 0
        """At first there may be something that a process which was killed has committed."""
        self._lost: _Lost | None = None
        self._end = self._size = 0
        """Of what is in use, and of the file, as it was last seen: since the WAL began, it has not
        become shorter.
        """
        self._mean_s = 2 * QUICK_S
        """How long a sync takes; of a disk that is not known yet, too long."""

    @property
    def ticket(self) -> int:
        """Of the last commit."""
        return self._committed

    @property
    def is_synced(self) -> bool:
        """Whether all that this process has committed is on the disk."""
        return self._synced == self._committed

    @property
    def is_suspect(self) -> bool:
        """Whether something may be missing on the disk, and with it all that is written behind."""
        return self._lost is not None and self._lost.upto is None

    def note_commit(self) -> None:
        """Something was committed. One at a time."""
        self._committed += 1

    def sync(self, ticket: int) -> None:
        """Return when everything up to a commit is on the disk.

        A sync that failed is never tried again: the kernel may have dropped the pages, and say 0
        the next time. Everybody gets its error from then on, until `renew`.
        """
        with self._lock:
            self._sync(ticket)

    def try_sync(self, ticket: int) -> bool:
        """The same, if it is expected to be quick, and nobody else is at it; for event loops.

        A sync that turns out to be slow stops the loop once; one that fails is told by `sync`.
        """
        if self._mean_s > QUICK_S or not self._lock.acquire(blocking=False):
            return False
        try:
            self._sync(ticket)
        except ScopefsError:
            return False
        finally:
            self._lock.release()
        return True

    def _sync(self, ticket: int) -> None:
        try:
            if self._lost is not None and self._lost.has(ticket):
                raise _to_scopefs_error(self._lost.error)
            if ticket <= self._synced:
                return
            upto = self._committed
            begin = time.monotonic()
            os.fdatasync(self._open())
            self._mean_s += (time.monotonic() - begin - self._mean_s) / _MEMORY_SYNCS
            self._synced = upto
        except OSError as error:
            self._note_lost(error)
            raise _to_scopefs_error(error) from error
        finally:
            if self._is_to_close:
                self._close()

    def fail(self, error: OSError) -> None:
        """Somebody else's sync of the file has failed: SQLite's, before a checkpoint."""
        with self._lock:
            self._note_lost(error)

    def _note_lost(self, error: OSError) -> None:
        # An older failure stays in: who asks late may be told of a loss that was none.
        self._lost = _Lost(self._lost.since if self._lost else self._synced, None, error)

    def renew(self) -> None:
        """All that was committed was copied into index.db and synced there; the WAL begins anew."""
        with self._lock:
            if self._lost is not None:
                self._lost = self._lost._replace(upto=self._committed)
            self._synced = self._committed

    def reserve(self, pages: int) -> None:
        """Write zeros behind the WAL's end, which is after so many pages, if there are few.

        To sync what is written over takes half as long as to sync what makes a file longer. Only
        SQLite's write lock makes this safe: nobody else writes to the WAL. To SQLite zeros are what
        an older WAL has left, for they lack the salt of the present one. Raises `OSError`.
        """
        end = _HEADER_BYTES + pages * (_FRAME_HEADER_BYTES + PAGE_BYTES)
        # Asked for as rarely as can be: whoever has seen a file's times makes the next write set
        # them anew (Linux 6.13), and a sync that writes them takes half as long again.
        if self._end <= end <= self._size - _RESERVE_LEFT_BYTES:
            self._end = end
            return
        self._end, self._size = end, os.stat(self._path).st_size
        if self._size - end < _RESERVE_LEFT_BYTES:
            # Not that of a sync, which somebody may be waiting for.
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                self._size += os.pwrite(fd, bytes(RESERVE_BYTES), self._size)
            finally:
                os.close(fd)

    def open(self) -> None:
        """Open the file, if it is there: an error is told to those who had it open before."""
        with self._lock, suppress(FileNotFoundError):
            self._open()

    def close(self) -> None:
        """Let go of the file, after a sync that may be under way: nobody waits for that here."""
        if self._lock.acquire(blocking=False):
            self._close()
            self._lock.release()
        else:
            self._is_to_close = True

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        return self._fd

    def _close(self) -> None:
        fd, self._fd, self._is_to_close = self._fd, -1, False
        if fd >= 0:
            os.close(fd)


class _Lost(NamedTuple):
    """Tickets whose sync has failed: those behind `since`, up to `upto` or all that come."""

    since: int
    upto: int | None
    error: OSError

    def has(self, ticket: int) -> bool:
        return ticket > self.since and (self.upto is None or ticket <= self.upto)


def _to_scopefs_error(error: OSError) -> ScopefsError:
    if error.errno in FULL_ERRNOS:
        return NoSpace("the disk under the vault is full")
    return Unavailable(f"index.db could not be made durable: {error.strerror}")
