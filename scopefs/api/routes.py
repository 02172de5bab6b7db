"""The table of paths, from which the routes and /openapi.json are made. Source: semantics T2 ff.

Each operation names the right that it takes and what it is about; that is checked here, in this
order: credential (`Door`), right and scope, whether the vault is only read, announced size, body.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scopefs.api import ingest, reading, wire
from scopefs.api.access import Origins, Tokens
from scopefs.api.access_log import AccessLog
from scopefs.api.bodies import (
    DATA_INGEST_MAX_SIZE,
    DEFAULT_MAX_SIZE,
    check_announced,
    drop_body,
)
from scopefs.api.content import reply
from scopefs.api.context import Asked, HttpOptions, Served
from scopefs.api.door import Door, answer_error
from scopefs.api.feed import Feed
from scopefs.api.metrics import Metrics
from scopefs.api.openapi import Answer, Described, Parameter, describe
from scopefs.api.pending import Pending
from scopefs.commits import Commits
from scopefs.errors import Forbidden
from scopefs.model.scope import parse_scope
from scopefs.store.tokens import Right
from scopefs.vault import Vault

__all__ = ["DATA_INGEST_MAX_SIZE", "DEFAULT_MAX_SIZE", "HttpOptions", "build_app"]

Handler = Callable[[Served, Asked, Request], Awaitable[Response]]

_LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000},
                   "How many at most; 50 unless told.")  # fmt: skip
_OFFSET = Parameter("offset", "query", {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
                    "How many to pass over.")  # fmt: skip
_PREFIX = Parameter("scopePrefix", "query", {"type": "string"},
                    "Scopes that begin with it; it ends at a segment.")  # fmt: skip
_KEY = Parameter("Idempotency-Key", "header",
                 {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                 "The same request again gets the same answer.")  # fmt: skip
_ETAG = Parameter("If-None-Match", "header", {"type": "string"}, "An ETag that is known.")
_SINCE = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


@dataclass(frozen=True, slots=True)
class Operation(Described):
    """A line of the table."""

    handler: Handler
    right: Right | None = Right.READ
    about: Literal["scope", "vault", "all"] = "scope"
    """A scope; the vault as a whole, for which the token must be; or what the token is for."""
    takes_data: bool = False


_RAW = Answer("The bytes, or those that `Range` asks for.", media_type="*/*")
_GONE = Answer("Done, or there was nothing to be done.")
_CREATED = Answer("Stored, durably.", wire.Stored)

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/v1/data", "List scopes.", {200: Answer("A page.", wire.ScopePage)},
              reading.list_scopes, parameters=(_PREFIX, _LIMIT, _OFFSET), about="all"),
    Operation("POST", "/v1/data/{scope}", "Store a JSON object, or anything else as a blob.",
              {201: _CREATED}, ingest.store_data, right=Right.WRITE, takes_data=True,
              bodies={"application/json": {"type": "object"},
                      "application/octet-stream": {"type": "string", "format": "binary",
                                                   "minLength": 1}},
              parameters=(_KEY,)),
    Operation("GET", "/v1/data/{scope}", "Read an envelope, or with `content=raw` the payload.",
              {200: Answer("The envelope, or the bytes.", wire.Envelope, "*/*"), 206: _RAW,
               304: Answer("It is what is known.")}, reading.read_data,
              parameters=(
                  Parameter("at", "query", {"type": "string", "format": "date-time"},
                            "The newest at or before that."),
                  Parameter("version", "query",
                            {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}, "That one."),
                  Parameter("content", "query", {"enum": ["raw", "envelope"]}, "What of it."),
                  _ETAG)),
    Operation("DELETE", "/v1/data/{scope}", "Move all of a scope to the trash.", {204: _GONE},
              ingest.delete_scope, right=Right.WRITE),
    Operation("GET", "/v1/data/{scope}/versions", "List versions, newest first.",
              {200: Answer("A page.", wire.VersionPage)}, reading.list_versions,
              parameters=(_LIMIT, _OFFSET)),
    Operation("GET", "/v1/data/{scope}/names", "List names, and what they show.",
              {200: Answer("A page.", wire.NamePage)}, reading.list_names,
              parameters=(_LIMIT, _OFFSET)),
    Operation("GET", "/v1/data/{scope}/names/{name}", "Read what a name shows.",
              {200: _RAW, 206: _RAW, 304: Answer("It is what is known.")}, reading.read_name,
              parameters=(_ETAG,)),
    Operation("PUT", "/v1/data/{scope}/names/{name}", "Write a name: a new version.",
              {201: _CREATED}, ingest.store_name, right=Right.WRITE, takes_data=True,
              bodies={"application/octet-stream": {"type": "string", "format": "binary",
                                                   "minLength": 1}},
              parameters=(_KEY,)),
    Operation("DELETE", "/v1/data/{scope}/names/{name}", "End a name; its versions stay.",
              {204: _GONE}, ingest.delete_name, right=Right.WRITE),
    Operation("GET", "/v1/events", "Follow events, as server-sent events.",
              {200: Answer("Events, without an end.", media_type="text/event-stream")},
              reading.follow_events, about="all",
              parameters=(Parameter("since", "query", _SINCE, "Those after this number."),
                          Parameter("Last-Event-ID", "header", _SINCE, "The same, and first."),
                          _PREFIX)),
    Operation("GET", "/v1/access-logs", "List who read or wrote what, newest first.",
              {200: Answer("A page.", wire.AccessPage)}, reading.list_accesses, about="vault",
              parameters=(_LIMIT, _OFFSET)),
    Operation("GET", "/health", "Whether the vault can be used.",
              {200: Answer("It can.", wire.Health)}, reading.tell_health, right=None),
    Operation("GET", "/metrics", "Counters, for Prometheus.",
              {200: Answer("Metrics.", media_type="text/plain")}, reading.tell_metrics,
              about="vault"),
)  # fmt: skip


def build_app(
    vault: Vault, options: HttpOptions | None = None, stop: trio.Event | None = None
) -> Starlette:
    """The ASGI application of one vault. `stop`: streams end when it is set."""
    options = options or HttpOptions()
    config = vault.config.http
    served = Served(
        vault, options,
        Origins(frozenset((*options.hosts, *config.hosts)), frozenset(config.origins),
                options.is_unix),
        Tokens(vault.layout) if options.needs_token else None,
        AccessLog(vault.layout.logs, vault.clock_us, is_kept=not vault.is_read_only),
        Metrics(vault), Commits(vault), Feed(vault), Pending(vault),
        trio.Event() if stop is None else stop, time.monotonic(),
    )  # fmt: skip
    paths: dict[str, list[Operation]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, []).append(operation)
    routes = [_make_route(served, path, operations) for path, operations in paths.items()]
    description = describe(OPERATIONS)

    async def tell_description(request: Request) -> Response:
        _asked(request).route = "/openapi.json"
        return reply(200, description)

    routes.append(Route("/openapi.json", tell_description, methods=["GET"]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Door, served=served)],
        exception_handlers={HTTPException: _answer_http_exception},
    )
    app.router.redirect_slashes = False
    return app


def _make_route(served: Served, path: str, operations: Sequence[Operation]) -> Route:
    by_method = {operation.method: operation for operation in operations}

    async def handle(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await _run(served, by_method[method], request)

    route = Route(path.replace("{name}", "{name:path}"), handle, methods=list(by_method))
    # A line break is a character like others: `.` does not match it, and `$` passes over it.
    route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z", re.DOTALL)
    return route


async def _run(served: Served, operation: Operation, request: Request) -> Response:
    asked = _asked(request)
    asked.route = operation.path
    parameters: Mapping[str, str] = request.path_params
    if operation.right is not None:
        principal = asked.principal
        principal.check_right(operation.right)
        if "scope" in parameters:
            scope = parse_scope(parameters["scope"])
            asked.scope = scope.raw
            principal.check_scope(scope)
        elif operation.about == "vault":
            principal.check_scope(None)
    if operation.right is Right.WRITE and served.vault.is_read_only:
        raise Forbidden(f"{request.method}: the vault is mounted read-only, and can only be read")
    if operation.takes_data:
        check_announced(request, served.options.max_body)
    else:
        check_announced(request, DEFAULT_MAX_SIZE)
        await drop_body(request, DEFAULT_MAX_SIZE)
    return await operation.handler(served, asked, request)


def _asked(request: Request) -> Asked:
    asked = request.scope["scopefs"]
    assert isinstance(asked, Asked)
    return asked


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Unknown routes and methods."""
    return answer_error(error, f"{request.method} {request.url.path}")
