"""Importing a source: what the vault lacks is added, what it has is left alone.

Versions go in by batches, each one durable transaction; an import that was cut short is a beginning
of it, and repeating it finds equal versions and goes on. Nothing is stored whose hash was not
compared. Whatever is refused is told, and the rest goes on.

Raises `NoSpace`, `Unavailable`, `OSError`, and what the source raises.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from scopefs.errors import (
    BadRequest,
    Conflict,
    Damaged,
    InvalidEnvelope,
    NoSpace,
    NotFound,
    PayloadMissing,
    ScopefsError,
    TooLarge,
    Unavailable,
)
from scopefs.model.imports import (
    ENVELOPE_MAX_BYTES,
    Arrival,
    check_arrival_time,
    decode_arrival,
)
from scopefs.model.payload import Kind
from scopefs.model.stamps import format_stamp
from scopefs.store import imports, tree
from scopefs.store.arrivals import adopt_sealed, iterate_chunks, seal_in_draft, seal_in_row
from scopefs.store.drafts import Draft
from scopefs.store.import_names import Claimed, SourceFile
from scopefs.store.imports import Imported
from scopefs.store.journal import Failure, Transaction
from scopefs.store.publish import Sealed
from scopefs.transfer.exports import Chunks, Problem, told_chunks
from scopefs.transfer.names import ScopeNames
from scopefs.transfer.sources import FoundBlob, FoundEnvelope, Source
from scopefs.vault import Vault

BATCH_VERSIONS = 200
_BATCH_BYTES = 8 << 20
_EXPECTED = (BadRequest, Conflict, Damaged, NotFound, TooLarge)
"""What is wrong with one version alone."""


@dataclass(slots=True)
class ImportResult:
    """What an import did."""

    imported: int = 0
    already_there: int = 0
    names: int = 0
    """Live names that show something that came."""
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class _Scope:
    """What is known about a scope of the source while it is being imported."""

    names: ScopeNames
    by_time: dict[int, SourceFile]
    missing: set[int]
    """The times of versions that the names tell of and that did not come yet."""
    claimed: Claimed = field(default_factory=dict)
    made: dict[int, int] = field(default_factory=dict)
    """Directories that this import has made, and their mtimes."""


@dataclass(slots=True)
class _Waiting:
    """A version that goes in with the next batch."""

    where: str
    arrival: Arrival
    sealed: Sealed
    draft: Draft | None
    file: SourceFile | None


class Importer:
    """One import. Not for several threads at once."""

    def __init__(self, vault: Vault, source: Source, progress: Callable[[int], None]) -> None:
        self._vault = vault
        self._source = source
        self._progress = progress
        self._scopes: dict[str, _Scope] = {}
        self._batch: list[_Waiting] = []
        self._batch_bytes = 0
        self._done_bytes = self._taken_bytes = 0
        """Bytes of envelopes and blobs: of all but the last, and of the last that was taken."""
        self._blobs: dict[bytes, tuple[Draft, Sealed]] = {}
        self._without_blob: list[tuple[str, Arrival]] = []
        self._touched: set[int] = set()
        self._result = ImportResult()

    def run(self) -> ImportResult:
        """Import everything; `progress` is called with how much of `Source.measure` is done."""
        try:
            for found in self._source.iterate():
                if isinstance(found, ScopeNames):
                    self._begin_scope(found)
                elif isinstance(found, FoundBlob):
                    self._keep_blob(found)
                else:
                    self._take(found)
            waiting, self._without_blob = self._without_blob, []
            for where, arrival in waiting:
                self._enqueue(where, arrival, is_last_chance=True)
            self._flush()
            for scope in self._scopes.values():
                self._end_scope(scope)
            self._vault.sync()
        finally:
            for draft, _ in self._blobs.values():
                draft.discard()
            for entry in self._batch:
                if entry.draft is not None:
                    entry.draft.discard()
        self._count_names()
        self._result.problems[:0] = self._source.problems
        return self._result

    def _begin_scope(self, names: ScopeNames) -> None:
        by_time = {us: file for file in names.files for us in file.versions}
        scope = self._scopes[names.scope.raw] = _Scope(names, by_time, set(by_time))
        try:
            made = self._vault.apply(
                imports.apply_import_scope, names.scope, names.mode, is_removed=names.is_removed
            )
        except ScopefsError as error:
            self._note(f"names of {names.scope}", error)
            return
        scope.made = dict.fromkeys(made, names.mtime_ns)
        if names.is_removed:
            return
        for start in range(0, len(names.folders), BATCH_VERSIONS):
            page = names.folders[start : start + BATCH_VERSIONS]
            nodes = self._vault.apply_all([
                partial(imports.apply_import_folder, scope=names.scope, path=folder.name,
                        mode=folder.mode)
                for folder in page
            ])  # fmt: skip
            for folder, node in zip(page, nodes, strict=True):
                if isinstance(node, Failure):
                    self._note_failure(f"{names.scope} {folder.name!r}", node)
                elif node is not None:
                    scope.made[node] = folder.mtime_ns

    def _take(self, found: FoundEnvelope) -> None:
        """Check one envelope, and put it into the batch unless it is there already."""
        self._done_bytes += self._taken_bytes
        self._taken_bytes = found.size_bytes
        self._tell(0)
        scope = self._scopes.get(found.scope.raw)
        if scope is not None:
            scope.missing.discard(found.collected_us)
        try:
            if found.size_bytes > ENVELOPE_MAX_BYTES:
                raise TooLarge(f"{found.size_bytes} bytes are too many for an envelope")
            arrival = decode_arrival(found.read())
            if arrival.facts.kind is Kind.BLOB:
                self._taken_bytes += arrival.facts.size_bytes
            if (arrival.scope.raw, arrival.collected_us) != (found.scope.raw, found.collected_us):
                raise InvalidEnvelope(
                    f"the envelope says {arrival.scope} {format_stamp(arrival.collected_us)}, "
                    "which is not where it stands"
                )
            check_arrival_time(arrival.collected_us, self._vault.clock_us())
            with self._vault.read() as db:
                existing = imports.find_equal(db, arrival)
        except _EXPECTED as error:
            self._note(found.where, error)
            return
        if existing is None:
            self._enqueue(found.where, arrival)
            return
        self._result.already_there += 1
        file = scope.by_time.get(arrival.collected_us) if scope is not None else None
        if scope is not None and file is not None and existing.node is not None:
            file.node = file.node or existing.node
            scope.claimed.setdefault(existing.node, file)

    def _tell(self, at: int) -> None:
        """So many bytes are done behind those of the versions before."""
        self._progress(self._source.find_position(self._done_bytes + at))

    def _enqueue(self, where: str, arrival: Arrival, *, is_last_chance: bool = False) -> None:
        scope = self._scopes.get(arrival.scope.raw)
        draft: Draft | None = None
        try:
            sealed = seal_in_row(arrival)
            if sealed is None:
                found = self._seal_in_draft(arrival)
                if found is None:
                    if not is_last_chance:
                        # It may stand further behind.
                        self._without_blob.append((where, arrival))
                        return
                    raise PayloadMissing(
                        f"the blob {arrival.facts.sha256.hex()} is neither in what is imported nor "
                        "in the vault"
                    )
                sealed, draft = found
        except _EXPECTED as error:
            self._note(where, error)
            return
        file = scope.by_time.get(arrival.collected_us) if scope is not None else None
        self._batch.append(_Waiting(where, arrival, sealed, draft, file))
        self._batch_bytes += len(sealed.payload or b"")
        if len(self._batch) >= BATCH_VERSIONS or self._batch_bytes >= _BATCH_BYTES:
            self._flush()

    def _seal_in_draft(self, arrival: Arrival) -> tuple[Sealed, Draft] | None:
        """The bytes of a large arrival in a draft; None if its blob is nowhere."""
        sha256 = arrival.facts.sha256
        chunks: Chunks = ()
        if arrival.payload is None:
            if sha256 in self._blobs:
                draft, sealed = self._blobs.pop(sha256)
                try:
                    return adopt_sealed(sealed, arrival), draft
                except Damaged:
                    draft.discard()
                    raise
            found = self._source.open_blob(sha256) or self._find_in_vault(sha256)
            if found is None:
                return None
            chunks = told_chunks(found, self._tell)
        with self._vault.new_draft() as draft:
            return seal_in_draft(draft, arrival, chunks), draft

    def _find_in_vault(self, sha256: bytes) -> Chunks | None:
        if any(waiting.arrival.facts.sha256 == sha256 for waiting in self._batch):
            self._flush()
        with self._vault.read() as db:
            version = imports.find_with_payload(db, sha256)
        return None if version is None else iterate_chunks(self._vault.open_payload(version))

    def _keep_blob(self, found: FoundBlob) -> None:
        """Keep a blob for the envelope that needs it, unless the vault has it."""
        with self._vault.read() as db:
            if imports.find_with_payload(db, found.sha256) is not None:
                return
        if found.sha256 in self._blobs:
            return
        with self._vault.new_draft() as draft:
            for chunk in found.chunks():
                draft.append(chunk)
                self._tell(0)
            sealed = draft.seal(None)
        if sealed.sha256 != found.sha256:
            draft.discard()
            self._note(found.where, InvalidEnvelope("the bytes do not have the hash of their name"))
            return
        self._blobs[found.sha256] = draft, sealed

    def _flush(self) -> None:
        """Import the batch, in one durable transaction."""
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if not batch:
            return
        try:
            results = self._vault.apply_all(
                [partial(self._apply, entry=entry) for entry in batch], durable=True
            )
        except BaseException:
            _leave(batch)
            raise
        for entry, result in zip(batch, results, strict=True):
            if isinstance(result, Failure):
                if isinstance(result.error, NoSpace | Unavailable | OSError):
                    # It may be on the disk all the same: the bytes must be there then.
                    _leave(batch)
                    raise result.error
                self._note_failure(entry.where, result)
            elif result.was_there:
                self._result.already_there += 1
            else:
                self._result.imported += 1
                if result.version.node is not None:
                    self._touched.add(result.version.node)
                continue
            if entry.draft is not None:
                entry.draft.discard()

    def _apply(self, transaction: Transaction, entry: _Waiting) -> Imported:
        scope = self._scopes.get(entry.arrival.scope.raw)
        return imports.apply_import(
            transaction, entry.arrival, entry.sealed, self._vault.owner_name, entry.file,
            scope.claimed if scope is not None else None,
            is_removed=scope is not None and scope.names.is_removed,
        )  # fmt: skip

    def _end_scope(self, scope: _Scope) -> None:
        """Behind the versions of a scope: whatever else has names in it."""
        raw = scope.names.scope
        if scope.missing:
            self._note(
                raw.raw,
                PayloadMissing(f"{len(scope.missing)} version(s) that it should have are missing"),
            )
        if not scope.names.is_removed:
            self._make_rest(scope)
        if scope.made:
            self._vault.apply(imports.apply_directory_times, scope.made)

    def _make_rest(self, scope: _Scope) -> None:
        raw = scope.names.scope
        works: list[Callable[[Transaction], bool]] = []
        works += [
            partial(imports.apply_restore, scope=raw, file=file)
            if file.versions
            else partial(imports.apply_import_empty, scope=raw, file=file)
            for file in scope.names.files
            if file.names and (file.node is not None or not file.versions)
        ]
        works += [
            partial(imports.apply_import_symlink, scope=raw, names=link.names, target=link.target,
                    mtime_ns=link.mtime_ns)
            for link in scope.names.symlinks
        ]  # fmt: skip
        for start in range(0, len(works), BATCH_VERSIONS):
            for result in self._vault.apply_all(works[start : start + BATCH_VERSIONS]):
                if isinstance(result, Failure):
                    self._note_failure(raw.raw, result)
                else:
                    self._result.names += result

    def _count_names(self) -> None:
        with self._vault.read() as db:
            self._result.names += sum(len(tree.find_live_names(db, n)) for n in self._touched)

    def _note(self, where: str, error: ScopefsError) -> None:
        self._result.problems.append(Problem(where, error))

    def _note_failure(self, where: str, failure: Failure) -> None:
        if not isinstance(failure.error, _EXPECTED):
            raise failure.error
        self._note(where, failure.error)


def _leave(batch: list[_Waiting]) -> None:
    """Leave staging files to the journal; if no row names them, the next open removes them."""
    for entry in batch:
        if entry.draft is not None:
            entry.draft.leave()
