"""Names as a temporal table: the tree as of any event is a query."""

import contextlib
import random

import pytest

from scopefs import Vault
from scopefs.errors import ScopefsError
from scopefs.store import changes, index, tree
from tests.store.inspection import check_names, make_scope, query

State = dict[bytes, tuple[int, int | None, bytes | None]]

_AS_OF = (
    "SELECT n.name, n.node, s.version, s.target FROM names n"
    " JOIN shown s ON s.node = n.node AND s.from_seq ="
    "  (SELECT MAX(from_seq) FROM shown WHERE node = n.node AND from_seq <= ?2)"
    " WHERE n.parent = ?1 AND n.from_seq <= ?2 AND (n.until_seq IS NULL OR n.until_seq > ?2)"
)


def list_now(vault: Vault, parent: int) -> State:
    """Each live name of a directory with its node, and the version or target that it shows."""
    with vault.read() as db:
        children = tree.list_children(db, parent, 0, 1000)
    return {c.name: (c.entry.node, c.entry.version, c.entry.target) for c in children}


def list_as_of(vault: Vault, parent: int, seq: int) -> State:
    """The same as of an event, by the temporal columns alone."""
    return {row[0]: row[1:] for row in query(vault, _AS_OF, parent, seq)}


def change_at_random(vault: Vault, scope: int, source: random.Random) -> None:
    """One change of a few names, which may be refused."""
    name, other = (b"%c" % source.choice(b"abcd") for _ in range(2))
    with vault.read() as db:
        entry = tree.find_child(db, scope, name)
    match source.randrange(7):
        case 0 | 1:
            vault.put("my.files", source.randbytes(5), name=name)
        case 2:
            vault.apply(changes.apply_rename, scope, name, scope, other, replace=True)
        case 3:
            vault.apply(changes.apply_unlink, scope, name)
        case 4:
            vault.apply(changes.apply_symlink, scope, name, other)
        case 5 if entry is not None:
            vault.apply(changes.apply_link, entry.node, scope, other)
        case 6 if entry is not None and entry.version is not None:
            with vault.read() as db:
                version = index.find_by_id(db, entry.version)
            assert version is not None
            vault.delete("my.files", version.stamp)
        case _:
            pass


@pytest.mark.parametrize("seed", range(4))
def test_tree_as_of_any_event(vault: Vault, seed: int) -> None:
    """After random changes, each state that was is what the rows of its event say."""
    source = random.Random(seed)
    scope = make_scope(vault, "my.files")
    states: dict[int, State] = {}
    for _ in range(250):
        try:
            change_at_random(vault, scope, source)
        except ScopefsError:
            continue
        states[vault.status()["events"]] = list_now(vault, scope)
    assert len(states) > 80
    for seq, state in states.items():
        assert list_as_of(vault, scope, seq) == state


@pytest.mark.parametrize("seed", range(2))
def test_rows_of_a_name_do_not_overlap(vault: Vault, seed: int) -> None:
    """One name leads to one node at a time, each row ends after it began, and one slot is its."""
    source = random.Random(seed)
    scope = make_scope(vault, "my.files")
    for _ in range(150):
        try:
            change_at_random(vault, scope, source)
        except ScopefsError:
            continue
    for name in (b"a", b"b", b"c", b"d"):
        rows = query(
            vault,
            "SELECT from_seq, until_seq, slot FROM names WHERE parent = ? AND name = ?"
            " ORDER BY from_seq",
            scope, name,
        )  # fmt: skip
        assert rows
        ends = [row[1] for row in rows]
        assert all(end is not None for end in ends[:-1])
        last = 1 << 62
        for (begin, _, _), end in zip(rows, ends, strict=True):
            assert begin < (end or last)
        for end, (begin, _, _) in zip(ends, rows[1:], strict=False):
            assert end <= begin
        assert len({slot for _, _, slot in rows}) == 1


@pytest.mark.parametrize("seed", range(4))
def test_no_name_shows_what_is_in_the_trash(vault: Vault, seed: int) -> None:
    """After every one of many random changes, names show versions that are there."""
    source = random.Random(seed)
    scope = make_scope(vault, "my.files")
    for _ in range(150):
        with contextlib.suppress(ScopefsError):
            change_at_random(vault, scope, source)
        check_names(vault)
