"""The access log: a file for each day, of lines that any process may add to."""

from datetime import UTC, datetime
from pathlib import Path

from scopefs.api.access_log import AccessLog
from scopefs.api.wire import Access

MIDNIGHT_US = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 1_000_000


def note(log: AccessLog, path: str) -> None:
    """Write a line."""
    log.write(Access(log.now(), None, None, "GET", path, None, 200, 0, 1, 0.5))


def test_each_day_has_its_file(tmp_path: Path) -> None:
    """At midnight UTC the next file begins; both are read, newest first."""
    now_us = [MIDNIGHT_US - 1]
    log = AccessLog(tmp_path, lambda: now_us[0])
    note(log, "/1")
    now_us[0] += 1
    note(log, "/2")
    note(log, "/3")
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "access-2026-02-28.log", "access-2026-03-01.log",
    ]  # fmt: skip
    page, total = log.read(10, 0)
    assert ([access.path for access in page], total) == (["/3", "/2", "/1"], 3)
    assert [access.path for access in log.read(1, 1)[0]] == ["/2"]


def test_two_processes_keep_one_log(tmp_path: Path) -> None:
    """Lines of another are counted though the file had been counted before."""
    first, second = (AccessLog(tmp_path, lambda: MIDNIGHT_US) for _ in range(2))
    note(first, "/1")
    assert first.read(10, 0)[1] == 1
    note(second, "/2")
    note(first, "/3")
    page, total = first.read(10, 0)
    assert ([access.path for access in page], total) == (["/3", "/2", "/1"], 3)
    first.close()
    second.close()
