"""Sessions against a plain model: which versions there are, where, and in which order.

A state machine opens, writes, renames, links, removes and puts, and a model of a hundred lines says
what docs/semantics.md (S1-S8, S10, N7, V5) makes of it. After every step `.versions` and the events
are compared with the finished sessions of the model; names, contents and `.history` after every
step in half of the programs, and at the end in the others, for reading a file brings the mount up
to date.
"""

import errno
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
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

from scopefs import Vault
from tests.mount.conftest import Shared
from tests.mount.exploring import SIZES, Content, contents, digest, explore
from tests.mount.reading import list_stamps, read_history
from tests.mounting import Mounted, run_scopefs, start_mount, wait_until

WITHDRAWS = True
"""Whether the version of a file that its writer removes at once is withdrawn."""
SCRATCH = True
"""Whether scratch names make no versions."""
WITHDRAWN_WITHIN_S = 10.0

NAMES = ("a.txt", "b.txt", "c")
SCRATCH_NAMES = ("a.txt~", "b.part", ".c.swp") if SCRATCH else ()
FOLDERS = ("Box", "Pack")
PATHS = (*NAMES, *SCRATCH_NAMES, "Box/a.txt", "Box/c", "Pack/c")
_SCRATCH = re.compile(r".*~|.*\.part|\..*\.sw.")
TOO_FAR = 1 << 60
"""Where no file of ext4 can reach: a write there fails with EFBIG."""

paths = st.sampled_from(("a.txt", "a.txt", "a.txt", "b.txt", *PATHS))
sizes = st.sampled_from(SIZES)
offsets = st.sampled_from((0, 0, 1, 10, 65_530, 66_000))
small = st.builds(Content, st.sampled_from((1, 5, 100)), st.integers(0, 9), st.booleans())
saved = small | contents.filter(lambda content: content.size > 0)


@dataclass(eq=False)
class Bearing:
    """One time in which a file bore one name."""

    file: "File"
    versions: set[int] = field(default_factory=set)
    """Published or shown meanwhile, by their numbers."""
    before: "list[Bearing]" = field(default_factory=list)
    """What the file was before the rename that brought it here, and what it replaced."""


@dataclass(eq=False)
class File:
    """A file, whatever it is called."""

    content: bytes = b""
    """As of the last publication, by any door."""
    shows: int | None = None
    """The version that it shows, by its number."""
    followed: bytes = b""
    """As of the last open or publication through the mount."""
    session: bytes | None = None
    has_failed: bool = False
    is_closed: bool = False
    """Whether a descriptor that wrote was closed since the last change."""
    is_recorded: bool = True
    """Whether the name outlives a first session that fails (S7)."""
    is_removed: bool = False
    is_lost: bool = False
    """Vanished with its first session (S7): nothing is said about what comes after."""
    unpublished: bool = False
    """Whether it was written under a scratch name since its last version."""
    bearings: dict[str, Bearing] = field(default_factory=dict)
    last_name: str = ""
    opened: "list[Opened]" = field(default_factory=list)
    names_borne: int = 0
    published: list[int] = field(default_factory=list)
    released_at: float | None = None
    """When the RELEASE came that published its newest version; None if none did."""
    was_truncated: bool = False
    """Whether truncate(2) has published; nothing is said about its withdrawal."""

    @property
    def current(self) -> bytes:
        """What the name reads as, through the mount."""
        return self.content if self.session is None else self.session


@dataclass(eq=False)
class Opened:
    """An open file description."""

    file: File
    base: bytes
    """What a session through it starts from (S4)."""
    appends: bool
    fds: int = 1
    wrote: bool = False
    was_refused: bool = False
    """Whether a write failed before it had a part in a session."""

    @property
    def is_stale(self) -> bool:
        """Whether another door has published since."""
        return self.file.session is None and self.base != self.file.content


@dataclass(eq=False)
class Handle:
    """A descriptor."""

    fd: int
    of: Opened


