"""Serving the HTTP door with hypercorn, in somebody's nursery."""

import ipaddress
import os
import resource
import socket
import stat
from dataclasses import dataclass, replace
from pathlib import Path

import trio
from hypercorn.config import Config

from scopefs.api.connections import serve_connections
from scopefs.api.context import HttpOptions
from scopefs.api.routes import build_app
from scopefs.errors import InvalidQuery, Unavailable
from scopefs.model.stamps import format_collected_at
from scopefs.store.tokens import ensure_default_token, load_tokens
from scopefs.vault import Vault

BACKLOG = 1024
GRACE_S = 10.0
"""How long open requests may take to finish once the server is told to stop."""

IDLE_S = 15.0
"""How long a connection may stay open without a request, or with half of a request's head.

Not longer: hypercorn keeps the descriptor of a connection that its client has closed for as long.
"""

UNREAD_S = 30
"""How long a client may leave an answer unread before its connection is given up."""

HEAD_MAX_BYTES = 32_768
_REQUESTS_PER_CONNECTION = 1_000_000
_FILES = 16_384
_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where to listen: at a host's port, or at the path of a Unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> HttpAddress:
    """Parse `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`. Raises `InvalidQuery`."""
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/"):
            raise InvalidQuery(f"{text!r} is no address: write it like unix:/run/user/1000/vault")
        return HttpAddress("", 0, path)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise InvalidQuery(f"{text!r} is no address: write it like 127.0.0.1:8080")
    return HttpAddress(host, int(port))


def is_loopback(address: HttpAddress) -> bool:
    """Whether only programs on this machine can reach the address."""
    if address.path or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def open_listener(address: HttpAddress) -> socket.socket:
    """A socket that listens at the address. Raises `Unavailable` if that cannot be had."""
    try:
        if address.path:
            return _open_unix_listener(address.path)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listener = socket.create_server(
            (address.host, address.port), family=family, backlog=BACKLOG
        )
        # Connections have it from their listener. Without it somebody who reads nothing could
        # keep a server from ending, for hypercorn does not let go of what it has begun to send.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise Unavailable(f"nobody can listen on {address}: {error.strerror or error}") from error


def _open_unix_listener(path: str) -> socket.socket:
    """A Unix socket for its user alone; one that nobody listens at any more is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead_socket(path)
        old = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(old)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_dead_socket(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)


def show_listener(listener: socket.socket) -> str:
    """The URL at which a listener is reached."""
    if listener.family == socket.AF_UNIX:
        return f"{_UNIX}{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://{HttpAddress(host, port)}"


def ensure_token(vault: Vault, options: HttpOptions) -> None:
    """Make the token that is asked for, if there is none. Raises `Unavailable` if it cannot be."""
    if not options.needs_token:
        return
    if not vault.is_read_only:
        ensure_default_token(vault.layout, format_collected_at(vault.clock_us()))
    elif not load_tokens(vault.layout):
        raise Unavailable(
            f"{vault.layout.root} has no token, and none can be made where it is only read: "
            "`scopefs token show` makes one where it can be written"
        )


async def serve_http(
    vault: Vault, listener: socket.socket, stop: trio.Event, options: HttpOptions | None = None, *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    """Serve until `stop` is set; open requests are finished, streams end."""
    options = replace(options or HttpOptions(), is_unix=listener.family == socket.AF_UNIX)
    ensure_token(vault, options)
    _raise_file_limit()
    path = listener.getsockname() if options.is_unix else None
    config = Config()
    config.graceful_timeout = GRACE_S
    config.keep_alive_timeout = IDLE_S
    config.keep_alive_max_requests = _REQUESTS_PER_CONNECTION
    config.h11_max_incomplete_size = HEAD_MAX_BYTES
    config.include_server_header = False
    config.errorlog = None
    try:
        # Given away, so that whoever comes after the stop is refused at once.
        given = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        app = build_app(vault, options, stop)
        await serve_connections(app, config, given, stop, task_status=task_status)
    finally:
        if path is not None:
            Path(path).unlink(missing_ok=True)


def _raise_file_limit() -> None:
    """A thousand idle connections are a thousand descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
