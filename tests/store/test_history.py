"""History: what a name showed follows renames, replacements and removals."""

import pytest

from scopefs import Vault
from scopefs.model.payload import Kind
from scopefs.store import changes, rows, tree
from scopefs.store.publish import Sealed, Write, apply_show_empty
from tests.store.inspection import Clock, find_child, load_child, make_scope


@pytest.fixture
def scope(clocked: Vault) -> int:
    """The node of the scope my.files."""
    return make_scope(clocked, "my.files")


def put(vault: Vault, name: str, content: str) -> None:
    """Put a text under a name."""
    vault.put("my.files", content.encode(), name=name)


def rename(vault: Vault, scope: int, old: bytes, new: bytes) -> None:
    """Rename within the scope."""
    vault.apply(changes.apply_rename, scope, old, scope, new, replace=True)


def empty(vault: Vault, scope: int, name: bytes) -> None:
    """Let a name of the scope show an empty file."""
    entry = find_child(vault, scope, name)
    node = vault.apply(rows.allocate_nodes, 1) if entry is None else entry.node
    write = Write(
        vault.owner_name, scope, node, scope if entry is None else None,
        name if entry is None else None, 0o644, None, Sealed(0, b"", Kind.INLINE, "", None, None),
    )  # fmt: skip
    vault.apply(apply_show_empty, write)


def history(vault: Vault, parent: int, name: bytes, *folders: bytes) -> str:
    """The contents of a name's history, oldest first, each one letter; below `parent/folders`."""
    with vault.read() as db:
        parents = [parent]
        for folder in folders:
            parents = tree.list_past_folders(db, parents, folder)
        found = tree.list_history(db, parents, name, 0, 1000)
    by_id = {version.id: version for version in vault.versions("my.files")}
    assert [us for _, us in found] == sorted(us for _, us in found)
    return b"".join(vault.read_payload(by_id[version_id]) for version_id, _ in found).decode()


def test_overwrites_are_one_history(clocked: Vault, scope: int) -> None:
    """Every version of a file stands in its name's history."""
    for content in "abc":
        put(clocked, "f", content)
    assert history(clocked, scope, b"f") == "abc"


def test_history_is_of_one_name(clocked: Vault, scope: int) -> None:
    """Other names and nameless versions are not in it."""
    put(clocked, "f", "a")
    put(clocked, "g", "b")
    clocked.put("my.files", b"c")
    assert history(clocked, scope, b"f") == "a"


def test_rename_brings_its_history(clocked: Vault, scope: int) -> None:
    """What a file was before its rename is in the history of its new name."""
    put(clocked, "old", "a")
    put(clocked, "old", "b")
    rename(clocked, scope, b"old", b"new")
    put(clocked, "new", "c")
    assert history(clocked, scope, b"new") == "abc"


def test_renamed_file_that_was_emptied_brings_its_history(clocked: Vault, scope: int) -> None:
    """It has no version under its new name, and a history all the same."""
    put(clocked, "old", "a")
    empty(clocked, scope, b"old")
    rename(clocked, scope, b"old", b"new")
    assert history(clocked, scope, b"new") == "a"
    with clocked.read() as db:
        assert tree.find_past_name(db, [scope], b"new") is not None
        assert [past.name for past in tree.list_past_names(db, [scope], b"", 10)] == [
            b"new", b"old",
        ]  # fmt: skip


def test_empty_file_without_a_past_has_no_history(clocked: Vault, scope: int) -> None:
    """Under whatever name."""
    empty(clocked, scope, b"old")
    rename(clocked, scope, b"old", b"new")
    with clocked.read() as db:
        assert tree.list_past_names(db, [scope], b"", 10) == []
        assert tree.find_past_name(db, [scope], b"new") is None


def test_old_name_keeps_what_it_showed(clocked: Vault, scope: int) -> None:
    """The name that a file was renamed from shows the versions of its time, not later ones."""
    put(clocked, "old", "a")
    rename(clocked, scope, b"old", b"new")
    put(clocked, "new", "b")
    assert history(clocked, scope, b"old") == "a"


def test_replacing_by_rename_continues_the_history(clocked: Vault, scope: int) -> None:
    """Tools that save by writing a temporary file and renaming it keep one history."""
    put(clocked, "f", "a")
    for content in "bc":
        put(clocked, "f.tmp", content)
        rename(clocked, scope, b"f.tmp", b"f")
    assert history(clocked, scope, b"f") == "abc"


