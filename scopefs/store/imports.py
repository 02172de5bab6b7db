"""Importing: versions that come from elsewhere keep their times; so do files their names.

Every function applies one change within a transaction and looks again inside. What is there is
never replaced: an equal version is left alone, a different one at the same time is a conflict. A
version is a row like any other, and is placed by settling like any other; its staged row is frozen
from the start, so that its envelope stays the one that came, whatever its file is called later.

Which file a version belongs to: what the source says about its files (`SourceFile`); else the file
that bears the envelope's name now. A file shows the newest of its versions by collectedAt. A name
is taken from another file only if that shows an older version.

Raises `Conflict`, `InvalidTime`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from scopefs.errors import Conflict, NotFound
from scopefs.model.envelope import encode_frame, encode_name, stored_size
from scopefs.model.imports import Arrival, check_arrival_time
from scopefs.model.naming import NodeKind
from scopefs.model.scope import Scope
from scopefs.model.stamps import format_collected_at, format_stamp
from scopefs.store import changes, index, tree
from scopefs.store.chunks import record_digests
from scopefs.store.import_names import (
    Claimed,
    Names,
    SourceFile,
    find_shown_us,
    locate,
    unlink,
)
from scopefs.store.index import Version, insert_version
from scopefs.store.journal import Transaction
from scopefs.store.payloads import file_facts
from scopefs.store.publish import Sealed, StagedState, Write, apply_stage, drop_scratch
from scopefs.store.rows import (
    allocate_nodes,
    attribute_members,
    insert_name,
    load_entry,
    show,
)
from scopefs.store.sql import fetch
from scopefs.store.tree import Entry


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an arrival."""

    version: Version
    was_there: bool


def find_equal(db: apsw.Connection, arrival: Arrival) -> Version | None:
    """The version that is the arrival already. Raises `Conflict` if another one has its time.

    An envelope is a function of its facts, so equal facts are equal bytes.
    """
    found = index.find_exact(db, arrival.scope.raw, arrival.collected_us)
    if found is not None and file_facts(found) != arrival.facts:
        raise Conflict(
            f"{arrival.scope} has another version at {format_collected_at(arrival.collected_us)}: "
            "versions are never overwritten"
        )
    return found


def find_with_payload(db: apsw.Connection, sha256: bytes) -> Version | None:
    """A version whose payload is a blob with that hash, in the trash or not."""
    rows = fetch(
        db,
        "SELECT id FROM data_files WHERE payload_sha256 = ? AND kind = 2 ORDER BY id LIMIT 1",
        (sha256,),
    )
    return index.find_by_id(db, rows[0][0]) if rows else None


def apply_import(
    transaction: Transaction, arrival: Arrival, sealed: Sealed | None, owner: str,
    file: SourceFile | None = None, claimed: Claimed | None = None, *, is_removed: bool = False,
) -> Imported:  # fmt: skip
    """Make an arrival a version, and let its file show it if it is that file's newest.

    `sealed`: where its bytes are; None only if it is there already, and then nothing is changed.
    `file`: the file of the source that it belongs to; its node is noted there and in `claimed`.
    `is_removed`: the scope's directory is gone in the source, and is not made.
    """
    db = transaction.db
    claimed = {} if claimed is None else claimed
    check_arrival_time(arrival.collected_us, transaction.now_us)
    existing = find_equal(db, arrival)
    if existing is not None:
        if file is not None and file.node is None and existing.node is not None:
            file.node = existing.node
            claimed.setdefault(existing.node, file)
        return Imported(existing, was_there=True)
    assert sealed is not None
    if is_removed:
        scope_node = _load_scope_node(db, arrival.scope)
    else:
        scope_node = changes.ensure_scope(transaction, arrival.scope)
    target = file or _file_of(arrival)
    if target is None:
        version = _insert(transaction, arrival, sealed, owner, scope_node, None)
        _record(transaction, version, scope_node, None, 0, 0, None)
        return Imported(version, was_there=False)
    node = _find_file(db, arrival.scope, scope_node, target, claimed)
    entry = None if node is None else load_entry(db, node)
    is_newest = entry is None or find_shown_us(db, entry) < arrival.collected_us
    is_last = file is not None and arrival.collected_us == file.newest_us
    names = Names(scope_node, arrival.collected_us, claimed, is_passing=not target.names)
    wanted = target.names or _passing_names(arrival)
    if entry is None:
        node = _add_node(transaction, scope_node)
    elif is_newest or (target.names and not entry.links):
        names.give(transaction, entry.node, wanted, only=is_newest and file is not None)
    assert node is not None
    version = _insert(transaction, arrival, sealed, owner, scope_node, node)
    if is_newest:
        drop_scratch(transaction, node)
    mode = target.mode if is_last or entry is None else entry.mode
    mtime_ns = target.mtime_ns if is_last else _mtime_ns(arrival)
    first = names.find_free(transaction, node, wanted) if entry is None else None
    _record(transaction, version, scope_node, None if is_newest else entry, mode, mtime_ns, first)
    if entry is None:
        names.give(transaction, node, wanted, only=False)
    if is_last and is_newest:
        _finish(transaction, scope_node, node, target)
    if file is not None:
        file.node = node
        claimed[node] = file
    return Imported(version, was_there=False)


