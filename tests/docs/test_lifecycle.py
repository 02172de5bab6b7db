"""README.md, the end of things: uninstalling keeps the vault, really deleting leaves nothing."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.mount.point import is_mounted
from tests.docs.test_semantics import read_steps, to_pattern
from tests.mounting import Mounted, run_scopefs, wait_until

README = Path(__file__).parents[2] / "README.md"

SIZES = {"tiny": 10, "small": 3000, "staged": 30_000, "large": 70_000, "huge": 3_000_000}
"""Of payloads: some are kept in envelopes, some in index.db until they are settled, some never."""


def read_paragraph(title: str) -> str:
    """A paragraph of the README by its bold title, with the block behind it."""
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"^\*\*{title}:\*\* .*?(?=^\*\*|^## )", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"README.md has no paragraph {title!r}"
    return found[0]


def is_said(title: str, *commands: str) -> bool:
    """Whether a paragraph names commands as they are run here."""
    return all(f"`{command}" in read_paragraph(title) for command in commands)


# Uninstall

_SYSTEMCTL = """\
#!/bin/sh
case "$*" in
*"restart scopefs@"*) exec scopefs mount ;;
*"disable --now scopefs@"*) exec scopefs umount ;;
esac
"""


def test_uninstall(tmp_path: Path) -> None:
    """As the paragraph has it: no unit, program, mount or configuration; nothing but the vault."""
    paragraph = read_paragraph("Uninstall")
    assert is_said("Uninstall", "scopefs service remove")
    steps = read_steps(re.findall(r"```console\n(.*?)```", paragraph, re.DOTALL)[0])
    home, root = tmp_path / "home", tmp_path / "home" / "checkout"
    program = root / ".venv" / "bin" / "scopefs"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scopefs "$@"\n')
    link = home / ".local" / "bin" / "scopefs"
    link.parent.mkdir(parents=True)
    link.symlink_to(program)
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(_SYSTEMCTL)
    for path in (program, systemctl):
        path.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name[:4] not in ("XDG_", "SCOP")}
    environment = {
        **kept, "HOME": str(home), "SCOPEFS_MOUNTPOINT": str(home / "vault"),
        "PATH": f"{link.parent}:{systemctl.parent}:{os.environ['PATH']}", "LC_ALL": "C",
    }  # fmt: skip

    def shell(command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command], cwd=root, env=environment, check=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        ).stdout  # fmt: skip

    vault = home / ".local/share/scopefs/vault"
    config = home / ".config" / "scopefs" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[log]\nlevel = 'debug'\n")
    shell("scopefs service install")
    try:
        assert is_mounted(home / "vault")
        shell(
            "for scope in instagram/profile my/notes test/scope weather/berlin; do"
            " mkdir -p ~/vault/$scope; echo '{\"a\":1}' > ~/vault/$scope/a.json; done"
        )
        said = shell("scopefs service remove")
        assert not is_mounted(home / "vault")
        # Its log is the user's, outside of the vault.
        shell("scopefs mount -o ro && scopefs umount ~/vault")
        # So that there is something to unmount, as there is without a service.
        shell("scopefs mount")
        for step in steps:
            assert to_pattern(step.expected).fullmatch(shell(step.command)) or not step.expected
    finally:
        if is_mounted(home / "vault"):
            subprocess.run(["fusermount3", "-uz", str(home / "vault")], check=False)
    assert f"the vault stays as it is, in {vault}" in said
    left = {path for path in home.rglob("*") if path.is_symlink() or path.is_file()}
    assert {path for path in left if vault not in path.parents} == set()
    # Read without scopefs.
    (envelope,) = (vault / "data/my/notes").glob("*.json")
    assert json.loads(envelope.read_bytes())["data"] == {"a": 1}


# Really delete


def make_secret(name: str, size: int) -> bytes:
    """A payload that is found wherever a part of it is."""
    mark = make_mark(name)
    return mark * (size // len(mark) + 1)


def make_mark(name: str) -> bytes:
    return f"Secret-{name}-Zx9Qw7!".encode()


def find_secrets(root: Path) -> set[str]:
    """Where in the files of a vault a part of a secret stands, as it is or in base64."""
    marks = {
        name: [make_mark(name)] + [
            base64.b64encode(bytes(shift) + make_mark(name))[4:-4] for shift in range(3)
        ]
        for name in [*SIZES, "document", "scratch", "partial"]
    }  # fmt: skip
    return {
        f"{name} in {path.relative_to(root)}"
        for path in root.rglob("*") if path.is_file()
        for content in [path.read_bytes()]
        for name, parts in marks.items() if any(part in content for part in parts)
    }  # fmt: skip


def fill(root: Path) -> None:
    """A vault with secrets of all sizes in `my.secret`, one twice, and something else."""
    with Vault.open(root, create=True) as vault:
        vault.put("my.notes", b"other", name="a.txt")
        for name, size in SIZES.items():
            vault.put("my.secret", make_secret(name, size), name=name)
        vault.put("my.secret", make_secret("small", SIZES["small"]), name="Copies/small")
        for size in (2000, 200_000):
            text = make_secret("document", size).decode()
            vault.put("my.secret", json.dumps({"x": text}).encode(), name=f"{size}.json")
    (root / "partial" / "20260121T100000Z-0aca7344.bin").write_bytes(make_secret("partial", 5000))


REMOVALS = {
    "rm --forever": ["rm --forever my.secret"],
    "rm and trash empty": ["rm my.secret", "trash empty --yes"],
}


@pytest.mark.parametrize("way", REMOVALS)
def test_really_delete(tmp_path: Path, way: str) -> None:
    """No byte of a payload is below the vault's directory; scope, name, time and size are."""
    root = tmp_path / "vault"
    fill(root)
    run_scopefs("reindex", vault=root)
    before = find_secrets(root)
    assert len({where.split()[0] for where in before}) == len(SIZES) + 2
    assert is_said(
        "Really delete", *(f"scopefs {re.sub(' my.*| --yes', '', step)}" for step in REMOVALS[way])
    )
    for command in (*REMOVALS[way], "partial drop --all"):
        run_scopefs(*command.split(), vault=root)
    for path in root.glob("index.db.broken-*"):
        path.unlink()
    assert find_secrets(root) == set()
    assert b"all is well" in run_scopefs("verify", vault=root).stdout
    events = (root / "events").glob("*.jsonl")
    assert "Copies" in "".join(path.read_text() for path in events)
    assert run_scopefs("get", "my.notes", vault=root).stdout == b"other"


