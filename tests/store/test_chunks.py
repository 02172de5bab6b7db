"""Digests of chunks: computed on the way, written with the version, made anew where they lack."""

import hashlib
import os
import random
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.store import publish, rows
from scopefs.store.chunks import CHUNK_BYTES, DIGEST_BYTES, PayloadHash
from scopefs.store.publish import Write
from scopefs.transfer.imports import Importer
from scopefs.transfer.sources import VaultSource
from tests.store.inspection import make_scope, query

MIB = 1 << 20


def digest_all(content: bytes) -> bytes | None:
    """What the row of a payload has to hold."""
    if len(content) <= CHUNK_BYTES:
        return None
    return b"".join(
        hashlib.sha256(content[start : start + CHUNK_BYTES]).digest()[:DIGEST_BYTES]
        for start in range(0, len(content), CHUNK_BYTES)
    )


def list_rows(vault: Vault) -> dict[bytes, bytes]:
    """All rows of the table."""
    return dict(query(vault, "SELECT sha256, digests FROM chunks"))


def describe(content: bytes) -> dict[bytes, bytes]:
    """The row that a payload has to have."""
    digests = digest_all(content)
    return {} if digests is None else {hashlib.sha256(content).digest(): digests}


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 7])
@pytest.mark.parametrize("step", [MIB, 100_003, 3 * MIB])
def test_hash_is_that_of_all_and_of_each_chunk(size: int, step: int) -> None:
    """However the bytes come, whole and chunks have the hashes that they have."""
    content = random.Random(size).randbytes(size)
    found = PayloadHash()
    for start in range(0, size, step):
        found.update(content[start : start + step])
        assert found.sha256 == hashlib.sha256(content[: start + step]).digest()
        assert found.digests == digest_all(content[: start + step])
    assert (found.size, found.sha256) == (size, hashlib.sha256(content).digest())
    assert found.digests == digest_all(content)


def test_known_digest_of_a_chunk_is_taken() -> None:
    """A chunk whose digest is known is hashed once less; a part of one is not mistaken for it."""
    content = random.Random(1).randbytes(2 * MIB + 5)
    found = PayloadHash()
    for start in range(0, len(content), MIB):
        part = content[start : start + MIB]
        found.update(part, hashlib.sha256(part).digest()[:DIGEST_BYTES])
    assert (found.sha256, found.digests) == (hashlib.sha256(content).digest(), digest_all(content))


@pytest.mark.parametrize("size", [MIB, MIB + 1, 2 * MIB, 2 * MIB + 1])
@pytest.mark.parametrize("json", [False, True])
def test_row_is_written_with_the_version(vault: Vault, size: int, json: bool) -> None:
    """Blobs and documents over 1 MiB have their digests from the first moment; others need none."""
    content = b'{"a":"' + b"x" * (size - 8) + b'"}' if json else os.urandom(size)
    vault.put("a.b", content)
    assert list_rows(vault) == describe(content)
    vault.put("c.d", content)
    assert list_rows(vault) == describe(content)


def test_missing_row_is_made_by_whoever_reads(vault: Vault) -> None:
    """After one read of a payload without digests, the row is there again."""
    content = os.urandom(2 * MIB + 1)
    version = vault.put("a.b", content)
    vault.settle()
    vault.apply(lambda transaction: transaction.db.execute("DELETE FROM chunks"))
    root = vault.layout.root
    assert vault.open_payload(version).read(MIB, 10) == content[MIB : MIB + 10]
    vault.close()
    with Vault.open(root) as again:
        assert list_rows(again) == describe(content)


def test_row_of_another_length_is_not_believed(vault: Vault) -> None:
    """Digests that cannot be those of the payload are computed anew."""
    content = os.urandom(2 * MIB + 1)
    version = vault.put("a.b", content)
    vault.apply(lambda transaction: transaction.db.execute("UPDATE chunks SET digests = x'00'"))
    assert vault.read_payload(version) == content


def test_row_goes_with_the_payload(vault: Vault) -> None:
    """What is destroyed leaves no digests; who still has the same payload reads it all the same."""
    content, other = os.urandom(MIB + 1), os.urandom(MIB + 1)
    for payload in (content, other):
        vault.put("a.b", payload)
    kept = vault.put("c.d", content)
    vault.delete_scope("a.b", forever=True)
    assert hashlib.sha256(other).digest() not in list_rows(vault)
    assert vault.read_payload(kept) == content


def test_imported_version_has_its_row(vault: Vault, tmp_path: Path) -> None:
    """Versions that come from elsewhere are hashed by chunks on the way in."""
    content = os.urandom(2 * MIB + 3)
    vault.put("a.b", content, name="a.bin")
    with Vault.open(tmp_path / "second", create=True) as second:
        Importer(second, VaultSource(vault), lambda _: None).run()
        assert list_rows(second) == describe(content)


def test_scratch_file_has_its_row_while_it_is_one(vault: Vault) -> None:
    """A large scratch file is checked by chunks too; its digests go when it is written anew."""
    scope_node = make_scope(vault, "a.b")
    node = vault.apply(rows.allocate_nodes, 1)
    found = []
    for size in (MIB + 1, 5):
        draft = vault.new_draft()
        draft.append(os.urandom(size))
        sealed = draft.seal(b"a~")
        write = Write(vault.owner_name, scope_node, node, scope_node, b"a~", 0o644, 0, sealed)
        vault.apply(publish.apply_release, write, vault.scratch)
        found.append(list_rows(vault))
    assert [len(rows) for rows in found] == [1, 0]
