"""How a mount is: the line and the heartbeat for systemd, and what status.json tells of it."""

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from scopefs.mount import health
from scopefs.mount.health import (
    Health,
    describe,
    keep_beating,
    keep_status,
    wait_answer,
    watchdog_interval_s,
)
from scopefs.mount.open_files import OpenFiles
from scopefs.mount.refusals import Refusals
from scopefs.vault import Vault
from tests.mount.reading import read_status
from tests.mounting import Mounted, run_scopefs, wait_until

_WELL: dict[str, Any] = {
    "versions": 12, "scopes": 3, "partial": 0, "durability": "strict",
    "lastVersion": {"scope": "my.notes", "collectedAt": "2026-01-21T10:00:00Z"},
    "fileSystem": {"warnings": []},
}  # fmt: skip


def test_line_of_a_mount_that_is_well() -> None:
    """Versions, scopes, the last write, and one word."""
    assert describe(_WELL, 0.5, 0) == (
        "12 version(s) in 3 scope(s); last write 2026-01-21T10:00:00Z in my.notes; well"
    )
    assert describe({**_WELL, "lastVersion": None}, 0.5, 0).endswith("3 scope(s); well")


@pytest.mark.parametrize(
    ("status", "free", "errors", "said"),
    [({}, 0.02, 0, "2% of the disk left"), ({}, 0.5, 3, "3 error(s) in the log"),
     ({"partial": 2}, 0.5, 0, "2 interrupted write(s)"),
     ({"durability": "relaxed"}, 0.5, 0, "relaxed durability"),
     ({"fileSystem": {"warnings": ["x"]}}, 0.5, 0, "the file system is weak")],
)  # fmt: skip
def test_line_says_what_is_not_well(
    status: dict[str, Any], free: float, errors: int, said: str
) -> None:
    """Each thing that a person should look at is named, instead of that word."""
    assert describe({**_WELL, **status}, free, errors).endswith(f"; {said}")


async def test_heart_stands_still_while_the_mount_does_not_answer() -> None:
    """The event loop runs, and yet there is no beat until the answer comes."""
    answer = threading.Event()
    beats: list[bool] = []
    lives = trio.Event()

    def beat() -> None:
        beats.append(True)
        if len(beats) == 3:
            lives.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_beating, answer.wait, beat, 0.001)
        for _ in range(20):
            await trio.sleep(0.005)
        assert not beats
        answer.set()
        with trio.fail_after(10):
            await lives.wait()
        nursery.cancel_scope.cancel()


async def test_line_is_told_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at every ten seconds; the same is not told twice."""
    assert health.STATUS_INTERVAL_S == 10
    monkeypatch.setattr(health, "STATUS_INTERVAL_S", 0.001)
    texts = iter(["a", "a", "b", "b", "b", "a", "a", "c"])
    told: list[str] = []
    ended = trio.Event()

    def tell(text: str) -> None:
        told.append(text)
        if text == "c":
            ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_status, lambda: next(texts, "c"), tell)
        with trio.fail_after(10):
            await ended.wait()
        nursery.cancel_scope.cancel()
    assert told == ["a", "b", "a", "c"]


def test_watchdog_is_kept_only_for_whom_it_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the time allowed; nothing without it, or if another process has to report."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_interval_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert watchdog_interval_s() == 20.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert watchdog_interval_s() is None


def test_mount_answers(mounted: Mounted, tmp_path: Path) -> None:
    """With the number of its root; what is not there is no number."""
    assert wait_answer(mounted.point) == "1"
    assert wait_answer(tmp_path / "none") == ""


def test_status_file_tells_what_only_the_mount_knows(mounted: Mounted) -> None:
    """Files that are open, written, and what was refused since it began."""
    before = read_status(mounted)
    assert (before["openFiles"], before["openSessions"]) == (0, 0)
    assert (before["errors"], before["refused"]) == (0, 0)
    assert before["startedAt"] > "2026"
    scope = mounted.make_scope()
    (scope / "read.txt").write_text("x")
    (scope / "too.txt").write_text("x")
    with (
        (scope / "read.txt").open(),
        (scope / "too.txt").open(),
        (scope / "written.txt").open("w") as file,
    ):
        file.write("x")
        file.flush()

        def counted() -> tuple[int, int]:
            found = read_status(mounted)
            return found["openFiles"], found["openSessions"]

        # What was closed a moment ago may still be on its way.
        wait_until(lambda: counted() == (3, 1))
        told = run_scopefs("status", vault=mounted.vault).stdout.decode()
        assert "3 file(s), 1 being written" in told
    with pytest.raises(OSError, match="Invalid argument"):
        (mounted.point / "x").write_text("x")
    assert read_status(mounted)["refused"] == 1
    wait_until(lambda: read_status(mounted)["openSessions"] == 0)


def test_errors_of_the_log_are_counted(vault: Vault) -> None:
    """Each record of ERROR and above, until the mount ends; warnings are none."""
    found = Health(vault, OpenFiles(), Refusals(Path("/nowhere"), "/mnt", vault.clock_us))
    log = logging.getLogger("scopefs.test")
    log.error("one")
    log.warning("none")
    assert found.members()["errors"] == 1
    assert found.describe().endswith("1 error(s) in the log")
    found.close()
    log.error("two")
    assert found.members()["errors"] == 1
