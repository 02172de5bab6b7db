"""Where a row of docs/tools.md is played: the files that it finds, its run, and what it left."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.mount.reading import list_stamps, read_history
from tests.mount.tools.contents import BIG, CONTENTS, GONE, NEW, OLD, WORDS
from tests.mount.tools.table import Row, read_sections
from tests.mounting import PATIENCE_S, Mounted, wait_until

ORPHANS_PATIENCE_S = 10.0
PARTIAL = "partial/"
SOURCE_MTIME_S = 981_173_106
"""2001-02-03T04:05:06Z: older than what a test writes."""
SCRATCH = (
    ".*.sw?", "*~", "#*#", ".#*", ".~lock.*#", "~$*", "._*", ".DS_Store", "*.part",
    "*.crdownload", "*.aria2", "*.aria2__temp", ".goutputstream-*", "*-journal", "*-wal", "*-shm",
)  # fmt: skip
SCRATCH_DIRECTORY = ".rsync-partial"


def rows_of(section: str) -> pytest.MarkDecorator:
    """Runs a test with each row of a section."""
    rows = [pytest.param(row, id=row.action) for row in read_sections()[section]]
    return pytest.mark.parametrize("row", rows)


@dataclass(frozen=True)
class Outcome:
    """What a row left behind."""

    exit_code: int
    output: str
    leaves: dict[str, bytes | str | None]
    """By name: content; `-> TARGET`; None for an empty directory."""
    versions: list[str]
    """The SHA-256 of each new version's payload, by time."""
    partial: list[bytes]