class Model:
    """Names, files and versions of one scope: semantics S, N5, N7 and V5."""

    def __init__(self) -> None:
        self.versions: dict[int, bytes] = {}
        self.live: dict[str, Bearing] = {}
        self.folders: dict[str, int] = {}
        """The live folders, by name; a folder that is made again is another one."""
        self.past_folders: dict[str, set[int]] = {}
        self.past: dict[tuple[int, str], list[Bearing]] = {}
        self.count = 0
        self.withdrawn = 0

    def split(self, path: str) -> tuple[int, str] | None:
        """The folder and the name in it; None if the folder is not there."""
        folder, _, name = path.rpartition("/")
        if not folder:
            return 0, name
        return (self.folders[folder], name) if folder in self.folders else None

    def make_folder(self, name: str, number: int | None = None) -> None:
        """A new folder, or one that was renamed."""
        self.count += 1
        self.folders[name] = number or self.count
        self.past_folders.setdefault(name, set()).add(self.folders[name])

    def bear(self, path: str, file: File, before: list[Bearing]) -> None:
        """Give a file a name."""
        place = self.split(path)
        assert place is not None
        bearing = Bearing(file, before=before)
        if file.shows is not None:
            bearing.versions.add(file.shows)
        self.live[path] = file.bearings[path] = bearing
        file.last_name = path
        self.past.setdefault(place, []).append(bearing)
        file.names_borne += 1

    def end(self, path: str) -> Bearing:
        """Take a name away."""
        bearing = self.live.pop(path)
        del bearing.file.bearings[path]
        bearing.file.last_name = path
        return bearing

    def publish(self, file: File, content: bytes) -> None:
        """One more version, which the names of its file show."""
        self.count += 1
        self.versions[self.count] = content
        file.content, file.shows, file.unpublished = content, self.count, False
        file.published.append(self.count)
        for bearing in file.bearings.values():
            bearing.versions.add(self.count)

    def show_empty(self, file: File) -> None:
        """No version, and an empty file (S3)."""
        file.content, file.shows, file.unpublished = b"", None, False

    def begin(self, opened: Opened, *, keep: bool = True) -> None:
        """The first change of a session (S1, S4)."""
        file = opened.file
        if file.is_closed and not (opened.wrote or file.has_failed or file.is_removed):
            self.finish(file)
        file.is_closed = False
        if file.session is None:
            file.session = (file.content if opened.appends else opened.base) if keep else b""
            file.has_failed = False
        file.has_failed = file.has_failed or opened.was_refused
        opened.wrote = True

    def write(self, opened: Opened, offset: int, data: bytes) -> None:
        """A write that succeeded."""
        self.begin(opened)
        file = opened.file
        assert file.session is not None
        offset = len(file.session) if opened.appends else offset
        head = file.session[:offset].ljust(offset, b"\0")
        file.session = head + data + file.session[offset + len(data) :]

    def resize(self, opened: Opened, size: int) -> None:
        """A truncation or extension; to the size that it has, nothing."""
        file = opened.file
        shown = file.followed if file.session is None else file.session
        if len(shown) != size:
            self.begin(opened, keep=size > 0)
            assert file.session is not None
            file.session = file.session[:size].ljust(size, b"\0")

    def release(self, opened: Opened) -> None:
        """The last close of a description; the last one of those that wrote ends the session."""
        file = opened.file
        file.opened.remove(opened)
        if any(other.wrote for other in file.opened):
            return
        self.finish(file)

    def close(self, opened: Opened) -> None:
        """The close of a descriptor, which is that of a description or not."""
        file = opened.file
        if opened.wrote and file.session is not None:
            file.is_closed = not file.has_failed

    def finish(self, file: File) -> None:
        """The end of a session, if there is one."""
        if file.session is None:
            file.is_recorded = True
            return
        file.is_closed = False
        for other in file.opened:
            if other.wrote:
                other.wrote = other.was_refused = False
        content, file.session = file.session, None
        if file.is_removed:
            # For whoever still has it open, it is what it was.
            return
        if file.has_failed:
            if not file.is_recorded:
                file.is_lost = True
                for path in list(file.bearings):
                    self.end(path)
        elif not content:
            self.show_empty(file)
        elif self.is_scratch(file):
            file.content, file.shows, file.unpublished = content, None, True
        else:
            self.publish(file, content)
            file.released_at = time.monotonic()
        file.is_recorded = True
        if not file.has_failed:
            self.follow(file)
            for other in file.opened:
                other.base = file.content

    def follow(self, file: File) -> None:
        """The mount knows what is shown now."""
        file.followed = file.content

    def is_scratch(self, file: File) -> bool:
        """Whether all its names are scratch; or, if it has none any more, the last one was."""
        names = [path.rpartition("/")[2] for path in file.bearings or [file.last_name]]
        return SCRATCH and all(_SCRATCH.fullmatch(name) for name in names)

    def rename(self, path: str, other: str) -> None:
        """N7, S5."""
        file = self.live[path].file
        target = self.live.get(other)
        if target is not None and target.file is file:
            return
        was_scratch = self.is_scratch(file)
        before = [self.end(path)]
        if target is not None:
            before.append(self.end(other))
            target.file.is_recorded = True
        file.is_recorded = True
        self.bear(other, file, before)
        if was_scratch and not self.is_scratch(file) and file.unpublished:
            # What was closed, though it is being changed.
            self.publish(file, file.content)
            self.follow(file)
            for opened in file.opened:
                opened.base = file.content

    def rename_folder(self, name: str, other: str) -> None:
        """What a folder holds goes with it."""
        self.make_folder(other, self.folders.pop(name))
        for path in [path for path in self.live if path.startswith(f"{name}/")]:
            bearing = self.live.pop(path)
            bearing.file.is_recorded = True
            moved = other + path[len(name) :]
            del bearing.file.bearings[path]
            self.live[moved] = bearing.file.bearings[moved] = bearing

    def unlink(self, path: str) -> None:
        """S5, and the withdrawal of what was temporary."""
        file = self.live[path].file
        bearing = self.end(path)
        if file.bearings:
            return
        file.is_removed = True
        if WITHDRAWS and self.would_withdraw(file):
            (version,) = file.published
            del self.versions[version]
            bearing.versions.discard(version)
            self.withdrawn += 1

    def would_withdraw(self, file: File) -> bool:
        """Whether the end of its last name withdraws its version."""
        is_new = len(file.published) == file.names_borne == 1 and file.shows == file.published[0]
        return is_new and file.released_at is not None

    def history(self, path: str) -> list[bytes]:
        """The payloads of `.history/PATH`, oldest first."""
        folder, _, name = path.rpartition("/")
        if SCRATCH and _SCRATCH.fullmatch(name):
            return []
        todo = [
            bearing
            for number in (self.past_folders.get(folder, set()) if folder else {0})
            for bearing in self.past.get((number, name), [])
        ]
        seen: set[int] = set()
        found: set[int] = set()
        while todo:
            bearing = todo.pop()
            if id(bearing) not in seen:
                seen.add(id(bearing))
                found |= bearing.versions
                todo += bearing.before
        return [self.versions[number] for number in sorted(found & self.versions.keys())]


