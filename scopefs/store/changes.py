"""Changes: every function applies one change within a transaction, and records its event.

All decisions are made here, inside the transaction, on what the index says then: what a door
looked up before may be out of date. Refusals are raised before anything is written.
Times: `mtime_ns` of a source, nanoseconds. Sizes in bytes.
"""

import enum
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
from scopefs.model.envelope import FileFacts, encode_frame, encode_name, stored_size
from scopefs.model.naming import (
    NodeKind,
    check_file_place,
    place_directory,
    plan_rename,
    show_name,
)
from scopefs.model.payload import Kind
from scopefs.model.scope import Scope
from scopefs.model.stamps import format_collected_at, format_stamp, next_collected_us
from scopefs.store import index, tree
from scopefs.store.index import Version, insert_version
from scopefs.store.journal import Transaction
from scopefs.store.sql import fetch
from scopefs.store.tree import Entry

DIRECTORY_MODE = 0o755
FILE_MODE = 0o644


DUE = "(at_us <= ?2 OR at_us > ?2 + 1000000)"
"""Which staged rows are old enough to be settled at a time; a clock that stepped back must not
make those wait that seem to come from the future.
"""


class StagedState(enum.IntEnum):
    """How far a staged write has come."""

    DRAFT = 0
    """Made durable by fsync; never closed."""
    CLOSED = 1
    """Made durable by close; to be published."""
    PUBLISHED = 2
    """A version; its envelope is not placed yet, and follows its file's name and mtime."""
    SETTLING = 3
    """A version whose envelope is being placed: name and mtime stand for good."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A payload at rest: what it is, and where its bytes are until they are settled."""

    size: int
    sha256: bytes
    kind: Kind
    media_type: str
    payload: bytes | None
    """The bytes, if they stand in the row."""
    file: str | None
    """Else the path of the staging file, relative to staging/."""


@dataclass(slots=True)
class Write:
    """One finished or interrupted write of a file, as the doors hand it in."""

    owner: str
    scope_node: int
    node: int | None
    """The file it is a version of; None for a nameless version."""
    parent: int | None
    """Directory and name to be made, if the node has never had a name."""
    name: bytes | None
    mode: int
    mtime_ns: int | None
    sealed: Sealed
    slot: int | None = None
    """Its place in listings, if the mount has given it one already."""
    sid: int | None = None
    """The staged row, once there is one."""


def allocate_nodes(transaction: Transaction, count: int) -> int:
    """Take `count` node ids that were never given out; returns the first."""
    rows = fetch(
        transaction.db,
        "UPDATE meta SET value = value + ?1 WHERE key = 'next_node' RETURNING value - ?1",
        (count,),
    )
    return int(rows[0][0])


def ensure_scope(transaction: Transaction, scope: Scope) -> int:
    """The node of a scope's directory, made with the directories above it if need be.

    Raises `NotADirectory` if a file stands in the way.
    """
    node = tree.ROOT_NODE
    for segment in scope.segments:
        node = ensure_directory(transaction, node, segment.encode("ascii"))
    return node


def ensure_directory(transaction: Transaction, parent: int, name: bytes) -> int:
    """The node of a directory in `parent`, made if it is missing. Raises `NotADirectory`."""
    entry = tree.find_child(transaction.db, parent, name)
    if entry is None:
        return apply_mkdir(transaction, parent, name, DIRECTORY_MODE)
    if not entry.kind.is_directory:
        raise NotADirectory(f"{show_name(name)} is a file, and a directory is needed there")
    return entry.node


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
        scope_node = node if known is not None else _scope_of(db, parent)
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
        "mode": f"{mode:04o}",
    }
    if known is not None:
        members["scope"] = known.raw
    _insert_name(transaction, parent, name, node, seq)
    _show(transaction, node, seq, None, mode, transaction.now_us * 1000)
    transaction.record_event("mkdir", scope_node, members)
    return node


