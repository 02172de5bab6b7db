"""Settling: envelopes, blobs and event lines come to stand where their rows say."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scopefs import Vault
from scopefs.errors import NotFound
from scopefs.model.envelope import decode_envelope
from scopefs.model.payload import Kind
from scopefs.model.scope import parse_scope
from scopefs.store import changes, settle
from scopefs.store.journal import Transaction
from scopefs.store.wal import Wal
from tests.mounting import wait_until
from tests.store.inspection import (
    Clock,
    check_events,
    check_files,
    check_whole,
    list_files,
    load_child,
    make_scope,
    query,
    snapshot,
    start_python,
)

PAYLOADS = {
    "document": b'{"a":1}',
    "large document": b'{"a":"' + b"x" * 100_000 + b'"}',
    "inline": b"some text",
    "blob in the row": b"\0" * 20_000,
    "blob in a file": bytes(range(256)) * 400,
}


def put_all(vault: Vault) -> dict[str, bytes]:
    """Put one payload of every kind; returns the envelopes by their paths."""
    versions = [vault.put("a.b", content, name=name) for name, content in PAYLOADS.items()]
    return {version.path: vault.read_envelope(version) for version in versions}


def check_settled(vault: Vault, envelopes: dict[str, bytes]) -> None:
    """Fail unless exactly these envelopes stand in data/, and what goes with them elsewhere."""
    check_files(vault)
    check_events(vault)
    found = snapshot(vault.layout.data)
    placed = {f"data/{path}": content for path, content in found.items() if content is not None}
    assert placed == envelopes


def list_leftovers(vault: Vault) -> list[str]:
    """The files in staging/ but for the locks of owners."""
    return [path for path in list_files(vault.layout.staging) if not path.endswith("/lock")]


# What settling does


def test_envelope_stands_as_it_was_read_before(clocked: Vault) -> None:
    """The file in data/ has the bytes that the envelope had while it was unsettled."""
    envelopes = put_all(clocked)
    clocked.settle()
    check_settled(clocked, envelopes)


def test_settling_leaves_nothing_in_staging(clocked: Vault) -> None:
    """Staging files and temporaries of what is settled are gone."""
    put_all(clocked)
    assert len(list_leftovers(clocked)) == 2
    clocked.settle()
    assert list_leftovers(clocked) == []


def test_settled_envelope_is_read_from_its_file(clocked: Vault) -> None:
    """Envelopes and payloads read the same after settling as before."""
    envelopes = put_all(clocked)
    clocked.settle()
    for version in clocked.versions("a.b"):
        assert clocked.read_envelope(version) == envelopes[version.path]
        assert clocked.read_payload(version) == PAYLOADS[str(version.name, "utf-8")]


def test_envelope_size_is_in_its_row(clocked: Vault) -> None:
    """size_bytes is the size of the file, before and after settling."""
    envelopes = put_all(clocked)
    before = {version.path: version.size_bytes for version in clocked.versions("a.b")}
    clocked.settle()
    after = {version.path: version.size_bytes for version in clocked.versions("a.b")}
    assert before == after == {path: len(content) for path, content in envelopes.items()}


def test_nothing_is_placed_before_settling(clocked: Vault) -> None:
    """Rows first, files later: publishing alone puts no file into data/ or blobs/."""
    put_all(clocked)
    assert list_files(clocked.layout.data) == list_files(clocked.layout.blobs) == []


def test_settling_again_changes_nothing(clocked: Vault) -> None:
    """A settle without news touches no file."""
    put_all(clocked)
    clocked.settle()
    before = {path: path.stat().st_mtime_ns for path in clocked.layout.root.glob("[de]*/**/*")}
    clocked.settle()
    assert before == {
        path: path.stat().st_mtime_ns for path in clocked.layout.root.glob("[de]*/**/*")
    }


def test_young_version_is_left_for_the_next_time(clocked: Vault, clock: Clock) -> None:
    """Asked for what is older than a time, settling leaves what is younger."""
    old = clocked.put("a.b", b'{"old":1}')
    clock.move(10)
    clocked.put("a.b", b'{"young":1}')
    clocked._settler.settle(clock.now_us - 1, wait=True)
    assert [f"data/{path}" for path in list_files(clocked.layout.data)] == [old.path]


def test_close_settles_everything(tmp_path: Path, clock: Clock) -> None:
    """However young, after a clean close every version stands in data/."""
    with Vault.open(tmp_path / "v", create=True, clock_us=clock) as vault:
        envelopes = put_all(vault)
    with Vault.open(tmp_path / "v", clock_us=clock) as vault:
        check_settled(vault, envelopes)


def test_settles_by_itself(vault: Vault) -> None:
    """Without being asked, what was put is placed soon."""
    vault.put("a.b", b"{}")
    wait_until(lambda: list_files(vault.layout.data) and not query(vault, "SELECT 1 FROM staged"))
    check_files(vault)


def test_settles_by_itself_though_the_clock_stepped_back(clocked: Vault, clock: Clock) -> None:
    """A version that was published before the clock was set back an hour does not wait an hour."""
    version = clocked.put("a.b", b"{}")
    clock.move(-3600)
    clocked.put("a.b", b'{"later":1}')

    def is_placed() -> bool:
        # The clock runs on from there.
        clock.move(0.005)
        return (clocked.layout.root / version.path).exists()

    wait_until(is_placed, 5)


def test_final_name_and_mtime_reach_the_envelope(clocked: Vault) -> None:
    """A rename and a touch right after the close are in the envelope that is placed."""
    version = clocked.put("a.b", b"{}", name="temporary")
    scope = make_scope(clocked, "a.b")
    node = load_child(clocked, scope, b"temporary").node
    clocked.apply(changes.apply_rename, scope, b"temporary", scope, b"final", replace=False)
    clocked.apply(changes.apply_attributes, node, None, 1_234_567)
    clocked.settle()
    placed = json.loads((clocked.layout.root / version.path).read_bytes())
    assert placed["file"]["name"] == "final"
    assert placed["file"]["mtimeNs"] == 1_234_567
    assert clocked.read_payload(clocked.get("a.b")) == b"{}"


def test_settled_envelope_never_changes(clocked: Vault) -> None:
    """A rename and a touch after settling leave the file and its row alone."""
    version = clocked.put("a.b", b"{}", name="first")
    clocked.settle()
    before = snapshot(clocked.layout.data)
    scope = make_scope(clocked, "a.b")
    node = load_child(clocked, scope, b"first").node
    clocked.apply(changes.apply_rename, scope, b"first", scope, b"second", replace=False)
    clocked.apply(changes.apply_attributes, node, 0o600, 5)
    clocked.settle()
    assert snapshot(clocked.layout.data) == before
    assert clocked.get("a.b").name == version.name


def test_envelope_on_its_way_keeps_its_name(
    clocked: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename while the envelope is being placed reaches neither the file nor its row."""
    clocked.put("a.b", b"{}", name="first")
    scope = make_scope(clocked, "a.b")

    def rename_then_sync(fd: int) -> None:
        monkeypatch.undo()
        clocked.apply(changes.apply_rename, scope, b"first", scope, b"second", replace=False)
        settle.sync_file_system(fd)

    monkeypatch.setattr(settle, "sync_file_system", rename_then_sync)
    clocked.settle()
    check_whole(clocked)
    version = clocked.get("a.b")
    assert version.name == b"first"
    assert clocked.read_payload(version) == b"{}"


