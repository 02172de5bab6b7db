"""The FUSE requests: each handler translates, asks the vault or the open files, and replies.

Every handler is wrapped by `_handler`: errors become errnos by one table, refusals of names are
explained in words, and what nobody expected becomes a logged EIO, for pyfuse3 ends its session at
any other exception. Nothing here waits without limit, and the kernel's caches are never invalidated
from inside a handler.
"""

import errno
import functools
import itertools
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, InodeT, ModeT, RequestContext

from scopefs.errors import (
    FULL_ERRNOS,
    Damaged,
    InvalidName,
    NameExists,
    NotEmpty,
    NotFound,
    VersionImmutable,
)
from scopefs.model.naming import NAME_MAX_BYTES, check_file_place
from scopefs.mount.control import Control
from scopefs.mount.errnos import is_expected, to_errno
from scopefs.mount.imports import ImportHandle, Imports
from scopefs.mount.inodes import InodeClass
from scopefs.mount.nodes import Nodes
from scopefs.mount.open_files import Handle, OpenFiles
from scopefs.mount.publication import Publisher
from scopefs.mount.refusals import Refusals
from scopefs.mount.sessions import Sessions
from scopefs.mount.threads import in_thread, read_at
from scopefs.mount.trash_view import PartialView, TrashView
from scopefs.mount.views import Listed, Views, load_version
from scopefs.mount.writers import Writer, Writers
from scopefs.store import changes, payloads, tree
from scopefs.store.readers import BytesReader, PayloadReader
from scopefs.store.trash import apply_delete_version
from scopefs.store.tree import Entry
from scopefs.store.withdraw import apply_withdraw
from scopefs.vault import Vault

_LOG = logging.getLogger(__name__)
_TOLD_DAMAGE_MAX = 10_000
_TOLD_ERRNOS = (errno.EIO, errno.EROFS, *FULL_ERRNOS)
"""Trouble of the disk, which its owner finds in the log."""
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])


def _handler(handler: _Handler) -> _Handler:
    """Turn whatever a handler raises into the errno that its caller gets."""

    @functools.wraps(handler)
    async def wrapped(self: "Operations", *args: Any) -> Any:
        try:
            return await handler(self, *args)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            if isinstance(error, InvalidName):
                self.note_refusal(handler.__name__, args, error)
            elif not is_expected(error):
                _LOG.exception("%s failed", handler.__name__)
            elif to_errno(error) in _TOLD_ERRNOS:
                self.note_failure(handler.__name__, error)
            raise pyfuse3.FUSEError(to_errno(error)) from error

    return cast(_Handler, wrapped)


@dataclass(eq=False)
class _ReadHandle:
    """An open version or control file: bytes that do not change."""

    reader: PayloadReader


@dataclass(eq=False)
class _Listing:
    """An open directory, and the part of its listing that was read ahead."""

    kind: InodeClass
    number: int
    entries: Iterator[Listed] | None = None
    next_cookie: int = 0
    pending: Listed | None = None


