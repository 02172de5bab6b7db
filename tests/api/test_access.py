"""Who may do what, and from where; errors; order of checks."""

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from scopefs import Vault
from scopefs.api.access import Origins
from scopefs.api.routes import OPERATIONS
from scopefs.errors import Forbidden, InvalidScope
from scopefs.store.layout import Layout
from scopefs.store.tokens import Right, check_pattern, load_tokens, revoke_token
from tests.api.serving import JSON, Served, error_of, read_answer
from tests.mounting import run_scopefs
from tests.store.inspection import expect_none, find_problems, run_python_until_it_dies

PATHS = [
    (operation.method, operation.path.replace("{scope}", "my.scope").replace("{name}", "n"))
    for operation in OPERATIONS
]


@pytest.mark.parametrize(("method", "path"), [*PATHS, ("GET", "/openapi.json"), ("GET", "/none")])
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic {token}", "{token}"])
def test_a_token_is_needed(served: Served, method: str, path: str, header: str | None) -> None:
    """All but /health answer 401 to somebody unknown, unknown routes included."""
    headers = {} if header is None else {"Authorization": header.format(token=served.token)}
    with served.make_client(None) as client:
        response = client.request(method, path, headers=headers)
    if path == "/health":
        assert response.status_code == 200
    else:
        assert error_of(response) == (401, "MISSING_AUTH")
        assert response.headers["www-authenticate"] == "Bearer"


def test_a_vault_is_made_with_its_default_token(tmp_path: Path) -> None:
    """Once: opening it again changes nothing, and makes no token that was revoked."""
    Vault.open(tmp_path / "vault", create=True).close()
    layout = Layout(tmp_path / "vault")
    (token,) = load_tokens(layout)
    assert token.name == "default"
    assert stat.S_IMODE(layout.tokens.stat().st_mode) == 0o600
    Vault.open(tmp_path / "vault", create=True).close()
    assert load_tokens(layout) == (token,)
    revoke_token(layout, "default")
    Vault.open(tmp_path / "vault", create=True).close()
    assert load_tokens(layout) == ()


_KILLED = """
import os, signal, sys
from scopefs import Vault
from scopefs.store import tokens
tokens.write_temporary = lambda path, content: (
    path.write_bytes(content[:9]), os.kill(os.getpid(), signal.SIGKILL))
Vault.open(sys.argv[1], create=True)
"""


def test_regression_rest_of_a_cut_making_is_no_stranger(tmp_path: Path) -> None:
    """Verification knows what a kill in the making of a token has left; the next one removes it."""
    root = tmp_path / "vault"
    run_python_until_it_dies(_KILLED, root)
    (rest,) = root.glob(".tokens*")
    with Vault.open(root) as vault:
        expect_none(find_problems(vault))
    run_scopefs("token", "show", vault=root)
    assert not rest.exists()


def test_the_default_token_is_its_owners(served: Served) -> None:
    """tokens.json is 0600, and says the default token; of others it keeps the hash alone."""
    path = Layout(served.vault).tokens
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    made = run_scopefs("token", "add", "kept", vault=served.vault).stdout.decode().strip()
    text = path.read_text()
    assert served.token in text
    assert made not in text
    assert run_scopefs("token", "show", vault=served.vault).stdout.decode().strip() == served.token
    with served.make_client(made) as client:
        assert client.get("/v1/data").status_code == 200


def test_rights(served: Served) -> None:
    """A reader cannot write, a writer cannot read."""
    reader = served.make_token("reader", "read", "*")
    writer = served.make_token("writer", "write", "*")
    path = "/v1/data/rights.scope"
    assert error_of(reader.post(path, content=b"{}")) == (403, "FORBIDDEN")
    assert error_of(reader.delete(path)) == (403, "FORBIDDEN")
    assert error_of(reader.put(f"{path}/names/n", content=b"x")) == (403, "FORBIDDEN")
    assert writer.post(path, content=b"{}").status_code == 201
    assert error_of(writer.get(path)) == (403, "FORBIDDEN")
    assert error_of(writer.get("/v1/data")) == (403, "FORBIDDEN")
    assert reader.get(path).status_code == 200


