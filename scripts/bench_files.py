"""What scopefs costs, side by side in one run: medians, and ratios of medians.

Three jobs: create, write and close 1 KiB, alone and by several writers at once; `cp` of a large
file; `ls -l` of many files. Each through
the mount, and on the backing file system, plain and "by hand"; through the library; and through
the floor, a file system in memory that is made with pyfuse3 and trio too and does nothing else.

By hand means what a careful program does without scopefs to get the same: temporary file, fsync,
rename, fsync of the directory, and one row in a SQLite database with synchronous=FULL. Of a `cp`:
`sync` of the copy. The ways are interleaved in rounds, so that a machine whose speed drifts slows
all of them. What one of them leaves to be settled in the background is waited for before the next.

`--page-bytes` makes the library's index with another page size, to compare them in several runs.
"""

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from bench_places import Places, open_places
from bench_writers import DATA, WRITERS, create, make_by_hand, measure_together

from scopefs.store import index

Way = Callable[[], object]


def measure(
    ways: dict[str, Way], rounds: int, times: int = 1, *, settle: Way = lambda: None,
    prepare: Way = lambda: None,
) -> dict[str, float]:  # fmt: skip
    """The median of each way, in seconds.

    Not counted: `settle`, before each turn of a way, and `prepare`, before each time.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            settle()
            for _ in range(times):
                prepare()
                start = time.perf_counter()
                way()
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in found.items()}


def measure_creating(places: Places, rounds: int, files: int) -> dict[str, float]:
    """Create + write 1 KiB + close."""
    directories = places.make_directories("created")
    by_hand_directory = places.backing / "by hand"
    by_hand_directory.mkdir()
    by_hand, numbers = make_by_hand(by_hand_directory), count()
    return measure(
        {
            "backing": lambda: create(directories["backing"] / f"f{next(numbers)}"),
            "by hand": lambda: by_hand(next(numbers)),
            "floor": lambda: create(directories["floor"] / f"f{next(numbers)}"),
            "library": lambda: places.library.put("bench.files", DATA, name=f"f{next(numbers)}"),
            "mount": lambda: create(directories["mount"] / f"f{next(numbers)}"),
        },
        rounds,
        files,
        settle=places.settle,
    )


def measure_writers(places: Places, rounds: int, files: int) -> dict[str, float]:
    """Create + write 1 KiB + close, by several writers at once."""
    by_hand = places.backing / "by hand, together"
    mount = places.mount / "Together"
    by_hand.mkdir()
    mount.mkdir()
    make_by_hand(by_hand)
    return measure_together(
        by_hand, mount, lambda name: places.library.put("bench.together", DATA, name=name),
        rounds, files // WRITERS, places.settle,
    )  # fmt: skip


def measure_copying(places: Places, rounds: int, megabytes: int) -> dict[str, float]:
    """`cp` of a large file to a new name; each copy has bytes of its own, and goes afterwards."""
    directories, numbers = places.make_directories("copied"), count()
    source = places.backing / "source"
    source.write_bytes(os.urandom(1 << 20) * megabytes)

    def prepare() -> None:
        for directory in directories.values():
            (directory / "copy").unlink(missing_ok=True)
        # Equal blobs are stored once, and cost less.
        with source.open("r+b") as file:
            file.write(next(numbers).to_bytes(8, "big"))
        # What one way has left to be written is not to burden the next.
        run("sync", "-f", source)

    def copy_to(place: str) -> Way:
        return lambda: run("cp", source, directories[place] / "copy")

    def copy_and_sync() -> None:
        run("cp", source, directories["backing"] / "copy")
        run("sync", directories["backing"] / "copy")

    return measure(
        {
            "backing": copy_to("backing"),
            "by hand": copy_and_sync,
            "floor": copy_to("floor"),
            "library": lambda: places.library.put("bench.files", source, name="copy"),
            "mount": copy_to("mount"),
        },
        rounds,
        prepare=prepare,
    )


def measure_listing(places: Places, rounds: int, names: int) -> dict[str, float]:
    """`ls -l` of a directory with many files."""
    directories = places.make_directories("listed")
    for directory in directories.values():
        for number in range(names):
            create(directory / f"f{number}")
    return measure({place: list_in(directory) for place, directory in directories.items()}, rounds)


def list_in(directory: Path) -> Way:
    """`ls -l` of a directory."""
    return lambda: run("ls", "-l", directory)


def run(*command: str | Path) -> None:
    """Run a program that says nothing that matters."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def show(what: str, medians: dict[str, float], unit: str, per_second: float) -> None:
    """Print a table: the median of each way, and what the mount takes for each of its."""
    print(f"\n{what:32} {unit:>10}   mount takes")
    for name, median in medians.items():
        print(f"  {name:30} {median * per_second:10.1f}   {medians['mount'] / median:8.2f} times")


def show_parts(medians: dict[str, float]) -> None:
    """Print of what the creation of a file consists."""
    rest = medians["mount"] - medians["floor"] - medians["library"]
    print("\nof create through the mount              us        part")
    for name, part in (
        ("kernel, pyfuse3, trio (floor)", medians["floor"]),
        ("durable transaction (library)", medians["library"]),
        ("sessions: the rest", rest),
    ):
        print(f"  {name:30} {part * 1e6:10.1f}   {part / medians['mount']:8.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--files", type=int, default=100, help="created in each round and way")
    parser.add_argument("--megabytes", type=int, default=64, help="the size of what is copied")
    parser.add_argument("--names", type=int, default=10_000, help="in the directory that is listed")
    parser.add_argument("--page-bytes", type=int, default=index.PAGE_BYTES)
    options = parser.parse_args()
    index.PAGE_BYTES = options.page_bytes
    with open_places() as places:
        created = measure_creating(places, options.rounds, options.files)
        show("create + write 1 KiB + close", created, "us", 1e6)
        show_parts(created)
        together = measure_writers(places, options.rounds, options.files)
        show(f"the same, {WRITERS} writers, per file", together, "us", 1e6)
        copied = measure_copying(places, options.rounds, options.megabytes)
        show(f"cp of {options.megabytes} MiB", copied, "ms", 1e3)
        listed = measure_listing(places, options.rounds, options.names)
        show(f"ls -l of {options.names:,} files", listed, "ms", 1e3)


if __name__ == "__main__":
    main()
