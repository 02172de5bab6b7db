"""Bytes that are nearly HTTP: whatever comes, the server goes on, and complains of nothing."""

import random
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tests.api.serving import Served

MANY = 1500
_REQUESTS = (
    "GET /v1/data?limit=3 HTTP/1.1\r\nHost: localhost\r\n{token}\r\n",
    "POST /v1/data/a.b HTTP/1.1\r\nHost: localhost\r\n{token}Content-Type: text/plain\r\n"
    "X-Filename: UTF-8''a%20b\r\nX-Metadata: {{}}\r\nIdempotency-Key: k\r\n"
    "Content-Length: 11\r\n\r\nhello world",
    "POST /v1/data/a.b HTTP/1.1\r\nHost: localhost\r\n{token}Transfer-Encoding: chunked\r\n"
    'Expect: 100-continue\r\n\r\n5\r\n{{"a":\r\n2\r\n1}}\r\n0\r\n\r\n',
    "GET /v1/data/a.b?content=raw&at=2999-01-01T00:00:00Z HTTP/1.1\r\nHost: [::1]:80\r\n{token}"
    'Origin: http://[::1]:80\r\nRange: bytes=0-3\r\nIf-None-Match: "x"\r\nIf-Range: "y"\r\n\r\n',
    "GET /v1/events?since=0 HTTP/1.1\r\nHost: localhost\r\n{token}Last-Event-ID: 3\r\n"
    "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
    "PUT /v1/data/a.b/names/x%2Fy%FF HTTP/1.1\r\nHost: localhost\r\n{token}"
    "Content-Length: 3\r\n\r\nabc",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
)
_PIECES = (b"\r\n", b"\n", b"\0", b"\xff", b": ", b"%", b"%zz", b"/", b"..", b"[", b'"', b";", b"-",
           b"9" * 20, b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"x" * 5000,
           b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"HTTP/1.0", b"Upgrade: h2c\r\n",
           b"\xc3\xa9", b"{}")  # fmt: skip


def spoil(chance: random.Random, request: bytes) -> bytes:
    """A request with some bytes more, less, or others."""
    text = bytearray(request)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 6))):
        at, end = sorted((chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)))
        match chance.randrange(5):
            case 0:
                text[at:at] = chance.choice(_PIECES)
            case 1:
                del text[at : at + chance.randrange(1, 20)]
            case 2:
                text[at : at + 1] = bytes((chance.randrange(256),))
            case 3:
                text[at:at] = text[at:end]
            case _:
                del text[end:]
    return bytes(text)


def test_nearly_http(serve: Callable[..., Served]) -> None:
    """No such request is a 500, none leaves a line in the log, none stops anybody."""
    server = serve()
    token = f"Authorization: Bearer {server.token}\r\n"
    requests = [request.format(token=token).encode("latin-1") for request in _REQUESTS]

    def ask(number: int) -> bytes:
        chance = random.Random(number)
        data = b"".join(
            spoil(chance, chance.choice(requests)) for _ in range(chance.choice((1, 1, 2, 4)))
        )
        answer = b""
        with server.connect() as connection, suppress(OSError):
            connection.sendall(data)
            if chance.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)
            if chance.random() < 0.5:
                # Some wait for more, as the server does.
                connection.settimeout(0.15)
                while piece := connection.recv(65_536):
                    answer += piece
        return answer

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(MANY)))
    assert not [answer for answer in answers if b"INTERNAL_ERROR" in answer]
    assert sum(answer.startswith(b"HTTP/1.1 2") for answer in answers) > MANY / 20
    assert server.client.get("/health").status_code == 200
    server.stop()
