"""/v1/events: every change, in order, without gap or repeat, whoever made it."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client import Gauge
from trio.testing import MockClock

from scopefs import Vault
from scopefs.api.access import ANYBODY
from scopefs.api.feed import HEARTBEAT_S, POLL_S, Feed
from scopefs.model.stamps import parse_collected_at
from tests.api.serving import Served, error_of
from tests.mounting import PATIENCE_S, Mounted, run_scopefs


class Stream:
    """A stream of events as a client reads it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def read(self, number: int) -> list[dict[str, Any]]:
        """So many events, each with its `id`."""
        found: list[dict[str, Any]] = []
        fields: dict[str, str] = {}
        while len(found) < number:
            line = next(self._lines)
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                event = json.loads(fields["data"])
                assert (fields["id"], fields["event"]) == (str(event["seq"]), event["op"])
                found.append(event)
                fields = {}
        return found


@contextmanager
def follow(client: httpx.Client, query: str = "", **headers: str) -> Iterator[Stream]:
    """An open stream, which has said hello."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with client.stream("GET", f"/v1/events{query}", headers=named) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response)
        assert next(stream._lines).startswith(":")
        yield stream


def test_all_since_the_beginning(served: Served) -> None:
    """`since=0` tells all, numbered without a gap."""
    for number in range(3):
        served.post("feed.all", b'{"n":%d}' % number)
    with served.make_client(served.token) as client, follow(client, "?since=0") as stream:
        events = stream.read(5)
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]


def test_from_now_on(served: Served) -> None:
    """Without `since`, what comes from now on."""
    served.post("feed.now", b'{"n":1}')
    with served.make_client(served.token) as client, follow(client) as stream:
        stored = served.post("feed.now", b'{"n":2}').json()
        event = stream.read(1)[0]
    assert (event["op"], event["collectedAt"]) == ("version", stored["collectedAt"])


def test_head(served: Served) -> None:
    """What a stream would begin with; it has no length."""
    answer = served.client.head("/v1/events?since=0")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in answer.headers


def test_resuming(served: Served) -> None:
    """`Last-Event-ID` goes on behind that event, whatever `since` says."""
    for number in range(4):
        served.post("feed.resume", b'{"n":%d}' % number)
    with served.make_client(served.token) as client:
        with follow(client, "?since=0&scopePrefix=feed.resume") as stream:
            first = stream.read(2)
        last = str(first[-1]["seq"])
        with follow(client, "?since=0&scopePrefix=feed.resume", Last_Event_ID=last) as stream:
            rest = stream.read(3)
    numbers = [event["seq"] for event in first + rest]
    assert len(set(numbers)) == 5
    assert numbers == sorted(numbers)


def test_prefix_and_token(served: Served) -> None:
    """Only what begins with the prefix, and only what the token is for."""
    client = served.make_token("feed", "read", "seen.*")
    with follow(client, "?since=0") as stream:
        for scope in ("unseen.a", "seen.a", "seen2.a", "seen.b"):
            served.post(scope, b"{}")
        assert {event["scope"] for event in stream.read(4)} == {"seen.a", "seen.b"}
    with follow(client, "?since=0&scopePrefix=seen.b") as stream:
        assert {event["scope"] for event in stream.read(2)} == {"seen.b"}


def test_a_stream_ends_when_its_token_is_revoked(served: Served) -> None:
    """Nothing more is told; who comes again is refused."""
    client = served.make_token("followed", "read", "*")
    with follow(client) as stream:
        served.post("feed.revoked", b'{"n":1}')
        assert stream.read(1)[0]["scope"] == "feed.revoked"
        run_scopefs("token", "revoke", "followed", vault=served.vault)
        untold = served.post("feed.revoked", b'{"n":2}').json()["collectedAt"]
        assert not any(untold in line for line in stream._lines)
    assert error_of(client.get("/v1/events")) == (401, "MISSING_AUTH")


@pytest.mark.parametrize("query", ["since=x", "since=-1", "since=", "limit=1"])
def test_queries_that_are_none(served: Served, query: str) -> None:
    """400 as everywhere."""
    assert error_of(served.client.get(f"/v1/events?{query}")) == (400, "INVALID_QUERY")
    known = served.client.get(f"/v1/events?{query}", headers={"Last-Event-ID": "0"})
    assert error_of(known) == (400, "INVALID_QUERY")
    response = served.client.get("/v1/events", headers={"Last-Event-ID": "x"})
    assert error_of(response) == (400, "INVALID_QUERY")


def test_changes_of_another_process(serve: Callable[..., Served]) -> None:
    """What another process publishes is told within 100 ms."""
    server = serve()
    waits = []
    with Vault.open(server.vault) as vault:
        vault.put("other.process", b"{}")
        with follow(server.client) as stream:
            for number in range(10):
                vault.put("other.process", b"%d" % number)
                start = time.perf_counter()
                assert stream.read(1)[0]["op"] == "version"
                waits.append(time.perf_counter() - start)
    # The machine may be busy with something else now and then.
    assert sorted(waits)[6] < 0.1, waits
    server.stop()


def test_changes_by_the_command_line_and_a_mount(
    start: Callable[..., Mounted], serve: Callable[..., Served]
) -> None:
    """A save in a mount and a command show in the stream of a server beside them, in 100 ms."""
    mounted = start()
    server = serve()
    lags_s = []

    def wait_version(stream: Stream) -> str:
        while (event := stream.read(1)[0])["op"] != "version":
            pass
        lags_s.append(time.time() - parse_collected_at(event["at"]) / 1e6)
        name: str = event["file"]
        return name

    with follow(server.client, "?scopePrefix=my.files") as stream:
        for number in range(5):
            (mounted.make_scope() / f"a{number}").write_text("x")
            assert wait_version(stream) == f"a{number}"
            run_scopefs("put", "my.files", "-", "--name", "b", vault=mounted.vault, input=b"y")
            assert wait_version(stream) == "b"
    # The machine may be busy with something else now and then.
    assert sorted(lags_s)[6] < 0.1, lags_s
    server.stop()
    mounted.stop()


def test_no_gap_and_no_repeat_over_a_kill(serve: Callable[..., Served]) -> None:
    """Who resumes at a new server gets each event once."""
    server = serve()
    for number in range(5):
        server.post("feed.kill", b'{"n":%d}' % number)
    with follow(server.client, "?since=0") as stream:
        seen = stream.read(4)
    server.kill()
    second = serve()
    second.post("feed.kill", b'{"n":5}')
    with follow(second.client, Last_Event_ID=str(seen[-1]["seq"])) as stream:
        seen += stream.read(4)
    assert [event["seq"] for event in seen] == list(range(1, 9))
    second.stop()


def test_streams_end_with_the_server(serve: Callable[..., Served]) -> None:
    """An open stream does not hold the server up."""
    server = serve()
    with server.make_client(server.token) as client, follow(client) as stream:
        start = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert list(stream._lines) in ([], [""])
        assert server.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - start < 5


async def test_heartbeats(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A comment comes every 15 seconds in which nothing else does, and counts from the last."""
    gauge = Gauge("streams", "Streams.", registry=None)
    beats_s = []
    with Vault.open(tmp_path / "vault", create=True) as vault, trio.fail_after(5 * HEARTBEAT_S):
        stream = Feed(vault).follow(lambda: ANYBODY, "", 0, trio.Event(), gauge)
        assert await anext(stream) == b": hello\n\n"
        started_s = trio.current_time()
        for _ in range(2):
            assert await anext(stream) == b": still here\n\n"
            beats_s.append(trio.current_time() - started_s)
        await trio.sleep(HEARTBEAT_S - 1)
        vault.put("heart.beat", b"{}")
        told = await anext(stream)
        assert told.startswith(b"id: 1\nevent: ")
        told_s = trio.current_time() - started_s
        assert await anext(stream) == b": still here\n\n"
        beats_s.append(trio.current_time() - started_s)
        assert gauge.collect()[0].samples[0].value == 1
        await stream.aclose()
        assert gauge.collect()[0].samples[0].value == 0
    wanted_s = (HEARTBEAT_S, 2 * HEARTBEAT_S, told_s + HEARTBEAT_S)
    late_s = [beat_s - at_s for beat_s, at_s in zip(beats_s, wanted_s, strict=True)]
    assert 0 <= min(late_s) <= max(late_s) <= 2 * POLL_S
    assert told_s < 3 * HEARTBEAT_S
