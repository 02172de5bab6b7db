"""The schema of index.db, column by column, and its migrations.

Every row is written in the transaction of its event. An index costs one more page in every commit,
and pages are what a commit costs: there is none that a frequent question does not need. Units:
`_us` microseconds and `_ns` nanoseconds since the epoch, sizes in bytes, hashes are 32 raw bytes of
SHA-256.

meta
    key, value: `vault_id` (that of vault.json), `home` (ctime of vault.json, by which a copy is
    known: scopefs.store.copies; may be missing), `next_node` (first node id or slot not yet given
    out), `settled_seq` (events up to this one stand in events/).
nodes: identity that outlives names; the id is the inode number and is never reused
    id; kind: `NodeKind`; scope: node of the scope it belongs to (itself for a scope), null for the
    root and for sources.
scopes: one row for every scope that ever was
    node: its directory; scope: its text; last_us: highest collectedAt ever given here, deleted
    versions too; versions, bytes: how many there are now, and the sum of their payloads, kept by
    the code that records versions, so that listing scopes never counts.
data_files: one row for every version
    id: never reused. file_id: reserved by the contract of the personal server, null. path: where
    the envelope stands, or will once it is settled, relative to the vault. scope, collected_at,
    created_at: text, for people and other readers. size_bytes: size of the envelope. collected_us:
    collected_at as a number, and the only thing that is ordered by. kind: `Kind`. node: the file
    it is a version of, null for a nameless one. name: the name within the scope under which it was
    published. mtime_ns: of the source. payload_size, payload_sha256, media_type. deleted_seq: the
    event that moved it to the trash, else null; `path` then lies in trash/, so that it stays true
    and unique. writer_uid, writer: user and program name of the process that opened the file for
    writing, null where no process is known (an import). metadata: what its sender said about a
    payload that is no document, as text.
names: directory entries over time; an overwrite does not touch them
    id; parent: node of the directory; name: bytes; node: what it names. The entry holds from event
    from_seq until until_seq, null while it lives. came_from: the entry that this one continues
    (a rename's source, or the entry it replaced), so that history follows renames. slot: a number
    that (parent, name) keeps for ever, the offset of READDIR; from the counter of node ids.
shown: what a node shows over time, one row per new version, chmod, touch
    from_seq: the event since when; version: null for an empty file and for directories; mode:
    permission bits; mtime_ns; target: of a symlink. A directory's newest row has its mtime set in
    place whenever an entry of it changes.
events: all that ever changed
    seq: the number, without a gap; at_us: strictly growing; scope: node of the scope, null for
    sources; detail: the members of the line in events/ behind `prev`; hash: of the exact line
    (scopefs.model.events).
staged: writes that are not yet settled, and their bytes
    sid; owner: the directory in staging/ of the process that wrote it; state: `StagedState`;
    node, scope, parent, name, mode, mtime_ns: what it will be published as (node null: nameless);
    size, sha256, kind, media_type: of its payload; payload: the bytes themselves, up to 64 KiB,
    else null and file: their path relative to staging/; version: once published; at_us: when;
    writer_uid, writer: as in data_files.
scratch: the bytes of files that make no versions (scopefs.model.scratch), as they were last closed
    node: the file, whose `shown.version` is null; size, sha256, kind, media_type: of its bytes;
    file, payload, writer_uid, writer: as in staged. The staging file stays where it was written.
chunks: so that parts of payloads over 1 MiB can be checked (scopefs.store.chunks)
    sha256: of the whole payload; digests: the first 16 bytes of the SHA-256 of each MiB of it, one
    behind the other. A row may be missing, and is made by whoever reads the payload.
receipts: which requests with an `Idempotency-Key` were answered lately (scopefs.store.receipts)
    key: SHA-256 of who asked and of the key; at_us: when; request: SHA-256 of all that was asked;
    scope, collected_us: of the version that it made.
moves: files that are to be moved by whoever settles next
    id; source, target: paths relative to the vault; an empty target: to be removed.
"""

import apsw

from scopefs.errors import NewerFormat
from scopefs.store.sql import fetch

APPLICATION_ID = 0x53434653
"""`SCFS`: an empty file or somebody else's database is not taken for an index."""

_SCHEMA_1 = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE nodes(id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, scope INTEGER);
CREATE TABLE scopes(
  node INTEGER PRIMARY KEY, scope TEXT NOT NULL UNIQUE, last_us INTEGER NOT NULL DEFAULT 0,
  versions INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0);
CREATE TABLE data_files(
  id INTEGER PRIMARY KEY AUTOINCREMENT, file_id TEXT, path TEXT NOT NULL UNIQUE,
  scope TEXT NOT NULL, collected_at TEXT NOT NULL, created_at TEXT NOT NULL,
  size_bytes INTEGER NOT NULL, collected_us INTEGER NOT NULL, kind INTEGER NOT NULL DEFAULT 0,
  node INTEGER, name BLOB, mtime_ns INTEGER, payload_size INTEGER NOT NULL DEFAULT 0,
  payload_sha256 BLOB NOT NULL DEFAULT x'', media_type TEXT, deleted_seq INTEGER);
