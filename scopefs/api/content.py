"""Payloads and envelopes on their way out: whole or in part, never more of them in memory than a
chunk, and never a byte that was not compared with its hash.
"""

import base64
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from urllib.parse import quote

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from scopefs.api.queries import (
    Unsatisfiable,
    matches_etag,
    parse_range,
    show_media_type,
)
from scopefs.api.streams import Streamed
from scopefs.api.wire import ErrorBody
from scopefs.model.envelope import encode_frame
from scopefs.model.payload import DOCUMENT_MAX_BYTES, Kind
from scopefs.store.index import Version
from scopefs.store.payloads import file_facts
from scopefs.store.readers import PayloadReader
from scopefs.vault import Vault

CHUNK_BYTES = 1 << 20
_BASE64_CHUNK_BYTES = 3 << 18
_JSON = "application/json"
_BLOB_END = b'"encoding":"blob"}'


def reply(status: int, body: object, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(body), status, headers, media_type=_JSON)


async def reply_payload(
    request: Request, reader: PayloadReader, sha256: bytes, media_type: str | None,
    name: bytes | None,
) -> Response:  # fmt: skip
    """The bytes that were put: all of them, the range that is asked for, or none if known."""
    etag = f'"{sha256.hex()}"'
    headers = {
        "etag": etag, "accept-ranges": "bytes", "cache-control": "private, no-cache",
        "content-disposition": show_disposition(name), "content-type": show_media_type(media_type),
    }  # fmt: skip
    asked = request.headers
    if matches_etag(asked.getlist("if-none-match"), etag):
        reader.close()
        return Response(status_code=304, headers=headers)
    start, size, status = 0, reader.size, 200
    if asked.get("if-range", etag) == etag:
        try:
            span = parse_range(asked.get("range"), reader.size)
        except Unsatisfiable:
            total = reader.size
            reader.close()
            body = ErrorBody(
                "RANGE_NOT_SATISFIABLE", f"the payload has {total} bytes", {"sizeBytes": total}
            )
            return reply(416, body, {"content-range": f"bytes */{total}"})
        if span is not None:
            start, size, status = span.start, span.size, 206
            headers["content-range"] = f"bytes {start}-{start + size - 1}/{reader.size}"
    return await _stream(request, _iterate(reader, start, size), size, status, headers, reader)


async def reply_envelope(request: Request, vault: Vault, version: Version) -> Response:
    """A version's envelope; with the payload in it, unless that is larger than 50 MiB."""
    headers = {"content-type": _JSON, "cache-control": "private, no-cache"}
    if version.kind is Kind.BLOB and version.payload_size <= DOCUMENT_MAX_BYTES:
        payload = await trio.to_thread.run_sync(vault.open_payload, version)
        head, tail = encode_frame(version.scope, version.collected_us, file_facts(version))
        assert head.endswith(_BLOB_END)
        head = head.removesuffix(_BLOB_END) + b'"encoding":"base64","content":"'
        tail = b'"}' + tail
        size = len(head) + (payload.size + 2) // 3 * 4 + len(tail)
        pieces = _iterate_base64(payload, head, tail)
        return await _stream(request, pieces, size, 200, headers, payload)
    envelope = await trio.to_thread.run_sync(vault.open_envelope, version)
    pieces = _iterate(envelope, 0, envelope.size)
    return await _stream(request, pieces, envelope.size, 200, headers, envelope)


async def _stream(
    request: Request, pieces: AsyncGenerator[bytes], size: int, status: int,
    headers: dict[str, str], reader: PayloadReader,
) -> Response:  # fmt: skip
    """An answer whose first bytes are known to be right: what is damaged gets an error instead."""
    headers["content-length"] = str(size)
    if request.method == "HEAD":
        reader.close()
        return Response(status_code=status, headers=headers)
    first = await anext(pieces, b"")
    if len(first) == size:
        reader.close()
        return Response(first, status, headers)
    return Streamed(_chain(first, pieces), status, headers)


async def _chain(first: bytes, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece


async def _iterate(reader: PayloadReader, start: int, size: int) -> AsyncGenerator[bytes]:
    end = start + size
    while start < end:
        piece = await _read(reader, start, min(CHUNK_BYTES, end - start))
        start += len(piece)
        yield piece
    reader.close()


async def _iterate_base64(
    payload: PayloadReader, head: bytes, tail: bytes
) -> AsyncGenerator[bytes]:
    piece = await _read(payload, 0, _BASE64_CHUNK_BYTES)
    yield head + base64.b64encode(piece)
    for start in _steps(payload.size):
        piece = await _read(payload, start, _BASE64_CHUNK_BYTES)
        yield base64.b64encode(piece)
    payload.close()
    yield tail


def _steps(size: int) -> Iterator[int]:
    return iter(range(_BASE64_CHUNK_BYTES, size, _BASE64_CHUNK_BYTES))


async def _read(reader: PayloadReader, offset: int, size: int) -> bytes:
    if reader.is_ready(offset, size):
        return reader.read(offset, size)
    return await trio.to_thread.run_sync(reader.read, offset, size)


def show_disposition(name: bytes | None) -> str:
    """A `Content-Disposition` that saves, and never shows; the name as RFC 8187 has it."""
    if name is None:
        return "attachment"
    base = name.rpartition(b"/")[2]
    plain = "".join(
        char if " " <= char <= "~" and char not in '"\\%' else "_"
        for char in base.decode("utf-8", "replace")
    )
    if plain.encode() == base:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(base, safe='')}"
