"""The tree as the mount shows it: what the index says, and what is only open yet.

Resolves the kernel's inode numbers and names; renders attributes; lists directories. Changes
nothing.
"""

import stat
import time
from collections.abc import Iterator

import apsw
from pyfuse3 import EntryAttributes

from scopefs.errors import (
    IsADirectory,
    NameExists,
    NotADirectory,
    NotFound,
    VersionImmutable,
)
from scopefs.model.naming import CONTROL_NAME, NodeKind, Place
from scopefs.mount.attributes import (
    DIRECTORY_TIMEOUT_S,
    FILE_ATTRIBUTES_TIMEOUT_S,
    directory_entry_attributes,
    entry_attributes,
    make_attributes,
)
from scopefs.mount.control import DIRECTORY_ID, ROOT_README_ID, ROOT_README_NAME, Control
from scopefs.mount.inodes import InodeClass, decode_inode
from scopefs.mount.open_files import OpenFile, OpenFiles
from scopefs.mount.publication import Publisher
from scopefs.mount.views import Listed, Views
from scopefs.store import tree
from scopefs.store.sql import fetch
from scopefs.store.tree import DirectoryEntry, Entry, Room
from scopefs.vault import Vault

_PAGE = 256
_PLACES_MAX = 65_536
_BECAME_MAX = 1000
_LISTED_MAX = 65_536


