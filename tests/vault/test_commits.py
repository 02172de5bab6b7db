"""Commits: many share one, each fails alone, none is lost with who asked."""

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from scopefs import Vault
from scopefs.commits import LONE_COMMITS, Commits
from scopefs.errors import Conflict, Unavailable
from scopefs.store.journal import Failure, Transaction
from scopefs.store.receipts import Stored
from tests.mounting import PATIENCE_S, wait_until

STORED = Stored("a.b", 1)


class Counted:
    """A vault that says how many works each of its commits had, and whose disk can be held."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.sizes: list[int] = []
        self.in_threads = 0
        self.held: Held | None = None

    def try_apply_all(self, works: Sequence[Callable[[Transaction], Any]]) -> Any:
        found = self.vault.try_apply_all(works)
        if found is not None:
            self.sizes.append(len(works))
        return found

    def apply_all(self, works: Sequence[Callable[[Transaction], Any]], *, durable: bool) -> Any:
        assert durable
        self.sizes.append(len(works))
        self.in_threads += 1
        return self.vault.apply_all(works, durable=durable)

    def try_sync(self, ticket: int) -> bool:
        return self.held is None and self.vault.try_sync(ticket)

    def sync_soon(self, ticket: int, tell: Callable[[Any], None]) -> None:
        def wait_and_tell(error: Any) -> None:
            if self.held is not None:
                self.held.hold()
            tell(error)

        self.vault.sync_soon(ticket, wait_and_tell)


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    """A vault of the test's own."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        yield Counted(vault)


class Held:
    """Keeps a thread until it may go on."""

    def __init__(self) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def hold(self) -> None:
        self.begun.set()
        assert self.may_go_on.wait(PATIENCE_S)

    async def wait_begun(self) -> None:
        """Until the thread is at it."""
        assert await trio.to_thread.run_sync(self.begun.wait, PATIENCE_S)


@pytest.fixture
def held(counted: Counted) -> Held:
    """Keeps the thread that waits for the disk."""
    counted.held = Held()
    return counted.held


def store(transaction: Transaction) -> Stored:
    """A work that succeeds."""
    return STORED


async def test_who_gathers_shares_one_commit(counted: Counted, held: Held) -> None:
    """Sixteen that come while the disk is waited for are one commit, the next one."""
    commits = Commits(counted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.apply_durably, store)
        await held.wait_begun()
        for _ in range(16):
            nursery.start_soon(commits.apply_durably, store)
        await trio.testing.wait_all_tasks_blocked()
        held.may_go_on.set()
    assert counted.sizes == [1, 16]
    assert await commits.apply_durably(store) == STORED
    assert (counted.sizes, counted.in_threads) == ([1, 16, 1], 0)


async def test_each_fails_alone(counted: Counted, held: Held) -> None:
    """Who shares a commit with somebody who is refused notices nothing."""
    commits = Commits(counted)
    failed: list[Exception] = []

    def refuse(transaction: Transaction) -> Stored:
        raise Conflict("no")

    async def try_it() -> None:
        with pytest.raises(Conflict) as caught:
            await commits.apply_durably(refuse)
        failed.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.apply_durably, store)
        await held.wait_begun()
        nursery.start_soon(try_it)
        nursery.start_soon(commits.apply_durably, store)
        await trio.testing.wait_all_tasks_blocked()
        held.may_go_on.set()
    assert (counted.sizes, len(failed)) == ([1, 2], 1)


async def test_who_has_gone_is_committed_all_the_same(counted: Counted, held: Held) -> None:
    """Cancelling does not end the wait: whoever goes on knows what became of its bytes."""
    commits = Commits(counted)
    results: list[Stored] = []

    async def ask() -> None:
        results.append(await commits.apply_durably(store))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await held.wait_begun()
        nursery.cancel_scope.cancel()
        held.may_go_on.set()
    assert results == [STORED]


async def test_a_vault_that_is_closed(counted: Counted) -> None:
    """What refuses all of a commit is told to all, and the next is tried again."""
    commits = Commits(counted)
    counted.vault.close()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await commits.apply_durably(store)


async def test_while_somebody_else_writes(counted: Counted) -> None:
    """A loop does not wait for another thread's transaction: a thread of its own does."""
    commits, writing = Commits(counted), Held()
    done: list[Stored] = []

    def hold(transaction: Transaction) -> None:
        writing.hold()

    async def ask() -> None:
        done.append(await commits.apply_durably(store))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, counted.vault.apply, hold)
        await writing.wait_begun()
        nursery.start_soon(ask)
        await trio.to_thread.run_sync(wait_until, lambda: counted.in_threads)
        assert done == []
        writing.may_go_on.set()
    assert done == [STORED]


async def test_lone_commit_is_synced_here_on_a_quick_disk(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes less than a thread would is done at once."""
    commits = Commits(counted)
    told: list[int] = []
    monkeypatch.setattr(counted.vault, "sync_soon", lambda ticket, tell: (told.append(ticket),
                                                                          tell(None)))  # fmt: skip
    monkeypatch.setattr("scopefs.store.wal.QUICK_S", PATIENCE_S)
    for _ in range(2 * LONE_COMMITS):
        assert await commits.apply_durably(store) == STORED
    assert not told


async def test_company_is_noticed_on_a_quick_disk(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many who write at once share commits, though each alone would be synced at once."""
    commits = Commits(counted)
    monkeypatch.setattr("scopefs.store.wal.QUICK_S", PATIENCE_S)

    async def store_often() -> None:
        for _ in range(20):
            await commits.apply_durably(store)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(store_often)
    assert sum(counted.sizes) == 320
    assert len(counted.sizes) < 160


def set_quick(vault: Vault, is_quick: bool = True) -> None:
    """Have the disk be known as a quick one, or as a slow one."""
    vault._journal._wal._mean_s = 0 if is_quick else 1


@pytest.mark.parametrize("is_quick", [True, False])
async def test_what_the_disk_has_not_taken(
    counted: Counted, monkeypatch: pytest.MonkeyPatch, is_quick: bool
) -> None:
    """A sync that fails is told, with what was committed; the next commit is as good as any."""
    commits = Commits(counted)
    set_quick(counted.vault, is_quick)

    def refuse(fd: int) -> None:
        monkeypatch.undo()
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fdatasync", refuse)
    result = await commits.try_durably(store)
    assert isinstance(result, Failure)
    assert isinstance(result.error, Unavailable)
    assert result.result == STORED
    assert await commits.apply_durably(store) == STORED
