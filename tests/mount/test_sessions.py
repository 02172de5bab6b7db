"""One user action is one version: semantics S1, request by request, with plain system calls."""

import mmap
import os
import random
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.model.scope import parse_scope
from scopefs.store import changes
from tests.mount.reading import count_versions, list_stamps, read_history, read_partial, remove
from tests.mounting import Mounted, run_scopefs, wait_until

KIB = 1024
LARGE = 300 * KIB
"""More than a draft keeps in memory (64 KiB)."""

Start = Callable[..., Mounted]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB, which is the vault's directory and is to run out of space."""
    disk = tmp_path / "vault"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def full(small_disk: Path, start: Start) -> Iterator[Mounted]:
    """A mount of the vault on the small file system; it must end well once there is space."""
    mounted = start()
    mounted.expected_alarms += ["No space left on device", "the disk under the vault is full"]
    yield mounted
    for path in (small_disk / "partial").iterdir():
        path.unlink()
    mounted.stop()
    mounted.check_log()


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a file system but for `leave` bytes; returns the file that does."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * KIB))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))
    return ballast


def write_all_at(fd: int, data: bytes, offset: int) -> None:
    """Write at an offset, however many calls that takes."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def put(mounted: Mounted, scope: Path, name: str, content: bytes) -> None:
    """Publish by another process."""
    text = ".".join(scope.relative_to(mounted.point).parts)
    run_scopefs("put", text, "-", "--name", name, vault=mounted.vault, input=content)


# FLUSH, RELEASE


@pytest.mark.parametrize("size", [5, LARGE])
def test_flushed_bytes_survive_kill_before_release(start: Start, size: int) -> None:
    """What a close acknowledged is a version after a crash, though RELEASE never came."""
    mounted = start()
    scope = mounted.make_scope()
    content = os.urandom(size)
    fd = os.open(scope / "a.bin", os.O_WRONLY | os.O_CREAT)
    try:
        write_all_at(fd, content, 0)
        os.close(os.dup(fd))
        mounted.kill()
    finally:
        with pytest.raises(OSError, match="not connected"):
            os.close(fd)
    again = start("vault", "again")
    scope = again.make_scope()
    assert (scope / "a.bin").read_bytes() == content
    assert read_history(scope, "a.bin") == [content]
    again.stop()
    again.check_log()


@pytest.mark.parametrize("size", [5, LARGE])
def test_unflushed_overwrite_is_gone_after_kill(start: Start, size: int) -> None:
    """An overwrite that no close or fsync acknowledged leaves the old version after a crash."""
    mounted = start()
    scope = mounted.make_scope()
    (scope / "a.bin").write_bytes(b"old")
    fd = os.open(scope / "a.bin", os.O_WRONLY | os.O_TRUNC)
    write_all_at(fd, os.urandom(size), 0)
    mounted.kill()
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    again = start("vault", "again")
    scope = again.make_scope()
    assert (scope / "a.bin").read_bytes() == b"old"
    assert read_history(scope, "a.bin") == [b"old"]
    again.stop()
    again.check_log()


@pytest.mark.parametrize("size", [5, LARGE])
def test_synced_draft_is_kept_in_partial_after_kill(start: Start, size: int) -> None:
    """What fsync acknowledged but nobody closed goes to partial/ after a crash."""
    mounted = start()
    scope = mounted.make_scope()
    content = os.urandom(size)
    fd = os.open(scope / "a.bin", os.O_WRONLY | os.O_CREAT)
    write_all_at(fd, content, 0)
    os.fsync(fd)
    mounted.kill()
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    again = start("vault", "again")
    scope = again.make_scope()
    assert count_versions(scope) == 0
    assert read_partial(again.vault) == [content]
    again.stop()
    again.check_log()


@pytest.mark.parametrize("size", [5, LARGE])
def test_synced_then_closed_is_published_after_kill(start: Start, size: int) -> None:
    """write, fsync, close: what close acknowledged is a version, though fsync did the work."""
    mounted = start()
    scope = mounted.make_scope()
    content = os.urandom(size)
    fd = os.open(scope / "a.bin", os.O_WRONLY | os.O_CREAT)
    write_all_at(fd, content, 0)
    os.fsync(fd)
    os.close(os.dup(fd))
    mounted.kill()
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    again = start("vault", "again")
    scope = again.make_scope()
    assert read_partial(again.vault) == []
    assert read_history(scope, "a.bin") == [content]
    assert (scope / "a.bin").read_bytes() == content
    again.stop()
    again.check_log()


def test_synced_empty_file_is_there_after_kill(start: Start) -> None:
    """An empty file that was synced, with its directory, is there after a crash."""
    mounted = start()
    scope = mounted.make_scope()
    fd = os.open(scope / "lock", os.O_WRONLY | os.O_CREAT)
    os.fsync(fd)
    directory = os.open(scope, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    mounted.kill()
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    again = start("vault", "again")
    assert os.listdir(again.make_scope()) == ["lock"]
    again.stop()
    again.check_log()


@pytest.mark.parametrize("size", [5, LARGE])
def test_synced_and_renamed_draft_is_published_after_kill(start: Start, size: int) -> None:
    """Written, synced and renamed over the old file is finished, even if the close never came."""
    mounted = start()
    scope = mounted.make_scope()
    (scope / "a.bin").write_bytes(b"old")
    content = os.urandom(size)
    fd = os.open(scope / ".new", os.O_WRONLY | os.O_CREAT)
    write_all_at(fd, content, 0)
    os.fsync(fd)
    os.rename(scope / ".new", scope / "a.bin")
    directory = os.open(scope, os.O_RDONLY)
    os.fsync(directory)
    mounted.kill()
    os.close(directory)
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    again = start("vault", "again")
    scope = again.make_scope()
    assert (scope / "a.bin").read_bytes() == content
    assert read_history(scope, "a.bin") == [b"old", content]
    again.stop()
    again.check_log()


def test_session_publishes_once_however_many_duplicates_close(scope: Path) -> None:
    """Each close of a duplicate flushes; only the last close makes the version."""
    fd = os.open(scope / "a", os.O_WRONLY | os.O_CREAT)
    for number in range(3):
        os.write(fd, b"%d" % number)
        os.close(os.dup(fd))
        assert count_versions(scope) == 0
    os.close(fd)
    assert read_history(scope, "a") == [b"012"]


@pytest.mark.parametrize("size", [1, LARGE])
def test_write_after_close_of_duplicate_is_in_the_version(scope: Path, size: int) -> None:
    """A write that follows a flush belongs to the same session."""
    content = os.urandom(size)
    fd = os.open(scope / "a", os.O_WRONLY | os.O_CREAT)
    write_all_at(fd, content, 0)
    os.close(os.dup(fd))
    write_all_at(fd, b"tail", size)
    os.close(fd)
    assert read_history(scope, "a") == [content + b"tail"]


def test_overwrite_after_flush_is_in_the_version(scope: Path) -> None:
    """Bytes that were flushed already may still be changed before the last close."""
    fd = os.open(scope / "a", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"x" * LARGE)
    os.close(os.dup(fd))
    os.pwrite(fd, b"y", 7)
    os.close(fd)
    expected = bytearray(b"x" * LARGE)
    expected[7:8] = b"y"
    assert read_history(scope, "a") == [bytes(expected)]
    assert (scope / "a").read_bytes() == expected


def test_open_for_writing_without_writing_makes_no_version(scope: Path) -> None:
    """A handle that could have written, and did not, changes nothing."""
    (scope / "a").write_bytes(b"content")
    before = os.stat(scope / "a")
    os.close(os.open(scope / "a", os.O_RDWR))
    assert count_versions(scope) == 1
    assert os.stat(scope / "a").st_mtime_ns == before.st_mtime_ns


def test_reader_does_not_hold_publication_back(scope: Path) -> None:
    """A version is published when its writer closes, though others still have the file open."""
    (scope / "a").write_bytes(b"first")
    with (scope / "a").open("rb") as reader, (scope / "a").open("r+b") as idle:
        (scope / "a").write_bytes(b"second")
        assert read_history(scope, "a") == [b"first", b"second"]
        assert reader.read() == b"second"
        assert idle.read() == b"second"
    assert count_versions(scope) == 2


def test_two_writers_make_one_version_at_the_last_close(scope: Path) -> None:
    """Sessions are per file: what two handles write at the same time is one version."""
    (scope / "a").write_bytes(b"....")
    first = os.open(scope / "a", os.O_WRONLY)
    second = os.open(scope / "a", os.O_WRONLY)
    os.pwrite(first, b"1", 0)
    os.pwrite(second, b"2", 3)
    os.close(first)
    assert count_versions(scope) == 1
    os.close(second)
    assert read_history(scope, "a") == [b"....", b"1..2"]


def test_session_starts_from_the_version_its_handle_opened(shared: Mounted, scope: Path) -> None:
    """A handle that writes after another process published changes what it had opened."""
    (scope / "a").write_bytes(b"old content")
    assert count_versions(scope) == 1
    fd = os.open(scope / "a", os.O_WRONLY)
    put(shared, scope, "a", b"new")
    os.pwrite(fd, b"O", 0)
    os.close(fd)
    assert read_history(scope, "a") == [b"old content", b"new", b"Old content"]
    assert (scope / "a").read_bytes() == b"Old content"


def test_name_reads_as_its_newest_version_whichever_handle_wrote_last(scope: Path) -> None:
    """After an old handle wrote to a file that was overwritten, name and version agree."""
    (scope / "a").write_bytes(b"old content")
    with (scope / "a").open("r+b", buffering=0) as file:
        (scope / "a").write_bytes(b"new")
        file.write(b"O")
    history = read_history(scope, "a")
    assert len(history) == 3
    assert (scope / "a").read_bytes() == history[-1]
    assert os.stat(scope / "a").st_size == len(history[-1])


def test_handle_opened_right_after_a_close_starts_from_what_was_closed(scope: Path) -> None:
    """A file opened while its version is being published is changed, not begun anew."""
    for number in range(40):
        path = scope / f"f{number}"
        path.write_bytes(b"old content")
        fd = os.open(path, os.O_WRONLY)
        assert count_versions(scope) == 2 * number + 1
        os.pwrite(fd, b"O", 0)
        os.close(fd)
        assert path.read_bytes() == b"Old content"


def test_handle_opened_during_a_session_starts_from_what_that_left(scope: Path) -> None:
    """A handle that opened what another was writing changes that, published by then or not."""
    (scope / "a").write_bytes(b"first")
    assert count_versions(scope) == 1
    with (scope / "a").open("wb", buffering=0) as writer:
        writer.write(b"second")
        fd = os.open(scope / "a", os.O_RDWR)
        assert os.pread(fd, 100, 0) == b"second"
    assert count_versions(scope) == 2
    os.pwrite(fd, b"S", 0)
    os.close(fd)
    assert read_history(scope, "a") == [b"first", b"second", b"Second"]


def test_bytes_are_seen_as_they_are_written(scope: Path) -> None:
    """Readers of the name see an unfinished write; `.versions` and `.history` do not."""
    (scope / "a").write_bytes(b"old")
    with (scope / "a").open("wb", buffering=0) as writer:
        writer.write(b"half")
        assert (scope / "a").read_bytes() == b"half"
        assert os.stat(scope / "a").st_size == 4
        assert read_history(scope, "a") == [b"old"]
        writer.write(b" and half")
        assert (scope / "a").read_bytes() == b"half and half"
    assert read_history(scope, "a") == [b"old", b"half and half"]


def test_equal_content_written_again_is_another_version(scope: Path) -> None:
    """Each finished save makes a version, whatever it says."""
    for _ in range(3):
        (scope / "a").write_bytes(b"same")
    assert read_history(scope, "a") == [b"same"] * 3


# FSYNC


@pytest.mark.parametrize("size", [5, LARGE])
def test_fsync_publishes_nothing(scope: Path, size: int) -> None:
    """fsync makes bytes durable, and no version."""
    content = os.urandom(size)
    with (scope / "a").open("wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
        assert count_versions(scope) == 0
        file.write(b"more")
        os.fsync(file.fileno())
        assert count_versions(scope) == 0
    assert read_history(scope, "a") == [content + b"more"]


def test_fsync_of_a_directory_works(scope: Path) -> None:
    """FSYNCDIR is answered, and publishes nothing."""
    (scope / "a").write_bytes(b"x")
    fd = os.open(scope, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
    assert count_versions(scope) == 1


# Size changes


@pytest.mark.parametrize("size", [3, 200 * KIB])
def test_truncate_by_path_publishes_before_it_returns(scope: Path, size: int) -> None:
    """truncate(2) is a whole session, shorter or longer."""
    content = os.urandom(100 * KIB)
    (scope / "a").write_bytes(content)
    os.truncate(scope / "a", size)
    expected = content[:size] + bytes(max(0, size - len(content)))
    assert os.stat(scope / "a").st_size == size
    assert (scope / "a").read_bytes() == expected
    assert read_history(scope, "a") == [content, expected]


def test_truncate_to_the_same_size_makes_no_version(scope: Path) -> None:
    """A size that does not change opens no session."""
    (scope / "a").write_bytes(b"four")
    os.truncate(scope / "a", 4)
    assert read_history(scope, "a") == [b"four"]


def test_truncate_by_path_to_nothing_shows_an_empty_file(scope: Path) -> None:
    """Zero bytes make no version, and the name is empty."""
    (scope / "a").write_bytes(b"four")
    os.truncate(scope / "a", 0)
    assert (scope / "a").read_bytes() == b""
    assert read_history(scope, "a") == [b"four"]


def test_truncate_by_path_joins_the_session_of_an_open_writer(scope: Path) -> None:
    """With a writer open, truncate(2) is part of its session."""
    with (scope / "a").open("wb", buffering=0) as file:
        file.write(b"0123456789")
        os.truncate(scope / "a", 4)
        assert count_versions(scope) == 0
        assert os.fstat(file.fileno()).st_size == 4
    assert read_history(scope, "a") == [b"0123"]


@pytest.mark.parametrize("size", [3, 200 * KIB])
def test_ftruncate_publishes_at_the_close(scope: Path, size: int) -> None:
    """A size change through a handle is published when that is closed."""
    content = os.urandom(100 * KIB)
    (scope / "a").write_bytes(content)
    fd = os.open(scope / "a", os.O_RDWR)
    os.ftruncate(fd, size)
    assert count_versions(scope) == 1
    os.close(fd)
    expected = content[:size] + bytes(max(0, size - len(content)))
    assert read_history(scope, "a") == [content, expected]


def test_shrunk_then_grown_reads_zeros(scope: Path) -> None:
    """Bytes that a truncation cut off do not come back when the file grows again."""
    (scope / "a").write_bytes(b"x" * LARGE)
    fd = os.open(scope / "a", os.O_RDWR)
    os.ftruncate(fd, 10)
    os.ftruncate(fd, LARGE)
    os.close(fd)
    assert (scope / "a").read_bytes() == b"x" * 10 + bytes(LARGE - 10)


# Appending


def test_three_appends_make_three_versions(scope: Path) -> None:
    """`>>` three times: each finished write is a version, longer than the one before."""
    for word in ("one", "two", "three"):
        subprocess.run(f"echo {word} >> '{scope}/log'", shell=True, check=True)
    assert read_history(scope, "log") == [b"one\n", b"one\ntwo\n", b"one\ntwo\nthree\n"]


def test_two_appending_handles_lose_nothing(scope: Path) -> None:
    """O_APPEND writes at the end, whatever the other handle wrote before."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    handles = [os.open(scope / "log", flags) for _ in range(2)]
    expected = b""
    for number in range(50):
        line = b"line %d\n" % number
        os.write(handles[number % 2], line)
        expected += line
    for handle in handles:
        os.close(handle)
    assert read_history(scope, "log") == [expected]


