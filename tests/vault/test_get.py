"""get, versions, names: what is found, and what is not."""

import pytest

from scopefs import Vault
from scopefs.errors import InvalidScope, InvalidTime, NotFound
from scopefs.model.scope import parse_scope
from scopefs.store import changes
from tests.store.inspection import Clock, make_scope


@pytest.fixture
def dated(clocked: Vault, clock: Clock) -> Vault:
    """Versions 1 to 4: at 12:00:00, twice at 12:00:10, and at 13:00; 1 and 3 are a's."""
    for content, name, wait in ((b"1", "a", 10), (b"2", "b", 0), (b"3", "a", 3590), (b"4", "b", 0)):
        clocked.put("my.files", content, name=name)
        clock.move(wait)
    clocked.put("my.files.sub", b"5", name="a")
    return clocked


def read(vault: Vault, **options: str) -> bytes:
    """The payload that get finds in my.files."""
    return vault.read_payload(vault.get("my.files", **options))


def test_get_is_the_newest(dated: Vault) -> None:
    """Without a time it is the newest of the scope, not of its subcategory."""
    assert read(dated) == b"4"


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-01-21T12:00:00Z", b"1"),
        ("2026-01-21T12:00:09Z", b"1"),
        # A time means the end of the unit that it names.
        ("2026-01-21T12:00:10Z", b"3"),
        ("2026-01-21T12:00:10.000000Z", b"2"),
        ("2026-01-21T12:00", b"3"),
        ("2026-01-21T12:59:59Z", b"3"),
        ("2026-01-21T13:00:00Z", b"4"),
        ("2026-01-21", b"4"),
        ("2026", b"4"),
        ("2026-01-21T14:00:00+02:00", b"1"),
        ("2026-01-21T12-00-10Z", b"2"),
        ("9999", b"4"),
    ],
)
def test_get_at_is_the_newest_at_or_before(dated: Vault, at: str, expected: bytes) -> None:
    """At a time it is the version that was the newest then."""
    assert read(dated, at=at) == expected


@pytest.mark.parametrize("at", ["2026-01-21T11:59:59Z", "2025", "2026-01-20"])
def test_get_at_a_time_before_all_is_not_found(dated: Vault, at: str) -> None:
    """Before the first version there was none."""
    with pytest.raises(NotFound, match=r"my\.files"):
        dated.get("my.files", at=at)


@pytest.mark.parametrize("at", ["noon", "2026-13", "12:00", "2026-01-21T25:00"])
def test_get_at_what_is_no_time(dated: Vault, at: str) -> None:
    """Text that is no time is InvalidTime."""
    with pytest.raises(InvalidTime):
        dated.get("my.files", at=at)


def test_get_by_stamp_is_exact(dated: Vault) -> None:
    """Every version is found by its own stamp."""
    for version in dated.versions("my.files"):
        assert dated.get("my.files", stamp=version.stamp) == version


@pytest.mark.parametrize("stamp", ["2026-01-21T12-00-01Z", "2026-01-21T12-00-00Zu000001"])
def test_get_by_a_stamp_of_nothing(dated: Vault, stamp: str) -> None:
    """A stamp finds no neighbour."""
    with pytest.raises(NotFound, match=stamp):
        dated.get("my.files", stamp=stamp)


@pytest.mark.parametrize("stamp", ["2026-01-21T12:00:00Z", "latest", "2026-01-21T12-00-00Z.json"])
def test_get_by_what_is_no_stamp(dated: Vault, stamp: str) -> None:
    """Text that is no stamp is InvalidTime."""
    with pytest.raises(InvalidTime):
        dated.get("my.files", stamp=stamp)


def test_get_by_name(dated: Vault) -> None:
    """With a name it is what that file shows."""
    assert (read(dated, name="a"), read(dated, name="b")) == (b"3", b"4")


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [("a", "2026-01-21T12:00:00Z", b"1"), ("a", "2026-01-21T13:00", b"3"),
     ("b", "2026-01-21T12:30:00Z", b"2"), ("a", "2026-01-21", b"3")],
)  # fmt: skip
def test_get_by_name_at_a_time(dated: Vault, name: str, at: str, expected: bytes) -> None:
    """With both it is what that file showed then."""
    assert read(dated, name=name, at=at) == expected


def test_get_by_name_before_its_first_version(dated: Vault) -> None:
    """A file that did not exist then is not found, though the scope had versions."""
    with pytest.raises(NotFound):
        dated.get("my.files", name="b", at="2026-01-21T12:00:00Z")


def test_get_by_name_and_stamp_is_exact(dated: Vault) -> None:
    """A stamp of another file's version finds nothing under this name."""
    stamp = dated.get("my.files", name="b").stamp
    assert dated.get("my.files", name="b", stamp=stamp).stamp == stamp
    with pytest.raises(NotFound):
        dated.get("my.files", name="a", stamp=stamp)


@pytest.mark.parametrize("name", ["c", "A", "a/b", "", "sub", "sub/a"])
def test_get_by_a_name_that_is_not_there(dated: Vault, name: str) -> None:
    """Other names find nothing."""
    with pytest.raises(NotFound):
        dated.get("my.files", name=name)


