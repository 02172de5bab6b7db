"""Completion with TAB, in real shells, and that it changes nothing and says nothing of errors."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.cli import COMMANDS
from tests.golden.describe import hash_file
from tests.mounting import Mounted, run_scopefs

Complete = Callable[..., list[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A vault with names, versions, a subcategory, trash, and an interrupted write; closed."""
    root = tmp_path / "vault"
    with Vault.open(root, create=True) as vault:
        vault.put("instagram.profile", b'{"a":1}', name="profile.json")
        vault.put("instagram.profile", b'{"a":2}', name="profile.json")
        vault.put("instagram.profile", b"photo", name="My Photos/a b$.jpg")
        vault.put("instagram.posts", b"post", name="p.txt")
        vault.put("weather.berlin", b"rain", name="r.txt")
        vault.delete("weather.berlin", vault.get("weather.berlin").stamp)
    (root / "partial" / "2026-01-21T10-00-00Zu000000-0aca7344.bin").write_bytes(b"half")
    return root


@pytest.fixture
def complete(path: Path) -> Complete:
    """What is offered for the last of some words, as the scripts ask for it."""

    def ask(*words: str, shell: str = "bash", vault: Path = path) -> list[str]:
        done = run_scopefs(
            vault=vault,
            env={"_SCOPEFS_COMPLETE": f"{shell}_complete", "COMP_CWORD": str(len(words)),
                 "COMP_WORDS": " ".join(("scopefs", *words))},
        )  # fmt: skip
        assert done.stderr == b""
        lines = done.stdout.decode().splitlines()
        # The script reads them with `read`, which takes away a backslash.
        return [line.removeprefix("plain,").replace("\\\\", "\\") for line in lines if line]

    return ask


def list_files(root: Path) -> dict[str, object]:
    """All files of a vault with their content and times."""
    return {
        str(found): (found.stat().st_mtime_ns, found.is_file() and hash_file(found))
        for found in root.rglob("*")
    }


def test_commands_and_options(complete: Complete) -> None:
    """Commands by their beginning, options behind a dash."""
    assert complete("") == list(COMMANDS)
    assert complete("re") == ["reindex"]
    assert {"--at", "--stamp", "--name", "--vault"} <= set(complete("get", "--"))
    assert complete("trash", "re") == ["restore"]


@pytest.mark.parametrize(
    "words",
    [("get",), ("ls",), ("log",), ("rm",), ("put",), ("export",), ("partial", "accept", "--scope")],
)  # fmt: skip
def test_scopes(complete: Complete, words: tuple[str, ...]) -> None:
    """Where a scope is wanted, those that there are."""
    assert complete(*words, "insta") == ["instagram.posts", "instagram.profile"]


def test_names(complete: Complete) -> None:
    """The names in the scope that was given, folders included, as the shell has to read them."""
    assert complete("get", "instagram.profile", "--name", "") == [
        "profile.json", r"My\ Photos/a\ b\$.jpg",
    ]  # fmt: skip
    assert complete("get", "instagram.profile", "--name", r"My\ Ph") == [r"My\ Photos/a\ b\$.jpg"]
    assert complete("put", "instagram.profile", "--name", "pro") == ["profile.json"]


def test_stamps(complete: Complete, path: Path) -> None:
    """The versions of the scope that was given, newest first."""
    with Vault.open(path) as vault:
        stamps = [version.stamp for version in vault.versions("instagram.profile")]
    stamps.sort(reverse=True)
    assert complete("get", "instagram.profile", "--stamp", "") == stamps
    begun = stamps[0][:-3]
    found = [stamp for stamp in stamps if stamp.startswith(begun)]
    assert complete("rm", "instagram.profile", begun) == found
    assert complete("rm", "weather.berlin", "") == []


def test_trash_and_partial(complete: Complete, path: Path) -> None:
    """Numbers of entries and ids of writes, but not those that stand there already."""
    with Vault.open(path) as vault:
        entry = str(vault.trash()[0].id)
        vault.put("my.notes", b"x", name="x")
        vault.delete_scope("my.notes")
        newest = str(vault.trash()[0].id)
    assert complete("trash", "restore", "") == [newest, entry]
    assert complete("trash", "empty", newest, "") == [entry]
    assert complete("partial", "accept", "") == ["0aca7344"]
    assert complete("partial", "drop", "0a") == ["0aca7344"]


def test_files_where_a_path_is_wanted(complete: Complete) -> None:
    """The shell completes paths by itself."""
    assert complete("put", "my.notes", "/t") == ["file,/t"]
    assert complete("export", "/t") == ["file,/t"]


