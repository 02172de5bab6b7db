"""The journal: group commit, failures that stay alone, and commits that fail."""

import errno
import fcntl
import os
import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import IndexBroken, NoSpace, NotFound, ScopefsError, Unavailable
from scopefs.store.index import initialize_database, read_meta, write_meta
from scopefs.store.journal import Failure, Journal, Transaction, to_scopefs_error
from scopefs.store.wal import RESERVE_BYTES
from tests.mounting import PATIENCE_S
from tests.store.inspection import Clock


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    """The journal of a bare index."""
    initialize_database(str(tmp_path / "index.db")).close()
    opened = Journal(tmp_path / "index.db", tmp_path / "write.lock", clock)
    yield opened
    opened.close()


def record(word: str) -> Callable[[Transaction], int]:
    """Work that records one event."""
    return lambda transaction: transaction.record_event(word, None, {})


def refuse(transaction: Transaction) -> int:
    """Work that fails after it has written."""
    transaction.record_event("refused", None, {})
    write_meta(transaction.db, "refused", 1)
    raise NotFound("refused")


def break_commit(transaction: Transaction) -> int:
    """Work that lets the COMMIT of its transaction fail."""
    transaction.db.set_commit_hook(lambda: True)
    return transaction.record_event("lost", None, {})


def fill_disk(transaction: Transaction) -> int:
    """Work that SQLite refuses for want of space, giving up the whole transaction."""
    pages = transaction.db.execute("PRAGMA page_count").fetchall()[0][0]
    transaction.db.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    transaction.db.execute("INSERT INTO meta VALUES('large', zeroblob(1000000))")
    return 0


def list_ops(journal: Journal) -> list[tuple[Any, ...]]:
    """Numbers and details of all events."""
    return journal.run(
        lambda transaction: transaction.db.execute(
            "SELECT seq, detail FROM events ORDER BY seq"
        ).fetchall(),
        durable=False,
    )


def test_run_returns_the_result(journal: Journal) -> None:
    """The value that the work returns comes back."""
    assert journal.run(lambda _: "value", durable=True) == "value"


def test_transaction_has_the_time_of_the_clock(journal: Journal, clock: Clock) -> None:
    """now_us is what the clock says when the transaction begins."""
    clock.move(7)
    assert journal.run(lambda transaction: transaction.now_us, durable=False) == clock.now_us


def test_committed_work_is_seen_by_others(journal: Journal, tmp_path: Path) -> None:
    """After run returned, another connection sees the rows."""
    journal.run(lambda transaction: write_meta(transaction.db, "x", 5), durable=False)
    other = apsw.Connection(str(tmp_path / "index.db"))
    found = read_meta(other, "x")
    other.close()
    assert found == 5


def test_failing_item_fails_alone(journal: Journal) -> None:
    """Of three works in a batch the second fails: the others are committed, without a gap."""
    first, second, third = journal.run_all([record("a"), refuse, record("b")], durable=True)
    assert (first, third) == (1, 2)
    assert isinstance(second, Failure)
    assert isinstance(second.error, NotFound)
    assert list_ops(journal) == [(1, '"op":"a"'), (2, '"op":"b"')]


def test_failing_item_leaves_nothing(journal: Journal) -> None:
    """What the failing work wrote before its error is undone."""
    journal.run_all([refuse, record("a")], durable=True)
    assert journal.run(lambda t: read_meta(t.db, "refused"), durable=False) is None


def test_run_raises_the_works_own_error(journal: Journal) -> None:
    """The error is the very object that the work raised."""
    error = NotFound("mine")

    def fail(_: Transaction) -> None:
        raise error

    with pytest.raises(NotFound) as caught:
        journal.run(fail, durable=True)
    assert caught.value is error


