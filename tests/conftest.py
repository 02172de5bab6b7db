"""Fixtures: an open vault, and a vault that is really mounted."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scopefs import Vault
from tests.mounting import Mounted, start_mount

# What the user of this machine has configured is not what is tested.
os.environ["SCOPEFS_CONFIG"] = os.devnull


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A new vault, open in this process."""
    with Vault.open(tmp_path / "vault", create=True) as opened:
        yield opened


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Mounted]]:
    """Mounts vaults below the test's directory; what a test leaves mounted is unmounted."""
    started: list[Mounted] = []

    def begin(vault: str = "vault", point: str = "mnt", *options: str) -> Mounted:
        mounted = start_mount(tmp_path / vault, tmp_path / point, *options)
        started.append(mounted)
        return mounted

    yield begin
    for mounted in started:
        mounted.clean_up()


@pytest.fixture
def mounted(start: Callable[..., Mounted]) -> Iterator[Mounted]:
    """A new vault, mounted; the test fails if the daemon logged an error it does not expect."""
    mount = start()
    yield mount
    mount.stop()
    mount.check_log()
