"""Clients that are slow, half gone, many or ill-willed: others do not notice, and nothing stays."""

import base64
import hashlib
import json
import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import h2.connection
import pytest
import trio
from hypercorn.events import Event, RawData
from hypercorn.protocol.h11 import H11Protocol

from scopefs import Vault
from scopefs.api import server as server_module
from scopefs.api.context import HttpOptions
from scopefs.api.server import open_listener, parse_address, serve_http
from tests.api.serving import (
    Served,
    count_files,
    error_of,
    list_staged,
    read_answer,
    read_reply,
    read_status_kib,
)
from tests.mounting import wait_until

IDLE = 1000
MIB = 1 << 20


def check_others(served: Served) -> None:
    """Somebody else is served at once."""
    start = time.monotonic()
    assert served.client.get("/health").status_code == 200
    assert served.post("others.are", b"{}").status_code == 201
    assert time.monotonic() - start < 5


def test_slow_clients(served: Served) -> None:
    """Heads and bodies that come byte by byte, and answers that nobody reads."""
    served.post("slow.answer", bytes(30 * MIB), Content_Type="application/zip")
    with ExitStack() as stack:
        slow = [stack.enter_context(served.connect()) for _ in range(60)]
        for connection in slow[:20]:
            connection.sendall(b"POST /v1/data/slow.head HTTP/1.1\r\nHost: loc")
        for connection in slow[20:40]:
            connection.sendall(served.head("POST", "/v1/data/slow.body", "Content-Length: 500000"))
            connection.sendall(b"x")
        for connection in slow[40:]:
            connection.sendall(served.head("GET", "/v1/data/slow.answer?content=raw"))
        check_others(served)
        for connection in slow[:40]:
            connection.sendall(b"x")
        check_others(served)
    wait_until(lambda: list_staged(served.vault) == [] or settle(served))
    assert served.client.get("/v1/data/slow.body/versions").json()["total"] == 0
    check_others(served)


def settle(served: Served) -> bool:
    """Have what is published placed, so that only what was left behind remains in staging/."""
    with Vault.open(served.vault) as vault:
        vault.settle()
    return False


def test_idle_connections(served: Served) -> None:
    """A thousand connections that ask nothing stop nobody."""
    with ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(served.connect())
        wait_until(lambda: count_files(served.process.pid) > IDLE)
        check_others(served)
    check_others(served)


@pytest.mark.parametrize(
    "head",
    [b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
     b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
     b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n", b"\x16\x03\x01\x02\x00\x01",
     b"GET / HTTP/9.9\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
     b"POST /v1/data/a.b HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
     b"POST /v1/data/a.b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
     b"Content-Length: 6\r\n\r\nhello!"],
)  # fmt: skip
def test_heads_that_are_none(served: Served, head: bytes) -> None:
    """Huge, garbled or contradictory heads are refused."""
    with served.connect() as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head)
        answer = read_answer(connection)
    # Who is cut off while it still sends may not get all of it.
    assert answer.startswith(b"HTTP/1.1 4") or (answer == b"" and len(head) > 100_000), answer[:100]
    body = answer.partition(b"\r\n\r\n")[2]
    if body or len(head) < 100_000:
        error = json.loads(body)
        assert list(error) == ["error", "message", "details"]
        assert error["error"] in ("INVALID_QUERY", "CONTENT_TOO_LARGE", "FORBIDDEN")
    check_others(served)


@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_a_chunk_that_is_none(served: Served, method: str) -> None:
    """What cannot be read in a body is INVALID_BODY; a HEAD hears the status alone."""
    with served.connect() as connection:
        head = served.head(method, "/v1/data/no.chunk", "Transfer-Encoding: chunked")
        connection.sendall(head + b"zz\r\n{}\r\n0\r\n\r\n")
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert (b'{"error":"INVALID_BODY"' in answer) == (method == "POST")
    check_others(served)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_aborted_uploads_leave_nothing(
    serve: Callable[..., Served], chunked: bool, how: str
) -> None:
    """An upload that is cut makes no version, and its bytes do not stay."""
    server = serve()
    field = "Transfer-Encoding: chunked" if chunked else "Content-Length: 900000"
    part = b"%x\r\n" % 600_000 + bytes(600_000) if chunked else bytes(600_000)
    with server.connect() as connection:
        connection.sendall(
            server.head("POST", "/v1/data/cut.off", field, "Content-Type: image/png")
        )
        connection.sendall(part)
        wait_until(lambda: list_staged(server.vault) != [])
        if how == "half":
            connection.shutdown(socket.SHUT_WR)
            read_answer(connection)
        elif how == "reset":
            linger = (1).to_bytes(4, "little") + bytes(4)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    wait_until(lambda: list_staged(server.vault) == [])
    assert server.client.get("/v1/data/cut.off/versions").json()["total"] == 0
    assert list(server.vault.joinpath("partial").iterdir()) == []
    server.stop()


