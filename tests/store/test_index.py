"""The index: which files are refused, and every query about versions and scopes."""

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import IndexBroken
from scopefs.store import index
from scopefs.store.layout import create_vault
from tests.store.inspection import NOON_US, Clock, check_counters

CREATED = "2026-01-21T12:00:00Z"


def insert(db: apsw.Connection, scope: str, collected_us: int) -> index.Version:
    """A row of data_files whose path is made of its scope and time."""
    path = f"data/{scope}/{collected_us}"
    return index.insert_version(db, path, scope, collected_us, 100, created_at=CREATED)


def times(versions: list[index.Version]) -> list[int]:
    """The times of versions, in the order in which they came."""
    return [version.collected_us for version in versions]


# Opening


def truncate(path: Path) -> None:
    path.write_bytes(b"")


def fill_with_text(path: Path) -> None:
    path.write_bytes(b"this is no database\n" * 1000)


def damage_header(path: Path) -> None:
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def damage_everything_behind_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100] + os.urandom(40_000))


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_foreign_database(path: Path) -> None:
    path.unlink()
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE data_files(id, path)")
    db.close()


@pytest.mark.parametrize(
    "spoil",
    [truncate, fill_with_text, damage_header, damage_everything_behind_the_header,
     replace_by_directory, replace_by_foreign_database],
)  # fmt: skip
@pytest.mark.parametrize("create", [False, True])
def test_what_is_no_index_is_refused_untouched(
    tmp_path: Path, spoil: Callable[[Path], None], create: bool
) -> None:
    """A vault whose index.db is no index of scopefs does not open, and the file stays."""
    layout = create_vault(tmp_path / "v", NOON_US)
    spoil(layout.index)
    before = layout.index.read_bytes() if layout.index.is_file() else None
    with pytest.raises(IndexBroken, match=r"index\.db"):
        Vault.open(layout.root, create=create)
    assert before == (layout.index.read_bytes() if layout.index.is_file() else None)


def test_index_of_another_vault_is_refused(tmp_path: Path) -> None:
    """An index that bears another vault's id is not taken for this one's."""
    layout, other = (create_vault(tmp_path / name, NOON_US) for name in "vo")
    shutil.copy(other.index, layout.index)
    with pytest.raises(IndexBroken, match="another vault"):
        Vault.open(layout.root)


def test_opening_makes_no_file(tmp_path: Path) -> None:
    """An absent index.db is refused, not made."""
    with pytest.raises(IndexBroken):
        index.open_index(str(tmp_path / "index.db"))
    assert list(tmp_path.iterdir()) == []


def test_refused_open_holds_no_descriptor(tmp_path: Path) -> None:
    """A program that tries again and again does not run out of descriptors."""
    layout = create_vault(tmp_path / "v", NOON_US)
    layout.index.write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(IndexBroken):
            Vault.open(layout.root)
    assert len(os.listdir("/proc/self/fd")) == before


def test_index_that_breaks_while_in_use_is_an_error(vault: Vault) -> None:
    """A table that is gone makes reads fail, never return nothing."""
    vault.put("a.b", b"{}")
    db = apsw.Connection(str(vault.layout.index))
    db.execute("ALTER TABLE data_files RENAME TO gone")
    try:
        with pytest.raises(IndexBroken):
            vault.versions("a.b")
        with pytest.raises(IndexBroken):
            vault.get("a.b")
    finally:
        db.execute("ALTER TABLE gone RENAME TO data_files")
        db.close()
    assert len(vault.versions("a.b")) == 1


# Queries


def test_insert_returns_the_row(db: apsw.Connection) -> None:
    """What insert_version returns is what is read back."""
    version = insert(db, "a.b", NOON_US)
    assert index.find_by_id(db, version.id) == version
    assert (version.collected_at, version.stamp) == (CREATED, "2026-01-21T12-00-00Z")


def test_path_is_unique(db: apsw.Connection) -> None:
    """No two rows have one path."""
    insert(db, "a.b", NOON_US)
    with pytest.raises(apsw.ConstraintError):
        index.insert_version(db, f"data/a.b/{NOON_US}", "c.d", NOON_US + 1, 1, created_at=CREATED)


def test_time_is_unique_in_a_scope(db: apsw.Connection) -> None:
    """No two versions of a scope have one collectedAt."""
    insert(db, "a.b", NOON_US)
    with pytest.raises(apsw.ConstraintError):
        index.insert_version(db, "another/path", "a.b", NOON_US, 1, created_at=CREATED)


def test_scopes_may_share_a_time(db: apsw.Connection) -> None:
    """Two scopes may each have a version of the same instant."""
    insert(db, "a.b", NOON_US)
    assert insert(db, "a.b.c", NOON_US).collected_us == NOON_US


def test_find_by_path(db: apsw.Connection) -> None:
    """A row is found by its path, and only by its own."""
    version = insert(db, "a.b", NOON_US)
    assert index.find_by_path(db, version.path) == version
    assert index.find_by_path(db, version.path + "x") is None