def test_really_delete_one_version(tmp_path: Path) -> None:
    """The others of its scope stay."""
    root = tmp_path / "vault"
    with Vault.open(root, create=True) as vault:
        secret = vault.put("my.secret", make_secret("staged", 30_000), name="a")
        vault.put("my.secret", b"stays", name="a")
    assert find_secrets(root)
    run_scopefs("rm", "--forever", "my.secret", secret.stamp, vault=root)
    assert find_secrets(root) == set()
    assert run_scopefs("get", "my.secret", vault=root).stdout == b"stays"


def test_really_delete_in_a_program_that_goes_on(tmp_path: Path) -> None:
    """It need not close the vault first."""
    root = tmp_path / "vault"
    with Vault.open(root, create=True) as vault:
        for name in ("tiny", "small", "staged"):
            vault.put("my.secret", make_secret(name, SIZES[name]), name=name)

        def find() -> bytes:
            # In another process: to close a file that SQLite has open here would drop its locks.
            return subprocess.run(["grep", "-rlF", "Secret-", root], capture_output=True).stdout

        assert b"index.db-wal" in find()
        vault.delete_scope("my.secret", forever=True)
        assert find() == b""


def test_really_delete_while_it_is_mounted(start: Callable[..., Mounted], tmp_path: Path) -> None:
    """Written through the mount, scratch files too, and destroyed beside it."""
    mounted = start("vault", "mnt")
    scope = mounted.make_scope("my.secret")
    for name, size in SIZES.items():
        (scope / name).write_bytes(make_secret(name, size))
        (scope / f".{name}.swp").write_bytes(make_secret("scratch", size))
        (scope / f".{name}.swp").unlink()
    (mounted.make_scope("my.notes") / "a.txt").write_bytes(b"other")
    assert any("index.db-wal" in where for where in find_secrets(mounted.vault))
    run_scopefs("rm", "--forever", "my.secret", vault=mounted.vault)
    wait_until(lambda: find_secrets(mounted.vault) == set(), 10)
    assert (mounted.point / "my/notes/a.txt").read_bytes() == b"other"
    mounted.stop()
    assert find_secrets(mounted.vault) == set()
    mounted.check_log()
