"""The inventory: which envelopes stand in data/ and trash/, and what they say about themselves.

For a rebuild of the index. Of each file the first bytes are read, as far as the payload. The result
is the table `scan.found` of an attached database, so that memory does not grow with the vault:
`path` relative to the vault, and what the envelope says.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from scopefs.errors import InvalidEnvelope, InvalidScope, InvalidTime
from scopefs.model.envelope import Envelope, decode_envelope_head
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import parse_stamp
from scopefs.store.hierarchy import SUFFIX
from scopefs.store.layout import Layout
from scopefs.store.problems import Problem

HEAD_BYTES = 1 << 16
"""What stands before a payload is mostly shorter: a name has 4096 bytes at most, six for each."""

HEAD_MAX_BYTES = 1 << 23
"""And never longer."""

TABLE = """
CREATE TABLE scan.found(
  path TEXT PRIMARY KEY, scope TEXT NOT NULL, collected_us INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL, kind INTEGER NOT NULL, name BLOB, mtime_ns INTEGER,
  payload_size INTEGER NOT NULL, payload_sha256 BLOB NOT NULL, media_type TEXT, metadata TEXT,
  claimed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX scan.found_version ON found(scope, collected_us);
"""
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class EnvelopePath:
    """What the path of an envelope says: `entry` is that of the trash, None in data/."""

    entry: int | None
    scope: str
    collected_us: int


def parse_envelope_path(path: str) -> EnvelopePath | None:
    """Take the path of an envelope apart; None if none can stand there."""
    above, *parts = path.split("/")
    entry = None
    if above == "trash":
        if not parts or not parts[0].isdecimal() or parts[0] != str(int(parts[0])):
            return None
        entry, parts = int(parts[0]), parts[1:]
    elif above != "data":
        return None
    if not parts or not parts[-1].endswith(SUFFIX):
        return None
    scope = ".".join(parts[:-1])
    try:
        return EnvelopePath(
            entry, parse_scope(scope).raw, parse_stamp(parts[-1].removesuffix(SUFFIX))
        )
    except (InvalidScope, InvalidTime):
        return None


def iterate_files(root: Path, relative: str) -> Iterator[str]:
    """All files below a directory, relative to `root`, a directory at a time, in any order."""
    directories: list[str] = []
    try:
        with os.scandir(root / relative) as entries:
            for entry in entries:
                path = f"{relative}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    directories.append(path)
                else:
                    yield path
    except FileNotFoundError:
        return
    for directory in sorted(directories):
        yield from iterate_files(root, directory)


def take_inventory(
    db: apsw.Connection, layout: Layout, tell: Callable[[int, int], None]
) -> Iterator[Problem]:
    """Fill `scan.found`. Yields what stands there and is no envelope of scopefs.

    `tell`: called with how many envelopes were read, and of how many files.
    """
    for statement in TABLE.split(";"):
        db.execute(statement)
    rows: list[tuple[object, ...]] = []
    count = 0
    # Only their directories are read for this.
    total = sum(1 for above in ("data", "trash") for _ in iterate_files(layout.root, above))
    for above in ("data", "trash"):
        for path in iterate_files(layout.root, above):
            found = _describe(layout, path)
            if isinstance(found, Problem):
                yield found
                continue
            rows.append(found)
            if len(rows) == _PAGE:
                count += _insert(db, rows)
                tell(count, total)
    count += _insert(db, rows)
    tell(count, total)


def _insert(db: apsw.Connection, rows: list[tuple[object, ...]]) -> int:
    with db:
        db.executemany(
            "INSERT INTO scan.found(path, scope, collected_us, size_bytes, kind, name, mtime_ns,"
            " payload_size, payload_sha256, media_type, metadata) VALUES(?,?,?,?,?,?,?,?,?,?,?)",
            rows,
        )
    count = len(rows)
    rows.clear()
    return count


def _describe(layout: Layout, path: str) -> tuple[object, ...] | Problem:
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    if parse_envelope_path(path) is None:
        return Problem("foreign", shown, "is no envelope by its name", "move it elsewhere")
    try:
        envelope, size = read_head(layout.root / path)
    except InvalidEnvelope as error:
        return Problem("damaged", shown, str(error), "restore the file from a backup")
    except OSError as error:
        return Problem("damaged", shown, f"cannot be read: {error.strerror}", "look at the disk")
    facts = envelope.file
    if facts is None:
        return Problem(
            "foreign", shown, "was not written by scopefs",
            "move it elsewhere, then `scopefs import` it",
        )  # fmt: skip
    return (
        path, envelope.scope.raw, envelope.collected_us, size, int(facts.kind), facts.name,
        facts.mtime_ns, facts.size_bytes, facts.sha256, facts.media_type,
        facts.metadata,
    )  # fmt: skip


def read_head(path: Path) -> tuple[Envelope, int]:
    """What an envelope says about itself, and the size of its file.

    Raises `InvalidEnvelope`, `OSError`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        try:
            return decode_envelope_head(os.pread(fd, HEAD_BYTES, 0)), size
        except InvalidEnvelope:
            if size <= HEAD_BYTES:
                raise
        return decode_envelope_head(os.pread(fd, HEAD_MAX_BYTES, 0)), size
    finally:
        os.close(fd)
