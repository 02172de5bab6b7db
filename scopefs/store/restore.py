"""The way back out of the trash: an entry comes back as a whole, or not at all.

Versions come back to their scope, names to their directories, which are made again where they are
gone. A name that another file has taken meanwhile is left to that one, and reported.
"""

from dataclasses import dataclass, field
from typing import Any

import apsw

from scopefs.errors import Conflict
from scopefs.model.envelope import encode_name
from scopefs.model.naming import NodeKind
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import format_stamp
from scopefs.store import index, tree
from scopefs.store.changes import DIRECTORY_MODE, apply_mkdir
from scopefs.store.journal import Transaction
from scopefs.store.rows import end_name, insert_name, load_entry, show, touch_directory
from scopefs.store.sql import fetch
from scopefs.store.trash import TrashEntry, destroy_versions, load_trash_entry, queue_moves
from scopefs.store.tree import Entry

_ENDED = (
    "WITH RECURSIVE inside(node, depth) AS (VALUES(?1, 0) UNION SELECT n.node, i.depth + 1"
    "  FROM inside i JOIN names n ON n.parent = i.node AND n.until_seq = ?2"
    "  JOIN nodes k ON k.id = n.node WHERE k.kind = 3),"
    " ended AS (SELECT n.id, n.parent, n.name, n.node, n.slot, i.depth FROM inside i"
    "  JOIN names n ON n.parent = i.node AND n.until_seq = ?2"
    "  JOIN nodes k ON k.id = n.node WHERE k.kind != 2)"
)
"""The names that went with the scope ?1 in the event ?2, those of its folders included."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back with an entry, and what did not."""

    entry: TrashEntry
    names: int
    left: tuple[bytes, ...]
    """Names within the scope that others have by now; the versions are back all the same."""


@dataclass(frozen=True, slots=True)
class _EndedName:
    row: int
    parent: int
    name: bytes
    node: int


@dataclass(slots=True)
class _Names:
    """The names of one restore, as they come back under the number of its event."""

    transaction: Transaction
    seq: int
    back: list[dict[str, Any]] = field(default_factory=list)
    left: list[bytes] = field(default_factory=list)
    _reached: dict[int, int | None] = field(default_factory=dict)

    def reach(self, directory: int) -> int | None:
        """The directory that stands where an ended one stood; None if something else does."""
        if directory not in self._reached:
            self._reached[directory] = self._find_or_bring_back(directory)
        return self._reached[directory]

    def _find_or_bring_back(self, directory: int) -> int | None:
        db = self.transaction.db
        if tree.is_reachable(db, directory):
            return directory
        place = tree.find_place(db, directory)
        if place is None or place.kind is not NodeKind.FOLDER:
            return None
        last = _EndedName(
            *fetch(
                db,
                "SELECT id, parent, name, node FROM names WHERE node = ?"
                " ORDER BY from_seq DESC LIMIT 1",
                (directory,),
            )[0]
        )
        parent = self.reach(last.parent)
        found = tree.find_child(db, parent, last.name) if parent is not None else None
        if parent is None:
            return None
        if found is None:
            self.bring_back(last, parent)
            return directory
        if found.kind is NodeKind.FOLDER:
            # Made again meanwhile: its contents come back into that one.
            return found.node
        self.left.append(path_of_past(db, last.parent, last.name))
        return None

    def bring_back(self, ended: _EndedName, parent: int, came_from: int | None = None) -> None:
        """Let a name live again, in the same directory or in the one that stands in its place."""
        insert_name(
            self.transaction, parent, ended.name, ended.node, self.seq,
            came_from=ended.row if came_from is None else came_from,
        )  # fmt: skip
        self.back.append({"node": ended.node, "parent": parent, **encode_name(ended.name)})

    def leave(self, ended: _EndedName) -> None:
        """Note a name that somebody else has."""
        self.left.append(path_of_past(self.transaction.db, ended.parent, ended.name))


