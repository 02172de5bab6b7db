"""Attributes as the kernel wants them, and how long it may keep them.

Names are asked for at every use (timeout 0), also after a listing, so that what another process
published is seen at the next open, with its size. A version's bytes never change.
"""

import os
import stat
import time
from dataclasses import dataclass

import pyfuse3

from scopefs.model.naming import NodeKind
from scopefs.store.tree import Entry

DIRECTORY_TIMEOUT_S = 1.0
VERSION_NAME_TIMEOUT_S = 1.0
FILE_ATTRIBUTES_TIMEOUT_S = 60.0
VERSION_TIMEOUT_S = 86_400.0
BLOCK_BYTES = 131_072
"""Preferred size of reads and writes: stdio and Python's open() take their buffers from it."""

_TYPES = {NodeKind.FILE: stat.S_IFREG, NodeKind.SYMLINK: stat.S_IFLNK}


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns what is shown (semantics O5). None: who mounted; modes as they were set."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None

    def show_mode(self, mode: int) -> int:
        """A mode as it is shown: with a umask, what the owner may may everybody else, less it."""
        if self.umask is None or stat.S_ISLNK(mode):
            return mode
        return stat.S_IFMT(mode) | (mode >> 6 & 0o7) * 0o111 & ~self.umask


class _Shown:
    """What `show_as` has set: a process has one mount."""

    uid = os.getuid()
    gid = os.getgid()
    ownership = Ownership()


def show_as(ownership: Ownership) -> None:
    """Say who owns everything in the mount of this process, before it begins."""
    _Shown.ownership = ownership
    _Shown.uid = os.getuid() if ownership.uid is None else ownership.uid
    _Shown.gid = os.getgid() if ownership.gid is None else ownership.gid


def make_attributes(
    inode: int, mode: int, size: int = 0, mtime_ns: int = 0, *, ctime_ns: int | None = None,
    links: int = 1, entry_timeout_s: float = 0, attributes_timeout_s: float = 0,
) -> pyfuse3.EntryAttributes:  # fmt: skip
    """Attributes of any inode; `mode` includes the file type. All has one owner (`show_as`)."""
    found = pyfuse3.EntryAttributes()
    found.st_ino = pyfuse3.InodeT(inode)
    found.st_mode = pyfuse3.ModeT(_Shown.ownership.show_mode(mode))
    found.st_nlink = links
    found.st_uid = _Shown.uid
    found.st_gid = _Shown.gid
    found.st_size = size
    found.st_blksize = BLOCK_BYTES
    found.st_blocks = (size + 511) // 512
    found.st_mtime_ns = mtime_ns
    found.st_atime_ns = mtime_ns
    found.st_ctime_ns = mtime_ns if ctime_ns is None else ctime_ns
    found.entry_timeout = entry_timeout_s
    found.attr_timeout = attributes_timeout_s
    return found


def entry_attributes(entry: Entry, changed_ns: int | None = None) -> pyfuse3.EntryAttributes:
    """Attributes of a node of the tree, as the index has them.

    `changed_ns`: the ctime, if the index has another one. That of a directory is its mtime, too:
    an entry was made there of which the index has not heard yet.
    """
    if entry.kind.is_directory:
        found = directory_entry_attributes(entry.node, entry.mode, entry.mtime_ns, changed_ns)
        found.generation = entry.generation
        return found
    return make_attributes(
        entry.node, _TYPES[entry.kind] | entry.mode, entry.size, entry.mtime_ns,
        ctime_ns=entry.ctime_ns if changed_ns is None else changed_ns, links=entry.links,
        attributes_timeout_s=FILE_ATTRIBUTES_TIMEOUT_S,
    )  # fmt: skip


def directory_entry_attributes(
    node: int, mode: int, mtime_ns: int, changed_ns: int | None
) -> pyfuse3.EntryAttributes:
    """Attributes of a directory of the tree. `changed_ns`: as of `entry_attributes`."""
    if changed_ns is not None and not changed_ns <= mtime_ns <= time.time_ns():
        mtime_ns = changed_ns
    # One link says "unknown", so that find(1) does not count subdirectories by links.
    return make_attributes(
        node, stat.S_IFDIR | mode, 0, mtime_ns, ctime_ns=mtime_ns,
        entry_timeout_s=DIRECTORY_TIMEOUT_S, attributes_timeout_s=DIRECTORY_TIMEOUT_S,
    )  # fmt: skip


def directory_attributes(inode: int, mtime_ns: int, mode: int = 0o555) -> pyfuse3.EntryAttributes:
    """Attributes of a directory that is a view: nothing can be made in it."""
    return make_attributes(
        inode, stat.S_IFDIR | mode, 0, mtime_ns, entry_timeout_s=DIRECTORY_TIMEOUT_S
    )


def symlink_attributes(inode: int, target: bytes, mtime_ns: int) -> pyfuse3.EntryAttributes:
    """Attributes of a symlink that is a view; it may point elsewhere at any time."""
    return make_attributes(inode, stat.S_IFLNK | 0o777, len(target), mtime_ns)


def version_attributes(
    inode: int, size: int, mtime_ns: int, *, final: bool
) -> pyfuse3.EntryAttributes:
    """Attributes of a version; while not `final`, its envelope may still take another name."""
    return make_attributes(
        inode, stat.S_IFREG | 0o444, size, mtime_ns,
        entry_timeout_s=VERSION_NAME_TIMEOUT_S if final else 0,
        attributes_timeout_s=VERSION_TIMEOUT_S if final else 0,
    )  # fmt: skip
