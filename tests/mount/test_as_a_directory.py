"""The mount against a plain directory: whatever a program does, both answer alike.

Random programs of system calls run on a folder of the mount and on a directory of the machine's own
file system; results, errnos and trees are compared. What deviates by design is left out: scopes
(all happens in a folder) and what stat says of directories.
"""

import errno
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.reading import read_history
from tests.mounting import Mounted

FOLDERS = ["", "One/", "Two/", "One/In/"]
PATHS = [folder + name for folder in FOLDERS for name in ("a", "b", "c")]
DIRECTORIES = [folder.rstrip("/") for folder in FOLDERS[1:]]
SIZES = [0, 1, 5_000, 70_000, 200_000]
FLAGS = [
    os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT,
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_RDWR | os.O_TRUNC,
]  # fmt: skip
HANDLES = 4

Call = Callable[["Side"], object]


class Side:
    """One of the two directories, with the files that the program has open there."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.handles: list[int | None] = [None] * HANDLES

    def at(self, path: str) -> str:
        """A path of the program, on this side."""
        return f"{self.top}/{path}"

    def fd(self, number: int) -> int:
        """A handle of the program; one that is closed gets EBADF."""
        found = self.handles[number]
        if found is None:
            raise OSError(errno.EBADF, "closed")
        return found

    def open(self, number: int, path: str, flags: int) -> None:
        """Open a file as a handle, in place of what that was."""
        self.close(number)
        self.handles[number] = os.open(self.at(path), flags, 0o644)

    def close(self, number: int) -> None:
        """Close a handle, if it is open."""
        fd, self.handles[number] = self.handles[number], None
        if fd is not None:
            os.close(fd)

    def answer(self, call: Call) -> object:
        """What a call returns here, or its errno."""
        try:
            return call(self)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def survey(self) -> dict[str, object]:
        """The whole tree: kinds, modes, link counts, contents, targets."""
        found: dict[str, object] = {}
        for directory, folders, files in os.walk(self.top):
            for name in (*folders, *files):
                path = os.path.join(directory, name)
                facts = os.lstat(path)
                content: object = None
                if stat.S_ISLNK(facts.st_mode):
                    content = os.readlink(path)
                elif stat.S_ISREG(facts.st_mode):
                    content = (facts.st_nlink, facts.st_size, hash(Path(path).read_bytes()))
                found[os.path.relpath(path, self.top)] = (stat.filemode(facts.st_mode), content)
        return found


def choose_call(choices: random.Random) -> tuple[str, Call]:
    """One random system call, with its text."""
    path, other = choices.choice(PATHS), choices.choice(PATHS)
    folder, target = choices.choice(DIRECTORIES), choices.choice(DIRECTORIES)
    number, size = choices.randrange(HANDLES), choices.choice(SIZES)
    flags, offset = choices.choice(FLAGS), choices.choice([0, 0, 10, 66_000])
    mode, mtime = choices.choice([0o644, 0o600, 0o755]), choices.randrange(10**18)
    data = choices.randbytes(max(1, size))
    calls: list[tuple[str, Call]] = [
        (f"open {number} {path} {flags:o}", lambda side: side.open(number, path, flags)),
        (f"open {number} {path} {flags:o}", lambda side: side.open(number, path, flags)),
        (f"close {number}", lambda side: side.close(number)),
        (f"close {number}", lambda side: side.close(number)),
        (
            f"pwrite {number} {len(data)} at {offset}",
            lambda side: os.pwrite(side.fd(number), data, offset),
        ),
        (
            f"pwrite {number} {len(data)} at {offset}",
            lambda side: os.pwrite(side.fd(number), data, offset),
        ),
        (
            f"pread {number} {size} at {offset}",
            lambda side: os.pread(side.fd(number), size, offset),
        ),
        (f"ftruncate {number} {size}", lambda side: os.ftruncate(side.fd(number), size)),
        (f"fsync {number}", lambda side: os.fsync(side.fd(number))),
        (f"fstat {number}", lambda side: facts_of(os.fstat(side.fd(number)))),
        (f"truncate {path} {size}", lambda side: os.truncate(side.at(path), size)),
        (f"read {path}", lambda side: Path(side.at(path)).read_bytes()),
        (f"write {path} {size}", lambda side: Path(side.at(path)).write_bytes(data)),
        (f"stat {path}", lambda side: facts_of(os.stat(side.at(path)))),
        (f"rename {path} {other}", lambda side: os.rename(side.at(path), side.at(other))),
        (f"rename {path} {other}", lambda side: os.rename(side.at(path), side.at(other))),
        (f"rename {folder} {target}", lambda side: os.rename(side.at(folder), side.at(target))),
        (f"rename {path} {folder}", lambda side: os.rename(side.at(path), side.at(folder))),
        (f"rename {folder} {path}", lambda side: os.rename(side.at(folder), side.at(path))),
        (f"link {path} {other}", lambda side: os.link(side.at(path), side.at(other))),
        (f"symlink {path}", lambda side: os.symlink("a", side.at(path))),
        (f"unlink {path}", lambda side: os.unlink(side.at(path))),
        (f"mkdir {folder}", lambda side: os.mkdir(side.at(folder))),
        (f"mkdir {path}", lambda side: os.mkdir(side.at(path))),
        (f"rmdir {folder}", lambda side: os.rmdir(side.at(folder))),
        (f"list {folder}", lambda side: sorted(os.listdir(side.at(folder)))),
        (f"chmod {path} {mode:o}", lambda side: os.chmod(side.at(path), mode)),
        (f"utime {path}", lambda side: set_time(side.at(path), mtime)),
    ]
    return choices.choice(calls)


def facts_of(found: os.stat_result) -> tuple[int, int]:
    """Size and link count of a file; nothing of a directory."""
    return (0, 0) if stat.S_ISDIR(found.st_mode) else (found.st_size, found.st_nlink)


def set_time(path: str, mtime_ns: int) -> int:
    """Set a time, and read it back."""
    os.utime(path, ns=(5, mtime_ns))
    return os.stat(path).st_mtime_ns


@pytest.mark.parametrize("seed", range(10))
def test_random_program_has_the_same_effects(scope: Path, tmp_path: Path, seed: int) -> None:
    """After each call both sides have answered alike; at the end both trees are equal."""
    choices = random.Random(seed)
    sides = [Side(scope / "Top"), Side(tmp_path / "plain")]
    for side in sides:
        side.top.mkdir()
    program = []
    try:
        for number in range(600):
            text, call = choose_call(choices)
            program.append(text)
            mounted, plain = (side.answer(call) for side in sides)
            assert mounted == plain, "\n".join(program)
            if number % 40 == 39:
                trees = [side.survey() for side in sides]
                assert trees[0] == trees[1], "\n".join(program)
    finally:
        for side in sides:
            for handle in range(HANDLES):
                side.close(handle)
    trees = [side.survey() for side in sides]
    assert trees[0] == trees[1], "\n".join(program)


@pytest.mark.parametrize("seed", [4, 9, 10, 11])
def test_names_show_versions_of_their_histories(scope: Path, seed: int) -> None:
    """After a random program every file that is not empty reads as a version in its history."""
    choices = random.Random(seed)
    side = Side(scope / "Top")
    side.top.mkdir()
    for _ in range(600):
        side.answer(choose_call(choices)[1])
    for handle in range(HANDLES):
        side.close(handle)
    found = []
    for path in scope.rglob("*"):
        if path.is_symlink() or not path.is_file() or not path.stat().st_size:
            continue
        assert path.read_bytes() in read_history(scope, str(path.relative_to(scope))), path
        found.append(path)
    assert found


def has_bytes(facts: object) -> bool:
    """Whether a line of a survey is of anything but an empty file."""
    kind, content = facts  # type: ignore[misc]
    return not kind.startswith("-") or content[1] > 0


def test_trees_outlive_kills(start: Callable[..., Mounted], tmp_path: Path) -> None:
    """After kill -9 and a remount the trees are what the calls before had made of them.

    Empty files are left out: nothing of them was acknowledged by a close.
    """
    choices = random.Random("kills")
    expected = {}
    mount = start("vault", "mnt0")
    for number in range(1, 7):
        top = f"Top{number}"
        sides = [Side(mount.make_scope() / top), Side(tmp_path / top)]
        for side in sides:
            side.top.mkdir()
        for _ in range(60):
            _, call = choose_call(choices)
            for side in sides:
                side.answer(call)
        for handle in range(HANDLES):
            for side in sides:
                side.close(handle)
        expected[top] = sides[1].survey()
        mount.kill()
        mount.check_log()
        mount = start("vault", f"mnt{number}")
        for name, tree in expected.items():
            found = Side(mount.make_scope() / name).survey()
            missing = {path for path in tree if has_bytes(tree[path])} - found.keys()
            assert not missing
            assert found == {path: tree[path] for path in found}
    assert sum(len(tree) for tree in expected.values()) > 20
    mount.stop()
    mount.check_log()
