"""The numbered cases of seed 000, one by one and named after its numbering, in Python's spelling.

The HTTP cases ask a real server in a process of its own, started and ended as a user does it.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import httpx
import msgspec
import pytest
from starlette.applications import Starlette

from scopefs import Vault
from scopefs.api.routes import DATA_INGEST_MAX_SIZE, DEFAULT_MAX_SIZE, HttpOptions, build_app
from scopefs.errors import InvalidEnvelope, InvalidScope, Unavailable
from scopefs.model.envelope import (
    Envelope,
    Receipt,
    create_data_file_envelope,
    decode_envelope,
    encode_envelope,
)
from scopefs.model.scope import Scope, parse_scope, scope_to_path_segments
from scopefs.model.stamps import (
    filename_to_timestamp,
    generate_collected_at,
    parse_collected_at,
    timestamp_to_filename,
)
from scopefs.store.hierarchy import (
    build_data_file_path,
    build_scope_dir,
    delete_data_file,
    list_versions,
    read_data_file,
    write_data_file,
)
from scopefs.store.index import (
    Version,
    count_by_scope,
    delete_by_path,
    find_by_path,
    find_by_scope,
    find_latest_by_scope,
    initialize_database,
    insert_version,
)
from tests.mounting import PATIENCE_S, wait_until

AT = "2026-01-21T10:00:00Z"
AT_US = parse_collected_at(AT)
SECOND_US = 1_000_000
CREATED_AT = "2026-01-21T10:00:01.000000Z"
WHOLE_SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
COLLECTED_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


# Task 0.2: scopes


def test_scope_1_two_segments() -> None:
    """instagram.profile has a source, a category and no subcategory."""
    assert parse_scope("instagram.profile") == Scope(
        source="instagram", category="profile", subcategory=None, raw="instagram.profile"
    )


def test_scope_2_three_segments() -> None:
    """chatgpt.conversations.shared has a subcategory."""
    assert parse_scope("chatgpt.conversations.shared").subcategory == "shared"


def test_scope_3_underscores() -> None:
    """youtube.watch_history is a scope."""
    assert parse_scope("youtube.watch_history").category == "watch_history"


def test_scope_4_one_segment() -> None:
    """One segment is refused."""
    with pytest.raises(InvalidScope):
        parse_scope("a")


def test_scope_5_four_segments() -> None:
    """Four segments are refused."""
    with pytest.raises(InvalidScope):
        parse_scope("a.b.c.d")


def test_scope_6_upper_case() -> None:
    """Upper case is refused."""
    with pytest.raises(InvalidScope):
        parse_scope("Instagram.Profile")


def test_scope_7_leading_digit() -> None:
    """A segment that starts with a digit is refused."""
    with pytest.raises(InvalidScope):
        parse_scope("123.abc")


def test_scope_8_path_segments() -> None:
    """A scope's path segments are its segments in order."""
    assert scope_to_path_segments("chatgpt.conversations.shared") == [
        "chatgpt", "conversations", "shared",
    ]  # fmt: skip


# Task 0.3: envelopes


def envelope_bytes(version: str = "1.0", collected_at: str = AT) -> bytes:
    """An envelope as the personal server writes it."""
    members = {"version": version, "scope": "instagram.profile", "collectedAt": collected_at}
    return json.dumps({**members, "data": {"name": "ada"}}).encode()


def test_envelope_1_valid() -> None:
    """A valid envelope is decoded."""
    assert decode_envelope(envelope_bytes()) == Envelope(
        parse_scope("instagram.profile"), AT_US, b'{"name": "ada"}'
    )


def test_envelope_2_other_version() -> None:
    """A version other than 1.0 is refused."""
    with pytest.raises(InvalidEnvelope):
        decode_envelope(envelope_bytes(version="2.0"))


def test_envelope_3_bad_time() -> None:
    """A collectedAt that is no time is refused."""
    with pytest.raises(InvalidEnvelope):
        decode_envelope(envelope_bytes(collected_at="not-a-date"))


