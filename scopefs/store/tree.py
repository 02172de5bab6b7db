"""The tree that the mount shows, read from the index: names, nodes and what they show now.

Every call is one or two point reads or one keyset page, however large the vault is. Whoever asks
for page after page, or goes up to the root, comes to an end: a page that does not go on, and
directories in a circle, raise `IndexBroken`, as do rows that are no names.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import apsw

from scopefs.errors import IndexBroken, InvalidScope
from scopefs.model.naming import ROOT_PLACE, NodeKind, Place
from scopefs.model.scope import parse_scope
from scopefs.store.sql import fetch

ROOT_NODE = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A node and what it shows now. Times in nanoseconds, sizes in bytes."""

    node: int
    kind: NodeKind
    scope_node: int | None
    mode: int
    mtime_ns: int
    ctime_ns: int
    size: int
    version: int | None
    target: bytes | None
    links: int
    is_scratch: bool
    """Whether what it shows are the bytes of a scratch file."""
    generation: int
    """Which life of the inode number it is: a scope's directory comes back with its old one."""


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A live name in a directory, with its node. `slot` is its place in every listing."""

    slot: int
    name: bytes
    entry: Entry


@dataclass(frozen=True, slots=True)
class PastName:
    """A name that stands or stood in directories, and a slot that it has in one of them."""

    slot: int
    name: bytes


class Room(NamedTuple):
    """A name in a directory, before something is made there."""

    is_reachable: bool
    """Whether the directory has a name itself."""
    slot: int | None
    """The place in listings that the name has, or has had."""
    taken: tuple[int, NodeKind] | None
    """The node that the name leads to now, and its kind."""


_ENTRY = (
    "k.id, k.kind, k.scope, s.mode, s.mtime_ns,"
    " COALESCE((SELECT e.at_us FROM events e WHERE e.seq = s.from_seq), 0) * 1000,"
    " COALESCE(d.payload_size, c.size, LENGTH(s.target), 0), s.version, s.target,"
    " (SELECT COUNT(*) FROM names l WHERE l.node = k.id AND l.until_seq IS NULL),"
    " c.node IS NOT NULL,"
    " CASE WHEN k.kind = 2 THEN (SELECT MAX(g.id) FROM names g WHERE g.node = k.id) ELSE 0 END"
)
_SHOWN = (
    " JOIN shown s ON s.node = k.id AND s.from_seq ="
    " (SELECT MAX(from_seq) FROM shown WHERE node = k.id)"
    " LEFT JOIN data_files d ON d.id = s.version"
    " LEFT JOIN scratch c ON c.node = k.id AND s.version IS NULL"
)
_CHAIN = (
    "  UNION SELECT o.id, o.node, o.from_seq, o.until_seq"
    "  FROM chain c JOIN names n ON n.id = c.id JOIN names o ON o.id = n.came_from"
    "  UNION SELECT o.id, o.node, o.from_seq, o.until_seq"
    "  FROM chain c JOIN names n ON n.id = c.id JOIN names o"
    "   ON o.parent = n.parent AND o.name = n.name AND o.until_seq = n.from_seq)"
)
_HISTORY = (
    "WITH RECURSIVE chain(id, node, from_seq, until_seq) AS ("
    "  SELECT id, node, from_seq, until_seq FROM names"
    f"   WHERE parent IN (SELECT value FROM json_each(?1)) AND name = ?2 {_CHAIN}"
)
_HISTORY_VERSIONS = (
    # CROSS JOIN keeps the order: SQLite would begin with all versions, which are in order already.
    "FROM chain c CROSS JOIN shown s ON s.node = c.node AND s.version IS NOT NULL"
    "  AND s.from_seq >= c.from_seq AND (c.until_seq IS NULL OR s.from_seq < c.until_seq)"
    " CROSS JOIN data_files d ON d.id = s.version WHERE d.deleted_seq IS NULL"
)
_HAS_HISTORY = (
    f"(k.kind = {int(NodeKind.FOLDER)} OR EXISTS("
    "  WITH RECURSIVE chain(id, node, from_seq, until_seq) AS ("
    f"   SELECT n.id, n.node, n.from_seq, n.until_seq {_CHAIN}"
    f"  SELECT 1 {_HISTORY_VERSIONS}))"
)
_NEWEST_NAME = (
    # At most one entry of a name lives, and then it is the newest.
    "(SELECT id FROM names WHERE parent = ?1 AND name = ?2 ORDER BY from_seq DESC LIMIT 1)"
)


def find_node(db: apsw.Connection, node: int) -> Entry | None:
    """What a node shows now, whether or not a name still leads to it."""
    rows = fetch(db, f"SELECT {_ENTRY} FROM nodes k {_SHOWN} WHERE k.id = ?", (node,))
    return _to_entry(rows[0]) if rows else None


def find_shown(db: apsw.Connection, node: int) -> tuple[int, int] | None:
    """Permission bits and mtime (ns) of a node."""
    rows = fetch(
        db,
        "SELECT mode, mtime_ns FROM shown WHERE node = ? ORDER BY from_seq DESC LIMIT 1",
        (node,),
    )
    return (rows[0][0], rows[0][1]) if rows else None


def find_child(db: apsw.Connection, parent: int, name: bytes) -> Entry | None:
    """The entry that `name` leads to in the directory `parent` now."""
    rows = fetch(
        db,
        f"SELECT {_ENTRY} FROM names n JOIN nodes k ON k.id = n.node {_SHOWN}"
        f" WHERE n.id = {_NEWEST_NAME} AND n.until_seq IS NULL",
        (parent, name),
    )
    return _to_entry(rows[0]) if rows else None


def find_link(db: apsw.Connection, parent: int, name: bytes) -> tuple[int, NodeKind] | None:
    """Node and kind of what a name leads to now: all that most changes ask, at a tenth the cost."""
    rows = fetch(
        db,
        "SELECT n.node, k.kind FROM names n JOIN nodes k ON k.id = n.node"
        f" WHERE n.id = {_NEWEST_NAME} AND n.until_seq IS NULL",
        (parent, name),
    )
    return (rows[0][0], NodeKind(rows[0][1])) if rows else None


def load_name_id(db: apsw.Connection, parent: int, name: bytes) -> int:
    """The id of the live entry of a name that is known to be there."""
    return int(fetch(db, f"SELECT {_NEWEST_NAME}", (parent, name))[0][0])


def list_children(
    db: apsw.Connection, parent: int, after_slot: int, limit: int
) -> list[DirectoryEntry]:
    """A page of a directory's live names, by slot."""
    rows = fetch(
        db,
        f"SELECT n.slot, n.name, {_ENTRY} FROM names n JOIN nodes k ON k.id = n.node {_SHOWN}"
        " WHERE n.parent = ? AND n.until_seq IS NULL AND n.slot > ? ORDER BY n.slot LIMIT ?",
        (parent, after_slot, limit),
    )
    _check_progress((row[0] for row in rows), after_slot)
    return [DirectoryEntry(row[0], _to_name(row[1]), _to_entry(row[2:])) for row in rows]


