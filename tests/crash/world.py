"""A vault, and all that it has promised: what each name shows, which versions there are.

A promise has spans: from which call on what may be found. While a deed is under way that is what
was and what will be; once it has returned, what is. A crash that drops what was not synced may go
back to the last deed that was durable, and no further.
"""

import hashlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from scopefs import Vault
from scopefs.model.stamps import parse_stamp
from scopefs.store import index, tree
from scopefs.store.sql import fetch
from tests.crash.disk import Crash

Key: TypeAlias = tuple[Any, ...]
"""`("name", scope, name)`, `("version", scope, stamp)`, `("kept", hash)`."""

Value: TypeAlias = Any
"""Of a name: what it shows, or None. Of a version: `live` or `trash` and its hash, or None.
Of bytes that are kept, be it as a version, a scratch file, or in partial/: True.
"""


Allowed: TypeAlias = frozenset[Value] | None
"""What may be found; None: whatever it is."""


@dataclass
class Promises:
    """What is promised, by call."""

    spans: dict[Key, list[tuple[int, Allowed]]] = field(default_factory=dict)
    durable: list[int] = field(default_factory=lambda: [0])

    def set(self, at: int, key: Key, allowed: Allowed) -> None:
        """From a call on, this may be found."""
        self.spans.setdefault(key, []).append((at, allowed))

    def now(self, key: Key) -> Allowed:
        """What may be found at the end."""
        found = self.spans.get(key)
        return found[-1][1] if found else frozenset({None})

    def forget_past(self) -> None:
        """What may be found at the end stays; no crash goes back from here."""
        self.spans = {key: spans[-1:] for key, spans in self.spans.items()}

    def allowed(self, key: Key, at: int, crash: Crash) -> Allowed:
        """What may be found behind a crash."""
        since = at
        if crash != "killed":
            since = max(position for position in self.durable if position <= at)
        spans = self.spans[key]
        allowed: frozenset[Value] = frozenset()
        if spans[0][0] > since:
            # It was not promised yet.
            return None
        for number, (begin, values) in enumerate(spans):
            end = spans[number + 1][0] if number + 1 < len(spans) else at + 1
            if begin <= at and end > since:
                if values is None:
                    return None
                allowed |= values
        return allowed


