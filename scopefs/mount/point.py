"""Mount points: what can be mounted on, what is mounted where, and by whom.

Raises `MountRefused` with one clear sentence.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from scopefs.errors import MountRefused, VaultInUse
from scopefs.store.layout import Layout

FILE_SYSTEM_NAME = "scopefs"
_OCTAL = re.compile(r"\\([0-7]{3})")


class MountLock:
    """One mount per vault: `mount.lock`, held for the life of the mount, says whose and where."""

    def __init__(self, layout: Layout, mountpoint: Path, *, wait_s: float = 0) -> None:
        """Take the lock; `wait_s` for a holder that is just unmounting. Raises `VaultInUse`."""
        path = layout.lock("mount")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock_patiently(self._fd, path, wait_s)
        except BaseException:
            os.close(self._fd)
            raise
        os.ftruncate(self._fd, 0)
        os.pwrite(
            self._fd, json.dumps({"pid": os.getpid(), "mountpoint": str(mountpoint)}).encode(), 0
        )

    def close(self) -> None:
        """Give up the lock. What the file says counts only while it is locked."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def find_holder(layout: Layout) -> dict[str, object] | None:
    """Pid and mountpoint of the vault's mount; None if it is not mounted."""
    try:
        fd = os.open(layout.lock("mount"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(fd)
    finally:
        os.close(fd)
    return None


def find_mounts() -> dict[Path, str]:
    """What is mounted where, by the kernel's table: mountpoint to file system type."""
    return {Path(fields[4]): fields[fields.index("-") + 1] for fields in _read_table()}


def find_mounts_of(vault: Path) -> dict[Path, bool]:
    """Where a vault is mounted, and whether only to be read; mounts whose process is gone, too."""
    return {
        Path(fields[4]): "ro" in fields[5].split(",")
        for fields in _read_table()
        if fields[fields.index("-") + 1 :][:2] == [f"fuse.{FILE_SYSTEM_NAME}", str(vault)]
    }


def _read_table() -> Iterator[list[str]]:
    """The kernel's table of mounts: the fields of each line (proc_pid_mountinfo(5))."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        yield [
            _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), field)
            for field in line.decode("utf-8", "surrogateescape").split(" ")
        ]


def is_mounted(mountpoint: Path) -> bool:
    """Whether a scopefs is mounted there (asks the kernel, never the file system itself)."""
    return find_mounts().get(mountpoint) == f"fuse.{FILE_SYSTEM_NAME}"


def check_mountpoint(mountpoint: Path, vault: Path) -> None:
    """Make the mount point if it is missing; refuse what cannot be mounted on."""
    if not os.path.exists("/dev/fuse"):
        raise MountRefused("/dev/fuse is missing: load the module with `modprobe fuse`")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise MountRefused("/dev/fuse cannot be opened: you may not use FUSE on this machine")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountRefused("fusermount3 is missing: install the package fuse3")
    mounts = find_mounts()
    if mounts.get(mountpoint, "").startswith("fuse") and _is_stale(mountpoint):
        unmount(mountpoint, lazy=True)
    elif mountpoint in mounts:
        raise MountRefused(f"{mountpoint} is already mounted: `scopefs umount {mountpoint}` first")
    try:
        mountpoint.mkdir(parents=True, exist_ok=True)
        entries = os.listdir(mountpoint)
    except (FileExistsError, NotADirectoryError):
        raise MountRefused(f"{mountpoint} is not a directory") from None
    except OSError as error:
        raise MountRefused(f"{mountpoint} cannot be used: {error.strerror}") from error
    if mountpoint == vault or mountpoint in vault.parents or vault in mountpoint.parents:
        raise MountRefused(
            f"the vault {vault} cannot be mounted over itself, inside or around itself: "
            f"{mountpoint}"
        )
    if entries:
        raise MountRefused(
            f"{mountpoint} is not empty: what is in it would be hidden; "
            "name a missing or empty directory"
        )


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount. Raises `MountRefused` if somebody uses it (unless `lazy`)."""
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(mountpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        text = done.stderr.strip().removeprefix("fusermount3: ")
        if "busy" in text:
            raise MountRefused(
                f"{mountpoint} is busy: close the programs that use it "
                f"(`fuser -vm {mountpoint}` names them), and leave it with every shell"
            )
        raise MountRefused(f"{mountpoint} cannot be unmounted: {text}")


def _is_stale(mountpoint: Path) -> bool:
    """Whether the process behind a FUSE mount is gone."""
    try:
        # stat(2) may be answered from the kernel's cache.
        os.statvfs(mountpoint)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _lock_patiently(fd: int, path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _read_holder(fd)
            point = Path(str(holder.get("mountpoint", "")))
            if is_mounted(point) or time.monotonic() >= deadline:
                raise VaultInUse(
                    f"{path.parent} is already mounted at {holder.get('mountpoint', 'a place')} "
                    f"by process {holder.get('pid', 'unknown')}: unmount it first, "
                    "or mount it with `-o ro`"
                ) from None
            time.sleep(0.02)


def _read_holder(fd: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(fd, 65_536, 0) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
