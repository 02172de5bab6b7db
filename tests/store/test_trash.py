"""The trash: what was removed comes back as it was, or is destroyed, and nothing else with it."""

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import Conflict, NotFound
from scopefs.store import changes, index, trash, trash_tree, tree
from scopefs.store.publish import StagedState, Write, apply_stage
from tests.store.inspection import (
    PATIENCE_S,
    Clock,
    check_whole,
    find_child,
    find_problems,
    list_files,
    load_child,
    make_scope,
    query,
    run_python_until_it_dies,
)

BLOB = bytes(range(256)) * 80
LARGE_BLOB = bytes(range(256)) * 400
PAYLOADS = {
    "document": b'{"a": 1.0}\n',
    "large document": b'{"a":"' + b"x" * 100_000 + b'"}',
    "inline": b"some text",
    "blob in the row": BLOB,
    "blob in a file": LARGE_BLOB,
}

Tree = dict[bytes, bytes]


def read_tree(vault: Vault, scope: str) -> Tree:
    """What the names of a scope show."""
    found = {}
    for name, entry in vault.names(scope):
        with vault.read() as db:
            version = index.find_by_id(db, entry.version) if entry.version else None
        found[name] = vault.read_payload(version) if version else (entry.target or b"")
    return found


def read_envelopes(vault: Vault, scope: str) -> dict[str, bytes]:
    """The envelopes of all versions of a scope, by stamp."""
    return {found.stamp: vault.read_envelope(found) for found in vault.versions(scope)}


def remove_last(vault: Vault) -> int:
    """The id of the newest entry."""
    return vault.trash(limit=1)[0].id


@pytest.fixture
def family(vault: Vault) -> Vault:
    """my.files with every kind of payload and name, and scopes beside and below it."""
    for name, content in PAYLOADS.items():
        vault.put("my.files", b"before", name=name)
        vault.put("my.files", content, name=name)
        vault.put("my.files", content, name=f"My Folder/In It/{name}")
    vault.put("my.files", b"nameless")
    for scope in ("my.files.shared", "my.files2"):
        vault.put(scope, b"other", name="inline")
        vault.put(scope, LARGE_BLOB, name="blob")
    scope_node = make_scope(vault, "my.files")
    vault.apply(changes.apply_symlink, scope_node, b"link", b"inline")
    vault.apply(changes.apply_link, load_child(vault, scope_node, b"inline").node, scope_node, b"2")
    vault.apply(changes.apply_mkdir, scope_node, b"Empty", 0o700)
    return vault


# Whole scopes


@pytest.mark.parametrize("settle_before", [False, True])
@pytest.mark.parametrize("settle_between", [False, True])
def test_scope_comes_back_byte_for_byte(
    family: Vault, settle_before: bool, settle_between: bool
) -> None:
    """Versions with their times, envelopes, names, inode numbers, modes, links: all as it was."""
    if settle_before:
        family.settle()
    node = make_scope(family, "my.files")
    before = (
        read_tree(family, "my.files"), read_envelopes(family, "my.files"),
        list(family.names("my.files")), load_child(family, node, b"Empty").mode,
    )  # fmt: skip
    assert family.delete_scope("my.files") == 16
    if settle_between:
        check_whole(family)
    assert family.versions("my.files") == []
    (restored,) = family.restore(remove_last(family))
    assert (restored.entry.versions, restored.left) == (16, ())
    after = (
        read_tree(family, "my.files"), read_envelopes(family, "my.files"),
        list(family.names("my.files")), load_child(family, node, b"Empty").mode,
    )  # fmt: skip
    assert after == before
    check_whole(family)
    assert family.trash() == []
    assert (
        read_tree(family, "my.files"), read_envelopes(family, "my.files")
    ) == before[:2]  # fmt: skip


