"""Where things are measured: the backing file system, the framework's floor, a mounted vault.

All of them lie in one temporary directory (below `$TMPDIR`), so on one disk.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scopefs import Vault

_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Places:
    """A directory in each place, and a vault that is open in this process."""

    backing: Path
    floor: Path
    mount: Path
    """The directory of the scope `bench.files`."""
    library: Vault

    def settle(self) -> None:
        """Wait until nobody has anything left to do that would burden whoever is measured next."""
        self.library.settle()
        status = self.mount.parents[1] / ".scopefs" / "status.json"
        while json.loads(status.read_bytes())["unsettled"]:
            time.sleep(0.05)

    def make_directories(self, name: str) -> dict[str, Path]:
        """A new directory in each place, by the place's name."""
        directories = {"backing": self.backing, "floor": self.floor, "mount": self.mount}
        for place, directory in directories.items():
            directories[place] = directory / name
            directories[place].mkdir()
        return directories


@contextmanager
def open_places() -> Iterator[Places]:
    """Make all places; nothing of them is left."""
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scopefs-bench-")))
        backing = here / "backing"
        backing.mkdir()
        floor = stack.enter_context(_mounted_floor(here / "floor"))
        point = stack.enter_context(mounted_vault(here / "mounted", here / "mnt"))
        scope = point / "bench" / "files"
        scope.mkdir(parents=True)
        library = stack.enter_context(Vault.open(here / "library", create=True))
        yield Places(backing, floor, scope, library)


@contextmanager
def _mounted_floor(point: Path) -> Iterator[Path]:
    point.mkdir()
    program = Path(__file__).with_name("bench_floor.py")
    process = subprocess.Popen([sys.executable, str(program), str(point)])
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not point.is_mount():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("scopefs: the floor could not be mounted")
            time.sleep(0.01)
        yield point
    finally:
        # It may have ended by itself.
        subprocess.run(["fusermount3", "-u", point], check=process.poll() is None)
        process.wait(_PATIENCE_S)


@contextmanager
def mounted_vault(vault: Path, point: Path, *options: str) -> Iterator[Path]:
    """A new vault, mounted."""
    program = [sys.executable, "-m", "scopefs"]
    subprocess.run([*program, "mount", "--vault", vault, *options, point], check=True)
    try:
        yield point
    finally:
        subprocess.run([*program, "umount", "--vault", vault, point], check=True)
