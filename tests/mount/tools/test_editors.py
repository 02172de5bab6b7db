"""Rows of docs/tools.md: editors, in a terminal and without."""

from tests.mount.tools.stage import Stage, rows_of
from tests.mount.tools.table import Row


@rows_of("Editors")
def test_editors(row: Row, stage: Stage) -> None:
    """Each save is a version; swap and backup files make none."""
    stage.check(row)