def test_a_half_closed_client_gets_its_answer(served: Served) -> None:
    """Who has said everything and ends its side still hears what became of it."""
    with served.connect() as connection:
        body = b'{"n":1}'
        head = served.head("POST", "/v1/data/half.closed", f"Content-Length: {len(body)}")
        connection.sendall(head + body)
        connection.shutdown(socket.SHUT_WR)
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 201")
    assert b'"status":"stored"' in answer


def test_a_refused_body_is_not_read(serve: Callable[..., Served]) -> None:
    """413 comes while the client still sends, and neither memory nor descriptors are lost."""
    server = serve()
    server.post("warm.up", b"{}")
    files, before_kib = count_files(server.process.pid), read_status_kib(server.process.pid)
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(server.head("POST", "/v1/data/too.big", "Content-Length: 60000000"))
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"connection: close" in answer.lower()
            try:
                for _ in range(100):
                    connection.sendall(bytes(65_536))
            except (BrokenPipeError, ConnectionResetError):
                pass
    wait_until(lambda: count_files(server.process.pid) <= files + 1)
    assert read_status_kib(server.process.pid) - before_kib < 20_000
    server.stop()


def test_a_chunked_body_is_refused_while_it_comes(serve: Callable[..., Served]) -> None:
    """Without a length: 413 at the first byte too many, though more is still to come."""
    server = serve("--http-max-body", "10")
    for size, is_refused in ((11, True), (10, False)):
        with server.connect() as connection:
            head = server.head("POST", "/v1/data/too.long", "Transfer-Encoding: chunked")
            connection.sendall(head + b"%x\r\n" % size + b'{"a":1234}x'[:size] + b"\r\n")
            if not is_refused:
                connection.sendall(b"0\r\n\r\n")
            answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 413" if is_refused else b"HTTP/1.1 201")
        assert (b"connection: close" in answer.lower()) == is_refused
    assert server.client.get("/v1/data/too.long/versions").json()["total"] == 1
    server.stop()


def test_a_refused_client_that_sends_on(served: Served) -> None:
    """Who has sent much already gets the refusal too, and its connection is closed, not kept."""
    with served.connect() as connection:
        connection.sendall(served.head("POST", "/v1/data/No", "Content-Length: 40000000"))
        try:
            for _ in range(40):
                connection.sendall(bytes(65_536))
        except (BrokenPipeError, ConnectionResetError):
            pass
        start = time.monotonic()
        assert b"INVALID_SCOPE" in read_answer(connection)
        assert time.monotonic() - start < 10


def test_a_connection_is_used_again(served: Served) -> None:
    """One connection serves refusals, streams and stores, one after the other."""
    served.post("again.big", bytes(3 * MIB), Content_Type="application/zip")
    with served.make_client(served.token) as client:
        for _ in range(5):
            assert len(client.get("/v1/data/again.big?content=raw").content) == 3 * MIB
            assert error_of(client.get("/v1/data/No"))[0] == 400
            assert client.post("/v1/data/again.json", content=b"{}").status_code == 201
            assert client.get("/v1/data/again.big").json()["data"]["sizeBytes"] == 3 * MIB
            assert client.delete("/v1/data/again.json").status_code == 204
            assert client.head("/v1/data/again.big?content=raw").status_code == 200


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_upgrades_are_passed_over(served: Served, protocol: str) -> None:
    """An upgrade that nobody offers: the request is answered as it is, in the shape of errors."""
    with served.connect() as connection:
        connection.sendall(
            b"GET /v1/data HTTP/1.1\r\nHost: localhost\r\nUpgrade: %b\r\n"
            b"Connection: Upgrade, HTTP2-Settings\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHTTP2-Settings: ?\r\n\r\n"
            % protocol.encode()
        )
        answer = read_reply(connection)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b'{"error":"MISSING_AUTH"' in answer
    check_others(served)


def test_regression_a_refused_body_over_http2_ended_the_server(
    serve: Callable[..., Served],
) -> None:
    """HTTP/2, where hypercorn breaks at what comes behind a refusal, is not spoken."""
    server = serve()
    http2 = h2.connection.H2Connection()
    http2.initiate_connection()
    http2.send_headers(
        1,
        [(":method", "POST"), (":path", "/v1/data/No"), (":scheme", "http"),
         (":authority", "localhost")],
    )  # fmt: skip
    request = http2.data_to_send()
    http2.send_data(1, bytes(10_000))
    with server.connect() as connection:
        connection.sendall(request)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 4")
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(http2.data_to_send())
        read_answer(connection)
    check_others(server)
    server.stop()