def test_scopes(served: Served) -> None:
    """A token is for its scopes alone: others are refused, and not even listed."""
    for scope in ("phone.calls", "phone.calls.missed", "phones.x", "diary.text", "diary.text.sub"):
        assert served.post(scope, b"{}").status_code == 201
    phone = served.make_token("phone", "read,write", "phone.*", "diary.text")
    statuses = {
        scope: phone.get(f"/v1/data/{scope}").status_code
        for scope in ("phone.calls", "phone.calls.missed", "phones.x", "diary.text",
                      "diary.text.sub", "no.such")
    }  # fmt: skip
    assert statuses == {"phone.calls": 200, "phone.calls.missed": 200, "phones.x": 403,
                        "diary.text": 200, "diary.text.sub": 403, "no.such": 403}  # fmt: skip
    page = phone.get("/v1/data").json()
    assert [item["scope"] for item in page["scopes"]] == [
        "diary.text", "phone.calls", "phone.calls.missed",
    ]  # fmt: skip
    assert page["total"] == 3
    assert phone.get("/v1/data?scopePrefix=phones").json()["total"] == 0
    for path in ("/v1/access-logs", "/metrics"):
        assert error_of(phone.get(path)) == (403, "FORBIDDEN")
    assert error_of(phone.post("/v1/data/phones.x", content=b"{}")) == (403, "FORBIDDEN")


def test_a_revoked_token_is_refused_at_once(served: Served) -> None:
    """Revocation needs no restart."""
    client = served.make_token("lost", "read", "*")
    assert client.get("/v1/data").status_code == 200
    run_scopefs("token", "revoke", "lost", vault=served.vault)
    assert error_of(client.get("/v1/data")) == (401, "MISSING_AUTH")


def test_the_token_command(tmp_path: Path) -> None:
    """show, add, list, revoke; what cannot be is refused."""
    vault = tmp_path / "vault"
    assert run_scopefs("token", "show", vault=vault, check=False).returncode == 7
    run_scopefs("put", "a.b", "-", vault=vault, input=b"x")
    default = json.loads(run_scopefs("token", "show", "--json", vault=vault).stdout)
    assert default["name"] == "default"
    run_scopefs("token", "add", "phone", "--rights", "write", "--scope", "phone.*", vault=vault)
    listed = json.loads(run_scopefs("token", "list", "--json", vault=vault).stdout)
    assert [(item["name"], item["rights"], item["scopes"]) for item in listed] == [
        ("default", ["read", "write"], ["*"]), ("phone", ["write"], ["phone.*"]),
    ]  # fmt: skip
    assert b"phone    write       phone.*" in run_scopefs("token", "list", vault=vault).stdout
    codes = [
        run_scopefs("token", *arguments, vault=vault, check=False).returncode
        for arguments in (
            ("add", "phone"), ("add", "default"), ("add", ""), ("add", "x", "--scope", "Phone.*"),
            ("add", "x", "--scope", "a.b.c.*"), ("revoke", "nobody"), ("revoke", "default"),
        )
    ]  # fmt: skip
    assert codes == [5, 5, 2, 2, 2, 4, 0]
    again = json.loads(run_scopefs("token", "show", "--json", vault=vault).stdout)
    assert again["token"] != default["token"]
    revoke_token(Layout(vault), "phone")
    assert [token.name for token in load_tokens(Layout(vault))] == ["default"]
    assert load_tokens(Layout(vault))[0].rights == (Right.READ, Right.WRITE)


@pytest.mark.parametrize("pattern", ["", "*.a", "a", "a.**", "a*", "A.*", "a.b.c.d", "**"])
def test_patterns_that_are_none(pattern: str) -> None:
    """Only `*`, a scope, and the beginning of one with `.*`."""
    with pytest.raises(InvalidScope):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [("127.0.0.1:8080", True), ("localhost", True), ("LOCALHOST:1", True), ("[::1]:80", True),
     ("192.168.1.7", True), ("vault.home:80", True), ("evil.example", False), ("", False),
     ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("[::1", True)],
)  # fmt: skip
def test_hosts(host: str, is_ours: bool) -> None:
    """An address and localhost cannot be rebound; other names must be configured."""
    origins = Origins(frozenset({"vault.home"}), frozenset())
    if is_ours:
        origins.check_host(host)
    else:
        with pytest.raises(Forbidden):
            origins.check_host(host)