class Doors:
    """The module's mount, and the library that opened the same vault in this process."""

    def __init__(self, holder: Shared) -> None:
        self.holder = holder
        self.opened: Vault | None = None
        self.refuses_far_writes = False

    def get(self) -> Mounted:
        """The running mount."""
        mounted = self.holder.get()
        if self.opened is None or self.opened.layout.root != mounted.vault:
            self.close()
            self.opened = Vault.open(mounted.vault)
            self.refuses_far_writes = refuses_far_writes(mounted.vault.parent)
        return mounted

    def library(self) -> Vault:
        """The open vault."""
        assert self.opened is not None
        return self.opened

    def remount(self) -> Mounted:
        """Unmount, and mount again at the same place."""
        mounted = self.get()
        mounted.stop()
        self.holder.check_new_log()
        self.holder.seen = 0
        self.holder.mounted = start_mount(mounted.vault, mounted.point)
        return self.holder.mounted

    def close(self) -> None:
        """Let go of the vault."""
        if self.opened is not None:
            self.opened.close()
            self.opened = None


def refuses_far_writes(directory: Path) -> bool:
    """Whether the file system has a limit that a write can hit: ext4 has, tmpfs has none."""
    path = directory / "far"
    with path.open("wb", buffering=0) as file:
        try:
            os.pwrite(file.fileno(), b"x", TOO_FAR)
        except OSError:
            return True
        finally:
            path.unlink()
    return False


def digests(contents: Iterable[bytes]) -> list[str]:
    """Contents for a message."""
    return [digest(content) for content in contents]


def list_files(scope: Path) -> set[str]:
    """The names of a scope."""
    return {
        os.path.relpath(os.path.join(directory, name), scope)
        for directory, _, names in os.walk(scope)
        for name in names
    }