def apply_stage(transaction: Transaction, write: Write, state: StagedState) -> int:
    """Keep a write's bytes in the journal; returns the id of its row."""
    sealed = write.sealed
    row = (
        write.owner, int(state), write.node, write.scope_node, write.parent, write.name,
        write.mode, write.mtime_ns, sealed.size, sealed.sha256, int(sealed.kind),
        sealed.media_type, sealed.payload, sealed.file,
    )  # fmt: skip
    if write.sid is not None and fetch(
        transaction.db,
        "UPDATE staged SET owner=?, state=?, node=?, scope=?, parent=?, name=?, mode=?,"
        " mtime_ns=?, size=?, sha256=?, kind=?, media_type=?, payload=?, file=?"
        " WHERE sid = ? RETURNING sid",
        (*row, write.sid),
    ):
        return write.sid
    rows = fetch(
        transaction.db,
        "INSERT INTO staged(owner, state, node, scope, parent, name, mode, mtime_ns, size, sha256,"
        " kind, media_type, payload, file) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?) RETURNING sid",
        row,
    )
    return int(rows[0][0])


def apply_publish(transaction: Transaction, write: Write) -> Version:
    """Make a write a version: row, name and event together.

    The version goes to the write's node, under whatever name that bears now; a node that is not
    known yet gets `write.name` in `write.parent`, or continues the file that took this name
    meanwhile.
    """
    db = transaction.db
    seq = transaction.next_seq
    sealed = write.sealed
    node, name, members = _resolve_node(transaction, write, seq)
    rows = fetch(db, "SELECT scope, last_us FROM scopes WHERE node = ?", (write.scope_node,))
    scope, last_us = rows[0]
    collected_us = next_collected_us(transaction.now_us, last_us)
    mtime_ns = transaction.now_us * 1000 if write.mtime_ns is None else write.mtime_ns
    facts = FileFacts(sealed.kind, sealed.size, sealed.sha256, sealed.media_type, name, mtime_ns)
    head, tail = encode_frame(scope, collected_us, facts)
    version = insert_version(
        db, f"data/{scope.replace('.', '/')}/{format_stamp(collected_us)}.json", scope,
        collected_us, len(head) + stored_size(sealed.kind, sealed.size) + len(tail),
        created_at=format_collected_at(transaction.now_us), kind=sealed.kind, node=node, name=name,
        mtime_ns=mtime_ns, payload_size=sealed.size, payload_sha256=sealed.sha256,
        media_type=sealed.media_type,
    )  # fmt: skip
    if node is not None:
        _show(transaction, node, seq, version.id, write.mode, mtime_ns)
    db.execute(
        "UPDATE scopes SET last_us = ?, versions = versions + 1, bytes = bytes + ? WHERE node = ?",
        (collected_us, sealed.size, write.scope_node),
    )
    transaction.record_event(
        "version", write.scope_node,
        {"version": version.id, "scope": scope, "collectedAt": version.collected_at,
         "sizeBytes": sealed.size, **encode_name(name, "file"), **members,
         **_attributes(write.mode, mtime_ns)},
        collected_us,
    )  # fmt: skip
    # Its row may be gone: another process ended the file's last name since it was staged.
    if write.sid is None or not _set_published(transaction, write.sid, node, version.id):
        sid = apply_stage(transaction, write, StagedState.PUBLISHED)
        _set_published(transaction, sid, node, version.id)
    return version


def _set_published(transaction: Transaction, sid: int, node: int | None, version_id: int) -> bool:
    return bool(
        fetch(
            transaction.db,
            "UPDATE staged SET state = ?, node = ?, version = ?, at_us = ? WHERE sid = ?"
            " RETURNING sid",
            (int(StagedState.PUBLISHED), node, version_id, transaction.now_us, sid),
        )
    )