class Nodes:
    """Files and directories of one mount's tree, by inode number and by name."""

    def __init__(
        self, vault: Vault, open_files: OpenFiles, publisher: Publisher, control: Control,
        views: Views,
    ) -> None:  # fmt: skip
        self._vault = vault
        self._open = open_files
        self._publisher = publisher
        self._control = control
        self._views = views
        self.lists_versions = vault.config.mount.versions == "inline"
        self._places: dict[int, tuple[Place, int | None]] = {}
        self._became: dict[int, int] = {}
        self._listed: dict[tuple[int, bytes], Entry] = {}
        self._listed_at: tuple[int, int] | None = None
        self._directories: dict[int, tuple[float, int, int]] = {}
        """Until when mode and mtime of directories are taken for true."""
        self._directories_at = 0

    def decode(self, inode: int) -> tuple[InodeClass, int]:
        """What an inode number of the kernel stands for."""
        kind, number = decode_inode(inode)
        if self._became and kind is InodeClass.TREE and number in self._became:
            with self._vault.read() as db:
                if tree.is_reachable(db, number):
                    # A scope's directory that was made again.
                    del self._became[number]
                else:
                    number = self._became[number]
        return kind, number

    def note_became(self, old: int, new: int) -> None:
        """A directory has another node by its rename, and the kernel goes on with its old one."""
        for node, found in self._became.items():
            if found == old:
                self._became[node] = new
        self._became[old] = new
        if len(self._became) > _BECAME_MAX:
            del self._became[next(iter(self._became))]

    def place(self, node: int) -> tuple[Place, int | None]:
        """What a directory is, and the scope it belongs to: neither ever changes for a node."""
        known = self._places.get(node)
        if known is not None:
            return known
        with self._vault.read() as db:
            place = tree.find_place(db, node)
            entry = tree.find_node(db, node)
        if place is None or entry is None:
            raise NotADirectory("not a directory")
        if len(self._places) >= _PLACES_MAX:
            self._places.clear()
        self._places[node] = (place, entry.scope_node)
        return self._places[node]

    def writable_directory(self, inode: int) -> int:
        """The node of a directory in which something is to change. Raises `VersionImmutable`."""
        kind, number = self.decode(inode)
        if kind is not InodeClass.TREE:
            raise VersionImmutable("history cannot be changed")
        return number

    def refuse_taken(self, parent: int, name: bytes) -> None:
        """Refuse a name of a new file or of a view. Raises `NameExists`."""
        if (
            self._open.find_unrecorded(parent, name) is not None
            or self.lookup_virtual(parent, name) is not None
        ):
            raise NameExists("the name is taken")

    async def wait_name(self, parent: int, name: bytes) -> OpenFile | None:
        """The unrecorded file of a name, once nothing of it is being published any more."""
        file = self._open.find_unrecorded(parent, name)
        if file is None:
            with self._vault.read() as db:
                entry = tree.find_child(db, parent, name)
            file = self._open.find(entry.node) if entry is not None else None
        if file is not None:
            await self._publisher.wait_published(file)
        return self._open.find_unrecorded(parent, name)

    def find_entry(self, parent: int, name: bytes) -> Entry | None:
        """The entry of a name in the index; a listing that is still true spares the question.

        `ls -l` looks up each name twice that it has just listed.
        """
        with self._vault.read() as db:
            if self._listed_at is not None and self._listed_at == _state_of(db):
                entry = self._listed.get((parent, name))
                if entry is not None:
                    return entry
            # Most names that are asked for are not there yet: that is found out cheaply.
            link = tree.find_link(db, parent, name)
            return tree.find_node(db, link[0]) if link is not None else None

    def find_room(self, parent: int, name: bytes) -> Room:
        """What stands at a place where a file is to be made."""
        with self._vault.read() as db:
            return tree.find_room(db, parent, name)

    def _note_listed(self, parent: int, page: list[DirectoryEntry], state: tuple[int, int]) -> None:
        if self._listed_at != state or len(self._listed) > _LISTED_MAX:
            self._listed = {}
            self._listed_at = state
        self._listed.update({(parent, child.name): child.entry for child in page})

    async def find_unrecorded(self, parent: int, name: bytes) -> OpenFile | None:
        """A file that is only here yet; one that is about to vanish is waited for."""
        file = self._open.find_unrecorded(parent, name)
        if file is not None and file.is_doomed:
            await self._publisher.wait_released(file)
            file = self._open.find_unrecorded(parent, name)
        return file

    def lookup_virtual(self, number: int, name: bytes) -> EntryAttributes | None:
        """What can be entered but is not listed; the README of an empty vault; inline versions."""
        if number == tree.ROOT_NODE:
            if name == CONTROL_NAME:
                return self._control.attributes(DIRECTORY_ID)
            if name == ROOT_README_NAME and self.is_empty():
                return self._control.attributes(ROOT_README_ID)
            return None
        place, _ = self.place(number)
        if place.kind is not NodeKind.SCOPE:
            return None
        found = self._views.lookup_in_scope(number, name)
        if found is None and self.lists_versions:
            found = self._views.find_inline(number, name)
            return None if found is None or self._is_name(number, name) else found
        return found

    def _is_name(self, parent: int, name: bytes) -> bool:
        """Whether somebody has given a name in a directory to a file of theirs."""
        return (
            self._open.find_unrecorded(parent, name) is not None
            or self.find_entry(parent, name) is not None
        )

    def load_entry(self, number: int) -> Entry:
        """What a node shows. Raises `NotFound`."""
        with self._vault.read() as db:
            entry = tree.find_node(db, number)
        if entry is None:
            raise NotFound(f"inode {number} is not there")
        return entry

    def open_newest(self, number: int) -> OpenFile:
        """The open file of a node, as any door published it last."""
        file = self._open.find(number)
        if file is not None and (file.draft is not None or file.unrecorded or file.unlinked):
            return file
        return self.open_entry(self.load_entry(number))

    def open_entry(self, entry: Entry) -> OpenFile:
        """The open file of an entry. Raises `IsADirectory`."""
        if entry.kind.is_directory:
            raise IsADirectory("a directory is no file")
        if entry.scope_node is None:
            raise NotFound("a file outside any scope")
        place, _ = self.place(entry.scope_node)
        return self._open.open(entry, place)

    def attributes(self, number: int) -> EntryAttributes:
        """The attributes of a node. The kernel asks for a directory's before each CREATE."""
        # What a node is never changes: most of the cost is to find that out.
        if number not in self._places:
            return self.entry_attributes(self.load_entry(number))
        until, mode, mtime_ns = self._load_directory(number)
        found = directory_entry_attributes(number, mode, mtime_ns, self._open.find_newest(number))
        found.attr_timeout = max(0.0, until - time.monotonic())
        return found

    def _load_directory(self, number: int) -> tuple[float, int, int]:
        """Mode and mtime of a directory: what this process changes is seen at once, what others do
        within the time for which the kernel, too, would have kept what it was told.
        """
        changes, now = self._vault.tree_changes, time.monotonic()
        if changes != self._directories_at or len(self._directories) > _PLACES_MAX:
            self._directories.clear()
            self._directories_at = changes
        known = self._directories.get(number)
        if known is not None and now < known[0]:
            return known
        with self._vault.read() as db:
            directory = tree.find_shown(db, number)
        if directory is None:
            raise NotFound(f"inode {number} is not there")
        self._directories[number] = now + DIRECTORY_TIMEOUT_S, *directory
        return self._directories[number]

    def entry_attributes(self, entry: Entry) -> EntryAttributes:
        """The attributes of an entry, with what is being written to it."""
        if entry.kind.is_directory:
            return entry_attributes(entry, self._open.find_newest(entry.node))
        file = self._open.find(entry.node)
        if file is not None and (file.draft is not None or file.unrecorded):
            return self.file_attributes(file, links=entry.links)
        return entry_attributes(entry, self._open.find_changed(entry))

    def file_attributes(self, file: OpenFile, links: int = 1) -> EntryAttributes:
        """The attributes of an open file."""
        return make_attributes(
            file.node, stat.S_IFREG | file.mode, file.shown_size, file.mtime_ns,
            ctime_ns=file.changed_ns or file.mtime_ns, links=0 if file.unlinked else links,
            entry_timeout_s=0, attributes_timeout_s=FILE_ATTRIBUTES_TIMEOUT_S,
        )  # fmt: skip

    def is_empty(self) -> bool:
        """Whether the root holds nothing."""
        with self._vault.read() as db:
            return not tree.has_children(db, tree.ROOT_NODE)

    def list_tree(self, number: int, after: int) -> Iterator[Listed]:
        """A directory's names: those of the index and those that are only here yet, by slot."""
        if number == tree.ROOT_NODE and after == 0 and self.is_empty():
            yield ROOT_README_NAME, self._control.attributes(ROOT_README_ID), 1
        while True:
            with self._vault.read() as db:
                state = _state_of(db)
                page = tree.list_children(db, number, after, _PAGE)
            self._note_listed(number, page, state)
            last = page[-1].slot if len(page) == _PAGE else None
            found: list[Listed] = [
                (child.name, self.entry_attributes(child.entry), child.slot) for child in page
            ]
            recorded = {name for name, _, _ in found}
            found += [
                (name, self.file_attributes(file), slot)
                for name, file in self._open.list_unrecorded(number)
                if (slot := file.slot or file.node) > after
                and (last is None or slot <= last)
                and name not in recorded
            ]
            yield from sorted(found, key=lambda entry: entry[2])
            if last is None:
                return
            after = last

    def list_inline(self, number: int, after: int) -> Iterator[Listed]:
        """The versions that a scope's directory lists: those whose stamp is no name there."""
        if self.place(number)[0].kind is not NodeKind.SCOPE:
            return
        for name, attributes, cookie in self._views.list_inline(number, after):
            if not self._is_name(number, name):
                yield name, attributes, cookie


def _state_of(db: apsw.Connection) -> tuple[int, int]:
    """What changes whenever anybody commits; for one connection it can be compared."""
    return id(db), int(fetch(db, "PRAGMA data_version")[0][0])
