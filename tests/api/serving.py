"""Real servers for tests: `scopefs serve` in a process of its own, started and ended by its id."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from scopefs.store.layout import Layout
from scopefs.store.tokens import Right, add_token, ensure_default_token
from tests.mounting import PATIENCE_S

JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


class Served:
    """A server over a vault. `client` asks it with the default token."""

    def __init__(self, vault: Path, *options: str, http: str = "127.0.0.1:0") -> None:
        self.vault = vault
        self.log_path = vault.parent / f"{vault.name}.{id(self)}.log"
        with self.log_path.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scopefs", "serve", "--vault", str(vault), "--http", http,
                 *options],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        found = re.fullmatch(r"listening on (http://[\d.]+:\d+|unix:.+)\n", line)
        if found is None:
            self.end()
            raise AssertionError(f"the server said {line!r}:\n{self.log}")
        self.bound = found[1]
        self.is_unix = self.bound.startswith("unix:")
        self.url = "http://localhost" if self.is_unix else self.bound
        self.token = ensure_default_token(Layout(vault), "")
        self._clients: list[httpx.Client] = []
        self.client = self.make_client(self.token)

    @property
    def log(self) -> str:
        """What the server has logged."""
        return self.log_path.read_text()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def make_client(self, token: str | None, **options: Any) -> httpx.Client:
        """A client with a token, or without one."""
        path = self.bound.removeprefix("unix:") if self.is_unix else None
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        transport = httpx.HTTPTransport(uds=path)
        client = httpx.Client(
            base_url=self.url, headers=headers, timeout=PATIENCE_S, transport=transport, **options
        )
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        """Close what connections there are."""
        for client in self._clients:
            client.close()

    def make_token(self, name: str, rights: str, *scopes: str) -> httpx.Client:
        """A client with a token of its own."""
        granted = [Right(right) for right in rights.split(",")]
        return self.make_client(add_token(Layout(self.vault), name, granted, scopes, ""))

    def post(self, scope: str, body: bytes, **headers: str) -> httpx.Response:
        """POST a JSON object, or with a content type whatever it is."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(f"/v1/data/{scope}", content=body, headers={**JSON, **named})

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(self.address, timeout=PATIENCE_S)

    def head(self, method: str, path: str, *lines: str) -> bytes:
        """The head of a request, to be sent by hand."""
        fields = (f"{method} {path} HTTP/1.1", "Host: localhost",
                  f"Authorization: Bearer {self.token}", *lines)  # fmt: skip
        return "".join(f"{field}\r\n" for field in fields).encode() + b"\r\n"

    def stop(self) -> None:
        """Ctrl+C, and check that it ends as it should and complained of nothing."""
        self.process.send_signal(signal.SIGINT)
        assert (self.process.wait(PATIENCE_S), self.log) == (0, "")
        self.close_clients()

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "client"):
            self.close_clients()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which must have the one shape of errors."""
    body = response.json()
    assert list(body) == ["error", "message", "details"]
    assert isinstance(body["message"], str)
    assert body["message"]
    assert isinstance(body["details"], dict)
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error"]


def read_answer(connection: socket.socket) -> bytes:
    """All that a connection says until it is closed."""
    pieces = []
    try:
        while piece := connection.recv(65_536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def read_reply(connection: socket.socket) -> bytes:
    """One answer, whole, of a connection that may go on."""
    reply = b""
    while b"\r\n\r\n" not in reply:
        piece = connection.recv(65_536)
        assert piece, reply
        reply += piece
    found = re.search(rb"\r\ncontent-length: (\d+)\r\n", reply)
    size = reply.index(b"\r\n\r\n") + 4 + (int(found[1]) if found else 0)
    while len(reply) < size:
        piece = connection.recv(size - len(reply))
        assert piece, reply
        reply += piece
    return reply


def list_staged(vault: Path) -> list[Path]:
    """What lies in staging/ with anything in it."""
    found = []
    for path in (vault / "staging").rglob("*"):
        # The server may remove it meanwhile.
        with suppress(FileNotFoundError):
            state = path.stat()
            if stat.S_ISREG(state.st_mode) and state.st_size:
                found.append(path)
    return found


def read_status_kib(pid: int, field: str = "VmRSS") -> int:
    """A line of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def count_files(pid: int) -> int:
    """How many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))
