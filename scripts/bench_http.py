"""What a durable POST costs, beside a bare route of the same server that reads and drops the body.

`scripts/bench --http`: 1 KiB each, by 1, 16 and 64 connections, interleaved in rounds, each answer
checked. Server and clients share the machine, and the clients are the same for all. A third route
appends the body to a file and syncs that, in a thread: what this disk asks for a durable answer,
with no vault and no group commit. All three pass the same door: checks, metrics, a line of the
access log. Ratios are taken within a round: a busy machine slows all three.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

BODY = b'{"text":"' + b"x" * 1013 + b'"}'
ROUTES = {"bare": b"/v1/bare", "synced": b"/v1/synced", "durable": b"/v1/data/bench.posts"}
CONNECTIONS = (1, 16, 64)

_SERVER = """
import os
import sys
from pathlib import Path
import trio
from starlette.responses import Response
from starlette.routing import Route
from scopefs.api import server
from scopefs.api.context import HttpOptions
from scopefs.daemon import run_serve

async def bare(request):
    async for _ in request.stream():
        pass
    return Response(b'{}', 201, media_type="application/json")

file = os.open(sys.argv[1] + ".synced", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def append(body):
    os.write(file, body)
    os.fdatasync(file)

async def synced(request):
    await trio.to_thread.run_sync(append, await request.body())
    return Response(b'{}', 201, media_type="application/json")

build = server.build_app

def build_with_bare(*arguments):
    app = build(*arguments)
    app.router.routes.append(Route("/v1/bare", bare, methods=["POST"]))
    app.router.routes.append(Route("/v1/synced", synced, methods=["POST"]))
    return app

server.build_app = build_with_bare
run_serve(Path(sys.argv[1]), server.parse_address("127.0.0.1:0"), HttpOptions(False),
          lambda address: print(address, flush=True))
"""


async def post(port: int, path: bytes, times: int) -> None:
    """One connection that posts, and checks what it is answered."""
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % path
    request = head + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    for _ in range(times):
        answer = await _ask(stream, request)
        if not answer.startswith(b"HTTP/1.1 201"):
            raise SystemExit(f"the server answered {answer!r}")
    await stream.aclose()


async def wait_settled(port: int) -> None:
    """What is still to be settled is not to burden the next."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    while True:
        answer = await _ask(stream, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if b"\nscopefs_vault_unsettled 0.0\n" in answer:
            break
        await trio.sleep(0.05)
    await stream.aclose()


async def _ask(stream: trio.SocketStream, request: bytes) -> bytes:
    await stream.send_all(request)
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer) < _length(answer):
        answer += await stream.receive_some(65_536)
    return answer


def _length(answer: bytes) -> int:
    head, _, _ = answer.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head)
    assert found is not None
    return len(head) + 4 + int(found[1])


async def measure(port: int, path: bytes, connections: int, total: int) -> float:
    """Seconds for each of so many requests."""
    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(post, port, path, total // connections)
    return (time.perf_counter() - start) / (total // connections * connections)


def main(rounds: int = 11, total: int = 320) -> None:
    """Print medians, and what a durable POST costs beside the other two."""
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(Path(directory) / "vault")],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        try:
            print(f"{'POST of 1 KiB':20}{'bare':>8}{'synced':>8}{'durable':>8}  us each;", end="")
            print("  durable is times bare, times synced")
            for connections in CONNECTIONS:
                taken: dict[str, list[float]] = {name: [] for name in ROUTES}
                for _ in range(rounds):
                    for name, path in ROUTES.items():
                        taken[name].append(trio.run(measure, port, path, connections, total))
                        trio.run(wait_settled, port)
                print(f"  {connections:3} connection(s)  ", end="")
                for times in taken.values():
                    print(f"{statistics.median(times) * 1e6:8.0f}", end="")
                for name in ("bare", "synced"):
                    pairs = zip(taken["durable"], taken[name], strict=True)
                    print(f"{statistics.median(d / b for d, b in pairs):12.2f}", end="")
                print(flush=True)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