def test_staged_and_placed_envelope_agree_for_a_draft_that_shrank(clocked: Vault) -> None:
    """A small payload whose draft once was large has its content in the envelope at once."""
    with clocked.new_draft() as draft:
        draft.append(bytes(70_000))
        draft.truncate(0)
        draft.write(0, b"some text")
        version = clocked.put_draft(parse_scope("a.b"), draft, name="f")
    before = clocked.read_envelope(version)
    assert version.kind is Kind.INLINE
    assert decode_envelope(before).data.endswith(b'"content":"c29tZSB0ZXh0"}')
    clocked.settle()
    check_settled(clocked, {version.path: before})


def test_many_batches_are_settled_at_once(clocked: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """One settle goes on until nothing is left, batch by batch."""
    monkeypatch.setattr(settle, "BATCH_ROWS", 3)
    monkeypatch.setattr(settle, "_EVENT_PAGE", 2)
    for n in range(10):
        clocked.put("a.b", b'{"n":%d}' % n)
    clocked.settle()
    check_files(clocked)
    check_events(clocked)


def test_regression_settling_took_all_out_of_the_index_at_once(
    clocked: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is taken out is overwritten in the WAL: 2,000 payloads of 64 KB made it 128 MB long."""
    monkeypatch.setattr(settle, "BATCH_BYTES", 200_000)
    payloads = [os.urandom(30_000) for _ in range(100)]
    for payload in payloads:
        clocked.put("a.b", payload)
    batches = []
    real = settle._drop

    def drop(transaction: Transaction, placements: list[Any], last_seq: int) -> None:
        batches.extend([len(placements)] if placements else [])
        real(transaction, placements, last_seq)

    monkeypatch.setattr(settle, "_drop", drop)
    clocked.settle()
    # The seventh brings them over the limit.
    assert batches == [7] * 14 + [2]
    check_files(clocked)
    check_events(clocked)


def test_settles_from_many_threads(clocked: Vault) -> None:
    """Threads that settle while others put get in nobody's way."""

    def work() -> None:
        for n in range(10):
            clocked.put("a.b", os.urandom(20_000 if n % 2 else 10))
            clocked.settle()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clocked.versions("a.b")) == 40
    check_whole(clocked)


_PUT_AND_SETTLE = """
import os, sys
from scopefs import Vault
with Vault.open(sys.argv[1]) as vault:
    for n in range(15):
        vault.put("a.b", os.urandom(100_000 if n % 3 == 0 else 10))
        vault.settle()
"""


def test_settles_from_several_processes(vault: Vault) -> None:
    """Processes that put and settle at once place every version once."""
    started = [start_python(_PUT_AND_SETTLE, vault.layout.root) for _ in range(4)]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, errors
    assert len(vault.versions("a.b")) == 60
    check_whole(vault)


def test_each_step_is_on_the_disk_before_the_next(
    clocked: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows before files, contents before names, names and lines before the staged rows go."""
    put_all(clocked)
    steps: list[str] = []

    def note(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def noted(*args: object, **kwargs: object) -> object:
            if not steps or steps[-1] != name:
                steps.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, noted)

    for name in ("apply_freeze", "sync_file_system", "append_lines", "_drop"):
        note(settle, name)
    for name in ("_prepare", "_place", "_sweep"):
        note(settle.Settler, name)
    note(Wal, "sync")
    clocked.settle()
    assert steps == [
        "apply_freeze", "sync", "_prepare", "sync_file_system", "_place", "append_lines",
        "sync_file_system", "_drop", "sync", "_sweep",
    ]  # fmt: skip


# Cut in the middle

Cut = Callable[[pytest.MonkeyPatch], None]


class CutShortError(Exception):
    """What a cut settle ends with."""


def cut_at(owner: object, name: str, *, calls: int = 0, after: bool = False) -> Cut:
    """A cut at a function of the settler: before its call after `calls` others, or behind it."""

    def install(patched: pytest.MonkeyPatch) -> None:
        original = getattr(owner, name)
        count = 0

        def cut(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count > calls:
                if after:
                    original(*args, **kwargs)
                raise CutShortError(name)
            return original(*args, **kwargs)

        patched.setattr(owner, name, cut)

    return install


CUTS = {
    "S1 before the rows are frozen": cut_at(settle, "apply_freeze"),
    "S2 before anything": cut_at(settle.Settler, "_prepare"),
    "S2 in the middle": cut_at(settle.Settler, "_prepare", calls=2),
    "S2 in the middle of an envelope": cut_at(settle, "write_all", calls=1),
    "S2 after the last": cut_at(settle, "sync_file_system"),
    "S2 blob hashed, not linked": cut_at(settle.Settler, "_place_blob"),
    "S2 blob linked": cut_at(settle.Settler, "_place_blob", after=True),
    "S3 after the sync": cut_at(settle.Settler, "_place"),
    "S4 one placed": cut_at(settle.Settler, "_place", after=True),
    "S4 some placed": cut_at(settle.Settler, "_place", calls=3),
    "S4 all placed": cut_at(settle.Settler, "_append_events"),
    "S5 nothing appended": cut_at(settle, "append_lines"),
    "S5 appended, not synced": cut_at(settle, "append_lines", after=True),
    "S5 synced": cut_at(settle, "sync_file_system", calls=1, after=True),
    "S6 not begun": cut_at(settle, "_drop"),
    "S6 rolled back": cut_at(settle, "_drop", after=True),
    "S7 not begun": cut_at(settle.Settler, "_sweep"),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("reopened", [False, True])
def test_cut_settle_is_finished_by_the_next(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, cut: Cut, reopened: bool
) -> None:
    """Wherever a settle is cut, every version stays readable, and the next makes the same files."""
    with Vault.open(tmp_path / "v", create=True, clock_us=clock) as vault:
        envelopes = put_all(vault)
        with monkeypatch.context() as patched:
            cut(patched)
            with pytest.raises(CutShortError):
                vault.settle()
        assert {v.path: vault.read_envelope(v) for v in vault.versions("a.b")} == envelopes
        if not reopened:
            vault.settle()
            check_settled(vault, envelopes)
    with Vault.open(tmp_path / "v", clock_us=clock) as vault:
        check_settled(vault, envelopes)
        assert list_leftovers(vault) == []


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
def test_deletion_after_a_cut_settle_leaves_nothing_in_data(
    clocked: Vault, monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    """Versions that are deleted while they are half placed all come to the trash."""
    put_all(clocked)
    with monkeypatch.context() as patched:
        cut(patched)
        with pytest.raises(CutShortError):
            clocked.settle()
    clocked.delete_scope("a.b")
    clocked.settle()
    assert list_files(clocked.layout.data) == []
    check_files(clocked)
    check_events(clocked)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_cut_between_link_and_unlink(
    clocked: Vault, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    """An envelope that bears both its names when the settle is cut ends with the right one."""
    version = clocked.put("a.b", b"{}")
    expected = {version.path: clocked.read_envelope(version)}
    with monkeypatch.context() as patched:
        link = os.link

        def link_then_die(*args: object) -> None:
            link(*args)  # type: ignore[arg-type]
            raise CutShortError("link")

        patched.setattr(os, "link", link_then_die)
        with pytest.raises(CutShortError):
            clocked.settle()
    if is_deleted:
        clocked.delete("a.b", version.stamp)
        expected = {}
    clocked.settle()
    check_settled(clocked, expected)


@pytest.mark.parametrize("rest", [b"", b"torn", b"x" * 2000])
def test_torn_rest_of_a_cut_settle_is_replaced(clocked: Vault, rest: bytes) -> None:
    """What stands at an unsettled version's path is the rest of a cut settle."""
    version = clocked.put("a.b", b"{}")
    expected = clocked.read_envelope(version)
    path = clocked.layout.root / version.path
    path.parent.mkdir(parents=True)
    path.write_bytes(rest)
    assert clocked.read_envelope(version) == expected
    clocked.settle()
    check_settled(clocked, {version.path: expected})


# Damage


def test_version_whose_staging_file_is_gone_stops_no_other(clocked: Vault) -> None:
    """What cannot be settled is left where it is, and the others are placed."""
    lost = clocked.put("a.b", os.urandom(100_000))
    kept = clocked.put("a.b", b"{}")
    for path in clocked.layout.staging.glob("*/[0-9]*"):
        path.unlink()
    clocked.settle()
    assert (clocked.layout.root / kept.path).exists()
    assert not (clocked.layout.root / lost.path).exists()
    assert query(clocked, "SELECT version FROM staged") == [(lost.id,)]
    check_events(clocked)


@pytest.mark.parametrize("content", [b'{"a":"' + b"x" * 100_000 + b'"}', b"x" * 100_000])
def test_damaged_staging_file_is_never_placed(clocked: Vault, content: bytes) -> None:
    """Bytes that changed in staging/ do not become an envelope or a blob."""
    clocked.put("a.b", content)
    for path in clocked.layout.staging.glob("*/[0-9]*"):
        path.write_bytes(content.replace(b"x", b"y"))
    clocked.settle()
    assert list_files(clocked.layout.data) == list_files(clocked.layout.blobs) == []


def test_deletion_of_a_lost_envelope_stops_no_settling(clocked: Vault) -> None:
    """A version whose file is gone from data/ can be deleted, and the vault goes on settling."""
    lost = clocked.put("a.b", b'{"lost":1}')
    clocked.settle()
    (clocked.layout.root / lost.path).unlink()
    clocked.delete("a.b", lost.stamp)
    kept = clocked.put("a.b", b'{"kept":1}')
    clocked.settle()
    assert query(clocked, "SELECT version FROM staged") == []
    assert (clocked.layout.root / kept.path).exists()
    check_events(clocked)


def test_deletion_of_a_lost_staging_file_stops_no_settling(clocked: Vault) -> None:
    """A version that could not be settled can be deleted, and the vault goes on settling."""
    lost = clocked.put("a.b", os.urandom(100_000))
    for path in clocked.layout.staging.glob("*/[0-9]*"):
        path.unlink()
    clocked.settle()
    clocked.delete("a.b", lost.stamp)
    kept = clocked.put("a.b", b'{"kept":1}')
    clocked.settle()
    assert (clocked.layout.root / kept.path).exists()
    assert clocked.versions("a.b") == [kept]
    check_events(clocked)


# Deletion


@pytest.mark.parametrize("is_settled", [False, True])
def test_deleted_version_stands_in_the_trash(clocked: Vault, is_settled: bool) -> None:
    """After settling, the envelope lies under trash/<event>/, and nothing of it in data/."""
    version = clocked.put("a.b.c", b"{}")
    envelope = clocked.read_envelope(version)
    if is_settled:
        clocked.settle()
    clocked.delete("a.b.c", version.stamp)
    event = clocked.events(before=1 << 62, limit=1)[0]
    clocked.settle()
    path = f"trash/{event['seq']}/a/b/c/{version.stamp}.json"
    assert (clocked.layout.root / path).read_bytes() == envelope
    check_whole(clocked)


def test_deletion_cut_before_its_row_goes_is_repeated(
    clocked: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move that was made already is found done."""
    version = clocked.put("a.b", b"{}")
    clocked.settle()
    clocked.delete("a.b", version.stamp)
    with monkeypatch.context() as patched:
        cut_at(settle, "_drop")(patched)
        with pytest.raises(CutShortError):
            clocked.settle()
    check_whole(clocked)
    with pytest.raises(NotFound):
        clocked.get("a.b")


def test_same_instant_can_be_deleted_twice(clocked: Vault) -> None:
    """Versions of two scopes with one stamp do not meet in the trash."""
    for scope in ("a.b", "a.b.c"):
        clocked.put(scope, scope.encode())
    clocked.settle()
    for scope in ("a.b", "a.b.c"):
        clocked.delete(scope, clocked.get(scope).stamp)
    check_whole(clocked)
    assert len(list_files(clocked.layout.root / "trash")) == 2
