"""delete and delete_scope: to the trash, without touching anything else."""

import pytest

from scopefs import Vault
from scopefs.errors import InvalidTime, NotFound
from scopefs.store import changes, trash, tree
from tests.store.inspection import check_counters, check_whole, find_child, list_files, make_scope


def read(vault: Vault, name: str) -> bytes:
    """What a name of my.files shows."""
    return vault.read_payload(vault.get("my.files", name=name))


@pytest.mark.parametrize("is_settled", [False, True])
def test_name_shows_the_version_before(vault: Vault, is_settled: bool) -> None:
    """When the version that a name shows is deleted, the name shows the one before."""
    first = vault.put("my.files", b"1", name="n", mtime_ns=5)
    second = vault.put("my.files", b"2", name="n")
    if is_settled:
        vault.settle()
    vault.delete("my.files", second.stamp)
    assert read(vault, "n") == b"1"
    assert vault.versions("my.files") == [first]
    ((_, entry),) = vault.names("my.files")
    assert (entry.version, entry.size, entry.mtime_ns) == (first.id, 1, 5)
    check_whole(vault)


@pytest.mark.parametrize("is_settled", [False, True])
def test_name_of_the_only_version_ends(vault: Vault, is_settled: bool) -> None:
    """Without a version before, the name ends."""
    version = vault.put("my.files", b"1", name="n")
    if is_settled:
        vault.settle()
    assert vault.delete("my.files", version.stamp) == version
    assert list(vault.names("my.files")) == []
    with pytest.raises(NotFound):
        vault.get("my.files", name="n")
    check_whole(vault)


def test_deleting_an_older_version_changes_no_name(vault: Vault) -> None:
    """A name goes on showing its newest version."""
    first = vault.put("my.files", b"1", name="n")
    vault.put("my.files", b"2", name="n")
    vault.delete("my.files", first.stamp)
    assert read(vault, "n") == b"2"


def test_versions_before_that_are_deleted_are_skipped(vault: Vault) -> None:
    """The version before is the newest that is not in the trash."""
    versions = [vault.put("my.files", b"%d" % n, name="n") for n in range(4)]
    for n in (2, 1, 3):
        vault.delete("my.files", versions[n].stamp)
    assert read(vault, "n") == b"0"


def test_name_that_replaced_another_shows_what_that_showed(vault: Vault) -> None:
    """Saved by rename over the old file, and deleted: the name shows the version before."""
    vault.put("my.files", b"1", name="n")
    second = vault.put("my.files", b"2", name="n.tmp")
    scope = make_scope(vault, "my.files")
    vault.apply(changes.apply_rename, scope, b"n.tmp", scope, b"n", replace=True)
    vault.delete("my.files", second.stamp)
    assert read(vault, "n") == b"1"


def test_name_that_shows_a_replaced_file_ends_with_that(vault: Vault) -> None:
    """When what the replaced file showed is deleted too, the name ends."""
    first = vault.put("my.files", b"1", name="n")
    second = vault.put("my.files", b"2", name="n.tmp")
    scope = make_scope(vault, "my.files")
    vault.apply(changes.apply_rename, scope, b"n.tmp", scope, b"n", replace=True)
    vault.delete("my.files", second.stamp)
    vault.delete("my.files", first.stamp)
    assert list(vault.names("my.files")) == []
    check_whole(vault)


def test_all_names_of_a_file_end_with_its_last_version(vault: Vault) -> None:
    """Hard links of a file without a version end together."""
    version = vault.put("my.files", b"1", name="n")
    scope = make_scope(vault, "my.files")
    assert version.node is not None
    vault.apply(changes.apply_link, version.node, scope, b"m")
    vault.delete("my.files", version.stamp)
    assert list(vault.names("my.files")) == []


def test_nameless_version_is_deleted(vault: Vault) -> None:
    """A version that no name shows goes without further ado."""
    kept = vault.put("my.files", b"1", name="n")
    version = vault.put("my.files", b"2")
    vault.delete("my.files", version.stamp)
    assert vault.versions("my.files") == [kept]
    assert read(vault, "n") == b"1"


def test_name_comes_back_with_the_next_put(vault: Vault) -> None:
    """A name that ended by a deletion can be used again."""
    version = vault.put("my.files", b"1", name="n")
    vault.delete("my.files", version.stamp)
    vault.put("my.files", b"2", name="n")
    assert read(vault, "n") == b"2"
    check_whole(vault)


def test_deleted_version_is_not_found(vault: Vault) -> None:
    """Neither by stamp nor by time nor as the newest."""
    version = vault.put("my.files", b"1")
    vault.delete("my.files", version.stamp)
    for options in ({"stamp": version.stamp}, {"at": "9999"}, {}):
        with pytest.raises(NotFound):
            vault.get("my.files", **options)


def test_delete_again_is_not_found(vault: Vault) -> None:
    """What is in the trash cannot be deleted once more."""
    version = vault.put("my.files", b"1")
    vault.delete("my.files", version.stamp)
    with pytest.raises(NotFound):
        vault.delete("my.files", version.stamp)
    with pytest.raises(NotFound):
        vault.apply(trash.apply_delete_version, version)
    check_counters(vault)