def test_append_continues_what_others_published(scope: Path) -> None:
    """A handle with O_APPEND starts from the newest version, at its end."""
    (scope / "log").write_bytes(b"first\n")
    fd = os.open(scope / "log", os.O_WRONLY | os.O_APPEND)
    (scope / "log").write_bytes(b"rewritten and longer\n")
    os.write(fd, b"last\n")
    os.close(fd)
    assert read_history(scope, "log") == [
        b"first\n", b"rewritten and longer\n", b"rewritten and longer\nlast\n",
    ]  # fmt: skip


def test_append_continues_what_another_process_published(shared: Mounted, scope: Path) -> None:
    """A handle with O_APPEND goes to the end of what another process put meanwhile."""
    (scope / "log").write_bytes(b"first\n")
    fd = os.open(scope / "log", os.O_WRONLY | os.O_APPEND)
    put(shared, scope, "log", b"from elsewhere, and longer\n")
    os.write(fd, b"last\n")
    os.close(fd)
    assert read_history(scope, "log")[-1] == b"from elsewhere, and longer\nlast\n"
    assert (scope / "log").read_bytes() == b"from elsewhere, and longer\nlast\n"


def test_processes_appending_at_once_lose_nothing(scope: Path) -> None:
    """Two processes that append to one file at the same time keep each other's lines."""
    script = 'for i in $(seq 100); do echo $0 $i; done >> "$1"'
    writers = [subprocess.Popen(["bash", "-c", script, name, scope / "log"]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = (scope / "log").read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {i}" for name in "ab" for i in range(1, 101))


# Nothing but metadata, nothing at all


@pytest.mark.parametrize("command", ["touch '{}'", ": > '{}'", "cp /dev/null '{}'"])
def test_new_empty_file_makes_no_version(scope: Path, command: str) -> None:
    """An empty file is shown, and is never a version."""
    subprocess.run(command.format(scope / "empty"), shell=True, check=True)
    assert os.listdir(scope) == ["empty"]
    assert (scope / "empty").read_bytes() == b""
    assert count_versions(scope) == 0


@pytest.mark.parametrize("command", [": > '{}'", "cp /dev/null '{}'"])
def test_emptied_file_makes_no_version(scope: Path, command: str) -> None:
    """Emptying a file shows an empty file; its versions stay."""
    (scope / "a").write_bytes(b"content")
    subprocess.run(command.format(scope / "a"), shell=True, check=True)
    assert os.stat(scope / "a").st_size == 0
    assert (scope / "a").read_bytes() == b""
    assert read_history(scope, "a") == [b"content"]


@pytest.mark.parametrize("command", ["touch", "chmod 600", "chmod +x", "chown 1:1"])
def test_metadata_alone_makes_no_version(scope: Path, command: str) -> None:
    """touch, chmod and chown of a file make no version."""
    (scope / "a").write_bytes(b"content")
    subprocess.run([*command.split(), scope / "a"], check=True)
    assert read_history(scope, "a") == [b"content"]
    assert (scope / "a").read_bytes() == b"content"


# Renames


def test_rename_while_open_and_unflushed_publishes_the_final_name(scope: Path) -> None:
    """A temporary file that is renamed before its close is one version, of the final name."""
    (scope / "final").write_bytes(b"old")
    with (scope / ".goutputstream-X").open("wb", buffering=0) as file:
        file.write(b"new")
        os.rename(scope / ".goutputstream-X", scope / "final")
        file.write(b"er")
    assert os.listdir(scope) == ["final"]
    assert (scope / "final").read_bytes() == b"newer"
    assert read_history(scope, "final") == [b"old", b"newer"]


@pytest.mark.parametrize("size", [3, LARGE])
def test_rename_over_existing_keeps_the_count_of_versions(scope: Path, size: int) -> None:
    """An atomic save is one version; the rename itself makes none."""
    content = os.urandom(size)
    (scope / "final").write_bytes(b"old")
    (scope / "tmp").write_bytes(content)
    os.rename(scope / "tmp", scope / "final")
    assert os.listdir(scope) == ["final"]
    assert (scope / "final").read_bytes() == content
    assert read_history(scope, "final") == [b"old", content]
    assert count_versions(scope) == 2


def test_version_takes_the_final_name_into_its_envelope(scope: Path) -> None:
    """A version that was published under a temporary name bears the final one."""
    (scope / "sedAbCdEf").write_bytes(b'{"a":1}')
    os.rename(scope / "sedAbCdEf", scope / "final.json")
    assert b'"name":"final.json"' in (scope / ".versions" / "latest.json").read_bytes()


def test_versions_follow_several_renames(scope: Path) -> None:
    """However often a file is renamed, its versions are found under its last name."""
    (scope / "a").write_bytes(b"1")
    os.rename(scope / "a", scope / "b")
    (scope / "b").write_bytes(b"2")
    os.rename(scope / "b", scope / "c")
    os.rename(scope / "c", scope / "d")
    (scope / "d").write_bytes(b"3")
    assert os.listdir(scope) == ["d"]
    assert read_history(scope, "d") == [b"1", b"2", b"3"]
    assert count_versions(scope) == 3


def test_swapped_names_show_each_other_s_content(scope: Path) -> None:
    """Exchanging two names by way of a third moves the files, and makes no version."""
    (scope / "a").write_bytes(b"A")
    (scope / "b").write_bytes(b"B")
    os.rename(scope / "a", scope / "t")
    os.rename(scope / "b", scope / "a")
    os.rename(scope / "t", scope / "b")
    assert (scope / "a").read_bytes() == b"B"
    assert (scope / "b").read_bytes() == b"A"
    assert count_versions(scope) == 2


def test_rename_of_empty_file(scope: Path) -> None:
    """An empty file can be renamed; still no version."""
    (scope / "a").touch()
    os.rename(scope / "a", scope / "b")
    assert os.listdir(scope) == ["b"]
    assert count_versions(scope) == 0


def test_file_replaced_by_rename_while_open_still_becomes_a_version(scope: Path) -> None:
    """Bytes of an open file that a rename replaced are published at its close."""
    fd = os.open(scope / "a", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"being written")
    (scope / "b").write_bytes(b"replacement")
    os.rename(scope / "b", scope / "a")
    os.close(fd)
    assert count_versions(scope) == 2
    assert (scope / "a").read_bytes() == b"replacement"


def test_rename_keeps_the_inode(scope: Path) -> None:
    """An inode number stands for the file, whatever it is called."""
    (scope / "a").write_bytes(b"x")
    inode = os.stat(scope / "a").st_ino
    os.rename(scope / "a", scope / "b")
    assert os.stat(scope / "b").st_ino == inode


def test_overwrite_keeps_the_inode(scope: Path) -> None:
    """An inode number is kept by overwrites."""
    (scope / "a").write_bytes(b"x")
    inode = os.stat(scope / "a").st_ino
    (scope / "a").write_bytes(b"y")
    assert os.stat(scope / "a").st_ino == inode


# Mappings


def test_mapping_stored_to_after_close_is_in_the_version(scope: Path) -> None:
    """Stores that come after the only close of a new file are in its one version."""
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 8192)
    mapping = mmap.mmap(fd, 8192)
    os.close(fd)
    mapping[0:5] = b"early"
    mapping[8000:8004] = b"late"
    mapping.close()
    content = bytearray(8192)
    content[0:5] = b"early"
    content[8000:8004] = b"late"
    assert (scope / "a").read_bytes() == content
    assert read_history(scope, "a") == [bytes(content)]


def test_mapping_of_existing_file_stored_to_after_close(scope: Path) -> None:
    """A store that comes after a close without a write opens a session of its own."""
    content = bytearray(os.urandom(LARGE))
    (scope / "a").write_bytes(content)
    fd = os.open(scope / "a", os.O_RDWR)
    mapping = mmap.mmap(fd, LARGE)
    os.close(fd)
    mapping[100_000:100_004] = b"late"
    mapping.close()
    old = bytes(content)
    content[100_000:100_004] = b"late"
    assert read_history(scope, "a") == [old, bytes(content)]
    assert (scope / "a").read_bytes() == content


def test_mapping_synced_before_it_is_closed(scope: Path) -> None:
    """msync publishes nothing; the version comes when the mapping is gone."""
    (scope / "a").write_bytes(bytes(4096))
    with (scope / "a").open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 4096)
    mapping[10] = 1
    mapping.flush()
    assert count_versions(scope) == 1
    mapping[20] = 2
    mapping.close()
    expected = bytearray(4096)
    expected[10], expected[20] = 1, 2
    assert read_history(scope, "a") == [bytes(4096), bytes(expected)]


