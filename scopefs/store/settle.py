"""Settling: placing the envelopes and blobs of published versions, and the lines of their events.

Rows first, files later: a version is published by its row; what is placed here could be placed
again from the staged row at any time. Steps, each durable before the next is taken:

S1  a synced commit: the rows that are to be placed are chosen, frozen, and on the disk, and so is
    the list of moves
M   moves to the trash, out of it, and removals are made, in their order; syncfs; they are dropped.
    Before anything is placed: a name in data/ may be free for a new version by one of them only
S2  envelopes are written under temporary names in staging/; blobs are linked into blobs/
S3  syncfs: contents before names
S4  envelopes are linked into data/
S5  event lines are appended; syncfs: names and lines
S6  the staged rows are dropped (if that is lost, S2 to S5 repeat and find equal bytes), by a synced
    commit if there are staging files: a row that came back would name one that is gone
S7  staging files are removed

Only the holder of `settle.lock` makes, moves or removes files in data/, blobs/, trash/ and events/.
"""

import functools
import hashlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from scopefs.errors import PayloadMissing
from scopefs.model.envelope import encode_frame, encode_stored
from scopefs.model.events import FIRST_HASH, encode_event_line
from scopefs.model.payload import Kind
from scopefs.model.stamps import format_collected_at
from scopefs.store.atomic import (
    copy_range,
    make_directories,
    same_content,
    sync_file_system,
    write_all,
)
from scopefs.store.gate import Gate
from scopefs.store.index import ReaderPool, Version, find_by_id, read_meta, write_meta
from scopefs.store.journal import Journal, Transaction
from scopefs.store.layout import Layout
from scopefs.store.owners import iterate_dead_owners, remove_if_empty
from scopefs.store.payloads import file_facts
from scopefs.store.publish import DUE, StagedState, apply_freeze
from scopefs.store.sql import fetch

BATCH_ROWS = 2000
BATCH_BYTES = 2 << 20
"""How much of payloads is taken out of the index at a time. It is overwritten there, in the WAL,
while nobody else can write.
"""

PATIENCE_S = 60.0
"""How long another process's settling is waited for; it may have large blobs to hash."""

