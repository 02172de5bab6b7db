"""The routes. Source: docs/semantics.md, T2."""

import logging
import time
from collections.abc import Awaitable, Callable

import msgspec
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scopefs import __version__
from scopefs.api.statuses import to_status
from scopefs.errors import InvalidBody, ScopefsError, TooLarge
from scopefs.model.envelope import Receipt
from scopefs.model.payload import Kind
from scopefs.model.scope import Scope, parse_scope
from scopefs.store.drafts import Draft
from scopefs.store.index import Version
from scopefs.vault import Vault

DATA_INGEST_MAX_SIZE = 50 * 1024 * 1024
"""Largest body of a POST of data, in bytes."""

DEFAULT_MAX_SIZE = 1 * 1024 * 1024
"""Largest body of any other request, in bytes."""

_INLINE_WRITE_BYTES = 65_536
_LOG = logging.getLogger(__name__)
_JSON = "application/json"


class ErrorBody(msgspec.Struct):
    """The one shape of every error."""

    error: str
    message: str


class Health(msgspec.Struct):
    """The answer of /health; uptime in seconds."""

    status: str
    version: str
    uptime: float


def build_app(vault: Vault) -> Starlette:
    """The ASGI application of one vault."""
    started = time.monotonic()

    async def ingest(request: Request) -> Response:
        scope = parse_scope(request.path_params["scope"])
        with vault.new_draft() as draft:
            await _receive_body(request, draft, DATA_INGEST_MAX_SIZE)
            version = await trio.to_thread.run_sync(_store_document, vault, scope, draft)
        return _reply(201, Receipt(version.scope, version.collected_at))

    async def health(request: Request) -> Response:
        await trio.to_thread.run_sync(vault.status)
        return _reply(200, Health("healthy", __version__, round(time.monotonic() - started, 3)))

    return Starlette(
        routes=[
            Route("/v1/data/{scope:path}", _guard(ingest), methods=["POST"]),
            Route("/health", _guard(health), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _answer_http_exception},
    )


async def _receive_body(request: Request, draft: Draft, limit: int) -> None:
    """Stream a body into a draft. Raises `TooLarge` as soon as that is known."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes, more than {limit}")
    async for chunk in request.stream():
        if draft.size + len(chunk) > limit:
            raise TooLarge(f"the body has more than {limit} bytes")
        if draft.size + len(chunk) <= _INLINE_WRITE_BYTES:
            draft.append(chunk)
        else:
            await trio.to_thread.run_sync(draft.append, chunk)


def _store_document(vault: Vault, scope: Scope, draft: Draft) -> Version:
    """Store a body that is one JSON object. Raises `InvalidBody` for any other."""
    if draft.seal(None).kind is not Kind.DOCUMENT:
        raise InvalidBody("the body is not one JSON object")
    return vault.put_draft(scope, draft, writer="http")


def _guard(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn whatever a handler raises into the one shape of errors."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException:
            raise
        except Exception as error:
            status, code = to_status(error)
            if isinstance(error, ScopefsError):
                return _reply(status, ErrorBody(code, str(error)))
            _LOG.exception("%s %s failed", request.method, request.url.path)
            return _reply(status, ErrorBody(code, "the request failed; the log says why"))

    return guarded


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Unknown routes and methods."""
    assert isinstance(error, HTTPException)
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "INVALID_QUERY")
    message = f"{request.method} {request.url.path}: {error.detail}"
    return _reply(error.status_code, ErrorBody(code, message), dict(error.headers or {}))


def _reply(status: int, body: msgspec.Struct, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type=_JSON)
