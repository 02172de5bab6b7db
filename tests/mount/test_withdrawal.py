"""A program that removes its own temporary file takes its version back: semantics S10."""

import os
import subprocess
from pathlib import Path

import pytest

from scopefs import Vault
from tests.mount.reading import count_versions, read_history, remove
from tests.mounting import Mounted, wait_until


def test_removed_by_its_writer(shared: Mounted, scope: Path) -> None:
    """The version goes to the trash, and the log says so."""
    (scope / "tmpabcd").write_bytes(b"x")
    assert count_versions(scope) == 1
    os.unlink(scope / "tmpabcd")
    assert count_versions(scope) == 0
    name = ".".join(scope.relative_to(shared.point).parts)
    with Vault.open(shared.vault) as vault:
        newest = vault.events(before=1 << 60, limit=2, scope=name)
    assert [event["op"] for event in newest] == ["delete", "unlink"]
    assert newest[0]["withdrawn"] is True


def test_removed_by_another(scope: Path) -> None:
    """`rm` ends the name; the version stays."""
    (scope / "a").write_bytes(b"x")
    remove(scope / "a")
    assert read_history(scope, "a") == [b"x"]


def test_removed_by_a_thread_of_its_writer(scope: Path) -> None:
    """Threads are their process."""
    script = (
        "import os, threading; open('a', 'w').write('x')\n"
        "t = threading.Thread(target=os.unlink, args=('a',)); t.start(); t.join()"
    )
    subprocess.run(["python3", "-c", script], cwd=scope, check=True)
    assert count_versions(scope) == 0


def test_file_with_an_earlier_version_keeps_both(scope: Path) -> None:
    """It was no temporary file."""
    (scope / "a").write_bytes(b"one")
    (scope / "a").write_bytes(b"two")
    os.unlink(scope / "a")
    assert read_history(scope, "a") == [b"one", b"two"]


@pytest.mark.parametrize("how", [os.rename, os.link])
def test_file_that_bore_another_name_keeps_its_version(scope: Path, how) -> None:
    """What was renamed or linked was meant to stay."""
    (scope / "tmp").write_bytes(b"x")
    how(scope / "tmp", scope / "a")
    os.unlink(scope / "a")
    assert count_versions(scope) == 1


def test_new_file_of_an_old_name_gives_the_name_back_to_nobody(scope: Path) -> None:
    """The name ends, as it does everywhere; the history from before stays."""
    (scope / "a").write_bytes(b"one")
    remove(scope / "a")
    (scope / "a").write_bytes(b"two")
    os.unlink(scope / "a")
    assert not (scope / "a").exists()
    assert read_history(scope, "a") == [b"one"]


def test_interrupted_rsync_leaves_nothing(scope: Path, tmp_path: Path) -> None:
    """The temporary file that rsync removes again makes no version in the end."""
    source = tmp_path / "big"
    source.write_bytes(os.urandom(20 << 20))
    rsync = subprocess.Popen(
        ["rsync", "--bwlimit=4000", str(source), str(scope)], stderr=subprocess.DEVNULL
    )
    while not any(name.startswith(".big.") for name in os.listdir(scope)):
        assert rsync.poll() is None
    rsync.terminate()
    assert rsync.wait() != 0
    # The receiving process cleans up after the one that we started.
    wait_until(lambda: not os.listdir(scope))
    assert count_versions(scope) == 0
