"""Files that are open, being written, or not yet in the index: the mount's only state.

An `OpenFile` stands for one inode from its first open (or CREATE) until its last handle is released
and whatever was written is recorded. Sessions are per inode. What holds across each `await`:

- `lock` serialises whatever changes a file's session: write, truncate, flush, fsync.
- between the release of the last writer and its publication `publishing` is set; no new session
  begins before that is over, and names are not changed under it.
- a file that is `unrecorded` has its name in `by_name` and nowhere else; everything that changes
  names records it first, so that the index alone decides about names.

Handlers never call the index's writing side directly: that is done in threads.
"""

import errno
import logging
import os
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from scopefs.errors import PayloadCorrupt
from scopefs.model.naming import Place
from scopefs.model.payload import Kind
from scopefs.model.sessions import FailedWrite, Outcome, plan_release
from scopefs.mount.errnos import is_expected, to_errno
from scopefs.store import index, publish, rows, tree
from scopefs.store.drafts import Draft
from scopefs.store.index import Version
from scopefs.store.journal import Failure, Transaction
from scopefs.store.payloads import PayloadReader
from scopefs.store.publish import Sealed, StagedState, Write
from scopefs.store.tree import Entry
from scopefs.vault import Vault

NODE_BLOCK = 1000
"""Node ids reserved at once."""

INLINE_READ_BYTES = 65_536
"""Reads and writes up to this size are done without a hop to a thread (about 116 us)."""

RELEASE_GRACE_S = 0.1
"""How long a listing of versions waits for the RELEASE that follows a dirty FLUSH."""

PUBLISH_GRACE_S = 10.0
"""How long anything waits for a publication under way."""

_KNOWN_CACHES = 65_536
_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class OpenFile:
    """One inode that is open, or whose last write is not recorded yet."""

    node: int
    scope_node: int
    place: Place
    mode: int
    mtime_ns: int
    version: int | None = None
    """What the file shows, or showed before its session: as of its last open or publication."""
    size: int = 0
    """Of that version."""
    parent: int = 0
    name: bytes = b""
    slot: int | None = None
    unrecorded: bool = False
    unlinked: bool = False
    handles: "set[Handle]" = field(default_factory=set)
    writers: int = 0
    draft: Draft | None = None
    dirty: bool = False
    """Whether the draft has changed since it was last made durable."""
    sid: int | None = None
    state: StagedState | None = None
    """How the staged row stands, if there is one."""
    sealed: Sealed | None = None
    failed: FailedWrite | None = None
    flushed_at: float = -1.0
    """When the last dirty FLUSH was answered, on trio's clock."""
    released: trio.Event = field(default_factory=trio.Event)
    """Set once the writer behind that FLUSH is released."""
    reader: PayloadReader | None = None
    publishing: trio.Event | None = None
    lock: trio.Lock = field(default_factory=trio.Lock)

    @property
    def is_closed(self) -> bool:
        """Whether all that was written is durable since a close, and waits for its RELEASE."""
        return self.draft is not None and not self.dirty and self.state is StagedState.CLOSED

    @property
    def shown_size(self) -> int:
        """What stat says now, in bytes."""
        return self.size if self.draft is None else self.draft.size


@dataclass(eq=False)
class Handle:
    """One open file description."""

    file: OpenFile
    flags: int
    version: int | None
    """What a session through it starts from: the version that it opened, or what was published
    through this mount since.
    """
    wrote: bool = False


