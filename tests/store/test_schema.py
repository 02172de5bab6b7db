"""The schema: explained column by column, migrated step by step, never downgraded."""

import re
from pathlib import Path

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import IndexBroken, NewerFormat
from scopefs.store import schema
from scopefs.store.index import initialize_database, write_meta

TABLES = (
    "meta", "nodes", "scopes", "data_files", "names", "shown", "events", "staged", "scratch",
    "chunks", "receipts", "moves",
)  # fmt: skip


def parse_sections() -> dict[str, str]:
    """What the schema's docstring says about each table, by the table's name."""
    sections: dict[str, str] = {}
    table = ""
    for line in (schema.__doc__ or "").splitlines():
        heading = re.match(r"([a-z_]+)(:.*)?$", line)
        if heading is not None and heading.group(1) in TABLES:
            table = heading.group(1)
            sections[table] = heading.group(2) or ""
        elif line.startswith("    ") and table:
            sections[table] += "\n" + line
    return sections


def list_tables(db: apsw.Connection) -> list[str]:
    """The tables that the schema makes."""
    rows = db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    ).fetchall()
    return [row[0] for row in rows]


def dump(path: Path) -> list[tuple[str, ...]]:
    """The schema's text and the user_version of an index."""
    db = apsw.Connection(str(path))
    found = db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    found.append((str(schema.read_user_version(db)),))
    db.close()
    return found


def test_every_table_is_explained(db: apsw.Connection) -> None:
    """Each table of the schema has its section in the docstring, and no section is stale."""
    assert sorted(list_tables(db)) == sorted(parse_sections())


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_explained(db: apsw.Connection, table: str) -> None:
    """Each column is named in the section of its table."""
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    text = parse_sections()[table]
    missing = [column for column in columns if not re.search(rf"\b{column}\b", text)]
    assert columns
    assert missing == []


def test_every_key_of_meta_is_explained(vault: Vault) -> None:
    """Whatever the vault keeps in meta is named in the section of that table."""
    vault.put("a.b", b"{}")
    vault.settle()
    vault.sync()
    with vault.read() as db:
        keys = [row[0] for row in db.execute("SELECT key FROM meta")]
    assert [key for key in keys if key not in parse_sections()["meta"]] == []


def test_data_files_has_what_the_contract_names(db: apsw.Connection) -> None:
    """The columns and constraints of data_files are those that other readers rely on."""
    found = {
        row[1]: (row[2], bool(row[3]), bool(row[5]))
        for row in db.execute("PRAGMA table_info(data_files)")
    }
    expected = {
        "id": ("INTEGER", False, True),
        "file_id": ("TEXT", False, False),
        "path": ("TEXT", True, False),
        "scope": ("TEXT", True, False),
        "collected_at": ("TEXT", True, False),
        "created_at": ("TEXT", True, False),
        "size_bytes": ("INTEGER", True, False),
    }
    assert {column: found[column] for column in expected} == expected


def test_index_is_in_wal_mode(tmp_path: Path) -> None:
    """A new index keeps a write-ahead log."""
    db = initialize_database(str(tmp_path / "index.db"))
    mode = db.execute("PRAGMA journal_mode").fetchall()
    db.close()
    assert mode == [("wal",)]


def test_initializing_twice_changes_nothing(tmp_path: Path) -> None:
    """The second time finds everything there, and keeps it."""
    path = tmp_path / "index.db"
    db = initialize_database(str(path))
    write_meta(db, "next_node", 77)
    db.close()
    before = dump(path)
    db = initialize_database(str(path))
    kept = db.execute("SELECT value FROM meta WHERE key = 'next_node'").fetchall()
    db.close()
    assert dump(path) == before
    assert kept == [(77,)]


def test_user_version_counts_the_migrations(db: apsw.Connection) -> None:
    """A new index has the number of the newest schema."""
    assert schema.read_user_version(db) == len(schema.MIGRATIONS)


def test_nothing_to_migrate_is_nothing_done(db: apsw.Connection) -> None:
    """An index of the newest schema is left alone."""
    assert schema.migrate(db) is False


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """The directory of a vault with one version, closed and settled."""
    with Vault.open(tmp_path / "v", create=True) as vault:
        vault.put("a.b", b'{"a":1}')
        vault.settle()
    return tmp_path / "v"


def test_older_index_is_migrated_and_keeps_its_rows(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each script from the index's version on is run, in order, once, and the rows stay."""
    scripts = (
        "ALTER TABLE scopes ADD COLUMN colour TEXT; UPDATE scopes SET colour = 'red'",
        "UPDATE scopes SET colour = colour || 'dish'",
    )
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *scripts))
    for _ in range(2):
        with Vault.open(closed) as vault, vault.read() as db:
            assert schema.read_user_version(db) == len(schema.MIGRATIONS)
            assert db.execute("SELECT scope, colour FROM scopes").fetchall() == [("a.b", "reddish")]
            assert vault.read_payload(vault.get("a.b")) == b'{"a":1}'


def test_failing_migration_changes_nothing(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration is one transaction: what came before the error is undone."""
    before = dump(closed / "index.db")
    scripts = ("ALTER TABLE scopes ADD COLUMN colour TEXT", "UPDATE no_such_table SET x = 1")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *scripts))
    with pytest.raises(IndexBroken):
        Vault.open(closed)
    assert dump(closed / "index.db") == before


def test_newer_index_is_refused_untouched(closed: Path) -> None:
    """An index of a newer schema is refused by both numbers, and not a byte of it changes."""
    db = apsw.Connection(str(closed / "index.db"))
    db.execute("PRAGMA user_version = 99")
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    before = (closed / "index.db").read_bytes()
    with pytest.raises(NewerFormat, match=f"schema 99.*knows {len(schema.MIGRATIONS)}"):
        Vault.open(closed)
    assert (closed / "index.db").read_bytes() == before


def test_index_of_another_application_is_refused_untouched(closed: Path) -> None:
    """A database with another application_id is no index, whatever tables it has."""
    db = apsw.Connection(str(closed / "index.db"))
    db.execute("PRAGMA application_id = 1")
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    before = (closed / "index.db").read_bytes()
    with pytest.raises(IndexBroken, match="application id 0x1"):
        Vault.open(closed)
    assert (closed / "index.db").read_bytes() == before
