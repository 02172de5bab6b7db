"""The checks of files: I1 to I4, I16, I17, I19, and that events/ holds nothing else (I6)."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw

from scopefs.errors import IndexBroken, InvalidEnvelope, ScopefsError
from scopefs.model.envelope import decode_stored, encode_frame, stored_size
from scopefs.model.payload import Kind
from scopefs.model.stamps import format_stamp
from scopefs.store.checks.context import (
    FOREIGN,
    REINDEX,
    Checked,
    Cursor,
    OpenFile,
    Page,
    batched,
    show_path,
)
from scopefs.store.chunks import PayloadHash
from scopefs.store.index import Version, find_by_id
from scopefs.store.inventory import iterate_files, parse_envelope_path, read_head
from scopefs.store.layout import Layout
from scopefs.store.payloads import file_facts
from scopefs.store.problems import Problem
from scopefs.store.sql import fetch

_PAGE = 200
_BLOB = re.compile(r"[0-9a-f]{64}\Z")


# I1


def check_versions(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I1: envelopes and the payloads in them."""
    after_id = after[0] if after else 0
    while True:
        with checked.read() as db:
            ids = fetch(
                db,
                "SELECT id FROM data_files d WHERE id > ? AND NOT EXISTS"
                " (SELECT 1 FROM staged s WHERE s.version = d.id) ORDER BY id LIMIT ?",
                (after_id, _PAGE),
            )
            versions = [_find_version(db, row[0]) for row in ids]
        if not ids:
            return
        problems: list[Problem] = []
        for version in versions:
            if version is not None:
                problems += _check_version(checked, version)
        after_id = ids[-1][0]
        yield Page([after_id], len(ids), problems)


def _find_version(db: apsw.Connection, version_id: int) -> Version | None:
    try:
        return find_by_id(db, version_id)
    except (ValueError, TypeError, IndexBroken):
        # A row that I7 tells of.
        return None


def _check_version(checked: Checked, version: Version) -> Iterator[Problem]:
    fault = _find_envelope_fault(checked, version, checked.layout.root / version.path)
    if fault is None:
        return
    # It may have been moved, or be settled just now.
    with checked.hold(), checked.read() as db:
        again = _find_version(db, version.id)
        if again is None or fetch(db, "SELECT 1 FROM staged WHERE version = ?", (again.id,)):
            return
        standing = find_standing(db, checked.layout, again.path)
        fault = _find_envelope_fault(checked, again, standing)
    if fault == _WRONG_DIGESTS:
        yield _digests_problem(again.payload_sha256)
    elif fault is not None:
        yield Problem(
            "I1", show_path(again.path), fault,
            "restore the file from a backup; or give the version up: `scopefs rm --forever "
            f"{again.scope} {format_stamp(again.collected_us)}`",
        )  # fmt: skip


def _find_envelope_fault(checked: Checked, version: Version, path: Path) -> str | None:
    """What is wrong with the envelope of a version at `path`."""
    try:
        head, tail = encode_frame(version.scope, version.collected_us, file_facts(version))
        size = stored_size(version.kind, version.payload_size)
    except (ScopefsError, ValueError, AttributeError, TypeError, OverflowError) as error:
        return f"its row cannot be made an envelope: {error!r}"
    try:
        with checked.open(path) as file:
            wanted = len(head) + size + len(tail)
            if file.size != wanted:
                return f"it has {file.size} bytes instead of {wanted}"
            if file.read(0, len(head)) != head:
                return "what stands before its payload was changed"
            if file.read(len(head) + size, len(tail)) != tail:
                return "what stands behind its payload was changed"
            return _find_payload_fault(checked, file, version, len(head), size)
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _find_payload_fault(
    checked: Checked, file: OpenFile, version: Version, offset: int, size: int
) -> str | None:
    if version.kind is Kind.BLOB:
        return None
    if version.kind is Kind.DOCUMENT:
        return _compare_hash(checked, file.hash(offset, size), version.payload_sha256)
    try:
        payload = decode_stored(version.kind, file.read(offset, size))
    except InvalidEnvelope as error:
        return f"its payload was changed: {error}"
    is_equal = hashlib.sha256(payload).digest() == version.payload_sha256
    return None if is_equal else "its payload was changed"


_WRONG_DIGESTS = "the digests of its chunks are not those of its bytes"