def test_unexpected_error_fails_alone_too(journal: Journal) -> None:
    """A bug in one work does not take the rest of the batch with it."""
    results = journal.run_all([record("a"), lambda _: 1 // 0], durable=True)
    assert results[0] == 1
    assert isinstance(results[1], Failure)
    assert isinstance(results[1].error, ZeroDivisionError)


def test_sqlites_errors_become_ours(journal: Journal) -> None:
    """A work that SQLite refuses fails with an error of scopefs."""
    with pytest.raises(ScopefsError, match="no such table"):
        journal.run(lambda t: t.db.execute("SELECT * FROM no_such_table"), durable=False)


def test_empty_batch_is_fine(journal: Journal) -> None:
    """No works, no results."""
    assert journal.run_all([], durable=True) == []


def test_failed_commit_fails_everybody(journal: Journal) -> None:
    """When COMMIT fails nobody in the batch is told that it succeeded, and nothing is kept."""
    results = journal.run_all([record("a"), break_commit, record("b")], durable=True)
    assert [isinstance(result, Failure) for result in results] == [True] * 3
    assert {type(result.error) for result in results if isinstance(result, Failure)} == {
        Unavailable
    }
    assert list_ops(journal) == []


def test_own_error_stands_before_that_of_the_commit(journal: Journal) -> None:
    """A work that failed by itself in a batch that failed hears its own reason."""
    own, _ = journal.run_all([refuse, break_commit], durable=True)
    assert isinstance(own, Failure)
    assert isinstance(own.error, NotFound)


def test_next_run_after_a_failed_commit_works(journal: Journal) -> None:
    """A failed commit is not the end: the next transaction has a new connection."""
    journal.run_all([break_commit], durable=True)
    assert journal.run(record("next"), durable=True) == 1


def test_full_disk_is_no_space_for_everybody(journal: Journal) -> None:
    """SQLite gives the transaction up when the disk is full: all in the batch get NoSpace."""
    results = journal.run_all([record("a"), fill_disk, record("b")], durable=True)
    assert [type(result.error) for result in results if isinstance(result, Failure)] == [
        NoSpace
    ] * 3
    assert journal.run(record("next"), durable=True) == 1


class _Quota(apsw.VFS):
    """A disk on which nothing can be written, for the system's reason EDQUOT."""

    def __init__(self) -> None:
        super().__init__("quota", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _FileUnderQuota(name, flags)

    def xGetLastError(self) -> tuple[int, str]:
        return errno.EDQUOT, ""


class _FileUnderQuota(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        raise apsw.IOError("quota exceeded")


def test_regression_quota_was_told_as_a_broken_disk(journal: Journal) -> None:
    """To SQLite a quota that is used up is an I/O error like others; to the caller it is not."""
    journal._disconnect()
    disk = _Quota()
    try:
        with pytest.raises(NoSpace, match="quota"):
            journal.run(record("refused"), durable=True)
    finally:
        disk.unregister()
    assert len(list_ops(journal)) == 0
    assert journal.run(record("taken"), durable=True) == 1


def test_threads_share_transactions_and_lose_nothing(journal: Journal) -> None:
    """Twenty threads: every event is recorded once, without a gap, and errors go to their own."""
    failed: list[int] = []
    numbers: list[int] = []

    def work(thread: int) -> None:
        for n in range(20):
            try:
                numbers.append(journal.run(record("x") if n % 4 else refuse, durable=n % 2 == 0))
            except NotFound:
                failed.append(thread)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 20 * 15 + 1))
    assert sorted(failed) == sorted(list(range(20)) * 5)
    assert [row[0] for row in list_ops(journal)] == sorted(numbers)


def test_who_waits_is_served_in_one_batch(journal: Journal) -> None:
    """Works that gather while a transaction is under way are committed together by the next."""
    inside, go = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        inside.set()
        assert go.wait(30)

    seen: list[int] = []
    threads = [threading.Thread(target=journal.run, args=(hold,), kwargs={"durable": False})]
    threads[0].start()
    assert inside.wait(30)
    for _ in range(5):
        threads.append(
            threading.Thread(
                target=journal.run,
                args=(lambda transaction: seen.append(id(transaction)),),
                kwargs={"durable": False},
            )
        )
        threads[-1].start()
    while len(journal._queue) < 5:
        assert threads[-1].is_alive()
    go.set()
    for thread in threads:
        thread.join()
    assert len(seen) == 5
    assert len(set(seen)) == 1


class Interrupted(BaseException):
    """What ends a thread in the middle, as Ctrl+C does."""


def interrupt(*_: object) -> int:
    """Work, or a signal's handler, that is interrupted."""
    raise Interrupted


@contextmanager
def begun(work: Callable[[], object]) -> Iterator[Future[Any]]:
    """Do something in a thread; it is over at the end."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def wait_queued(journal: Journal, calls: int) -> None:
    """Wait until so many callers stand in the queue."""
    deadline = time.monotonic() + 10
    while len(journal._queue) < calls:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_interrupted_leader_fails_its_batch_and_hands_over(journal: Journal) -> None:
    gathered, go = threading.Event(), threading.Event()

    def hold(transaction: Transaction) -> int:
        gathered.set()
        go.wait(10)
        return interrupt()

    with begun(lambda: journal.run(hold, durable=True)) as leader:
        assert gathered.wait(10)
        with begun(lambda: journal.run(record("next"), durable=True)) as follower:
            wait_queued(journal, 1)
            go.set()
            with pytest.raises(Interrupted):
                leader.result(10)
            assert follower.result(10) == 1
    assert journal.run(record("later"), durable=True) == 2


def test_batch_of_an_interrupted_leader_is_told(journal: Journal) -> None:
    gathered, go = threading.Event(), threading.Event()

    def hold(_transaction: Transaction) -> int:
        gathered.set()
        return int(go.wait(10))

    with (
        begun(lambda: journal.run(hold, durable=True)),
        begun(lambda: gathered.wait(10) and journal.run(interrupt, durable=True)) as second,
    ):
        wait_queued(journal, 1)
        with begun(lambda: journal.run(record("with it"), durable=True)) as third:
            wait_queued(journal, 2)
            go.set()
            with pytest.raises(Interrupted):
                second.result(10)
            with pytest.raises(Unavailable, match="interrupted"):
                third.result(10)
    assert journal.run(record("later"), durable=True) == 1


def test_interruption_before_the_commit_is_no_success(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered, go = threading.Event(), threading.Event()
    commit = journal._commit

    def hold(batch: list[Any]) -> None:
        gathered.set()
        assert go.wait(10)
        monkeypatch.setattr(journal, "_commit", interrupt)
        commit(batch)

    monkeypatch.setattr(journal, "_commit", hold)
    with begun(lambda: journal.run(record("first"), durable=True)):
        assert gathered.wait(10)
        with begun(lambda: journal.run(record("leads"), durable=True)) as leader:
            wait_queued(journal, 1)
            with begun(lambda: journal.run(record("follows"), durable=True)) as follower:
                wait_queued(journal, 2)
                go.set()
                with pytest.raises(Interrupted):
                    leader.result(10)
                with pytest.raises(Unavailable, match="interrupted"):
                    follower.result(10)
    monkeypatch.undo()
    assert [seq for seq, _ in list_ops(journal)] == [1]


def test_who_is_interrupted_while_waiting_never_leads(journal: Journal) -> None:
    gathered, go = threading.Event(), threading.Event()
    here = threading.main_thread().ident
    assert here is not None

    def hold(_transaction: Transaction) -> int:
        gathered.set()
        return int(go.wait(10))

    def interrupt_follower() -> None:
        wait_queued(journal, 1)
        signal.pthread_kill(here, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with begun(lambda: journal.run(hold, durable=True)):
            assert gathered.wait(10)
            with begun(interrupt_follower), pytest.raises(Interrupted):
                journal.run(record("gone"), durable=True)
            with begun(lambda: journal.run(record("next"), durable=True)) as follower:
                wait_queued(journal, 2)
                go.set()
                assert follower.result(10) == 2
    finally:
        signal.signal(signal.SIGUSR1, before)
    # What nobody waits for any longer is done all the same: it may have been, for all they know.
    assert [seq for seq, _ in list_ops(journal)] == [1, 2]


def test_gate_keeps_processes_out(journal: Journal, tmp_path: Path) -> None:
    """While another process holds write.lock nothing is begun; afterwards it goes on."""
    gate = os.open(tmp_path / "write.lock", os.O_RDWR)
    fcntl.flock(gate, fcntl.LOCK_EX)
    began = threading.Event()
    thread = threading.Thread(
        target=journal.run, args=(lambda _: began.set(),), kwargs={"durable": False}
    )
    thread.start()
    assert not began.wait(0.05)
    os.close(gate)
    assert began.wait(30)
    thread.join()


def test_unsynced_until_a_durable_commit(journal: Journal) -> None:
    """Whether something waits for the disk is known; sync makes it durable."""
    seen = []
    for work in (
        lambda: journal.run(record("a"), durable=False),
        journal.sync,
        lambda: journal.run(record("b"), durable=False),
        lambda: journal.run(record("c"), durable=True),
    ):
        work()
        seen.append(journal.unsynced)
    assert seen == [True, False, True, False]


def test_checkpoint_that_a_reader_is_in_the_way_of_can_be_repeated(
    journal: Journal, tmp_path: Path
) -> None:
    journal.run(record("one"), durable=False)
    reader = apsw.Connection(str(tmp_path / "index.db"))
    reader.execute("BEGIN; SELECT * FROM events").fetchall()
    assert not journal.checkpoint()
    reader.execute("COMMIT")
    assert journal.checkpoint()
    assert (tmp_path / "index.db-wal").stat().st_size == 0
    reader.close()


def test_checkpoint_truncates_the_log(journal: Journal, tmp_path: Path) -> None:
    """The checkpoint empties the WAL and loses nothing."""
    journal.run(record("a"), durable=True)
    assert (tmp_path / "index.db-wal").stat().st_size > 0
    journal.checkpoint()
    assert (tmp_path / "index.db-wal").stat().st_size == 0
    assert list_ops(journal) == [(1, '"op":"a"')]


class SlowDisk(apsw.VFS):
    """A file system whose syncs take their time."""

    def __init__(self) -> None:
        super().__init__("slow-disk", "")
        self.is_at_it = threading.Event()

    def xOpen(self, name: Any, flags: list[int]) -> "SlowFile":
        return SlowFile(self.is_at_it, name, flags)


class SlowFile(apsw.VFSFile):
    """One of its files."""

    def __init__(self, is_at_it: threading.Event, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._is_at_it = is_at_it

    def xSync(self, flags: int) -> None:
        self._is_at_it.set()
        time.sleep(0.5)
        super().xSync(flags)


def test_regression_log_grew_while_another_process_was_at_a_checkpoint(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes a long WAL longer waits for a checkpoint that is under way."""
    log, lengths = tmp_path / "index.db-wal", []

    def write(transaction: Transaction) -> None:
        write_meta(transaction.db, "large", "x" * 40_000)

    journal.run(write, durable=True)
    monkeypatch.setattr("scopefs.store.journal.CHECKPOINT_PAGES", 50)
    monkeypatch.setattr("scopefs.store.journal.LONG_PAGES", 100)
    disk = SlowDisk()
    other = apsw.Connection(str(tmp_path / "index.db"), vfs="slow-disk")
    other.execute("SELECT * FROM meta").fetchall()
    with begun(lambda: other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)) as checkpoint:
        assert disk.is_at_it.wait(PATIENCE_S)
        while not checkpoint.done():
            journal.run(write, durable=True)
            lengths.append(log.stat().st_size)
    checkpoint.result()
    other.close()
    disk.unregister()
    # Some 20 pages a commit: 5 until it is long, then one in 100 ms.
    assert 0 < len(lengths) < 30
    assert max(lengths) < 5 * RESERVE_BYTES
    # It begins anew behind a commit that finds it long.
    for _ in range(6):
        journal.run(write, durable=True)
    length = log.stat().st_size
    for _ in range(12):
        journal.run(write, durable=True)
    assert log.stat().st_size == length


def test_closed_journal_refuses(journal: Journal) -> None:
    """After close nothing is taken any more, with an error that says why."""
    journal.close()
    with pytest.raises(Unavailable, match="closed"):
        journal.run(record("late"), durable=True)


def test_journal_without_index_is_refused(tmp_path: Path, clock: Clock) -> None:
    """A journal needs an index that is there."""
    with pytest.raises(IndexBroken):
        Journal(tmp_path / "index.db", tmp_path / "write.lock", clock)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(apsw.FullError, NoSpace), (apsw.CorruptError, IndexBroken), (apsw.NotADBError, IndexBroken),
     (apsw.CantOpenError, IndexBroken), (apsw.ReadOnlyError, Unavailable),
     (apsw.IOError, Unavailable), (apsw.BusyError, Unavailable), (apsw.SQLError, Unavailable),
     (apsw.ConstraintError, Unavailable)],
)  # fmt: skip
def test_sqlites_errors_are_sorted(error: type[apsw.Error], expected: type[ScopefsError]) -> None:
    """Each of SQLite's errors becomes the one of ours that says who must act."""
    assert type(to_scopefs_error(error("x"))) is expected


