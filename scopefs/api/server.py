"""Serving the HTTP door with hypercorn, in somebody's nursery."""

import ipaddress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import hypercorn.config
import hypercorn.trio
import trio

from scopefs.api.routes import build_app
from scopefs.errors import InvalidQuery
from scopefs.vault import Vault

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


async def serve_http(
    vault: Vault, address: HttpAddress, stop: trio.Event, *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    """Serve until `stop` is set; open requests are finished. Reports the bound address."""
    config = hypercorn.config.Config()
    config.bind = [str(address)]
    config.graceful_timeout = GRACE_S
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(
            partial(
                hypercorn.trio.serve, cast(Any, build_app(vault)), config,
                shutdown_trigger=stop.wait, mode="asgi",
            )
        )  # fmt: skip
        task_status.started(bound[0])