def test_vault_is_that_of_the_option(complete: Complete, path: Path, tmp_path: Path) -> None:
    """--vault counts, and no vault is made where there is none."""
    missing = tmp_path / "missing"
    assert complete("get", "", vault=missing) == []
    assert complete("get", "--vault", str(path), "w", vault=missing) == []
    assert complete("get", "--vault", str(path), "insta", vault=missing) == [
        "instagram.posts", "instagram.profile",
    ]  # fmt: skip
    assert not missing.exists()


def test_nothing_is_changed(complete: Complete, path: Path) -> None:
    """Not a file of the vault is made, written or touched."""
    before = list_files(path)
    complete("get", "insta")
    complete("get", "instagram.profile", "--stamp", "")
    complete("trash", "restore", "")
    assert list_files(path) == before


def test_mounted_vault(mounted: Mounted, complete: Complete) -> None:
    """What has just been saved through a mount is offered, though it stands in the WAL alone."""
    (mounted.make_scope("my.notes") / "new.txt").write_text("x")
    (mounted.point / "my" / "notes" / ".versions").iterdir()
    assert complete("get", "my", vault=mounted.vault) == ["my.notes"]
    assert complete("get", "my.notes", "--name", "", vault=mounted.vault) == ["new.txt"]


@pytest.mark.parametrize("damage", ["noise", "empty", "a directory"])
def test_silent_on_errors(complete: Complete, path: Path, damage: str) -> None:
    """A broken vault offers nothing, and says nothing into the prompt."""
    index = path / "index.db"
    index.unlink()
    if damage == "a directory":
        index.mkdir()
    else:
        index.write_bytes(b"" if damage == "empty" else os.urandom(5000))
    assert complete("get", "insta") == []
    assert complete("get", "instagram.profile", "--stamp", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(shell: str, tmp_path: Path) -> None:
    """`scopefs completion` prints what the shell reads without a complaint, and needs no vault."""
    done = run_scopefs("completion", shell, vault=tmp_path / "none")
    assert b"_SCOPEFS_COMPLETE=" in done.stdout
    script = tmp_path / "script"
    script.write_bytes(done.stdout)
    checked = subprocess.run([shell, "-n", script], capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert not (tmp_path / "none").exists()


@pytest.fixture
def environment(path: Path, tmp_path: Path) -> dict[str, str]:
    """A shell's environment in which `scopefs` is this one."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scopefs").write_text(f'#!/bin/sh\nexec {sys.executable} -m scopefs "$@"\n')
    (commands / "scopefs").chmod(0o755)
    place = f"{commands}:{os.environ['PATH']}"
    return {**os.environ, "PATH": place, "SCOPEFS_VAULT": str(path), "HOME": str(tmp_path)}


def press_tab(
    shell: list[str], before: str, typed: str, wanted: str, environment: dict[str, str]
) -> None:
    """Type into an interactive shell in a terminal, TABs too, until it shows what is wanted."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(shell[0], shell, {**environment, "TERM": "dumb", "PS1": "> "})
    shown = ""
    try:
        for text, until in ((f"{before}; echo set''up\n", "setup"), (typed, wanted)):
            os.write(terminal, text.encode())
            deadline = time.monotonic() + 60
            while until not in shown and time.monotonic() < deadline:
                if select.select([terminal], [], [], 1)[0]:
                    shown += os.read(terminal, 4096).decode(errors="replace")
            assert until in shown, shown
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_bash(environment: dict[str, str]) -> None:
    """TAB in bash completes a scope, then a name with odd letters; the line then runs."""
    press_tab(
        ["bash", "--norc", "-i"], 'eval "$(scopefs completion bash)"',
        "scopefs get instagram.pr\t--name My\t\n", "photo", environment,
    )  # fmt: skip


def test_zsh(environment: dict[str, str]) -> None:
    """The same in zsh."""
    press_tab(
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -u -D; eval "$(scopefs completion zsh)"',
        "scopefs get instagram.pr\t--name My\t\n", "photo", environment,
    )  # fmt: skip


def test_fish(environment: dict[str, str]) -> None:
    """fish offers the scopes, and the names as it quotes them."""
    done = subprocess.run(
        ["fish", "--no-config", "-c",
         "scopefs completion fish | source; complete -C 'scopefs get insta'; "
         "complete -C 'scopefs get instagram.profile --name My'"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    found = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert (done.stderr, found) == (
        "", ["instagram.posts", "instagram.profile", "My Photos/a b$.jpg"],
    )  # fmt: skip
