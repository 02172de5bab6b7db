"""Damage is contained: EIO for the file that is damaged, one line about it; all else goes on."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.reading import count_versions, wait_settled
from tests.mounting import Mounted, run_scopefs

KIB, MIB = 1 << 10, 1 << 20
Start = Callable[..., Mounted]

LARGE = b"\0" + os.urandom(2 * MIB)


def forget_cached(path: Path) -> None:
    """Let the kernel drop what it has cached of a file, so that it asks again."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def find_blob(mounted: Mounted, size: int) -> Path:
    """The only blob of that size."""
    (path,) = [path for path in mounted.vault.glob("blobs/??/*") if path.stat().st_size == size]
    return path


def flip(path: Path, at: int) -> None:
    """Change one bit of a stored file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@contextmanager
def refused(code: int = errno.EIO) -> Iterator[None]:
    """Fail unless the block is refused with this errno."""
    with pytest.raises(OSError, check=lambda error: error.errno == code):
        yield


@pytest.fixture
def filled(start: Start) -> Iterator[Mounted]:
    """A mount with a sound file and a large one, settled."""
    mounted = start()
    scope = mounted.make_scope()
    (scope / "sound.txt").write_bytes(b"sound")
    (scope / "large.bin").write_bytes(LARGE)
    wait_settled(mounted)
    yield mounted
    mounted.stop()
    mounted.check_log()


def test_wrong_bytes_are_never_served(filled: Mounted) -> None:
    """A flipped bit in a large blob: EIO where it is, the rest of that file and all others are
    served, and the log has one line however often it is read.
    """
    scope = filled.make_scope()
    blob = find_blob(filled, len(LARGE))
    flip(blob, MIB + 500_000)
    filled.expected_alarms.append(f"{blob}: the payload does not have the hash")
    latest = scope / ".history" / "large.bin" / "latest.bin"
    for path in (scope / "large.bin", latest):
        forget_cached(path)
        for _ in range(3):
            with refused():
                path.read_bytes()
        fd = os.open(path, os.O_RDONLY)
        try:
            assert os.pread(fd, 4096, 0) == LARGE[:4096]
            with refused():
                os.pread(fd, 4096, MIB + 600_000)
            assert os.pread(fd, 4096, 2 * MIB) == LARGE[2 * MIB :]
        finally:
            os.close(fd)
    assert (scope / "sound.txt").read_bytes() == b"sound"
    (scope / "new.txt").write_bytes(b"new")
    assert filled.log.count("ERROR") == 1


def test_missing_blob_is_an_error_of_its_file_alone(filled: Mounted) -> None:
    """A blob that is gone: EIO; its name, its envelope and all other files are there."""
    scope = filled.make_scope()
    blob = find_blob(filled, len(LARGE))
    blob.unlink()
    filled.expected_alarms.append("the payload of my.files")
    forget_cached(scope / "large.bin")
    for _ in range(2):
        with refused():
            (scope / "large.bin").read_bytes()
    assert os.stat(scope / "large.bin").st_size == len(LARGE)
    assert b'"blob"' in (scope / ".versions" / "latest.json").read_bytes()
    assert (scope / "sound.txt").read_bytes() == b"sound"
    assert filled.log.count("ERROR") == 1


@pytest.mark.parametrize("damage", ["header", "payload", "missing"])
def test_damaged_envelope_is_an_error_of_its_version_alone(filled: Mounted, damage: str) -> None:
    """Whatever befalls an envelope, `.versions` and the name answer EIO, and no wrong byte."""
    scope = filled.make_scope()
    (envelope,) = [
        path for path in filled.vault.glob("data/my/files/*") if b"sound" in path.read_bytes()
    ]
    content = envelope.read_bytes()
    if damage == "missing":
        envelope.unlink()
    else:
        flip(envelope, content.index(b"sound.txt" if damage == "header" else b'"content":"') + 12)
    filled.expected_alarms.append(envelope.name)
    shown = scope / ".versions" / envelope.name
    for path in (shown, scope / "sound.txt"):
        if damage != "missing" or path != shown:
            with open(os.open(scope / "sound.txt", os.O_RDONLY), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with refused():
            path.read_bytes()
    assert (scope / "large.bin").read_bytes() == LARGE
    assert (scope / ".history" / "large.bin" / "latest.bin").read_bytes() == LARGE


@pytest.mark.parametrize("flags", [os.O_APPEND, 0])
@pytest.mark.parametrize("options", [(), ("--no-read-check",)])
def test_damage_is_not_carried_into_a_new_version(
    start: Start, flags: int, options: tuple[str, ...]
) -> None:
    """Appending to or changing a damaged file fails with EIO, and makes no version; so it does
    with --no-read-check. Replacing it whole works.
    """
    mounted = start("vault", "mnt", *options)
    scope = mounted.make_scope()
    path = scope / "large.bin"
    path.write_bytes(LARGE)
    wait_settled(mounted)
    blob = find_blob(mounted, len(LARGE))
    flip(blob, 2 * MIB)
    mounted.expected_alarms.append("does not have the hash")
    fd = os.open(path, os.O_WRONLY | flags)
    with refused():
        os.write(fd, b"more")
    os.close(fd)
    assert count_versions(scope) == 1
    path.write_bytes(b"whole again")
    assert path.read_bytes() == b"whole again"
    mounted.stop()
    mounted.check_log()


def test_unchecked_reads_serve_what_there_is(start: Start) -> None:
    """--no-read-check: a large file is served as it stands on the disk; a small one is checked."""
    mounted = start("vault", "mnt", "--no-read-check")
    scope = mounted.make_scope()
    (scope / "large.bin").write_bytes(LARGE)
    (scope / "small.bin").write_bytes(LARGE[: 20 * KIB])
    wait_settled(mounted)
    for size in (len(LARGE), 20 * KIB):
        flip(find_blob(mounted, size), 10_000)
    mounted.expected_alarms.append("does not have the hash")
    for name in ("large.bin", "small.bin"):
        forget_cached(scope / name)
    found = (scope / "large.bin").read_bytes()
    assert found != LARGE
    assert len(found) == len(LARGE)
    with refused():
        (scope / "small.bin").read_bytes()
    mounted.stop()
    mounted.check_log()


def test_get_of_a_large_damaged_version_ends_with_6(filled: Mounted) -> None:
    """The command reads through the same check."""
    flip(find_blob(filled, len(LARGE)), 2 * MIB)
    filled.expected_alarms.append("does not have the hash")
    done = run_scopefs("get", "my.files", vault=filled.vault, check=False)
    assert done.returncode == 6
    assert b"does not have the hash" in done.stderr
