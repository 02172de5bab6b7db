"""The checks of rows alone: I7 to I15, I18. Each page is one statement, and so of one moment."""

import hashlib
import re
from collections.abc import Callable, Iterator

from scopefs.errors import IndexBroken, InvalidName, InvalidScope, InvalidTime
from scopefs.model.events import decode_detail
from scopefs.model.naming import NodeKind, check_name, show_name
from scopefs.model.payload import Kind
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import format_stamp, parse_collected_at
from scopefs.store.checks.context import REINDEX, Checked, Cursor, Page
from scopefs.store.problems import Problem
from scopefs.store.publish import StagedState
from scopefs.store.sql import Row, fetch

_PAGE = 1000
_FEW = 50
_OWNER = re.compile(r"[0-9a-f]{32}\Z")
_STAGING_FILE = re.compile(r"[0-9a-f]{32}/[1-9]\d*\Z")
_MOVED = re.compile(r"(data|trash|blobs|staging)/[^\0]+\Z")

_BELOW = {
    NodeKind.SOURCE: {NodeKind.ROOT},
    NodeKind.SCOPE: {NodeKind.SOURCE, NodeKind.SCOPE},
    NodeKind.FOLDER: {NodeKind.SCOPE, NodeKind.FOLDER},
    NodeKind.FILE: {NodeKind.SCOPE, NodeKind.FOLDER},
    NodeKind.SYMLINK: {NodeKind.SCOPE, NodeKind.FOLDER},
}
"""In which directories a thing may stand."""

Faults = Iterator[str]


def _check_pages(
    checked: Checked, after: Cursor, code: str, statement: str, limit: int,
    where: Callable[[Row], str], find_faults: Callable[[Row], Faults], keys: int = 1,
) -> Iterator[Page]:  # fmt: skip
    """Pages of a query by its first columns, each row of which is looked at by itself."""
    cursor = after or [-1] * keys
    while True:
        with checked.read() as db:
            rows = fetch(db, statement, (*cursor, limit))
        if not rows:
            return
        cursor = list(rows[-1][:keys])
        problems = [
            Problem(code, where(row), fault, REINDEX)
            for row in rows
            for fault in _read_row(row, find_faults)
        ]
        yield Page(cursor, len(rows), problems)


def _read_row(row: Row, find_faults: Callable[[Row], Faults]) -> list[str]:
    """The faults of a row; that it holds something of which nobody can say anything is one too."""
    try:
        return list(find_faults(row))
    except (TypeError, ValueError, AttributeError, OverflowError, IndexBroken) as error:
        return [f"it cannot be read: {error}"]


