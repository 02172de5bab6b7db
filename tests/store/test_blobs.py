"""Blobs: each payload stored once, under its hash, and whole."""

import hashlib
import os
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.errors import PayloadCorrupt, PayloadMissing
from scopefs.model.payload import Kind
from tests.store.inspection import list_files

# One that stands in the journal's row, one that has a staging file.
SIZES = (20_000, 100_000)


@pytest.mark.parametrize("size", SIZES)
def test_blob_stands_under_its_sha256(vault: Vault, size: int) -> None:
    """The file is blobs/<first two digits>/<sha256>, and holds the payload."""
    content = os.urandom(size)
    assert vault.put("a.b", content).kind is Kind.BLOB
    vault.settle()
    digest = hashlib.sha256(content).hexdigest()
    assert list_files(vault.layout.blobs) == [f"{digest[:2]}/{digest}"]
    assert (vault.layout.blobs / digest[:2] / digest).read_bytes() == content


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settle_between", [False, True])
def test_equal_blobs_are_stored_once(vault: Vault, size: int, settle_between: bool) -> None:
    """Two versions with equal bytes share one file, whether or not they settle together."""
    content = os.urandom(size)
    vault.put("a.b", content)
    if settle_between:
        vault.settle()
    vault.put("c.d", content)
    vault.settle()
    assert len(list_files(vault.layout.blobs)) == 1
    assert vault.read_payload(vault.get("a.b")) == vault.read_payload(vault.get("c.d")) == content


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("damage", [b"", b"torn", None])
def test_damaged_blob_is_healed_by_the_next_equal_one(
    vault: Vault, size: int, damage: bytes | None
) -> None:
    """Wrong bytes under a hash are replaced when the right ones come; old versions gain by it."""
    content = os.urandom(size)
    old = vault.put("a.b", content)
    vault.settle()
    vault.layout.blob(old.payload_sha256).write_bytes(bytes(size) if damage is None else damage)
    vault.put("a.b", content)
    vault.settle()
    assert vault.layout.blob(old.payload_sha256).read_bytes() == content
    assert vault.read_payload(old) == content


def test_blob_survives_the_deletion_of_one_of_its_versions(vault: Vault) -> None:
    """What two versions share stays while one of them is there."""
    content = os.urandom(20_000)
    first, second = vault.put("a.b", content), vault.put("a.b", content)
    vault.settle()
    vault.delete("a.b", first.stamp)
    vault.settle()
    assert vault.read_payload(second) == content


def test_missing_blob_is_an_error(vault: Vault) -> None:
    """A blob that is not there is PayloadMissing."""
    version = vault.put("a.b", os.urandom(20_000))
    vault.settle()
    vault.layout.blob(version.payload_sha256).unlink()
    with pytest.raises(PayloadMissing):
        vault.read_payload(version)


@pytest.mark.parametrize("size", SIZES)
def test_shorter_blob_is_an_error(vault: Vault, size: int) -> None:
    """A blob that lost bytes is PayloadCorrupt."""
    version = vault.put("a.b", os.urandom(size))
    vault.settle()
    path = vault.layout.blob(version.payload_sha256)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PayloadCorrupt):
        vault.read_payload(version)


def test_small_blob_with_a_flipped_bit_is_an_error(vault: Vault) -> None:
    """Payloads up to 64 KiB are checked whole when they are opened: never wrong bytes."""
    version = vault.put("a.b", os.urandom(20_000))
    vault.settle()
    path = vault.layout.blob(version.payload_sha256)
    content = bytearray(path.read_bytes())
    content[10_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(PayloadCorrupt):
        vault.read_payload(version)


@pytest.mark.parametrize("payload", [b'{"a":"xyz"}', b"plain text"])
def test_small_payload_with_a_flipped_bit_is_an_error(vault: Vault, payload: bytes) -> None:
    """A document or inline payload that changed on the disk is PayloadCorrupt."""
    version = vault.put("a.b", payload)
    vault.settle()
    path = vault.layout.root / version.path
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(PayloadCorrupt):
        vault.read_payload(version)


def test_envelope_with_a_changed_header_is_an_error(vault: Vault) -> None:
    """What stands around the payload is checked too."""
    version = vault.put("a.b", b"{}")
    vault.settle()
    path = vault.layout.root / version.path
    path.write_bytes(path.read_bytes().replace(b'"a.b"', b'"a.c"'))
    with pytest.raises(PayloadCorrupt):
        vault.read_envelope(version)


def test_reader_goes_on_when_its_version_moves_to_the_trash(vault: Vault) -> None:
    """Whoever has a payload open reads it to its end."""
    content = os.urandom(100_000)
    version = vault.put("a.b", content)
    reader = vault.open_payload(version)
    vault.settle()
    vault.delete("a.b", version.stamp)
    vault.settle()
    assert reader.read(0, len(content)) == content


def test_trashed_version_is_still_readable_by_its_row(vault: Vault, tmp_path: Path) -> None:
    """A row that was looked up before its version was deleted and settled leads to the trash."""
    version = vault.put("a.b", b'{"a":1}')
    vault.settle()
    vault.delete("a.b", version.stamp)
    vault.settle()
    assert vault.read_payload(version) == b'{"a":1}'
