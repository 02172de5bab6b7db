"""Answers that come in pieces, until the client goes away.

Not Starlette's: that one cancels its sending when it hears of the end of the very answer that it is
sending, in the middle of what hypercorn does between two requests; the connection then hangs.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Streamed(Response):
    """An answer whose body is made while it is sent."""

    def __init__(
        self, pieces: AsyncGenerator[bytes], status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(None, status, headers)
        # Without a length it is sent in chunks, or until the connection ends.
        if "content-length" not in headers:
            del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        is_whole = False
        async with aclosing(self._pieces) as pieces, trio.open_nursery() as nursery:
            nursery.start_soon(_watch, receive, nursery.cancel_scope)
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            is_whole = True
            nursery.cancel_scope.cancel()
        if is_whole:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _watch(receive: Receive, sending: trio.CancelScope) -> None:
    """End the sending once nobody listens."""
    while (await receive())["type"] != "http.disconnect":
        pass
    sending.cancel()
