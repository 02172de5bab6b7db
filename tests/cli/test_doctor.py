"""`scopefs doctor`: each thing that can be wrong is found, and only then."""

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scopefs import Vault
from scopefs.cli import doctor
from scopefs.cli.doctor import Finding
from tests.mounting import Mounted, run_scopefs, wait_until

_NOBODY = 65534
_DAY_US = 86_400_000_000


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A vault with a version."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        vault.put("my.notes", b"one", name="a.txt")
    return tmp_path / "vault"


def problems(findings: Iterator[Finding]) -> list[Finding]:
    """What is wrong of what was looked at; each says what to do."""
    found = [finding for finding in findings if finding.level == "problem"]
    assert all(finding.do for finding in found)
    return found


def says(findings: Iterator[Finding], text: str) -> bool:
    """Whether exactly one thing is wrong, and that is it."""
    found = problems(findings)
    return len(found) == 1 and text in found[0].what


def ask(vault: Path, point: Path) -> tuple[int, dict[str, Finding]]:
    """What the command finds of this vault: exit code, and findings by their check."""
    done = run_scopefs("doctor", "--json", str(point), vault=vault, check=False)
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["vault"] == str(vault)
    found = [Finding(**members) for members in told["findings"]]
    # Others may have mounts on this machine.
    mine = [each for each in found if each.check != "mounts" or str(point) in each.what]
    wrong = any(each.level == "problem" for each in found)
    assert done.returncode == (6 if wrong else 0)
    assert told["problems"] == sum(each.level == "problem" for each in found)
    return done.returncode, {each.check: each for each in mine}


def test_vault_that_is_well(filled: Path, tmp_path: Path) -> None:
    """Every check says so, the text as well; a vault that is not mounted is no problem."""
    _, found = ask(filled, tmp_path / "mnt")
    assert {
        "versions", "/dev/fuse", "fusermount3", "mount point", "file system", "space",
        "permissions", "vault", "clock", "unsettled", "partial", "trash",
    } <= set(found)  # fmt: skip
    assert [each for each in found.values() if each.level != "ok"] == []
    text = run_scopefs("doctor", str(tmp_path / "mnt"), vault=filled, check=False).stdout.decode()
    assert f"ok       vault: {filled} opens\n" in text
    assert "\x1b" not in text


def test_no_vault_is_no_problem(tmp_path: Path) -> None:
    """It says how to make one, and makes none."""
    _, found = ask(tmp_path / "vault", tmp_path / "mnt")
    assert found["vault"].level == "note"
    assert "scopefs mount" in found["vault"].do
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_another_user_gets_answers_too(filled: Path) -> None:
    """Who may not look into the vault is told so, and of all that can be seen besides."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        code = 1
        try:
            # Imports come first: the tests' Python may be where only root may look.
            import pyfuse3  # noqa: F401

            import scopefs.mount.point
            import scopefs.vault  # noqa: F401

            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            with os.fdopen(writing, "w") as pipe:
                for finding in doctor.examine(filled, Path("/proc/none")):
                    print(finding.check, finding.level, file=pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "mount point problem" in lines
    assert "permissions problem" in lines
    assert "space ok" in lines


def test_device(tmp_path: Path) -> None:
    """Missing, or there and closed to this user."""
    assert says(doctor.check_device(tmp_path / "fuse"), "is missing")
    (tmp_path / "fuse").touch()
    assert problems(doctor.check_device(tmp_path / "fuse")) == []


def test_fusermount(tmp_path: Path) -> None:
    """Missing for all; without setuid for all but root."""
    program = tmp_path / "fusermount3"
    program.touch()
    assert says(doctor.check_fusermount(None, 0), "is missing")
    assert says(doctor.check_fusermount(str(program), 1000), "not setuid root")
    assert problems(doctor.check_fusermount(str(program), 0)) == []
    if os.geteuid() == 0:
        program.chmod(stat.S_ISUID | 0o755)
        assert not says(doctor.check_fusermount(str(program), 1000), "not setuid root")


def test_dead_mount(mounted: Mounted, start: Callable[..., Mounted]) -> None:
    """A mount whose process was killed is found, with the command that clears it away."""
    other = start("other", "dead")
    other.process.send_signal(signal.SIGKILL)
    other.process.wait()
    code, found = ask(other.vault, other.point)
    assert code == 6
    assert "is dead" in found["mounts"].what
    assert f"fusermount3 -uz {other.point}" in found["mounts"].do
    assert "mount point" not in found
    assert problems(doctor.check_answer(mounted.point, 20)) == []


def test_mount_that_hangs(mounted: Mounted) -> None:
    """A stopped process does not stop the doctor."""
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        assert says(doctor.check_answer(mounted.point, 0.2), "does not answer")
    finally:
        mounted.process.send_signal(signal.SIGCONT)
    assert problems(doctor.check_answer(mounted.point, 20)) == []


def test_mount_point(tmp_path: Path, filled: Path, mounted: Mounted) -> None:
    """In use, no directory, around the vault, or foreign; a mount of scopefs is fine."""
    used = tmp_path / "used"
    used.mkdir()
    assert problems(doctor.check_mountpoint(used, filled)) == []
    assert problems(doctor.check_mountpoint(tmp_path / "none", filled)) == []
    (used / "x").touch()
    assert says(doctor.check_mountpoint(used, filled), "not empty")
    assert says(doctor.check_mountpoint(used / "x", filled), "Not a directory")
    assert says(doctor.check_mountpoint(tmp_path, filled), "lie in each other")
    assert says(doctor.check_mountpoint(filled / "mnt", filled), "lie in each other")
    assert says(doctor.check_mountpoint(Path("/proc"), filled), "something else is mounted")
    assert problems(doctor.check_mountpoint(mounted.point, mounted.vault)) == []


def test_permissions(filled: Path) -> None:
    """Open to others, or another user's."""
    uid = os.geteuid()
    assert problems(doctor.check_permissions(filled, uid)) == []
    filled.chmod(0o755)
    assert says(doctor.check_permissions(filled, uid), "other users may look into")
    filled.chmod(0o700)
    assert says(doctor.check_permissions(filled, uid + 1), "belongs to user")


