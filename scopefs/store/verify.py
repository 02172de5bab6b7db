"""Verification: all checks of scopefs.store.checks, one after the other.

How far it has come stands in `logs/verify.json`, written every few seconds, so that one of a large
vault that was interrupted goes on where it was. Memory does not grow with the vault; of what was
found, the first `PROBLEMS_MAX` are kept.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec

from scopefs.errors import IndexBroken
from scopefs.store.checks import CHECKS, READING, Checked, Page
from scopefs.store.checks.context import REINDEX
from scopefs.store.problems import Problem
from scopefs.store.sql import fetch

PROBLEMS_MAX = 10_000
_SAVE_S = 5.0
_ROWS = ("data_files", "scopes", "nodes", "names", "shown", "staged", "scratch", "moves", "events")
_THINGS = f"""SELECT {" + ".join(f"(SELECT COUNT(*) FROM {table})" for table in _ROWS)}
  + (SELECT COUNT(*) FROM data_files)
  + (SELECT COUNT(DISTINCT payload_sha256) FROM data_files WHERE kind = 2)
  + (SELECT COUNT(DISTINCT deleted_seq) FROM data_files WHERE deleted_seq IS NOT NULL)"""
_ENVELOPE_BYTES = "SELECT COALESCE(SUM(size_bytes), 0) FROM data_files WHERE id > ?"
_BLOB_BYTES = """SELECT COALESCE(SUM(size), 0) FROM (SELECT MAX(payload_size) AS size
  FROM data_files WHERE kind = 2 AND payload_sha256 > ? GROUP BY payload_sha256)"""
_UNREADABLE = (TypeError, ValueError, AttributeError, OverflowError, apsw.Error)
"""What rows that hold anything at all make of code that expects what it has written."""


class Progress(msgspec.Struct, rename="camel"):
    """How far a verification has come."""

    vault: str
    started_at: str
    done: list[str] = msgspec.field(default_factory=list)
    check: str = ""
    cursor: list[Any] = msgspec.field(default_factory=list)
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    problems: list[Problem] = msgspec.field(default_factory=list)
    more: int = 0
    """Problems beyond those that are kept."""
    bytes_read: int = 0


class Verification:
    """One run over the vault, new or continued."""

    def __init__(self, checked: Checked, vault_id: str, started_at: str, *, resume: bool) -> None:
        self._checked = checked
        self._path = checked.layout.logs / "verify.json"
        self.progress = Progress(vault_id, started_at)
        self.is_resumed = False
        if resume:
            with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                found = msgspec.json.decode(self._path.read_bytes(), type=Progress)
                if found.vault == vault_id:
                    self.progress, self.is_resumed = found, True
        self._next_save = 0.0
        self._known = set(self.progress.problems)

    def estimate(self) -> tuple[int, int]:
        """What is still to be done: things to compare, and bytes to read (`READING`) then."""
        progress = self.progress
        is_read = {name: name in progress.done for name in READING}
        cursors = {
            name: progress.cursor[0] if progress.check == name and progress.cursor else None
            for name in READING
        }
        try:
            with self._checked.read() as db:
                things = int(fetch(db, _THINGS)[0][0])
                envelopes = fetch(db, _ENVELOPE_BYTES, (cursors["envelopes"] or 0,))[0][0]
                blobs = fetch(db, _BLOB_BYTES, (bytes.fromhex(cursors["blobs"] or ""),))[0][0]
        except IndexBroken:
            # Whatever that is, the checks will tell.
            return 0, 0
        looked_at = sum(count for name, count in progress.counts.items() if name not in READING)
        sizes = {"envelopes": int(envelopes), "blobs": int(blobs)}
        return max(0, things - looked_at), sum(sizes[name] for name in READING if not is_read[name])

    @property
    def bytes_read(self) -> int:
        """What was read so far, in a page that is not done yet as well."""
        return self.progress.bytes_read + self._checked.bytes_read

    def run(self, tell: Callable[[str, int], None]) -> Iterator[Problem]:
        """Check everything that is not checked yet. Yields what is found.

        `tell`: called with the name of the check and how many things it has looked at since; with 0
        whenever it has read something, see `bytes_read`.
        """
        progress = self.progress
        self._checked.tell = lambda: tell(progress.check, 0)
        try:
            for name, check in CHECKS.items():
                if name in progress.done:
                    continue
                if progress.check != name:
                    progress.check, progress.cursor = name, []
                tell(name, 0)
                for page in self._pages(check(self._checked, progress.cursor)):
                    yield from self._take(page)
                    tell(name, page.count)
                progress.done.append(name)
        except BaseException:
            self.save()
            raise
        self._path.unlink(missing_ok=True)

    def _pages(self, pages: Iterator[Page]) -> Iterator[Page]:
        try:
            yield from pages
        except (IndexBroken, *_UNREADABLE) as error:
            # The other checks may still find what can be read.
            text = f"this check could not go on: {error}"
            found = Problem("I19", f"index.db ({self.progress.check})", text, REINDEX)
            yield Page(self.progress.cursor, 0, [found])

    def _take(self, page: Page) -> Iterator[Problem]:
        progress = self.progress
        for problem in page.problems:
            if problem in self._known:
                # A part of a check that was interrupted is done again.
                continue
            if len(progress.problems) < PROBLEMS_MAX:
                self._known.add(problem)
                progress.problems.append(problem)
            else:
                progress.more += 1
            yield problem
        counts = progress.counts
        counts[progress.check] = counts.get(progress.check, 0) + page.count
        progress.cursor = page.cursor
        progress.bytes_read += self._checked.bytes_read
        self._checked.bytes_read = 0
        if time.monotonic() >= self._next_save:
            self.save()

    def save(self) -> None:
        """Write down how far it has come; a full disk does not end it."""
        self._next_save = time.monotonic() + _SAVE_S
        temporary = Path(f"{self._path}.tmp")
        with contextlib.suppress(OSError):
            temporary.write_bytes(msgspec.json.encode(self.progress))
            os.replace(temporary, self._path)