def apply_show_empty(transaction: Transaction, write: Write) -> int | None:
    """Let a name show an empty file: no version. Returns the node that shows it now."""
    seq = transaction.next_seq
    node, _, members = _resolve_node(transaction, write, seq)
    if node is not None:
        mtime_ns = transaction.now_us * 1000 if write.mtime_ns is None else write.mtime_ns
        _show(transaction, node, seq, None, write.mode, mtime_ns)
        transaction.record_event(
            "empty", write.scope_node, {**members, **_attributes(write.mode, mtime_ns)}
        )
    drop_staged(transaction, write)
    return node


def apply_freeze(
    transaction: Transaction, older_than_us: int, limit: int
) -> list[tuple[int, int, str | None]]:
    """Choose published rows to be settled now: `(sid, version, file)`, oldest first.

    From here on their envelopes do not change, whatever happens to their names.
    """
    db = transaction.db
    rows = fetch(
        db,
        f"SELECT sid, version, file FROM staged WHERE state >= ?1 AND {DUE} ORDER BY sid LIMIT ?3",
        (int(StagedState.PUBLISHED), older_than_us, limit),
    )
    for row in rows:
        db.execute("UPDATE staged SET state = ? WHERE sid = ?", (int(StagedState.SETTLING), row[0]))
    return rows


def drop_staged(transaction: Transaction, write: Write) -> None:
    """Forget the staged bytes of a write that will not be published."""
    if write.sid is not None:
        transaction.db.execute("DELETE FROM staged WHERE sid = ?", (write.sid,))


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
    _insert_name(transaction, parent, name, node, seq)
    _show(transaction, node, seq, None, 0o777, transaction.now_us * 1000, target)
    transaction.record_event(
        "symlink", scope_node,
        {"node": node, "parent": parent, **encode_name(name), **encode_name(target, "target")},
    )  # fmt: skip
    return _load(db, node)


def apply_link(transaction: Transaction, node: int, parent: int, name: bytes) -> Entry:
    """Give a file or symlink a second name. Raises as rename does, and `NameExists`."""
    db = transaction.db
    entry = _load(db, node)
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
    _insert_name(transaction, parent, name, node, seq)
    _show(transaction, node, seq, entry.version, entry.mode, entry.mtime_ns, entry.target)
    transaction.record_event(
        "link", entry.scope_node, {"node": node, "parent": parent, **encode_name(name)}
    )
    return _load(db, node)


def apply_unlink(transaction: Transaction, parent: int, name: bytes) -> tuple[int, bool]:
    """End a name of a file or symlink; its versions stay.

    Returns the node, and whether that was its last name. Raises `NotFound`, `IsADirectory`.
    """
    db = transaction.db
    row, entry = _load_name(db, parent, name)
    if entry.kind.is_directory:
        raise IsADirectory(f"{show_name(name)} is a directory")
    seq = transaction.next_seq
    _end_name(transaction, row, parent, seq)
    last = entry.links == 1
    if last:
        # Bytes of a file whose last name ended before the close are gone, after a crash too.
        db.execute(
            "DELETE FROM staged WHERE node = ? AND state < ?",
            (entry.node, int(StagedState.PUBLISHED)),
        )
    transaction.record_event(
        "unlink", entry.scope_node, {"node": entry.node, "parent": parent, **encode_name(name)}
    )
    return entry.node, last


