"""The hierarchy: `data/<source>/<category>[/<sub>]/<stamp>.json`, one envelope per version.

Functions that take `base_dir` work on any such tree; they know nothing of the index. An envelope
is placed by linking a complete file, so that a name never shows half of one, and never overwrites.
Source: docs/format.md.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from scopefs.errors import Conflict, InvalidTime
from scopefs.model.envelope import Envelope, decode_envelope, encode_envelope
from scopefs.model.scope import scope_to_path_segments
from scopefs.model.stamps import parse_stamp, timestamp_to_filename
from scopefs.store.atomic import make_directories, same_content, sync_directory, write_file

SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Where an envelope was written, and how many bytes it has."""

    path: Path
    relative_path: str
    size_bytes: int


def build_scope_dir(base_dir: Path, scope: str) -> Path:
    """The directory of a scope's envelopes. Raises `InvalidScope`."""
    return base_dir.joinpath(*scope_to_path_segments(scope))


def build_data_file_path(base_dir: Path, scope: str, collected_at: str) -> Path:
    """The path of an envelope. Raises `InvalidScope`, `InvalidTime`."""
    return build_scope_dir(base_dir, scope) / f"{timestamp_to_filename(collected_at)}{SUFFIX}"


def write_data_file(base_dir: Path, envelope: Envelope) -> WriteResult:
    """Write one envelope, durably and whole. Equal bytes already there are fine.

    Raises `Conflict` if another envelope stands there: a version is never overwritten.
    """
    content = encode_envelope(envelope)
    path = build_data_file_path(base_dir, envelope.scope.raw, envelope.collected_at)
    make_directories(path.parent)
    try:
        write_file(path, content)
    except FileExistsError as error:
        if not same_content(path, content):
            raise Conflict(f"{path} exists already and differs") from error
    directory = path.parent
    while directory != base_dir:
        directory = directory.parent
        sync_directory(directory)
    return WriteResult(path, str(path.relative_to(base_dir)), len(content))


def read_data_file(base_dir: Path, scope: str, collected_at: str) -> Envelope:
    """Read one envelope. Raises `FileNotFoundError`, `InvalidEnvelope`."""
    return decode_envelope(build_data_file_path(base_dir, scope, collected_at).read_bytes())


def data_file_exists(base_dir: Path, scope: str, collected_at: str) -> bool:
    """Whether an envelope stands there."""
    return build_data_file_path(base_dir, scope, collected_at).is_file()


def list_versions(base_dir: Path, scope: str) -> list[str]:
    """The file names of a scope's envelopes, newest first; [] for a scope that is not there."""
    try:
        names = os.listdir(build_scope_dir(base_dir, scope))
    except FileNotFoundError:
        return []
    stamped = [(us, name) for name in names if (us := _find_stamp_us(name)) is not None]
    return [name for _, name in sorted(stamped, reverse=True)]


def delete_data_file(base_dir: Path, scope: str, collected_at: str) -> None:
    """Remove one envelope, durably. Raises `FileNotFoundError`."""
    path = build_data_file_path(base_dir, scope, collected_at)
    path.unlink()
    sync_directory(path.parent)


def _find_stamp_us(name: str) -> int | None:
    """The time of an envelope by its file name; None for any other file."""
    if not name.endswith(SUFFIX):
        return None
    try:
        return parse_stamp(name.removesuffix(SUFFIX))
    except InvalidTime:
        return None
