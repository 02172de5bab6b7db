"""Asking the application without a server, under a clock of the test's own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio
from starlette.types import Message

from scopefs import Vault
from scopefs.api.context import HttpOptions
from scopefs.api.routes import build_app

GIVES_UP_S = 1000.0
"""When a client that has stopped sending goes away."""

Pieces = Callable[[], AsyncIterator[bytes]]


@dataclass
class Answer:
    """What was answered, as far as it has come."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


def make_asker(vault: Vault) -> Callable[..., Awaitable[Answer]]:
    """Asks one application, by a client that may stop sending behind the last piece of its body."""
    app = build_app(vault, HttpOptions(needs_token=False))

    async def ask(method: str, path: str, pieces: Pieces, *, ends: bool = True) -> Answer:
        answer, coming = Answer(), pieces()

        async def receive() -> Message:
            async for piece in coming:
                return {"type": "http.request", "body": piece, "more_body": True}
            if not ends:
                await trio.sleep(GIVES_UP_S)
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            answer.body += message.get("body", b"")

        headers = [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        await app(scope, receive, send)
        return answer

    return ask
