"""Sessions: reading and writing files, until what was written is handed to the publisher.

Sessions are per inode (docs/semantics.md, S). `OpenFile.lock` serialises whatever changes a file's
session: write, truncate, flush, fsync. Handlers never call the index's writing side directly: that
is done in threads.
"""

import errno
import os
import time
from dataclasses import replace
from functools import partial

import trio

from scopefs.commits import Commits
from scopefs.errors import NotFound, PayloadCorrupt, TooLarge
from scopefs.model.naming import Place
from scopefs.model.sessions import FailedWrite
from scopefs.mount.errnos import to_errno
from scopefs.mount.open_files import Handle, OpenFile, OpenFiles
from scopefs.mount.publication import Publisher
from scopefs.mount.threads import in_thread, read_at
from scopefs.mount.writers import find_program_name, is_killed
from scopefs.store import changes, index, publish, rows, tree
from scopefs.store.drafts import Draft
from scopefs.store.index import Version
from scopefs.store.journal import Failure
from scopefs.store.publish import StagedState
from scopefs.store.readers import INLINE_READ_BYTES, PayloadReader
from scopefs.store.tree import Entry, Room
from scopefs.vault import Vault

_SEAL_HERE_BYTES = 16_384
"""What is hashed in less time than a thread takes to begin."""

NODE_BLOCK = 1000
"""Node ids reserved at once."""


