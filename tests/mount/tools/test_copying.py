"""Rows of docs/tools.md: what is copied, moved and named."""

from tests.mount.tools.stage import Stage, rows_of
from tests.mount.tools.table import Row


@rows_of("Copying")
def test_copying(row: Row, stage: Stage) -> None:
    """A copy is one version for each file that is written."""
    stage.check(row)


@rows_of("Names, modes and times")
def test_names(row: Row, stage: Stage) -> None:
    """What changes no content makes no version: semantics N4, N5, N7."""
    stage.check(row)


@rows_of("Reading")
def test_reading(row: Row, stage: Stage) -> None:
    """Reading changes nothing, and does not see history: semantics V7."""
    stage.check(row)