def _compare_hash(checked: Checked, found: PayloadHash, sha256: bytes) -> str | None:
    """What is wrong with bytes that should have a hash, or with the digests kept of them."""
    if found.sha256 != sha256:
        return "its payload was changed"
    if found.digests is None:
        return None
    with checked.read() as db:
        rows = fetch(db, "SELECT digests FROM chunks WHERE sha256 = ?", (sha256,))
    return _WRONG_DIGESTS if rows and rows[0][0] != found.digests else None


def _digests_problem(sha256: bytes) -> Problem:
    return Problem("I20", f"chunks {sha256.hex()}", _WRONG_DIGESTS, REINDEX)


def find_standing(db: apsw.Connection, layout: Layout, path: str) -> Path:
    """Where the file is that stands at a path, or will once the pending moves are made."""
    seen: set[str] = set()
    while not (layout.root / path).exists() and path not in seen:
        seen.add(path)
        moves = fetch(db, "SELECT source FROM moves WHERE target = ? ORDER BY id DESC", (path,))
        path = moves[0][0] if moves else path
    return layout.root / path


# I2

_SETTLED_BLOBS = (
    "FROM data_files d WHERE d.kind = 2 AND NOT EXISTS"
    " (SELECT 1 FROM staged s WHERE s.version = d.id)"
)