class Sessions:
    """Reads and writes the files of one mount."""

    def __init__(self, vault: Vault, open_files: OpenFiles, publisher: Publisher) -> None:
        self._vault = vault
        self._open = open_files
        self._publisher = publisher
        self._commits = Commits(vault)
        self._free_nodes: list[int] = []
        self._node_lock = trio.Lock()

    async def create(
        self, parent: int, name: bytes, room: Room, place: Place, scope_node: int, mode: int
    ) -> OpenFile:
        """Begin a file that did not exist; its name is in the index once it is recorded.

        Raises `NotFound` if the directory was removed.
        """
        if not room.is_reachable:
            raise NotFound("the directory was removed")
        node = await self._take_node()
        now_ns = time.time_ns()
        file = OpenFile(
            node, scope_node, place, mode, now_ns, now_ns, parent=parent, name=name,
            slot=room.slot if room.slot is not None else node, unrecorded=True,
            created_ns=now_ns,
        )  # fmt: skip
        self._open.add_new(file)
        return file

    async def read(self, handle: Handle, offset: int, size: int) -> bytes:
        """Bytes as they are being written, or as they were last published."""
        file = handle.file
        if file.draft is not None:
            if file.draft.in_memory or size <= INLINE_READ_BYTES:
                return file.draft.read(offset, size)
            return await in_thread(file.draft.read, offset, size)
        if file.version is None and not file.is_scratch:
            return b""
        reader = file.reader or await self._open_reader(file)
        if reader is None:
            # It was written or published meanwhile.
            return await self.read(handle, offset, size)
        return await read_at(reader, offset, size)

    async def keep_readable(self, entry: Entry | None) -> None:
        """Before a name ends: the bytes of a scratch file go with its last one, and whoever has it
        open goes on reading them.
        """
        file = None if entry is None or not entry.is_scratch else self._open.find(entry.node)
        if file is not None and file.draft is None and file.reader is None:
            await self._open_reader(file)

    async def _open_reader(self, file: OpenFile) -> PayloadReader | None:
        """A reader of what the file shows; None if that has changed meanwhile."""
        turn = file.turn
        if file.version is None:
            try:
                reader = self._vault.open_scratch(file.node)
            except NotFound:
                # Renamed to an ordinary name: a version by now.
                with self._vault.read() as db:
                    entry = tree.find_node(db, file.node)
                if entry is None or entry.is_scratch:
                    raise
                file.follow(entry)
                return None
        else:
            version = self._load_version(file.version)
            if version.payload_size <= INLINE_READ_BYTES:
                reader = self._vault.open_payload(version)
            else:
                reader = await in_thread(self._vault.open_payload, version)
        if file.turn != turn or file.draft is not None:
            return None
        file.reader = file.reader or reader
        return file.reader

    async def write(self, handle: Handle, offset: int, data: bytes) -> int:
        """Write through a handle; opens the session if this is the first change."""
        file = handle.file
        async with file.lock:
            try:
                # What is stored through a mapping has its place, whatever the handle's flags are.
                is_append = handle.is_appending and offset >= file.shown_size
                self._check_size(file, offset, len(data))
                draft = await self._begin(handle)
                if is_append:
                    # Another door may have made it longer than the kernel knows.
                    offset = draft.size
                    self._check_size(file, offset, len(data))
                else:
                    file.append_only = False
                if len(data) <= INLINE_READ_BYTES:
                    draft.write(offset, data)
                else:
                    await in_thread(draft.write, offset, data)
            except OSError as error:
                self._note_failed(handle, offset, len(data), error)
                raise
            if file.failed is not None and file.failed.is_repeated_by(offset, len(data)):
                file.failed = None
            self._note_change(handle)
        return len(data)

    async def resize(self, handle: Handle, size: int) -> None:
        """Truncate or extend through a handle."""
        file = handle.file
        async with file.lock:
            if file.shown_size == size:
                await self._touch(file)
                return
            try:
                self._check_size(file, size, 0)
                draft = await self._begin(handle, keep_bytes=size)
                file.append_only = False
                if draft.in_memory and size <= INLINE_READ_BYTES:
                    draft.truncate(size)
                else:
                    await in_thread(draft.truncate, size)
            except OSError as error:
                self._note_failed(handle, size, -1, error)
                raise
            self._note_change(handle)

    def _note_failed(self, handle: Handle, offset: int, size: int, error: OSError) -> None:
        """The session has failed, or will have if the handle, refused so far, writes on later.

        One of others, which may be closed and wait for its RELEASE, is no matter of this handle.
        """
        failed = FailedWrite(offset, size, error.errno or errno.EIO)
        if handle.wrote:
            handle.file.failed = failed
        else:
            handle.refused = failed

    def _check_size(self, file: OpenFile, offset: int, size: int) -> None:
        """Refuse what would make a file too large: EFBIG, before a base is copied for nothing.

        If nothing else is written, there is no session, and nothing has changed; else it failed.
        """
        if offset + size > file.shown_size:
            # A smaller one may be over a limit that has come later.
            try:
                self._vault.check_file_size(offset + size)
            except TooLarge as error:
                raise OSError(errno.EFBIG, str(error)) from error

    async def _touch(self, file: OpenFile) -> None:
        """A truncation that changes no size changes the mtime, and makes no version."""
        file.mtime_ns = file.changed_ns = time.time_ns()
        if not (file.unrecorded or file.unlinked or file.draft is not None):
            await in_thread(
                self._vault.apply, changes.apply_attributes, file.node, None, file.mtime_ns
            )
            self._open.note_attributes(file.node)

    def _note_change(self, handle: Handle) -> None:
        file = handle.file
        file.dirty = True
        file.closed = False
        file.killed = False
        file.mtime_ns = file.changed_ns = time.time_ns()
        if handle.writer is not None and file.writer is not handle.writer:
            file.written_by.append(handle.writer)

    async def flush(self, handle: Handle) -> None:
        """close(2): make what was written durable, and answer its errors here."""
        file = handle.file
        if not handle.is_writable:
            return
        # What is durable is known once a FLUSH or fsync of others, under way for it, is over.
        async with file.lock:
            if not file.dirty and file.state is not StagedState.DRAFT:
                if handle.wrote:
                    file.check_failed()
                    # Durable by somebody else's FLUSH, and closed by this one.
                    file.closed = True
                if file.draft is not None and handle.wrote and handle.writer is not None:
                    # Others have flushed what they wrote for it: a shell's commands.
                    file.killed = file.killed or await is_killed(handle.writer)
                return
            # Asked before anything else: its process is gone a moment after the answer.
            if handle.writer is not None:
                file.killed = await is_killed(handle.writer)
                if handle.wrote and file.writer is handle.writer:
                    name = find_program_name(handle.writer)
                    file.written_by[-1] = handle.writer = replace(handle.writer, name=name)
            # What a killed writer leaves is promised to nobody, unless others have it open.
            try:
                if not file.killed or file.append_only or file.writers > 1:
                    await self._stage(file, StagedState.CLOSED)
                    file.closed = handle.wrote
            finally:
                file.flushed_at = trio.current_time()
                file.released = trio.Event()

    async def sync(self, handle: Handle) -> None:
        """fsync(2): the same durability; publishes nothing."""
        file = handle.file
        async with file.lock:
            if file.dirty:
                await self._stage(file, StagedState.DRAFT)
                return
        if file.unrecorded and file.draft is None:
            await self._publisher.record_name(file)
        await in_thread(self._vault.sync)

    def release(self, handle: Handle) -> None:
        """The last close of an open file description. Answered at once; publishing follows."""
        file = handle.file
        file.handles.discard(handle)
        if handle.wrote:
            file.writers -= 1
        if file.unlinked and file.handles:
            # Its bytes stay readable until the last close.
            return
        if file.writers == 0 and (file.draft is not None or file.unrecorded):
            self._publisher.begin(file)
        elif not file.handles:
            self._open.forget(file)

    async def truncate_by_path(self, file: OpenFile, size: int) -> None:
        """truncate(2) without a handle: a whole session, over before the answer."""
        handle = self._open.add_handle(file, os.O_WRONLY)
        try:
            await self.resize(handle, size)
            if file.writers == 1 and handle.wrote:
                await self.flush(handle)
        finally:
            self.release(handle)
        await self._publisher.wait_published(file)

    async def _take_node(self) -> int:
        if self._free_nodes:
            return self._free_nodes.pop()
        async with self._node_lock:
            if not self._free_nodes:
                first = await in_thread(self._vault.apply, rows.allocate_nodes, NODE_BLOCK)
                self._free_nodes = list(range(first + NODE_BLOCK - 1, first - 1, -1))
            return self._free_nodes.pop()

    def _load_version(self, version_id: int) -> Version:
        with self._vault.read() as db:
            version = index.find_by_id(db, version_id)
        if version is None:
            raise PayloadCorrupt(f"version {version_id} has no row")
        return version

    async def _begin(self, handle: Handle, keep_bytes: int | None = None) -> Draft:
        """The session's draft; the first change makes it, as a copy of what was there.

        An append goes to the newest version, whoever published it. What others have closed, though
        its RELEASE has not come, is a version of its own: nothing that this handle does can undo
        it. `keep_bytes`: how much of the old content is needed, from its start; None: all of it.
        """
        file = handle.file
        if file.is_closed and not handle.wrote and not file.unlinked:
            self._publisher.begin(file)
        while file.publishing is not None:
            await self._publisher.wait_published(file)
        if file.draft is None:
            if not file.unrecorded:
                with self._vault.read() as db:
                    names = tree.find_live_names(db, file.node)
                    entry = tree.find_node(db, file.node) if handle.is_appending else None
                if names:
                    _, file.parent, file.name = names[0]
                if entry is not None:
                    handle.version = entry.version
            draft = self._vault.new_draft()
            if keep_bytes != 0 and (handle.version is not None or file.is_scratch):
                try:
                    await in_thread(self._copy_base, draft, handle, keep_bytes)
                except BaseException:
                    draft.discard()
                    raise
            file.draft = draft
            file.failed = None
            file.append_only = True
        if not handle.wrote:
            handle.wrote = True
            file.writers += 1
            file.failed = file.failed or handle.refused
        return file.draft

    def _copy_base(self, draft: Draft, handle: Handle, keep_bytes: int | None) -> None:
        version = None if handle.version is None else self._load_version(handle.version)
        kept = handle.file.reader if version is None and handle.file.unlinked else None
        reader = kept or self._vault.open_base(version or handle.file.node)
        try:
            # What is only appended to, or cut, is not to be hashed a second time.
            hashed = handle.is_appending or keep_bytes is not None
            draft.copy_from(reader, keep_bytes, hashed=hashed)
        finally:
            if reader is not kept:
                reader.close()

    async def _stage(self, file: OpenFile, state: StagedState) -> None:
        """Make the draft durable, with a row that says what it is."""
        draft = file.draft
        if draft is None or not (file.dirty or file.state is not state):
            return
        if file.unlinked:
            file.dirty = False
            return
        if state is StagedState.CLOSED:
            file.check_failed()
        if self._vault.is_relaxed:
            # The publisher makes it durable, and nobody waits for that, unless it is far behind.
            await self._publisher.wait_not_behind()
            return
        file.dirty = False
        try:
            if draft.in_memory and draft.size <= _SEAL_HERE_BYTES:
                file.sealed = draft.seal(file.name or None)
            else:
                file.sealed = await in_thread(draft.seal, file.name or None)
            write = self._publisher.make_write(file, file.sealed, file.sid)
            result = await self._commits.try_durably(
                partial(publish.apply_stage, write=write, state=state)
            )
            if isinstance(result, Failure):
                # What is committed, and was promised to nobody, goes with the session.
                file.sid = result.result or file.sid
                raise result.error
            file.sid, file.state = result, state
        except BaseException as error:
            file.dirty = True
            if isinstance(error, Exception):
                file.failed = FailedWrite(0, -1, to_errno(error))
            raise