_EVENT_PAGE = 5000
_CHUNK_BYTES = 1 << 16
_BLOBS = "blobs/"
_BLOBS_AT_ONCE = 100
"""How many are removed while everybody else waits to write."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Placement:
    """One staged version on its way to data/."""

    sid: int
    file: str | None
    version: Version
    temporary: Path
    size_bytes: int


class Settler:
    """Places what this vault has published. Usable from every thread."""

    def __init__(self, layout: Layout, journal: Journal, readers: ReaderPool) -> None:
        self._layout = layout
        self._journal = journal
        self._readers = readers
        # The file lock is one for the whole process.
        self._threads = threading.Lock()
        self._lock = Gate(layout.lock("settle"), PATIENCE_S)

    def close(self) -> None:
        """Close the lock file."""
        self._lock.close()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep everybody from settling, so that files stay where they are; for a moment."""
        with self._threads:
            self._lock.acquire()
            try:
                yield
            finally:
                self._lock.release()

    def settle(self, older_than_us: int, *, wait: bool = False) -> bool:
        """Place all versions published up to that time. True if nothing of them is left.

        If another process is settling: `wait` for it, or leave it to that one. Raises `OSError`,
        `NoSpace`, `IndexBroken`, `Unavailable`; then everything is where it was, and the next call
        repeats it.
        """
        with self._threads:
            if wait:
                self._lock.acquire()
            elif not self._lock.try_acquire():
                return False
            try:
                while self._settle_batch(older_than_us):
                    pass
                return True
            finally:
                self._lock.release()

    def _settle_batch(self, older_than_us: int) -> bool:
        """Settle some rows; True if there may be more."""
        with self._readers.connection() as db:
            if not _has_work(db, older_than_us):
                return False
            rows, has_more, last_seq, last_move = self._journal.run(
                lambda transaction: _freeze(transaction, older_than_us), durable=False
            )
            # Even if no row is chosen: other processes' commits have to be on the disk as well.
            self._journal.sync()
            root = os.open(self._layout.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                lost = self._make_moves(db, root, last_move) if last_move else []
                placements = [found for row in rows if (found := self._try_prepare(db, *row))]
                if placements:
                    sync_file_system(root)
                made: set[Path] = set()
                for placement in placements:
                    self._place(placement, made)
                self._append_events(db, int(read_meta(db, "settled_seq") or 0), last_seq)
                sync_file_system(root)
            finally:
                os.close(root)
            self._report_lost(db, lost)
        has_files = any(placement.file is not None for placement in placements)
        self._journal.run(
            lambda transaction: _drop(transaction, placements, last_seq), durable=has_files
        )
        self._sweep(placements)
        return has_more and bool(placements)

    def _sweep(self, placements: list[_Placement]) -> None:
        """Remove staging files that are not needed any more, and what dead owners left."""
        files = [placement.file for placement in placements if placement.file is not None]
        for file in files:
            (self._layout.staging / file).unlink(missing_ok=True)
        if files:
            self._sweep_owners()

    def _sweep_owners(self) -> None:
        for directory in iterate_dead_owners(self._layout.staging):
            remove_if_empty(directory)

    def _try_prepare(
        self, db: apsw.Connection, sid: int, version_id: int, file: str | None
    ) -> _Placement | None:
        """Prepare one version; one that is damaged stays staged and does not stop the others."""
        try:
            return self._prepare(db, sid, version_id, file)
        except (PayloadMissing, FileNotFoundError) as error:
            if not fetch(db, "SELECT 1 FROM staged WHERE sid = ?", (sid,)):
                # Destroyed just now; its files go with the next moves.
                return None
            _LOG.error("version %d cannot be settled: %s", version_id, error)
            return None

    def _prepare(
        self, db: apsw.Connection, sid: int, version_id: int, file: str | None
    ) -> _Placement:
        """Write the envelope under a temporary name, and put the blob in its place."""
        version = find_by_id(db, version_id)
        if version is None:
            raise PayloadMissing(f"staged row {sid} names version {version_id}, which is not there")
        if version.kind is Kind.BLOB:
            self._place_blob(version, db, sid, file)
        temporary = self._layout.staging / f"settle.{sid}.tmp"
        head, tail = encode_frame(version.scope, version.collected_us, file_facts(version))
        size = len(head) + len(tail)
        fd = _create_anew(temporary)
        try:
            if version.kind is Kind.DOCUMENT and file is not None:
                write_all(fd, head)
                self._copy_payload(file, fd, len(head), version)
                size += version.payload_size
                os.lseek(fd, size - len(tail), os.SEEK_SET)
                write_all(fd, tail)
            else:
                stored = b""
                if version.kind is not Kind.BLOB:
                    stored = encode_stored(version.kind, self._read_staged(db, sid, file))
                write_all(fd, head + stored + tail)
                size += len(stored)
        finally:
            os.close(fd)
        return _Placement(sid, file, version, temporary, size)

    def _read_staged(self, db: apsw.Connection, sid: int, file: str | None) -> bytes:
        if file is not None:
            return (self._layout.staging / file).read_bytes()
        return bytes(fetch(db, "SELECT payload FROM staged WHERE sid = ?", (sid,))[0][0])

    def _copy_payload(self, file: str, target: int, offset: int, version: Version) -> None:
        path = self._layout.staging / file
        if hash_file(path) != version.payload_sha256:
            raise PayloadMissing(f"{path} does not have the hash that was recorded for it")
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            copy_range(source, target, version.payload_size, offset)
        finally:
            os.close(source)

    def _place_blob(
        self, version: Version, db: apsw.Connection, sid: int, file: str | None
    ) -> None:
        """Link the staging file to its hash. One that is there already is checked, and healed."""
        path = self._layout.blob(version.payload_sha256)
        make_directories(path.parent)
        if path.exists() and hash_file(path) == version.payload_sha256:
            return
        temporary = self._layout.staging / f"settle.{sid}.blob.tmp"
        temporary.unlink(missing_ok=True)
        if file is not None:
            os.link(self._layout.staging / file, temporary)
        else:
            # A blob small enough for the row.
            temporary.write_bytes(self._read_staged(db, sid, file))
            temporary.chmod(0o600)
        if hash_file(temporary) != version.payload_sha256:
            temporary.unlink()
            raise PayloadMissing(
                f"{self._layout.staging / str(file)} does not have the hash that was recorded for "
                f"{version.scope} {version.stamp}"
            )
        # Contents before names, as for envelopes.
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)

    def _place(self, placement: _Placement, made: set[Path]) -> None:
        """Link the envelope to its name. What an earlier, cut settle left there is replaced.

        `made`: the directories that are known to be there.
        """
        path = self._layout.root / placement.version.path
        if path.parent not in made:
            make_directories(path.parent)
            made.add(path.parent)
        try:
            os.link(placement.temporary, path)
        except FileExistsError:
            # The row is not settled, so whatever stands there is the torn rest of a cut settle.
            if not same_content(path, placement.temporary.read_bytes()):
                placement.temporary.rename(path)
                return
        placement.temporary.unlink()

    def _make_moves(self, db: apsw.Connection, root: int, last_move: int) -> list[str]:
        """Make the pending moves, oldest first; each may have been made already, by a cut settle.

        Returns targets that should have come to stand and did not.
        """
        lost: list[str] = []
        while moves := fetch(
            db, "SELECT id, source, target FROM moves WHERE id <= ? ORDER BY id LIMIT ?",
            (last_move, BATCH_ROWS),
        ):  # fmt: skip
            lost += [target for _, source, target in moves if not self._move(source, target)]
            self._remove_blobs(db, [source for _, source, target in moves if not target])
            sync_file_system(root)
            self._journal.run(
                functools.partial(_drop_moves, first=moves[0][0], last=moves[-1][0]), durable=False
            )
            if any(source.startswith("staging/") for _, source, _ in moves):
                self._sweep_owners()
        return lost

    def _move(self, source: str, target: str) -> bool:
        """Make one move; False if neither the source nor the target is there."""
        old = self._layout.root / source
        if not target:
            if not source.startswith(_BLOBS):
                old.unlink(missing_ok=True)
                self._remove_empty_above(old)
            return True
        new = self._layout.root / target
        if new.exists():
            # Made already. If another version has come to stand at the source since, it stays.
            if old.exists() and same_content(old, new.read_bytes()):
                old.unlink()
        else:
            make_directories(new.parent)
            try:
                old.rename(new)
            except FileNotFoundError:
                self._remove_empty_above(new)
                return False
        self._remove_empty_above(old)
        return True

    def _remove_empty_above(self, path: Path) -> None:
        """Remove directories of the trash that a move has left empty."""
        for directory in path.parents:
            if self._layout.trash not in directory.parents:
                return
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return

    def _remove_blobs(self, db: apsw.Connection, sources: list[str]) -> None:
        """Remove those blobs that no version has, in the trash or not."""
        blobs = [source for source in sources if source.startswith(_BLOBS)]
        for start in range(0, len(blobs), _BLOBS_AT_ONCE):
            page = blobs[start : start + _BLOBS_AT_ONCE]
            self._journal.run(
                functools.partial(self._remove_unused, reader=db, blobs=page), durable=False
            )

    def _remove_unused(
        self, transaction: Transaction, reader: apsw.Connection, blobs: list[str]
    ) -> None:
        """Within a transaction, so that nobody can record a version with such a blob meanwhile.

        Whoever shares the transaction may have recorded one, or removed one and not succeed yet:
        both what is committed and what is about to be count.
        """
        for blob in blobs:
            path = self._layout.root / blob
            digest = bytes.fromhex(path.name)
            if not any(
                fetch(
                    db,
                    "SELECT 1 FROM data_files WHERE payload_sha256 = ? AND kind = 2 LIMIT 1",
                    (digest,),
                )
                for db in (transaction.db, reader)
            ):
                path.unlink(missing_ok=True)

    def _report_lost(self, db: apsw.Connection, lost: list[str]) -> None:
        """Log the envelopes that should stand where a move has brought them, and do not."""
        for target in lost:
            # It may have been moved on, or have been placed only now.
            wanted = fetch(
                db,
                "SELECT 1 FROM data_files d WHERE path = ?"
                " AND NOT EXISTS (SELECT 1 FROM staged WHERE version = d.id)",
                (target,),
            )
            if wanted and not (self._layout.root / target).exists():
                _LOG.error("%s is missing, and was not where it was to be moved from", target)

    def _append_events(self, db: apsw.Connection, settled_seq: int, last_seq: int) -> None:
        """Append the lines after `settled_seq`; what a cut append left behind it is cut off."""
        previous = FIRST_HASH
        if settled_seq:
            previous = fetch(db, "SELECT hash FROM events WHERE seq = ?", (settled_seq,))[0][0]
        seq = settled_seq
        while seq < last_seq:
            rows = fetch(
                db,
                "SELECT seq, at_us, detail, hash FROM events WHERE seq > ? AND seq <= ?"
                " ORDER BY seq LIMIT ?",
                (seq, last_seq, _EVENT_PAGE),
            )
            days: dict[str, list[bytes]] = {}
            for row_seq, at_us, detail, digest in rows:
                line = encode_event_line(row_seq, at_us, previous, detail)
                days.setdefault(format_collected_at(at_us)[:10], []).append(line)
                previous, seq = digest, row_seq
            for day, lines in days.items():
                append_lines(self._layout.events / f"{day}.jsonl", lines)


