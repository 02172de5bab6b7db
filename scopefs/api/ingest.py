"""Handlers that change the vault: POST and PUT of payloads, DELETE of scopes and names."""

import hashlib
import logging
from contextlib import suppress
from functools import partial

import trio
from starlette.requests import Request
from starlette.responses import Response

from scopefs.api.bodies import receive_into
from scopefs.api.content import reply
from scopefs.api.context import Asked, Served
from scopefs.api.queries import (
    is_json,
    parse_file_name,
    parse_media_type,
    parse_metadata,
    parse_name_of,
    parse_query,
)
from scopefs.api.wire import Stored
from scopefs.errors import InvalidQuery, NoSpace, NotFound, Unavailable
from scopefs.logs import log_version
from scopefs.model.scope import Scope, parse_scope
from scopefs.model.stamps import format_collected_at, format_stamp
from scopefs.store.receipts import Once

KEY_MAX = 255
_WRITER = "http"
_LOG = logging.getLogger(__name__)


async def store_data(served: Served, asked: Asked, request: Request) -> Response:
    """POST /v1/data/{scope}: a JSON object, or anything else as a blob."""
    parse_query(request.scope["query_string"], ())
    headers = request.headers
    content_type = headers.get("content-type")
    name = parse_file_name(headers)
    if is_json(content_type):
        return await _store(served, asked, request, name, object_only=True)
    return await _store(
        served, asked, request, name, media_type=parse_media_type(content_type),
        metadata=parse_metadata(headers.get("x-metadata")), is_blob=True,
    )  # fmt: skip


async def store_name(served: Served, asked: Asked, request: Request) -> Response:
    """PUT /v1/data/{scope}/names/{name}: what a name shows from now on."""
    parse_query(request.scope["query_string"], ())
    return await _store(served, asked, request, parse_name_of(request.scope["raw_path"]))


async def delete_scope(served: Served, asked: Asked, request: Request) -> Response:
    """DELETE /v1/data/{scope}: to the trash; scopes below it stay."""
    parse_query(request.scope["query_string"], ())
    with suppress(NotFound):
        await trio.to_thread.run_sync(served.vault.delete_scope, request.path_params["scope"])
    return Response(status_code=204)


async def delete_name(served: Served, asked: Asked, request: Request) -> Response:
    """DELETE /v1/data/{scope}/names/{name}: the name ends, its versions stay."""
    parse_query(request.scope["query_string"], ())
    scope = parse_scope(request.path_params["scope"])
    name = parse_name_of(request.scope["raw_path"])
    await trio.to_thread.run_sync(served.vault.end_name, scope, name)
    return Response(status_code=204)


async def _store(
    served: Served, asked: Asked, request: Request, name: bytes | None, *,
    media_type: str | None = None, metadata: str | None = None, object_only: bool = False,
    is_blob: bool = False,
) -> Response:  # fmt: skip
    scope = parse_scope(request.path_params["scope"])
    once = _parse_once(asked, request, scope, (name, media_type, metadata, is_blob))
    with served.vault.new_draft() as draft:
        await receive_into(request, draft, served.options.max_body)
        plan = partial(
            served.vault.plan_put, scope, draft, name=name, writer=_WRITER, media_type=media_type,
            metadata=metadata, once=once, object_only=object_only, is_blob=is_blob,
        )  # fmt: skip
        work = plan() if draft.in_memory else await trio.to_thread.run_sync(plan)
        try:
            stored = await served.commits.apply_durably(work)
        except (NoSpace, Unavailable, OSError):
            # A commit that failed may be on the disk all the same: its bytes must be there then.
            draft.leave()
            raise
        if stored.is_repeated:
            draft.discard()
        else:
            log_version(
                _LOG, stored.scope, format_stamp(stored.collected_us), name or b"", draft.size
            )
    headers = {"idempotent-replayed": "true"} if stored.is_repeated else None
    return reply(201, Stored(stored.scope, format_collected_at(stored.collected_us)), headers)


def _parse_once(
    asked: Asked, request: Request, scope: Scope, what: tuple[object, ...]
) -> Once | None:
    """The `Idempotency-Key`, if there is one: it is the caller's own, and of one request."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= KEY_MAX or not key.isprintable():
        raise InvalidQuery(f"Idempotency-Key must have 1 to {KEY_MAX} printable characters")
    described = repr((request.method, scope.raw, *what))
    return Once(
        hashlib.sha256(repr((asked.principal.name, key)).encode()).digest(),
        hashlib.sha256(described.encode("utf-8", "surrogateescape")).digest(),
    )
