"""put: bytes, files and streams; nameless, named, and in folders."""

import array
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.errors import (
    InvalidBody,
    InvalidName,
    InvalidScope,
    IsADirectory,
    NotADirectory,
    ScopefsError,
    Unavailable,
)
from scopefs.model.scope import parse_scope
from scopefs.store import changes, owners, publish
from tests.store.inspection import (
    NOON_US,
    Clock,
    check_whole,
    list_files,
    load_child,
    make_scope,
    query,
    run_python,
)


def list_names(vault: Vault, scope: str = "my.files") -> list[bytes]:
    """The names that a scope shows, sorted."""
    return sorted(name for name, _ in vault.names(scope))


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_put_bytes(vault: Vault, make: Callable[[bytes], bytes]) -> None:
    """Bytes in any form are stored as they are."""
    assert vault.read_payload(vault.put("my.files", make(b'{"a":1}'))) == b'{"a":1}'


def test_put_bytes_that_change_afterwards(vault: Vault) -> None:
    """What is stored is what was there at the call."""
    content = bytearray(b'{"a":1}')
    version = vault.put("my.files", content)
    content[:] = b"spoiled"
    assert vault.read_payload(version) == b'{"a":1}'


def test_put_view_of_wider_items(vault: Vault) -> None:
    """A view of integers is stored with all of its bytes."""
    numbers = array.array("I", range(1000))
    version = vault.put("my.files", memoryview(numbers))
    assert version.payload_size == len(numbers.tobytes())
    assert vault.read_payload(version) == numbers.tobytes()


@pytest.mark.parametrize("size", [10, 100_000])
def test_put_file(vault: Vault, tmp_path: Path, size: int) -> None:
    """A path is read, and the version keeps the file's mtime."""
    content = os.urandom(size)
    path = tmp_path / "source"
    path.write_bytes(content)
    os.utime(path, ns=(5, 1_234_567_891_234_567_891))
    version = vault.put("my.files", path, name="n")
    assert vault.read_payload(version) == content
    assert version.mtime_ns == 1_234_567_891_234_567_891
    assert load_child(vault, make_scope(vault, "my.files"), b"n").mtime_ns == version.mtime_ns


def test_put_missing_file(vault: Vault, tmp_path: Path) -> None:
    """A path that is not there is FileNotFoundError, and nothing is stored."""
    with pytest.raises(FileNotFoundError):
        vault.put("my.files", tmp_path / "no")
    assert vault.events() == []


def test_put_stream(vault: Vault) -> None:
    """A stream is read to its end."""
    content = os.urandom(3_000_000)
    assert vault.read_payload(vault.put("my.files", io.BytesIO(content))) == content


def test_put_stream_from_where_it_stands(vault: Vault) -> None:
    """What was read before is not stored."""
    stream = io.BytesIO(b"head and tail")
    stream.read(5)
    assert vault.read_payload(vault.put("my.files", stream)) == b"and tail"


def test_put_stream_that_gives_little_at_a_time(vault: Vault) -> None:
    """Short reads are no end."""
    left, right = socket.socketpair()
    with left, right, right.makefile("rb", buffering=0) as stream:
        left.sendall(b"one")
        left.sendall(b"two")
        left.shutdown(socket.SHUT_WR)
        version = vault.put("my.files", stream)
    assert vault.read_payload(version) == b"onetwo"


