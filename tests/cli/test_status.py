"""`scopefs status`: sizes and ages for people, bytes and times for programs."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scopefs import Vault
from scopefs.cli.status import describe_age, describe_bytes, rate_text, read_running
from scopefs.model.stamps import parse_collected_at
from scopefs.store import index
from scopefs.store.index import measure_rate
from tests.mounting import Mounted, run_scopefs

Run = Callable[..., "CompletedProcess[bytes]"]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A vault with two versions of a.json, one of b.txt, and a subcategory."""
    path = tmp_path / "vault"
    with Vault.open(path, create=True) as vault:
        vault.put("my.files", b'{"a":1}', name="a.json")
        vault.put("my.files", b'{"a":2}', name="a.json")
        vault.put("my.files", b"text", name="b.txt")
        vault.put("my.files.shared", b"below", name="c.txt")
    return path


@pytest.fixture
def run(filled: Path) -> Run:
    """Runs a command on the vault."""

    def call(*arguments: str) -> "CompletedProcess[bytes]":
        found: CompletedProcess[bytes] = run_scopefs(*arguments, vault=filled)
        return found

    return call


def test_status_tells_ages_to_people_and_times_to_programs(run: Run, filled: Path) -> None:
    """The last writes, newest first; what is in partial/ and in the trash, with sizes."""
    (filled / "partial" / "2026-01-21T10-00-00Zu000000-0aca7344.bin").write_bytes(b"x" * 2048)
    run("rm", "my.files.shared")
    text = run("status").stdout.decode()
    last = re.search(r"^last writes +(.*)$", text, re.MULTILINE)
    assert last is not None
    assert re.fullmatch(r"my\.files  b\.txt  4 bytes  (just now|\d+ seconds ago)", last.group(1))
    assert re.search(r"^partial +1 \(2\.0 KiB\)$", text, re.MULTILINE)
    assert re.search(r"^trash +1 removal\(s\) \(5 bytes\)$", text, re.MULTILINE)
    assert "\x1b" not in text
    found = json.loads(run("status", "--json").stdout)
    assert [write["name"] for write in found["lastWrites"]] == ["b.txt", "a.json", "a.json"]
    assert found["lastWrites"][0]["collectedAt"].endswith("Z")
    assert (found["partialBytes"], found["trash"]["payloadBytes"]) == (2048, 5)
    assert found["running"] is None


@pytest.mark.parametrize(
    ("at", "said"),
    [("2026-03-01T12:00:00Z", "just now"), ("2026-03-01T11:59:30Z", "30 seconds ago"),
     ("2026-03-01T11:59:00Z", "1 minute ago"), ("2026-03-01T10:00:00Z", "2 hours ago"),
     ("2026-02-28T12:00:00Z", "1 day ago"), ("2026-01-10T12:00:00Z", "50 days ago"),
     ("2025-03-01T12:00:00Z", "on 2025-03-01"),
     ("2026-03-01T13:00:00Z", "in the future, 2026-03-01T13:00:00Z")],
)  # fmt: skip
def test_age(at: str, said: str) -> None:
    """As people say it, in one unit."""
    assert describe_age(at, parse_collected_at("2026-03-01T12:00:00Z")) == said


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1536, "1.5 KiB"),
     ((1 << 20) - 1, "1.0 MiB"), (5 << 40, "5.0 TiB"), (3 << 50, "3.0 PiB")],
)  # fmt: skip
def test_size(size: int, said: str) -> None:
    """In the largest unit of which there is one."""
    assert describe_bytes(size) == said


