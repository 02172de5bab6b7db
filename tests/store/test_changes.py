"""Changes of the tree: what each does, and what each refuses, leaving nothing behind."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from scopefs import Vault
from scopefs.errors import (
    CrossesScopes,
    InvalidName,
    IsADirectory,
    NameExists,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    ScopefsError,
)
from scopefs.model.naming import NodeKind
from scopefs.store import changes, index, publish, rows, tree
from tests.store.inspection import (
    NOON_US,
    Clock,
    check_whole,
    find_child,
    load_child,
    make_scope,
    query,
)


@dataclass
class Tree:
    """A small tree; every attribute is the node of a directory."""

    vault: Vault
    root: int
    source: int
    """my"""
    scope: int
    """my.files: one, two, link -> one, Full/inner, Empty"""
    full: int
    empty: int
    sub: int
    """my.files.sub, empty"""
    other: int
    """other.things: three"""
    gone: int
    """a folder that was removed"""

    def child(self, parent: int, name: bytes) -> tree.Entry:
        return load_child(self.vault, parent, name)

    def names(self, parent: int) -> list[bytes]:
        with self.vault.read() as db:
            return [child.name for child in tree.list_children(db, parent, 0, 100)]

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, replace: bool = True
    ) -> changes.Renamed:
        return self.vault.apply(
            changes.apply_rename, parent, name, new_parent, new_name, replace=replace
        )

    def payload(self, parent: int, name: bytes) -> bytes:
        version_id = self.child(parent, name).version
        assert version_id is not None
        with self.vault.read() as db:
            version = index.find_by_id(db, version_id)
        assert version is not None
        return self.vault.read_payload(version)


@pytest.fixture
def tree_(clocked: Vault) -> Tree:
    """The tree that the tables below start from."""
    clocked.put("my.files", b"1", name="one")
    clocked.put("my.files", b"2", name="two")
    clocked.put("my.files", b"3", name="Full/inner")
    clocked.put("other.things", b"4", name="three")
    scope = make_scope(clocked, "my.files")
    clocked.apply(changes.apply_symlink, scope, b"link", b"one")
    gone = clocked.apply(changes.apply_mkdir, scope, b"Gone", 0o755)
    clocked.apply(changes.apply_rmdir, scope, b"Gone")
    return Tree(
        clocked, tree.ROOT_NODE, load_child(clocked, tree.ROOT_NODE, b"my").node, scope,
        load_child(clocked, scope, b"Full").node,
        clocked.apply(changes.apply_mkdir, scope, b"Empty", 0o755),
        make_scope(clocked, "my.files.sub"), make_scope(clocked, "other.things"), gone,
    )  # fmt: skip


# What is refused

Refusal = tuple[str, Callable[[Tree], object], type[ScopefsError]]


def mkdir(parent: str, name: bytes) -> Callable[[Tree], object]:
    return lambda t: t.vault.apply(changes.apply_mkdir, getattr(t, parent), name, 0o755)


def symlink(parent: str, name: bytes) -> Callable[[Tree], object]:
    return lambda t: t.vault.apply(changes.apply_symlink, getattr(t, parent), name, b"to")


def link(source: bytes, parent: str, name: bytes) -> Callable[[Tree], object]:
    return lambda t: t.vault.apply(
        changes.apply_link, t.child(t.scope, source).node, getattr(t, parent), name
    )


def unlink(parent: str, name: bytes) -> Callable[[Tree], object]:
    return lambda t: t.vault.apply(changes.apply_unlink, getattr(t, parent), name)


def rmdir(parent: str, name: bytes) -> Callable[[Tree], object]:
    return lambda t: t.vault.apply(changes.apply_rmdir, getattr(t, parent), name)


def rename(
    parent: str, name: bytes, new_parent: str, new_name: bytes, *, replace: bool = True
) -> Callable[[Tree], object]:
    return lambda t: t.rename(
        getattr(t, parent), name, getattr(t, new_parent), new_name, replace=replace
    )


REFUSALS: list[Refusal] = [
    ("mkdir of what is there", mkdir("scope", b"Full"), NameExists),
    ("mkdir where a file is", mkdir("scope", b"one"), NameExists),
    ("mkdir in a removed directory", mkdir("gone", b"New"), NotFound),
    ("mkdir of a source that is no segment", mkdir("root", b"My"), InvalidName),
    ("mkdir of a category that is no segment", mkdir("source", b"My Files"), InvalidName),
    ("mkdir of a control name", mkdir("root", b".scopefs"), InvalidName),
    ("mkdir of .versions", mkdir("scope", b".versions"), InvalidName),
    ("mkdir of .history", mkdir("scope", b".history"), InvalidName),
    ("mkdir of an overlong name", mkdir("scope", b"X" * 256), NameTooLong),
    ("mkdir of a name with a slash", mkdir("scope", b"X/Y"), InvalidName),
    ("mkdir of dot", mkdir("full", b"."), InvalidName),
    ("mkdir of dot dot", mkdir("full", b".."), InvalidName),
    ("mkdir of nothing", mkdir("full", b""), InvalidName),
    ("symlink at the root", symlink("root", b"x"), InvalidName),
    ("symlink in a source", symlink("source", b"x"), InvalidName),
    ("symlink where something is", symlink("scope", b"one"), NameExists),
    ("symlink in a removed directory", symlink("gone", b"x"), NotFound),
    ("symlink .versions", symlink("scope", b".versions"), InvalidName),
    ("link of a directory", link(b"Full", "scope", b"x"), IsADirectory),
    ("link where something is", link(b"one", "scope", b"two"), NameExists),
    ("link into another scope", link(b"one", "other", b"x"), CrossesScopes),
    ("link into a subcategory", link(b"one", "sub", b"x"), CrossesScopes),
    ("link at the root", link(b"one", "root", b"x"), InvalidName),
    ("link in a removed directory", link(b"one", "gone", b"x"), NotFound),
    ("link .history", link(b"one", "scope", b".history"), InvalidName),
    ("unlink of nothing", unlink("scope", b"no"), NotFound),
    ("unlink of a directory", unlink("scope", b"Empty"), IsADirectory),
    ("rmdir of nothing", rmdir("scope", b"no"), NotFound),
    ("rmdir of a file", rmdir("scope", b"one"), NotADirectory),
    ("rmdir of a symlink", rmdir("scope", b"link"), NotADirectory),
    ("rmdir of a full folder", rmdir("scope", b"Full"), NotEmpty),
    ("rmdir of a full scope", rmdir("source", b"files"), NotEmpty),
    ("rmdir of a source with scopes", rmdir("root", b"my"), NotEmpty),
    ("rename of nothing", rename("scope", b"no", "scope", b"x"), NotFound),
    ("rename into a removed directory", rename("scope", b"one", "gone", b"x"), NotFound),
    ("rename without replacing", rename("scope", b"one", "scope", b"two", replace=False),
     NameExists),
    ("rename to itself without replacing", rename("scope", b"one", "scope", b"one", replace=False),
     NameExists),
    ("rename of a file to a directory", rename("scope", b"one", "scope", b"Empty"), IsADirectory),
    ("rename of a folder to a file", rename("scope", b"Empty", "scope", b"one"), NotADirectory),
    ("rename of a folder to a full one", rename("scope", b"Empty", "scope", b"Full"), NotEmpty),
    ("rename of a folder into itself", rename("scope", b"Full", "full", b"x"), InvalidName),
    ("rename of a file into another scope", rename("scope", b"one", "other", b"x"), CrossesScopes),
    ("rename of a file into a subcategory", rename("scope", b"one", "sub", b"x"), CrossesScopes),
    ("rename of a symlink into another scope", rename("scope", b"link", "other", b"x"),
     CrossesScopes),
    ("rename of a full folder into another scope", rename("scope", b"Full", "other", b"Full"),
     CrossesScopes),
    ("rename of a full folder to a scope", rename("scope", b"Full", "scope", b"full"),
     CrossesScopes),
    ("rename of a full scope", rename("source", b"files", "source", b"data"), CrossesScopes),
    ("rename of a full source", rename("root", b"my", "root", b"mine"), CrossesScopes),
    ("rename of a file to the root", rename("scope", b"one", "root", b"one"), InvalidName),
    ("rename of a file into a source", rename("scope", b"one", "source", b"one"), InvalidName),
    ("rename to .versions", rename("scope", b"one", "scope", b".versions"), InvalidName),
    ("rename of a folder to .history", rename("scope", b"Empty", "scope", b".history"),
     InvalidName),
    ("rename of a scope to what is no segment", rename("source", b"files", "source", b"Files"),
     InvalidName),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_refused_change_leaves_nothing(
    tree_: Tree, change: Callable[[Tree], object], error: type[ScopefsError]
) -> None:
    """Each refusal is of its own class, and changes no row."""
    before = query(tree_.vault, "SELECT * FROM names") + query(tree_.vault, "SELECT * FROM shown")
    events = tree_.vault.status()["events"]
    with pytest.raises(ScopefsError) as caught:
        change(tree_)
    assert caught.type is error
    after = query(tree_.vault, "SELECT * FROM names") + query(tree_.vault, "SELECT * FROM shown")
    assert (after, tree_.vault.status()["events"]) == (before, events)


# What is done


@pytest.mark.parametrize(
    ("parent", "name", "kind", "segments"),
    [
        ("root", b"new", NodeKind.SOURCE, ("new",)),
        ("source", b"new", NodeKind.SCOPE, ("my", "new")),
        ("scope", b"new", NodeKind.SCOPE, ("my", "files", "new")),
        ("scope", b"New", NodeKind.FOLDER, ("my", "files")),
        ("scope", b"2024", NodeKind.FOLDER, ("my", "files")),
        ("scope", b".scopefs", NodeKind.FOLDER, ("my", "files")),
        ("scope", b"\xff\n", NodeKind.FOLDER, ("my", "files")),
        ("scope", b"X" * 255, NodeKind.FOLDER, ("my", "files")),
        ("full", b"new", NodeKind.FOLDER, ("my", "files")),
        ("full", b".versions", NodeKind.FOLDER, ("my", "files")),
        ("sub", b"new", NodeKind.FOLDER, ("my", "files", "sub")),
    ],
)
def test_mkdir_makes_what_belongs_there(
    tree_: Tree, parent: str, name: bytes, kind: NodeKind, segments: tuple[str, ...]
) -> None:
    """Source, scope or folder, by place and name."""
    node = tree_.vault.apply(changes.apply_mkdir, getattr(tree_, parent), name, 0o750)
    entry = tree_.child(getattr(tree_, parent), name)
    assert (entry.node, entry.kind, entry.mode) == (node, kind, 0o750)
    with tree_.vault.read() as db:
        assert tree.find_place(db, node) == tree.Place(kind, segments)


def test_nodes_are_never_reused(tree_: Tree) -> None:
    """A folder that is made again under its old name is another one."""
    assert tree_.vault.apply(changes.apply_mkdir, tree_.scope, b"Gone", 0o755) != tree_.gone


def test_allocated_nodes_are_given_out_once(tree_: Tree) -> None:
    """Blocks of node ids do not overlap, nor do they meet those of new files."""
    first = tree_.vault.apply(rows.allocate_nodes, 1000)
    second = tree_.vault.apply(rows.allocate_nodes, 10)
    made = tree_.vault.apply(changes.apply_mkdir, tree_.scope, b"New", 0o755)
    assert second >= first + 1000
    assert made >= second + 10


def test_symlink_shows_its_target(tree_: Tree) -> None:
    """A symbolic link keeps the bytes of its target, whatever they are."""
    entry = tree_.vault.apply(changes.apply_symlink, tree_.full, b"s", b"../\xff/x")
    assert entry == tree_.child(tree_.full, b"s")
    assert (entry.kind, entry.target, entry.size) == (NodeKind.SYMLINK, b"../\xff/x", 6)


def test_rename_moves_the_name(tree_: Tree) -> None:
    """The node is the same under its new name, and its old name is gone."""
    node = tree_.child(tree_.scope, b"one").node
    assert tree_.rename(tree_.scope, b"one", tree_.full, b"new") == changes.Renamed(node, None)
    assert tree_.child(tree_.full, b"new").node == node
    assert tree_.payload(tree_.full, b"new") == b"1"
    assert b"one" not in tree_.names(tree_.scope)


def test_rename_replaces_a_file(tree_: Tree) -> None:
    """Who loses the last name by it is named; the other has the name now."""
    old = tree_.child(tree_.scope, b"two").node
    assert tree_.rename(tree_.scope, b"one", tree_.scope, b"two").replaced == old
    assert tree_.payload(tree_.scope, b"two") == b"1"
    assert tree_.vault.get("my.files", name="two").payload_size == 1


def test_rename_makes_no_version(tree_: Tree) -> None:
    """The count of versions does not change by renames."""
    before = tree_.vault.versions("my.files")
    tree_.rename(tree_.scope, b"one", tree_.scope, b"two")
    tree_.rename(tree_.scope, b"two", tree_.full, b"three")
    assert len(tree_.vault.versions("my.files")) == len(before)


def test_rename_to_itself_changes_nothing(tree_: Tree) -> None:
    """As rename(2) has it: nothing happens."""
    events = tree_.vault.status()["events"]
    node = tree_.child(tree_.scope, b"one").node
    assert tree_.rename(tree_.scope, b"one", tree_.scope, b"one") == changes.Renamed(node, None)
    assert tree_.vault.status()["events"] == events


def test_rename_between_two_names_of_one_file_changes_nothing(tree_: Tree) -> None:
    """As rename(2) has it: both names stay."""
    node = tree_.child(tree_.scope, b"one").node
    tree_.vault.apply(changes.apply_link, node, tree_.scope, b"second")
    tree_.rename(tree_.scope, b"one", tree_.scope, b"second")
    assert {b"one", b"second"} <= set(tree_.names(tree_.scope))


def test_replaced_file_with_another_name_lives_on(tree_: Tree) -> None:
    """Replacing one of two names takes nothing from the file."""
    node = tree_.child(tree_.scope, b"two").node
    tree_.vault.apply(changes.apply_link, node, tree_.scope, b"second")
    assert tree_.rename(tree_.scope, b"one", tree_.scope, b"two").replaced is None
    assert tree_.payload(tree_.scope, b"second") == b"2"


def test_rename_of_a_folder_moves_what_it_holds(tree_: Tree) -> None:
    """A folder takes its contents with it, also into another folder and over an empty one."""
    tree_.rename(tree_.scope, b"Full", tree_.scope, b"Empty")
    entry = tree_.child(tree_.scope, b"Empty")
    assert entry.node == tree_.full
    assert tree_.payload(tree_.full, b"inner") == b"3"
    assert tree_.vault.get("my.files", name="Empty/inner").payload_size == 1
    assert b"Full" not in tree_.names(tree_.scope)


@pytest.mark.parametrize(
    ("parent", "name", "new_parent", "new_name", "segments"),
    [
        ("source", b"empty", "source", b"renamed", ("my", "renamed")),
        ("scope", b"sub", "scope", b"renamed", ("my", "files", "renamed")),
        ("scope", b"Empty", "scope", b"photos", ("my", "files", "photos")),
        ("scope", b"sub", "source", b"top", ("my", "top")),
        ("scope", b"sub", "other", b"sub", ("other", "things", "sub")),
        ("scope", b"sub", "scope", b"Folder", ("my", "files")),
        ("scope", b"sub", "full", b"sub", ("my", "files")),
    ],
)
def test_empty_directory_becomes_what_its_new_name_says(
    tree_: Tree, parent: str, name: bytes, new_parent: str, new_name: bytes,
    segments: tuple[str, ...],
) -> None:  # fmt: skip
    """An empty scope or folder may change its scope by a rename."""
    make_scope(tree_.vault, "my.empty")
    tree_.rename(getattr(tree_, parent), name, getattr(tree_, new_parent), new_name)
    assert find_child(tree_.vault, getattr(tree_, parent), name) is None
    entry = tree_.child(getattr(tree_, new_parent), new_name)
    with tree_.vault.read() as db:
        place = tree.find_place(db, entry.node)
    assert place is not None
    assert place.segments == segments


def test_empty_folder_in_another_scope_belongs_to_that(tree_: Tree) -> None:
    """If an empty folder is renamed into another scope at all, its files are that scope's."""
    with contextlib.suppress(CrossesScopes):
        tree_.rename(tree_.scope, b"Empty", tree_.other, b"Empty")
    tree_.vault.put("other.things", b"5", name="Empty/file")
    folder = tree_.child(tree_.other, b"Empty")
    with tree_.vault.read() as db:
        place = tree.find_place(db, folder.node)
    assert place is not None
    assert place.segments == ("other", "things")
    assert folder.scope_node == tree_.other