# Unlinking


@pytest.mark.parametrize("size", [4, LARGE])
def test_unlinked_while_open_makes_no_version(scope: Path, size: int) -> None:
    """A file unlinked before its close can be read and written to the end, and is gone then."""
    content = os.urandom(size)
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT)
    write_all_at(fd, content, 0)
    os.unlink(scope / "a")
    assert os.listdir(scope) == []
    os.pwrite(fd, b"tail", size)
    assert os.pread(fd, size + 4, 0) == content + b"tail"
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)
    assert count_versions(scope) == 0
    assert os.listdir(scope) == []


def test_unlinked_with_versions_while_overwritten(scope: Path) -> None:
    """Bytes written to a file whose last name ended are gone; its earlier versions stay."""
    (scope / "a").write_bytes(b"old")
    fd = os.open(scope / "a", os.O_RDWR)
    os.pwrite(fd, b"new", 0)
    remove(scope / "a")
    assert os.pread(fd, 3, 0) == b"new"
    os.close(fd)
    assert read_history(scope, "a") == [b"old"]


def test_flushed_then_unlinked_leaves_nothing_in_staging(shared: Mounted, scope: Path) -> None:
    """A file unlinked between flush and close leaves no row and no version."""
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT)
    write_all_at(fd, bytes(LARGE), 0)
    os.close(os.dup(fd))
    os.unlink(scope / "a")
    os.close(fd)
    assert count_versions(scope) == 0
    assert not (scope / "a").exists()
    run_scopefs("settle", vault=shared.vault)
    assert count_versions(scope) == 0


