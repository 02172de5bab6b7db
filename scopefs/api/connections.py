"""Connections, each on its own: HTTP/1.1 as hypercorn's trio worker speaks it.

Not hypercorn's own loop: there, whatever breaks in one connection ends the server, and the mount
beside it. Here it ends that connection. What nobody offers is not begun: an upgrade to HTTP/2 (a
refused body broke hypercorn's) or to a WebSocket is passed over, and the request answered as it is.
`100 Continue` is sent when the body is first asked for, so that who is refused need not send it.
"""

import logging
import re
from contextlib import suppress
from functools import partial
from typing import Any, cast

import h11
import msgspec
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp

from scopefs.api.wire import ErrorBody

WANT_BODY = "want_body"
"""In the ASGI scope's `state`: to be awaited before a body is waited for."""

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(/.*)?\Z", re.IGNORECASE | re.DOTALL)
_CODES = {431: "CONTENT_TOO_LARGE"}
_LOG = logging.getLogger(__name__)


async def serve_connections(
    app: ASGIApp, config: Config, listener: trio.SocketListener, stop: trio.Event, *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    """Serve whoever connects, until `stop` is set; open requests may then take their grace."""
    context = WorkerContext(None)
    connect = partial(_Connection, ASGIWrapper(cast(Any, app)), config, context, {})
    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(
                    partial(trio.serve_listeners, connect, [listener], handler_nursery=connections)
                )
                task_status.started()
                await stop.wait()
                accepting.cancel_scope.cancel()
        finally:
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + config.graceful_timeout


class _Connection(TCPServer):
    """One connection, from its beginning to its end."""

    stream: Any

    async def run(self) -> None:
        try:
            await self._talk()
        except* OSError:
            # The client has gone.
            pass
        except* Exception as errors:
            _LOG.error("a connection broke, and was closed", exc_info=errors)

    async def _talk(self) -> None:
        try:
            socket = self.stream.socket
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with TaskGroup() as tasks:
                self._task_group = tasks
                self.protocol = cast(Any, _Http1(
                    self.app, self.config, self.context, tasks, ConnectionState({}), False,
                    client, server, self.protocol_send,
                ))  # fmt: skip
                await self.idle_task.restart(tasks, self._idle_timeout)
                await self._read_data()
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                # Not shielded, as hypercorn has it: who reads nothing would keep a server that is
                # to end, for a Unix socket has no timeout of its own.
                await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self.protocol.handle(Closed())

    async def _close(self) -> None:
        # Without send_eof(), which breaks an answer that another task is sending.
        await self.stream.aclose()


class _Head(h11.Connection):
    """HTTP/1.1, which tells that a client waits for a `100 Continue` once that is wanted."""

    is_wanted = False

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        return self.is_wanted and super().they_are_waiting_for_100_continue

    def start_next_cycle(self) -> None:
        super().start_next_cycle()
        self.is_wanted = False


class _Http1(H11Protocol):
    """HTTP/1.1 alone, whose own errors have the shape of all errors."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        limit = self.config.h11_max_incomplete_size
        self._head = _Head(h11.SERVER, max_incomplete_event_size=limit)
        self.connection = self._head
        self.connection_state = ConnectionState({WANT_BODY: self._want_body})

    async def _want_body(self) -> None:
        self._head.is_wanted = True
        if self._head.they_are_waiting_for_100_continue:
            headers = self.config.response_headers("h11")
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers))

    async def _check_protocol(self, event: h11.Request) -> None:
        """No protocol but this."""

    async def _create_stream(self, request: h11.Request) -> None:
        if not request.target.startswith(b"/") or any(
            name == b"upgrade" for name, _ in request.headers
        ):
            request = _simplify(request)
        await super()._create_stream(request)

    async def _send_error_response(self, status_code: int) -> None:
        """What is no HTTP: behind a head that was understood, the body is at fault."""
        other = "INVALID_QUERY" if self.stream is None else "INVALID_BODY"
        body = msgspec.json.encode(
            ErrorBody(_CODES.get(status_code, other), "the request is no HTTP/1.1, or too long")
        )
        headers = [
            (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"), *self.config.response_headers("h11"),
        ]  # fmt: skip
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        # A HEAD takes no body.
        with suppress(h11.LocalProtocolError):
            await self._send_h11_event(h11.Data(data=body))
            await self._send_h11_event(h11.EndOfMessage())


def _simplify(request: h11.Request) -> h11.Request:
    """The request without an upgrade, and addressed to the host that its target may name."""
    skipped, target = [b"upgrade"], request.target
    named = _ABSOLUTE.match(target)
    if named is not None:
        skipped.append(b"host")
        target = named[2] or b"/"
    headers = [pair for pair in request.headers if pair[0] not in skipped]
    if named is not None:
        headers.append((b"host", named[1]))
    return h11.Request(
        method=request.method, target=target, headers=headers, http_version=request.http_version
    )
