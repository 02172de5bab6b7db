"""/openapi.json says what is true: schemathesis asks, and finds nothing else."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs.api.routes import OPERATIONS
from tests.api.serving import Served

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_it_names_every_operation(served: Served) -> None:
    """All operations of the table are there, and no path besides."""
    found = served.client.get("/openapi.json").json()
    described = {
        (method.upper(), path) for path, methods in found["paths"].items() for method in methods
    }
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}
    assert found["openapi"] == "3.1.0"
    assert "ErrorBody" in found["components"]["schemas"]


@pytest.mark.skipif(
    shutil.which(str(SCHEMATHESIS)) is None, reason="needs schemathesis (a development tool)"
)
@pytest.mark.parametrize(
    "options",
    [
        ("--exclude-path", "/v1/events", "-n", "25"),
        # The stream of events does not end: a part of it must do.
        ("--include-path", "/v1/events", "-n", "10", "--request-timeout", "0.5"),
    ],
    ids=["answers", "events"],
)
def test_schemathesis_finds_it_true(
    serve: Callable[..., Served], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """All checks and phases of schemathesis."""
    server = serve()
    server.post("a.a", b"{}")
    done = subprocess.run(
        [SCHEMATHESIS, "run", f"{server.url}/openapi.json", "--checks", "all", *options,
         "-H", f"Authorization: Bearer {server.token}", "--generation-deterministic"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    server.stop()