@pytest.mark.parametrize("removed", ["my.files", "my.files.shared"])
def test_others_stay_whole(family: Vault, removed: str) -> None:
    """Neither a subcategory nor its parent nor a scope with a similar name loses anything."""
    others = {"my.files", "my.files.shared", "my.files2"} - {removed}
    before = {scope: (read_tree(family, scope), family.versions(scope)) for scope in others}
    family.delete_scope(removed)
    family.empty_trash()
    after = {scope: (read_tree(family, scope), family.versions(scope)) for scope in others}
    assert after == before
    check_whole(family)


def test_removal_of_a_scope_is_one_event(family: Vault) -> None:
    """One event, one number, however many versions and names."""
    before = family.status()["events"]
    family.delete_scope("my.files")
    (event,) = family.events(after=before)
    assert (event["op"], event["scope"], event["versions"]) == ("delete-scope", "my.files", 16)
    rows = query(family, "SELECT DISTINCT deleted_seq FROM data_files WHERE scope = 'my.files'")
    assert rows == [(event["seq"],)]


def test_directories_are_made_again(vault: Vault) -> None:
    """Source, scope and folders that went meanwhile come back, the scope under its old number."""
    vault.put("my.files", b"1", name="A/n")
    node = make_scope(vault, "my.files")
    vault.delete_scope("my.files")
    vault.apply(changes.apply_rmdir, tree.ROOT_NODE, b"my")
    vault.restore(remove_last(vault))
    assert read_tree(vault, "my.files") == {b"A/n": b"1"}
    assert make_scope(vault, "my.files") == node
    check_whole(vault)


def test_taken_names_are_left_and_reported(vault: Vault) -> None:
    """What stands at a name by now stays; the version is back without it."""
    for name in ("n", "A/n", "A/m", "B/n"):
        vault.put("my.files", b"old", name=name)
    vault.delete_scope("my.files")
    for name in ("n", "A/n", "B"):
        vault.put("my.files", b"new", name=name)
    (restored,) = vault.restore(remove_last(vault))
    assert sorted(restored.left) == [b"A/n", b"B", b"n"]
    assert read_tree(vault, "my.files") == {
        b"n": b"new", b"A/n": b"new", b"A/m": b"old", b"B": b"new",
    }  # fmt: skip
    assert len(vault.versions("my.files")) == 7
    check_whole(vault)


def test_scope_whose_place_is_taken(vault: Vault) -> None:
    """A file where the subcategory's directory was: the versions come back, the names do not."""
    vault.put("my.files.sub", b"1", name="n")
    vault.delete_scope("my.files.sub")
    scope = make_scope(vault, "my.files")
    vault.apply(changes.apply_symlink, scope, b"sub", b"x")
    (restored,) = vault.restore(remove_last(vault))
    assert restored.left == (b"sub",)
    assert [vault.read_payload(found) for found in vault.versions("my.files.sub")] == [b"1"]
    check_whole(vault)


def test_history_goes_on_after_a_restore(vault: Vault) -> None:
    """The history of a name has what was before the removal and what came after the return."""
    vault.put("my.files", b"1", name="n")
    vault.delete_scope("my.files")
    vault.restore(remove_last(vault))
    vault.put("my.files", b"2", name="n")
    node = make_scope(vault, "my.files")
    with vault.read() as db:
        history = [
            index.find_by_id(db, row[0]) for row in tree.list_history(db, [node], b"n", 0, 9)
        ]
    assert [vault.read_payload(found) for found in history if found] == [b"1", b"2"]


def test_scope_is_removed_and_restored_again_and_again(vault: Vault) -> None:
    """Moves that wait are made in their order: whatever came last is where the files are."""
    vault.put("my.files", LARGE_BLOB, name="blob")
    vault.put("my.files", b'{"a":1}', name="n")
    vault.settle()
    before = read_envelopes(vault, "my.files")
    vault._settling.stop()
    for _ in range(3):
        vault.delete_scope("my.files")
        vault.restore(remove_last(vault))
    assert len(query(vault, "SELECT id FROM moves")) == 12
    assert read_envelopes(vault, "my.files") == before
    check_whole(vault)
    assert read_envelopes(vault, "my.files") == before