def test_get_in_a_folder(vault: Vault) -> None:
    """A name with folders leads to its file."""
    vault.put("my.files", b"1", name="F/G/a")
    vault.put("my.files", b"2", name="F/a")
    assert (read(vault, name="F/G/a"), read(vault, name="F/a")) == (b"1", b"2")


def test_get_in_a_renamed_folder(vault: Vault) -> None:
    """A file is found under its folder's new name, and no longer under the old."""
    vault.put("my.files", b"1", name="F/a")
    scope = make_scope(vault, "my.files")
    vault.apply(changes.apply_rename, scope, b"F", scope, b"G", replace=False)
    assert read(vault, name="G/a") == b"1"
    with pytest.raises(NotFound):
        vault.get("my.files", name="F/a")


def test_get_in_a_folder_that_was_made_again(vault: Vault) -> None:
    """A folder that was removed and made again leads to what it holds now."""
    first = vault.put("my.files", b"1", name="F/a")
    vault.delete("my.files", first.stamp)
    vault.apply(changes.apply_rmdir, make_scope(vault, "my.files"), b"F")
    vault.put("my.files", b"2", name="F/b")
    assert read(vault, name="F/b") == b"2"


def test_get_in_a_folder_that_took_anothers_name(vault: Vault) -> None:
    """A folder that was renamed to a name that another had before leads to what it holds."""
    vault.put("my.files", b"1", name="F/a")
    scope = make_scope(vault, "my.files")
    vault.apply(changes.apply_mkdir, scope, b"G", 0o755)
    vault.apply(changes.apply_rename, scope, b"F", scope, b"G", replace=True)
    assert read(vault, name="G/a") == b"1"


def test_get_of_a_removed_name(dated: Vault) -> None:
    """After rm the name shows nothing now, but what it showed then is still there."""
    dated.apply(changes.apply_unlink, make_scope(dated, "my.files"), b"a")
    with pytest.raises(NotFound):
        dated.get("my.files", name="a")
    assert read(dated, name="a", at="2026-01-21T12:00:00Z") == b"1"


def test_get_of_an_unknown_scope(vault: Vault) -> None:
    """A scope that is not there is named in the message."""
    with pytest.raises(NotFound, match=r'No data found for scope "no\.such"'):
        vault.get("no.such")


@pytest.mark.parametrize("call", ["get", "versions", "delete_scope"])
def test_what_is_no_scope(vault: Vault, call: str) -> None:
    """Text that is no scope is InvalidScope at every door."""
    with pytest.raises(InvalidScope):
        getattr(vault, call)("No.Scope")


def test_versions_are_newest_first(dated: Vault) -> None:
    """All versions of the scope, its subcategory's not."""
    found = [dated.read_payload(version) for version in dated.versions("my.files")]
    assert found == [b"4", b"3", b"2", b"1"]


def test_versions_page(dated: Vault) -> None:
    """Limit and offset cut a page."""
    whole = dated.versions("my.files")
    assert dated.versions("my.files", limit=2, offset=1) == whole[1:3]


def test_versions_of_an_unknown_scope(vault: Vault) -> None:
    """A scope that is not there has none."""
    assert vault.versions("no.such") == []


def test_names_are_the_live_ones_with_their_folders(vault: Vault) -> None:
    """Files and symlinks, in folders too; directories, subcategories and removed names not."""
    for name in ("a", "F/b", "F/G/c", "gone"):
        vault.put("my.files", b"x", name=name)
    vault.put("my.files.sub", b"x", name="d")
    scope = make_scope(vault, "my.files")
    vault.apply(changes.apply_unlink, scope, b"gone")
    vault.apply(changes.apply_symlink, scope, b"link", b"a")
    vault.apply(changes.apply_mkdir, scope, b"Empty", 0o755)
    assert sorted(name for name, _ in vault.names("my.files")) == [
        b"F/G/c", b"F/b", b"a", b"link",
    ]  # fmt: skip


def test_names_of_more_than_a_page(vault: Vault) -> None:
    """A directory of more names than one page holds is listed whole."""

    def make(transaction: changes.Transaction) -> None:
        node = changes.ensure_scope(transaction, parse_scope("my.files"))
        for n in range(2500):
            changes.apply_symlink(transaction, node, b"%04d" % n, b"to")

    vault.apply(make)
    assert sorted(name for name, _ in vault.names("my.files")) == [b"%04d" % n for n in range(2500)]


def test_names_of_an_unknown_scope(vault: Vault) -> None:
    """A scope that is not there has none."""
    assert list(vault.names("no.such")) == []


def test_vault_knows_a_removed_scope(vault: Vault) -> None:
    """A scope that ever was is known, one that never was is not."""
    vault.put("my.files", b"x")
    vault.delete_scope("my.files")
    assert vault.knows_scope(parse_scope("my.files"))
    assert not vault.knows_scope(parse_scope("my.file"))
