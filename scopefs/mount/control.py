"""`.scopefs`: the control directory, and the README that an empty vault shows.

Unlisted at the root; can be entered. Every file is made anew when it is opened.
"""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

import pyfuse3

from scopefs.errors import NotFound
from scopefs.mount.attributes import directory_attributes, make_attributes
from scopefs.mount.health import Health
from scopefs.mount.inodes import InodeClass, encode_inode
from scopefs.mount.refusals import Refusals
from scopefs.vault import Vault

DIRECTORY_ID = 1
DIRECTORIES_COOKIE = 1 << 10
"""Views that stand in `.scopefs` are listed behind its files."""

ROOT_README_NAME = b"README.txt"
ROOT_README_ID = 2

_README = """\
This is a scopefs vault, mounted at {mountpoint}.

Every file lives two lower-case levels down, in SOURCE/CATEGORY/ (a-z, 0-9 and _):

    mkdir -p {mountpoint}/instagram/profile
    cp profile.json {mountpoint}/instagram/profile/

Each finished save also makes a dated version that nothing can change:

    ls {mountpoint}/instagram/profile/.versions/
    cat {mountpoint}/instagram/profile/.versions/latest.json
    ls {mountpoint}/instagram/profile/.history/profile.json/

Why something was refused: {mountpoint}/.scopefs/rejected.jsonl
What was removed: {mountpoint}/.scopefs/trash/ (scopefs trash restore brings it back)
Unmount: scopefs umount {mountpoint}
"""


@dataclass(frozen=True, slots=True)
class _File:
    id: int
    render: Callable[[], bytes]


class Control:
    """The files of `.scopefs`."""

    def __init__(self, vault: Vault, mountpoint: str, refusals: Refusals, health: Health) -> None:
        self._vault = vault
        self._health = health
        self._mountpoint = mountpoint
        readme = _File(3, self.render_readme)
        self._files = {
            b"README.txt": readme,
            b"status.json": _File(4, self._render_status),
            b"rejected.jsonl": _File(5, refusals.read),
        }
        self._directories = {b"trash": InodeClass.TRASH, b"partial": InodeClass.PARTIAL}
        self._by_id = {file.id: file for file in self._files.values()}
        self._by_id[ROOT_README_ID] = _File(ROOT_README_ID, self.render_readme)

    def lookup(self, name: bytes) -> pyfuse3.EntryAttributes:
        """An entry of `.scopefs`. Raises `NotFound`."""
        if name in self._directories:
            return directory_attributes(encode_inode(self._directories[name], 1), 0)
        file = self._files.get(name)
        if file is None:
            raise NotFound(f"{name!r} is not in .scopefs")
        return self.attributes(file.id)

    def attributes(self, number: int) -> pyfuse3.EntryAttributes:
        """The attributes of `.scopefs` or a file in it. Raises `NotFound`."""
        inode = encode_inode(InodeClass.CONTROL, number)
        if number == DIRECTORY_ID:
            return directory_attributes(inode, 0)
        return make_attributes(inode, stat.S_IFREG | 0o444, len(self.read(number)))

    def read(self, number: int) -> bytes:
        """What a file says now. Raises `NotFound`."""
        file = self._by_id.get(number)
        if file is None:
            raise NotFound("no such control file")
        return file.render()

    def entries(self) -> list[tuple[bytes, pyfuse3.EntryAttributes, int]]:
        """The entries of `.scopefs`, with their cookies."""
        files = [(name, self.attributes(file.id), file.id) for name, file in self._files.items()]
        return files + [
            (name, self.lookup(name), DIRECTORIES_COOKIE + kind)
            for name, kind in self._directories.items()
        ]

    def render_readme(self) -> bytes:
        """How to begin."""
        return _README.format(mountpoint=self._mountpoint).encode("utf-8", "surrogateescape")

    def _render_status(self) -> bytes:
        status = {
            **self._vault.status(), "mountpoint": self._mountpoint, "pid": os.getpid(),
            **self._health.members(),
        }  # fmt: skip
        return json.dumps(status, indent=2).encode() + b"\n"