def test_envelope_4_create() -> None:
    """create_data_file_envelope makes the envelope of its arguments, of version 1.0."""
    envelope = create_data_file_envelope("instagram.profile", AT, b'{"name": "ada"}')
    assert json.loads(encode_envelope(envelope)) == json.loads(envelope_bytes())


def test_envelope_5_ingest_response() -> None:
    """A valid ingest response is read."""
    text = b'{"scope":"instagram.profile","collectedAt":"2026-01-21T10:00:00Z","status":"stored"}'
    assert msgspec.json.decode(text, type=Receipt) == Receipt("instagram.profile", AT, "stored")


# Task 1.1: paths and timestamps


def test_paths_1_timestamp_to_filename() -> None:
    """Colons become dashes."""
    assert timestamp_to_filename("2026-01-21T10:00:00Z") == "2026-01-21T10-00-00Z"


def test_paths_2_filename_to_timestamp() -> None:
    """The time's dashes become colons again."""
    assert filename_to_timestamp("2026-01-21T10-00-00Z") == "2026-01-21T10:00:00Z"


def test_paths_3_round_trip() -> None:
    """The way to a file name and back ends where it began."""
    assert filename_to_timestamp(timestamp_to_filename(AT)) == AT


def test_paths_4_data_file_path() -> None:
    """An envelope stands in its scope's directory, under its time."""
    path = build_data_file_path(Path("/data"), "instagram.profile", AT)
    assert path == Path("/data/instagram/profile/2026-01-21T10-00-00Z.json")


def test_paths_5_three_directories() -> None:
    """A subcategory is one directory more."""
    path = build_data_file_path(Path("/data"), "chatgpt.conversations.shared", AT)
    assert path.parent == Path("/data/chatgpt/conversations/shared")


def test_paths_6_scope_directory() -> None:
    """A scope's directory is made of its segments."""
    assert build_scope_dir(Path("/data"), "instagram.profile") == Path("/data/instagram/profile")


