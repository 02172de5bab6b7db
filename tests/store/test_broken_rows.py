"""Rows that no code of ours has written: whoever reads them gets `IndexBroken`, and an end.

What `test_fuzz.py` finds by changing bytes, one thing at a time.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.errors import IndexBroken
from scopefs.model.stamps import MAX_US, format_collected_at, format_long_stamp, format_stamp
from scopefs.store import tree
from scopefs.store.sql import fetch
from tests.store.inspection import make_scope, query


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A vault with a file in a folder of a folder."""
    with Vault.open(tmp_path / "v", create=True) as vault:
        vault._settling.stop()
        vault.put("my.files", b"{}", name="F/G/file")
        yield vault


def load_folder(vault: Vault) -> int:
    """The node of the inner folder."""
    with vault.read() as db:
        scope = tree.find_scope_node(db, "my.files")
        assert scope is not None
        outer = tree.find_child(db, scope, b"F")
        assert outer is not None
        inner = tree.find_child(db, outer.node, b"G")
        assert inner is not None
        return inner.node


def change(vault: Vault, statement: str, *values: object) -> None:
    """Change rows behind the vault's back."""
    vault.apply(lambda transaction: fetch(transaction.db, statement, values))


@pytest.mark.parametrize("render", [format_collected_at, format_stamp, format_long_stamp])
@pytest.mark.parametrize("us", [None, "2026", b"1", 1.5, MAX_US, -MAX_US, 1 << 62], ids=repr)
def test_time_that_is_none(render: Callable[[object], str], us: object) -> None:
    """A row's time may be anything; it is shown, or the index is broken."""
    with pytest.raises(IndexBroken):
        render(us)


def test_scope_that_is_not_there(vault: Vault) -> None:
    """A node of a scope without a row."""
    node = load_folder(vault)
    change(vault, "DELETE FROM scopes")
    with vault.read() as db, pytest.raises(IndexBroken):
        tree.find_place(db, node)


def test_scope_that_is_none(vault: Vault) -> None:
    """The caller has asked for no scope, so that it is not the caller who is at fault."""
    node = load_folder(vault)
    change(vault, "UPDATE scopes SET scope = 'No Scope'")
    with vault.read() as db, pytest.raises(IndexBroken):
        tree.find_place(db, node)


def test_folder_that_is_in_itself(vault: Vault) -> None:
    """The way up comes to an end."""
    node = load_folder(vault)
    change(vault, "UPDATE names SET parent = ?1 WHERE name = x'46'", node)
    with vault.read() as db:
        with pytest.raises(IndexBroken):
            tree.find_path(db, node)
        with pytest.raises(IndexBroken):
            tree.path_within_scope(db, node, b"n")


@pytest.mark.parametrize("value", ["text", 1, 1.5])
def test_name_that_is_no_bytes(vault: Vault, value: object) -> None:
    """Whoever lists it, or goes by it."""
    node = load_folder(vault)
    scope = make_scope(vault, "my.files")
    ((outer,),) = query(vault, "SELECT parent FROM names WHERE node = ?", node)
    change(vault, "UPDATE names SET name = ? WHERE name = x'46'", value)
    with vault.read() as db:
        with pytest.raises(IndexBroken):
            tree.list_children(db, scope, 0, 10)
        with pytest.raises(IndexBroken):
            tree.find_path(db, outer)
        with pytest.raises(IndexBroken):
            tree.path_within_scope(db, outer, b"n")


@pytest.mark.parametrize("us", [5, 4, "text", None, 6.5])
def test_history_that_does_not_go_on(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, us: object
) -> None:
    """Rows and their index disagree about a time: reading page after page comes to an end."""
    monkeypatch.setattr(tree, "fetch", lambda *_: [(1, us)])
    with vault.read() as db, pytest.raises(IndexBroken):
        tree.list_history(db, [1], b"file", 5, 1)


def test_listing_that_does_not_go_on(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of slots, and of names."""
    with vault.read() as db:
        scope = tree.find_scope_node(db, "my.files")
        assert scope is not None
        slot = tree.list_children(db, scope, 0, 1)[0].slot
        monkeypatch.setattr(
            tree, "fetch", lambda db, statement, values: fetch(db, statement, (scope, 0, 1))
        )
        with pytest.raises(IndexBroken):
            tree.list_children(db, scope, slot, 1)
        monkeypatch.setattr(tree, "fetch", lambda *_: [(1, b"F")])
        with pytest.raises(IndexBroken):
            tree.list_past_names(db, [scope], b"F", 1)
