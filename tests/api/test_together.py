"""Many at once, the mount beside it, and kill -9 under load."""

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from scopefs.api.pending import GRACE_S
from scopefs.mount.point import is_mounted
from tests.api.serving import JSON, Served
from tests.mounting import PATIENCE_S, Mounted, run_scopefs, wait_until


def test_fifty_at_once(served: Served) -> None:
    """50 parallel POSTs to one scope: 50 times 201, 50 versions, each with its own bytes."""
    bodies = [b'{"n": %d}' % number for number in range(50)]
    barrier = threading.Barrier(50)

    def post(body: bytes) -> httpx.Response:
        with served.make_client(served.token) as client:
            client.get("/health")
            barrier.wait()
            return client.post("/v1/data/fifty.posts", content=body)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, bodies))
    assert [answer.status_code for answer in answers] == [201] * 50
    times = [answer.json()["collectedAt"] for answer in answers]
    assert len(set(times)) == 50
    assert served.client.get("/v1/data/fifty.posts/versions").json()["total"] == 50
    for at, body in zip(times, bodies, strict=True):
        found = served.client.get("/v1/data/fifty.posts", params={"at": at, "content": "raw"})
        assert found.content == body


def test_the_mount_beside_it(start: Callable[..., Mounted]) -> None:
    """What is posted shows in the mount at once, and what is saved there at once over HTTP."""
    mounted = start("vault", "mnt", "--http", "127.0.0.1:0")
    url = re.search(r"http://\S+", mounted.log)
    assert url is not None
    token = run_scopefs("token", "show", vault=mounted.vault).stdout.decode().strip()
    with httpx.Client(
        base_url=url[0], headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S
    ) as client:
        for number in range(20):
            body = b'{"n":%d,"more":"%s"}' % (number, b"x" * number)
            headers = {**JSON, "X-Filename": "n.json"}
            answer = client.post("/v1/data/both.ways", content=body, headers=headers)
            assert answer.status_code == 201
            scope = mounted.point / "both" / "ways"
            assert (scope / "n.json").read_bytes() == body
            latest = json.loads((scope / ".versions" / "latest.json").read_bytes())
            assert latest["collectedAt"] == answer.json()["collectedAt"]
            check_saved(client, scope, number)
        (scope / "empty.txt").touch()
        check_empty(client, "/v1/data/both.ways/names/empty.txt")
        (scope / "empty.txt").unlink()
        client.delete("/v1/data/both.ways/names/m.txt")
        assert sorted(path.name for path in scope.iterdir()) == ["n.json"]
        client.delete("/v1/data/both.ways")
        assert list((mounted.point / "both").iterdir()) == []
    mounted.stop()
    mounted.check_log()


