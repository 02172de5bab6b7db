"""The journal: every change of the vault is a transaction of index.db, and goes through here.

Group commit: whoever comes while a transaction is under way waits, and the next one carries all
that have gathered, so that many closers share one sync of the disk. There is no committer thread:
the first that comes leads, and does the work of all, so that a lone writer pays for no hand-over;
then it hands the lead to the first of those that have come meanwhile.

Between processes `write.lock` (flock) is the gate before BEGIN IMMEDIATE: SQLite's own waiting lets
one process starve the others. Who holds it for more than ten seconds (it may be stopped) is not
waited for any longer: `Unavailable`.

A commit whose sync failed is never tried again on the same connection: the kernel may have dropped
the pages and say 0 the next time. Everyone in the batch gets the error, and a new connection is
opened.

Units: `_us` microseconds since the epoch. Raises `NoSpace`, `IndexBroken`, `Unavailable`.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import apsw

from scopefs.errors import IndexBroken, NoSpace, ScopefsError, Unavailable
from scopefs.model.events import (
    FIRST_HASH,
    encode_detail,
    encode_event_line,
    hash_event_line,
    next_at_us,
)
from scopefs.store.gate import Gate
from scopefs.store.index import (
    BUSY_TIMEOUT_MS,
    NO_ROW,
    PAGE_BYTES,
    REPAIR,
    index_identity,
    open_index,
)
from scopefs.store.sql import fetch

T = TypeVar("T")

_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24

CHECKPOINT_PAGES = 8192
"""WAL length above which the committer checkpoints: 16 MiB of 2 KiB pages."""

RESERVE_BYTES = 1 << 20
"""How much the WAL is made longer at a time, by a process that commits often."""

_RESERVE_LEFT_BYTES = 256 << 10
_RESERVE_AFTER_COMMITS = 8

CHECKPOINT_PATIENCE_MS = 100
"""How long a checkpoint waits for readers of other processes."""

_INTERRUPTED = "the commit was interrupted"
_LOG = logging.getLogger(__name__)


class Transaction:
    """What a change sees of the transaction it runs in."""

    def __init__(self, db: apsw.Connection, now_us: int) -> None:
        self.db = db
        self.now_us = now_us
        self._head: tuple[int, int, bytes] | None = None
        self._touched: dict[int, int] = {}

    @property
    def head(self) -> tuple[int, int, bytes]:
        """Number, time and hash of the newest event."""
        if self._head is None:
            rows = fetch(self.db, "SELECT seq, at_us, hash FROM events ORDER BY seq DESC LIMIT 1")
            self._head = rows[0] if rows else (0, 0, FIRST_HASH)
        return self._head

    @property
    def next_seq(self) -> int:
        """The number that the next event will have."""
        return self.head[0] + 1

    def record_event(
        self, op: str, scope_node: int | None, members: dict[str, Any], collected_us: int = 0
    ) -> int:
        """Append an event and return its number."""
        seq, last_at_us, last_hash = self.head
        seq += 1
        at_us = next_at_us(self.now_us, last_at_us, collected_us)
        # A rebuild gives directories the time of the event; whatever has another is named.
        others = [[node, ns] for node, ns in self._touched.items() if ns != at_us * 1000]
        self._touched = {}
        detail = encode_detail(op, {**members, "touched": others} if others else members)
        digest = hash_event_line(encode_event_line(seq, at_us, last_hash, detail))
        self.db.execute(
            "INSERT INTO events(seq, at_us, scope, detail, hash) VALUES(?,?,?,?,?)",
            (seq, at_us, scope_node, detail, digest),
        )
        self._head = (seq, at_us, digest)
        return seq

    def note_touched(self, node: int, mtime_ns: int) -> None:
        """Remember the mtime that a directory has by what the next event records."""
        self._touched[node] = mtime_ns

    def restore_head(self, head: tuple[int, int, bytes] | None) -> None:
        """Forget events that were rolled back."""
        self._head = head
        self._touched = {}

    def peek_head(self) -> tuple[int, int, bytes] | None:
        """The head as far as it is known already."""
        return self._head


@dataclass(frozen=True, slots=True)
class Failure:
    """What stands in place of a result."""

    error: BaseException


@dataclass(eq=False)
class _Item(Generic[T]):
    work: Callable[[Transaction], T]
    durable: bool
    result: T | None = None
    error: BaseException | None = None
    is_over: bool = False
    """Whether result and error say what became of it."""

    def outcome(self) -> "T | Failure":
        """What the caller gets. Who led may have been interrupted before it came to this."""
        if self.error is not None or not self.is_over:
            return Failure(self.error or Unavailable(_INTERRUPTED))
        return cast(T, self.result)


class _Call:
    """One caller, with what it wants done together, waiting for its turn or for its results."""

    __slots__ = ("_turn", "is_done", "is_gone", "items")

    def __init__(self, items: list[_Item[Any]]) -> None:
        self.items = items
        self.is_done = False
        self.is_gone = False
        """Whether its thread was interrupted and waits no longer."""
        # A bare lock is the cheapest thing to wait for.
        self._turn = threading.Lock()
        self._turn.acquire()

    def wait(self) -> None:
        """Wait until it is done, or has the lead."""
        self._turn.acquire()

    def wake(self) -> None:
        """End the wait; again is no matter."""
        if self._turn.locked():
            self._turn.release()


class Journal:
    """The writing side of the index of one open vault. Usable from every thread."""

    def __init__(self, index_path: Path, gate_path: Path, clock_us: Callable[[], int]) -> None:
        self._path = index_path
        self._identity = index_identity(index_path)
        self._clock_us = clock_us
        self._gate = Gate(gate_path)
        self._connection_lock = threading.Lock()
        self._queue_lock = threading.Lock()
        self._queue: list[_Call] = []
        self._batch: list[_Call] = []
        self._leader: _Call | None = None
        self._db: apsw.Connection | None = None
        self._synchronous = ""
        self._wal_path = f"{index_path}-wal"
        self._wal_pages = 0
        self._commits = 0
        self._closed = False
        self.unsynced = True
        """Whether something may have been committed that no sync has covered yet; at first by a
        process that was killed.
        """
        try:
            self._connect()
        except BaseException:
            self._gate.close()
            raise

    def run(self, work: Callable[[Transaction], T], *, durable: bool) -> T:
        """Run `work` in a transaction and return its result once that is committed.

        `durable`: only return when the transaction, and so every one before it, is on the disk.
        `work` may run in another thread, and may raise: then only its own part is rolled back.
        """
        result = self.run_all([work], durable=durable)[0]
        if isinstance(result, Failure):
            raise result.error
        return result

    def run_all(
        self, works: Sequence[Callable[[Transaction], T]], *, durable: bool
    ) -> list["T | Failure"]:
        """Run several works in one transaction; each fails alone, as a `Failure` in its place."""
        if self._closed:
            raise Unavailable("the vault is closed")
        call = _Call([_Item(work, durable) for work in works])
        try:
            with self._queue_lock:
                self._queue.append(call)
                self._leader = self._leader or call
            if self._leader is not call:
                call.wait()
            if not call.is_done:
                self._lead()
                self._finish(call)
        except BaseException:
            # Interrupted. Its work may be committed by whoever has it now; nobody waits for it.
            call.is_gone = True
            self._finish(call)
            raise
        return [item.outcome() for item in call.items]

    def _lead(self) -> None:
        """Commit all that have gathered."""
        with self._connection_lock:
            with self._queue_lock:
                self._batch, self._queue = self._queue, []
            self._commit([item for call in self._batch for item in call.items])

    def _finish(self, call: _Call) -> None:
        """If a call has the lead: tell its batch, and have the first that waits lead next.

        Repeated if it was interrupted.
        """
        with self._queue_lock:
            if self._leader is not call:
                return
            for each in self._batch:
                each.is_done = True
                each.wake()
            self._batch = []
            self._leader = next((each for each in self._queue if not each.is_gone), None)
            if self._leader is not None:
                self._leader.wake()

    def sync(self) -> None:
        """Make everything that was committed before durable; nothing to do, nothing done."""
        if self.unsynced:
            # Something must be written, or there is nothing for SQLite to sync.
            self.run(touch, durable=True)

    def checkpoint(self) -> bool:
        """Copy the WAL into index.db and empty it, unless other processes are at it: False."""
        with self._connection_lock:
            return not self._wal_pages or self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _checkpoint(self, mode: int) -> bool:
        db = self._db
        if db is None:
            return False
        pages, self._wal_pages = self._wal_pages, 0
        try:
            # A connection that has not read yet checkpoints nothing, silently.
            fetch(db, "SELECT 1 FROM meta LIMIT 1")
            db.set_busy_timeout(CHECKPOINT_PATIENCE_MS)
            db.wal_checkpoint(mode=mode)
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
            return True
        except apsw.BusyError:
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
            if mode == apsw.SQLITE_CHECKPOINT_TRUNCATE:
                self._wal_pages = pages
        except apsw.Error as error:
            # What was committed is safe in the WAL; the next commit meets the trouble and tells.
            _LOG.error("the WAL could not be checkpointed: %s", error)
            self._disconnect()
        return False

    def close(self) -> None:
        """Close the connection. What was committed stays committed."""
        with self._connection_lock:
            if not self._closed:
                self._closed = True
                self._disconnect()
                self._gate.close()

    def _connect(self) -> apsw.Connection:
        if self._closed:
            raise Unavailable("the vault is closed")
        self._check_identity()
        db = open_index(str(self._path))
        db.set_wal_hook(self._note_wal)
        self._synchronous = ""
        self._db = db
        return db

    def _check_identity(self) -> None:
        """Refuse an index.db that is not the file that was opened.

        What is committed to a file that was replaced is lost; and the new one is another vault's,
        for all that is known.
        """
        if index_identity(self._path) != self._identity:
            raise IndexBroken(f"{self._path} was replaced while it was in use")

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close(True)
            self._db = None

    def _note_wal(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _commit(self, batch: list[_Item[Any]]) -> None:
        # Stands unless the commit is seen to succeed, whatever interrupts it.
        failure: BaseException | None = Unavailable(_INTERRUPTED)
        try:
            self._gate.acquire()
            self._commit_locked(batch)
            failure = None
        except apsw.Error as error:
            failure = to_scopefs_error(error)
            failure.__cause__ = error
        except (ScopefsError, OSError) as error:
            failure = error
        finally:
            if failure is not None:
                self._disconnect()
            self._gate.release()
            for item in batch:
                item.error = item.error or failure
                item.is_over = True
        if self._wal_pages > CHECKPOINT_PAGES:
            # Between two batches, by the writer itself: a WAL that starts anew is written over in
            # place, which syncs twice as fast as one that grows.
            self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _commit_locked(self, batch: list[_Item[Any]]) -> None:
        db = self._db or self._connect()
        self._check_identity()
        durable = any(item.durable for item in batch)
        wanted = "FULL" if durable else "NORMAL"
        if self._synchronous != wanted:
            fetch(db, f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted
        db.execute("BEGIN IMMEDIATE")
        self._commits += 1
        if durable and self._commits > _RESERVE_AFTER_COMMITS:
            self._reserve_wal()
        changes = db.total_changes()
        transaction = Transaction(db, self._clock_us())
        if len(batch) == 1:
            if not self._run_alone(db, transaction, batch[0]):
                return
        else:
            for item in batch:
                self._run_item(db, transaction, item)
        wrote = db.total_changes() > changes and not any(item.error for item in batch)
        if durable and self.unsynced and not wrote:
            # SQLite syncs nothing for a transaction that wrote nothing, whatever came before it.
            touch(transaction)
        db.execute("COMMIT")
        self.unsynced = not durable

    def _reserve_wal(self) -> None:
        """Write zeros behind the WAL: to sync what is written over takes half as long as to sync
        what makes a file longer.

        Only SQLite's write lock makes this safe: nobody else writes to the WAL. To SQLite zeros are
        what an older WAL has left, for they lack the salt of the present one.
        """
        end = _WAL_HEADER_BYTES + self._wal_pages * (_FRAME_HEADER_BYTES + PAGE_BYTES)
        # No room for it is no trouble yet; the commit meets what is.
        with contextlib.suppress(OSError):
            size = os.stat(self._wal_path).st_size
            if size - end < _RESERVE_LEFT_BYTES:
                fd = os.open(self._wal_path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.pwrite(fd, bytes(RESERVE_BYTES), size)
                finally:
                    os.close(fd)

    def _run_alone(self, db: apsw.Connection, transaction: Transaction, item: _Item[Any]) -> bool:
        """Run the only item of a batch; if it fails, there is nothing to commit."""
        try:
            item.result = item.work(transaction)
        except Exception as error:
            if not db.in_transaction:
                raise
            db.execute("ROLLBACK")
            item.error = _sort_error(error)
            return False
        return True

    def _run_item(self, db: apsw.Connection, transaction: Transaction, item: _Item[Any]) -> None:
        """Run one item; if it fails, alone."""
        head = transaction.peek_head()
        db.execute("SAVEPOINT item")
        try:
            item.result = item.work(transaction)
        except Exception as error:
            if not db.in_transaction:
                # SQLite gave up the whole transaction (a full disk does that).
                raise
            db.execute("ROLLBACK TO item")
            transaction.restore_head(head)
            item.error = _sort_error(error)
        db.execute("RELEASE item")


def _sort_error(error: Exception) -> Exception:
    """What a work has failed with, as its caller gets it."""
    if isinstance(error, NO_ROW):
        _LOG.error("a row of index.db cannot be understood", exc_info=error)
        found = IndexBroken(f"index.db cannot be read: {error!r}; {REPAIR}")
        found.__cause__ = error
        return found
    return to_scopefs_error(error) if isinstance(error, apsw.Error) else error


def to_scopefs_error(error: apsw.Error) -> ScopefsError:
    """Sort SQLite's errors into ours. Total: what is not known is `Unavailable`."""
    if isinstance(error, apsw.FullError):
        return NoSpace("the disk under the vault is full")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.CantOpenError):
        return IndexBroken(f"index.db cannot be read: {error}; {REPAIR}")
    if isinstance(error, apsw.ReadOnlyError):
        return Unavailable(f"index.db cannot be written: {error}")
    return Unavailable(f"index.db failed: {error}")


def touch(transaction: Transaction) -> None:
    """Write something, so that a durable commit is one."""
    transaction.db.execute(
        "INSERT OR REPLACE INTO meta(key, value) VALUES('durable_seq', ?)",
        (transaction.head[0],),
    )
