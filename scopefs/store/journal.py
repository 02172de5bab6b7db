"""The journal: every change of the vault is a transaction of index.db, and goes through here.

Group commit: whoever comes while a transaction is under way waits, and the next one carries all
that have gathered, so that many closers share one sync of the disk. There is no committer thread:
the first that comes leads, and does the work of all, so that a lone writer pays for no hand-over;
then it hands the lead to the first of those that have come meanwhile, and waits for the disk while
that one commits (`scopefs.store.wal`). What is committed is seen by all at once; it is told to whom
it was promised when it is on the disk.

An event loop neither waits for others nor for a slow disk: `try_run_all`, `try_sync`, `sync_soon`.

Between processes `write.lock` (flock) is the gate before BEGIN IMMEDIATE: SQLite's own waiting lets
one process starve the others. Who holds it for more than ten seconds (it may be stopped) is not
waited for any longer: `Unavailable`.

A commit that failed is never tried again on the same connection, and a sync that failed not at all:
the kernel may have dropped the pages and say 0 the next time. Everyone in the batch gets the error,
and a new connection is opened; after a failed sync the WAL is copied into index.db and begun anew
before anything else is committed.

Units: `_us` microseconds since the epoch. Raises `NoSpace`, `IndexBroken`, `Unavailable`.
"""

import contextlib
import errno
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

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
    REPAIR,
    index_identity,
    open_index,
)
from scopefs.store.sql import fetch
from scopefs.store.wal import Wal

T = TypeVar("T")

CHECKPOINT_PAGES = 8192
"""WAL length above which the committer checkpoints: 16 MiB of 2 KiB pages."""

_RESERVE_AFTER_COMMITS = 8

LONG_PAGES = 2 * CHECKPOINT_PAGES
"""WAL length above which a checkpoint waits for those who read from the WAL."""

CHECKPOINT_PATIENCE_MS = 100
"""How long a checkpoint waits for readers of other processes, and a writer for a checkpoint."""

_CHECKPOINT_POLL_S = 0.005

_INTERRUPTED = "the commit was interrupted"
_CLOSED = "the vault is closed"
_LOG = logging.getLogger(__name__)


class Transaction:
    """What a change sees of the transaction it runs in."""

    def __init__(self, db: apsw.Connection, now_us: int) -> None:
        self.db = db
        self.now_us = now_us
        self.changes_tree = False
        """Whether names in directories are changed, or attributes."""
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
        self.changes_tree = True

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
    result: Any = None
    """What the work returned, if it is committed, and only the disk has not taken it."""


class _Locked(Unavailable):
    """Somebody has SQLite's own lock: a checkpoint, or a program that is not ours."""


class _Wish(NamedTuple):
    """What is to be synced, and who is to hear of it."""

    ticket: int
    tell: Callable[[ScopefsError | None], None]


@dataclass(eq=False)
class _Item(Generic[T]):
    work: Callable[[Transaction], T]
    durable: bool
    result: T | None = None
    error: BaseException | None = None
    is_lost: bool = False
    """Whether it is committed, and the disk has not taken it."""
    is_over: bool = False
    """Whether result and error say what became of it."""

    def outcome(self) -> "T | Failure":
        """What the caller gets. Who led may have been interrupted before it came to this."""
        if self.error is not None or not self.is_over:
            error = self.error or Unavailable(_INTERRUPTED)
            return Failure(error, self.result if self.is_lost else None)
        return cast(T, self.result)


