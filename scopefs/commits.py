"""Commits of many tasks at once, for the doors that are made with trio.

A change is committed in the event loop, where that takes no waiting: that is a few writes to the
kernel's cache, less than a hop to a thread and back (some 100 us), and no second thread of Python
competes with the loop. One thread waits for the disk, for all that are committed; what comes
meanwhile gathers, and is one transaction as soon as it is through. Where many come together, a
commit waits for a moment in which the loop has nothing else to do. A lone one does so now and then,
to find out if it still is alone; else it waits for nobody, and for a quick disk in the loop itself
(docs/adr/0005-a-lone-writer.md).

Where somebody else is writing, another process or a thread of this one, a thread commits.

What holds across the await: what is queued is committed, whoever has gone. So it is waited for,
whatever is cancelled, and no commit is under way when the loop ends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import trio
from outcome import Error, Outcome

from scopefs.store.journal import Failure, Transaction
from scopefs.vault import Vault

T = TypeVar("T")

GATHER_S = 0.002
"""How long a commit waits at most for those that seem to be on their way."""

COMPANY_COMMITS = 8
"""For how long it is remembered that several came together."""

LONE_COMMITS = 16
"""After so many lone ones in a row that the loop has synced, one waits for others: nobody can come
while the loop waits for the disk itself, and company would never be noticed.
"""


async def apply_all(vault: Vault, works: Sequence[Callable[[Transaction], T]]) -> list[T | Failure]:
    """Apply several changes in one transaction that nobody waits for on the disk."""
    found = vault.try_apply_all(works)
    if found is not None:
        return found[0]
    return await trio.to_thread.run_sync(vault.apply_all, works)


@dataclass(eq=False, slots=True)
class _Item:
    work: Callable[[Transaction], Any]
    task: trio.lowlevel.Task = field(default_factory=trio.lowlevel.current_task)
    result: Any = None
    is_over: bool = False


class Commits:
    """Durable commits of one vault, in one event loop."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._queue: list[_Item] = []
        self._leader: _Item | None = None
        """Whose task commits next; nobody's while a thread is at work."""
        self._is_busy = False
        """Whether a thread is at work."""
        self._company = 0
        """For so many commits more, others are expected to come together."""
        self._lone = 0
        """How many the loop has synced since one last waited for others."""

    async def apply_durably(self, work: Callable[[Transaction], T]) -> T:
        """Apply a change; when this returns, it is on the disk. Raises what the change raises."""
        result = await self.try_durably(work)
        if isinstance(result, Failure):
            raise result.error
        return result

    async def try_durably(self, work: Callable[[Transaction], T]) -> T | Failure:
        """The same; what went wrong is returned, with what was committed all the same."""
        item = _Item(work)
        self._queue.append(item)
        if self._leader is None and not self._is_busy:
            self._leader = item
        while not item.is_over:
            if self._leader is item:
                if self._company or self._lone >= LONE_COMMITS:
                    self._lone = 0
                    await self._gather()
                self._commit(trio.lowlevel.current_trio_token())
            if not item.is_over:
                await trio.lowlevel.wait_task_rescheduled(_go_on)
        return cast("T | Failure", item.result)

    async def _gather(self) -> None:
        """Let those come as well who are on their way: until the loop has nothing else to do.

        A commit and its sync cost hardly more for a few than for one.
        """
        # Not needed by a mount that one program writes to.
        from trio.testing import wait_all_tasks_blocked

        with trio.CancelScope(shield=True, deadline=trio.current_time() + GATHER_S):
            await wait_all_tasks_blocked()

    def _commit(self, token: trio.lowlevel.TrioToken) -> None:
        """Commit what has gathered here, and have a thread wait for the disk."""
        batch, self._queue = self._queue, []
        self._leader = None
        self._company = COMPANY_COMMITS if len(batch) > 1 else max(0, self._company - 1)
        works = [item.work for item in batch]
        found = None
        try:
            found = self._vault.try_apply_all(works)
            self._is_busy = True
            if found is None:
                trio.lowlevel.start_thread_soon(
                    partial(self._vault.apply_all, works, durable=True),
                    lambda done: token.run_sync_soon(self._note_done, batch, done),
                )
                return
            results, ticket = found
            if not self._company and self._vault.try_sync(ticket):
                self._lone += 1
                self._note_synced(batch, results, None)
                return
            self._vault.sync_soon(
                ticket,
                lambda error: token.run_sync_soon(self._note_synced, batch, results, error),
            )
        except Exception as error:
            # A closed vault; or a thread that cannot be started.
            self._note_synced(batch, found[0] if found else [Failure(error)] * len(batch), error)

    def _note_synced(self, batch: list[_Item], results: list[Any], error: Exception | None) -> None:
        """The disk has what was committed here, or has not."""
        if error is not None:
            results = [
                result if isinstance(result, Failure) else Failure(error, result)
                for result in results
            ]
        self._end(batch, results)

    def _note_done(self, batch: list[_Item], done: Outcome[list[Any]]) -> None:
        """A thread has committed, or failed to."""
        results = [Failure(done.error)] * len(batch) if isinstance(done, Error) else done.unwrap()
        self._end(batch, results)

    def _end(self, batch: list[_Item], results: list[Any]) -> None:
        """Tell a batch what became of it; whoever has come first since then commits next."""
        self._is_busy = False
        for item, result in zip(batch, results, strict=True):
            item.result, item.is_over = result, True
        woken = [*batch, *self._queue[:1]]
        self._leader = self._queue[0] if self._queue else None
        for item in woken:
            if item.task is not trio.lowlevel.current_task():
                trio.lowlevel.reschedule(item.task)


def _go_on(_raise_cancel: object) -> trio.lowlevel.Abort:
    """Cancelling does not end the wait."""
    return trio.lowlevel.Abort.FAILED
