"""The hierarchy of envelopes: write, read, exists, list newest first, delete."""

from pathlib import Path

import pytest

from scopefs.errors import Conflict, InvalidEnvelope, InvalidScope, InvalidTime
from scopefs.model.envelope import create_data_file_envelope
from scopefs.store.hierarchy import (
    build_data_file_path,
    build_scope_dir,
    data_file_exists,
    delete_data_file,
    list_versions,
    read_data_file,
    write_data_file,
)
from tests.store.inspection import list_files

SCOPE = "instagram.profile"
AT = "2026-01-21T10:00:00Z"
LATER = "2026-01-21T10:00:00.000123Z"


def write(base: Path, at: str = AT, data: bytes = b'{"a": 1}', scope: str = SCOPE) -> Path:
    """Write an envelope; returns its path."""
    return write_data_file(base, create_data_file_envelope(scope, at, data)).path


@pytest.mark.parametrize(
    ("scope", "at", "expected"),
    [
        ("a.b", AT, "a/b/2026-01-21T10-00-00Z.json"),
        ("a.b.c", LATER, "a/b/c/2026-01-21T10-00-00Zu000123.json"),
    ],
)
def test_path_follows_scope_and_time(tmp_path: Path, scope: str, at: str, expected: str) -> None:
    """A scope's segments are directories, its version's stamp is the file."""
    assert build_data_file_path(tmp_path, scope, at) == tmp_path / expected


@pytest.mark.parametrize("scope", ["../../etc.passwd", "a./b", "a", "a.b.c.d", "a.b/..", ""])
def test_no_scope_leads_out_of_the_hierarchy(tmp_path: Path, scope: str) -> None:
    """Text that is no scope never becomes a path."""
    with pytest.raises(InvalidScope):
        build_scope_dir(tmp_path, scope)


def test_no_time_leads_out_of_the_hierarchy(tmp_path: Path) -> None:
    """Text that is no collectedAt never becomes a file name."""
    with pytest.raises(InvalidTime):
        build_data_file_path(tmp_path, SCOPE, "../x")


def test_write_result_tells_path_and_size(tmp_path: Path) -> None:
    """The result names the path, relative too, and the size that the file has."""
    result = write_data_file(tmp_path, create_data_file_envelope(SCOPE, AT, b'{"a": 1}'))
    assert result.path == tmp_path / result.relative_path
    assert result.relative_path == "instagram/profile/2026-01-21T10-00-00Z.json"
    assert result.size_bytes == len(result.path.read_bytes())


def test_written_envelope_reads_back(tmp_path: Path) -> None:
    """Scope, time and the exact text of data come back."""
    write(tmp_path, data=b'{"b" : 1.0,\n"b":2}')
    found = read_data_file(tmp_path, SCOPE, AT)
    assert (found.scope.raw, found.collected_at) == (SCOPE, AT)
    assert found.data == b'{"b" : 1.0,\n"b":2}'


def test_different_envelope_never_overwrites(tmp_path: Path) -> None:
    """A different envelope of the same time is a conflict; the first stays, and nothing else."""
    path = write(tmp_path)
    before = path.read_bytes()
    with pytest.raises(Conflict, match="differs"):
        write(tmp_path, data=b'{"a": 2}')
    assert path.read_bytes() == before
    assert list_files(tmp_path) == [str(path.relative_to(tmp_path))]


def test_equal_envelope_may_be_written_again(tmp_path: Path) -> None:
    """Equal bytes that are there already are fine, and are the same file still."""
    inode = write(tmp_path).stat().st_ino
    assert write(tmp_path).stat().st_ino == inode


def test_exists_until_deleted(tmp_path: Path) -> None:
    """An envelope exists from its writing to its deletion."""
    seen = [data_file_exists(tmp_path, SCOPE, AT)]
    write(tmp_path)
    seen.append(data_file_exists(tmp_path, SCOPE, AT))
    delete_data_file(tmp_path, SCOPE, AT)
    seen.append(data_file_exists(tmp_path, SCOPE, AT))
    assert seen == [False, True, False]


def test_deleted_envelope_cannot_be_read(tmp_path: Path) -> None:
    """Reading what was deleted is FileNotFoundError."""
    write(tmp_path)
    delete_data_file(tmp_path, SCOPE, AT)
    with pytest.raises(FileNotFoundError):
        read_data_file(tmp_path, SCOPE, AT)


def test_delete_of_nothing_fails(tmp_path: Path) -> None:
    """Deleting what is not there is FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        delete_data_file(tmp_path, SCOPE, AT)


def test_delete_leaves_the_others(tmp_path: Path) -> None:
    """Only the named version goes."""
    write(tmp_path)
    write(tmp_path, LATER)
    delete_data_file(tmp_path, SCOPE, AT)
    assert list_versions(tmp_path, SCOPE) == ["2026-01-21T10-00-00Zu000123.json"]


def test_list_is_newest_first_by_time(tmp_path: Path) -> None:
    """Fractions come after their whole second, and later seconds after them."""
    times = [AT, "2026-01-21T09:59:59.999999Z", "2026-01-21T10:00:01Z", LATER]
    for at in times:
        write(tmp_path, at)
    assert list_versions(tmp_path, SCOPE) == [
        "2026-01-21T10-00-01Z.json",
        "2026-01-21T10-00-00Zu000123.json",
        "2026-01-21T10-00-00Z.json",
        "2026-01-21T09-59-59Zu999999.json",
    ]


def test_unknown_scope_has_no_versions(tmp_path: Path) -> None:
    """A scope that is not there is empty, not an error."""
    assert list_versions(tmp_path, "no.such") == []


def test_list_leaves_out_what_is_no_version(tmp_path: Path) -> None:
    """Subcategories, foreign files and names that are nearly stamps are not listed."""
    write(tmp_path)
    write(tmp_path, scope=f"{SCOPE}.shared")
    for name in ("notes.txt", "2026-01-21T10-00-00Z", "2026-13-21T10-00-00Z.json", ".json"):
        (build_scope_dir(tmp_path, SCOPE) / name).touch()
    assert list_versions(tmp_path, SCOPE) == ["2026-01-21T10-00-00Z.json"]


def test_torn_envelope_is_no_envelope(tmp_path: Path) -> None:
    """Half an envelope is refused, never half read."""
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InvalidEnvelope):
        read_data_file(tmp_path, SCOPE, AT)
