"""Rebuilding the index from data/, trash/, blobs/ and events/.

Steps; until the last, nothing that was there is changed, so that a rebuild that is cut short is
simply begun again:

R1  alone with the vault: `vault.lock` exclusively
R2  an inventory of the envelopes, in `index.db.new.scan`
R3  `index.db.new`: the events, one after the other (scopefs.store.replay); those that events/ lacks
    from the old index, as far as it can be read
R4  what only envelopes say of their versions; of versions without one, what the old index says
R5  from the old index: staged and scratch rows with their bytes
R6  versions of which no event tells are imported from where they stand; files without a name get
    the one that their newest version had; names of scratch files whose bytes are lost end
R7  counters; staging files that no row names go to partial/
R8  the new file is synced and gets the name `index.db.rebuilt`; the old one is linked aside, goes,
    and with it -wal and -shm (SQLite would replay them into any file of that name); the new one
    gets the name index.db

What was not yet settled is in the old index alone. What cannot be rebuilt is told, never made up: a
version whose envelope is missing keeps its row, and reading it is an error.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from scopefs.errors import ScopefsError
from scopefs.model.envelope import FileFacts
from scopefs.model.imports import Arrival
from scopefs.model.naming import show_name
from scopefs.model.payload import Kind
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import format_stamp
from scopefs.store import changes, tree
from scopefs.store.event_files import EventReader
from scopefs.store.import_names import Names
from scopefs.store.imports import apply_import
from scopefs.store.index import find_by_id, initialize_database, read_meta, write_meta
from scopefs.store.inventory import take_inventory
from scopefs.store.journal import Transaction
from scopefs.store.layout import Layout, find_home, load_vault_file
from scopefs.store.owners import list_files
from scopefs.store.partial import save_staged
from scopefs.store.problems import Problem
from scopefs.store.publish import Sealed, StagedState
from scopefs.store.replay import Replay
from scopefs.store.restore import path_of_past
from scopefs.store.salvage import OldIndex
from scopefs.store.sql import Row, fetch
from scopefs.store.swap import (
    alone_with,
    finish_earlier_swap,
    new_path,
    remove_files,
    scan_path,
    swap_index,
)
from scopefs.store.trash import apply_delete_version

Tell = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_BATCH = 2000
_PAGE = 500
_BACKUP = "restore it from a backup, then `scopefs reindex` again"
_FACTS = ("id", "scope", "collected_us", "kind", "name", "mtime_ns", "payload_size",
          "payload_sha256", "media_type", "size_bytes", "metadata")  # fmt: skip
_STAGED = ("sid", "owner", "state", "node", "scope", "parent", "name", "mode", "mtime_ns", "size",
           "sha256", "kind", "media_type", "payload", "file", "version", "at_us", "writer_uid",
           "writer")  # fmt: skip
_SCRATCH = ("node", "size", "sha256", "kind", "media_type", "file", "writer_uid", "writer",
            "payload")  # fmt: skip


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild did."""

    versions: int = 0
    names: int = 0
    events: int = 0
    salvaged_events: int = 0
    salvaged_writes: int = 0
    """Staged writes and scratch files whose bytes the old index had."""
    partial: int = 0
    old: Path | None = None
    """Where the old index is now."""
    problems: list[Problem] = field(default_factory=list)


def rebuild_index(layout: Layout, now_us: int, tell: Tell) -> Rebuilt:
    """Make index.db anew. Raises `VaultInUse`, `NotAVault`, `NewerFormat`, `OSError`."""
    vault_id = load_vault_file(layout).id
    with alone_with(layout):
        for path in (layout.data, layout.blobs, layout.events, layout.staging, layout.partial,
                     layout.trash, layout.logs):  # fmt: skip
            path.mkdir(mode=0o700, exist_ok=True)
        finish_earlier_swap(layout)
        remove_files(new_path(layout))
        remove_files(scan_path(layout))
        old = OldIndex(layout.index, vault_id)
        try:
            result = _Rebuild(layout, vault_id, old, now_us, tell).run()
        finally:
            old.close()
        result.old = swap_index(layout, now_us)
    return result


