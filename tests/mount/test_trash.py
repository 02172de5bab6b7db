"""`rm` in `.versions/`, and the views `.scopefs/trash/` and `.scopefs/partial/`."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs import Vault
from tests.mounting import Mounted, run_scopefs, wait_until
from tests.store.inspection import check_whole

LARGE = bytes(range(256)) * 400


def stamps(scope: Path) -> list[str]:
    """The versions of a scope, oldest first."""
    return sorted(name for name in os.listdir(scope / ".versions") if name != "latest.json")


def only(directory: Path) -> Path:
    """The only entry of a directory."""
    (name,) = os.listdir(directory)
    return directory / name


def load_view(mounted: Mounted, scope: Path, entry: str) -> Path:
    """Where a scope stands in the view of an entry."""
    trash = mounted.point / ".scopefs" / "trash"
    (found,) = (name for name in os.listdir(trash) if name.endswith(f"-{entry}"))
    return trash / found / scope.relative_to(mounted.point)


def last_entry(mounted: Mounted) -> str:
    """The number of the newest entry."""
    done = run_scopefs("trash", "list", "-n", "1", vault=mounted.vault)
    return str(done.stdout.split()[0].decode())


def test_rm_of_a_version_moves_it_to_the_trash(shared: Mounted, scope: Path) -> None:
    """The name shows the version before, and `restore` brings the version back."""
    (scope / "n").write_bytes(b"1")
    (scope / "n").write_bytes(b"22")
    first, second = stamps(scope)
    envelope = (scope / ".versions" / second).read_bytes()
    (scope / ".versions" / second).unlink()
    assert stamps(scope) == [first]
    assert (scope / "n").read_bytes() == b"1"
    assert (scope / "n").stat().st_size == 1
    entry = last_entry(shared)
    view = load_view(shared, scope, entry)
    assert (view / ".versions" / second).read_bytes() == envelope
    assert (view / "n").read_bytes() == b"22"
    run_scopefs("trash", "restore", entry, vault=shared.vault)
    assert stamps(scope) == [first, second]
    assert (scope / "n").read_bytes() == b"22"
    assert not view.exists()


def test_name_ends_with_its_last_version(shared: Mounted, scope: Path) -> None:
    """Without a version before, the name ends."""
    (scope / "n").write_bytes(b"1")
    only_stamp = stamps(scope)[0]
    (scope / ".versions" / only_stamp).unlink()
    assert os.listdir(scope) == []
    with pytest.raises(FileNotFoundError):
        (scope / ".versions" / only_stamp).unlink()


def test_what_cannot_be_removed(shared: Mounted, scope: Path) -> None:
    """latest.json, .history, the views of .scopefs and what is in them."""
    (scope / "n").write_bytes(b"1")
    payload = next(path for path in (scope / ".history/n").iterdir() if not path.is_symlink())
    for path in (scope / ".versions/latest.json", payload):
        with pytest.raises(PermissionError) as caught:
            path.unlink()
        assert caught.value.errno == errno.EPERM
    (scope / ".versions" / stamps(scope)[0]).unlink()
    view = load_view(shared, scope, last_entry(shared))
    for path in (view / "n", *(view / ".versions").iterdir()):
        with pytest.raises(PermissionError):
            path.unlink()
        with pytest.raises(PermissionError):
            path.write_bytes(b"x")
    with pytest.raises(PermissionError):
        (view / "new").mkdir()


def test_trash_shows_the_tree_as_it_was(shared: Mounted, scope: Path, tmp_path: Path) -> None:
    """A removed scope can be copied out of the view, folders, links, empty files and all."""
    (scope / "My Folder" / "In It").mkdir(parents=True)
    (scope / "My Folder" / "In It" / "b").write_bytes(LARGE)
    (scope / "a.json").write_bytes(b'{"a": 1}')
    (scope / "a.json").chmod(0o640)
    os.utime(scope / "a.json", ns=(5, 123_456_789))
    (scope / "empty").touch()
    (scope / "link").symlink_to("a.json")
    (scope / "sub").mkdir()
    (scope / "sub" / "c").write_bytes(b"stays")
    subprocess.run(["cp", "-a", scope, tmp_path / "before"], check=True)
    versions = {name: (scope / ".versions" / name).read_bytes() for name in stamps(scope)}
    name = ".".join(scope.relative_to(shared.point).parts)
    run_scopefs("rm", name, vault=shared.vault)
    assert os.listdir(scope) == ["sub"]
    view = load_view(shared, scope, last_entry(shared))
    subprocess.run(["cp", "-r", "--preserve=timestamps", view, tmp_path / "after"], check=True)
    found = {path.name: path.read_bytes() for path in (tmp_path / "after" / ".versions").iterdir()}
    assert found == versions
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", "-x", ".versions", tmp_path / "before",
         tmp_path / "after"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compared.stdout == f"Only in {tmp_path}/before: sub\n"
    assert (view / "a.json").stat().st_mtime_ns == 123_456_789
    assert (view / "a.json").stat().st_mode & 0o777 == 0o440
    assert (scope / "sub" / "c").read_bytes() == b"stays"


def test_trash_view_lists_many(shared: Mounted, scope: Path) -> None:
    """More names and versions than a page, each once."""
    for n in range(300):
        (scope / f"n{n}").write_bytes(b"%d" % n)
    run_scopefs("rm", ".".join(scope.relative_to(shared.point).parts), vault=shared.vault)
    view = load_view(shared, scope, last_entry(shared))
    names = os.listdir(view)
    assert sorted(names) == sorted([".versions", *(f"n{n}" for n in range(300))])
    assert len(os.listdir(view / ".versions")) == 300
    assert (view / "n299").read_bytes() == b"299"


def test_control_directory_lists_the_views(shared: Mounted) -> None:
    """`ls .scopefs` shows them, and they are read-only directories."""
    names = os.listdir(shared.point / ".scopefs")
    assert {"trash", "partial"} <= set(names)
    assert len(names) == len(set(names))
    for name in ("trash", "partial"):
        assert (shared.point / ".scopefs" / name).stat().st_mode & 0o777 == 0o555
        with pytest.raises(FileNotFoundError):
            (shared.point / ".scopefs" / name / "no such").stat()


def test_partial_writes_are_shown(shared: Mounted) -> None:
    """Bytes and story as they are on the disk."""
    stem = "2026-01-21T10-00-00Zu000000-01234567"
    (shared.vault / "partial" / f"{stem}.bin").write_bytes(LARGE)
    (shared.vault / "partial" / f"{stem}.json").write_bytes(b'{"reason": "a test"}\n')
    view = shared.point / ".scopefs" / "partial"
    assert sorted(os.listdir(view)) == [f"{stem}.bin", f"{stem}.json"]
    assert (view / f"{stem}.bin").read_bytes() == LARGE
    assert (view / f"{stem}.json").read_bytes() == b'{"reason": "a test"}\n'
    with pytest.raises(PermissionError):
        (view / f"{stem}.bin").unlink()
    run_scopefs("partial", "drop", "01234567", vault=shared.vault)
    assert os.listdir(view) == []


def test_mount_empties_what_is_old(start: Callable[..., Mounted], tmp_path: Path) -> None:
    """With keep_days in config.toml; without it a mount never does."""
    root = tmp_path / "vault"
    with Vault.open(root, create=True) as vault:
        vault.put("my.files", b"1", name="n")
        vault.delete_scope("my.files")
    mounted = start()
    mounted.stop()
    with Vault.open(root) as vault:
        assert len(vault.trash()) == 1
    (root / "config.toml").write_text("[trash]\nkeep_days = 0.0000001\n")
    mounted = start()
    wait_until(lambda: os.listdir(mounted.point / ".scopefs" / "trash") == [])
    wait_until(lambda: "emptied what was in the trash" in mounted.log)
    mounted.stop()
    with Vault.open(root) as vault:
        check_whole(vault)