def test_history_of_a_replaced_file_goes_on_under_a_later_name(clocked: Vault, scope: int) -> None:
    """What a file replaced stays before it, when it is renamed once more."""
    put(clocked, "f", "a")
    put(clocked, "f.tmp", "b")
    rename(clocked, scope, b"f.tmp", b"f")
    rename(clocked, scope, b"f", b"g")
    put(clocked, "g", "c")
    assert history(clocked, scope, b"g") == "abc"


def test_saving_through_a_backup_continues_the_history(clocked: Vault, scope: int) -> None:
    """So do tools that rename the old file away, and write a new one."""
    put(clocked, "f", "a")
    rename(clocked, scope, b"f", b"f~")
    put(clocked, "f", "b")
    assert history(clocked, scope, b"f") == "ab"


def test_removed_name_keeps_its_history(clocked: Vault, scope: int) -> None:
    """After rm the history is there, and goes on when the name comes back."""
    put(clocked, "f", "a")
    clocked.apply(changes.apply_unlink, scope, b"f")
    assert history(clocked, scope, b"f") == "a"
    put(clocked, "f", "b")
    assert history(clocked, scope, b"f") == "ab"


def test_chain_of_renames(clocked: Vault, scope: int) -> None:
    """History is followed through any number of renames."""
    put(clocked, "n0", "a")
    for n in range(5):
        rename(clocked, scope, b"n%d" % n, b"n%d" % (n + 1))
        put(clocked, f"n{n + 1}", chr(ord("b") + n))
    assert history(clocked, scope, b"n5") == "abcdef"
    assert history(clocked, scope, b"n2") == "abc"


def test_names_that_are_swapped_back_and_forth(clocked: Vault, scope: int) -> None:
    """A circle of renames ends, and gives every version once."""
    put(clocked, "f", "a")
    for _ in range(3):
        rename(clocked, scope, b"f", b"g")
        rename(clocked, scope, b"g", b"f")
    put(clocked, "f", "b")
    assert history(clocked, scope, b"f") == "ab"


def test_what_came_after_a_rename_away_is_not_the_new_names(clocked: Vault, scope: int) -> None:
    """A file that takes the old name later has nothing to do with the one that left."""
    put(clocked, "f", "a")
    rename(clocked, scope, b"f", b"g")
    put(clocked, "f", "b")
    put(clocked, "g", "c")
    assert history(clocked, scope, b"g") == "ac"


def test_both_names_of_a_file_have_its_later_versions(clocked: Vault, scope: int) -> None:
    """A hard link shares what is written from then on."""
    put(clocked, "f", "a")
    node = load_child(clocked, scope, b"f").node
    clocked.apply(changes.apply_link, node, scope, b"g")
    put(clocked, "g", "b")
    assert history(clocked, scope, b"f") == history(clocked, scope, b"g") == "ab"


def test_renamed_folder_keeps_the_histories_in_it(clocked: Vault, scope: int) -> None:
    """What lies in a folder goes on under the folder's new name."""
    put(clocked, "D/f", "a")
    rename(clocked, scope, b"D", b"E")
    put(clocked, "E/f", "b")
    folder = load_child(clocked, scope, b"E").node
    assert history(clocked, folder, b"f") == "ab"


def test_folder_that_is_made_again_goes_on_with_its_history(clocked: Vault, scope: int) -> None:
    """A folder that was removed and comes back is another node, and one history."""
    put(clocked, "D/E/f", "a")
    outer = load_child(clocked, scope, b"D").node
    inner = load_child(clocked, outer, b"E").node
    clocked.apply(changes.apply_unlink, inner, b"f")
    clocked.apply(changes.apply_rmdir, outer, b"E")
    clocked.apply(changes.apply_rmdir, scope, b"D")
    put(clocked, "D/E/f", "b")
    again = load_child(clocked, load_child(clocked, scope, b"D").node, b"E").node
    assert again != inner
    assert history(clocked, scope, b"f", b"D", b"E") == "ab"


