"""Reading index.db without writing a byte beside it: for a vault that may only be read.

How far SQLite allows that depends on what lies beside the index:

- `index.db-wal` and `index.db-shm` are there, as in every vault that was opened once: both are
  opened for reading (`readonly_shm`). While others write, SQLite's locks and shared memory hold,
  and every query sees what was committed.
- A WAL with something in it, but no shared memory, as in a copy: nobody writes, and the WAL is
  read into memory (`locking_mode = EXCLUSIVE` over a VFS without locks).
- No WAL, or an empty one without shared memory: index.db is all there is (`immutable`).

In the last two nobody is told that we read. So before every query it is looked whether somebody has
begun to write meanwhile: then the connections are replaced by such of the first kind.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias
from urllib.parse import quote

import apsw

from scopefs.errors import IndexBroken, Unavailable
from scopefs.store.index import BUSY_TIMEOUT_MS, REPAIR, ReaderPool, read_meta
from scopefs.store.schema import APPLICATION_ID, is_current
from scopefs.store.sql import fetch

_State: TypeAlias = tuple[tuple[int, int, int] | None, ...]
_WRITING = (
    apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_DELETEONCLOSE
)  # fmt: skip


class _ReadingVFS(apsw.VFS):
    """SQLite's own access to files, but opened for reading alone, whatever SQLite asks for."""

    def __init__(self, base: str) -> None:
        # Not its name alone: it lives as long as this object.
        self.vfs_name = f"scopefs-reading-{base}"
        super().__init__(self.vfs_name, base)
        self._base = base

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        flags[0] = flags[0] & ~_WRITING | apsw.SQLITE_OPEN_READONLY
        return apsw.VFSFile(self._base, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        raise apsw.ReadOnlyError(f"{filename} is not removed by who only reads")


_SHARED = _ReadingVFS("unix")
_ALONE = _ReadingVFS("unix-none")


def _give(fd: int, uid: int, gid: int) -> int:
    """fchown(2) for SQLite, but not of what was opened for reading alone.

    As root it gives WAL and shared memory the owner of index.db, although they have it: that is a
    change of their inodes.
    """
    try:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            os.fchown(fd, uid, gid)
    except OSError as error:
        ctypes.set_errno(error.errno or errno.EPERM)
        return -1
    return 0


_GIVE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)(_give)


def _leave_owners() -> None:
    """From now on `_give` is what SQLite calls."""
    pointer = ctypes.cast(_GIVE, ctypes.c_void_p).value
    assert pointer is not None
    _SHARED.xSetSystemCall("fchown", pointer)


class ReadOnlyPool(ReaderPool):
    """Reading connections that write nothing, and read what others write meanwhile."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        _leave_owners()
        self._state = _look(path)

    @contextmanager
    def connection(self) -> Iterator[apsw.Connection]:
        """Lend a connection. SQLite's errors become `IndexBroken`, or `Unavailable`."""
        with self._lock:
            if not _is_shared(self._state) and (state := _look(self._path)) != self._state:
                self._state = state
                while self._idle:
                    self._idle.pop().close()
            begun = self._state
            if not self._idle:
                self._idle.append(_open(self._path, begun))
        try:
            with super().connection() as db:
                yield db
        except IndexBroken as error:
            if isinstance(error.__cause__, apsw.ReadOnlyError | apsw.BusyError):
                raise Unavailable(
                    "index.db is being recovered by another process: try again"
                ) from error
            raise

    def check(self, vault_id: str) -> None:
        """Look whether it is the index of that vault, and up to date. Raises `IndexBroken`,
        `NewerFormat`, `Unavailable`.
        """
        with self.connection() as db:
            current = is_current(db)
            found = read_meta(db, "vault_id")
        if found != vault_id:
            raise IndexBroken(f"{self._path} is the index of another vault: {REPAIR}")
        if not current:
            raise Unavailable(
                f"{self._path} was written by an older scopefs: it has to be brought up to date by "
                "opening it once for writing (`scopefs status`)"
            )


def _look(path: str) -> _State:
    """What lies there: inode, size and mtime of index.db, its WAL and its shared memory."""
    return tuple(_look_at(f"{path}{suffix}") for suffix in ("", "-wal", "-shm"))


def _look_at(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_shared(state: _State) -> bool:
    _, wal, shm = state
    return wal is not None and shm is not None


def _open(path: str, state: _State) -> apsw.Connection:
    """Open a connection as what lies there allows. Raises `IndexBroken`."""
    _, wal, _ = state
    if _is_shared(state):
        vfs, parameters = _SHARED, "?readonly_shm=1"
    elif wal is not None and wal[1]:
        vfs, parameters = _ALONE, ""
    else:
        vfs, parameters = _SHARED, "?immutable=1"
    try:
        db = apsw.Connection(
            f"file:{quote(os.fsencode(path))}{parameters}", vfs=vfs.vfs_name,
            flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        )  # fmt: skip
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        if vfs is _ALONE:
            fetch(db, "PRAGMA locking_mode = EXCLUSIVE")
        found = fetch(db, "PRAGMA application_id")[0][0]
    except apsw.Error as error:
        raise IndexBroken(f"{path} cannot be read as an index: {error}; {REPAIR}") from error
    if found != APPLICATION_ID:
        db.close()
        raise IndexBroken(f"{path} is no index of scopefs (application id {found:#x}): {REPAIR}")
    return db
