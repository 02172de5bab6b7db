"""Exports: scopes as plain files, in a directory or a tar archive, readable without scopefs.

Nothing is written of which not every byte was compared with the hash that the index has. A file
appears whole or not at all; what is there already and equal is left alone, so that an export that
was cut short is finished by repeating it. An export removes nothing.

Layout: docs/format.md, Exports. Raises `InvalidQuery`, `Conflict`, and `OSError` of the target.
"""

import contextlib
import hashlib
import io
import os
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Literal, Protocol

import msgspec

from scopefs.errors import (
    Conflict,
    Damaged,
    InvalidQuery,
    NotFound,
    PayloadCorrupt,
    ScopefsError,
)
from scopefs.model.envelope import encode_frame
from scopefs.model.payload import Kind
from scopefs.model.scope import Scope, parse_scope
from scopefs.model.stamps import SECOND_US, format_collected_at, format_stamp
from scopefs.store.arrivals import iterate_chunks
from scopefs.store.atomic import sync_file_system
from scopefs.store.index import Version, find_by_id
from scopefs.store.payloads import file_facts
from scopefs.store.readers import PayloadReader
from scopefs.store.sql import fetch
from scopefs.transfer.names import encode_names, load_scope_names, names_path
from scopefs.vault import Vault

FORMAT = 1
DESCRIPTION = "export.json"

_BLOBS = "blobs/"
_PENDING_MAX_FILES = 500
_PENDING_MAX_BYTES = 64 << 20
_TAR_MODES: dict[str, Literal["w|", "w|gz", "w|xz"]] = {
    ".tar": "w|", ".tar.gz": "w|gz", ".tgz": "w|gz", ".tar.xz": "w|xz", ".txz": "w|xz",
}  # fmt: skip

Chunks = Iterable[bytes]


class ExportFile(msgspec.Struct, rename="camel"):
    """export.json."""

    format: int
    vault: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was left out, and why."""

    where: str
    error: ScopefsError


@dataclass(slots=True)
class Exported:
    """What an export did."""

    versions: int = 0
    written: int = 0
    """Of those versions, the ones that were not there already."""
    problems: list[Problem] = field(default_factory=list)


class Target(Protocol):
    """Where an export goes."""

    def put(self, path: str, size: int, make: Callable[[], Chunks], time_us: int) -> bool:
        """Write a file; False if an equal one is there. Raises what `make` does, and `OSError`."""
        ...

    def close(self) -> None:
        """Make everything durable and visible."""
        ...

    def abandon(self) -> None:
        """Leave nothing half behind."""
        ...


def list_scopes_to_export(vault: Vault, asked: Iterable[str]) -> list[Scope]:
    """The scopes that are meant, with their subcategories; without any, all there are.

    Raises `InvalidScope`, `NotFound`.
    """
    with vault.read() as db:
        rows = fetch(
            db,
            "SELECT s.scope FROM scopes s WHERE versions > 0 OR EXISTS (SELECT 1 FROM names n"
            " WHERE n.node = s.node AND n.until_seq IS NULL) ORDER BY s.scope",
        )
    known = [row[0] for row in rows]
    wanted = [parse_scope(text).raw for text in asked]
    for text in wanted:
        if not any(raw == text or raw.startswith(f"{text}.") for raw in known):
            raise NotFound(f'No data found for scope "{text}"')
    return [
        parse_scope(raw)
        for raw in known
        if not wanted or any(raw == text or raw.startswith(f"{text}.") for text in wanted)
    ]


def open_target(vault: Vault, path: str, stream: IO[bytes] | None = None) -> Target:
    """A directory, or a tar archive by its name's ending; `-`: an archive to `stream`."""
    if path == "-":
        assert stream is not None
        return _TarTarget(stream, "w|")
    where = Path(path).expanduser().absolute()
    if vault.layout.root in (where.resolve(), *where.resolve().parents):
        raise InvalidQuery(f"{path} lies in the vault itself: export to another place")
    for ending, mode in _TAR_MODES.items():
        if where.name.endswith(ending):
            return _TarFileTarget(where, mode)
    return _DirectoryTarget(where, vault.id)


def sum_payloads(vault: Vault, scopes: Iterable[Scope]) -> int:
    """How many bytes of payload an export of these scopes has, from their counters."""
    wanted = {scope.raw for scope in scopes}
    return sum(found.bytes for found in vault.scopes() if found.scope in wanted)