@pytest.mark.parametrize("path", ["/health", "/v1/data", "/none"])
def test_foreign_hosts_and_origins_are_refused(served: Served, path: str) -> None:
    """A name that was rebound, and a page from elsewhere, get 403 with the token too."""
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"},
                    {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": ""},
                    {"Origin": "http://[::1"}):  # fmt: skip
        response = served.client.get(path, headers=headers)
        assert error_of(response) == (403, "FORBIDDEN")
        assert "access-control-allow-origin" not in response.headers
    host = httpx.URL(served.url).netloc.decode()
    assert served.client.get("/health", headers={"Origin": f"http://{host}"}).status_code == 200
    assert served.client.options("/v1/data", headers={"Origin": "http://x.y"}).status_code == 403


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [("http://localhost/v1/data", "x.y", b"200"), ("HTTP://127.0.0.1:1/v1/data", "x.y", b"200"),
     ("http://localhost", "localhost", b"404"), ("*", "localhost", b"404"),
     ("http://evil.example/v1/data", "localhost", b"403"), ("http:///v1", "localhost", b"403"),
     ("http://localhost/v1/data?limit=0", "localhost", b"400"),
     ("localhost:80", "localhost", b"404")],
)  # fmt: skip
def test_targets_of_other_forms(served: Served, target: str, host: str, status: bytes) -> None:
    """What a proxy would send: the host that the target names is the one that counts."""
    with served.connect() as connection:
        head = served.head("GET", target, "Connection: close")
        connection.sendall(head.replace(b"Host: localhost", b"Host: %b" % host.encode()))
        assert read_answer(connection).startswith(b"HTTP/1.1 " + status)


def test_cors_where_configured(serve: Callable[..., Served], tmp_path: Path) -> None:
    """A page that config.toml names may ask; and a host that it names may be asked for."""
    run_scopefs("put", "a.b", "-", vault=tmp_path / "vault", input=b"{}")
    (tmp_path / "vault" / "config.toml").write_text(
        '[http]\nhosts = ["vault.home"]\norigins = ["https://app.home"]\n'
    )
    server = serve()
    origin = {"Origin": "https://app.home"}
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-filename",
    }
    with server.make_client(None) as unknown:
        preflight = unknown.options("/v1/data/a.b", headers={**origin, **asked})
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://app.home"
        assert preflight.headers["access-control-allow-headers"] == "x-filename"
        refused = unknown.get("/v1/data/a.b", headers=origin)
        assert error_of(refused) == (401, "MISSING_AUTH")
    answer = server.client.get("/v1/data/a.b", headers={**origin, "Host": "vault.home"})
    assert answer.headers["access-control-allow-origin"] == "https://app.home"
    assert answer.headers["vary"] == "origin"
    server.stop()


def test_checks_run_in_their_order(served: Served) -> None:
    """Credential, scope, size, body: the first that fails is what is answered."""
    reader = served.make_token("order", "read", "*")
    big = ("Content-Length: 52428801",)

    def ask(head: bytes) -> bytes:
        with served.connect() as connection:
            connection.sendall(head)
            return read_answer(connection)

    unknown = served.head("POST", "/v1/data/Bad", *big).replace(served.token.encode(), b"wrong")
    assert b"MISSING_AUTH" in ask(unknown)
    assert b"MISSING_AUTH" in ask(unknown.replace(b"/Bad", b"/%zz"))
    assert b"INVALID_SCOPE" in ask(served.head("POST", "/v1/data/Bad", *big))
    assert b"CONTENT_TOO_LARGE" in ask(served.head("POST", "/v1/data/a.b", *big))
    assert error_of(reader.post("/v1/data/Bad", content=b"x")) == (403, "FORBIDDEN")
    assert error_of(reader.post("/v1/data/a.b", content=b"x")) == (403, "FORBIDDEN")
    assert error_of(served.post("a.b", b"x")) == (400, "INVALID_BODY")


def test_unknown_routes_and_methods(served: Served) -> None:
    """404; 405 with Allow; malformed escapes 400."""
    for path in ("/", "/v1", "/v1/data/", "/v1/data/a.b/", "/v1/data/a.b/c", "/v1/nothing"):
        assert error_of(served.client.get(path))[0] in (400, 404), path
    assert error_of(served.client.get("/v1/nothing")) == (404, "NOT_FOUND")
    response = served.client.put("/v1/data/a.b")
    assert error_of(response) == (405, "METHOD_NOT_ALLOWED")
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "DELETE"}
    for path in ("/v1/data/a%zz", "/v1/data?scopePrefix=%", "/v1/data/a.b/names/%4"):
        with served.connect() as connection:
            connection.sendall(served.head("GET", path, "Connection: close"))
            assert b"400 \r\n" in read_answer(connection).replace(b"400 Bad Request", b"400 ")
    assert error_of(served.client.get("/v1/data?scopePrefix=%FF")) == (400, "INVALID_QUERY")
    assert error_of(served.client.get("/v1/data?unknown=1")) == (400, "INVALID_QUERY")
    assert error_of(served.client.get("/v1/data?limit=1&limit=2")) == (400, "INVALID_QUERY")


