"""What was closed a moment ago: readers wait for it, so that what was saved in a mount is there.

`close()` returns once the bytes are durable; the version is published when the kernel releases the
file, some milliseconds later. The index tells what is in between, whichever process has the mount.
"""

import trio

from scopefs.store.listing import Closed, list_closed
from scopefs.vault import Vault

GRACE_S = 0.1
"""How long a write is waited for, from when it was first met: it may be that another program still
has the file open, and nothing will be published before that closes it."""

_STEP_S = 0.002


class Pending:
    """What is about to be published in one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._met_s: dict[Closed, float] = {}

    async def wait(self, scope: str | None = None) -> None:
        """Wait for what is closed now, in a scope or anywhere, to be published."""
        now_s = trio.current_time()
        closed = self._list()
        self._met_s = {write: self._met_s.get(write, now_s) for write in closed}
        wanted = {write for write in closed if scope is None or write.scope == scope}
        if wanted:
            with trio.move_on_at(max(self._met_s[write] for write in wanted) + GRACE_S):
                # Whoever publishes may be another process, which tells nobody but the index.
                while wanted.intersection(self._list()):  # noqa: ASYNC110
                    await trio.sleep(_STEP_S)

    def _list(self) -> list[Closed]:
        with self._vault.read() as db:
            return list_closed(db)
