"""Rebuilding the index: what was settled comes back as it was, and what is lost is told."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import IndexBroken, PayloadMissing, VaultInUse
from scopefs.store.layout import Layout
from scopefs.store.publish import Write, apply_publish
from scopefs.store.reindex import Rebuilt, rebuild_index
from tests.store.everything import describe, describe_views, do_at_random, fill, rename
from tests.store.inspection import (
    expect_none,
    find_problems,
    load_child,
    make_scope,
    query,
    run_python_until_it_dies,
)

BLOB = bytes(range(256)) * 1000


def rebuild(root: Path) -> Rebuilt:
    """`scopefs reindex`."""
    return rebuild_index(Layout(root), time.time_ns() // 1000, lambda *_: None)


def lose_index(root: Path) -> None:
    """Remove it, with all that belongs to it."""
    for path in root.glob("index.db*"):
        path.unlink()


def told(done: Rebuilt) -> set[str]:
    """The kinds of what a rebuild has to say."""
    return {problem.code for problem in done.problems}


@pytest.fixture(scope="module")
def full_holder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault with everything in it, settled and closed; to be copied."""
    root = tmp_path_factory.mktemp("full")
    with Vault.open(root / "vault", create=True) as vault:
        fill(vault, root / "other")
    return root / "vault"


@pytest.fixture
def full(full_holder: Path, tmp_path: Path) -> Path:
    """A vault with everything in it, that a test may damage."""
    shutil.copytree(full_holder, tmp_path / "vault")
    return tmp_path / "vault"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "vault"


def test_everything_comes_back(full: Path) -> None:
    """Rows, views, payloads, histories and the trash are the same; verification finds nothing."""
    with Vault.open(full) as vault:
        rows, views = describe(vault), describe_views(vault)
    done = rebuild(full)
    assert done.problems == []
    assert done.old is not None
    assert done.old.exists()
    with Vault.open(full) as vault:
        found = describe(vault)
        for table in rows:
            assert found[table] == rows[table], table
        assert describe_views(vault) == views
        vault.settle()
        expect_none(find_problems(vault))


def test_everything_comes_back_without_the_old_index(full: Path) -> None:
    """So it does from data/, blobs/ and events/ alone, but for the bytes of scratch files."""
    with Vault.open(full) as vault:
        rows, views = describe(vault), describe_views(vault)
    lose_index(full)
    done = rebuild(full)
    assert told(done) == {"lost"}
    assert {problem.where for problem in done.problems} == {
        "index.db", "my.files: 'a~'", "my.files: 'b~'", "gone.scope: 'h~'",
    }  # fmt: skip
    assert done.old is None
    with Vault.open(full) as vault:
        found = describe(vault)
        for table in ("nodes", "scopes", "data_files"):
            assert found[table] == rows[table], table
        # The two names have ended, by events of their own.
        assert set(found["events"]) > set(rows["events"])
        assert len(found["events"]) == len(rows["events"]) + 2
        after = describe_views(vault)
        for scope in set(views) - {"my.files"}:
            assert after[scope] == views[scope], scope
        names, versions, history = after["my.files"]
        assert versions == views["my.files"][1]
        assert history == views["my.files"][2]
        lost = {b"a~", b"b~"}
        assert names == {name: found for name, found in views["my.files"][0].items()
                         if name not in lost}  # fmt: skip
        expect_none(find_problems(vault))
        assert len(vault.partial()) == 1, "the larger scratch file"


@pytest.mark.parametrize("seed", range(12))
def test_random_vault_comes_back(root: Path, seed: int) -> None:
    """Whatever was done, in whatever order: every row is made again from the events."""
    with Vault.open(root, create=True) as vault:
        do_at_random(vault, random.Random(seed), 200)
    with Vault.open(root) as vault:
        expect_none(find_problems(vault))
        rows, views = describe(vault), describe_views(vault)
        kept = {row[0] for row in rows["scratch"]}
    assert rebuild(root).problems == []
    with Vault.open(root) as vault:
        found = describe(vault)
        for table in rows:
            assert found[table] == rows[table], table
        assert describe_views(vault) == views
    lose_index(root)
    rebuild(root)
    with Vault.open(root) as vault:
        expect_none(find_problems(vault))
        found = describe(vault)
        for table in ("nodes", "scopes", "data_files"):
            assert found[table] == rows[table], table
        changed = {row[:4] for row in found["names"]} ^ {row[:4] for row in rows["names"]}
        assert {row[2] for row in changed} <= kept