def test_failed_commit_of_a_put_leaves_no_trace(vault: Vault) -> None:
    """A put whose commit failed is no version, and nothing of it is left after the next open."""
    refused: list[BaseException] = []
    inside, go = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        inside.set()
        assert go.wait(30)

    def put() -> None:
        try:
            vault.put("a.b", os.urandom(100_000), name="f")
        except Unavailable as error:
            refused.append(error)

    holder = threading.Thread(target=vault.apply, args=(hold,))
    holder.start()
    assert inside.wait(30)
    # Both gather while the first transaction is held, and share the second.
    others = [
        threading.Thread(target=put),
        threading.Thread(target=vault.apply_all, args=([break_commit],)),
    ]
    for thread in others:
        thread.start()
    while len(vault._journal._queue) < 2:
        assert holder.is_alive()
    go.set()
    for thread in (holder, *others):
        thread.join()
    assert len(refused) == 1
    assert vault.versions("a.b") == []
    vault.close()
    with Vault.open(vault.layout.root) as again:
        assert again.versions("a.b") == []
        staging = again.layout.staging
        assert [path.name for path in staging.rglob("*") if path.is_file()] == ["lock"]


def test_log_is_made_longer_ahead(journal: Journal, tmp_path: Path) -> None:
    """Who commits often writes over zeros, which take no part: a copy taken now, as a crash would
    leave it, holds every event, and goes on.
    """
    log = tmp_path / "index.db-wal"
    for number in range(60):
        journal.run(record(f"e{number}"), durable=True)
    size = log.stat().st_size
    assert size > RESERVE_BYTES
    assert not any(log.read_bytes()[-1000:])
    for number in range(60, 80):
        journal.run(record(f"e{number}"), durable=True)
    assert log.stat().st_size == size
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("index.db", "index.db-wal"):
        shutil.copy(tmp_path / name, copy)
    again = Journal(copy / "index.db", copy / "write.lock", lambda: 0)
    assert len(list_ops(again)) == 80
    again.run(record("after"), durable=True)
    assert len(list_ops(again)) == 81
    again.close()