class Stage:
    """A scope with the file `f`, and what lies outside of it."""

    def __init__(self, mounted: Mounted, scope: Path, outside: Path, url: str) -> None:
        self.mounted = mounted
        self.scope = scope
        source = outside / "source"
        (source / "Sub").mkdir(parents=True)
        for name in ("f", "Sub/g"):
            (source / name).write_bytes(NEW)
            os.utime(source / name, (SOURCE_MTIME_S, SOURCE_MTIME_S))
        (outside / "big").write_bytes(BIG)
        for name in ("home", "empty", "bin"):
            (outside / name).mkdir()
        (outside / "bin" / "python3").symlink_to(sys.executable)
        typing = outside / "bin" / "typing"
        keys = Path(__file__).with_name("typing_keys.py")
        typing.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{keys}" "$@"\n')
        typing.chmod(0o755)
        self.environment = {
            "S": str(source / "f"), "B": str(outside / "big"), "D": str(source),
            "T": str(outside / "empty"), "U": url, "HOME": str(outside / "home"),
            "TMPDIR": str(outside / "home"), "LC_ALL": "C", "TZ": "UTC", "TERM": "xterm",
            "PATH": f"{outside / 'bin'}:/usr/bin:/bin:{os.environ['PATH']}",
        }  # fmt: skip
        # Both keep no backups of what lies below /tmp, as this does.
        (outside / "home" / ".vimrc").write_text("set nocompatible backupskip=\n")
        (outside / "home" / ".emacs").write_text("(setq backup-enable-predicate 'identity)\n")
        self.log = outside / "log"
        (scope / "f").write_bytes(OLD)

    def check(self, row: Row) -> None:
        """Run the command of a row: what comes of it is what its columns say."""
        check_outcome(row, self.play(row), self.environment, self.scope)

    def play(self, row: Row) -> Outcome:
        """Run the command of a row, and look at what it left."""
        stamps = list_stamps(self.scope)
        kept = set(self._list_partial())
        exit_code = self._run(row.command)
        # Listing the versions waits for them, so it comes first.
        versions = [read_sha256(self.scope, stamp) for stamp in list_stamps(self.scope)
                    if stamp not in stamps]  # fmt: skip
        partial = [path for path in self._list_partial() if path not in kept]
        for path in partial:
            story = json.loads(path.with_suffix(".json").read_bytes())
            assert story["scope"] == ".".join(self.scope.parts[-2:])
            assert story["name"]
            assert story["reason"]
            assert story["process"]
        return Outcome(
            exit_code, self.log.read_text(errors="replace"), list_leaves(self.scope), versions,
            [path.read_bytes() for path in partial],
        )  # fmt: skip

    def _list_partial(self) -> list[Path]:
        return sorted((self.mounted.vault / "partial").glob("*.bin"))

    def _run(self, command: str) -> int:
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "--norc", "-euo", "pipefail", "-c", command], cwd=self.scope,
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            code = process.wait(PATIENCE_S)
            # The processes of an rsync that was killed end one after the other.
            wait_until(lambda: not is_running(process.pid), ORPHANS_PATIENCE_S)
        finally:
            if is_running(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return code if code >= 0 else 128 - code


def is_running(group: int) -> bool:
    """Whether a process of a group is left; as it began with a session, all of them are ours."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def to_sha256(payload: bytes) -> str:
    """The hash of a payload, as envelopes have it."""
    return hashlib.sha256(payload).hexdigest()


def read_sha256(scope: Path, stamp: str) -> str:
    """The hash of a version's payload, as its envelope says it."""
    found: str = json.loads((scope / ".versions" / stamp).read_bytes())["file"]["sha256"]
    return found


def list_leaves(top: Path) -> dict[str, bytes | str | None]:
    """All names below a directory, with what they show; of directories only the empty ones."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_bytes()
        elif not os.listdir(path):
            found[f"{name}/"] = None
    return found


def is_scratch(name: str) -> bool:
    """Whether a name is one of those that make no versions."""
    *directories, last = name.split("/")
    return SCRATCH_DIRECTORY in directories or any(fnmatchcase(last, it) for it in SCRATCH)


def check_outcome(row: Row, outcome: Outcome, environment: dict[str, str], scope: Path) -> None:
    """What came of a row is what its columns say."""
    said = f"$ {row.command}\n{outcome.output}"
    assert outcome.exit_code == row.exit_code, said
    expected = dict(row.leaves)
    expected_partial = expected.pop(PARTIAL, None)
    assert sorted(outcome.leaves) == sorted(expected), said
    for name, what in expected.items():
        check_content(row, name, what, outcome.leaves[name], environment)
    assert len(outcome.versions) == row.versions, said
    check_payloads(row, outcome)
    assert len(outcome.partial) == (expected_partial is not None), said
    if expected_partial is not None:
        check_content(row, PARTIAL, expected_partial, outcome.partial[0], environment)
    check_history(scope, outcome.leaves)


def check_content(
    row: Row, name: str, what: str, found: bytes | str | None, environment: dict[str, str]
) -> None:
    """A name shows what the row says: a word, a link's target, or an empty directory."""
    if what.startswith("-> "):
        target = what.removeprefix("-> ")
        assert found == f"-> {environment.get(target.removeprefix('$'), target)}"
    elif not what:
        assert found is None, f"{name} is no empty directory"
    elif what == "some":
        assert isinstance(found, bytes)
        assert found
        assert BIG.startswith(found)
    elif what == "other":
        assert isinstance(found, bytes)
        assert found not in WORDS.values(), f"{name}: {found[:80]!r}"
        expected = CONTENTS.get(row.action, {}).get(name, found)
        assert expected == found
    else:
        assert found == WORDS[what], f"{name} is not {what}"


def check_payloads(row: Row, outcome: Outcome) -> None:
    """New versions hold what a name shows in the end, but for what `GONE` says."""
    left = {to_sha256(found) for found in outcome.leaves.values() if isinstance(found, bytes)}
    gone = [sha256 for sha256 in outcome.versions if sha256 not in left]
    expected = GONE.get(row.action, [])
    assert len(gone) == len(expected), f"{len(gone)} versions hold what no name shows"
    assert {to_sha256(payload) for payload in expected if payload is not None} <= set(gone)


def check_history(scope: Path, leaves: dict[str, bytes | str | None]) -> None:
    """What was in the history stays; a name shows its newest version; scratch names have none."""
    assert read_history(scope, "f")[0] == OLD
    for name, found in leaves.items():
        if isinstance(found, bytes) and found and not is_scratch(name):
            assert read_history(scope, name)[-1] == found
    history = scope / ".history"
    for name in {str(path.parent.relative_to(history)) for path in history.rglob("*Zu*")}:
        assert not is_scratch(name), f"{name} is in .history"