def test_write_under_way_ends_with_its_scope(vault: Vault) -> None:
    """What was staged and not published goes with the last name, as with unlink."""
    vault.put("my.files", b"1", name="n")
    scope = make_scope(vault, "my.files")
    node = load_child(vault, scope, b"n").node
    with vault.new_draft() as draft:
        draft.append(b"under way")
        write = Write(vault.owner_name, scope, node, None, None, 0o644, None, draft.seal(b"n"))
        vault.apply(apply_stage, write, StagedState.CLOSED)
        vault.delete_scope("my.files")
    assert query(vault, "SELECT sid FROM staged WHERE state < 2") == []


def test_version_written_after_its_scope_went(vault: Vault) -> None:
    """Who had a file open writes on; when its name comes back, it never shows what is removed."""
    vault.put("my.files", b"1", name="n")
    scope = make_scope(vault, "my.files")
    node = load_child(vault, scope, b"n").node
    vault.delete_scope("my.files")
    first = remove_last(vault)
    with vault.new_draft() as draft:
        draft.append(b"later")
        sealed = draft.seal(b"n")
        from scopefs.store.publish import apply_publish

        vault.apply(
            apply_publish, Write(vault.owner_name, scope, node, None, None, 0o644, None, sealed)
        )
    vault.delete_scope("my.files")
    vault.restore(first)
    assert read_tree(vault, "my.files") == {b"n": b"1"}
    check_whole(vault)


# Single versions


@pytest.mark.parametrize("is_settled", [False, True])
def test_name_shows_the_restored_version_again(vault: Vault, is_settled: bool) -> None:
    """A name that went back to the version before goes forth again, with mode and mtime."""
    vault.put("my.files", b"1", name="n")
    second = vault.put("my.files", b"2", name="n", mtime_ns=5)
    if is_settled:
        vault.settle()
    before = next(iter(vault.names("my.files")))[1]
    vault.delete("my.files", second.stamp)
    if is_settled:
        vault.settle()
    vault.restore(remove_last(vault))
    after = next(iter(vault.names("my.files")))[1]
    assert (after.version, after.mode, after.mtime_ns) == (before.version, before.mode, 5)
    assert vault.versions("my.files")[0] == vault.get("my.files", stamp=second.stamp)
    check_whole(vault)


def test_ended_names_come_back(vault: Vault) -> None:
    """All names of the file, in folders that are made again."""
    version = vault.put("my.files", b"1", name="A/B/n")
    scope = make_scope(vault, "my.files")
    assert version.node is not None
    vault.apply(changes.apply_link, version.node, scope, b"m")
    vault.delete("my.files", version.stamp)
    folder = load_child(vault, scope, b"A").node
    vault.apply(changes.apply_rmdir, folder, b"B")
    vault.apply(changes.apply_rmdir, scope, b"A")
    source = load_child(vault, tree.ROOT_NODE, b"my").node
    vault.apply(changes.apply_rmdir, source, b"files")
    (restored,) = vault.restore(remove_last(vault))
    assert (restored.names, restored.left) == (4, ())
    assert read_tree(vault, "my.files") == {b"A/B/n": b"1", b"m": b"1"}
    assert load_child(vault, scope, b"m").node == version.node
    check_whole(vault)


def test_newer_contents_stay(vault: Vault) -> None:
    """A file that was written to since goes on showing that."""
    vault.put("my.files", b"1", name="n")
    second = vault.put("my.files", b"2", name="n")
    vault.delete("my.files", second.stamp)
    vault.put("my.files", b"3", name="n")
    vault.restore(remove_last(vault))
    assert read_tree(vault, "my.files") == {b"n": b"3"}
    assert len(vault.versions("my.files")) == 3


