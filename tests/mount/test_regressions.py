"""What the state machines found, and reading the code beside them; each as the shortest program."""

import fcntl
import mmap
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.store.layout import Layout
from tests.mount.reading import count_versions, read_history
from tests.mounting import Mounted


@pytest.mark.parametrize(
    ("old", "new"), [("d", "D"), ("D", "d"), ("d", "e")],
    ids=["scope to folder", "folder to scope", "scope to scope"],
)  # fmt: skip
def test_regression_directory_that_became_another_node_by_its_rename(
    scope: Path, old: str, new: str
) -> None:
    """An empty directory that is a scope before or after its rename can be used at once.

    To the index it is a new node, while the kernel goes on with the old one for a second.
    """
    (scope / old).mkdir()
    os.rename(scope / old, scope / new)
    (scope / new / "a").write_bytes(b"x")
    assert (scope / new / "a").read_bytes() == b"x"
    assert os.listdir(scope / new) == ["a"]


@pytest.mark.parametrize("is_written", [False, True])
def test_regression_attributes_of_a_new_file_without_a_name(scope: Path, is_written: bool) -> None:
    """A file that was unlinked before its first close takes a mode and a time.

    The index never hears of it, so there is nothing to change there.
    """
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT)
    if is_written:
        os.write(fd, b"x")
    os.unlink(scope / "a")
    os.fchmod(fd, 0o600)
    os.utime(fd, ns=(5, 5))
    found = os.fstat(fd)
    os.close(fd)
    assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o600, 5)


def test_regression_time_of_a_directory_that_is_set_after_its_files(scope: Path) -> None:
    """`tar x`, `cp -a` and `rsync -a` set a directory's time last, and it stays.

    Publication follows a close, and must not take the time of the directory with it.
    """
    for number in range(20):
        folder = scope / f"Box{number}"
        folder.mkdir()
        (folder / "a").write_bytes(b"x")
        os.utime(folder, ns=(5, 5))
    assert count_versions(scope) == 20
    assert [os.stat(scope / f"Box{number}").st_mtime_ns for number in range(20)] == [5] * 20


def test_regression_time_of_a_directory_where_a_file_is_begun(scope: Path) -> None:
    """A directory's time moves when a file is made in it, not when that is closed."""
    (scope / "Box").mkdir()
    os.utime(scope / "Box", ns=(5, 5))
    fd = os.open(scope / "Box" / "a", os.O_RDWR | os.O_CREAT)
    moved = os.stat(scope / "Box").st_mtime_ns
    os.close(fd)
    assert moved > 5


def test_regression_truncation_by_path_of_an_open_file_that_another_door_changed(
    shared: Mounted, scope: Path
) -> None:
    """truncate(2) starts from the newest version, though somebody has an older one open."""
    name = ".".join(scope.relative_to(shared.point).parts)
    with Vault.open(shared.vault) as vault:
        (scope / "a").write_bytes(b"12345")
        assert count_versions(scope) == 1
        with (scope / "a").open("rb"):
            vault.put(name, b"abcdefgh", name="a")
            os.truncate(scope / "a", 5)
            assert read_history(scope, "a") == [b"12345", b"abcdefgh", b"abcde"]


def test_regression_file_made_in_a_directory_that_another_door_removed(
    shared: Mounted, scope: Path
) -> None:
    """What a close acknowledged is a version, or its open was refused.

    The kernel goes on with a directory for a second that `scopefs rm` has removed.
    """
    name = ".".join(scope.relative_to(shared.point).parts)
    (scope / "a").write_bytes(b"x")
    assert count_versions(scope) == 1
    with Vault.open(shared.vault) as vault:
        vault.delete_scope(name)
        try:
            (scope / "b").write_bytes(b"y")
        except FileNotFoundError:
            return
        assert [vault.read_payload(version) for version in vault.versions(name)] == [b"y"]


def test_regression_reader_s_close_after_another_s_failed_write(scope: Path) -> None:
    """The error of a write is told to who wrote, not to who reads the file meanwhile."""
    writer = os.open(scope / "a", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="too large"):
            os.pwrite(writer, b"x", 1 << 60)
        os.pwrite(writer, b"y", 0)
        os.close(os.open(scope / "a", os.O_RDONLY))
    finally:
        with pytest.raises(OSError, match="too large"):
            os.close(writer)


@pytest.mark.parametrize("content", [b"", b"four"])
def test_regression_time_of_a_truncation_that_changes_no_size(scope: Path, content: bytes) -> None:
    """ftruncate(2) moves the mtime, whatever the size was: the kernel leaves that to us."""
    (scope / "a").write_bytes(content)
    os.utime(scope / "a", ns=(5, 5))
    with (scope / "a").open("r+b") as file:
        os.ftruncate(file.fileno(), len(content))
    assert os.stat(scope / "a").st_mtime_ns > 5


def test_regression_time_of_an_empty_file_that_is_emptied(scope: Path) -> None:
    """`: > stamp` is how makefiles note a time; the file is empty before and after."""
    (scope / "stamp").touch()
    os.utime(scope / "stamp", ns=(5, 5))
    (scope / "stamp").open("wb").close()
    assert os.stat(scope / "stamp").st_mtime_ns > 5
    assert count_versions(scope) == 0


@pytest.mark.parametrize("content", [b"", b"four"])
def test_regression_truncation_by_path_of_an_unlinked_file(scope: Path, content: bytes) -> None:
    """A file without a name is reached through /proc, and keeps what is done to it there."""
    (scope / "a").write_bytes(content)
    assert count_versions(scope) == (1 if content else 0)
    with (scope / "a").open("r+b") as file:
        os.unlink(scope / "a")
        os.truncate(f"/proc/self/fd/{file.fileno()}", 5)
        assert os.fstat(file.fileno()).st_size == 5
        assert file.read() == content.ljust(5, b"\0")


def test_regression_unlinked_empty_file_is_opened_again(scope: Path) -> None:
    """So is one of which the index has never heard; both handles see the same bytes."""
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT)
    os.unlink(scope / "a")
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    os.write(again, b"x")
    os.close(again)
    assert os.pread(fd, 10, 0) == b"x"
    os.close(fd)
    assert os.listdir(scope) == []
    assert count_versions(scope) == 0


def test_regression_store_through_a_mapping_of_an_appending_handle(scope: Path) -> None:
    """A mapping writes where it stores, though its file was opened with O_APPEND."""
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"12345")
    with mmap.mmap(fd, 5) as mapping:
        mapping[0:1] = b"x"
        mapping.flush()
    os.write(fd, b"6")
    os.close(fd)
    assert (scope / "a").read_bytes() == b"x23456"


@pytest.mark.parametrize("second", ["close", "fsync"])
def test_regression_second_closer_waits_for_what_the_first_makes_durable(
    shared: Mounted, scope: Path, second: str
) -> None:
    """While one FLUSH of a file waits for the disk, no other is answered as if it were over."""
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT)
    again = os.dup(fd)
    os.write(fd, b"x")
    answered: list[str] = []

    def end(name: str, call: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=lambda: (call(), answered.append(name)))
        thread.start()
        return thread

    with Layout(shared.vault).lock("write").open("rb+") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        threads = [end("first", partial(os.close, fd))]
        time.sleep(0.2)
        how = {"close": os.close, "fsync": os.fsync}[second]
        threads.append(end(second, partial(how, again)))
        time.sleep(0.3)
        assert answered == []
    for thread in threads:
        thread.join()
    if second == "fsync":
        os.close(again)
    assert (scope / "a").read_bytes() == b"x"
