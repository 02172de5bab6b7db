"""A new index in the place of the old one, alone with the vault.

SQLite replays a `-wal` into whatever file has the name that it belongs to. So the old index goes
first, then its `-wal` and `-shm`, and then the new one gets its name; a swap that is cut short is
finished by the next one (R8 of scopefs.store.reindex).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scopefs.errors import VaultInUse
from scopefs.model.stamps import format_long_stamp
from scopefs.store.atomic import sync_directory
from scopefs.store.layout import Layout

_SUFFIXES = ("", "-wal", "-shm", "-journal")


@contextmanager
def alone_with(layout: Layout) -> Iterator[None]:
    """Be the only one who has the vault open. Raises `VaultInUse`, naming the others."""
    path = layout.lock("vault")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            users = ", ".join(_find_users(os.fstat(lock))) or "another program"
            raise VaultInUse(
                f"{layout.root} is in use by {users}: unmount it and end other programs that have "
                "it open, then try again"
            ) from None
        yield
    finally:
        os.close(lock)


def _find_users(lock: os.stat_result) -> list[str]:
    """Who holds a lock, by the kernel's list: `scopefs (process 1234)`."""
    wanted = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == wanted:
                pid = fields[4]
                name = "process"
                with contextlib.suppress(OSError):
                    name = Path(f"/proc/{pid}/comm").read_text().strip()
                found.append(f"{name} (process {pid})")
    return sorted(set(found))


def new_path(layout: Layout) -> Path:
    return layout.root / "index.db.new"


def scan_path(layout: Layout) -> Path:
    return layout.root / "index.db.new.scan"


def _rebuilt_path(layout: Layout) -> Path:
    return layout.root / "index.db.rebuilt"


def finish_earlier_swap(layout: Layout) -> None:
    """Let a rebuilt index take its place, if the swap was cut short; it is salvaged from then."""
    rebuilt = _rebuilt_path(layout)
    if not layout.index.exists():
        for suffix in _SUFFIXES[1:]:
            Path(f"{layout.index}{suffix}").unlink(missing_ok=True)
        if rebuilt.exists():
            rebuilt.rename(layout.index)
    rebuilt.unlink(missing_ok=True)
    sync_directory(layout.root)


def swap_index(layout: Layout, now_us: int) -> Path | None:
    """Put the new index into its place; returns where the old one is."""
    new, rebuilt = new_path(layout), _rebuilt_path(layout)
    remove_files(scan_path(layout))
    for suffix in _SUFFIXES[1:]:
        Path(f"{new}{suffix}").unlink(missing_ok=True)
    new.chmod(0o600)
    fd = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    new.rename(rebuilt)
    aside: Path | None = None
    if layout.index.exists():
        aside = layout.root / f"index.db.broken-{format_long_stamp(now_us)}"
        for suffix in ("", "-wal"):
            source = Path(f"{layout.index}{suffix}")
            if source.exists():
                remove_files(Path(f"{aside}{suffix}"), suffixes=("",))
                os.link(source, f"{aside}{suffix}")
        sync_directory(layout.root)
        layout.index.unlink()
    for suffix in _SUFFIXES[1:]:
        Path(f"{layout.index}{suffix}").unlink(missing_ok=True)
    sync_directory(layout.root)
    rebuilt.rename(layout.index)
    sync_directory(layout.root)
    return aside


def remove_files(path: Path, suffixes: tuple[str, ...] = _SUFFIXES) -> None:
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