def apply_import_ending(
    transaction: Transaction, arrival: Arrival, sealed: Sealed | None, owner: str,
    ending: tuple[int, bytes] | None,
) -> Imported:  # fmt: skip
    """Import a version that came alone, as a file whose name (directory, name) ends with that.

    Raises `Conflict` also if an equal version, for which nothing was sealed, has gone meanwhile.
    """
    if sealed is None and find_equal(transaction.db, arrival) is None:
        raise Conflict("the version was removed just now: try again")
    result = apply_import(transaction, arrival, sealed, owner)
    if ending is not None:
        changes.apply_unlink(transaction, *ending)
    return result


def apply_restore(transaction: Transaction, scope: Scope, file: SourceFile) -> bool:
    """Give a file whose versions are all there its names back, if it has none any more.

    True if it got one. A name that is taken stays with whom it is.
    """
    db = transaction.db
    scope_node = tree.find_scope_node(db, scope.raw)
    if file.node is None or scope_node is None or not tree.is_reachable(db, scope_node):
        return False
    if load_entry(db, file.node).links:
        return False
    Names(scope_node, 0, {}).give(transaction, file.node, file.names, only=False)
    return load_entry(db, file.node).links > 0


def apply_import_scope(
    transaction: Transaction, scope: Scope, mode: int, *, is_removed: bool
) -> list[int]:
    """Make a scope's directory, or only its history if it was removed. Returns what was made."""
    db = transaction.db
    node = tree.find_scope_node(db, scope.raw)
    if node is not None and (is_removed or tree.is_reachable(db, node)):
        return []
    made: list[tuple[int, bytes]] = []
    parent = tree.ROOT_NODE
    for segment in scope.segments:
        name = segment.encode("ascii")
        if tree.find_child(db, parent, name) is None:
            made.append((parent, name))
        parent = changes.ensure_directory(transaction, parent, name)
    if is_removed:
        for above, name in reversed(made):
            changes.apply_rmdir(transaction, above, name)
        return []
    if mode != changes.DIRECTORY_MODE:
        changes.apply_attributes(transaction, parent, mode, None)
    return [parent]


def apply_import_folder(
    transaction: Transaction, scope: Scope, path: bytes, mode: int
) -> int | None:
    """Make a folder. Its node; None if there is something of that name."""
    located = locate(transaction, _load_scope_node(transaction.db, scope), path, folder=True)
    if located is None or tree.find_child(transaction.db, *located) is not None:
        return None
    return changes.apply_mkdir(transaction, *located, mode)


