"""Recording the calls that the store makes to the disk, and letting them fail.

`os`, syncfs and SQLite's VFS are wrapped in this process. A call that writes below the root and is
not known here is an error, so that nothing goes unrecorded; and whoever records compares what the
calls come to with what is really there (`Tape.check_complete`).
"""

import ctypes
import functools
import io
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from scopefs.store import atomic
from scopefs.store.wal import RESERVE_BYTES
from tests.crash.disk import Disk, Op

_UNKNOWN = ("truncate", "symlink", "mknod", "mkfifo", "writev", "pwritev", "sendfile",
            "splice", "posix_fallocate", "renames", "removedirs", "remove")  # fmt: skip
_NAME_SYNCED = ("-wal", "-journal")


class Tape:
    """The calls below one directory, in their order."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.ops: list[Op] = []
        self.disk = Disk()
        self.before: Callable[[str], None] = lambda kind: None
        """Called before each call, with its name; may raise `OSError` instead."""
        self._descriptors: dict[int, int] = {}
        self._lock = threading.RLock()

    def parts(self, path: Any) -> tuple[str, ...] | None:
        """A path below the root, in its parts; None for any other."""
        if isinstance(path, int):
            return None
        text = os.path.abspath(os.fsdecode(path))
        if not text.startswith(f"{self.root}/"):
            return None
        parts = tuple(text[len(self.root) + 1 :].split("/"))
        return None if _is_ignored(parts) else parts

    def place(self, path: Any) -> tuple[int, str] | None:
        """Directory and name of a path below the root."""
        parts = self.parts(path)
        if parts is None:
            return None
        directory = self.disk.find(parts[:-1])
        assert directory is not None, path
        return directory, parts[-1]

    def number(self, path: Any) -> int | None:
        """The number of what stands at a path below the root."""
        parts = self.parts(path)
        return None if parts is None else self.disk.find(parts)

    def note(self, *op: Any) -> None:
        """Record a call that has succeeded."""
        self.ops.append(op)
        self.disk.apply(op)

    def forget(self) -> None:
        """Drop what was recorded: nothing will be replayed. Only names and contents stay known."""
        self.ops.clear()
        self.disk.apply(("syncfs",))

    @contextmanager
    def call(self, kind: str) -> Iterator[None]:
        """Around a call: one at a time, so that their order is known."""
        with self._lock:
            self.before(kind)
            yield

    def descriptor(self, fd: int) -> int | None:
        """The number of the file or directory that is open as `fd`."""
        return self._descriptors.get(fd)

    def note_open(self, fd: int, number: int) -> None:
        """Remember what is open as `fd`."""
        self._descriptors[fd] = number

    def note_close(self, fd: int) -> None:
        """`fd` is about to be closed."""
        self._descriptors.pop(fd, None)

    def check_complete(self, target: Path) -> None:
        """Fail unless the calls, replayed into an empty directory, give what is really there."""
        disk = Disk()
        for op in self.ops:
            disk.apply(op)
        disk.materialise(target, "killed")
        assert list(_contents(target)) == list(_contents(Path(self.root)))


def _is_ignored(parts: tuple[str, ...]) -> bool:
    """Nothing is promised about logs."""
    return parts[1:2] == ("logs",) and len(parts) > 2


def _contents(root: Path) -> Iterator[tuple[str, bytes | None]]:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if not path.name.endswith("-shm") and not _is_ignored(name.parts):
            yield str(name), None if path.is_dir() else path.read_bytes()


@contextmanager
def recording(tape: Tape) -> Iterator[None]:
    """Record all that this process does below the root of a tape."""
    with pytest.MonkeyPatch.context() as patch:
        _wrap_os(patch, tape)
        _wrap_files(patch, tape)
        patch.setattr(atomic, "_LIBC", _Libc(tape))
        vfs = _RecordingVFS(tape)
        try:
            yield
        finally:
            vfs.unregister()


def _wrap_os(patch: pytest.MonkeyPatch, tape: Tape) -> None:
    real = {name: getattr(os, name) for name in dir(os) if callable(getattr(os, name))}

    def wrap(function: Callable[..., Any]) -> None:
        name = function.__name__
        patch.setattr(os, name, functools.wraps(real[name])(function))

    def open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if not (writes and flags & os.O_CREAT and tape.parts(path)):
            fd: int = real["open"](path, flags, mode, dir_fd=dir_fd)
            number = tape.number(path)
            if number is not None:
                tape.note_open(fd, number)
            return fd
        assert not flags & (os.O_TRUNC | os.O_APPEND), path
        with tape.call("create"):
            fd = real["open"](path, flags, mode)
            place, number = tape.place(path), tape.number(path)
            assert place is not None
            if number is None:
                number = tape.disk.next_number()
                tape.note("create", *place, number)
            tape.note_open(fd, number)
        return fd

    def close(fd: int) -> None:
        tape.note_close(fd)
        real["close"](fd)

    def write(fd: int, data: Any) -> int:
        number = tape.descriptor(fd)
        if number is None:
            return int(real["write"](fd, data))
        with tape.call("write"):
            offset = os.lseek(fd, 0, os.SEEK_CUR)
            done = int(real["write"](fd, data))
            tape.note("write", number, offset, bytes(data[:done]))
        return done

    def pwrite(fd: int, data: Any, offset: int) -> int:
        number = tape.descriptor(fd)
        if number is None:
            return int(real["pwrite"](fd, data, offset))
        with tape.call("reserve" if len(data) == RESERVE_BYTES else "write"):
            done = int(real["pwrite"](fd, data, offset))
            tape.note("write", number, offset, bytes(data[:done]))
        return done

    def copy_file_range(
        src: int, dst: int, count: int, offset_src: int | None = None,
        offset_dst: int | None = None,
    ) -> int:  # fmt: skip
        number = tape.descriptor(dst)
        assert offset_src is not None
        assert offset_dst is not None
        with tape.call("write"):
            done = int(real["copy_file_range"](src, dst, count, offset_src, offset_dst))
            if number is not None:
                tape.note("write", number, offset_dst, os.pread(src, done, offset_src))
        return done

    def ftruncate(fd: int, length: int) -> None:
        number = tape.descriptor(fd)
        with tape.call("truncate"):
            real["ftruncate"](fd, length)
            if number is not None:
                tape.note("truncate", number, length)

    def _sync(name: str, fd: int) -> None:
        number = tape.descriptor(fd)
        with tape.call("sync"):
            real[name](fd)
            if number is not None:
                tape.note("sync", number)

    def fsync(fd: int) -> None:
        _sync("fsync", fd)

    def fdatasync(fd: int) -> None:
        _sync("fdatasync", fd)

    def link(src: Any, dst: Any, **options: Any) -> None:
        with tape.call("link"):
            real["link"](src, dst, **options)
            number, place = tape.number(src), tape.place(dst)
            if place is not None:
                assert number is not None, src
                tape.note("link", number, *place)

    def rename(src: Any, dst: Any, **options: Any) -> None:
        _move("rename", src, dst, options)

    def replace(src: Any, dst: Any, **options: Any) -> None:
        _move("replace", src, dst, options)

    def _move(name: str, src: Any, dst: Any, options: dict[str, Any]) -> None:
        with tape.call("rename"):
            real[name](src, dst, **options)
            old, new = tape.place(src), tape.place(dst)
            assert (old is None) == (new is None), (src, dst)
            if old is not None and new is not None:
                tape.note("rename", *old, *new)

    def unlink(path: Any, **options: Any) -> None:
        _end("unlink", path, options)

    def rmdir(path: Any, **options: Any) -> None:
        _end("rmdir", path, options)

    def _end(name: str, path: Any, options: dict[str, Any]) -> None:
        with tape.call(name):
            real[name](path, **options)
            place = tape.place(path)
            if place is not None:
                tape.note("unlink", *place)

    def mkdir(path: Any, mode: int = 0o777, **options: Any) -> None:
        with tape.call("mkdir"):
            real["mkdir"](path, mode, **options)
            place = tape.place(path)
            if place is not None:
                tape.note("mkdir", *place, tape.disk.next_number())

    for function in (open, close, write, pwrite, copy_file_range, ftruncate, fsync, fdatasync,
                     link, rename, replace, unlink, rmdir, mkdir):  # fmt: skip
        wrap(function)
    for name in _UNKNOWN:
        patch.setattr(os, name, _refuse_below(tape, real[name]))


def _refuse_below(tape: Tape, real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def refused(*args: Any, **options: Any) -> Any:
        assert not any(tape.parts(arg) for arg in args if isinstance(arg, str | os.PathLike)), (
            real.__name__, args,
        )  # fmt: skip
        assert not args or not isinstance(args[0], int) or tape.descriptor(args[0]) is None
        return real(*args, **options)

    return refused


def _wrap_files(patch: pytest.MonkeyPatch, tape: Tape) -> None:
    """Python's own files write past `os`: known are those that are written whole."""
    real_open, real_write_bytes = io.open, pathlib.Path.write_bytes

    def open_checked(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        writes = set(mode) & set("wax+")
        assert not (writes and tape.parts(file)), f"{file} is opened for writing, unrecorded"
        assert not (writes and isinstance(file, int) and tape.descriptor(file) is not None)
        return real_open(file, mode, *args, **options)

    def write_bytes(path: Path, content: bytes) -> int:
        if tape.parts(path) is None:
            return real_write_bytes(path, content)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            atomic.write_all(fd, content)
        finally:
            os.close(fd)
        return len(content)

    patch.setattr(io, "open", open_checked)
    patch.setattr("builtins.open", open_checked)
    patch.setattr(pathlib.Path, "write_bytes", write_bytes)


class _Libc:
    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def syncfs(self, fd: int) -> int:
        try:
            with self._tape.call("syncfs"):
                if self._tape.descriptor(fd) is not None:
                    self._tape.note("syncfs")
        except OSError as error:
            ctypes.set_errno(error.errno or 0)
            return -1
        return 0


class _RecordingFile(apsw.VFSFile):
    def __init__(self, tape: Tape, name: Any, flags: list[int]) -> None:
        self._tape = tape
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._number = self._directory = None
        with tape.call("create" if flags[0] & apsw.SQLITE_OPEN_CREATE else "open"):
            super().__init__("unix", name, flags)
            place = tape.place(path) if path else None
            if place is None:
                return
            self._number = tape.number(path)
            if self._number is None:
                self._number = tape.disk.next_number()
                tape.note("create", *place, self._number)
            # SQLite syncs their names with the first sync of each connection (UNIXFILE_DIRSYNC).
            self._directory = place[0] if path.endswith(_NAME_SYNCED) else None

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._tape.call("sql-write"):
            super().xWrite(data, offset)
            if self._number is not None:
                self._tape.note("write", self._number, offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        with self._tape.call("sql-truncate"):
            super().xTruncate(size)
            if self._number is not None:
                self._tape.note("truncate", self._number, size)

    def xSync(self, flags: int) -> None:
        with self._tape.call("sql-sync"):
            super().xSync(flags)
            if self._number is not None:
                self._tape.note("sync", self._number)
            if self._directory is not None:
                self._tape.note("sync", self._directory)
                self._directory = None


class _RecordingVFS(apsw.VFS):
    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        super().__init__("recording", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> _RecordingFile:
        return _RecordingFile(self._tape, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:
        with self._tape.call("sql-unlink"):
            super().xDelete(name, syncdir)
            place = self._tape.place(name)
            if place is not None:
                self._tape.note("unlink", *place)
                if syncdir:
                    self._tape.note("sync", place[0])
