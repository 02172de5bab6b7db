"""Versions that are written into `.versions/` by their stamps: imported when they are closed.

What is being written is seen by nobody but its writer: it has an inode of its own, or, where there
is a version of that stamp already, bypasses the kernel's cache of that one, which never changes.
Nothing is kept of what is no valid envelope; why is told as every refusal is.

Source: docs/semantics.md, X.
"""

import itertools
import logging
import stat
from dataclasses import dataclass, field
from functools import partial

import pyfuse3
import trio

from scopefs.errors import (
    CrossesScopes,
    InvalidEnvelope,
    InvalidTime,
    NotFound,
    ScopefsError,
    TooLarge,
)
from scopefs.logs import log_version
from scopefs.model.imports import ENVELOPE_MAX_BYTES
from scopefs.model.naming import VERSIONS_NAME, NodeKind, Place, show_name
from scopefs.model.scope import Scope, parse_scope
from scopefs.model.stamps import parse_stamp
from scopefs.mount.attributes import make_attributes
from scopefs.mount.inodes import InodeClass, encode_inode
from scopefs.mount.refusals import Refusals
from scopefs.mount.threads import in_thread
from scopefs.store import index, tree
from scopefs.store.drafts import Draft
from scopefs.store.tree import Entry
from scopefs.vault import Vault

_LOG = logging.getLogger(__name__)
_SUFFIX = b".json"


@dataclass(eq=False)
class ImportHandle:
    """One open file description that writes an envelope."""

    scope_node: int
    name: bytes
    collected_us: int
    draft: Draft
    number: int
    """Of its inode, where there is no version yet."""
    is_dirty: bool = False
    error: Exception | None = None
    """Why the last attempt failed: every close tells."""
    lock: trio.Lock = field(default_factory=trio.Lock)