def check_version_rows(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I7: a version's row agrees with itself."""
    return _check_pages(
        checked, after, "I7",
        "SELECT d.id, d.path, d.scope, d.collected_at, d.collected_us, d.kind, d.node, d.name,"
        " d.payload_size, d.payload_sha256, d.deleted_seq, k.kind, k.scope, s.node, d.size_bytes"
        " FROM data_files d LEFT JOIN nodes k ON k.id = d.node"
        " LEFT JOIN scopes s ON s.scope = d.scope WHERE d.id > ? ORDER BY d.id LIMIT ?",
        _PAGE, lambda row: f"data_files {row[0]} ({row[1]})", _find_version_faults,
    )  # fmt: skip


def _find_version_faults(row: Row) -> Faults:
    (_, path, scope, collected_at, collected_us, kind, node, name, size, sha256, deleted_seq,
     node_kind, node_scope, scope_node, size_bytes) = row  # fmt: skip
    try:
        parse_scope(scope)
        if parse_collected_at(collected_at) != collected_us:
            yield f"collected_at {collected_at} is not collected_us {collected_us}"
        above = "data" if deleted_seq is None else f"trash/{deleted_seq}"
        wanted = f"{above}/{scope.replace('.', '/')}/{format_stamp(collected_us)}.json"
        if path != wanted:
            yield f"its path should be {wanted}"
    except (InvalidScope, InvalidTime, TypeError, AttributeError, OverflowError) as error:
        yield f"its scope or time is none: {error}"
    if kind not in tuple(Kind) or not isinstance(sha256, bytes) or len(sha256) != 32:
        yield "it has no kind or no hash: its envelope was missing when the index was rebuilt"
    if not isinstance(size, int) or size < 1 or not isinstance(size_bytes, int):
        yield f"its size is {size!r}"
    if scope_node is None:
        yield f"there is no scope {scope}"
    if node is not None and (node_kind != NodeKind.FILE or node_scope != scope_node):
        yield f"node {node} is no file of its scope"
    if name is not None and (not isinstance(name, bytes) or not name):
        yield f"its name is {name!r}"


def check_scopes(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I8: the counters of scopes."""
    return _check_pages(
        checked, after, "I8",
        "SELECT s.node, s.scope, s.last_us, s.versions, s.bytes, k.kind, k.scope,"
        " (SELECT COUNT(*) FROM data_files d WHERE d.scope = s.scope AND d.deleted_seq IS NULL),"
        " (SELECT COALESCE(SUM(payload_size), 0) FROM data_files d WHERE d.scope = s.scope"
        "   AND d.deleted_seq IS NULL),"
        " (SELECT MAX(d.collected_us) FROM data_files d WHERE d.scope = s.scope"
        "   AND d.deleted_seq IS NULL)"
        " FROM scopes s LEFT JOIN nodes k ON k.id = s.node WHERE s.node > ?"
        " ORDER BY s.node LIMIT ?",
        _FEW, lambda row: f"scopes {row[0]} ({row[1]})", _find_scope_faults,
    )  # fmt: skip


def _find_scope_faults(row: Row) -> Faults:
    node, _, last_us, versions, size, kind, own, counted, summed, newest_us = row
    if kind != NodeKind.SCOPE or own != node:
        yield "its node is no directory of a scope"
    if (versions, size) != (counted, summed):
        yield (f"it counts {versions} versions and {size} bytes; there are {counted} and {summed}")
    if newest_us is not None and newest_us > last_us:
        yield "it has a version that is later than the latest it knows of"


def check_nodes(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I9: nodes."""
    return _check_pages(
        checked, after, "I9",
        "SELECT k.id, k.kind, k.scope, (SELECT value FROM meta WHERE key = 'next_node'),"
        " EXISTS (SELECT 1 FROM scopes s WHERE s.node = k.scope),"
        " EXISTS (SELECT 1 FROM shown s WHERE s.node = k.id)"
        " FROM nodes k WHERE k.id > ? ORDER BY k.id LIMIT ?",
        _PAGE, lambda row: f"nodes {row[0]}", _find_node_faults,
    )  # fmt: skip


def _find_node_faults(row: Row) -> Faults:
    node, kind, scope, next_node, has_scope, is_shown = row
    if kind not in tuple(NodeKind):
        yield f"its kind is {kind!r}"
        return
    if not isinstance(next_node, int) or node >= next_node:
        yield f"it is not below the next one to be given out, {next_node}"
    if kind <= NodeKind.SOURCE and scope is not None:
        yield "it is in no scope, and names one"
    if kind > NodeKind.SOURCE and not has_scope:
        yield f"its scope, node {scope}, is not there"
    if not is_shown:
        yield "it shows nothing"


def check_names(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I10 and I11: directory entries, now and in the past."""
    pages = _check_pages(
        checked, after, "I10",
        "SELECT n.id, n.parent, n.name, n.node, n.from_seq, n.until_seq, n.slot, p.kind, k.kind,"
        " n.came_from IS NULL OR EXISTS (SELECT 1 FROM names o WHERE o.id = n.came_from),"
        " (SELECT o.slot FROM names o WHERE o.parent = n.parent AND o.name = n.name"
        "   ORDER BY o.from_seq LIMIT 1),"
        " EXISTS (SELECT 1 FROM names o WHERE o.parent = n.parent AND o.name = n.name"
        "   AND o.from_seq > n.from_seq AND (n.until_seq IS NULL OR o.from_seq < n.until_seq)),"
        " (SELECT MAX(seq) FROM events), (SELECT value FROM meta WHERE key = 'next_node'),"
        " n.parent = 1 OR EXISTS (SELECT 1 FROM names l WHERE l.node = n.parent"
        "   AND l.until_seq IS NULL),"
        " CASE WHEN k.kind <= 3 THEN (SELECT COUNT(*) FROM names l WHERE l.node = n.node"
        "   AND l.until_seq IS NULL) ELSE 1 END"
        " FROM names n LEFT JOIN nodes p ON p.id = n.parent LEFT JOIN nodes k ON k.id = n.node"
        " WHERE n.id > ? ORDER BY n.id LIMIT ?",
        _PAGE, _where_name, _find_name_faults,
    )  # fmt: skip
    # A fault of the tree says so in front.
    for page in pages:
        yield Page(page.cursor, page.count, [_sort_name_fault(found) for found in page.problems])


def _sort_name_fault(found: Problem) -> Problem:
    if not found.what.startswith("I11: "):
        return found
    return Problem("I11", found.where, found.what.removeprefix("I11: "), found.do)


def _where_name(row: Row) -> str:
    name = show_name(row[2]) if isinstance(row[2], bytes) else repr(row[2])
    return f"names {row[0]} ({name} in node {row[1]})"


def _find_name_faults(row: Row) -> Faults:
    (_, parent, name, node, from_seq, until_seq, slot, parent_kind, kind, has_origin, first_slot,
     overlaps, last_seq, next_node, is_reachable, live_names) = row  # fmt: skip
    if parent_kind is None or parent_kind > NodeKind.FOLDER:
        yield f"its directory, node {parent}, is not there"
    if kind is None:
        yield f"node {node}, to which it leads, is not there"
    try:
        check_name(name)
    except (InvalidName, TypeError):
        yield "it is no name"
    if not 1 <= from_seq <= (last_seq or 0) or (
        until_seq is not None and not from_seq <= until_seq <= (last_seq or 0)
    ):
        yield f"its time, from event {from_seq} to {until_seq}, cannot be"
    if overlaps:
        yield "its time overlaps that of another entry of the same name"
    if slot != first_slot or not isinstance(next_node, int) or slot >= next_node:
        yield f"its slot, {slot}, is not its own"
    if not has_origin:
        yield "what it came from is not there"
    if until_seq is not None:
        return
    if not is_reachable:
        yield "I11: it stands in a directory that was removed"
    if live_names != 1:
        yield f"I11: its directory has {live_names} names"
    if kind in tuple(NodeKind) and parent_kind not in _BELOW.get(NodeKind(kind), ()):
        yield "I11: nothing of its kind can stand there"


def check_shown(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I12: what nodes show."""
    return _check_pages(
        checked, after, "I12",
        "SELECT s.node, s.from_seq, s.version, s.mode, s.mtime_ns, s.target, k.kind, d.id, d.node,"
        " d.deleted_seq, (SELECT MAX(seq) FROM events), k.scope,"
        " NOT EXISTS (SELECT 1 FROM shown o WHERE o.node = s.node AND o.from_seq > s.from_seq)"
        "  AND EXISTS (SELECT 1 FROM names n WHERE n.node = s.node AND n.until_seq IS NULL)"
        " FROM shown s LEFT JOIN nodes k ON k.id = s.node"
        " LEFT JOIN data_files d ON d.id = s.version"
        " WHERE (s.node, s.from_seq) > (?, ?) ORDER BY s.node, s.from_seq LIMIT ?",
        _PAGE, lambda row: f"shown {row[0]}, since event {row[1]}",
        lambda row: _find_shown_faults(checked, row), keys=2,
    )  # fmt: skip


def _find_shown_faults(checked: Checked, row: Row) -> Faults:
    (node, from_seq, version, mode, _, target, kind, known, version_node, deleted_seq, last_seq,
     scope_node, is_live) = row  # fmt: skip
    if kind is None:
        yield f"node {node} is not there"
        return
    if from_seq > (last_seq or 0):
        yield f"event {from_seq} is not there"
    if not isinstance(mode, int) or not 0 <= mode <= 0o7777:
        yield f"its mode is {mode!r}"
    if (kind == NodeKind.SYMLINK) != (target is not None):
        yield "a symbolic link has a target, and nothing else has one"
    if version is None:
        return
    if kind != NodeKind.FILE:
        yield "something else than a file shows a version"
    if known is not None and version_node != node and not _stands(checked, scope_node, version):
        yield f"version {version} is not one of it"
    if is_live and known is None:
        yield f"a name shows version {version}, which is not there"
    if is_live and deleted_seq is not None:
        yield f"a name shows version {version}, which is in the trash"


def _stands(checked: Checked, scope_node: int, version: int) -> bool:
    """Whether a version stands for an equal one that was restored: of another file, maybe."""
    with checked.read() as db:
        rows = fetch(
            db,
            "SELECT detail FROM events WHERE scope = ?"
            ' AND detail LIKE \'"op":"restore"%\' AND detail LIKE \'%"same":%\'',
            (scope_node,),
        )
    pairs = [pair for row in rows for pair in decode_detail(row[0]).get("same", ())]
    return any(live == version for _, live in pairs)


def check_trash(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I18: entries of the trash."""
    return _check_pages(
        checked, after, "I18",
        "SELECT d.deleted_seq, COUNT(*), COUNT(DISTINCT d.scope), e.detail FROM data_files d"
        " LEFT JOIN events e ON e.seq = d.deleted_seq WHERE d.deleted_seq > ?"
        " GROUP BY d.deleted_seq ORDER BY d.deleted_seq LIMIT ?",
        _FEW, lambda row: f"trash/{row[0]}", _find_trash_faults,
    )  # fmt: skip


def _find_trash_faults(row: Row) -> Faults:
    seq, versions, scopes, detail = row
    event = decode_detail(detail) if detail is not None else {}
    if event.get("op") not in ("delete", "delete-scope"):
        yield f"event {seq} has removed nothing"
    elif versions != event.get("versions", 1) or scopes != 1:
        yield f"it has {versions} versions, and its event says {event.get('versions', 1)}"


def check_staged(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I13: staged writes."""
    yield from _check_pages(
        checked, after, "I13",
        "SELECT s.sid, s.owner, s.state, s.size, s.sha256, s.payload, s.file, s.version,"
        " d.payload_size, d.payload_sha256, d.kind, s.kind,"
        " EXISTS (SELECT 1 FROM scopes c WHERE c.node = s.scope)"
        " FROM staged s LEFT JOIN data_files d ON d.id = s.version WHERE s.sid > ?"
        " ORDER BY s.sid LIMIT ?",
        _FEW, lambda row: f"staged {row[0]}", lambda row: _find_staged_faults(checked, row),
    )  # fmt: skip


def _find_staged_faults(checked: Checked, row: Row) -> Faults:
    (sid, owner, state, size, sha256, payload, file, version, version_size, version_sha256,
     version_kind, kind, has_scope) = row  # fmt: skip
    if state not in tuple(StagedState):
        yield f"its state is {state!r}"
        return
    if not has_scope:
        yield "its scope is not there"
    if state >= StagedState.PUBLISHED:
        if (version_size, version_sha256, version_kind) != (size, sha256, kind):
            yield f"version {version}, which it is, has another size, hash or kind"
    elif not _OWNER.match(owner):
        yield f"its owner is {owner!r}"
    if payload is not None:
        if len(payload) != size or hashlib.sha256(payload).digest() != sha256:
            yield "its bytes do not have the size and the hash that it names"
    else:
        yield from _find_staging_faults(checked, "staged", "sid", sid, file, size)


def _find_staging_faults(
    checked: Checked, table: str, key: str, value: int, file: str | None, size: int
) -> Faults:
    """What is wrong with a staging file, unless its row is gone by now."""
    fault = None
    if file is None or not _STAGING_FILE.match(file):
        fault = f"it has neither bytes nor a staging file: {file!r}"
    else:
        try:
            found = (checked.layout.staging / file).stat().st_size
            if found < size:
                fault = f"staging/{file} has {found} bytes instead of {size}"
        except FileNotFoundError:
            fault = f"staging/{file}, which holds its bytes, is missing"
    if fault is None:
        return
    with checked.hold(), checked.read() as db:
        again = fetch(db, f"SELECT file FROM {table} WHERE {key} = ?", (value,))
    if again and again[0][0] == file:
        yield fault


def check_scratch(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I14: scratch files."""
    return _check_pages(
        checked, after, "I14",
        "SELECT c.node, c.size, c.sha256, c.payload, c.file, k.kind,"
        " (SELECT s.version FROM shown s WHERE s.node = c.node ORDER BY s.from_seq DESC LIMIT 1)"
        " FROM scratch c LEFT JOIN nodes k ON k.id = c.node WHERE c.node > ?"
        " ORDER BY c.node LIMIT ?",
        _FEW, lambda row: f"scratch {row[0]}", lambda row: _find_scratch_faults(checked, row),
    )  # fmt: skip


def _find_scratch_faults(checked: Checked, row: Row) -> Faults:
    node, size, sha256, payload, file, kind, version = row
    if kind != NodeKind.FILE or version is not None:
        yield "its node is no file that shows it"
    if payload is not None:
        if len(payload) != size or hashlib.sha256(payload).digest() != sha256:
            yield "its bytes do not have the size and the hash that it names"
    else:
        yield from _find_staging_faults(checked, "scratch", "node", node, file, size)


def check_moves(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I15: pending moves."""
    return _check_pages(
        checked, after, "I15",
        "SELECT id, source, target FROM moves WHERE id > ? ORDER BY id LIMIT ?",
        _PAGE, lambda row: f"moves {row[0]}", _find_move_faults,
    )  # fmt: skip


def _find_move_faults(row: Row) -> Faults:
    _, source, target = row
    for path in (source, target) if target else (source,):
        if not _MOVED.match(path) or ".." in path.split("/"):
            yield f"{path!r} is no place of a file of the vault"
