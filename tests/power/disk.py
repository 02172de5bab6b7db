"""A file system in an image, whose power can be cut for real.

The cut is the shutdown ioctl of ext4 and XFS without flushing the log: what the file system had not
sent to its device by then is gone, and everything fails with EIO from then on. What it had sent
stays, in the order in which it was sent: a device that loses or reorders what it took is not seen
here.
"""

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

_GOINGDOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = struct.pack("I", 2)
_IMAGE_BYTES = 3 << 30
"""Sparse: what is not used costs nothing."""
_PATIENCE_S = 60.0
MAKERS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "nodiscard"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
}


class Disk:
    """An image with a file system, to be mounted at `path`."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.image = directory / f"{kind}.img"
        self.path = directory / f"{kind}.disk"
        self._maker = MAKERS[kind]

    def make(self) -> None:
        """Make the image and its file system."""
        self.path.mkdir()
        with self.image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        run(*self._maker, self.image)
        self.mount()

    def mount(self) -> None:
        """Switch it on: the file system looks after itself, as after any cut."""
        run("mount", "-o", "loop", self.image, self.path)

    def cut(self) -> float:
        """Cut the power; returns when that was, by the monotonic clock."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            at = time.monotonic()
            fcntl.ioctl(fd, _GOINGDOWN, _WITHOUT_LOG_FLUSH)
            return at
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Switch it off, once nobody uses it any more."""
        deadline = time.monotonic() + _PATIENCE_S
        # The kernel closes the files of a killed process a moment after its death.
        while subprocess.run(["umount", self.path], capture_output=True).returncode:
            assert time.monotonic() < deadline, f"{self.path} is still in use"
            time.sleep(0.02)
        # A mount namespace that was made meanwhile keeps the dead file system alive, and mounting
        # the image again would only bring that one back.
        while self._list_devices():
            assert time.monotonic() < deadline, f"{self.image} is still mounted in some namespace"
            time.sleep(0.02)

    def clean_up(self) -> None:
        """Leave no mount, no loop device and no image behind."""
        subprocess.run(["umount", "-l", self.path], capture_output=True)
        for device in self._list_devices():
            subprocess.run(["losetup", "-d", device], capture_output=True)
        self.image.unlink(missing_ok=True)

    def _list_devices(self) -> list[str]:
        """The loop devices of the image; they go with the mount."""
        return subprocess.run(
            ["losetup", "-n", "-O", "NAME", "-j", self.image],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip


def run(*command: str | Path) -> None:
    """Run a program, which must succeed."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"


def sync(path: Path) -> None:
    """fsync of a directory, or of a file that is there."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