async def test_what_breaks_in_a_connection_ends_that_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others are served, and the log tells."""
    good = H11Protocol.handle

    async def handle(protocol: H11Protocol, event: Event) -> None:
        if isinstance(event, RawData) and event.data.startswith(b"break"):
            raise KeyError(1)
        await good(protocol, event)

    monkeypatch.setattr(H11Protocol, "handle", handle)
    listener, stop = open_listener(parse_address("127.0.0.1:0")), trio.Event()
    host, port = listener.getsockname()
    with Vault.open(tmp_path / "vault", create=True) as vault, caplog.at_level(logging.ERROR):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_http, vault, listener, stop)
            async with (
                await trio.open_tcp_stream(host, port) as other,
                await trio.open_tcp_stream(host, port) as broken,
            ):
                await broken.send_all(b"break it")
                with suppress(trio.BrokenResourceError):
                    assert await broken.receive_some() == b""
                await other.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await other.receive_some()).startswith(b"HTTP/1.1 200")
            stop.set()
    assert "a connection broke" in caplog.text
    assert "KeyError: 1" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix:{directory}/door"])
async def test_who_reads_nothing_does_not_keep_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """A server that is told to end does so after its grace, over TCP and at a Unix socket."""
    monkeypatch.setattr(server_module, "GRACE_S", 0.5)
    listener = open_listener(parse_address(address.format(directory=tmp_path)))
    stop, reader = trio.Event(), socket.socket(listener.family)
    with Vault.open(tmp_path / "vault", create=True) as vault, reader:
        vault.put("not.read", bytes(30 * MIB))
        async with trio.open_nursery() as nursery:
            options = HttpOptions(needs_token=False)
            await nursery.start(partial(serve_http, vault, listener, stop, options))
            reader.connect(listener.getsockname())
            reader.sendall(b"GET /v1/data/not.read?content=raw HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await trio.to_thread.run_sync(reader.recv, 1)
            stop.set()
            with trio.move_on_after(10) as waiting:
                await wait_no_tasks(nursery)
            # Now it ends in any case.
            reader.close()
    assert not waiting.cancelled_caught


async def wait_no_tasks(nursery: trio.Nursery) -> None:
    """Wait for what a nursery runs to end."""
    while nursery.child_tasks:  # noqa: ASYNC110
        await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("head", "status"),
    [((b"POST /v1/data/a.b", b"Content-Length: 60000000"), b"413"),
     ((b"POST /v1/data/No", b"Content-Length: 5000"), b"400"),
     ((b"POST /v1/data/a.b", b"Authorization: Bearer x\r\nContent-Length: 5000"), b"401")],
)  # fmt: skip
def test_who_is_refused_need_not_send(
    served: Served, head: tuple[bytes, bytes], status: bytes
) -> None:
    """`Expect: 100-continue`: the refusal comes in place of the leave to go on."""
    start, field = head
    token = b"" if b"Bearer" in field else b"Authorization: Bearer %b\r\n" % served.token.encode()
    with served.connect() as connection:
        connection.sendall(
            b"%b HTTP/1.1\r\nHost: localhost\r\n%b%b\r\nExpect: 100-continue\r\n\r\n"
            % (start, token, field)
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 " + status)


def test_who_may_send_is_told_to(served: Served) -> None:
    """`Expect: 100-continue` of a body that is wanted: 100, once for each request; then 201."""
    with served.connect() as connection:
        for _ in range(2):
            fields = ("Content-Length: 2", "Expect: 100-continue")
            connection.sendall(served.head("POST", "/v1/data/go.on", *fields))
            assert read_reply(connection).startswith(b"HTTP/1.1 100")
            connection.sendall(b"{}")
            assert read_reply(connection).startswith(b"HTTP/1.1 201")
        # Who does not wait for it gets none.
        connection.sendall(served.head("POST", "/v1/data/go.on", *fields) + b"{}")
        assert read_reply(connection).startswith(b"HTTP/1.1 201")


def test_a_vault_that_takes_less(serve: Callable[..., Served], tmp_path: Path) -> None:
    """A payload over what the vault allows is 413, with a body limit above that too."""
    with Vault.open(tmp_path / "vault", create=True):
        pass
    (tmp_path / "vault" / "config.toml").write_text("[limits]\nmax_file_bytes = 100\n")
    server = serve()
    assert error_of(server.post("full.disk", b'{"a":"%s"}' % (b"x" * 200))) == (
        413, "CONTENT_TOO_LARGE",
    )  # fmt: skip
    server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The directory of the vault, on a disk of 24 MiB."""
    if os.geteuid():
        pytest.skip("mounts a small disk")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", path], check=True)
    yield path / "vault"
    subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk(small_disk: Path, serve: Callable[..., Served]) -> None:
    """507, and nothing stays of what did not fit; what is there is read; with room, all is well."""
    server = serve(vault="disk/vault")
    assert server.post("full.disk", b'{"n":1}').status_code == 201
    whole: bytes | Iterator[bytes]
    for whole in (bytes(30 * MIB), iter([bytes(MIB)] * 30)):
        headers = {"Content-Type": "image/png", "Idempotency-Key": "too big"}
        answer = server.client.post("/v1/data/full.disk", content=whole, headers=headers)
        assert error_of(answer) == (507, "NO_SPACE")
    wait_until(lambda: list_staged(small_disk) == [] or settle(server))
    fill(small_disk.parent / "filler")
    bodies = [b'{"n":"%b"}' % (b"x" * size) for size in (1, 50_000, 500_000)]
    for number, body in enumerate(bodies):
        answer = server.post("full.disk", body, Idempotency_Key=f"k{number}")
        assert error_of(answer) == (507, "NO_SPACE")
        assert answer.json()["message"] == "the disk under the vault is full"
    assert server.client.get("/v1/data/full.disk").json()["data"] == {"n": 1}
    (small_disk.parent / "filler").unlink()
    for number, body in enumerate(bodies):
        answer = server.post("full.disk", body, Idempotency_Key=f"k{number}")
        assert answer.status_code == 201
        assert "idempotent-replayed" not in answer.headers
        assert server.client.get("/v1/data/full.disk?content=raw").content == body
    assert server.client.get("/v1/data/full.disk/versions").json()["total"] == 4
    server.stop()


