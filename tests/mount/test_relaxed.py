"""Relaxed durability: nothing waits, nothing is inconsistent: semantics D8."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs import Vault
from tests.mount.reading import count_versions, read_history, read_partial, read_status
from tests.mounting import Mounted, start_mount
from tests.store.inspection import check_whole

SIZES = [1, 5_000, 70_000, 300_000]


@pytest.fixture
def relaxed(tmp_path: Path):
    """A vault that is mounted relaxed."""
    mounted = start_mount(tmp_path / "vault", tmp_path / "mnt", "--durability", "relaxed")
    yield mounted
    mounted.clean_up()
    mounted.check_log()


@pytest.mark.parametrize("size", SIZES)
def test_saves_make_versions(relaxed: Mounted, size: int) -> None:
    """What is a version, and when, is the same as ever."""
    scope = relaxed.make_scope()
    contents = [os.urandom(size) for _ in range(3)]
    for content in contents:
        (scope / "a").write_bytes(content)
        assert (scope / "a").read_bytes() == content
    assert read_history(scope, "a") == contents
    with (scope / "b").open("wb") as file:
        file.write(contents[0])
        file.flush()
        os.fsync(file.fileno())
        assert count_versions(scope) == 3
    assert count_versions(scope) == 4
    assert read_status(relaxed)["durability"] == "relaxed"
    relaxed.stop()


def test_everything_is_there_after_an_unmount(relaxed: Mounted) -> None:
    """An unmount waits for the disk, also for what was closed a moment before."""
    scope = relaxed.make_scope()
    for number in range(50):
        (scope / f"f{number}").write_bytes(b"x" * (number * 3000 + 1))
    relaxed.stop()
    with Vault.open(relaxed.vault) as vault:
        assert len(vault.versions("my.files")) == 50
        check_whole(vault)
    assert read_partial(relaxed.vault) == []


def test_kill_loses_five_seconds_at_most(start: Callable[..., Mounted], tmp_path: Path) -> None:
    """After kill -9 the vault is whole, and what is older than five seconds is there."""
    mounted = start_mount(tmp_path / "vault", tmp_path / "mnt", "--durability", "relaxed")
    try:
        scope = mounted.make_scope()
        old = []
        started = time.monotonic()
        number = 0
        while time.monotonic() < started + 7:
            (scope / f"f{number}").write_bytes(b"%d" % number * (number % 7 * 5000 + 1))
            if time.monotonic() < started + 2:
                old.append(number)
            number += 1
        mounted.kill()
    finally:
        mounted.clean_up()
    with Vault.open(tmp_path / "vault") as vault:
        names = {version.name for version in vault.versions("my.files")}
        assert {b"f%d" % number for number in old} <= names
        for version in vault.versions("my.files"):
            assert version.name is not None
            number = int(version.name[1:])
            assert vault.read_payload(version) == b"%d" % number * (number % 7 * 5000 + 1)
