"""Publishing: staging a write's bytes, and making them a version.

Every function applies one change within a transaction. Times: `mtime_ns` of a source, nanoseconds.
Sizes in bytes.
"""

import enum
from dataclasses import dataclass
from typing import Any

import apsw

from scopefs.errors import NameExists, NotFound
from scopefs.model.envelope import FileFacts, encode_frame, encode_name, stored_size
from scopefs.model.naming import NodeKind, show_name
from scopefs.model.payload import Kind
from scopefs.model.stamps import format_collected_at, format_stamp, next_collected_us
from scopefs.store import tree
from scopefs.store.index import Version, insert_version
from scopefs.store.journal import Transaction
from scopefs.store.rows import attribute_members, insert_name, show
from scopefs.store.sql import fetch

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
    writer_uid: int | None = None
    writer: str | None = None
    """User and program name of whoever opened it for writing."""


def apply_stage(transaction: Transaction, write: Write, state: StagedState) -> int:
    """Keep a write's bytes in the journal; returns the id of its row."""
    sealed = write.sealed
    row = (
        write.owner, int(state), write.node, write.scope_node, write.parent, write.name,
        write.mode, write.mtime_ns, sealed.size, sealed.sha256, int(sealed.kind),
        sealed.media_type, sealed.payload, sealed.file, write.writer_uid, write.writer,
    )  # fmt: skip
    if write.sid is not None and fetch(
        transaction.db,
        "UPDATE staged SET owner=?, state=?, node=?, scope=?, parent=?, name=?, mode=?,"
        " mtime_ns=?, size=?, sha256=?, kind=?, media_type=?, payload=?, file=?, writer_uid=?,"
        " writer=?"
        " WHERE sid = ? RETURNING sid",
        (*row, write.sid),
    ):
        return write.sid
    rows = fetch(
        transaction.db,
        "INSERT INTO staged(owner, state, node, scope, parent, name, mode, mtime_ns, size, sha256,"
        " kind, media_type, payload, file, writer_uid, writer)"
        " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) RETURNING sid",
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
        media_type=sealed.media_type, writer_uid=write.writer_uid, writer=write.writer,
    )  # fmt: skip
    if node is not None:
        show(transaction, node, seq, version.id, write.mode, mtime_ns)
    db.execute(
        "UPDATE scopes SET last_us = ?, versions = versions + 1, bytes = bytes + ? WHERE node = ?",
        (collected_us, sealed.size, write.scope_node),
    )
    transaction.record_event(
        "version", write.scope_node,
        {"version": version.id, "scope": scope, "collectedAt": version.collected_at,
         "sizeBytes": sealed.size, **encode_name(name, "file"), **members,
         **attribute_members(write.mode, mtime_ns), **_writer_members(write)},
        collected_us,
    )  # fmt: skip
    # Its row may be gone: another process ended the file's last name since it was staged.
    if write.sid is None or not _set_published(transaction, write.sid, node, version.id):
        sid = apply_stage(transaction, write, StagedState.PUBLISHED)
        _set_published(transaction, sid, node, version.id)
    return version


def _writer_members(write: Write) -> dict[str, Any]:
    members = {"writer": write.writer, "uid": write.writer_uid}
    return {key: value for key, value in members.items() if value is not None}


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
        show(transaction, node, seq, None, write.mode, mtime_ns)
        transaction.record_event(
            "empty", write.scope_node, {**members, **attribute_members(write.mode, mtime_ns)}
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
    insert_name(transaction, write.parent, write.name, write.node, seq, slot=write.slot)
    members = {"node": write.node, "parent": write.parent, **encode_name(write.name)}
    return write.node, name, members


def rewrite_unsettled(
    db: apsw.Connection, version: int | None, column: str, value: bytes | int
) -> None:
    """Until its envelope is placed, a version takes the final name and mtime of its file."""
    if version is not None:
        db.execute(
            f"UPDATE data_files SET {column} = ? WHERE id = ?"
            " AND EXISTS (SELECT 1 FROM staged WHERE version = data_files.id AND state = ?)",
            (value, version, int(StagedState.PUBLISHED)),
        )
