"""What a scope's names are, as an export says it: `names/<scope>.jsonl`.

The first line is about the scope's directory, each other one about a folder, a symbolic link or a
file. A file without names was removed, and is there for its versions. Source: docs/format.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import apsw
import msgspec

from scopefs.errors import BadRequest, InvalidBody, InvalidName
from scopefs.model.envelope import SHA256_BYTES, encode_name
from scopefs.model.imports import check_name_within
from scopefs.model.naming import NodeKind
from scopefs.model.scope import Scope, parse_scope
from scopefs.model.stamps import format_stamp, parse_stamp
from scopefs.store import index, tree
from scopefs.store.import_names import SourceFile
from scopefs.store.index import Version

_PAGE = 1000
_MODE_MAX = 0o7777
_MTIMES_NS = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder, by its name within the scope."""

    name: bytes
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link, with all its names."""

    names: tuple[bytes, ...]
    target: bytes
    mtime_ns: int


@dataclass(slots=True)
class ScopeNames:
    """All that a scope's directory holds, and which versions belong to one file."""

    scope: Scope
    mode: int = 0o755
    mtime_ns: int = 0
    is_removed: bool = False
    """Whether the directory is gone, and only its versions are left."""
    folders: list[Folder] = field(default_factory=list)
    """Outer ones before inner ones."""
    symlinks: list[Symlink] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)


class _Name(msgspec.Struct, rename="camel", omit_defaults=True):
    name: str | None = None
    name_hex: str | None = None


class _ScopeLine(msgspec.Struct, tag_field="kind", tag="scope", rename="camel"):
    scope: str
    mode: str
    mtime_ns: int
    removed: bool = False


class _FolderLine(_Name, tag_field="kind", tag="folder", rename="camel", kw_only=True):
    mode: str
    mtime_ns: int


class _SymlinkLine(msgspec.Struct, tag_field="kind", tag="symlink", rename="camel", kw_only=True,
                   omit_defaults=True):  # fmt: skip
    names: list[_Name]
    target: str | None = None
    target_hex: str | None = None
    mtime_ns: int


class _FileLine(msgspec.Struct, tag_field="kind", tag="file", rename="camel", omit_defaults=True):
    names: list[_Name]
    mode: str
    mtime_ns: int
    empty: bool = False
    versions: dict[str, str] = {}


_Line = _ScopeLine | _FolderLine | _SymlinkLine | _FileLine


def load_scope_names(db: apsw.Connection, scope: Scope) -> tuple[ScopeNames, list[Version]]:
    """A scope's names and its versions, oldest first, both of one moment."""
    db.execute("BEGIN")
    try:
        return _load_names(db, scope)
    finally:
        db.execute("ROLLBACK")


def encode_names(names: ScopeNames) -> bytes:
    """The lines of `names/<scope>.jsonl`."""
    lines: list[_Line] = [
        _ScopeLine(names.scope.raw, f"{names.mode:04o}", names.mtime_ns, names.is_removed)
    ]
    for folder in names.folders:
        written = _encode(folder.name)
        lines.append(
            _FolderLine(written.name, written.name_hex, mode=f"{folder.mode:04o}",
                        mtime_ns=folder.mtime_ns)
        )  # fmt: skip
    for link in names.symlinks:
        target = _encode(link.target)
        lines.append(
            _SymlinkLine(names=[_encode(name) for name in link.names], target=target.name,
                         target_hex=target.name_hex, mtime_ns=link.mtime_ns)
        )  # fmt: skip
    for file in names.files:
        versions = {format_stamp(us): sha256.hex() for us, sha256 in sorted(file.versions.items())}
        lines.append(
            _FileLine([_encode(name) for name in file.names], f"{file.mode:04o}", file.mtime_ns,
                      file.is_empty, versions)
        )  # fmt: skip
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def decode_names(content: bytes, scope: Scope) -> ScopeNames:
    """Read `names/<scope>.jsonl`. Raises `InvalidBody`."""
    names = ScopeNames(scope)
    try:
        lines = msgspec.json.Decoder(_Line).decode_lines(content)
        if not lines or not isinstance(lines[0], _ScopeLine) or lines[0].scope != scope.raw:
            raise InvalidBody(f"the first line is not about {scope}")
        for line in lines:
            _take_line(names, line)
    except (msgspec.DecodeError, ValueError, RecursionError, BadRequest) as error:
        raise InvalidBody(f"names/{scope}.jsonl: {error}") from error
    return names