def test_link_is_a_second_name_of_one_file(tree_: Tree) -> None:
    """Both names lead to the node; its link count says two."""
    node = tree_.child(tree_.scope, b"one").node
    entry = tree_.vault.apply(changes.apply_link, node, tree_.full, b"second")
    assert (entry.node, entry.links) == (node, 2)
    tree_.vault.put("my.files", b"new", name="Full/second")
    assert tree_.payload(tree_.scope, b"one") == b"new"


def test_unlinked_file_cannot_be_linked(tree_: Tree) -> None:
    """A file without a name stays without."""
    node, _ = tree_.vault.apply(changes.apply_unlink, tree_.scope, b"one")
    with pytest.raises(NotFound):
        tree_.vault.apply(changes.apply_link, node, tree_.scope, b"again")


def test_unlink_tells_whether_it_was_the_last_name(tree_: Tree) -> None:
    """With two names the first to go is not the last."""
    node = tree_.child(tree_.scope, b"one").node
    tree_.vault.apply(changes.apply_link, node, tree_.scope, b"second")
    ends = [
        tree_.vault.apply(changes.apply_unlink, tree_.scope, name) for name in (b"one", b"second")
    ]
    assert ends == [(node, False), (node, True)]


def test_unlink_keeps_the_versions(tree_: Tree) -> None:
    """Removing a name removes no version."""
    before = tree_.vault.versions("my.files")
    tree_.vault.apply(changes.apply_unlink, tree_.scope, b"one")
    assert tree_.vault.versions("my.files") == before
    assert b"one" not in tree_.names(tree_.scope)


