"""Where an import comes from: a directory, a tar archive, another vault.

A source hands out what it finds, in its own order, and judges nothing but names and places. What
could lead out of it (links, `..`, absolute paths) is refused and told.

Layout: docs/format.md, Exports. Raises `InvalidBody`, `Conflict`, `NotFound`, `OSError`.
"""

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from scopefs.errors import (
    InvalidBody,
    InvalidName,
    InvalidScope,
    InvalidTime,
    NotFound,
    ScopefsError,
)
from scopefs.model.scope import Scope, is_segment, parse_scope
from scopefs.model.stamps import parse_stamp
from scopefs.store.arrivals import iterate_chunks
from scopefs.store.imports import find_with_payload
from scopefs.store.index import sum_bytes
from scopefs.transfer.exports import (
    DESCRIPTION,
    Chunks,
    Problem,
    list_scopes_to_export,
    read_description,
)
from scopefs.transfer.names import ScopeNames, decode_names, load_scope_names, parse_names_path
from scopefs.vault import Vault

_CHUNK_BYTES = 1 << 20
_SUFFIX = ".json"
_TREES = ("data", "blobs", "names")


@dataclass(frozen=True, slots=True)
class FoundEnvelope:
    """An envelope, by the place where it stands."""

    where: str
    scope: Scope
    collected_us: int
    size_bytes: int
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """A blob, by its name. `chunks` can only be read before the next find is asked for."""

    where: str
    sha256: bytes
    chunks: Callable[[], Chunks]


Found = FoundEnvelope | FoundBlob | ScopeNames


class Source(Protocol):
    """Something to be imported."""

    problems: list[Problem]

    def iterate(self) -> Iterator[Found]:
        """All that it holds; the names of a scope before its envelopes, if it has any."""
        ...

    def open_blob(self, sha256: bytes) -> Chunks | None:
        """The bytes of a blob, if it can be asked for."""
        ...

    def measure(self) -> int | None:
        """How many bytes there are to import, in envelopes and blobs; None if nobody knows."""
        ...

    def find_position(self, done_bytes: int) -> int:
        """How far that is, when so many bytes of envelopes and blobs are done."""
        ...


def open_source(vault: Vault, path: str, stream: IO[bytes] | None = None) -> Source:
    """A directory, an archive, another vault; `-`: an archive from `stream`."""
    if path == "-":
        assert stream is not None
        return _TarSource(stream)
    where = Path(path).expanduser().absolute()
    if where.is_file():
        return _TarSource(where)
    if not where.is_dir():
        raise NotFound(f"{where} is not there")
    if (where / "vault.json").exists():
        if where.resolve() == vault.layout.root.resolve():
            raise InvalidBody(f"{where} is the vault itself")
        return VaultSource(Vault.open(where))
    if not (where / "data").is_dir() and not (where / DESCRIPTION).is_file():
        raise InvalidBody(f"{where} is no export: it has no data/")
    return _DirectorySource(where)


