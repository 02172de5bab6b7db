"""Files that appear whole or not at all.

What is promised: after `publish_file` or `write_file` returned, the file is on the disk under its
name, and never existed half under it. What is not: nothing here is durable before the call returns,
and a crash in between may leave a temporary file behind, which whoever owns its directory sweeps.
"""

import ctypes
import errno
import os
import uuid
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)


class Descriptor:
    """An open file, closed when nothing refers to it any more.

    Whoever reads in a thread holds a reference: so no descriptor is closed, and its number given
    to another file, in the middle of a read.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


def sync_file_system(fd: int) -> None:
    """Write everything of the file system of `fd` to the disk (syncfs). Raises `OSError`."""
    if _LIBC.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: Path) -> None:
    """Make a directory and those above it, 0700. They become durable with the next syncfs."""
    missing = [path]
    while not missing[-1].exists():
        missing.append(missing[-1].parent)
    for directory in reversed(missing[:-1]):
        # Someone else may be making it at this moment.
        directory.mkdir(mode=0o700, exist_ok=True)


def write_temporary(path: Path, content: bytes) -> None:
    """Write a new file, 0600, without syncing it. Raises `FileExistsError`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, content)
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes | bytearray | memoryview) -> None:
    """Write all of `content`, however many calls that takes."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def write_file(path: Path, content: bytes) -> None:
    """Make a new durable file. Raises `FileExistsError`, and then changes nothing."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_temporary(temporary, content)
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def same_content(path: Path, content: bytes) -> bool:
    """Whether a file holds exactly `content`."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == len(content) and file.read() == content
    except FileNotFoundError:
        return False


def copy_range(source: int, target: int, size: int, offset: int = 0, start: int = 0) -> None:
    """Copy `size` bytes from `start` of one file to `offset` of another.

    Shares the blocks where the file system can (copy_file_range), else copies them.
    """
    done = 0
    while done < size:
        step = min(size - done, 1 << 26)
        try:
            moved = os.copy_file_range(source, target, step, start + done, offset + done)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            data = os.pread(source, min(step, 1 << 20), start + done)
            moved = os.pwrite(target, data, offset + done) if data else 0
        if moved == 0:
            raise OSError(errno.EIO, "the source is shorter than recorded")
        done += moved