def apply_restore(transaction: Transaction, entry_id: int) -> Restored:
    """Bring an entry of the trash back to where it was.

    Raises `NotFound`, and `Conflict` if another version has the time of one of its own by now; then
    nothing is changed. One that is the same in all counts as restored.
    """
    db = transaction.db
    entry = load_trash_entry(db, entry_id)
    same = _find_same(db, entry)
    first = fetch(db, "SELECT id FROM data_files WHERE deleted_seq = ? LIMIT 1", (entry_id,))
    for removed, live in same:
        let_stand_for(transaction, removed, live)
    _restore_versions(transaction, entry)
    members: dict[str, Any] = {
        "entry": entry.id, "scope": entry.scope, "versions": entry.versions,
    }  # fmt: skip
    if same:
        members["same"] = [list(pair) for pair in same]
    if entry.what == "scope":
        names, left = _restore_scope_names(transaction, entry, members)
    else:
        version_id = same[0][1] if same else first[0][0]
        names, left = _restore_file(transaction, entry, version_id, members)
    transaction.record_event("restore", entry.scope_node, members)
    return Restored(entry, names, tuple(left))


def path_of_past(db: apsw.Connection, parent: int, name: bytes) -> bytes:
    """The name of a file within its scope, as it was when its folders ended, if they have."""
    parts = [name]
    while True:
        rows = fetch(
            db,
            "SELECT n.parent, n.name FROM nodes k JOIN names n ON n.node = k.id"
            " WHERE k.id = ? AND k.kind = ? ORDER BY n.from_seq DESC LIMIT 1",
            (parent, int(NodeKind.FOLDER)),
        )
        if not rows:
            return b"/".join(reversed(parts))
        parent = rows[0][0]
        parts.append(rows[0][1])


def _find_same(db: apsw.Connection, entry: TrashEntry) -> list[tuple[int, int]]:
    """Versions whose time a version with the same envelope has by now: `(removed, live)` ids."""
    found = []
    for removed, live, collected_us, is_same in fetch(
        db,
        "SELECT d.id, o.id, d.collected_us, d.kind = o.kind AND d.name IS o.name"
        "  AND d.mtime_ns IS o.mtime_ns AND d.payload_sha256 = o.payload_sha256"
        "  AND d.payload_size = o.payload_size AND d.media_type IS o.media_type"
        "  AND d.metadata IS o.metadata"
        " FROM data_files d JOIN data_files o ON o.scope = d.scope"
        "  AND o.collected_us = d.collected_us AND o.deleted_seq IS NULL"
        " WHERE d.deleted_seq = ?",
        (entry.id,),
    ):
        if not is_same:
            raise Conflict(
                f"{entry.scope} has another version {format_stamp(collected_us)} by now: nothing "
                f"was restored; remove that one first (scopefs rm {entry.scope} "
                f"{format_stamp(collected_us)})"
            )
        found.append((removed, live))
    return found


def let_stand_for(transaction: Transaction, removed: int, live: int) -> None:
    """Let a version that is there already stand for the removed one that is the same."""
    db = transaction.db
    node = fetch(db, "SELECT node FROM data_files WHERE id = ?", (removed,))[0][0]
    if node is not None:
        db.execute(
            "UPDATE shown SET version = ? WHERE node = ? AND version = ?", (live, node, removed)
        )
        db.execute("UPDATE data_files SET node = ? WHERE id = ? AND node IS NULL", (node, live))
    destroy_versions(db, "id = ?", removed)


def _restore_versions(transaction: Transaction, entry: TrashEntry) -> None:
    db = transaction.db
    count, size = fetch(
        db,
        "SELECT COUNT(*), COALESCE(SUM(payload_size), 0) FROM data_files WHERE deleted_seq = ?",
        (entry.id,),
    )[0]
    path = "'data' || substr(path, length('trash/' || ?1) + 1)"
    queue_moves(db, entry.id, "path", path)
    db.execute(
        f"UPDATE data_files SET deleted_seq = NULL, path = {path} WHERE deleted_seq = ?1",
        (entry.id,),
    )
    db.execute(
        "UPDATE scopes SET versions = versions + ?, bytes = bytes + ? WHERE node = ?",
        (count, size, entry.scope_node),
    )