def export(
    vault: Vault, scopes: Iterable[Scope], target: Target, progress: Callable[[int], None]
) -> Exported:
    """Write scopes to a target. A version that is damaged is left out and told, the others go on.

    `progress` is called with the bytes of payload so far, of `sum_payloads`.
    """
    result = Exported()
    try:
        description = ExportFile(FORMAT, vault.id, format_collected_at(vault.clock_us()))
        content = msgspec.json.encode(description) + b"\n"
        _put_content(target, DESCRIPTION, content, vault.clock_us())
        loaded = []
        for scope in scopes:
            with vault.read() as db:
                names, versions = load_scope_names(db, scope)
            _put_content(target, names_path(scope), encode_names(names), vault.clock_us())
            loaded.append([version.id for version in versions])
        # From here on nothing changes their envelopes any more.
        vault.settle()
        done = 0
        for ids in loaded:
            for version_id in ids:
                tell = partial(_tell_from, progress, done)
                done += _export_version(vault, version_id, target, result, tell)
                progress(done)
        target.close()
    except BaseException:
        target.abandon()
        raise
    return result


def _put_content(target: Target, path: str, content: bytes, time_us: int) -> None:
    target.put(path, len(content), lambda: [content], time_us)


def _find_version(vault: Vault, version_id: int) -> Version | None:
    with vault.read() as db:
        return find_by_id(db, version_id)


def _export_version(
    vault: Vault, version_id: int, target: Target, result: Exported, tell: Callable[[int], None]
) -> int:
    """Write one version; returns the size of its payload. `tell`: how much of that is written."""
    version = _find_version(vault, version_id)
    if version is None or version.deleted_seq is not None:
        # Removed since its scope was read.
        return 0
    where = f"{version.scope} {version.stamp}"
    try:
        if version.kind is Kind.BLOB:
            sha256 = version.payload_sha256.hex()
            target.put(
                f"blobs/{sha256[:2]}/{sha256}", version.payload_size,
                lambda: told_chunks(_payload_chunks(vault, version), tell), version.collected_us,
            )  # fmt: skip
        path = f"data/{version.scope.replace('.', '/')}/{format_stamp(version.collected_us)}.json"
        reader = vault.open_envelope(version)
        size = reader.size
        reader.close()
        written = target.put(
            path, size, lambda: _envelope_chunks(vault, version_id), version.collected_us
        )
    except (Damaged, NotFound) as error:
        result.problems.append(Problem(where, error))
    else:
        result.versions += 1
        result.written += written
    return version.payload_size


def _tell_from(progress: Callable[[int], None], before: int, at: int) -> None:
    progress(before + at)


def told_chunks(chunks: Chunks, tell: Callable[[int], None]) -> Iterator[bytes]:
    """Chunks; `tell` is called behind each with how many bytes they are so far."""
    at = 0
    for chunk in chunks:
        yield chunk
        at += len(chunk)
        tell(at)


def _payload_chunks(vault: Vault, version: Version) -> Iterator[bytes]:
    return _checked_chunks(vault.open_payload(version), version, 0)


def _envelope_chunks(vault: Vault, version_id: int) -> Iterator[bytes]:
    version = _find_version(vault, version_id)
    if version is None:
        raise NotFound("the version is gone")
    if version.kind is Kind.INLINE:
        payload = vault.read_payload(version)
        if hashlib.sha256(payload).digest() != version.payload_sha256:
            raise _corrupt(version)
    reader = vault.open_envelope(version)
    if version.kind is not Kind.DOCUMENT:
        return iter(iterate_chunks(reader))
    head, _ = encode_frame(version.scope, version.collected_us, file_facts(version))
    return _checked_chunks(reader, version, len(head))


def _checked_chunks(reader: PayloadReader, version: Version, start: int) -> Iterator[bytes]:
    """All bytes of a reader. Raises `PayloadCorrupt` behind them if the payload was not in them."""
    digest = hashlib.sha256()
    at = 0
    end = start + version.payload_size
    for chunk in iterate_chunks(reader):
        digest.update(chunk[max(0, start - at) : max(0, end - at)])
        at += len(chunk)
        yield chunk
    if digest.digest() != version.payload_sha256:
        raise _corrupt(version)


def _corrupt(version: Version) -> PayloadCorrupt:
    return PayloadCorrupt(
        f"{version.path}: the payload of {version.scope} {version.stamp} does not have the hash "
        "that was stored"
    )


