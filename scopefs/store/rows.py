"""Rows of names and nodes: the writes that every change of the tree is made of.

Within a transaction, and without an event of their own: whoever calls them records one.
"""

from typing import Any

import apsw

from scopefs.errors import NotFound
from scopefs.model.naming import show_name
from scopefs.store import tree
from scopefs.store.journal import Transaction
from scopefs.store.sql import fetch
from scopefs.store.tree import Entry


def allocate_nodes(transaction: Transaction, count: int) -> int:
    """Take `count` node ids that were never given out; returns the first."""
    rows = fetch(
        transaction.db,
        "UPDATE meta SET value = value + ?1 WHERE key = 'next_node' RETURNING value - ?1",
        (count,),
    )
    return int(rows[0][0])


def insert_name(
    transaction: Transaction, parent: int, name: bytes, node: int, seq: int,
    came_from: int | None = None, slot: int | None = None,
) -> None:  # fmt: skip
    db = transaction.db
    known = tree.find_slot(db, parent, name)
    if known is not None:
        slot = known
    elif slot is None:
        # A new node's first name takes its number; a further name needs one of its own.
        named = fetch(db, "SELECT 1 FROM names WHERE node = ? LIMIT 1", (node,))
        slot = allocate_nodes(transaction, 1) if named else node
    add_name(transaction, parent, name, node, seq, came_from, slot)
    touch_directory(transaction, parent)


def add_name(
    transaction: Transaction, parent: int, name: bytes, node: int, seq: int,
    came_from: int | None, slot: int,
) -> None:  # fmt: skip
    """Write the row of a name whose slot is known."""
    transaction.db.execute(
        "INSERT INTO names(parent, name, node, from_seq, came_from, slot) VALUES(?,?,?,?,?,?)",
        (parent, name, node, seq, came_from, slot),
    )


def end_name(transaction: Transaction, row: int, parent: int, seq: int) -> None:
    transaction.db.execute("UPDATE names SET until_seq = ? WHERE id = ?", (seq, row))
    touch_directory(transaction, parent)


def touch_directory(transaction: Transaction, node: int, at_ns: int | None = None) -> None:
    """Set a directory's mtime, for an entry of it has changed: now, or a moment ago.

    What changed before another entry did does not set the time back.
    """
    now_ns = transaction.now_us * 1000
    set_to = fetch(
        transaction.db,
        "UPDATE shown SET mtime_ns = ?2 WHERE node = ?1 AND from_seq ="
        " (SELECT MAX(from_seq) FROM shown WHERE node = ?1)"
        " AND NOT mtime_ns BETWEEN ?2 AND ?3 RETURNING mtime_ns",
        (node, now_ns if at_ns is None else at_ns, now_ns),
    )
    if set_to:
        transaction.note_touched(node, set_to[0][0])
    else:
        note_directory(transaction, node)


def note_directory(transaction: Transaction, node: int) -> None:
    """Have the next event say which mtime a directory has now, if it is not the event's time."""
    for (mtime_ns,) in fetch(
        transaction.db,
        "SELECT mtime_ns FROM shown WHERE node = ? ORDER BY from_seq DESC LIMIT 1",
        (node,),
    ):
        transaction.note_touched(node, mtime_ns)


def show(
    transaction: Transaction, node: int, seq: int, version: int | None, mode: int, mtime_ns: int,
    target: bytes | None = None,
) -> None:  # fmt: skip
    transaction.db.execute(
        "INSERT INTO shown(node, from_seq, version, mode, mtime_ns, target) VALUES(?,?,?,?,?,?)",
        (node, seq, version, mode, mtime_ns, target),
    )


def find_scope_of(db: apsw.Connection, node: int) -> int | None:
    rows = fetch(db, "SELECT scope FROM nodes WHERE id = ?", (node,))
    return rows[0][0] if rows else None


def load_entry(db: apsw.Connection, node: int) -> Entry:
    entry = tree.find_node(db, node)
    if entry is None:
        raise NotFound(f"node {node} is not there")
    return entry


def load_name(db: apsw.Connection, parent: int, name: bytes) -> tuple[int, Entry]:
    entry = tree.find_child(db, parent, name)
    if entry is None:
        raise NotFound(f"{show_name(name)} is not there")
    return tree.load_name_id(db, parent, name), entry


def attribute_members(mode: int, mtime_ns: int) -> dict[str, Any]:
    return {"mode": f"{mode:04o}", "mtimeNs": mtime_ns}
