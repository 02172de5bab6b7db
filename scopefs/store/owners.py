"""Owners: a process that has the vault open for writing owns one directory in staging/.

Its lock (`staging/<owner>/lock`, flock) is held until the process ends, however it ends, so whoever
can take it knows that the owner is dead. The directory is made under a temporary name and renamed
once the lock is held: no other process ever sees a living owner unlocked.
"""

import contextlib
import fcntl
import itertools
import os
import uuid
from collections.abc import Generator
from pathlib import Path

from scopefs.store.atomic import sync_directory

_LOCK = "lock"


class Owner:
    """This process's directory in staging/."""

    def __init__(self, staging: Path) -> None:
        while (lock := self._try_make(staging)) is None:
            pass
        self._lock = lock
        self._numbers = itertools.count(1)
        self._is_durable = False

    def _try_make(self, staging: Path) -> int | None:
        """Make the directory, locked; None if somebody swept it away in the making."""
        self.name = uuid.uuid4().hex
        self.directory = staging / self.name
        making = staging / f"{self.name}.new"
        making.mkdir(mode=0o700)
        # Closed again, unless all went well.
        with contextlib.ExitStack() as stack, contextlib.suppress(FileNotFoundError):
            lock = _open_lock(making / _LOCK, create=True)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            making.rename(self.directory)
            if os.path.samestat(os.fstat(lock), os.stat(self.directory / _LOCK)):
                stack.pop_all()
                return lock
        return None

    def next_path(self) -> Path:
        """A path for a new staging file."""
        return self.directory / str(next(self._numbers))

    def sync_names(self) -> None:
        """Make the names of this owner's files durable, the directory's own name included."""
        if not self._is_durable:
            sync_directory(self.directory.parent)
            self._is_durable = True
        sync_directory(self.directory)

    def close(self) -> None:
        """Give up the lock; the directory goes if nothing is left in it."""
        try:
            remove_if_empty(self.directory)
        finally:
            os.close(self._lock)


def iterate_dead_owners(staging: Path) -> Generator[Path, None, None]:
    """The directories of owners that are dead, each locked while it is being looked at.

    Whoever may be interrupted by an error closes the generator: the lock goes with it.
    """
    try:
        # Those of others, which no row can name, are left alone.
        names = sorted(name for name in os.listdir(staging) if name.isascii())
    except FileNotFoundError:
        return
    for name in names:
        directory = staging / name
        is_dead = False
        try:
            lock = _open_lock(directory / _LOCK, create=False)
        except NotADirectoryError:
            continue
        except FileNotFoundError:
            # Cut between mkdir and the lock, or between the end of the lock and rmdir: it is empty.
            with contextlib.suppress(OSError):
                directory.rmdir()
            continue
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_dead = True
            if is_dead:
                yield directory
        finally:
            os.close(lock)


def list_files(directory: Path) -> list[str]:
    """The staging files in an owner's directory."""
    try:
        return sorted(name for name in os.listdir(directory) if name != _LOCK)
    except FileNotFoundError:
        return []


def remove_if_empty(directory: Path) -> None:
    """Remove an owner's directory unless it still holds staging files."""
    if list_files(directory):
        return
    try:
        (directory / _LOCK).unlink(missing_ok=True)
        directory.rmdir()
    except OSError:
        # Someone else was faster, a file came meanwhile, or nothing can be written here any more:
        # the next open looks again.
        return


def _open_lock(path: Path, *, create: bool) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    return os.open(path, flags, 0o600)