def test_file_system_that_guarantees_little(filled: Path) -> None:
    """What `find_backing` warns of is a problem."""
    table = "1 0 8:1 / / rw - {} /dev/x rw\n"
    assert problems(doctor.check_file_system(filled, table.format("ext4"))) == []
    assert says(doctor.check_file_system(filled, table.format("nfs4")), "on the network")


@pytest.mark.parametrize(
    ("free", "files", "expected"),
    [(1 << 30, 50_000, []), (1 << 20, 50_000, ["space"]), (200 << 20, 50_000, ["space"]),
     (1 << 30, 10, ["inodes"]), (1 << 20, 10, ["space", "inodes"])],
)  # fmt: skip
def test_space(free: int, files: int, expected: list[str]) -> None:
    """Too few bytes, too few inodes."""
    blocks = (2 << 30) // 4096
    found = (4096, 4096, blocks, free // 4096, free // 4096, 100_000, files, files, 0, 255)
    given = os.statvfs_result(found)
    assert [each.check for each in problems(doctor.judge_space(given))] == expected


def test_file_system_that_counts_no_inodes() -> None:
    """As btrfs: that there are none is no problem."""
    given = os.statvfs_result((4096, 4096, 1 << 20, 1 << 20, 1 << 20, 0, 0, 0, 0, 255))
    assert [each.check for each in doctor.judge_space(given)] == ["space"]


def test_clock(tmp_path: Path) -> None:
    """Behind the newest event, and so with stamps in the future."""
    now_us = time.time_ns() // 1000
    with Vault.open(tmp_path / "v", create=True) as vault:
        vault.put("my.notes", b"one", name="a.txt")
        assert problems(doctor.check_clock(vault, now_us + _DAY_US)) == []
        found = problems(doctor.check_clock(vault, now_us - _DAY_US))
    assert "is behind the newest event" in found[0].what
    assert "1 version(s) have stamps in the future" in found[1].what


def test_vault_that_does_not_open(filled: Path, tmp_path: Path) -> None:
    """Its own words say what to do."""
    (filled / "index.db").unlink()
    code, found = ask(filled, tmp_path / "mnt")
    assert code == 6
    assert "scopefs reindex" in found["vault"].do


def test_vault_that_somebody_holds(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and not waited for without end."""
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.2)
    holder = subprocess.Popen(
        ["flock", "--no-fork", filled / "vault.lock", "sh", "-c", "echo held; exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        findings = list(doctor.examine(filled, tmp_path / "mnt"))
        holder.communicate(b"")
    assert "does not open in" in findings[-1].what
    wait_until(lambda: not problems(iter(list(doctor.examine(filled, tmp_path / "mnt"))[-6:])))


def test_work_that_does_not_move(tmp_path: Path) -> None:
    """What could not be placed for a minute is told; what has just been published is not."""
    with Vault.open(tmp_path / "v", create=True) as vault:
        vault.put("my.notes", b"one", name="a.txt")
        vault.settle()
        # Nothing can be placed where a file stands in the way.
        (tmp_path / "v" / "data" / "my" / "stuck").touch()
        vault.put("my.stuck", b"two", name="b.txt")
        now_us = time.time_ns() // 1000
        assert problems(doctor.check_unsettled(vault, now_us, wait_s=0)) == []
        late_us = now_us + 120_000_000
        assert says(doctor.check_unsettled(vault, late_us, wait_s=0.1), "1 version(s) have waited")
        (tmp_path / "v" / "data" / "my" / "stuck").unlink()
        vault.settle()
        assert problems(doctor.check_unsettled(vault, late_us)) == []


def test_leftovers_are_notes(filled: Path) -> None:
    """Interrupted writes and the trash: how many, how much, what to type; no problem."""
    (filled / "partial" / "2026-01-21T10-00-00Zu000000-0aca7344.bin").write_bytes(b"x" * 2048)
    with Vault.open(filled) as vault:
        vault.delete_scope("my.notes")
        partial, trash = doctor.check_leftovers(vault)
    assert (partial.level, trash.level) == ("note", "note")
    assert "1 interrupted write(s), 2.0 KiB" in partial.what
    assert "scopefs partial list" in partial.do
    assert trash.what == "1 removal(s), 3 bytes"
