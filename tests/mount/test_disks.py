"""A vault whose disk turns read-only, or vanishes: errors while it lasts, and nothing is lost.

The kernel does not remount a disk read-only by hand while a vault on it is mounted ("busy"); ext4
does it by itself after an error of its own, which is brought about here through sysfs.
"""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.mount.reading import count_versions, wait_settled
from tests.mounting import Mounted, wait_until

Start = Callable[..., Mounted]
LARGE = os.urandom(300_000)


class Disk:
    """An ext4 in an image, mounted where the vault is to be."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "disk.img"
        self.path = directory / "vault"

    def make(self) -> None:
        """Make the image, and mount it."""
        with self.image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        self.path.mkdir()
        self.mount()

    def mount(self) -> None:
        """Mount it."""
        options = "loop,errors=remount-ro"
        subprocess.run(["mount", "-o", options, self.image, self.path], check=True)

    def detach(self) -> None:
        """Take it out of sight, whoever uses it."""
        subprocess.run(["umount", "-l", self.path], check=True)

    def break_down(self) -> None:
        """Let ext4 find an error, and go read-only."""
        (loop,) = self._find_loops()
        Path(f"/sys/fs/ext4/{Path(loop).name}/trigger_fs_error").write_text("test")

    def repair(self) -> None:
        """Let e2fsck look after it, and mount it again."""
        wait_until(lambda: not self._find_loops())
        # 1: errors were corrected.
        assert subprocess.run(["e2fsck", "-fy", self.image], capture_output=True).returncode <= 1
        self.mount()

    def clean_up(self) -> None:
        """Leave neither a mount nor a loop device behind."""
        while os.path.ismount(self.path):
            self.detach()
        for loop in self._find_loops():
            subprocess.run(["losetup", "-d", loop], check=False)

    def _find_loops(self) -> list[str]:
        found = subprocess.run(
            ["losetup", "-n", "-O", "NAME", "-j", self.image], capture_output=True, text=True
        )
        return found.stdout.split()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The disk of the vault `vault`."""
    made = Disk(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.clean_up()


@pytest.fixture
def filled(disk: Disk, start: Start) -> Mounted:
    """A vault on that disk, mounted, with two files that are settled."""
    mounted = start()
    scope = mounted.make_scope()
    (scope / "a.txt").write_bytes(b"one")
    (scope / "large").write_bytes(LARGE)
    wait_settled(mounted)
    return mounted


def append(path: Path, content: bytes) -> None:
    """Append with plain calls; the first error is the one that counts."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, content)
    finally:
        with suppress(OSError):
            os.close(fd)


def list_refused(scope: Path) -> set[int | None]:
    """The errnos of writes of every kind; 0 for one that succeeded."""
    found: set[int | None] = set()
    for write in (
        lambda: (scope / "new.txt").write_bytes(b"new"),
        lambda: (scope / "new.bin").write_bytes(LARGE),
        lambda: (scope / "a.txt").write_bytes(b"two"),
        lambda: append(scope / "large", LARGE),
        (scope / "Folder").mkdir,
        (scope / "a.txt").unlink,
        lambda: os.rename(scope / "a.txt", scope / "b.txt"),
    ):
        try:
            write()
        except OSError as error:
            found.add(error.errno)
        else:
            found.add(0)
    return found


def test_read_only_disk_is_read_on_and_refuses_writes(
    filled: Mounted, disk: Disk, start: Start
) -> None:
    """EROFS or EIO at each write; reading goes on; the mount ends well; repaired and mounted again
    all that was acknowledged is there.
    """
    scope = filled.make_scope()
    disk.break_down()
    assert list_refused(scope) <= {errno.EROFS, errno.EIO}
    fd = os.open(scope / "large", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    assert (scope / "large").read_bytes() == LARGE
    assert (scope / "a.txt").read_bytes() == b"one"
    filled.stop()
    assert "Traceback" not in filled.log
    disk.detach()
    disk.repair()
    again = start("vault", "mnt2")
    scope = again.make_scope()
    assert (scope / "a.txt").read_bytes() == b"one"
    assert (scope / "large").read_bytes() == LARGE
    (scope / "a.txt").write_bytes(b"two")
    assert count_versions(scope) == 3
    again.stop()
    again.check_log()


def test_disk_that_is_away_for_a_while(filled: Mounted, disk: Disk) -> None:
    """Unmounted under the vault (umount -l): EIO, also for a file that is open. Mounted again, all
    works without a restart.
    """
    scope = filled.make_scope()
    with (scope / "open.bin").open("wb", buffering=0) as file:
        disk.detach()
        with pytest.raises(OSError, check=lambda error: error.errno == errno.EIO):
            file.write(LARGE)
        with pytest.raises(OSError, check=lambda error: error.errno == errno.EIO):
            file.close()
    assert list_refused(scope) == {errno.EIO}
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EIO):
        (scope / ".history" / "a.txt" / "latest.txt").read_bytes()
    assert "is its disk mounted?" in filled.log
    disk.mount()
    assert (scope / "a.txt").read_bytes() == b"one"
    (scope / "a.txt").write_bytes(b"two")
    (scope / "large").write_bytes(LARGE + b"more")
    wait_settled(filled)
    assert count_versions(scope) == 4
    assert not (scope / "open.bin").exists()
    filled.stop()
    assert "Traceback" not in filled.log