def test_name_that_went_back_goes_forth(vault: Vault) -> None:
    """Saved by rename, removed, restored: the name shows what had replaced the old file."""
    vault.put("my.files", b"1", name="n")
    second = vault.put("my.files", b"2", name="n.tmp")
    scope = make_scope(vault, "my.files")
    vault.apply(changes.apply_rename, scope, b"n.tmp", scope, b"n", replace=True)
    vault.delete("my.files", second.stamp)
    assert read_tree(vault, "my.files") == {b"n": b"1"}
    (restored,) = vault.restore(remove_last(vault))
    assert (read_tree(vault, "my.files"), restored.left) == ({b"n": b"2"}, ())
    check_whole(vault)


def test_taken_name_of_a_version_is_reported(vault: Vault) -> None:
    """Another file has the name: it keeps it."""
    version = vault.put("my.files", b"1", name="A/n")
    vault.delete("my.files", version.stamp)
    vault.put("my.files", b"2", name="A/n")
    (restored,) = vault.restore(remove_last(vault))
    assert (restored.names, restored.left) == (0, (b"A/n",))
    assert read_tree(vault, "my.files") == {b"A/n": b"2"}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_several_removals_of_one_file(vault: Vault, order: tuple[int, ...]) -> None:
    """In whatever order they come back, the name shows the newest in the end."""
    versions = [vault.put("my.files", b"%d" % n, name="n") for n in range(3)]
    for version in reversed(versions):
        vault.delete("my.files", version.stamp)
    entries = [entry.id for entry in vault.trash()]
    for n in order:
        vault.restore(entries[n])
    assert read_tree(vault, "my.files") == {b"n": b"2"}
    check_whole(vault)


def test_time_that_another_version_has_is_a_conflict(vault: Vault) -> None:
    """Nothing is changed, not even of the other entries that were asked for."""
    first = vault.put("my.files", b"1", name="n")
    other = vault.put("my.files", b"2", name="m")
    vault.delete("my.files", first.stamp)
    vault.delete("my.files", other.stamp)
    entries = [entry.id for entry in vault.trash()]
    _take_time(vault, first, b"another")
    before = vault.status()["events"]
    with pytest.raises(Conflict, match=first.stamp):
        vault.restore(*entries)
    assert vault.status()["events"] == before
    assert len(vault.trash()) == 2


def test_equal_version_counts_as_restored(vault: Vault) -> None:
    """An import has brought the same version back already: the entry goes, the name comes."""
    first = vault.put("my.files", BLOB, name="n", mtime_ns=7)
    vault.settle()
    vault.delete("my.files", first.stamp)
    _take_time(vault, first, BLOB)
    vault.restore(remove_last(vault))
    assert vault.trash() == []
    assert read_tree(vault, "my.files") == {b"n": BLOB}
    assert len(vault.versions("my.files")) == 1
    vault.settle()
    # Its time was set by hand: the event does not know.
    assert {problem.code for problem in find_problems(vault)} == {"I5"}


def _take_time(vault: Vault, removed: index.Version, content: bytes) -> None:
    """Publish a version at the time that a removed one had, as an import does."""
    version = vault.put("my.files", content, name=None, mtime_ns=removed.mtime_ns)

    def set_time(transaction) -> None:
        transaction.db.execute(
            "UPDATE data_files SET collected_us = ?, collected_at = ?, path = ?, name = ?,"
            " media_type = ? WHERE id = ?",
            (removed.collected_us, removed.collected_at, removed.path, removed.name,
             removed.media_type, version.id),
        )  # fmt: skip

    vault.apply(set_time)


def test_restored_twice_is_not_found(vault: Vault) -> None:
    """An entry that is back is not in the trash any more; nor is one that never was."""
    vault.put("my.files", b"1")
    vault.delete_scope("my.files")
    entry = remove_last(vault)
    vault.restore(entry)
    for wanted in (entry, 1, 10**15):
        with pytest.raises(NotFound, match=str(wanted)):
            vault.restore(wanted)


# Listing