def _bring_back_scope(transaction: Transaction, scope: str) -> bytes | None:
    """Make a scope's directory again, and those above it; the name that is taken, if one is."""
    db = transaction.db
    segments = parse_scope(scope).segments
    node = tree.ROOT_NODE
    for count, segment in enumerate(segments, start=1):
        name = segment.encode("ascii")
        found = tree.find_child(db, node, name)
        if found is None:
            known = tree.find_scope_node(db, ".".join(segments[:count])) if count > 1 else None
            mode = load_entry(db, known).mode if known is not None else DIRECTORY_MODE
            node = apply_mkdir(transaction, node, name, mode)
        elif found.kind.is_directory:
            node = found.node
        else:
            return name
    return None


def _restore_scope_names(
    transaction: Transaction, entry: TrashEntry, members: dict[str, Any]
) -> tuple[int, list[bytes]]:
    db = transaction.db
    scope = entry.scope_node
    had_directory = fetch(
        db, "SELECT 1 FROM names WHERE node = ? AND until_seq = ?", (scope, entry.id)
    )
    count, taken = fetch(
        db,
        f"{_ENDED} SELECT COUNT(*), COALESCE(SUM(EXISTS (SELECT 1 FROM names l"
        "  WHERE l.parent = e.parent AND l.name = e.name AND l.until_seq IS NULL)), 0)"
        " FROM ended e",
        (scope, entry.id),
    )[0]
    if had_directory or count:
        standing = _bring_back_scope(transaction, entry.scope)
        if standing is not None:
            members["back"] = []
            return 0, [standing]
    seq = transaction.next_seq
    show_what_is_there(transaction, scope, entry.id, seq)
    if not taken:
        bring_all_back(transaction, scope, entry.id, seq)
        return count, []
    names = _Names(transaction, seq)
    for *ended, kind in fetch(
        db,
        f"{_ENDED} SELECT e.id, e.parent, e.name, e.node, k.kind FROM ended e"
        " JOIN nodes k ON k.id = e.node ORDER BY e.depth, e.id",
        (scope, entry.id),
    ):
        name = _EndedName(*ended)
        if kind == NodeKind.FOLDER:
            names.reach(name.node)
            continue
        parent = names.reach(name.parent)
        if parent is None:
            continue
        found = tree.find_child(db, parent, name.name)
        if found is None:
            names.bring_back(name, parent)
        elif found.node != name.node:
            names.leave(name)
    members["back"] = names.back
    return len(names.back), names.left


def bring_all_back(transaction: Transaction, scope_node: int, entry_id: int, seq: int) -> None:
    """Let all names that ended with a scope live again, where they were."""
    db = transaction.db
    db.execute(
        f"{_ENDED} INSERT INTO names(parent, name, node, from_seq, came_from, slot)"
        " SELECT parent, name, node, ?3, id, slot FROM ended",
        (scope_node, entry_id, seq),
    )
    if db.changes():
        touch_directory(transaction, scope_node)


