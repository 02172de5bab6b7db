"""Publishing: staging a write's bytes, and making them a version.

Every function applies one change within a transaction. Times: `mtime_ns` of a source, nanoseconds.
Sizes in bytes.
"""

import enum
import json
from dataclasses import dataclass
from typing import Any

import apsw

from scopefs.errors import NameExists, NotFound
from scopefs.model.envelope import FileFacts, encode_frame, encode_name, stored_size
from scopefs.model.naming import NodeKind, show_name
from scopefs.model.payload import Kind, guess_type_of_name
from scopefs.model.scratch import NO_SCRATCH, ScratchPatterns
from scopefs.model.stamps import format_collected_at, format_stamp, next_collected_us
from scopefs.store import tree
from scopefs.store.chunks import drop_digests, record_digests
from scopefs.store.index import Version, insert_version
from scopefs.store.journal import Transaction
from scopefs.store.rows import (
    add_name,
    attribute_members,
    load_entry,
    note_directory,
    show,
    touch_directory,
)
from scopefs.store.sql import fetch

DUE = "(at_us <= ?2 OR at_us > ?2 + 1000000)"
"""Which staged rows are old enough to be settled at a time; a clock that stepped back must not
make those wait that seem to come from the future.
"""


_PAGE = 64


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


IS_UNPUBLISHED = f"state < {int(StagedState.PUBLISHED)}"
"""Of staged rows. As the index `staged_node` has it: with a bound value it would not be used."""


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
    digests: bytes | None = None
    """Those of its chunks (scopefs.store.chunks), if it has several and they are known."""


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
    created_ns: int | None = None
    """When a new name was made, which is its directory's mtime; None: now."""
    touch: bool = True
    """Whether the directory's mtime is still to be set."""
    writer_uid: int | None = None
    writer: str | None = None
    """User and program name of whoever opened it for writing."""
    metadata: str | None = None
    """What the sender of a payload that is no document said about it."""


def apply_stage(transaction: Transaction, write: Write, state: StagedState) -> int:
    """Keep a write's bytes in the journal; returns the id of its row."""
    row = _to_row(write, write.node, state)
    if write.sid is not None and fetch(
        transaction.db,
        "UPDATE staged SET owner=?, state=?, node=?, scope=?, parent=?, name=?, mode=?,"
        " mtime_ns=?, size=?, sha256=?, kind=?, media_type=?, payload=?, file=?, writer_uid=?,"
        " writer=?"
        " WHERE sid = ? RETURNING sid",
        (*row, write.sid),
    ):
        return write.sid
    return _insert_staged(transaction, (*row, None, None))


def _to_row(write: Write, node: int | None, state: StagedState) -> tuple[Any, ...]:
    sealed = write.sealed
    return (
        write.owner, int(state), node, write.scope_node, write.parent, write.name,
        write.mode, write.mtime_ns, sealed.size, sealed.sha256, int(sealed.kind),
        sealed.media_type, sealed.payload, sealed.file, write.writer_uid, write.writer,
    )  # fmt: skip


def _insert_staged(transaction: Transaction, row: tuple[Any, ...]) -> int:
    rows = fetch(
        transaction.db,
        "INSERT INTO staged(owner, state, node, scope, parent, name, mode, mtime_ns, size, sha256,"
        " kind, media_type, payload, file, writer_uid, writer, version, at_us)"
        " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) RETURNING sid",
        row,
    )
    return int(rows[0][0])


def apply_release(
    transaction: Transaction, write: Write, scratch: ScratchPatterns
) -> Version | None:
    """Record a finished write: as a version, as an empty file, or as a scratch file.

    It goes to the write's node, under whatever name that bears now; a node that is not known yet
    gets `write.name` in `write.parent`, or continues the file that took this name meanwhile.
    """
    seq = transaction.next_seq
    target = _resolve_node(transaction, write, seq, scratch)
    if not write.sealed.size:
        _show_empty(transaction, write, target, seq)
        return None
    if target.name is not None and scratch.is_scratch(target.name):
        _keep_scratch(transaction, write, target, seq)
        return None
    return _publish(transaction, write, target, seq)