def fill(path: Path) -> None:
    """Take all the room that there is."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        with suppress(OSError):
            while True:
                os.write(fd, bytes(4096))
    finally:
        os.close(fd)


def test_a_larger_limit(serve: Callable[..., Served]) -> None:
    """With a larger --http-max-body an object over 50 MiB is a blob; a smaller one limits."""
    server = serve("--http-max-body", str(80 * MIB))
    body = b'{"a":"' + b"x" * (60 * MIB) + b'"}'
    assert server.post("more.json", body).status_code == 201
    data = server.client.get("/v1/data/more.json").json()["data"]
    assert (data["encoding"], data["mimeType"]) == ("blob", "application/json")
    assert server.client.get("/v1/data/more.json?content=raw").content == body
    assert error_of(server.post("more.json", body[:-1])) == (400, "INVALID_BODY")
    # A blob stands in its envelope up to 50 MiB, and not a byte more.
    for size, encoding in ((50 * MIB, "base64"), (50 * MIB + 1, "blob")):
        blob = b"y" * size
        assert server.post("more.blob", blob, Content_Type="application/zip").status_code == 201
        data = server.client.get("/v1/data/more.blob").json()["data"]
        assert data["encoding"] == encoding
        assert ("content" in data) == (encoding == "base64")
        assert "content" not in data or base64.b64decode(data["content"]) == blob
    server.stop()
    small = serve("--http-max-body", "10")
    assert error_of(small.post("more.json", json.dumps("x" * 20).encode()))[0] == 413
    small.stop()


def test_memory_does_not_grow_with_what_is_carried(serve: Callable[..., Served]) -> None:
    """A large upload and download need no more memory than a small one.

    64 MiB, and with SCOPEFS_HTTP_BIG=1 a GiB.
    """
    size = 1024 * MIB if os.environ.get("SCOPEFS_HTTP_BIG") == "1" else 64 * MIB
    server = serve("--http-max-body", str(size))
    warm = bytes(8 * MIB)
    server.post("flat.warm", warm, Content_Type="application/zip")
    assert len(server.client.get("/v1/data/flat.warm?content=raw").content) == len(warm)
    before_kib = read_status_kib(server.process.pid, "VmHWM")
    piece = os.urandom(MIB)
    sent, received = hashlib.sha256(), hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for number in range(size // MIB):
            part = number.to_bytes(8, "big") + piece[8:]
            sent.update(part)
            yield part

    headers = {"Content-Type": "application/zip"}
    answer = server.client.post("/v1/data/flat.big", content=pieces(), headers=headers, timeout=600)
    assert answer.status_code == 201
    with server.client.stream("GET", "/v1/data/flat.big?content=raw", timeout=600) as response:
        assert response.headers["content-length"] == str(size)
        for part in response.iter_bytes():
            received.update(part)
    assert received.digest() == sent.digest()
    grown_kib = read_status_kib(server.process.pid, "VmHWM") - before_kib
    assert grown_kib < 40_000, f"{grown_kib} KiB more for {size} bytes"
    server.stop()