def test_find_by_scope_is_newest_first(db: apsw.Connection) -> None:
    """Versions come by descending time, whatever the order of their insertion."""
    for offset in (2, 0, 3, 1):
        insert(db, "a.b", NOON_US + offset)
    insert(db, "a.b.c", NOON_US + 9)
    found = times(index.find_by_scope(db, "a.b"))
    assert found == [NOON_US + 3, NOON_US + 2, NOON_US + 1, NOON_US]


def test_find_by_scope_orders_fractions_by_number(db: apsw.Connection) -> None:
    """A fraction comes after its whole second, though its text sorts before."""
    insert(db, "a.b", NOON_US)
    insert(db, "a.b", NOON_US + 123)
    assert times(index.find_by_scope(db, "a.b")) == [NOON_US + 123, NOON_US]


@pytest.mark.parametrize(
    ("limit", "offset", "expected"),
    [(-1, 0, [3, 2, 1, 0]), (2, 0, [3, 2]), (2, 1, [2, 1]), (2, 3, [0]), (2, 4, []), (0, 0, []),
     (-1, 2, [1, 0])],
)  # fmt: skip
def test_find_by_scope_pages(
    db: apsw.Connection, limit: int, offset: int, expected: list[int]
) -> None:
    """Limit and offset cut a page out of the whole; a negative limit means all."""
    for n in range(4):
        insert(db, "a.b", NOON_US + n)
    found = times(index.find_by_scope(db, "a.b", limit, offset))
    assert found == [NOON_US + n for n in expected]


def test_list_after_pages_oldest_first(db: apsw.Connection) -> None:
    """Pages that go on after the last time seen give every version once, in order."""
    for n in range(7):
        insert(db, "a.b", NOON_US + n)
    seen: list[int] = []
    while page := index.list_after(db, "a.b", seen[-1] if seen else 0, 3):
        seen += times(page)
    assert seen == [NOON_US + n for n in range(7)]


def test_list_before_pages_all_scopes_by_publication(db: apsw.Connection) -> None:
    """Pages of the whole vault go from the newest row back, over all scopes."""
    ids = [insert(db, scope, NOON_US + n).id for n, scope in enumerate(["a.b", "c.d"] * 3)]
    seen: list[int] = []
    while page := index.list_before(db, seen[-1] if seen else 1 << 62, 4):
        seen += [version.id for version in page]
    assert seen == ids[::-1]


def test_find_exact(db: apsw.Connection) -> None:
    """Only the very microsecond finds the version."""
    version = insert(db, "a.b", NOON_US)
    assert index.find_exact(db, "a.b", NOON_US) == version
    assert index.find_exact(db, "a.b", NOON_US + 1) is None
    assert index.find_exact(db, "a.b.c", NOON_US) is None


def test_find_latest(db: apsw.Connection) -> None:
    """The latest is the one of the greatest time, not of the greatest id."""
    insert(db, "a.b", NOON_US + 5)
    insert(db, "a.b", NOON_US)
    latest = index.find_latest_by_scope(db, "a.b")
    assert latest is not None
    assert latest.collected_us == NOON_US + 5
    assert index.find_latest_by_scope(db, "a") is None


@pytest.mark.parametrize(
    ("at", "expected"), [(-1, None), (0, 0), (1, 0), (9, 0), (10, 10), (11, 10), (10**9, 20)]
)
def test_find_at_is_the_closest_at_or_before(
    db: apsw.Connection, at: int, expected: int | None
) -> None:
    """The version of a time is the newest that is not after it."""
    for n in (0, 10, 20):
        insert(db, "a.b", NOON_US + n)
    found = index.find_at(db, "a.b", NOON_US + at)
    assert (found.collected_us - NOON_US if found else None) == expected


def test_count_by_scope(db: apsw.Connection) -> None:
    """The count is of that scope alone."""
    for n in range(3):
        insert(db, "a.b", NOON_US + n)
    insert(db, "a.b.c", NOON_US)
    counts = [index.count_by_scope(db, scope) for scope in ("a.b", "a.b.c", "a")]
    assert counts == [3, 1, 0]


def test_delete_by_path(db: apsw.Connection) -> None:
    """The row goes, once."""
    version = insert(db, "a.b", NOON_US)
    assert [index.delete_by_path(db, version.path) for _ in range(2)] == [True, False]
    assert index.find_by_id(db, version.id) is None


def test_ids_are_never_reused(db: apsw.Connection) -> None:
    """The id of a deleted row is not given to another."""
    first = insert(db, "a.b", NOON_US)
    index.delete_by_path(db, first.path)
    assert insert(db, "a.b", NOON_US).id > first.id


def test_deleted_versions_are_in_no_listing(clocked: Vault, clock: Clock) -> None:
    """A version in the trash is found by its id and path alone."""
    version = clocked.put("a.b", b"{}")
    clocked.delete("a.b", version.stamp)
    with clocked.read() as db:
        assert index.find_by_scope(db, "a.b") == []
        assert index.list_after(db, "a.b", 0, 9) == []
        assert index.list_before(db, 1 << 62, 9) == []
        assert index.find_exact(db, "a.b", NOON_US) is None
        assert index.find_at(db, "a.b", NOON_US) is None
        assert index.find_latest_by_scope(db, "a.b") is None
        assert index.count_by_scope(db, "a.b") == 0
        assert index.list_scopes(db) == []
        trashed = index.find_by_id(db, version.id)
        assert trashed is not None
        assert trashed.path.startswith("trash/")
        assert index.find_by_path(db, trashed.path) == trashed
        assert index.find_by_path(db, version.path) is None