def apply_publish(transaction: Transaction, write: Write) -> Version:
    """Make a write a version, whatever its name: row, name and event together."""
    seq = transaction.next_seq
    return _publish(transaction, write, _resolve_node(transaction, write, seq, NO_SCRATCH), seq)


def apply_show_empty(transaction: Transaction, write: Write) -> int | None:
    """Let a name show an empty file: no version. Returns the node that shows it now."""
    seq = transaction.next_seq
    target = _resolve_node(transaction, write, seq, NO_SCRATCH)
    _show_empty(transaction, write, target, seq)
    return target.node


def apply_publish_scratch(
    transaction: Transaction, node: int, scratch: ScratchPatterns
) -> Version | None:
    """Make a scratch file a version if it has an ordinary name by now."""
    db = transaction.db
    rows = fetch(
        db,
        "SELECT size, sha256, kind, media_type, payload, file, writer_uid, writer FROM scratch"
        " WHERE node = ?",
        (node,),
    )
    name = _find_name(db, node, scratch) if rows else None
    if name is None or scratch.is_scratch(name):
        return None
    db.execute("DELETE FROM scratch WHERE node = ?", (node,))
    entry = load_entry(db, node)
    assert entry.scope_node is not None
    size, sha256, kind, media_type, payload, file, writer_uid, writer = rows[0]
    media_type = guess_type_of_name(Kind(kind), name) or media_type
    write = Write(
        (file or "").partition("/")[0], entry.scope_node, node, None, None, entry.mode,
        entry.mtime_ns, Sealed(size, sha256, Kind(kind), media_type, payload, file),
        writer_uid=writer_uid, writer=writer,
    )  # fmt: skip
    return apply_publish(transaction, write)


def drop_scratch(transaction: Transaction, node: int) -> None:
    """Forget the bytes of a scratch file: it was written anew, or its last name ended."""
    rows = fetch(
        transaction.db, "DELETE FROM scratch WHERE node = ? RETURNING file, sha256", (node,)
    )
    if rows and rows[0][0] is not None:
        drop_digests(transaction.db, rows[0][1])
        # A crash before the commit finds the file; whoever settles next removes it.
        transaction.db.execute(
            "INSERT INTO moves(source, target) VALUES(?, '')", (f"staging/{rows[0][0]}",)
        )


def _keep_scratch(transaction: Transaction, write: Write, target: "_Target", seq: int) -> None:
    db = transaction.db
    drop_staged(transaction, write)
    if target.node is None or not target.is_live:
        if write.sealed.file is not None:
            db.execute(
                "INSERT INTO moves(source, target) VALUES(?, '')",
                (f"staging/{write.sealed.file}",),
            )
        return
    drop_scratch(transaction, target.node)
    sealed = write.sealed
    db.execute(
        "INSERT INTO scratch(node, size, sha256, kind, media_type, payload, file, writer_uid,"
        " writer) VALUES(?,?,?,?,?,?,?,?,?)",
        (target.node, sealed.size, sealed.sha256, int(sealed.kind), sealed.media_type,
         sealed.payload, sealed.file, write.writer_uid, write.writer),
    )  # fmt: skip
    _record_digests(transaction, sealed)
    mtime_ns = transaction.now_us * 1000 if write.mtime_ns is None else write.mtime_ns
    show(transaction, target.node, seq, None, write.mode, mtime_ns)
    transaction.record_event(
        "scratch", write.scope_node,
        {**target.members, "sizeBytes": sealed.size, **attribute_members(write.mode, mtime_ns)},
    )  # fmt: skip