def test_name_taken_again_after_unlink_is_another_file(scope: Path) -> None:
    """A new file of an old name has a new inode and continues the name's history."""
    (scope / "a").write_bytes(b"1")
    inode = os.stat(scope / "a").st_ino
    remove(scope / "a")
    (scope / "a").write_bytes(b"2")
    assert os.stat(scope / "a").st_ino != inode
    assert read_history(scope, "a") == [b"1", b"2"]


def test_name_taken_again_while_the_old_file_is_open(scope: Path) -> None:
    """An unlinked file that is still open and the new one of its name do not mix."""
    (scope / "a").write_bytes(b"old")
    old = os.open(scope / "a", os.O_RDWR)
    remove(scope / "a")
    (scope / "a").write_bytes(b"new")
    assert os.pread(old, 10, 0) == b"old"
    os.pwrite(old, b"OLD", 0)
    os.close(old)
    assert (scope / "a").read_bytes() == b"new"
    assert read_history(scope, "a") == [b"old", b"new"]


@pytest.mark.parametrize("size", [0, 4, LARGE])
def test_temporary_file_without_a_name_can_be_used(scope: Path, size: int) -> None:
    """A new file that is unlinked at once answers fstat, ftruncate, reads and writes."""
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.unlink(scope / "a")
    assert (os.fstat(fd).st_size, os.fstat(fd).st_nlink) == (0, 0)
    os.ftruncate(fd, 0)
    write_all_at(fd, b"x" * size, 0)
    assert os.fstat(fd).st_size == size
    assert os.pread(fd, size + 1, 0) == b"x" * size
    os.close(fd)
    assert os.listdir(scope) == []
    assert count_versions(scope) == 0


