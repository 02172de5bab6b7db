"""Threads of an open vault that follow its changes: settling, and syncing in time.

Settling: when nothing changed for 250 ms, at latest 2 s after the first change that waits. A
version younger than 250 ms is left for the next time, so that a tool's rename and utimens right
after its close still reach the envelope. Errors are logged and tried again, ever less often;
nothing is lost by waiting, for reads come from the journal.

Syncing: settling makes durable what nobody has waited for, but may take long, of many files or on a
slow disk. What is committed meanwhile is synced beside it.
"""

import logging
import threading
import time
from collections.abc import Callable

from scopefs.errors import ScopefsError

QUIET_S = 0.25
LATEST_S = 2.0
SYNC_S = 1.5
"""After so long, what was committed is synced, if nobody else has done it."""

_RETRY_MAX_S = 60.0
_SLACK_S = 0.001
"""The vault's clock, by which versions are old enough, may be adjusted meanwhile."""
_LOG = logging.getLogger(__name__)


class _Follower:
    """A thread that has something to do after each change. It starts when needed."""

    _name: str

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting = False
        """Whether there is something to do."""
        self._stopping = False
        self._thread: threading.Thread | None = None

    def poke(self) -> None:
        """Say that something was committed. Cheap: called after every change."""
        if self._waiting:
            return
        with self._condition:
            if self._stopping:
                return
            self._note_first()
            self._waiting = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            else:
                self._condition.notify()

    def stop(self) -> None:
        """End the thread, after what it may be at."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _note_first(self) -> None:
        """Something is to be done, and was not before."""

    def _run(self) -> None:
        """What the thread does, until it is told to stop."""


class SettleThread(_Follower):
    """Calls `settle(older_than_us)` in time after each `poke()`."""

    _name = "scopefs-settle"

    def __init__(
        self,
        settle: Callable[[int], bool],
        clock_us: Callable[[], int],
        syncing: "SyncThread | None" = None,
    ) -> None:
        super().__init__()
        self._settle = settle
        self._clock_us = clock_us
        self._syncing = syncing
        self._first = 0.0
        self._last = 0.0

    def poke(self) -> None:
        """Say that something was committed. Cheap: called after every change."""
        self._last = time.monotonic()
        if self._syncing is not None:
            self._syncing.poke()
        super().poke()

    def stop(self) -> None:
        """End the thread, after the settle that it may be in; and the one that syncs beside it."""
        if self._syncing is not None:
            self._syncing.stop()
        super().stop()

    def _note_first(self) -> None:
        self._first = self._last

    def _run(self) -> None:
        retry_s = QUIET_S
        while self._wait_until_due():
            # What comes from here on pokes again.
            self._waiting = False
            # Else what came last is too young, and is left for the next time.
            takes_all = self._last + QUIET_S <= time.monotonic()
            try:
                done = self._settle(self._clock_us() - int(QUIET_S * 1e6))
            except (OSError, ScopefsError) as error:
                # A full disk, for instance: nothing is lost, and it may be over soon.
                _LOG.warning("settling failed, next try in %.1f s: %s", retry_s, error)
                done = False
            except Exception:
                _LOG.exception("settling failed; it will be tried again in %.1f s", retry_s)
                done = False
            if done:
                retry_s = QUIET_S
                if takes_all and not self._waiting:
                    continue
            elif self._sleep(retry_s):
                return
            else:
                retry_s = min(retry_s * 2, _RETRY_MAX_S)
            self.poke_again()

    def poke_again(self) -> None:
        """Come back although nothing changed: something was too young, or failed."""
        with self._condition:
            if not self._waiting:
                self._waiting = True
                self._first = time.monotonic()

    def _sleep(self, seconds: float) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self._stopping, seconds)

    def _wait_until_due(self) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._stopping)
            while not self._stopping:
                now = time.monotonic()
                due = min(self._last + QUIET_S + _SLACK_S, self._first + LATEST_S)
                if now >= due:
                    return True
                self._condition.wait(due - now)
            return False


class SyncThread(_Follower):
    """Calls `sync()` in time after each `poke()`."""

    _name = "scopefs-in-time"

    def __init__(self, sync: Callable[[], None]) -> None:
        super().__init__()
        self._sync = sync

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._stopping)
                if self._condition.wait_for(lambda: self._stopping, SYNC_S):
                    return
            # What comes from here on pokes again.
            self._waiting = False
            try:
                self._sync()
            except ScopefsError as error:
                _LOG.error("what was committed could not be made durable: %s", error)
            except Exception:
                _LOG.exception("what was committed could not be made durable")
