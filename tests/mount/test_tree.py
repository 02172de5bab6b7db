"""Places and names: what may stand where, what is refused and how, and what the views show."""

import ctypes
import errno
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs.model.envelope import decode_envelope
from tests.mount.conftest import Shared
from tests.mount.reading import (
    count_versions,
    list_stamps,
    read_history,
    read_refusals,
    read_status,
    remove,
    wait_settled,
)
from tests.mounting import Mounted, run_scopefs

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
AT_FDCWD = -100
RUN_AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
REFUSALS = (errno.EINVAL, errno.EEXIST, errno.EPERM, errno.EISDIR, errno.EXDEV)
_LIBC = ctypes.CDLL(None, use_errno=True)

Start = Callable[..., Mounted]

ODD_NAMES = [
    b"n" * 255, "é".encode() * 127, b"two\nlines", b"\xff\xfe invalid",
    "🎉🧑\u200d🚀.json".encode(), b"-rf", b" blank ", b"tab\t", b"'quote'\"", b"back\\slash",
    b"*?[x]", b"\x01\x7f", b"a" * 250 + b".json", "e\u0301".encode(), "\u00e9".encode(), b"COM1",
    b"...", b"con:stream", b".hidden", b"latest.json", b"2026-01-21T10-00-00Z.json",
]  # fmt: skip


def rename_with(flags: int, source: Path, target: Path) -> None:
    """renameat2(2). Raises `OSError`."""
    done = _LIBC.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags)
    if done:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(source))


def refused(code: int) -> "pytest.RaisesExc[OSError]":
    """A system call that fails with that errno."""
    return pytest.raises(OSError, check=lambda error: error.errno == code)


def put(mounted: Mounted, scope: Path, name: str, content: bytes) -> None:
    """Publish by another process."""
    run_scopefs("put", text_of(mounted, scope), "-", "--name", name, vault=mounted.vault,
                input=content)  # fmt: skip


def text_of(mounted: Mounted, scope: Path) -> str:
    """The scope of a directory in the mount."""
    return ".".join(scope.relative_to(mounted.point).parts)


def run_suggestion(mounted: Mounted, directory: Path) -> None:
    """Execute the `try` command of the newest refusal, as a user would, in a directory."""
    command = read_refusals(mounted)[-1]["try"]
    subprocess.run(["bash", "-euc", command], cwd=directory, check=True)


# What is refused, and what to do instead


@pytest.mark.parametrize(
    "name",
    ["profile.json", "My Profile.JSON", "1.json", "it's.json", "ähm.txt", "-x.txt", "a\nb.txt"],
)
def test_file_at_the_root_is_refused_with_a_command_that_works(
    shared: Mounted, tmp_path: Path, name: str
) -> None:
    """A file at the root gets EINVAL; the command in rejected.jsonl stores it."""
    (tmp_path / name).write_bytes(b"content")
    with refused(errno.EINVAL):
        (shared.point / name).write_bytes(b"content")
    refusal = read_refusals(shared)[-1]
    assert refusal["path"] == f"{shared.point}/{name}"
    assert "SOURCE/CATEGORY" in refusal["reason"]
    run_suggestion(shared, tmp_path)
    (stored,) = shared.point.glob(f"my/*/{name}")
    assert stored.read_bytes() == b"content"
    assert read_history(stored.parent, name) == [b"content"]
    subprocess.run(["rm", "-r", stored.parent], check=True)


def test_file_in_a_source_is_refused_with_a_command_that_works(
    shared: Mounted, tmp_path: Path
) -> None:
    """A file directly in a source gets EINVAL; the command keeps the source."""
    (tmp_path / "profile.json").write_bytes(b"content")
    (shared.point / "instagram").mkdir()
    with refused(errno.EINVAL):
        (shared.point / "instagram" / "profile.json").touch()
    run_suggestion(shared, tmp_path)
    stored = shared.point / "instagram" / "profile" / "profile.json"
    assert stored.read_bytes() == b"content"


def test_tools_report_the_refusal(shared: Mounted, tmp_path: Path) -> None:
    """cp to the root fails with the errno's words, and leaves nothing there."""
    (tmp_path / "a.json").write_bytes(b"x")
    done = subprocess.run(["cp", tmp_path / "a.json", shared.point], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Invalid argument" in done.stderr
    assert not (shared.point / "a.json").exists()


@pytest.mark.parametrize(
    "name", ["Takeout", "1password", "my-data", "My Photos", "été", "-r", "X" * 200]
)
def test_source_that_is_no_segment_is_refused_with_a_command_that_works(
    shared: Mounted, tmp_path: Path, name: str
) -> None:
    """mkdir of a source that is no segment gets EINVAL; the command copies the directory."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "File.txt").write_bytes(b"content")
    with refused(errno.EINVAL):
        (shared.point / name).mkdir()
    assert read_refusals(shared)[-1]["operation"] == "mkdir"
    run_suggestion(shared, tmp_path)
    (stored,) = shared.point.glob("*/files/File.txt")
    assert stored.read_bytes() == b"content"
    assert read_history(stored.parent, "File.txt") == [b"content"]
    subprocess.run(["rm", "-r", stored.parents[1]], check=True)


@pytest.mark.parametrize("name", ["Photos", "2024", "a.b", ".hidden", "a-b", "x" * 255 + "y"])
def test_category_that_is_no_segment_is_refused(shared: Mounted, name: str) -> None:
    """mkdir of a category that is no segment gets EINVAL (or the kernel's ENAMETOOLONG)."""
    (shared.point / "google").mkdir(exist_ok=True)
    with pytest.raises(OSError, match=r"Invalid argument|too long"):
        (shared.point / "google" / name).mkdir()
    assert os.listdir(shared.point / "google") == []


def test_suggestion_for_a_category_works(shared: Mounted, tmp_path: Path) -> None:
    """The command for a refused category copies the directory below the same source."""
    (tmp_path / "Takeout 2024").mkdir()
    (tmp_path / "Takeout 2024" / "a.txt").write_bytes(b"content")
    (shared.point / "archive").mkdir()
    with refused(errno.EINVAL):
        (shared.point / "archive" / "Takeout 2024").mkdir()
    run_suggestion(shared, tmp_path)
    assert (shared.point / "archive" / "takeout_2024" / "a.txt").read_bytes() == b"content"


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink("x", path)])
def test_other_things_at_the_root_are_refused(
    shared: Mounted, make: Callable[[Path], None]
) -> None:
    """Directories that are no source, and symlinks, cannot be at the root."""
    with refused(errno.EINVAL):
        make(shared.point / "Not A Source")