# Scopes with counts


@pytest.fixture
def peopled(clocked: Vault, clock: Clock) -> Vault:
    """A vault with scopes whose names begin alike, and with deleted versions."""
    scopes = ("a.b", "a.b.c", "a.bc", "a.b_c", "ab.c", "a_b.c", "b.a")
    for n, scope in enumerate(scopes, start=1):
        for size in range(n):
            clock.move(1)
            clocked.put(scope, b"x" * (size + 1), name="f")
    clocked.delete("a.bc", clocked.get("a.bc").stamp)
    clocked.delete_scope("b.a")
    return clocked


def test_counts_are_those_of_a_recount(peopled: Vault) -> None:
    """The counters that the scopes keep say what counting the rows says."""
    check_counters(peopled)


def test_list_scopes_tells_versions_bytes_and_latest(peopled: Vault) -> None:
    """Each scope comes with its count, its bytes and the time of its newest version."""
    found = {count.scope: count for count in peopled.scopes()}
    latest = peopled.get("a.bc").collected_us
    assert found["a.bc"] == index.ScopeCount("a.bc", 2, 1 + 2, latest)


def test_list_scopes_by_name_without_empty_ones(peopled: Vault) -> None:
    """Scopes come in order of their names; one without versions does not come."""
    found = [count.scope for count in peopled.scopes()]
    assert found == ["a.b", "a.b.c", "a.b_c", "a.bc", "a_b.c", "ab.c"]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("a", ["a.b", "a.b.c", "a.b_c", "a.bc"]), ("a.b", ["a.b", "a.b.c"]), ("a.b.c", ["a.b.c"]),
     ("ab", ["ab.c"]), ("a_b", ["a_b.c"]), ("a.", []), ("b", []), ("a%", []), ("A", []),
     ("a_", [])],
)  # fmt: skip
def test_prefix_ends_at_a_segment(peopled: Vault, prefix: str, expected: list[str]) -> None:
    """A prefix is literal, and matches whole segments only."""
    assert [count.scope for count in peopled.scopes(prefix=prefix)] == expected


def test_list_scopes_pages(peopled: Vault) -> None:
    """Pages of two give all scopes once, in order."""
    pages = [peopled.scopes(limit=2, offset=offset) for offset in range(0, 8, 2)]
    assert list(itertools.chain(*pages)) == peopled.scopes()


def test_sum_scopes_is_the_sum_of_the_list(peopled: Vault) -> None:
    """The totals of the vault are those of its scopes."""
    counts = peopled.scopes()
    with peopled.read() as db:
        total = index.sum_scopes(db)
    assert total == (len(counts), sum(c.versions for c in counts), sum(c.bytes for c in counts))


def test_status_tells_totals_and_the_last_version(peopled: Vault) -> None:
    """Status agrees with the rows, and the last version is that of the greatest id."""
    status = peopled.status()
    assert status["versions"] == 20
    assert status["scopes"] == 6
    assert status["lastVersion"]["scope"] == "a_b.c"
    assert status["events"] == peopled.events(before=1 << 62, limit=1)[0]["seq"]


# Swapped while in use


@pytest.mark.parametrize("is_gone", [False, True])
def test_swapped_index_refuses_every_later_change(tmp_path: Path, is_gone: bool) -> None:
    """Once another file stands at index.db, nothing more is acknowledged by this open vault."""
    with Vault.open(tmp_path / "other", create=True) as other:
        other.put("o.o", b"{}")
    vault = Vault.open(tmp_path / "v", create=True, clock_us=Clock())
    vault.put("a.b", b"{}")
    vault.settle()
    if is_gone:
        vault.layout.index.rename(tmp_path / "elsewhere")
    else:
        os.replace(other.layout.index, vault.layout.index)
    acknowledged = 0
    for _ in range(3):
        try:
            vault.put("a.b", b'{"late":1}')
            acknowledged += 1
        except IndexBroken:
            pass
    vault.close()
    assert acknowledged == 0


def test_what_was_acknowledged_before_a_swap_is_in_the_old_index(tmp_path: Path) -> None:
    """Putting the index back brings every acknowledged version back."""
    vault = Vault.open(tmp_path / "v", create=True)
    version = vault.put("a.b", b'{"a":1}')
    other = create_vault(tmp_path / "other", NOON_US)
    vault.layout.index.rename(tmp_path / "saved")
    shutil.copy(other.index, vault.layout.index)
    with pytest.raises(IndexBroken, match="replaced"):
        vault.put("a.b", b'{"late":1}')
    os.replace(tmp_path / "saved", vault.layout.index)
    vault.close()
    with Vault.open(tmp_path / "v") as vault:
        assert vault.versions("a.b") == [version]
        assert vault.read_payload(version) == b'{"a":1}'