def test_attributes_make_no_version(tree_: Tree) -> None:
    """chmod and touch change what is shown, not what is stored."""
    before = len(tree_.vault.versions("my.files"))
    node = tree_.child(tree_.scope, b"one").node
    tree_.vault.apply(changes.apply_attributes, node, 0o400, None)
    entry = tree_.vault.apply(changes.apply_attributes, node, None, 77)
    assert (entry.mode, entry.mtime_ns) == (0o400, 77)
    assert entry == tree_.child(tree_.scope, b"one")
    assert len(tree_.vault.versions("my.files")) == before


def test_mode_survives_a_new_version(tree_: Tree) -> None:
    """What was made executable stays so when it is written again."""
    node = tree_.child(tree_.scope, b"one").node
    tree_.vault.apply(changes.apply_attributes, node, 0o755, None)
    tree_.vault.put("my.files", b"new", name="one")
    assert tree_.child(tree_.scope, b"one").mode == 0o755


def test_directory_takes_the_time_of_its_last_change(tree_: Tree, clock: Clock) -> None:
    """A new, renamed or ended entry sets its directory's mtime, an overwrite does not."""
    seen = []
    for change in (
        lambda: tree_.vault.put("my.files", b"x", name="new"),
        lambda: tree_.rename(tree_.scope, b"new", tree_.scope, b"newer"),
        lambda: tree_.vault.put("my.files", b"y", name="newer"),
        lambda: tree_.vault.apply(changes.apply_unlink, tree_.scope, b"newer"),
    ):
        clock.move(1)
        change()
        seen.append(tree_.child(tree_.source, b"files").mtime_ns - NOON_US * 1000)
    assert seen == [1_000_000_000, 2_000_000_000, 2_000_000_000, 4_000_000_000]


