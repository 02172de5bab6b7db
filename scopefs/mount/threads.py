"""Threads for what waits for the disk (docs/adr/0002-threads.md)."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import trio

from scopefs.store.readers import PayloadReader

_P = ParamSpec("_P")
_T = TypeVar("_T")

_LIMITER = trio.CapacityLimiter(64)


async def in_thread(call: Callable[..., _T], *args: object) -> _T:
    """Run a call in a thread; it is finished even if the task is cancelled."""
    return await trio.to_thread.run_sync(call, *args, limiter=_LIMITER)


async def read_at(reader: PayloadReader, offset: int, size: int) -> bytes:
    """Read, in a thread if it may take its time."""
    if reader.is_ready(offset, size):
        return reader.read(offset, size)
    return await in_thread(reader.read, offset, size)
