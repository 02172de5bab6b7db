"""Handlers that read: data, versions, names, events, access logs, health, metrics.

What the index knows is asked for directly; what waits for the disk or reads much, in a thread.
"""

import time
from contextlib import suppress
from itertools import islice

import trio
from starlette.requests import Request
from starlette.responses import Response

from scopefs import __version__
from scopefs.api.access import Principal, check_there
from scopefs.api.content import reply, reply_envelope, reply_payload
from scopefs.api.context import Asked, Served
from scopefs.api.queries import (
    OFFSET_MAX,
    parse_name_of,
    parse_page,
    parse_query,
    parse_whole,
)
from scopefs.api.streams import Streamed
from scopefs.api.times import parse_at
from scopefs.api.wire import (
    AccessPage,
    Health,
    NameItem,
    NamePage,
    ScopePage,
    VersionPage,
    show_entry,
    show_scope,
    show_version,
)
from scopefs.errors import InvalidQuery, NotFound, ScopefsError
from scopefs.model.naming import NodeKind, show_name
from scopefs.model.scope import Scope, parse_scope
from scopefs.store import index, listing, tree
from scopefs.store.index import Version
from scopefs.store.readers import BytesReader, PayloadReader
from scopefs.store.tokens import Right
from scopefs.vault import Vault

_EMPTY_SHA256 = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


async def list_scopes(served: Served, asked: Asked, request: Request) -> Response:
    """GET /v1/data."""
    query = parse_query(request.scope["query_string"], ("scopePrefix", "limit", "offset"))
    limit, offset = parse_page(query)
    patterns, prefix = asked.principal.scopes, query.get("scopePrefix", "")
    await served.pending.wait()
    with served.vault.read() as db:
        found, total = listing.list_scopes_of(db, patterns, prefix, limit, offset)
    return reply(200, ScopePage([show_scope(item) for item in found], total, limit, offset))


async def read_data(served: Served, asked: Asked, request: Request) -> Response:
    """GET /v1/data/{scope}: an envelope, or with `content=raw` the payload."""
    query = parse_query(request.scope["query_string"], ("at", "version", "content"))
    content = query.get("content", "envelope")
    if content not in ("raw", "envelope"):
        raise InvalidQuery(f"content={content[:60]!r}: it is `raw`, `envelope`, or not given")
    scope = parse_scope(request.path_params["scope"])
    await served.pending.wait(scope.raw)
    version = _find_version(served.vault, scope, query)
    if content == "envelope":
        return await reply_envelope(request, served.vault, version)
    reader = await trio.to_thread.run_sync(served.vault.open_payload, version)
    return await reply_payload(
        request, reader, version.payload_sha256, version.media_type, version.name
    )


def _find_version(vault: Vault, scope: Scope, query: dict[str, str]) -> Version:
    at, number = query.get("at"), query.get("version")
    at_us = parse_at(at) if at is not None else None
    with vault.read() as db:
        found: Version | None
        if number is not None:
            found = index.find_by_id(db, parse_whole(number, "version", 1, OFFSET_MAX))
            if found is not None and (found.scope != scope.raw or found.deleted_seq is not None):
                found = None
            if found is not None and at_us is not None and found.collected_us > at_us:
                found = None
        elif at_us is not None:
            found = index.find_at(db, scope.raw, at_us)
        else:
            found = index.find_latest_by_scope(db, scope.raw)
    if found is None:
        asked = f" at {at!r}" if at else f" with the version {number}" if number else ""
        raise NotFound(f'No data found for scope "{scope.raw}"{asked}')
    return found


async def list_versions(served: Served, asked: Asked, request: Request) -> Response:
    """GET /v1/data/{scope}/versions."""
    limit, offset = parse_page(parse_query(request.scope["query_string"], ("limit", "offset")))
    scope = parse_scope(request.path_params["scope"]).raw
    await served.pending.wait(scope)
    with served.vault.read() as db:
        total = listing.count_versions(db, scope)
        found = index.find_by_scope(db, scope, limit, offset) if offset < total else []
    items = [show_version(version) for version in found]
    return reply(200, VersionPage(scope, items, total, limit, offset))


