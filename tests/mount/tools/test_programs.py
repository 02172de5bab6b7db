"""Rows of docs/tools.md: databases and scripts."""

from tests.mount.tools.stage import Stage, rows_of
from tests.mount.tools.table import Row


@rows_of("Databases")
def test_databases(row: Row, stage: Stage) -> None:
    """One version for each time that it is opened and written."""
    stage.check(row)


@rows_of("Programs in Python and Perl")
def test_programs(row: Row, stage: Stage) -> None:
    """From the open to the close is one version, whatever the library."""
    stage.check(row)
