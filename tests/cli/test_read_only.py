"""Commands on a vault that cannot be written: those that only read answer, others say why not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scopefs import Vault
from tests.mount.test_read_only import unchanged

Run = Callable[..., "CompletedProcess[str]"]

READING = {
    "ls": "my.files  2  14  ...",
    "ls my.files": "7  a.json",
    "get my.files": '{"a":2}',
    "get my.files --name a.json --envelope": '...{"a":2}...',
    "log my.files": "...a.json...",
    "status": "...only looked at...",
    "token show": "...",
    "trash list": "...my.notes...",
    "partial list": "0aca7344...4...",
}  # fmt: skip
"""Commands that change nothing, and a part of what they answer; `...` stands for anything."""

CHANGING = [
    "put my.files {there}/vault.json", "rm my.files", "trash empty --yes", "trash restore 1",
    "partial drop --all", "settle", "import {there}", "token add phone", "reindex", "verify",
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A vault with something for each command."""
    root = tmp_path / "vault"
    with Vault.open(root, create=True) as vault:
        vault.put("my.files", b'{"a":1}', name="a.json")
        vault.put("my.files", b'{"a":2}', name="a.json")
        vault.put("my.notes", b"gone", name="gone.txt")
        vault.delete_scope("my.notes")
    (root / "partial" / "20260121T100000Z-0aca7344.bin").write_bytes(b"half")
    return root


def call(*command: object) -> "CompletedProcess[str]":
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


@pytest.fixture(params=["a read-only file system", "somebody else's"])
def run(request: pytest.FixtureRequest, path: Path) -> Run:
    """Runs a command where the vault cannot be written."""
    scopefs = [sys.executable, "-m", "scopefs"]
    if request.param == "somebody else's":
        # Root without the right to write everything.
        subprocess.run(["chown", "-R", "nobody", path], check=True)
        subprocess.run(["chmod", "-R", "a+rX", path], check=True)
        before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown",
                  "env", f"SCOPEFS_VAULT={path}"]  # fmt: skip
    else:
        script = (
            'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && export SCOPEFS_VAULT="$0"'
            ' && exec "$@"'
        )
        before = ["unshare", "--mount", "sh", "-c", script, path]
    assert call(*before, "touch", path / "x").returncode
    return lambda *arguments: call(*before, *scopefs, *arguments)


@pytest.mark.parametrize("command", READING)
def test_reading_commands_answer(run: Run, path: Path, command: str) -> None:
    """As they do elsewhere; and nothing in the vault is touched."""
    with unchanged(path):
        done = run(*command.split())
    assert (done.returncode, done.stderr) == (0, "")
    for part in READING[command].split("..."):
        assert part in done.stdout


@pytest.mark.parametrize("command", CHANGING)
def test_changing_commands_say_why_not(run: Run, path: Path, command: str) -> None:
    """One sentence that names the vault, and exit code 7; nothing is touched."""
    with unchanged(path):
        done = run(*command.format(there=path).split())
    assert done.returncode == 7, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert str(path) in line
    assert line.endswith(("Read-only file system", "Permission denied"))


def test_json_says_that_it_is_only_looked_at(run: Run) -> None:
    """status --json has it as a member."""
    assert json.loads(run("status", "--json").stdout)["readOnly"] is True


def test_what_is_not_there_is_said_as_ever(run: Run, tmp_path: Path) -> None:
    """4 for a scope, 7 for a vault."""
    assert run("get", "no.such").returncode == 4
    done = run("ls", "--vault", tmp_path / "nothing")
    assert (done.returncode, "is no vault" in done.stderr) == (7, True)


def test_writable_vault_is_opened_as_ever(path: Path) -> None:
    """Reading commands finish there what a crash has left, and say nothing of it."""
    done = call(sys.executable, "-m", "scopefs", "status", "--json", "--vault", path)
    assert "readOnly" not in json.loads(done.stdout)