def apply_import_empty(transaction: Transaction, scope: Scope, file: SourceFile) -> bool:
    """Make a file that has no version, unless one of its names is taken. True if it was made."""
    scope_node = _load_scope_node(transaction.db, scope)
    located = _locate_all(transaction, scope_node, file.names)
    if not located:
        return False
    node = _add_node(transaction, scope_node)
    seq = transaction.next_seq
    insert_name(transaction, *located[0], node, seq)
    show(transaction, node, seq, None, file.mode, file.mtime_ns)
    transaction.record_event(
        "empty", scope_node,
        {"node": node, "parent": located[0][0], **encode_name(located[0][1]),
         **attribute_members(file.mode, file.mtime_ns)},
    )  # fmt: skip
    for parent, name in located[1:]:
        changes.apply_link(transaction, node, parent, name)
    return True


def apply_import_symlink(
    transaction: Transaction, scope: Scope, names: Sequence[bytes], target: bytes, mtime_ns: int
) -> bool:
    """Make a symbolic link, unless one of its names is taken. True if it was made."""
    located = _locate_all(transaction, _load_scope_node(transaction.db, scope), names)
    if not located:
        return False
    entry = changes.apply_symlink(transaction, *located[0], target)
    changes.apply_attributes(transaction, entry.node, None, mtime_ns)
    for parent, name in located[1:]:
        changes.apply_link(transaction, entry.node, parent, name)
    return True


def apply_directory_times(transaction: Transaction, times_ns: Mapping[int, int]) -> None:
    """Set the mtimes of directories that an import has made and filled."""
    for node, mtime_ns in times_ns.items():
        changes.apply_attributes(transaction, node, None, mtime_ns)


def _file_of(arrival: Arrival) -> SourceFile | None:
    """The file of a version that comes alone: the one of its name."""
    if arrival.facts.name is None:
        return None
    return SourceFile((arrival.facts.name,), changes.FILE_MODE, _mtime_ns(arrival))


def _mtime_ns(arrival: Arrival) -> int:
    mtime_ns = arrival.facts.mtime_ns
    return arrival.collected_us * 1000 if mtime_ns is None else mtime_ns


def _passing_names(arrival: Arrival) -> tuple[bytes, ...]:
    """A name that a removed file had: it bears it until its newest version is there."""
    return () if arrival.facts.name is None else (arrival.facts.name,)


def _find_file(
    db: apsw.Connection, scope: Scope, scope_node: int, file: SourceFile, claimed: Claimed
) -> int | None:
    """The file of this vault that a source's file is; None if there is none."""
    if file.node is not None:
        return file.node
    if file.versions:
        rows = fetch(
            db,
            "SELECT collected_us, payload_sha256, node FROM data_files WHERE scope = ?1"
            " AND deleted_seq IS NULL AND node IS NOT NULL"
            " AND collected_us IN (SELECT value FROM json_each(?2))",
            (scope.raw, f"[{','.join(map(str, file.versions))}]"),
        )
        for collected_us, sha256, node in rows:
            if file.versions[collected_us] == sha256 and node not in claimed:
                return int(node)
    for path in file.names:
        holder = _find_path(db, scope_node, path)
        if holder is not None and holder.kind is NodeKind.FILE and holder.node not in claimed:
            return holder.node
    return None


def _find_path(db: apsw.Connection, scope_node: int, path: bytes) -> Entry | None:
    """What a name within a scope leads to now."""
    *folders, base = path.split(b"/")
    node = scope_node
    for folder in folders:
        found = tree.find_child(db, node, folder)
        if found is None or found.kind is not NodeKind.FOLDER:
            return None
        node = found.node
    return tree.find_child(db, node, base)


def _locate_all(
    transaction: Transaction, scope_node: int, names: Sequence[bytes]
) -> list[tuple[int, bytes]]:
    """Where all names of a file go; empty if one of them is taken or cannot be."""
    located = [locate(transaction, scope_node, path) for path in names]
    found = [place for place in located if place is not None]
    if len(found) < len(located):
        return []
    if any(tree.find_child(transaction.db, *place) is not None for place in found):
        return []
    return found


