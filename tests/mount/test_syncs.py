"""What a close waits for: one sync of the journal, which it shares with others of its moment."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounting import Mounted

CLOSES = 20
WRITERS = 8

# Notes each sync that is waited for: not those of settling, and of what nobody waits for.
_NOTING = """
import os, sys, threading

def noting(sync):
    def call(fd):
        name = threading.current_thread().name
        if name not in ("scopefs-settle", "scopefs-in-time"):
            with open({path!r}, "a") as notes:
                notes.write(os.readlink(f"/proc/self/fd/{{fd}}") + "\\n")
        sync(fd)
    return call

os.fsync, os.fdatasync = noting(os.fsync), noting(os.fdatasync)
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """What the daemon has synced, a line each."""
    return tmp_path / "synced"


@pytest.fixture
def scope(
    tmp_path: Path, notes: Path, start: Callable[..., Mounted], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A scope in a mount that notes its syncs."""
    (tmp_path / "sitecustomize.py").write_text(_NOTING.format(path=str(notes)))
    with monkeypatch.context() as patched:
        # Read by every Python that is started with it: by the daemon.
        patched.setenv("PYTHONPATH", str(tmp_path))
        made = start().make_scope()
    (made / "first").write_bytes(b"x")
    notes.write_text("")
    return made


def test_close_waits_for_one_sync(scope: Path, notes: Path) -> None:
    """Of the WAL; publication and settling add nothing that is waited for."""
    for number in range(CLOSES):
        (scope / f"f{number}").write_bytes(b"%d" % number)
    synced = notes.read_text().splitlines()
    assert {Path(path).name for path in synced} == {"index.db-wal"}
    assert len(synced) == CLOSES


def test_closes_of_one_moment_share_a_sync(scope: Path, notes: Path) -> None:
    """Of eight writers there are always some that have waited for the same."""

    def work(writer: int) -> None:
        for number in range(CLOSES):
            (scope / f"f{writer}-{number}").write_bytes(b"%d" % number)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < len(notes.read_text().splitlines()) < WRITERS * CLOSES * 0.8