def append_lines(path: Path, lines: list[bytes]) -> None:
    """Append event lines, unless an earlier append that was cut short has put them there already.

    A torn last line is cut off first.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = _cut_back(fd, _seq_of(lines[0]))
        os.lseek(fd, end, os.SEEK_SET)
        write_all(fd, b"".join(line + b"\n" for line in lines))
    finally:
        os.close(fd)


def _cut_back(fd: int, first_seq: int) -> int:
    """Cut off whatever stands behind the last whole line with a number below `first_seq`."""
    end = os.fstat(fd).st_size
    keep = end
    tail = b""
    while end > 0:
        start = max(0, end - _CHUNK_BYTES)
        tail = os.pread(fd, end - start, start) + tail
        end = start
        cut = _find_cut(tail, first_seq, is_start=start == 0)
        if cut is not None:
            keep = start + cut
            break
    os.ftruncate(fd, keep)
    return keep


def _find_cut(tail: bytes, first_seq: int, *, is_start: bool) -> int | None:
    """Offset in `tail` behind its last line below `first_seq`; None if more must be read."""
    end = tail.rfind(b"\n") + 1
    while end > 0:
        start = tail.rfind(b"\n", 0, end - 1) + 1
        if start == 0 and not is_start:
            return None
        if _seq_of(tail[start:end]) < first_seq:
            return end
        end = start
    return 0 if is_start else None


def _seq_of(line: bytes) -> int:
    """The number in an event line, which every line begins with; torn lines sort last."""
    digits = line.removeprefix(b'{"seq":').partition(b",")[0]
    return int(digits) if digits.isdigit() and len(digits) < 19 else sys.maxsize


def _has_work(db: apsw.Connection, older_than_us: int) -> bool:
    return bool(
        fetch(
            db,
            f"SELECT EXISTS(SELECT 1 FROM staged WHERE state >= ?1 AND {DUE})"
            " OR EXISTS(SELECT 1 FROM moves)"
            " OR (SELECT COALESCE(MAX(seq), 0) FROM events)"
            "  > (SELECT value FROM meta WHERE key = 'settled_seq')",
            (int(StagedState.PUBLISHED), older_than_us),
        )[0][0]
    )


def _create_anew(path: Path) -> int:
    """Create a file that is new for certain, and open it for writing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        # A cut settle may have linked it to data/ already: never write into what it left.
        path.unlink()
        return os.open(path, flags, 0o600)


