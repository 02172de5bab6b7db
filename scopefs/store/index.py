"""The index: opening index.db, and the queries about versions and scopes.

Nothing else in the process may open index.db, -wal or -shm: closing any descriptor of such a file
drops all of SQLite's locks on it. No read transaction outlives a call: every query is fetched whole
and is bounded by its `limit`.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw

from scopefs.errors import IndexBroken, ScopefsError
from scopefs.model.payload import Kind
from scopefs.model.stamps import format_collected_at, format_stamp
from scopefs.store.schema import APPLICATION_ID, is_current, migrate, read_user_version
from scopefs.store.sql import fetch

_LOG = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 10_000

REPAIR = "unmount, then `scopefs reindex` makes it again"
"""What to do about an index that is broken."""

NO_ROW = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
"""What comes of a row that is missing, or holds what no code of ours has written."""

RATE_US = 60_000_000
RATE_VERSIONS = 2000
"""How far `measure_rate` looks back, in time and in versions."""

PAGE_BYTES = 2048
"""A commit writes whole pages to the WAL, some twenty of them, and checksums each: half of SQLite's
usual size is less of both (`scripts/bench --page-bytes 4096` compares).
"""


@dataclass(frozen=True, slots=True)
class Version:
    """One row of data_files: an immutable version. Units as in scopefs.store.schema."""

    id: int
    path: str
    scope: str
    collected_us: int
    created_at: str
    size_bytes: int
    kind: Kind
    node: int | None
    name: bytes | None
    mtime_ns: int | None
    payload_size: int
    payload_sha256: bytes
    media_type: str | None
    deleted_seq: int | None
    writer_uid: int | None
    writer: str | None
    metadata: str | None

    @property
    def collected_at(self) -> str:
        return format_collected_at(self.collected_us)

    @property
    def stamp(self) -> str:
        return format_stamp(self.collected_us)


@dataclass(frozen=True, slots=True)
class ScopeCount:
    """A scope with its number of versions and the bytes of their payloads."""

    scope: str
    versions: int
    bytes: int
    latest_us: int | None


_COLUMNS = (
    "id, path, scope, collected_us, created_at, size_bytes, kind, node, name, mtime_ns, "
    "payload_size, payload_sha256, media_type, deleted_seq, writer_uid, writer, metadata"
)
_SELECT = f"SELECT {_COLUMNS} FROM data_files"


def open_index(path: str, *, create: bool = False) -> apsw.Connection:
    """Open a connection to index.db.

    Never makes a file unless asked to: an absent or empty index is a broken one, not an empty one.
    Raises `IndexBroken`.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    try:
        db = apsw.Connection(path, flags=flags)
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        # The committer checkpoints, between its batches; closing a short command does not.
        db.wal_autocheckpoint(0)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # Else a statement is compiled anew with each value that it is given, for the sake of
        # partial indexes: three times the cost of the query. They are named by literals instead.
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        # What goes is overwritten: payloads stand here until they are settled, and destroyed ones
        # must not be found. Settling 30 KB costs an eighth more to write. FAST is not enough: a
        # page that was freed may become one that is in use, with the payload in its gap.
        fetch(db, "PRAGMA secure_delete = ON")
        if not create:
            found = fetch(db, "PRAGMA application_id")[0][0]
            if found != APPLICATION_ID:
                db.close()
                raise IndexBroken(
                    f"{path} is no index of scopefs (application id {found:#x}): {REPAIR}"
                )
    except apsw.Error as error:
        if not create and not os.path.exists(path):
            raise IndexBroken(f"{path} is gone: is its disk mounted?") from error
        raise IndexBroken(f"{path} cannot be read as an index: {error}; {REPAIR}") from error
    return db


def initialize_database(path: str) -> apsw.Connection:
    """Open an index, make or migrate its schema, switch it to WAL. Idempotent.

    `:memory:` works, for tests. Raises `IndexBroken`, `NewerFormat`.
    """
    db = open_index(path, create=True)
    try:
        fetch(db, f"PRAGMA page_size = {PAGE_BYTES}")
        fetch(db, "PRAGMA journal_mode = WAL")
        migrate(db)
    except apsw.Error as error:
        db.close()
        raise IndexBroken(f"{path} cannot be read as an index: {error}; {REPAIR}") from error
    except BaseException:
        db.close()
        raise
    return db


def check_index(path: str, vault_id: str) -> bool:
    """Look whether a file is the index of the vault `vault_id`; False if its schema is older.

    Raises `IndexBroken` if it is no index, or another vault's; `NewerFormat`.
    """
    with _checked(path) as db:
        current = is_current(db)
        found = read_meta(db, "vault_id")
    if found != vault_id:
        raise IndexBroken(
            f"{path} is the index of another vault ({found}, not {vault_id}): {REPAIR}"
        )
    return current


def migrate_index(path: str) -> None:
    """Bring an index to the newest schema, after a copy of it: `<path>.schema-N`.

    Nobody else may have the vault open: an older program would work on. Raises `IndexBroken`.
    """
    with _checked(path) as db:
        copy = Path(f"{path}.schema-{read_user_version(db)}")
        copy.unlink(missing_ok=True)
        db.execute("VACUUM INTO ?", (str(copy),))
        copy.chmod(0o600)
        fd = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        migrate(db)


