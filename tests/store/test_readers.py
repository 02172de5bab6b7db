"""Checked reading: right bytes, or an error; bounded memory; the next chunk ahead."""

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.errors import PayloadCorrupt
from scopefs.store import readers
from scopefs.store.atomic import Descriptor
from scopefs.store.chunks import PayloadHash
from scopefs.store.drafts import Draft
from scopefs.store.index import Version
from scopefs.store.readers import BUFFERS, CheckedReader, Checks, FileReader

MIB = 1 << 20


class Spy(Checks):
    """Checks that remember how many chunks they held at most."""

    most = 0

    def keep(self, reader: int, chunk: int, data: bytes) -> None:
        super().keep(reader, chunk, data)
        self.most = max(self.most, len(self._buffers))

    @property
    def held(self) -> list[tuple[int, int]]:
        """Reader and number of the chunks that are kept."""
        return list(self._buffers)


@pytest.fixture
def learned() -> dict[bytes, bytes]:
    """What readers found out about payloads that had no row."""
    return {}


@pytest.fixture
def checks(learned: dict[bytes, bytes]) -> Iterator[Spy]:
    """What readers share."""
    opened = Spy(learned.__setitem__)
    yield opened
    opened.close()


def open_checked(
    checks: Checks, path: Path, content: bytes, *, known: bool = True, start: int = 0
) -> CheckedReader:
    """A reader of a payload that stands in a file."""
    found = PayloadHash()
    found.update(content)
    digests = (found.digests or found.sha256[:16]) if known else None
    file = Descriptor(os.open(path, os.O_RDONLY))
    source = FileReader(file, start, len(content))
    return CheckedReader(checks, source, found.sha256, digests, path)


