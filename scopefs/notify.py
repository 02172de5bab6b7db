"""Telling systemd how it goes: the sd_notify protocol is one datagram."""

import os
import socket


def notify(*lines: str) -> None:
    """Send `READY=1`, `STATUS=...` and the like; nothing happens where nobody asked for it."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto("\n".join(lines).encode(), address)
