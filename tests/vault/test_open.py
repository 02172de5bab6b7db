"""What opening a vault sets in motion."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import ScopefsError
from tests.mounting import wait_until

_PUT_AND_DIE = """
import os, sys
from scopefs import Vault
vault = Vault.open(sys.argv[1], create=True)
vault._settling.stop()
vault.put("my.files", b"{}", name="a.json")
os._exit(0)
"""


def test_what_a_killed_process_published_is_placed_unasked(tmp_path: Path) -> None:
    """An open vault settles what it found staged, though nothing is changed in it."""
    root = tmp_path / "vault"
    subprocess.run([sys.executable, "-c", _PUT_AND_DIE, root], check=True)
    with Vault.open(root) as vault:
        assert vault.status()["unsettled"] == 1
        wait_until(lambda: vault.status()["unsettled"] == 0)
        assert (root / vault.get("my.files").path).is_file()


_STAGE_AND_DIE = """
import os, sys
from scopefs import Vault
from scopefs.model.scope import parse_scope
from scopefs.store import changes, publish, rows
from scopefs.store.publish import StagedState, Write
vault = Vault.open(sys.argv[1], create=True)
scope = vault.apply(changes.ensure_scope, parse_scope("my.files"))
draft = vault.new_draft()
draft.append(b"x" * 100_000)
node = vault.apply(rows.allocate_nodes, 1)
vault.apply_durably(publish.apply_stage, Write(
    vault.owner_name, scope, node, scope, b"file", 0o600, None, draft.seal(b"file")),
    StagedState.CLOSED)
os._exit(0)
"""


def _change_index(root: Path, statement: str) -> None:
    db = apsw.Connection(str(root / "index.db"))
    db.execute(statement)
    db.close()


def _replace(path: Path) -> None:
    """Put a directory in the place of a file."""
    path.unlink(missing_ok=True)
    path.mkdir()


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "no index": lambda root: (root / "index.db").unlink(),
    "index is noise": lambda root: (root / "index.db").write_bytes(os.urandom(10_000)),
    "index is older": lambda root: _change_index(root, "PRAGMA user_version = 1"),
    "index is another's": lambda root: _change_index(
        root, "UPDATE meta SET value = 'x' WHERE key = 'vault_id'"
    ),
    "no table of events": lambda root: _change_index(root, "DROP TABLE events"),
    "no table of scratch files": lambda root: _change_index(root, "DROP TABLE scratch"),
    "a kind that never was": lambda root: _change_index(root, "UPDATE staged SET kind = 9"),
    "no vault.lock": lambda root: _replace(root / "vault.lock"),
    "no write.lock": lambda root: _replace(root / "write.lock"),
    "no settle.lock": lambda root: _replace(root / "settle.lock"),
    "staging is a file": lambda root: (
        shutil.rmtree(root / "staging"), (root / "staging").write_bytes(b""),
    ),
    "no partial": lambda root: (
        _change_index(root, "UPDATE staged SET state = 0"), (root / "partial").rmdir(),
        (root / "partial").write_bytes(b""),
    ),
}  # fmt: skip


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_failed_open_leaves_nothing_open(tmp_path: Path, breakage: str) -> None:
    """Wherever an opening fails, what it had opened is closed: files, locks, threads."""
    root = tmp_path / "vault"
    subprocess.run([sys.executable, "-c", _STAGE_AND_DIE, root], check=True)
    BREAKAGES[breakage](root)
    errors = []
    before = os.listdir("/proc/self/fd"), threading.active_count()
    for _ in range(50):
        with pytest.raises((ScopefsError, OSError)) as raised:
            Vault.open(root)
        errors.append(raised.type)
        # Who keeps an error keeps all that its frames name.
        del raised
    assert (os.listdir("/proc/self/fd"), threading.active_count()) == before
    assert len(set(errors)) == 1
    # Nothing of those that failed passes for an owner that is still living.
    if (root / "staging").is_dir():
        assert len(os.listdir(root / "staging")) <= 1


def test_failed_open_keeps_no_lock_of_a_dead_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever keeps the error can open the vault all the same, and finds what was left."""
    root = tmp_path / "vault"
    subprocess.run([sys.executable, "-c", _STAGE_AND_DIE, root], check=True)

    def fail(*_: object) -> None:
        raise OSError("let fail by a test")

    with monkeypatch.context() as patched:
        patched.setattr("scopefs.store.recover._load_rows", fail)
        with pytest.raises(OSError, match="let fail") as raised:
            Vault.open(root)
    with Vault.open(root) as vault:
        assert vault.get("my.files").payload_size == 100_000
    del raised


def test_failed_close_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thing that cannot be closed does not keep the others open."""

    def fail(*_: object) -> None:
        raise OSError("let fail by a test")

    with Vault.open(tmp_path / "vault", create=True):
        pass
    before = os.listdir("/proc/self/fd"), threading.active_count()
    vault = Vault.open(tmp_path / "vault")
    vault.put("my.files", b"{}")
    monkeypatch.setattr("scopefs.store.owners.remove_if_empty", fail)
    with pytest.raises(OSError, match="let fail"):
        vault.close()
    assert (os.listdir("/proc/self/fd"), threading.active_count()) == before
