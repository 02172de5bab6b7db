"""Payloads of every kind come back byte for byte: at once, once settled, and after a remount."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from scopefs.model.envelope import Envelope, decode_envelope
from scopefs.model.payload import Kind
from tests.mount.conftest import LATE_RELEASE
from tests.mount.reading import count_versions, read_history, wait_settled
from tests.mounting import Mounted, start_mount

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
DOCUMENT_MAX = 52_428_800
MEMORY_MAY_GROW = 100 * MIB

Start = Callable[..., Mounted]

DOCUMENTS = {
    "plain": b'{"name":"ada"}',
    "trailing newline": b'{"a":1}\n',
    "blanks around": b' \t\r\n{ "a" : 1 }\r\n \n',
    "CRLF": b'{\r\n  "a": 1\r\n}\r\n',
    "empty object": b"{}",
    "1e999": b'{"a":1e999,"b":-1e999}',
    "beyond 2^53": b'{"a":9007199254740993,"b":12345678901234567890123456789,"c":1.10}',
    "duplicate keys": b'{"a":1,"a":2,"a":{"a":3,"a":4}}',
    "$binary": b'{"$binary":true}',
    "$binary in full": b'{"$binary":true,"encoding":"base64","content":"eA==","sizeBytes":1}',
    "escapes": b'{"\\u0000\\uD83D\\uDE00":"\\/\\b"}',
    "member order": b'{"z":1,"a":{"y":[{"x":null}]},"data":{"version":"1.0"}}',
    "envelope": b'{"version":"1.0","scope":"a.b","collectedAt":"2026-01-21T10:00:00Z","data":{}}',
    "large": b'{"a":[' + b"1234567890," * 50_000 + b"0]}",
}
OTHERS = {
    "array": b"[]",
    "number": b"1",
    "null": b"null",
    "string": b'"text"',
    "JSONL": b'{"a":1}\n{"a":2}\n',
    "two objects": b"{}{}",
    "BOM": b'\xef\xbb\xbf{"a":1}',
    "NaN": b'{"a":NaN,"b":Infinity}',
    "invalid UTF-8 in a string": b'{"a":"\xff\xfe"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "UTF-8 surrogate": b'{"a":"\xed\xa0\x80"}',
    "lone surrogate": b'{"a":"\\ud800"}',
    "100,000 nested arrays": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "cut off": b'{"a":[1,2',
    "trailing comma": b'{"a":1,}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "one byte": b"\0",
    "newline": b"\n",
    "braces of noise": b"{" + os.urandom(1000) + b"}",
    "text": b"hello\n",
    "16 KiB": os.urandom(16 * KIB),
    "16 KiB and a byte": os.urandom(16 * KIB + 1),
    "64 KiB": os.urandom(64 * KIB),
    "64 KiB and a byte": os.urandom(64 * KIB + 1),
    "MiB of noise": os.urandom(MIB),
    "MiB of zeros": bytes(MIB),
}
PAYLOADS = {**DOCUMENTS, **OTHERS}


def name_of(case: str) -> str:
    """The file that holds a case."""
    return f"{case}.json"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Mounted]]:
    """A mount with all payloads in `my.files`; the newest in the list is the one that runs."""
    directory = tmp_path_factory.mktemp("payloads")
    mounts = [start_mount(directory / "vault", directory / "mnt0")]
    try:
        scope = mounts[0].make_scope()
        (scope / "empty.json").touch()
        for case, content in PAYLOADS.items():
            (scope / name_of(case)).write_bytes(content)
            # Read as long as neither name nor envelope can have been settled.
            assert (scope / name_of(case)).read_bytes() == content
            assert read_history(scope, name_of(case)) == [content]
        yield mounts
        mounts[-1].stop()
        for mount in mounts:
            mount.expected_alarms.append(LATE_RELEASE)
            mount.check_log()
    finally:
        for mount in mounts:
            mount.clean_up()


@pytest.fixture(scope="module", params=["settled", "remounted"])
def stored(filled: list[Mounted], request: pytest.FixtureRequest) -> Path:
    """The scope with all payloads, in every later state of the vault."""
    mounted = filled[-1]
    if request.param == "settled":
        wait_settled(mounted)
    else:
        mounted.stop()
        mounted = start_mount(mounted.vault, mounted.vault.parent / "mnt1")
        filled.append(mounted)
    return mounted.make_scope()


def read_envelopes(scope: Path) -> dict[str, tuple[Envelope, bytes]]:
    """The envelopes in `.versions` by the case that their file is, each with its bytes."""
    found = {}
    for entry in os.scandir(scope / ".versions"):
        if entry.name != "latest.json":
            content = Path(entry.path).read_bytes()
            assert os.stat(entry.path).st_size == len(content)
            envelope = decode_envelope(content)
            assert envelope.file is not None
            assert envelope.file.name is not None
            found[envelope.file.name.decode().removesuffix(".json")] = (envelope, content)
    return found


@pytest.mark.parametrize("case", PAYLOADS)
def test_payload_reads_back(stored: Path, case: str) -> None:
    """Name and history show exactly the bytes that were written, with the right size."""
    path = stored / name_of(case)
    assert path.read_bytes() == PAYLOADS[case]
    assert os.stat(path).st_size == len(PAYLOADS[case])
    assert read_history(stored, name_of(case)) == [PAYLOADS[case]]


def test_every_payload_has_one_version(stored: Path) -> None:
    """Each payload is one version; the empty file is none."""
    assert count_versions(stored) == len(PAYLOADS)
    assert set(read_envelopes(stored)) == set(PAYLOADS)
    assert (stored / "empty.json").read_bytes() == b""


def test_json_objects_stand_in_their_envelopes_verbatim(stored: Path) -> None:
    """`data` of a document is its bytes, blanks and all."""
    envelopes = read_envelopes(stored)
    for case, payload in DOCUMENTS.items():
        envelope, content = envelopes[case]
        assert envelope.file is not None
        assert envelope.file.kind is Kind.DOCUMENT, case
        assert content.endswith(b'"data":' + payload + b"}\n"), case


def test_everything_else_is_binary(stored: Path) -> None:
    """Whatever is no JSON object in UTF-8 is described, and held inline up to 16 KiB."""
    envelopes = read_envelopes(stored)
    for case, payload in OTHERS.items():
        envelope, _ = envelopes[case]
        data = msgspec.json.decode(envelope.data)
        inline = len(payload) <= 16 * KIB
        assert data["$binary"] is True, case
        assert data["encoding"] == ("base64" if inline else "blob"), case
        assert ("content" in data) is inline, case
        assert data["sizeBytes"] == len(payload), case
        assert data["contentHash"] == f"0x{hashlib.sha256(payload).hexdigest()}", case


# Large ones


def read_peak(mounted: Mounted) -> int:
    """The most memory the daemon has ever held, in bytes."""
    for line in Path(f"/proc/{mounted.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    raise AssertionError("no VmHWM")


def reset_peak(mounted: Mounted) -> None:
    """Let VmHWM begin anew at what is held now."""
    Path(f"/proc/{mounted.process.pid}/clear_refs").write_text("5")


def write_json_of(path: Path, size: int) -> None:
    """One JSON object of exactly that many bytes."""
    head, tail = b'{"a":"', b'"}'
    with path.open("wb") as file:
        file.write(head)
        left = size - len(head) - len(tail)
        while left:
            step = min(left, MIB)
            file.write(b"x" * step)
            left -= step
        file.write(tail)


@pytest.mark.parametrize(
    ("size", "kind"), [(DOCUMENT_MAX, Kind.DOCUMENT), (DOCUMENT_MAX + 1, Kind.BLOB)]
)
def test_json_at_the_limit(
    shared: Mounted, scope: Path, tmp_path: Path, size: int, kind: Kind
) -> None:
    """50 MiB of JSON are a document, one byte more a blob; both come back as they were."""
    source = tmp_path / "large.json"
    write_json_of(source, size)
    (scope / "warm.json").write_bytes(b'{"a":1}')
    reset_peak(shared)
    before = read_peak(shared)
    subprocess.run(["cp", source, scope], check=True)
    target = scope / "large.json"
    subprocess.run(["cmp", source, target], check=True)
    subprocess.run(["cmp", source, scope / ".history" / target.name / "latest.json"], check=True)
    wait_settled(shared)
    subprocess.run(["cmp", source, scope / ".history" / target.name / "latest.json"], check=True)
    latest = scope / ".versions" / "latest.json"
    content = latest.read_bytes()
    assert len(content) == os.stat(latest).st_size
    envelope = decode_envelope(content)
    assert envelope.file is not None
    assert envelope.file.kind is kind
    assert envelope.file.size_bytes == size
    grown = read_peak(shared) - before
    assert grown < MEMORY_MAY_GROW, f"memory grew by {grown / MIB:.0f} MiB"
