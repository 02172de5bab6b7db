"""Commits of many tasks at once, for the doors that are made with trio.

A thread takes all that have gathered, commits them in one transaction, tells whoever waits, and
looks again; when nothing has come meanwhile, it ends. So one hop to a thread (some 100 us) and one
sync of the disk serve all that came together, and a lone request waits for nobody. Trio's own
`to_thread` would do, but names the thread, limits and copies contexts for each commit, and comes
back to the loop before the next one can begin.

What holds across the await: what is queued is committed, whoever has gone. So it is waited for,
whatever is cancelled, and no commit is under way when the loop ends.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import trio

from scopefs.store.journal import Failure, Transaction
from scopefs.vault import Vault

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Item:
    work: Callable[[Transaction], Any]
    task: trio.lowlevel.Task = field(default_factory=trio.lowlevel.current_task)
    token: trio.lowlevel.TrioToken = field(default_factory=trio.lowlevel.current_trio_token)
    result: Any = None


class Commits:
    """Durable commits of one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._lock = threading.Lock()
        self._queue: list[_Item] = []
        self._is_running = False

    async def apply_durably(self, work: Callable[[Transaction], T]) -> T:
        """Apply a change; when this returns, it is on the disk. Raises what the change raises."""
        item = _Item(work)
        with self._lock:
            self._queue.append(item)
            is_first, self._is_running = not self._is_running, True
        if is_first:
            trio.lowlevel.start_thread_soon(self._run, _ignore)
        await trio.lowlevel.wait_task_rescheduled(_go_on)
        if isinstance(item.result, Failure):
            raise item.result.error
        return cast(T, item.result)

    def _run(self) -> None:
        """Commit until nothing waits. In a thread."""
        while True:
            with self._lock:
                batch, self._queue = self._queue, []
                if not batch:
                    self._is_running = False
                    return
            results: list[Any]
            try:
                results = self._vault.apply_all([item.work for item in batch], durable=True)
            except BaseException as error:
                results = [Failure(error)] * len(batch)
            for item, result in zip(batch, results, strict=True):
                item.result = result
            batch[0].token.run_sync_soon(_wake, batch)


def _wake(batch: list[_Item]) -> None:
    for item in batch:
        trio.lowlevel.reschedule(item.task)


def _go_on(_raise_cancel: object) -> trio.lowlevel.Abort:
    """Cancelling does not end the wait."""
    return trio.lowlevel.Abort.FAILED


def _ignore(_outcome: object) -> None:
    """What came out went to the items."""
