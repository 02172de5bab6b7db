"""Events: one numbered row for everything that ever changed, and the lines that say so in text.

A line of `events/<UTC day>.jsonl` is::

    {"seq":7,"at":"2026-01-21T10:00:00.000123Z","prev":"<sha256 hex>","op":"version",...}

`prev` is the SHA-256 of the line before, without its newline, so that the lines are a chain: who
changes or removes one breaks every line behind it. Members after `prev` depend on `op`;
docs/format.md lists them. Sequence numbers have no gaps; `at` grows strictly.
"""

import hashlib
from typing import Any

import msgspec

from scopefs.model.stamps import format_collected_at

FIRST_HASH = bytes(32)
"""What the first event names as its predecessor."""


def encode_detail(op: str, members: dict[str, Any]) -> str:
    """The members of an event behind `prev`, as they stand in its line."""
    text = msgspec.json.encode({"op": op, **members}).decode()
    return text[1:-1]


def decode_detail(detail: str) -> dict[str, Any]:
    """The members of an event behind `prev`."""
    members: dict[str, Any] = msgspec.json.decode(f"{{{detail}}}")
    return members


def encode_event_line(seq: int, at_us: int, previous_hash: bytes, detail: str) -> bytes:
    """The exact line of an event, without its newline."""
    at = format_collected_at(at_us)
    return f'{{"seq":{seq},"at":"{at}","prev":"{previous_hash.hex()}",{detail}}}'.encode()


def hash_event_line(line: bytes) -> bytes:
    """The hash that the next event names as `prev`."""
    return hashlib.sha256(line).digest()


def next_at_us(now_us: int, last_at_us: int, collected_us: int = 0) -> int:
    """The time of the next event: strictly after the last one, not before its version's."""
    return max(now_us, last_at_us + 1, collected_us)