def test_device_and_fifo_cannot_be_made(scope: Path) -> None:
    """Only files, directories and symlinks can be in a vault."""
    with refused(errno.EPERM):
        os.mkfifo(scope / "fifo")
    assert os.listdir(scope) == []


@pytest.mark.parametrize("name", [".versions", ".history"])
def test_reserved_names_cannot_be_made(scope: Path, name: str) -> None:
    """Nobody can create `.versions` or `.history` in a scope, in any way."""
    (scope / "a").touch()
    (scope / "Folder").mkdir()
    attempts: list[Callable[[], object]] = [
        (scope / name).mkdir,
        lambda: os.symlink("a", scope / name),
        lambda: os.link(scope / "a", scope / name),
        lambda: os.rename(scope / "a", scope / name),
        lambda: os.rename(scope / "Folder", scope / name),
        lambda: os.close(os.open(scope / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, check=lambda error: error.errno in REFUSALS):
            attempt()
    assert sorted(os.listdir(scope)) == ["Folder", "a"]
    assert stat.S_ISDIR(os.stat(scope / name).st_mode)


@pytest.mark.parametrize("name", [".versions", ".history"])
def test_views_cannot_be_removed_or_renamed(scope: Path, name: str) -> None:
    """`.versions` and `.history` are where they are for good: EPERM."""
    with refused(errno.EISDIR):
        (scope / name).unlink()
    with refused(errno.EPERM):
        (scope / name).rmdir()
    with refused(errno.EPERM):
        os.rename(scope / name, scope / "Moved")


def test_control_directory_cannot_be_made_or_removed(shared: Mounted) -> None:
    """`.scopefs` is there once, for good, and nothing can be made in it."""
    control = shared.point / ".scopefs"
    attempts: list[Callable[[], object]] = [
        control.mkdir, control.rmdir, (control / "x").mkdir, (control / "x").touch,
        (control / "README.txt").unlink,
        lambda: os.rename(control / "README.txt", control / "b"),
        lambda: os.open(control / "README.txt", os.O_WRONLY),
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(OSError, check=lambda error: error.errno in REFUSALS):
            attempt()
    assert sorted(os.listdir(control)) == [
        "README.txt", "partial", "rejected.jsonl", "status.json", "trash",
    ]  # fmt: skip


# Versions never change


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda path: os.open(path, os.O_WRONLY),
    "read-write": lambda path: os.open(path, os.O_RDWR),
    "append": lambda path: os.open(path, os.O_WRONLY | os.O_APPEND),
    "open with truncation": lambda path: os.open(path, os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda path: os.truncate(path, 0),
    "rename": lambda path: os.rename(path, path.with_name("x")),
    "rename out": lambda path: os.rename(path, path.parents[1] / "x"),
    "link": lambda path: os.link(path, path.with_name("x")),
    "link out": lambda path: os.link(path, path.parents[1] / "x"),
    "create beside": lambda path: path.with_name("x").touch(),
    "mkdir beside": lambda path: path.with_name("x").mkdir(),
    "symlink beside": lambda path: os.symlink("x", path.with_name("x")),
}


IMPORTS = {"write", "create beside"}
"""What may be the begin of an import in `.versions` (test_imports.py)."""


@pytest.mark.parametrize(
    ("view", "change"),
    [(".versions", change) for change in CHANGES if change not in IMPORTS]
    + [(".history/a.json", change) for change in CHANGES],
)
def test_version_cannot_be_changed(scope: Path, view: str, change: str) -> None:
    """What would change a version gets EPERM, for root too."""
    (scope / "a.json").write_bytes(b'{"a":1}')
    (name,) = (found for found in os.listdir(scope / view) if not found.startswith("latest"))
    path = scope / view / name
    content = path.read_bytes()
    with refused(errno.EPERM):
        CHANGES[change](path)
    assert path.read_bytes() == content
    assert sorted(os.listdir(scope)) == ["a.json"]


def test_version_in_history_cannot_be_unlinked(scope: Path) -> None:
    """rm in `.history` gets EPERM; so does rmdir of the views."""
    (scope / "a.json").write_bytes(b'{"a":1}')
    (name,) = (found for found in os.listdir(scope / ".history/a.json") if found[0] == "2")
    with refused(errno.EPERM):
        (scope / ".history" / "a.json" / name).unlink()
    with refused(errno.EPERM):
        (scope / ".history" / "a.json").rmdir()
    assert read_history(scope, "a.json") == [b'{"a":1}']


def test_mode_and_time_of_a_version_are_accepted_and_ignored(scope: Path) -> None:
    """chmod, chown and utimens on a version succeed and change nothing."""
    (scope / "a").write_bytes(b"x")
    path = scope / ".versions" / list_stamps(scope)[0]
    before = os.stat(path)
    os.chmod(path, 0o777)
    os.chown(path, 1, 1)
    os.utime(path, ns=(5, 5))
    after = os.stat(path)
    assert stat.S_IMODE(after.st_mode) == 0o444
    assert (after.st_mode, after.st_mtime_ns, after.st_uid) == (
        before.st_mode, before.st_mtime_ns, before.st_uid,
    )  # fmt: skip


# Names


def test_odd_names_are_kept_byte_for_byte(start: Start) -> None:
    """Names of 255 bytes, with newlines, invalid UTF-8 or emoji work, also after a remount."""
    mounted = start()
    scope = os.fsencode(mounted.make_scope())
    for number, name in enumerate(ODD_NAMES):
        with open(os.path.join(scope, name), "wb") as file:
            file.write(b"%d" % number)
        os.mkdir(os.path.join(scope, b"D" + name[1:]))

    def survey(scope: bytes) -> dict[bytes, bytes]:
        return {
            name: b"" if os.path.isdir(os.path.join(scope, name))
            else Path(os.fsdecode(os.path.join(scope, name))).read_bytes()
            for name in os.listdir(scope)
        }  # fmt: skip

    expected = {name: b"%d" % number for number, name in enumerate(ODD_NAMES)}
    expected |= {b"D" + name[1:]: b"" for name in ODD_NAMES}
    assert survey(scope) == expected
    assert set(os.listdir(os.path.join(scope, b".history"))) == set(expected)
    mounted.stop()
    mounted.check_log()
    again = start("vault", "again")
    assert survey(os.fsencode(again.make_scope())) == expected
    history = os.path.join(os.fsencode(again.make_scope()), b".history")
    for number, name in enumerate(ODD_NAMES):
        latest = b"latest" + os.path.splitext(name)[1]
        with open(os.path.join(history, name, latest), "rb") as file:
            assert file.read() == b"%d" % number
    again.stop()
    again.check_log()


def test_name_of_256_bytes_is_refused(scope: Path) -> None:
    """One byte more than 255 gets ENAMETOOLONG, whatever is to be done with it."""
    (scope / "a").touch()
    long = scope / ("n" * 256)
    calls: list[Callable[[], object]] = [
        long.touch, long.mkdir, long.stat, lambda: os.symlink("x", long),
        lambda: os.link(scope / "a", long), lambda: os.rename(scope / "a", long),
    ]  # fmt: skip
    for call in calls:
        with refused(errno.ENAMETOOLONG):
            call()


def test_deep_folders_work(scope: Path) -> None:
    """A path of 40 folders can be made, listed and removed."""
    deep = scope.joinpath(*["Folder name"] * 40)
    deep.mkdir(parents=True)
    (deep / "a").write_bytes(b"deep")
    assert (deep / "a").read_bytes() == b"deep"
    assert len(list(scope.rglob("*"))) == 41
    subprocess.run(["rm", "-r", scope / "Folder name"], check=True)
    assert os.listdir(scope) == []


# Symlinks and hard links


@pytest.mark.parametrize("target", [b"a", b"../../elsewhere", b"/absolute", b"\xff\n", b"x" * 4000])
def test_symlink_keeps_its_target(scope: Path, target: bytes) -> None:
    """A symlink says what it was told, byte for byte; stat has the target's length."""
    os.symlink(target, os.fsencode(scope / "link"))
    assert os.readlink(os.fsencode(scope / "link")) == target
    assert os.lstat(scope / "link").st_size == len(target)
    assert count_versions(scope) == 0


def test_symlink_leads_to_its_file(scope: Path) -> None:
    """Writing through a symlink makes a version of the file it points to."""
    (scope / "a").write_bytes(b"1")
    os.symlink("a", scope / "link")
    (scope / "link").write_bytes(b"2")
    assert read_history(scope, "a") == [b"1", b"2"]
    os.rename(scope / "link", scope / "moved")
    os.unlink(scope / "moved")
    assert os.listdir(scope) == ["a"]


def test_hard_link_into_another_scope_is_refused(shared: Mounted, scope: Path) -> None:
    """A file belongs to one scope: link across gets EXDEV."""
    other = shared.make_scope("test.linked")
    (scope / "a").write_bytes(b"x")
    with refused(errno.EXDEV):
        os.link(scope / "a", other / "a")
    assert os.listdir(other) == []


def test_hard_link_over_an_existing_name_is_refused(scope: Path) -> None:
    """link never replaces."""
    (scope / "a").write_bytes(b"a")
    (scope / "b").write_bytes(b"b")
    with refused(errno.EEXIST):
        os.link(scope / "a", scope / "b")
    assert (scope / "b").read_bytes() == b"b"


# Directories


@pytest.mark.parametrize("kind", ["Folder", "subscope"])
def test_rmdir_refuses_what_is_not_empty(scope: Path, kind: str) -> None:
    """rmdir of a directory with a name in it gets ENOTEMPTY, recorded or not."""
    directory = scope / kind
    directory.mkdir()
    fd = os.open(directory / "a", os.O_WRONLY | os.O_CREAT)
    with refused(errno.ENOTEMPTY):
        directory.rmdir()
    os.close(fd)
    with refused(errno.ENOTEMPTY):
        directory.rmdir()
    with refused(errno.ENOTEMPTY):
        scope.rmdir()
    os.unlink(directory / "a")
    directory.rmdir()
    assert os.listdir(scope) == []


def test_rmdir_of_a_file_and_unlink_of_a_directory(scope: Path) -> None:
    """ENOTDIR and EISDIR, as everywhere."""
    (scope / "a").touch()
    (scope / "Folder").mkdir()
    with refused(errno.ENOTDIR):
        (scope / "a").rmdir()
    with refused(errno.EISDIR):
        (scope / "Folder").unlink()
    with refused(errno.EEXIST):
        (scope / "a").mkdir()


def test_what_is_not_there(scope: Path) -> None:
    """Missing names get ENOENT from every call."""
    missing = scope / "missing"
    calls: list[Callable[[], object]] = [
        missing.read_bytes, missing.unlink, missing.rmdir, missing.stat, missing.readlink,
        lambda: missing.rename(scope / "x"), lambda: os.link(missing, scope / "x"),
        (missing / "below").touch, lambda: os.listdir(missing),
        lambda: os.stat(scope / ".versions" / "2020-01-01T00-00-00Z.json"),
        lambda: os.stat(scope / ".versions" / "latest.json"),
        lambda: os.stat(scope / ".history" / "missing"),
    ]  # fmt: skip
    for call in calls:
        with refused(errno.ENOENT):
            call()


def test_removed_tree_with_rm(scope: Path) -> None:
    """`rm -r` of a scope's contents and directory works; history does not hold it back."""
    (scope / "Folder" / "More").mkdir(parents=True)
    for path in ("a", "Folder/b", "Folder/More/c"):
        (scope / path).write_bytes(b"x")
    subprocess.run(["rm", "-r", scope], check=True)
    assert not scope.exists()
    assert scope.name not in os.listdir(scope.parent)


def test_removed_scope_comes_back_with_its_versions(shared: Mounted, scope: Path) -> None:
    """mkdir of a removed scope brings `.versions` and `.history` back, and no name."""
    (scope / "a.json").write_bytes(b'{"a":1}')
    stamps = list_stamps(scope)
    subprocess.run(["rm", "-r", scope], check=True)
    with refused(errno.ENOENT):
        os.stat(scope / ".versions")
    log = run_scopefs("log", text_of(shared, scope), "--json", vault=shared.vault)
    assert [event["op"] for event in json.loads(log.stdout)].count("version") == 1
    got = run_scopefs("get", text_of(shared, scope), vault=shared.vault)
    assert got.stdout == b'{"a":1}'
    scope.mkdir()
    assert os.listdir(scope) == []
    assert list_stamps(scope) == stamps
    assert read_history(scope, "a.json") == [b'{"a":1}']


# Renaming


def test_folder_moves_with_all_it_holds(scope: Path) -> None:
    """A folder is renamed within its scope, into another folder and over an empty one."""
    (scope / "A" / "Below").mkdir(parents=True)
    (scope / "A" / "Below" / "a").write_bytes(b"x")
    (scope / "B").mkdir()
    (scope / "C").mkdir()
    os.rename(scope / "A", scope / "B" / "A")
    os.rename(scope / "B", scope / "C")
    assert (scope / "C" / "A" / "Below" / "a").read_bytes() == b"x"
    assert os.listdir(scope) == ["C"]
    assert count_versions(scope) == 1


def test_folder_with_an_open_file_moves(scope: Path) -> None:
    """A file that is being written moves with its folder."""
    (scope / "A").mkdir()
    with (scope / "A" / "a").open("wb", buffering=0) as file:
        file.write(b"half")
        os.rename(scope / "A", scope / "B")
        file.write(b" and half")
    assert (scope / "B" / "a").read_bytes() == b"half and half"
    assert os.listdir(scope) == ["B"]
    assert count_versions(scope) == 1


def test_folder_cannot_move_into_itself(scope: Path) -> None:
    """EINVAL, as everywhere."""
    (scope / "A" / "B").mkdir(parents=True)
    with refused(errno.EINVAL):
        os.rename(scope / "A", scope / "A" / "B" / "C")
    assert os.listdir(scope) == ["A"]


def test_rename_over_a_full_folder_is_refused(scope: Path) -> None:
    """A directory with names in it is never replaced."""
    for folder in ("A", "B"):
        (scope / folder).mkdir()
        (scope / folder / "a").write_bytes(folder.encode())
    with refused(errno.ENOTEMPTY):
        os.rename(scope / "A", scope / "B")
    with refused(errno.EISDIR):
        os.rename(scope / "A" / "a", scope / "B")
    with refused(errno.ENOTDIR):
        os.rename(scope / "B", scope / "A" / "a")
    assert (scope / "B" / "a").read_bytes() == b"B"


def test_rename_over_a_folder_with_an_open_file_is_refused(scope: Path) -> None:
    """A folder that holds only a file being written is not empty."""
    (scope / "A").mkdir()
    (scope / "B").mkdir()
    with (scope / "B" / "a").open("wb", buffering=0) as file:
        file.write(b"x")
        with refused(errno.ENOTEMPTY):
            os.rename(scope / "A", scope / "B")
    assert (scope / "B" / "a").read_bytes() == b"x"


CROSSINGS = {
    "file to another scope": ("a", "../other/a"),
    "file to a subcategory": ("a", "shared/a"),
    "folder to another scope": ("Folder", "../other/Folder"),
    "scope to another scope": ("../full", "../renamed"),
    "subcategory to another": ("shared", "common"),
    "subcategory to a folder": ("shared", "Shared"),
    "folder to a subcategory": ("Folder", "folder"),
}


@pytest.fixture
def crossing(shared: Mounted, shared_holder: Shared) -> Path:
    """A scope with a file, a folder and a subcategory, beside an empty other."""
    number = next(shared_holder.numbers)
    scope = shared.make_scope(f"crossing{number}.source")
    shared.make_scope(f"crossing{number}.other")
    (shared.make_scope(f"crossing{number}.full") / "b").write_bytes(b"b")
    (scope / "a").write_bytes(b"a")
    for directory in ("Folder", "shared"):
        (scope / directory).mkdir()
        (scope / directory / "b").write_bytes(b"b")
    return scope


@pytest.mark.parametrize("case", CROSSINGS)
def test_rename_across_scopes_is_refused(crossing: Path, case: str) -> None:
    """rename(2) gets EXDEV wherever what moves would belong to another scope."""
    source, target = (crossing / path for path in CROSSINGS[case])
    before = sorted(crossing.parent.rglob("*"))
    with refused(errno.EXDEV):
        os.rename(source, target)
    assert sorted(crossing.parent.rglob("*")) == before


@pytest.mark.parametrize("case", CROSSINGS)
def test_mv_across_scopes_copies(crossing: Path, case: str) -> None:
    """mv gets there by copying, and removes what it copied."""
    source, target = (crossing / path for path in CROSSINGS[case])
    inside = "b" if source.is_dir() else ""
    source = Path(os.path.normpath(source))
    content = (source / inside).read_bytes()
    subprocess.run(["mv", source, target], check=True)
    assert not source.exists()
    assert (target / inside).read_bytes() == content


def test_empty_scope_may_be_renamed(shared: Mounted) -> None:
    """A scope's own directory that is empty takes another name."""
    scope = shared.make_scope("renaming.before")
    os.rename(scope, shared.point / "renaming" / "after")
    assert os.listdir(shared.point / "renaming") == ["after"]
    (shared.point / "renaming" / "after" / "a").write_bytes(b"x")
    assert count_versions(shared.point / "renaming" / "after") == 1


def test_empty_source_may_be_renamed(shared: Mounted) -> None:
    """So does an empty source: `mkdir`, then `mv`, as file managers make directories."""
    (shared.point / "untitled").mkdir()
    os.rename(shared.point / "untitled", shared.point / "titled")
    assert "titled" in os.listdir(shared.point)
    assert "untitled" not in os.listdir(shared.point)


def test_rename_to_a_place_where_no_file_can_be(shared: Mounted, scope: Path) -> None:
    """Moving a file to the root or a source gets EINVAL, and is explained."""
    (scope / "a").write_bytes(b"x")
    for target in (shared.point / "a", scope.parent / "a"):
        with refused(errno.EINVAL):
            os.rename(scope / "a", target)
        assert read_refusals(shared)[-1]["operation"] == "rename"
    assert (scope / "a").read_bytes() == b"x"


def test_noreplace_replaces_nothing(scope: Path) -> None:
    """RENAME_NOREPLACE gets EEXIST if the name is taken, and else renames."""
    (scope / "a").write_bytes(b"a")
    (scope / "b").write_bytes(b"b")
    with refused(errno.EEXIST):
        rename_with(RENAME_NOREPLACE, scope / "a", scope / "b")
    assert (scope / "b").read_bytes() == b"b"
    rename_with(RENAME_NOREPLACE, scope / "a", scope / "c")
    assert sorted(os.listdir(scope)) == ["b", "c"]


def test_noreplace_sees_a_file_that_is_being_written(scope: Path) -> None:
    """A name that is not recorded yet is taken all the same."""
    (scope / "a").write_bytes(b"a")
    with (scope / "b").open("wb", buffering=0) as file:
        with refused(errno.EEXIST):
            rename_with(RENAME_NOREPLACE, scope / "a", scope / "b")
        file.write(b"b")
    assert (scope / "b").read_bytes() == b"b"


@pytest.mark.parametrize("flags", [RENAME_EXCHANGE, RENAME_WHITEOUT])
def test_other_kinds_of_rename_are_refused(scope: Path, flags: int) -> None:
    """RENAME_EXCHANGE and RENAME_WHITEOUT get EINVAL and change nothing."""
    (scope / "a").write_bytes(b"a")
    (scope / "b").write_bytes(b"b")
    with refused(errno.EINVAL):
        rename_with(flags, scope / "a", scope / "b")
    assert ((scope / "a").read_bytes(), (scope / "b").read_bytes()) == (b"a", b"b")


def test_rename_to_its_other_link_changes_nothing(scope: Path) -> None:
    """rename(2) of one name to another of the same file leaves both."""
    (scope / "a").write_bytes(b"a")
    os.link(scope / "a", scope / "b")
    os.rename(scope / "a", scope / "b")
    assert sorted(os.listdir(scope)) == ["a", "b"]


# Scopes within scopes


def test_subcategory_is_a_scope_of_its_own(shared: Mounted, scope: Path) -> None:
    """A valid segment at depth 3 is a scope; its versions are not those of the category."""
    sub = scope / "shared"
    sub.mkdir()
    (sub / "a.json").write_bytes(b'{"a":1}')
    (scope / "b.json").write_bytes(b'{"b":1}')
    assert count_versions(scope) == 1
    assert count_versions(sub) == 1
    envelope = decode_envelope((sub / ".versions" / "latest.json").read_bytes())
    assert envelope.scope.raw == f"{text_of(shared, scope)}.shared"


def test_segment_at_depth_four_is_a_folder(scope: Path) -> None:
    """Below a subcategory everything is a folder: no `.versions` in it."""
    folder = scope / "shared" / "folder"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"x")
    assert not (folder / ".versions").exists()
    assert read_history(scope / "shared", "folder/a") == [b"x"]


def test_views_are_only_where_a_scope_is(shared: Mounted, scope: Path) -> None:
    """Neither the root nor a source nor a folder has `.versions`; only the root has `.scopefs`."""
    (scope / "Folder").mkdir()
    for place in (shared.point, scope.parent, scope / "Folder"):
        assert not (place / ".versions").exists()
        assert not (place / ".history").exists()
    assert not (scope / ".scopefs").exists()


# Views


def test_hidden_entries_are_not_listed(shared: Mounted, scope: Path) -> None:
    """`.scopefs`, `.versions` and `.history` can be entered, and are in no listing."""
    (scope / "a").write_bytes(b"x")
    found = {name for _, *both in os.walk(shared.point) for names in both for name in names}
    assert not found & {".scopefs", ".versions", ".history"}
    done = subprocess.run(["find", scope], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(scope), f"{scope}/a"]
    assert os.listdir(scope / ".versions")
    assert os.listdir(scope / ".history") == ["a"]


def test_versions_are_envelopes_in_time_order(scope: Path) -> None:
    """`.versions` lists every version, 0444, in the order of their making, and `latest.json`."""
    for number in range(5):
        (scope / f"f{number}.json").write_bytes(b'{"n":%d}' % number)
    names = [entry.name for entry in os.scandir(scope / ".versions")]
    assert names == sorted(names)
    assert names[-1] == "latest.json"
    for number, name in enumerate(names[:-1]):
        path = scope / ".versions" / name
        found = os.stat(path)
        content = path.read_bytes()
        envelope = decode_envelope(content)
        assert envelope.data == b'{"n":%d}' % number
        assert envelope.file is not None
        assert envelope.file.name == b"f%d.json" % number
        assert stat.S_IMODE(found.st_mode) == 0o444
        assert found.st_size == len(content)
    assert os.readlink(scope / ".versions" / "latest.json") == names[-2]


def test_history_keeps_the_extension(scope: Path) -> None:
    """`.history/NAME/` shows payloads with the name's extension, in order, and `latest`."""
    (scope / "My Photos" / "2024").mkdir(parents=True)
    photo = scope / "My Photos" / "2024" / "a.tar.gz"
    for content in (b"one", b"two"):
        photo.write_bytes(content)
    place = scope / ".history" / "My Photos" / "2024" / "a.tar.gz"
    names = [entry.name for entry in os.scandir(place)]
    assert names == sorted(names)
    assert names[-1] == "latest.gz"
    for name in names[:-1]:
        assert len(name) == len("2026-01-21T10-00-00Zu000000.gz")
    assert [(place / name).read_bytes() for name in names] == [b"one", b"two", b"two"]
    assert os.readlink(place / "latest.gz") == names[-2]
    assert [os.stat(place / name).st_size for name in names] == [3, 3, 3]


def test_history_of_names_that_ended(scope: Path) -> None:
    """A name that was removed stays in `.history`."""
    (scope / "a.txt").write_bytes(b"x")
    (scope / "Folder").mkdir()
    (scope / "Folder" / "b.txt").write_bytes(b"y")
    remove(scope / "a.txt")
    subprocess.run(["rm", "-r", scope / "Folder"], check=True)
    assert os.listdir(scope) == []
    assert sorted(os.listdir(scope / ".history")) == ["Folder", "a.txt"]
    assert read_history(scope, "a.txt") == [b"x"]
    assert read_history(scope, "Folder/b.txt") == [b"y"]


def test_history_of_a_folder_that_was_made_again(scope: Path) -> None:
    """`rm -r` of a folder and another of its name: `.history` shows what was in either."""
    for number in (b"1", b"2"):
        (scope / "Photos").mkdir()
        (scope / "Photos" / "a").write_bytes(number)
        (scope / "Photos" / f"only{number.decode()}").write_bytes(b"x")
        if number == b"1":
            subprocess.run(["rm", "-r", scope / "Photos"], check=True)
    assert sorted(os.listdir(scope / ".history" / "Photos")) == ["a", "only1", "only2"]
    assert read_history(scope, "Photos/a") == [b"1", b"2"]
    assert read_history(scope, "Photos/only1") == [b"x"]
    assert read_history(scope, "Photos/only2") == [b"x"]


def test_history_of_a_folder_that_took_another_s_name(scope: Path) -> None:
    """A folder that was renamed away does not hide the history of the next of its name."""
    (scope / "A").mkdir()
    (scope / "A" / "a").write_bytes(b"moved")
    os.rename(scope / "A", scope / "B")
    (scope / "A").mkdir()
    (scope / "A" / "b").write_bytes(b"new")
    assert read_history(scope, "A/b") == [b"new"]
    assert read_history(scope, "B/a") == [b"moved"]


@pytest.mark.parametrize("name", ["a", "b"])
def test_history_of_a_folder_that_moved_into_its_successor(scope: Path, name: str) -> None:
    """A folder below one of its own former name can be entered in `.history`, however it is called.

    Called as a file in it, its history is beside that file's, and must not be its own parent.
    """
    (scope / "One").mkdir()
    (scope / "One" / "b").write_bytes(b"x")
    os.rename(scope / "One", scope / "Moving")
    (scope / "One").mkdir()
    os.rename(scope / "Moving", scope / "One" / name)
    assert (scope / "One" / name / "b").read_bytes() == b"x"
    assert read_history(scope, f"One/{name}/b") == [b"x"]


def test_history_of_a_folder_where_a_file_was(scope: Path) -> None:
    """What was a file once and is a folder now shows the versions of what is in it."""
    (scope / "X").write_bytes(b"file")
    (scope / "X").unlink()
    (scope / "X").mkdir()
    (scope / "X" / "a").write_bytes(b"below")
    assert read_history(scope, "X/a") == [b"below"]


def test_version_reads_the_same_before_and_after_it_is_settled(
    shared: Mounted, scope: Path
) -> None:
    """Settling changes neither bytes nor size nor inode of a version."""
    contents = [b'{"a":1}', b"text\n", os.urandom(20_000), os.urandom(200_000)]
    for number, content in enumerate(contents):
        (scope / f"f{number}").write_bytes(content)

    def survey() -> list[tuple[str, int, int, bytes]]:
        paths = [scope / ".versions" / name for name in list_stamps(scope)]
        paths += [scope / ".history" / f"f{number}" / "latest" for number in range(4)]
        return [
            (str(path), os.stat(path).st_ino, os.stat(path).st_size, path.read_bytes())
            for path in paths
        ]

    before = survey()
    wait_settled(shared)
    assert survey() == before
    assert [found[3] for found in before[4:]] == contents


def test_empty_vault_shows_a_readme(start: Start) -> None:
    """While the vault is empty its root lists a read-only README.txt that says how to begin."""
    mounted = start()
    assert os.listdir(mounted.point) == ["README.txt"]
    text = (mounted.point / "README.txt").read_text()
    assert f"mkdir -p {mounted.point}/instagram/profile" in text
    assert os.stat(mounted.point / "README.txt").st_size == len(text)
    for change in (
        lambda: os.open(mounted.point / "README.txt", os.O_WRONLY),
        (mounted.point / "README.txt").unlink,
    ):
        with refused(errno.EPERM):
            change()
    (mounted.point / "instagram").mkdir()
    assert os.listdir(mounted.point) == ["instagram"]
    assert not (mounted.point / "README.txt").exists()
    mounted.stop()
    mounted.check_log()


def test_control_files(shared: Mounted, scope: Path) -> None:
    """`.scopefs` holds README.txt, status.json and rejected.jsonl, which tell the present state."""
    before = read_status(shared)
    (scope / "a").write_bytes(b"12345")
    assert count_versions(scope) == 1
    after = read_status(shared)
    assert after["versions"] == before["versions"] + 1
    assert after["payloadBytes"] == before["payloadBytes"] + 5
    assert after["pid"] == shared.process.pid
    assert after["mountpoint"] == str(shared.point)
    assert str(shared.point) in (shared.point / ".scopefs" / "README.txt").read_text()
    assert os.stat(shared.point / ".scopefs" / "status.json").st_mode & 0o777 == 0o444


def test_status_command_shows_the_refusal(shared: Mounted) -> None:
    """`scopefs status` says in words what was refused last."""
    with refused(errno.EINVAL):
        (shared.point / "Refused Source").mkdir()
    found = run_scopefs("status", vault=shared.vault).stdout.decode()
    assert "Refused Source" in found
    assert "try: mkdir -p" in found
    assert "Refused Source" in shared.log


# Other processes


def test_other_process_s_put_is_seen_at_the_next_open(shared: Mounted, scope: Path) -> None:
    """What `scopefs put` stored is there at the next listing, stat and open."""
    assert os.listdir(scope) == []
    put(shared, scope, "a", b"first")
    assert os.listdir(scope) == ["a"]
    assert (scope / "a").read_bytes() == b"first"
    put(shared, scope, "a", b"second, longer")
    assert (scope / "a").read_bytes() == b"second, longer"
    put(shared, scope, "a", b"3rd")
    assert (scope / "a").read_bytes() == b"3rd"
    assert read_history(scope, "a") == [b"first", b"second, longer", b"3rd"]


def test_other_process_s_put_changes_a_cached_size(shared: Mounted, scope: Path) -> None:
    """A size that the kernel has cached is right again when the file is opened."""
    (scope / "a").write_bytes(b"x" * 10_000)
    assert os.stat(scope / "a").st_size == 10_000
    put(shared, scope, "a", b"short")
    with (scope / "a").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == 5
        assert file.read() == b"short"
    put(shared, scope, "a", b"y" * 20_000)
    with (scope / "a").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == 20_000
        assert file.read() == b"y" * 20_000


def test_other_process_s_put_is_in_the_next_listing_with_its_size(
    shared: Mounted, scope: Path
) -> None:
    """`ls -l` tells the new size, whatever the kernel has cached for the inode."""
    (scope / "a").write_bytes(b"x" * 10_000)
    subprocess.run(["ls", "-l", scope], check=True, capture_output=True)
    put(shared, scope, "a", b"short")
    done = subprocess.run(["ls", "-l", scope], check=True, capture_output=True, text=True)
    assert done.stdout.split()[6] == "5"


def test_other_process_s_put_while_the_file_is_open_and_cached(
    shared: Mounted, scope: Path
) -> None:
    """An old handle does not keep new opens from seeing what was put."""
    (scope / "a").write_bytes(b"x" * 10_000)
    with (scope / "a").open("rb") as old:
        assert len(old.read()) == 10_000
        put(shared, scope, "a", b"y" * 5)
        assert (scope / "a").read_bytes() == b"y" * 5
        put(shared, scope, "a", b"z" * 20_000)
        assert (scope / "a").read_bytes() == b"z" * 20_000


def test_other_process_s_rm_of_a_version(shared: Mounted, scope: Path) -> None:
    """`scopefs rm` of the newest version: the name shows the one before, then ends."""
    (scope / "a").write_bytes(b"first version")
    (scope / "a").write_bytes(b"second")
    assert (scope / "a").read_bytes() == b"second"
    for content in (b"first version", None):
        stamp = list_stamps(scope)[-1]
        run_scopefs("rm", text_of(shared, scope), stamp, vault=shared.vault)
        if content is not None:
            assert (scope / "a").read_bytes() == content
            assert os.stat(scope / "a").st_size == len(content)
    assert os.listdir(scope) == []
    assert not (scope / "a").exists()
    assert count_versions(scope) == 0


def test_other_process_s_rm_of_a_scope(shared: Mounted, scope: Path) -> None:
    """`scopefs rm SCOPE` ends its names; the subcategory stays."""
    sub = scope / "kept"
    sub.mkdir()
    (sub / "a").write_bytes(b"kept")
    (scope / "Folder").mkdir()
    (scope / "Folder" / "b").write_bytes(b"x")
    (scope / "c").write_bytes(b"x")
    run_scopefs("rm", text_of(shared, scope), vault=shared.vault)
    assert os.listdir(scope) == ["kept"]
    assert (sub / "a").read_bytes() == b"kept"
    assert count_versions(scope) == 0
    assert count_versions(sub) == 1


def test_other_process_s_put_makes_directories(shared: Mounted) -> None:
    """Scope and folders that `scopefs put` made are there at once."""
    put(shared, shared.point / "elsewhere" / "made", "My Folder/a.txt", b"x")
    assert "elsewhere" in os.listdir(shared.point)
    assert (shared.point / "elsewhere" / "made" / "My Folder" / "a.txt").read_bytes() == b"x"


def test_missing_name_is_found_once_it_was_put(shared: Mounted, scope: Path) -> None:
    """That a name is missing is never remembered."""
    assert not (scope / "a").exists()
    put(shared, scope, "a", b"x")
    assert (scope / "a").exists()


def test_mount_s_versions_are_seen_by_commands_at_once(shared: Mounted, scope: Path) -> None:
    """`scopefs get` and `ls` in another process show what was just closed and listed."""
    (scope / "a").write_bytes(b"fresh")
    assert count_versions(scope) == 1
    text = text_of(shared, scope)
    assert run_scopefs("get", text, "--name", "a", vault=shared.vault).stdout == b"fresh"
    listed = json.loads(run_scopefs("ls", text, "--json", vault=shared.vault).stdout)
    assert listed == [{"name": "a", "sizeBytes": 5}]


# What is not kept


def test_extended_attributes_are_not_supported(scope: Path) -> None:
    """Extended attributes get ENOTSUP, which tools take as it is meant."""
    (scope / "a").write_bytes(b"x")
    calls: list[Callable[[], object]] = [
        lambda: os.setxattr(scope / "a", "user.test", b"value"),
        lambda: os.getxattr(scope / "a", "user.test"),
        lambda: os.getxattr(scope / "a", "security.capability"),
        lambda: os.removexattr(scope / "a", "user.test"),
        lambda: os.listxattr(scope / "a"),
    ]
    for call in calls:
        with refused(errno.ENOTSUP):
            call()


def test_owner_is_the_mounting_user(scope: Path) -> None:
    """chown is accepted, and everything goes on to belong to the mounting user."""
    (scope / "a").write_bytes(b"x")
    os.chown(scope / "a", 12, 34)
    found = os.stat(scope / "a")
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())


def test_other_users_cannot_look_in(shared: Mounted, scope: Path) -> None:
    """Without allow_other the mount is closed to all but its owner."""
    (scope / "a").write_bytes(b"x")
    done = subprocess.run([*RUN_AS_NOBODY, "cat", scope / "a"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


def test_refusals_file_stays_small(shared: Mounted, scope: Path) -> None:
    """However much is refused, rejected.jsonl keeps the newest lines and not more than a MiB."""
    long = "X" * 250
    log = shared.vault / "logs" / "rejected.jsonl"
    line = json.dumps({"path": long, "reason": "r", "try": "t", "at": "", "operation": "o"})
    with log.open("a") as file:
        file.write(f"{line}\n" * 4000)
    for name in ("X1", "X2"):
        with refused(errno.EINVAL):
            (shared.point / name).mkdir()
    refusals = read_refusals(shared)
    assert [Path(found["path"]).name for found in refusals[-2:]] == ["X1", "X2"]
    assert log.stat().st_size < 1 << 20