def test_deleted_version_is_not_in_the_history(clocked: Vault, scope: int) -> None:
    """What went to the trash is not shown."""
    for content in "abc":
        put(clocked, "f", content)
    clocked.delete("my.files", clocked.versions("my.files")[1].stamp)
    assert history(clocked, scope, b"f") == "ac"


def test_attributes_are_no_history(clocked: Vault, scope: int) -> None:
    """chmod and touch give no second entry for a version."""
    put(clocked, "f", "a")
    node = load_child(clocked, scope, b"f").node
    clocked.apply(changes.apply_attributes, node, 0o600, 1)
    clocked.apply(changes.apply_attributes, node, 0o644, 2)
    assert history(clocked, scope, b"f") == "a"


def test_history_pages(clocked: Vault, scope: int, clock: Clock) -> None:
    """Pages of two give every version once, in order."""
    for content in "abcde":
        put(clocked, "f", content)
        clock.move(1)
    seen: list[int] = []
    after_us = 0
    while True:
        with clocked.read() as db:
            page = tree.list_history(db, [scope], b"f", after_us, 2)
        if not page:
            break
        seen += [version_id for version_id, _ in page]
        after_us = page[-1][1]
    assert seen == [version.id for version in reversed(clocked.versions("my.files"))]


def test_newest_in_history(clocked: Vault, scope: int) -> None:
    """The newest version with its time, also after a rename; None for a name that never was."""
    put(clocked, "f", "a")
    rename(clocked, scope, b"f", b"g")
    version = clocked.get("my.files")
    with clocked.read() as db:
        newest = tree.find_newest_in_history(db, [scope], b"g")
        assert newest == (version.id, version.collected_us)
        assert tree.find_newest_in_history(db, [scope], b"no") is None


def test_past_names_are_listed_once(clocked: Vault, scope: int) -> None:
    """Every name that ever stood in a directory comes once, however often it was made."""
    for name in ("b", "a", "b", "c"):
        put(clocked, name, "x")
        clocked.apply(changes.apply_unlink, scope, name.encode())
    put(clocked, "a", "y")
    with clocked.read() as db:
        names = [past.name for past in tree.list_past_names(db, [scope], b"", 100)]
    assert names == [b"a", b"b", b"c"]


def remove_scope(vault: Vault, scope: int) -> None:
    """Remove the names of a scope, and its directory, as `rm -r` does."""
    with vault.read() as db:
        children = tree.list_children(db, scope, 0, 100)
        _, source, name = tree.find_live_names(db, scope)[0]
    for child in children:
        vault.apply(changes.apply_unlink, scope, child.name)
    vault.apply(changes.apply_rmdir, source, name)


def test_removed_scope_keeps_its_versions(clocked: Vault, scope: int) -> None:
    """The directory is gone like any other, its history is not."""
    put(clocked, "f", "a")
    remove_scope(clocked, scope)
    source = load_child(clocked, tree.ROOT_NODE, b"my").node
    assert find_child(clocked, source, b"files") is None
    assert clocked.read_payload(clocked.get("my.files")) == b"a"
    assert history(clocked, scope, b"f") == "a"


def test_removed_scope_comes_back_with_its_history(clocked: Vault, scope: int) -> None:
    """mkdir of the same scope gives the same node, empty, with all of its history."""
    put(clocked, "f", "a")
    remove_scope(clocked, scope)
    assert make_scope(clocked, "my.files") == scope
    with clocked.read() as db:
        assert tree.list_children(db, scope, 0, 100) == []
    put(clocked, "f", "b")
    assert history(clocked, scope, b"f") == "ab"


def test_scope_comes_back_below_a_source_that_was_removed_too(clocked: Vault, scope: int) -> None:
    """The same when its source had gone with it."""
    put(clocked, "f", "a")
    remove_scope(clocked, scope)
    clocked.apply(changes.apply_rmdir, tree.ROOT_NODE, b"my")
    assert make_scope(clocked, "my.files") == scope
    assert history(clocked, scope, b"f") == "a"


def test_time_goes_on_in_a_scope_that_comes_back(clocked: Vault, scope: int) -> None:
    """A removed scope remembers its newest time, those of deleted versions too."""
    put(clocked, "f", "a")
    before = clocked.get("my.files").collected_us
    clocked.delete_scope("my.files")
    put(clocked, "f", "b")
    assert clocked.get("my.files").collected_us > before
