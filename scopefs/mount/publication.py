"""Publication: what becomes of a session once its last writer is released.

RELEASE is answered at once. What has gathered is published in one transaction, a moment later or
when somebody waits for it. Between the release of the last writer and its publication `publishing`
is set: no new session of the file begins before that is over, and names are not changed under it.
"""

import logging
import os
from functools import partial
from typing import NamedTuple

import trio

from scopefs.commits import apply_all
from scopefs.logs import log_version
from scopefs.model.payload import Kind
from scopefs.model.sessions import Outcome, plan_release
from scopefs.mount.errnos import is_expected
from scopefs.mount.open_files import Newest, OpenFile, OpenFiles
from scopefs.mount.threads import in_thread
from scopefs.mount.writers import Writer, close_files
from scopefs.store import publish, tree
from scopefs.store.index import Version
from scopefs.store.journal import Failure, Transaction
from scopefs.store.publish import Sealed, StagedState, Write
from scopefs.vault import Vault

RELEASE_GRACE_S = 0.1
"""How long a listing of versions waits for the RELEASE that follows a dirty FLUSH."""

PUBLISH_GRACE_S = 10.0
"""How long anything waits for a publication under way."""

LINGER_S = 0.02
"""How long a publication that nobody waits for gathers others: a transaction costs by the pages of
the index that it changes, and those of several publications are mostly the same.
"""

TEMPORARY_S = 10.0
"""How long after its RELEASE a program may take its file back by removing it."""

BEHIND_S = 0.5
"""How far publication may be behind a mount that waits for nothing, before it waits."""

_SYNC_TOGETHER_MIN = 4
"""So many files are made durable by one syncfs: it costs about what two syncs of a file do."""

_GATHER_MAX = 16
_GATHER_MAX_RELAXED = 256
"""More share a syncfs."""

_LOG = logging.getLogger(__name__)


class _Recent(NamedTuple):
    """A version that was published a moment ago."""

    at: float
    version: int
    writers: list[Writer]