CREATE UNIQUE INDEX data_files_scope ON data_files(scope, collected_us) WHERE deleted_seq IS NULL;
CREATE INDEX data_files_collected ON data_files(collected_us);
CREATE INDEX data_files_file_id ON data_files(file_id) WHERE file_id IS NOT NULL;
CREATE INDEX data_files_blob ON data_files(payload_sha256) WHERE kind = 2;
CREATE TABLE names(
  id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL,
  from_seq INTEGER NOT NULL, until_seq INTEGER, came_from INTEGER, slot INTEGER NOT NULL);
CREATE UNIQUE INDEX names_list ON names(parent, slot) WHERE until_seq IS NULL;
CREATE UNIQUE INDEX names_past ON names(parent, name, from_seq);
CREATE INDEX names_node ON names(node, from_seq);
CREATE TABLE shown(
  node INTEGER NOT NULL, from_seq INTEGER NOT NULL, version INTEGER, mode INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, target BLOB, PRIMARY KEY(node, from_seq)) WITHOUT ROWID;
CREATE TABLE events(
  seq INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, scope INTEGER, detail TEXT NOT NULL,
  hash BLOB NOT NULL);
CREATE INDEX events_scope ON events(scope, seq);
CREATE TABLE staged(
  sid INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, state INTEGER NOT NULL, node INTEGER,
  scope INTEGER NOT NULL, parent INTEGER, name BLOB, mode INTEGER NOT NULL, mtime_ns INTEGER,
  size INTEGER NOT NULL, sha256 BLOB, kind INTEGER, media_type TEXT, payload BLOB, file TEXT,
  version INTEGER, at_us INTEGER);
CREATE INDEX staged_version ON staged(version) WHERE version IS NOT NULL;
CREATE INDEX staged_node ON staged(node) WHERE state < 2;
CREATE TABLE moves(id INTEGER PRIMARY KEY, source TEXT NOT NULL, target TEXT NOT NULL);
INSERT INTO nodes(id, kind) VALUES(1, 0);
INSERT INTO shown(node, from_seq, mode, mtime_ns) VALUES(1, 0, 493, 0);
INSERT INTO meta(key, value) VALUES('next_node', 2), ('settled_seq', 0);
"""

_SCHEMA_2 = """
ALTER TABLE data_files ADD COLUMN writer_uid INTEGER;
ALTER TABLE data_files ADD COLUMN writer TEXT;
ALTER TABLE staged ADD COLUMN writer_uid INTEGER;
ALTER TABLE staged ADD COLUMN writer TEXT;
CREATE TABLE scratch(
  node INTEGER PRIMARY KEY, size INTEGER NOT NULL, sha256 BLOB NOT NULL, kind INTEGER NOT NULL,
  media_type TEXT NOT NULL, file TEXT, writer_uid INTEGER, writer TEXT, payload BLOB);
CREATE INDEX scratch_file ON scratch(file) WHERE file IS NOT NULL;
CREATE TABLE chunks(sha256 BLOB PRIMARY KEY, digests BLOB NOT NULL) WITHOUT ROWID;
ALTER TABLE data_files ADD COLUMN metadata TEXT;
CREATE TABLE receipts(
  key BLOB PRIMARY KEY, at_us INTEGER NOT NULL, request BLOB NOT NULL, scope TEXT NOT NULL,
  collected_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX receipts_at ON receipts(at_us);
CREATE INDEX data_files_trash ON data_files(deleted_seq) WHERE deleted_seq IS NOT NULL;
"""

MIGRATIONS: tuple[str, ...] = (_SCHEMA_1, _SCHEMA_2)
"""Script N brings an index from `user_version` N to N + 1; the newest is the schema."""


def read_user_version(db: apsw.Connection) -> int:
    """The schema version of an open index."""
    return int(fetch(db, "PRAGMA user_version")[0][0])


def is_current(db: apsw.Connection) -> bool:
    """Whether an open index has the newest schema. Raises `NewerFormat` if a newer one."""
    found = read_user_version(db)
    if found > len(MIGRATIONS):
        raise NewerFormat(
            f"index.db has schema {found}; this scopefs knows {len(MIGRATIONS)}: "
            "install a newer scopefs"
        )
    return found == len(MIGRATIONS)


def migrate(db: apsw.Connection) -> bool:
    """Bring the index to the newest schema, in one transaction. True if anything was done.

    Raises `NewerFormat`, and touches nothing, if the index is newer than this program.
    """
    if is_current(db):
        return False
    # Looked at again under the write lock: somebody may have been faster.
    db.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[read_user_version(db) :]:
            for _ in db.execute(script):
                pass
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return True
