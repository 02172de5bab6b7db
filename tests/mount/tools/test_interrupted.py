"""Rows of docs/tools.md: programs that are killed while they write."""

from tests.mount.tools.stage import Stage, rows_of
from tests.mount.tools.table import Row


@rows_of("Interrupted")
def test_interrupted(row: Row, stage: Stage) -> None:
    """Who is killed has finished nothing; the bytes are in partial/: semantics S7."""
    stage.check(row)
