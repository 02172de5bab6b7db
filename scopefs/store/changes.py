"""Changes of the tree: every function applies one within a transaction, and records its event.

All decisions are made here, inside the transaction, on what the index says then: what a door
looked up before may be out of date. Refusals are raised before anything is written.
"""

from dataclasses import dataclass
from typing import Any

import apsw

from scopefs.errors import (
    InvalidName,
    IsADirectory,
    NameExists,
    NotADirectory,
    NotEmpty,
    NotFound,
)
from scopefs.model.envelope import encode_name
from scopefs.model.naming import (
    NodeKind,
    check_file_place,
    place_directory,
    plan_rename,
    show_name,
)
from scopefs.model.scope import Scope
from scopefs.model.scratch import NO_SCRATCH, ScratchPatterns
from scopefs.store import tree
from scopefs.store.journal import Transaction
from scopefs.store.publish import (
    IS_UNPUBLISHED,
    StagedState,
    apply_publish_scratch,
    drop_scratch,
    rename_unsettled,
    retime_unsettled,
)
from scopefs.store.rows import (
    allocate_nodes,
    attribute_members,
    end_name,
    find_scope_of,
    insert_name,
    load_entry,
    load_name,
    show,
)
from scopefs.store.tree import Entry

DIRECTORY_MODE = 0o755


FILE_MODE = 0o644


def ensure_scope(transaction: Transaction, scope: Scope) -> int:
    """The node of a scope's directory, made with the directories above it if need be.

    Raises `NotADirectory` if a file stands in the way.
    """
    known = tree.find_live_scope(transaction.db, scope.raw)
    if known is not None:
        return known
    node = tree.ROOT_NODE
    for segment in scope.segments:
        node = ensure_directory(transaction, node, segment.encode("ascii"))
    return node


def ensure_directory(transaction: Transaction, parent: int, name: bytes) -> int:
    """The node of a directory in `parent`, made if it is missing. Raises `NotADirectory`."""
    found = tree.find_link(transaction.db, parent, name)
    if found is None:
        return apply_mkdir(transaction, parent, name, DIRECTORY_MODE)
    node, kind = found
    if not kind.is_directory:
        raise NotADirectory(f"{show_name(name)} is a file, and a directory is needed there")
    return node


def apply_mkdir(transaction: Transaction, parent: int, name: bytes, mode: int) -> int:
    """Make a directory and return its node. A removed scope's directory comes back as it was.

    Raises `InvalidName`, `NotFound` (the parent was removed), `NameExists`.
    """
    db = transaction.db
    place = tree.find_place(db, parent)
    if place is None or not tree.is_reachable(db, parent):
        raise NotFound("the directory was removed")
    if tree.find_child(db, parent, name) is not None:
        raise NameExists(f"{show_name(name)} exists already")
    new = place_directory(place, name)
    known = new.scope if new.kind is NodeKind.SCOPE else None
    node = tree.find_scope_node(db, known.raw) if known is not None else None
    seq = transaction.next_seq
    scope_node: int | None
    if node is None:
        node = allocate_nodes(transaction, 1)
        scope_node = node if known is not None else find_scope_of(db, parent)
        db.execute(
            "INSERT INTO nodes(id, kind, scope) VALUES(?,?,?)", (node, int(new.kind), scope_node)
        )
        if known is not None:
            db.execute("INSERT INTO scopes(node, scope) VALUES(?,?)", (node, known.raw))
    else:
        scope_node = node
    members: dict[str, Any] = {
        "node": node,
        "parent": parent,
        **encode_name(name),
        **attribute_members(mode, transaction.now_us * 1000),
    }
    if known is not None:
        members["scope"] = known.raw
    insert_name(transaction, parent, name, node, seq)
    show(transaction, node, seq, None, mode, transaction.now_us * 1000)
    transaction.record_event("mkdir", scope_node, members)
    return node