def test_slot_of_a_name_is_kept_for_ever(tree_: Tree) -> None:
    """A name that is replaced, or ends and comes back, keeps its place in listings."""

    def slots() -> dict[bytes, int]:
        with tree_.vault.read() as db:
            return {c.name: c.slot for c in tree.list_children(db, tree_.scope, 0, 100)}

    before = slots()
    tree_.rename(tree_.scope, b"two", tree_.scope, b"one")
    tree_.vault.apply(changes.apply_rmdir, tree_.scope, b"Empty")
    tree_.vault.put("my.files", b"x", name="two")
    tree_.vault.apply(changes.apply_mkdir, tree_.scope, b"Empty", 0o755)
    assert slots() == before


def test_children_page_by_slot(tree_: Tree) -> None:
    """Pages of two give every name once."""
    whole = tree_.names(tree_.scope)
    seen: list[bytes] = []
    slot = 0
    while True:
        with tree_.vault.read() as db:
            page = tree.list_children(db, tree_.scope, slot, 2)
        if not page:
            break
        seen += [child.name for child in page]
        slot = page[-1].slot
    assert seen == whole
    assert sorted(seen) == [b"Empty", b"Full", b"link", b"one", b"sub", b"two"]


def test_show_empty_makes_a_name_without_a_version(tree_: Tree) -> None:
    """An empty file is a name, an event, and no version."""
    before = len(tree_.vault.versions("my.files"))
    with tree_.vault.new_draft() as draft:
        sealed = draft.seal(b"empty")
    node = tree_.vault.apply(rows.allocate_nodes, 1)
    write = publish.Write(
        tree_.vault.owner_name, tree_.scope, node, tree_.scope, b"empty", 0o600, 5, sealed
    )
    assert tree_.vault.apply(publish.apply_show_empty, write) == node
    entry = tree_.child(tree_.scope, b"empty")
    assert (entry.size, entry.version, entry.mode, entry.mtime_ns) == (0, None, 0o600, 5)
    assert len(tree_.vault.versions("my.files")) == before


