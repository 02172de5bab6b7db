"""The read-only views below a scope: `.versions/`, `.history/`, and its versions inline.

Everything is looked up in the index when it is asked for; listings are pages by time or slot. All
that is kept is the paths of the directories of `.history` that were looked at.
"""

import itertools
import os
from collections.abc import Iterator

import apsw
import pyfuse3

from scopefs.errors import InvalidTime, NotFound, VersionImmutable
from scopefs.model.naming import HISTORY_NAME, VERSIONS_NAME, show_name
from scopefs.model.stamps import (
    format_long_stamp,
    parse_long_stamp,
    parse_stamp,
)
from scopefs.mount.attributes import (
    directory_attributes,
    symlink_attributes,
    version_attributes,
)
from scopefs.mount.inodes import InodeClass, encode_inode
from scopefs.store import index, payloads, tree
from scopefs.store.index import Version
from scopefs.vault import Vault

LATEST = b"latest"
PAGE = 256
KNOWN_NAMES_MAX = 200_000
"""Directories of `.history` that are remembered; the kernel looks older ones up again."""

_LATEST_COOKIE = 1 << 52
_NAMES_COOKIE = 1 << 53
_INLINE_COOKIE = 1 << 62
"""Behind all slots of the names in the directory; a time is added, which has 58 bits at most."""

Listed = tuple[bytes, pyfuse3.EntryAttributes, int]
"""A name, its attributes, and the cookie behind it."""