async def list_names(served: Served, asked: Asked, request: Request) -> Response:
    """GET /v1/data/{scope}/names."""
    limit, offset = parse_page(parse_query(request.scope["query_string"], ("limit", "offset")))
    scope = parse_scope(request.path_params["scope"]).raw
    await served.pending.wait(scope)
    page = await trio.to_thread.run_sync(_list_names, served.vault, scope, limit, offset)
    return reply(200, page)


def _list_names(vault: Vault, scope: str, limit: int, offset: int) -> NamePage:
    walk = vault.names(scope)
    items: list[NameItem] = []
    total = sum(1 for _ in islice(walk, min(offset, 1 << 40)))
    for path, entry in islice(walk, limit):
        with vault.read() as db:
            version = index.find_by_id(db, entry.version) if entry.version is not None else None
        items.append(show_entry(path, entry, version))
    total += len(items) + sum(1 for _ in walk)
    return NamePage(scope, items, total, limit, offset)


async def read_name(served: Served, asked: Asked, request: Request) -> Response:
    """GET /v1/data/{scope}/names/{name}: the bytes that the name shows."""
    parse_query(request.scope["query_string"], ())
    scope = parse_scope(request.path_params["scope"])
    name = parse_name_of(request.scope["raw_path"])
    await served.pending.wait(scope.raw)
    opened = await trio.to_thread.run_sync(_open_name, served.vault, scope, name)
    return await reply_payload(request, *opened, name)


def _open_name(vault: Vault, scope: Scope, name: bytes) -> tuple[PayloadReader, bytes, str | None]:
    with vault.read() as db:
        entry = tree.find_named(db, scope.raw, name)
        if entry is None or entry.kind is not NodeKind.FILE:
            raise NotFound(f'no file of scope "{scope.raw}" is called {show_name(name)}')
        version = index.find_by_id(db, entry.version) if entry.version is not None else None
    if version is not None:
        return vault.open_payload(version), version.payload_sha256, version.media_type
    if entry.is_scratch:
        reader = vault.open_scratch(entry.node)
        with vault.read() as db:
            sha256, media_type = tree.find_scratch_facts(db, entry.node)
        return reader, sha256, media_type
    return BytesReader(b""), _EMPTY_SHA256, None


async def follow_events(served: Served, asked: Asked, request: Request) -> Response:
    """GET /v1/events."""
    query = parse_query(request.scope["query_string"], ("since", "scopePrefix"))
    # What a client has seen last comes first; but what cannot be read is refused all the same.
    last = request.headers.get("last-event-id") or None
    given = (("Last-Event-ID", last), ("since", query.get("since")))
    known = [parse_whole(text, name, 0, OFFSET_MAX) for name, text in given if text is not None]
    after = known[0] if known else served.feed.find_last_seq()

    def find_principal() -> Principal | None:
        """Who follows, as long as the token is good for that."""
        if served.tokens is None:
            return asked.principal
        with suppress(ScopefsError):
            found = served.tokens.find_principal(request.headers["authorization"])
            found.check_right(Right.READ)
            return found
        return None

    events = served.feed.follow(
        find_principal, query.get("scopePrefix", ""), after, served.stop, served.metrics.streams
    )
    headers = {
        "cache-control": "no-store", "content-type": "text/event-stream; charset=utf-8",
        "x-accel-buffering": "no",
    }  # fmt: skip
    if request.method == "HEAD":
        await events.aclose()
        answer = Response(headers=headers)
        # What has no end has no length.
        del answer.headers["content-length"]
        return answer
    return Streamed(events, 200, headers)


async def list_accesses(served: Served, asked: Asked, request: Request) -> Response:
    """GET /v1/access-logs."""
    limit, offset = parse_page(parse_query(request.scope["query_string"], ("limit", "offset")))
    logs, total = await trio.to_thread.run_sync(served.log.read, limit, offset)
    return reply(200, AccessPage(logs, total, limit, offset))


async def tell_health(served: Served, asked: Asked, request: Request) -> Response:
    """GET /health: healthy, or why not."""
    vault = served.vault
    check_there(vault.layout)
    with vault.read() as db:
        listing.find_last_seq(db)
    uptime = round(time.monotonic() - served.started_s, 3)
    return reply(200, Health("healthy", __version__, uptime, vault.id))


async def tell_metrics(served: Served, asked: Asked, request: Request) -> Response:
    """GET /metrics."""
    text = await trio.to_thread.run_sync(served.metrics.render)
    return Response(text, media_type="text/plain; version=0.0.4")
