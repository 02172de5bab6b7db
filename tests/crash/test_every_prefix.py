"""Every prefix: a crash between any two calls that the store makes to the disk.

The mixed load (`deeds.py`) is recorded once. For each number of calls, what a crash would have left
is written into a directory of its own, in three ways: all that was done (the process was killed);
what was synced, and nothing else; and what was synced, with some of the rest, torn or not. Each is
opened, and

- every file in data/ and blobs/ is whole, before anybody has opened the vault;
- the index is in the state of one commit: none older than the last durable one, none that had not
  begun (semantics D4);
- every promise holds that was made before (D1);
- everything fits together, and a second opening has nothing to do.

`SCOPEFS_CRASH_PREFIXES` says how many are tried, `all` being all of them; `SCOPEFS_CRASH_SEED`
repeats a run. A sync of the disk below is taken at its word here: `tests/power` cuts real ones.
"""

import functools
import math
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scopefs import Vault
from scopefs.store.journal import Journal
from scopefs.store.wal import Wal
from tests.crash.checks import check_closed, check_open, check_placed, digest_index, load_index
from tests.crash.deeds import LOAD, do, end
from tests.crash.disk import ROOT, Crash, Disk
from tests.crash.tape import Tape, recording
from tests.crash.world import World, check_promises

CRASHES: tuple[Crash, ...] = ("killed", "dropped", "mixed")
CI_PREFIXES = 70
"""Of each way to crash."""


@dataclass
class Commit:
    """A commit: between which calls it was made, what it made, and where the disk had it."""

    began: int
    ended: int
    state: bytes
    durable_at: float = math.inf


@dataclass
class Recording:
    """What was done, and what was promised meanwhile."""

    tape: Tape
    world: World
    commits: list[Commit] = field(default_factory=list)
    deeds: list[tuple[int, str]] = field(default_factory=list)

    def name_deed(self, at: int) -> str:
        """Which deed a call belongs to."""
        return next((name for begin, name in reversed(self.deeds) if begin <= at), "the beginning")

    def list_states(self, at: int, crash: Crash) -> set[bytes]:
        """The states of the index that a crash behind so many calls may leave."""
        oldest = max(
            (commit.ended for commit in self.commits
             if (commit.ended if crash == "killed" else commit.durable_at) <= at),
            default=0,
        )  # fmt: skip
        return {
            commit.state for commit in self.commits if commit.ended >= oldest and commit.began <= at
        }


@contextmanager
def _noting_commits(tape: Tape, commits: list[Commit]) -> Iterator[None]:
    real, real_sync = Journal._commit_locked, Wal._sync

    def commit_locked(journal: Journal, batch: list[Any]) -> None:
        if not tape.parts(journal._path):
            # Another vault.
            real(journal, batch)
            return
        if not commits:
            db = journal._db or journal._connect()
            here = len(tape.ops)
            commits.append(Commit(here, here, digest_index(db), here))
        began = len(tape.ops)
        real(journal, batch)
        assert journal._db is not None
        commits.append(Commit(began, len(tape.ops), digest_index(journal._db)))

    def sync(wal: Wal, ticket: int) -> None:
        real_sync(wal, ticket)
        if tape.parts(Path(wal._path)):
            for commit in commits:
                commit.durable_at = min(commit.durable_at, len(tape.ops))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "_commit_locked", commit_locked)
        patch.setattr(Wal, "_sync", sync)
        yield


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory in memory, where there is one: thousands of vaults are made."""
    memory = Path("/dev/shm")
    found = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def recorded(place: Path) -> Recording:
    """The load, done once, from the making of the vault to its end."""
    (place / "disk").mkdir()
    tape = Tape(place / "disk")
    commits: list[Commit] = []
    with recording(tape), _noting_commits(tape, commits):
        os.mkdir(place / "disk" / "vault")
        tape.note("sync", ROOT)
        world = World(place / "disk" / "vault", lambda: len(tape.ops))
        result = Recording(tape, world, commits)
        for name, deed in LOAD.items():
            result.deeds.append((len(tape.ops), name))
            do(world, deed)
        result.deeds.append((len(tape.ops), "the end"))
        end(world)
    return result


def _plan() -> tuple[int | None, int]:
    """How many prefixes are tried in each way (None: all), and the seed."""
    wanted = os.environ.get("SCOPEFS_CRASH_PREFIXES", str(CI_PREFIXES))
    seed = int(os.environ.get("SCOPEFS_CRASH_SEED", random.randrange(1 << 30)))
    return None if wanted == "all" else int(wanted), seed


def test_recording_is_complete(recorded: Recording, tmp_path: Path) -> None:
    """The calls that were recorded come to what is really there, byte for byte."""
    recorded.tape.check_complete(tmp_path)
    assert len(recorded.tape.ops) > 500


@pytest.mark.parametrize("crash", CRASHES)
def test_every_prefix_is_recovered(recorded: Recording, place: Path, crash: Crash) -> None:
    """Wherever the calls end, the vault opens, keeps its promises, and is whole."""
    count, seed = _plan()
    source = random.Random(seed)
    total = len(recorded.tape.ops)
    chosen = range(total + 1)
    if count is not None:
        chosen = sorted(source.sample(chosen, min(count, total + 1)))
    disk = Disk()
    done = 0
    for at in chosen:
        for op in recorded.tape.ops[done:at]:
            disk.apply(op)
        done = at
        root = place / f"{crash}-{at}"
        root.mkdir()
        disk.materialise(root, crash, seed + at)
        try:
            _check_prefix(recorded, root / "vault", at, crash)
        except BaseException as error:
            error.add_note(
                f"{crash} behind call {at} of {total}, in {recorded.name_deed(at)!r}, seed {seed}; "
                f"calls: {[_show(op) for op in recorded.tape.ops[max(0, at - 4) : at + 1]]}"
            )
            raise
        shutil.rmtree(root)


def _check_prefix(recorded: Recording, root: Path, at: int, crash: Crash) -> None:
    first = recorded.commits[0].ended
    check_placed(root)
    if at >= first:
        assert (root / "index.db").exists(), "the vault is gone"
        assert load_index(root / "index.db") in recorded.list_states(at, crash), "no such state"
    clock_us = functools.partial(World.clock_us, recorded.world)
    with Vault.open(root, create=at < first, clock_us=clock_us) as vault:
        vault._settling.stop()
        check_promises(vault, recorded.world.promises, at, crash)
        check_open(vault)
        check_promises(vault, recorded.world.promises, at, crash)
    check_closed(root)


def _show(op: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(f"{len(part)} bytes" if isinstance(part, bytes) else part for part in op)