def hash_file(path: Path) -> bytes:
    """SHA-256 of a file. Raises `FileNotFoundError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _freeze(
    transaction: Transaction, older_than_us: int
) -> tuple[list[tuple[int, int, str | None]], bool, int, int]:
    """Choose what is settled now: staged rows, and if there are more; last event and last move."""
    rows, has_more = apply_freeze(transaction, older_than_us, BATCH_ROWS, BATCH_BYTES)
    last_move = fetch(transaction.db, "SELECT COALESCE(MAX(id), 0) FROM moves")[0][0]
    return rows, has_more, transaction.head[0], last_move


def _drop(transaction: Transaction, placements: list[_Placement], last_seq: int) -> None:
    db = transaction.db
    # One statement for all: each of them lets go of the interpreter, and has to get it back.
    db.execute(
        "DELETE FROM staged WHERE sid IN (SELECT value FROM json_each(?))",
        (json.dumps([placement.sid for placement in placements]),),
    )
    for placement in placements:
        # Its name or time has changed since it was published.
        if placement.size_bytes != placement.version.size_bytes:
            db.execute(
                "UPDATE data_files SET size_bytes = ? WHERE id = ?",
                (placement.size_bytes, placement.version.id),
            )
    write_meta(db, "settled_seq", last_seq)


def _drop_moves(transaction: Transaction, first: int, last: int) -> None:
    transaction.db.execute("DELETE FROM moves WHERE id BETWEEN ? AND ?", (first, last))