def test_list_is_newest_first_and_paged(vault: Vault) -> None:
    """What was removed, with the numbers that `restore` takes."""
    version = vault.put("my.files", b"12", name="A/n")
    vault.put("my.files", b"345")
    vault.put("my.files.sub", b"6")
    vault.delete("my.files", version.stamp)
    vault.delete_scope("my.files")
    vault.delete_scope("my.files.sub")
    found = vault.trash()
    assert [(entry.what, entry.scope, entry.versions, entry.payload_bytes, entry.name)
            for entry in found] == [
        ("scope", "my.files.sub", 1, 1, None), ("scope", "my.files", 1, 3, None),
        ("version", "my.files", 1, 2, b"A/n"),
    ]  # fmt: skip
    assert vault.trash(limit=1) + vault.trash(before=found[0].id) == found


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("SELECT deleted_seq FROM data_files WHERE deleted_seq < ?"
         " ORDER BY deleted_seq DESC LIMIT 1",
         "USING COVERING INDEX data_files_trash"),
        ("SELECT id FROM data_files WHERE deleted_seq = ? AND id > 5 ORDER BY id LIMIT 5",
         "USING COVERING INDEX data_files_trash"),
    ],
)  # fmt: skip
def test_queries_use_the_index_of_the_trash(
    db: apsw.Connection, statement: str, wanted: str
) -> None:
    """No query of the trash reads all versions, or sorts them."""
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", (1,))]
    assert len(plan) == 1
    assert wanted in plan[0]


def test_view_has_the_names_as_they_were(family: Vault) -> None:
    """The names of a scope's entry, and those that showed a version."""
    second = family.get("my.files2", name="inline")
    family.delete("my.files2", second.stamp)
    family.delete_scope("my.files")
    scope_entry, version_entry = family.trash()
    with family.read() as db:
        found = trash_tree.list_trashed_names(db, scope_entry, scope_entry.scope_node, b"", 100)
        paths = trash_tree.list_trashed_paths(db, version_entry)
    names = {name.name for name in found}
    assert names == {b"link", b"2", b"Empty", b"My Folder"} | {name.encode() for name in PAYLOADS}
    assert {path: name.version for path, name in paths.items()} == {(b"inline",): second.id}


# Emptying


@pytest.mark.parametrize("is_settled", [False, True])
def test_emptied_bytes_are_gone(family: Vault, is_settled: bool) -> None:
    """Rows, envelopes, staging files, and those blobs that nobody else uses; and only those."""
    if is_settled:
        family.settle()
    family.delete_scope("my.files")
    if is_settled:
        family.settle()
    destroyed = family.empty_trash()
    assert (destroyed.entries, destroyed.versions) == (1, 16)
    assert family.trash() == []
    root = family.layout.root
    assert list_files(root / "trash") == []
    # my.files2 has the large one still.
    assert [path.name for path in (root / "blobs").rglob("*") if path.is_file()] == [
        family.get("my.files2", name="blob").payload_sha256.hex()
    ]
    assert [path for path in list_files(root / "staging") if not path.endswith("lock")] == []
    assert family.read_payload(family.get("my.files2", name="blob")) == LARGE_BLOB
    check_whole(family)


def test_blob_stays_while_the_trash_has_it(vault: Vault) -> None:
    """A blob goes with its last version, be that in the trash or not."""
    versions = [vault.put("my.files", LARGE_BLOB) for _ in range(3)]
    vault.settle()
    for version in versions[:2]:
        vault.delete("my.files", version.stamp)
    newer, older = (entry.id for entry in vault.trash())
    path = vault.layout.blob(versions[0].payload_sha256)
    vault.empty_trash(older)
    assert path.exists()
    vault.delete("my.files", versions[2].stamp)
    vault.empty_trash(newer)
    assert path.exists()
    check_whole(vault)
    vault.empty_trash()
    assert not path.exists()
    check_whole(vault)


