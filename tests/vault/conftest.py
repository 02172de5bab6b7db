"""Fixtures: a vault whose clock stands still until a test moves it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scopefs import Vault
from tests.store.inspection import Clock


@pytest.fixture
def clock() -> Clock:
    """Noon, until the test moves it."""
    return Clock()


@pytest.fixture
def clocked(tmp_path: Path, clock: Clock) -> Iterator[Vault]:
    """A new vault that lives by `clock`."""
    with Vault.open(tmp_path / "vault", create=True, clock_us=clock) as opened:
        yield opened
