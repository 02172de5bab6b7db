"""`.scopefs/trash/` and `.scopefs/partial/`: what was removed, and what did not finish; read-only.

::

    trash/2026-01-21T10-00-00Zu000000-17/      one removal, its time and number
      instagram/profile/                       the scope
        profile.json  My Photos/2024/a.jpg     names as they were, with what they showed
        .versions/2026-01-20T09-00-00Z.json    the removed versions, listed here
    partial/2026-01-21T10-00-00Zu000000-0aca7344.bin   and .json

Everything is looked up by its path when it is asked for. All that is kept is the paths that the
kernel was told a number for.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import apsw
import pyfuse3

from scopefs.errors import InvalidTime, NotFound, VersionImmutable
from scopefs.model.naming import VERSIONS_NAME, NodeKind, show_name
from scopefs.model.stamps import format_long_stamp, format_stamp, parse_stamp
from scopefs.mount.attributes import directory_attributes, make_attributes
from scopefs.mount.inodes import InodeClass, PathNumbers, encode_inode
from scopefs.mount.views import PAGE, Listed
from scopefs.store import index, payloads, tree
from scopefs.store.atomic import Descriptor
from scopefs.store.readers import BytesReader, FileReader, PayloadReader
from scopefs.store.trash import TrashEntry, load_trash_entry
from scopefs.store.trash_tree import (
    TrashedName,
    find_entry_after,
    find_trashed_name,
    find_trashed_version,
    list_trashed_names,
    list_trashed_paths,
    list_trashed_versions,
)
from scopefs.vault import Vault

_Path = tuple[bytes, ...]

_FIRST_COOKIE = 1
"""Of `.versions`, and of a directory's only entry. Slots and ids of nodes begin with 2."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a path leads to."""

    mode: int
    size: int = 0
    mtime_ns: int = 0
    version: int | None = None
    is_envelope: bool = False
    scratch: int | None = None
    """The node, if the bytes are those of a scratch file."""
    target: bytes = b""


_DIRECTORY = _Found(stat.S_IFDIR)


