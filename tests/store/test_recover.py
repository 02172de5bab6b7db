"""Recovery at open: what a killed process left under way is finished or withdrawn."""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import NoSpace, NotFound, Unavailable
from scopefs.model.payload import Kind
from scopefs.model.scope import parse_scope
from scopefs.store import publish, recover, rows
from scopefs.store.partial import list_partial
from scopefs.store.publish import StagedState, Write
from scopefs.store.sql import fetch
from tests.mounting import wait_until
from tests.store.inspection import (
    PATIENCE_S,
    check_whole,
    finish,
    load_child,
    make_scope,
    query,
    run_python_until_it_dies,
    start_python,
)

SIZES = (10, 100_000)

# Stages a write as the mount does at close (CLOSED) or fsync (DRAFT), and dies of kill -9.
_STAGE = """
import os, signal, sys
from scopefs import Vault
from scopefs.model.scope import parse_scope
from scopefs.store import changes, publish, rows
from scopefs.store.publish import StagedState, Write

root, state, size, extra = sys.argv[1], StagedState[sys.argv[2]], int(sys.argv[3]), sys.argv[4]
vault = Vault.open(root)
scope = vault.apply(changes.ensure_scope, parse_scope("my.files"))
node = vault.apply(rows.allocate_nodes, 1)
draft = vault.new_draft()
draft.append(b"x" * size)
write = Write(vault.owner_name, scope, node, scope, b"file", 0o640, 1234567, draft.seal(b"file"))
if extra == "folder":
    write.parent = vault.apply(changes.apply_mkdir, scope, b"F", 0o755)
if extra in ("known", "renamed", "unlinked"):
    vault.apply(publish.apply_show_empty, Write(
        vault.owner_name, scope, node, scope, b"file", 0o640, 1, vault.new_draft().seal(None)))
write.sid = vault.apply(publish.apply_stage, write, state)
if extra == "folder":
    vault.apply(changes.apply_rmdir, scope, b"F")
if extra == "renamed":
    vault.apply(changes.apply_rename, scope, b"file", scope, b"final", replace=True)
if extra == "unlinked":
    vault.apply(changes.apply_unlink, scope, b"file")
vault.sync()
print(vault.owner_name, flush=True)
if extra == "wait":
    signal.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of an empty vault, closed."""
    with Vault.open(tmp_path / "v", create=True):
        return tmp_path / "v"


def stage_and_die(root: Path, state: str, size: int = 10, extra: str = "") -> Path:
    """Stage a write in a process that is killed; returns its directory in staging/."""
    name = run_python_until_it_dies(_STAGE, root, state, str(size), extra).strip()
    return root / "staging" / name


def stage_and_die_together(root: Path, states: list[str]) -> None:
    """Stage writes in several processes that all live until the last has staged its own."""
    started = [start_python(_STAGE, root, state, "100000", "wait") for state in states]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline()
    finally:
        for process in started:
            process.kill()
            process.communicate(timeout=PATIENCE_S)


def check_clean(vault: Vault) -> None:
    """Fail unless nothing of a dead owner is left, and the vault is whole."""
    check_whole(vault)
    assert [path.name for path in vault.layout.staging.iterdir()] == [vault.owner_name]


@pytest.mark.parametrize("size", SIZES)
def test_closed_write_is_published(root: Path, size: int) -> None:
    """What close made durable becomes a version under its name, with its mode and mtime."""
    stage_and_die(root, "CLOSED", size)
    with Vault.open(root) as vault:
        version = vault.get("my.files", name="file")
        assert vault.recovered.published == 1
        assert vault.read_payload(version) == b"x" * size
        assert version.mtime_ns == 1_234_567
        assert load_child(vault, make_scope(vault, "my.files"), b"file").mode == 0o640
        check_clean(vault)


@pytest.mark.parametrize("size", SIZES)
def test_recovered_once(root: Path, size: int) -> None:
    """The next open finds nothing to do."""
    stage_and_die(root, "CLOSED", size)
    for expected in (1, 0):
        with Vault.open(root) as vault:
            assert vault.recovered.published == expected
            assert len(vault.versions("my.files")) == 1


