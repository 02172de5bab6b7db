"""Names on the way in: who bears which one, when files of another vault come to this one.

Within a transaction. A name is taken from another file only if that shows something older, or if it
was given to it for a while by the same import.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import apsw

from scopefs.errors import InvalidName, NotADirectory, NotFound
from scopefs.model.envelope import encode_name
from scopefs.model.naming import NodeKind, check_file_place
from scopefs.store import changes, index, tree
from scopefs.store.journal import Transaction
from scopefs.store.publish import drop_scratch
from scopefs.store.rows import end_name, insert_name, load_entry, show
from scopefs.store.sql import fetch
from scopefs.store.tree import Entry


@dataclass(slots=True, eq=False)
class SourceFile:
    """What a source says about one of its files. Names are within the scope, folders included."""

    names: tuple[bytes, ...]
    """Those that it bears now; none if it was removed."""
    mode: int
    mtime_ns: int
    is_empty: bool = False
    """Whether its names show zero bytes, its versions notwithstanding."""
    versions: dict[int, bytes] = field(default_factory=dict)
    """collectedAt in microseconds, and SHA-256 of the payload, of each."""
    node: int | None = None
    """The file that it is in this vault, once that is known."""

    @property
    def newest_us(self) -> int:
        return max(self.versions, default=0)


Claimed = dict[int, SourceFile]
"""Nodes of this vault that are files of the source."""


@dataclass(frozen=True, slots=True)
class Names:
    """Giving names to a file on behalf of a version, with what decides who may have one."""

    scope_node: int
    collected_us: int
    claimed: Claimed
    is_passing: bool = False
    """Whether the file is to have the name only for a while: then nobody gives way to it."""

    def give(
        self, transaction: Transaction, node: int, wanted: Sequence[bytes], *, only: bool
    ) -> None:
        """Let a file bear names, as far as they are free or show something older.

        `only`: and no others, if it gets one of them.
        """
        db = transaction.db
        has = {
            tree.path_within_scope(db, parent, name): (row, parent, name)
            for row, parent, name in tree.find_live_names(db, node)
        }
        surplus = [entry for path, entry in has.items() if path not in wanted] if only else []
        bears_one = any(path in has for path in wanted)
        for path in wanted:
            located = None if path in has else locate(transaction, self.scope_node, path)
            if located is None or not self._make_free(transaction, node, path, *located):
                continue
            # History follows a file from the name that it had before.
            came_from = surplus[0][0] if surplus else None
            _link(transaction, self.scope_node, node, *located, came_from)
            bears_one = True
        if bears_one:
            for row, parent, name in surplus:
                unlink(transaction, self.scope_node, node, row, parent, name)

    def find_free(
        self, transaction: Transaction, node: int, wanted: Sequence[bytes]
    ) -> tuple[int, bytes] | None:
        """Directory and name of the first that a file may have; the name is free then."""
        for path in wanted:
            located = locate(transaction, self.scope_node, path)
            if located is not None and self._make_free(transaction, node, path, *located):
                return located
        return None

    def _make_free(
        self, transaction: Transaction, node: int, path: bytes, parent: int, name: bytes
    ) -> bool:
        """End another file's hold on a name, if that may be; True if the name is free then."""
        db = transaction.db
        holder = tree.find_child(db, parent, name)
        if holder is None:
            return True
        if holder.kind is not NodeKind.FILE or holder.node == node:
            return False
        source = self.claimed.get(holder.node)
        if source is not None:
            # Given for the while, because an envelope says so; or for good.
            may_be_ended = path not in source.names
        else:
            may_be_ended = not self.is_passing and find_shown_us(db, holder) < self.collected_us
        if may_be_ended:
            row = tree.load_name_id(db, parent, name)
            unlink(transaction, self.scope_node, holder.node, row, parent, name)
            if holder.links == 1:
                drop_scratch(transaction, holder.node)
        return may_be_ended


def locate(
    transaction: Transaction, scope_node: int, path: bytes, *, folder: bool = False
) -> tuple[int, bytes] | None:
    """Directory and last component of a name, folders being made; None if that cannot be."""
    *folders, base = path.split(b"/")
    node = scope_node
    try:
        for name in folders:
            node = changes.ensure_directory(transaction, node, name)
        place = tree.find_place(transaction.db, node)
        if place is None:
            return None
        if not folder:
            check_file_place(place, base)
    except (NotADirectory, NotFound, InvalidName):
        return None
    return node, base


def find_shown_us(db: apsw.Connection, entry: Entry) -> int:
    """How new it is what a file shows: its version's time; for any other bytes, the mtime."""
    if entry.version is not None:
        version = index.find_by_id(db, entry.version)
        if version is not None:
            return version.collected_us
    return entry.mtime_ns // 1000


def _link(
    transaction: Transaction, scope_node: int, node: int, parent: int, name: bytes,
    came_from: int | None,
) -> None:  # fmt: skip
    seq = transaction.next_seq
    db = transaction.db
    entry = load_entry(db, node)
    insert_name(transaction, parent, name, node, seq, came_from=came_from)
    show(transaction, node, seq, entry.version, entry.mode, entry.mtime_ns)
    members = {"node": node, "parent": parent, **encode_name(name)}
    if came_from is not None:
        was = fetch(db, "SELECT parent, name FROM names WHERE id = ?", (came_from,))[0]
        members |= {"fromParent": was[0], **encode_name(was[1], "from")}
    transaction.record_event("link", scope_node, members)


def unlink(
    transaction: Transaction, scope_node: int, node: int, row: int, parent: int, name: bytes
) -> None:
    """End one name of a file, with its event."""
    end_name(transaction, row, parent, transaction.next_seq)
    transaction.record_event(
        "unlink", scope_node, {"node": node, "parent": parent, **encode_name(name)}
    )
