"""What is put is what is read, byte for byte, however odd, settled or not."""

import base64
import hashlib
import json
import os
import random
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.model.envelope import decode_envelope, decode_stored, find_payload_slice
from scopefs.model.payload import Kind
from scopefs.store.index import Version
from tests.store.inspection import run_python
from tests.vault.traps import TRAPS


def refuse_constant(text: str) -> float:
    raise AssertionError(f"{text} is no JSON")


def check_envelope(vault: Vault, version: Version, payload: bytes) -> None:
    """Fail unless a version's envelope is one that any JSON reader can read, with this payload."""
    content = vault.read_envelope(version)
    assert len(content) == version.size_bytes
    envelope = decode_envelope(content)
    assert (envelope.scope.raw, envelope.collected_us) == (version.scope, version.collected_us)
    parsed = json.loads(content, parse_int=str, parse_constant=refuse_constant)
    assert list(parsed) == ["version", "scope", "collectedAt", "file", "data"]
    data = parsed["data"]
    if version.kind is Kind.DOCUMENT:
        assert envelope.data == payload.strip(b" \t\r\n")
        assert b'"data":' + payload + b"}\n" in content
    else:
        digest = hashlib.sha256(payload).hexdigest()
        assert data["$binary"] is True
        assert data["sizeBytes"] == str(len(payload))
        assert data["contentHash"] == f"0x{digest}"
        assert data["encoding"] == ("base64" if version.kind is Kind.INLINE else "blob")
        assert ("content" in data) is (version.kind is Kind.INLINE)
        if version.kind is Kind.INLINE:
            assert base64.b64decode(data["content"], validate=True) == payload
    if version.kind is not Kind.BLOB:
        assert decode_stored(version.kind, find_payload_slice(envelope, content)) == payload


def check_stored(vault: Vault, version: Version, payload: bytes) -> None:
    """Fail unless the payload reads back, whole and in parts, with a sound envelope."""
    assert version.payload_size == len(payload)
    assert version.payload_sha256 == hashlib.sha256(payload).digest()
    assert vault.read_payload(version) == payload
    check_envelope(vault, version, payload)
    source = random.Random(1)
    for open_reader, whole in (
        (vault.open_payload, payload),
        (vault.open_envelope, vault.read_envelope(version)),
    ):
        reader = open_reader(version)
        assert reader.size == len(whole)
        for _ in range(5):
            start, size = source.randrange(len(whole) + 1), source.randrange(len(whole) + 9)
            assert reader.read(start, size) == whole[start : start + size]
        reader.close()


@pytest.mark.parametrize(("payload", "kind"), TRAPS.values(), ids=TRAPS.keys())
def test_odd_payload_is_kept(vault: Vault, payload: bytes, kind: Kind) -> None:
    """No payload is refused for its content, and every one reads back before and after settling."""
    version = vault.put("a.b", payload, name="file")
    assert version.kind is kind
    check_stored(vault, version, payload)
    vault.settle()
    check_stored(vault, version, payload)
    assert vault.get("a.b") == version


def test_empty_payload_makes_no_version(vault: Vault) -> None:
    """0 bytes are refused in words, and leave no scope behind."""
    with pytest.raises(Exception, match="empty payload makes no version") as caught:
        vault.put("a.b", b"")
    assert caught.typename == "InvalidBody"
    assert vault.events() == []


def make_noise(size: int) -> bytes:
    """Bytes that are no JSON."""
    return b"\0" + os.urandom(size - 1)


def make_document(size: int) -> bytes:
    """One JSON object of exactly that many bytes."""
    return b'{"a":"' + b"x" * (size - 8) + b'"}'


KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize("size", [1, 2, 3, 16 * KIB - 1, 16 * KIB])
def test_binary_up_to_16_kib_stands_in_its_envelope(vault: Vault, size: int) -> None:
    """Up to 16,384 bytes there is no second file."""
    payload = make_noise(size)
    version = vault.put("a.b", payload)
    assert version.kind is Kind.INLINE
    vault.settle()
    check_stored(vault, version, payload)
    assert list(vault.layout.blobs.iterdir()) == []