class _Rebuild:
    def __init__(
        self, layout: Layout, vault_id: str, old: OldIndex, now_us: int, tell: Tell
    ) -> None:
        self._layout = layout
        self._vault_id = vault_id
        self._old = old
        self._now_us = now_us
        self._tell = tell
        self._result = Rebuilt()
        self._kept_files: set[str] = set()
        """Staging files that rows name."""
        self._lacks_events = False
        self._newest_seq = 0
        self._db = initialize_database(str(new_path(layout)))

    def run(self) -> Rebuilt:
        db = self._db
        # A cut leaves a file that is begun anew, so nothing here waits for the disk.
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "cache_size = -65536"):
            fetch(db, f"PRAGMA {pragma}")
        db.execute("ATTACH ? AS scan", (str(scan_path(self._layout)),))
        fetch(db, "PRAGMA scan.journal_mode = OFF")
        fetch(db, "PRAGMA scan.synchronous = OFF")
        try:
            self._result.problems += take_inventory(
                db, self._layout, partial(self._tell, "envelopes")
            )
            with db:
                write_meta(db, "vault_id", self._vault_id)
                write_meta(db, "home", find_home(self._layout))
                write_meta(db, "next_node", self._find_next_node())
            replay = self._replay_events()
            self._describe_versions()
            with db:
                self._salvage_staged()
                self._salvage_scratch()
                self._salvage_receipts()
            self._report_missing()
            self._import_unknown()
            with db:
                if self._lacks_events:
                    self._name_nameless()
                self._end_lost_scratch(replay.scratch)
                self._recount()
            self._keep_staging_files()
            self._count()
            db.execute("DETACH scan")
            fetch(db, "PRAGMA journal_mode = WAL")
        finally:
            db.close(True)
        return self._result

    # R3: events

    def _find_next_node(self) -> int:
        """A node id above all that the events name."""
        found = max(1, self._old.read_meta("next_node") - 1)
        reader = EventReader(self._layout, self._old)
        for event in reader.iterate(0):
            self._newest_seq = event.seq
            for mark in ('"node":', '"parent":', '"toParent":'):
                start = event.detail.find(mark)
                while start >= 0:
                    digits = event.detail[start + len(mark) : start + len(mark) + 18]
                    number = digits.partition(",")[0].rstrip("]}")
                    found = max(found, int(number) if number.isdecimal() else 0)
                    start = event.detail.find(mark, start + 1)
        return found + 1

    def _replay_events(self) -> Replay:
        db = self._db
        reader = EventReader(self._layout, self._old)
        replay = Replay(db)
        at_least = 0
        with contextlib.suppress(FileNotFoundError):
            # No entry of the trash may get a number that one has.
            at_least = max(
                (int(name) for name in os.listdir(self._layout.trash) if name.isdecimal()),
                default=0,
            )
        db.execute("BEGIN")
        for event in reader.iterate(at_least):
            fault = replay.apply(event.seq, event.at_us, event.detail, event.hash)
            if fault is not None:
                self._lacks_events = True
                self._note(
                    "events", f"event {event.seq}", f"cannot be made again: {fault}",
                    "what it did is missing; see what is said of the events before it",
                )  # fmt: skip
            if event.seq % _BATCH == 0:
                db.execute("COMMIT")
                db.execute("BEGIN")
                self._tell("events", event.seq, max(event.seq, self._newest_seq))
        write_meta(db, "settled_seq", reader.settled_seq)
        db.execute("COMMIT")
        self._tell("events", self._newest_seq, self._newest_seq)
        self._lacks_events = self._lacks_events or reader.lost > 0
        self._result.problems += reader.problems
        self._result.salvaged_events = reader.salvaged
        return replay

    # R4: what envelopes say

    def _describe_versions(self) -> None:
        with self._db as db:
            self._describe("f.path = data_files.path")
            db.execute(
                "UPDATE scan.found SET claimed = 1 WHERE EXISTS (SELECT 1 FROM data_files d"
                " WHERE d.path = found.path AND d.scope = found.scope"
                " AND d.collected_us = found.collected_us)"
            )
            self._drop_unmade_removals()
        # What stands elsewhere than its row says was to be moved, and will be.
        for version_id, path, standing in self._pages(
            "SELECT d.id, d.path, (SELECT f.path FROM scan.found f WHERE f.scope = d.scope"
            "   AND f.collected_us = d.collected_us AND f.claimed = 0 LIMIT 1)"
            " FROM data_files d WHERE d.id > ? AND d.payload_sha256 = x'' ORDER BY d.id LIMIT ?"
        ):
            if standing is not None:
                with self._db as db:
                    self._describe("data_files.id = ? AND f.path = ?", version_id, standing)
                    db.execute("UPDATE scan.found SET claimed = 1 WHERE path = ?", (standing,))
                    db.execute("INSERT INTO moves(source, target) VALUES(?,?)", (standing, path))

    def _describe(self, condition: str, *values: object) -> None:
        self._db.execute(
            "UPDATE data_files SET kind = f.kind, name = f.name, mtime_ns = f.mtime_ns,"
            " payload_size = f.payload_size, payload_sha256 = f.payload_sha256,"
            " media_type = f.media_type, size_bytes = f.size_bytes, metadata = f.metadata"
            " FROM scan.found f WHERE f.scope = data_files.scope"
            f" AND f.collected_us = data_files.collected_us AND {condition}",
            values,
        )

    def _drop_unmade_removals(self) -> None:
        """What was destroyed and is still to be removed is not found, but removed."""
        for _, source, target in self._old.iterate("moves", "id", ("id", "source", "target")):
            if target or fetch(self._db, "SELECT 1 FROM data_files WHERE path = ?", (source,)):
                continue
            self._db.execute("INSERT INTO moves(source, target) VALUES(?, '')", (source,))
            self._db.execute("UPDATE scan.found SET claimed = 1 WHERE path = ?", (source,))

    def _report_missing(self) -> None:
        """Versions without an envelope and without staged bytes keep what else is known of them."""
        for version_id, path, scope, collected_us, is_staged in self._pages(
            "SELECT d.id, d.path, d.scope, d.collected_us,"
            " EXISTS (SELECT 1 FROM staged s WHERE s.version = d.id) FROM data_files d"
            " WHERE d.id > ? AND NOT EXISTS (SELECT 1 FROM scan.found f WHERE f.path = d.path)"
            " AND NOT EXISTS (SELECT 1 FROM moves m WHERE m.target = d.path)"
            " ORDER BY d.id LIMIT ?"
        ):
            if is_staged:
                continue
            known = self._describe_from_old(version_id, scope, collected_us)
            self._note(
                "lost", path,
                "is missing" if known else "is missing, or was never settled: "
                "the version is known by its event alone",
                f"{_BACKUP}; or `scopefs rm --forever {scope} {format_stamp(collected_us)}`",
            )  # fmt: skip

    def _describe_from_old(self, version_id: int, scope: str, collected_us: int) -> bool:
        """What the old index says of a version; True if it says anything."""
        row = self._old.find("data_files", "id", version_id, _FACTS)
        if row is None or row[1:3] != (scope, collected_us) or len(row[7] or b"") != 32:
            return False
        self._db.execute(
            "UPDATE data_files SET kind=?, name=?, mtime_ns=?, payload_size=?, payload_sha256=?,"
            " media_type=?, size_bytes=?, metadata=? WHERE id = ?",
            (*row[3:], version_id),
        )
        return True

    # R5: what was not settled

    def _salvage_staged(self) -> None:
        columns = ", ".join(_STAGED)
        marks = ",".join("?" * len(_STAGED))
        for row in self._old.iterate("staged", "sid", _STAGED):
            staged = dict(zip(_STAGED, row, strict=True))
            file, version_id = staged["file"], staged["version"]
            if not self._is_whole(staged["payload"], file, staged["sha256"]):
                self._note("lost", f"staged {staged['sid']}", "its bytes are damaged or missing",
                           "write the file again")  # fmt: skip
                continue
            fits = self._has_node(staged["scope"])
            if staged["state"] >= StagedState.PUBLISHED:
                version = find_by_id(self._db, version_id) if version_id else None
                fits = version is not None
                if version is not None and not version.payload_sha256:
                    self._describe_unsettled(staged)
            if not fits:
                self._keep_partial(staged["payload"], file, "its version was not in the events")
                continue
            if file is not None:
                self._kept_files.add(file)
            self._db.execute(f"INSERT INTO staged({columns}) VALUES({marks})", row)
            self._result.salvaged_writes += 1
        self._note_unreadable("staged", "writes that were not yet settled")

    def _describe_unsettled(self, staged: dict[str, object]) -> None:
        version_id = staged["version"]
        assert isinstance(version_id, int)
        version = find_by_id(self._db, version_id)
        assert version is not None
        if self._describe_from_old(version_id, version.scope, version.collected_us):
            return
        self._db.execute(
            "UPDATE data_files SET kind=?, payload_size=?, payload_sha256=?, media_type=?"
            " WHERE id = ?",
            (staged["kind"], staged["size"], staged["sha256"], staged["media_type"], version_id),
        )

    def _salvage_scratch(self) -> None:
        columns = ", ".join(_SCRATCH)
        marks = ",".join("?" * len(_SCRATCH))
        for row in self._old.iterate("scratch", "node", _SCRATCH):
            scratch = dict(zip(_SCRATCH, row, strict=True))
            file = scratch["file"]
            if not self._is_whole(scratch["payload"], file, scratch["sha256"]):
                continue
            shown = fetch(
                self._db,
                "SELECT version FROM shown WHERE node = ? ORDER BY from_seq DESC LIMIT 1",
                (scratch["node"],),
            )
            if not shown or shown[0][0] is not None:
                self._keep_partial(scratch["payload"], file, "its file was not in the events")
                continue
            if file is not None:
                self._kept_files.add(file)
            self._db.execute(f"INSERT INTO scratch({columns}) VALUES({marks})", row)
            self._result.salvaged_writes += 1
        self._note_unreadable("scratch", "scratch files")

    def _salvage_receipts(self) -> None:
        """So that a request which is sent again is known, and makes no second version."""
        columns = ("key", "at_us", "request", "scope", "collected_us")
        for row in self._old.read_all("receipts", columns):
            self._db.execute(f"INSERT INTO receipts({', '.join(columns)}) VALUES(?,?,?,?,?)", row)

    def _is_whole(self, payload: bytes | None, file: str | None, sha256: bytes | None) -> bool:
        if payload is not None:
            # A draft that is still written has no final hash.
            return sha256 is None or hashlib.sha256(payload).digest() == sha256
        return file is not None and (self._layout.staging / file).exists()

    def _has_node(self, node: int | None) -> bool:
        return bool(fetch(self._db, "SELECT 1 FROM nodes WHERE id = ?", (node,)))

    def _keep_partial(self, payload: bytes | None, file: str | None, why: str) -> None:
        reason = f"the index was rebuilt: {why}"
        with contextlib.suppress(FileNotFoundError):
            save_staged(self._layout, payload, file, self._now_us, {"reason": reason})
            self._result.partial += 1

    def _note_unreadable(self, table: str, what: str) -> None:
        if table in self._old.unreadable:
            self._note(
                "lost", f"index.db, table {table}", f"not all {what} could be read",
                "look into partial/ for their bytes (`scopefs partial list`)",
            )  # fmt: skip

    # R6: what no event tells of

    def _import_unknown(self) -> None:
        total = fetch(self._db, "SELECT COUNT(*) FROM scan.found WHERE claimed = 0")[0][0]
        unknown = self._keyset(
            "SELECT path, scope, collected_us, size_bytes, kind, name, mtime_ns, payload_size,"
            " payload_sha256, media_type, metadata FROM scan.found"
            " WHERE claimed = 0 AND (collected_us, path) > (?, ?)"
            " ORDER BY collected_us, path LIMIT ?"
        )
        for count, (path, *row) in enumerate(unknown, start=1):
            self._tell("versions", count, total)
            with self._db:
                self._import_one(path, *row)

    def _import_one(
        self, path: str, scope: str, collected_us: int, size_bytes: int, kind: int,
        name: bytes | None, mtime_ns: int | None, payload_size: int, sha256: bytes,
        media_type: str, metadata: str | None,
    ) -> None:  # fmt: skip
        db = self._db
        transaction = Transaction(db, self._now_us)
        facts = FileFacts(Kind(kind), payload_size, sha256, media_type, name, mtime_ns, metadata)
        arrival = Arrival(parse_scope(scope), collected_us, facts, None)
        # Its bytes are where they belong, so none are staged.
        sealed = Sealed(payload_size, sha256, Kind(kind), media_type, None, None)
        try:
            done = apply_import(transaction, arrival, sealed, "")
        except ScopefsError as error:
            self._note("unknown", path, f"no event tells of it, and it is left out: {error}",
                       "move it elsewhere, then `scopefs import` it")  # fmt: skip
            return
        if done.was_there:
            self._note("unknown", path, "is a copy of a version that is there", "remove it")
            return
        version = done.version
        db.execute("DELETE FROM staged WHERE version = ?", (version.id,))
        db.execute("UPDATE data_files SET size_bytes = ? WHERE id = ?", (size_bytes, version.id))
        target = version.path
        if path.startswith("trash/"):
            apply_delete_version(transaction, version)
            db.execute("DELETE FROM moves WHERE source = ?", (target,))
            target = f"trash/{transaction.head[0]}{target.removeprefix('data')}"
        if path != target:
            db.execute("INSERT INTO moves(source, target) VALUES(?,?)", (path, target))
        self._note("recovered", target, "no event told of this version: it has a new one",
                   "nothing; its file may have another inode number than before")  # fmt: skip

    def _name_nameless(self) -> None:
        """Files of which no event says what they are called: the name of their newest version."""
        db = self._db
        for node, scope, name, collected_us in fetch(
            db,
            "SELECT k.id, d.scope, d.name, MAX(d.collected_us) FROM nodes k"
            " JOIN data_files d ON d.node = k.id WHERE k.kind = 4 AND d.name IS NOT NULL"
            " AND d.deleted_seq IS NULL AND NOT EXISTS (SELECT 1 FROM names WHERE node = k.id)"
            " GROUP BY k.id",
        ):
            transaction = Transaction(db, self._now_us)
            scope_node = changes.ensure_scope(transaction, parse_scope(scope))
            Names(scope_node, collected_us, {}).give(transaction, node, [name], only=False)

    def _end_lost_scratch(self, scratch: dict[int, str]) -> None:
        """A name must not show an empty file instead of bytes that are lost: it ends."""
        db = self._db
        is_known = self._old.is_readable and "scratch" not in self._old.unreadable
        for node, scope in sorted(scratch.items()):
            if fetch(db, "SELECT 1 FROM scratch WHERE node = ?", (node,)):
                continue
            live = tree.find_live_names(db, node)
            for _, parent, name in live:
                path = tree.path_within_scope(db, parent, name)
                changes.apply_unlink(Transaction(db, self._now_us), parent, name)
                self._note_lost_scratch(f"{scope}: {show_name(path)}", "its name has ended")
            if not live and not is_known:
                past = fetch(db, "SELECT parent, name FROM names WHERE node = ? LIMIT 1", (node,))
                for parent, name in past:
                    path = path_of_past(db, parent, name)
                    self._note_lost_scratch(
                        f"{scope}: {show_name(path)}", "brought back from the trash, it is empty"
                    )

    def _note_lost_scratch(self, where: str, what: str) -> None:
        self._note(
            "lost", where, f"the bytes of this scratch file were in the old index alone: {what}",
            "write it again; larger ones may be in partial/",
        )  # fmt: skip

    # R7: the rest

    def _recount(self) -> None:
        self._db.execute(
            "UPDATE scopes SET (versions, bytes, last_us) = (SELECT"
            "  COUNT(*) FILTER (WHERE deleted_seq IS NULL),"
            "  COALESCE(SUM(payload_size) FILTER (WHERE deleted_seq IS NULL), 0),"
            "  MAX(scopes.last_us, COALESCE(MAX(collected_us), 0))"
            " FROM data_files WHERE data_files.scope = scopes.scope)"
        )
        newest = self._old.read_meta("next_node")
        write_meta(self._db, "next_node", max(newest, int(read_meta(self._db, "next_node"))))

    def _keep_staging_files(self) -> None:
        """Bytes that no row names: they may be all that is left of a write."""
        is_trusted = self._old.is_readable and not {"staged", "scratch"} & self._old.unreadable
        for directory in sorted(self._layout.staging.iterdir()):
            if not directory.is_dir():
                # What a settling was about to place is in its staged row too.
                directory.unlink()
                continue
            for name in list_files(directory):
                file = f"{directory.name}/{name}"
                if file in self._kept_files or is_trusted:
                    continue
                if (self._layout.staging / file).stat().st_size:
                    self._keep_partial(None, file, "it is not known which file this was")

    def _count(self) -> None:
        db, result = self._db, self._result
        result.versions, result.names, result.events = fetch(
            db,
            "SELECT (SELECT COALESCE(SUM(versions), 0) FROM scopes),"
            " (SELECT COUNT(*) FROM names WHERE until_seq IS NULL),"
            " (SELECT COALESCE(MAX(seq), 0) FROM events)",
        )[0]
        if not self._old.is_readable:
            self._note(
                "lost", "index.db", f"the old index could not be read ({self._old.reason}): "
                "what was not yet settled is lost", "see `scopefs partial list`",
            )  # fmt: skip

    def _pages(self, statement: str) -> Iterator[Row]:
        """Rows of a query that takes the id after which to go on, and a limit."""
        after = 0
        while rows := fetch(self._db, statement, (after, _PAGE)):
            yield from rows
            after = rows[-1][0]

    def _keyset(self, statement: str) -> Iterator[Row]:
        after = (-1, "")
        while rows := fetch(self._db, statement, (*after, _PAGE)):
            yield from rows
            after = (rows[-1][2], rows[-1][0])

    def _note(self, code: str, where: str, what: str, do: str) -> None:
        self._result.problems.append(Problem(code, where, what, do))
