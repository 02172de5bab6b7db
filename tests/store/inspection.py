"""What tests find in a vault when they look behind its back: files, rows, event lines."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from scopefs import Vault
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import parse_collected_at
from scopefs.store import changes, tree
from scopefs.store.checks import CHECKS, Checked
from scopefs.store.problems import Problem

SECOND_US = 1_000_000
NOON_US = parse_collected_at("2026-01-21T12:00:00Z")
PATIENCE_S = 30.0


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now_us: int = NOON_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us

    def move(self, seconds: float) -> None:
        self.now_us += round(seconds * SECOND_US)


def query(vault: Vault, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of the index, through a connection of the vault itself."""
    with vault.read() as db:
        return db.execute(sql, values).fetchall()


def make_scope(vault: Vault, scope: str) -> int:
    """The node of a scope's directory, made if need be."""
    return vault.apply(changes.ensure_scope, parse_scope(scope))


def find_child(vault: Vault, parent: int, name: bytes) -> tree.Entry | None:
    """The entry under a name in a directory."""
    with vault.read() as db:
        return tree.find_child(db, parent, name)


def load_child(vault: Vault, parent: int, name: bytes) -> tree.Entry:
    """As `find_child`, but it must be there."""
    entry = find_child(vault, parent, name)
    assert entry is not None, name
    return entry


def snapshot(root: Path) -> dict[str, bytes | None]:
    """All files below a directory with their bytes; directories with None."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }


def list_files(root: Path) -> list[str]:
    """The paths of all files below a directory, relative to it, sorted."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def read_event_lines(root: Path) -> list[bytes]:
    """All lines in events/, oldest first, without their newlines."""
    content = b"".join(path.read_bytes() for path in sorted((root / "events").glob("*.jsonl")))
    assert not content or content.endswith(b"\n"), "the last event line is torn"
    return content.splitlines()


def check_chain(lines: list[bytes]) -> None:
    """Fail unless the lines are numbered from 1 without a gap, grow in time, and are chained."""
    previous = "0" * 64
    at_us = 0
    for number, line in enumerate(lines, start=1):
        event = json.loads(line)
        assert event["seq"] == number
        assert event["prev"] == previous
        assert parse_collected_at(event["at"]) > at_us
        at_us = parse_collected_at(event["at"])
        previous = hashlib.sha256(line).hexdigest()


def check_events(vault: Vault) -> None:
    """Fail unless the lines in events/ are a chain, and exactly the rows of the index."""
    lines = read_event_lines(vault.layout.root)
    check_chain(lines)
    rows = query(vault, "SELECT seq, hash FROM events ORDER BY seq")
    assert rows == [(n, hashlib.sha256(line).digest()) for n, line in enumerate(lines, start=1)]


def check_counters(vault: Vault) -> None:
    """Fail unless the counters of all scopes are what a recount finds (I8)."""
    expect_none(find_problems(vault, "scopes"))


def check_files(vault: Vault) -> None:
    """Fail unless every file has its row and every row its file; for a vault that is settled."""
    root = vault.layout.root
    assert query(vault, "SELECT sid FROM staged") == []
    assert query(vault, "SELECT id FROM moves") == []
    rows = query(vault, "SELECT path, kind, payload_sha256 FROM data_files")
    placed = [f"{part}/{path}" for part in ("data", "trash") for path in list_files(root / part)]
    assert sorted(placed) == sorted(row[0] for row in rows)
    entries = query(vault, "SELECT DISTINCT deleted_seq FROM data_files WHERE deleted_seq > 0")
    assert {path.name for path in (root / "trash").iterdir()} == {str(row[0]) for row in entries}
    digests = {row[2].hex() for row in rows if row[1] == 2}
    blobs = [path for path in (root / "blobs").rglob("*") if path.is_file()]
    assert {path.name for path in blobs} == digests
    for path in blobs:
        assert path.parent.name == path.name[:2]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def check_trash(vault: Vault) -> None:
    """Fail unless the trash and the rest are told apart by all that tells them apart (I7, I18)."""
    expect_none(find_problems(vault, "rows of versions", "trash"))
    listed = {entry.id: entry.versions for entry in vault.trash(limit=1_000_000)}
    counted = query(
        vault, "SELECT deleted_seq, COUNT(*) FROM data_files WHERE deleted_seq > 0 GROUP BY 1"
    )
    assert listed == dict(counted)


def check_names(vault: Vault) -> None:
    """Fail if names or what they show do not fit together (I10 to I12)."""
    expect_none(find_problems(vault, "names", "what is shown"))


def find_problems(vault: Vault, *checks: str) -> list[Problem]:
    """What `scopefs verify` finds, of all checks or of some."""
    if not checks:
        return list(vault.verification().run(lambda _name, _count: None))
    checked = Checked(vault.layout, vault.read, vault._settler.hold)
    return [
        problem for name in checks for page in CHECKS[name](checked, [])
        for problem in page.problems
    ]  # fmt: skip


def expect_none(problems: list[Problem]) -> None:
    """Fail, and say what was found, if anything was."""
    assert not problems, "\n".join(map(str, problems))


def check_whole(vault: Vault) -> None:
    """Settle, then fail on anything in the vault that does not fit together."""
    vault.settle()
    expect_none(find_problems(vault))
    check_trash(vault)
    check_files(vault)
    check_events(vault)


def start_python(script: str, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Start another process of this Python with a script and its arguments."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **options,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process that must succeed; returns what it printed."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, err
    return out


def run_python(script: str, *arguments: str | Path) -> str:
    """Run a script in another process, which must succeed; returns what it printed."""
    return finish(start_python(script, *arguments))


def run_python_until_it_dies(script: str, *arguments: str | Path) -> str:
    """Run a script that ends in kill -9 of itself; returns what it printed."""
    process = start_python(script, *arguments)
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == -9, err
    return out