class Views:
    """Lookups and listings of one vault's views. All calls read the index, and only that."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._free = itertools.count(1)
        self._paths: dict[int, tuple[InodeClass, int, bytes]] = {}
        self._numbers: dict[tuple[InodeClass, int, bytes], int] = {}

    def lookup_in_scope(self, node: int, name: bytes) -> pyfuse3.EntryAttributes | None:
        """The attributes of `.versions` or `.history` in a scope's directory; None for others."""
        if name == VERSIONS_NAME:
            return _directory(InodeClass.VERSIONS, node)
        if name == HISTORY_NAME:
            return _directory(InodeClass.HISTORY, node)
        return None

    def find_inline(self, node: int, name: bytes) -> pyfuse3.EntryAttributes | None:
        """A version of a scope by its stamp, as an entry of the scope's own directory."""
        if not name.endswith(b".json"):
            return None
        with self._vault.read() as db:
            try:
                version = self._load_stamped(db, node, name)
            except NotFound:
                return None
            return _inline(_attributes_of(db, InodeClass.ENVELOPE, version))

    def list_inline(self, node: int, after: int) -> Iterator[Listed]:
        """The versions of a scope as entries of its directory, behind a cookie of any of these."""
        while True:
            with self._vault.read() as db:
                page = self._page(db, InodeClass.VERSIONS, node, max(0, after - _INLINE_COOKIE))
            for name, attributes, collected_us in page:
                after = _INLINE_COOKIE + collected_us
                yield name, _inline(attributes), after
            if len(page) < PAGE:
                return

    def lookup(self, kind: InodeClass, number: int, name: bytes) -> pyfuse3.EntryAttributes:
        """The entry `name` of a view's directory. Raises `NotFound`."""
        with self._vault.read() as db:
            if kind is InodeClass.VERSIONS:
                return self._lookup_version(db, number, name)
            if kind is InodeClass.NAME_HISTORY:
                payload = self._find_payload(db, number, name)
                if payload is not None:
                    return payload
            if kind in (InodeClass.HISTORY, InodeClass.NAME_HISTORY):
                past = tree.find_past_name(db, self._directories(db, kind, number), name)
                if past is not None and not self._is_scratch(kind, number, past.name):
                    return self._name_attributes(kind, number, past.name)
        raise NotFound(f"{show_name(name)} is not there")

    def attributes(self, kind: InodeClass, number: int) -> pyfuse3.EntryAttributes:
        """The attributes of an inode of a view. Raises `NotFound`."""
        inode = encode_inode(kind, number)
        if kind in (InodeClass.VERSIONS, InodeClass.HISTORY, InodeClass.NAME_HISTORY):
            return _directory(kind, number)
        with self._vault.read() as db:
            if kind in (InodeClass.LATEST, InodeClass.NAME_LATEST):
                target, mtime_ns = self._find_latest(db, kind, number)
                return symlink_attributes(inode, target, mtime_ns)
            return _attributes_of(db, kind, load_version(db, number))

    def read_link(self, kind: InodeClass, number: int) -> bytes:
        """Where a `latest` points now. Raises `NotFound` if there is no version."""
        with self._vault.read() as db:
            return self._find_latest(db, kind, number)[0]

    def iterate(self, kind: InodeClass, number: int, after: int) -> Iterator[Listed]:
        """The entries of a view's directory behind a cookie, page by page."""
        if kind is not InodeClass.HISTORY and after < _LATEST_COOKIE:
            yield from self._list_versions(kind, number, after)
        if kind is not InodeClass.VERSIONS:
            yield from self._list_names(kind, number, max(0, after - _NAMES_COOKIE))

    def _list_versions(self, kind: InodeClass, number: int, after: int) -> Iterator[Listed]:
        while True:
            with self._vault.read() as db:
                page = self._page(db, kind, number, after)
            yield from page
            if len(page) < PAGE:
                break
            after = page[-1][2]
        latest = InodeClass.LATEST if kind is InodeClass.VERSIONS else InodeClass.NAME_LATEST
        with self._vault.read() as db:
            try:
                target, mtime_ns = self._find_latest(db, latest, number)
            except NotFound:
                return
        attributes = symlink_attributes(encode_inode(latest, number), target, mtime_ns)
        yield LATEST + os.path.splitext(target)[1], attributes, _LATEST_COOKIE

    def _list_names(self, kind: InodeClass, number: int, after: int) -> Iterator[Listed]:
        with self._vault.read() as db:
            parents = self._directories(db, kind, number)
            name = tree.find_name_of_slot(db, parents, after) if after else b""
        while True:
            with self._vault.read() as db:
                page = tree.list_past_names(db, parents, name, PAGE)
            for past in page:
                name = past.name
                if self._is_scratch(kind, number, name):
                    continue
                yield (
                    past.name,
                    self._name_attributes(kind, number, past.name),
                    _NAMES_COOKIE + past.slot,
                )
            if len(page) < PAGE:
                return

    def _page(self, db: apsw.Connection, kind: InodeClass, number: int, after: int) -> list[Listed]:
        if kind is InodeClass.VERSIONS:
            return [
                (
                    f"{version.stamp}.json".encode(),
                    _attributes_of(db, InodeClass.ENVELOPE, version),
                    version.collected_us,
                )
                for version in index.list_after(db, tree.scope_text(db, number), after, PAGE)
            ]
        parents, name = self._load_name(db, number)
        suffix = _suffix(name)
        return [
            (
                format_long_stamp(collected_us).encode() + suffix,
                _attributes_of(db, InodeClass.PAYLOAD, load_version(db, version_id)),
                collected_us,
            )
            for version_id, collected_us in tree.list_history(db, parents, name, after, PAGE)
        ]

    def _lookup_version(
        self, db: apsw.Connection, node: int, name: bytes
    ) -> pyfuse3.EntryAttributes:
        if name == LATEST + b".json":
            target, mtime_ns = self._find_latest(db, InodeClass.LATEST, node)
            return symlink_attributes(encode_inode(InodeClass.LATEST, node), target, mtime_ns)
        return _attributes_of(db, InodeClass.ENVELOPE, self._load_stamped(db, node, name))

    def load_removable(self, node: int, name: bytes) -> Version:
        """The version that `rm` of an entry of `.versions` means.

        Raises `NotFound`, and `VersionImmutable` for `latest.json`, which is no version.
        """
        if name == LATEST + b".json":
            raise VersionImmutable("latest.json cannot be removed: it follows the versions")
        with self._vault.read() as db:
            return self._load_stamped(db, node, name)

    def _load_stamped(self, db: apsw.Connection, node: int, name: bytes) -> Version:
        try:
            stamp = name.removesuffix(b".json").decode("ascii")
            collected_us = parse_stamp(stamp) if name.endswith(b".json") else -1
        except (UnicodeDecodeError, InvalidTime):
            collected_us = -1
        version = index.find_exact(db, tree.scope_text(db, node), collected_us)
        if version is None:
            raise NotFound(f"{show_name(name)} is no version here")
        return version

    def _find_payload(
        self, db: apsw.Connection, name_id: int, name: bytes
    ) -> pyfuse3.EntryAttributes | None:
        parents, base = self._load_name(db, name_id)
        suffix = _suffix(base)
        if not name.endswith(suffix):
            return None
        stem = name.removesuffix(suffix) if suffix else name
        if stem == LATEST:
            newest = tree.find_newest_in_history(db, parents, base)
            if newest is None:
                return None
            inode = encode_inode(InodeClass.NAME_LATEST, name_id)
            target = format_long_stamp(newest[1]).encode() + suffix
            return symlink_attributes(inode, target, newest[1] * 1000)
        try:
            collected_us = parse_long_stamp(stem.decode("ascii"))
        except (UnicodeDecodeError, InvalidTime):
            return None
        for version_id, found_us in tree.list_history(db, parents, base, collected_us - 1, 1):
            if found_us == collected_us:
                return _attributes_of(db, InodeClass.PAYLOAD, load_version(db, version_id))
        return None

    def _find_latest(self, db: apsw.Connection, kind: InodeClass, number: int) -> tuple[bytes, int]:
        """Target and mtime of a `latest`. Raises `NotFound`."""
        if kind is InodeClass.LATEST:
            version = index.find_latest_by_scope(db, tree.scope_text(db, number))
            if version is None:
                raise NotFound("the scope has no version")
            return f"{version.stamp}.json".encode(), version.collected_us * 1000
        parents, name = self._load_name(db, number)
        newest = tree.find_newest_in_history(db, parents, name)
        if newest is None:
            raise NotFound("the name has no version")
        newest_us = newest[1]
        return format_long_stamp(newest_us).encode() + _suffix(name), newest_us * 1000

    def find_scope_node(self, kind: InodeClass, number: int) -> int:
        """The scope that a view is of. Raises `NotFound`."""
        while kind in (InodeClass.NAME_HISTORY, InodeClass.NAME_LATEST):
            kind, number, _ = self._load_path(number)
        return number

    def _name_attributes(
        self, kind: InodeClass, number: int, name: bytes
    ) -> pyfuse3.EntryAttributes:
        """The directory of a name's history, which gets a number for as long as the mount lives.

        No number of the index will do: the same folder may stand at several places of a history.
        """
        path = (kind, number, name)
        known = self._numbers.get(path)
        if known is None:
            known = self._numbers[path] = next(self._free)
            self._paths[known] = path
            if len(self._paths) > KNOWN_NAMES_MAX:
                del self._numbers[self._paths.pop(next(iter(self._paths)))]
        return _directory(InodeClass.NAME_HISTORY, known)

    def _is_scratch(self, kind: InodeClass, number: int, name: bytes) -> bool:
        """Whether a name in a directory of `.history` is that of a scratch file."""
        while kind is InodeClass.NAME_HISTORY:
            kind, number, folder = self._load_path(number)
            name = folder + b"/" + name
        return self._vault.scratch.is_scratch(name)

    def _load_path(self, number: int) -> tuple[InodeClass, int, bytes]:
        path = self._paths.get(number)
        if path is None:
            raise NotFound("the history's directory is to be looked up again")
        return path

    def _load_name(self, db: apsw.Connection, number: int) -> tuple[list[int], bytes]:
        """A name, and the directories in which it stands or stood. Raises `NotFound`."""
        kind, above, name = self._load_path(number)
        return self._directories(db, kind, above), name

    def _directories(self, db: apsw.Connection, kind: InodeClass, number: int) -> list[int]:
        """The directories whose names a view lists: the scope's, or all folders of that name.

        A folder that is removed and made again is another node; its history is one.
        """
        if kind is InodeClass.HISTORY:
            return [number]
        parents, name = self._load_name(db, number)
        return tree.list_past_folders(db, parents, name)


