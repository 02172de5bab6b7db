"""Waiting without a turn of the event loop where there is nothing to wait for.

Trio's locks and its `wait_readable` give everybody else a turn first, and ask the kernel what has
come meanwhile: some 15 us, several times for each file. Fairness is kept where it counts: after a
few requests in a row that were there already, all others have their turn.
"""

import select
import time
from types import SimpleNamespace, TracebackType
from typing import Any, Final

import pyfuse3
import trio

IN_A_ROW: Final = 8
"""So many requests are taken in a row before others have a turn."""

SPIN_S: Final = 30e-6
"""How long the next request is waited for on the spot: about what a turn of the loop costs. Of a
program that makes files, the next one is there within that time more often than not.
"""


class Lock:
    """A lock between tasks, for `async with`."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._lock.release()


class _Requests:
    """Tells when the kernel has a request."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._fd = -1
        self._in_a_row = 0

    async def wait_readable(self, fd: int) -> None:
        """Wait for a request; others have no turn if it comes at once."""
        if fd != self._fd:
            self._fd = fd
            self._poll.register(fd, select.POLLIN)
        self._in_a_row += 1
        if self._in_a_row < IN_A_ROW:
            end = time.perf_counter() + SPIN_S
            while True:
                if self._poll.poll(0):
                    return
                if time.perf_counter() > end:
                    break
        self._in_a_row = 0
        await trio.lowlevel.wait_readable(fd)


def wait_quickly() -> None:
    """Have pyfuse3 wait for requests in this way: it finds what it uses of trio by a name that
    it lets others set, as its support of asyncio does.
    """
    lowlevel = SimpleNamespace(**vars(trio.lowlevel))
    lowlevel.wait_readable = _Requests().wait_readable
    quick: Any = SimpleNamespace(**vars(trio))
    quick.lowlevel, quick.Lock = lowlevel, Lock
    vars(pyfuse3)["trio"] = quick
