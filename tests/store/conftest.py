"""Fixtures: a vault whose clock stands still, and bare indexes in memory."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from scopefs import Vault
from scopefs.store.index import initialize_database
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


@pytest.fixture
def db() -> Iterator[apsw.Connection]:
    """An empty index in memory."""
    opened = initialize_database(":memory:")
    yield opened
    opened.close()
