"""The feed of events: server-sent events, which go on where the client has left off.

Every event has its number as `id`, and numbers have no gap, so that a client that comes again with
`Last-Event-ID` misses nothing and gets nothing twice, also over a restart. What other processes
publish is found by asking the index for its newest number; one question serves all who wait.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import trio
from prometheus_client import Gauge

from scopefs.api.access import Principal
from scopefs.store.listing import find_last_seq, list_events_of
from scopefs.vault import Vault

POLL_S = 0.03
HEARTBEAT_S = 15.0
_PAGE = 500


class Feed:
    """What is new in one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._asked_s = 0.0
        self._last = 0

    def find_last_seq(self) -> int:
        """The newest event's number, at most `POLL_S` old."""
        now_s = trio.current_time()
        if now_s - self._asked_s >= POLL_S / 2:
            with self._vault.read() as db:
                self._last = find_last_seq(db)
            self._asked_s = now_s
        return self._last

    async def follow(
        self, find_principal: Callable[[], Principal | None], prefix: str, after: int,
        stop: trio.Event, gauge: Gauge,
    ) -> AsyncGenerator[bytes]:  # fmt: skip
        """Events after a number, as they come, until the server ends. In between, heartbeats.

        `find_principal`: who follows, asked again before anything is told; None ends the stream.
        """
        with gauge.track_inprogress():
            async with aclosing(self._follow(find_principal, prefix, after, stop)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _follow(
        self, find_principal: Callable[[], Principal | None], prefix: str, after: int,
        stop: trio.Event,
    ) -> AsyncGenerator[bytes]:  # fmt: skip
        # At once, so that a client knows it is connected.
        yield b": hello\n\n"
        beat_s = trio.current_time() + HEARTBEAT_S
        while not stop.is_set():
            is_due = trio.current_time() >= beat_s
            if self.find_last_seq() <= after and not is_due:
                with trio.move_on_after(POLL_S):
                    await stop.wait()
                continue
            principal = find_principal()
            if principal is None:
                return
            with self._vault.read() as db:
                events, after = list_events_of(db, principal.scopes, prefix, after, _PAGE)
            if events or is_due:
                yield b"".join(_format(event) for event in events) or b": still here\n\n"
                beat_s = trio.current_time() + HEARTBEAT_S
            await trio.lowlevel.checkpoint()


def _format(event: dict[str, Any]) -> bytes:
    # JSON has no line breaks of its own.
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (
        event["seq"], event["op"].encode(), msgspec.json.encode(event)
    )  # fmt: skip
