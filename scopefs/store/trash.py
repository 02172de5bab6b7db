"""The trash: versions that were removed, until it is emptied."""

from typing import Any

from scopefs.errors import NotFound
from scopefs.model.envelope import encode_name
from scopefs.store import index, tree
from scopefs.store.index import Version
from scopefs.store.journal import Transaction
from scopefs.store.publish import StagedState
from scopefs.store.rows import end_name, insert_name, load_entry, show
from scopefs.store.sql import fetch


def apply_delete_version(transaction: Transaction, version: Version) -> None:
    """Move a version to the trash; a name that showed it shows the version before, or ends.

    The envelope follows when the vault settles. Raises `NotFound` if it is there already.
    """
    db = transaction.db
    seq = transaction.next_seq
    trash = f"trash/{seq}/{version.path.removeprefix('data/')}"
    if not fetch(
        db,
        "UPDATE data_files SET deleted_seq = ?, path = ? WHERE id = ? AND deleted_seq IS NULL"
        " RETURNING id",
        (seq, trash, version.id),
    ):
        raise NotFound(f"{version.scope} {version.stamp} is in the trash already")
    # One that is not on its way to data/ yet will be placed in the trash at once.
    if not fetch(
        db,
        "SELECT 1 FROM staged WHERE version = ? AND state = ?",
        (version.id, int(StagedState.PUBLISHED)),
    ):
        db.execute("INSERT INTO moves(source, target) VALUES(?,?)", (version.path, trash))
    rows = fetch(
        db,
        "UPDATE scopes SET versions = versions - 1, bytes = bytes - ? WHERE scope = ?"
        " RETURNING node",
        (version.payload_size, version.scope),
    )
    members: dict[str, Any] = {
        "version": version.id, "scope": version.scope, "collectedAt": version.collected_at,
    }  # fmt: skip
    if version.node is not None:
        members |= _show_version_before(transaction, version.node, version.id, seq)
    transaction.record_event("delete", rows[0][0], members)


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
        " WHERE s.node = ? AND d.deleted_seq IS NULL ORDER BY s.from_seq DESC LIMIT 1",
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
