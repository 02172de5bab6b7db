"""Drafts: bytes at any offset, in memory or in a file, sealed with the right hash."""

import errno
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scopefs.model.payload import Kind
from scopefs.store.drafts import MEMORY_MAX_BYTES, Draft
from scopefs.store.owners import Owner
from scopefs.store.readers import BytesReader


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """An owner whose staging directory must be empty in the end."""
    opened = Owner(tmp_path)
    yield opened
    opened.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def draft(owner: Owner) -> Iterator[Draft]:
    """An empty draft, discarded after the test."""
    with Draft(owner) as opened:
        yield opened
        opened.discard()


def check(draft: Draft, expected: bytes) -> None:
    """Fail unless a draft holds, and is sealed as, exactly these bytes."""
    assert draft.size == len(expected)
    assert draft.read(0, len(expected) + 10) == expected
    sealed = draft.seal(None)
    assert (sealed.size, sealed.sha256) == (len(expected), hashlib.sha256(expected).digest())
    assert (sealed.payload is None) != (sealed.file is None)
    if sealed.payload is not None:
        assert sealed.payload == expected


def test_appended_bytes_are_read_back(draft: Draft) -> None:
    """What is appended stands one behind the other."""
    draft.append(b"one")
    draft.append(b"two")
    check(draft, b"onetwo")


def test_gap_is_filled_with_zeros(draft: Draft) -> None:
    """A write behind the end leaves zeros before it."""
    draft.write(5, b"x")
    check(draft, b"\0\0\0\0\0x")


@pytest.mark.parametrize("base", [10, MEMORY_MAX_BYTES, MEMORY_MAX_BYTES + 1, 200_000])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda draft, _: draft.write(3, b"new"), lambda old: old[:3] + b"new" + old[6:]),
        (lambda draft, old: draft.write(len(old), b"new"), lambda old: old + b"new"),
        (lambda draft, old: draft.write(len(old) + 3, b"n"), lambda old: old + b"\0\0\0n"),
        (lambda draft, _: draft.truncate(5), lambda old: old[:5]),
        (lambda draft, _: draft.truncate(0), lambda _: b""),
        (lambda draft, old: draft.truncate(len(old) + 4), lambda old: old + bytes(4)),
        (lambda draft, _: draft.write(150_000, b"n"),
         lambda old: (old[:150_000].ljust(150_000, b"\0") + b"n" + old[150_001:])),
    ],
)  # fmt: skip
def test_change_after_a_seal_voids_its_hash(
    draft: Draft, base: int, change: Callable[[Draft, bytes], None],
    expected: Callable[[bytes], bytes],
) -> None:  # fmt: skip
    """Whatever is changed after a seal, the next seal is of what is there then."""
    old = os.urandom(base)
    draft.append(old)
    check(draft, old)
    change(draft, old)
    check(draft, expected(old))


def test_random_changes_equal_those_of_a_bytearray(owner: Owner) -> None:
    """A few hundred random writes, truncations and seals leave what they leave in memory."""
    source = random.Random(7)
    for _ in range(40):
        model = bytearray()
        with Draft(owner) as draft:
            for _ in range(source.randrange(1, 12)):
                offset = source.choice([0, len(model), source.randrange(100_000)])
                if source.random() < 0.25:
                    draft.truncate(offset)
                    del model[offset:]
                    model.extend(bytes(offset - len(model)))
                else:
                    data = source.randbytes(source.choice([1, 100, 40_000]))
                    draft.write(offset, data)
                    model.extend(bytes(max(0, offset - len(model))))
                    model[offset : offset + len(data)] = data
                if source.random() < 0.3:
                    check(draft, bytes(model))
            check(draft, bytes(model))
            draft.discard()


@pytest.mark.parametrize(
    ("size", "in_memory"), [(MEMORY_MAX_BYTES, True), (MEMORY_MAX_BYTES + 1, False)]
)
def test_memory_holds_64_kib(draft: Draft, size: int, in_memory: bool) -> None:
    """Up to 64 KiB there is no file; one byte more makes one."""
    draft.append(bytes(size))
    assert draft.in_memory is in_memory
    assert (draft.seal(None).file is None) is in_memory


