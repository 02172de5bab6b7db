"""Who read or wrote what: `logs/access-YYYY-MM-DD.log`, one JSON line for each request, UTC.

A line is one write to the end of the file, so that several processes can keep one log, and it is
there when the process is killed. Nothing waits for the disk. Finished days do not change: how many
lines they have is counted once.

Where nothing may be written into the vault, the lines go to the log of the process.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from scopefs.api.wire import Access
from scopefs.model.stamps import format_collected_at

_NAME = re.compile(r"access-\d{4}-\d\d-\d\d\.log\Z")
_DECODER = msgspec.json.Decoder(Access)
_LOG = logging.getLogger(__name__)


class AccessLog:
    """The access logs of one vault."""

    def __init__(
        self, directory: Path, clock_us: Callable[[], int], *, is_kept: bool = True
    ) -> None:
        """`is_kept`: whether lines are written into the directory."""
        self._directory = directory
        self._is_kept = is_kept
        self._clock_us = clock_us
        self._day = ""
        self._fd = -1
        self._counts: dict[str, tuple[int, int]] = {}

    def now(self) -> str:
        """The time of a request, as it stands in its line."""
        return format_collected_at(self._clock_us())

    def write(self, access: Access) -> None:
        """Append a line. A log that cannot be written stops nobody."""
        line = msgspec.json.encode(access)
        if not self._is_kept:
            _LOG.info("%s", line.decode())
            return
        try:
            self._open(access.at[:10])
            os.write(self._fd, line + b"\n")
        except OSError as error:
            _LOG.error("the access log cannot be written: %s", error)
            self.close()

    def read(self, limit: int, offset: int) -> tuple[list[Access], int]:
        """A page of all lines, newest first, and how many there are; what is no line is skipped."""
        page: list[Access] = []
        total = 0
        for path in sorted(self._list(), reverse=True):
            count = self._count(path)
            first = max(0, offset - total)
            wanted = limit - len(page)
            if wanted and first < count:
                # From the oldest, for the file may grow meanwhile.
                end = count - first
                page += reversed(list(islice(_iterate(path), max(0, end - wanted), end)))
            total += count
        return page, total

    def close(self) -> None:
        """Close today's file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._day = -1, ""

    def _open(self, day: str) -> None:
        if day != self._day:
            self.close()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self._directory / f"access-{day}.log", flags, 0o600)
            self._day = day

    def _list(self) -> list[Path]:
        try:
            return [path for path in self._directory.iterdir() if _NAME.match(path.name)]
        except FileNotFoundError:
            return []

    def _count(self, path: Path) -> int:
        start, count = self._counts.get(path.name, (0, 0))
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < start:
                start, count = 0, 0
            # What was counted before has not changed, and ends with a line.
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    # Another is about to end it.
                    break
                start += len(line)
                count += _parse(line) is not None
        self._counts[path.name] = (start, count)
        return count


def _iterate(path: Path) -> Iterator[Access]:
    """The lines that are whole, oldest first."""
    with path.open("rb") as file:
        for line in file:
            access = _parse(line)
            if access is not None:
                yield access


def _parse(line: bytes) -> Access | None:
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