def flip(path: Path, at: int, bits: int = 1) -> None:
    """Change bits of one byte of a file, in its place."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bits]))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("size", [70_000, MIB, MIB + 1, 3 * MIB, 3 * MIB + 17])
def test_any_part_reads_back(checks: Spy, tmp_path: Path, size: int, known: bool) -> None:
    """Whatever part is asked for, in whatever order, is what was stored; also behind the end."""
    source = random.Random(size)
    content = source.randbytes(size)
    path = tmp_path / "file"
    path.write_bytes(b"head" + content)
    reader = open_checked(checks, path, content, known=known or size <= MIB, start=4)
    for _ in range(60):
        start, length = source.randrange(size + 1), source.choice([1, 4096, 131_072, 2 * MIB])
        assert reader.read(start, length) == content[start : start + length]
    assert reader.read(size + 5, 10) == b""


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("at", [0, MIB - 1, MIB, 2 * MIB + 99])
def test_flipped_bit_is_an_error_and_never_served(
    checks: Spy, tmp_path: Path, at: int, known: bool
) -> None:
    """A chunk with one wrong bit is an error at each read; with known digests others are served."""
    content = os.urandom(2 * MIB + 100)
    path = tmp_path / "file"
    path.write_bytes(content)
    flip(path, at)
    reader = open_checked(checks, path, content, known=known)
    for start in range(0, len(content), 100_000):
        is_hit = start // MIB <= at // MIB <= (min(start + 100_000, len(content)) - 1) // MIB
        if is_hit or not known:
            for _ in range(2):
                with pytest.raises(PayloadCorrupt, match=str(path)):
                    reader.read(start, 100_000)
        else:
            assert reader.read(start, 100_000) == content[start : start + 100_000]


def test_damage_under_an_open_reader_is_found(checks: Spy, tmp_path: Path) -> None:
    """Bytes that change or go after the opening are an error as well, once they are read again."""
    content = os.urandom(5 * MIB)
    path = tmp_path / "file"
    path.write_bytes(content)
    reader = open_checked(checks, path, content)
    flip(path, MIB + 5)
    assert reader.read(0, 10) == content[:10]
    with pytest.raises(PayloadCorrupt):
        reader.read(MIB, 10)
    os.truncate(path, 4 * MIB)
    with pytest.raises(PayloadCorrupt):
        reader.read(4 * MIB, 10)


def test_answers_come_from_what_was_checked(
    checks: Spy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte is read from the file a second time between the check and the answer."""
    content = os.urandom(MIB // 2)
    path = tmp_path / "file"
    path.write_bytes(content)
    reader = open_checked(checks, path, content)
    digest_chunk = readers.digest_chunk

    def change_behind(data: bytes) -> bytes:
        found = digest_chunk(data)
        flip(path, 7)
        return found

    monkeypatch.setattr(readers, "digest_chunk", change_behind)
    assert reader.read(0, 100) == content[:100]
    assert reader.read(0, 100) == content[:100]


@pytest.mark.parametrize("size", [2 * MIB + 5, 100_000])
def test_copy_of_damage_fails(checks: Spy, tmp_path: Path, size: int) -> None:
    """Wrong bytes are not copied: neither into a file nor into a draft."""
    content = os.urandom(size)
    path, target = tmp_path / "file", tmp_path / "target"
    path.write_bytes(content)
    fd = os.open(target, os.O_RDWR | os.O_CREAT)
    try:
        found = PayloadHash()
        open_checked(checks, path, content).copy_to(fd, size, found)
        assert target.read_bytes() == content
        assert found.sha256 == hashlib.sha256(content).digest()
        flip(path, size - 1)
        with pytest.raises(PayloadCorrupt):
            open_checked(checks, path, content).copy_to(fd, size)
    finally:
        os.close(fd)


def test_memory_is_bounded_over_all_readers(checks: Spy, tmp_path: Path) -> None:
    """However many files are read at once, no more than a fixed number of chunks is held."""
    content = os.urandom(4 * MIB)
    path = tmp_path / "file"
    path.write_bytes(content)
    opened = [open_checked(checks, path, content) for _ in range(20)]
    for start in range(0, len(content), MIB):
        for reader in opened:
            assert reader.read(start, 100) == content[start : start + 100]
    assert BUFFERS / 2 < checks.most <= BUFFERS


@pytest.mark.parametrize("way", ["closed", "forgotten"])
def test_memory_is_given_back(checks: Spy, tmp_path: Path, way: str) -> None:
    """A reader that is closed, or that nobody refers to any more, leaves nothing behind."""
    content = os.urandom(MIB)
    path = tmp_path / "file"
    path.write_bytes(content)
    reader = open_checked(checks, path, content)
    reader.read(0, 10)
    assert len(checks.held) == 1
    if way == "closed":
        reader.close()
    del reader
    assert checks.held == []


def test_reading_in_order_hashes_ahead_and_forgets_behind(checks: Spy, tmp_path: Path) -> None:
    """While chunk n is read, n + 1 gets ready; n - 2 is let go. Reading at random does neither."""
    content = os.urandom(8 * MIB)
    path = tmp_path / "file"
    path.write_bytes(content)
    reader = open_checked(checks, path, content)
    for chunk in range(4):
        reader.read(chunk * MIB, 100)
        reader.read((chunk + 1) * MIB - 100, 100)
    assert _settled(lambda: sorted(number for _, number in checks.held)) == [2, 3, 4]
    assert reader.is_ready(4 * MIB, MIB)
    assert not reader.is_ready(4 * MIB, MIB + 1)
    for chunk in (7, 5):
        reader.read(chunk * MIB, 100)
    assert sorted(number for _, number in checks.held) == [2, 3, 4, 5, 7]


def _settled(look: Callable[[], list[int]]) -> list[int]:
    """What there is once the threads that hash ahead have done their work."""
    seen = look()
    for _ in range(1000):
        threading.Event().wait(0.002)
        if look() == seen and len(seen) >= 3:
            return seen
        seen = look()
    return seen


def test_chunk_that_several_want_is_read_once(
    checks: Spy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that come at once for the same chunk share one read and one check."""
    content = os.urandom(MIB)
    path = tmp_path / "file"
    path.write_bytes(content)
    reader = open_checked(checks, path, content)
    counted: list[int] = []
    both_are_here = threading.Event()
    digest_chunk = readers.digest_chunk

    def count(data: bytes) -> bytes:
        counted.append(len(data))
        both_are_here.wait(0.2)
        return digest_chunk(data)

    monkeypatch.setattr(readers, "digest_chunk", count)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda n: reader.read(n * 1000, 1000), range(8)))
    assert b"".join(parts) == content[:8000]
    assert counted == [MIB]


def test_what_is_learned_is_told_once(
    checks: Spy, learned: dict[bytes, bytes], tmp_path: Path
) -> None:
    """A payload without digests is hashed whole before its first byte is served, and told."""
    content = os.urandom(2 * MIB + 5)
    path = tmp_path / "file"
    path.write_bytes(content)
    reader = open_checked(checks, path, content, known=False)
    assert reader.read(0, 1) == content[:1]
    found = PayloadHash()
    found.update(content)
    assert learned == {found.sha256: found.digests}


def test_reading_goes_on_when_the_threads_have_ended(checks: Spy, tmp_path: Path) -> None:
    """A reader that outlives its vault hashes by itself."""
    content = os.urandom(3 * MIB)
    path = tmp_path / "file"
    path.write_bytes(content)
    reader = open_checked(checks, path, content)
    checks.close()
    assert reader.read(0, 3 * MIB) == content


# In a vault


LARGE = {
    "blob": os.urandom(2 * MIB + 9),
    "blob of one chunk": os.urandom(300_000),
    "document": b'{"a":"' + b"x" * (2 * MIB) + b'"}',
    "document of one chunk": b'{"a":"' + b"x" * 300_000 + b'"}',
}


def find_payload_file(vault: Vault, version: Version) -> Path:
    """The file that holds the payload now."""
    with vault.read() as db:
        rows = db.execute("SELECT file FROM staged WHERE version = ?", (version.id,)).fetchall()
    if rows:
        return vault.layout.staging / rows[0][0]
    if version.kind.word == "blob":
        return vault.layout.blob(version.payload_sha256)
    return vault.layout.root / version.path


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("case", LARGE)
def test_large_payload_with_a_flipped_bit_is_an_error(
    vault: Vault, case: str, settled: bool
) -> None:
    """Payloads of every size and kind are checked as they are read, staged or settled."""
    other = vault.put("c.d", b"{}")
    version = vault.put("a.b", LARGE[case])
    if settled:
        vault.settle()
    flip(find_payload_file(vault, version), version.payload_size - 5)
    with pytest.raises(PayloadCorrupt):
        vault.read_payload(version)
    if version.kind.word == "document":
        with pytest.raises(PayloadCorrupt):
            vault.read_envelope(version)
    assert vault.read_payload(other) == b"{}"


@pytest.mark.parametrize("payload", [b"plain text", b"x" * 20_000])
def test_small_envelope_with_a_flipped_bit_is_an_error(vault: Vault, payload: bytes) -> None:
    """Each byte of an envelope is either right or not answered, the base64 in it included."""
    version = vault.put("a.b", payload, name="a.txt")
    vault.settle()
    path = vault.layout.root / version.path
    whole = vault.read_envelope(version)
    for at in range(len(whole)):
        # The second one turns the A behind which base64 ends into a B, which decodes to the same.
        for bits in (1, 3):
            flip(path, at, bits)
            with pytest.raises(PayloadCorrupt):
                vault.read_envelope(version)
            flip(path, at, bits)
    assert vault.read_envelope(version) == whole


def test_staged_row_with_wrong_bytes_is_an_error(vault: Vault) -> None:
    """What stands in the journal is compared with its hash as well."""
    version = vault.put("a.b", b"plain text")
    vault.apply(lambda transaction: transaction.db.execute("UPDATE staged SET payload = x'00'"))
    for read in (vault.read_payload, vault.read_envelope):
        with pytest.raises(PayloadCorrupt):
            read(version)


def test_unchecked_reads_are_for_who_asked(tmp_path: Path) -> None:
    """With check_reads=False large payloads are served as they are; small ones, and what a new
    version begins with, are checked all the same.
    """
    with Vault.open(tmp_path / "v", create=True, check_reads=False) as vault:
        content = os.urandom(2 * MIB)
        version, small = vault.put("a.b", content), vault.put("a.b", os.urandom(20_000))
        vault.settle()
        flip(vault.layout.blob(version.payload_sha256), MIB)
        flip(vault.layout.blob(small.payload_sha256), 7)
        assert vault.read_payload(version) != content
        with pytest.raises(PayloadCorrupt):
            vault.read_payload(small)
        with vault.new_draft() as draft, pytest.raises(PayloadCorrupt):
            copy_base(vault, version, draft)


def copy_base(vault: Vault, version: Version, draft: Draft) -> None:
    """Begin a draft as a copy of a version."""
    reader = vault.open_base(version)
    try:
        draft.copy_from(reader)
    finally:
        reader.close()
        draft.discard()


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("keep", [None, MIB, MIB + 10, 100_000, 5])
def test_copied_draft_has_the_right_hash(vault: Vault, keep: int | None, hashed: bool) -> None:
    """A base that is copied, hashed on the way or not, and appended to, is sealed as it is."""
    content = os.urandom(2 * MIB + 77)
    version = vault.put("a.b", content)
    with vault.new_draft() as draft:
        draft.copy_from(vault.open_base(version), keep, hashed=hashed)
        draft.append(b"more")
        expected = content[:keep] + b"more"
        found = PayloadHash()
        found.update(expected)
        sealed = draft.seal(None)
        assert (sealed.size, sealed.sha256) == (len(expected), found.sha256)
        assert sealed.digests == (found.digests if len(expected) > 65_536 else None)
        draft.discard()
