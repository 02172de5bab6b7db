"""A server for each module of tests, and servers of a test's own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.serving import Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all cases of a module; each uses scopes of its own."""
    server = Served(tmp_path_factory.mktemp("served") / "vault")
    try:
        yield server
        server.stop()
    finally:
        server.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts servers over the test's own vault; what is left running is ended."""
    started: list[Served] = []

    def begin(*options: str, vault: str = "vault", **settings: str) -> Served:
        server = Served(tmp_path / vault, *options, **settings)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.end()
