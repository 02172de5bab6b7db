"""Writing a stamp in `.versions/` imports that version; nothing there is ever changed."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from scopefs.model.imports import ENVELOPE_MAX_BYTES
from tests.mounting import Mounted, run_scopefs

AT = "2020-01-01T00:00:00Z"
STAMP = "2020-01-01T00-00-00Z.json"


def envelope(scope: Path, data: str = '{"x": 1}', at: str = AT) -> bytes:
    """An envelope of another program for a scope's directory."""
    name = ".".join(scope.parts[-2:])
    return f'{{"version":"1.0","scope":"{name}","collectedAt":"{at}","data":{data}}}'.encode()


def list_versions(scope: Path) -> list[str]:
    return sorted(name for name in os.listdir(scope / ".versions") if name != "latest.json")


def save_two(scope: Path, aside: Path) -> tuple[Path, Path]:
    """Two versions of a file; copies of their envelopes, older first."""
    for text in ("one\n", "two\n"):
        (scope / "a.txt").write_text(text)
    copies = []
    for name in list_versions(scope):
        copies.append(aside / name)
        copies[-1].write_bytes((scope / ".versions" / name).read_bytes())
    return copies[0], copies[1]


def run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def rejected(shared: Mounted) -> list[dict[str, str]]:
    text = (shared.point / ".scopefs/rejected.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def write_whole(path: Path, content: bytes, flags: int = os.O_CREAT | os.O_TRUNC) -> int:
    """Write a file as cp does; returns the errno of its write or close, or 0."""
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        os.write(fd, content)
    except OSError as error:
        os.close(fd)
        return error.errno or 0
    try:
        os.close(fd)
    except OSError as error:
        return error.errno or 0
    return 0


@pytest.mark.parametrize("tool", [["cp"], ["cp", "-p"], ["rsync", "--inplace"]])
def test_a_version_copied_in_is_there_with_its_name(
    scope: Path, tmp_path: Path, tool: list[str]
) -> None:
    """After rm: the same bytes, and the name shows it if it is the newest."""
    older, newer = save_two(scope, tmp_path)
    for copy in (older, newer):
        os.unlink(scope / ".versions" / copy.name)
    assert list_versions(scope) == []
    assert not (scope / "a.txt").exists()
    for copy in (newer, older):
        done = run(*tool, copy, scope / ".versions/")
        assert done.returncode == 0, done.stderr
    assert list_versions(scope) == [older.name, newer.name]
    for copy in (older, newer):
        found = scope / ".versions" / copy.name
        assert found.read_bytes() == copy.read_bytes()
        assert found.stat().st_mode & 0o777 == 0o444
    assert (scope / "a.txt").read_text() == "two\n"
    assert sorted(p.read_text() for p in (scope / ".history/a.txt").glob("2*")) == [
        "one\n", "two\n"
    ]  # fmt: skip


def test_equal_bytes_change_nothing(scope: Path, tmp_path: Path) -> None:
    """cp over a version with a copy of itself succeeds; so does one that overwrites in place."""
    older, _ = save_two(scope, tmp_path)
    target = scope / ".versions" / older.name
    before = target.stat()
    assert run("cp", older, target).returncode == 0
    assert run("dd", f"if={older}", f"of={target}", "conv=notrunc,fsync").returncode == 0
    assert run("dd", f"if={older}", f"of={target}", "bs=7").returncode == 0
    assert (target.stat().st_size, target.stat().st_mtime_ns) == (
        before.st_size,
        before.st_mtime_ns,
    )
    assert target.read_bytes() == older.read_bytes()
    assert len(list_versions(scope)) == 2


def test_other_bytes_are_refused_at_close(scope: Path, tmp_path: Path, shared: Mounted) -> None:
    """A valid envelope EEXIST, anything else EINVAL; who reads meanwhile sees the version."""
    older, _ = save_two(scope, tmp_path)
    target = scope / ".versions" / older.name
    reader = os.open(target, os.O_RDONLY)
    whole = older.read_bytes()
    assert os.pread(reader, 10_000, 0) == whole
    at = json.loads(whole)["collectedAt"]
    assert write_whole(target, envelope(scope, at=at)) == errno.EEXIST
    for content, flags in ((b"x", os.O_TRUNC), (b"{}", os.O_TRUNC), (b"x", 0)):
        assert write_whole(target, content, flags) == errno.EINVAL
        assert os.pread(reader, 10_000, 0) == target.read_bytes() == whole
        assert target.stat().st_size == len(whole)
    os.close(reader)
    reasons = [line["reason"] for line in rejected(shared)]
    assert any("another version" in reason for reason in reasons)
    assert (scope / ".versions" / older.name).read_bytes() == older.read_bytes()


def test_echo_into_a_version_is_told(scope: Path, tmp_path: Path) -> None:
    """A shell looks at its write, not at its close."""
    older, _ = save_two(scope, tmp_path)
    done = subprocess.run(
        ["bash", "-c", f"echo 3 > .versions/{older.name}"], cwd=scope, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Invalid argument" in done.stderr) == (1, True)
    assert (scope / ".versions" / older.name).read_bytes() == older.read_bytes()


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_TRUNC])
def test_other_ways_to_write_a_version_are_refused_at_once(
    scope: Path, tmp_path: Path, flags: int
) -> None:
    """Nobody means to import like that: EPERM, also for truncate(2) and in `.history`."""
    older, _ = save_two(scope, tmp_path)
    target = scope / ".versions" / older.name
    payload = next((scope / ".history/a.txt").glob("2*"))
    for path in (target, payload):
        with pytest.raises(PermissionError):
            os.open(path, flags)
        with pytest.raises(PermissionError):
            os.truncate(path, 1)
    with pytest.raises(PermissionError):
        os.open(payload, os.O_WRONLY)
    assert target.read_bytes() == older.read_bytes()


