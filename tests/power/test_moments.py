"""Power cuts at moments that random ones seldom meet."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scopefs import Vault
from tests.mounting import wait_until
from tests.power.disk import sync
from tests.power.harness import Bench
from tests.power.slow_places import DELAY_S
from tests.store.inspection import check_whole

pytestmark = pytest.mark.usefixtures("root")
LATEST_S = 2.0
RELAXED_S = 5.0
_SLOW = (sys.executable, str(Path(__file__).with_name("slow_places.py")))
_OPEN = """
import sys, time
from scopefs import Vault
vault = Vault.open(sys.argv[1])
print("recovered", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["ext4", "xfs"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A vault on a disk of its own."""
    with Bench(tmp_path, request.param, 0) as made:
        yield made


def test_names_are_durable_after_two_seconds(bench: Bench) -> None:
    """D4: what nobody asked to be synced is durable two seconds later all the same."""
    scope = bench.mount().make_scope()
    (scope / "Folder").mkdir()
    time.sleep(LATEST_S + 0.5)
    bench.cut()
    assert os.listdir(bench.mount().make_scope()) == ["Folder"]


@pytest.mark.parametrize("synced", ["directory", "file"])
def test_names_are_durable_with_an_fsync(bench: Bench, synced: str) -> None:
    """D4: mkdir, rename and unlink are, once the directory or the file was fsynced."""
    scope = bench.mount().make_scope()
    for name in ("old", "gone"):
        (scope / name).write_bytes(name.encode())
    (scope / "Folder").mkdir()
    (scope / "old").rename(scope / "new")
    (scope / "gone").unlink()
    sync(scope if synced == "directory" else scope / "new")
    bench.cut()
    scope = bench.mount().make_scope()
    assert sorted(os.listdir(scope)) == ["Folder", "new"]
    assert (scope / "new").read_bytes() == b"old"


def test_names_are_durable_after_two_seconds_of_a_long_settling(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4: so they are while settling, of something else, waits for the disk."""
    monkeypatch.setenv("SCOPEFS_TEST_DELAY_S", str(2 * LATEST_S))
    scope = bench.mount(_SLOW).make_scope()
    (scope / "f").write_bytes(b"x")
    # Written, and waiting for their sync.
    wait_until(lambda: list((bench.vault / "staging").glob("settle.*.tmp")))
    (scope / "Folder").mkdir()
    time.sleep(LATEST_S + 0.2)
    bench.cut()
    assert sorted(os.listdir(bench.mount().make_scope())) == ["Folder", "f"]


def test_relaxed_loses_five_seconds_at_most(bench: Bench) -> None:
    """D8: what was closed earlier is there, nothing is half, the names are those of one moment."""
    scope = bench.mount(options=["--durability", "relaxed"]).make_scope()
    began = time.monotonic()
    closed: list[float] = []
    while time.monotonic() < began + RELAXED_S + 2:
        (scope / f"f{len(closed)}").write_bytes(_make_content(len(closed)))
        closed.append(time.monotonic())
    cut_at = bench.cut()
    names = os.listdir(bench.mount().make_scope())
    old = sum(at < cut_at - RELAXED_S for at in closed)
    assert old > 10
    assert len(names) >= old
    # One after the other, and so none before one that is there is missing.
    assert set(names) == {f"f{number}" for number in range(len(names))}
    bench.close()
    with Vault.open(bench.vault) as vault:
        for version in vault.versions("my.files"):
            assert version.name is not None
            assert vault.read_payload(version) == _make_content(int(version.name[1:]))
        check_whole(vault)


def _make_content(number: int) -> bytes:
    """In the row, and in a file."""
    return b"%d " % number * (1 + number % 7 * 4000)


def test_fsync_while_settling(bench: Bench) -> None:
    """D4: an fsync during a settling that has nothing to place makes names durable."""
    scope = bench.mount(_SLOW).make_scope()
    time.sleep(2 * DELAY_S + 1)
    (scope / "Folder").mkdir()
    # Long enough for settling to begin, and too short for its syncfs.
    time.sleep(0.4 * DELAY_S)
    sync(scope)
    bench.cut()
    assert os.listdir(bench.mount().make_scope()) == ["Folder"]


def test_fsync_in_the_mount_after_a_killed_one(bench: Bench) -> None:
    """D4: what a killed daemon has done, and shows after it, is durable with an fsync."""
    scope = bench.mount().make_scope()
    sync(scope)
    (scope / "Folder").mkdir()
    bench.kill()
    scope = bench.mount().make_scope()
    assert os.listdir(scope) == ["Folder"]
    sync(scope)
    bench.cut()
    assert os.listdir(bench.mount().make_scope()) == ["Folder"]


@pytest.mark.parametrize("kind", ["document", "blob"])
def test_large_file_that_was_just_settled(bench: Bench, kind: str) -> None:
    """D1: its staging file does not go before the row that names it has gone for good."""
    content = b'{"x":"%s"}' % (b"a" * 200_000) if kind == "document" else b"a" * 200_000
    (bench.mount().make_scope() / "f").write_bytes(content)
    staging = bench.vault / "staging"
    wait_until(lambda: list((bench.vault / "data").rglob("*.json")))
    wait_until(lambda: not [path for path in staging.glob("*/*") if path.name != "lock"])
    # Anybody's fsync on this disk makes the end of the staging file durable.
    (bench.vault.parent / "other").write_bytes(b"x")
    sync(bench.vault.parent / "other")
    bench.cut()
    with Vault.open(bench.vault) as vault:
        (version,) = vault.versions("my.files")
        assert vault.read_payload(version) == content
        check_whole(vault)


def test_story_of_a_write_that_was_recovered(bench: Bench) -> None:
    """D5: what goes to partial/ keeps its name through another cut."""
    fd = os.open(bench.mount().make_scope() / "draft", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"half")
    os.fsync(fd)
    bench.cut()
    with contextlib.suppress(OSError):
        os.close(fd)
    process = subprocess.Popen([sys.executable, "-c", _OPEN, bench.vault], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"recovered\n"
        bench.cut(process)
    with Vault.open(bench.vault) as vault:
        (story,) = vault.partial()
        assert (vault.layout.partial / story["file"]).read_bytes() == b"half"
        assert story.get("name") == "draft"
