"""How a vault begins, and what is not taken for one."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import IndexBroken, NewerFormat, NotAVault, Unavailable
from scopefs.store import atomic
from scopefs.store.layout import Layout, create_vault, load_vault_file
from tests.store.inspection import NOON_US, finish, snapshot, start_python


def make_vault(root: Path) -> Layout:
    """A vault with one version, closed."""
    with Vault.open(root, create=True) as vault:
        vault.put("a.b", b"{}", name="one")
    return vault.layout


def test_new_vault_json_names_format_id_and_time(tmp_path: Path) -> None:
    """vault.json holds format 1, an id, and the time of the clock."""
    layout = create_vault(tmp_path / "v", NOON_US)
    found = json.loads(layout.vault_json.read_bytes())
    assert found.pop("id") == load_vault_file(layout).id != ""
    assert found == {"format": 1, "createdAt": "2026-01-21T12:00:00Z"}


def test_new_vaults_have_different_ids(tmp_path: Path) -> None:
    """No two vaults share an id."""
    ids = {load_vault_file(create_vault(tmp_path / name, NOON_US)).id for name in "ab"}
    assert len(ids) == 2


def test_create_makes_missing_directories_above(tmp_path: Path) -> None:
    """A vault can be made where not even its parent is."""
    with Vault.open(tmp_path / "x" / "y" / "v", create=True) as vault:
        assert vault.put("a.b", b"{}").scope == "a.b"


def test_new_vault_is_durable_from_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of all directories that were made are synced, the topmost one's too.

    Else a power cut takes the whole vault, with what was acknowledged.
    """
    synced: set[Path] = set()
    fsync, libc = os.fsync, atomic._LIBC

    def note(fd: int) -> None:
        fsync(fd)
        synced.add(Path(os.readlink(f"/proc/self/fd/{fd}")))

    def note_all(fd: int) -> int:
        # What is there when it is called; all of it is on one file system.
        synced.update(tmp_path.rglob("*"), [tmp_path])
        return int(libc.syncfs(fd))

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(atomic, "_LIBC", SimpleNamespace(syncfs=note_all))
    root = tmp_path / "x" / "y" / "v"
    create_vault(root, NOON_US)
    assert {root, *list(root.parents)[:3]} <= synced


def test_create_in_an_empty_directory(tmp_path: Path) -> None:
    """An empty directory becomes a vault."""
    with Vault.open(tmp_path, create=True) as vault:
        assert vault.versions("a.b") == []


def test_create_of_an_existing_vault_changes_nothing(tmp_path: Path) -> None:
    """create_vault on a vault leaves every byte of it alone."""
    layout = make_vault(tmp_path / "v")
    before = snapshot(layout.root)
    create_vault(layout.root, NOON_US)
    assert snapshot(layout.root) == before


def test_reopened_vault_keeps_its_versions(tmp_path: Path) -> None:
    """What was put is there after close and open."""
    make_vault(tmp_path / "v")
    with Vault.open(tmp_path / "v", create=True) as vault:
        assert vault.read_payload(vault.get("a.b")) == b"{}"


def test_everything_is_for_the_owner_alone(tmp_path: Path) -> None:
    """Directories have mode 0700 and files 0600, settled and trashed versions included."""
    with Vault.open(tmp_path / "v", create=True) as vault:
        vault.put("a.b.c", os.urandom(20_000), name="blob")
        vault.put("a.b.c", os.urandom(70_000), name="large blob")
        vault.put("a.b.c", b'{"x":"' + b"y" * 70_000 + b'"}', name="large document")
        vault.delete("a.b.c", vault.put("a.b.c", b"{}").stamp)
        vault.settle()
        staged = vault.new_draft()
        staged.append(os.urandom(70_000))
        odd = {
            str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.stat().st_mode))
            for path in (tmp_path / "v").rglob("*")
            if stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)
        }
        staged.discard()
        staged.close()
    assert odd == {}


def test_open_without_create_makes_nothing(tmp_path: Path) -> None:
    """A missing vault is refused, and its directory is not made."""
    with pytest.raises(NotAVault, match="no vault"):
        Vault.open(tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    """A vault of format 2 is refused by name of both formats, and not a byte of it changes."""
    layout = make_vault(tmp_path / "v")
    content = json.loads(layout.vault_json.read_bytes()) | {"format": 2, "more": [1]}
    layout.vault_json.write_text(json.dumps(content))
    before = snapshot(layout.root)
    with pytest.raises(NewerFormat, match=r"format 2.*knows 1"):
        Vault.open(layout.root, create=True)
    assert snapshot(layout.root) == before


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"{}", b'{"format":1}', b'{"format":"1","id":"x"}',
        b'{"format":0,"id":"x","createdAt":"2026-01-21T12:00:00Z"}',
        b'{"format":-1,"id":"x","createdAt":"2026-01-21T12:00:00Z"}',
        b'{"format":1,"id":"\xff","createdAt":"2026-01-21T12:00:00Z"}',
        b"\xff\xfe", b"[" * 100_000,
    ],
)  # fmt: skip
def test_unusable_vault_json_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    """A vault.json that says nothing usable is refused as such, and stays."""
    layout = make_vault(tmp_path / "v")
    layout.vault_json.write_bytes(content)
    before = snapshot(layout.root)
    with pytest.raises(NotAVault, match=r"vault\.json"):
        Vault.open(layout.root, create=True)
    assert snapshot(layout.root) == before


def test_foreign_directory_is_refused_untouched(tmp_path: Path) -> None:
    """A directory that holds something else is not made a vault; the message names it."""
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(NotAVault, match=r"holiday\.jpg"):
        Vault.open(tmp_path, create=True)
    assert snapshot(tmp_path) == {"holiday.jpg": b"x"}


