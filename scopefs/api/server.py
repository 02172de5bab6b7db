"""Serving the HTTP door with hypercorn, in somebody's nursery."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any, cast

import hypercorn.config
import hypercorn.trio
import trio

from scopefs.api.routes import build_app
from scopefs.errors import InvalidQuery, Unavailable
from scopefs.vault import Vault

BACKLOG = 100
GRACE_S = 10.0
"""How long open requests may take to finish once the server is told to stop."""


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> HttpAddress:
    """Parse `HOST:PORT` or `[IPV6]:PORT`. Raises `InvalidQuery`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise InvalidQuery(f"{text!r} is no address: write it like 127.0.0.1:8080")
    return HttpAddress(host, int(port))


def is_loopback(address: HttpAddress) -> bool:
    """Whether only programs on this machine can reach the address."""
    if address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def open_listener(address: HttpAddress) -> socket.socket:
    """A socket that listens at the address. Raises `Unavailable` if that cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Unavailable(f"nobody can listen on {address}: {error.strerror}") from error


def show_listener(listener: socket.socket) -> str:
    """The URL at which a listener is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://{HttpAddress(host, port)}"


async def serve_http(
    vault: Vault, listener: socket.socket, stop: trio.Event, *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    """Serve until `stop` is set; open requests are finished."""
    config = hypercorn.config.Config()
    # Given away, so that whoever comes after the stop is refused at once.
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = GRACE_S
    config.errorlog = None
    await hypercorn.trio.serve(
        cast(Any, build_app(vault)), config, shutdown_trigger=stop.wait, mode="asgi",
        task_status=cast(Any, task_status),
    )  # fmt: skip