def test_upload_under_way_when_it_is_unmounted(start: Callable[..., Mounted]) -> None:
    """A request that has begun is finished, and answered, though the mount is gone."""
    mounted = start("vault", "mnt", "--http", "127.0.0.1:0")
    url = re.search(r"http://([\d.]+):(\d+)", mounted.log)
    assert url is not None
    token = run_scopefs("token", "show", vault=mounted.vault).stdout.decode().strip()
    body = b'{"x":"%s"}' % (b"y" * 1000)
    with socket.create_connection((url[1], int(url[2])), timeout=PATIENCE_S) as connection:
        connection.sendall(
            b"POST /v1/data/late.upload HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
            % (token.encode(), len(body))
            + body[:500]
        )
        # The door has it once it has taken a connection that came later.
        assert httpx.get(f"{url[0]}/health").status_code == 200
        subprocess.run(["fusermount3", "-u", mounted.point], check=True)
        wait_until(lambda: not is_mounted(mounted.point))
        connection.sendall(body[500:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 201 ")
    assert mounted.process.wait(PATIENCE_S) == 0
    assert run_scopefs("get", "late.upload", vault=mounted.vault).stdout == body


def check_saved(client: httpx.Client, scope: Path, number: int) -> None:
    """What close() has returned from is there at the next request, new or changed."""
    text = f"saved {number}"
    for name in ("m.txt", f"{number}.txt"):
        (scope / name).write_text(text)
        assert client.get(f"/v1/data/both.ways/names/{name}").text == text
    (scope / f"{number}.txt").unlink()
    (scope / "m.txt").write_text(f"{text} again")
    assert client.get("/v1/data/both.ways?content=raw").text == f"{text} again"
    (scope / "m.txt").write_text("x" * number)
    page = client.get("/v1/data/both.ways/versions").json()
    assert not number or page["versions"][0]["sizeBytes"] == number


def test_a_mount_of_another_process(
    start: Callable[..., Mounted], serve: Callable[..., Served]
) -> None:
    """What is saved in a mount is there at once at a server beside it too."""
    mounted, server = start(), serve()
    scope = mounted.make_scope("both.ways")
    for number in range(20):
        check_saved(server.client, scope, number)
    server.stop()
    mounted.stop()


def test_a_file_that_stays_open_is_not_waited_for_again(
    start: Callable[..., Mounted], serve: Callable[..., Served]
) -> None:
    """One of two descriptors is closed, and nothing published: the first to ask waits, once."""
    mounted, server = start(), serve()
    scope = mounted.make_scope("both.ways")
    (scope / "log").write_text("old")
    with (scope / "log").open("w") as file:
        file.write("new")
        file.flush()
        os.close(os.dup(file.fileno()))
        began_s = time.monotonic()
        for _ in range(30):
            assert server.client.get("/v1/data/both.ways?content=raw").text == "old"
        assert time.monotonic() - began_s < 10 * GRACE_S
    wait_until(lambda: server.client.get("/v1/data/both.ways?content=raw").text == "new")
    server.stop()
    mounted.stop()


def check_empty(client: httpx.Client, path: str) -> None:
    """An empty file is a payload like others, of no bytes."""
    wait_until(lambda: client.get(path).status_code == 200, 2)
    answer = client.get(path)
    assert (answer.content, answer.headers["content-length"]) == (b"", "0")
    assert answer.headers["content-disposition"] == 'attachment; filename="empty.txt"'
    known = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert known.status_code == 304
    assert client.get(path, headers={"Range": "bytes=0-"}).status_code == 416


def test_kill_under_load(serve: Callable[..., Served]) -> None:
    """After kill -9 every 201 is there, byte for byte, and half of nothing."""
    server = serve()
    stored: list[tuple[str, str, bytes]] = []
    lock = threading.Lock()

    def post(worker: int) -> None:
        scope = f"killed.w{worker}"
        with server.make_client(server.token) as client:
            for number in range(100_000):
                body = b'{"w":%d,"n":%d,"x":"%s"}' % (
                    worker,
                    number,
                    b"x" * (number * 997 % 150_000),
                )
                try:
                    answer = client.post(f"/v1/data/{scope}", content=body)
                except httpx.TransportError:
                    return
                assert answer.status_code == 201
                with lock:
                    stored.append((scope, answer.json()["collectedAt"], body))

    for _ in range(3):
        threads = [threading.Thread(target=post, args=(worker,)) for worker in range(8)]
        before = len(stored)
        for thread in threads:
            thread.start()
        wait_until(lambda enough=before + 150: len(stored) > enough)
        server.kill()
        for thread in threads:
            thread.join()
        server = serve()
        for scope, at, body in stored[before:]:
            found = server.client.get(f"/v1/data/{scope}", params={"at": at, "content": "raw"})
            assert found.content == body, (scope, at)
    total = sum(item["versionCount"] for item in server.client.get("/v1/data").json()["scopes"])
    # What was committed and could not be answered any more may be there too: one for each client.
    assert len(stored) <= total <= len(stored) + 3 * 8
    server.stop()