def test_python_s_temporary_files_work(scope: Path) -> None:
    """`tempfile` makes a file, unlinks it and works with its handle."""
    with tempfile.TemporaryFile(dir=scope) as file:
        file.write(b"content")
        file.seek(0)
        assert file.read() == b"content"
    assert os.listdir(scope) == []
    assert count_versions(scope) == 0


# Offsets and holes


@pytest.mark.parametrize("size", [100, 10 * LARGE])
def test_hole_reads_as_zeros(scope: Path, size: int) -> None:
    """What was skipped by a seek is zeros, in the file and in the version."""
    with (scope / "a").open("wb") as file:
        file.seek(size)
        file.write(b"end")
    expected = bytes(size) + b"end"
    assert (scope / "a").read_bytes() == expected
    assert read_history(scope, "a") == [expected]


@pytest.mark.parametrize("limit", [5_000, 500_000])
def test_writes_at_random_offsets(scope: Path, limit: int) -> None:
    """Writes and truncations in any order leave what they leave in memory."""
    choices = random.Random(limit)
    model = bytearray()
    with (scope / "a").open("w+b", buffering=0) as file:
        for _ in range(150):
            at = choices.randrange(limit)
            if choices.random() < 0.15:
                file.truncate(at)
                del model[at:]
                model.extend(bytes(at - len(model)))
                continue
            data = choices.randbytes(choices.choice([1, 100, limit // 10]))
            write_all_at(file.fileno(), data, at)
            model.extend(bytes(max(0, at + len(data) - len(model))))
            model[at : at + len(data)] = data
            start = choices.randrange(limit)
            assert os.pread(file.fileno(), 5000, start) == model[start : start + 5000]
    assert (scope / "a").read_bytes() == model
    assert read_history(scope, "a") == [bytes(model)]


def test_partial_overwrite_of_a_large_version(scope: Path) -> None:
    """Changing a few bytes in place keeps the others, in a version of its own."""
    content = bytearray(os.urandom(3 * LARGE))
    (scope / "a").write_bytes(content)
    old = bytes(content)
    with (scope / "a").open("r+b") as file:
        file.seek(LARGE)
        file.write(b"patch")
    content[LARGE : LARGE + 5] = b"patch"
    assert read_history(scope, "a") == [old, bytes(content)]


# Failing writes


def test_write_that_meets_a_full_disk_keeps_the_old_content(
    full: Mounted, small_disk: Path, tmp_path: Path
) -> None:
    """cp over a file fails with the disk full; the name keeps its version, partial/ the bytes."""
    scope = full.make_scope()
    (scope / "a").write_bytes(b"old")
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20 << 20))
    done = subprocess.run(["cp", source, scope / "a"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert read_history(scope, "a") == [b"old"]
    assert (scope / "a").read_bytes() == b"old"
    assert os.stat(scope / "a").st_size == 3
    (kept,) = read_partial(full.vault)
    assert len(kept) > 1 << 20
    assert source.read_bytes().startswith(kept)


def test_new_file_that_meets_a_full_disk_vanishes(
    full: Mounted, small_disk: Path, tmp_path: Path
) -> None:
    """A new file whose write failed has no version and no name; partial/ has the bytes."""
    scope = full.make_scope()
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20 << 20))
    done = subprocess.run(["cp", source, scope / "a"], capture_output=True, text=True)
    assert done.returncode == 1
    assert count_versions(scope) == 0
    assert os.listdir(scope) == []
    assert len(read_partial(full.vault)) == 1


def test_error_of_a_full_disk_comes_at_close(full: Mounted, small_disk: Path) -> None:
    """Where write(2) could not know, close(2) says that the disk is full; nothing is published."""
    scope = full.make_scope()
    (scope / "a").write_bytes(b"old")
    assert count_versions(scope) == 1
    ballast = fill(small_disk)
    fd = os.open(scope / "a", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"n" * 60_000)
    with pytest.raises(OSError, match="No space left on device"):
        os.close(fd)
    assert read_history(scope, "a") == [b"old"]
    assert (scope / "a").read_bytes() == b"old"
    ballast.unlink()


@pytest.mark.parametrize("size", [5, LARGE])
def test_acknowledged_bytes_outlive_a_failed_publication(
    full: Mounted, small_disk: Path, start: Start, size: int
) -> None:
    """What a flush acknowledged is not lost if the disk is full when it is to be published."""
    scope = full.make_scope()
    content = os.urandom(size)
    fd = os.open(scope / "a", os.O_WRONLY | os.O_CREAT)
    write_all_at(fd, content, 0)
    os.close(os.dup(fd))
    ballast = fill(small_disk)
    os.close(fd)
    wait_until(lambda: "could not be published" in full.log)
    ballast.unlink()
    full.stop()
    again = start("vault", "again")
    history = again.make_scope() / ".history" / "a"
    published = read_history(again.make_scope(), "a") if history.exists() else []
    assert content in [*published, *read_partial(again.vault)]
    again.stop()


def test_vault_works_again_when_there_is_space(
    full: Mounted, small_disk: Path, tmp_path: Path
) -> None:
    """After a full disk was cleared, the same file can be saved."""
    scope = full.make_scope()
    ballast = fill(small_disk)
    with pytest.raises(OSError, match="No space left on device"):
        (scope / "a").write_bytes(bytes(LARGE))
    ballast.unlink()
    (scope / "a").write_bytes(b"saved")
    assert read_history(scope, "a") == [b"saved"]


def test_failed_write_that_is_repeated_successfully_publishes(
    full: Mounted, small_disk: Path
) -> None:
    """A write that failed and was then repeated spoils nothing."""
    scope = full.make_scope()
    fd = os.open(scope / "a", os.O_WRONLY | os.O_CREAT)
    os.pwrite(fd, b"x" * 70_000, 0)
    ballast = fill(small_disk)
    with pytest.raises(OSError, match="No space left on device"):
        os.pwrite(fd, b"y" * 8192, 1 << 20)
    ballast.unlink()
    os.pwrite(fd, b"y" * 8192, 1 << 20)
    os.close(fd)
    expected = b"x" * 70_000 + bytes((1 << 20) - 70_000) + b"y" * 8192
    assert read_history(scope, "a") == [expected]


# What a listing shows


def test_listing_right_after_cp_shows_the_version(scope: Path, tmp_path: Path) -> None:
    """`cp x d/ && ls d/.versions/` shows the new version, 200 times, under load."""
    source = tmp_path / "x"
    source.write_bytes(b'{"a":1}')
    other = scope / "load"
    other.mkdir()
    load = subprocess.Popen(
        ["bash", "-c", 'while :; do cp "$0" "$1/a"; cat "$1/a"; ls -l "$2"; done >/dev/null',
         source, other, scope],
    )  # fmt: skip
    try:
        script = 'for i in $(seq 200); do cp "$0" "$1/" && ls "$1/.versions" | wc -l; done'
        target = scope / "measured"
        target.mkdir()
        done = subprocess.run(
            ["bash", "-c", script, source, target], capture_output=True, check=True
        )
    finally:
        load.kill()
        load.wait()
    # One line more than versions: latest.json.
    assert [int(count) - 1 for count in done.stdout.split()] == list(range(1, 201))


def test_latest_points_at_what_was_just_closed(scope: Path) -> None:
    """`latest.json` names the newest version as soon as its file is closed."""
    for number in range(50):
        (scope / "a").write_bytes(b'{"n":%d}' % number)
        envelope = (scope / ".versions" / "latest.json").read_bytes()
        assert envelope.endswith(b'"data":{"n":%d}}\n' % number)
        assert os.readlink(scope / ".versions" / "latest.json") == list_stamps(scope)[-1]


def test_names_replaced_by_rename_are_listed_once(scope: Path) -> None:
    """While files are replaced by renames, each name is in every listing exactly once."""
    names = {f"file{number:03}" for number in range(600)}
    for name in names:
        (scope / name).touch()
    (scope / "Tmp").mkdir()
    stop = threading.Event()
    replaced = 0

    def replace() -> None:
        nonlocal replaced
        choices = random.Random(1)
        ordered = sorted(names)
        while not stop.is_set():
            (scope / "Tmp" / "new").write_bytes(b"x")
            os.rename(scope / "Tmp" / "new", scope / choices.choice(ordered))
            replaced += 1

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(25):
            found = [entry.name for entry in os.scandir(scope)]
            assert sorted(found) == sorted([*names, "Tmp"])
    finally:
        stop.set()
        thread.join()
    assert replaced > 0


def test_large_directory_lists_completely(start: Start, tmp_path: Path) -> None:
    """10,000 names are all listed, each once; and a few more that are not recorded yet."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        node = vault.apply(changes.ensure_scope, parse_scope("my.files"))
        vault.apply_all([
            partial(changes.apply_symlink, parent=node, name=b"n%d" % number, target=b"x")
            for number in range(10_000)
        ])  # fmt: skip
    mounted = start()
    scope = mounted.make_scope()
    handles = [os.open(scope / f"open{number}", os.O_WRONLY | os.O_CREAT) for number in range(5)]
    found = os.listdir(scope)
    for handle in handles:
        os.close(handle)
    assert len(found) == 10_005
    assert set(found) == {
        *(f"n{number}" for number in range(10_000)), *(f"open{number}" for number in range(5)),
    }  # fmt: skip
    mounted.stop()
    mounted.check_log()


def test_listing_survives_removal_of_what_it_has_shown(scope: Path) -> None:
    """Names removed while a directory is read do not make others disappear from the listing."""
    for number in range(600):
        (scope / f"n{number}").touch()
    seen = []
    with os.scandir(scope) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(scope / entry.name)
    assert sorted(seen) == sorted(f"n{number}" for number in range(600))
    assert os.listdir(scope) == []


# What stat says


def test_inodes_times_and_modes_are_the_same_after_remount(start: Start) -> None:
    """Numbers, mtimes to the nanosecond, modes and sizes outlive the mount."""
    mounted = start()
    scope = mounted.make_scope("my.files.sub").parent
    folder = scope / "Folder"
    folder.mkdir(mode=0o750)
    (folder / "large").write_bytes(os.urandom(LARGE))
    (scope / "a").write_bytes(b"x")
    (scope / "empty").touch()
    os.symlink("a", scope / "link")
    os.link(scope / "a", scope / "second")
    os.chmod(scope / "a", 0o640)
    os.chmod(folder / "large", 0o700)
    os.utime(scope / "a", ns=(1, 1_234_567_890_123_456_789))
    os.utime(scope / "empty", ns=(1, 987_654_321_000_000_001))
    os.utime(folder, ns=(1, 1_111_111_111_111_111_111))

    def survey(mount: Mounted) -> dict[str, tuple[int, ...]]:
        top = mount.point
        paths = [top, *top.rglob("*")]
        views = [top / "my/files/.versions", top / "my/files/.history", top / ".scopefs"]
        paths += [*views, *views[0].iterdir(), views[1] / "a"]
        found = {path: os.lstat(path) for path in paths}
        return {
            str(path.relative_to(top)):
            (stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_nlink)
            for path, stat in found.items()
        }  # fmt: skip

    before = survey(mounted)
    mounted.stop()
    mounted.check_log()
    again = start("vault", "again")
    assert survey(again) == before
    assert len({facts[0] for facts in before.values()}) == len(before) - 1
    again.stop()
    again.check_log()


def test_mtime_and_mode_are_kept_as_set(scope: Path) -> None:
    """What utimens and chmod set is what stat says, before and after the close."""
    fd = os.open(scope / "a", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, b"x")
    os.utime(fd, ns=(5, 1_000_000_000_000_000_007))
    os.fchmod(fd, 0o751)
    os.close(fd)
    found = os.stat(scope / "a")
    assert found.st_mtime_ns == 1_000_000_000_000_000_007
    assert found.st_mode & 0o7777 == 0o751
    assert count_versions(scope) == 1


def test_writing_moves_the_mtime(scope: Path) -> None:
    """A write sets the mtime to now."""
    (scope / "a").write_bytes(b"x")
    os.utime(scope / "a", ns=(5, 5))
    (scope / "a").write_bytes(b"y")
    assert os.stat(scope / "a").st_mtime_ns > 1_600_000_000_000_000_000


def test_sizes_of_backing_file_system_are_told(shared: Mounted) -> None:
    """df on the mount says what df on the vault's file system says."""
    found, backing = os.statvfs(shared.point), os.statvfs(shared.vault)
    assert found.f_blocks * found.f_frsize == backing.f_blocks * backing.f_frsize
    assert found.f_files == backing.f_files
    assert found.f_namemax == 255
    # Others write to the same disk meanwhile.
    assert abs(found.f_bavail * found.f_frsize - backing.f_bavail * backing.f_frsize) < 1 << 30


def test_hard_links_are_counted(scope: Path) -> None:
    """st_nlink is the number of names, which all lead to one inode and one content."""
    (scope / "a").write_bytes(b"x")
    assert os.stat(scope / "a").st_nlink == 1
    os.link(scope / "a", scope / "b")
    assert os.stat(scope / "a").st_nlink == os.stat(scope / "b").st_nlink == 2
    assert os.stat(scope / "a").st_ino == os.stat(scope / "b").st_ino
    (scope / "b").write_bytes(b"both")
    assert (scope / "a").read_bytes() == b"both"
    assert count_versions(scope) == 2
    os.unlink(scope / "a")
    assert os.stat(scope / "b").st_nlink == 1
    assert (scope / "b").read_bytes() == b"both"


@pytest.mark.parametrize("size", [0, 4, LARGE])
def test_links_of_an_open_file_are_counted(scope: Path, size: int) -> None:
    """fstat of a file that is being written tells its names: two, one, none."""
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT)
    write_all_at(fd, bytes(size), 0)
    os.link(scope / "a", scope / "b")
    write_all_at(fd, bytes(size), 1)
    assert os.fstat(fd).st_nlink == 2
    os.unlink(scope / "a")
    assert os.fstat(fd).st_nlink == 1
    os.unlink(scope / "b")
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)


def test_replaced_file_has_no_link(scope: Path) -> None:
    """fstat of an open file that a rename replaced tells that it has no name."""
    fd = os.open(scope / "a", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x")
    (scope / "b").write_bytes(b"y")
    os.rename(scope / "b", scope / "a")
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)


def test_hard_link_of_an_open_file(scope: Path) -> None:
    """A second name made while the file is written shows what the session leaves."""
    with (scope / "a").open("wb", buffering=0) as file:
        file.write(b"one")
        os.link(scope / "a", scope / "b")
        assert os.stat(scope / "b").st_nlink == 2
        os.unlink(scope / "a")
        file.write(b"two")
    assert os.listdir(scope) == ["b"]
    assert (scope / "b").read_bytes() == b"onetwo"
    assert count_versions(scope) == 1