def apply_symlink(transaction: Transaction, parent: int, name: bytes, target: bytes) -> Entry:
    """Make a symbolic link. Raises `InvalidName`, `NameExists`, `NotFound`."""
    db = transaction.db
    scope_node = _check_new_file(db, parent, name)
    node = allocate_nodes(transaction, 1)
    seq = transaction.next_seq
    db.execute(
        "INSERT INTO nodes(id, kind, scope) VALUES(?,?,?)",
        (node, int(NodeKind.SYMLINK), scope_node),
    )
    insert_name(transaction, parent, name, node, seq)
    show(transaction, node, seq, None, 0o777, transaction.now_us * 1000, target)
    transaction.record_event(
        "symlink", scope_node,
        {"node": node, "parent": parent, **encode_name(name), **encode_name(target, "target"),
         "mtimeNs": transaction.now_us * 1000},
    )  # fmt: skip
    return load_entry(db, node)


def apply_link(
    transaction: Transaction, node: int, parent: int, name: bytes,
    scratch: ScratchPatterns = NO_SCRATCH,
) -> Entry:  # fmt: skip
    """Give a file or symlink a second name. Raises as rename does, and `NameExists`.

    A scratch file that gets an ordinary name becomes a version.
    """
    db = transaction.db
    entry = load_entry(db, node)
    if entry.kind.is_directory:
        raise IsADirectory("a directory has one name")
    if not entry.links:
        raise NotFound("the file was removed")
    source = tree.find_place(db, tree.find_live_names(db, node)[0][1])
    place = tree.find_place(db, parent)
    if source is None or place is None:
        raise NotFound("the directory was removed")
    _check_new_file(db, parent, name)
    plan_rename((source, entry.kind, False), place, name, None)
    seq = transaction.next_seq
    insert_name(transaction, parent, name, node, seq)
    show(transaction, node, seq, entry.version, entry.mode, entry.mtime_ns, entry.target)
    transaction.record_event(
        "link", entry.scope_node, {"node": node, "parent": parent, **encode_name(name)}
    )
    apply_publish_scratch(transaction, node, scratch)
    return load_entry(db, node)


def apply_unlink(transaction: Transaction, parent: int, name: bytes) -> tuple[int, bool]:
    """End a name of a file or symlink; its versions stay.

    Returns the node, and whether that was its last name. Raises `NotFound`, `IsADirectory`.
    """
    db = transaction.db
    row, entry = load_name(db, parent, name)
    if entry.kind.is_directory:
        raise IsADirectory(f"{show_name(name)} is a directory")
    seq = transaction.next_seq
    end_name(transaction, row, parent, seq)
    last = entry.links == 1
    if last:
        # Bytes of a file whose last name ended before the close are gone, after a crash too.
        db.execute(
            f"DELETE FROM staged WHERE node = ? AND {IS_UNPUBLISHED}",
            (entry.node,),
        )
        drop_scratch(transaction, entry.node)
    transaction.record_event(
        "unlink", entry.scope_node, {"node": entry.node, "parent": parent, **encode_name(name)}
    )
    return entry.node, last


