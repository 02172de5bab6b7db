"""The mount against a directory of the machine's own file system, step by step.

A state machine gives both the same system calls and compares what they answer, errnos included, and
the whole tree with all that is open. Half of the programs are compared after every step; the others
at their end only, as looking at a file brings what the kernel has cached of it up to date.

Left out of the comparison, for semantics says so: sizes and links of directories (N10), access
times (N4), change times, times that nobody has set, and those of a file that was mapped, for the
kernel writes mapped pages when it likes. RENAME_EXCHANGE is refused (N7), set-group-id directories
give nothing to what is made in them, and writes beyond what the disk can hold end a session (S7).
"""

import ctypes
import errno
import mmap
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from tests.mount.conftest import Shared
from tests.mount.exploring import SIZES, Content, contents, digest, explore
from tests.mount.reading import read_history

NFC, NFD = "é".encode(), "e\u0301".encode()
LONGEST = b"n" * 255
NAMES = (b"a", b"A", b"b", NFC, NFD, b"\xff\xfe", b"two\nlines ", LONGEST, LONGEST + b"n")
COMMON = (b"a", b"b", b"D", b"D/a", b"D/b", b"d", b"d/a")
ODD = (
    *NAMES,
    b"D/E",
    b"D/E/a",
    b"d/D",
    b"d/D/a",
    b"D/" + NFC,
    b"D/" + LONGEST,
    b"D/.versions",
    b"d/.scopefs",
    b"d/" + NFD,
)
RESERVED = (b".versions", b".history")
"""Ordinary names in folders (P4)."""
TARGETS = (b"a", b"b", b"D", b"D/a", b"d", b"no", b"./E", b"/no/such\xff", b"x" * 4095, b"x" * 300)
OFFSETS = (0, 0, 1, 10, 4_095, 65_530, 65_536, 66_000, 150_000)
FILE_MODES = (0o644, 0o600, 0o755, 0o400, 0, 0o4755)
FOLDER_MODES = (0o755, 0o700, 0o1777)
SET_BEFORE_NS = 1_500_000_000_000_000_000
"""Earlier times were set by the program; all others are the time of a change."""
TIMES = (0, 1, 1_000_000_000_123_456_789, 1_499_999_999_999_999_999)
UNKNOWN = "unknown"
RENAME_NOREPLACE = 1
AT_FDCWD = -100
_LIBC = ctypes.CDLL(None, use_errno=True)

sizes = st.sampled_from(SIZES)
offsets = st.sampled_from(OFFSETS)
paths = st.sampled_from(COMMON * 8 + ODD)
names = st.sampled_from((b"a", b"b", NFC, b"D"))


class Side:
    """One of the two directories."""

    def __init__(self, top: bytes) -> None:
        self.top = top

    def at(self, path: bytes) -> bytes:
        """A path of the program, on this side."""
        return os.path.join(self.top, path)


class Pair:
    """Something that is open on both sides: descriptors or mappings."""

    def __init__(self, mounted: Any, plain: Any) -> None:
        self.both = (mounted, plain)


