"""Rows of docs/tools.md: archivers, compressors, git."""

from tests.mount.tools.stage import Stage, rows_of
from tests.mount.tools.table import Row


@rows_of("Archives")
def test_archives(row: Row, stage: Stage) -> None:
    """One version for each file that is unpacked, one for an archive."""
    stage.check(row)


@rows_of("git")
def test_git(row: Row, stage: Stage) -> None:
    """What git writes into a work tree is one version for each file."""
    stage.check(row)