def apply_rmdir(transaction: Transaction, parent: int, name: bytes) -> int:
    """Remove an empty directory; a scope keeps its history. Returns its node.

    Raises `NotFound`, `NotADirectory`, `NotEmpty`.
    """
    db = transaction.db
    row, entry = load_name(db, parent, name)
    if not entry.kind.is_directory:
        raise NotADirectory(f"{show_name(name)} is no directory")
    if tree.has_children(db, entry.node):
        raise NotEmpty(f"{show_name(name)} is not empty")
    seq = transaction.next_seq
    end_name(transaction, row, parent, seq)
    transaction.record_event(
        "rmdir", entry.scope_node, {"node": entry.node, "parent": parent, **encode_name(name)}
    )
    return entry.node


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a rename did: the node that moved, and the one that lost its last name by it."""

    node: int
    replaced: int | None


def apply_rename(
    transaction: Transaction, parent: int, name: bytes, new_parent: int, new_name: bytes, *,
    replace: bool, scratch: ScratchPatterns = NO_SCRATCH,
) -> Renamed:  # fmt: skip
    """Move a name, as rename(2) does. Raises `CrossesScopes` where a tool has to copy.

    A scratch file that gets an ordinary name becomes a version.
    """
    db = transaction.db
    row, entry = load_name(db, parent, name)
    place, new_place = tree.find_place(db, parent), tree.find_place(db, new_parent)
    if place is None or new_place is None or not tree.is_reachable(db, new_parent):
        raise NotFound("the directory was removed")
    target = tree.find_child(db, new_parent, new_name)
    if target is not None and target.node == entry.node:
        if not replace:
            raise NameExists(f"{show_name(new_name)} exists already")
        return Renamed(entry.node, None)
    own_place = tree.find_place(db, entry.node) if entry.kind.is_directory else place
    plan_rename(
        (own_place or place, entry.kind, not tree.has_children(db, entry.node)),
        new_place, new_name,
        None if target is None else
        (target.kind, not (target.kind.is_directory and tree.has_children(db, target.node))),
        replace=replace,
    )  # fmt: skip
    if entry.kind.is_directory:
        _check_no_cycle(db, entry.node, new_parent)
        becomes = place_directory(new_place, new_name)
        if entry.kind <= NodeKind.SCOPE or becomes != own_place:
            # An empty one: it becomes what its new name says, its history stays with the old.
            if target is not None:
                apply_rmdir(transaction, new_parent, new_name)
            apply_rmdir(transaction, parent, name)
            return Renamed(apply_mkdir(transaction, new_parent, new_name, entry.mode), None)
    seq = transaction.next_seq
    replaced: int | None = None
    if target is not None:
        end_name(transaction, tree.load_name_id(db, new_parent, new_name), new_parent, seq)
        replaced = target.node if target.links == 1 and not target.kind.is_directory else None
    end_name(transaction, row, parent, seq)
    insert_name(transaction, new_parent, new_name, entry.node, seq, came_from=row)
    # Written, synced and renamed, but never closed, is finished too: so tools save atomically.
    db.execute(
        f"UPDATE staged SET state = {int(StagedState.CLOSED)} WHERE node = ? AND {IS_UNPUBLISHED}",
        (entry.node,),
    )
    if not entry.kind.is_directory:
        show(transaction, entry.node, seq, entry.version, entry.mode, entry.mtime_ns, entry.target)
        becomes_name = tree.path_within_scope(db, new_parent, new_name)
        if not scratch.is_scratch(becomes_name):
            rename_unsettled(db, entry.version, becomes_name)
    transaction.record_event(
        "rename", entry.scope_node,
        {"node": entry.node, "parent": parent, **encode_name(name), "toParent": new_parent,
         **encode_name(new_name, "to")},
    )  # fmt: skip
    if replaced is not None:
        drop_scratch(transaction, replaced)
    apply_publish_scratch(transaction, entry.node, scratch)
    return Renamed(entry.node, replaced)


def apply_attributes(
    transaction: Transaction, node: int, mode: int | None, mtime_ns: int | None
) -> Entry:
    """Change permission bits or mtime: no version."""
    db = transaction.db
    entry = load_entry(db, node)
    mode = entry.mode if mode is None else mode
    mtime_ns = entry.mtime_ns if mtime_ns is None else mtime_ns
    seq = transaction.next_seq
    show(transaction, node, seq, entry.version, mode, mtime_ns, entry.target)
    transaction.changes_tree = True
    retime_unsettled(db, entry.version, mtime_ns)
    transaction.record_event(
        "attributes", entry.scope_node, {"node": node, **attribute_members(mode, mtime_ns)}
    )
    return load_entry(db, node)


def _check_new_file(db: apsw.Connection, parent: int, name: bytes) -> int:
    """The scope node of a file to be made in a directory. Raises the usual refusals."""
    place = tree.find_place(db, parent)
    if place is None or not tree.is_reachable(db, parent):
        raise NotFound("the directory was removed")
    check_file_place(place, name)
    if tree.find_child(db, parent, name) is not None:
        raise NameExists(f"{show_name(name)} exists already")
    scope_node = find_scope_of(db, parent)
    if scope_node is None:
        raise InvalidName("no file can be here")
    return scope_node


def _check_no_cycle(db: apsw.Connection, node: int, new_parent: int) -> None:
    at = new_parent
    while at != tree.ROOT_NODE:
        if at == node:
            raise InvalidName("a directory cannot be moved into itself")
        above = tree.find_live_names(db, at)
        if not above:
            return
        at = above[0][1]