class Publisher:
    """Publishes the sessions of one mount."""

    def __init__(self, vault: Vault, open_files: OpenFiles) -> None:
        self._vault = vault
        self._open = open_files
        self._waiting: list[OpenFile] = []
        self._wake = trio.Event()
        self._hurry = trio.Event()
        self._recent: Newest[_Recent] = Newest()
        self.idle = trio.Event()
        self.idle.set()

    def begin(self, file: OpenFile) -> None:
        """Hand over a file whose session is over."""
        if file.publishing is None:
            file.publishing = trio.Event()
            file.released.set()
            self._waiting.append(file)
            self.idle = trio.Event() if self.idle.is_set() else self.idle
            self._wake.set()
            if len(self._waiting) >= _GATHER_MAX:
                self._hurry.set()

    async def run(self) -> None:
        """Publish what is handed over. For ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._waiting:
                if len(self._waiting) < _GATHER_MAX:
                    with trio.move_on_after(LINGER_S):
                        await self._hurry.wait()
                self._hurry = trio.Event()
                most = _GATHER_MAX_RELAXED if self._vault.is_relaxed else _GATHER_MAX
                batch, self._waiting = self._waiting[:most], self._waiting[most:]
                try:
                    await self._publish(batch)
                except Exception as error:
                    # Of a disk that is away, for instance: the staged rows wait for the next open.
                    _LOG.error(
                        "publishing failed: %s", error,
                        exc_info=None if is_expected(error) else error,
                    )  # fmt: skip
                finally:
                    for file in batch:
                        self._end(file)
            close_files()
            self.idle.set()

    def _needs_seal(self, file: OpenFile) -> bool:
        return file.draft is not None and (file.sealed is None or file.dirty)

    async def wait_published(self, file: OpenFile) -> None:
        """Wait for a publication of this file that is under way."""
        with trio.move_on_after(PUBLISH_GRACE_S):
            while file.publishing is not None:
                self._hurry.set()
                await file.publishing.wait()

    async def wait_not_behind(self) -> None:
        """Wait while what was closed long ago is not published yet: it can be lost."""
        with trio.move_on_after(PUBLISH_GRACE_S):
            while self._waiting:
                oldest = self._waiting[0]
                if oldest.publishing is None or trio.current_time() < oldest.flushed_at + BEHIND_S:
                    return
                await oldest.publishing.wait()

    async def wait_scope_published(self, scope_node: int) -> None:
        """Wait for what is about to be published in a scope, so that a listing shows it.

        For publications under way; and for files that were flushed a moment ago, whose RELEASE the
        kernel may still be holding back.
        """
        for file in self._open:
            if file.scope_node != scope_node:
                continue
            if file.draft is not None and not file.dirty:
                await self.wait_released(file)
            await self.wait_published(file)

    async def wait_released(self, file: OpenFile) -> None:
        """Wait for the RELEASE that follows a FLUSH, and for what comes of it."""
        if file.publishing is None:
            with trio.move_on_at(file.flushed_at + RELEASE_GRACE_S):
                await file.released.wait()
        await self.wait_published(file)

    async def record_name(self, file: OpenFile) -> None:
        """Put the name of an unrecorded file into the index, before names are changed."""
        await self.wait_published(file)
        if file.unrecorded:
            write = self.make_write(file, EMPTY, None)
            await in_thread(self._vault.apply, publish.apply_show_empty, write)
            self._open.mark_recorded(file)
            self._open.note_recorded(file)

    async def unlink_unrecorded(self, file: OpenFile) -> None:
        """End the name of a file that the index does not know yet."""
        self._open.mark_recorded(file)
        file.unlinked = True
        await self._drop_staged(file)
        if not file.handles:
            self._open.forget(file)

    def find_temporary(self, node: int, writer: Writer | None) -> int | None:
        """The version that a program has just written to a file, if it is `writer` that did."""
        recent = self._recent.get(node)
        if recent is None or writer is None or trio.current_time() > recent.at + TEMPORARY_S:
            return None
        return recent.version if any(map(writer.is_same, recent.writers)) else None

    async def close_all(self) -> None:
        """At the end of a mount: what was closed is published, though its RELEASE may never come;
        what was written and never closed goes to partial/.
        """
        for file in self._open:
            if file.is_closed:
                self.begin(file)
        self._hurry.set()
        await self.idle.wait()
        for file in self._open:
            if file.draft is not None:
                await self._keep_partial(file, "still open when the vault was unmounted")

    def make_write(self, file: OpenFile, sealed: Sealed, sid: int | None) -> Write:
        """The file's session as the vault wants it."""
        return Write(
            self._vault.owner_name, file.scope_node, file.node,
            file.parent if file.unrecorded else None, file.name if file.unrecorded else None,
            file.mode, file.mtime_ns, sealed, slot=file.slot, sid=sid,
            writer_uid=file.writer.uid if file.writer else None,
            writer=file.writer.name if file.writer else None,
            created_ns=file.created_ns, touch=file.created_ns is not None,
        )  # fmt: skip

    async def _publish(self, batch: list[OpenFile]) -> None:
        unsealed = [
            file for file in batch
            if self._plan(file) is Outcome.RECORD and self._needs_seal(file)
        ]  # fmt: skip
        faults = await in_thread(_seal_all, unsealed, self._vault) if unsealed else {}
        works = []
        files = []
        for file in batch:
            outcome = self._plan(file)
            if outcome is Outcome.KEEP_PARTIAL:
                await self._keep_partial(file, self._find_fault(file) or "")
            elif outcome is Outcome.DROP:
                file.drop_draft()
            elif outcome is Outcome.RECORD:
                if id(file) in faults:
                    await self._note_failure(file, faults[id(file)])
                    continue
                works.append(partial(self._apply, self._make_final(file), file in unsealed))
                files.append(file)
        if not works:
            return
        results = await apply_all(self._vault, works)
        for file, result in zip(files, results, strict=True):
            if isinstance(result, Failure):
                await self._note_failure(file, result.error)
            else:
                self._note_published(file, result)

    def _plan(self, file: OpenFile) -> Outcome:
        return plan_release(
            has_session=file.draft is not None, is_recorded=not file.unrecorded,
            is_unlinked=file.unlinked, failed=self._find_fault(file) is not None,
        )  # fmt: skip

    def _make_final(self, file: OpenFile) -> Write:
        sealed = EMPTY if file.draft is None or file.sealed is None else file.sealed
        return self.make_write(file, sealed, file.sid)

    def _apply(self, write: Write, restage: bool, transaction: Transaction) -> Version | None:
        if restage:
            write.sid = publish.apply_stage(transaction, write, StagedState.CLOSED)
        return publish.apply_release(transaction, write, self._vault.scratch)

    def _find_fault(self, file: OpenFile) -> str | None:
        """Why the session makes no version, in words; None if it makes one."""
        if file.failed is not None:
            return f"a write failed: {os.strerror(file.failed.errno)}"
        if file.killed and not file.append_only and not self._is_scratch(file):
            return "its writer was killed"
        return None

    def _is_scratch(self, file: OpenFile) -> bool:
        with self._vault.read() as db:
            live = [found[1:] for found in tree.find_live_names(db, file.node)]
            paths = [
                tree.path_within_scope(db, parent, name)
                for parent, name in live or [(file.parent, file.name)]
            ]
        return all(map(self._vault.scratch.is_scratch, paths))

    def _note_published(self, file: OpenFile, version: Version | None) -> None:
        """The index has it: the file shows what was written."""
        size = file.shown_size
        writers = file.written_by
        # The staging file belongs to the row now; an empty one to nobody.
        file.drop_draft(keep_file=size > 0)
        file.show(version.id if version else None, size, is_scratch=version is None and size > 0)
        for handle in file.handles:
            handle.version = file.version
        self._open.note_published(file)
        if version is not None:
            self._recent.note(file.node, _Recent(trio.current_time(), version.id, writers))
            log_version(_LOG, version.scope, version.stamp, file.name, size)

    async def _note_failure(self, file: OpenFile, error: BaseException) -> None:
        _LOG.error(
            "a version of %r could not be published: %s", file.name, error,
            exc_info=None if is_expected(error) else error,
        )  # fmt: skip
        await self._keep_partial(file, f"could not be published: {error}")

    async def _keep_partial(self, file: OpenFile, reason: str) -> None:
        """Keep the bytes outside history; the name keeps its last version, or vanishes."""
        draft = file.draft
        scope = ".".join(file.place.segments)
        if draft is not None and draft.size:
            writer = file.writer
            keep = partial(
                self._vault.keep_partial, draft, file.scope_node, file.node,
                (file.parent, file.name) if file.name else (None, None), reason=reason,
                process=writer.name if writer else None, uid=writer.uid if writer else None,
            )  # fmt: skip
            try:
                path = await in_thread(keep)
            except OSError as error:
                # A row that is durable stays: the next open publishes it.
                stays = file.sid is not None
                _LOG.error(
                    "%s %r: the bytes could not be kept in partial/%s: %s", scope, file.name,
                    ", but stay in the journal" if stays else "", error,
                )  # fmt: skip
                file.drop_draft(keep_file=stays)
                file.sid = None
                self._open.note_cached(file.node, -1)
                return
            _LOG.warning("%s %r: kept in %s: %s", scope, file.name, path, reason)
        file.drop_draft()
        await self._drop_staged(file)
        self._open.note_cached(file.node, -1)

    async def _drop_staged(self, file: OpenFile) -> None:
        """Forget the staged row of bytes that will not be published."""
        if file.sid is None:
            return
        write = self.make_write(file, EMPTY, file.sid)
        try:
            await in_thread(self._vault.apply, publish.drop_staged, write)
        except Exception as error:
            _LOG.error("a staged row could not be dropped: %s", error)
        file.sid = None

    def _end(self, file: OpenFile) -> None:
        self._open.mark_recorded(file)
        if file.draft is not None:
            # Something unforeseen: nothing is lost, the staged row is published at the next open.
            file.drop_draft(keep_file=True)
        else:
            file.sid = None
        for handle in file.handles:
            # Not all may be released: another began to write after a close.
            handle.end_session()
        file.writers = 0
        event, file.publishing = file.publishing, None
        if event is not None:
            event.set()
        if not file.handles:
            self._open.forget(file)


def _seal_all(files: list[OpenFile], vault: Vault) -> dict[int, Exception]:
    """Seal what no FLUSH has made durable: stored through a mapping after it, or relaxed."""
    faults: dict[int, Exception] = {}
    drafts = [file.draft for file in files if file.draft is not None]
    is_synced = sum(not draft.in_memory for draft in drafts) >= _SYNC_TOGETHER_MIN
    if is_synced:
        try:
            vault.sync_files()
        except OSError as error:
            return {id(file): error for file in files}
    for file in files:
        try:
            if file.draft is not None:
                file.sealed = file.draft.seal(file.name or None, is_synced=is_synced)
        except Exception as error:
            faults[id(file)] = error
    return faults


EMPTY = Sealed(0, b"", Kind.INLINE, "", None, None)