def load_version(db: apsw.Connection, version_id: int) -> Version:
    """A version that is not in the trash. Raises `NotFound`."""
    version = index.find_by_id(db, version_id)
    if version is None or version.deleted_seq is not None:
        raise NotFound("the version is gone, or in the trash")
    return version


def _attributes_of(
    db: apsw.Connection, kind: InodeClass, version: Version
) -> pyfuse3.EntryAttributes:
    inode = encode_inode(kind, version.id)
    mtime_ns = version.collected_us * 1000
    if kind is InodeClass.PAYLOAD:
        return version_attributes(inode, version.payload_size, mtime_ns, final=True)
    if payloads.is_settled(db, version.id):
        return version_attributes(inode, version.size_bytes, mtime_ns, final=True)
    return version_attributes(inode, payloads.envelope_size(version), mtime_ns, final=False)


def _inline(attributes: pyfuse3.EntryAttributes) -> pyfuse3.EntryAttributes:
    """Beside names a version's can be taken, and ends unnoticed by the directory: ask each time."""
    attributes.entry_timeout = 0
    return attributes


def _directory(kind: InodeClass, number: int) -> pyfuse3.EntryAttributes:
    # Versions can be removed, and the kernel looks at the mode before it asks.
    mode = 0o755 if kind is InodeClass.VERSIONS else 0o555
    return directory_attributes(encode_inode(kind, number), 0, mode)


def _suffix(name: bytes) -> bytes:
    return os.path.splitext(name)[1]