def test_regression_each_commit_looked_at_the_log(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux writes a file's times anew after each look at them: each sync took half as long again.

    Nor does it when the log begins anew; then it is looked at, for it may be short.
    """
    log = tmp_path / "index.db-wal"
    looked = []
    real = os.stat

    def look(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        looked.extend([path] if str(path) == str(log) else [])
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", look)
    for number in range(60):
        journal.run(record(f"e{number}"), durable=True)
    assert len(looked) == 1
    assert journal.checkpoint()
    for number in range(60):
        journal.run(record(f"e{number}"), durable=True)
    assert len(looked) == 2
    assert real(log).st_size >= RESERVE_BYTES


def test_log_that_cannot_be_made_longer(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room for the zeros, what fits is committed all the same."""
    monkeypatch.setattr(os, "pwrite", refuse_for_lack_of_space)
    for number in range(20):
        journal.run(record(f"e{number}"), durable=True)
    assert len(list_ops(journal)) == 20


def refuse_for_lack_of_space(*_: object) -> int:
    """A full disk."""
    raise OSError(errno.ENOSPC, "full")


class Disk:
    """Lets syncs of the WAL fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = 0
        self.syncs = 0
        self.real = os.fdatasync

        def fdatasync(fd: int) -> None:
            self.syncs += 1
            if self.fails:
                self.fails -= 1
                raise OSError(errno.EIO, "broken")
            self.real(fd)

        monkeypatch.setattr(os, "fdatasync", fdatasync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk whose syncs can fail."""
    return Disk(monkeypatch)


def test_disk_is_quick_while_its_syncs_are(
    journal: Journal, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop waits for the disk itself if that has been quick for some time, and still is."""

    def commit_and_sync() -> bool:
        found = journal.try_run_all([record("a")])
        assert found is not None
        return journal.try_sync(found[1]) or bool(journal._try_sync(found[1]))

    now = 0.0

    def take(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("scopefs.store.wal.time", SimpleNamespace(monotonic=lambda: now))
    disk.real = lambda fd: take(0.0001)
    assert not journal.try_sync(journal._wal.ticket), "nothing is known of it yet"
    quick = [commit_and_sync() for _ in range(64)]
    assert not quick[0]
    assert all(quick[-16:])
    assert disk.syncs == 64
    disk.real = lambda fd: take(0.1)
    assert commit_and_sync(), "nobody could have known"
    disk.real = lambda fd: take(0.0001)
    assert not commit_and_sync()
    assert [commit_and_sync() for _ in range(100)][-1]


def test_loop_does_not_wait_for_the_sync_of_another_thread(journal: Journal, disk: Disk) -> None:
    journal._wal._mean_s = 0
    found = journal.try_run_all([record("a")])
    assert found is not None
    with journal._wal._lock:
        assert not journal.try_sync(found[1])
    assert journal.try_sync(found[1])
    assert journal.try_sync(found[1])
    assert disk.syncs == 1


def test_regression_log_stayed_open_behind_a_sync_that_had_nothing_to_do(
    journal: Journal,
) -> None:
    """Whoever closes it while somebody is at it leaves that to them, whatever they find to do."""
    journal.run(record("a"), durable=True)
    wal = journal._wal
    assert wal._fd >= 0
    with wal._lock:
        wal.close()
    wal.sync(wal.ticket)
    assert wal._fd < 0


def test_sync_that_fails_in_the_loop_is_told_by_the_thread(journal: Journal, disk: Disk) -> None:
    journal._wal._mean_s = 0
    found = journal.try_run_all([record("a")])
    assert found is not None
    disk.fails = 1
    assert not journal.try_sync(found[1])
    told: queue.SimpleQueue[ScopefsError | None] = queue.SimpleQueue()
    journal.sync_soon(found[1], told.put)
    assert isinstance(told.get(timeout=10), Unavailable)
    assert journal.run(record("b"), durable=True) == 2


def test_failed_sync_is_told_with_what_is_committed(journal: Journal, disk: Disk) -> None:
    """Who asked for the disk gets the error, and the result; who did not is not concerned."""
    disk.fails = 1
    (lost,) = journal.run_all([record("a")], durable=True)
    assert isinstance(lost, Failure)
    assert (type(lost.error), lost.result) == (Unavailable, 1)
    assert journal.run(record("b"), durable=False) == 2


def test_no_sync_makes_good_what_another_has_lost(
    journal: Journal, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync nothing is durable until the WAL has begun anew: the kernel may say 0
    of pages that it has dropped.
    """
    monkeypatch.setattr(journal, "_renew_wal", journal._disconnect)
    disk.fails = 1
    with pytest.raises(Unavailable):
        journal.run(record("a"), durable=True)
    for _ in range(2):
        with pytest.raises(Unavailable):
            journal.sync()
    assert journal.unsynced
    # The next commit begins it anew, and all is well.
    assert journal.run(record("b"), durable=True) == 2
    journal.sync()
    assert not journal.unsynced


def test_log_is_begun_anew_behind_a_failed_sync(
    journal: Journal, disk: Disk, tmp_path: Path
) -> None:
    """What the failed sync was to write is in index.db before anything else is committed."""
    disk.fails = 1
    with pytest.raises(Unavailable):
        journal.run(record("a"), durable=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "index.db", copy)
    again = Journal(copy / "index.db", copy / "write.lock", lambda: 0)
    assert list_ops(again) == [(1, '"op":"a"')]
    again.close()


def test_failed_checkpoint_makes_the_log_suspect(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been SQLite's own sync of the WAL: nothing before it is told to be durable."""
    journal.run(record("a"), durable=False)

    class Broken:
        system_errno = errno.EIO

        def __getattr__(self, name: str) -> Any:
            return getattr(db, name)

        def wal_checkpoint(self, **_: object) -> None:
            raise apsw.IOError("broken")

    db = journal._db
    monkeypatch.setattr(journal, "_db", Broken())
    assert not journal.checkpoint()
    with pytest.raises(Unavailable):
        journal._wal.sync(journal._wal.ticket)
    journal.sync()


def test_syncing_thread_outlives_what_nobody_foresaw(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits is told, and so is the next."""
    told: queue.SimpleQueue[ScopefsError | None] = queue.SimpleQueue()
    monkeypatch.setattr(journal, "_try_sync", interrupt_with(ZeroDivisionError()))
    journal.sync_soon(1, told.put)
    assert isinstance(told.get(timeout=10), Unavailable)
    monkeypatch.undo()
    journal.sync_soon(1, told.put)
    assert told.get(timeout=10) is None


def interrupt_with(error: Exception) -> Callable[..., Any]:
    """What fails in an odd way."""

    def fail(*_: object) -> Any:
        raise error

    return fail
