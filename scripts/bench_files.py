"""Durable 1 KiB files, side by side in one run: medians in microseconds, and ratios.

By hand means what a careful program does without scopefs: temporary file, fsync, rename, fsync of
the directory, and one row in a SQLite database with synchronous=FULL. The rows are interleaved in
rounds, so that a machine whose speed drifts slows all of them.

`--page-bytes` makes the library's index with another page size, to compare them in several runs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from scopefs import Vault
from scopefs.store import index

DATA = os.urandom(512) * 2


def by_hand(directory: Path) -> Callable[[int], None]:
    """Make files without scopefs, as durably."""
    directory.mkdir()
    db = apsw.Connection(str(directory / "index.db"))
    for statement in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE files(id INTEGER PRIMARY KEY, path TEXT, at INTEGER)",
    ):
        db.execute(statement).fetchall()

    def make(number: int) -> None:
        path = directory / f"f{number}"
        fd = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, DATA)
        os.fsync(fd)
        os.close(fd)
        os.rename(f"{path}.tmp", path)
        fd = os.open(directory, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        db.execute("INSERT INTO files(path, at) VALUES(?, ?)", (str(path), number))

    return make


def through(directory: Path) -> Callable[[int], None]:
    """Create, write and close files in a mounted scope."""

    def make(number: int) -> None:
        fd = os.open(directory / f"f{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, DATA)
        os.close(fd)

    return make


def measure(makers: dict[str, Callable[[int], None]], rounds: int, files: int) -> None:
    """Print the median of each, and its ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in makers}
    number = 0
    for _ in range(rounds):
        for name, make in makers.items():
            for _ in range(files):
                number += 1
                start = time.perf_counter()
                make(number)
                times[name].append((time.perf_counter() - start) * 1e6)
    first = statistics.median(next(iter(times.values())))
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:10} {median:8.0f} us   speed against by hand {first / median:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--page-bytes", type=int, default=index.PAGE_BYTES)
    options = parser.parse_args()
    index.PAGE_BYTES = options.page_bytes
    program = [sys.executable, "-m", "scopefs"]
    with tempfile.TemporaryDirectory(prefix="scopefs-bench-", dir=os.environ.get("TMPDIR")) as name:
        here = Path(name)
        point = here / "mnt"
        subprocess.run([*program, "mount", "--vault", here / "mounted", point], check=True)
        try:
            scope = point / "bench" / "files"
            scope.mkdir(parents=True)
            with Vault.open(here / "library", create=True) as vault:
                measure(
                    {
                        "by hand": by_hand(here / "hand"),
                        "library": lambda n: vault.put("bench.files", DATA, name=f"f{n}") and None,
                        "mount": through(scope),
                    },
                    options.rounds,
                    options.files,
                )
        finally:
            subprocess.run([*program, "umount", "--vault", here / "mounted", point], check=True)


if __name__ == "__main__":
    main()