def _load_names(db: apsw.Connection, scope: Scope) -> tuple[ScopeNames, list[Version]]:
    node = tree.find_scope_node(db, scope.raw)
    names = ScopeNames(scope)
    files: dict[int, SourceFile] = {}
    if node is not None:
        _load_directory(db, node, names, files)
    versions = index.find_by_scope(db, scope.raw)[::-1]
    for version in versions:
        if version.node is None:
            continue
        if version.node not in files:
            entry = tree.find_node(db, version.node)
            mode, mtime_ns = (entry.mode, entry.mtime_ns) if entry is not None else (0o644, 0)
            files[version.node] = SourceFile((), mode, mtime_ns)
        files[version.node].versions[version.collected_us] = version.payload_sha256
    names.files += files.values()
    return names, versions


def _load_directory(
    db: apsw.Connection, node: int, names: ScopeNames, files: dict[int, SourceFile]
) -> None:
    entry = tree.find_node(db, node)
    if entry is not None:
        names.mode, names.mtime_ns = entry.mode, entry.mtime_ns
    names.is_removed = not tree.is_reachable(db, node)
    symlinks: dict[int, Symlink] = {}
    for path, found in _walk(db, node, b""):
        if found.kind is NodeKind.FOLDER:
            names.folders.append(Folder(path, found.mode, found.mtime_ns))
        elif found.kind is NodeKind.SYMLINK:
            known = symlinks.get(found.node)
            borne = (*known.names, path) if known else (path,)
            symlinks[found.node] = Symlink(borne, found.target or b"", found.mtime_ns)
        elif not found.is_scratch:
            file = files.setdefault(
                found.node,
                SourceFile((), found.mode, found.mtime_ns, is_empty=found.version is None),
            )
            file.names = (*file.names, path)
    names.symlinks += symlinks.values()


def _walk(db: apsw.Connection, node: int, prefix: bytes) -> Iterator[tuple[bytes, tree.Entry]]:
    """What a directory holds, folders before their contents; scopes below are left out."""
    slot = 0
    while True:
        page = tree.list_children(db, node, slot, _PAGE)
        for child in page:
            slot = child.slot
            if child.entry.kind is NodeKind.SCOPE:
                continue
            yield prefix + child.name, child.entry
            if child.entry.kind.is_directory:
                yield from _walk(db, child.entry.node, prefix + child.name + b"/")
        if len(page) < _PAGE:
            return


def _take_line(names: ScopeNames, line: _Line) -> None:
    if not isinstance(line, _ScopeLine | _SymlinkLine):
        _check_mode(line.mode)
    if line.mtime_ns not in _MTIMES_NS:
        raise InvalidBody(f"mtimeNs {line.mtime_ns} is no time")
    if isinstance(line, _ScopeLine):
        names.mode, names.mtime_ns = _check_mode(line.mode), line.mtime_ns
        names.is_removed = line.removed
    elif isinstance(line, _FolderLine):
        folder = _decode(line)
        # So a folder's name is checked that is not to be a scope: some file could be in it.
        check_name_within(names.scope, folder + b"/x")
        names.folders.append(Folder(folder, _check_mode(line.mode), line.mtime_ns))
    elif isinstance(line, _SymlinkLine):
        target = _decode(_Name(line.target, line.target_hex))
        if not line.names or not target or b"\0" in target or len(target) > 4095:
            raise InvalidBody("a symbolic link without a name or target")
        names.symlinks.append(Symlink(_check_names(names, line.names), target, line.mtime_ns))
    else:
        versions = {parse_stamp(stamp): bytes.fromhex(sha) for stamp, sha in line.versions.items()}
        if any(len(sha256) != SHA256_BYTES for sha256 in versions.values()):
            raise InvalidBody("a hash that is no SHA-256")
        if not versions and not line.names:
            raise InvalidBody("a file without names and versions")
        names.files.append(
            SourceFile(_check_names(names, line.names), _check_mode(line.mode), line.mtime_ns,
                       line.empty or not versions, versions)
        )  # fmt: skip


def _check_names(names: ScopeNames, written: list[_Name]) -> tuple[bytes, ...]:
    found = tuple(_decode(name) for name in written)
    for name in found:
        check_name_within(names.scope, name)
    return found


def _check_mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= _MODE_MAX:
        raise InvalidBody(f"the mode {text!r} is none")
    return mode


def _encode(name: bytes) -> _Name:
    members = encode_name(name)
    return _Name(members.get("name"), members.get("nameHex"))


def _decode(name: _Name) -> bytes:
    if name.name_hex is not None:
        return bytes.fromhex(name.name_hex)
    if name.name is None:
        raise InvalidName("a name is missing")
    return name.name.encode("utf-8")


def names_path(scope: Scope) -> str:
    """Where an export has the names of a scope."""
    return f"names/{scope.raw}.jsonl"


def parse_names_path(path: PurePosixPath) -> Scope:
    """The scope whose names stand at a path. Raises `InvalidScope`."""
    return parse_scope(path.name.removesuffix(".jsonl"))
