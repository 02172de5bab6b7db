"""What is open, being written, or not yet in the index: the mount's only state.

An `OpenFile` stands for one inode from its first open (or CREATE) until its last handle is released
and whatever was written is recorded. A file that is `unrecorded` has its name here and nowhere
else; whatever changes names records it first, so that the index alone decides about names.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from scopefs.model.naming import Place
from scopefs.model.sessions import FailedWrite
from scopefs.mount.locks import Lock
from scopefs.mount.writers import Writer
from scopefs.store.drafts import Draft
from scopefs.store.publish import Sealed, StagedState
from scopefs.store.readers import PayloadReader
from scopefs.store.tree import Entry

_KNOWN_MAX = 65_536

T = TypeVar("T")


class Newest(OrderedDict[int, T]):
    """What is known of the nodes it was noted for last; the rest is forgotten."""

    def note(self, node: int, known: T) -> None:
        """Note what is known of a node from now on."""
        self[node] = known
        self.move_to_end(node)
        if len(self) > _KNOWN_MAX:
            self.popitem(last=False)


@dataclass(eq=False)
class OpenFile:
    """One inode that is open, or whose last write is not recorded yet."""

    node: int
    scope_node: int
    place: Place
    mode: int
    mtime_ns: int
    changed_ns: int = 0
    """When a session or attributes of it were last changed: its ctime."""
    version: int | None = None
    """What the file shows, or showed before its session: as of its last open or publication."""
    is_scratch: bool = False
    """Whether it shows the bytes of a scratch file instead."""
    size: int = 0
    """Of what it shows."""
    parent: int = 0
    name: bytes = b""
    """Where it is to be made; or one of its names, as of its last session."""
    slot: int | None = None
    unrecorded: bool = False
    created_ns: int | None = None
    """When it was made, which is its directory's mtime; None once that was set otherwise."""
    unlinked: bool = False
    handles: "set[Handle]" = field(default_factory=set)
    writers: int = 0
    draft: Draft | None = None
    closed: bool = False
    """Whether one that wrote has flushed it since its last change."""
    dirty: bool = False
    """Whether the draft has changed since it was last made durable."""
    sid: int | None = None
    state: StagedState | None = None
    """How the staged row stands, if there is one."""
    sealed: Sealed | None = None
    failed: FailedWrite | None = None
    killed: bool = False
    """Whether the last FLUSH came from a process that a signal was ending."""
    append_only: bool = True
    """Whether all of the session's writes were appended."""
    written_by: list[Writer] = field(default_factory=list)
    """The processes behind the session's writes."""
    flushed_at: float = -1.0
    """When the last dirty FLUSH was answered, on trio's clock."""
    released: trio.Event = field(default_factory=trio.Event)
    """Set once the writer behind that FLUSH is released."""
    reader: PayloadReader | None = None
    turn: int = 0
    """Counts how often what it shows has changed: what was awaited meanwhile is stale."""
    publishing: trio.Event | None = None
    lock: Lock = field(default_factory=Lock)

    @property
    def is_closed(self) -> bool:
        """Whether all that was written is durable since a close, and waits for its RELEASE."""
        return self.draft is not None and self.closed and not self.is_doomed

    @property
    def is_doomed(self) -> bool:
        """Whether its session will make no version, as it stands now."""
        return self.killed or self.failed is not None

    @property
    def writer(self) -> Writer | None:
        """The process that wrote last, as far as it is known."""
        return self.written_by[-1] if self.written_by else None

    def check_failed(self) -> None:
        """Raise the errno of a write that failed and was not repeated, if there is one."""
        if self.failed is not None:
            raise OSError(self.failed.errno, os.strerror(self.failed.errno))

    def drop_draft(self, *, keep_file: bool = False) -> None:
        """End the session. Nothing is closed: a read under way in a thread may still hold it."""
        if self.draft is not None:
            if not keep_file:
                self.draft.discard()
            self.draft = None
        self.reader = None
        self.turn += 1
        self.closed = False
        self.dirty = False
        self.killed = False
        self.failed = None
        self.sealed = None
        self.state = None
        self.written_by = []

    def follow(self, entry: Entry) -> None:
        """Take over what another door has published meanwhile."""
        self.mode, self.mtime_ns = entry.mode, entry.mtime_ns
        if (self.version, self.is_scratch, self.size) != (
            entry.version, entry.is_scratch, entry.size,
        ):  # fmt: skip
            self.show(entry.version, entry.size, is_scratch=entry.is_scratch)

    def show(self, version: int | None, size: int, *, is_scratch: bool) -> None:
        """Set what it shows."""
        self.version, self.size, self.is_scratch = version, size, is_scratch
        self.reader = None
        self.turn += 1

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
    writer: Writer | None = None
    """The process that opened it."""
    wrote: bool = False
    refused: FailedWrite | None = None
    """A write that failed before the handle had a part in a session."""

    def end_session(self) -> None:
        """What it writes from here on belongs to another session."""
        if self.wrote:
            self.wrote = False
            self.refused = None

    @property
    def is_writable(self) -> bool:
        """Whether it was opened for writing."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def is_appending(self) -> bool:
        """Whether each write goes to the end."""
        return bool(self.flags & os.O_APPEND)


class OpenFiles:
    """All open files of one mount, by inode number, and by name while the index lacks it."""

    def __init__(self) -> None:
        self._by_node: dict[int, OpenFile] = {}
        self._by_name: dict[int, dict[bytes, OpenFile]] = {}
        self._cached: Newest[int | None] = Newest()
        self._changed: Newest[tuple[int | None, int]] = Newest()

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

    def find_newest(self, parent: int) -> int | None:
        """When the newest of them was made, in ns, unless the directory's time was set since."""
        names = self._by_name.get(parent)
        return next(reversed(names.values())).created_ns if names else None

    def __len__(self) -> int:
        return len(self._by_node)

    def __iter__(self) -> Iterator[OpenFile]:
        return iter(list(self._by_node.values()))

    def add_new(self, file: OpenFile) -> None:
        """Add a file that the index does not know yet."""
        self._by_node[file.node] = file
        self._by_name.setdefault(file.parent, {})[file.name] = file

    def open(self, entry: Entry, place: Place) -> OpenFile:
        """The open file of an entry that the index has; follows a newer version."""
        file = self._by_node.get(entry.node)
        if file is None:
            assert entry.scope_node is not None
            file = OpenFile(
                entry.node, entry.scope_node, place, entry.mode, entry.mtime_ns,
                version=entry.version, is_scratch=entry.is_scratch, size=entry.size,
            )  # fmt: skip
            self._by_node[entry.node] = file
        elif file.draft is None and not file.unrecorded and file.publishing is None:
            file.follow(entry)
        return file

    def add_handle(self, file: OpenFile, flags: int, writer: Writer | None = None) -> Handle:
        """Count a new handle."""
        handle = Handle(file, flags, file.version, writer)
        file.handles.add(handle)
        return handle

    def is_cached(self, file: OpenFile) -> bool:
        """Whether what the kernel has in its cache for this file is what the file shows.

        Notes that from now on it will be.
        """
        version = file.version
        known = self._cached.get(file.node, -1)
        self.note_cached(file.node, version)
        return file.draft is not None or (known == version and version is not None)

    def note_cached(self, node: int, version: int | None) -> None:
        """Note what the kernel's cache holds: a version, or -1 for nothing that is known."""
        self._cached.note(node, version)

    def note_published(self, file: OpenFile) -> None:
        """What a file shows is a version now, which the kernel has in its cache.

        Its ctime stays what it was: to tar(1) a file whose ctime moves has changed as it was read.
        """
        self.note_cached(file.node, file.version)
        self.note_recorded(file)

    def note_recorded(self, file: OpenFile) -> None:
        """The index has heard of what a file shows, which changes no attribute of it."""
        self._changed.note(file.node, (file.version, file.changed_ns))

    def find_changed(self, entry: Entry) -> int:
        """The ctime of an entry: of one that was published here not long ago, when it was written;
        else, when it was published.
        """
        version, changed_ns = self._changed.get(entry.node, (None, 0))
        return changed_ns if changed_ns and version == entry.version else entry.ctime_ns

    def note_attributes(self, node: int) -> None:
        """Attributes or names of a node were changed in the index, and with them its ctime."""
        self._changed.pop(node, None)
        file = self._by_node.get(node)
        if file is not None:
            file.changed_ns = time.time_ns()

    def note_unlinked(self, node: int) -> None:
        """The last name of a file was ended: what is not closed yet goes with it."""
        file = self._by_node.get(node)
        if file is not None:
            file.unlinked = True

    def mark_recorded(self, file: OpenFile) -> None:
        """The index decides about the file's name from now on."""
        if not file.unrecorded:
            return
        file.unrecorded = False
        names = self._by_name.get(file.parent)
        if names is not None and names.get(file.name) is file:
            del names[file.name]
            if not names:
                del self._by_name[file.parent]

    def forget(self, file: OpenFile) -> None:
        """Drop a file that nobody has open, unless it is being published."""
        file.reader = None
        if self._by_node.get(file.node) is file and file.publishing is None:
            del self._by_node[file.node]