def read_patiently(path: Path, file: File) -> bytes:
    """What a name reads as; once the RELEASE of a session that failed is through."""
    deadline = time.monotonic() + 2
    while True:
        fd = os.open(path, os.O_RDONLY)
        try:
            content = os.read(fd, 1 << 20)
        finally:
            os.close(fd)
        if content == file.current or not file.has_failed or time.monotonic() > deadline:
            return content


class Sessions(RuleBasedStateMachine):
    """The same actions on a scope and on the model."""

    handles = Bundle("handles")

    def __init__(self, doors: "Doors") -> None:
        super().__init__()
        self.doors = doors
        self.name = f"model.v{next(doors.holder.numbers)}"
        self.scope = doors.get().make_scope(self.name)
        self.door = doors.library()
        self.model = Model()
        self.open: list[Handle] = []
        self.payloads: dict[str, bytes] = {}
        self.writes = 0
        self.is_eager = True
        self.may_remount = False
        self.is_right = True
        self.has_failed = False
        """Whether a session failed: nobody waits for its end (S2)."""

    @initialize(
        is_eager=st.booleans(), is_furnished=st.booleans(), dice=st.sampled_from(range(12))
    )  # fmt: skip
    def choose(self, is_eager: bool, is_furnished: bool, dice: int) -> None:
        """How closely to look; and whether this program may remount, which takes a second."""
        self.is_eager = is_eager
        self.may_remount = dice == 11
        for folder in FOLDERS[:1]:
            (self.scope / folder).mkdir()
            self.model.make_folder(folder)
        if is_furnished:
            for number in range(2):
                self.save("a.txt", Content(5, number))

    def make(self, content: Content) -> bytes:
        """Bytes that no earlier version has."""
        self.writes += 1
        return b"%d:" % self.writes + content.make()

    # What is compared

    @invariant()
    def versions_are_those_of_the_model(self) -> None:
        """`.versions`, the library and the events have one version for each finished session."""
        self.is_right = False
        stamps = list_stamps(self.scope)
        found = self.door.versions(self.name)[::-1]
        payloads = []
        for version in found:
            if version.stamp not in self.payloads:
                self.payloads[version.stamp] = self.door.read_payload(version)
            payloads.append(self.payloads[version.stamp])
        expected = list(self.model.versions.values())
        assert digests(payloads) == digests(expected)
        assert [f"{version.stamp}.json" for version in found] == stamps
        if stamps:
            assert os.readlink(self.scope / ".versions" / "latest.json") == stamps[-1]
        if self.is_eager:
            self.names_are_those_of_the_model()
            self.histories_are_those_of_the_model()
        self.is_right = True

    def names_are_those_of_the_model(self) -> None:
        """Every name is there and reads as what was written last."""
        if list_files(self.scope) != self.model.live.keys() and self.has_failed:
            with suppress(AssertionError):
                wait_until(lambda: list_files(self.scope) == self.model.live.keys(), 2)
        assert list_files(self.scope) == self.model.live.keys()
        for path, bearing in self.model.live.items():
            content = read_patiently(self.scope / path, bearing.file)
            self.opened(bearing.file)
            if bearing.file.session is None:
                # Its first close, though a reader's.
                bearing.file.is_recorded = True
            assert digest(content) == digest(bearing.file.current), path
            assert (self.scope / path).stat().st_size == len(content)

    def histories_are_those_of_the_model(self) -> None:
        """`.history/NAME` holds what V5 says, for every name that ever was."""
        for path in (*PATHS, *(f"{folder}/{name}" for folder in FOLDERS for name in NAMES)):
            found: list[bytes] = []
            with suppress(FileNotFoundError):
                found = read_history(self.scope, path)
            assert digests(found) == digests(self.model.history(path)), path

    def opened(self, file: File) -> None:
        """An open brings the mount's idea of a file up to date, unless it is being written."""
        if file.session is None:
            self.model.follow(file)

    def teardown(self) -> None:
        """After the last close: everything, once more."""
        try:
            if self.is_right:
                for handle in list(self.open):
                    self.close(handle)
                self.versions_are_those_of_the_model()
                self.names_are_those_of_the_model()
                self.histories_are_those_of_the_model()
                self.log_has_the_versions()
                self.doors.holder.check_new_log()
        finally:
            for handle in self.open:
                with suppress(OSError):
                    os.close(handle.fd)

    def log_has_the_versions(self) -> None:
        """The events of the scope, which `scopefs log` prints, have every version once."""
        events = self.door.events(limit=10_000, scope=self.name)
        assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
        logged = [event["collectedAt"] for event in events if event["op"] == "version"]
        found = [version.collected_at for version in self.door.versions(self.name)[::-1]]
        assert [at for at in logged if WITHDRAWS is False or at in found] == found

    # Open files

    @rule(target=handles, path=paths, trunc=st.booleans(), append=st.booleans())
    def open_file(self, path: str, trunc: bool, append: bool) -> Any:
        if self.model.split(path) is None:
            return multiple()
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC * trunc | os.O_APPEND * append
        fd = os.open(self.scope / path, flags, 0o644)
        bearing = self.model.live.get(path)
        if bearing is None:
            file = File(is_recorded=False)
            self.model.bear(path, file, [])
        else:
            file = bearing.file
        self.opened(file)
        opened = Opened(file, file.followed, append)
        file.opened.append(opened)
        if trunc:
            self.model.resize(opened, 0)
        return self.keep(fd, opened)

    def keep(self, fd: int, opened: Opened) -> Handle:
        """Remember a descriptor."""
        handle = Handle(fd, opened)
        self.open.append(handle)
        return handle

    @rule(handle=handles, content=saved, offset=offsets)
    def write(self, handle: Handle, content: Content, offset: int) -> None:
        if handle.of.file.is_lost:
            return
        data = self.make(content)
        assert os.pwrite(handle.fd, data, offset) == len(data)
        self.model.write(handle.of, offset, data)

    @rule(handle=handles)
    @precondition(lambda self: self.doors.refuses_far_writes)
    def fail(self, handle: Handle) -> None:
        """A write that fails, and is not repeated (S7)."""
        if handle.of.file.is_lost or handle.of.appends:
            return
        with pytest.raises(OSError, match="too large"):
            os.pwrite(handle.fd, b"x", TOO_FAR)
        if handle.of.wrote:
            handle.of.file.has_failed = True
        else:
            handle.of.was_refused = True
        self.has_failed = True

    @rule(handle=handles, size=sizes)
    def ftruncate(self, handle: Handle, size: int) -> None:
        if handle.of.file.is_lost or handle.of.is_stale:
            return
        os.ftruncate(handle.fd, size)
        self.model.resize(handle.of, size)

    @rule(target=handles, handle=handles)
    def duplicate(self, handle: Handle) -> Handle:
        handle.of.fds += 1
        return self.keep(os.dup(handle.fd), handle.of)

    @rule(handle=consumes(handles))
    def close(self, handle: Handle) -> None:
        self.open.remove(handle)
        opened = handle.of
        told: int | None = None
        try:
            os.close(handle.fd)
        except OSError as error:
            told = error.errno
        assert told is None or (told == errno.EFBIG and opened.file.has_failed)
        self.model.close(opened)
        opened.fds -= 1
        if not opened.fds:
            self.model.release(opened)

    # Whole actions

    @rule(path=paths, content=saved)
    def save(self, path: str, content: Content) -> None:
        """`>`"""
        self.act(path, self.make(content), trunc=True, append=False)

    @rule(path=paths, how=st.sampled_from(("empty", "touch", "fsync")))
    def make_no_version(self, path: str, how: str) -> None:
        """`: >`, `touch`, `chmod`, `sync`."""
        if how == "empty":
            self.act(path, b"", trunc=True, append=False)
        elif path in self.model.live and how == "touch":
            os.chmod(self.scope / path, 0o600)
            os.utime(self.scope / path)
        for handle in self.open if how == "fsync" else ():
            os.fsync(handle.fd)
            if handle.of.file.session is None:
                handle.of.file.is_recorded = True

    @rule(path=paths, content=saved)
    def append(self, path: str, content: Content) -> None:
        """`>>`"""
        self.act(path, self.make(content), trunc=False, append=True)

    def act(self, path: str, data: bytes, *, trunc: bool, append: bool) -> None:
        """Open, write, close."""
        handle = self.open_file(path, trunc, append)
        if isinstance(handle, Handle):
            if data:
                assert os.write(handle.fd, data) == len(data)
                self.model.write(handle.of, 0, data)
            self.close(handle)

    @rule(path=paths, content=saved)
    def save_and_rename(self, path: str, content: Content) -> None:
        """What careful programs do: one version under the final name."""
        if self.model.split(path) is not None and "new" not in self.model.live:
            self.save("new", content)
            self.rename("new", path)

    @rule(path=paths, size=sizes)
    def truncate(self, path: str, size: int) -> None:
        """A session of its own, unless somebody else is writing."""
        bearing = self.model.live.get(path)
        if bearing is None:
            return
        file = bearing.file
        os.truncate(self.scope / path, size)
        self.opened(file)
        opened = Opened(file, file.followed, appends=False)
        file.opened.append(opened)
        self.model.resize(opened, size)
        if opened.wrote:
            file.was_truncated = True
            self.model.release(opened)
        else:
            file.opened.remove(opened)

    # Names

    @rule(path=paths, other=paths)
    def rename(self, path: str, other: str) -> None:
        if path in self.model.live and self.model.split(other) is not None:
            os.rename(self.scope / path, self.scope / other)
            self.model.rename(path, other)

    @rule(path=paths, other=paths)
    def link(self, path: str, other: str) -> None:
        if path not in self.model.live or other in self.model.live:
            return
        if self.model.split(other) is None or {path, other} & set(SCRATCH_NAMES):
            return
        os.link(self.scope / path, self.scope / other)
        file = self.model.live[path].file
        file.is_recorded = True
        self.model.bear(other, file, [])

    @rule(path=paths)
    def unlink(self, path: str) -> None:
        bearing = self.model.live.get(path)
        if bearing is None:
            return
        file = bearing.file
        if WITHDRAWS and self.model.would_withdraw(file):
            age_s = time.monotonic() - (file.released_at or 0)
            if age_s > WITHDRAWN_WITHIN_S - 2 or file.was_truncated:
                return
        os.unlink(self.scope / path)
        self.model.unlink(path)

    @rule()
    def rename_folder(self) -> None:
        for name, other in (FOLDERS, FOLDERS[::-1]):
            if name in self.model.folders and other not in self.model.folders:
                os.rename(self.scope / name, self.scope / other)
                self.model.rename_folder(name, other)
                return

    @rule()
    def remake_folder(self) -> None:
        """`rm -r` of a folder, and another one of its name."""
        for name in list(self.model.folders):
            for path in [path for path in self.model.live if path.startswith(f"{name}/")]:
                self.unlink(path)
            if not any(path.startswith(f"{name}/") for path in self.model.live):
                (self.scope / name).rmdir()
                (self.scope / name).mkdir()
                self.model.make_folder(name)

    # Other doors

    @rule(path=paths | st.none(), content=saved)
    def put(self, path: str | None, content: Content) -> None:
        """The library, in another process than the mount's; also without a name."""
        if path is None:
            data = self.make(content)
            self.door.put(self.name, data)
            self.model.count += 1
            self.model.versions[self.model.count] = data
            return
        bearing = self.model.live.get(path)
        if self.model.split(path) is None or path in SCRATCH_NAMES:
            return
        if bearing is not None and not bearing.file.is_recorded:
            # Two files would take the name at once; nothing is said about that.
            return
        data = self.make(content)
        self.door.put(self.name, data, name=path)
        if bearing is None:
            self.model.bear(path, File(), [])
        file = self.model.live[path].file
        self.model.publish(file, data)
        file.released_at = None

    @precondition(lambda self: self.may_remount and not self.open)
    @rule()
    def remount(self) -> None:
        """Everything is as it was."""
        self.may_remount = False
        self.scope = self.doors.remount().make_scope(self.name)
        for bearing in self.model.live.values():
            bearing.file.released_at = None


@pytest.fixture
def doors(shared_holder: Shared) -> Iterator[Doors]:
    """The mount and the library."""
    found = Doors(shared_holder)
    yield found
    found.close()


def test_versions_are_the_finished_sessions(doors: Doors) -> None:
    """`.versions`, `.history`, names and events are what the model says; so is `scopefs log`."""
    last: list[Sessions] = []

    def begin() -> Sessions:
        last[:] = [Sessions(doors)]
        return last[0]

    explore(begin)
    done = run_scopefs("log", "--json", last[0].name, vault=doors.get().vault)
    logged = [event for event in json.loads(done.stdout) if event["op"] == "version"]
    assert len(logged) == len(last[0].model.versions) + last[0].model.withdrawn