def find_room(db: apsw.Connection, parent: int, name: bytes) -> Room:
    """What a change has to know of a place where it wants to make a name."""
    row = fetch(
        db,
        "SELECT EXISTS(SELECT 1 FROM names WHERE node = ?1 AND until_seq IS NULL), n.slot,"
        " CASE WHEN n.until_seq IS NULL THEN n.node END, k.kind"
        " FROM (SELECT 1) LEFT JOIN names n"
        f"  ON n.id = {_NEWEST_NAME} LEFT JOIN nodes k ON k.id = n.node",
        (parent, name),
    )[0]
    taken = (row[2], NodeKind(row[3])) if row[2] is not None else None
    return Room(parent == ROOT_NODE or bool(row[0]), row[1], taken)


def has_children(db: apsw.Connection, parent: int) -> bool:
    """Whether a directory has a live name."""
    return bool(
        fetch(db, "SELECT 1 FROM names WHERE parent = ? AND until_seq IS NULL LIMIT 1", (parent,))
    )


def find_slot(db: apsw.Connection, parent: int, name: bytes) -> int | None:
    """The slot of a name that a directory has, or has had."""
    rows = fetch(db, "SELECT slot FROM names WHERE parent = ? AND name = ? LIMIT 1", (parent, name))
    return rows[0][0] if rows else None


