"""The trash: versions that were removed, until they come back or are destroyed.

An entry is one removal, of a version or of a scope. Its id is the number of its event, which is in
`data_files.deleted_seq` of all its versions and in their paths, `trash/<id>/...`. It comes back
(scopefs.store.restore) or is destroyed as a whole. Only rows change here: who settles moves the
files, in the order in which the moves were queued.
"""

from dataclasses import dataclass
from typing import Any

import apsw

from scopefs.errors import NotFound
from scopefs.model.envelope import encode_name
from scopefs.model.events import decode_detail
from scopefs.model.naming import NodeKind
from scopefs.model.scope import Scope
from scopefs.store import index, tree
from scopefs.store.chunks import CHUNK_BYTES
from scopefs.store.index import Version
from scopefs.store.journal import Transaction
from scopefs.store.publish import IS_UNPUBLISHED, StagedState, drop_scratch
from scopefs.store.rows import end_name, insert_name, load_entry, show, touch_directory
from scopefs.store.sql import fetch


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal has made: an entry, and how many versions are in it."""

    entry: int
    versions: int


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """One removal: what `trash list` shows as a row, and what comes back or is destroyed whole."""

    id: int
    """The number of its event, and so of its directory in trash/."""
    at_us: int
    what: str
    """`version`, `scope`, or `withdrawn`: that of a temporary file, which its program removed."""
    scope: str
    scope_node: int
    versions: int
    payload_bytes: int
    name: bytes | None
    """Of a single version: the name under which it was published."""
    node: int | None
    """Of a single version: the file that showed it."""
    back: tuple[tuple[int, int], ...]
    """What went back to a name of that file: `(node, parent)` each."""


@dataclass(frozen=True, slots=True)
class Destroyed:
    """What an emptying has destroyed."""

    entries: int = 0
    versions: int = 0
    payload_bytes: int = 0

    def __add__(self, other: "Destroyed") -> "Destroyed":
        return Destroyed(
            self.entries + other.entries, self.versions + other.versions,
            self.payload_bytes + other.payload_bytes,
        )  # fmt: skip


def apply_delete_version(
    transaction: Transaction, version: Version, *, withdrawn: bool = False
) -> Removed:
    """Move a version to the trash; a name that showed it shows the version before, or ends.

    `withdrawn`: it was that of a temporary file, which its program has removed. Raises
    `NotFound` if it is in the trash already.
    """
    db = transaction.db
    seq = transaction.next_seq
    if not fetch(
        db,
        "UPDATE data_files SET deleted_seq = ?1, path = 'trash/' || ?1 || substr(path, 5)"
        " WHERE id = ?2 AND deleted_seq IS NULL RETURNING id",
        (seq, version.id),
    ):
        raise NotFound(f"{version.scope} {version.stamp} is in the trash already")
    _queue_moves_to_trash(db, seq)
    rows = fetch(
        db,
        "UPDATE scopes SET versions = versions - 1, bytes = bytes - ? WHERE scope = ?"
        " RETURNING node",
        (version.payload_size, version.scope),
    )
    members: dict[str, Any] = {
        "version": version.id, "scope": version.scope, "collectedAt": version.collected_at,
    }  # fmt: skip
    if withdrawn:
        members["withdrawn"] = True
    if version.node is not None:
        members |= _show_version_before(transaction, version.node, version.id, seq)
    transaction.record_event("delete", rows[0][0], members)
    return Removed(seq, 1)


def _show_version_before(
    transaction: Transaction, node: int, version_id: int, seq: int
) -> dict[str, Any]:
    """Let a file whose version goes show the one before it; or its names what they showed before.

    A name that had replaced another file's goes back to that one, if it is free; else it ends.
    """
    db = transaction.db
    entry = load_entry(db, node)
    if entry.version != version_id:
        return {}
    before = fetch(
        db,
        "SELECT s.version, s.mtime_ns FROM shown s JOIN data_files d ON d.id = s.version"
        " WHERE s.node = ? AND d.deleted_seq IS NULL"
        " ORDER BY d.collected_us DESC, s.from_seq DESC LIMIT 1",
        (node,),
    )
    if before:
        show(transaction, node, seq, before[0][0], entry.mode, before[0][1])
        return {"node": node, "shows": before[0][0]}
    show(transaction, node, seq, None, entry.mode, entry.mtime_ns)
    back: list[dict[str, Any]] = []
    for row, parent, name in tree.find_live_names(db, node):
        newest = tree.find_newest_in_history(db, [parent], name)
        end_name(transaction, row, parent, seq)
        earlier = index.find_by_id(db, newest[0]) if newest is not None else None
        if earlier is None or earlier.node is None:
            continue
        was = load_entry(db, earlier.node)
        if was.version == earlier.id and not was.links:
            insert_name(transaction, parent, name, was.node, seq, came_from=row)
            back.append({"node": was.node, "parent": parent, **encode_name(name)})
    return {"node": node, "shows": None, **({"back": back} if back else {})}


def list_trash(db: apsw.Connection, before: int, limit: int) -> list[TrashEntry]:
    """A page of the trash, newest first. Reads a row or two for each entry, however large it is."""
    found: list[TrashEntry] = []
    while len(found) < limit:
        rows = fetch(
            db,
            "SELECT deleted_seq FROM data_files WHERE deleted_seq < ?"
            " ORDER BY deleted_seq DESC LIMIT 1",
            (before,),
        )
        if not rows:
            break
        before = rows[0][0]
        found.append(load_trash_entry(db, before))
    return found


def load_trash_entry(db: apsw.Connection, entry_id: int) -> TrashEntry:
    """One entry. Raises `NotFound` if it was restored, emptied, or never there."""
    rows = fetch(
        db,
        "SELECT d.scope, d.payload_size, d.name, e.at_us, e.scope, e.detail"
        " FROM data_files d JOIN events e ON e.seq = d.deleted_seq WHERE d.deleted_seq = ? LIMIT 1",
        (entry_id,),
    )
    if not rows:
        raise NotFound(f"nothing in the trash has the number {entry_id}; see `scopefs trash list`")
    scope, size, name, at_us, scope_node, detail = rows[0]
    event = decode_detail(detail)
    if event["op"] == "delete-scope":
        return TrashEntry(
            entry_id, at_us, "scope", scope, scope_node, event["versions"], event["sizeBytes"],
            None, None, (),
        )  # fmt: skip
    back = tuple((went["node"], went["parent"]) for went in event.get("back", ()))
    what = "withdrawn" if event.get("withdrawn") else "version"
    return TrashEntry(
        entry_id, at_us, what, scope, scope_node, 1, size, name, event.get("node"), back
    )


def apply_delete_scope(transaction: Transaction, scope: Scope) -> Removed:
    """Move all versions of a scope to the trash and end its names: one entry.

    Scopes below it stay, and then so does its directory. Raises `NotFound` if it has neither
    versions nor a directory.
    """
    db = transaction.db
    node = tree.find_scope_node(db, scope.raw)
    kept = fetch(db, "SELECT versions, bytes FROM scopes WHERE node = ?", (node,))
    if node is None or not (kept[0][0] or tree.is_reachable(db, node)):
        raise NotFound(f'No data found for scope "{scope.raw}"')
    versions, size = kept[0]
    seq = transaction.next_seq
    db.execute(
        "UPDATE data_files SET deleted_seq = ?1, path = 'trash/' || ?1 || substr(path, 5)"
        " WHERE scope = ?2 AND deleted_seq IS NULL",
        (seq, scope.raw),
    )
    _queue_moves_to_trash(db, seq)
    db.execute("UPDATE scopes SET versions = 0, bytes = 0 WHERE node = ?", (node,))
    end_names_below(transaction, node, seq)
    transaction.record_event(
        "delete-scope", node,
        {"scope": scope.raw, "node": node, "versions": versions, "sizeBytes": size},
    )  # fmt: skip
    return Removed(seq, versions)


def end_names_below(transaction: Transaction, node: int, seq: int) -> None:
    """End what stands in a scope's directory, and the directory, unless scopes live in it."""
    db = transaction.db
    db.execute(
        "UPDATE names SET until_seq = ?2 WHERE id IN ("
        " WITH RECURSIVE inside(node) AS (VALUES(?1) UNION SELECT n.node FROM inside i"
        "  JOIN names n ON n.parent = i.node AND n.until_seq IS NULL"
        "  JOIN nodes k ON k.id = n.node WHERE k.kind = ?3)"
        " SELECT n.id FROM inside i JOIN names n ON n.parent = i.node AND n.until_seq IS NULL"
        "  JOIN nodes k ON k.id = n.node WHERE k.kind != ?4)",
        (node, seq, int(NodeKind.FOLDER), int(NodeKind.SCOPE)),
    )
    if tree.has_children(db, node):
        touch_directory(transaction, node)
    else:
        for row, parent, _ in tree.find_live_names(db, node):
            end_name(transaction, row, parent, seq)
    # Bytes of a file whose last name ended before the close are gone, after a crash too.
    db.execute(
        f"DELETE FROM staged WHERE {IS_UNPUBLISHED} AND"
        " EXISTS (SELECT 1 FROM names n WHERE n.node = staged.node AND n.until_seq = ?1) AND"
        " NOT EXISTS (SELECT 1 FROM names n WHERE n.node = staged.node AND n.until_seq IS NULL)",
        (seq,),
    )


