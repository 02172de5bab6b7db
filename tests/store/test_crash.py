"""kill -9 at random moments: what was acknowledged is there, and all fits together."""

import hashlib
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.model.stamps import parse_stamp
from scopefs.store import index
from tests.store.inspection import (
    PATIENCE_S,
    check_counters,
    check_events,
    check_files,
    check_whole,
    run_python_until_it_dies,
)

ROUNDS = 5

# Puts payloads of every kind for ever, settles, renames, deletes, restores and destroys in between,
# and prints a line for each version once it is acknowledged, and for each that it will delete.
_PUT_FOR_EVER = """
import contextlib, hashlib, random, sys
from scopefs import Vault
from scopefs.errors import NotFound
from scopefs.store import changes, tree

root, seed = sys.argv[1], int(sys.argv[2])
source = random.Random(seed)
vault = Vault.open(root)
n = 0
while True:
    n += 1
    scope = source.choice(["my.files", "my.files.sub", "other.things"])
    size = source.choice([5, 300, 10_000, 20_000, 70_000, 400_000])
    content = source.randbytes(size)
    if source.random() < 0.4:
        content = b'{"x":"' + content.hex().encode() + b'"}'
    name = source.choice([None, "f%d" % source.randrange(5), "D/f%d" % source.randrange(5)])
    version = vault.put(scope, content, name=name)
    print("put", scope, version.stamp, hashlib.sha256(content).hexdigest(), flush=True)
    chance = source.random()
    if chance < 0.05:
        vault.settle()
    elif chance < 0.15:
        print("delete", scope, version.stamp, "-", flush=True)
        vault.delete(scope, version.stamp)
        # And back, or for ever; another putter may be faster.
        with contextlib.suppress(NotFound, IndexError):
            if chance < 0.10:
                vault.restore(vault.trash(limit=1)[0].id)
            elif chance < 0.12:
                vault.empty_trash(vault.trash(limit=1)[0].id)
    elif chance < 0.25 and name is not None and "/" not in name:
        with vault.read() as db:
            node = tree.find_scope_node(db, scope)
        # Another putter may have been faster.
        with contextlib.suppress(NotFound):
            vault.apply(changes.apply_rename, node, name.encode(), node, b"renamed", replace=True)
"""

Acknowledged = dict[tuple[str, str], str]


class Putter:
    """A process that puts for ever, and what it has acknowledged so far."""

    def __init__(self, root: Path, seed: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PUT_FOR_EVER, str(root), str(seed)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.acknowledged: Acknowledged = {}
        self.deleted: set[tuple[str, str]] = set()
        self._count = threading.Semaphore(0)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # A line that the kill tore was never read whole by anybody.
            if not line.endswith("\n"):
                break
            word, scope, stamp, digest = line.split()
            if word == "put":
                self.acknowledged[scope, stamp] = digest
                self._count.release()
            else:
                self.deleted.add((scope, stamp))

    def wait_for(self, count: int) -> None:
        """Wait until that many versions more were acknowledged."""
        for _ in range(count):
            assert self._count.acquire(timeout=PATIENCE_S), self.kill()

    def kill(self) -> str:
        """kill -9; returns what the process had to complain about."""
        self.process.send_signal(signal.SIGKILL)
        self._reader.join(PATIENCE_S)
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return errors


Start = Callable[[Path, int], Putter]


@pytest.fixture
def start_putter() -> Iterator[Start]:
    """Starts putters; none of them outlives the test."""
    started: list[Putter] = []

    def start(root: Path, seed: int) -> Putter:
        started.append(Putter(root, seed))
        return started[-1]

    yield start
    for putter in started:
        if putter.process.returncode is None:
            putter.kill()


def check_acknowledged(vault: Vault, acknowledged: Acknowledged, deleted: set) -> None:
    """Fail unless every acknowledged version is there byte for byte, but for those deleted."""
    for (scope, stamp), digest in acknowledged.items():
        with vault.read() as db:
            version = index.find_exact(db, scope, parse_stamp(stamp))
        if version is None:
            assert (scope, stamp) in deleted, f"{scope} {stamp} is lost"
            continue
        assert hashlib.sha256(vault.read_payload(version)).hexdigest() == digest
        envelope = vault.read_envelope(version)
        assert envelope.startswith(b'{"version":"1.0","scope":"%b"' % scope.encode())


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, start_putter: Start) -> None:
    """Killed at random moments, again and again, the vault has all that it said it had."""
    seed = random.randrange(1 << 30)
    source = random.Random(seed)
    with Vault.open(tmp_path / "v", create=True):
        pass
    acknowledged: Acknowledged = {}
    deleted: set[tuple[str, str]] = set()
    for round_number in range(ROUNDS):
        putters = [start_putter(tmp_path / "v", seed + 10 * round_number + n) for n in range(2)]
        for putter in putters:
            putter.wait_for(source.randrange(1, 100))
        errors = [putter.kill() for putter in putters]
        assert errors == ["", ""], f"seed {seed}"
        for putter in putters:
            acknowledged |= putter.acknowledged
            deleted |= putter.deleted
        with Vault.open(tmp_path / "v") as vault:
            check_acknowledged(vault, acknowledged, deleted)
        # Closed and opened again: nothing is left to settle.
        with Vault.open(tmp_path / "v") as vault:
            check_files(vault)
            check_events(vault)
            check_counters(vault)
    assert len(acknowledged) > ROUNDS