def apply_rmdir(transaction: Transaction, parent: int, name: bytes) -> int:
    """Remove an empty directory; a scope keeps its history. Returns its node.

    Raises `NotFound`, `NotADirectory`, `NotEmpty`.
    """
    db = transaction.db
    row, entry = _load_name(db, parent, name)
    if not entry.kind.is_directory:
        raise NotADirectory(f"{show_name(name)} is no directory")
    if tree.has_children(db, entry.node):
        raise NotEmpty(f"{show_name(name)} is not empty")
    seq = transaction.next_seq
    _end_name(transaction, row, parent, seq)
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
    replace: bool,
) -> Renamed:  # fmt: skip
    """Move a name, as rename(2) does. Raises `CrossesScopes` where a tool has to copy."""
    db = transaction.db
    row, entry = _load_name(db, parent, name)
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
        _end_name(transaction, tree.load_name_id(db, new_parent, new_name), new_parent, seq)
        replaced = target.node if target.links == 1 and not target.kind.is_directory else None
    _end_name(transaction, row, parent, seq)
    _insert_name(transaction, new_parent, new_name, entry.node, seq, came_from=row)
    # Written, synced and renamed, but never closed, is finished too: so tools save atomically.
    db.execute(
        "UPDATE staged SET state = ? WHERE node = ? AND state = ?",
        (int(StagedState.CLOSED), entry.node, int(StagedState.DRAFT)),
    )
    if not entry.kind.is_directory:
        _show(transaction, entry.node, seq, entry.version, entry.mode, entry.mtime_ns, entry.target)
        _rewrite_unsettled(
            db, entry.version, "name", tree.path_within_scope(db, new_parent, new_name)
        )
    transaction.record_event(
        "rename", entry.scope_node,
        {"node": entry.node, "parent": parent, **encode_name(name), "toParent": new_parent,
         **encode_name(new_name, "to")},
    )  # fmt: skip
    return Renamed(entry.node, replaced)


def apply_attributes(
    transaction: Transaction, node: int, mode: int | None, mtime_ns: int | None
) -> Entry:
    """Change permission bits or mtime: no version."""
    db = transaction.db
    entry = _load(db, node)
    mode = entry.mode if mode is None else mode
    mtime_ns = entry.mtime_ns if mtime_ns is None else mtime_ns
    seq = transaction.next_seq
    _show(transaction, node, seq, entry.version, mode, mtime_ns, entry.target)
    _rewrite_unsettled(db, entry.version, "mtime_ns", mtime_ns)
    transaction.record_event(
        "attributes", entry.scope_node, {"node": node, **_attributes(mode, mtime_ns)}
    )
    return _load(db, node)


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
    entry = _load(db, node)
    if entry.version != version_id:
        return {}
    before = fetch(
        db,
        "SELECT s.version, s.mtime_ns FROM shown s JOIN data_files d ON d.id = s.version"
        " WHERE s.node = ? AND d.deleted_seq IS NULL ORDER BY s.from_seq DESC LIMIT 1",
        (node,),
    )
    if before:
        _show(transaction, node, seq, before[0][0], entry.mode, before[0][1])
        return {"node": node, "shows": before[0][0]}
    _show(transaction, node, seq, None, entry.mode, entry.mtime_ns)
    back: list[dict[str, Any]] = []
    for row, parent, name in tree.find_live_names(db, node):
        newest = tree.find_newest_in_history(db, [parent], name)
        _end_name(transaction, row, parent, seq)
        earlier = index.find_by_id(db, newest[0]) if newest is not None else None
        if earlier is None or earlier.node is None:
            continue
        was = _load(db, earlier.node)
        if was.version == earlier.id and not was.links:
            _insert_name(transaction, parent, name, was.node, seq, came_from=row)
            back.append({"node": was.node, "parent": parent, **encode_name(name)})
    return {"node": node, "shows": None, **({"back": back} if back else {})}