def test_publish_goes_to_the_file_whatever_it_is_called(tree_: Tree) -> None:
    """A write that was begun under a name follows its file through a rename."""
    node = tree_.child(tree_.scope, b"one").node
    with tree_.vault.new_draft() as draft:
        draft.append(b"late")
        sealed = draft.seal(b"one")
    tree_.rename(tree_.scope, b"one", tree_.full, b"moved")
    write = publish.Write(
        tree_.vault.owner_name, tree_.scope, node, None, None, 0o644, None, sealed
    )
    version = tree_.vault.apply(publish.apply_publish, write)
    assert version.name == b"Full/moved"
    assert tree_.payload(tree_.full, b"moved") == b"late"


def test_publish_of_a_new_name_that_was_taken_meanwhile(tree_: Tree) -> None:
    """Two that make one name at once: the second continues the file of the first."""
    node = tree_.vault.apply(rows.allocate_nodes, 1)
    with tree_.vault.new_draft() as draft:
        draft.append(b"second")
        sealed = draft.seal(b"one")
    write = publish.Write(
        tree_.vault.owner_name, tree_.scope, node, tree_.scope, b"one", 0o644, None, sealed
    )
    version = tree_.vault.apply(publish.apply_publish, write)
    assert version.node == tree_.child(tree_.scope, b"one").node != node
    assert tree_.payload(tree_.scope, b"one") == b"second"