def test_others_go_on_when_one_is_killed(tmp_path: Path, start_putter: Start) -> None:
    """A process that dies with the vault open takes nothing from those that live."""
    with Vault.open(tmp_path / "v", create=True) as vault:
        first, second = (start_putter(tmp_path / "v", seed) for seed in (1, 2))
        first.wait_for(20)
        assert first.kill() == ""
        second.wait_for(20)
        mine = vault.put("my.files", b"mine")
        assert second.kill() == ""
        check_acknowledged(vault, first.acknowledged | second.acknowledged,
                           first.deleted | second.deleted)  # fmt: skip
        assert vault.read_payload(mine) == b"mine"
    with Vault.open(tmp_path / "v") as vault:
        check_whole(vault)


def test_several_open_at_once_after_a_crash(tmp_path: Path, start_putter: Start) -> None:
    """Whoever opens while others recover and settle sees every acknowledged version."""
    with Vault.open(tmp_path / "v", create=True):
        pass
    putter = start_putter(tmp_path / "v", 3)
    putter.wait_for(40)
    assert putter.kill() == ""
    errors: list[BaseException] = []

    def open_and_check() -> None:
        try:
            with Vault.open(tmp_path / "v") as vault:
                check_acknowledged(vault, putter.acknowledged, putter.deleted)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=open_and_check) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Vault.open(tmp_path / "v") as vault:
        check_whole(vault)


# Puts with a disk whose fsync of the WAL fails from the second put on, and dies.
_PUT_ON_FAILING_DISK = """
import errno, os, signal, sys

FAILING = False
fdatasync = os.fdatasync

def sync(fd):
    if FAILING and os.readlink(f"/proc/self/fd/{fd}").endswith("-wal"):
        raise OSError(errno.EIO, "the disk failed")
    fdatasync(fd)

os.fdatasync = sync
from scopefs import Vault
from scopefs.errors import ScopefsError
root, size, goes_on = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
vault = Vault.open(root, create=True)
vault.put("my.files", b"before", name="before")
FAILING = True
try:
    vault.put("my.files", b"x" * size, name="refused")
except ScopefsError:
    print("refused", flush=True)
if goes_on:
    FAILING = False
    vault.put("my.files", b"after", name="after")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("goes_on", [False, True])
def test_version_whose_commit_was_not_synced_is_whole_or_not_there(
    tmp_path: Path, size: int, goes_on: bool
) -> None:
    """A put that was refused because of a failed fsync never leaves a version without its bytes."""
    root = tmp_path / "v"
    script = _PUT_ON_FAILING_DISK
    assert run_python_until_it_dies(script, root, str(size), str(goes_on)) == "refused\n"
    with Vault.open(root) as vault:
        found = {found.name: vault.read_payload(found) for found in vault.versions("my.files")}
        assert found.pop(b"refused", b"x" * size) == b"x" * size
        assert found == {b"before": b"before"} | ({b"after": b"after"} if goes_on else {})
        check_whole(vault)