def test_personal_servers_directory_is_recognised(tmp_path: Path) -> None:
    """data/ and index.db without vault.json are a personal server's, and stay as they are."""
    (tmp_path / "data").mkdir()
    (tmp_path / "index.db").write_bytes(b"SQLite format 3\0")
    before = snapshot(tmp_path)
    with pytest.raises(NotAVault, match="personal server"):
        Vault.open(tmp_path, create=True)
    assert snapshot(tmp_path) == before


def test_personal_servers_directory_is_recognised_without_create(tmp_path: Path) -> None:
    """Opening says so too."""
    (tmp_path / "data").mkdir()
    (tmp_path / "index.db").touch()
    with pytest.raises(NotAVault, match="personal server"):
        Vault.open(tmp_path)


def test_file_is_no_vault(tmp_path: Path) -> None:
    """A file where the vault should be is refused in words."""
    (tmp_path / "v").write_bytes(b"")
    with pytest.raises((NotAVault, Unavailable), match=str(tmp_path / "v")):
        Vault.open(tmp_path / "v", create=True)


def test_creation_cut_before_vault_json_is_finished(tmp_path: Path) -> None:
    """Directories, the lock and a temporary vault.json are the rest of a cut creation."""
    for name in ("data", "blobs", "staging"):
        (tmp_path / name).mkdir()
    (tmp_path / "vault.lock").touch()
    (tmp_path / ".vault.json.123.tmp").write_bytes(b'{"form')
    with Vault.open(tmp_path, create=True) as vault:
        assert vault.put("a.b", b"{}").scope == "a.b"


def test_creation_cut_before_the_index_is_finished(tmp_path: Path) -> None:
    """With vault.json there but only half of an index, the index is made anew, the id stays."""
    layout = create_vault(tmp_path / "v", NOON_US)
    vault_id = load_vault_file(layout).id
    layout.index.unlink()
    (layout.root / "index.db.new").write_bytes(b"half")
    (layout.root / "index.db.new-wal").write_bytes(b"half")
    with Vault.open(layout.root, create=True) as vault:
        vault.put("a.b", b"{}")
        assert vault.id == vault_id
    assert not list(layout.root.glob("index.db.new*"))


@pytest.mark.parametrize("create", [False, True])
def test_lost_index_is_never_replaced_by_an_empty_one(tmp_path: Path, create: bool) -> None:
    """A vault with versions but no index.db is broken, not empty."""
    layout = make_vault(tmp_path / "v")
    for path in layout.root.glob("index.db*"):
        path.unlink()
    with pytest.raises(IndexBroken, match="missing"):
        Vault.open(layout.root, create=create)
    assert not layout.index.exists()


# Root may write anywhere, unless it gives that right up.
_UNPRIVILEGED = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)
_TRY_OPEN = """
import sys
from scopefs import Vault
from scopefs.errors import Unavailable
try:
    Vault.open(sys.argv[1], create=True)
except Unavailable as error:
    print(error)
"""


@pytest.mark.parametrize("is_vault", [False, True])
def test_unwritable_directory_is_refused_in_words(tmp_path: Path, is_vault: bool) -> None:
    """Where nothing can be written, neither a new nor an old vault opens, with a clear message."""
    locked = tmp_path / "locked"
    locked.mkdir()
    root = locked / "v"
    if is_vault:
        make_vault(root)
        for path in root.iterdir():
            path.chmod(0o500 if path.is_dir() else 0o400)
        root.chmod(0o500)
    locked.chmod(0o500)
    try:
        done = subprocess.run(
            [*_UNPRIVILEGED, sys.executable, "-c", _TRY_OPEN, str(root)],
            capture_output=True,
            text=True,
        )
    finally:
        locked.chmod(0o700)
        for path in (root, *root.glob("*")) if is_vault else ():
            path.chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert str(root) in done.stdout
    assert "Permission denied" in done.stdout


_CREATE_AND_PUT = """
import sys
from scopefs import Vault
with Vault.open(sys.argv[1], create=True) as vault:
    vault.put("a.b", sys.argv[2].encode())
    print(vault.id)
"""


def test_processes_that_create_at_once_share_one_vault(tmp_path: Path) -> None:
    """Of several creations at once one wins, and all the others use what it made."""
    started = [start_python(_CREATE_AND_PUT, tmp_path / "v", str(n)) for n in range(4)]
    ids = {finish(process) for process in started}
    assert len(ids) == 1
    with Vault.open(tmp_path / "v") as vault:
        payloads = {vault.read_payload(version) for version in vault.versions("a.b")}
    assert payloads == {b"0", b"1", b"2", b"3"}


def test_index_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A creation that is cut while the index is made leaves no index.db."""

    def fail(*_: object) -> None:
        raise RuntimeError("cut")

    with monkeypatch.context() as patched:
        patched.setattr("scopefs.store.layout.write_meta", fail)
        with pytest.raises(RuntimeError):
            create_vault(tmp_path / "v", NOON_US)
    assert not (tmp_path / "v" / "index.db").exists()
    layout = create_vault(tmp_path / "v", NOON_US)
    db = apsw.Connection(str(layout.index))
    found = db.execute("SELECT value FROM meta WHERE key = 'vault_id'").fetchall()
    db.close()
    assert found == [(load_vault_file(layout).id,)]


def test_fresh_file_system_can_be_a_vault(tmp_path: Path) -> None:
    """The lost+found of a new ext4 is nothing foreign."""
    (tmp_path / "v" / "lost+found").mkdir(parents=True)
    with Vault.open(tmp_path / "v", create=True) as vault:
        vault.put("a.b", b"{}")
