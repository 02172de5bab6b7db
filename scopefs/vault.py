"""The front door: every change of a vault enters here, whichever way it came.

`Vault` is the library. It is synchronous, safe to use from several threads, and shares the vault
with any number of other processes::

    with Vault.open("~/vault-data", create=True) as vault:
        version = vault.put("instagram.profile", b'{"name": "ada"}', name="profile.json")
        vault.read_payload(vault.get("instagram.profile"))

When `put` returns, the version is on the disk and visible through every door. Sizes in bytes, times
as integer microseconds (`_us`) unless a name says otherwise. Raises the errors of scopefs.errors,
and `OSError` for what the disk under the vault refuses.
"""

import dataclasses
import errno
import fcntl
import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Concatenate, Literal, ParamSpec, TypeVar

import apsw

from scopefs.errors import (
    InvalidBody,
    InvalidEnvelope,
    InvalidQuery,
    NoSpace,
    NotFound,
    NotWritable,
    ScopefsError,
    TooLarge,
    Unavailable,
    VaultInUse,
)
from scopefs.model.events import decode_detail
from scopefs.model.imports import Arrival, decode_arrival
from scopefs.model.naming import NodeKind
from scopefs.model.payload import Kind, binary_kind
from scopefs.model.scope import Scope, parse_scope
from scopefs.model.scratch import ScratchPatterns
from scopefs.model.stamps import format_collected_at, format_stamp, parse_stamp, parse_time
from scopefs.store import (
    arrivals,
    imports,
    index,
    payloads,
    puts,
    trash,
    tree,
)
from scopefs.store.atomic import sync_file_system
from scopefs.store.background import SettleThread, SyncThread
from scopefs.store.backing import find_backing
from scopefs.store.checks import Checked
from scopefs.store.chunks import record_digests
from scopefs.store.config import Config, load_config
from scopefs.store.copies import settle_in
from scopefs.store.drafts import Draft
from scopefs.store.imports import Imported
from scopefs.store.index import ReaderPool, ScopeCount, Version
from scopefs.store.journal import Failure, Journal, Transaction
from scopefs.store.layout import Layout, check_index_present, create_vault, load_vault_file
from scopefs.store.owners import Owner
from scopefs.store.partial import (
    find_partial,
    list_partial,
    make_story,
    name_of_story,
    remove_partial,
    save_draft,
)
from scopefs.store.publish import Sealed
from scopefs.store.readers import Checks, PayloadReader
from scopefs.store.receipts import Once, Stored
from scopefs.store.recover import Recovery
from scopefs.store.restore import Restored, apply_restore
from scopefs.store.settle import Settler
from scopefs.store.sql import fetch
from scopefs.store.tokens import ensure_default_token
from scopefs.store.trash import Destroyed, Removed, TrashEntry
from scopefs.store.verify import Verification

P = ParamSpec("P")
T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_STREAM_CHUNK_BYTES = 1 << 20
_PAGE = 1000
_EVERYTHING_US = 1 << 62
_ALONE_WAIT_S = 5.0
_POLL_S = 0.05
_CHECKPOINT_TRIES = 10
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def system_clock_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1000


Durability = Literal["strict", "relaxed"]