class _DirectoryTarget:
    """A directory. Files are written under other names, synced together, then renamed."""

    def __init__(self, root: Path, vault_id: str) -> None:
        self._root = root
        self._vault_id = vault_id
        self._making = root / ".making"
        self._pending: list[tuple[Path, Path]] = []
        self._pending_bytes = 0
        self._written: set[str] = set()
        self._number = 0
        self._check_root()
        self._making.mkdir(parents=True, mode=0o700, exist_ok=True)

    def put(self, path: str, size: int, make: Callable[[], Chunks], time_us: int) -> bool:
        final = self._root / path
        if path in self._written or (path == DESCRIPTION and final.exists()):
            return False
        if _is_equal(final, size, make):
            return False
        self._number += 1
        temporary = self._making / str(self._number)
        try:
            with open(os.open(temporary, _NEW_FILE, 0o600), "wb") as file:
                for chunk in make():
                    file.write(chunk)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._pending.append((temporary, final))
        self._pending_bytes += size
        if path.startswith(_BLOBS):
            self._written.add(path)
        if len(self._pending) >= _PENDING_MAX_FILES or self._pending_bytes >= _PENDING_MAX_BYTES:
            self._rename_pending()
        return True

    def close(self) -> None:
        self._rename_pending()
        self._making.rmdir()
        self._sync()

    def abandon(self) -> None:
        shutil.rmtree(self._making, ignore_errors=True)

    def _rename_pending(self) -> None:
        # Contents before names.
        self._sync()
        for temporary, final in self._pending:
            final.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            temporary.rename(final)
        self._pending = []
        self._pending_bytes = 0

    def _sync(self) -> None:
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file_system(fd)
        finally:
            os.close(fd)

    def _check_root(self) -> None:
        """Refuse what is neither new nor an export of this vault."""
        description = self._root / DESCRIPTION
        if not description.exists():
            if self._root.is_dir() and any(name != ".making" for name in os.listdir(self._root)):
                raise Conflict(
                    f"{self._root} holds something that is no export: name a missing or empty "
                    "directory"
                )
            if self._root.exists() and not self._root.is_dir():
                raise Conflict(
                    f"{self._root} is a file: name a directory, or a file that ends in .tar"
                )
        else:
            found = read_description(description.read_bytes(), str(description))
            if found.vault != self._vault_id:
                raise Conflict(
                    f"{self._root} holds the export of another vault ({found.vault}): name "
                    "another directory"
                )
        # What an export that was cut short has left.
        shutil.rmtree(self._making, ignore_errors=True)


class _TarTarget:
    """A tar archive that is written from front to back."""

    def __init__(self, stream: IO[bytes], mode: Literal["w|", "w|gz", "w|xz"]) -> None:
        self._tar = tarfile.open(  # noqa: SIM115
            fileobj=stream, mode=mode, format=tarfile.PAX_FORMAT
        )
        self._written: set[str] = set()

    def put(self, path: str, size: int, make: Callable[[], Chunks], time_us: int) -> bool:
        if path in self._written:
            return False
        # The size stands before the bytes: what is damaged must be known before anything is said.
        for _ in make():
            pass
        member = tarfile.TarInfo(path)
        member.size, member.mode, member.mtime = size, 0o600, time_us // SECOND_US
        self._tar.addfile(member, _ChunkFile(make()))
        if path.startswith(_BLOBS):
            self._written.add(path)
        return True

    def close(self) -> None:
        self._tar.close()

    def abandon(self) -> None:
        # Without the mark that ends an archive; or it is written when the stream is collected.
        with contextlib.suppress(OSError):
            if self._tar.fileobj is not None:
                self._tar.fileobj.close()


class _TarFileTarget(_TarTarget):
    """An archive that gets its name once it is complete."""

    def __init__(self, path: Path, mode: Literal["w|", "w|gz", "w|xz"]) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        self._file = open(os.open(self._temporary, _NEW_FILE, 0o600), "wb")  # noqa: SIM115
        super().__init__(self._file, mode)

    def close(self) -> None:
        super().close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.rename(self._path)

    def abandon(self) -> None:
        super().abandon()
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class _ChunkFile(io.RawIOBase):
    """Chunks as a file to be read from, for tarfile."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest += chunk
        found, self._rest = (self._rest, b"") if size < 0 else (
            self._rest[:size], self._rest[size:]
        )  # fmt: skip
        return found


def read_description(content: bytes, where: str) -> ExportFile:
    """Read export.json. Raises `Conflict`, and `InvalidQuery` if it is of a newer scopefs."""
    try:
        found = msgspec.json.decode(content, type=ExportFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Conflict(f"{where} is no description of an export: {error}") from error
    if found.format > FORMAT:
        raise InvalidQuery(
            f"{where} has format {found.format}; this scopefs knows {FORMAT}: install a newer one"
        )
    return found


def _is_equal(path: Path, size: int, make: Callable[[], Chunks]) -> bool:
    """Whether a file has exactly those bytes."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            return all(file.read(len(chunk)) == chunk for chunk in make())
    except FileNotFoundError:
        return False
