"""The access log: a file for each day, of lines that any process may add to."""

from concurrent.futures import ThreadPoolExecutor
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


def test_regression_lines_that_came_while_others_were_counted(tmp_path: Path) -> None:
    """Each is counted once, though the file grows while it is read."""
    log = AccessLog(tmp_path, lambda: MIDNIGHT_US)

    def write() -> None:
        for number in range(1, 5000):
            note(log, f"/{number}")

    note(log, "/0")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            page, total = log.read(3, 0)
            assert [access.path for access in page] == [
                f"/{number}" for number in range(total - 1, max(-1, total - 4), -1)
            ]
    assert log.read(1, 4999)[1] == 5000
    assert AccessLog(tmp_path, lambda: MIDNIGHT_US).read(1, 0)[1] == 5000
    log.close()


def test_a_line_that_is_still_being_written(tmp_path: Path) -> None:
    """It is counted when it is whole; and a file that was cut is counted anew."""
    log = AccessLog(tmp_path, lambda: MIDNIGHT_US)
    note(log, "/1")
    path = next(tmp_path.iterdir())
    line = path.read_bytes()
    with path.open("ab") as file:
        file.write(line[:20])
        file.flush()
        assert log.read(10, 0)[1] == 1
        file.write(line[20:])
    assert log.read(10, 0)[1] == 2
    path.write_bytes(line)
    assert log.read(10, 0)[1] == 1
    log.close()
