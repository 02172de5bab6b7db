"""Faults: each call that the store makes to the disk fails once, with EIO or ENOSPC.

Each deed of the mixed load (`deeds.py`) is done again and again, and each time another of its calls
fails: writes, syncs, renames, links, removals, and those of SQLite. Either the deed raises one of
our errors and nothing has changed or all has, or it is done. The vault goes on working; everything
that was promised before and afterwards is there, also after the process has died and another
recovers.

`SCOPEFS_FAULTS` says how many calls of each deed fail, `all` being all of them;
`SCOPEFS_CRASH_SEED` repeats a run.
"""

import errno
import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from scopefs.errors import ScopefsError
from tests.crash.checks import check_closed, check_open
from tests.crash.deeds import IN_FILE, LOAD, Deed, do, keeping_partial, putting, starting
from tests.crash.tape import Tape, recording
from tests.crash.world import World
from tests.store.inspection import check_whole

CI_FAULTS = 6
"""Of each deed and error."""

_SPARED = ("open", "rmdir")
"""A directory that cannot be removed stays where it is, empty, and nobody is told."""

_UNTOLD = ("unlink", "sql-unlink", "mkdir", "sql-truncate", "reserve")
"""What is left is removed another time; a directory that is missing is missed by the next call; the
WAL grows as well when it is written.

And a write that is kept in partial/ may lack its story.
"""

DEEDS = {"start": starting, **LOAD}


class Fault:
    """Lets one call fail."""

    def __init__(self) -> None:
        self._left = 0
        self._code = 0
        self.struck: str | None = None
        """What kind of call has failed."""
        self.counted = 0

    def arm(self, left: int, code: int) -> None:
        """The call of that number, from now on, fails; 0: none."""
        self._left, self._code = left, code
        self.struck = None
        self.counted = 0

    def __call__(self, kind: str) -> None:
        if kind in _SPARED:
            return
        self.counted += 1
        self._left -= 1
        if self._left:
            return
        self.struck = kind
        # Removing needs no room.
        code = errno.EIO if kind in ("unlink", "sql-unlink") else self._code
        if kind.startswith("sql-"):
            raise (apsw.FullError if code == errno.ENOSPC else apsw.IOError)("let fail by a test")
        raise OSError(code, os.strerror(code))


class Bench:
    """A world whose calls may fail."""

    def __init__(self, root: Path) -> None:
        self.fault = Fault()
        self.tape = Tape(root)
        self.root = root / "vault"

    def attempt(
        self, world: World, deed: Deed, number: int, code: int, log: pytest.LogCaptureFixture
    ) -> None:
        """Do a deed while a call fails. What matters is raised, or at least logged."""
        running = deed(world)
        next(running)
        log.clear()
        self.fault.arm(number, code)
        error: Exception | None = None
        try:
            next(running, None)
        except (OSError, ScopefsError) as raised:
            error = raised
        finally:
            struck = self.fault.struck
            self.fault.arm(0, 0)
        assert struck is not None or error is None, error
        told = error is not None or any(found.levelno >= logging.WARNING for found in log.records)
        assert told or struck in (None, *_UNTOLD) or deed is keeping_partial, (
            f"nobody was told that a {struck} failed"
        )
        if world.vault._closed:
            self._check_all_closed()
            world.open(create=True)
        elif number % 2:
            # A commit that failed may be on the disk all the same, until the next one.
            world.die()
            world.open()
        world.check()

    def check(self, world: World) -> None:
        """Fail unless the vault works, keeps its promises, and so does the next process."""
        do(world, putting(IN_FILE))
        # What the thread does that settles, which is stopped here.
        assert world.vault._recover_again()
        world.check()
        check_whole(world.vault)
        world.die()
        world.open()
        world.check()
        check_open(world.vault)
        world.check()

    def _check_all_closed(self) -> None:
        """An opening or closing that failed keeps no lock of the vault."""
        for fd in list(self.tape._descriptors):
            assert not os.readlink(f"/proc/self/fd/{fd}").endswith("lock")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory, where there is one."""
    memory = Path("/dev/shm")
    found = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield found
    shutil.rmtree(found)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("name", DEEDS)
def test_every_call_may_fail_once(
    place: Path, caplog: pytest.LogCaptureFixture, name: str, code: int
) -> None:
    """Whichever call fails, what was promised is there, and what failed was told."""
    wanted = os.environ.get("SCOPEFS_FAULTS", str(CI_FAULTS))
    seed = int(os.environ.get("SCOPEFS_CRASH_SEED", random.randrange(1 << 30)))
    deed = DEEDS[name]
    root = place / "disk"
    root.mkdir()
    bench = Bench(root)
    with recording(bench.tape):
        bench.tape.before = bench.fault
        world = World(bench.root, seed=seed)
        # Done whole, it says how many calls it makes.
        running = deed(world)
        next(running)
        bench.fault.arm(0, 0)
        next(running, None)
        numbers = list(range(1, bench.fault.counted + 1))
        if wanted != "all":
            numbers = sorted(random.Random(seed).sample(numbers, min(int(wanted), len(numbers))))
        for number in numbers:
            try:
                bench.attempt(world, deed, number, code, caplog)
                bench.check(world)
            except BaseException as error:
                error.add_note(f"call {number} of {name!r} failed, seed {seed}")
                raise
            # Of all faults of a deed the past would come to 13 GB.
            bench.tape.forget()
            world.promises.forget_past()
        world.vault.close()
        check_closed(bench.root)