class Vault:
    """An open vault."""

    is_read_only = False
    """Whether it is of those of scopefs.read_only."""

    def __init__(
        self, layout: Layout, clock_us: Callable[[], int], *, check_reads: bool = True,
        max_file_bytes: int | None = None, durability: Durability = "strict",
        config: Config | None = None,
    ) -> None:  # fmt: skip
        """Use `Vault.open`."""
        self._describe(layout, clock_us, check_reads=check_reads, config=config)
        self.is_relaxed = durability == "relaxed"
        self.max_file_bytes = max_file_bytes or self.config.limits.max_file_bytes
        # Whatever was opened is closed again, the last first, if anything further fails.
        with ExitStack() as stack:
            try:
                self._lock = os.open(
                    layout.lock("vault"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
                )
            except OSError as error:
                raise _unavailable(layout.root, error) from error
            stack.callback(os.close, self._lock)
            # Held for life: whoever must be alone with the vault takes it exclusively.
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            if not index.check_index(str(layout.index), self.id):
                self._migrate()
            self._readers: ReaderPool = ReaderPool(str(layout.index))
            stack.callback(self._readers.close)
            settle_in(layout, self._readers)
            self._journal = Journal(layout.index, layout.lock("write"), clock_us)
            stack.callback(self._journal.close)
            self._owner = Owner(layout.staging)
            stack.callback(self._owner.close)
            self._settler = Settler(layout, self._journal, self._readers)
            stack.callback(self._settler.close)
            self._recovery = Recovery(layout, self._journal, self._readers, self.scratch)
            self.recovered = self._recovery.run(clock_us())
            self._settling = SettleThread(
                self._recover_and_settle, clock_us, SyncThread(self._sync_in_time)
            )
            stack.callback(self._settling.stop)
            with self.read() as db:
                if fetch(db, "SELECT 1 FROM staged LIMIT 1"):
                    # What a process that was killed has published is placed without being asked.
                    self._settling.poke()
            self._open = stack.pop_all()

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, create: bool = False,
        clock_us: Callable[[], int] = system_clock_us, check_reads: bool = True,
        max_file_bytes: int | None = None, durability: Durability = "strict",
        config: Config | None = None,
    ) -> "Vault":  # fmt: skip
        """Open the vault in the directory `path`; with `create`, make it if it is missing.

        `check_reads`: whether payloads over 64 KiB are compared with their hash whenever they are
        read; smaller ones are always. `max_file_bytes`: the largest file that is taken, instead of
        what config.toml says. `durability`: with `relaxed` nothing waits for the disk; a power cut
        may take the last five seconds, never consistency. `config`: instead of what the files and
        the environment say (scopefs.store.config).

        Finishes or withdraws what a crash left under way. Raises `NotAVault`, `NewerFormat`,
        `IndexBroken`, `Unavailable`; `NotWritable` where `ReadOnlyVault.look_at` may do.
        """
        layout = Layout(Path(path).expanduser().absolute())
        if create:
            is_new = not layout.index.exists()
            create_vault(layout.root, clock_us())
            if is_new:
                ensure_default_token(layout, format_collected_at(clock_us()))
        return cls(
            layout, clock_us, check_reads=check_reads, max_file_bytes=max_file_bytes,
            durability=durability, config=config,
        )  # fmt: skip

    def _describe(
        self, layout: Layout, clock_us: Callable[[], int], *, check_reads: bool,
        config: Config | None,
    ) -> None:  # fmt: skip
        """What is known before anything is opened. Raises as `open` does, and `InvalidConfig`."""
        self.layout = layout
        self.is_relaxed = False
        self.clock_us = clock_us
        self.id = load_vault_file(layout).id
        self.config = load_config(layout.config) if config is None else config
        self.scratch = ScratchPatterns(self.config.scratch.patterns)
        self.max_file_bytes = self.config.limits.max_file_bytes
        self._disk_bytes = 0
        check_index_present(layout)
        self._closed = False
        self._checks = Checks(self._note_digests)
        self._checks_reads = check_reads
        self._learned: dict[bytes, bytes] = {}

    def _migrate(self) -> None:
        """Bring an older index up to date, alone with the vault. Raises `VaultInUse`."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        deadline = time.monotonic() + _ALONE_WAIT_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise VaultInUse(
                        f"{self.layout.root} has to be brought up to date, and an older scopefs "
                        "is using it: unmount it, then try again"
                    ) from error
            time.sleep(_POLL_S)
        if not index.check_index(str(self.layout.index), self.id):
            index.migrate_index(str(self.layout.index))
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """Settle everything, and let go. Closing twice is fine; so is a disk that is full."""
        if self._closed:
            return
        self._closed = True
        # Each is closed, whatever becomes of the others.
        with self._open:
            try:
                self._settling.stop()
                self._checks.close()
                self._record_learned()
                self._recover_again()
                self._settler.settle(_EVERYTHING_US, wait=True)
                self._journal.checkpoint()
            except (OSError, ScopefsError) as error:
                # A full disk, for instance. What was acknowledged is safe in the journal.
                _LOG.error("not everything could be settled; the next open tries again: %s", error)

    def _recover_again(self) -> bool:
        """Try again what could not be recovered at the open. True if nothing of it is left."""
        if self._recovery.result.left:
            self._recovery.run(self.clock_us())
        return not self._recovery.result.left

    def _sync_in_time(self) -> None:
        if self._journal.unsynced:
            self._journal.sync()

    def _recover_and_settle(self, older_than_us: int) -> bool:
        is_done = self._recover_again()
        return self._settle_due(older_than_us) and is_done

    def __enter__(self) -> "Vault":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    # What the library offers

    def put(
        self, scope: str | Scope, data: bytes | bytearray | memoryview | Path | BinaryIO, *,
        name: str | bytes | None = None, mtime_ns: int | None = None,
    ) -> Version:  # fmt: skip
        """Store a payload as the next version of a scope; durable when it returns.

        `data`: the bytes, a file to read, or an open binary stream. `name`: the file in the scope
        that shows it from now on, folders included (`My Photos/a.jpg`); without one the version
        stands in the history alone. Raises `InvalidScope`, `InvalidName`, `InvalidBody` if empty.
        """
        parsed = scope if isinstance(scope, Scope) else parse_scope(scope)
        with self.new_draft() as draft:
            if isinstance(data, Path):
                with data.open("rb") as stream:
                    self._fill(draft, stream)
                    if mtime_ns is None:
                        mtime_ns = os.fstat(stream.fileno()).st_mtime_ns
            elif isinstance(data, bytes | bytearray | memoryview):
                draft.append(memoryview(data).cast("B"))
            else:
                self._fill(draft, data)
            return self.put_draft(parsed, draft, name=name, mtime_ns=mtime_ns)

    def put_draft(
        self, scope: Scope, draft: Draft, *, name: str | bytes | None = None,
        mtime_ns: int | None = None, writer: str | None = None, unless_shown: bool = False,
    ) -> Version:  # fmt: skip
        """Store what a draft holds, as `put` does. The caller closes the draft.

        `writer`: who is recorded as having written it; this program, if nobody is named.
        `unless_shown`: if these very bytes are what the name shows (without a name: what the scope
        got last), that version is returned, and no other is made.
        """
        if not draft.size:
            raise InvalidBody("nothing to store: an empty payload makes no version")
        self.check_file_size(draft.size)
        raw_name = os.fsencode(name) if isinstance(name, str) else name
        sealed = draft.seal(raw_name)
        try:
            return self.apply_durably(
                puts.apply_put_unless_shown if unless_shown else puts.apply_put,
                self._owner.name,
                scope,
                raw_name,
                mtime_ns,
                sealed,
                writer or _program_name(),
            )
        except (NoSpace, Unavailable, OSError):
            # A commit that failed may be on the disk all the same: its bytes must be there then.
            draft.leave()
            raise

    def plan_put(
        self, scope: Scope, draft: Draft, *, name: bytes | None = None, writer: str,
        media_type: str | None = None, metadata: str | None = None, once: Once | None = None,
        object_only: bool = False, is_blob: bool = False,
    ) -> Callable[[Transaction], Stored]:  # fmt: skip
        """Seal what a draft holds, and return the change that stores it, for `apply_all`.

        `is_blob`: it is no document, whatever it looks like. `media_type`: what its sender calls
        it. `metadata`: what it says about it. `once`: nothing is stored if it was before; its
        `request` is of everything but the bytes. `object_only`: a JSON object, of whatever size.
        Raises `InvalidBody` if it is empty, or is no object and has to be. If the change fails,
        the caller says `draft.leave()`; if it was done before, `draft.discard()`.
        """
        if not draft.size:
            raise InvalidBody("nothing to store: an empty payload makes no version")
        self.check_file_size(draft.size)
        sealed = draft.seal(name)
        if object_only and sealed.kind is not Kind.DOCUMENT:
            if not draft.holds_object():
                raise InvalidBody("the body is not one JSON object")
            is_blob, media_type = True, "application/json"
        if once is not None:
            request = hashlib.sha256(once.request + sealed.sha256).digest()
            once = Once(once.key, request)
        if is_blob:
            kind = binary_kind(sealed.size)
            if media_type is None and sealed.kind is Kind.DOCUMENT:
                media_type = "application/json"
            sealed = dataclasses.replace(
                sealed, kind=kind, media_type=media_type or sealed.media_type
            )
        return lambda transaction: puts.apply_put_once(
            transaction, self._owner.name, scope, name, sealed, writer, metadata, once
        )

    def end_name(self, scope: Scope, name: bytes) -> bool:
        """End a name of a scope; its versions stay. False if no file has it."""
        return self.apply_durably(puts.apply_end_name, scope, name)

    def get(
        self, scope: str, *, at: str | None = None, stamp: str | None = None,
        name: str | bytes | None = None,
    ) -> Version:  # fmt: skip
        """A version of a scope: the newest, the newest at or before a time, or the one at `stamp`.

        With `name`, of that file alone. Raises `NotFound`, `InvalidScope`, `InvalidTime`.
        """
        raw = parse_scope(scope).raw
        at_us = parse_stamp(stamp) if stamp is not None else parse_time(at) if at else None
        with self.read() as db:
            if name is not None:
                found = puts.find_version_of_name(
                    db, raw, os.fsencode(name), at_us, exact=stamp is not None
                )
            elif stamp is not None and at_us is not None:
                found = index.find_exact(db, raw, at_us)
            elif at_us is not None:
                found = index.find_at(db, raw, at_us)
            else:
                found = index.find_latest_by_scope(db, raw)
        if found is None:
            asked = "".join(
                f" {word} {value!r}"
                for word, value in (("named", name), ("at", at), ("with stamp", stamp))
                if value is not None
            )
            raise NotFound(f'No data found for scope "{raw}"{asked}')
        return found

    def versions(self, scope: str, *, limit: int = -1, offset: int = 0) -> list[Version]:
        """The versions of a scope, newest first; [] for a scope that is not there."""
        with self.read() as db:
            return index.find_by_scope(db, parse_scope(scope).raw, limit, offset)

    def scopes(self, *, prefix: str = "", limit: int = -1, offset: int = 0) -> list[ScopeCount]:
        """The scopes that have versions, by name."""
        with self.read() as db:
            return index.list_scopes(db, limit, offset, prefix=prefix)

    def knows_scope(self, scope: Scope) -> bool:
        """Whether the scope was ever there, removed or not."""
        with self.read() as db:
            return tree.find_scope_node(db, scope.raw) is not None

    def names(self, scope: str) -> Iterator[tuple[bytes, tree.Entry]]:
        """The live files and symlinks of a scope, folders included in their names."""
        with self.read() as db:
            node = tree.find_scope_node(db, parse_scope(scope).raw)
        if node is not None:
            for _, path, entry in self._walk(node, b""):
                if not entry.kind.is_directory:
                    yield path, entry

    def import_envelope(
        self, scope: Scope, collected_us: int, content: bytes, *,
        ending: tuple[int, bytes] | None = None,
    ) -> Imported:  # fmt: skip
        """Import one version from its envelope; durable when it returns.

        `ending`: directory and name of a file whose name ends with that. Raises `InvalidEnvelope`
        if it is no envelope of that scope and time, or its blob is not here; `InvalidTime`,
        `TooLarge`; `Conflict` if another version is there.
        """
        arrival = decode_arrival(content)
        if (arrival.scope, arrival.collected_us) != (scope, collected_us):
            raise InvalidEnvelope(
                f"the envelope is of {arrival.scope} {format_stamp(arrival.collected_us)}, and "
                f"cannot be {scope} {format_stamp(collected_us)}"
            )
        with self.read() as db:
            known = imports.find_equal(db, arrival)
        with self.new_draft() as draft:
            sealed = None if known is not None else self._seal_arrival(arrival, draft)
            try:
                return self.apply_durably(
                    imports.apply_import_ending, arrival, sealed, self._owner.name, ending
                )
            except (NoSpace, Unavailable, OSError):
                draft.leave()
                raise

    def _seal_arrival(self, arrival: Arrival, draft: Draft) -> Sealed:
        sealed = arrivals.seal_in_row(arrival)
        if sealed is not None:
            return sealed
        blob: Iterable[bytes] = ()
        if arrival.payload is None:
            with self.read() as db:
                version = imports.find_with_payload(db, arrival.facts.sha256)
            if version is None:
                raise InvalidEnvelope(
                    f"the payload is a blob, {arrival.facts.sha256.hex()}, which the vault does "
                    "not have: use scopefs import, which brings blobs along"
                )
            blob = arrivals.iterate_chunks(self.open_payload(version))
        return arrivals.seal_in_draft(draft, arrival, blob)

    def delete(self, scope: str, stamp: str, *, forever: bool = False) -> Version:
        """Move one version to the trash. A name that showed it shows the version before, or ends.

        `forever`: past the trash; nothing brings it back. Raises `NotFound`.
        """
        version = self.get(scope, stamp=stamp)
        self._remove(trash.apply_delete_version, version, forever=forever)
        return version

    def delete_scope(self, scope: str, *, forever: bool = False) -> int:
        """Move all versions of a scope to the trash and end its names; returns how many versions.

        Never touches another scope: `a.b.c` stays when `a.b` goes. `forever`: past the trash.
        Raises `NotFound`.
        """
        return self._remove(trash.apply_delete_scope, parse_scope(scope), forever=forever)

    def trash(self, *, before: int | None = None, limit: int = _PAGE) -> list[TrashEntry]:
        """What was removed, newest first: one entry for each removal. `before`: an entry's id."""
        with self.read() as db:
            return trash.list_trash(db, _EVERYTHING_US if before is None else before, limit)

    def restore(self, *entries: int) -> list[Restored]:
        """Bring entries of the trash back to where they were: all of them, or none.

        Names that others have taken meanwhile stay with those; `Restored.left` tells. Raises
        `NotFound`, and `Conflict` if another version has the time of one of theirs.
        """
        return self.apply_durably(_apply_restore, entries)

    def empty_trash(self, *entries: int, older_than_us: int | None = None) -> Destroyed:
        """Destroy entries of the trash, or all; of these those removed before a time, if given.

        Blobs that no other version has go too. Returns what was destroyed. Raises `NotFound`, and
        then has destroyed nothing.
        """
        done = Destroyed()
        if entries:
            with self.read() as db:
                known = [trash.load_trash_entry(db, entry) for entry in entries]
            done = self._destroy(known, older_than_us)
        else:
            before: int | None = None
            while page := self.trash(before=before):
                done += self._destroy(page, older_than_us)
                before = page[-1].id
        if done.entries:
            self._finish_destroying()
        return done

    def partial(self) -> list[dict[str, Any]]:
        """The stories of writes that did not finish, oldest first; `id` names each."""
        return list_partial(self.layout)

    def accept_partial(
        self, partial_id: str, *, scope: str | None = None, name: str | bytes | None = None
    ) -> Version:
        """Publish the bytes of an interrupted write, as the next version of what it was meant for.

        `scope` and `name`: instead of what its story says. If the name shows these bytes already,
        they are only removed from partial/, and that version is returned: so a crash in between
        costs nothing. Raises `NotFound`, `InvalidBody` if it is empty, or nobody knows its scope.
        """
        story = find_partial(self.layout, partial_id)
        told = story.get("scope")
        if scope is None and not isinstance(told, str):
            raise InvalidBody(f"{story['file']}: it is not known what it was: name a scope for it")
        raw_name = os.fsencode(name) if isinstance(name, str) else name
        if raw_name is None and scope in (None, told):
            raw_name = name_of_story(story)
        path = self.layout.partial / story["file"]
        parsed = parse_scope(scope or str(told))
        process = story.get("process")
        with self.new_draft() as draft, path.open("rb") as stream:
            self._fill(draft, stream)
            version = self.put_draft(
                parsed, draft, name=raw_name, mtime_ns=os.fstat(stream.fileno()).st_mtime_ns,
                writer=process if isinstance(process, str) else None, unless_shown=True,
            )  # fmt: skip
        remove_partial(self.layout, story["file"])
        return version

    def drop_partial(self, partial_id: str) -> None:
        """Remove the bytes of an interrupted write for good. Raises `NotFound`."""
        remove_partial(self.layout, find_partial(self.layout, partial_id)["file"])

    def empty_old_trash(self) -> Destroyed:
        """Destroy what config.toml says is old enough; nothing, if it says nothing."""
        keep_days = self.config.trash.keep_days
        if keep_days is None:
            return Destroyed()
        return self.empty_trash(older_than_us=self.clock_us() - int(keep_days * 86_400 * 1e6))

    def _destroy(self, entries: Sequence[TrashEntry], older_than_us: int | None) -> Destroyed:
        chosen = [
            entry.id for entry in entries if older_than_us is None or entry.at_us < older_than_us
        ]
        return self.apply_durably(_apply_destroy, chosen) if chosen else Destroyed()

    def _remove(
        self, change: Callable[[Transaction, T], Removed], what: T, *, forever: bool
    ) -> int:
        """Apply a removal; how many versions went."""
        removed = self.apply_durably(_apply_removal, change, what, forever)
        if forever:
            self._finish_destroying()
        return removed.versions

    def _finish_destroying(self) -> None:
        """Remove files of what was destroyed, and what is left of it in index.db and its WAL."""
        self.settle()
        # In the WAL stands what was written of late.
        for _ in range(_CHECKPOINT_TRIES):
            if self._journal.checkpoint():
                return
            time.sleep(_POLL_S)
        _LOG.warning(
            "what was destroyed may still stand in %s-wal: other programs are reading it; it goes "
            "when the last of them has closed the vault", self.layout.index,
        )  # fmt: skip

    def events(
        self, *, after: int = 0, before: int | None = None, limit: int = _PAGE,
        scope: str | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Events as their lines have them, with `seq` and `at`.

        Those after a number, oldest first; or, with `before`, those before it, newest first.
        """
        if limit < 0:
            raise InvalidQuery("a limit cannot be negative")
        with self.read() as db:
            node = None if scope is None else tree.find_scope_node(db, parse_scope(scope).raw)
            if scope is not None and node is None:
                return []
            order = "seq > ?1 ORDER BY seq" if before is None else "seq < ?1 ORDER BY seq DESC"
            rows = fetch(
                db,
                "SELECT seq, at_us, detail FROM events"
                f" WHERE (?2 IS NULL OR scope = ?2) AND {order} LIMIT ?3",
                (after if before is None else before, node, limit),
            )
        return [
            {"seq": seq, "at": format_collected_at(at_us), **decode_detail(detail)}
            for seq, at_us, detail in rows
        ]

    def status(self) -> dict[str, Any]:
        """What the vault holds, in numbers that cost nothing to read."""
        with self.read() as db:
            scopes, versions, size = index.sum_scopes(db)
            unsettled, last = fetch(
                db, "SELECT (SELECT COUNT(*) FROM staged), (SELECT MAX(seq) FROM events)"
            )[0]
            seconds, stored, stored_bytes = index.measure_rate(db, self.clock_us())
            newest = fetch(
                db,
                "SELECT scope, collected_at FROM data_files WHERE deleted_seq IS NULL"
                " ORDER BY id DESC LIMIT 1",
            )
        backing = find_backing(self.layout.root)
        return {
            "vault": str(self.layout.root), "id": self.id, "scopes": scopes, "versions": versions,
            "payloadBytes": size, "events": last or 0, "unsettled": unsettled,
            "durability": "relaxed" if self.is_relaxed else "strict",
            "partial": len(list_partial(self.layout)),
            "rate": {"seconds": seconds, "versions": stored, "payloadBytes": stored_bytes},
            "fileSystem": {"type": backing.type, "mountpoint": backing.mountpoint,
                           "warnings": list(backing.warnings)},
            "lastVersion": {"scope": newest[0][0], "collectedAt": newest[0][1]} if newest else None,
        }  # fmt: skip

    def open_payload(self, version: Version) -> PayloadReader:
        """Open the exact bytes that were put. Raises `PayloadMissing`, `PayloadCorrupt`."""
        with self.read() as db:
            return payloads.open_payload(db, self.layout, version, self._read_checks)

    def open_envelope(self, version: Version) -> PayloadReader:
        """Open a version's envelope."""
        with self.read() as db:
            return payloads.open_envelope(db, self.layout, version, self._read_checks)

    def open_scratch(self, node: int) -> PayloadReader:
        """Open the bytes of a scratch file. Raises `NotFound`, `PayloadMissing`."""
        with self.read() as db:
            return payloads.open_scratch(db, self.layout, node, self._read_checks)

    def open_base(self, what: Version | int) -> PayloadReader:
        """Open what a new version begins with: a version's payload, or a scratch file (its node).

        Checked in any case: a hash over wrong bytes would be right for ever.
        """
        with self.read() as db:
            if isinstance(what, int):
                return payloads.open_scratch(db, self.layout, what, self._checks)
            return payloads.open_payload(db, self.layout, what, self._checks)

    @property
    def _read_checks(self) -> Checks | None:
        return self._checks if self._checks_reads else None

    def _note_digests(self, sha256: bytes, digests: bytes) -> None:
        """A reader has hashed a payload that had no row: written when it disturbs nobody."""
        self._learned[sha256] = digests
        self._settling.poke()

    def _record_learned(self) -> None:
        learned, self._learned = self._learned, {}
        if learned:
            try:
                self._journal.run(
                    lambda transaction: record_digests(transaction.db, learned), durable=False
                )
            except (OSError, ScopefsError) as error:
                # It is computed again when somebody needs it.
                _LOG.info("digests of chunks could not be written: %s", error)

    def _settle_due(self, older_than_us: int) -> bool:
        self._record_learned()
        return self._settler.settle(older_than_us)

    def read_payload(self, version: Version) -> bytes:
        """The exact bytes that were put, whole."""
        return _read_whole(self.open_payload(version))

    def read_envelope(self, version: Version) -> bytes:
        """A version's envelope, whole."""
        return _read_whole(self.open_envelope(version))

    def verification(
        self, *, rate_bytes: float | None = None, resume: bool = False
    ) -> Verification:
        """A check of everything in the vault, to be run: it yields what is not as it must be.

        `rate_bytes`: how much may be read in a second. `resume`: go on where an earlier one was.
        """
        checked = Checked(self.layout, self.read, self._settler.hold, rate_bytes)
        now = format_collected_at(self.clock_us())
        return Verification(checked, self.id, now, resume=resume)

    # What the doors need besides

    def read(self) -> AbstractContextManager[apsw.Connection]:
        """A reading connection, for the queries of scopefs.store.index and tree."""
        return self._readers.connection()

    def apply(
        self, change: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Apply one change of scopefs.store.changes; it is durable within two seconds."""
        result = self._journal.run(
            lambda transaction: change(transaction, *args, **kwargs), durable=False
        )
        self._settling.poke()
        return result

    def apply_durably(
        self, change: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Apply one change; when this returns, it and all before it are on the disk."""
        result = self._journal.run(
            lambda transaction: change(transaction, *args, **kwargs), durable=not self.is_relaxed
        )
        self._settling.poke()
        return result

    def apply_all(
        self, works: Sequence[Callable[[Transaction], T]], *, durable: bool = False
    ) -> list[T | Failure]:
        """Apply several changes in one transaction; each fails alone."""
        results = self._journal.run_all(works, durable=durable and not self.is_relaxed)
        self._settling.poke()
        return results

    def try_apply_all(
        self, works: Sequence[Callable[[Transaction], T]]
    ) -> tuple[list[T | Failure], int] | None:
        """Apply several changes in one transaction, if that takes no waiting; for event loops.

        Returns the results, with a ticket for `sync_soon`. None: `apply_all`, in a thread.
        """
        found = self._journal.try_run_all(works)
        self._settling.poke()
        return found

    @property
    def tree_changes(self) -> int:
        """Another number than before, if names or attributes were changed by this process."""
        return self._journal.tree_changes

    def try_sync(self, ticket: int) -> bool:
        """Make what was applied durable, if that is expected to take no time; else, `sync_soon`."""
        return self.is_relaxed or self._journal.try_sync(ticket)

    def sync_soon(self, ticket: int, tell: Callable[[ScopefsError | None], None]) -> None:
        """Have what was applied made durable by a thread, which then says what came of it."""
        if self.is_relaxed:
            tell(None)
        else:
            self._journal.sync_soon(ticket, tell)

    def new_draft(self) -> Draft:
        """An empty draft in this process's part of staging/."""
        if self._closed:
            raise Unavailable("the vault is closed")
        return Draft(self._owner)

    @property
    def owner_name(self) -> str:
        """What staged rows of this process are signed with."""
        return self._owner.name

    def sync(self) -> None:
        """Make everything that was applied so far durable."""
        if not self.is_relaxed:
            self._journal.sync()

    def sync_files(self) -> None:
        """Make all that was written to staging files durable. Raises `OSError`."""
        fd = os.open(self.layout.staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file_system(fd)
        finally:
            os.close(fd)

    def settle(self) -> None:
        """Place everything that was published so far."""
        self._settler.settle(_EVERYTHING_US, wait=True)

    def keep_partial(
        self, draft: Draft, scope_node: int, node: int, known: tuple[int | None, bytes | None], *,
        reason: str, process: str | None, uid: int | None,
    ) -> Path:  # fmt: skip
        """Keep the bytes of a failed write in partial/; consumes the draft. Raises `OSError`.

        `known`: directory and name that a file was to get of which the index has not heard.
        """
        with self.read() as db:
            story = make_story(db, scope_node, node, known, reason=reason, process=process, uid=uid)
        return save_draft(self.layout, draft, self.clock_us(), story)

    def check_file_size(self, size: int) -> None:
        """Refuse a file that is larger than was allowed, or than the disk could ever hold.

        So is one of a petabyte of holes, which would take days to hash. Raises `TooLarge`.
        """
        if self.max_file_bytes is not None and size > self.max_file_bytes:
            raise TooLarge(
                f"a file of {size} bytes is over the limit of this vault, {self.max_file_bytes} "
                "(max_file_bytes)"
            )
        if size > self._disk_bytes:
            found = os.statvfs(self.layout.root)
            # Some file systems do not know.
            self._disk_bytes = found.f_frsize * found.f_blocks or sys.maxsize
            if size > self._disk_bytes:
                raise TooLarge(
                    f"a file of {size} bytes: the disk under the vault has {self._disk_bytes} in "
                    "all"
                )

    def _fill(self, draft: Draft, stream: BinaryIO) -> None:
        while chunk := stream.read(_STREAM_CHUNK_BYTES):
            self.check_file_size(draft.size + len(chunk))
            draft.append(chunk)

    def _walk(self, node: int, prefix: bytes) -> Iterator[tuple[int, bytes, tree.Entry]]:
        """What a scope's directory holds, depth first, directories after their contents.

        Yields `(parent, path, entry)`; scopes below are left out.
        """
        slot = 0
        while True:
            with self.read() as db:
                page = tree.list_children(db, node, slot, _PAGE)
            for child in page:
                slot = child.slot
                if child.entry.kind is NodeKind.SCOPE:
                    continue
                path = prefix + child.name
                if child.entry.kind.is_directory:
                    yield from self._walk(child.entry.node, path + b"/")
                yield node, path, child.entry
            if len(page) < _PAGE:
                return


def _read_whole(reader: PayloadReader) -> bytes:
    try:
        return reader.read(0, reader.size)
    finally:
        reader.close()


def _unavailable(root: Path, error: OSError) -> Unavailable:
    kind = NotWritable if error.errno in _NOT_WRITABLE else Unavailable
    return kind(f"{root} cannot be written: {error.strerror}")


def _program_name() -> str:
    """What this program is called: `scopefs` for the command, a script's name for the library."""
    path = Path(sys.argv[0] if sys.argv else "")
    return (path.parent if path.name == "__main__.py" else path).name or "python"


def _apply_removal(
    transaction: Transaction, change: Callable[[Transaction, T], Removed], what: T, forever: bool
) -> Removed:
    removed = change(transaction, what)
    if forever and removed.versions:
        trash.apply_destroy(transaction, removed.entry)
    return removed


def _apply_restore(transaction: Transaction, entries: Sequence[int]) -> list[Restored]:
    return [apply_restore(transaction, entry) for entry in entries]


def _apply_destroy(transaction: Transaction, entries: Sequence[int]) -> Destroyed:
    done = Destroyed()
    for entry in entries:
        done += trash.apply_destroy(transaction, entry)
    return done