class _DirectorySource:
    """An export in a directory, or any directory with `data/` as a vault has it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.problems: list[Problem] = []
        description = root / DESCRIPTION
        if description.is_file():
            read_description(description.read_bytes(), str(description))

    def iterate(self) -> Iterator[Found]:
        for path in self._list(self._root / "names"):
            found = _try_names(path.name, partial(_read, path), self.problems)
            if found is not None:
                yield found
        yield from self._iterate_data(self._root / "data", ())

    def open_blob(self, sha256: bytes) -> Chunks | None:
        name = sha256.hex()
        path = self._root / "blobs" / name[:2] / name
        return _chunks_of(path) if path.exists() else None

    def measure(self) -> int | None:
        return sum(
            os.lstat(os.path.join(directory, name)).st_size
            for above in ("data", "blobs")
            for directory, _, names in os.walk(self._root / above)
            for name in names
        )

    def find_position(self, done_bytes: int) -> int:
        return done_bytes

    def _iterate_data(self, directory: Path, segments: tuple[str, ...]) -> Iterator[Found]:
        envelopes: list[tuple[int, Path]] = []
        folders: list[Path] = []
        for path in self._list(directory):
            where = str(path.relative_to(self._root))
            if path.is_dir():
                if len(segments) < 3 and is_segment(path.name):
                    folders.append(path)
                else:
                    _refuse(self.problems, where, "is no part of a scope")
                continue
            collected_us = _find_stamp(path.name) if len(segments) >= 2 else None
            if collected_us is None:
                _refuse(self.problems, where, "is no envelope: its name is no stamp")
            else:
                envelopes.append((collected_us, path))
        for collected_us, path in sorted(envelopes):
            yield FoundEnvelope(
                str(path.relative_to(self._root)), parse_scope(".".join(segments)), collected_us,
                path.stat().st_size, partial(_read, path),
            )  # fmt: skip
        for folder in folders:
            yield from self._iterate_data(folder, (*segments, folder.name))

    def _list(self, directory: Path) -> list[Path]:
        """The files and directories in a directory, by name; all else is refused."""
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        found = []
        for entry in entries:
            if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    found.append(Path(entry.path))
            else:
                where = str(Path(entry.path).relative_to(self._root))
                _refuse(self.problems, where, "is neither a file nor a directory")
        return found


class _TarSource:
    """A tar archive, compressed or not, read from front to back."""

    def __init__(self, file: Path | IO[bytes]) -> None:
        self._file = file
        self._opened: IO[bytes] | None = None
        self.problems: list[Problem] = []

    def iterate(self) -> Iterator[Found]:
        early: set[str] = set()
        if isinstance(self._file, Path):
            # An archive made by hand may have the names at its end.
            for names in self._read_names():
                early.add(names.scope.raw)
                yield names
        for path, member, tar in self._members():
            found = self._to_found(path, member, tar)
            if isinstance(found, ScopeNames) and found.scope.raw in early:
                continue
            if found is not None:
                yield found

    def open_blob(self, sha256: bytes) -> Chunks | None:
        return None

    def measure(self) -> int | None:
        # Those of the archive itself, which may be compressed.
        return self._file.stat().st_size if isinstance(self._file, Path) else None

    def find_position(self, done_bytes: int) -> int:
        if isinstance(self._file, Path):
            return self._opened.tell() if self._opened is not None else 0
        return done_bytes

    def _read_names(self) -> Iterator[ScopeNames]:
        problems: list[Problem] = []
        is_ours = False
        for path, member, tar in self._members(problems):
            if path.parts == (DESCRIPTION,):
                is_ours = True
            elif path.parts[0] == "names":
                found = _try_names(path.name, partial(_extract, tar, member), problems)
                if found is not None:
                    yield found
            elif is_ours:
                # As scopefs writes them: nothing but names stands before the first version.
                return

    def _to_found(
        self, path: PurePosixPath, member: tarfile.TarInfo, tar: tarfile.TarFile
    ) -> Found | None:
        tree, parts = path.parts[0], path.parts
        if parts == (DESCRIPTION,):
            read_description(_extract(tar, member), DESCRIPTION)
            return None
        if tree == "names" and len(parts) == 2:
            return _try_names(path.name, partial(_extract, tar, member), self.problems)
        if tree == "blobs" and len(parts) == 3:
            sha256 = _find_sha256(path.name)
            if sha256 is not None:
                return FoundBlob(str(path), sha256, partial(_extract_chunks, tar, member))
        if tree == "data" and len(parts) in (4, 5):
            collected_us = _find_stamp(path.name)
            try:
                scope = parse_scope(".".join(parts[1:-1]))
            except InvalidScope as error:
                self.problems.append(Problem(str(path), error))
                return None
            if collected_us is not None:
                return FoundEnvelope(
                    str(path), scope, collected_us, member.size, partial(_extract, tar, member)
                )
        _refuse(self.problems, str(path), "is nothing that an export has")
        return None

    def _members(
        self, problems: list[Problem] | None = None
    ) -> Iterator[tuple[PurePosixPath, tarfile.TarInfo, tarfile.TarFile]]:
        """The files in the archive, each by its path in the export."""
        problems = self.problems if problems is None else problems
        with (
            _telling_damage(), self._open() as file, tarfile.open(fileobj=file, mode="r|*") as tar,
        ):  # fmt: skip
            for member in tar:
                path = PurePosixPath(member.name)
                if member.name.startswith("/") or ".." in path.parts:
                    _refuse(problems, member.name, "leads out of the archive")
                elif member.isreg() and not member.issparse():
                    inner = _inside(path)
                    if inner is None:
                        _refuse(problems, member.name, "is nothing that an export has")
                    else:
                        yield inner, member, tar
                elif not member.isdir():
                    _refuse(problems, member.name, "is neither a file nor a directory")

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if not isinstance(self._file, Path):
            yield self._file
            return
        with self._file.open("rb") as self._opened:
            yield self._opened
        self._opened = None


class VaultSource:
    """Another vault."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.problems: list[Problem] = []

    def iterate(self) -> Iterator[Found]:
        for scope in list_scopes_to_export(self.vault, ()):
            with self.vault.read() as db:
                names, versions = load_scope_names(db, scope)
            self.vault.settle()
            yield names
            for version in versions:
                where = f"{scope} {version.stamp}"
                try:
                    reader = self.vault.open_envelope(version)
                except ScopefsError as error:
                    self.problems.append(Problem(where, error))
                    continue
                content = b"".join(iterate_chunks(reader))
                yield FoundEnvelope(
                    where, scope, version.collected_us, len(content), partial(bytes, content)
                )

    def open_blob(self, sha256: bytes) -> Chunks | None:
        with self.vault.read() as db:
            version = find_with_payload(db, sha256)
        return None if version is None else iterate_chunks(self.vault.open_payload(version))

    def measure(self) -> int | None:
        with self.vault.read() as db:
            return sum_bytes(db)

    def find_position(self, done_bytes: int) -> int:
        return done_bytes


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def _read(path: Path) -> bytes:
    with open(os.open(path, _READ), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidName(f"{path} is no file")
        return file.read()


def _chunks_of(path: Path) -> Iterator[bytes]:
    # Opened by whoever reads: one that nobody reads would stay open.
    yield from _chunks(open(os.open(path, _READ), "rb"))  # noqa: SIM115


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return b"".join(_extract_chunks(tar, member))


def _extract_chunks(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(member)
    assert file is not None
    with _telling_damage():
        yield from _chunks(file)


@contextmanager
def _telling_damage() -> Iterator[None]:
    """What tarfile raises about an archive, as `InvalidBody`."""
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise InvalidBody(f"no tar archive, or a damaged one: {error}") from error


def _inside(path: PurePosixPath) -> PurePosixPath | None:
    """A path of an archive as one of an export, which may lie in one directory of the archive."""
    for start in (0, 1):
        parts = path.parts[start:]
        if parts == (DESCRIPTION,) or (len(parts) > 1 and parts[0] in _TREES):
            return PurePosixPath(*parts)
    return None


def _find_stamp(name: str) -> int | None:
    """The time that an envelope's file name says; None for any other name."""
    if not name.endswith(_SUFFIX):
        return None
    try:
        return parse_stamp(name.removesuffix(_SUFFIX))
    except InvalidTime:
        return None


def _find_sha256(name: str) -> bytes | None:
    try:
        found = bytes.fromhex(name)
    except ValueError:
        return None
    return found if len(found) == 32 and name == found.hex() else None


def _try_names(name: str, read: Callable[[], bytes], problems: list[Problem]) -> ScopeNames | None:
    """The names of a scope; None if they cannot be read, which is told."""
    try:
        return decode_names(read(), parse_names_path(PurePosixPath(name)))
    except (InvalidBody, InvalidScope, InvalidName) as error:
        problems.append(Problem(f"names/{name}", error))
        return None


def _refuse(problems: list[Problem], where: str, why: str) -> None:
    problems.append(Problem(where, InvalidName(f"{where} {why}")))
