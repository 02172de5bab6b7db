"""Rows of docs/tools.md: what comes over a network."""

from tests.mount.tools.stage import Stage, rows_of
from tests.mount.tools.table import Row


@rows_of("rsync and sftp")
def test_rsync_and_sftp(row: Row, stage: Stage) -> None:
    """One version for each file that is transferred, none for the others."""
    stage.check(row)


@rows_of("Downloads")
def test_downloads(row: Row, stage: Stage) -> None:
    """One version for each download; two if it was continued."""
    stage.check(row)
