"""Sizes that are refused: at once, by EFBIG, and without a trace (semantics S7, D2)."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.reading import count_versions, read_history, read_partial
from tests.mounting import Mounted, run_scopefs

LIMIT = 100_000
Start = Callable[..., Mounted]


@contextmanager
def refused(code: int = errno.EFBIG) -> Iterator[None]:
    """Fail unless the block is refused with this errno."""
    with pytest.raises(OSError, check=lambda error: error.errno == code):
        yield


@pytest.fixture(params=["option", "config"])
def limited(start: Start, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """A mount that takes files of 100,000 bytes at most."""
    options: tuple[str, ...] = ("--max-file-bytes", str(LIMIT))
    if request.param == "config":
        (tmp_path / "vault").mkdir()
        (tmp_path / "vault" / "config.toml").write_text(f"[limits]\nmax_file_bytes = {LIMIT}\n")
        options = ()
    mounted = start("vault", "mnt", *options)
    yield mounted
    mounted.stop()
    mounted.check_log()


def test_file_over_the_limit_is_refused_at_the_write(limited: Mounted) -> None:
    """The write that goes beyond gets EFBIG, there is no version, the name keeps what it had."""
    scope = limited.make_scope()
    path = scope / "a.bin"
    path.write_bytes(b"x" * LIMIT)
    with path.open("wb", buffering=0) as file:
        file.write(b"y" * LIMIT)
        with refused():
            file.write(b"z")
        with refused():
            os.close(os.dup(file.fileno()))
        with refused():
            file.close()
    assert path.read_bytes() == b"x" * LIMIT
    assert count_versions(scope) == 1
    assert read_partial(limited.vault) == [b"y" * LIMIT]


def test_failure_of_another_writer_takes_nothing_that_was_closed(limited: Mounted) -> None:
    """What was closed is a version, though its handle lives on and a second writer fails."""
    scope = limited.make_scope()
    path = scope / "a.bin"
    with path.open("wb", buffering=0) as first:
        first.write(b"closed")
        os.close(os.dup(first.fileno()))
        with path.open("r+b", buffering=0) as second:
            second.write(b"C")
            with refused():
                os.pwrite(second.fileno(), b"z", LIMIT)
            with refused():
                second.close()
        first.write(b" and more")
    assert read_history(scope, "a.bin") == [b"closed", b"closed and more"]
    assert read_partial(limited.vault) == [b"Closed"]
    assert path.read_bytes() == b"closed and more"


def test_append_over_the_limit_is_refused(limited: Mounted) -> None:
    """What an append would make is what counts."""
    scope = limited.make_scope()
    path = scope / "a.log"
    path.write_bytes(b"x" * LIMIT)
    with path.open("ab", buffering=0) as file, refused():
        file.write(b"more")
    assert path.stat().st_size == LIMIT
    assert count_versions(scope) == 1


def test_commands_and_library_keep_the_limit_of_config(start: Start, tmp_path: Path) -> None:
    """What config.toml says holds for every door."""
    vault = tmp_path / "vault"
    vault.mkdir()
    (vault / "config.toml").write_text(f"[limits]\nmax_file_bytes = {LIMIT}\n")
    start().stop()
    run_scopefs("put", "a.b", vault=vault, input=b"x" * LIMIT)
    done = run_scopefs("put", "a.b", vault=vault, input=b"x" * (LIMIT + 1), check=False)
    assert done.returncode == 2
    assert b"max_file_bytes" in done.stderr


@pytest.mark.parametrize("exists", [False, True])
def test_size_that_no_disk_holds_is_refused_at_once(scope: Path, exists: bool) -> None:
    """truncate -s 7E, and a write far out: EFBIG in no time, and nothing has changed."""
    path = scope / "a.bin"
    if exists:
        path.write_bytes(b"as it was")
    began = time.monotonic()
    done = subprocess.run(["truncate", "-s", "7E", path], capture_output=True, text=True)
    assert "File too large" in done.stderr
    with path.open("r+b", buffering=0) as file, refused():
        os.pwrite(file.fileno(), b"x", 1 << 60)
    assert time.monotonic() - began < 10
    assert path.read_bytes() == (b"as it was" if exists else b"")
    assert count_versions(scope) == int(exists)
    with path.open("ab") as file:
        file.write(b", and more")
    assert path.read_bytes().endswith(b", and more")


def test_file_that_is_over_a_new_limit_can_be_changed_and_cut(start: Start) -> None:
    """What came before the limit is not lost to it: it only must not grow."""
    mounted = start()
    path = mounted.make_scope() / "a.bin"
    path.write_bytes(b"x" * 2 * LIMIT)
    mounted.stop()
    mounted = start("vault", "mnt2", "--max-file-bytes", str(LIMIT))
    path = mounted.make_scope() / "a.bin"
    with path.open("r+b", buffering=0) as file:
        file.write(b"new")
    os.truncate(path, LIMIT + 1)
    assert path.read_bytes() == (b"new" + b"x" * LIMIT)[: LIMIT + 1]
    with refused():
        os.truncate(path, LIMIT + 2)
    mounted.stop()
    mounted.check_log()


_WITH_QUOTA = """
import errno, os

pwrite = os.pwrite

def refuse(fd, data, offset):
    if offset >= 200_000:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    return pwrite(fd, data, offset)

os.pwrite = refuse
"""


def test_quota_is_told_and_leaves_the_name_as_it_was(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EDQUOT from the disk is EDQUOT to the writer; no version; the bytes are kept apart."""
    (tmp_path / "sitecustomize.py").write_text(_WITH_QUOTA)
    with monkeypatch.context() as patched:
        # Read by every Python that is started with it: by the daemon.
        patched.setenv("PYTHONPATH", str(tmp_path))
        mounted = start()
    scope = mounted.make_scope()
    path = scope / "a.bin"
    path.write_bytes(b"x" * LIMIT)
    with path.open("wb", buffering=0) as file:
        file.write(b"y" * 131_072)
        with refused(errno.EDQUOT):
            for _ in range(3):
                file.write(b"y" * 131_072)
        with refused(errno.EDQUOT):
            file.close()
    assert path.read_bytes() == b"x" * LIMIT
    assert count_versions(scope) == 1
    assert len(read_partial(mounted.vault)) == 1
    mounted.expected_alarms.append("Disk quota exceeded")
    mounted.stop()
    mounted.check_log()
