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
from scopefs.store.checks import CHECKS, Checked, Page
from scopefs.store.checks.context import REINDEX
from scopefs.store.problems import Problem
from scopefs.store.sql import fetch

PROBLEMS_MAX = 10_000
_SAVE_S = 5.0
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

    def estimate(self) -> int:
        """About how many things there are to be looked at."""
        with self._checked.read() as db:
            row = fetch(
                db,
                "SELECT 3 * (SELECT COALESCE(MAX(id), 0) FROM data_files)"
                " + 2 * (SELECT COALESCE(MAX(id), 0) FROM names)"
                " + 2 * (SELECT COALESCE(MAX(seq), 0) FROM events)",
            )[0]
        return int(row[0])

    def run(self, tell: Callable[[str, int], None]) -> Iterator[Problem]:
        """Check everything that is not checked yet. Yields what is found.

        `tell`: called with the name of the check and how many things it has looked at since.
        """
        progress = self.progress
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