def test_life_goes_on(full: Path) -> None:
    """Events go on where they were; node ids, versions and entries get new numbers."""
    lose_index(full)
    rebuild(full)
    with Vault.open(full) as vault:
        known = {row[0] for row in query(vault, "SELECT id FROM nodes")}
        last = vault.status()["events"]
        version = vault.put("my.files", BLOB, name="new")
        scope = make_scope(vault, "my.files")
        assert load_child(vault, scope, b"new").node not in known
        rename(vault, "my.files", b"new", b"newer")
        vault.delete("my.files", version.stamp)
        for entry in vault.trash():
            if entry.scope != "my.files":
                vault.restore(entry.id)
        vault.empty_trash()
        assert vault.events(after=last)[0]["seq"] == last + 1
        vault.settle()
        expect_none(find_problems(vault))


def test_rebuilding_twice_is_the_same(full: Path) -> None:
    """A rebuilt index is rebuilt as itself."""
    lose_index(full)
    rebuild(full)
    with Vault.open(full) as vault:
        rows = describe(vault)
    assert rebuild(full).problems == []
    with Vault.open(full) as vault:
        assert describe(vault) == rows


# What is not settled


_LEAVE_UNSETTLED = """
import os, signal, sys
from scopefs import Vault
from scopefs.store.publish import StagedState, Write, apply_stage
from scopefs.store import changes
from scopefs.model.scope import parse_scope
from tests.store.everything import write
vault = Vault.open(sys.argv[1])
vault._settling.poke = lambda: None
vault.put("my.files", b"old", name="a")
vault.settle()
vault.put("my.files", b'{"new": 1}', name="a")
vault.put("my.files", bytes(range(256)) * 1000, name="b")
vault.put("my.files", b"nameless")
vault.delete("my.files", vault.put("my.files", b"to the trash", name="c").stamp)
write(vault, "my.files", b"s~", b"scratch")
write(vault, "my.files", b"t~", bytes(100_000))
scope = vault.apply(changes.ensure_scope, parse_scope("my.files"))
for state, size in ((StagedState.CLOSED, 10), (StagedState.DRAFT, 100_000)):
    draft = vault.new_draft()
    draft.append(b"x" * size)
    node = vault.apply(changes.allocate_nodes, 1)
    change = Write(vault.owner_name, scope, node, scope, b"w%d" % state, 0o600, 5, draft.seal(None))
    vault.apply_durably(apply_stage, change, state)
    draft.leave()
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_unsettled(root: Path) -> None:
    """A vault whose process was killed before it could settle."""
    with Vault.open(root, create=True):
        pass
    run_python_until_it_dies(_LEAVE_UNSETTLED, root)


def test_unsettled_is_taken_from_the_old_index(root: Path, tmp_path: Path) -> None:
    """Staged and scratch rows, and events that no file has, come from an index that is readable."""
    leave_unsettled(root)
    shutil.copytree(root, tmp_path / "copy")
    done = rebuild(root)
    assert done.problems == []
    assert done.salvaged_events > 0
    assert done.salvaged_writes == 8
    trees = []
    for path in (root, tmp_path / "copy"):
        with Vault.open(path) as vault:
            assert len(vault.partial()) == 1
            views = describe_views(vault)
            vault.settle()
            expect_none(find_problems(vault))
            trees.append({name: found[1:6] + found[7:]
                          for name, found in views["my.files"][0].items() if name != b"w1"}
            )  # fmt: skip
            assert vault.read_payload(vault.get("my.files", name="w1")) == b"x" * 10
            assert vault.read_payload(vault.get("my.files", name="a")) == b'{"new": 1}'
            assert vault.read_payload(vault.get("my.files", name="b")) == BLOB
    assert trees[0] == trees[1]


def test_unsettled_is_lost_with_the_index(root: Path) -> None:
    """What stood in the index alone is told to be lost; larger bytes go to partial/."""
    leave_unsettled(root)
    lose_index(root)
    done = rebuild(root)
    assert told(done) == {"lost"}
    assert done.partial == 3
    with Vault.open(root) as vault:
        assert vault.read_payload(vault.get("my.files", name="a")) == b"old"
        stories = vault.partial()
        assert sorted(story["sizeBytes"] for story in stories) == [100_000, 100_000, 256_000]
        assert all("index was rebuilt" in story["reason"] for story in stories)
        expect_none(find_problems(vault))


def damage_table(root: Path, table: str) -> None:
    """Overwrite the first page of a table in index.db with garbage."""
    db = apsw.Connection(str(root / "index.db"))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchall()[0][
        0
    ]
    size = db.execute("PRAGMA page_size").fetchall()[0][0]
    db.close()
    with (root / "index.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))


@pytest.mark.parametrize("table", ["nodes", "names", "shown", "events", "scopes", "meta",
                                   "data_files", "moves", "chunks", "receipts"])  # fmt: skip
def test_damaged_table(full: Path, table: str) -> None:
    """Whatever table is damaged: what is settled comes back whole, and what is staged too."""
    with Vault.open(full) as vault:
        views = describe_views(vault)
    damage_table(full, table)
    assert rebuild(full).problems == []
    with Vault.open(full) as vault:
        assert describe_views(vault) == views
        expect_none(find_problems(vault))


def test_damaged_staged_table(root: Path) -> None:
    """What could not be read is told, and files that nothing names any more are kept."""
    leave_unsettled(root)
    damage_table(root, "staged")
    done = rebuild(root)
    assert "index.db, table staged" in {problem.where for problem in done.problems}
    assert done.partial == 2
    with Vault.open(root) as vault:
        assert load_child(vault, make_scope(vault, "my.files"), b"s~").size == 7
        assert {problem.code for problem in find_problems(vault)} == {"I1", "I2", "I7"} & {
            problem.code for problem in find_problems(vault)
        }
        assert vault.read_payload(vault.versions("my.files")[-1]) == b"old"


@pytest.mark.parametrize("content", [b"", b"garbage", b"SQLite format 3\0" + b"\0" * 5000])
def test_index_that_is_none(full: Path, content: bytes) -> None:
    """Refused with the command that helps; which sets it aside."""
    lose_index(full)
    (full / "index.db").write_bytes(content)
    with pytest.raises(IndexBroken, match="scopefs reindex"):
        Vault.open(full)
    done = rebuild(full)
    assert done.old is not None
    assert done.old.read_bytes() == content
    with Vault.open(full) as vault:
        expect_none(find_problems(vault))


def test_missing_index_is_refused(full: Path) -> None:
    """With the command that makes it again."""
    lose_index(full)
    with pytest.raises(IndexBroken, match="scopefs reindex"):
        Vault.open(full, create=True)


def test_index_of_another_vault(full: Path, tmp_path: Path) -> None:
    """Nothing is taken from it."""
    with Vault.open(tmp_path / "other", create=True) as other:
        other.put("my.other", b"x", name="x")
    shutil.copy(tmp_path / "other" / "index.db", full / "index.db")
    for suffix in ("-wal", "-shm"):
        (full / f"index.db{suffix}").unlink(missing_ok=True)
    done = rebuild(full)
    assert any("another vault" in problem.what for problem in done.problems)
    with Vault.open(full) as vault:
        assert "my.other" not in {found.scope for found in vault.scopes()}
        expect_none(find_problems(vault))


# Lost files


def test_missing_envelope(root: Path) -> None:
    """The version is known by its event: it keeps its row, and reading it is an error."""
    with Vault.open(root, create=True) as vault:
        vault.put("my.files", b"1", name="a")
        path = root / vault.put("my.files", b"22", name="a").path
    saved = path.read_bytes()
    path.unlink()
    lose_index(root)
    done = rebuild(root)
    assert {problem.where for problem in done.problems} == {
        "index.db", str(path.relative_to(root)),
    }  # fmt: skip
    with Vault.open(root) as vault:
        version = vault.get("my.files", name="a")
        assert version.payload_size == 2
        with pytest.raises(PayloadMissing):
            vault.read_payload(version)
        assert {problem.code for problem in find_problems(vault)} == {"I1", "I7"}
    # Brought back, another rebuild finds it.
    path.write_bytes(saved)
    assert rebuild(root).problems == []
    with Vault.open(root) as vault:
        assert vault.read_payload(vault.get("my.files", name="a")) == b"22"
        expect_none(find_problems(vault))


def test_version_whose_envelope_is_missing_can_be_given_up(root: Path) -> None:
    """Then its name shows the version before, and all is well."""
    with Vault.open(root, create=True) as vault:
        vault.put("my.files", b"1", name="a")
        version = vault.put("my.files", b"22", name="a")
    (root / version.path).unlink()
    lose_index(root)
    rebuild(root)
    with Vault.open(root) as vault:
        vault.delete("my.files", version.stamp, forever=True)
        assert vault.read_payload(vault.get("my.files", name="a")) == b"1"
        expect_none(find_problems(vault))


def test_missing_envelope_that_the_old_index_knows(root: Path) -> None:
    """Its row stays complete, so that the file need only be put back."""
    with Vault.open(root, create=True) as vault:
        path = root / vault.put("my.files", b"22", name="a").path
    saved = path.read_bytes()
    path.unlink()
    assert told(rebuild(root)) == {"lost"}
    with Vault.open(root) as vault:
        assert {problem.code for problem in find_problems(vault)} == {"I1"}
        path.write_bytes(saved)
        expect_none(find_problems(vault))


@pytest.mark.parametrize("where", ["data/my/files/x.json", "data/x", "trash/x", "data/my/files/y"])
def test_foreign_file(root: Path, where: str) -> None:
    """A file that is no envelope is told, and left."""
    with Vault.open(root, create=True) as vault:
        vault.put("my.files", b"1", name="a")
    (root / where).write_bytes(b"{}")
    done = rebuild(root)
    assert [problem.where for problem in done.problems] == [where]
    assert (root / where).exists()


def _day(root: Path) -> Path:
    return next((root / "events").iterdir())


def _cut(root: Path) -> None:
    os.truncate(_day(root), _day(root).stat().st_size // 2)


def _tear(root: Path) -> None:
    os.truncate(_day(root), _day(root).stat().st_size - 1)


def _flip(root: Path) -> None:
    content = _day(root).read_bytes().replace(b'"writer"', b'"writes"', 1)
    _day(root).write_bytes(content)


def _garble(root: Path) -> None:
    lines = _day(root).read_bytes().splitlines(keepends=True)
    lines[5] = b"x" * len(lines[5].strip()) + b"\n"
    _day(root).write_bytes(b"".join(lines))


def _remove_first(root: Path) -> None:
    lines = _day(root).read_bytes().splitlines(keepends=True)
    _day(root).write_bytes(b"".join(lines[3:]))


def _remove_all(root: Path) -> None:
    _day(root).unlink()


def _repeat(root: Path) -> None:
    lines = _day(root).read_bytes().splitlines(keepends=True)
    _day(root).write_bytes(b"".join(lines[:7] + lines[5:]))


def _lines(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((root / "events").iterdir()))


DAMAGES = [_cut, _tear, _flip, _garble, _remove_first, _remove_all, _repeat]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_events_with_the_old_index(full: Path, damage: Callable[[Path], None]) -> None:
    """What events/ lacks, the old index has: all comes back, and the lines are written anew."""
    before = _lines(full)
    with Vault.open(full) as vault:
        rows = describe(vault)
    damage(full)
    done = rebuild(full)
    assert told(done) <= {"events"}
    with Vault.open(full) as vault:
        found = describe(vault)
        for table in rows:
            assert found[table] == rows[table], table
        vault.settle()
    with Vault.open(full) as vault:
        if damage is not _repeat:
            assert _lines(full) == before
            expect_none(find_problems(vault))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_events_alone(full: Path, damage: Callable[[Path], None]) -> None:
    """Without an index too: every version of data/ is there, under its name, and can be read."""
    with Vault.open(full) as vault:
        views = describe_views(vault)
    damage(full)
    lose_index(full)
    done = rebuild(full)
    assert "events" in told(done) or damage in (_cut, _tear)
    with Vault.open(full) as vault:
        after = describe_views(vault)
        for scope in set(views) - {"trash"}:
            _, versions, _ = views[scope]
            if not versions:
                continue
            assert set(after[scope][1]) >= set(versions), scope
            for stamp, found in versions.items():
                assert after[scope][1][stamp] == found
        if damage in (_remove_all, _garble, _remove_first):
            named = {path for path, entry in views["my.files.sub"][0].items() if entry[5]}
            assert named <= set(after["my.files.sub"][0])
        vault.settle()
        left = {problem.code for problem in find_problems(vault)}
        # A chain that is broken stays so; a repeated line stays where it is.
        assert left <= {_flip: {"I5", "I6"}, _repeat: {"I6"}}.get(damage, set())
        vault.put("my.files", b"life goes on", name="f300")
        vault.settle()
        assert {problem.code for problem in find_problems(vault)} == left


def test_no_events_at_all(root: Path) -> None:
    """Names come from the newest version that bears each; the trash stays the trash."""
    with Vault.open(root, create=True) as vault:
        vault.put("my.files", b"1", name="F/a")
        vault.put("my.files", b"2", name="F/a")
        vault.put("my.files", b"3")
        vault.put("my.files.sub", BLOB, name="b")
        gone = vault.put("my.files", b"4", name="c")
        vault.delete("my.files", gone.stamp)
    lose_index(root)
    _remove_all(root)
    done = rebuild(root)
    assert told(done) == {"lost", "events", "recovered"}
    with Vault.open(root) as vault:
        assert vault.read_payload(vault.get("my.files", name="F/a")) == b"2"
        assert len(vault.versions("my.files")) == 3
        assert vault.read_payload(vault.get("my.files.sub", name="b")) == BLOB
        (entry,) = vault.trash()
        assert entry.name == b"c"
        vault.settle()
        expect_none(find_problems(vault))
        vault.restore(entry.id)
        assert vault.read_payload(vault.get("my.files", name="c")) == b"4"
        vault.settle()
        expect_none(find_problems(vault))


def test_lost_directory_events(root: Path) -> None:
    """Directories whose events are lost are made again where the files in them say."""
    with Vault.open(root, create=True) as vault:
        vault.put("my.files", b"1", name="F/G/a")
        vault.put("my.files", b"2", name="F/G/b")
        before = describe_views(vault)["my.files"][0]
    lines = _day(root).read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"op":"mkdir"' not in line]
    _day(root).write_bytes(b"".join(kept))
    lose_index(root)
    rebuild(root)
    with Vault.open(root) as vault:
        after = describe_views(vault)["my.files"][0]
        files = {name for name, entry in before.items() if entry[5]}
        assert {name: after[name][0] for name in files} == {name: before[name][0] for name in files}
        vault.settle()
        expect_none(find_problems(vault))


# Moves that were not made yet


@pytest.mark.parametrize("keep", [True, False])
def test_moves_under_way(root: Path, keep: bool) -> None:
    """Files that stand where they stood before a removal, or a restore, are moved in the end."""
    with Vault.open(root, create=True) as vault:
        vault._settling.poke = lambda: None  # type: ignore[method-assign]
        versions = [vault.put("my.files", b"%d" % n, name=f"f{n}") for n in range(4)]
        vault.delete("my.files", versions[0].stamp)
        vault.settle()
        vault.restore(vault.trash()[0].id)
        vault.delete("my.files", versions[1].stamp)
        vault.delete("my.files", versions[2].stamp, forever=True)
        assert query(vault, "SELECT COUNT(*) FROM moves")[0][0] == 0
        vault.settle()
        moved = [row[0] for row in query(vault, "SELECT path FROM data_files ORDER BY id")]
        views = describe_views(vault)
    if keep:
        # As if the last moves had not been made.
        first, second = root / moved[0], root / moved[1]
        back = root / "trash" / "9" / "my" / "files"
        back.mkdir(parents=True, exist_ok=True)
        first.rename(back / first.name)
        second.rename(root / "data" / "my" / "files" / second.name)
    lose_index(root)
    rebuild(root)
    with Vault.open(root) as vault:
        assert describe_views(vault) == views
        vault.settle()
        expect_none(find_problems(vault))


# Alone, and cut


def test_refused_while_the_vault_is_open(root: Path) -> None:
    """By whom is said."""
    with Vault.open(root, create=True), pytest.raises(VaultInUse, match=f"process {os.getpid()}"):
        rebuild(root)
    rebuild(root)


_KILLED = """
import os, signal, sys, time
from pathlib import Path
import scopefs.store.reindex as reindex
import scopefs.store.swap as swap
from scopefs.store.layout import Layout