def check_blobs(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I2: blobs, each once, however many versions have it."""
    digest = bytes.fromhex(after[0]) if after else b""
    while True:
        with checked.read() as db:
            rows = fetch(
                db,
                f"SELECT d.payload_sha256, MAX(d.payload_size) {_SETTLED_BLOBS}"
                " AND d.payload_sha256 > ? GROUP BY d.payload_sha256"
                " ORDER BY d.payload_sha256 LIMIT ?",
                (digest, _PAGE),
            )
        if not rows:
            return
        problems: list[Problem] = []
        for digest, size in rows:
            problems += _check_blob(checked, bytes(digest), size)
        digest = bytes(rows[-1][0])
        yield Page([digest.hex()], len(rows), problems)


def _check_blob(checked: Checked, digest: bytes, size: int) -> Iterator[Problem]:
    fault = _find_blob_fault(checked, digest, size)
    if fault is None:
        return
    with checked.hold(), checked.read() as db:
        users = fetch(
            db, f"SELECT d.scope, d.collected_us {_SETTLED_BLOBS} AND d.payload_sha256 = ? LIMIT 3",
            (digest,),
        )  # fmt: skip
        fault = _find_blob_fault(checked, digest, size) if users else None
    if fault == _WRONG_DIGESTS:
        yield _digests_problem(digest)
    elif fault is not None:
        named = ", ".join(f"{scope} {format_stamp(us)}" for scope, us in users)
        yield Problem(
            "I2", _blob_path(digest), f"{fault}; it is the payload of {named}",
            "restore the file from a backup, or put the same payload again",
        )  # fmt: skip


def _find_blob_fault(checked: Checked, digest: bytes, size: int) -> str | None:
    try:
        with checked.open(checked.layout.root / _blob_path(digest)) as file:
            if file.size != size:
                return f"it has {file.size} bytes instead of {size}"
            return _compare_hash(checked, file.hash(0, size), digest)
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _blob_path(digest: bytes) -> str:
    text = digest.hex()
    return f"blobs/{text[:2]}/{text}"


# I3 and I4


def _list_top(root: Path, above: str, depth: int) -> list[str]:
    """What stands `depth` levels below a directory, and files above that: the steps of a walk."""
    found = [above]
    files: list[str] = []
    for _ in range(depth):
        below: list[str] = []
        for path in found:
            with contextlib.suppress(FileNotFoundError), os.scandir(root / path) as entries:
                for entry in entries:
                    is_directory = entry.is_dir(follow_symlinks=False)
                    (below if is_directory else files).append(f"{path}/{entry.name}")
        found = below
    return sorted(found + files)


def _walk_pages(
    checked: Checked, after: Cursor, tops: list[str],
    find_strays: Callable[[Checked, list[str]], Iterator[Problem]],
) -> Iterator[Page]:  # fmt: skip
    """Pages of the files below some paths; each path is a step, behind which one may go on."""
    root = checked.layout.root
    before = after[0] if after else ""
    for top in tops:
        if top <= before:
            continue
        is_file = (root / top).is_symlink() or not (root / top).is_dir()
        files = iter([top]) if is_file else iterate_files(root, top)
        for page in batched(files, _PAGE):
            yield Page([before], len(page), list(find_strays(checked, page)))
        before = top


def check_stray_envelopes(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I3: what stands in data/ and trash/ is of a version."""
    root = checked.layout.root
    tops = [*_list_top(root, "data", 2), *_list_top(root, "trash", 1)]
    return _walk_pages(checked, after, tops, _find_stray_envelopes)


def _find_stray_envelopes(checked: Checked, paths: list[str]) -> Iterator[Problem]:
    texts = [path for path in paths if parse_envelope_path(path) is not None]
    known = {row[0] for row in checked.find(_KNOWN_PATHS, texts)}
    strays = [path for path in paths if path not in known]
    if not strays:
        return
    with checked.hold(), checked.read() as db:
        for path in strays:
            if not (checked.layout.root / path).is_symlink() and (
                not (checked.layout.root / path).exists() or _is_known(db, path)
            ):
                continue
            yield _describe_stray(db, checked.layout, path)


_KNOWN_PATHS = "SELECT path FROM data_files WHERE path IN (SELECT value FROM json_each(?1))"


def _is_known(db: apsw.Connection, path: str) -> bool:
    """Whether a file is that of a version, or is still to be moved or removed."""
    text = show_path(path)
    return text == path and bool(
        fetch(
            db,
            "SELECT EXISTS (SELECT 1 FROM data_files WHERE path = ?1)"
            " OR EXISTS (SELECT 1 FROM moves WHERE source = ?1)",
            (path,),
        )[0][0]
    )


def _describe_stray(db: apsw.Connection, layout: Layout, path: str) -> Problem:
    shown = show_path(path)
    try:
        envelope, _ = read_head(layout.root / path)
    except (InvalidEnvelope, OSError):
        return Problem("I3", shown, "no version has this file", FOREIGN)
    scope, collected_us = envelope.scope.raw, envelope.collected_us
    wanted = [
        row[0]
        for row in fetch(
            db, "SELECT path FROM data_files WHERE scope = ? AND collected_us = ? ORDER BY id",
            (scope, collected_us),
        )
        if not (layout.root / row[0]).exists()
    ]  # fmt: skip
    if wanted:
        return Problem("I3", shown, f"it is misplaced: it belongs to {wanted[0]}", "move it there")
    return Problem(
        "I3", shown, f"no version has this file, which calls itself {scope} "
        f"{format_stamp(collected_us)}", "move it out of the vault; `scopefs import` can add it",
    )  # fmt: skip


def check_stray_blobs(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I4: what stands in blobs/ is the payload of a version."""
    tops = _list_top(checked.layout.root, "blobs", 1)
    return _walk_pages(checked, after, tops, _find_stray_blobs)


def _find_stray_blobs(checked: Checked, paths: list[str]) -> Iterator[Problem]:
    names = {path: _blob_name(path) for path in paths}
    known = {row[0] for row in checked.find(_KNOWN_BLOBS, filter(None, names.values()))}
    strays = [path for path, name in names.items() if name not in known]
    if not strays:
        return
    with checked.hold(), checked.read() as db:
        for path in strays:
            name = names[path]
            if not (checked.layout.root / path).exists() or (
                name is not None
                and fetch(
                    db,
                    "SELECT EXISTS (SELECT 1 FROM data_files WHERE payload_sha256 = ?1"
                    " AND kind = 2) OR EXISTS (SELECT 1 FROM moves WHERE source = ?2)",
                    (bytes.fromhex(name), path),
                )[0][0]
            ):
                continue
            text = "no version has this blob"
            do = "remove it, if no backup is missing it"
            if name is None:
                text, do = "it is no blob in its place", FOREIGN
            yield Problem("I4", show_path(path), text, do)


_KNOWN_BLOBS = (
    "SELECT value FROM json_each(?1) WHERE EXISTS (SELECT 1 FROM data_files"
    " WHERE kind = 2 AND payload_sha256 = unhex(value))"
)


def _blob_name(path: str) -> str | None:
    """The hash of a blob at its place; None for any other file."""
    parts = path.split("/")
    is_blob = len(parts) == 3 and _BLOB.match(parts[2]) and parts[1] == parts[2][:2]
    return parts[2] if is_blob else None