class Trees(RuleBasedStateMachine):
    """The same calls on both sides, and the same answers."""

    handles = Bundle("handles")
    folders = Bundle("folders")
    maps = Bundle("maps")

    def __init__(self, holder: Shared, directory: Path, *, in_scope: bool) -> None:
        super().__init__()
        self.holder = holder
        self.in_scope = in_scope
        number = next(holder.numbers)
        self.scope = holder.get().make_scope(f"model.s{number}")
        mounted = self.scope if in_scope else self.scope / "Work"
        plain = directory / f"plain{number}"
        self.sides = (Side(os.fsencode(mounted)), Side(os.fsencode(plain)))
        for side in self.sides:
            os.makedirs(side.top, exist_ok=True)
        self.open: list[Pair] = []
        self.mappings: list[Pair] = []
        self.open_folders: list[Pair] = []
        self.untimed: tuple[set[int], set[int]] = (set(), set())
        self.is_eager = True
        self.is_alike = True

    @initialize(is_eager=st.booleans(), furniture=st.none() | contents)
    def choose(self, is_eager: bool, furniture: Content | None) -> None:
        """Whether the trees are compared after every step; and what is there from the beginning."""
        self.is_eager = is_eager
        if furniture is not None:
            for side in self.sides:
                os.mkdir(side.at(b"D"))
                os.mkdir(side.at(b"d"))
                save(side.at(b"a"), furniture.make())
                save(side.at(b"D/a"), furniture.make())

    # Comparing

    def answers(self, call: Callable[[Side, int], Any]) -> list[Any]:
        """What a call returns on both sides, or its errno; they have to be equal."""
        found: list[Any] = []
        self.is_alike = False
        for number, side in enumerate(self.sides):
            try:
                found.append(call(side, number))
            except OSError as error:
                found.append(errno.errorcode[error.errno or 0])
            if number == 0 and self.in_scope and found == ["EXDEV"]:
                # The scopes of semantics N8: whoever asked has to copy; nothing was done.
                self.is_alike = True
                return ["EXDEV", "EXDEV"]
        return found

    def compare(self, call: Callable[[Side, int], Any]) -> Any:
        """Do the same on both sides; what is answered has to be equal."""
        mounted, plain = self.answers(call)
        if isinstance(mounted, bytes) and isinstance(plain, bytes):
            mounted, plain = digest(mounted), digest(plain)
        assert mounted == plain, f"the mount answers {mounted}, the plain directory {plain}"
        self.is_alike = True
        return mounted

    def obtain(self, call: Callable[[Side, int], Any], kept: list[Pair]) -> Any:
        """Open something on both sides; both have to succeed, or fail alike."""
        mounted, plain = self.answers(call)
        if isinstance(mounted, str) or isinstance(plain, str):
            if isinstance(mounted, int):
                os.close(mounted)
            if isinstance(plain, int):
                os.close(plain)
            assert mounted == plain, f"the mount answers {mounted}, the plain directory {plain}"
            self.is_alike = True
            return multiple()
        self.is_alike = True
        pair = Pair(mounted, plain)
        kept.append(pair)
        return pair

    def look(self) -> None:
        """Compare the trees and all that is open."""
        self.is_alike = False
        mounted, plain = (self.survey(side, number) for number, side in enumerate(self.sides))
        different = {
            path: (mounted.get(path), plain.get(path))
            for path in sorted(mounted.keys() | plain.keys())
            if mounted.get(path) != plain.get(path)
            and UNKNOWN not in (mounted.get(path), plain.get(path))
        }
        assert not different, "\n".join(
            ["the mount and the plain directory differ:"]
            + [f"  {path}: {there} | {here}" for path, (there, here) in different.items()]
        )
        self.is_alike = True

    def survey(self, side: Side, number: int) -> dict[str, object]:
        """All that a side shows."""
        found: dict[str, object] = {}
        first: dict[int, str] = {}
        below = [b""]
        while below:
            folder = below.pop()
            with os.scandir(side.at(folder) if folder else side.top) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = os.path.join(folder, entry.name)
                    facts = os.lstat(side.at(path))
                    kind = (stat.filemode(facts.st_mode), entry.is_dir(follow_symlinks=False))
                    if stat.S_ISDIR(facts.st_mode):
                        below.append(path)
                        time = None if self.in_scope else self.time_of(facts, number)
                        found[repr(path)] = (kind, time)
                        continue
                    content = (
                        os.readlink(side.at(path)) if stat.S_ISLNK(facts.st_mode)
                        else digest(read(side.at(path)))
                    )  # fmt: skip
                    same_as = first.setdefault(facts.st_ino, repr(path))
                    found[repr(path)] = (kind, facts.st_nlink, facts.st_size, content, same_as)
                    found[f"time of {path!r}"] = self.time_of(facts, number)
        for index, pair in enumerate(self.open):
            fd = pair.both[number]
            facts = os.fstat(fd)
            if stat.S_ISDIR(facts.st_mode):
                found[f"handle {index}"] = stat.filemode(facts.st_mode)
                continue
            found[f"handle {index}"] = (
                stat.filemode(facts.st_mode), facts.st_nlink, facts.st_size,
                os.lseek(fd, 0, os.SEEK_CUR), first.get(facts.st_ino),
            )  # fmt: skip
            found[f"time of handle {index}"] = self.time_of(facts, number)
        return found

    def time_of(self, facts: os.stat_result, number: int) -> object:
        """The mtime if a program has set it; None for the time of a change."""
        if facts.st_ino in self.untimed[number]:
            return UNKNOWN
        return facts.st_mtime_ns if facts.st_mtime_ns < SET_BEFORE_NS else None

    @invariant()
    def trees_are_alike(self) -> None:
        """All that both sides show is equal, after every step."""
        if self.is_eager:
            self.look()

    def forget_time(self, handle: Pair) -> None:
        """Compare the file's time no more."""
        for fd, inodes in zip(handle.both, self.untimed, strict=True):
            inodes.add(os.fstat(fd).st_ino)

    def teardown(self) -> None:
        """Close everything; the trees have to be equal then, and the daemon content."""
        try:
            if self.is_alike:
                self.look()
        finally:
            for pair in self.mappings:
                for mapping in pair.both:
                    mapping.close()
            for pair in (*self.open, *self.open_folders):
                for fd in pair.both:
                    os.close(fd)
            self.open.clear()
        try:
            if self.is_alike:
                self.look()
                self.check_histories()
                self.holder.check_new_log()
        finally:
            shutil.rmtree(self.sides[1].top)

    def check_histories(self) -> None:
        """What a name shows stands in its history (V5)."""
        if self.in_scope:
            return
        for directory, _, files in os.walk(self.scope):
            for name in files:
                path = os.path.join(directory, name)
                if os.path.islink(path) or not os.path.getsize(path):
                    continue
                content = read(os.fsencode(path))
                history = read_history(self.scope, os.path.relpath(path, self.scope))
                assert digest(content) in [digest(found) for found in history], path

    # Open files

    @rule(
        target=handles, path=paths,
        access=st.sampled_from((os.O_RDWR, os.O_WRONLY, os.O_RDONLY)),
        flags=st.sets(st.sampled_from((os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND))),
        mode=st.sampled_from(FILE_MODES),
    )  # fmt: skip
    def open_file(self, path: bytes, access: int, flags: set[int], mode: int) -> Any:
        for flag in flags:
            access |= flag
        if self.is_reserved(path):
            return multiple()
        return self.obtain(lambda side, _: os.open(side.at(path), access, mode), self.open)

    @rule(target=handles, path=paths, content=contents)
    def begin_file(self, path: bytes, content: Content) -> Any:
        """Open, create and write, which is what programs do most."""
        if self.is_reserved(path):
            return multiple()
        flags = os.O_RDWR | os.O_CREAT
        pair = self.obtain(lambda side, _: os.open(side.at(path), flags, 0o644), self.open)
        if isinstance(pair, Pair):
            self.compare(lambda _, number: os.write(pair.both[number], content.make()))
        return pair

    @rule(handle=consumes(handles))
    def close(self, handle: Pair) -> None:
        self.open.remove(handle)
        self.compare(lambda _, number: os.close(handle.both[number]))

    @rule(target=handles, handle=handles)
    def duplicate(self, handle: Pair) -> Any:
        return self.obtain(lambda _, number: os.dup(handle.both[number]), self.open)

    @rule(handle=handles, content=contents, offset=offsets | st.none())
    def write(self, handle: Pair, content: Content, offset: int | None) -> None:
        data = content.make()
        if offset is None:
            self.compare(lambda _, number: os.write(handle.both[number], data))
        else:
            self.compare(lambda _, number: os.pwrite(handle.both[number], data, offset))

    @rule(handle=handles, size=sizes, offset=offsets | st.none())
    def read(self, handle: Pair, size: int, offset: int | None) -> None:
        if offset is None:
            self.compare(lambda _, number: os.read(handle.both[number], size))
        else:
            self.compare(lambda _, number: os.pread(handle.both[number], size, offset))

    @rule(
        handle=handles, how=st.sampled_from(("fsync", "fdatasync", "seek", "chmod", "utime")),
        offset=st.sampled_from((*OFFSETS, -1, -10)), mode=st.sampled_from(FILE_MODES),
        whence=st.sampled_from((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)),
        mtime_ns=st.sampled_from(TIMES),
    )  # fmt: skip
    def tend(
        self, handle: Pair, how: str, offset: int, mode: int, whence: int, mtime_ns: int
    ) -> None:  # fmt: skip
        """What changes no content."""
        calls: dict[str, Callable[[int], Any]] = {
            "fsync": os.fsync,
            "fdatasync": os.fdatasync,
            "seek": lambda fd: os.lseek(fd, offset, whence),
            "chmod": lambda fd: os.fchmod(fd, mode),
            "utime": lambda fd: os.utime(fd, ns=(5, mtime_ns)),
        }
        self.compare(lambda _, number: calls[how](handle.both[number]))

    @rule(handle=handles, offset=offsets)
    def seek_data(self, handle: Pair, offset: int) -> None:
        """Holes are stored as zeros (U4): all is data, up to the end."""
        fd = handle.both[0]
        size = os.fstat(fd).st_size
        at = os.lseek(fd, 0, os.SEEK_CUR)
        for whence, expected in ((os.SEEK_DATA, offset), (os.SEEK_HOLE, size)):
            if offset < size:
                assert os.lseek(fd, offset, whence) == expected
            else:
                with pytest.raises(OSError, match="No such device"):
                    os.lseek(fd, offset, whence)
        os.lseek(fd, at, os.SEEK_SET)

    @rule(handle=handles, size=sizes)
    def ftruncate(self, handle: Pair, size: int) -> None:
        self.compare(lambda _, number: os.ftruncate(handle.both[number], size))

    @rule(source=handles, sink=handles, size=st.sampled_from((1, 5_000, 70_000)))
    def copy_range(self, source: Pair, sink: Pair, size: int) -> None:
        self.compare(
            lambda _, number: os.copy_file_range(source.both[number], sink.both[number], size)
        )

    # Mappings

    @rule(target=maps, handle=handles)
    def map(self, handle: Pair) -> Any:
        size = os.fstat(handle.both[1]).st_size
        if not size:
            return multiple()
        try:
            found = [mmap.mmap(fd, size) for fd in handle.both]
        except PermissionError:
            # Not open for reading and writing.
            return multiple()
        self.forget_time(handle)
        pair = Pair(*found)
        self.mappings.append(pair)
        return pair

    @rule(mapping=maps, offset=offsets, content=contents)
    def store(self, mapping: Pair, offset: int, content: Content) -> None:
        """Store where both files still reach: beyond their end a store is a SIGBUS."""
        end = min(len(mapping.both[0]), *(found.size() for found in mapping.both))
        data = content.make()[: max(0, end - offset)]
        if data:
            for found in mapping.both:
                found[offset : offset + len(data)] = data

    @rule(mapping=maps)
    def msync(self, mapping: Pair) -> None:
        self.compare(lambda _, number: mapping.both[number].flush())

    @rule(mapping=consumes(maps))
    def unmap(self, mapping: Pair) -> None:
        self.mappings.remove(mapping)
        for found in mapping.both:
            found.close()

    # Names

    @rule(path=paths, content=contents)
    def save(self, path: bytes, content: Content) -> None:
        if not self.is_reserved(path):
            self.compare(lambda side, _: save(side.at(path), content.make()))

    @rule(path=paths, size=sizes)
    def truncate(self, path: bytes, size: int) -> None:
        self.compare(lambda side, _: os.truncate(side.at(path), size))

    @rule(
        path=paths, other=paths,
        flags=st.sampled_from((0, 0, RENAME_NOREPLACE)),
    )  # fmt: skip
    def rename(self, path: bytes, other: bytes, flags: int) -> None:
        if self.is_reserved(path) or self.is_reserved(other):
            return
        answer = self.compare(lambda side, _: rename(side.at(path), side.at(other), flags))
        if answer == "EXDEV":
            assert self.crosses(path, other)

    @rule(path=paths, other=paths)
    def link(self, path: bytes, other: bytes) -> None:
        if self.is_reserved(path) or self.is_reserved(other):
            return
        if self.compare(lambda side, _: os.link(side.at(path), side.at(other))) == "EXDEV":
            assert self.crosses(path, other)

    @rule(path=paths, to=st.sampled_from(TARGETS))
    def symlink(self, path: bytes, to: bytes) -> None:
        if not self.is_reserved(path):
            self.compare(lambda side, _: os.symlink(to, side.at(path)))

    @rule(path=paths)
    def unlink(self, path: bytes) -> None:
        self.compare(lambda side, _: os.unlink(side.at(path)))

    @rule(path=paths, mode=st.sampled_from(FOLDER_MODES))
    def mkdir(self, path: bytes, mode: int) -> None:
        if not self.is_reserved(path):
            self.compare(lambda side, _: os.mkdir(side.at(path), mode))

    @rule(path=paths)
    def rmdir(self, path: bytes) -> None:
        self.compare(lambda side, _: os.rmdir(side.at(path)))

    @rule(path=paths, mode=st.sampled_from((*FILE_MODES, *FOLDER_MODES)))
    def chmod(self, path: bytes, mode: int) -> None:
        self.compare(lambda side, _: os.chmod(side.at(path), mode))

    @rule(
        path=paths, mtime_ns=st.sampled_from(TIMES), follow=st.booleans()
    )  # fmt: skip
    def utimens(self, path: bytes, mtime_ns: int, follow: bool) -> None:
        self.compare(
            lambda side, _: os.utime(side.at(path), ns=(5, mtime_ns), follow_symlinks=follow)
        )

    @rule(path=paths, how=st.sampled_from(("stat", "read", "readlink", "listdir")))
    def ask(self, path: bytes, how: str) -> None:
        calls: dict[str, Callable[[bytes], Any]] = {
            "stat": lambda path: facts_of(os.stat(path)),
            "read": read,
            "readlink": os.readlink,
            "listdir": lambda path: sorted(os.listdir(path)),
        }
        self.compare(lambda side, _: calls[how](side.at(path)))

    # Open directories

    @rule(target=folders, path=paths)
    @precondition(lambda self: not self.in_scope)
    def open_folder(self, path: bytes) -> Any:
        flags = os.O_RDONLY | os.O_DIRECTORY
        return self.obtain(lambda side, _: os.open(side.at(path), flags), self.open_folders)

    @rule(
        folder=folders, name=names, how=st.sampled_from(("create", "mkdir", "list", "fsync"))
    )  # fmt: skip
    def work_in(self, folder: Pair, name: bytes, how: str) -> None:
        """In a directory that may have been moved or removed."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        calls: dict[str, Callable[[int], Any]] = {
            "create": lambda fd: os.close(os.open(name, flags, dir_fd=fd)),
            "mkdir": lambda fd: os.mkdir(name, dir_fd=fd),
            "list": lambda fd: sorted(os.listdir(fd)),
            "fsync": os.fsync,
        }
        self.compare(lambda _, number: calls[how](folder.both[number]))

    @rule(folder=folders, name=names, other=folders, new_name=names)
    def rename_at(self, folder: Pair, name: bytes, other: Pair, new_name: bytes) -> None:
        self.compare(
            lambda _, number: os.rename(
                name, new_name, src_dir_fd=folder.both[number], dst_dir_fd=other.both[number]
            )
        )

    @rule(folder=consumes(folders))
    def close_folder(self, folder: Pair) -> None:
        self.open_folders.remove(folder)
        self.compare(lambda _, number: os.close(folder.both[number]))

    # Scopes

    def is_reserved(self, path: bytes) -> bool:
        """Whether a path may lead to a scope's own names, which are refused there (P4)."""
        return self.in_scope and os.path.basename(path) in RESERVED

    def crosses(self, path: bytes, other: bytes) -> bool:
        """Whether two paths are of different scopes, or of a scope and a folder (N8)."""
        is_directory = self.is_directory(path)
        return self.place(path, is_directory) != self.place(other, is_directory)

    def is_directory(self, path: bytes) -> bool:
        """Whether a path leads to a directory itself, in a scope."""
        plain = self.sides[1].at(path)
        return self.in_scope and os.path.isdir(plain) and not os.path.islink(plain)

    def place(self, path: bytes, is_directory: bool) -> tuple[bytes, bool]:
        """The subcategory that something at a path is in, and whether it is its own directory."""
        plain = self.sides[1]
        folder = os.path.realpath(plain.at(os.path.dirname(path)))
        real = os.path.relpath(os.path.join(folder, os.path.basename(path)), plain.top)
        first, _, rest = real.partition(b"/")
        is_scope = first.isalpha() and first.islower() and (is_directory or bool(rest))
        return (first, not rest) if is_scope else (b"", False)


def facts_of(facts: os.stat_result) -> tuple[object, ...]:
    """What stat says, as far as it is compared."""
    kind = stat.filemode(facts.st_mode)
    is_directory = stat.S_ISDIR(facts.st_mode)
    return (kind,) if is_directory else (kind, facts.st_size, facts.st_nlink)


def read(path: bytes) -> bytes:
    """The content of a file."""
    with open(path, "rb") as file:
        return file.read()


def save(path: bytes, content: bytes) -> None:
    """Overwrite a file, as an editor does that does not care."""
    with open(path, "wb") as file:
        file.write(content)


def rename(path: bytes, other: bytes, flags: int) -> None:
    """renameat2(2)."""
    if _LIBC.renameat2(AT_FDCWD, path, AT_FDCWD, other, flags):
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.mark.parametrize("in_scope", [False, True], ids=["folder", "scope"])
def test_mount_answers_as_a_plain_directory(
    shared_holder: Shared, tmp_path: Path, in_scope: bool
) -> None:
    """In a folder, and in a scope's own directory, where subcategories are scopes (N8)."""
    explore(lambda: Trees(shared_holder, tmp_path, in_scope=in_scope))
