"""Events: one numbered row for everything that ever changed, and the lines that say so in text.

A line of `events/<UTC day>.jsonl` is::

    {"seq":7,"at":"2026-01-21T10:00:00.000123Z","prev":"<sha256 hex>","op":"version",...}

`prev` is the SHA-256 of the line before, without its newline, so that the lines are a chain: who
changes or removes one breaks every line behind it. Members after `prev` depend on `op`;
docs/format.md lists them. Sequence numbers have no gaps; `at` grows strictly.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from scopefs.errors import IndexBroken, InvalidTime
from scopefs.model.stamps import format_collected_at, parse_collected_at

FIRST_HASH = bytes(32)
"""What the first event names as its predecessor."""

LOST = "lost"
"""The word of a row that stands for an event which a rebuild has found nowhere; it has no line."""

_LINE = re.compile(rb'\{"seq":(\d{1,18}),"at":"([^"]+)","prev":"([0-9a-f]{64})",(.*)\}', re.DOTALL)


@dataclass(frozen=True, slots=True)
class EventLine:
    """A line of events/, taken apart."""

    seq: int
    at_us: int
    previous_hash: bytes
    detail: str


def encode_detail(op: str, members: dict[str, Any]) -> str:
    """The members of an event behind `prev`, as they stand in its line."""
    text = msgspec.json.encode({"op": op, **members}).decode()
    return text[1:-1]


def decode_detail(detail: str) -> dict[str, Any]:
    """The members of an event behind `prev`. Raises `IndexBroken`."""
    try:
        members: dict[str, Any] = msgspec.json.decode(f"{{{detail}}}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise IndexBroken(f"an event in index.db is damaged: {error}") from error
    return members


def encode_event_line(seq: int, at_us: int, previous_hash: bytes, detail: str) -> bytes:
    """The exact line of an event, without its newline."""
    at = format_collected_at(at_us)
    return f'{{"seq":{seq},"at":"{at}","prev":"{previous_hash.hex()}",{detail}}}'.encode()


def parse_event_line(line: bytes) -> EventLine | None:
    """Take a line apart; None if it is none that scopefs has written."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    try:
        found = EventLine(
            int(match[1]), parse_collected_at(match[2].decode()), bytes.fromhex(match[3].decode()),
            match[4].decode(),
        )  # fmt: skip
        members = decode_detail(found.detail)
    except (InvalidTime, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    is_ours = isinstance(members.get("op"), str)
    return (
        found
        if is_ours
        and line == encode_event_line(found.seq, found.at_us, found.previous_hash, found.detail)
        else None
    )


def hash_event_line(line: bytes) -> bytes:
    """The hash that the next event names as `prev`."""
    return hashlib.sha256(line).digest()


def next_at_us(now_us: int, last_at_us: int, collected_us: int = 0) -> int:
    """The time of the next event: strictly after the last one, not before its version's."""
    return max(now_us, last_at_us + 1, collected_us)
