"""Recovery at open: finish or withdraw what dead processes left under way.

Looks at the staging directories of dead owners and at their rows, and at nothing else: the time
depends on the unfinished work alone. May run in several processes at once; each dead owner is
locked by whoever looks after it. What is found, and what becomes of it:

- a closed write: published, with the time of the recovery
- a draft (fsync, never closed): to partial/
- a published version, a scratch file: nothing
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
from scopefs.model.scratch import ScratchPatterns
from scopefs.store.index import ReaderPool
from scopefs.store.journal import Journal, Transaction
from scopefs.store.layout import Layout
from scopefs.store.owners import iterate_dead_owners, list_files, remove_if_empty
from scopefs.store.partial import make_story, save_staged
from scopefs.store.publish import (
    Sealed,
    StagedState,
    Write,
    apply_release,
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


def recover(
    layout: Layout, journal: Journal, readers: ReaderPool, now_us: int, scratch: ScratchPatterns
) -> Recovered:
    """Look after every dead owner. Raises `OSError`, `IndexBroken`."""
    recovery = _Recovery(layout, journal, readers, now_us, scratch)
    for directory in iterate_dead_owners(layout.staging):
        recovery.recover_owner(directory.name)
        recovery.remove_orphans(directory)
        remove_if_empty(directory)
    recovery.recover_orphaned_rows()
    result = recovery.result
    if result.published or result.partial or result.removed:
        _LOG.warning(
            "recovered from an unclean end: %d write(s) published, %d kept in partial/, "
            "%d unfinished file(s) removed", result.published, result.partial, result.removed,
        )  # fmt: skip
    return result


class _Recovery:
    def __init__(
        self, layout: Layout, journal: Journal, readers: ReaderPool, now_us: int,
        scratch: ScratchPatterns,
    ) -> None:  # fmt: skip
        self._layout = layout
        self._journal = journal
        self._readers = readers
        self._now_us = now_us
        self._scratch = scratch
        self.result = Recovered()

    def recover_orphaned_rows(self) -> None:
        """Rows of owners whose directory went, for they had no files, and who failed to publish."""
        if not self._find_orphaned_owners():
            return
        # There is no lock of theirs to take: one process at a time; the second has nothing to do.
        path = self._layout.lock("recover")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            for owner in self._find_orphaned_owners():
                self.recover_owner(owner)
        finally:
            os.close(lock)

    def _find_orphaned_owners(self) -> list[str]:
        with self._readers.connection() as db:
            rows = fetch(db, "SELECT DISTINCT owner FROM staged WHERE state < 2")
        return [row[0] for row in rows if not (self._layout.staging / row[0]).exists()]

    def recover_owner(self, owner: str) -> None:
        """Finish or withdraw each unpublished write of an owner."""
        with self._readers.connection() as db:
            rows = _load_rows(db, owner)
        for state, write in rows:
            self._recover_write(state, write)

    def _recover_write(self, state: StagedState, write: Write) -> None:
        reason = "never closed"
        if state is StagedState.CLOSED:
            try:
                if _is_whole(self._layout.staging, write.sealed):
                    done = self._journal.run(
                        lambda transaction: _finish(transaction, write, self._scratch), durable=True
                    )
                    self.result.published += done
                    return
                reason = "written to after it was closed"
            except ScopefsError as error:
                reason = f"could not be published: {error}"
        with self._readers.connection() as db:
            story = make_story(
                db, write.scope_node, write.node, (write.parent, write.name),
                reason=reason, process=write.writer, uid=write.writer_uid,
            )  # fmt: skip
        try:
            save_staged(self._layout, write.sealed.payload, write.sealed.file, self._now_us, story)
        except FileNotFoundError:
            # A recovery that was cut has moved it, and not got as far as dropping the row.
            _LOG.warning("the bytes of a write are in partial/ already: %s", write.sealed.file)
        self._journal.run(lambda transaction: drop_staged(transaction, write), durable=True)
        self.result.partial += 1

    def remove_orphans(self, directory: Path) -> None:
        """Remove an owner's staging files that no row names."""
        with self._readers.connection() as db:
            known = {
                os.path.basename(row[0])
                for row in db.execute(
                    "SELECT file FROM staged WHERE owner = ?1 AND file IS NOT NULL UNION ALL"
                    " SELECT file FROM scratch WHERE file > ?1 || '/' AND file < ?1 || '0'",
                    (directory.name,),
                )
            }
        for name in list_files(directory):
            if name not in known:
                (directory / name).unlink(missing_ok=True)
                self.result.removed += 1


def _finish(transaction: Transaction, write: Write, scratch: ScratchPatterns) -> bool:
    """Publish a closed write; False if another process has done it meanwhile."""
    if not fetch(
        transaction.db,
        "SELECT 1 FROM staged WHERE sid = ? AND state = ?",
        (write.sid, int(StagedState.CLOSED)),
    ):
        return False
    apply_release(transaction, write, scratch)
    return True


def _is_whole(staging: Path, sealed: Sealed) -> bool:
    """Whether the staged bytes are those that were there when the write was closed."""
    if sealed.file is None:
        return sealed.payload is not None
    try:
        return hash_file(staging / sealed.file) == sealed.sha256
    except FileNotFoundError:
        return False


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