@pytest.mark.parametrize("size", SIZES)
def test_draft_goes_to_partial(root: Path, size: int) -> None:
    """What was synced but never closed is kept in partial/ with its story, and is no version."""
    stage_and_die(root, "DRAFT", size)
    with Vault.open(root) as vault:
        assert vault.recovered.partial == 1
        assert vault.versions("my.files") == []
        (story,) = list_partial(vault.layout)
        assert (story["scope"], story["name"], story["reason"], story["sizeBytes"]) == (
            "my.files", "file", "never closed", size,
        )  # fmt: skip
        assert (vault.layout.partial / story["file"]).read_bytes() == b"x" * size
        check_clean(vault)


@pytest.mark.parametrize("size", SIZES)
def test_synced_and_renamed_is_finished(root: Path, size: int) -> None:
    """A draft that was renamed after its fsync publishes under its final name: so tools save."""
    stage_and_die(root, "DRAFT", size, "renamed")
    with Vault.open(root) as vault:
        assert vault.read_payload(vault.get("my.files", name="final")) == b"x" * size
        assert list_partial(vault.layout) == []
        with pytest.raises(NotFound):
            vault.get("my.files", name="file")
        check_clean(vault)


def test_empty_closed_write_shows_an_empty_file(root: Path) -> None:
    """0 bytes make a name and no version, after a crash too."""
    stage_and_die(root, "CLOSED", 0)
    with Vault.open(root) as vault:
        assert vault.versions("my.files") == []
        entry = load_child(vault, make_scope(vault, "my.files"), b"file")
        assert (entry.size, entry.version) == (0, None)
        assert list_partial(vault.layout) == []
        check_clean(vault)


def test_closed_write_of_a_known_file_is_its_next_version(root: Path) -> None:
    """A file that had its name already gets the version, and stays one file."""
    stage_and_die(root, "CLOSED", 10, "known")
    with Vault.open(root) as vault:
        entry = load_child(vault, make_scope(vault, "my.files"), b"file")
        assert vault.get("my.files").node == entry.node
        assert query(vault, "SELECT COUNT(*) FROM names WHERE name = ?", b"file") == [(1,)]
        check_clean(vault)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", ["CLOSED", "DRAFT"])
def test_bytes_of_an_unlinked_file_are_gone(root: Path, size: int, state: str) -> None:
    """What was unlinked before its close comes back neither as a version nor in partial/."""
    stage_and_die(root, state, size, "unlinked")
    with Vault.open(root) as vault:
        assert vault.versions("my.files") == []
        assert list_partial(vault.layout) == []
        check_clean(vault)


@pytest.mark.parametrize("size", SIZES)
def test_closed_write_whose_directory_is_gone_goes_to_partial(root: Path, size: int) -> None:
    """What cannot be published is kept with the reason."""
    stage_and_die(root, "CLOSED", size, "folder")
    with Vault.open(root) as vault:
        (story,) = list_partial(vault.layout)
        assert "directory was removed" in story["reason"]
        assert (vault.layout.partial / story["file"]).read_bytes() == b"x" * size
        assert vault.versions("my.files") == []
        check_clean(vault)


def test_file_that_was_written_after_its_close_goes_to_partial(root: Path) -> None:
    """A staging file that has not the hash of its row is no version."""
    directory = stage_and_die(root, "CLOSED", 100_000)
    (directory / "1").write_bytes(b"y" * 100_000)
    with Vault.open(root) as vault:
        assert vault.versions("my.files") == []
        (story,) = list_partial(vault.layout)
        assert "after it was closed" in story["reason"]
        assert (vault.layout.partial / story["file"]).read_bytes() == b"y" * 100_000
        check_clean(vault)