class BrokenStream(io.RawIOBase):
    """Gives some bytes, then fails."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        if self.reads > 3:
            raise OSError(5, "the disk failed")
        return os.urandom(min(size, 50_000))


def test_put_stream_that_fails_stores_nothing(vault: Vault) -> None:
    """A stream that breaks makes no version, and leaves nothing in staging/."""
    with pytest.raises(OSError, match="the disk failed"):
        vault.put("my.files", BrokenStream(), name="n")
    assert vault.events() == []
    assert [path.rpartition("/")[2] for path in list_files(vault.layout.staging)] == ["lock"]


_PUT_TOO_MUCH = """
import errno, resource, sys
from scopefs import Vault
with Vault.open(sys.argv[1]) as vault:
    vault.put("my.files", b"before", name="n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    try:
        vault.put("my.files", b"x" * (2 << 20), name="n")
    except OSError as error:
        assert error.errno == errno.EFBIG, error
        print("refused")
    vault.put("my.files", b"after", name="m")
"""


def test_put_that_the_disk_refuses_stores_nothing(vault: Vault) -> None:
    """When the disk takes no more, put raises its error; the name stays, and the vault works on."""
    assert run_python(_PUT_TOO_MUCH, vault.layout.root) == "refused\n"
    assert vault.read_payload(vault.get("my.files", name="n")) == b"before"
    assert vault.read_payload(vault.get("my.files", name="m")) == b"after"
    assert len(vault.versions("my.files")) == 2
    check_whole(vault)
    assert [path.rpartition("/")[2] for path in list_files(vault.layout.staging)] == ["lock"]


@pytest.mark.parametrize("payload", [b"", bytearray(), io.BytesIO()])
def test_put_nothing_is_refused(vault: Vault, payload: bytes) -> None:
    """0 bytes make no version."""
    with pytest.raises(InvalidBody):
        vault.put("my.files", payload)
    assert vault.events() == []


def test_nameless_put_shows_no_name(vault: Vault) -> None:
    """Without a name the version stands in the history alone."""
    version = vault.put("my.files", b"{}")
    assert (version.name, version.node) == (None, None)
    assert list_names(vault) == []
    assert vault.versions("my.files") == [version]


def test_named_put_shows_the_name(vault: Vault) -> None:
    """The name leads to a file that shows the version."""
    version = vault.put("my.files", b"{}", name="profile.json")
    ((name, entry),) = vault.names("my.files")
    assert (name, entry.version, entry.size) == (b"profile.json", version.id, 2)
    assert version.name == b"profile.json"


def test_put_again_is_the_next_version_of_the_file(vault: Vault) -> None:
    """A second put under a name keeps the file, and shows the new bytes."""
    first = vault.put("my.files", b"1", name="n")
    second = vault.put("my.files", b"2", name="n")
    assert first.node == second.node
    assert vault.read_payload(vault.get("my.files", name="n")) == b"2"
    assert vault.versions("my.files") == [second, first]


def test_equal_bytes_are_a_version_too(vault: Vault) -> None:
    """One put, one version, whatever it holds."""
    for _ in range(3):
        vault.put("my.files", b"same", name="n")
    assert len(vault.versions("my.files")) == 3


def test_folders_are_made(vault: Vault) -> None:
    """Folders in a name become folders of the scope."""
    version = vault.put("my.files", b"x", name="My Photos/2024/a.jpg")
    assert version.name == b"My Photos/2024/a.jpg"
    assert list_names(vault) == [b"My Photos/2024/a.jpg"]


def test_folder_that_is_a_scope_is_refused(vault: Vault) -> None:
    """A folder name that is a subcategory is refused with the scope to put to."""
    with pytest.raises(InvalidName, match=r"my\.files\.shared"):
        vault.put("my.files", b"x", name="shared/a.jpg")
    assert vault.events() == []


def test_folder_of_a_subcategory_may_look_like_a_scope(vault: Vault) -> None:
    """Below the third level there are folders only."""
    vault.put("my.files.shared", b"x", name="deeper/a.jpg")
    assert list_names(vault, "my.files.shared") == [b"deeper/a.jpg"]


ODD_NAMES = [
    b"x" * 255, "😀".encode(), b"a\nb", b"\xff\xfe", b"a\\b", b'"quoted"', b" ", b"-rf", b"~",
    b"%s", b"a\rb", b"\x7f\x01", b"latest.json", b".scopefs", b".hidden", "é".encode(),
    "e\u0301".encode(), b"2026-01-21T10-00-00Z.json", b"CON", b"*?",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_kept_byte_for_byte(vault: Vault, name: bytes) -> None:
    """Any name that a file system can have is kept, and found again, before and after settling."""
    version = vault.put("my.files", b"x", name=name)
    vault.settle()
    assert version.name == name
    assert list_names(vault) == [name]
    assert vault.get("my.files", name=name) == version
    assert vault.get("my.files", name=os.fsdecode(name)) == version


def test_names_that_look_alike_are_different(vault: Vault) -> None:
    """Composed and decomposed, upper and lower case: names are bytes."""
    names = ["\u00e9", "e\u0301", "A", "a"]
    for name in names:
        vault.put("my.files", name.encode(), name=name)
    assert [vault.read_payload(vault.get("my.files", name=name)) for name in names] == [
        name.encode() for name in names
    ]


@pytest.mark.parametrize(
    "name",
    ["", "/", "/a", "a/", "a//b", ".", "..", "F/../a", "F/./a", "a\0b", "x" * 256,
     "F/" + "x" * 256, "x" * 256 + "/f", ".versions", ".history", ".versions/a", ".history/a"],
)  # fmt: skip
def test_impossible_names_are_refused(vault: Vault, name: str) -> None:
    """A name that no file can have is InvalidName, and nothing of the put is left."""
    with pytest.raises(InvalidName):
        vault.put("my.files", os.urandom(70_000), name=name)
    assert vault.events() == []
    assert [path.rpartition("/")[2] for path in list_files(vault.layout.staging)] == ["lock"]


@pytest.mark.parametrize("scope", ["a", "a.b.c.d", "A.b", "1.b", "a..b", "", "a/b", "a.b\n"])
def test_impossible_scopes_are_refused(vault: Vault, scope: str) -> None:
    """Text that is no scope is InvalidScope."""
    with pytest.raises(InvalidScope):
        vault.put(scope, b"x")
    assert vault.events() == []


def test_put_on_a_folder_is_refused(vault: Vault) -> None:
    """A name that is a directory already takes no file."""
    vault.put("my.files", b"x", name="F/a")
    with pytest.raises(IsADirectory):
        vault.put("my.files", b"x", name="F")


def test_put_below_a_file_is_refused(vault: Vault) -> None:
    """A file is no folder."""
    vault.put("my.files", b"x", name="f.txt")
    with pytest.raises(NotADirectory):
        vault.put("my.files", b"x", name="f.txt/a")


def test_put_on_a_symlink_is_refused(vault: Vault) -> None:
    """A symbolic link is not replaced by a file."""
    vault.apply(changes.apply_symlink, make_scope(vault, "my.files"), b"link", b"to")
    with pytest.raises(ScopefsError, match="link"):
        vault.put("my.files", b"x", name="link")
    assert vault.versions("my.files") == []


def test_put_draft_leaves_the_draft_to_its_caller(vault: Vault) -> None:
    """A draft that the caller filled is stored as put would."""
    with vault.new_draft() as draft:
        draft.append(b"in ")
        draft.append(b"parts")
        version = vault.put_draft(parse_scope("my.files"), draft, name="n", mtime_ns=7)
    assert vault.read_payload(version) == b"in parts"
    assert version.mtime_ns == 7


def test_mtime_is_now_without_a_source(clocked: Vault, clock: Clock) -> None:
    """Bytes that come from nowhere have the time of their put."""
    clock.move(3)
    assert clocked.put("my.files", b"x").mtime_ns == clock.now_us * 1000


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [("a.jpg", b"\xff\xd8\xff", "image/jpeg"), ("a.json", b"{}", "application/json"),
     ("a.txt", b"{}", "application/json"), ("a.json", b"[]", "application/json"),
     ("a.tar.gz", b"\x1f\x8b\0", "application/gzip"), (None, b"text", "text/plain"),
     (None, b"\0", "application/octet-stream"), ("a.html", b"x", "text/html")],
)  # fmt: skip
def test_media_type(vault: Vault, name: str | None, payload: bytes, expected: str) -> None:
    """The media type follows from kind, ending, and first bytes."""
    assert vault.put("my.files", payload, name=name).media_type == expected


# Time


def test_first_version_of_a_second_has_no_fraction(clocked: Vault, clock: Clock) -> None:
    """The first in a second is named by it, further ones carry their microseconds."""
    clock.move(0.25)
    stamps = [clocked.put("my.files", b"x").collected_at for _ in range(3)]
    assert stamps == [
        "2026-01-21T12:00:00Z", "2026-01-21T12:00:00.250000Z", "2026-01-21T12:00:00.250001Z",
    ]  # fmt: skip


def test_scopes_have_their_own_time(clocked: Vault) -> None:
    """Two scopes may each have the second for themselves."""
    times = [clocked.put(scope, b"x").collected_us for scope in ("a.b", "a.b.c", "c.d")]
    assert times == [NOON_US] * 3


def test_time_grows_though_the_clock_steps_back(clocked: Vault, clock: Clock) -> None:
    """collectedAt only grows within a scope, by a microsecond if need be."""
    times = []
    for step in (0, -3600, 0, 0.5, -86_400 * 365, 3600 + 86_400 * 365, 1):
        clock.move(step)
        times.append(clocked.put("my.files", b"x").collected_us)
    assert times == sorted(set(times))
    assert times[:5] == [NOON_US + n for n in range(5)]
    assert times[6] == clock.now_us - clock.now_us % 1_000_000


def test_time_grows_over_reopening(tmp_path: Path, clock: Clock) -> None:
    """A scope remembers its newest time, and a vault that of its events."""
    seen = []
    for _ in range(3):
        with Vault.open(tmp_path / "v", create=True, clock_us=clock) as vault:
            seen.append(vault.put("my.files", b"x").collected_us)
        clock.move(-100)
    assert seen == [NOON_US, NOON_US + 1, NOON_US + 2]


def test_time_of_a_deleted_version_is_not_given_again(clocked: Vault) -> None:
    """What was deleted keeps its stamp for itself."""
    first = clocked.put("my.files", b"x")
    clocked.delete("my.files", first.stamp)
    assert clocked.put("my.files", b"y").collected_us > first.collected_us


# Visible at once, and to all


def test_put_is_visible_to_another_process_at_once(vault: Vault) -> None:
    """What put returned is there for whoever opens the vault next, settled or not."""
    version = vault.put("my.files", os.urandom(100_000), name="n")
    with Vault.open(vault.layout.root) as other:
        assert other.get("my.files", name="n") == version
        assert other.read_payload(version) == vault.read_payload(version)


def test_put_in_another_process_is_visible_here(vault: Vault) -> None:
    """What another has published is seen at the next call."""
    assert vault.versions("my.files") == []
    with Vault.open(vault.layout.root) as other:
        version = other.put("my.files", b"x", name="n")
        assert vault.get("my.files", name="n") == version
        assert vault.read_payload(version) == b"x"


def test_put_is_one_row_of_each_kind(vault: Vault) -> None:
    """One put into a known scope is one version, one name, one event."""
    make_scope(vault, "my.files")
    before = vault.status()["events"]
    vault.put("my.files", b"x", name="n")
    assert vault.status()["events"] == before + 1
    assert query(vault, "SELECT COUNT(*) FROM data_files") == [(1,)]
    assert query(vault, "SELECT COUNT(*) FROM names WHERE name = ?", b"n") == [(1,)]


def test_put_and_delete_wait_for_the_disk(vault: Vault) -> None:
    """Once they return, nothing waits to be synced; other changes may."""
    version = vault.put("my.files", b"x", name="n")
    seen = [vault._journal.unsynced]
    vault.delete("my.files", version.stamp)
    seen.append(vault._journal.unsynced)
    make_scope(vault, "other.things")
    seen.append(vault._journal.unsynced)
    vault.sync()
    seen.append(vault._journal.unsynced)
    assert seen == [False, False, True, False]


def test_staging_file_is_on_the_disk_before_its_row(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that names a staging file is written after the file's bytes and name are durable, and
    durable itself before the answer.
    """
    steps: list[str] = []
    fdatasync, sync_directory, stage = os.fdatasync, owners.sync_directory, publish._insert_staged

    def sync(fd: int) -> None:
        fdatasync(fd)
        steps.append("log" if os.readlink(f"/proc/self/fd/{fd}").endswith("-wal") else "bytes")

    def note(step: str, original: Callable[..., object]) -> Callable[..., object]:
        def noted(*args: object) -> object:
            result = original(*args)
            steps.append(step)
            return result

        return noted

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(owners, "sync_directory", note("names", sync_directory))
    monkeypatch.setattr(publish, "_insert_staged", note("row", stage))
    vault.put("my.files", os.urandom(100_000))
    assert steps == ["bytes", "names", "names", "row", "log"]


def test_closed_vault_refuses(vault: Vault) -> None:
    """After close a put is refused in words; closing again is fine."""
    vault.put("my.files", b"x")
    vault.close()
    vault.close()
    with pytest.raises(Unavailable, match="closed"):
        vault.put("my.files", b"y")


def test_closed_vault_refuses_what_needs_a_file(vault: Vault) -> None:
    """So is one that is too large for memory."""
    vault.close()
    with pytest.raises(Unavailable, match="closed"):
        vault.put("my.files", os.urandom(100_000))