class World:
    """An open vault that deeds are done to."""

    def __init__(self, root: Path, position: Callable[[], int] = lambda: 0, seed: int = 0) -> None:
        self.root = root
        self.outside = root.parent.parent / "outside"
        """For what the deeds need and is no part of the vault."""
        self.position = position
        self.promises = Promises()
        self._source = random.Random(seed)
        self._count = 0
        self._clock_us = parse_stamp("2026-01-21T12-00-00Z")
        self.vault = self.open(create=True)

    def clock_us(self) -> int:
        """A clock that moves by a little at each look."""
        self._clock_us += 1000
        return self._clock_us

    def open(self, *, create: bool = False) -> Vault:
        """Open the vault. Whoever places does it by `settle`, at a known moment."""
        self.vault = Vault.open(self.root, create=create, clock_us=self.clock_us)
        self.vault._settling.stop()
        return self.vault

    def die(self) -> None:
        """End as a process does that is killed: locks go, nothing is written."""
        abandon(self.vault)

    def make(self, size: int, *, document: bool = False) -> bytes:
        """A payload that nobody else has."""
        self._count += 1
        head = b'{"n":%d,"x":"' % self._count if document else b"%d " % self._count
        tail = b'"}' if document else b""
        fill = self._source.randbytes((size - len(head) - len(tail)) // 2 + 1).hex().encode()
        return head + fill[: size - len(head) - len(tail)] + tail

    def new_name(self, ending: str = "") -> str:
        """A name that nothing has."""
        self._count += 1
        return f"f{self._count}{ending}"

    @contextmanager
    def changing(
        self, new: Mapping[Key, Value], *, durable: bool, between: frozenset[Value] = frozenset()
    ) -> Iterator[None]:
        """Around a deed that makes what it says true, or else leaves what was."""
        for key, value in new.items():
            before = self.promises.now(key)
            self._set(key, None if before is None else before | {value} | between)
        yield
        for key, value in new.items():
            self._set(key, frozenset({value}))
        if durable:
            self.note_durable()

    def owe(self, key: Key, value: Value) -> None:
        """This is so from now on."""
        self._set(key, frozenset({value}))

    def allow(self, key: Key, allowed: frozenset[Value]) -> None:
        """One of these is so from now on."""
        self._set(key, allowed)

    def forget(self, key: Key) -> None:
        """Nothing is promised about this any more."""
        if key in self.promises.spans:
            self._set(key, None)

    def note_durable(self) -> None:
        """All that was promised so far outlives a power cut."""
        self.promises.durable.append(self.position())

    def _set(self, key: Key, allowed: Allowed) -> None:
        self.promises.set(self.position(), key, allowed)

    def check(self) -> None:
        """Fail unless the open vault keeps its promises; what was left open is decided by it.

        But for what its recovery could not do yet: a name may still be missing then.
        """
        kept = read_kept(self.vault)
        is_decided = not self.vault._recovery.result.left
        for key in self.promises.spans:
            allowed = self.promises.now(key)
            if allowed is not None:
                found = read(self.vault, key, kept)
                if not is_decided and key[0] == "name" and found is None:
                    continue
                assert found in allowed, (key, _short(found), set(map(_short, allowed)))
                self._set(key, frozenset({found}))


def check_promises(vault: Vault, promises: Promises, at: int, crash: Crash) -> None:
    """Fail unless a vault that was opened after a crash keeps what was promised before."""
    kept = read_kept(vault)
    for key in promises.spans:
        allowed = promises.allowed(key, at, crash)
        if allowed is not None:
            found = read(vault, key, kept)
            assert found in allowed, (key, _short(found), set(map(_short, allowed)))


def read(vault: Vault, key: Key, kept: set[bytes]) -> Value:
    """What is found of what was promised."""
    if key[0] == "kept":
        return key[1] in kept or None
    return {"name": read_name, "version": read_version}[key[0]](vault, *key[1:])


def read_name(vault: Vault, scope: str, name: str) -> Value:
    """What a name shows: bytes, a symbolic link's target, `folder`; None if it is not there."""
    with vault.read() as db:
        node = tree.find_scope_node(db, scope)
        if node is None or not tree.is_reachable(db, node):
            return None
        entry = None
        for part in name.encode().split(b"/"):
            entry = tree.find_child(db, node, part)
            if entry is None:
                return None
            node = entry.node
        assert entry is not None
        if entry.kind.is_directory:
            return "folder"
        if entry.target is not None:
            return ("link", entry.target)
        version = index.find_by_id(db, entry.version) if entry.version is not None else None
    if version is not None:
        return vault.read_payload(version)
    if entry.is_scratch:
        reader = vault.open_scratch(entry.node)
        return reader.read(0, reader.size)
    return b""


def read_version(vault: Vault, scope: str, stamp: str) -> Value:
    """Where a version is, and the hash of the bytes that are read of it."""
    with vault.read() as db:
        rows = fetch(
            db,
            "SELECT id FROM data_files WHERE scope = ? AND collected_us = ?"
            " ORDER BY deleted_seq IS NOT NULL LIMIT 1",
            (scope, parse_stamp(stamp)),
        )
        version = index.find_by_id(db, rows[0][0]) if rows else None
    if version is None:
        return None
    digest = hashlib.sha256(vault.read_payload(version)).digest()
    return ("live" if version.deleted_seq is None else "trash"), digest


def read_kept(vault: Vault) -> set[bytes]:
    """The hashes of all bytes that the vault has: versions, scratch files, interrupted writes."""
    with vault.read() as db:
        found = {bytes(row[0]) for row in fetch(
            db, "SELECT payload_sha256 FROM data_files UNION SELECT sha256 FROM scratch"
                " UNION SELECT sha256 FROM staged WHERE sha256 IS NOT NULL",
        )}  # fmt: skip
    return found | {
        hashlib.sha256(path.read_bytes()).digest() for path in vault.layout.partial.glob("*.bin")
    }


def abandon(vault: Vault) -> None:
    """Let go of a vault as a killed process does. Its locks can be taken from now on."""
    vault._settling.stop()
    vault._closed = True
    vault._journal.close()
    vault._readers.close()
    vault._settler.close()
    os.close(vault._owner._lock)
    os.close(vault._lock)


def digest(content: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(content).digest()


def _short(value: Value) -> Value:
    return (len(value), value[:20]) if isinstance(value, bytes) else value