def test_delete_of_nothing(vault: Vault) -> None:
    """A stamp of no version is NotFound, text that is no stamp InvalidTime."""
    vault.put("my.files", b"1")
    with pytest.raises(NotFound):
        vault.delete("my.files", "2020-01-01T00-00-00Z")
    with pytest.raises(InvalidTime):
        vault.delete("my.files", "latest")


def test_delete_is_one_event(vault: Vault) -> None:
    """The event names the version, and what the name shows from then on."""
    first = vault.put("my.files", b"1", name="n")
    second = vault.put("my.files", b"2", name="n")
    before = vault.status()["events"]
    vault.delete("my.files", second.stamp)
    (event,) = vault.events(after=before)
    assert event["op"] == "delete"
    assert (event["version"], event["shows"]) == (second.id, first.id)
    assert event["collectedAt"] == second.collected_at


def test_deleted_bytes_are_kept(vault: Vault) -> None:
    """Nothing is destroyed: the envelope lies in the trash."""
    version = vault.put("my.files", b'{"a":1}')
    envelope = vault.read_envelope(version)
    vault.delete("my.files", version.stamp)
    vault.settle()
    (path,) = list_files(vault.layout.root / "trash")
    assert (vault.layout.root / "trash" / path).read_bytes() == envelope


# Whole scopes


@pytest.fixture
def family(vault: Vault) -> Vault:
    """my.files with versions, names, folders, a symlink, a subcategory, and similar scopes."""
    for content in (b"1", b"2"):
        vault.put("my.files", content, name="n")
        vault.put("my.files", content, name="F/G/m")
        vault.put("my.files", content)
        for scope in ("my.files.sub", "my.files2", "my.file", "my2.files"):
            vault.put(scope, content, name="n")
    scope = make_scope(vault, "my.files")
    vault.apply(changes.apply_symlink, scope, b"link", b"n")
    vault.apply(changes.apply_mkdir, scope, b"Empty", 0o755)
    return vault


OTHERS = ("my.files.sub", "my.files2", "my.file", "my2.files")


def test_delete_scope_tells_how_many(family: Vault) -> None:
    """All versions go, nameless ones too."""
    assert family.delete_scope("my.files") == 6
    assert family.versions("my.files") == []


def test_delete_scope_ends_all_its_names(family: Vault) -> None:
    """No name, folder or symlink of it is left."""
    family.delete_scope("my.files")
    assert list(family.names("my.files")) == []
    with family.read() as db:
        children = tree.list_children(db, make_scope(family, "my.files"), 0, 100)
    assert [child.name for child in children] == [b"sub"]


def test_delete_scope_leaves_the_others_whole(family: Vault) -> None:
    """Neither its subcategory nor a scope whose name begins alike loses anything."""
    before = [(family.versions(scope), list(family.names(scope))) for scope in OTHERS]
    family.delete_scope("my.files")
    assert [(family.versions(scope), list(family.names(scope))) for scope in OTHERS] == before
    check_whole(family)


def test_delete_subcategory_leaves_its_parent_whole(family: Vault) -> None:
    """Nor the other way round."""
    before = family.versions("my.files")
    family.delete_scope("my.files.sub")
    assert family.versions("my.files") == before
    assert find_child(family, make_scope(family, "my.files"), b"sub") is None
    check_whole(family)


def test_directory_of_a_deleted_scope_is_gone(family: Vault) -> None:
    """Without subcategories the directory goes too; with them it stays."""
    source = make_scope(family, "my.files")
    for scope in ("my.file", "my.files"):
        family.delete_scope(scope)
    with family.read() as db:
        top = tree.find_child(db, tree.ROOT_NODE, b"my")
        assert top is not None
        names = [child.name for child in tree.list_children(db, top.node, 0, 100)]
    assert names == [b"files", b"files2"]
    assert source == make_scope(family, "my.files")


def test_deleted_scope_can_be_filled_again(family: Vault) -> None:
    """A put makes the scope anew, under the same node, with new times."""
    node = make_scope(family, "my.files")
    last = family.get("my.files").collected_us
    family.delete_scope("my.files")
    version = family.put("my.files", b"3", name="n")
    assert make_scope(family, "my.files") == node
    assert family.versions("my.files") == [version]
    assert version.collected_us > last
    check_whole(family)


def test_delete_of_an_unknown_scope(vault: Vault) -> None:
    """A scope that never was is NotFound."""
    with pytest.raises(NotFound, match=r"no\.such"):
        vault.delete_scope("no.such")


def test_delete_scope_again_is_not_found(family: Vault) -> None:
    """A scope that has neither versions nor a directory is not there to be deleted."""
    family.delete_scope("my.file")
    with pytest.raises(NotFound):
        family.delete_scope("my.file")


def test_delete_scope_of_more_than_a_page(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scope of many versions and names goes whole, page by page."""
    monkeypatch.setattr("scopefs.vault._PAGE", 3)
    for n in range(10):
        vault.put("my.files", b"x", name=f"F/{n % 7}")
    assert vault.delete_scope("my.files") == 10
    assert list(vault.names("my.files")) == []
    check_whole(vault)
