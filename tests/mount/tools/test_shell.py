"""Rows of docs/tools.md: the shell and what is called from it."""

from tests.mount.tools.stage import Stage, rows_of
from tests.mount.tools.table import Row


@rows_of("The shell")
def test_shell(row: Row, stage: Stage) -> None:
    """From the open to the last close is one version."""
    stage.check(row)


@rows_of("Text tools")
def test_text_tools(row: Row, stage: Stage) -> None:
    """Writing anew and renaming is one version of the final name."""
    stage.check(row)


@rows_of("Writing in place")
def test_writing_in_place(row: Row, stage: Stage) -> None:
    """One version, wherever it writes."""
    stage.check(row)