@contextmanager
def _checked(path: str) -> Iterator[apsw.Connection]:
    """A connection for a moment. SQLite's errors become `IndexBroken`."""
    db = open_index(path)
    try:
        yield db
    except apsw.Error as error:
        raise IndexBroken(f"{path} cannot be read as an index: {error}; {REPAIR}") from error
    finally:
        db.close()


class ReaderPool:
    """Reading connections, as many as are in use at once. Usable from every thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[apsw.Connection] = []
        self._closed = False
        self._lock = threading.Lock()

    def connection(self) -> AbstractContextManager[apsw.Connection]:
        """Lend a connection, for `with`. SQLite's errors become `IndexBroken`."""
        return _Lent(self)

    def take(self) -> apsw.Connection:
        """A connection that nobody else has."""
        try:
            return self._idle.pop()
        except IndexError:
            return open_index(self._path)

    def give_back(self, db: apsw.Connection) -> None:
        """Somebody else may have it."""
        with self._lock:
            if not self._closed:
                self._idle.append(db)
                return
        db.close()

    def close(self) -> None:
        """Close all idle connections, and each lent one when it comes back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()


class _Lent:
    """A connection of a pool for the length of a `with`: some queries take no longer than a
    generator would take to say that.
    """

    __slots__ = ("_db", "_pool")

    def __init__(self, pool: ReaderPool) -> None:
        self._pool = pool

    def __enter__(self) -> apsw.Connection:
        self._db = self._pool.take()
        return self._db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if error is None or isinstance(error, ScopefsError):
            self._pool.give_back(self._db)
        elif isinstance(error, (apsw.Error, *NO_ROW)):
            self._db.close()
            if not isinstance(error, apsw.Error):
                _LOG.error("a row of index.db cannot be understood", exc_info=error)
            raise IndexBroken(f"index.db cannot be read: {error}; {REPAIR}") from error


def insert_version(
    db: apsw.Connection, path: str, scope: str, collected_us: int, size_bytes: int, *,
    created_at: str, kind: Kind = Kind.DOCUMENT, node: int | None = None,
    name: bytes | None = None, mtime_ns: int | None = None, payload_size: int = 0,
    payload_sha256: bytes = b"", media_type: str | None = None, writer_uid: int | None = None,
    writer: str | None = None, metadata: str | None = None,
) -> Version:  # fmt: skip
    """Insert one row of data_files. Raises `apsw.ConstraintError` if path or time is taken."""
    db.execute(
        "INSERT INTO data_files(path, scope, collected_at, collected_us, created_at, size_bytes,"
        " kind, node, name, mtime_ns, payload_size, payload_sha256, media_type, writer_uid, writer,"
        " metadata) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (path, scope, format_collected_at(collected_us), collected_us, created_at, size_bytes,
         int(kind), node, name, mtime_ns, payload_size, payload_sha256, media_type, writer_uid,
         writer, metadata),
    )  # fmt: skip
    return Version(
        db.last_insert_rowid(), path, scope, collected_us, created_at, size_bytes, kind, node, name,
        mtime_ns, payload_size, payload_sha256, media_type, None, writer_uid, writer, metadata,
    )  # fmt: skip


def find_by_path(db: apsw.Connection, path: str) -> Version | None:
    """The version whose envelope stands at `path`, relative to the vault."""
    return _find(db, "WHERE path = ?", (path,))


def find_by_id(db: apsw.Connection, version_id: int) -> Version | None:
    """The version with that id, in the trash or not."""
    return _find(db, "WHERE id = ?", (version_id,))


def find_by_scope(
    db: apsw.Connection, scope: str, limit: int = -1, offset: int = 0
) -> list[Version]:
    """The versions of a scope, newest first. A negative limit means all of them."""
    rows = fetch(
        db,
        f"{_SELECT} WHERE scope = ? AND deleted_seq IS NULL"
        " ORDER BY collected_us DESC LIMIT ? OFFSET ?",
        (scope, limit, offset),
    )
    return [_to_version(row) for row in rows]


def list_after(db: apsw.Connection, scope: str, after_us: int, limit: int) -> list[Version]:
    """A page of a scope's versions, oldest first, strictly after a time."""
    rows = fetch(
        db,
        f"{_SELECT} WHERE scope = ? AND collected_us > ? AND deleted_seq IS NULL"
        " ORDER BY collected_us LIMIT ?",
        (scope, after_us, limit),
    )
    return [_to_version(row) for row in rows]


def list_before(db: apsw.Connection, before_id: int, limit: int) -> list[Version]:
    """A page of the versions of all scopes, newest first by order of publication."""
    rows = fetch(
        db,
        f"{_SELECT} WHERE id < ? AND deleted_seq IS NULL ORDER BY id DESC LIMIT ?",
        (before_id, limit),
    )
    return [_to_version(row) for row in rows]


