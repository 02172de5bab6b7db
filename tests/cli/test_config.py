"""What is configured, as commands see it: `scopefs config`, and flags (semantics O1 to O3)."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs.cli.mount import _FLAGS
from scopefs.cli.mount import command as mount_command
from scopefs.store.config import OPTIONS
from tests.mounting import Mounted, run_scopefs

Start = Callable[..., Mounted]


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file."""
    path = tmp_path / "user.toml"
    monkeypatch.setenv("SCOPEFS_CONFIG", str(path))
    return path


def show(vault: Path, *arguments: str, **options: object) -> dict[str, tuple[object, str]]:
    """All options: value and origin."""
    done = run_scopefs("config", "show", "--json", *arguments, vault=vault, **options)
    return {row["option"]: (row["value"], row["from"]) for row in json.loads(done.stdout)}


def test_show_tells_value_and_origin(user: Path, tmp_path: Path) -> None:
    """Of every option; also where no vault is yet."""
    vault = tmp_path / "vault"
    user.write_text("mountpoint = '~/here'\n[mount]\nread_check = false\n")
    vault.mkdir()
    (vault / "config.toml").write_text("[trash]\nkeep_days = 30\n")
    found = show(vault, env={"SCOPEFS_MOUNT_DURABILITY": "relaxed", "HOME": "/home/ada"})
    assert set(found) == set(OPTIONS)
    assert found["vault"] == (str(vault), "SCOPEFS_VAULT")
    assert found["mountpoint"] == ("/home/ada/here", str(user))
    assert found["mount.durability"] == ("relaxed", "SCOPEFS_MOUNT_DURABILITY")
    assert found["mount.read_check"] == (False, str(user))
    assert found["trash.keep_days"] == (30, str(vault / "config.toml"))
    assert found["mount.http_auth"] == ("token", "default")
    assert show(vault, "--vault", str(vault))["vault"] == (str(vault), "--vault")
    text = run_scopefs("config", "show", vault=vault).stdout.decode()
    assert f"mount.read_check       {user}" in text
    assert list(vault.iterdir()) == [vault / "config.toml"]


def test_path_tells_both_files(user: Path, tmp_path: Path) -> None:
    """The user's first."""
    done = run_scopefs("config", "path", vault=tmp_path / "vault")
    assert done.stdout.decode().splitlines() == [str(user), str(tmp_path / "vault/config.toml")]
    done = run_scopefs("config", "path", "--json", vault=tmp_path / "vault")
    assert json.loads(done.stdout)["user"] == str(user)


def test_the_user_s_vault_is_what_commands_mean(user: Path, tmp_path: Path) -> None:
    """Unless $SCOPEFS_VAULT or --vault say otherwise."""
    user.write_text(f"vault = {str(tmp_path / 'mine')!r}\n")
    environment = {"SCOPEFS_VAULT": "", "XDG_DATA_HOME": str(tmp_path / "share")}
    run_scopefs("put", "my.files", "-", input=b"{}", env=environment)
    assert (tmp_path / "mine" / "vault.json").exists()
    run_scopefs("put", "my.files", "-", input=b"{}", vault=tmp_path / "other")
    assert (tmp_path / "other" / "vault.json").exists()


def test_mistakes_end_a_command_with_7(user: Path, tmp_path: Path) -> None:
    """With one line that names file, key, and what was probably meant."""
    user.write_text("[limits]\nmax_file_byte = 1\n")
    done = run_scopefs("put", "my.files", "-", input=b"{}", vault=tmp_path / "v", check=False)
    assert done.returncode == 7
    assert done.stderr.decode() == (
        f"scopefs: {user}: [limits] unknown key 'max_file_byte'; did you mean 'max_file_bytes'?\n"
    )


def test_limits_hold_for_every_door(user: Path, tmp_path: Path) -> None:
    """What the user's file says, `scopefs put` keeps to."""
    user.write_text("[limits]\nmax_file_bytes = 10\n")
    done = run_scopefs("put", "my.files", "-", input=b"x" * 11, vault=tmp_path / "v", check=False)
    assert done.returncode == 2
    assert b"over the limit of this vault, 10" in done.stderr


def test_flags_come_before_all(user: Path, start: Start) -> None:
    """-o, then flags, then what is configured: as the mount then behaves."""
    user.write_text("[mount]\ndurability = 'relaxed'\nread_check = true\n"
                    "[scratch]\npatterns = ['*.none']\n"
                    "[limits]\nmax_file_bytes = 10\n")  # fmt: skip
    mounted = start()
    status = json.loads((mounted.point / ".scopefs" / "status.json").read_text())
    assert status["durability"] == "relaxed"
    with pytest.raises(OSError, match="File too large"):
        (mounted.make_scope() / "a.txt").write_text("x" * 11)
    mounted.stop()
    mounted = start("vault", "mnt", "--durability", "strict", "--scratch", "*.x",
                    "--scratch", "*.y", "-o", "max_file_bytes=20",
                    "--max-file-bytes", "5")  # fmt: skip
    status = json.loads((mounted.point / ".scopefs" / "status.json").read_text())
    assert status["durability"] == "strict"
    scope = mounted.make_scope()
    for name in ("a.x", "a.y", "a.none"):
        (scope / name).write_text("x" * 20)
    assert len(list((scope / ".history").iterdir())) == 1
    with pytest.raises(OSError, match="File too large"):
        (scope / "a.txt").write_text("x" * 21)
    mounted.stop()


def test_in_the_background_it_is_the_same(user: Path, tmp_path: Path) -> None:
    """The mount that works on has what the command was told; its place is from the user's file."""
    point = tmp_path / "there"
    user.write_text(f"mountpoint = {str(point)!r}\n[mount]\ndurability = 'relaxed'\n")
    run_scopefs("mount", "-o", "umask=077", vault=tmp_path / "vault")
    try:
        status = json.loads((point / ".scopefs" / "status.json").read_text())
        assert status["durability"] == "relaxed"
        assert os.stat(point).st_mode & 0o777 == 0o700
    finally:
        run_scopefs("umount", str(point), vault=tmp_path / "vault")


def test_every_option_has_a_flag() -> None:
    """Of `scopefs mount`; `vault` and `mountpoint` are its option and its argument."""
    assert set(_FLAGS.values()) | {"vault", "mountpoint"} == set(OPTIONS)
    assert set(_FLAGS) <= {parameter.name for parameter in mount_command.params}
