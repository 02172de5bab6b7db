"""What the doors without a file system do with names: put a payload under one, end it, look it up.

Names may have folders in them (`My Photos/a.jpg`). Each `apply_` function is one change within a
transaction. `mtime_ns`: nanoseconds since the epoch. Raises `InvalidName`, `IsADirectory`.
"""

import os

import apsw

from scopefs.errors import InvalidName, IsADirectory
from scopefs.model.naming import NodeKind, Place, check_file_place, place_directory, show_name
from scopefs.model.scope import Scope
from scopefs.store import changes, index, publish, rows, tree
from scopefs.store.index import Version
from scopefs.store.journal import Transaction
from scopefs.store.publish import Sealed, Write
from scopefs.store.receipts import Once, Stored, find_receipt, record_receipt

_PAGE = 1000


def apply_put(
    transaction: Transaction, owner: str, scope: Scope, name: bytes | None, mtime_ns: int | None,
    sealed: Sealed, writer: str, metadata: str | None = None,
) -> Version:  # fmt: skip
    """Publish a payload, making the directories that its scope and name need."""
    db = transaction.db
    scope_node = changes.ensure_scope(transaction, scope)
    write = Write(owner, scope_node, None, None, None, changes.FILE_MODE, mtime_ns, sealed,
                  writer_uid=os.getuid(), writer=writer, metadata=metadata)  # fmt: skip
    if name is None:
        return publish.apply_publish(transaction, write)
    parent, place = scope_node, Place(NodeKind.SCOPE, scope.segments)
    *folders, base = name.split(b"/")
    for folder in folders:
        place = place_directory(place, folder)
        if place.kind is not NodeKind.FOLDER:
            raise InvalidName(
                f"{show_name(name)}: the directory {show_name(folder)} is a scope of its own: "
                f"put it to {scope.raw}.{folder.decode('ascii')}"
            )
        parent = changes.ensure_directory(transaction, parent, folder)
    check_file_place(place, base)
    write.parent, write.name = parent, base
    found = tree.find_link(db, parent, base)
    if found is None:
        write.node = rows.allocate_nodes(transaction, 1)
    elif found[1] is NodeKind.FILE:
        write.node = found[0]
        write.mode = rows.load_entry(db, write.node).mode
    else:
        raise IsADirectory(f"{show_name(name)} is there already, and is no file")
    return publish.apply_publish(transaction, write)


def apply_put_once(
    transaction: Transaction, owner: str, scope: Scope, name: bytes | None, sealed: Sealed,
    writer: str, metadata: str | None, once: Once | None,
) -> Stored:  # fmt: skip
    """Publish a payload, unless the same request was answered before: then with that answer."""
    known = find_receipt(transaction.db, once, transaction.now_us) if once is not None else None
    if known is not None:
        return known
    version = apply_put(transaction, owner, scope, name, None, sealed, writer, metadata)
    stored = Stored(version.scope, version.collected_us)
    if once is not None:
        record_receipt(transaction, once, stored)
    return stored


def apply_put_unless_shown(
    transaction: Transaction, owner: str, scope: Scope, name: bytes | None, mtime_ns: int | None,
    sealed: Sealed, writer: str,
) -> Version:  # fmt: skip
    """Publish a payload, unless it is what the name shows, or what the scope got last."""
    db = transaction.db
    if name is not None:
        found = find_version_of_name(db, scope.raw, name, None, exact=False)
    else:
        found = index.find_latest_by_scope(db, scope.raw)
    if found is not None and (found.payload_size, found.payload_sha256) == (
        sealed.size, sealed.sha256,
    ):  # fmt: skip
        return found
    return apply_put(transaction, owner, scope, name, mtime_ns, sealed, writer)


def apply_end_name(transaction: Transaction, scope: Scope, name: bytes) -> bool:
    """End a name of a scope, folders included in it. False if no file has it."""
    db = transaction.db
    node = tree.find_scope_node(db, scope.raw)
    *folders, base = name.split(b"/")
    for folder in folders:
        entry = None if node is None else tree.find_child(db, node, folder)
        node = entry.node if entry is not None and entry.kind is NodeKind.FOLDER else None
    entry = None if node is None else tree.find_child(db, node, base)
    if node is None or entry is None or entry.kind.is_directory:
        return False
    changes.apply_unlink(transaction, node, base)
    return True


def find_version_of_name(
    db: apsw.Connection, scope: str, name: bytes, at_us: int | None, *, exact: bool
) -> Version | None:
    """What a name of a scope shows now; or, of its history, the version at a time or before it."""
    node = tree.find_scope_node(db, scope)
    if node is None:
        return None
    *folders, base = name.split(b"/")
    if at_us is None:
        for folder in folders:
            found = tree.find_child(db, node, folder)
            if found is None or found.kind is not NodeKind.FOLDER:
                return None
            node = found.node
        entry = tree.find_child(db, node, base)
        return index.find_by_id(db, entry.version) if entry and entry.version else None
    parents = [node]
    for folder in folders:
        parents = tree.list_past_folders(db, parents, folder)
    newest: tuple[int, int] | None = None
    after_us = at_us - 1 if exact else 0
    while page := tree.list_history(db, parents, base, after_us, _PAGE):
        newest = max((row for row in page if row[1] <= at_us), key=_time_of, default=newest)
        after_us = page[-1][1]
        if after_us >= at_us:
            break
    return index.find_by_id(db, newest[0]) if newest is not None else None


def _time_of(row: tuple[int, int]) -> int:
    return row[1]
