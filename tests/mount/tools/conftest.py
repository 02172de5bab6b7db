"""Fixtures: a web server, and a stage for each row of docs/tools.md."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.tools.contents import BIG, NEW
from tests.mount.tools.stage import Stage
from tests.mount.tools.web import serve
from tests.mounting import Mounted


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A web server, for rows that download."""
    with serve({"new": NEW, "big": BIG, "cut": BIG, "slow": BIG}) as found:
        yield found


@pytest.fixture
def stage(shared: Mounted, scope: Path, tmp_path: Path, url: str) -> Stage:
    """A new scope with its file, and what lies outside."""
    return Stage(shared, scope, tmp_path, url)