def _publish(transaction: Transaction, write: Write, target: "_Target", seq: int) -> Version:
    db = transaction.db
    sealed = write.sealed
    node, name, members = target.node, target.name, target.members
    rows = fetch(db, "SELECT scope, last_us FROM scopes WHERE node = ?", (write.scope_node,))
    scope, last_us = rows[0]
    collected_us = next_collected_us(transaction.now_us, last_us)
    mtime_ns = transaction.now_us * 1000 if write.mtime_ns is None else write.mtime_ns
    facts = FileFacts(
        sealed.kind, sealed.size, sealed.sha256, sealed.media_type, name, mtime_ns, write.metadata
    )
    head, tail = encode_frame(scope, collected_us, facts)
    version = insert_version(
        db, f"data/{scope.replace('.', '/')}/{format_stamp(collected_us)}.json", scope,
        collected_us, len(head) + stored_size(sealed.kind, sealed.size) + len(tail),
        created_at=format_collected_at(transaction.now_us), kind=sealed.kind, node=node, name=name,
        mtime_ns=mtime_ns, payload_size=sealed.size, payload_sha256=sealed.sha256,
        media_type=sealed.media_type, writer_uid=write.writer_uid, writer=write.writer,
        metadata=write.metadata,
    )  # fmt: skip
    if node is not None:
        if not target.is_new:
            drop_scratch(transaction, node)
        show(transaction, node, seq, version.id, write.mode, mtime_ns)
    _record_digests(transaction, sealed)
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
        row = _to_row(write, node, StagedState.PUBLISHED)
        _insert_staged(transaction, (*row, version.id, transaction.now_us))
    return version


def _record_digests(transaction: Transaction, sealed: Sealed) -> None:
    if sealed.digests is not None:
        record_digests(transaction.db, {sealed.sha256: sealed.digests})


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


def _show_empty(transaction: Transaction, write: Write, target: "_Target", seq: int) -> None:
    if target.node is not None:
        drop_scratch(transaction, target.node)
        mtime_ns = transaction.now_us * 1000 if write.mtime_ns is None else write.mtime_ns
        show(transaction, target.node, seq, None, write.mode, mtime_ns)
        transaction.record_event(
            "empty",
            write.scope_node,
            {**target.members, **attribute_members(write.mode, mtime_ns)},
        )
    drop_staged(transaction, write)


def apply_freeze(
    transaction: Transaction, older_than_us: int, limit: int, most_bytes: int
) -> tuple[list[tuple[int, int, str | None]], bool]:
    """Choose published rows to be settled now: `(sid, version, file)`, oldest first.

    At most `limit` rows, until the payloads in them come to `most_bytes`. Returns with them whether
    there may be more. From here on their envelopes do not change, whatever happens to their names.
    """
    chosen: list[int] = []
    size = 0
    while len(chosen) < limit and size < most_bytes:
        # In pages, for to look at a row is to read its payload.
        page = fetch(
            transaction.db,
            "SELECT sid, IFNULL(LENGTH(payload), 0) FROM staged"
            f" WHERE state >= ?1 AND {DUE} AND sid > ?3 ORDER BY sid LIMIT ?4",
            (int(StagedState.PUBLISHED), older_than_us, chosen[-1] if chosen else 0,
             min(_PAGE, limit - len(chosen))),
        )  # fmt: skip
        if not page:
            break
        for sid, payload_size in page:
            if size < most_bytes:
                chosen.append(sid)
                size += payload_size
    rows = fetch(
        transaction.db,
        "UPDATE staged SET state = ? WHERE sid IN (SELECT value FROM json_each(?))"
        " RETURNING sid, version, file",
        (int(StagedState.SETTLING), json.dumps(chosen)),
    )
    return sorted(rows, key=lambda row: row[0]), len(chosen) >= limit or size >= most_bytes


def drop_staged(transaction: Transaction, write: Write) -> None:
    """Forget the staged bytes of a write that will not be published."""
    if write.sid is not None:
        transaction.db.execute("DELETE FROM staged WHERE sid = ?", (write.sid,))