class _Call:
    """One caller, with what it wants done together, waiting for its turn or for its results."""

    __slots__ = ("_turn", "batch", "is_done", "is_gone", "items")

    def __init__(self, items: list[_Item[Any]]) -> None:
        self.items = items
        self.batch: list[_Call] = []
        """Whom it leads."""
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
        self._leader: _Call | None = None
        self._db: apsw.Connection | None = None
        self._wal = Wal(index_path)
        self._wal_pages = 0
        self._syncs: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._sync_thread: threading.Thread | None = None
        self._commits = 0
        self.tree_changes = 0
        """How many transactions of this process have changed names or attributes."""
        self._closed = False
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
            raise Unavailable(_CLOSED)
        call = _Call([_Item(work, durable) for work in works])
        try:
            with self._queue_lock:
                self._queue.append(call)
                self._leader = self._leader or call
            if self._leader is not call:
                call.wait()
            if not call.is_done:
                self._lead(call)
        except BaseException:
            # Interrupted. Its work may be committed by whoever has it now; nobody waits for it.
            call.is_gone = True
            self._hand_over(call)
            self._tell(call)
            raise
        return [item.outcome() for item in call.items]

    def _lead(self, call: _Call) -> None:
        """Commit all that have gathered, and wait for the disk while the next one commits."""
        with self._connection_lock:
            with self._queue_lock:
                call.batch, self._queue = self._queue, []
            items = [item for each in call.batch for item in each.items]
            self._commit(items)
            ticket = self._wal.ticket
            self._keep_wal_short()
        self._hand_over(call)
        if any(item.durable for item in items):
            self._sync_for(items, ticket)
        for item in items:
            item.is_over = True
        self._tell(call)

    def _hand_over(self, call: _Call) -> None:
        """If a call has the lead, the first that waits has it from now on."""
        with self._queue_lock:
            if self._leader is call:
                self._leader = next((each for each in self._queue if not each.is_gone), None)
                if self._leader is not None:
                    self._leader.wake()

    def _tell(self, call: _Call) -> None:
        """Let those go whom a call has led."""
        for each in call.batch:
            each.is_done = True
            each.wake()

    def _sync_for(self, items: list[_Item[Any]], ticket: int) -> None:
        """Make a commit durable; if that fails, those fail who asked for it."""
        error = self._try_sync(ticket)
        if error is not None:
            for item in items:
                if item.durable and item.error is None:
                    item.error, item.is_lost = error, True

    def _try_sync(self, ticket: int) -> ScopefsError | None:
        """Make everything up to a commit durable; what went wrong, if anything did."""
        try:
            self._wal.sync(ticket)
        except ScopefsError as error:
            with self._connection_lock:
                self._renew_wal()
            return error
        return None

    def try_run_all(
        self, works: Sequence[Callable[[Transaction], T]]
    ) -> tuple[list["T | Failure"], int] | None:
        """Run several works in one transaction, now and here, and wait for nobody.

        Returns the results with the ticket of the commit, for `sync_soon`; None if it cannot be
        done without waiting: then `run_all`, in a thread.
        """
        if self._closed:
            raise Unavailable(_CLOSED)
        if not self._connection_lock.acquire(blocking=False):
            return None
        try:
            # Connecting, a checkpoint: what may take its time.
            if self._db is None or self._wal.is_suspect or self._wal_pages > CHECKPOINT_PAGES:
                return None
            if not self._gate.try_acquire():
                return None
            self._db.set_busy_timeout(0)
            items = [_Item(work, durable=False) for work in works]
            try:
                self._commit(items)
            finally:
                if self._db is not None:
                    self._db.set_busy_timeout(BUSY_TIMEOUT_MS)
            if any(isinstance(item.error, _Locked) for item in items):
                return None
            for item in items:
                item.is_over = True
            return [item.outcome() for item in items], self._wal.ticket
        finally:
            self._connection_lock.release()

    def try_sync(self, ticket: int) -> bool:
        """Make everything up to a commit durable, here, if that is expected to take no time.

        False if it is not done: then `sync_soon`.
        """
        return self._wal.try_sync(ticket)

    def sync_soon(self, ticket: int, tell: Callable[[ScopefsError | None], None]) -> None:
        """Have a thread make everything up to a commit durable; it tells what came of it."""
        if self._sync_thread is None:
            thread = threading.Thread(target=self._run_syncs, name="scopefs-sync", daemon=True)
            thread.start()
            self._sync_thread = thread
        self._syncs.put(_Wish(ticket, tell))

    def _run_syncs(self) -> None:
        while (wish := self._syncs.get()) is not None:
            error: ScopefsError | None
            try:
                error = self._try_sync(wish.ticket)
            except Exception as unforeseen:
                # Whoever waits must hear of it, and the next one too.
                _LOG.exception("what was committed could not be made durable")
                error = Unavailable(f"index.db could not be made durable: {unforeseen!r}")
            try:
                wish.tell(error)
                if self._wal_pages > CHECKPOINT_PAGES:
                    with self._connection_lock:
                        self._keep_wal_short()
            except Exception:
                _LOG.exception("after a sync")

    def _renew_wal(self) -> None:
        """After a failed sync: begin the WAL anew, by an empty commit, if the disk lets us."""
        self._disconnect()
        self._commit([])

    def sync(self) -> None:
        """Make everything that was committed before durable, by other processes too."""
        with self._connection_lock:
            if self._wal.is_suspect:
                self._renew_wal()
            self._wal.note_commit()
            ticket = self._wal.ticket
        error = self._try_sync(ticket)
        if error is not None:
            raise error

    @property
    def unsynced(self) -> bool:
        """Whether something may have been committed here that no sync has covered yet."""
        return not self._wal.is_synced

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
            # What was committed is in the WAL; the next commit meets the trouble and tells.
            _LOG.error("the WAL could not be checkpointed: %s", error)
            if isinstance(error, apsw.IOError):
                # Maybe its own sync of the WAL, which no later one makes good.
                self._wal.fail(OSError(db.system_errno or errno.EIO, str(error)))
            self._disconnect()
        return False

    def close(self) -> None:
        """Close the connection. What was committed stays committed."""
        if self._sync_thread is not None:
            self._syncs.put(None)
            self._sync_thread.join()
            self._sync_thread = None
        with self._connection_lock:
            if not self._closed:
                self._closed = True
                self._disconnect()
                self._gate.close()

    def _connect(self) -> apsw.Connection:
        if self._closed:
            raise Unavailable(_CLOSED)
        self._check_identity()
        db = open_index(str(self._path))
        db.set_wal_hook(self._note_wal)
        fetch(db, "PRAGMA synchronous = NORMAL")
        self._db = db
        self._wal.open()
        return db

    def _check_identity(self) -> None:
        """Refuse an index.db that is not the file that was opened.

        What is committed to a file that was replaced is lost; and the new one is another vault's,
        for all that is known.
        """
        if index_identity(self._path) != self._identity:
            raise IndexBroken(f"{self._path} was replaced while it was in use")

    def _disconnect(self) -> None:
        self._wal.close()
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
        except apsw.BusyError as error:
            failure = _Locked(f"index.db is locked: {error}")
        except apsw.Error as error:
            failure = to_scopefs_error(error, self._db.system_errno if self._db else 0)
            failure.__cause__ = error
        except (ScopefsError, OSError) as error:
            failure = error
        finally:
            if failure is not None and not (
                isinstance(failure, _Locked) and self._db and not self._db.in_transaction
            ):
                self._disconnect()
            self._gate.release()
            for item in batch:
                item.error = item.error or failure

    def _keep_wal_short(self) -> None:
        """Between two batches, by the writer itself: a WAL that starts anew is written over in
        place, which syncs twice as fast as one that grows.
        """
        if self._wal_pages > LONG_PAGES:
            # It does so only while nobody reads from it: of several processes that may be never.
            # While another process is at a checkpoint, SQLite refuses at once. To write on would
            # be quick, and that checkpoint may take long: whoever makes the WAL longer waits.
            deadline = time.monotonic() + CHECKPOINT_PATIENCE_MS / 1000
            while not self._checkpoint(apsw.SQLITE_CHECKPOINT_RESTART):
                if self._db is None or time.monotonic() > deadline:
                    break
                time.sleep(_CHECKPOINT_POLL_S)
        elif self._wal_pages > CHECKPOINT_PAGES:
            self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _commit_locked(self, batch: list[_Item[Any]]) -> None:
        db = self._db or self._connect()
        self._check_identity()
        if self._wal.is_suspect:
            # What the failed sync was to write may be missing from the WAL on the disk, and with it
            # everything behind it. Here it is still known.
            fetch(db, "SELECT 1 FROM meta LIMIT 1")
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._wal.renew()
        db.execute("BEGIN IMMEDIATE")
        self._commits += 1
        if self._commits > _RESERVE_AFTER_COMMITS:
            # No room for it is no trouble yet; the commit meets what is.
            with contextlib.suppress(OSError):
                self._wal.reserve(self._wal_pages)
        transaction = Transaction(db, self._clock_us())
        if len(batch) == 1:
            if not self._run_alone(db, transaction, batch[0]):
                return
        else:
            for item in batch:
                self._run_item(db, transaction, item)
        db.execute("COMMIT")
        self.tree_changes += transaction.changes_tree
        # Though it may have changed nothing: what it has seen, of another process, is durable too.
        self._wal.note_commit()

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


def to_scopefs_error(error: apsw.Error, system_errno: int = 0) -> ScopefsError:
    """Sort SQLite's errors into ours. Total: what is not known is `Unavailable`.

    `system_errno`: the system's error behind an `IOError`, if it is known.
    """
    if isinstance(error, apsw.FullError):
        return NoSpace("the disk under the vault is full")
    if isinstance(error, apsw.IOError) and system_errno == errno.EDQUOT:
        # Only ENOSPC makes SQLite speak of a full disk.
        return NoSpace("the quota of the disk under the vault is used up")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.CantOpenError):
        return IndexBroken(f"index.db cannot be read: {error}; {REPAIR}")
    if isinstance(error, apsw.ReadOnlyError):
        return Unavailable(f"index.db cannot be written: {error}")
    return Unavailable(f"index.db failed: {error}")
