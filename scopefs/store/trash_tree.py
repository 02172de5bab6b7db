"""What an entry of the trash took away, as the tree of names that it was. Reads only.

A scope's entry: all names that ended with it. A version's entry: the names that showed that version
until then. Every call is a few point reads or one keyset page.
"""

from dataclasses import dataclass

import apsw

from scopefs.model.naming import NodeKind
from scopefs.store.sql import fetch
from scopefs.store.trash import TrashEntry


@dataclass(frozen=True, slots=True)
class TrashedName:
    """A name as it was when its entry was made; `version` is what it showed."""

    slot: int
    name: bytes
    node: int
    kind: NodeKind
    mode: int
    mtime_ns: int
    version: int | None
    size: int
    target: bytes | None


_TRASHED = (
    "SELECT n.slot, n.name, k.id, k.kind, s.mode, s.mtime_ns, s.version,"
    " COALESCE(d.payload_size, c.size, LENGTH(s.target), 0), s.target"
    " FROM names n JOIN nodes k ON k.id = n.node"
    " JOIN shown s ON s.node = k.id AND s.from_seq ="
    "  (SELECT MAX(from_seq) FROM shown WHERE node = k.id AND from_seq < ?1)"
    " LEFT JOIN data_files d ON d.id = s.version"
    " LEFT JOIN scratch c ON c.node = k.id AND s.version IS NULL"
)
_AS_OF = "from_seq < ?1 AND (until_seq IS NULL OR until_seq >= ?1)"


def list_trashed_names(
    db: apsw.Connection, entry: TrashEntry, parent: int, after: bytes, limit: int
) -> list[TrashedName]:
    """A page of the names that ended in a directory with a scope's entry, by name."""
    rows = fetch(
        db,
        f"{_TRASHED} WHERE n.parent = ?2 AND n.until_seq = ?1 AND k.kind != ?3 AND n.name > ?4"
        " ORDER BY n.name LIMIT ?5",
        (entry.id, parent, int(NodeKind.SCOPE), after, limit),
    )
    return [_to_name(row) for row in rows]


def find_trashed_name(
    db: apsw.Connection, entry: TrashEntry, parent: int, name: bytes
) -> TrashedName | None:
    """One of these names."""
    rows = fetch(
        db,
        f"{_TRASHED} WHERE n.parent = ?2 AND n.name = ?3 AND n.until_seq = ?1 AND k.kind != ?4",
        (entry.id, parent, name, int(NodeKind.SCOPE)),
    )
    return _to_name(rows[0]) if rows else None


def list_trashed_paths(
    db: apsw.Connection, entry: TrashEntry
) -> dict[tuple[bytes, ...], TrashedName]:
    """The names, folders included, that showed the version of an entry until it was removed."""
    if entry.node is None:
        return {}
    # Of a withdrawn version, the name ended in the event before.
    seq = entry.id - (entry.what == "withdrawn")
    found = {}
    for parent, name in fetch(
        db, f"SELECT parent, name FROM names WHERE node = ?2 AND {_AS_OF}", (seq, entry.node)
    ):
        row = fetch(
            db, f"{_TRASHED} WHERE n.parent = ?2 AND n.name = ?3 AND n.node = ?4 LIMIT 1",
            (seq, parent, name, entry.node),
        )[0]  # fmt: skip
        found[(*_path_as_of(db, parent, seq), name)] = _to_name(row)
    return found


def _path_as_of(db: apsw.Connection, directory: int, seq: int) -> tuple[bytes, ...]:
    """The folders that led to a directory when an event came, from the scope's directory on."""
    rows = fetch(
        db,
        "SELECT n.parent, n.name FROM names n JOIN nodes k ON k.id = n.node"
        f" WHERE n.node = ?2 AND k.kind = ?3 AND {_AS_OF}",
        (seq, directory, int(NodeKind.FOLDER)),
    )
    return (*_path_as_of(db, rows[0][0], seq), rows[0][1]) if rows else ()


def find_entry_after(db: apsw.Connection, after: int) -> int | None:
    """The id of the next entry of the trash, oldest first."""
    rows = fetch(
        db,
        "SELECT deleted_seq FROM data_files WHERE deleted_seq > ? ORDER BY deleted_seq LIMIT 1",
        (after,),
    )
    return rows[0][0] if rows else None


def list_trashed_versions(
    db: apsw.Connection, entry: TrashEntry, after_id: int, limit: int
) -> list[tuple[int, int]]:
    """A page of the versions of an entry, by order of publication: `(id, collected_us)`."""
    rows = fetch(
        db,
        "SELECT id, collected_us FROM data_files WHERE deleted_seq = ? AND id > ?"
        " ORDER BY id LIMIT ?",
        (entry.id, after_id, limit),
    )
    return [(row[0], row[1]) for row in rows]


def find_trashed_version(db: apsw.Connection, entry: TrashEntry, collected_us: int) -> int | None:
    """The id of the version of an entry that has a time."""
    rows = fetch(
        db,
        # By time: an entry may have a million versions.
        "SELECT id FROM data_files WHERE collected_us = ? AND +deleted_seq = ?",
        (collected_us, entry.id),
    )
    return rows[0][0] if rows else None


def _to_name(row: tuple[int, ...]) -> TrashedName:
    slot, name, node, kind, *rest = row
    return TrashedName(slot, name, node, NodeKind(kind), *rest)  # type: ignore[arg-type]