def _add_node(transaction: Transaction, scope_node: int) -> int:
    node = allocate_nodes(transaction, 1)
    transaction.db.execute(
        "INSERT INTO nodes(id, kind, scope) VALUES(?,?,?)",
        (node, int(NodeKind.FILE), scope_node),
    )
    return node


def _insert(
    transaction: Transaction, arrival: Arrival, sealed: Sealed, owner: str, scope_node: int,
    node: int | None,
) -> Version:  # fmt: skip
    """The rows of a version, its bytes and its event."""
    db = transaction.db
    facts, scope, collected_us = arrival.facts, arrival.scope.raw, arrival.collected_us
    head, tail = encode_frame(scope, collected_us, facts)
    version = insert_version(
        db, f"data/{scope.replace('.', '/')}/{format_stamp(collected_us)}.json", scope,
        collected_us, len(head) + stored_size(facts.kind, facts.size_bytes) + len(tail),
        created_at=format_collected_at(transaction.now_us), kind=facts.kind, node=node,
        name=facts.name, mtime_ns=facts.mtime_ns, payload_size=facts.size_bytes,
        payload_sha256=facts.sha256, media_type=facts.media_type, metadata=facts.metadata,
    )  # fmt: skip
    db.execute(
        "UPDATE scopes SET last_us = MAX(last_us, ?), versions = versions + 1, bytes = bytes + ?"
        " WHERE node = ?",
        (collected_us, facts.size_bytes, scope_node),
    )
    write = Write(owner, scope_node, node, None, None, changes.FILE_MODE, facts.mtime_ns, sealed)
    sid = apply_stage(transaction, write, StagedState.SETTLING)
    if sealed.digests is not None:
        record_digests(db, {facts.sha256: sealed.digests})
    db.execute(
        "UPDATE staged SET version = ?, at_us = ? WHERE sid = ?",
        (version.id, transaction.now_us, sid),
    )
    return version


def _record(
    transaction: Transaction, version: Version, scope_node: int, entry: Entry | None,
    mode: int, mtime_ns: int, first: tuple[int, bytes] | None,
) -> None:  # fmt: skip
    """Let a version's file show it, and record its event.

    `entry`: what the file is to show again behind it, because that is newer; the version is in its
    history then. `first`: directory and name of a file that is new.
    """
    seq = transaction.next_seq
    members: dict[str, Any] = {}
    if version.node is not None:
        members["node"] = version.node
        if first is not None:
            insert_name(transaction, *first, version.node, seq)
            members |= {"parent": first[0], **encode_name(first[1])}
        show(transaction, version.node, seq, version.id, mode, mtime_ns)
        members |= attribute_members(mode, mtime_ns)
    transaction.record_event(
        "version", scope_node,
        {"version": version.id, "scope": version.scope, "collectedAt": version.collected_at,
         "sizeBytes": version.payload_size, **encode_name(version.name, "file"), **members,
         "imported": True},
        version.collected_us,
    )  # fmt: skip
    if entry is not None:
        seq = transaction.next_seq
        show(transaction, entry.node, seq, entry.version, entry.mode, entry.mtime_ns)
        transaction.record_event(
            "show", scope_node,
            {"node": entry.node, "shows": entry.version,
             **attribute_members(entry.mode, entry.mtime_ns)},
        )  # fmt: skip


def _finish(transaction: Transaction, scope_node: int, node: int, file: SourceFile) -> None:
    """Behind the newest version of a file: what the source says has become of it since."""
    if not file.names:
        for row, parent, name in tree.find_live_names(transaction.db, node):
            unlink(transaction, scope_node, node, row, parent, name)
    elif file.is_empty:
        seq = transaction.next_seq
        show(transaction, node, seq, None, file.mode, file.mtime_ns)
        transaction.record_event(
            "empty", scope_node, {"node": node, **attribute_members(file.mode, file.mtime_ns)}
        )


def _load_scope_node(db: apsw.Connection, scope: Scope) -> int:
    node = tree.find_scope_node(db, scope.raw)
    if node is None:
        raise NotFound(f'No data found for scope "{scope.raw}"')
    return node
