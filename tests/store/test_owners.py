"""Owners: whoever has the vault open holds a lock in staging/, from first to last."""

import os
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.store import owners
from scopefs.store.owners import Owner, iterate_dead_owners, remove_if_empty
from tests.store.inspection import run_python_until_it_dies

_DIE = """
import os, signal, sys
from pathlib import Path
from scopefs.store.owners import Owner
owner = Owner(Path(sys.argv[1]))
owner.next_path().write_bytes(b"x")
print(owner.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def list_dead(staging: Path) -> list[str]:
    """The names of the owners that are dead."""
    return [directory.name for directory in iterate_dead_owners(staging)]


def test_living_owner_is_not_dead(tmp_path: Path) -> None:
    """An owner that is open is nobody's to recover."""
    owner = Owner(tmp_path)
    assert list_dead(tmp_path) == []
    owner.close()


def test_killed_owner_is_dead(tmp_path: Path) -> None:
    """After kill -9 the lock is free, whoever looks."""
    name = run_python_until_it_dies(_DIE, tmp_path).strip()
    assert list_dead(tmp_path) == [name]


def test_dead_owner_is_looked_after_by_one_at_a_time(tmp_path: Path) -> None:
    """While somebody looks after a dead owner, others pass it by."""
    run_python_until_it_dies(_DIE, tmp_path)
    first = iterate_dead_owners(tmp_path)
    next(first)
    assert list_dead(tmp_path) == []
    first.close()
    assert len(list_dead(tmp_path)) == 1


def test_closed_owner_leaves_nothing(tmp_path: Path) -> None:
    """A clean close removes the directory."""
    Owner(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_closed_owner_leaves_its_staging_files(tmp_path: Path) -> None:
    """Files that a settle still needs stay when their owner closes, and the owner is dead then."""
    owner = Owner(tmp_path)
    owner.next_path().write_bytes(b"x")
    owner.close()
    assert list_dead(tmp_path) == [owner.name]
    assert owners.list_files(owner.directory) == ["1"]


def test_staging_paths_differ(tmp_path: Path) -> None:
    """No two staging files of an owner share a path."""
    owner = Owner(tmp_path)
    assert len({owner.next_path() for _ in range(100)}) == 100
    owner.close()


@pytest.mark.parametrize("has_lock", [False, True])
def test_rest_of_a_cut_making_is_removed(tmp_path: Path, has_lock: bool) -> None:
    """An owner's directory that was never finished goes at the next open."""
    making = tmp_path / "staging" / "0123.new"
    with Vault.open(tmp_path, create=True):
        pass
    making.mkdir()
    if has_lock:
        (making / "lock").touch()
    with Vault.open(tmp_path):
        assert not making.exists()


def test_directory_with_files_is_not_removed(tmp_path: Path) -> None:
    """Only an empty directory goes."""
    owner = Owner(tmp_path)
    owner.next_path().write_bytes(b"x")
    remove_if_empty(owner.directory)
    assert owner.directory.exists()
    (owner.directory / "1").unlink()
    owner.close()


def test_owner_in_the_making_is_left_alone_before_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that looks for dead owners just then takes nothing from one that is being made."""
    open_lock = owners._open_lock
    looks = iter([True])

    def look_first(path: Path, *, create: bool) -> int:
        if create and next(looks, False):
            list_dead(tmp_path)
        return open_lock(path, create=create)

    monkeypatch.setattr(owners, "_open_lock", look_first)
    Owner(tmp_path).close()


def test_owner_in_the_making_is_left_alone_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same between the making of the lock file and its locking."""
    open_lock = owners._open_lock
    looks = iter([True])

    def look_then(path: Path, *, create: bool) -> int:
        lock = open_lock(path, create=create)
        if create and next(looks, False):
            for directory in iterate_dead_owners(tmp_path):
                remove_if_empty(directory)
        return lock

    monkeypatch.setattr(owners, "_open_lock", look_then)
    Owner(tmp_path).close()


def test_lock_is_not_inherited(tmp_path: Path) -> None:
    """A program that is started does not keep its parent's lock alive."""
    owner = Owner(tmp_path)
    assert not os.get_inheritable(owner._lock)
    owner.close()
