"""Bodies of requests: streamed into drafts, never larger than allowed, never waited for for ever.

`TooLarge` is raised as soon as that is known: by the announced length before anything is read,
else at the first byte too many. Whoever answers early lingers (`linger`): a connection that is
closed while the client still sends would take the answer with it.
"""

import math

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from scopefs.errors import TooLarge
from scopefs.store.drafts import MEMORY_MAX_BYTES, Draft

DATA_INGEST_MAX_SIZE = 50 * 1024 * 1024
"""Largest body of a POST of data, in bytes, unless another is asked for."""

DEFAULT_MAX_SIZE = 1 * 1024 * 1024
"""Largest body of any other request, in bytes."""

STALL_S = 60.0
"""How long a body may stand still."""

LINGER_S = 2.0
_GATHER_BYTES = 1 << 18


def check_announced(request: Request, limit: int) -> None:
    """Refuse a body by its announced length. Raises `TooLarge`."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes, more than {limit}")


async def receive_into(request: Request, draft: Draft, limit: int) -> None:
    """Stream a body into a draft. Raises `TooLarge`, `ClientDisconnect`, 408."""
    gathered = bytearray()
    with trio.move_on_after(STALL_S) as waiting:
        async for chunk in request.stream():
            gathered += chunk
            if draft.size + len(gathered) > limit:
                raise TooLarge(f"the body has more than {limit} bytes")
            if len(gathered) >= _GATHER_BYTES:
                # A slow disk is not the client's fault.
                waiting.deadline = math.inf
                await trio.to_thread.run_sync(draft.append, gathered)
                gathered = bytearray()
            waiting.deadline = trio.current_time() + STALL_S
    if waiting.cancelled_caught:
        raise HTTPException(408, f"the body stood still for {STALL_S:.0f} s")
    if not gathered:
        return
    if draft.size + len(gathered) <= MEMORY_MAX_BYTES:
        draft.append(gathered)
    else:
        await trio.to_thread.run_sync(draft.append, gathered)


async def drop_body(request: Request, limit: int) -> None:
    """Read a body that is not wanted. Raises `TooLarge`, 408."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    size = 0
    with trio.move_on_after(STALL_S) as waiting:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the body has more than {limit} bytes")
    if waiting.cancelled_caught:
        raise HTTPException(408, f"the body did not come within {STALL_S:.0f} s")


async def linger(receive: Receive) -> None:
    """Read on for a moment what nobody wants, until the client has seen the answer."""
    with trio.move_on_after(LINGER_S):
        while not is_last(await receive()):
            pass


def is_last(message: Message) -> bool:
    """Whether nothing follows: the body is whole, or the client has gone."""
    return message["type"] == "http.disconnect" or not message.get("more_body", False)