@pytest.mark.parametrize("size", [10, 100_000])
def test_publish_after_somebody_else_unlinked_the_file(tree_: Tree, size: int) -> None:
    """A staged write whose name ends before it is published is refused, or is a whole version."""
    node = tree_.child(tree_.scope, b"one").node
    with tree_.vault.new_draft() as draft:
        draft.append(b"x" * size)
        sealed = draft.seal(b"one")
        owner = tree_.vault.owner_name
        write = publish.Write(owner, tree_.scope, node, None, None, 0o644, None, sealed)
        write.sid = tree_.vault.apply(publish.apply_stage, write, publish.StagedState.CLOSED)
        tree_.vault.apply(changes.apply_unlink, tree_.scope, b"one")
        before = len(tree_.vault.versions("my.files"))
        with contextlib.suppress(ScopefsError):
            tree_.vault.apply(publish.apply_publish, write)
    for version in tree_.vault.versions("my.files")[: -before or None]:
        assert tree_.vault.read_payload(version) == b"x" * size
    check_whole(tree_.vault)


def test_whole_after_every_change(tree_: Tree) -> None:
    """Settled after all of this, the vault fits together."""
    tree_.rename(tree_.scope, b"one", tree_.scope, b"two")
    tree_.rename(tree_.scope, b"Full", tree_.scope, b"Fuller")
    tree_.vault.delete_scope("other.things")
    check_whole(tree_.vault)