@dataclass(frozen=True, slots=True)
class _Target:
    """Node and name that a write goes to, and what its event says about them."""

    node: int | None
    name: bytes | None
    """Within the scope, folders included."""
    members: dict[str, Any]
    is_live: bool = True
    is_new: bool = False


def _resolve_node(
    transaction: Transaction, write: Write, seq: int, scratch: ScratchPatterns
) -> _Target:
    """Where a write goes; the node and its name are made if it is new."""
    db = transaction.db
    if write.node is None:
        return _Target(None, write.name, encode_name(write.name))
    members: dict[str, Any] = {"node": write.node}
    known = fetch(db, "SELECT 1 FROM nodes WHERE id = ?", (write.node,))
    if known or write.parent is None or write.name is None:
        name = _find_name(db, write.node, scratch)
        if name is not None:
            return _Target(write.node, name, members)
        past = fetch(
            db,
            "SELECT parent, name FROM names WHERE node = ? ORDER BY id DESC LIMIT 1",
            (write.node,),
        )
        name = tree.path_within_scope(db, *past[0]) if past else write.name
        return _Target(write.node, name, members, is_live=False)
    room = tree.find_room(db, write.parent, write.name)
    if not room.is_reachable:
        raise NotFound("the directory was removed")
    taken = room.taken
    name = write.name
    if write.parent != write.scope_node:
        name = tree.path_within_scope(db, write.parent, write.name)
    if taken is not None and taken[1] is NodeKind.FILE:
        return _Target(taken[0], name, {"node": taken[0]})
    if taken is not None:
        raise NameExists(f"{show_name(write.name)} was made meanwhile, and is no file")
    db.execute(
        "INSERT INTO nodes(id, kind, scope) VALUES(?,?,?)",
        (write.node, int(NodeKind.FILE), write.scope_node),
    )
    # A slot that the name has already; or the one that the mount gave it, or a new node's number.
    slot = next(found for found in (room.slot, write.slot, write.node) if found is not None)
    add_name(transaction, write.parent, write.name, write.node, seq, None, slot)
    if write.touch:
        touch_directory(transaction, write.parent, write.created_ns)
    else:
        note_directory(transaction, write.parent)
    return _Target(
        write.node, name, {**members, "parent": write.parent, **encode_name(write.name)},
        is_new=True,
    )  # fmt: skip


def _find_name(db: apsw.Connection, node: int, scratch: ScratchPatterns) -> bytes | None:
    """The live name of a file, folders included: an ordinary one, if it has one."""
    name: bytes | None = None
    for _, parent, base in tree.find_live_names(db, node):
        found = tree.path_within_scope(db, parent, base)
        if not scratch.is_scratch(found):
            return found
        name = name or found
    return name


def rename_unsettled(db: apsw.Connection, version_id: int | None, name: bytes) -> None:
    """Until its envelope is placed, a version takes the final name of its file."""
    rows = fetch(
        db, f"SELECT kind, media_type FROM data_files WHERE id = ? AND {_IS_UNSETTLED}",
        (version_id,),
    )  # fmt: skip
    for kind, media_type in rows:
        db.execute(
            "UPDATE data_files SET name = ?, media_type = ? WHERE id = ?",
            (name, guess_type_of_name(Kind(kind), name) or media_type, version_id),
        )


def retime_unsettled(db: apsw.Connection, version_id: int | None, mtime_ns: int) -> None:
    """Until its envelope is placed, a version takes the final mtime of its file."""
    db.execute(
        f"UPDATE data_files SET mtime_ns = ? WHERE id = ? AND {_IS_UNSETTLED}",
        (mtime_ns, version_id),
    )


_IS_UNSETTLED = (
    "EXISTS (SELECT 1 FROM staged WHERE version = data_files.id"
    f" AND state = {int(StagedState.PUBLISHED)})"
)