def test_nothing_written_is_nothing_done(scope: Path) -> None:
    """touch, `: >`, and cp of an empty file."""
    target = scope / ".versions" / STAMP
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT))
    assert write_whole(target, b"") == 0
    assert list_versions(scope) == []
    assert not target.exists()


def test_written_in_any_order_and_size(scope: Path) -> None:
    """At any offset, truncated and extended; a document of more than 64 KiB."""
    target = scope / ".versions" / STAMP
    content = envelope(scope, '{"x":"' + "y" * 300_000 + '"}')
    fd = os.open(target, os.O_WRONLY | os.O_CREAT)
    os.ftruncate(fd, 400_000)
    for start in range(len(content) // 2, len(content), 50_000):
        os.pwrite(fd, content[start : start + 50_000], start)
    os.pwrite(fd, content[: len(content) // 2], 0)
    os.ftruncate(fd, len(content))
    assert os.fstat(fd).st_size == len(content)
    os.close(fd)
    latest = json.loads((scope / ".versions/latest.json").read_bytes())
    assert latest["data"] == {"x": "y" * 300_000}


def test_what_was_cut_short_leaves_nothing(scope: Path) -> None:
    """An envelope that never became whole is told at each close, and dropped."""
    target = scope / ".versions" / STAMP
    content = envelope(scope)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT)
    os.write(fd, content[:20])
    for _ in range(2):
        with pytest.raises(OSError, match="Invalid argument"):
            os.close(os.dup(fd))
    assert list_versions(scope) == []
    os.write(fd, content[20:])
    os.close(fd)
    assert list_versions(scope) == [STAMP]


@pytest.mark.parametrize(
    "content",
    [b"x", b"[]", b'{"version":"1.0"}', b'{"version":"1.0","scope":"a.b","collectedAt":"'
     + AT.encode() + b'","data":{}}'],
)  # fmt: skip
def test_what_is_no_envelope_of_that_place_is_einval(
    scope: Path, shared: Mounted, content: bytes
) -> None:
    """In words in rejected.jsonl."""
    assert write_whole(scope / ".versions" / STAMP, content) == errno.EINVAL
    last = rejected(shared)[-1]
    assert (last["operation"], last["try"]) == ("import", "scopefs import SOURCE")
    assert last["path"] == str(scope / ".versions" / STAMP)
    assert list_versions(scope) == []


def test_a_version_of_the_future_is_einval(scope: Path) -> None:
    """collectedAt more than five seconds ahead of the clock."""
    target = scope / ".versions/2999-01-01T00-00-00Z.json"
    content = envelope(scope, at="2999-01-01T00:00:00Z")
    assert write_whole(target, content) == errno.EINVAL


def test_a_blob_that_is_not_here_is_einval(scope: Path, shared: Mounted, tmp_path: Path) -> None:
    """The words name the command that brings it."""
    name = ".".join(scope.parts[-2:])
    other = tmp_path / "other"
    run_scopefs("put", name, "-", vault=other, input=os.urandom(50_000))
    found = next((other / "data").rglob("*.json"))
    assert write_whole(scope / ".versions" / found.name, found.read_bytes()) == errno.EINVAL
    assert "scopefs import" in rejected(shared)[-1]["reason"]


def test_too_much_for_an_envelope_is_efbig(scope: Path) -> None:
    """Told at the write that goes too far."""
    fd = os.open(scope / ".versions" / STAMP, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="too large"):
        os.pwrite(fd, b"x", ENVELOPE_MAX_BYTES)
    os.close(fd)


@pytest.mark.parametrize("name", ["x", "x.json", "2020-01-01T00-00-00Z", f".{STAMP}.AbCdEf"])
def test_a_name_that_is_no_stamp_is_einval(scope: Path, shared: Mounted, name: str) -> None:
    """Told at the creation, with what to use instead: rsync writes under another name first."""
    with pytest.raises(OSError, match="Invalid argument"):
        os.open(scope / ".versions" / name, os.O_WRONLY | os.O_CREAT)
    reason = rejected(shared)[-1]["reason"]
    assert all(word in reason for word in ("cp", "rsync --inplace", "scopefs import"))


def test_a_stamp_elsewhere_is_an_ordinary_name(scope: Path) -> None:
    """Also in `.history` nothing can be made."""
    (scope / STAMP).write_bytes(envelope(scope))
    assert (scope / STAMP).read_bytes() == envelope(scope)
    assert STAMP not in list_versions(scope)
    with pytest.raises(PermissionError):
        os.open(scope / ".history" / STAMP.replace("2020", "2019"), os.O_WRONLY | os.O_CREAT)


def test_a_file_renamed_to_a_stamp_is_imported(scope: Path) -> None:
    """Its name ends, its own versions stay."""
    (scope / "e.json").write_bytes(envelope(scope))
    os.rename(scope / "e.json", scope / ".versions" / STAMP)
    assert os.listdir(scope) == []
    assert len(list_versions(scope)) == 2
    assert json.loads((scope / ".versions" / STAMP).read_bytes())["data"] == {"x": 1}
    (scope / "again.json").write_bytes(envelope(scope))
    os.rename(scope / "again.json", scope / ".versions" / STAMP)
    assert os.listdir(scope) == []


def test_a_rename_that_cannot_be_changes_nothing(scope: Path, shared: Mounted) -> None:
    """No envelope, another version there, another scope, a directory, a symbolic link, no stamp."""
    other = shared.make_scope("test.elsewhere")
    (scope / "x").write_bytes(b"x")
    (other / "e.json").write_bytes(envelope(scope))
    (scope / ".versions" / STAMP).write_bytes(envelope(scope))
    (scope / "differs").write_bytes(envelope(scope, '{"x": 2}'))
    (scope / "Folder").mkdir()
    (scope / "link").symlink_to("x")
    (scope / "empty").touch()
    before = sorted(os.listdir(scope)), list_versions(scope)
    for source, target, code in (
        (scope / "x", STAMP.replace("2020", "2019"), errno.EINVAL),
        (scope / "empty", STAMP.replace("2020", "2019"), errno.EINVAL),
        (scope / "link", STAMP.replace("2020", "2019"), errno.EINVAL),
        (scope / "x", "no.stamp", errno.EINVAL),
        (scope / "differs", STAMP, errno.EEXIST),
        (other / "e.json", STAMP.replace("2020", "2019"), errno.EXDEV),
        (scope / "Folder", STAMP.replace("2020", "2019"), errno.EXDEV),
        (scope / ".versions" / STAMP, STAMP.replace("2020", "2019"), errno.EPERM),
    ):
        with pytest.raises(OSError, match=os.strerror(code)):
            os.rename(source, scope / ".versions" / target)
    assert (sorted(os.listdir(scope)), list_versions(scope)) == before
    assert (other / "e.json").exists()


def test_whoever_opened_the_name_sees_what_was_imported(scope: Path, tmp_path: Path) -> None:
    """The kernel's cache of the file does not outlive an imported newer version."""
    older, newer = save_two(scope, tmp_path)
    os.unlink(scope / ".versions" / newer.name)
    assert (scope / "a.txt").read_text() == "one\n"
    assert run("cp", newer, scope / ".versions/").returncode == 0
    assert (scope / "a.txt").read_text() == "two\n"
    assert older.exists()


def test_an_import_into_a_mounted_vault_is_seen(
    shared: Mounted, scope: Path, tmp_path: Path
) -> None:
    """`scopefs import` shares the vault with the mount."""
    name = ".".join(scope.parts[-2:])
    other = tmp_path / "other"
    run_scopefs("put", name, "-", "--name", "a.txt", vault=other, input=b"elsewhere\n")
    run_scopefs("put", name, "-", "--name", "Folder/b", vault=other, input=os.urandom(50_000))
    run_scopefs("import", str(other), vault=shared.vault)
    assert (scope / "a.txt").read_text() == "elsewhere\n"
    assert (scope / "Folder/b").stat().st_size == 50_000
    assert len(list_versions(scope)) == 2