def _resolve_node(
    transaction: Transaction, write: Write, seq: int
) -> tuple[int | None, bytes | None, dict[str, Any]]:
    """Node and name that a write goes to, making them if the node is new; and what to record."""
    db = transaction.db
    if write.node is None:
        return None, write.name, encode_name(write.name)
    live = tree.find_live_names(db, write.node)
    if live:
        return write.node, tree.path_within_scope(db, *live[0][1:]), {"node": write.node}
    known = fetch(db, "SELECT 1 FROM nodes WHERE id = ?", (write.node,))
    if known or write.parent is None or write.name is None:
        past = fetch(
            db,
            "SELECT parent, name FROM names WHERE node = ? ORDER BY id DESC LIMIT 1",
            (write.node,),
        )
        name = tree.path_within_scope(db, *past[0]) if past else write.name
        return write.node, name, {"node": write.node}
    if not tree.is_reachable(db, write.parent):
        raise NotFound("the directory was removed")
    taken = tree.find_child(db, write.parent, write.name)
    name = tree.path_within_scope(db, write.parent, write.name)
    if taken is not None and taken.kind is NodeKind.FILE:
        return taken.node, name, {"node": taken.node}
    if taken is not None:
        raise NameExists(f"{show_name(write.name)} was made meanwhile, and is no file")
    db.execute(
        "INSERT INTO nodes(id, kind, scope) VALUES(?,?,?)",
        (write.node, int(NodeKind.FILE), write.scope_node),
    )
    _insert_name(transaction, write.parent, write.name, write.node, seq, slot=write.slot)
    members = {"node": write.node, "parent": write.parent, **encode_name(write.name)}
    return write.node, name, members


def _insert_name(
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
    db.execute(
        "INSERT INTO names(parent, name, node, from_seq, came_from, slot) VALUES(?,?,?,?,?,?)",
        (parent, name, node, seq, came_from, slot),
    )
    _touch_directory(transaction, parent)


def _end_name(transaction: Transaction, row: int, parent: int, seq: int) -> None:
    transaction.db.execute("UPDATE names SET until_seq = ? WHERE id = ?", (seq, row))
    _touch_directory(transaction, parent)


def _touch_directory(transaction: Transaction, node: int) -> None:
    transaction.db.execute(
        "UPDATE shown SET mtime_ns = ?2 WHERE node = ?1 AND from_seq ="
        " (SELECT MAX(from_seq) FROM shown WHERE node = ?1)",
        (node, transaction.now_us * 1000),
    )


def _show(
    transaction: Transaction, node: int, seq: int, version: int | None, mode: int, mtime_ns: int,
    target: bytes | None = None,
) -> None:  # fmt: skip
    transaction.db.execute(
        "INSERT INTO shown(node, from_seq, version, mode, mtime_ns, target) VALUES(?,?,?,?,?,?)",
        (node, seq, version, mode, mtime_ns, target),
    )


def _rewrite_unsettled(
    db: apsw.Connection, version: int | None, column: str, value: bytes | int
) -> None:
    """Until its envelope is placed, a version takes the final name and mtime of its file."""
    if version is not None:
        db.execute(
            f"UPDATE data_files SET {column} = ? WHERE id = ?"
            " AND EXISTS (SELECT 1 FROM staged WHERE version = data_files.id AND state = ?)",
            (value, version, int(StagedState.PUBLISHED)),
        )


def _check_new_file(db: apsw.Connection, parent: int, name: bytes) -> int:
    """The scope node of a file to be made in a directory. Raises the usual refusals."""
    place = tree.find_place(db, parent)
    if place is None or not tree.is_reachable(db, parent):
        raise NotFound("the directory was removed")
    check_file_place(place, name)
    if tree.find_child(db, parent, name) is not None:
        raise NameExists(f"{show_name(name)} exists already")
    scope_node = _scope_of(db, parent)
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


def _scope_of(db: apsw.Connection, node: int) -> int | None:
    rows = fetch(db, "SELECT scope FROM nodes WHERE id = ?", (node,))
    return rows[0][0] if rows else None


def _load(db: apsw.Connection, node: int) -> Entry:
    entry = tree.find_node(db, node)
    if entry is None:
        raise NotFound(f"node {node} is not there")
    return entry


def _load_name(db: apsw.Connection, parent: int, name: bytes) -> tuple[int, Entry]:
    entry = tree.find_child(db, parent, name)
    if entry is None:
        raise NotFound(f"{show_name(name)} is not there")
    return tree.load_name_id(db, parent, name), entry


def _attributes(mode: int, mtime_ns: int) -> dict[str, Any]:
    return {"mode": f"{mode:04o}", "mtimeNs": mtime_ns}