def test_mounts_that_only_read_and_dead_ones_are_told(
    start: Callable[..., Mounted], tmp_path: Path
) -> None:
    """The kernel knows them; a dead one is told with what to type, beside a new mount too."""
    mounted = start("a vault, old", "my mnt")
    reading = start("a vault, old", "looking", "-o", "ro")
    found = json.loads(run_scopefs("status", "--json", vault=mounted.vault).stdout)
    assert found["mount"]["mountpoint"] == str(mounted.point)
    assert (found["readOnlyMounts"], found["deadMounts"]) == ([str(reading.point)], [])
    mounted.process.kill()
    mounted.process.wait()
    told = run_scopefs("status", vault=mounted.vault).stdout.decode()
    assert re.search(r"^mounted +no$", told, re.MULTILINE)
    assert f" {reading.point}, only to be read\n" in told
    assert f" {mounted.point} is dead, its process is gone: `scopefs mount" in told
    again = start("a vault, old", "again")
    found = json.loads(run_scopefs("status", "--json", vault=mounted.vault).stdout)
    assert found["mount"]["mountpoint"] == str(again.point)
    assert found["deadMounts"] == [str(mounted.point)]
    again.stop()
    reading.stop()


def test_status_does_not_wait_for_a_mount_that_hangs(tmp_path: Path, mounted: Mounted) -> None:
    """What a stopped mount would tell is left out."""
    holder: dict[str, object] = {"pid": mounted.process.pid, "mountpoint": str(mounted.point)}
    assert read_running(holder, 20) is not None
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        assert read_running(holder, 0.2) is None
    finally:
        mounted.process.send_signal(signal.SIGCONT)


def test_rate_is_of_the_last_minute(run: Run, filled: Path) -> None:
    """Versions and bytes; of a vault that is in a hurry no more than the newest are looked at."""
    assert (
        "rate         4 version(s), 23 bytes in the last minute\n" in run("status").stdout.decode()
    )
    assert json.loads(run("status", "--json").stdout)["rate"] == {
        "seconds": 60.0, "versions": 4, "payloadBytes": 23,
    }  # fmt: skip
    with Vault.open(filled) as vault, vault.read() as db:
        now_us = vault.clock_us()
        assert measure_rate(db, now_us + 61_000_000) == (60.0, 0, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index, "RATE_VERSIONS", 2)
            seconds, versions, size = measure_rate(db, now_us)
    assert 0 < seconds < 60
    # Whose second began before counts as older, so that which two these are is open.
    assert versions == 2
    assert 0 < size < 23


def test_rate_in_words() -> None:
    """A whole minute is told as it was, less than one for each second."""
    assert rate_text({"seconds": 60.0, "versions": 1, "payloadBytes": 1536}) == (
        "1 version(s), 1.5 KiB in the last minute"
    )
    assert rate_text({"seconds": 4.0, "versions": 2000, "payloadBytes": 8192}) == (
        "500 version(s), 2.0 KiB each second"
    )


def test_long_lines_are_broken_on_a_narrow_terminal(filled: Path) -> None:
    """Beside their titles, nothing of them is lost; a pipe gets them as they are."""
    reading, writing = pty.openpty()
    termios.tcsetwinsize(writing, (24, 40))
    environment = {
        key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")
    }
    subprocess.run(
        [sys.executable, "-m", "scopefs", "status", "--vault", filled], stdout=writing, check=True,
        env=environment,
    )  # fmt: skip
    os.close(writing)
    lines = os.read(reading, 65_536).decode().replace("\r", "").splitlines()
    os.close(reading)
    assert max(map(len, lines)) <= 40
    begin = next(number for number, line in enumerate(lines) if line.startswith("vault "))
    assert lines[begin + 1].startswith(" " * len("last writes  "))
    end = next(number for number, line in enumerate(lines) if line.startswith("mounted "))
    assert "".join(line[13:].strip() for line in lines[begin:end]) == str(filled)


def test_status_is_in_colour_on_a_terminal_alone(filled: Path) -> None:
    """Escapes go to terminals, not to files and pipes."""
    found, writing = pty.openpty()
    (filled / "partial" / "2026-01-21T10-00-00Zu000000-0aca7344.bin").write_bytes(b"x")
    subprocess.run(
        [sys.executable, "-m", "scopefs", "status", "--vault", filled], stdout=writing, check=True
    )
    os.close(writing)
    assert b"\x1b[33m1 (1 byte)" in os.read(found, 65_536)
    os.close(found)
