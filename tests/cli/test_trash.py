"""scopefs trash, scopefs partial, scopefs rm --forever: what they print, and how they end."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from scopefs import Vault
from tests.mounting import run_scopefs
from tests.store.inspection import check_whole

Run = Callable[..., "CompletedProcess[bytes]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on the vault."""

    def call(*arguments: object, **options: Any) -> "CompletedProcess[bytes]":
        found: CompletedProcess[bytes] = run_scopefs(
            *map(str, arguments), vault=tmp_path / "vault", **options
        )
        return found

    return call


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A vault with a removed scope, a removed version, and what stays."""
    path = tmp_path / "vault"
    with Vault.open(path, create=True) as vault:
        vault.put("my.files", b"one", name="a.txt")
        second = vault.put("my.files", b"three", name="a.txt")
        vault.put("my.other", b"other", name="b.txt")
        vault.put("my.other.sub", b"stays")
        vault.delete("my.files", second.stamp)
        vault.delete_scope("my.other")
    return path


def listed(run: Run) -> list[dict[str, Any]]:
    """What `trash list --json` tells."""
    found: list[dict[str, Any]] = json.loads(run("trash", "list", "--json").stdout)
    return found


def test_list(run: Run, filled: Path) -> None:
    """A row for each removal, newest first; when it was is told as an age, in JSON as a time."""
    scope, version = listed(run)
    assert (scope["what"], scope["scope"], scope["versionCount"]) == ("scope", "my.other", 1)
    assert (version["what"], version["name"], version["sizeBytes"]) == ("version", "a.txt", 5)
    rows = [re.split("  +", line) for line in run("trash", "list").stdout.decode().splitlines()]
    assert [row[:1] + row[2:] for row in rows] == [
        [str(scope["id"]), "scope", "my.other", "1", "5"],
        [str(version["id"]), "version", "my.files", "1", "5", "a.txt"],
    ]
    assert all(re.fullmatch(r"just now|\d+ seconds ago", row[1]) for row in rows)
    assert all(entry["at"].endswith("Z") for entry in (scope, version))
    assert run("trash", "list", "-n", "1").stdout.count(b"\n") == 1


def test_restore(run: Run, filled: Path) -> None:
    """Several at once; names and versions are back."""
    done = run("trash", "restore", *(entry["id"] for entry in listed(run)))
    assert done.stdout.decode().splitlines() == [
        "my.other: 1 version(s) and 1 name(s) back", "my.files: 1 version(s) and 0 name(s) back",
    ]  # fmt: skip
    assert run("get", "my.files", "--name", "a.txt").stdout == b"three"
    assert run("get", "my.other", "--name", "b.txt").stdout == b"other"
    assert listed(run) == []
    with Vault.open(filled) as vault:
        check_whole(vault)


def test_restore_tells_of_taken_names(run: Run, filled: Path) -> None:
    """In words, on standard error; the command succeeds."""
    run("put", "my.other", "-", "--name", "b.txt", input=b"new")
    entry = listed(run)[0]["id"]
    done = run("trash", "restore", entry)
    assert "the name 'b.txt' is taken by another file and was left" in done.stderr.decode()
    assert "the version is in .versions/" in done.stderr.decode()
    assert run("get", "my.other", "--name", "b.txt").stdout == b"new"


def test_restore_of_nothing(run: Run, filled: Path) -> None:
    """An unknown number is 4, text that is none 2; nothing else is restored."""
    entry = listed(run)[0]["id"]
    assert run("trash", "restore", entry, 99, check=False).returncode == 4
    assert run("trash", "restore", "x", check=False).returncode == 2
    assert run("trash", "restore", check=False).returncode == 2
    assert len(listed(run)) == 2


def test_empty(run: Run, filled: Path) -> None:
    """By number, by age, all."""
    entry = listed(run)[0]["id"]
    done = run("trash", "empty", entry)
    assert done.stdout.decode() == "1 version(s) destroyed (1 entries of the trash, 5 bytes)\n"
    assert json.loads(run("trash", "empty", "--older-than", "1d", "--json").stdout) == {
        "entries": 0, "versions": 0, "sizeBytes": 0,
    }  # fmt: skip
    assert run("trash", "empty", "--older-than", "soon", check=False).returncode == 2
    assert run("trash", "empty", entry, check=False).returncode == 4
    assert len(listed(run)) == 1
    run("trash", "empty")
    assert listed(run) == []
    assert list((filled / "trash").iterdir()) == []
    with Vault.open(filled) as vault:
        check_whole(vault)


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 2), (b"y\n", 0)])
def test_empty_asks_in_a_terminal(run: Run, filled: Path, answer: bytes, left: int) -> None:
    """And does what it is told."""
    control, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "scopefs", "trash", "empty", "--vault", str(filled)],
            stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.write(control, answer)
        _, errors = process.communicate(timeout=30)
    finally:
        os.close(control)
        os.close(terminal)
    assert b"Destroy what is in the trash: all of it?" in errors
    assert process.returncode == (130 if left else 0)
    assert len(listed(run)) == left


def test_rm_forever(run: Run, filled: Path) -> None:
    """Past the trash."""
    before = len(listed(run))
    assert run("rm", "my.files", "--forever").stdout == b"1 version(s) destroyed\n"
    assert len(listed(run)) == before


# Interrupted writes


@pytest.fixture
def partials(tmp_path: Path) -> Path:
    """A vault with an interrupted write of a name, one without a name, and one without a story."""
    path = tmp_path / "vault"
    with Vault.open(path, create=True) as vault:
        vault.put("my.files", b"before", name="A/n")
    place(path, "00000001", b"first", {
        "at": "2026-01-21T10:00:00Z", "reason": "killed", "scope": "my.files", "name": "A/n",
        "process": "cp", "uid": 0,
    })  # fmt: skip
    place(path, "00000002", b"second", {"reason": "disk full", "scope": "my.files"})
    place(path, "00000003", b"third", None)
    return path


def place(vault: Path, partial_id: str, content: bytes, story: dict[str, Any] | None) -> None:
    """Put an interrupted write into partial/."""
    path = vault / "partial" / f"2026-01-21T10-00-00Zu00000{partial_id[-1]}-{partial_id}.bin"
    path.write_bytes(content)
    os.utime(path, ns=(1, 1_000_000_007))
    if story is not None:
        path.with_suffix(".json").write_text(json.dumps(story))


def test_partial_list(run: Run, partials: Path) -> None:
    """What is known about each, oldest first."""
    rows = run("partial", "list").stdout.decode().splitlines()
    assert [" ".join(row.split()) for row in rows] == [
        "00000001 on 2026-01-21 my.files A/n 5 killed cp",
        "00000002 - my.files - 6 disk full -",
        "00000003 - - - 5 - -",
    ]
    found = json.loads(run("partial", "list", "--json").stdout)
    assert [story["id"] for story in found] == ["00000001", "00000002", "00000003"]
    assert found[0]["at"] == "2026-01-21T10:00:00Z"


def test_partial_accept(run: Run, partials: Path) -> None:
    """The bytes are the next version of their name, with their mtime; the files are gone."""
    run("partial", "accept", "00000001", "00000002")
    run("partial", "accept", "00000003", "--scope", "my.rest", "--name", "x")
    assert list((partials / "partial").iterdir()) == []
    with Vault.open(partials) as vault:
        named, *_ = (found for found in vault.versions("my.files") if found.name == b"A/n")
        assert (vault.read_payload(named), named.mtime_ns, named.writer) == (
            b"first", 1_000_000_007, "cp",
        )  # fmt: skip
        assert vault.read_payload(vault.get("my.files", name="A/n")) == b"first"
        assert vault.read_payload(vault.get("my.rest", name="x")) == b"third"
        assert len(vault.versions("my.files")) == 3
        check_whole(vault)


def test_partial_accept_again_makes_no_second_version(run: Run, partials: Path) -> None:
    """Cut between the version and the removal, it ends the second time; nothing is lost or made."""
    for partial_id in ("00000001", "00000002"):
        files = {path: path.read_bytes() for path in (partials / "partial").glob(f"*{partial_id}*")}
        run("partial", "accept", partial_id)
        for path, content in files.items():
            path.write_bytes(content)
        run("partial", "accept", partial_id)
    with Vault.open(partials) as vault:
        assert len(vault.versions("my.files")) == 3
    assert len(list((partials / "partial").iterdir())) == 1


def test_partial_accept_needs_a_scope(run: Run, partials: Path) -> None:
    """Without a story it has to be named; with --all the others are accepted before."""
    done = run("partial", "accept", "00000003", check=False)
    assert done.returncode == 2
    assert "name a scope for it" in done.stderr.decode()
    assert run("partial", "accept", "ffffffff", check=False).returncode == 4
    assert run("partial", "accept", check=False).returncode == 2
    assert len(list((partials / "partial").glob("*.bin"))) == 3


def test_partial_drop(run: Run, partials: Path) -> None:
    """One, or all."""
    assert run("partial", "drop", "00000001").stdout == b"1 interrupted write(s) removed\n"
    assert len(list((partials / "partial").iterdir())) == 3
    run("partial", "drop", "--all")
    assert list((partials / "partial").iterdir()) == []
    assert run("partial", "drop", check=False).returncode == 2
