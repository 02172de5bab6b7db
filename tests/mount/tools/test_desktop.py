"""Rows of docs/tools.md: desktop programs, and the files that they make besides."""

from tests.mount.tools.stage import Stage, rows_of
from tests.mount.tools.table import Row


@rows_of("Desktop programs")
def test_desktop_programs(row: Row, stage: Stage) -> None:
    """Each save is a version; lock files and half downloads make none."""
    stage.check(row)


@rows_of("Scratch files")
def test_scratch_files(row: Row, stage: Stage) -> None:
    """Names of the listed patterns make no versions, until they are renamed."""
    stage.check(row)


@rows_of("Temporary files")
def test_temporary_files(row: Row, stage: Stage) -> None:
    """What a program makes and removes itself leaves no version."""
    stage.check(row)
