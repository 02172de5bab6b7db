"""A file system in memory that does nothing else: what pyfuse3, trio and Python cost by themselves.

`python scripts/bench_floor.py MOUNTPOINT` serves it until it is unmounted. Directories and files
only, no sessions, no threads, nothing on the disk. The kernel may believe its answers as long as it
may those of scopefs.
"""

import errno
import os
import stat
import sys
import time
from dataclasses import dataclass, field

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, InodeT, ModeT, RequestContext

from scopefs.mount.attributes import (
    DIRECTORY_TIMEOUT_S,
    FILE_ATTRIBUTES_TIMEOUT_S,
    make_attributes,
)


@dataclass(slots=True)
class Node:
    """A directory or a file."""

    inode: int
    mode: int
    mtime_ns: int = field(default_factory=time.time_ns)
    content: bytearray = field(default_factory=bytearray)
    children: dict[bytes, "Node"] = field(default_factory=dict)


class Floor(pyfuse3.Operations):
    """All nodes, by their inode numbers, which are also their handles."""

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(self) -> None:
        super().__init__()
        root = Node(pyfuse3.ROOT_INODE, stat.S_IFDIR | 0o755)
        self._nodes = {root.inode: root}

    def _attributes(self, node: Node) -> EntryAttributes:
        if stat.S_ISDIR(node.mode):
            return make_attributes(
                node.inode, node.mode, 0, node.mtime_ns, entry_timeout_s=DIRECTORY_TIMEOUT_S,
                attributes_timeout_s=DIRECTORY_TIMEOUT_S,
            )  # fmt: skip
        return make_attributes(
            node.inode, node.mode, len(node.content), node.mtime_ns,
            attributes_timeout_s=FILE_ATTRIBUTES_TIMEOUT_S,
        )  # fmt: skip

    def _make(self, parent: int, name: bytes, mode: int) -> Node:
        node = Node(len(self._nodes) + 1, mode)
        self._nodes[node.inode] = self._nodes[parent].children[name] = node
        return node

    async def lookup(
        self, parent_inode: InodeT, name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        node = self._nodes[parent_inode].children.get(name)
        if node is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(node)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(self._nodes[inode])

    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None, ctx: RequestContext,
    ) -> EntryAttributes:  # fmt: skip
        node = self._nodes[inode]
        if fields.update_size:
            del node.content[attr.st_size :]
            node.content.extend(bytes(attr.st_size - len(node.content)))
        return self._attributes(node)

    async def mkdir(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        return self._attributes(self._make(parent_inode, name, stat.S_IFDIR | stat.S_IMODE(mode)))

    async def create(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        node = self._make(parent_inode, name, stat.S_IFREG | stat.S_IMODE(mode))
        return FileInfo(fh=FileHandleT(node.inode), keep_cache=True), self._attributes(node)

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        if flags & os.O_TRUNC:
            self._nodes[inode].content.clear()
        return FileInfo(fh=FileHandleT(inode), keep_cache=not flags & os.O_TRUNC)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return bytes(self._nodes[fh].content[off : off + size])

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        content = self._nodes[fh].content
        content.extend(bytes(max(0, off - len(content))))
        content[off : off + len(buf)] = buf
        return len(buf)

    async def flush(self, fh: FileHandleT) -> None:
        pass

    async def release(self, fh: FileHandleT) -> None:
        pass

    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        # Its number stays taken; its bytes need not.
        self._nodes[parent_inode].children.pop(name).content.clear()

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        children = list(self._nodes[fh].children.items())
        for number, (name, node) in enumerate(children[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, name, self._attributes(node), number):
                break

    async def releasedir(self, fh: FileHandleT) -> None:
        pass


def main() -> None:
    options = {*pyfuse3.default_options, "fsname=floor", "default_permissions"}
    pyfuse3.init(Floor(), sys.argv[1], options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
