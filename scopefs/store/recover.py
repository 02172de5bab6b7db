"""Recovery at open: finish or withdraw what dead processes left under way.

Looks at the staging directories of dead owners and at their rows, and at nothing else: the time
depends on the unfinished work alone. May run in several processes at once; each dead owner is
locked by whoever looks after it. What is found, and what becomes of it:

- a closed write: published, with the time of the recovery
- a closed write that the disk does not let be published now: it stays staged, for it was
  acknowledged. The vault opens; whoever has it open tries again, and so does the next open
- a draft (fsync, never closed): to partial/
- a published version, a scratch file: nothing
- a file without a row: removed; nobody was told that it is safe
"""

import fcntl
import logging
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw

from scopefs.errors import Conflict, IndexBroken, NoSpace, ScopefsError, Unavailable
from scopefs.model.payload import Kind
from scopefs.model.scratch import ScratchPatterns
from scopefs.store import tree
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
    left: int = 0
    """Writes that nothing could be done about yet; they stay staged."""


class Recovery:
    """Looks after dead owners; again, as long as something is left. For one thread at a time."""

    def __init__(
        self, layout: Layout, journal: Journal, readers: ReaderPool, scratch: ScratchPatterns
    ) -> None:
        self._layout = layout
        self._journal = journal
        self._readers = readers
        self._scratch = scratch
        self._now_us = 0
        self._begin_seq = -1
        self._published: set[int | None] = set()
        self._left: set[int | None] = set()
        self._staying: set[int | None] = set()
        self._refusal: Exception | None = None
        self.result = Recovered()

    def run(self, now_us: int) -> Recovered:
        """Look after every dead owner. Raises `OSError`, `NoSpace`, `IndexBroken`, `Unavailable`.

        What stayed staged is tried again by the next call; it is not put over what has been
        written to the same file since the first.
        """
        self._now_us = now_us
        self._refusal = None
        self._staying = set()
        if self._begin_seq < 0:
            with self._readers.connection() as db:
                self._begin_seq = fetch(db, "SELECT COALESCE(MAX(seq), 0) FROM events")[0][0]
        result = self.result = Recovered()
        with closing(iterate_dead_owners(self._layout.staging)) as directories:
            for directory in directories:
                self._recover_owner(directory.name)
                self._remove_orphans(directory)
                remove_if_empty(directory)
        self._recover_orphaned_rows()
        if result.published or result.partial or result.removed:
            _LOG.warning(
                "recovered from an unclean end: %d write(s) published, %d kept in partial/, "
                "%d unfinished file(s) removed", result.published, result.partial, result.removed,
            )  # fmt: skip
        return result

    def _recover_orphaned_rows(self) -> None:
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
                self._recover_owner(owner)
        finally:
            os.close(lock)

    def _find_orphaned_owners(self) -> list[str]:
        with self._readers.connection() as db:
            rows = fetch(
                db,
                f"SELECT DISTINCT owner FROM staged WHERE state < {int(StagedState.PUBLISHED)}",
            )
        return [row[0] for row in rows if not (self._layout.staging / row[0]).exists()]

    def _recover_owner(self, owner: str) -> None:
        """Finish or withdraw each unpublished write of an owner."""
        with self._readers.connection() as db:
            rows = _load_rows(db, owner)
        for state, write in rows:
            self._recover_write(state, write)

    def _recover_write(self, state: StagedState, write: Write) -> None:
        if self._refusal is not None:
            # Each of them would wait as long for the same answer.
            self._leave(write, self._refusal)
            return
        reason = "never closed"
        if state is StagedState.CLOSED:
            # It was acknowledged. Only what can never be a version becomes anything else; what
            # the disk or the index refuses now may be one later.
            try:
                is_whole = _is_whole(self._layout.staging, write.sealed)
            except OSError as error:
                self._leave(write, error)
                return
            try:
                if is_whole:
                    self._publish(write)
                    return
                reason = "written to after it was closed"
            except (IndexBroken, NoSpace, Unavailable, OSError) as error:
                self._refusal = None if isinstance(error, IndexBroken) else error
                self._leave(write, error)
                return
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

    def _leave(self, write: Write, error: Exception) -> None:
        """Let a write stay staged; its file, if it has one, stays with its row."""
        # Its owner's directory may have gone as empty: then its row is met twice.
        self._staying.add(write.sid)
        self.result.left = len(self._staying)
        if write.sid not in self._left:
            self._left.add(write.sid)
            _LOG.error("an unfinished write stays staged, to be looked at again: %s", error)

    def _publish(self, write: Write) -> None:
        done, version = self._journal.run(
            lambda transaction: self._finish(transaction, write), durable=True
        )
        # Known only now: the number of a version that was rolled back is given again.
        self._published.add(version)
        self.result.published += done

    def _finish(self, transaction: Transaction, write: Write) -> tuple[bool, int | None]:
        """Publish a closed write; False if another process has done it meanwhile."""
        db = transaction.db
        if not fetch(
            db,
            "SELECT 1 FROM staged WHERE sid = ? AND state = ?",
            (write.sid, int(StagedState.CLOSED)),
        ):
            return False, None
        # Whatever came between a crash and the open may be older than it; this is not.
        if write.sid in self._left and _find_later(db, write, self._begin_seq) - self._published:
            raise Conflict("the file was written again before this could be")
        version = apply_release(transaction, write, self._scratch)
        return True, version.id if version is not None else None

    def _remove_orphans(self, directory: Path) -> None:
        """Remove an owner's staging files that no row names."""
        names = list_files(directory)
        if not names:
            return
        with self._readers.connection() as db:
            known = {
                os.path.basename(row[0])
                for row in db.execute(
                    "SELECT file FROM staged WHERE owner = ?1 AND file IS NOT NULL UNION ALL"
                    " SELECT file FROM scratch WHERE file > ?1 || '/' AND file < ?1 || '0'",
                    (directory.name,),
                )
            }
        for name in names:
            if name not in known:
                (directory / name).unlink(missing_ok=True)
                self.result.removed += 1


def _find_later(db: apsw.Connection, write: Write, seq: int) -> set[int]:
    """The versions that the file of a write has got after an event."""
    node = write.node
    if node is not None and write.parent is not None and write.name is not None:
        known = fetch(db, "SELECT 1 FROM nodes WHERE id = ?", (node,))
        link = None if known else tree.find_link(db, write.parent, write.name)
        node = link[0] if link is not None else node
    rows = fetch(
        db,
        "SELECT version FROM shown WHERE node = ?1 AND from_seq > ?2 AND version IS NOT NULL"
        " AND version IS NOT (SELECT version FROM shown WHERE node = ?1 AND from_seq <= ?2"
        "  ORDER BY from_seq DESC LIMIT 1)",
        (node, seq),
    )
    return {row[0] for row in rows}


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
        # The partial index of unpublished rows, which takes a number in the query, no parameter:
        # rows that wait to be settled may be many, and hold the bytes of their versions.
        " INDEXED BY staged_node"
        f" WHERE owner = ? AND state < {int(StagedState.PUBLISHED)} ORDER BY sid",
        (owner,),
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