@pytest.mark.parametrize("size", [16 * KIB + 1, 64 * KIB, 64 * KIB + 1, MIB - 1, MIB, MIB + 1])
def test_larger_binary_is_a_blob(vault: Vault, size: int) -> None:
    """Above 16,384 bytes the payload is a file of its own, around the row's limit too."""
    payload = make_noise(size)
    version = vault.put("a.b", payload)
    assert version.kind is Kind.BLOB
    check_stored(vault, version, payload)
    vault.settle()
    check_stored(vault, version, payload)
    assert vault.layout.blob(version.payload_sha256).read_bytes() == payload


@pytest.mark.parametrize("size", [16 * KIB + 1, 64 * KIB, 64 * KIB + 1, MIB, MIB + 1])
def test_document_of_any_size_is_verbatim(vault: Vault, size: int) -> None:
    """A JSON object is a document around the limits of inline payloads and of rows as well."""
    payload = make_document(size)
    version = vault.put("a.b", payload)
    assert version.kind is Kind.DOCUMENT
    check_stored(vault, version, payload)
    vault.settle()
    check_stored(vault, version, payload)


@pytest.mark.parametrize(("size", "kind"), [(50 * MIB, Kind.DOCUMENT), (50 * MIB + 1, Kind.BLOB)])
def test_document_limit_is_50_mib(vault: Vault, tmp_path: Path, size: int, kind: Kind) -> None:
    """52,428,800 bytes of JSON are a document, one more is a blob; both read back."""
    payload = make_document(size)
    version = vault.put("a.b", payload, name="large.json")
    assert version.kind is kind
    assert vault.read_payload(version) == payload
    vault.settle()
    assert vault.read_payload(version) == payload
    envelope = decode_envelope((vault.layout.root / version.path).read_bytes())
    assert (envelope.data == payload) is (kind is Kind.DOCUMENT)


@pytest.mark.parametrize("where", [-8, 70_000, 100])
def test_invalid_utf8_is_found_in_large_payloads(vault: Vault, where: int) -> None:
    """One bad byte anywhere in a large JSON text makes it a blob."""
    payload = bytearray(make_document(100_000))
    payload[where] = 0xFF
    version = vault.put("a.b", payload)
    assert version.kind is Kind.BLOB
    assert vault.read_payload(version) == payload


@pytest.mark.parametrize("depth", [100, 199, 200, 250, 500, 900, 980, 990, 995, 1000, 1100])
def test_every_document_can_be_read_by_json_readers(vault: Vault, depth: int) -> None:
    """However deep a payload nests: if it is a document, its envelope parses."""
    payload = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    version = vault.put("a.b", payload)
    check_envelope(vault, version, payload)
    assert vault.read_payload(version) == payload


_NOISE = """
import hashlib, io, sys
from scopefs import Vault

def peak_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

class Noise(io.RawIOBase):
    def __init__(self, size):
        self.left, self.n = size, 0
        self.block = hashlib.shake_128(b"noise").digest(1 << 20)
        self.hash = hashlib.sha256()
    def read(self, size=-1):
        size = min(size if size >= 0 else self.left, self.left, 1 << 20)
        self.n += 1
        data = (self.n.to_bytes(8, "big") + self.block)[:size]
        self.left -= size
        self.hash.update(data)
        return data

size = int(sys.argv[2])
with Vault.open(sys.argv[1], create=True) as vault:
    vault.put("warm.up", b"x" * 100_000)
    before = peak_kib()
    noise = Noise(size)
    version = vault.put("a.b", noise, name="noise.bin")
    vault.settle()
    assert version.payload_size == size, version
    assert version.payload_sha256 == noise.hash.digest()
    reader = vault.open_payload(version)
    found = hashlib.sha256()
    offset = 0
    while data := reader.read(offset, 1 << 20):
        found.update(data)
        offset += len(data)
    reader.close()
    assert offset == size
    assert found.digest() == noise.hash.digest()
    print(peak_kib() - before)
"""


def test_memory_does_not_grow_with_the_payload(tmp_path: Path) -> None:
    """256 MiB of noise go in as a stream, settle and come out within 24 MiB of memory."""
    size = 256 * MIB
    grown_kib = int(run_python(_NOISE, tmp_path / "v", str(size)))
    assert grown_kib < 24 * KIB