point, root = sys.argv[1], Path(sys.argv[2])

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function):
    def call(*arguments, **options):
        function(*arguments, **options)
        die()
    return call

if point.startswith("_"):
    setattr(reindex._Rebuild, point, after(getattr(reindex._Rebuild, point)))
elif point.startswith("sync"):
    count = int(point.removeprefix("sync"))
    sync = swap.sync_directory
    def counted(path):
        global count
        sync(path)
        count -= 1
        if not count:
            die()
    swap.sync_directory = counted
elif point == "replay":
    apply = reindex.Replay.apply
    def cut(self, seq, *arguments):
        if seq == 50:
            die()
        return apply(self, seq, *arguments)
    reindex.Replay.apply = cut
elif point == "rename":
    Path.rename = die
elif point == "unlink":
    unlink = Path.unlink
    def cut(self, missing_ok=False):
        unlink(self, missing_ok)
        if self.name == "index.db":
            die()
    Path.unlink = cut
reindex.rebuild_index(Layout(root), time.time_ns() // 1000, lambda *_: None)
"""


@pytest.mark.parametrize(
    "point",
    [
        "replay", "_replay_events", "_describe_versions", "_salvage_staged", "_import_unknown",
        "_recount", "_keep_staging_files", "_count", "rename", "unlink", "sync1", "sync2", "sync3",
    ],
)  # fmt: skip
@pytest.mark.parametrize("has_old", [True, False])
def test_killed_and_begun_again(full: Path, point: str, has_old: bool) -> None:
    """kill -9 anywhere: the vault opens as it was, or is refused; another rebuild is whole."""
    with Vault.open(full) as vault:
        views = describe_views(vault)
    if not has_old:
        lose_index(full)
    if point == "unlink" and not has_old:
        pytest.skip("there is nothing to remove")
    run_python_until_it_dies(_KILLED, point, full)
    if has_old and (full / "index.db").exists():
        with Vault.open(full) as vault:
            assert describe_views(vault) == views
    elif not (full / "index.db").exists():
        with pytest.raises(IndexBroken, match="scopefs reindex"):
            Vault.open(full)
    done = rebuild(full)
    with Vault.open(full) as vault:
        after = describe_views(vault)
        vault.settle()
        expect_none(find_problems(vault))
    if has_old:
        assert done.problems == []
        assert after == views
    else:
        assert {key: value for key, value in after.items() if key != "my.files"} == {
            key: value for key, value in views.items() if key != "my.files"
        }
    left = {path.name for path in full.glob("index.db*")}
    assert not {name for name in left if "new" in name or "rebuilt" in name}


def test_copy_of_the_settled_files_is_a_vault_again(full: Path, tmp_path: Path) -> None:
    """vault.json, data/, blobs/, events/ and trash/ alone are a backup."""
    with Vault.open(full) as vault:
        views = describe_views(vault)
        (tmp_path / "copy").mkdir()
        shutil.copy(full / "vault.json", tmp_path / "copy" / "vault.json")
        for name in ("data", "blobs", "events", "trash"):
            shutil.copytree(full / name, tmp_path / "copy" / name)
    rebuild(tmp_path / "copy")
    with Vault.open(tmp_path / "copy") as vault:
        expect_none(find_problems(vault))
        after = describe_views(vault)
        assert {scope: found[1:] for scope, found in after.items() if scope != "trash"} == {
            scope: found[1:] for scope, found in views.items() if scope != "trash"
        }


def test_versions_with_metadata(root: Path) -> None:
    """What a sender said about a payload is in its envelope, and comes back."""
    with Vault.open(root, create=True) as vault, vault.new_draft() as draft:
        draft.append(b"text")
        scope = make_scope(vault, "my.files")
        change = Write(
            vault.owner_name, scope, None, None, None, 0o644, 5, draft.seal(None),
            metadata='{"from": "test"}',
        )  # fmt: skip
        vault.apply_durably(apply_publish, change)
        rows = query(vault, "SELECT metadata FROM data_files")
        assert rows[0][0] is not None
    lose_index(root)
    rebuild(root)
    with Vault.open(root) as vault:
        assert query(vault, "SELECT metadata FROM data_files") == rows
        expect_none(find_problems(vault))