def list_past_names(
    db: apsw.Connection, parents: Collection[int], after_name: bytes, limit: int
) -> list[PastName]:
    """A page of the names that have a history in directories, each once, by name.

    Those are folders, and files that had a version while they bore the name.
    """
    rows = fetch(
        db,
        "SELECT MIN(n.slot), n.name FROM names n JOIN nodes k ON k.id = n.node"
        " WHERE n.parent IN (SELECT value FROM json_each(?)) AND n.name > ?"
        f" AND {_HAS_HISTORY} GROUP BY n.name ORDER BY n.name LIMIT ?",
        (_json(parents), after_name, limit),
    )
    _check_progress((_to_name(row[1]) for row in rows), after_name)
    return [PastName(*row) for row in rows]


def find_past_name(db: apsw.Connection, parents: Collection[int], name: bytes) -> PastName | None:
    """A name of `list_past_names`."""
    rows = fetch(
        db,
        "SELECT MIN(n.slot), n.name FROM names n JOIN nodes k ON k.id = n.node"
        " WHERE n.parent IN (SELECT value FROM json_each(?)) AND n.name = ?"
        f" AND {_HAS_HISTORY} GROUP BY n.name",
        (_json(parents), name),
    )
    return PastName(*rows[0]) if rows else None


def list_past_folders(db: apsw.Connection, parents: Collection[int], name: bytes) -> list[int]:
    """The folders that a name led to, in any of the directories."""
    rows = fetch(
        db,
        "SELECT DISTINCT n.node FROM names n JOIN nodes k ON k.id = n.node"
        " WHERE n.parent IN (SELECT value FROM json_each(?)) AND n.name = ? AND k.kind = ?",
        (_json(parents), name, int(NodeKind.FOLDER)),
    )
    return [row[0] for row in rows]


def find_name_of_slot(db: apsw.Connection, parents: Collection[int], slot: int) -> bytes:
    """The name that has a slot in directories; empty if none has. Reads all their names."""
    rows = fetch(
        db,
        "SELECT name FROM names WHERE parent IN (SELECT value FROM json_each(?)) AND slot = ?"
        " LIMIT 1",
        (_json(parents), slot),
    )
    return bytes(rows[0][0]) if rows else b""


def find_named(db: apsw.Connection, scope: str, name: bytes) -> Entry | None:
    """What a name of a scope is now, folders included in it; None for a folder too."""
    node = find_scope_node(db, scope)
    *folders, base = name.split(b"/")
    for folder in folders:
        found = None if node is None else find_child(db, node, folder)
        node = found.node if found is not None and found.kind is NodeKind.FOLDER else None
    entry = None if node is None else find_child(db, node, base)
    return None if entry is None or entry.kind.is_directory else entry


def find_scratch_facts(db: apsw.Connection, node: int) -> tuple[bytes, str]:
    """SHA-256 and media type of a scratch file's bytes."""
    rows = fetch(db, "SELECT sha256, media_type FROM scratch WHERE node = ?", (node,))
    return rows[0] if rows else (b"", "application/octet-stream")


def find_live_names(db: apsw.Connection, node: int) -> list[tuple[int, int, bytes]]:
    """The live entries that lead to a node: `(id, parent, name)`, oldest first."""
    return [
        (row[0], row[1], _to_name(row[2]))
        for row in fetch(
            db,
            "SELECT id, parent, name FROM names WHERE node = ? AND until_seq IS NULL ORDER BY id",
            (node,),
        )
    ]


def find_place(db: apsw.Connection, node: int) -> Place | None:
    """The place that a directory's node is; None if it is no directory."""
    if node == ROOT_NODE:
        return ROOT_PLACE
    rows = fetch(db, "SELECT kind, scope FROM nodes WHERE id = ?", (node,))
    if not rows or not NodeKind(rows[0][0]).is_directory:
        return None
    kind = NodeKind(rows[0][0])
    if kind is NodeKind.SOURCE:
        # A source never gets another name, but may have been removed.
        names = fetch(db, "SELECT name FROM names WHERE node = ? LIMIT 1", (node,))
        return Place(kind, (_to_name(names[0][0]).decode("ascii", "replace"),)) if names else None
    text = scope_text(db, rows[0][1])
    try:
        return Place(kind, parse_scope(text).segments)
    except InvalidScope as error:
        raise IndexBroken(f"index.db names a scope that is none: {error}") from error


