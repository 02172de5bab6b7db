"""Fixtures: one mount for all tests of a module, with a scope of its own for each test."""

import gc
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mounting import _ALARM, Mounted, start_mount

LATE_RELEASE = "fuse_release(): fuse_reply_* failed with No such file or directory"
"""The answer to a RELEASE that the unmounting overtook: nobody waits for it."""


class Shared:
    """The mount of a module; a daemon that ended is replaced, so that not all tests fail."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.numbers = itertools.count(1)
        self.mounted: Mounted | None = None
        self.seen = 0

    def get(self) -> Mounted:
        """The running mount."""
        if self.mounted is None or self.mounted.process.poll() is not None:
            self.close()
            self.seen = 0
            number = next(self.numbers)
            self.mounted = start_mount(
                self.directory / f"vault{number}", self.directory / f"mnt{number}"
            )
        return self.mounted

    def check_new_log(self) -> None:
        """Fail on any alarming line that no earlier test has failed for."""
        if self.mounted is not None:
            log = self.mounted.log
            new, self.seen = log[self.seen :], len(log)
            alarms = [
                line
                for line in new.splitlines()
                if _ALARM.search(line) and LATE_RELEASE not in line
            ]
            assert not alarms, f"unexpected in the daemon's log:\n{new}"

    def close(self) -> None:
        """Leave nothing mounted."""
        if self.mounted is not None:
            self.mounted.clean_up()


@pytest.fixture
def start(start: Callable[..., Mounted]) -> Iterator[Callable[..., Mounted]]:
    """Mounts vaults; what a failed test left open in them is closed, so that they can end."""
    points: list[Path] = []

    def begin(*arguments: str) -> Mounted:
        mounted = start(*arguments)
        mounted.expected_alarms.append(LATE_RELEASE)
        points.append(mounted.point)
        return mounted

    yield begin
    for point in points:
        close_files_below(point)


def close_files_below(point: Path) -> None:
    """Close all files that this process has open in a mount."""
    gc.collect()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith(f"{point}/"):
            try:
                os.close(int(name))
            except OSError:
                continue


@pytest.fixture(scope="module")
def shared_holder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Holds the module's mount; its daemon has to end with 0."""
    holder = Shared(tmp_path_factory.mktemp("shared"))
    yield holder
    try:
        if holder.mounted is not None:
            holder.mounted.stop()
            holder.check_new_log()
    finally:
        holder.close()


@pytest.fixture
def shared(shared_holder: Shared) -> Iterator[Mounted]:
    """The module's mount; the test fails if the daemon ends or logs an error meanwhile."""
    mount = shared_holder.get()
    yield mount
    close_files_below(mount.point)
    assert mount.process.poll() is None, f"the daemon ended:\n{mount.log}"
    shared_holder.check_new_log()


@pytest.fixture
def scope(shared: Mounted, shared_holder: Shared) -> Path:
    """The directory of a new scope in the module's mount."""
    return shared.make_scope(f"test.s{next(shared_holder.numbers)}")