def test_emptying_by_age(clocked: Vault, clock: Clock) -> None:
    """Only what was removed before the time goes."""
    for name in ("a", "b"):
        version = clocked.put("my.files", b"1", name=name)
        clocked.delete("my.files", version.stamp)
        clock.move(100)
    destroyed = clocked.empty_trash(older_than_us=clock.now_us - 150_000_000)
    assert destroyed.entries == 1
    assert [entry.name for entry in clocked.trash()] == [b"b"]


def test_unknown_entry_empties_nothing(vault: Vault) -> None:
    """All entries that are named are looked up first."""
    vault.put("my.files", b"1")
    vault.delete_scope("my.files")
    with pytest.raises(NotFound):
        vault.empty_trash(remove_last(vault), 10**9)
    assert len(vault.trash()) == 1


def test_forever_leaves_nothing(vault: Vault) -> None:
    """A removal for ever is two events, and no entry."""
    version = vault.put("my.files", LARGE_BLOB, name="n")
    vault.put("my.other", b"1", name="n")
    vault.settle()
    before = vault.status()["events"]
    vault.delete("my.files", version.stamp, forever=True)
    assert vault.delete_scope("my.other", forever=True) == 1
    assert [event["op"] for event in vault.events(after=before)] == [
        "delete", "destroy", "delete-scope", "destroy",
    ]  # fmt: skip
    assert vault.trash() == []
    assert list_files(vault.layout.root / "blobs") == []
    check_whole(vault)


def test_history_of_destroyed_versions(vault: Vault) -> None:
    """Queries that meet a version which is not there any more leave it out."""
    first = vault.put("my.files", b"1", name="n")
    vault.put("my.files", b"2", name="n")
    vault.delete("my.files", first.stamp, forever=True)
    third = vault.put("my.files", b"3", name="n")
    node = make_scope(vault, "my.files")
    with vault.read() as db:
        assert len(tree.list_history(db, [node], b"n", 0, 9)) == 2
    vault.delete("my.files", third.stamp)
    assert read_tree(vault, "my.files") == {b"n": b"2"}
    vault.delete_scope("my.files", forever=True)
    with vault.read() as db:
        assert tree.list_history(db, [node], b"n", 0, 9) == []
    assert find_child(vault, node, b"n") is None
    check_whole(vault)