def show_what_is_there(transaction: Transaction, scope_node: int, entry_id: int, seq: int) -> None:
    """Let files whose names are about to come back show versions that are there.

    Who had one open may have written to it after its name had ended; and what came of that may
    have gone to the trash, or have been destroyed, since.
    """
    db = transaction.db
    for node, mode, shown_ns in fetch(
        db,
        f"{_ENDED} SELECT DISTINCT s.node, s.mode, s.mtime_ns FROM ended e"
        "  JOIN nodes k ON k.id = e.node AND k.kind = 4 JOIN shown s ON s.node = e.node"
        "   AND s.from_seq = (SELECT MAX(from_seq) FROM shown WHERE node = e.node)"
        "  LEFT JOIN data_files d ON d.id = s.version"
        " WHERE CASE WHEN s.version IS NULL THEN EXISTS (SELECT 1 FROM events"
        '   WHERE seq = s.from_seq AND detail LIKE \'"op":"delete"%\')'
        "  ELSE d.id IS NULL OR d.deleted_seq IS NOT NULL END",
        (scope_node, entry_id),
    ):
        newest = fetch(
            db,
            "SELECT s.version, s.mtime_ns FROM shown s JOIN data_files d ON d.id = s.version"
            " WHERE s.node = ? AND d.deleted_seq IS NULL"
            " ORDER BY d.collected_us DESC, s.from_seq DESC LIMIT 1",
            (node,),
        )
        version, mtime_ns = newest[0] if newest else (None, shown_ns)
        show(transaction, node, seq, version, mode, mtime_ns)


def _restore_file(
    transaction: Transaction, entry: TrashEntry, version_id: int, members: dict[str, Any]
) -> tuple[int, list[bytes]]:
    """Let the file that showed a version show it again, under the names that ended with it."""
    db = transaction.db
    members["version"] = version_id
    if entry.node is None:
        return 0, []
    ended = [_EndedName(*row) for row in fetch(
        db, "SELECT id, parent, name, node FROM names WHERE node = ? AND until_seq IN (?, ?)",
        # The name of a temporary file ends in the event before its version is withdrawn.
        (entry.node, entry.id, entry.id - (entry.what == "withdrawn")),
    )]  # fmt: skip
    if ended:
        standing = _bring_back_scope(transaction, entry.scope)
        if standing is not None:
            return 0, [standing]
    seq = transaction.next_seq
    version = index.find_by_id(db, version_id)
    assert version is not None
    now = load_entry(db, entry.node)
    if _is_older(db, now, version.collected_us) and not _was_emptied(db, entry):
        mode, mtime_ns = fetch(
            db,
            "SELECT mode, mtime_ns FROM shown WHERE node = ? AND version = ?"
            " ORDER BY from_seq DESC LIMIT 1",
            (entry.node, version_id),
        )[0]
        show(transaction, entry.node, seq, version_id, mode, mtime_ns)
        members |= {"node": entry.node, "shows": version_id}
    names = _Names(transaction, seq)
    for name in ended:
        parent = names.reach(name.parent)
        found = tree.find_child(db, parent, name.name) if parent is not None else None
        if parent is None:
            names.leave(name)
        elif found is None:
            names.bring_back(name, parent)
        elif found.node != entry.node:
            row = tree.load_name_id(db, parent, name.name)
            if (found.node, parent) in entry.back and _is_older(db, found, version.collected_us):
                # It was let go to what it had shown before, and so it goes back.
                end_name(transaction, row, parent, seq)
                names.bring_back(name, parent, came_from=row)
            else:
                names.leave(name)
    members["back"] = names.back
    return len(names.back), names.left


def _is_older(db: apsw.Connection, entry: Entry, collected_us: int) -> bool:
    """Whether a file shows something older than that, or nothing."""
    if entry.is_scratch:
        return False
    if entry.version is None:
        return True
    shown = index.find_by_id(db, entry.version)
    return shown is None or shown.deleted_seq is not None or shown.collected_us < collected_us


def _was_emptied(db: apsw.Connection, entry: TrashEntry) -> bool:
    """Whether somebody has emptied the file since, so that it shows nothing on purpose."""
    return bool(
        fetch(
            db,
            "SELECT 1 FROM shown s JOIN events e ON e.seq = s.from_seq"
            ' WHERE s.node = ? AND s.from_seq > ? AND e.detail LIKE \'"op":"empty"%\'',
            (entry.node, entry.id),
        )
    )