def scope_text(db: apsw.Connection, scope_node: int) -> str:
    """The text of a scope, by the node of its directory."""
    rows = fetch(db, "SELECT scope FROM scopes WHERE node = ?", (scope_node,))
    if not rows:
        raise IndexBroken(f"index.db names a scope that is not there: node {scope_node!r}")
    return str(rows[0][0])


def find_scope_node(db: apsw.Connection, scope: str) -> int | None:
    """The node of a scope's directory, live or removed; None for a scope that never was."""
    rows = fetch(db, "SELECT node FROM scopes WHERE scope = ?", (scope,))
    return int(rows[0][0]) if rows else None


def find_live_scope(db: apsw.Connection, scope: str) -> int | None:
    """The node of a scope's directory that is there now."""
    rows = fetch(
        db,
        "SELECT s.node FROM scopes s JOIN names n ON n.node = s.node AND n.until_seq IS NULL"
        " WHERE s.scope = ?",
        (scope,),
    )
    return int(rows[0][0]) if rows else None


def is_reachable(db: apsw.Connection, node: int) -> bool:
    """Whether a directory still has a name (the root always does)."""
    return node == ROOT_NODE or bool(find_live_names(db, node))


def path_within_scope(db: apsw.Connection, parent: int, name: bytes) -> bytes:
    """The name of a file within its scope, folders included: `My Photos/2024/a.jpg`."""
    parts = [name]
    node = parent
    seen: set[int] = set()
    while True:
        _check_new(node, seen)
        rows = fetch(
            db,
            "SELECT k.kind, n.parent, n.name FROM nodes k LEFT JOIN names n"
            " ON n.node = k.id AND n.until_seq IS NULL WHERE k.id = ?",
            (node,),
        )
        if not rows or rows[0][0] != NodeKind.FOLDER or rows[0][1] is None:
            return b"/".join(reversed(parts))
        node = rows[0][1]
        parts.append(_to_name(rows[0][2]))


def find_path(db: apsw.Connection, node: int) -> bytes:
    """The path of a directory from the root of the mount, for messages: `instagram/profile`."""
    parts: list[bytes] = []
    seen: set[int] = set()
    while node != ROOT_NODE:
        _check_new(node, seen)
        names = find_live_names(db, node)
        if not names:
            parts.append(b"(removed)")
            break
        node = names[0][1]
        parts.append(names[0][2])
    return b"/".join(reversed(parts))


def list_history(
    db: apsw.Connection, parents: Collection[int], name: bytes, after_us: int, limit: int
) -> list[tuple[int, int]]:
    """A page of a name's history: `(version id, collected_us)`, oldest first.

    The versions of the files that bore the name, while they bore it; and, where a rename brought
    the file, what it was before, and what it replaced there.
    """
    rows = fetch(
        db,
        f"{_HISTORY} SELECT DISTINCT d.id, d.collected_us {_HISTORY_VERSIONS}"
        " AND d.collected_us > ?3 ORDER BY d.collected_us LIMIT ?4",
        (_json(parents), name, after_us, limit),
    )
    _check_progress((row[1] for row in rows), after_us)
    return [(row[0], row[1]) for row in rows]


def find_newest_in_history(
    db: apsw.Connection, parents: Collection[int], name: bytes
) -> tuple[int, int] | None:
    """The newest version in a name's history: `(version id, collected_us)`."""
    rows = fetch(
        db,
        f"{_HISTORY} SELECT d.id, d.collected_us {_HISTORY_VERSIONS}"
        " ORDER BY d.collected_us DESC LIMIT 1",
        (_json(parents), name),
    )
    return (rows[0][0], rows[0][1]) if rows else None


def _json(numbers: Collection[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _check_progress(found: Iterable[Any], after: Any) -> None:
    """Refuse a page whose rows do not all come after the page before it."""
    for key in found:
        if type(key) is not type(after) or not key > after:
            raise IndexBroken(f"index.db is out of order: {key!r} is found behind {after!r}")


def _check_new(node: int, seen: set[int]) -> None:
    if node in seen:
        raise IndexBroken(f"index.db has directory {node!r} above itself")
    seen.add(node)


def _to_name(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise IndexBroken(f"index.db has a name that is none: {value!r}")
    return value


def _to_entry(row: tuple[Any, ...]) -> Entry:
    return Entry(row[0], NodeKind(row[1]), *row[2:])
