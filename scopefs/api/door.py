"""What stands before all routes: who asks, and from where; and behind them: how it went.

Every error leaves here in its one shape, every request with its line in the access log. Nothing but
`/health` is answered to somebody unknown.
"""

import logging
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scopefs.api.bodies import is_last, linger
from scopefs.api.connections import WANT_BODY
from scopefs.api.content import reply
from scopefs.api.context import Asked, Served
from scopefs.api.queries import check_escapes
from scopefs.api.statuses import HTTP_CODES, STATUSES, to_status
from scopefs.api.wire import Access, ErrorBody
from scopefs.errors import MissingAuth, NoSpace, ScopefsError

OPEN_PATHS = frozenset(("/health",))
CLIENT_LEFT = 499
"""What stands in the access log where nobody waited for the answer."""

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
_EXPOSED = "ETag, Content-Range, Content-Disposition, Idempotent-Replayed"
_LOG = logging.getLogger(__name__)


class Door:
    """ASGI middleware around all routes of one server."""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        self._app = app
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._note)
        scope["scopefs"] = exchange.asked
        try:
            try:
                if not await self._let_in(scope, exchange):
                    await self._app(scope, exchange.receive, exchange.send)
            except ClientDisconnect:
                exchange.asked.status = exchange.asked.status or CLIENT_LEFT
            except Exception as error:
                if exchange.asked.status:
                    # What has begun can only be cut: the client sees that it is not whole.
                    _log(error, f"{scope['method']} {scope['path']}")
                else:
                    answer = answer_error(error, f"{scope['method']} {scope['path']}")
                    await answer(scope, exchange.receive, exchange.send)
        finally:
            exchange.end()

    async def _let_in(self, scope: Scope, exchange: "_Exchange") -> bool:
        """Check who asks, and from where; True if that was all there was to answer."""
        headers = Headers(scope=scope)
        origins = self._served.origins
        origins.check_host(headers.get("host", ""))
        exchange.origin = origins.check_origin(headers)
        if exchange.origin is not None and scope["method"] == "OPTIONS":
            # A browser asks before it asks; it sends no credential with that.
            allowed = {
                "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE",
                "access-control-allow-headers": headers.get("access-control-request-headers", "*"),
                "access-control-max-age": "600",
            }
            await Response(status_code=204, headers=allowed)(scope, exchange.receive, exchange.send)
            return True
        tokens = self._served.tokens
        if tokens is not None and scope["path"] not in OPEN_PATHS:
            exchange.asked.principal = tokens.find_principal(headers.get("authorization", ""))
        check_escapes(scope["raw_path"] + b"?" + scope["query_string"])
        return False

    def _note(self, scope: Scope, exchange: "_Exchange") -> None:
        asked, served = exchange.asked, self._served
        seconds = time.perf_counter() - exchange.started_s
        method = scope["method"] if scope["method"] in _METHODS else "other"
        served.metrics.note(
            method, asked.route, asked.status, seconds, asked.bytes_in, asked.bytes_out
        )
        if not scope["path"].startswith("/v1/"):
            return
        client = scope.get("client")
        served.log.write(
            Access(
                served.log.now(), asked.principal.name, client[0] if client else None, method,
                scope["path"][:2000], asked.scope, asked.status or CLIENT_LEFT, asked.bytes_in,
                asked.bytes_out, round(seconds * 1000, 3),
            )
        )  # fmt: skip


class _Exchange:
    """One request and its answer, as they pass by."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send,
        note: "Callable[[Scope, _Exchange], None]",
    ) -> None:  # fmt: skip
        """`note`: told once how it went, before the client has the last of the answer."""
        self._scope = scope
        self._note = note
        self._is_noted = False
        self.asked = Asked()
        self.origin: str | None = None
        self.started_s = time.perf_counter()
        self._receive = receive
        self._want_body = scope.get("state", {}).get(WANT_BODY)
        self._send = send
        names = {name for name, value in scope["headers"] if value != b"0"}
        self._is_read = not names & {b"content-length", b"transfer-encoding"}
        self._is_head = scope["method"] == "HEAD"

    def end(self) -> None:
        """Note how it went, unless that was done."""
        if not self._is_noted:
            self._is_noted = True
            self._note(self._scope, self)

    async def receive(self) -> Message:
        if self._want_body is not None and not self._is_read:
            await self._want_body()
        return await self._receive_unasked()

    async def _receive_unasked(self) -> Message:
        message = await self._receive()
        self.asked.bytes_in += len(message.get("body", b""))
        self._is_read = self._is_read or is_last(message)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.asked.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-content-type-options"] = "nosniff"
            if not self._is_read:
                # Whoever is answered before it has said everything must not ask here again.
                headers["connection"] = "close"
            if self.origin is not None:
                headers["access-control-allow-origin"] = self.origin
                headers["access-control-expose-headers"] = _EXPOSED
                headers.add_vary_header("origin")
        elif not self._is_head:
            self.asked.bytes_out += len(message.get("body", b""))
        is_final = message["type"] == "http.response.body" and not message.get("more_body")
        if is_final:
            self.end()
        if is_final and not self._is_read:
            await self._send({**message, "more_body": True})
            await linger(self._receive_unasked)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)


def answer_error(error: Exception, what: str) -> Response:
    """The answer to whatever was raised."""
    if isinstance(error, HTTPException):
        code = HTTP_CODES.get(error.status_code, "INVALID_QUERY")
        body = ErrorBody(code, f"{what}: {error.detail}")
        return reply(error.status_code, body, dict(error.headers or {}))
    status, code = to_status(error)
    headers = {"www-authenticate": "Bearer"} if isinstance(error, MissingAuth) else None
    if isinstance(error, ScopefsError):
        return reply(status, ErrorBody(code, str(error)), headers)
    if (status, code) == STATUSES[NoSpace]:
        return reply(status, ErrorBody(code, "the disk under the vault is full"))
    _log(error, what)
    return reply(status, ErrorBody(code, "the request failed; the log says why"), headers)


def _log(error: Exception, what: str) -> None:
    _LOG.error("%s failed", what[:2000], exc_info=error)