class Imports:
    """All versions that are being written in one mount."""

    def __init__(self, vault: Vault, refusals: Refusals) -> None:
        self._vault = vault
        self._refusals = refusals
        self._numbers = itertools.count(1)
        self._open: dict[int, ImportHandle] = {}

    async def begin(
        self, scope_node: int, name: bytes, base: int | None = None
    ) -> tuple[ImportHandle, pyfuse3.EntryAttributes]:
        """Open a stamp for writing; with the envelope of the version `base` to begin with.

        Raises `InvalidTime` if the name is no stamp.
        """
        collected_us = self._parse_name(scope_node, name)
        draft = self._vault.new_draft()
        if base is not None:
            await in_thread(self._copy_base, draft, base)
        handle = ImportHandle(scope_node, name, collected_us, draft, next(self._numbers))
        self._open[handle.number] = handle
        return handle, self.attributes(handle.number)

    def attributes(self, number: int) -> pyfuse3.EntryAttributes:
        """The attributes of what is being written. Raises `NotFound` once it is closed."""
        handle = self._open.get(number)
        if handle is None:
            raise NotFound("the import is over")
        return make_attributes(
            encode_inode(InodeClass.IMPORT, number), stat.S_IFREG | 0o644, handle.draft.size,
            handle.collected_us * 1000,
        )  # fmt: skip

    async def read(self, handle: ImportHandle, offset: int, size: int) -> bytes:
        """What was written so far."""
        return bytes(await in_thread(handle.draft.read, offset, size))

    async def write(self, handle: ImportHandle, offset: int, data: bytes) -> int:
        """Write at an offset. Raises `TooLarge`, `OSError`."""
        async with handle.lock:
            if offset + len(data) > ENVELOPE_MAX_BYTES:
                raise TooLarge(f"an envelope has at most {ENVELOPE_MAX_BYTES} bytes")
            if not offset and data.lstrip()[:1] not in (b"", b"{"):
                # Told now, for a shell's `echo` does not look at its close.
                error = InvalidEnvelope("not an envelope: it is no JSON object")
                self._explain(handle.scope_node, handle.name, error)
                raise error
            handle.is_dirty = True
            await in_thread(handle.draft.write, offset, data)
        return len(data)

    async def resize(self, handle: ImportHandle, size: int) -> None:
        """Set the length. Raises `TooLarge`, `OSError`."""
        async with handle.lock:
            if size > ENVELOPE_MAX_BYTES:
                raise TooLarge(f"an envelope has at most {ENVELOPE_MAX_BYTES} bytes")
            handle.is_dirty = True
            await in_thread(handle.draft.truncate, size)

    async def flush(self, handle: ImportHandle) -> None:
        """close(2): import what was written, durably. Nothing was written: nothing is done.

        Raises what `Vault.import_envelope` does.
        """
        async with handle.lock:
            if handle.is_dirty and handle.draft.size:
                handle.error = None
                try:
                    content = await in_thread(handle.draft.read, 0, handle.draft.size)
                    await self._import(handle.scope_node, handle.name, handle.collected_us, content)
                except Exception as error:
                    handle.error = error
            handle.is_dirty = False
            if handle.error is not None:
                raise handle.error

    def release(self, handle: ImportHandle) -> None:
        """Forget what was written: it is a version, or it is nothing."""
        del self._open[handle.number]
        handle.draft.discard()

    async def import_file(
        self, scope_node: int, name: bytes, entry: Entry, ending: tuple[int, bytes]
    ) -> None:
        """Import what a file of the tree shows, and end its name (directory, name)."""
        collected_us = self._parse_name(scope_node, name)
        if entry.kind.is_directory or entry.scope_node != scope_node:
            raise CrossesScopes("only a file of the same scope can be renamed to a version")
        content = await in_thread(self._read_file, entry)
        await self._import(scope_node, name, collected_us, content, ending)

    async def _import(
        self, scope_node: int, name: bytes, collected_us: int, content: bytes,
        ending: tuple[int, bytes] | None = None,
    ) -> None:  # fmt: skip
        try:
            imported = await in_thread(
                partial(
                    self._vault.import_envelope, self._scope(scope_node), collected_us, content,
                    ending=ending,
                )
            )  # fmt: skip
        except ScopefsError as error:
            self._explain(scope_node, name, error)
            raise
        version = imported.version
        if not imported.was_there:
            log_version(
                _LOG, version.scope, version.stamp, version.name or b"", version.payload_size
            )

    def _parse_name(self, scope_node: int, name: bytes) -> int:
        try:
            if not name.endswith(_SUFFIX):
                raise InvalidTime("no stamp")
            return parse_stamp(name.removesuffix(_SUFFIX).decode("ascii"))
        except (InvalidTime, UnicodeDecodeError) as error:
            refusal = InvalidTime(
                f"{show_name(name)} is no version: only STAMP.json can be written here, like "
                "2026-01-21T10-00-00Z.json, and only under that name from the start: use cp, "
                "rsync --inplace, or scopefs import"
            )
            self._explain(scope_node, name, refusal)
            raise refusal from error

    def _explain(self, scope_node: int, name: bytes, error: ScopefsError) -> None:
        with self._vault.read() as db:
            path = tree.find_path(db, scope_node) + b"/" + VERSIONS_NAME
        place = Place(NodeKind.SCOPE, self._scope(scope_node).segments)
        self._refusals.note("import", place, path, name, str(error))

    def _scope(self, scope_node: int) -> Scope:
        with self._vault.read() as db:
            return parse_scope(tree.scope_text(db, scope_node))

    def _copy_base(self, draft: Draft, version_id: int) -> None:
        with self._vault.read() as db:
            version = index.find_by_id(db, version_id)
        if version is None:
            raise NotFound("the version is gone")
        reader = self._vault.open_envelope(version)
        try:
            draft.copy_from(reader)
        finally:
            reader.close()

    def _read_file(self, entry: Entry) -> bytes:
        if entry.size > ENVELOPE_MAX_BYTES:
            raise TooLarge(f"an envelope has at most {ENVELOPE_MAX_BYTES} bytes")
        if entry.is_scratch:
            reader = self._vault.open_scratch(entry.node)
        else:
            with self._vault.read() as db:
                version = index.find_by_id(db, entry.version or 0)
            if version is None:
                raise InvalidEnvelope("not an envelope: the file is empty, or no file")
            reader = self._vault.open_payload(version)
        try:
            return reader.read(0, reader.size)
        finally:
            reader.close()
