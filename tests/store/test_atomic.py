"""Files that appear whole or not at all."""

import os
import threading
from pathlib import Path

import pytest

from scopefs.store.atomic import copy_range, same_content, write_all, write_file, write_temporary


def test_write_file_makes_the_file(tmp_path: Path) -> None:
    """The file holds the bytes, and nothing else is left in its directory."""
    write_file(tmp_path / "f", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"f": b"new"}


def test_write_file_never_overwrites(tmp_path: Path) -> None:
    """A name that is taken is refused; what is there stays, and no temporary file is left."""
    write_file(tmp_path / "f", b"old")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "f", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"f": b"old"}


def test_threads_that_write_one_name_at_once_make_one_whole_file(tmp_path: Path) -> None:
    """Of several writers of one name one succeeds, with a whole file; the others are refused."""
    won: list[int] = []
    refused: list[type[Exception]] = []
    start = threading.Barrier(6)

    def write(path: Path, number: int) -> None:
        start.wait()
        try:
            write_file(path, bytes([number]) * 1_000_000)
            won.append(number)
        except Exception as error:
            refused.append(type(error))

    for attempt in range(10):
        path = tmp_path / str(attempt)
        won.clear()
        refused.clear()
        threads = [threading.Thread(target=write, args=(path, number)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1, refused
        assert path.read_bytes() == bytes(won) * 1_000_000
        assert set(refused) == {FileExistsError}


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses the bytes, neither the name nor a temporary file is there."""

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        with pytest.raises(OSError, match="No space"):
            write_file(tmp_path / "f", b"new")
    assert list(tmp_path.iterdir()) == []


def test_write_temporary_never_overwrites(tmp_path: Path) -> None:
    """A temporary name that is taken is refused."""
    (tmp_path / "t").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_temporary(tmp_path / "t", b"new")
    assert (tmp_path / "t").read_bytes() == b"old"


def test_write_all_goes_on_after_short_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes three bytes at a time still gets all of them, in order."""
    write = os.write
    fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
        write_all(fd, b"0123456789")
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"0123456789"


@pytest.mark.parametrize(
    ("content", "expected"), [(b"same", True), (b"sams", False), (b"sam", False), (b"samee", False)]
)
def test_same_content_compares_every_byte(tmp_path: Path, content: bytes, expected: bool) -> None:
    """Equal means equal in length and in every byte."""
    (tmp_path / "f").write_bytes(b"same")
    assert same_content(tmp_path / "f", content) is expected


def test_missing_file_has_no_content(tmp_path: Path) -> None:
    """A file that is not there is not equal to anything, not even to nothing."""
    assert not same_content(tmp_path / "f", b"")


@pytest.mark.parametrize("supported", [True, False])
def test_copy_range_copies_to_an_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    """The bytes arrive behind what stands there, whether or not the file system shares blocks."""

    def refuse(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    if not supported:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    content = os.urandom(3_000_000)
    (tmp_path / "source").write_bytes(content)
    (tmp_path / "target").write_bytes(b"head")
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("r+b") as target:
        copy_range(source.fileno(), target.fileno(), len(content), 4)
    assert (tmp_path / "target").read_bytes() == b"head" + content


def test_copy_range_of_a_short_source_fails(tmp_path: Path) -> None:
    """A source with fewer bytes than promised is an error, not a short copy."""
    (tmp_path / "source").write_bytes(b"123")
    with (
        (tmp_path / "source").open("rb") as source,
        (tmp_path / "target").open("wb") as target,
        pytest.raises(OSError, match="shorter"),
    ):
        copy_range(source.fileno(), target.fileno(), 4)
