"""The file system that a vault lies on, and what that one does not guarantee.

What a vault needs: that `fsync` means the disk, hard links, locks (`flock`) and shared memory
that all processes see. Nothing is refused; what is missing is told (`scopefs status`).
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_MEMORY = "is in memory: when the machine goes off, all is gone"
_NETWORK = (
    "is on the network: use the vault from one machine at a time, for locks and SQLite's shared "
    "memory do not hold between several; what fsync promises is up to the server"
)
_HOST = "is lent by a host or another program: what fsync and locks promise is up to that one"
_NO_LINKS = "has no hard links: nothing can be settled here"

WEAK_TYPES = {
    "tmpfs": _MEMORY, "ramfs": _MEMORY, "squashfs": "cannot be written",
    "overlay": "is a container's own layer, if you did not mount it: it goes with the container",
    "nfs": _NETWORK, "nfs4": _NETWORK, "cifs": _NETWORK, "smb3": _NETWORK, "smbfs": _NETWORK,
    "afs": _NETWORK, "ceph": _NETWORK, "lustre": _NETWORK, "ncpfs": _NETWORK, "coda": _NETWORK,
    "9p": _HOST, "virtiofs": _HOST, "vboxsf": _HOST, "prl_fs": _HOST, "drvfs": _HOST,
    "fuse": _HOST, "vfat": _NO_LINKS, "msdos": _NO_LINKS, "exfat": _NO_LINKS,
}  # fmt: skip
"""By the kernel's name of the type; of `fuse.sshfs` the part before the dot counts."""

WEAK_OPTIONS = {
    "nobarrier": "is mounted with nobarrier: fsync does not reach the disk",
    "barrier=0": "is mounted with barrier=0: fsync does not reach the disk",
    "volatile": "is mounted with volatile: fsync does nothing",
}

_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Backing:
    """A mounted file system."""

    type: str
    mountpoint: str
    warnings: tuple[str, ...]
    """What it does not guarantee, each a sentence whose subject it is."""


def find_backing(path: Path, table: str | None = None) -> Backing:
    """The file system that a path is on, by the kernel's table of mounts."""
    if table is None:
        table = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    wanted = os.path.realpath(path)
    best = Backing("unknown", "/", ())
    for line in table.splitlines():
        fields = line.split(" ")
        point = _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), fields[4])
        behind = fields.index("-", 6)
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        # Of several at one place the last is on top.
        if inside and len(point) >= len(best.mountpoint):
            options = {*fields[5].split(","), *fields[behind + 3].split(",")}
            best = Backing(fields[behind + 1], point, _find_warnings(fields[behind + 1], options))
    return best


def _find_warnings(kind: str, options: set[str]) -> tuple[str, ...]:
    found = [WEAK_TYPES.get(kind) or WEAK_TYPES.get(kind.partition(".")[0])]
    found += [text for option, text in WEAK_OPTIONS.items() if option in options]
    return tuple(text for text in found if text is not None)
