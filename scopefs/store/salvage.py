"""Salvage: reading what can still be read of an index that may be damaged.

Page by page; where a page cannot be read, row by row, and past what cannot be read at all. Nothing
is believed that can be checked: events by their chain, payloads by their hash (by whoever asks).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from scopefs.errors import IndexBroken
from scopefs.store.index import open_index
from scopefs.store.sql import Row, fetch

_PAGE = 200
_GIVE_UP = 1 << 40


class OldIndex:
    """An index that is to be replaced, as far as it can be read; possibly not at all."""

    def __init__(self, path: Path, vault_id: str) -> None:
        self.reason: str | None = None
        """Why nothing of it can be read."""
        self.unreadable: set[str] = set()
        """Tables of which something could not be read."""
        self._columns: dict[str, set[str]] = {}
        self._db: apsw.Connection | None = None
        if not path.exists():
            self.reason = "there is none"
            return
        try:
            db = open_index(str(path))
        except IndexBroken as error:
            self.reason = str(error)
            return
        self._db = db
        found: Any = None
        with contextlib.suppress(apsw.Error):
            rows = fetch(db, "SELECT value FROM meta WHERE key = 'vault_id'")
            found = rows[0][0] if rows else ""
        if found not in (vault_id, None):
            self.close()
            self.reason = f"it is of another vault, {found}"

    @property
    def is_readable(self) -> bool:
        """Whether anything can be read of it."""
        return self._db is not None

    def close(self) -> None:
        """Close it."""
        if self._db is not None:
            with contextlib.suppress(apsw.Error):
                self._db.close(True)
            self._db = None

    def read_meta(self, key: str) -> int:
        """A number of meta, 0 if it cannot be read."""
        rows = self._try("meta", "SELECT value FROM meta WHERE key = ?", (key,))
        return rows[0][0] if rows and isinstance(rows[0][0], int) else 0

    def find(self, table: str, key: str, value: int, columns: tuple[str, ...]) -> Row | None:
        """One row by its key."""
        wanted = self._known_columns(table, columns)
        if wanted is None:
            return None
        rows = self._try(table, f"SELECT {wanted} FROM {table} WHERE {key} = ?", (value,))
        return rows[0] if rows else None

    def iterate(
        self, table: str, key: str, columns: tuple[str, ...], after: int = 0, last: int = 1 << 62
    ) -> Iterator[Row]:
        """The rows of a table by their numeric key, which is also the first of `columns`."""
        wanted = self._known_columns(table, columns)
        if wanted is None:
            return
        limit, skip = _PAGE, 1
        while True:
            rows = self._try(
                table,
                f"SELECT {wanted} FROM {table} WHERE {key} > ? AND {key} <= ? ORDER BY {key}"
                " LIMIT ?",
                (after, last, limit),
            )
            if rows is None:
                if limit > 1:
                    limit = 1
                    continue
                after, skip = after + skip, skip * 2
                if skip > _GIVE_UP:
                    return
                continue
            if not rows:
                return
            yield from rows
            after, limit, skip = rows[-1][0], _PAGE, 1

    def read_all(self, table: str, columns: tuple[str, ...]) -> list[Row]:
        """All rows of a small table; none if it cannot be read."""
        wanted = self._known_columns(table, columns)
        if wanted is None:
            return []
        return self._try(table, f"SELECT {wanted} FROM {table}", ()) or []

    def _known_columns(self, table: str, columns: tuple[str, ...]) -> str | None:
        """Columns for a SELECT; those that an older schema has not are null. None: no table."""
        if table not in self._columns:
            rows = self._try(table, f"PRAGMA table_info({table})", ()) or []
            self._columns[table] = {row[1] for row in rows}
        known = self._columns[table]
        if not known:
            return None
        return ", ".join(column if column in known else "NULL" for column in columns)

    def _try(self, table: str, statement: str, values: tuple[Any, ...]) -> list[Row] | None:
        if self._db is None:
            return []
        try:
            return fetch(self._db, statement, values)
        except apsw.Error:
            self.unreadable.add(table)
            return None
