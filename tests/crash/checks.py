"""What must be so in a vault that was opened after a crash."""

import hashlib
from pathlib import Path

import apsw

from scopefs import Vault
from scopefs.model.imports import decode_arrival
from scopefs.store import index
from scopefs.store.sql import fetch
from tests.store.inspection import check_whole, query


def digest_index(db: apsw.Connection) -> bytes:
    """A hash over all rows of an index: which state it is in."""
    found = hashlib.sha256()
    for (table,) in fetch(db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1"):
        found.update(repr((table, fetch(db, f"SELECT * FROM {table}"))).encode())
    return found.digest()


def load_index(path: Path) -> bytes:
    """The state of an index that nobody has open; nothing but SQLite's recovery is done to it."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        return digest_index(db)
    finally:
        db.close()


def check_placed(root: Path) -> None:
    """Fail unless each file in data/ and blobs/ is whole, before anybody has opened the vault."""
    for path in (root / "blobs").rglob("*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for path in (root / "data").rglob("*.json"):
        decode_arrival(path.read_bytes())


def check_open(vault: Vault) -> None:
    """Fail on anything that does not fit together in an open vault, its payloads included."""
    check_whole(vault)
    for (version_id,) in query(vault, "SELECT id FROM data_files"):
        with vault.read() as db:
            version = index.find_by_id(db, version_id)
        assert version is not None
        assert hashlib.sha256(vault.read_payload(version)).digest() == version.payload_sha256
        envelope = vault.read_envelope(version)
        assert len(envelope) == version.size_bytes
        assert (vault.layout.root / version.path).read_bytes() == envelope
    for node, sha256 in query(vault, "SELECT node, sha256 FROM scratch"):
        reader = vault.open_scratch(node)
        assert hashlib.sha256(reader.read(0, reader.size)).digest() == sha256
    check_staging(vault)


def check_staging(vault: Vault) -> None:
    """Fail unless staging/ has this process's directory, the bytes of scratch files, no more."""
    found = {
        str(path.relative_to(vault.layout.staging))
        for path in vault.layout.staging.rglob("*")
        if not path.is_dir() and path.name != "lock"
    }
    wanted = {row[0] for row in query(vault, "SELECT file FROM scratch WHERE file IS NOT NULL")}
    assert found == wanted
    directories = {path.name for path in vault.layout.staging.iterdir()}
    assert directories == {vault.owner_name} | {name.partition("/")[0] for name in wanted}


def check_closed(root: Path) -> None:
    """Fail unless a vault that was closed well has nothing left to do."""
    with Vault.open(root) as vault:
        recovered = vault.recovered
        assert (recovered.published, recovered.partial, recovered.removed) == (0, 0, 0)
        assert query(vault, "SELECT sid FROM staged UNION ALL SELECT id FROM moves") == []
