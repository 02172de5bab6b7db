"""Several writers at once: durable files of 1 KiB by hand, through the library, through the mount.

`python bench_writers.py by-hand|mount DIRECTORY NAME` is one of the writers: it waits for a line
with a number on its standard input, makes so many files, and says so.
"""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import apsw

DATA = os.urandom(512) * 2
WRITERS = 8


def make_by_hand(directory: Path, name: str = "f") -> Callable[[int], None]:
    """Make files without scopefs, as durably; several writers share one database."""
    db = apsw.Connection(str(directory / "index.db"))
    db.set_busy_timeout(10_000)
    for statement in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE IF NOT EXISTS files(id INTEGER PRIMARY KEY, path TEXT, at INTEGER)",
    ):
        db.execute(statement).fetchall()

    def make(number: int) -> None:
        path = directory / f"{name}{number}"
        create(path.with_name(f"{path.name}.tmp"), sync=True)
        os.rename(f"{path}.tmp", path)
        fd = os.open(directory, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        db.execute("INSERT INTO files(path, at) VALUES(?, ?)", (str(path), number))

    return make


def create(path: Path, *, sync: bool = False) -> None:
    """Create, write and close a file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, DATA)
    if sync:
        os.fsync(fd)
    os.close(fd)


def measure_together(
    by_hand: Path, mount: Path, put: Callable[[str], object], rounds: int, files: int,
    settle: Callable[[], None],
) -> dict[str, float]:  # fmt: skip
    """Seconds per file while `WRITERS` work at once, each making `files`: the median of rounds.

    By hand and through the mount they are processes, in the library threads.
    """
    with started("by-hand", by_hand) as hands, started("mount", mount) as mounted:
        numbers = count()
        ways = {
            "by hand": lambda: write_in(hands, files),
            "library": lambda: put_in_threads(put, files, next(numbers)),
            "mount": lambda: write_in(mounted, files),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                settle()
                start = time.perf_counter()
                way()
                found[name].append((time.perf_counter() - start) / files / WRITERS)
    return {name: statistics.median(taken) for name, taken in found.items()}


@contextmanager
def started(how: str, directory: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """Writers that wait to be told how many files to make."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, __file__, how, directory, f"w{number}-"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )
            for number in range(WRITERS)
        ]  # fmt: skip


def write_in(writers: list["subprocess.Popen[str]"], files: int) -> None:
    """Have all writers make files, and wait for them."""
    for writer in writers:
        assert writer.stdin is not None
        print(files, file=writer.stdin, flush=True)
    for writer in writers:
        assert writer.stdout is not None
        if writer.stdout.readline() != "done\n":
            raise SystemExit("scopefs: a writer failed")


def put_in_threads(put: Callable[[str], object], files: int, turn: int) -> None:
    """Have threads put files."""

    def work(number: int) -> None:
        for file in range(files):
            put(f"t{turn}-{number}-{file}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(how: str, directory: str, name: str) -> None:
    numbers = count()
    if how == "by-hand":
        make = make_by_hand(Path(directory), name)
    else:

        def make(number: int) -> None:
            create(Path(directory) / f"{name}{number}")

    for line in sys.stdin:
        for _ in range(int(line)):
            make(next(numbers))
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
