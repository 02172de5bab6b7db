"""docs/security.md: what a mount lets in, who may read the vault's files, what is never logged."""

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounting import Mounted, run_scopefs, wait_until

Start = Callable[..., Mounted]
PAYLOAD = "Payload-Zx9Qw7"
WRONG_TOKEN = "Token-Zx9Qw7"


def mount_options(point: Path) -> set[str]:
    """What the kernel and FUSE were told."""
    text = subprocess.check_output(
        ["findmnt", "-rno", "OPTIONS", "--mountpoint", point], text=True
    )  # fmt: skip
    return set(text.strip().split(","))


def test_options_that_keep_others_and_their_programs_out(start: Start) -> None:
    """No device, no set-user-ID program, the kernel checks the bits; others only if asked for."""
    mounted = start()
    found = mount_options(mounted.point)
    assert {"nosuid", "nodev", "default_permissions"} <= found
    assert "allow_other" not in found
    mounted.stop()


def test_whoever_looks_into_the_vault_is_its_user(tmp_path: Path) -> None:
    """Directories 0700, files 0600, whatever the umask: of every kind that a vault has."""
    vault, point = tmp_path / "vault", tmp_path / "mnt"
    run_scopefs("mount", point, vault=vault, umask=0)
    try:
        scope = point / "my" / "files"
        scope.mkdir(parents=True)
        for name, size in {"a": 10, "b": 70_000, "c": 3_000_000, ".a.swp": 10}.items():
            (scope / name).write_bytes(b"x" * size)
        (scope / "d.json").write_text('{"a": 1}')
        with pytest.raises(OSError, match="Invalid argument"):
            (point / "Refused").mkdir()
        subprocess.run(["sh", "-c", 'exec > "$1/e"; echo x; kill -9 $$', "sh", scope], check=False)
        run_scopefs("settle", vault=vault, umask=0)
        run_scopefs("put", "my.other", "-", vault=vault, input=b"{}", umask=0)
        run_scopefs("rm", "my.other", vault=vault, umask=0)
        run_scopefs("token", "add", "phone", vault=vault, umask=0)
        run_scopefs("verify", vault=vault, umask=0)
    finally:
        run_scopefs("umount", point, vault=vault)
    for command in ("reindex", "status"):
        run_scopefs(command, vault=vault, umask=0)
    found = {path: path.lstat().st_mode for path in [vault, *vault.rglob("*")]}
    kinds = {path.relative_to(vault).parts[0] for path in found if path != vault}
    assert {"data", "blobs", "events", "index.db", "logs", "partial", "trash", "staging"} <= kinds
    open_to_others = [
        f"{path.relative_to(vault)} {stat.S_IMODE(mode):o}"
        for path, mode in found.items()
        if stat.S_IMODE(mode) != (0o700 if stat.S_ISDIR(mode) else 0o600)
    ]
    assert open_to_others == []


def test_no_secrets_in_logs(start: Start, tmp_path: Path) -> None:
    """Neither payloads nor tokens, at the most talkative level; names, scopes and errors are."""
    socket = tmp_path / "door"
    mounted = start("vault", "mnt", "--log-level", "debug", "--http", f"unix:{socket}")
    token = run_scopefs("token", "show", vault=mounted.vault).stdout.decode().strip()
    scope = mounted.make_scope()
    (scope / "a.txt").write_text(PAYLOAD)
    with pytest.raises(OSError, match="Invalid argument"):
        (mounted.point / "a.txt").write_text(PAYLOAD)
    for given in (token, WRONG_TOKEN):
        ask(socket, "POST", "/v1/data/my.posted", given, f'{{"a": "{PAYLOAD}"}}')
        ask(socket, "POST", "/v1/data/Wrong", given, f'{{"a": "{PAYLOAD}"')
        ask(socket, "GET", "/v1/data/my.files", given)
    wait_until(lambda: "my.posted" in mounted.log)
    mounted.stop()
    logs = [mounted.log, *(path.read_text() for path in (mounted.vault / "logs").iterdir())]
    assert any("a.txt" in text for text in logs)
    for secret in (PAYLOAD, WRONG_TOKEN, token):
        assert not any(secret in text for text in logs)


def ask(socket: Path, method: str, path: str, token: str, body: str | None = None) -> None:
    """Send a request through a Unix socket, and read the answer."""
    command = ["curl", "-s", "--unix-socket", socket, "-X", method, f"http://localhost{path}",
               "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json",
               *(["-d", body] if body is not None else [])]  # fmt: skip
    assert subprocess.check_output(command)
