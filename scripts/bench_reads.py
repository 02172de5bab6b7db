"""What checked reading costs: a large file in a mount that checks, and in one that does not.

`.venv/bin/python scripts/bench_reads.py`. The file lies in the page cache of the disk; the kernel's
cache of the mounts is dropped before each measurement, so that every read reaches scopefs. In turn,
round after round: read by `dd` from its start to its end; 4 KiB at random places.
Medians, and ratios of medians.
"""

import argparse
import os
import random
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench_places import mounted_vault

MIB = 1 << 20


def read_all(path: Path) -> float:
    """MiB per second, from start to end."""
    size = path.stat().st_size
    began = time.perf_counter()
    subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], check=True)
    return size / MIB / (time.perf_counter() - began)


def read_anywhere(path: Path, reads: int) -> float:
    """Microseconds for 4 KiB at a random place."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        pages = os.fstat(fd).st_size // 4096
        began = time.perf_counter()
        for _ in range(reads):
            os.pread(fd, 4096, random.randrange(pages) * 4096)  # noqa: S311
        return (time.perf_counter() - began) / reads * 1e6
    finally:
        os.close(fd)


def forget_cached(path: Path) -> None:
    """Let the kernel drop what it has cached of a file."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--reads", type=int, default=500, help="at random places, in each round")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scopefs-bench-")))
        files = {}
        for way, arguments in (("checked", ()), ("unchecked", ("--no-read-check",))):
            point = stack.enter_context(mounted_vault(here / way, here / f"{way}.mnt", *arguments))
            files[way] = point / "bench" / "files" / "large"
            files[way].parent.mkdir(parents=True)
            with files[way].open("wb") as file:
                for _ in range(options.megabytes):
                    file.write(os.urandom(MIB))
        for _ in range(options.rounds):
            for way, path in files.items():
                forget_cached(path)
                found.setdefault(("sequential, MiB/s", way), []).append(read_all(path))
                forget_cached(path)
                took = read_anywhere(path, options.reads)
                found.setdefault(("4 KiB at random, us", way), []).append(took)
    medians = {key: statistics.median(values) for key, values in found.items()}
    for what in dict.fromkeys(what for what, _ in medians):
        checked, unchecked = medians[what, "checked"], medians[what, "unchecked"]
        print(f"{what:22} checked {checked:8.0f}  unchecked {unchecked:8.0f}  "
              f"ratio {checked / unchecked:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