@pytest.mark.parametrize("size", [10, 100_000])
def test_copy_of_a_stored_payload(draft: Draft, size: int) -> None:
    """A draft that starts as a copy holds its bytes, and may be changed."""
    content = os.urandom(size)
    draft.copy_from(BytesReader(content))
    check(draft, content)
    draft.write(0, b"new")
    check(draft, b"new" + content[3:])


@pytest.mark.parametrize("size", [10, 100_000])
def test_discard_removes_the_staging_file(owner: Owner, size: int) -> None:
    """Nothing is left of a draft that was discarded."""
    with Draft(owner) as draft:
        draft.append(bytes(size))
        draft.seal(None)
        draft.discard()
    assert [path.name for path in owner.directory.iterdir()] == ["lock"]


def test_error_discards(owner: Owner) -> None:
    """A draft whose block is left by an error leaves nothing."""

    def fail() -> None:
        with Draft(owner) as draft:
            draft.append(bytes(100_000))
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in owner.directory.iterdir()] == ["lock"]


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_save_moves_the_bytes(owner: Owner, tmp_path: Path, size: int) -> None:
    """Saved, the bytes stand in the named file, and no longer in staging/."""
    content = os.urandom(size)
    target = tmp_path / "saved"
    with Draft(owner) as draft:
        draft.append(content)
        draft.save(target)
    assert target.read_bytes() == content
    assert [path.name for path in owner.directory.iterdir()] == ["lock"]
    target.unlink()


def test_refused_write_does_not_spoil_the_hash(
    draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that the disk refuses half way, and its repetition, seal to the right hash."""
    content = os.urandom(100_000)
    draft.append(content)
    pwrite = os.pwrite

    def write_half(fd: int, data: memoryview, offset: int) -> int:
        if len(data) <= 5000:
            raise OSError(28, "No space left on device")
        return pwrite(fd, data[:5000], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", write_half)
        with pytest.raises(OSError, match="No space"):
            draft.append(b"x" * 10_000)
    draft.write(100_000, b"y" * 10_000)
    check(draft, content + b"y" * 10_000)


@pytest.mark.parametrize("refused", ["open", "write"])
def test_regression_bytes_in_memory_are_kept_if_no_file_can_be_made(
    draft: Draft, owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """A draft that outgrows memory on a disk that takes nothing still has what it had."""
    draft.append(b"x" * 60_000)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(os, refused, refuse)
        with pytest.raises(OSError, match="Read-only"):
            draft.append(b"y" * 60_000)
    target = tmp_path / "saved"
    draft.save(target)
    assert target.read_bytes() == b"x" * 60_000
    target.unlink()
    assert [path.name for path in owner.directory.iterdir()] == ["lock"]


def test_missing_staging_directory_is_an_input_output_error(draft: Draft, owner: Owner) -> None:
    """A vault that is gone is no missing file to whoever writes one."""
    hidden = owner.directory.with_name("hidden")
    owner.directory.rename(hidden)
    with pytest.raises(OSError, match="disk mounted") as caught:
        draft.append(bytes(100_000))
    assert caught.value.errno == errno.EIO
    hidden.rename(owner.directory)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b'{"a":1}', Kind.DOCUMENT), (b'{"a":"' + b"x" * 100_000 + b'"}', Kind.DOCUMENT),
     (b"[1]", Kind.INLINE), (b"[" + b"1," * 60_000 + b"1]", Kind.BLOB),
     (b'{"a":"' + b"x" * 100_000 + b'"', Kind.BLOB),
     (b" " * 80_000 + b"{}" + b" " * 80_000, Kind.DOCUMENT)],
)  # fmt: skip
def test_seal_decides_the_kind(draft: Draft, content: bytes, kind: Kind) -> None:
    """One JSON object is a document, wherever it is held; anything else is inline or a blob."""
    draft.append(content)
    assert draft.seal(None).kind is kind
