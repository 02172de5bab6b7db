"""Programs made to break file systems, over a mount: no error, no hang, nothing left behind.

Each runs for `SCOPEFS_LOAD_SECONDS`, a few by default; `scripts/soak` gives them hours. Afterwards
the daemon has as many descriptors open as before, and no more memory; its log is clean, the vault
whole. A tool that is missing fails its test.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.load.loading import Start, load_mount, remount, run_tool

_ANY_SIZE = "--bsrange=512-128k --bs_unaligned"
CHECKERS = {
    "sync": "--ioengine=sync --bs=4k",
    "unaligned": f"--ioengine=psync {_ANY_SIZE}",
    "mixed": "--ioengine=psync --bssplit=512/30:4k/40:60k/30",
    "vectors": "--ioengine=vsync --iodepth=8 --bs=2k",
    "mmap": "--ioengine=mmap --bs=4k",
    "mmap-large": "--ioengine=mmap --bs=64k",
    "direct": "--ioengine=libaio --iodepth=8 --direct=1 --bs=16k",
    "direct-large": "--ioengine=psync --direct=1 --bs=256k",
    "synced": "--ioengine=psync --rw=randrw --bs=8k --fsync=16",
    "reopened": "--ioengine=psync --bs=32k --openfiles=1 --nrfiles=4 --file_service_type=random:8",
}
"""Jobs of fio, by the way in which they write."""

STRESSORS = {
    "names": "dentry dir dirdeep dirmany filename link rename symlink",
    "contents": "copy-file dup fsize hdd iomix open sync-file",
    "attributes": "access chdir chmod chown dnotify inotify touch utime",
    "locks": "fcntl file-ioctl flock ioprio lease locka lockf lockofd",
}
"""Those of stress-ng's class "filesystem" that run at once. docs/contributing.md has the others."""

STRESSOR_OPTIONS = [
    "--copy-file-bytes", "128m", "--hdd-bytes", "4m",
    "--iomix-bytes", "1m", "--sync-file-bytes", "1m",
]  # fmt: skip
"""These sizes are filled by posix_fallocate, which writes where there is no fallocate."""

DBENCH_LOAD = Path("/usr/share/dbench/client.txt")


def run_fio(
    folder: Path, *options: str, checkers: Iterable[str] = CHECKERS, seconds: float = 0.0
) -> None:
    """Write at random in several ways at once, and read back what was written."""
    jobs = [part for name in checkers for part in (f"--name={name}", *CHECKERS[name].split())]
    output = run_tool(
        "fio", f"--directory={folder}", "--rw=randwrite", "--size=1m", "--numjobs=2",
        "--verify=crc32c", "--verify_fatal=1", "--fallocate=none", "--output=/dev/null",
        *options, *jobs, seconds=seconds, cwd=folder.parent,
    )  # fmt: skip
    assert "verify failed" not in output, output


def test_random_writes_read_back(start: Start) -> None:
    """fio: what was written at random offsets, in any way, is what is read."""

    def check(folder: Path, seconds: float) -> None:
        run_fio(folder, "--time_based", f"--runtime={seconds:.0f}", seconds=seconds)

    load_mount(start, "fio", check)


def test_random_writes_read_back_from_the_store(start: Start) -> None:
    """fio: a daemon that saw none of the writes reads what was written at random offsets."""
    mounted = start()
    folder = mounted.make_scope() / "Work"
    folder.mkdir()
    # In a second process fio finds no way back through blocks of any size.
    checkers = [name for name, job in CHECKERS.items() if _ANY_SIZE not in job]
    run_fio(folder, "--do_verify=0", checkers=checkers)
    mounted = remount(mounted, start)
    run_fio(folder, "--verify_only", checkers=checkers)
    mounted.stop()
    mounted.check_log()


@pytest.mark.parametrize("group", STRESSORS)
def test_stressors_run_without_error(start: Start, group: str) -> None:
    """stress-ng: file system stressors, all of a group at once, verify what they do."""

    def stress(folder: Path, seconds: float) -> None:
        named = [part for name in STRESSORS[group].split() for part in (f"--{name}", "1")]
        table = folder.parent.parent.parent.parent / f"{group}.yaml"
        output = run_tool(
            "stress-ng", *named, *STRESSOR_OPTIONS, "--timeout", f"{seconds:.0f}", "--verify",
            "--temp-path", folder, "--metrics", "--yaml", table, seconds=seconds,
        )  # fmt: skip
        assert "skip" not in output, output
        ran = set(re.findall(r"stressor: ([\w-]+)", table.read_text()))
        assert ran == set(STRESSORS[group].split()), output
        assert list(folder.iterdir()) == []

    load_mount(start, f"stress-ng {group}", stress)


def test_dbench_runs_without_error(start: Start) -> None:
    """dbench: what a file server does for four clients."""

    def serve(folder: Path, seconds: float) -> None:
        output = run_tool(
            "dbench", "-c", DBENCH_LOAD, "-D", folder, "-t", f"{max(1, seconds):.0f}", "4",
            seconds=seconds,
        )  # fmt: skip
        assert re.search(r"^Throughput [\d.]+ MB/sec +4 clients", output, re.MULTILINE), output
        # A machine's first semaphore has the number 0, which dbench takes for none.
        rest = output.replace("failed to create barrier semaphore", "")
        assert not re.search(r"fail|error", rest, re.IGNORECASE), output
        shutil.rmtree(folder / "clients")

    load_mount(start, "dbench", serve)


def test_postmark_runs_without_error(start: Start) -> None:
    """postmark: what a mail server does with many small files, in folders."""

    def deliver(folder: Path, seconds: float) -> None:
        settings = folder.parent.parent.parent.parent / "postmark.cfg"
        settings.write_text(
            f"set location .\nset number 100\nset subdirectories 5\nset size 500 100000\n"
            f"set transactions {50 * seconds:.0f}\nset buffering false\nrun\nquit\n"
        )
        # In the folder: longer paths overrun the names that postmark keeps.
        output = run_tool("postmark", settings, seconds=seconds, cwd=folder)
        assert re.search(r"(\d+) created .* per second", output), output
        assert not re.search(r"error|cannot|fail", output, re.IGNORECASE), output
        assert list(folder.iterdir()) == []

    load_mount(start, "postmark", deliver)