@pytest.mark.parametrize("state", ["CLOSED", "DRAFT"])
def test_row_whose_file_is_missing_is_dropped(
    root: Path, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A vault opens though a staging file is lost; the log names the file."""
    directory = stage_and_die(root, state, 100_000)
    (directory / "1").unlink()
    with Vault.open(root) as vault:
        assert f"{directory.name}/1" in caplog.text
        assert vault.versions("my.files") == []
        check_clean(vault)


def test_published_version_is_placed_by_the_next_settle(root: Path) -> None:
    """A version whose process died before settling is there at once, and in data/ after settle."""
    script = """
import os, signal, sys
from scopefs import Vault
vault = Vault.open(sys.argv[1])
vault.put("my.files", b"x" * 100_000, name="large")
vault.put("my.files", b"{}", name="small")
os.kill(os.getpid(), signal.SIGKILL)
"""
    run_python_until_it_dies(script, root)
    with Vault.open(root) as vault:
        assert vault.recovered.published == 0
        assert vault.read_payload(vault.get("my.files", name="large")) == b"x" * 100_000
        assert vault.read_payload(vault.get("my.files", name="small")) == b"{}"
        check_clean(vault)


def test_file_without_a_row_is_removed(root: Path) -> None:
    """Bytes that nobody was told are safe go, and with them their directory."""
    script = """
import os, signal, sys
from scopefs import Vault
vault = Vault.open(sys.argv[1])
draft = vault.new_draft()
draft.append(b"x" * 100_000)
draft.sync()
os.kill(os.getpid(), signal.SIGKILL)
"""
    run_python_until_it_dies(script, root)
    assert len(list((root / "staging").glob("*/1"))) == 1
    with Vault.open(root) as vault:
        assert vault.recovered.removed == 1
        check_clean(vault)


def test_recovery_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An unclean end is in the log, in numbers."""
    stage_and_die_together(root, ["DRAFT", "CLOSED"])
    with Vault.open(root) as vault:
        assert (vault.recovered.published, vault.recovered.partial) == (1, 1)
    assert "1 write(s) published, 1 kept in partial/" in caplog.text


def test_clean_end_needs_no_recovery(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a clean close nothing is recovered, and nothing said."""
    with Vault.open(root) as vault:
        vault.put("my.files", os.urandom(100_000))
    with Vault.open(root) as vault:
        found = vault.recovered
        assert (found.published, found.partial, found.removed) == (0, 0, 0)
    assert caplog.text == ""


def test_living_owners_are_left_alone(root: Path) -> None:
    """Opening a second time does not touch what the first has under way."""
    with Vault.open(root) as first, first.new_draft() as draft:
        draft.append(os.urandom(100_000))
        digest = draft.seal(None).sha256
        with Vault.open(root) as second:
            assert second.recovered.removed == 0
        version = first.put_draft(parse_scope("my.files"), draft)
        first.settle()
        assert hashlib.sha256(first.read_payload(version)).digest() == digest


_OPEN = """
import sys
from scopefs import Vault
with Vault.open(sys.argv[1]) as vault:
    print(vault.recovered.published, vault.recovered.partial, len(vault.versions("my.files")))
"""


def test_processes_that_open_at_once_after_a_crash_share_the_work(root: Path) -> None:
    """Of several that open at once each dead write is recovered by one of them, once."""
    stage_and_die_together(root, ["CLOSED", "DRAFT"] * 2)
    started = [start_python(_OPEN, root) for _ in range(4)]
    found = [[int(word) for word in finish(process).split()] for process in started]
    assert sum(row[0] for row in found) == 2
    assert sum(row[1] for row in found) == 2
    with Vault.open(root) as vault:
        assert len(vault.versions("my.files")) == 2
        assert len(list_partial(vault.layout)) == 2
        check_clean(vault)


@pytest.mark.parametrize("step", ["save_staged", "drop_staged", "remove_if_empty"])
@pytest.mark.parametrize("state", ["CLOSED", "DRAFT"])
@pytest.mark.parametrize("size", SIZES)
def test_recovery_that_is_cut_is_finished_by_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str, state: str, size: int
) -> None:
    """Wherever a recovery is cut, nothing of what it found is lost."""
    stage_and_die(root, state, size)

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt(step)

    with monkeypatch.context() as patched:
        patched.setattr(f"scopefs.store.recover.{step}", cut)
        with contextlib.suppress(KeyboardInterrupt):
            Vault.open(root).close()
    with Vault.open(root) as vault:
        kept = [(vault.layout.partial / story["file"]).read_bytes() for story in
                list_partial(vault.layout)]  # fmt: skip
        put = [vault.read_payload(version) for version in vault.versions("my.files")]
        assert b"x" * size in (put if state == "CLOSED" else kept)
        assert query(vault, "SELECT sid FROM staged WHERE state < 2") == []


def test_kind_of_a_recovered_write_is_that_of_its_seal(root: Path) -> None:
    """What was sealed as a blob is published as a blob."""
    stage_and_die(root, "CLOSED", 100_000)
    with Vault.open(root) as vault:
        assert vault.get("my.files").kind is Kind.BLOB


def stage_and_close(root: Path, state: StagedState) -> None:
    """Stage a write, and close the vault cleanly without publishing it."""
    with Vault.open(root) as vault, vault.new_draft() as draft:
        scope = make_scope(vault, "my.files")
        node = vault.apply(rows.allocate_nodes, 1)
        draft.append(b"x" * 10)
        sealed = draft.seal(b"file")
        write = Write(vault.owner_name, scope, node, scope, b"file", 0o644, None, sealed)
        vault.apply_all([lambda transaction: publish.apply_stage(transaction, write, state)])


@pytest.mark.parametrize("state", [StagedState.CLOSED, StagedState.DRAFT])
def test_rows_of_an_owner_that_closed_are_recovered(root: Path, state: StagedState) -> None:
    """A write that its process could not publish before it ended is not forgotten."""
    stage_and_close(root, state)
    with Vault.open(root) as vault:
        kept = len(list_partial(vault.layout))
        put = len(vault.versions("my.files"))
        assert (put, kept) == ((1, 0) if state is StagedState.CLOSED else (0, 1))
        check_clean(vault)


@pytest.mark.parametrize("state", [StagedState.CLOSED, StagedState.DRAFT])
def test_rows_without_a_directory_are_recovered_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, state: StagedState
) -> None:
    """Two processes that find such a row at once make one version, or keep it once."""
    stage_and_close(root, state)
    load_rows = recover._load_rows
    loads = iter([True])
    other = threading.Thread(target=lambda: Vault.open(root).close())

    def load_while_another_opens(db: apsw.Connection, owner: str) -> object:
        rows = load_rows(db, owner)
        if next(loads, False):
            # It is through before us, or waits for us: both are fine.
            other.start()
            other.join(0.5)
        return rows

    monkeypatch.setattr(recover, "_load_rows", load_while_another_opens)
    with Vault.open(root) as vault:
        other.join(PATIENCE_S)
        assert not other.is_alive()
        assert len(list_partial(vault.layout)) + len(vault.versions("my.files")) == 1
        check_clean(vault)


REFUSALS = {
    "full": NoSpace("let fail by a test"), "refused": Unavailable("let fail by a test"),
    "EIO": OSError(errno.EIO, "let fail by a test"),
}  # fmt: skip


@contextlib.contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[list[int]]:
    """Let nothing be published; says how often it was tried."""
    tried = [0]

    def refuse(*_: object) -> None:
        tried[0] += 1
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(recover, "apply_release", refuse)
        yield tried


def open_still(root: Path) -> Vault:
    """Open a vault whose thread, which settles and recovers again, does nothing."""
    vault = Vault.open(root)
    vault._settling.stop()
    return vault


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_regression_closed_write_that_the_disk_refuses_stays_staged(
    root: Path, monkeypatch: pytest.MonkeyPatch, refusal: str, size: int
) -> None:
    """What was acknowledged does not become an interrupted write for the trouble of a moment."""
    stage_and_die(root, "CLOSED", size)
    with refusing(monkeypatch, REFUSALS[refusal]), Vault.open(root) as vault:
        assert (vault.recovered.left, vault.recovered.partial) == (1, 0)
        assert query(vault, "SELECT state FROM staged") == [(int(StagedState.CLOSED),)]
    with Vault.open(root) as vault:
        assert vault.recovered.published == 1
        assert vault.read_payload(vault.get("my.files", name="file")) == b"x" * size
        assert list_partial(vault.layout) == []
        check_clean(vault)


def test_closed_write_that_cannot_be_read_stays_staged(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The vault opens though a staging file cannot be read; the log tells, and once only."""
    stage_and_die(root, "CLOSED", 100_000)

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, "let fail by a test", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(recover, "hash_file", fail)
        with Vault.open(root) as vault:
            assert vault.recovered.left == 1
            assert not vault._recover_again()
    assert caplog.text.count("stays staged") == 1
    with Vault.open(root) as vault:
        assert vault.get("my.files", name="file").payload_size == 100_000


def test_what_stays_staged_is_published_as_soon_as_the_disk_lets(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another open, and unasked: a mount may last for months."""
    stage_and_die(root, "CLOSED", 100_000)
    with contextlib.ExitStack() as stack:
        with refusing(monkeypatch, REFUSALS["full"]):
            vault = stack.enter_context(Vault.open(root))
            assert vault.recovered.left == 1
        wait_until(lambda: len(vault.versions("my.files")) == 1)
        check_clean(vault)


def test_closing_tries_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk takes by then is published when the vault is closed."""
    stage_and_die(root, "CLOSED", 10)
    with refusing(monkeypatch, REFUSALS["full"]):
        vault = open_still(root)
    vault.close()
    with Vault.open(root) as vault:
        assert (vault.recovered.published, len(vault.versions("my.files"))) == (0, 1)


def test_a_journal_that_refuses_is_asked_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many writes do not make opening wait for as many refusals; none of them is lost.

    Nor do those of one file count as what came since, one for the other.
    """
    stage_and_die_together(root, ["CLOSED", "CLOSED", "CLOSED", "DRAFT"])
    with refusing(monkeypatch, REFUSALS["refused"]) as tried:
        vault = open_still(root)
        assert tried == [1]
    left = vault.recovered
    assert (left.published, left.left + left.partial, left.left >= 3) == (0, 4, True)
    assert vault._recover_again()
    assert len(vault.versions("my.files")) == 3
    assert len(list_partial(vault.layout)) == 1
    vault.close()


@pytest.mark.parametrize("extra", ["", "known"])
def test_what_stayed_staged_is_not_put_over_what_came_since(
    root: Path, monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    """A program that saves its file again, after the disk was full, keeps what it saved."""
    stage_and_die(root, "CLOSED", 10, extra)
    with refusing(monkeypatch, REFUSALS["full"]):
        vault = open_still(root)
    vault.put("my.files", b"newer", name="file")
    assert vault._recover_again()
    assert vault.read_payload(vault.get("my.files", name="file")) == b"newer"
    (story,) = list_partial(vault.layout)
    assert "written again" in story["reason"]
    check_clean(vault)
    vault.close()


_GROWING = ("data_files", "names", "nodes", "shown", "events", "scopes", "chunks", "receipts")
"""Tables that grow with the vault. What is in the others goes when it is settled."""


def test_opening_scans_no_table_that_grows(root: Path) -> None:
    """Whatever is asked at an open is answered by an index, or by the first row."""
    stage_and_die_together(root, ["CLOSED", "DRAFT"])
    stage_and_die(root, "CLOSED", 10, "folder")
    stage_and_die(root, "CLOSED", 10, "known")
    stage_and_close(root, StagedState.CLOSED)
    asked: dict[str, tuple[object, ...]] = {}

    def note(_cursor: object, statement: str, values: tuple[object, ...] | None) -> bool:
        asked[statement] = values or ()
        return True

    def trace(db: apsw.Connection) -> None:
        db.set_exec_trace(note)

    apsw.connection_hooks.append(trace)
    try:
        vault = open_still(root)
    finally:
        apsw.connection_hooks.remove(trace)
    with contextlib.closing(vault), vault.read() as db:
        db.set_exec_trace(None)
        scans = []
        for statement, values in asked.items():
            if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"):
                for *_, step in fetch(db, f"EXPLAIN QUERY PLAN {statement}", values):
                    if step.startswith("SCAN") and "LIMIT 1" not in statement:
                        scans.append((step, statement))
        found = [scan for scan in scans if set(scan[0].split()) & set(_GROWING)]
        assert found == []
        # Nor are all staged rows read to find those that are not published.
        unpublished = [step for step, statement in scans if "state < 2" in statement]
        assert unpublished
        assert all("staged_node" in step for step in unpublished)
