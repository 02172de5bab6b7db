"""Commits: many share one, each fails alone, none is lost with who asked."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from scopefs import Vault
from scopefs.commits import Commits
from scopefs.errors import Conflict, Unavailable
from scopefs.store.journal import Transaction
from scopefs.store.receipts import Stored
from tests.mounting import PATIENCE_S

STORED = Stored("a.b", 1)


class Counted:
    """A vault that says how many works each of its commits had."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.sizes: list[int] = []

    def apply_all(self, works: Sequence[Callable[[Transaction], Any]], *, durable: bool) -> Any:
        assert durable
        self.sizes.append(len(works))
        return self.vault.apply_all(works, durable=durable)


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    """A vault of the test's own."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        yield Counted(vault)


class Held:
    """A work that keeps the thread until it may go on."""

    def __init__(self) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, transaction: Transaction) -> Stored:
        self.begun.set()
        assert self.may_go_on.wait(PATIENCE_S)
        return STORED

    async def wait_begun(self) -> None:
        """Until the thread is at it."""
        assert await trio.to_thread.run_sync(self.begun.wait, PATIENCE_S)


def store(transaction: Transaction) -> Stored:
    """A work that succeeds."""
    return STORED


async def test_who_gathers_shares_one_commit(counted: Counted) -> None:
    """Sixteen that come while a commit is under way are one commit, the next one."""
    commits, held = Commits(counted), Held()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.apply_durably, held)
        await held.wait_begun()
        for _ in range(16):
            nursery.start_soon(commits.apply_durably, store)
        await trio.testing.wait_all_tasks_blocked()
        held.may_go_on.set()
    assert counted.sizes == [1, 16]
    assert await commits.apply_durably(store) == STORED
    assert counted.sizes == [1, 16, 1]


async def test_each_fails_alone(counted: Counted) -> None:
    """Who shares a commit with somebody who is refused notices nothing."""
    commits, held = Commits(counted), Held()
    failed: list[Exception] = []

    def refuse(transaction: Transaction) -> Stored:
        raise Conflict("no")

    async def try_it() -> None:
        with pytest.raises(Conflict) as caught:
            await commits.apply_durably(refuse)
        failed.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.apply_durably, held)
        await held.wait_begun()
        nursery.start_soon(try_it)
        nursery.start_soon(commits.apply_durably, store)
        await trio.testing.wait_all_tasks_blocked()
        held.may_go_on.set()
    assert (counted.sizes, len(failed)) == ([1, 2], 1)


async def test_who_has_gone_is_committed_all_the_same(counted: Counted) -> None:
    """Cancelling does not end the wait: whoever goes on knows what became of its bytes."""
    commits, held = Commits(counted), Held()
    results: list[Stored] = []

    async def ask() -> None:
        results.append(await commits.apply_durably(held))

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