class Operations(pyfuse3.Operations):
    """The file system that pyfuse3 serves."""

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(
        self, vault: Vault, open_files: OpenFiles, publisher: Publisher, control: Control,
        refusals: Refusals,
    ) -> None:  # fmt: skip
        super().__init__()
        self._vault = vault
        self._open = open_files
        self._publisher = publisher
        self._sessions = Sessions(vault, open_files, publisher)
        self._writers = Writers()
        self._control = control
        self._refusals = refusals
        self._views = Views(vault)
        self._nodes = Nodes(vault, open_files, publisher, control, self._views)
        self._imports = Imports(vault, refusals)
        self._kept: dict[InodeClass, TrashView | PartialView] = {
            InodeClass.TRASH: TrashView(vault), InodeClass.PARTIAL: PartialView(vault),
        }  # fmt: skip
        self._handles: dict[int, Handle | ImportHandle | _ReadHandle | _Listing] = {}
        self._next_handle = 1
        self._unsettled_opens: set[int] = set()
        self._told_damage: set[str] = set()

    def note_failure(self, operation: str, error: Exception) -> None:
        """Log what the vault could not do. A damaged file is told of once: readers ask for more."""
        if isinstance(error, Damaged):
            if str(error) in self._told_damage:
                return
            if len(self._told_damage) >= _TOLD_DAMAGE_MAX:
                self._told_damage.clear()
            self._told_damage.add(str(error))
        _LOG.error("%s: %s", operation, error)

    def note_refusal(self, operation: str, args: Sequence[Any], error: InvalidName) -> None:
        """Explain a refused name in words. `args`: the parent's inode and the name come first."""
        inodes = [arg for arg in args if isinstance(arg, int)]
        names = [arg for arg in args if isinstance(arg, bytes)]
        parent = args[2] if operation in ("rename", "link") and len(args) > 2 else inodes[0]
        name = names[-1] if operation == "rename" else names[0]
        if operation == "link":
            parent = args[1]
        try:
            place, _ = self._nodes.place(parent)
            with self._vault.read() as db:
                path = tree.find_path(db, parent)
        except Exception:
            _LOG.exception("a refusal could not be explained")
            return
        self._refusals.note(operation, place, path, name, str(error))

    # Names

    @_handler
    async def lookup(
        self, parent_inode: InodeT, name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        kind, number = self._nodes.decode(parent_inode)
        if len(name) > NAME_MAX_BYTES:
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
        if kind is InodeClass.CONTROL:
            return self._control.lookup(name)
        if kind in self._kept:
            return self._kept[kind].lookup(number, name)
        if kind is not InodeClass.TREE:
            await self._wait_view(kind, number)
            return self._views.lookup(kind, number, name)
        file = await self._nodes.find_unrecorded(number, name)
        if file is not None:
            return self._nodes.file_attributes(file)
        entry = self._nodes.find_entry(number, name)
        if entry is not None:
            file = self._open.find(entry.node)
            if file is not None and file.is_doomed:
                await self._publisher.wait_released(file)
            return self._nodes.entry_attributes(entry)
        found = self._nodes.lookup_virtual(number, name)
        if found is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return found

    @_handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(inode)

    def _attributes(self, inode: int) -> EntryAttributes:
        kind, number = self._nodes.decode(inode)
        if kind is InodeClass.CONTROL:
            return self._control.attributes(number)
        if kind in self._kept:
            return self._kept[kind].attributes(number)
        if kind is InodeClass.IMPORT:
            return self._imports.attributes(number)
        if kind is not InodeClass.TREE:
            return self._views.attributes(kind, number)
        file = self._open.find(number)
        if file is not None and (file.unrecorded or file.unlinked):
            return self._nodes.file_attributes(file)
        return self._nodes.attributes(number)

    @_handler
    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None, ctx: RequestContext,
    ) -> EntryAttributes:  # fmt: skip
        kind, number = self._nodes.decode(inode)
        if kind is not InodeClass.TREE:
            if fields.update_size:
                handle = self._handles.get(fh) if fh is not None else None
                if not isinstance(handle, ImportHandle):
                    raise VersionImmutable("a version cannot be truncated")
                await self._imports.resize(handle, attr.st_size)
            # Mode, owner and times of a version: accepted and ignored.
            return self._attributes(inode)
        if fields.update_size:
            await self._resize(number, attr.st_size, fh)
        mode = stat.S_IMODE(attr.st_mode) if fields.update_mode else None
        mtime_ns = attr.st_mtime_ns if fields.update_mtime else None
        if mode is not None or mtime_ns is not None:
            await self._set_mode_and_time(number, mode, mtime_ns)
        return self._attributes(inode)

    async def _resize(self, number: int, size: int, fh: FileHandleT | None) -> None:
        handle = self._handles.get(fh) if fh is not None else None
        if isinstance(handle, Handle):
            await self._sessions.resize(handle, size)
            return
        await self._sessions.truncate_by_path(self._nodes.open_newest(number), size)

    async def _set_mode_and_time(self, number: int, mode: int | None, mtime_ns: int | None) -> None:
        file = self._open.find(number)
        if file is not None:
            await self._publisher.wait_published(file)
            if mode is not None:
                file.mode = mode
            if mtime_ns is not None:
                file.mtime_ns = mtime_ns
            file.changed_ns = time.time_ns()
            if file.unrecorded or file.unlinked or file.draft is not None:
                # Recorded with the session.
                return
        elif mtime_ns is not None:
            await self._note_time_set(number)
        await in_thread(self._vault.apply, changes.apply_attributes, number, mode, mtime_ns)
        self._open.note_attributes(number)

    async def _note_time_set(self, directory: int) -> None:
        """A directory's time is set: files that were made there before do not move it later."""
        for _, file in self._open.list_unrecorded(directory):
            await self._publisher.wait_published(file)
            file.created_ns = None

    @_handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        kind, number = self._nodes.decode(inode)
        if kind in (InodeClass.LATEST, InodeClass.NAME_LATEST):
            await self._wait_view(kind, number)
            return self._views.read_link(kind, number)
        if kind in self._kept:
            return self._kept[kind].read_link(number)
        return self._nodes.load_entry(number).target or b""

    @_handler
    async def mkdir(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        parent = self._nodes.writable_directory(parent_inode)
        self._nodes.refuse_taken(parent, name)
        node = await in_thread(
            self._vault.apply, changes.apply_mkdir, parent, name, stat.S_IMODE(mode)
        )
        return self._nodes.entry_attributes(self._nodes.load_entry(node))

    @_handler
    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        parent = self._nodes.writable_directory(parent_inode)
        with self._vault.read() as db:
            entry = tree.find_child(db, parent, name)
        if entry is not None and self._open.list_unrecorded(entry.node):
            raise NotEmpty("a file is being written there")
        if entry is None and self._nodes.lookup_virtual(parent, name) is not None:
            raise VersionImmutable("views cannot be removed")
        await in_thread(self._vault.apply, changes.apply_rmdir, parent, name)

    @_handler
    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        kind, number = self._nodes.decode(parent_inode)
        if kind is InodeClass.VERSIONS:
            await self._wait_view(kind, number)
            version = self._views.load_removable(number, name)
            await in_thread(self._vault.apply, apply_delete_version, version)
            return
        parent = self._nodes.writable_directory(parent_inode)
        file = await self._nodes.wait_name(parent, name)
        if file is not None:
            await self._publisher.unlink_unrecorded(file)
            return
        with self._vault.read() as db:
            entry = tree.find_child(db, parent, name)
        if entry is None and self._nodes.lookup_virtual(parent, name) is not None:
            raise VersionImmutable("this file cannot be removed here")
        await self._sessions.keep_readable(entry)
        node, last = await in_thread(
            self._vault.apply, *self._plan_unlink(parent, name, entry, ctx)
        )
        if last:
            self._open.note_unlinked(node)

    def _plan_unlink(
        self, parent: int, name: bytes, entry: Entry | None, ctx: RequestContext
    ) -> tuple[Any, ...]:
        """The change that an UNLINK is: a program that removes its temporary file withdraws it."""
        if entry is not None:
            version = self._publisher.find_temporary(
                entry.node, self._writers.find(ctx.pid, ctx.uid)
            )
            if version is not None:
                return apply_withdraw, parent, name, version
        return changes.apply_unlink, parent, name

    @_handler
    async def symlink(
        self, parent_inode: InodeT, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        parent = self._nodes.writable_directory(parent_inode)
        self._nodes.refuse_taken(parent, name)
        entry = await in_thread(self._vault.apply, changes.apply_symlink, parent, name, target)
        return self._nodes.entry_attributes(entry)

    @_handler
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        kind, number = self._nodes.decode(inode)
        if kind is not InodeClass.TREE:
            raise VersionImmutable("a version cannot be linked")
        parent = self._nodes.writable_directory(new_parent_inode)
        self._nodes.refuse_taken(parent, new_name)
        file = self._open.find(number)
        if file is not None:
            await self._publisher.record_name(file)
        entry = await in_thread(
            self._vault.apply, changes.apply_link, number, parent, new_name, self._vault.scratch
        )
        self._open.note_attributes(number)
        return self._nodes.entry_attributes(entry)

    @_handler
    async def rename(
        self, parent_inode_old: InodeT, name_old: bytes, parent_inode_new: InodeT, name_new: bytes,
        flags: int, ctx: RequestContext,
    ) -> None:  # fmt: skip
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise pyfuse3.FUSEError(errno.EINVAL)
        old_parent = self._nodes.writable_directory(parent_inode_old)
        kind, number = self._nodes.decode(parent_inode_new)
        if kind is InodeClass.VERSIONS:
            await self._rename_to_version(old_parent, name_old, number, name_new)
            return
        new_parent = self._nodes.writable_directory(parent_inode_new)
        for parent, name in ((old_parent, name_old), (new_parent, name_new)):
            await self._record_name(parent, name)
        with self._vault.read() as db:
            moved = tree.find_child(db, old_parent, name_old)
            replaced = tree.find_child(db, new_parent, name_new)
        for entry in (moved, replaced):
            if entry is not None:
                # Files that are only here would be left behind in a directory that moves.
                for _, open_file in self._open.list_unrecorded(entry.node):
                    await self._publisher.record_name(open_file)
        await self._sessions.keep_readable(replaced)
        replace = not flags & pyfuse3.RENAME_NOREPLACE
        result = await in_thread(
            functools.partial(
                self._vault.apply, changes.apply_rename, old_parent, name_old, new_parent,
                name_new, replace=replace, scratch=self._vault.scratch,
            )
        )  # fmt: skip
        if moved is not None:
            self._open.note_attributes(moved.node)
            if moved.node != result.node:
                self._nodes.note_became(moved.node, result.node)
        if replaced is not None and replaced.is_scratch and not self._has_names(replaced.node):
            # What is still being written to it makes no version either.
            self._open.note_unlinked(replaced.node)

    def _has_names(self, node: int) -> bool:
        with self._vault.read() as db:
            return bool(tree.find_live_names(db, node))

    async def _record_name(self, parent: int, name: bytes) -> None:
        """Have the index know of a name that a rename takes part in. Raises `VersionImmutable`."""
        if self._nodes.lookup_virtual(parent, name) is not None:
            raise VersionImmutable("views stay where they are")
        file = await self._nodes.wait_name(parent, name)
        if file is not None:
            await self._publisher.record_name(file)

    async def _rename_to_version(
        self, parent: int, name: bytes, scope_node: int, stamp: bytes
    ) -> None:
        """A file that is renamed to a stamp in `.versions/` is imported."""
        await self._record_name(parent, name)
        with self._vault.read() as db:
            entry = tree.find_child(db, parent, name)
        if entry is None:
            raise NotFound("the file was removed")
        await self._imports.import_file(scope_node, stamp, entry, (parent, name))
        if not self._nodes.load_entry(entry.node).links:
            self._open.note_unlinked(entry.node)

    # Contents

    @_handler
    async def create(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        kind, number = self._nodes.decode(parent_inode)
        if kind is InodeClass.VERSIONS:
            new, attributes = await self._imports.begin(number, name)
            return FileInfo(fh=self._add(new), direct_io=True), attributes
        parent = self._nodes.writable_directory(parent_inode)
        place, scope_node = self._nodes.place(parent)
        check_file_place(place, name)
        assert scope_node is not None
        file = await self._nodes.find_unrecorded(parent, name)
        if file is None:
            room = self._nodes.find_room(parent, name)
            if room.taken is not None:
                if flags & os.O_EXCL:
                    raise NameExists("the file exists already")
                file = self._nodes.open_entry(self._nodes.load_entry(room.taken[0]))
            else:
                file = await self._sessions.create(
                    parent, name, room, place, scope_node, stat.S_IMODE(mode)
                )
        handle = self._open.add_handle(file, flags, self._find_writer(flags, ctx))
        info = self._file_info(handle)
        info.keep_cache = True
        return info, self._nodes.file_attributes(file)

    @_handler
    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        if not stat.S_ISREG(mode):
            raise pyfuse3.FUSEError(errno.EPERM)
        parent = self._nodes.writable_directory(parent_inode)
        place, scope_node = self._nodes.place(parent)
        check_file_place(place, name)
        assert scope_node is not None
        self._nodes.refuse_taken(parent, name)
        room = self._nodes.find_room(parent, name)
        file = await self._sessions.create(
            parent, name, room, place, scope_node, stat.S_IMODE(mode)
        )
        await self._publisher.record_name(file)
        self._sessions.release(self._open.add_handle(file, 0))
        return self._nodes.entry_attributes(self._nodes.load_entry(file.node))

    @_handler
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        kind, number = self._nodes.decode(inode)
        if kind is not InodeClass.TREE:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND):
                return await self._open_version_to_write(kind, number, flags)
            return await self._open_view(kind, number)
        file = self._nodes.open_newest(number)
        keep_cache = self._open.is_cached(file)
        handle = self._open.add_handle(file, flags, self._find_writer(flags, ctx))
        if flags & os.O_TRUNC:
            await self._sessions.resize(handle, 0)
        info = self._file_info(handle)
        info.keep_cache = keep_cache
        return info

    async def _open_version_to_write(self, kind: InodeClass, number: int, flags: int) -> FileInfo:
        """A version is never written; but whoever writes the same bytes again has done no harm."""
        if kind is not InodeClass.ENVELOPE or flags & (os.O_RDWR | os.O_APPEND):
            raise VersionImmutable("a version never changes")
        if not flags & os.O_WRONLY:
            raise VersionImmutable("a version cannot be truncated")
        with self._vault.read() as db:
            version = load_version(db, number)
            scope_node = tree.find_scope_node(db, version.scope)
        assert scope_node is not None
        handle, _ = await self._imports.begin(
            scope_node, f"{version.stamp}.json".encode(),
            None if flags & os.O_TRUNC else version.id,
        )  # fmt: skip
        # Past the cache, in which the version is.
        return FileInfo(fh=self._add(handle), direct_io=True)

    def _find_writer(self, flags: int, ctx: RequestContext) -> Writer | None:
        if flags & os.O_ACCMODE == os.O_RDONLY:
            return None
        return self._writers.find(ctx.pid, ctx.uid)

    async def _open_view(self, kind: InodeClass, number: int) -> FileInfo:
        if kind is InodeClass.CONTROL:
            # Sizes that stat told may be out of date by now.
            reader: PayloadReader = BytesReader(self._control.read(number))
            return FileInfo(fh=self._add(_ReadHandle(reader)), direct_io=True)
        if kind in self._kept:
            reader = await in_thread(self._kept[kind].open, number)
            return FileInfo(fh=self._add(_ReadHandle(reader)), direct_io=True)
        with self._vault.read() as db:
            version = load_version(db, number)
            settled = payloads.is_settled(db, number)
        if kind is InodeClass.PAYLOAD:
            reader = await in_thread(self._vault.open_payload, version)
            return FileInfo(fh=self._add(_ReadHandle(reader)), keep_cache=True)
        reader = await in_thread(self._vault.open_envelope, version)
        keep_cache = settled and number not in self._unsettled_opens
        if settled:
            self._unsettled_opens.discard(number)
        else:
            self._unsettled_opens.add(number)
        return FileInfo(fh=self._add(_ReadHandle(reader)), keep_cache=keep_cache,
                        direct_io=not settled)  # fmt: skip

    @_handler
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        handle = self._handles[fh]
        if isinstance(handle, _ReadHandle):
            return await read_at(handle.reader, off, size)
        if isinstance(handle, ImportHandle):
            return await self._imports.read(handle, off, size)
        assert isinstance(handle, Handle)
        return await self._sessions.read(handle, off, size)

    @_handler
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        handle = self._handles[fh]
        if isinstance(handle, ImportHandle):
            return await self._imports.write(handle, off, buf)
        return await self._sessions.write(self._file_handle(fh), off, buf)

    @_handler
    async def flush(self, fh: FileHandleT) -> None:
        handle = self._handles[fh]
        if isinstance(handle, Handle):
            await self._sessions.flush(handle)
        elif isinstance(handle, ImportHandle):
            await self._imports.flush(handle)

    @_handler
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        handle = self._handles[fh]
        if isinstance(handle, Handle):
            await self._sessions.sync(handle)
        elif isinstance(handle, ImportHandle):
            await self._imports.flush(handle)

    @_handler
    async def release(self, fh: FileHandleT) -> None:
        handle = self._handles.pop(fh)
        if isinstance(handle, Handle):
            self._sessions.release(handle)
        elif isinstance(handle, ImportHandle):
            self._imports.release(handle)
        elif isinstance(handle, _ReadHandle):
            handle.reader.close()

    # Directories

    @_handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        kind, number = self._nodes.decode(inode)
        await self._wait_view(kind, number)
        return FileHandleT(self._add(_Listing(kind, number)))

    @_handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._handles[fh]
        assert isinstance(listing, _Listing)
        if listing.entries is None or start_id != listing.next_cookie:
            listing.entries = self._list(listing, start_id)
            listing.pending = None
        while True:
            found = listing.pending or next(listing.entries, None)
            if found is None:
                listing.entries = None
                return
            name, attributes, cookie = found
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), attributes, cookie):
                listing.pending = found
                return
            listing.pending = None
            listing.next_cookie = cookie

    @_handler
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await in_thread(self._vault.sync)

    @_handler
    async def releasedir(self, fh: FileHandleT) -> None:
        self._handles.pop(fh, None)

    def _list(self, listing: _Listing, after: int) -> Iterator[Listed]:
        if listing.kind is InodeClass.CONTROL:
            return iter([found for found in self._control.entries() if found[2] > after])
        if listing.kind in self._kept:
            return self._kept[listing.kind].iterate(listing.number, after)
        if listing.kind is not InodeClass.TREE:
            return self._views.iterate(listing.kind, listing.number, after)
        if not self._nodes.lists_versions:
            return self._nodes.list_tree(listing.number, after)
        return itertools.chain(
            self._nodes.list_tree(listing.number, after),
            self._nodes.list_inline(listing.number, after),
        )

    # The rest

    @_handler
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        found = os.statvfs(self._vault.layout.root)
        answer = pyfuse3.StatvfsData()
        # df multiplies with the fragment size, some tools with the block size: make them equal.
        answer.f_bsize = answer.f_frsize = found.f_frsize
        answer.f_blocks = found.f_blocks
        answer.f_bfree = found.f_bfree
        answer.f_bavail = found.f_bavail
        answer.f_files = found.f_files
        answer.f_ffree = found.f_ffree
        answer.f_favail = found.f_favail
        answer.f_namemax = 255
        return answer

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Nothing is kept for what the kernel knows."""

    async def _wait_view(self, kind: InodeClass, number: int) -> None:
        """Wait for publications under way in the scope that a view belongs to."""
        inline = kind is InodeClass.TREE and self._nodes.lists_versions
        if inline or kind in (InodeClass.VERSIONS, InodeClass.LATEST):
            await self._publisher.wait_scope_published(number)
        elif kind in (InodeClass.HISTORY, InodeClass.NAME_HISTORY, InodeClass.NAME_LATEST):
            await self._publisher.wait_scope_published(self._views.find_scope_node(kind, number))

    def _file_handle(self, fh: FileHandleT) -> Handle:
        handle = self._handles[fh]
        if not isinstance(handle, Handle):
            raise VersionImmutable("a version never changes")
        return handle

    def _file_info(self, handle: Handle) -> FileInfo:
        return FileInfo(fh=self._add(handle))

    def _add(self, handle: Handle | ImportHandle | _ReadHandle | _Listing) -> FileHandleT:
        fh = self._next_handle
        self._next_handle += 1
        self._handles[fh] = handle
        return FileHandleT(fh)