class TrashView:
    """Lookups and listings of the trash. All calls read the index, and only that."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._numbers: PathNumbers[_Path] = PathNumbers(())

    def lookup(self, number: int, name: bytes) -> pyfuse3.EntryAttributes:
        """The entry `name` of a directory. Raises `NotFound`."""
        path = (*self._numbers.load(number), name)
        with self._vault.read() as db:
            return self._to_attributes(path, _find(db, path))

    def attributes(self, number: int) -> pyfuse3.EntryAttributes:
        """The attributes of an inode. Raises `NotFound`."""
        path = self._numbers.load(number)
        with self._vault.read() as db:
            return self._to_attributes(path, _find(db, path))

    def read_link(self, number: int) -> bytes:
        """Where a symbolic link pointed. Raises `NotFound`."""
        with self._vault.read() as db:
            return _find(db, self._numbers.load(number)).target

    def open(self, number: int) -> PayloadReader:
        """Open a file; may wait for the disk. Raises `NotFound`, `PayloadMissing`."""
        with self._vault.read() as db:
            found = _find(db, self._numbers.load(number))
            version = index.find_by_id(db, found.version) if found.version is not None else None
        if version is None:
            if found.scratch is not None and found.size:
                return self._vault.open_scratch(found.scratch)
            return BytesReader(b"")
        opener = self._vault.open_envelope if found.is_envelope else self._vault.open_payload
        return opener(version)

    def iterate(self, number: int, after: int) -> Iterator[Listed]:
        """The entries of a directory behind a cookie, page by page."""
        path = self._numbers.load(number)
        while True:
            with self._vault.read() as db:
                page = _list(db, path, after)
                found = [(name, _find(db, (*path, name)), cookie) for name, cookie in page]
            for name, what, cookie in found:
                yield name, self._to_attributes((*path, name), what), cookie
            if not page:
                return
            after = page[-1][1]

    def _to_attributes(self, path: _Path, found: _Found) -> pyfuse3.EntryAttributes:
        inode = encode_inode(InodeClass.TRASH, self._numbers.get(path))
        if stat.S_ISDIR(found.mode):
            return directory_attributes(inode, found.mtime_ns)
        return make_attributes(inode, found.mode, found.size, found.mtime_ns)


def _entry_name(entry: TrashEntry) -> bytes:
    return f"{format_long_stamp(entry.at_us)}-{entry.id}".encode()


def _load_entry(db: apsw.Connection, name: bytes) -> TrashEntry:
    number = name.rpartition(b"-")[2]
    if number.isdigit() and len(number) < 19:
        entry = load_trash_entry(db, int(number))
        if _entry_name(entry) == name:
            return entry
    raise _not_found(name)


def _not_found(name: bytes) -> NotFound:
    return NotFound(f"{show_name(name)} is not in the trash")


def _segments(entry: TrashEntry) -> _Path:
    return tuple(entry.scope.encode("ascii").split(b"."))


def _find(db: apsw.Connection, path: _Path) -> _Found:
    """What stands at a path below `.scopefs/trash`. Raises `NotFound`."""
    if not path:
        return _DIRECTORY
    entry = _load_entry(db, path[0])
    above = _segments(entry)
    inside = path[1 + len(above) :]
    if path[1 : 1 + len(above)] != above[: len(path) - 1]:
        raise _not_found(path[-1])
    if not inside:
        return _Found(stat.S_IFDIR, mtime_ns=entry.at_us * 1000)
    if inside[0] == VERSIONS_NAME:
        return _find_envelope(db, entry, inside) if len(inside) > 1 else _DIRECTORY
    if entry.what == "scope":
        return _to_found(_load_name(db, entry, inside))
    known = list_trashed_paths(db, entry)
    if inside in known:
        return _to_found(known[inside])
    if any(inside == other[: len(inside)] for other in known):
        return _DIRECTORY
    raise _not_found(path[-1])


def _find_envelope(db: apsw.Connection, entry: TrashEntry, inside: _Path) -> _Found:
    stem, dot, ending = inside[1].rpartition(b".json")
    if len(inside) == 2 and dot and not ending:
        try:
            collected_us = parse_stamp(stem.decode("ascii"))
        except (UnicodeDecodeError, InvalidTime):
            raise _not_found(inside[1]) from None
        version_id = find_trashed_version(db, entry, collected_us)
        version = index.find_by_id(db, version_id) if version_id is not None else None
        if version is not None:
            return _Found(
                stat.S_IFREG | 0o444, payloads.envelope_size(version), collected_us * 1000,
                version.id, is_envelope=True,
            )  # fmt: skip
    raise _not_found(inside[-1])


def _load_name(db: apsw.Connection, entry: TrashEntry, inside: _Path) -> TrashedName:
    """The name of a scope's entry at a path below the scope's directory. Raises `NotFound`."""
    parent = entry.scope_node
    found: TrashedName | None = None
    for name in inside:
        if found is not None and found.kind is not NodeKind.FOLDER:
            raise _not_found(name)
        found = find_trashed_name(db, entry, parent, name)
        if found is None:
            raise _not_found(name)
        parent = found.node
    assert found is not None
    return found


def _to_found(name: TrashedName) -> _Found:
    if name.kind is NodeKind.FOLDER:
        return _Found(stat.S_IFDIR, mtime_ns=name.mtime_ns)
    if name.kind is NodeKind.SYMLINK:
        target = name.target or b""
        return _Found(stat.S_IFLNK | 0o777, len(target), name.mtime_ns, target=target)
    return _Found(
        stat.S_IFREG | (name.mode & 0o555), name.size, name.mtime_ns, name.version,
        scratch=name.node if name.version is None else None,
    )  # fmt: skip


def _list(db: apsw.Connection, path: _Path, after: int) -> list[tuple[bytes, int]]:
    """A page of the names in a directory behind a cookie, each with its own."""
    if not path:
        found: list[tuple[bytes, int]] = []
        while len(found) < PAGE:
            entry_id = find_entry_after(db, found[-1][1] if found else after)
            if entry_id is None:
                break
            found.append((_entry_name(load_trash_entry(db, entry_id)), entry_id))
        return found
    entry = _load_entry(db, path[0])
    above = _segments(entry)
    if len(path) <= len(above):
        return [(above[len(path) - 1], _FIRST_COOKIE)] if after < _FIRST_COOKIE else []
    inside = path[1 + len(above) :]
    if inside == (VERSIONS_NAME,):
        return [
            (f"{format_stamp(collected_us)}.json".encode(), version_id)
            for version_id, collected_us in list_trashed_versions(db, entry, after, PAGE)
        ]
    found = [(VERSIONS_NAME, _FIRST_COOKIE)] if not inside and after < _FIRST_COOKIE else []
    if entry.what == "scope":
        parent = _load_name(db, entry, inside).node if inside else entry.scope_node
        after_name = tree.find_name_of_slot(db, [parent], after) if after > _FIRST_COOKIE else b""
        names = list_trashed_names(db, entry, parent, after_name, PAGE)
        return found + [(name.name, name.slot) for name in names]
    below = sorted({
        other[len(inside)] for other in list_trashed_paths(db, entry)
        if other[: len(inside)] == inside and len(other) > len(inside)
    })  # fmt: skip
    numbered = [(name, cookie) for cookie, name in enumerate(below, start=_FIRST_COOKIE + 1)]
    return found + [one for one in numbered if one[1] > after]


class PartialView:
    """The files of partial/, as they are."""

    def __init__(self, vault: Vault) -> None:
        self._directory = vault.layout.partial
        self._numbers: PathNumbers[bytes] = PathNumbers(b"")

    def lookup(self, number: int, name: bytes) -> pyfuse3.EntryAttributes:
        """The file of that name. Raises `NotFound`."""
        if self._numbers.load(number) or b"/" in name:
            raise NotFound(f"{show_name(name)} is not there")
        return self._to_attributes(name)

    def attributes(self, number: int) -> pyfuse3.EntryAttributes:
        """The attributes of an inode. Raises `NotFound`."""
        return self._to_attributes(self._numbers.load(number))

    def read_link(self, number: int) -> bytes:
        """There are no links here."""
        raise VersionImmutable("no symbolic link")

    def open(self, number: int) -> PayloadReader:
        """Open a file; may wait for the disk. Raises `OSError`, `NotFound`."""
        path = self._directory / self._numbers.load(number).decode("utf-8", "surrogateescape")
        file = Descriptor(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
        return FileReader(file, 0, os.fstat(file.number).st_size)

    def iterate(self, number: int, after: int) -> Iterator[Listed]:
        """The files behind a cookie."""
        names = sorted(path.name.encode() for path in self._directory.iterdir())
        for cookie, name in enumerate(names, start=1):
            if cookie > after:
                try:
                    attributes = self._to_attributes(name)
                except (NotFound, FileNotFoundError):
                    continue
                yield name, attributes, cookie

    def _to_attributes(self, name: bytes) -> pyfuse3.EntryAttributes:
        inode = encode_inode(InodeClass.PARTIAL, self._numbers.get(name))
        found = (self._directory / name.decode("utf-8", "surrogateescape")).lstat()
        if not name:
            return directory_attributes(inode, found.st_mtime_ns)
        if not stat.S_ISREG(found.st_mode):
            raise NotFound(f"{show_name(name)} is no file")
        return make_attributes(inode, stat.S_IFREG | 0o444, found.st_size, found.st_mtime_ns)
