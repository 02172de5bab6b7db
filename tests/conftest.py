"""Fixtures: an open vault, and a vault that is really mounted."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scopefs import Vault
from tests.mounting import Mounted, start_mount

# What the user of this machine has configured is not what is tested.
os.environ["SCOPEFS_CONFIG"] = os.devnull
# A shell starts what runs in the background with SIGINT ignored, and what is ignored is inherited
# by the programs that are tested. A handler is not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