def test_paths_7_generated_collected_at() -> None:
    """generate_collected_at gives whole seconds, ending in Z."""
    assert WHOLE_SECOND.fullmatch(generate_collected_at(time.time_ns() // 1000))


# Task 1.2: the index's schema


def test_index_schema_1_opens(db: apsw.Connection) -> None:
    """initialize_database(":memory:") returns a connection that answers."""
    assert db.execute("SELECT 1").fetchall() == [(1,)]


def test_index_schema_2_table(db: apsw.Connection) -> None:
    """The table data_files exists."""
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert ("data_files",) in tables


def test_index_schema_3_columns(db: apsw.Connection) -> None:
    """All expected columns are present, with the types and rules of the seed."""
    found = {row[1]: row[2:4] for row in db.execute("PRAGMA table_info(data_files)")}
    expected = {
        "id": ("INTEGER", 0), "file_id": ("TEXT", 0), "path": ("TEXT", 1), "scope": ("TEXT", 1),
        "collected_at": ("TEXT", 1), "created_at": ("TEXT", 1), "size_bytes": ("INTEGER", 1),
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected


def test_index_schema_4_wal(tmp_path: Path) -> None:
    """An index in a file is in WAL mode."""
    with closing(initialize_database(str(tmp_path / "index.db"))) as db:
        assert db.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


def test_index_schema_5_idempotent(tmp_path: Path) -> None:
    """Initializing the same file twice changes nothing and loses nothing."""
    path = str(tmp_path / "index.db")
    with closing(initialize_database(path)) as db:
        inserted = insert(db)
    with closing(initialize_database(path)) as db:
        assert find_by_scope(db, "test.scope") == [inserted]


# Task 2.1: the hierarchy


def make_envelope(at: str = AT, data: bytes = b'{"name":"ada"}') -> Envelope:
    """An envelope of instagram.profile."""
    return create_data_file_envelope("instagram.profile", at, data)


def test_hierarchy_1_expected_path(tmp_path: Path) -> None:
    """write_data_file creates the file at its path."""
    result = write_data_file(tmp_path, make_envelope())
    assert result.path == tmp_path / "instagram/profile/2026-01-21T10-00-00Z.json"
    assert result.path.is_file()


def test_hierarchy_2_valid_json(tmp_path: Path) -> None:
    """The written file is JSON with the envelope's members."""
    assert json.loads(write_data_file(tmp_path, make_envelope()).path.read_bytes()) == {
        "version": "1.0", "scope": "instagram.profile", "collectedAt": AT, "data": {"name": "ada"},
    }  # fmt: skip


def test_hierarchy_3_intermediate_directories(tmp_path: Path) -> None:
    """Directories on the way are made."""
    base = tmp_path / "not" / "yet" / "there"
    assert write_data_file(base, make_envelope()).path.is_relative_to(base)


def test_hierarchy_4_relative_path(tmp_path: Path) -> None:
    """relative_path is the path below the base directory."""
    result = write_data_file(tmp_path, make_envelope())
    assert result.relative_path == "instagram/profile/2026-01-21T10-00-00Z.json"


def test_hierarchy_5_size(tmp_path: Path) -> None:
    """size_bytes is the size of the file."""
    result = write_data_file(tmp_path, make_envelope())
    assert result.size_bytes == result.path.stat().st_size > 0


def test_hierarchy_6_whole_files_only(tmp_path: Path) -> None:
    """A large envelope is complete under its name, and nothing half-written lies beside it."""
    envelope = make_envelope(data=b'{"text":"' + b"x" * 3_000_000 + b'"}')
    path = write_data_file(tmp_path, envelope).path
    assert path.read_bytes() == encode_envelope(envelope)
    assert list(path.parent.iterdir()) == [path]


def test_hierarchy_7_read_back(tmp_path: Path) -> None:
    """read_data_file returns the envelope that was written."""
    write_data_file(tmp_path, make_envelope())
    assert read_data_file(tmp_path, "instagram.profile", AT) == make_envelope()


def test_hierarchy_8_newest_first(tmp_path: Path) -> None:
    """list_versions returns the file names, newest first."""
    second, fraction, day = "10:00:01Z", "10:00:00.000123Z", "10:00:00Z"
    for clock in (fraction, second, day):
        write_data_file(tmp_path, make_envelope(f"2026-01-21T{clock}"))
    assert list_versions(tmp_path, "instagram.profile") == [
        "2026-01-21T10-00-01Z.json",
        "2026-01-21T10-00-00Zu000123.json",
        "2026-01-21T10-00-00Z.json",
    ]


def test_hierarchy_9_unknown_scope(tmp_path: Path) -> None:
    """A scope that is not there has no versions."""
    assert list_versions(tmp_path, "no.where") == []


def test_hierarchy_10_delete(tmp_path: Path) -> None:
    """A deleted file is gone: reading it raises FileNotFoundError."""
    write_data_file(tmp_path, make_envelope())
    delete_data_file(tmp_path, "instagram.profile", AT)
    with pytest.raises(FileNotFoundError):
        read_data_file(tmp_path, "instagram.profile", AT)


# Task 2.2: the index


@pytest.fixture
def db() -> Iterator[apsw.Connection]:
    """An index in memory."""
    with closing(initialize_database(":memory:")) as opened:
        yield opened


def insert(db: apsw.Connection, second: int = 0, scope: str = "test.scope") -> Version:
    """Insert a version of that second after AT."""
    path = f"data/{scope.replace('.', '/')}/{second}.json"
    return insert_version(db, path, scope, AT_US + second * SECOND_US, 120, created_at=CREATED_AT)


def test_index_1_insert(db: apsw.Connection) -> None:
    """An inserted version has an id of its own and keeps its created_at."""
    first, second = insert(db, 0), insert(db, 1)
    assert 0 < first.id < second.id
    assert (first.created_at, first.collected_at) == (CREATED_AT, AT)


def test_index_2_no_file_id(db: apsw.Connection) -> None:
    """Until something is synchronised, file_id is null."""
    insert(db)
    assert db.execute("SELECT file_id FROM data_files").fetchall() == [(None,)]


def test_index_3_duplicate_path(db: apsw.Connection) -> None:
    """A path can be inserted once."""
    path = insert(db).path
    with pytest.raises(apsw.ConstraintError):
        insert_version(db, path, "other.scope", AT_US + 5, 1, created_at=CREATED_AT)


def test_index_4_find_by_path(db: apsw.Connection) -> None:
    """A version is found by its path."""
    insert(db, 0)
    inserted = insert(db, 1)
    assert find_by_path(db, inserted.path) == inserted


def test_index_5_find_unknown_path(db: apsw.Connection) -> None:
    """An unknown path finds nothing."""
    insert(db)
    assert find_by_path(db, "data/no/where.json") is None


def test_index_6_newest_first(db: apsw.Connection) -> None:
    """The versions of a scope come newest first, those of other scopes not at all."""
    inserted = {second: insert(db, second) for second in (2, 0, 3, 1)}
    insert(db, 9, "test.scope.sub")
    expected = [inserted[second] for second in (3, 2, 1, 0)]
    assert find_by_scope(db, "test.scope") == expected


def test_index_7_limit_and_offset(db: apsw.Connection) -> None:
    """limit and offset cut a page out of that list."""
    inserted = [insert(db, second) for second in range(5)]
    assert find_by_scope(db, "test.scope", limit=2, offset=1) == [inserted[3], inserted[2]]


def test_index_8_latest(db: apsw.Connection) -> None:
    """The latest version is the newest by time, not the last that was inserted."""
    inserted = {second: insert(db, second) for second in (0, 2, 1)}
    assert find_latest_by_scope(db, "test.scope") == inserted[2]


def test_index_9_count(db: apsw.Connection) -> None:
    """The count is that of the scope's versions."""
    for second in range(3):
        insert(db, second)
    insert(db, 0, "test.other")
    assert [count_by_scope(db, scope) for scope in ("test.scope", "no.where")] == [3, 0]


def test_index_10_delete(db: apsw.Connection) -> None:
    """Deleting says whether there was something, and deletes it."""
    path = insert(db).path
    assert [delete_by_path(db, path), delete_by_path(db, path)] == [True, False]
    assert find_by_path(db, path) is None


# A real server


class Server:
    """`scopefs serve` in a process of its own. `url` is where it listens."""

    def __init__(self, log: Path, *options: str, **environment: str) -> None:
        self.log_path = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scopefs", "serve", "--http", "127.0.0.1:0",
                 "--http-auth", "none", *options],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, **environment},
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
        if found is None:
            self.end()
            raise AssertionError(f"the server said {line!r}:\n{log.read_text()}")
        self.url = found.group(1)
        # Only a server that answers has its signal handler in place.
        assert httpx.get(f"{self.url}/health", timeout=PATIENCE_S).status_code == 200

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def post(self, scope: str, body: Any) -> httpx.Response:
        """POST a body, with its length or, for an iterator, chunked without one."""
        return httpx.post(f"{self.url}/v1/data/{scope}", content=body, timeout=PATIENCE_S)

    def interrupt(self) -> None:
        """Ctrl+C."""
        self.process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """Ctrl+C, and check that the server ends as it should and complained of nothing."""
        self.interrupt()
        code, log = self.process.wait(PATIENCE_S), self.log_path.read_text()
        assert (code, log) == (0, "")

    def end(self) -> None:
        """Leave nothing behind."""
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers; what a test leaves running is ended."""
    started: list[Server] = []

    def begin(*options: str, **environment: str) -> Server:
        server = Server(tmp_path / f"{len(started)}.log", *options, **environment)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.end()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """One server for all route cases, and its vault; each case uses a scope of its own."""
    base = tmp_path_factory.mktemp("served")
    server = Server(base / "log", "--vault", str(base / "vault"))
    try:
        yield server, base / "vault"
        server.stop()
    finally:
        server.end()


def find_rows(vault: Path, scope: str) -> list[tuple[Any, ...]]:
    """The rows of a scope in a vault's index, as another program reads them."""
    flags = apsw.SQLITE_OPEN_READONLY
    with closing(apsw.Connection(str(vault / "index.db"), flags=flags)) as db:
        return db.execute(
            "SELECT path, collected_at, size_bytes FROM data_files WHERE scope = ?"
            " ORDER BY collected_us", (scope,),
        ).fetchall()  # fmt: skip


def wait_for_envelope(vault: Path, response: httpx.Response) -> Path:
    """The envelope of a stored version, once it is settled."""
    receipt = response.json()
    path = build_data_file_path(vault / "data", receipt["scope"], receipt["collectedAt"])
    wait_until(path.is_file)
    return path


def object_of(size: int) -> bytes:
    """A JSON object of exactly `size` bytes."""
    return b'{"a":"' + b"x" * (size - 8) + b'"}'


# Task 3.1: the body limit


def test_body_limit_1_within(served: tuple[Server, Path]) -> None:
    """A body within the limit passes."""
    assert served[0].post("limit.within", object_of(2_000_000)).status_code == 201


def test_body_limit_2_exceeded(served: tuple[Server, Path]) -> None:
    """A body over the limit gets 413, in the one shape of errors, and stores nothing."""
    server, vault = served
    response = server.post("limit.exceeded", object_of(DATA_INGEST_MAX_SIZE + 1))
    assert response.status_code == 413
    assert response.json().keys() == {"error", "message", "details"}
    assert response.json()["error"] == "CONTENT_TOO_LARGE"
    assert find_rows(vault, "limit.exceeded") == []


def test_body_limit_2_exceeded_by_announcement(served: tuple[Server, Path]) -> None:
    """A body that is announced as too long is refused before it is sent."""
    head = "POST /v1/data/limit.announced HTTP/1.1\r\nHost: localhost\r\n"
    length = f"Content-Length: {DATA_INGEST_MAX_SIZE + 1}\r\n\r\n"
    with socket.create_connection(served[0].address, timeout=PATIENCE_S) as connection:
        connection.sendall(f"{head}{length}".encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")


def test_body_limit_2_exceeded_without_a_length(served: tuple[Server, Path]) -> None:
    """A chunked body over the limit gets 413 too."""
    server, vault = served
    body = object_of(DATA_INGEST_MAX_SIZE + 1)
    pieces = (body[start : start + (1 << 20)] for start in range(0, len(body), 1 << 20))
    response = server.post("limit.chunked", pieces)
    assert (response.status_code, response.json()["error"]) == (413, "CONTENT_TOO_LARGE")
    assert find_rows(vault, "limit.chunked") == []


@pytest.mark.parametrize("scope", ["limit.length", "limit.pieces"])
def test_body_limit_2_reached(served: tuple[Server, Path], scope: str) -> None:
    """A body of exactly the limit is stored byte for byte, with a length or chunked."""
    server, vault = served
    body = object_of(DATA_INGEST_MAX_SIZE)
    pieces = (body[start : start + (1 << 20)] for start in range(0, len(body), 1 << 20))
    response = server.post(scope, body if scope == "limit.length" else pieces)
    assert response.status_code == 201
    assert wait_for_envelope(vault, response).read_bytes().endswith(b'"data":' + body + b"}\n")


def test_body_limit_2_leaves_no_draft(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """What was received of a refused body is removed."""
    server = start_server("--vault", str(tmp_path / "vault"))
    body = object_of(DATA_INGEST_MAX_SIZE + 1)
    assert server.post("limit.draft", iter((body[:-1], body[-1:]))).status_code == 413
    assert [path.stat().st_size for path in staged_files(tmp_path / "vault")] == []
    server.stop()


def test_body_limit_3_constants() -> None:
    """50 MiB for data, 1 MiB for everything else."""
    assert (DATA_INGEST_MAX_SIZE, DEFAULT_MAX_SIZE) == (52_428_800, 1_048_576)


# Task 3.2: the route


def test_route_1_created(served: tuple[Server, Path]) -> None:
    """A valid scope and body get 201 and the receipt."""
    response = served[0].post("route.created", b'{"hello":"world"}')
    assert response.status_code == 201
    assert response.headers["content-type"] == "application/json"
    receipt = response.json()
    assert list(receipt) == ["scope", "collectedAt", "status"]
    assert (receipt["scope"], receipt["status"]) == ("route.created", "stored")


def test_route_2_collected_at(served: tuple[Server, Path]) -> None:
    """The receipt's collectedAt is the time of the request, in whole seconds: it was the first."""
    before_s = int(time.time())
    collected_at = served[0].post("route.time", b"{}").json()["collectedAt"]
    assert WHOLE_SECOND.fullmatch(collected_at)
    assert before_s * SECOND_US <= parse_collected_at(collected_at) <= time.time_ns() // 1000


def test_route_3_file(served: tuple[Server, Path]) -> None:
    """The file stands under its scope and time, and is the scope's only one."""
    server, vault = served
    path = wait_for_envelope(vault, server.post("route.file.sub", b"{}"))
    assert list((vault / "data" / "route" / "file" / "sub").iterdir()) == [path]


def test_route_4_envelope(served: tuple[Server, Path]) -> None:
    """The file is an envelope of version 1.0 whose data is the body, byte for byte."""
    server, vault = served
    body = b'{ "b":1e999,\n"a": 9007199254740993, "a":2 }\n'
    response = server.post("route.envelope", body)
    content = wait_for_envelope(vault, response).read_bytes()
    assert json.loads(content)["version"] == "1.0"
    assert decode_envelope(content).collected_at == response.json()["collectedAt"]
    assert content.endswith(b'"data":' + body + b"}\n")


def test_route_5_row(served: tuple[Server, Path]) -> None:
    """The index has the matching row."""
    server, vault = served
    response = server.post("route.row", b'{"hello":"world"}')
    path = wait_for_envelope(vault, response)
    assert find_rows(vault, "route.row") == [
        (str(path.relative_to(vault)), response.json()["collectedAt"], path.stat().st_size)
    ]


@pytest.mark.parametrize("scope", ["bad", "a.b.c.d", "Test.scope", "1.a", "a..b", "a.b%00", "%20"])
def test_route_6_invalid_scope(served: tuple[Server, Path], scope: str) -> None:
    """A scope that is none gets 400, and words."""
    response = served[0].post(scope, b"{}")
    assert (response.status_code, response.json()["error"]) == (400, "INVALID_SCOPE")
    assert "segment" in response.json()["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"{", b'{"a":NaN}', b'{"a":"\xff"}', b'{"a":1}\n{"a":2}\n', b"\xef\xbb\xbf{}"],
)
def test_route_7_no_json(served: tuple[Server, Path], body: bytes) -> None:
    """A body that is no JSON gets 400, and stores nothing."""
    server, vault = served
    response = server.post("route.nojson", body)
    assert (response.status_code, response.json()["error"]) == (400, "INVALID_BODY")
    assert find_rows(vault, "route.nojson") == []


@pytest.mark.parametrize("body", [b"[]", b'[{"a":1}]', b"1", b"null", b'"x"'])
def test_route_8_no_object(served: tuple[Server, Path], body: bytes) -> None:
    """A body that is JSON but no object gets 400, and stores nothing."""
    server, vault = served
    response = server.post("route.noobject", body)
    assert (response.status_code, response.json()["error"]) == (400, "INVALID_BODY")
    assert find_rows(vault, "route.noobject") == []


def test_route_9_two_versions(served: tuple[Server, Path]) -> None:
    """Two posts to one scope make two versions, also within one second."""
    server, vault = served
    responses = [server.post("route.twice", body) for body in (b'{"n":1}', b'{"n":2}')]
    contents = [wait_for_envelope(vault, response).read_bytes() for response in responses]
    assert [json.loads(content)["data"]["n"] for content in contents] == [1, 2]
    times = [response.json()["collectedAt"] for response in responses]
    assert [row[1] for row in find_rows(vault, "route.twice")] == times
    assert all(COLLECTED_AT.fullmatch(text) for text in times)


def test_other_routes_are_not_there(served: tuple[Server, Path]) -> None:
    """An unknown route gets 404, another method 405, both in the one shape of errors."""
    url = served[0].url
    unknown = httpx.post(f"{url}/v1/nothing", content=b"{}")
    other = httpx.put(f"{url}/v1/data/route.put", content=b"{}")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "NOT_FOUND")
    assert (other.status_code, other.json()["error"]) == (405, "METHOD_NOT_ALLOWED")
    assert unknown.json().keys() == other.json().keys() == {"error", "message", "details"}


# Task 3.3: start-up


def test_bootstrap_1_index(vault: Vault) -> None:
    """An open vault has its index at its place, and answers from it."""
    with vault.read() as db:
        assert db.filename == str(vault.layout.root / "index.db")
        assert count_by_scope(db, "test.scope") == 0


def test_bootstrap_2_clean_up(vault: Vault) -> None:
    """A closed vault takes nothing more."""
    vault.close()
    with pytest.raises(Unavailable, match="closed"):
        vault.put("test.scope", b"{}")


async def test_bootstrap_3_app_answers(vault: Vault) -> None:
    """The application of an open vault answers a post to test.scope with 201."""
    app = build_app(vault, HttpOptions(needs_token=False))
    assert isinstance(app, Starlette)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.post("/v1/data/test.scope", content=b'{"hello":"world"}')
    assert response.status_code == 201
    assert vault.get("test.scope").collected_at == response.json()["collectedAt"]


def test_bootstrap_4_clean_up_twice(vault: Vault) -> None:
    """Closing a vault raises nothing, not the second time either."""
    vault.close()
    vault.close()


# Task 4.1: the whole, as a user does it


def staged_files(vault: Path) -> list[Path]:
    """What lies in staging/ with anything in it."""
    return [p for p in (vault / "staging").rglob("*") if p.is_file() and p.stat().st_size]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_verification_5_to_7_curl(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """On an empty home the seed's own curl line gives 201, file and row."""
    home = tmp_path / "home"
    home.mkdir()
    server = start_server(HOME=str(home), XDG_DATA_HOME="", SCOPEFS_VAULT="")
    done = subprocess.run(
        ["curl", "-sS", "-w", "\n%{http_code}", "-X", "POST", f"{server.url}/v1/data/test.scope",
         "-H", "Content-Type: application/json", "-d", '{"hello":"world"}'],
        capture_output=True, check=True,
    )  # fmt: skip
    body, status = done.stdout.rsplit(b"\n", 1)
    assert status == b"201"
    receipt = msgspec.json.decode(body, type=Receipt)
    assert (receipt.scope, receipt.status) == ("test.scope", "stored")
    server.stop()
    vault = home / ".local" / "share" / "scopefs" / "vault"
    envelope = read_data_file(vault / "data", "test.scope", receipt.collected_at)
    assert envelope.data == b'{"hello":"world"}'
    assert [row[1] for row in find_rows(vault, "test.scope")] == [receipt.collected_at]


def test_verification_8_checkpoint(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """After Ctrl+C the database is whole without its write-ahead log, and all files are placed."""
    server = start_server("--vault", str(tmp_path / "vault"))
    response = server.post("test.scope", b'{"hello":"world"}')
    server.stop()
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "vault" / "index.db", tmp_path / "copy" / "index.db")
    collected_at = response.json()["collectedAt"]
    assert [row[1] for row in find_rows(tmp_path / "copy", "test.scope")] == [collected_at]
    assert list_versions(tmp_path / "vault" / "data", "test.scope") == [
        f"{timestamp_to_filename(collected_at)}.json"
    ]


def test_verification_8_open_request(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """Ctrl+C lets a request that is under way finish: 201, and the version is there."""
    vault = tmp_path / "vault"
    server = start_server("--vault", str(vault))
    body = object_of(1_000_000)
    with socket.create_connection(server.address, timeout=PATIENCE_S) as connection:
        head = "POST /v1/data/test.scope HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:500_000])
        wait_until(lambda: staged_files(vault) != [])
        server.interrupt()
        wait_until(lambda: not listens(server))
        connection.sendall(body[500_000:])
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 201")
    assert server.process.wait(PATIENCE_S) == 0
    assert len(list_versions(vault / "data", "test.scope")) == 1


def listens(server: Server) -> bool:
    """Whether the server takes new connections."""
    try:
        socket.create_connection(server.address, timeout=PATIENCE_S).close()
    except ConnectionError:
        return False
    return True