def find_exact(db: apsw.Connection, scope: str, collected_us: int) -> Version | None:
    """The version of a scope at exactly that time."""
    return _find(
        db, "WHERE scope = ? AND collected_us = ? AND deleted_seq IS NULL", (scope, collected_us)
    )


def find_latest_by_scope(db: apsw.Connection, scope: str) -> Version | None:
    """The newest version of a scope."""
    return _find(
        db,
        "WHERE scope = ? AND deleted_seq IS NULL ORDER BY collected_us DESC LIMIT 1",
        (scope,),
    )


def find_at(db: apsw.Connection, scope: str, at_us: int) -> Version | None:
    """The newest version of a scope at or before a time."""
    return _find(
        db,
        "WHERE scope = ? AND collected_us <= ? AND deleted_seq IS NULL"
        " ORDER BY collected_us DESC LIMIT 1",
        (scope, at_us),
    )


def count_by_scope(db: apsw.Connection, scope: str) -> int:
    """How many versions a scope has, counted. `list_scopes` knows without counting."""
    return int(
        fetch(
            db, "SELECT COUNT(*) FROM data_files WHERE scope = ? AND deleted_seq IS NULL", (scope,)
        )[0][0]
    )


def delete_by_path(db: apsw.Connection, path: str) -> bool:
    """Remove the row of the envelope at `path`; False if there was none."""
    return bool(fetch(db, "DELETE FROM data_files WHERE path = ? RETURNING id", (path,)))


def list_scopes(
    db: apsw.Connection, limit: int = -1, offset: int = 0, *, prefix: str = ""
) -> list[ScopeCount]:
    """The scopes that have versions, by name, from their counters.

    `prefix` is literal and ends at a segment: `instagram` means `instagram.*`, never
    `instagram2.x`.
    """
    rows = fetch(
        db,
        "SELECT s.scope, s.versions, s.bytes, (SELECT MAX(d.collected_us) FROM data_files d"
        "   WHERE d.scope = s.scope AND d.deleted_seq IS NULL)"
        " FROM scopes s WHERE s.versions > 0"
        "  AND (?1 = '' OR s.scope = ?1 OR (s.scope > ?1 || '.' AND s.scope < ?1 || '/'))"
        " ORDER BY s.scope LIMIT ?2 OFFSET ?3",
        (prefix, limit, offset),
    )
    return [ScopeCount(*row) for row in rows]


def sum_scopes(db: apsw.Connection) -> tuple[int, int, int]:
    """Over the whole vault: scopes with versions, versions, bytes of payload."""
    row = fetch(
        db,
        "SELECT COUNT(*), COALESCE(SUM(versions), 0), COALESCE(SUM(bytes), 0)"
        " FROM scopes WHERE versions > 0",
    )[0]
    return int(row[0]), int(row[1]), int(row[2])


def measure_rate(db: apsw.Connection, now_us: int) -> tuple[float, int, int]:
    """What was stored lately: seconds looked at, versions, bytes of payload; by collectedAt.

    A minute is looked at, and of it no more than the newest versions: this costs next to nothing.
    """
    versions, size, first_us = fetch(
        db,
        "SELECT COUNT(*), COALESCE(SUM(payload_size), 0), MIN(collected_us) FROM"
        " (SELECT payload_size, collected_us FROM data_files WHERE collected_us > ?"
        "  ORDER BY collected_us DESC LIMIT ?)",
        (now_us - RATE_US, RATE_VERSIONS),
    )[0]
    span_us = RATE_US if versions < RATE_VERSIONS else max(now_us - first_us, 1)
    return span_us / 1e6, versions, size


def sum_bytes(db: apsw.Connection) -> int:
    """The bytes of all envelopes and of the blobs that they name, counted."""
    rows = fetch(
        db,
        "SELECT SUM(size_bytes + IIF(kind = 2, payload_size, 0)) FROM data_files"
        " WHERE deleted_seq IS NULL",
    )
    return int(rows[0][0] or 0)


def read_meta(db: apsw.Connection, key: str) -> Any:
    """A value of meta, or None."""
    rows = fetch(db, "SELECT value FROM meta WHERE key = ?", (key,))
    return rows[0][0] if rows else None


def write_meta(db: apsw.Connection, key: str, value: int | str) -> None:
    """Set a value of meta."""
    db.execute("INSERT OR REPLACE INTO meta(key, value) VALUES(?, ?)", (key, value))


def index_identity(path: Path) -> tuple[int, int]:
    """Device and inode of index.db: whether it is still the file that was opened.

    Raises `IndexBroken` if it is gone.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise IndexBroken(f"{path} is gone: {error.strerror}") from error
    return found.st_dev, found.st_ino


def _find(db: apsw.Connection, condition: str, values: tuple[Any, ...]) -> Version | None:
    rows = fetch(db, f"{_SELECT} {condition}", values)
    return _to_version(rows[0]) if rows else None


def _to_version(row: tuple[Any, ...]) -> Version:
    id_, path, scope, collected_us, created_at, size_bytes, kind, *rest = row
    return Version(id_, path, scope, collected_us, created_at, size_bytes, Kind(kind), *rest)