def test_damaged_version_can_be_destroyed(vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """One whose staged bytes are lost never settles; it can be removed all the same."""
    version = vault.put("my.files", LARGE_BLOB, name="n")
    ((file,),) = query(vault, "SELECT file FROM staged")
    (vault.layout.staging / file).write_bytes(b"damaged")
    vault.settle()
    assert "cannot be settled" in caplog.text
    vault.delete("my.files", version.stamp, forever=True)
    check_whole(vault)


# Files that wait for their moves


def test_new_version_at_the_time_of_a_removed_one(vault: Vault) -> None:
    """The removed envelope leaves its place in data/ before another comes to stand there."""
    first = vault.put("my.files", b"removed", name="n")
    vault.settle()
    envelope = vault.read_envelope(first)
    vault.delete("my.files", first.stamp)
    _take_time(vault, first, b"another")
    (live,) = vault.versions("my.files")
    expected = vault.read_envelope(live)
    vault.settle()
    assert (vault.layout.root / live.path).read_bytes() == expected
    (entry,) = vault.trash()
    path = vault.layout.root / f"trash/{entry.id}/{first.path.removeprefix('data/')}"
    assert path.read_bytes() == envelope
    # A settling whose end was lost makes its moves again.
    vault.apply(_queue, first.path, str(path.relative_to(vault.layout.root)))
    vault.settle()
    assert (vault.layout.root / live.path).read_bytes() == expected
    assert path.read_bytes() == envelope


def _queue(transaction, source: str, target: str) -> None:
    transaction.db.execute("INSERT INTO moves(source, target) VALUES(?,?)", (source, target))


# Deletes, restores or empties, and is killed at the Nth thing that it does to a file.
_DIE_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from scopefs import Vault
root, action, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
vault = Vault.open(root)
vault._settling.stop()
left = steps

def dying(real):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

for owner, name in ((os, "link"), (os, "rename"), (os, "unlink"), (os, "mkdir"), (os, "rmdir"),
                    (os, "open")):
    setattr(owner, name, dying(getattr(owner, name)))
from scopefs.store import settle
settle.sync_file_system = dying(settle.sync_file_system)
if action == "delete":
    vault.delete_scope("my.files")
elif action == "restore":
    vault.restore(vault.trash()[0].id)
elif action == "again":
    vault.delete_scope("my.files")
    vault.restore(vault.trash()[0].id)
elif action == "empty":
    vault.empty_trash()
elif action == "forever":
    vault.delete_scope("my.files", forever=True)
vault.settle()
print("survived", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("is_settled", [False, True])
@pytest.mark.parametrize("action", ["delete", "restore", "again", "empty", "forever"])
def test_killed_at_every_step(tmp_path: Path, action: str, is_settled: bool) -> None:
    """Wherever it is cut, the next open ends it: all there or all gone, and nothing else goes."""
    contents = {"document": b'{"a":1}', "blob": LARGE_BLOB}
    step = 0
    out = ""
    while out != "survived\n":
        step += 3
        root = tmp_path / f"{step}"
        _make_vault(root, contents, in_trash=action in ("restore", "empty"), is_settled=is_settled)
        out = run_python_until_it_dies(_DIE_IN_THE_MIDDLE, root, action, str(step))
        with Vault.open(root) as vault:
            check_whole(vault)
            assert read_tree(vault, "my.other") == {b"blob": LARGE_BLOB}
            entries = vault.trash()
            found = read_tree(vault, "my.files")
            expected = {name.encode(): content for name, content in contents.items()}
            if found:
                assert (found, entries) == (expected, [])
            elif entries:
                vault.restore(entries[0].id)
                assert read_tree(vault, "my.files") == expected
            else:
                assert action in ("empty", "forever")
            check_whole(vault)
    assert step > 3


def _make_vault(
    root: Path, contents: dict[str, bytes], *, in_trash: bool, is_settled: bool
) -> None:
    with Vault.open(root, create=True) as vault:
        for name, content in contents.items():
            vault.put("my.files", content, name=name)
        vault.put("my.other", LARGE_BLOB, name="blob")
        if in_trash:
            vault.delete_scope("my.files")
    if not is_settled:
        # As a process leaves it that is killed right after: nothing of this is placed.
        subprocess.run(
            [sys.executable, "-c", _MORE_AND_DIE, str(root), str(in_trash)],
            check=False, timeout=PATIENCE_S,
        )  # fmt: skip


_MORE_AND_DIE = """
import os, signal, sys
from scopefs import Vault
vault = Vault.open(sys.argv[1])
vault._settling.stop()
in_trash = sys.argv[2] == "True"
if in_trash:
    vault.restore(vault.trash()[0].id)
vault.put("my.files", b'{"a":1}', name="document")
if in_trash:
    vault.delete_scope("my.files")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_blob_that_an_uncommitted_removal_frees_stays(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob is not removed for a removal that shares the transaction and may yet fail."""
    first = vault.put("my.files", LARGE_BLOB, name="a")
    second = vault.put("my.files", LARGE_BLOB, name="b")
    vault.settle()
    path = vault.layout.blob(first.payload_sha256)
    with vault.read() as reader:
        settler = vault._settler
        relative = str(path.relative_to(vault.layout.root))

        def both(transaction) -> None:
            for version in (first, second):
                removed = trash.apply_delete_version(transaction, version)
                trash.apply_destroy(transaction, removed.entry)
            settler._remove_unused(transaction, reader=reader, blobs=[relative])
            raise NotFound("it fails")

        with pytest.raises(NotFound, match="it fails"):
            vault.apply(both)
    assert path.exists()
    check_whole(vault)
