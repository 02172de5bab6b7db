"""Reading rows: the one place through which every query of the index goes.

Rows are fetched whole, so that no statement, and with it no read transaction, stays open.
"""

from typing import Any, TypeAlias

import apsw

Row: TypeAlias = tuple[Any, ...]


def fetch(db: apsw.Connection, statement: str, values: tuple[Any, ...] = ()) -> list[Row]:
    """All rows that a statement returns. Raises `apsw.CorruptError` for text that is no UTF-8."""
    try:
        return db.execute(statement, values).fetchall()
    except UnicodeDecodeError as error:
        raise apsw.CorruptError(f"text that is no UTF-8: {error}") from error