def apply_destroy(transaction: Transaction, entry_id: int) -> Destroyed:
    """Destroy the versions of an entry. Whoever settles next removes their files.

    To be committed durably: a file must not go before its row is gone for good. Raises `NotFound`.
    """
    db = transaction.db
    entry = load_trash_entry(db, entry_id)
    destroy_versions(db, "deleted_seq = ?", entry_id)
    if entry.what == "scope":
        # Scratch files that ended with their scope were kept to come back with it.
        for (node,) in fetch(
            db,
            "SELECT s.node FROM scratch s WHERE"
            " EXISTS (SELECT 1 FROM names n WHERE n.node = s.node AND n.until_seq = ?) AND"
            " NOT EXISTS (SELECT 1 FROM names n WHERE n.node = s.node AND n.until_seq IS NULL)",
            (entry_id,),
        ):
            drop_scratch(transaction, node)
    transaction.record_event(
        "destroy", entry.scope_node,
        {"entry": entry_id, "scope": entry.scope, "versions": entry.versions,
         "sizeBytes": entry.payload_bytes},
    )  # fmt: skip
    return Destroyed(1, entry.versions, entry.payload_bytes)


def destroy_versions(db: apsw.Connection, condition: str, value: int) -> None:
    """Delete rows of removed versions, and have all that was theirs on the disk removed."""
    staged = f"FROM staged WHERE version IN (SELECT id FROM data_files WHERE {condition})"
    for statement in (
        f"SELECT path, '' FROM data_files WHERE {condition}",
        # Removed by the settler unless another version has the same.
        "SELECT DISTINCT 'blobs/' || lower(substr(hex(payload_sha256), 1, 2)) || '/' ||"
        f" lower(hex(payload_sha256)), '' FROM data_files WHERE kind = 2 AND {condition}",
        f"SELECT 'staging/' || file, '' {staged} AND file IS NOT NULL",
        # What a settling that was cut short may have left.
        f"SELECT 'staging/settle.' || sid || '.tmp', '' {staged} AND state = 3",
        f"SELECT 'staging/settle.' || sid || '.blob.tmp', '' {staged} AND state = 3",
    ):
        db.execute(f"INSERT INTO moves(source, target) {statement}", (value,))
    db.execute(f"DELETE {staged}", (value,))
    db.execute(
        "DELETE FROM chunks WHERE sha256 IN"
        f" (SELECT payload_sha256 FROM data_files WHERE payload_size > {CHUNK_BYTES}"
        f" AND {condition})", (value,),
    )  # fmt: skip
    db.execute(f"DELETE FROM data_files WHERE {condition}", (value,))


def queue_moves(db: apsw.Connection, entry_id: int, source: str, target: str) -> None:
    """Have the envelopes of an entry moved; `source` and `target` are expressions over its rows.

    Moves are never taken back: what is queued later is made later, so that the last one counts.
    """
    # What is not on its way to its place yet will be placed where its row says then.
    db.execute(
        f"INSERT INTO moves(source, target) SELECT {source}, {target} FROM data_files d"
        " WHERE deleted_seq = ?1 AND NOT EXISTS"
        "  (SELECT 1 FROM staged WHERE version = d.id AND state = ?2)",
        (entry_id, int(StagedState.PUBLISHED)),
    )


def _queue_moves_to_trash(db: apsw.Connection, entry_id: int) -> None:
    queue_moves(db, entry_id, "'data' || substr(path, length('trash/' || ?1) + 1)", "path")
