"""Commits of many requests at once.

The first request that comes takes all that have gathered to a thread; whoever comes while that is
under way waits, and the next one carries them. So one hop to a thread (some 100 us) and one sync of
the disk serve all that came together, and a lone request waits for nobody.

What holds across the await: items leave the queue only with the leader that commits them, and a
leader that is cancelled still commits (the thread is waited for).
"""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from scopefs.store.journal import Failure, Transaction
from scopefs.store.receipts import Stored
from scopefs.vault import Vault

Work = Callable[[Transaction], Stored]


@dataclass(eq=False, slots=True)
class _Item:
    work: Work
    result: Stored | Failure | None = None


class Commits:
    """Durable commits of one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._leader = trio.Lock()
        self._queue: list[_Item] = []

    async def apply_durably(self, work: Work) -> Stored:
        """Apply a change; when this returns, it is on the disk. Raises what the change raises."""
        item = _Item(work)
        self._queue.append(item)
        # Once it is queued it may be committed, whoever has gone: so it is waited for.
        with trio.CancelScope(shield=True):
            async with self._leader:
                if item.result is None:
                    await self._commit()
        if isinstance(item.result, Failure):
            raise item.result.error
        assert item.result is not None
        return item.result

    async def _commit(self) -> None:
        batch, self._queue = self._queue, []
        results: list[Stored | Failure]
        try:
            results = await trio.to_thread.run_sync(self._apply, [item.work for item in batch])
        except Exception as error:
            results = [Failure(error)] * len(batch)
        for item, result in zip(batch, results, strict=True):
            item.result = result

    def _apply(self, works: list[Work]) -> list[Stored | Failure]:
        return self._vault.apply_all(works, durable=True)
