"""Recovery at open: finish or withdraw what dead processes left under way.

Looks at the staging directories of dead owners and at their rows, and at nothing else: the time
depends on the unfinished work alone. May run in several processes at once; each dead owner is
locked by whoever looks after it. What is found, and what becomes of it:

- a closed write: published, with the time of the recovery
- a draft (fsync, never closed): to partial/
- a published version: nothing, the next settle places it
- a file without a row: removed; nobody was told that it is safe
"""

import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import apsw

from scopefs.errors import ScopefsError
from scopefs.model.payload import Kind
from scopefs.store import tree
from scopefs.store.index import ReaderPool
from scopefs.store.journal import Journal, Transaction
from scopefs.store.layout import Layout
from scopefs.store.owners import iterate_dead_owners, list_files, remove_if_empty
from scopefs.store.partial import save_staged
from scopefs.store.publish import (
    Sealed,
    StagedState,
    Write,
    apply_publish,
    apply_show_empty,
    drop_staged,
)
from scopefs.store.settle import hash_file
from scopefs.store.sql import fetch

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Recovered:
    """What a recovery did."""

    published: int = 0
    partial: int = 0
    removed: int = 0


def recover(layout: Layout, journal: Journal, readers: ReaderPool, now_us: int) -> Recovered:
    """Look after every dead owner. Raises `OSError`, `IndexBroken`."""
    result = Recovered()
    for directory in iterate_dead_owners(layout.staging):
        _recover_owner(layout, journal, readers, directory.name, now_us, result)
        _remove_orphans(directory, readers, result)
        remove_if_empty(directory)
    _recover_orphaned_rows(layout, journal, readers, now_us, result)
    if result.published or result.partial or result.removed:
        _LOG.warning(
            "recovered from an unclean end: %d write(s) published, %d kept in partial/, "
            "%d unfinished file(s) removed", result.published, result.partial, result.removed,
        )  # fmt: skip
    return result


def _recover_orphaned_rows(
    layout: Layout, journal: Journal, readers: ReaderPool, now_us: int, result: Recovered
) -> None:
    """Rows of owners whose directory went, for they had no files, and who failed to publish."""

    def find_owners() -> list[str]:
        with readers.connection() as db:
            rows = fetch(db, "SELECT DISTINCT owner FROM staged WHERE state < 2")
        return [row[0] for row in rows if not (layout.staging / row[0]).exists()]

    if not find_owners():
        return
    # There is no lock of theirs to take: one process at a time, and the second has nothing to do.
    lock = os.open(layout.lock("recover"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for owner in find_owners():
            _recover_owner(layout, journal, readers, owner, now_us, result)
    finally:
        os.close(lock)


def _recover_owner(
    layout: Layout, journal: Journal, readers: ReaderPool, owner: str, now_us: int,
    result: Recovered,
) -> None:  # fmt: skip
    with readers.connection() as db:
        rows = _load_rows(db, owner)
    for state, write in rows:
        _recover_write(layout, journal, readers, state, write, now_us, result)


def _recover_write(
    layout: Layout, journal: Journal, readers: ReaderPool, state: StagedState, write: Write,
    now_us: int, result: Recovered,
) -> None:  # fmt: skip
    reason = "never closed"
    if state is StagedState.CLOSED:
        try:
            if _is_whole(layout.staging, write.sealed):
                done = journal.run(lambda transaction: _finish(transaction, write), durable=True)
                result.published += done
                return
            reason = "written to after it was closed"
        except ScopefsError as error:
            reason = f"could not be published: {error}"
    with readers.connection() as db:
        scope = tree.scope_text(db, write.scope_node)
    try:
        save_staged(
            layout, write.sealed.payload, write.sealed.file,
            now_us=now_us, reason=reason, scope=scope, name=write.name,
        )  # fmt: skip
    except FileNotFoundError:
        _LOG.error("the staging file %s of a write is missing", write.sealed.file)
    journal.run(lambda transaction: drop_staged(transaction, write), durable=True)
    result.partial += 1


def _finish(transaction: Transaction, write: Write) -> bool:
    """Publish a closed write; False if another process has done it meanwhile."""
    if not fetch(
        transaction.db,
        "SELECT 1 FROM staged WHERE sid = ? AND state = ?",
        (write.sid, int(StagedState.CLOSED)),
    ):
        return False
    if write.sealed.size:
        apply_publish(transaction, write)
    else:
        apply_show_empty(transaction, write)
    return True


def _is_whole(staging: Path, sealed: Sealed) -> bool:
    """Whether the staged bytes are those that were there when the write was closed."""
    if sealed.file is None:
        return sealed.payload is not None
    try:
        return hash_file(staging / sealed.file) == sealed.sha256
    except FileNotFoundError:
        return False


def _remove_orphans(directory: Path, readers: ReaderPool, result: Recovered) -> None:
    with readers.connection() as db:
        known = {
            os.path.basename(row[0])
            for row in db.execute(
                "SELECT file FROM staged WHERE owner = ? AND file IS NOT NULL", (directory.name,)
            )
        }
    for name in list_files(directory):
        if name not in known:
            (directory / name).unlink(missing_ok=True)
            result.removed += 1


def _load_rows(db: apsw.Connection, owner: str) -> list[tuple[StagedState, Write]]:
    """The unpublished rows of an owner, oldest first."""
    rows = fetch(
        db,
        "SELECT sid, state, node, scope, parent, name, mode, mtime_ns, size, sha256, kind,"
        " media_type, payload, file, writer_uid, writer FROM staged"
        " WHERE owner = ? AND state < ? ORDER BY sid",
        (owner, int(StagedState.PUBLISHED)),
    )
    return [
        (
            StagedState(row[1]),
            Write(
                owner, row[3], row[2], row[4], row[5], row[6], row[7],
                Sealed(row[8], row[9], Kind(row[10]), row[11], row[12], row[13]), sid=row[0],
                writer_uid=row[14], writer=row[15],
            ),
        )
        for row in rows
    ]  # fmt: skip
