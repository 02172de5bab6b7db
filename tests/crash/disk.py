"""A model of a disk: what a crash leaves of the calls that were made to it.

A file has its content, and what of it a sync has covered; a directory has its names, and which of
them a sync has covered. fsync of a file covers its content alone, fsync of a directory its names
alone, syncfs everything. A rename happens in both of its directories or in neither. That is less
than file systems do, and all that one may count on. What was not synced and is there all the same
("mixed") are some of the writes, whole or torn, and the changes of names up to some moment: file
systems keep a journal of these.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Op: TypeAlias = tuple[Any, ...]
"""A call: its name, then numbers of files and directories, names, offsets and bytes."""

Crash: TypeAlias = Literal["killed", "dropped", "mixed"]
"""What is there afterwards: all that was done; what was synced; that, and some of the rest."""

ROOT = 0
SECTOR_BYTES = 512


@dataclass
class File:
    """Bytes. `pending`: what was done since the last sync, a write or (None, size)."""

    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[tuple[int, bytes] | tuple[None, int]] = field(default_factory=list)

    def sync(self) -> None:
        """Cover all that was written."""
        if self.pending:
            self.synced = bytes(self.content)
            self.pending = []

    def after(self, crash: Crash, source: random.Random) -> bytes:
        """What is left of it."""
        if crash == "killed":
            return bytes(self.content)
        if crash == "dropped" or not self.pending:
            return self.synced
        found = bytearray(self.synced)
        for offset, data in self.pending:
            fate = source.random()
            if fate < 0.4:
                continue
            if offset is None:
                _resize(found, data)
            elif fate < 0.5:
                torn = source.randrange(0, len(data) + 1, SECTOR_BYTES)
                _write(found, offset, data[:torn])
            else:
                _write(found, offset, data)
        return bytes(found)


@dataclass(frozen=True)
class Change:
    """A name was made (a number) or ended (None). `other`: the directory in which the same rename
    did the other half.
    """

    at: int
    name: str
    number: int | None
    other: int | None = None


@dataclass
class Directory:
    """Names. `pending`: what was done since the last sync."""

    names: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def note(self, change: Change) -> None:
        """Make a name, or end it."""
        _set(self.names, change)
        self.pending.append(change)

    def covered(self, until: int) -> dict[str, int]:
        """The names as they are if all is covered that was done up to a moment."""
        found = dict(self.synced)
        for change in self.pending:
            if change.at <= until:
                _set(found, change)
        return found


class Disk:
    """All files and directories below one that is there for good."""

    def __init__(self) -> None:
        self._things: dict[int, File | Directory] = {ROOT: Directory()}
        self._changes = 0

    def find(self, parts: tuple[str, ...]) -> int | None:
        """The number of what a path leads to."""
        number: int | None = ROOT
        for part in parts:
            thing = self._things[number] if number is not None else None
            number = thing.names.get(part) if isinstance(thing, Directory) else None
        return number

    def next_number(self) -> int:
        """A number for something new."""
        return len(self._things)

    def apply(self, op: Op) -> None:
        """Do what a call does."""
        getattr(self, f"_{op[0]}")(*op[1:])

    def _create(self, directory: int, name: str, number: int) -> None:
        self._things[number] = File()
        self._link(number, directory, name)

    def _mkdir(self, directory: int, name: str, number: int) -> None:
        self._things[number] = Directory()
        self._link(number, directory, name)

    def _link(self, number: int, directory: int, name: str) -> None:
        self._changes += 1
        self._directory(directory).note(Change(self._changes, name, number))

    def _unlink(self, directory: int, name: str) -> None:
        self._changes += 1
        self._directory(directory).note(Change(self._changes, name, None))

    def _rename(self, directory: int, name: str, new_directory: int, new_name: str) -> None:
        self._changes += 1
        number = self._directory(directory).names[name]
        self._directory(directory).note(Change(self._changes, name, None, new_directory))
        self._directory(new_directory).note(Change(self._changes, new_name, number, directory))

    def _write(self, number: int, offset: int, data: bytes) -> None:
        file = self._file(number)
        _write(file.content, offset, data)
        file.pending.append((offset, data))

    def _truncate(self, number: int, size: int) -> None:
        file = self._file(number)
        _resize(file.content, size)
        file.pending.append((None, size))

    def _sync(self, number: int) -> None:
        thing = self._things[number]
        if isinstance(thing, File):
            thing.sync()
        elif thing.pending:
            for covered, until in self._close({number: thing.pending[-1].at}).items():
                self._cover(self._directory(covered), until)

    def _syncfs(self) -> None:
        for thing in self._things.values():
            if isinstance(thing, File):
                thing.sync()
            else:
                self._cover(thing, self._changes)

    def _cover(self, directory: Directory, until: int) -> None:
        directory.synced = directory.covered(until)
        directory.pending = [change for change in directory.pending if change.at > until]

    def _close(self, cuts: dict[int, int]) -> dict[int, int]:
        """Up to when directories are covered, if some are up to a moment: renames are whole."""
        todo = list(cuts)
        while todo:
            number = todo.pop()
            for change in self._directory(number).pending:
                other = change.other
                if other is None or change.at > cuts[number] or cuts.get(other, 0) >= change.at:
                    continue
                cuts[other] = change.at
                todo.append(other)
        return cuts

    def _names_after(self, crash: Crash, source: random.Random) -> dict[int, dict[str, int]]:
        """What is left of the directories."""
        directories = {
            number: thing for number, thing in self._things.items() if isinstance(thing, Directory)
        }
        if crash == "killed":
            return {number: thing.names for number, thing in directories.items()}
        cut = source.randint(0, self._changes) if crash == "mixed" else 0
        if source.random() < 0.7:
            # What lies far back was synced long ago.
            cut = max(cut, self._changes - source.randint(0, 20)) if crash == "mixed" else 0
        return {number: thing.covered(cut) for number, thing in directories.items()}

    def _file(self, number: int) -> File:
        thing = self._things[number]
        assert isinstance(thing, File)
        return thing

    def _directory(self, number: int) -> Directory:
        thing = self._things[number]
        assert isinstance(thing, Directory)
        return thing

    def materialise(self, target: Path, crash: Crash, seed: int = 0) -> None:
        """Write what a crash leaves into a real, empty directory."""
        source = random.Random(seed)
        names = self._names_after(crash, source)
        written: dict[int, Path] = {}
        todo = [(ROOT, target)]
        while todo:
            number, path = todo.pop()
            thing = self._things[number]
            if number in written:
                # A file of two  of a directory may leave both: the first has it.
                if isinstance(thing, File):
                    path.hardlink_to(written[number])
                continue
            written[number] = path
            if isinstance(thing, File):
                path.write_bytes(thing.after(crash, source))
                path.chmod(0o600)
            else:
                path.mkdir(mode=0o700, exist_ok=True)
                todo += [(inner, path / name) for name, inner in sorted(names[number].items())]


def _set(names: dict[str, int], change: Change) -> None:
    if change.number is None:
        names.pop(change.name, None)
    else:
        names[change.name] = change.number


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    if size > len(content):
        content.extend(bytes(size - len(content)))
    del content[size:]