class Files:
    """All open files of one mount."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._by_node: dict[int, OpenFile] = {}
        self._by_name: dict[int, dict[bytes, OpenFile]] = {}
        self._free_nodes: list[int] = []
        self._node_lock = trio.Lock()
        self._cached: OrderedDict[int, int | None] = OrderedDict()
        self._to_publish: list[OpenFile] = []
        self._wake = trio.Event()
        self._threads = trio.CapacityLimiter(64)
        self.idle = trio.Event()
        self.idle.set()

    async def in_thread(self, call: Any, *args: Any) -> Any:
        """Run what waits for the disk in a thread."""
        return await trio.to_thread.run_sync(call, *args, limiter=self._threads)

    # What is open

    def find(self, node: int) -> OpenFile | None:
        """The open file of a node."""
        return self._by_node.get(node)

    def find_unrecorded(self, parent: int, name: bytes) -> OpenFile | None:
        """A file that was created under a name and is not in the index yet."""
        names = self._by_name.get(parent)
        return None if names is None else names.get(name)

    def list_unrecorded(self, parent: int) -> list[tuple[bytes, OpenFile]]:
        """All such files of a directory."""
        return list(self._by_name.get(parent, {}).items())

    def count(self) -> int:
        """How many files are open or not yet recorded."""
        return len(self._by_node)

    async def create(
        self, parent: int, name: bytes, place: Place, scope_node: int, mode: int
    ) -> OpenFile:
        """Begin a file that did not exist; its name is in the index once it is recorded."""
        slot = self._find_slot(parent, name)
        node = await self._take_node()
        file = OpenFile(
            node, scope_node, place, mode, time.time_ns(), parent=parent, name=name,
            slot=slot if slot is not None else node, unrecorded=True,
        )  # fmt: skip
        self._by_node[node] = file
        self._by_name.setdefault(parent, {})[name] = file
        return file

    def open(self, entry: Entry, place: Place) -> OpenFile:
        """The open file of an entry that the index has; follows a newer version."""
        file = self._by_node.get(entry.node)
        if file is None:
            assert entry.scope_node is not None
            file = OpenFile(entry.node, entry.scope_node, place, entry.mode, entry.mtime_ns,
                            version=entry.version, size=entry.size)  # fmt: skip
            self._by_node[entry.node] = file
        elif file.draft is None and not file.unrecorded and file.publishing is None:
            self._follow(file, entry)
        return file

    def add_handle(self, file: OpenFile, flags: int) -> Handle:
        """Count a new handle."""
        handle = Handle(file, flags, file.version)
        file.handles.add(handle)
        return handle

    def is_cached(self, file: OpenFile) -> bool:
        """Whether what the kernel has in its cache for this file is what the file shows.

        Notes that from now on it will be.
        """
        version = file.version
        known = self._cached.get(file.node, -1)
        self._note_cached(file.node, version)
        return file.draft is not None or (known == version and version is not None)

    # Reading and writing

    async def read(self, handle: Handle, offset: int, size: int) -> bytes:
        """Bytes as they are being written, or as they were last published."""
        file = handle.file
        if file.draft is not None:
            if file.draft.in_memory or size <= INLINE_READ_BYTES:
                return file.draft.read(offset, size)
            return bytes(await self.in_thread(file.draft.read, offset, size))
        if file.version is None:
            return b""
        reader = file.reader or await self._open_reader(file, file.version)
        if reader is None:
            # It was written or published meanwhile.
            return await self.read(handle, offset, size)
        if size <= INLINE_READ_BYTES:
            return reader.read(offset, size)
        return bytes(await self.in_thread(reader.read, offset, size))

    async def _open_reader(self, file: OpenFile, version_id: int) -> PayloadReader | None:
        version = self._load_version(version_id)
        if version.payload_size <= INLINE_READ_BYTES:
            return self._adopt_reader(file, version_id, self._vault.open_payload(version))
        reader = await self.in_thread(self._vault.open_payload, version)
        return self._adopt_reader(file, version_id, reader)

    def _adopt_reader(
        self, file: OpenFile, version_id: int, reader: PayloadReader
    ) -> PayloadReader | None:
        """Keep a reader that was opened meanwhile, if it still reads what the file shows."""
        if file.reader is None and file.version == version_id and file.draft is None:
            file.reader = reader
            return reader
        return file.reader if file.draft is None else None

    async def write(self, handle: Handle, offset: int, data: bytes) -> int:
        """Write through a handle; opens the session if this is the first change."""
        file = handle.file
        async with file.lock:
            try:
                draft = await self._begin(handle)
                if handle.flags & os.O_APPEND:
                    offset = draft.size
                if len(data) <= INLINE_READ_BYTES:
                    draft.write(offset, data)
                else:
                    await self.in_thread(draft.write, offset, data)
            except OSError as error:
                file.failed = FailedWrite(offset, len(data), error.errno or errno.EIO)
                raise
            if file.failed is not None and file.failed.is_repeated_by(offset, len(data)):
                file.failed = None
            file.dirty = True
            file.mtime_ns = time.time_ns()
        return len(data)

    async def resize(self, handle: Handle, size: int) -> None:
        """Truncate or extend through a handle."""
        file = handle.file
        async with file.lock:
            if file.shown_size == size:
                return
            try:
                draft = await self._begin(handle, keep=size > 0)
                if draft.in_memory and size <= INLINE_READ_BYTES:
                    draft.truncate(size)
                else:
                    await self.in_thread(draft.truncate, size)
            except OSError as error:
                file.failed = FailedWrite(size, -1, error.errno or errno.EIO)
                raise
            file.dirty = True
            file.mtime_ns = time.time_ns()

    async def flush(self, handle: Handle) -> None:
        """close(2): make what was written durable, and answer its errors here."""
        file = handle.file
        if not file.dirty and file.state is not StagedState.DRAFT:
            if handle.wrote:
                _raise_failed(file)
            return
        async with file.lock:
            await self._stage(file, StagedState.CLOSED)
            file.flushed_at = trio.current_time()
            file.released = trio.Event()

    async def sync(self, handle: Handle) -> None:
        """fsync(2): the same durability; publishes nothing."""
        file = handle.file
        if file.dirty:
            async with file.lock:
                await self._stage(file, StagedState.DRAFT)
            return
        if file.unrecorded and file.draft is None:
            await self.record_name(file)
        await self.in_thread(self._vault.sync)

    def release(self, handle: Handle) -> None:
        """The last close of an open file description. Answered at once; publishing follows."""
        file = handle.file
        file.handles.discard(handle)
        if handle.wrote:
            file.writers -= 1
        if file.writers == 0 and (file.draft is not None or file.unrecorded):
            self.begin_publication(file)
        elif not file.handles:
            self._forget(file)

    async def truncate_by_path(self, file: OpenFile, size: int) -> None:
        """truncate(2) without a handle: a whole session, over before the answer."""
        handle = self.add_handle(file, os.O_WRONLY)
        try:
            await self.resize(handle, size)
            if file.writers == 1 and handle.wrote:
                await self.flush(handle)
        finally:
            self.release(handle)
        await self.wait_published(file)

    # Publication

    def begin_publication(self, file: OpenFile) -> None:
        """Hand a file whose session is over to the publisher."""
        if file.publishing is None:
            file.publishing = trio.Event()
            file.released.set()
            self._to_publish.append(file)
            self.idle = trio.Event() if self.idle.is_set() else self.idle
            self._wake.set()

    async def run_publisher(self) -> None:
        """Publish what is handed over, as much as has gathered in one transaction. For ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._to_publish:
                batch, self._to_publish = self._to_publish, []
                try:
                    await self._publish(batch)
                except Exception:
                    _LOG.exception("publishing failed")
                finally:
                    for file in batch:
                        self._end_publication(file)
            self.idle.set()

    async def wait_published(self, file: OpenFile) -> None:
        """Wait for a publication of this file that is under way."""
        with trio.move_on_after(PUBLISH_GRACE_S):
            while file.publishing is not None:
                await file.publishing.wait()

    async def wait_scope_published(self, scope_node: int) -> None:
        """Wait for what is about to be published in a scope, so that a listing shows it.

        For publications under way; and for files that were flushed a moment ago, whose RELEASE the
        kernel may still be holding back.
        """
        for file in list(self._by_node.values()):
            if file.scope_node != scope_node:
                continue
            if file.publishing is None and file.draft is not None and not file.dirty:
                with trio.move_on_at(file.flushed_at + RELEASE_GRACE_S):
                    await file.released.wait()
            await self.wait_published(file)

    async def record_name(self, file: OpenFile) -> None:
        """Put the name of an unrecorded file into the index, before names are changed."""
        await self.wait_published(file)
        if file.unrecorded:
            await self.in_thread(
                self._vault.apply, publish.apply_show_empty, self._make_write(file, _EMPTY, None)
            )
            self._mark_recorded(file)

    async def unlink_unrecorded(self, file: OpenFile) -> None:
        """End the name of a file that the index does not know yet."""
        self._mark_recorded(file)
        file.unlinked = True
        if file.sid is not None:
            await self.in_thread(
                self._vault.apply, publish.drop_staged, self._make_write(file, _EMPTY, file.sid)
            )
            file.sid = None
        if not file.handles:
            self._forget(file)

    def note_unlinked(self, node: int) -> None:
        """The last name of a file was ended: what is not closed yet goes with it."""
        file = self._by_node.get(node)
        if file is not None:
            file.unlinked = True

    async def close_all(self) -> None:
        """At the end of a mount: what was closed is published, though its RELEASE may never come;
        what was written and never closed goes to partial/.
        """
        for file in list(self._by_node.values()):
            if file.is_closed:
                self.begin_publication(file)
        await self.idle.wait()
        for file in list(self._by_node.values()):
            if file.draft is not None:
                await self._keep_partial(file, "still open when the vault was unmounted")

    # Inside

    def _find_slot(self, parent: int, name: bytes) -> int | None:
        with self._vault.read() as db:
            return tree.find_slot(db, parent, name)

    async def _take_node(self) -> int:
        async with self._node_lock:
            if not self._free_nodes:
                first = await self.in_thread(self._vault.apply, rows.allocate_nodes, NODE_BLOCK)
                self._free_nodes = list(range(first + NODE_BLOCK - 1, first - 1, -1))
            return self._free_nodes.pop()

    def _load_version(self, version_id: int) -> Version:
        with self._vault.read() as db:
            version = index.find_by_id(db, version_id)
        if version is None:
            raise PayloadCorrupt(f"version {version_id} has no row")
        return version

    def _follow(self, file: OpenFile, entry: Entry) -> None:
        """Take over what another door has published meanwhile."""
        file.mode, file.mtime_ns = entry.mode, entry.mtime_ns
        if file.version != entry.version:
            file.version, file.size = entry.version, entry.size
            file.reader = None

    async def _begin(self, handle: Handle, *, keep: bool = True) -> Draft:
        """The session's draft; the first change makes it, as a copy of what was there.

        An append goes to the newest version, whoever published it. `keep`: whether any of the old
        content is needed.
        """
        file = handle.file
        while file.publishing is not None:
            await file.publishing.wait()
        if file.draft is None:
            if handle.flags & os.O_APPEND and not file.unrecorded:
                with self._vault.read() as db:
                    entry = tree.find_node(db, file.node)
                if entry is not None:
                    handle.version = entry.version
            draft = self._vault.new_draft()
            if keep and handle.version is not None:
                try:
                    await self.in_thread(self._copy_base, draft, handle.version)
                except BaseException:
                    draft.discard()
                    raise
            file.draft = draft
            file.failed = None
        if not handle.wrote:
            handle.wrote = True
            file.writers += 1
        return file.draft

    def _copy_base(self, draft: Draft, base: int) -> None:
        reader = self._vault.open_payload(self._load_version(base))
        try:
            draft.copy_from(reader)
        finally:
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
            _raise_failed(file)
        file.dirty = False
        try:
            file.sealed, file.sid = await self.in_thread(self._stage_now, file, draft, state)
            file.state = state
        except BaseException as error:
            file.dirty = True
            if isinstance(error, Exception):
                file.failed = FailedWrite(0, -1, to_errno(error))
            raise

    def _stage_now(self, file: OpenFile, draft: Draft, state: StagedState) -> tuple[Sealed, int]:
        sealed = draft.seal(file.name or None)
        write = self._make_write(file, sealed, file.sid)
        return sealed, self._vault.apply_durably(publish.apply_stage, write, state)

    def _make_write(self, file: OpenFile, sealed: Sealed, sid: int | None) -> Write:
        return Write(
            self._vault.owner_name, file.scope_node, file.node,
            file.parent if file.unrecorded else None, file.name if file.unrecorded else None,
            file.mode, file.mtime_ns, sealed, slot=file.slot, sid=sid,
        )  # fmt: skip

    async def _publish(self, batch: list[OpenFile]) -> None:
        works = []
        files = []
        for file in batch:
            outcome = plan_release(
                has_session=file.draft is not None, is_recorded=not file.unrecorded,
                is_unlinked=file.unlinked, failed=file.failed is not None,
                size=file.shown_size,
            )  # fmt: skip
            if outcome is Outcome.KEEP_PARTIAL:
                assert file.failed is not None
                await self._keep_partial(file, f"a write failed: {os.strerror(file.failed.errno)}")
            elif outcome is Outcome.DROP:
                self._drop_draft(file)
            elif outcome in (Outcome.PUBLISH, Outcome.SHOW_EMPTY):
                change = (
                    publish.apply_publish if outcome is Outcome.PUBLISH
                    else publish.apply_show_empty
                )  # fmt: skip
                restage = file.draft is not None and (file.sealed is None or file.dirty)
                try:
                    sealed = await self._seal_for_publication(file)
                except Exception as error:
                    await self._note_failure(file, error)
                    continue
                write = self._make_write(file, sealed, file.sid)
                works.append(partial(_run_change, change, write, restage))
                files.append(file)
        if not works:
            return
        results = await self.in_thread(self._vault.apply_all, works)
        for file, result in zip(files, results, strict=True):
            if isinstance(result, Failure):
                await self._note_failure(file, result.error)
            else:
                self._note_published(file, result)

    async def _seal_for_publication(self, file: OpenFile) -> Sealed:
        if file.draft is None:
            return _EMPTY
        if file.sealed is None or file.dirty:
            # Stored through a mapping after the only FLUSH: not durable before, but is now.
            return await self.in_thread(file.draft.seal, file.name or None)  # type: ignore[no-any-return]
        return file.sealed

    def _note_published(self, file: OpenFile, result: Version | int | None) -> None:
        """The index has it: the file shows what was written."""
        size = file.shown_size
        # The staging file belongs to the row now; an empty one to nobody.
        self._drop_draft(file, keep_file=isinstance(result, Version))
        file.version = result.id if isinstance(result, Version) else None
        file.size = size
        for handle in file.handles:
            handle.version = file.version
        self._note_cached(file.node, file.version)
        if isinstance(result, Version):
            _LOG.info("%s %s %s", result.scope, result.stamp, file.name.decode("utf-8", "replace"))

    async def _note_failure(self, file: OpenFile, error: BaseException) -> None:
        _LOG.error(
            "a version of %r could not be published: %s", file.name, error,
            exc_info=None if is_expected(error) else error,
        )  # fmt: skip
        await self._keep_partial(file, f"could not be published: {error}")

    async def _keep_partial(self, file: OpenFile, reason: str) -> None:
        """Keep the bytes outside history; the name keeps its last version, or vanishes."""
        draft = file.draft
        scope = ".".join(file.place.segments)
        if draft is not None and draft.size:
            keep = partial(self._vault.keep_partial, draft, reason, scope, file.name or None)
            try:
                path = await self.in_thread(keep)
            except OSError as error:
                # A row that is durable stays: the next open publishes it.
                stays = file.sid is not None
                _LOG.error(
                    "%s %r: the bytes could not be kept in partial/%s: %s", scope, file.name,
                    ", but stay in the journal" if stays else "", error,
                )  # fmt: skip
                self._drop_draft(file, keep_file=stays)
                file.sid = None
                self._note_cached(file.node, -1)
                return
            else:
                _LOG.warning("%s %r: kept in %s: %s", scope, file.name, path, reason)
        self._drop_draft(file)
        if file.sid is not None:
            write = self._make_write(file, _EMPTY, file.sid)
            try:
                await self.in_thread(self._vault.apply, publish.drop_staged, write)
            except Exception as error:
                _LOG.error("a staged row could not be dropped: %s", error)
            file.sid = None
        self._note_cached(file.node, -1)

    def _drop_draft(self, file: OpenFile, *, keep_file: bool = False) -> None:
        # Nothing is closed here: a read under way in a thread may still hold it.
        if file.draft is not None:
            if not keep_file:
                file.draft.discard()
            file.draft = None
        file.reader = None
        file.dirty = False
        file.failed = None
        file.sealed = None
        file.state = None

    def _end_publication(self, file: OpenFile) -> None:
        self._mark_recorded(file)
        if file.draft is not None:
            # Something unforeseen: nothing is lost, the staged row is published at the next open.
            self._drop_draft(file, keep_file=True)
        else:
            file.sid = None
        event, file.publishing = file.publishing, None
        if event is not None:
            event.set()
        if not file.handles:
            self._forget(file)

    def _mark_recorded(self, file: OpenFile) -> None:
        if not file.unrecorded:
            return
        file.unrecorded = False
        names = self._by_name.get(file.parent)
        if names is not None and names.get(file.name) is file:
            del names[file.name]
            if not names:
                del self._by_name[file.parent]

    def _forget(self, file: OpenFile) -> None:
        file.reader = None
        if self._by_node.get(file.node) is file and file.publishing is None:
            del self._by_node[file.node]

    def _note_cached(self, node: int, version: int | None) -> None:
        self._cached[node] = version
        self._cached.move_to_end(node)
        if len(self._cached) > _KNOWN_CACHES:
            self._cached.popitem(last=False)


def _raise_failed(file: OpenFile) -> None:
    """Answer the errno of a write that failed and was not repeated, if there is one."""
    if file.failed is not None:
        raise OSError(file.failed.errno, os.strerror(file.failed.errno))


def _run_change(
    change: Any, write: Write, restage: bool, transaction: Transaction
) -> Version | int | None:
    if restage:
        write.sid = publish.apply_stage(transaction, write, StagedState.CLOSED)
    result: Version | int | None = change(transaction, write)
    return result


_EMPTY = Sealed(0, b"", Kind.INLINE, "", None, None)