@pytest.mark.parametrize("path", sorted({operation.path for operation in OPERATIONS}))
def test_every_other_method_is_refused(served: Served, path: str) -> None:
    """405, with Allow naming exactly what the table has, for methods of all kinds."""
    allowed = {operation.method for operation in OPERATIONS if operation.path == path}
    if "GET" in allowed:
        allowed.add("HEAD")
    asked = path.replace("{scope}", "not.allowed").replace("{name}", "n")
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} - allowed:
        response = served.client.request(method, asked)
        assert error_of(response) == (405, "METHOD_NOT_ALLOWED"), method
        assert set(response.headers["allow"].split(", ")) == allowed


def test_without_tokens_on_the_loopback(serve: Callable[..., Served], tmp_path: Path) -> None:
    """`--http-auth none` asks nobody, but hosts and origins are looked at all the same."""
    server = serve("--http-auth", "none")
    with server.make_client(None) as client:
        assert client.post("/v1/data/a.b", content=b"{}").status_code == 201
        assert error_of(client.get("/v1/data", headers={"Host": "evil.example"}))[0] == 403
        assert error_of(client.get("/v1/data", headers={"Origin": "http://evil.example"}))[0] == 403
    server.stop()


def test_a_unix_socket(serve: Callable[..., Served], tmp_path: Path) -> None:
    """A Unix socket is its user's alone, replaces a dead one, and goes with the server."""
    path = tmp_path / "door"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = serve(http=f"unix:{path}")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert server.post("a.b", b'{"n":1}').status_code == 201
    assert server.client.get("/v1/data/a.b", headers={"Host": "anything"}).json()["data"] == {
        "n": 1
    }
    taken = run_scopefs("serve", "--http", f"unix:{path}", vault=tmp_path / "vault", check=False)
    assert taken.returncode == 7
    server.stop()
    assert not path.exists()


def test_errors_say_nothing_of_the_inside(serve: Callable[..., Served], tmp_path: Path) -> None:
    """Something unexpected is a 500 whose reason is in the log alone."""
    server = serve()
    server.post("a.b", b"x" * 100_000, Content_Type="text/plain")
    run_scopefs("settle", vault=server.vault)
    blob = next(path for path in (server.vault / "blobs").rglob("*") if path.is_file())
    content = bytearray(blob.read_bytes())
    content[5] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(content)
    for path in ("/v1/data/a.b", "/v1/data/a.b?content=raw"):
        assert error_of(server.client.get(path)) == (500, "BLOB_CORRUPT")
    blob.unlink()
    assert error_of(server.client.get("/v1/data/a.b?content=raw")) == (500, "BLOB_MISSING")
    (server.vault / "vault.json").rename(tmp_path / "away")
    assert error_of(server.client.get("/health")) == (503, "UNAVAILABLE")
    (tmp_path / "away").rename(server.vault / "vault.json")
    health = server.client.get("/health").json()
    assert list(health) == ["status", "version", "uptime", "vault"]
    tokens = Layout(server.vault).tokens
    tokens.write_text("{")
    assert error_of(server.client.get("/v1/data")) == (503, "UNAVAILABLE")


def test_a_vault_that_was_moved_away(serve: Callable[..., Served], tmp_path: Path) -> None:
    """503 from every route, health too, whatever token is sent; once it is back, all is well."""
    server = serve()
    server.post("a.b", b"{}")
    server.vault.rename(tmp_path / "away")
    for method, path in PATHS:
        response = server.client.request(method, path)
        assert error_of(response) == (503, "UNAVAILABLE"), path
    (tmp_path / "away").rename(server.vault)
    assert server.client.get("/health").status_code == 200
    assert server.post("a.b", b"{}").status_code == 201
    server.stop()


def test_json_answers_have_json_headers(served: Served) -> None:
    """Every answer is nosniff."""
    for path in ("/health", "/v1/data", "/none", "/openapi.json"):
        assert served.client.get(path).headers["x-content-type-options"] == "nosniff"
    assert served.client.post("/v1/data/x.y", content=b"{}", headers=JSON).headers[
        "content-type"
    ] == "application/json"  # fmt: skip
